//! The files inside edleak-record: the preload library, and the header for marks.

use edleak_collector::start::library::Embedded;

/// The library for the target, built by the build script.
pub(crate) const LIBRARY: Embedded =
    Embedded(include_bytes!(concat!(env!("OUT_DIR"), "/libedleak_preload.so")));

/// The header through which a target sets marks.
pub(crate) const HEADER: &str = include_str!("../include/edleak.h");
