//! The copy of the preload library inside edleak-record.

use edleak_collector::start::library::Embedded;

/// The library for the target, built by the build script.
pub(crate) const LIBRARY: Embedded =
    Embedded(include_bytes!(concat!(env!("OUT_DIR"), "/libedleak_preload.so")));
