//! The files that edleak-record contains: the preload library, and the headers for targets.

use edleak_collector::start::library::Embedded;

/// The preload library, which the build script builds.
pub(crate) const LIBRARY: Embedded =
    Embedded(include_bytes!(concat!(env!("OUT_DIR"), "/libedleak_preload.so")));

/// The names and texts of the headers with which a target sets marks and reports its pools.
pub(crate) const HEADERS: [(&str, &str); 3] = [
    ("edleak.h", include_str!("../include/edleak.h")),
    ("edleak_valgrind.h", include_str!("../include/edleak_valgrind.h")),
    ("edleak_asan.h", include_str!("../include/edleak_asan.h")),
];
