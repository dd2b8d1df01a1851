//! The allocation wrappers that edleak knows: functions that allocate for their caller. If memory leaks that
//! such a function has allocated, the caller of the function has made the mistake.
//!
//! The list does not contain functions that call a function which the user passes (`std::sort`, the start of
//! a `std::thread`, `FnOnce::call_once`, `catch_unwind`). The compiler may inline the user's function into
//! such a function, and then the frame belongs to the user's code.

mod c;
mod cpp;
mod rust;

pub(crate) use c::{C_FUNCTIONS, OWN_FUNCTIONS};
pub(crate) use cpp::{CPP_PATHS, CPP_STD_MEMBERS};
pub(crate) use rust::{RUST_CALL_TRAITS, RUST_CLOSURE_PATHS, RUST_PATHS, RUST_TRAITS};

/// Libraries in which every function counts as a wrapper. An entry is the part of the soname before the first
/// dot. The compiler cannot inline the user's code into these libraries, and callbacks have their own frames.
pub(crate) const LIBRARIES: &[&str] = &[
    "libc",
    "libm",
    "libdl",
    "librt",
    "libpthread",
    // The dynamic loader. A walk skips a frame of the loader only if the frame is between the frames of
    // malloc and pthread_create.
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

/// Libraries in which an exported function is a wrapper only if its name is in the lists. All internal
/// functions of these libraries count as wrappers, because a stripped library does not contain the names of
/// its internal functions.
pub(crate) const LIBRARIES_INSIDE: &[&str] = &["libglib-2", "libgobject-2"];
