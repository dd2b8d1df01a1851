//! Allocation wrappers of Rust: crates, modules, functions and traits.

/// Rust: the first words of the paths of crates, modules and functions, and types whose trait implementations
/// count as wrappers.
pub(crate) const RUST_PATHS: &[&str] = &[
    "__rustc",
    "__rust_alloc",
    "alloc",
    "hashbrown",
    "indexmap",
    "smallvec",
    "thin_vec",
    "tinyvec",
    "bytes::bytes_mut",
    "bytes::bytes",
    "slab",
    "std::alloc",
    "std::collections",
    "std::io",
    "std::fs",
    "std::path",
    "std::ffi",
    "std::os",
    "std::env",
    "std::net",
    "std::process::Command",
    "std::sync::mpsc",
    "std::sync::mpmc",
    "std::sync::mutex",
    "std::sync::poison::mutex",
    "std::thread::spawn",
    "std::thread::Builder",
    "std::thread::Thread",
    "std::thread::builder",
    "std::thread::thread",
    "std::thread::lifecycle",
    "std::thread::functions",
    "std::thread::scoped",
    "std::sys::alloc",
    "std::sys::pal",
    "std::sys::fs",
    "std::sys::env",
    "std::sys::io",
    "std::sys::net",
    "std::sys::os_str",
    "std::sys::path",
    "std::sys::paths",
    "std::sys::process",
    "std::sys::thread",
    "std::sys_common",
    "core::fmt",
    "core::iter",
    "core::option",
    "core::result",
    "core::convert",
    "core::clone",
    "core::default",
    "core::array",
    "core::slice",
    "core::str",
    "core::char",
    "core::num",
    "core::alloc",
    "edleak_alloc",
];

/// Rust: modules that run a closure only below the function that passed it. So even the closures in these
/// modules are wrappers.
pub(crate) const RUST_CLOSURE_PATHS: &[&str] =
    &["alloc", "hashbrown", "indexmap", "core::iter", "core::option", "core::result"];

/// Rust: traits whose implementations count as wrappers for every type. `GlobalAlloc` stands for a program's
/// own allocator; the others are blanket implementations of `alloc` and `core`.
pub(crate) const RUST_TRAITS: &[&str] =
    &["alloc", "core::alloc", "core::convert::Into", "core::convert::TryInto"];

/// Rust: traits whose implementations run the user's code, for every type.
pub(crate) const RUST_CALL_TRAITS: &[&str] = &["core::ops::function", "core::future", "core::ops::drop"];
