//! Allocation wrappers of Rust: crates, modules, functions and traits.

/// Rust: paths of crates, modules and functions that are wrappers, and of types whose trait implementations
/// are wrappers. Each entry contains only the first words of a path, and matches every path that begins with
/// these words.
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

/// Rust: modules in which every closure is a wrapper, too, because their functions call a closure of the
/// caller only before they return to the caller.
pub(crate) const RUST_CLOSURE_PATHS: &[&str] =
    &["alloc", "hashbrown", "indexmap", "core::iter", "core::option", "core::result"];

/// Rust: traits whose implementations are wrappers for every type. The crates `alloc` and `core` implement
/// the traits in this list for all types, except `GlobalAlloc`, which a program implements for its own
/// allocator.
pub(crate) const RUST_TRAITS: &[&str] =
    &["alloc", "core::alloc", "core::convert::Into", "core::convert::TryInto"];

/// Rust: traits whose implementations may run the user's code, so edleak counts no implementation of these
/// traits as a wrapper.
pub(crate) const RUST_CALL_TRAITS: &[&str] = &["core::ops::function", "core::future", "core::ops::drop"];
