//! The table of the names of allocators' functions. For each name, the table tells which arguments hold the
//! size and the address.
//!
//! A name consists of a prefix and a base name: `_rjem_mallocx` consists of `_rjem_` and `mallocx`.
//! `PREFIXES` lists the base names that belong to each prefix.

use crate::error::{Error, ErrorKind};
use edleak_session::detour::Hook;

/// How a function gets and returns the sizes and addresses of allocations. Arguments are numbered from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// The function returns a new allocation, or null.
    Allocate(Size),
    /// `posix_memalign(out, alignment, size)` stores the address of a new allocation in `*out` and returns 0.
    PosixMemalign,
    /// The function resizes the allocation whose address is argument `old`, and returns the new address. If
    /// the function fails, it returns null.
    Reallocate {
        /// The number of the argument with the address of the old allocation.
        old: u8,
        /// The arguments of the function that hold the new size of the allocation.
        size: Size,
        /// Whether the function frees the old allocation if the function cannot resize it.
        frees_on_failure: bool,
    },
    /// `xallocx(allocation, size, extra, flags)` resizes an allocation without moving it, and returns the
    /// resulting size.
    Resize,
    /// The function frees the allocation whose address is argument 0.
    Free,
    /// The function frees the allocation whose address is argument 0, and relies on the size that the caller
    /// passes.
    FreeSized {
        /// The number of the argument with the size.
        size: u8,
        /// The number of the argument with jemalloc's flags, if the function takes flags. jemalloc's plain
        /// free, `dallocx`, takes the same flags.
        flags: Option<u8>,
    },
    /// The function maps or unmaps memory. The hook gets all arguments of the function.
    Mapping(Hook),
}

/// The arguments that hold the requested size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// One argument holds the size.
    Argument(u8),
    /// The size is the product of two arguments.
    Product(u8, u8),
}

impl Shape {
    /// Whether the function makes new allocations and frees none.
    pub(crate) fn allocates(self) -> bool {
        matches!(self, Shape::Allocate(_) | Shape::PosixMemalign)
    }

    /// Whether the function frees allocations and makes none.
    pub(crate) fn frees(self) -> bool {
        matches!(self, Shape::Free | Shape::FreeSized { .. })
    }
}

const fn allocate(size: u8) -> Shape {
    Shape::Allocate(Size::Argument(size))
}

const fn allocate_product(count: u8, size: u8) -> Shape {
    Shape::Allocate(Size::Product(count, size))
}

const fn reallocate(old: u8, size: u8) -> Shape {
    Shape::Reallocate { old, size: Size::Argument(size), frees_on_failure: false }
}

const fn reallocate_product(old: u8, count: u8, size: u8) -> Shape {
    Shape::Reallocate { old, size: Size::Product(count, size), frees_on_failure: false }
}

const fn free_sized(size: u8) -> Shape {
    Shape::FreeSized { size, flags: None }
}

