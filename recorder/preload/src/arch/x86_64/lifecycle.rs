//! COLD: x86-64: the three symbols through which `cold::phase` calls the functions of `cold::lifecycle`.
//!
//! `phase` calls these symbols at the start, at a fork, and when a recording begins or ends. So the jumps
//! cost nothing while the library counts, and nothing in a process that is not recorded.
#![allow(unsafe_code)]

use crate::cold::lifecycle;
use edleak_session::header::Header;

// `phase` declares the functions with these types.
const _: extern "C" fn() = lifecycle::start;
const _: extern "C" fn(u32) -> Option<&'static Header> = lifecycle::uncounted;
const _: extern "C" fn() -> Option<&'static Header> = lifecycle::forked;

core::arch::global_asm!(
    ".pushsection .text.edleak_lifecycle,\"ax\",@progbits",
    ".hidden edleak_start, edleak_uncounted, edleak_forked",
    ".globl edleak_start, edleak_uncounted, edleak_forked",
    ".type edleak_start, @function",
    ".type edleak_uncounted, @function",
    ".type edleak_forked, @function",
    "edleak_start: jmp {start}",
    "edleak_uncounted: jmp {uncounted}",
    "edleak_forked: jmp {forked}",
    ".popsection",
    start = sym lifecycle::start,
    uncounted = sym lifecycle::uncounted,
    forked = sym lifecycle::forked,
);
