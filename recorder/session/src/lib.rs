//! The shared memory of one recorded process: layouts that preload and collector agree on. `no_std`, no policy.
#![cfg_attr(not(test), no_std)]

pub mod rule;