type Base = (&'static str, Shape);

/// The functions of the C library.
const C_FUNCTIONS: &[Base] = &[
    ("malloc", allocate(0)),
    ("calloc", allocate_product(0, 1)),
    ("realloc", reallocate(0, 1)),
    ("reallocarray", reallocate_product(0, 1, 2)),
    ("free", Shape::Free),
    ("cfree", Shape::Free),
    ("free_sized", free_sized(1)),
    ("free_aligned_sized", free_sized(2)),
    ("posix_memalign", Shape::PosixMemalign),
    ("aligned_alloc", allocate(1)),
    ("memalign", allocate(1)),
    ("valloc", allocate(0)),
    ("pvalloc", allocate(0)),
];

/// The functions of jemalloc for which the C library has no function of the same name.
const JEMALLOC_FUNCTIONS: &[Base] = &[
    ("mallocx", allocate(0)),
    ("rallocx", reallocate(0, 1)),
    ("xallocx", Shape::Resize),
    ("sdallocx", Shape::FreeSized { size: 1, flags: Some(2) }),
    ("dallocx", Shape::Free),
];

/// The functions of tcmalloc for which the C library has no function of the same name.
const TCMALLOC_FUNCTIONS: &[Base] = &[
    ("malloc_skip_new_handler", allocate(0)),
    ("new", allocate(0)),
    ("newarray", allocate(0)),
    ("new_nothrow", allocate(0)),
    ("newarray_nothrow", allocate(0)),
    ("new_aligned", allocate(0)),
    ("newarray_aligned", allocate(0)),
    ("new_aligned_nothrow", allocate(0)),
    ("newarray_aligned_nothrow", allocate(0)),
    ("delete", Shape::Free),
    ("deletearray", Shape::Free),
    ("delete_nothrow", Shape::Free),
    ("deletearray_nothrow", Shape::Free),
    ("delete_aligned", Shape::Free),
    ("deletearray_aligned", Shape::Free),
    ("delete_aligned_nothrow", Shape::Free),
    ("deletearray_aligned_nothrow", Shape::Free),
    ("delete_sized", free_sized(1)),
    ("deletearray_sized", free_sized(1)),
    ("delete_sized_aligned", free_sized(1)),
    ("deletearray_sized_aligned", free_sized(1)),
];

/// The functions of mimalloc.
const MIMALLOC_FUNCTIONS: &[Base] = &[
    ("malloc", allocate(0)),
    ("malloc_small", allocate(0)),
    ("zalloc", allocate(0)),
    ("zalloc_small", allocate(0)),
    ("calloc", allocate_product(0, 1)),
    ("mallocn", allocate_product(0, 1)),
    ("malloc_aligned", allocate(0)),
    ("malloc_aligned_at", allocate(0)),
    ("zalloc_aligned", allocate(0)),
    ("zalloc_aligned_at", allocate(0)),
    ("calloc_aligned", allocate_product(0, 1)),
    ("calloc_aligned_at", allocate_product(0, 1)),
    ("new", allocate(0)),
    ("new_aligned", allocate(0)),
    ("new_nothrow", allocate(0)),
    ("new_aligned_nothrow", allocate(0)),
    ("new_n", allocate_product(0, 1)),
    ("posix_memalign", Shape::PosixMemalign),
    ("memalign", allocate(1)),
    ("aligned_alloc", allocate(1)),
    ("valloc", allocate(0)),
    ("pvalloc", allocate(0)),
    ("heap_malloc", allocate(1)),
    ("heap_malloc_small", allocate(1)),
    ("heap_zalloc", allocate(1)),
    ("heap_calloc", allocate_product(1, 2)),
    ("heap_mallocn", allocate_product(1, 2)),
    ("heap_malloc_aligned", allocate(1)),
    ("heap_malloc_aligned_at", allocate(1)),
    ("heap_zalloc_aligned", allocate(1)),
    ("heap_zalloc_aligned_at", allocate(1)),
    ("heap_calloc_aligned", allocate_product(1, 2)),
    ("heap_calloc_aligned_at", allocate_product(1, 2)),
    ("heap_alloc_new", allocate(1)),
    ("heap_alloc_new_n", allocate_product(1, 2)),
    ("realloc", reallocate(0, 1)),
    ("rezalloc", reallocate(0, 1)),
    ("reallocn", reallocate_product(0, 1, 2)),
    ("recalloc", reallocate_product(0, 1, 2)),
    ("reallocarray", reallocate_product(0, 1, 2)),
    ("reallocf", Shape::Reallocate { old: 0, size: Size::Argument(1), frees_on_failure: true }),
    ("realloc_aligned", reallocate(0, 1)),
    ("realloc_aligned_at", reallocate(0, 1)),
    ("rezalloc_aligned", reallocate(0, 1)),
    ("rezalloc_aligned_at", reallocate(0, 1)),
    ("recalloc_aligned", reallocate_product(0, 1, 2)),
    ("recalloc_aligned_at", reallocate_product(0, 1, 2)),
    ("new_realloc", reallocate(0, 1)),
    ("new_reallocn", reallocate_product(0, 1, 2)),
    ("expand", reallocate(0, 1)),
    ("heap_realloc", reallocate(1, 2)),
    ("heap_rezalloc", reallocate(1, 2)),
    ("heap_reallocn", reallocate_product(1, 2, 3)),
    ("heap_recalloc", reallocate_product(1, 2, 3)),
    ("heap_reallocf", Shape::Reallocate { old: 1, size: Size::Argument(2), frees_on_failure: true }),
    ("heap_realloc_aligned", reallocate(1, 2)),
    ("heap_realloc_aligned_at", reallocate(1, 2)),
    ("heap_rezalloc_aligned", reallocate(1, 2)),
    ("heap_recalloc_aligned", reallocate_product(1, 2, 3)),
    ("free", Shape::Free),
    ("cfree", Shape::Free),
    ("free_aligned", Shape::Free),
    ("free_size", free_sized(1)),
    ("free_size_aligned", free_sized(1)),
];

/// The functions of snmalloc for Rust programs.
const SNMALLOC_FUNCTIONS: &[Base] = &[
    ("rust_alloc", allocate(1)),
    ("rust_alloc_zeroed", allocate(1)),
    ("rust_dealloc", free_sized(2)),
    ("rust_realloc", reallocate(0, 3)),
];

/// The functions of rpmalloc, whose names have no underscore after the prefix.
const RPMALLOC_FUNCTIONS: &[Base] = &[
    ("malloc", allocate(0)),
    ("zalloc", allocate(0)),
    ("calloc", allocate_product(0, 1)),
    ("realloc", reallocate(0, 1)),
    ("free", Shape::Free),
    ("memalign", allocate(1)),
    ("posix_memalign", Shape::PosixMemalign),
    ("aligned_alloc", allocate(1)),
    ("aligned_zalloc", allocate(1)),
    ("aligned_calloc", allocate_product(1, 2)),
    ("aligned_realloc", reallocate(0, 2)),
];

/// The functions of TBB for which the C library has no function of the same name.
const SCALABLE_FUNCTIONS: &[Base] =
    &[("aligned_malloc", allocate(0)), ("aligned_realloc", reallocate(0, 1)), ("aligned_free", Shape::Free)];

/// The internal names of Google's tcmalloc for the functions `malloc`, `operator new` and others.
const TCMALLOC_INTERNAL_FUNCTIONS: &[Base] = &[
    ("Malloc", allocate(0)),
    ("Calloc", allocate_product(0, 1)),
    ("Realloc", reallocate(0, 1)),
    ("Memalign", allocate(1)),
    ("AlignedAlloc", allocate(1)),
    ("PosixMemalign", Shape::PosixMemalign),
    ("New", allocate(0)),
    ("NewArray", allocate(0)),
    ("NewNothrow", allocate(0)),
    ("NewArrayNothrow", allocate(0)),
    ("NewAligned", allocate(0)),
    ("Free", Shape::Free),
    ("Cfree", Shape::Free),
    ("Delete", Shape::Free),
    ("DeleteArray", Shape::Free),
    ("DeleteSized", free_sized(1)),
    ("DeleteArraySized", free_sized(1)),
    ("DeleteSizedAligned", free_sized(1)),
    ("Sdallocx", Shape::FreeSized { size: 1, flags: Some(2) }),
];

/// The symbols of C++'s operators new and delete.
const OPERATORS: &[Base] = &[
    ("_Znwm", allocate(0)),
    ("_Znam", allocate(0)),
    ("_ZnwmRKSt9nothrow_t", allocate(0)),
    ("_ZnamRKSt9nothrow_t", allocate(0)),
    ("_ZnwmSt11align_val_t", allocate(0)),
    ("_ZnamSt11align_val_t", allocate(0)),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", allocate(0)),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", allocate(0)),
    ("_ZdlPv", Shape::Free),
    ("_ZdaPv", Shape::Free),
    ("_ZdlPvRKSt9nothrow_t", Shape::Free),
    ("_ZdaPvRKSt9nothrow_t", Shape::Free),
    ("_ZdlPvSt11align_val_t", Shape::Free),
    ("_ZdaPvSt11align_val_t", Shape::Free),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", Shape::Free),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", Shape::Free),
    ("_ZdlPvm", free_sized(1)),
    ("_ZdaPvm", free_sized(1)),
    ("_ZdlPvmSt11align_val_t", free_sized(1)),
    ("_ZdaPvmSt11align_val_t", free_sized(1)),
];

