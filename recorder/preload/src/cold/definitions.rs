//! COLD: finds the loaded module that defines a symbol, without the loader's own lookup.
//!
//! A lookup with `dlsym` that fails leaves a message in libc. Only `dlerror` removes this message, and
//! glibc's `dlerror` translates the message first, for which it takes the lock of the locale. The first call
//! of malloc may come from `newlocale` or `setlocale`, which already hold this lock: `dlerror` would then
//! damage the lock, and the program would wait for the lock forever. So the library asks `dlsym` only for
//! symbols that a loaded module defines.
//!
//! The only exception is `dl_iterate_phdr`, with which this module visits the modules. It reads the hash
//! tables of the modules: DT_GNU_HASH, or DT_HASH in a module without it. The formats are in the System V
//! ABI, chapter 5, and in binutils' `elf-hash` (the GNU hash table).
#![allow(unsafe_code)]

use crate::cold::elf;
use core::ffi::{CStr, c_char, c_void};

/// The beginning of libc's `struct dl_phdr_info`.
#[repr(C)]
pub(super) struct ModuleInfo {
    base: usize,
    path: *const c_char,
    headers: *const ProgramHeader,
    header_count: u16,
}

#[repr(C)]
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: usize,
    address: usize,
    physical: usize,
    file_bytes: usize,
    memory_bytes: usize,
    align: usize,
}

/// `Elf64_Sym`.
#[repr(C)]
pub(super) struct Symbol {
    name: u32,
    info: u8,
    other: u8,
    pub(super) section: u16,
    value: usize,
    bytes: usize,
}

type Visit = unsafe extern "C" fn(*const ModuleInfo, usize, *mut c_void) -> i32;
/// The type of libc's `dl_iterate_phdr`.
pub(super) type Iterate = unsafe extern "C" fn(Visit, *mut c_void) -> i32;

/// A search through all loaded modules, in the order in which the loader has loaded them. So a module that a
/// later module needs may come before this library, and a module that `dlopen` has loaded comes last.
struct Search<'a> {
    name: &'a CStr,
    /// Whether only modules after this library count.
    is_behind: bool,
    has_passed_own: bool,
    has_modules: bool,
    /// Whether a module with this path counts; the path of the program is empty.
    is_wanted: fn(*const c_char) -> bool,
    found: Option<*const c_char>,
}

/// The first module that defines a symbol.
pub(super) enum Definer {
    /// A module with this path.
    Module(*const c_char),
    /// No module defines the symbol.
    None,
    /// `dl_iterate_phdr` visited no module, for example because it is a function of the program that is not
    /// ready yet.
    Unknown,
}

/// Finds the first module that defines the symbol `name`. If `is_behind` is true, only modules after this
/// library count. `is_wanted` tells whether a module with a given path counts.
pub(super) fn definer(
    iterate: Iterate,
    name: &CStr,
    is_behind: bool,
    is_wanted: fn(*const c_char) -> bool,
) -> Definer {
    let mut search =
        Search { name, is_behind, has_passed_own: false, has_modules: false, is_wanted, found: None };
    // SAFETY: `visit` has the type that `dl_iterate_phdr` calls, and `search` outlives the call.
    unsafe { iterate(visit, (&raw mut search).cast()) };
    match search.found {
        Some(path) => Definer::Module(path),
        None if search.has_modules => Definer::None,
        None => Definer::Unknown,
    }
}

