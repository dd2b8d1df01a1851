//! Recognizes by the name of a library or of a function that a call for mapped memory comes from an
//! allocator.
//!
//! edleak already counts a program's allocations from an allocator as heap memory. So the collector does not
//! also count the memory that the allocator maps, because the same memory would then count twice.

use edleak_binary::elf::Elf;
use edleak_binary::file_bytes::FileBytes;
use edleak_binary::functions::FunctionTable;
use std::path::Path;

/// The beginnings of the file names of allocator libraries and of libc.
const LIBRARIES: &[&str] = &[
    "libjemalloc",
    "libtcmalloc",
    "libmimalloc",
    "libhoard",
    "librpmalloc",
    "libsnmalloc",
    "libscalloc",
    "libtbbmalloc",
    "libhardened_malloc",
    "libisoalloc",
    "libmesh",
    "libclang_rt.scudo",
    "libscudo",
    "libc_malloc_debug.so",
    "libc.so",
    "libc.musl-",
    "ld-linux",
    "ld-musl",
    "libpthread.so",
    "libpthread-",
    "libc-",
];

/// Parts of the names of functions that map memory for an allocator inside a module.
const FUNCTIONS: &[&str] = &[
    "pages_map",
    "pages_commit",
    "os_pages_",
    "extent_alloc_mmap",
    "ehooks_default_",
    "_mi_os_",
    "_mi_prim_",
    "unix_mmap",
    "tcmalloc",
    "TCMalloc",
    "MmapSysAllocator",
    "_rpmalloc_",
    "rpmalloc",
    "snmalloc",
    "scudo",
    "scalloc",
];

/// Whether a file is an allocator library, or libc, which contains an allocator.
pub(crate) fn is_library(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    LIBRARIES.iter().any(|start| name.starts_with(start))
}

/// Whether a file is a library that defines malloc. The result is `false` for a program that defines malloc,
/// because a program also maps memory for other work.
pub(crate) fn is_malloc(file: &Path) -> bool {
    let Ok(bytes) = FileBytes::open(file) else { return false };
    let Ok(elf) = Elf::parse(&bytes) else { return false };
    let functions = FunctionTable::of(&elf).functions;
    let has = |name: &str| functions.iter().any(|function| function.name == name);
    has("malloc") && !has("main")
}

/// The elements of `offsets` that are in functions of an allocator. Each offset is a return address minus the
/// load bias of the module.
pub(crate) fn offsets_in_allocator(file: &Path, offsets: &[u64]) -> Vec<u64> {
    let Ok(bytes) = FileBytes::open(file) else { return Vec::new() };
    let Ok(elf) = Elf::parse(&bytes) else { return Vec::new() };
    let functions = FunctionTable::of(&elf).functions;
    let of_allocator: Vec<_> = functions
        .iter()
        .filter(|function| FUNCTIONS.iter().any(|part| function.name.contains(part)))
        .collect();
    let is_inside = |offset: &u64| {
        // A return address is the address after the call instruction, so subtract 1 to get an address in the
        // call.
        let pc = offset.wrapping_sub(1);
        of_allocator.iter().any(|one| (u64::from(one.start)..u64::from(one.end)).contains(&pc))
    };
    offsets.iter().copied().filter(is_inside).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocators_and_libc_are_known_by_the_names_of_their_files() {
        for path in
            ["/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "/lib/libtcmalloc_minimal.so.4", "/lib/libc.so.6"]
        {
            assert!(is_library(path), "{path}");
        }
        for path in ["/usr/lib/libcairo.so.2", "/usr/bin/node", "/usr/lib/libjvm.so", "", "/opt/libcurl.so"] {
            assert!(!is_library(path), "{path}");
        }
    }

    #[test]
    fn functions_of_an_allocator_are_found_by_offset() {
        let own = std::env::current_exe().expect("Linux has /proc");
        assert!(offsets_in_allocator(&own, &[1, 1 << 40]).is_empty());
        assert!(offsets_in_allocator(Path::new("/dev/null"), &[1]).is_empty());
    }
}