/// The known prefixes, each with its base names. If one prefix is the beginning of another prefix, the longer
/// prefix comes first.
const PREFIXES: &[(&str, &[&[Base]])] = &[
    ("_rjem_je_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("_rjem_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("__je_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("je_arrow_private_je_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("je_arrow_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("je_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("duckdb_je_", &[C_FUNCTIONS, JEMALLOC_FUNCTIONS]),
    ("mi_", &[MIMALLOC_FUNCTIONS]),
    ("tc_", &[C_FUNCTIONS, TCMALLOC_FUNCTIONS]),
    ("TCMallocInternal", &[TCMALLOC_INTERNAL_FUNCTIONS]),
    ("__sn_", &[C_FUNCTIONS, SNMALLOC_FUNCTIONS]),
    ("sn_", &[C_FUNCTIONS, SNMALLOC_FUNCTIONS]),
    ("rp", &[RPMALLOC_FUNCTIONS]),
    ("scalable_", &[C_FUNCTIONS, SCALABLE_FUNCTIONS]),
    ("scalloc_", &[C_FUNCTIONS]),
    ("scudo_", &[C_FUNCTIONS]),
    ("xx", &[C_FUNCTIONS]),
];

/// The kind of interface to which the name of a function belongs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// A name of the C library or of C++. If several modules export the same name of the C library or of C++,
    /// the loader directs all calls to the first of these modules.
    Standard,
    /// A name of jemalloc's own interface, without a prefix. No other allocator defines a function with a
    /// name of this interface.
    Jemalloc,
    /// A name that only one allocator defines.
    Private,
}

/// The prefixes that the user adds to the table. Each prefix is combined with the base names of the C
/// library, jemalloc and tcmalloc.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Prefixes(Vec<String>);

impl Prefixes {
    /// Adds one prefix, written as `prefix*`.
    ///
    /// # Errors
    /// The pattern is not a prefix with a `*` at the end.
    pub fn add(&mut self, pattern: &str) -> Result<(), Error> {
        let is_of_names =
            |prefix: &&str| prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let prefix = pattern.strip_suffix('*').filter(|prefix| !prefix.is_empty());
        let Some(prefix) = prefix.filter(is_of_names) else {
            let message = format!("`{pattern}` is no prefix of the functions of an allocator");
            let remedy = "end it in `*`: 'my_*' stands for my_malloc, my_free and the like";
            return Err(Error::new(ErrorKind::Value, message).with_remedy(remedy));
        };
        self.0.push(prefix.to_owned());
        Ok(())
    }
}

fn find(bases: &[&[Base]], name: &str) -> Option<Shape> {
    bases.iter().copied().flatten().find(|(base, _)| *base == name).map(|(_, shape)| *shape)
}

/// The family of a function. A family is a group of functions that belong to the same allocator of a module,
/// as their names show. The number of a family is computed from the position of the family's prefix in the
/// table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Family(usize);

impl Family {
    /// The family of standard names: the names of the C library and of C++, tcmalloc's names for the same
    /// functions, and jemalloc's names without a prefix.
    pub(crate) const STANDARD: Family = Family(0);
}

/// The entry of the table for a name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TableEntry {
    pub(crate) shape: Shape,
    pub(crate) origin: Origin,
    pub(crate) family: Family,
}

/// The entry of the table for a function name; `None`: the table does not have the name.
pub(crate) fn lookup(name: &str, own: &Prefixes) -> Option<TableEntry> {
    // Remove the symbol version, which follows the name after an `@`.
    let name = name.split('@').next().unwrap_or(name);
    // This fast check rejects most functions of a module, so the table is rarely searched.
    if !may_be_allocators(name) && own.0.is_empty() {
        return None;
    }
    let standard = |origin| move |shape| TableEntry { shape, origin, family: Family::STANDARD };
    let of_standard = find(&[C_FUNCTIONS, OPERATORS], name).map(standard(Origin::Standard));
    let of_jemalloc = || find(&[JEMALLOC_FUNCTIONS], name).map(standard(Origin::Jemalloc));
    let private = |family| move |shape| TableEntry { shape, origin: Origin::Private, family };
    let of_users = || {
        own.0.iter().enumerate().find_map(|(index, prefix)| {
            let base = name.strip_prefix(prefix.as_str())?;
            let shape = find(&[C_FUNCTIONS, JEMALLOC_FUNCTIONS, TCMALLOC_FUNCTIONS], base)?;
            Some(private(Family(1 + PREFIXES.len() + index))(shape))
        })
    };
    let of_table = || {
        PREFIXES.iter().enumerate().find_map(|(index, (prefix, bases))| {
            let shape = find(bases, name.strip_prefix(prefix)?)?;
            let is_tcmalloc = matches!(*prefix, "tc_" | "TCMallocInternal");
            Some(private(if is_tcmalloc { Family::STANDARD } else { Family(1 + index) })(shape))
        })
    };
    of_standard.or_else(of_jemalloc).or_else(of_users).or_else(of_table)
}

/// The functions of libc that map and unmap memory.
const MAPPING_FUNCTIONS: &[(&str, Hook)] = &[
    ("mmap", Hook::Map),
    ("mmap64", Hook::Map),
    ("munmap", Hook::Unmap),
    ("mremap", Hook::Remap),
    ("shmat", Hook::AttachSegment),
    ("shmdt", Hook::DetachSegment),
    ("madvise", Hook::GiveBack),
];
/// Number of different functions in [`MAPPING_FUNCTIONS`]; `mmap` and `mmap64` are the same function.
pub(crate) const MAPPING_HOOKS: usize = 6;

/// The entry for the name of a function that maps or unmaps memory; `None`: `name` is not the name of such a
/// function.
pub(crate) fn lookup_mapping(name: &str) -> Option<TableEntry> {
    let name = name.split('@').next().unwrap_or(name);
    let (_, hook) = MAPPING_FUNCTIONS.iter().find(|(known, _)| *known == name)?;
    let shape = Shape::Mapping(*hook);
    Some(TableEntry { shape, origin: Origin::Standard, family: Family::STANDARD })
}

/// Whether a name is the symbol of an operator new or an operator delete of C++.
pub(crate) fn is_operator(name: &str) -> bool {
    OPERATORS.iter().any(|(operator, _)| *operator == name)
}

fn may_be_allocators(name: &str) -> bool {
    match name.as_bytes() {
        [b'_', b'Z', b'n' | b'd', ..] => true,
        [b'_', b'Z', ..] => false,
        _ => ["lloc", "free", "lign", "new", "delete", "expand", "TCMalloc"]
            .iter()
            .any(|part| name.contains(part)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_known_allocators_have_their_shapes() {
        let none = Prefixes::default();
        let shape = |name: &str| lookup(name, &none).map(|known| (known.shape, known.origin));
        let private = |shape| Some((shape, Origin::Private));
        assert_eq!(shape("malloc"), Some((allocate(0), Origin::Standard)));
        assert_eq!(shape("malloc@@GLIBC_2.2.5"), Some((allocate(0), Origin::Standard)));
        assert_eq!(shape("mallocx"), Some((allocate(0), Origin::Jemalloc)));
        assert_eq!(shape("_rjem_mallocx"), private(allocate(0)));
        assert_eq!(shape("_rjem_je_calloc"), private(allocate_product(0, 1)));
        assert_eq!(shape("duckdb_je_rallocx"), private(reallocate(0, 1)));
        assert_eq!(shape("je_arrow_xallocx"), private(Shape::Resize));
        assert_eq!(shape("je_sdallocx"), private(Shape::FreeSized { size: 1, flags: Some(2) }));
        assert_eq!(shape("mi_heap_malloc_aligned"), private(allocate(1)));
        assert_eq!(shape("mi_malloc_aligned"), private(allocate(0)));
        assert_eq!(shape("tc_deletearray_sized"), private(free_sized(1)));
        assert_eq!(shape("rpaligned_realloc"), private(reallocate(0, 2)));
        assert_eq!(shape("sn_rust_realloc"), private(reallocate(0, 3)));
        assert_eq!(shape("scalloc_malloc"), private(allocate(0)));
        assert_eq!(shape("_ZdlPvm"), Some((free_sized(1), Origin::Standard)));
        for other in [
            "main",
            "xmalloc",
            "je_malloc_usable_size",
            "mi_heap_new",
            "_Znwm.cold",
            "free_list",
            "mi_usable_size",
            "rpnew",
        ] {
            assert_eq!(shape(other), None, "{other}");
        }
    }

    #[test]
    fn every_name_of_the_table_is_found() {
        let none = Prefixes::default();
        for (prefix, bases) in PREFIXES {
            for (base, expected) in bases.iter().copied().flatten() {
                let name = format!("{prefix}{base}");
                let known = lookup(&name, &none).map(|known| (known.shape, known.origin));
                assert_eq!(known, Some((*expected, Origin::Private)), "{name}");
            }
        }
        for (name, expected) in [C_FUNCTIONS, OPERATORS].into_iter().flatten() {
            let known = lookup(name, &none).map(|known| (known.shape, known.origin));
            assert_eq!(known, Some((*expected, Origin::Standard)), "{name}");
        }
    }

    #[test]
    fn prefixes_of_the_user_add_to_the_table() {
        let mut own = Prefixes::default();
        own.add("acme_").expect_err("no star");
        own.add("*").expect_err("every function");
        own.add("a?c*").expect_err("more than a prefix");
        own.add("acme_*").expect("a good prefix");
        let shape = |name: &str| lookup(name, &own).map(|known| (known.shape, known.origin));
        assert_eq!(shape("acme_malloc"), Some((allocate(0), Origin::Private)));
        assert_eq!(shape("acme_dallocx"), Some((Shape::Free, Origin::Private)));
        assert_eq!(shape("acme_main"), None);
    }
}
