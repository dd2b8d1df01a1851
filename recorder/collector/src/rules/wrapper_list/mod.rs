//! The allocation wrappers that edleak knows: functions that allocate for their caller and are never
//! themselves the cause of a leak.
//!
//! Deliberately absent: functions that run a function of the caller inside themselves (`std::sort`, the start
//! of a `std::thread`, `FnOnce::call_once`, `catch_unwind`). The compiler may inline the caller's function
//! into these functions; then the frame belongs to the user's code.

mod c;
mod cpp;
mod rust;

pub(crate) use c::{C_FUNCTIONS, OWN_FUNCTIONS};
pub(crate) use cpp::{CPP_PATHS, CPP_STD_MEMBERS};
pub(crate) use rust::{RUST_CALL_TRAITS, RUST_CLOSURE_PATHS, RUST_PATHS, RUST_TRAITS};

/// Libraries in which every function allocates for its caller; the entries are sonames up to the first dot.
/// The compiler cannot inline user code into these libraries, and callbacks have their own frames. The
/// dynamic loader is not one of these libraries.
pub(crate) const LIBRARIES: &[&str] = &[
    "libc",
    "libm",
    "libdl",
    "librt",
    "libpthread",
    // The loader. The walk steps over its frames only between malloc and pthread_create.
    "ld-linux-x86-64",
    "libresolv",
    "libnsl",
    "libanl",
    "libutil",
    "libstdc++",
    "libgcc_s",
    "libc++",
    "libc++abi",
    "libunwind",
];

/// Libraries whose exported functions are wrappers only if a name in the lists matches. All internal
/// functions of these libraries count as wrappers, because a stripped library has no names for them.
pub(crate) const LIBRARIES_INSIDE: &[&str] = &["libglib-2", "libgobject-2"];