/// Looks at one module. Returns 1 to end the search.
///
/// # Safety
/// `dl_iterate_phdr` calls this function with a loaded module.
unsafe extern "C" fn visit(info: *const ModuleInfo, _: usize, search: *mut c_void) -> i32 {
    // SAFETY: the pointer is valid for this call.
    let info = unsafe { &*info };
    // SAFETY: the pointer leads to the search of `definer`, which waits for this call.
    let search = unsafe { &mut *search.cast::<Search<'_>>() };
    search.has_modules = true;
    if elf::is_own(info.base) {
        search.has_passed_own = true;
        if search.is_behind {
            return 0;
        }
    }
    if (search.is_behind && !search.has_passed_own) || !(search.is_wanted)(info.path) {
        return 0;
    }
    // SAFETY: the module is loaded, and the loader keeps it until the call returns.
    if unsafe { defines(info, search.name.to_bytes()) } {
        search.found = Some(info.path);
        return 1;
    }
    0
}

/// The tables of a module's dynamic section: addresses in memory; 0: the module has no such table.
#[derive(Default)]
struct Tables {
    symbols: usize,
    names: usize,
    gnu_hash: usize,
    hash: usize,
}

/// Whether a module defines a symbol.
///
/// # Safety
/// The module is loaded.
unsafe fn defines(info: &ModuleInfo, name: &[u8]) -> bool {
    // SAFETY: the module is loaded.
    let Some(tables) = (unsafe { tables_of(info) }) else { return false };
    let is_it = |index: u32| {
        // SAFETY: the index comes from a hash table of the module, so it is an index of its symbol table.
        let symbol = unsafe { &*(tables.symbols as *const Symbol).wrapping_add(index as usize) };
        is_definition(symbol) && {
            let text = (tables.names as *const u8).wrapping_add(symbol.name as usize);
            // SAFETY: the name of a symbol lies in the table of names and ends in NUL. The comparison ends
            // at the first difference.
            let byte = |i: usize| unsafe { text.wrapping_add(i).read() };
            name.iter().enumerate().all(|(i, &of_name)| byte(i) == of_name) && byte(name.len()) == 0
        }
    };
    match (tables.gnu_hash, tables.hash) {
        (0, 0) => false,
        // SAFETY: the loader has found this table in the module's dynamic section.
        (0, hash) => unsafe { any_in_hash(hash as *const u32, sysv_hash(name), is_it) },
        // SAFETY: the loader has found this table in the module's dynamic section.
        (gnu_hash, _) => unsafe { any_in_gnu_hash(gnu_hash as *const u32, gnu_hash_of(name), is_it) },
    }
}

/// Whether a symbol is one that the loader's lookup may return: not undefined, and a function, an object or
/// a symbol without a type.
fn is_definition(symbol: &Symbol) -> bool {
    const SHN_UNDEF: u16 = 0;
    const STT_TLS: u8 = 6;
    const STT_GNU_IFUNC: u8 = 10;
    let kind = symbol.info & 15;
    symbol.section != SHN_UNDEF && symbol.value != 0 && (kind < STT_TLS || kind == STT_GNU_IFUNC)
}

/// # Safety
/// The module is loaded.
unsafe fn tables_of(info: &ModuleInfo) -> Option<Tables> {
    const PT_DYNAMIC: u32 = 2;
    const DT_HASH: usize = 4;
    const DT_STRTAB: usize = 5;
    const DT_SYMTAB: usize = 6;
    const DT_GNU_HASH: usize = 0x6fff_fef5;
    let header = |index: u16| info.headers.wrapping_add(usize::from(index));
    // SAFETY: the loader gives the program headers of the module with their number.
    let dynamic = (0..info.header_count).map(|i| unsafe { &*header(i) }).find(|h| h.kind == PT_DYNAMIC)?;
    let mut entry = (info.base.wrapping_add(dynamic.address)) as *const [usize; 2];
    let mut tables = Tables::default();
    loop {
        // SAFETY: the dynamic section of a loaded module is mapped and ends with an entry of the tag 0.
        let [tag, value] = unsafe { entry.read() };
        match tag {
            0 => break,
            DT_HASH => tables.hash = address_of(info, value)?,
            DT_STRTAB => tables.names = address_of(info, value)?,
            DT_SYMTAB => tables.symbols = address_of(info, value)?,
            DT_GNU_HASH => tables.gnu_hash = address_of(info, value)?,
            _ => {}
        }
        entry = entry.wrapping_add(1);
    }
    (tables.symbols != 0 && tables.names != 0).then_some(tables)
}

/// The address of a table. glibc has replaced the value in the dynamic section by the address; in musl, and
/// in the module of the kernel, the value is still an offset. A module may lie below its link-time address,
/// so only the segments tell the two apart. `None`: the value leads to no segment.
fn address_of(info: &ModuleInfo, value: usize) -> Option<usize> {
    const PT_LOAD: u32 = 1;
    let header = |index: u16| info.headers.wrapping_add(usize::from(index));
    let is_mapped = |address: usize| {
        // SAFETY: the loader gives the program headers of the module with their number.
        let mut headers = (0..info.header_count).map(|i| unsafe { &*header(i) });
        headers.any(|h| {
            let start = info.base.wrapping_add(h.address);
            h.kind == PT_LOAD && address.wrapping_sub(start) < h.memory_bytes
        })
    };
    [value, info.base.wrapping_add(value)].into_iter().find(|&address| is_mapped(address))
}

fn gnu_hash_of(name: &[u8]) -> u32 {
    name.iter().fold(5381, |hash: u32, &byte| hash.wrapping_mul(33).wrapping_add(u32::from(byte)))
}

fn sysv_hash(name: &[u8]) -> u32 {
    name.iter().fold(0, |hash: u32, &byte| {
        let hash = (hash << 4).wrapping_add(u32::from(byte));
        let high = hash & 0xf000_0000;
        (hash ^ (high >> 24)) & !high
    })
}

/// Whether `is_it` is true for the index of any symbol with this hash.
///
/// # Safety
/// `table` is the DT_GNU_HASH table of a loaded module.
unsafe fn any_in_gnu_hash(table: *const u32, hash: u32, is_it: impl Fn(u32) -> bool) -> bool {
    // SAFETY: the table begins with four numbers, which give the lengths of its parts.
    let [buckets, first_symbol, bloom_words, shift] = unsafe { table.cast::<[u32; 4]>().read() };
    if buckets == 0 || bloom_words == 0 {
        return false;
    }
    let bloom = table.wrapping_add(4).cast::<u64>();
    // SAFETY: the index is below the number of words of the Bloom filter.
    let word = unsafe { bloom.wrapping_add((hash / 64 % bloom_words) as usize).read_unaligned() };
    if word >> (hash % 64) & word >> ((hash >> (shift % 32)) % 64) & 1 == 0 {
        return false;
    }
    let heads = bloom.wrapping_add(bloom_words as usize).cast::<u32>();
    let chains = heads.wrapping_add(buckets as usize);
    // SAFETY: the index is below the number of buckets.
    let mut index = unsafe { heads.wrapping_add((hash % buckets) as usize).read() };
    if index < first_symbol {
        return false; // an empty bucket
    }
    loop {
        // SAFETY: a chain has a hash for each symbol from `first_symbol` on, and ends where bit 0 is set.
        let of_symbol = unsafe { chains.wrapping_add((index - first_symbol) as usize).read() };
        if (of_symbol ^ hash) >> 1 == 0 && is_it(index) {
            return true;
        }
        if of_symbol & 1 != 0 {
            return false;
        }
        index += 1;
    }
}

/// Whether `is_it` is true for the index of any symbol with this hash.
///
/// # Safety
/// `table` is the DT_HASH table of a loaded module.
unsafe fn any_in_hash(table: *const u32, hash: u32, is_it: impl Fn(u32) -> bool) -> bool {
    // SAFETY: the table begins with the numbers of its buckets and of its chain entries.
    let [buckets, chains] = unsafe { table.cast::<[u32; 2]>().read() };
    if buckets == 0 {
        return false;
    }
    let heads = table.wrapping_add(2);
    let chain = heads.wrapping_add(buckets as usize);
    // SAFETY: the index is below the number of buckets.
    let mut index = unsafe { heads.wrapping_add((hash % buckets) as usize).read() };
    // The number of steps is limited, so a damaged table with a circle does not hang the program.
    for _ in 0..chains {
        if index == 0 || index >= chains {
            return false;
        }
        if is_it(index) {
            return true;
        }
        // SAFETY: the index is below the number of chain entries.
        index = unsafe { chain.wrapping_add(index as usize).read() };
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ptr;

    unsafe extern "C" {
        fn dl_iterate_phdr(visit: Visit, search: *mut c_void) -> i32;
        fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    }

    /// The reference is the loader's own lookup.
    #[test]
    fn a_symbol_is_defined_where_the_loader_finds_it() {
        let names = [
            c"malloc",
            c"free",
            c"dlsym",
            c"dlvsym",
            c"dlerror",
            c"gnu_get_libc_version",
            c"environ",
            c"time",
            c"memcpy",
            c"gettimeofday",
            c"__libc_stack_end",
            c"pthread_create",
            c"main",
            c"_Znwm",
            c"edleak_no_such_symbol",
            c"",
            c"printf",
            c"_r_debug",
            c"__tls_get_addr",
            c"stdout",
        ];
        for name in names {
            // SAFETY: the name ends in NUL.
            let found = unsafe { dlsym(ptr::null_mut(), name.as_ptr()) };
            let defined = definer(dl_iterate_phdr, name, false, |_| true);
            assert_eq!(matches!(defined, Definer::Module(_)), !found.is_null(), "{name:?}");
        }
        // SAFETY: a path that is not null ends in NUL.
        let is_program = |path: *const c_char| path.is_null() || unsafe { path.read() } == 0;
        assert!(matches!(definer(dl_iterate_phdr, c"malloc", false, is_program), Definer::None));
    }
}
