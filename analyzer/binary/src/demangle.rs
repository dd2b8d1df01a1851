//! Turns mangled names into source names: C++ (Itanium) and Rust (legacy and v0, without the hash).
//! `demangle_other` handles the names of D and Go.
//!
//! The source names have no return types. So a pattern such as `ns::max_of*` also matches function templates,
//! whose mangled names contain a return type. A name stays unchanged if it is not mangled, or if its mangled
//! or demangled form is longer than a limit.

use crate::demangle_other;
use std::borrow::Cow;
use std::fmt;

/// Maximum length of a mangled name in bytes; a name above this limit stays mangled. The longest mangled
/// names in real programs have less than a tenth of this maximum length.
const MAX_MANGLED_BYTES: usize = 64 << 10;

/// Maximum length of a demangled name in bytes. Without a maximum, a short hostile name could expand
/// to any length, because a mangled name can refer to its own earlier parts.
const MAX_DEMANGLED_BYTES: usize = 64 << 10;

/// The code that gcc writes into a mangled name for the `std` in an expression such as
/// `std::is_array<T>::value`.
///
/// The C++ ABI specifies another code, so the crate cpp_demangle 0.5 stops at gcc's code with an error. gcc's
/// code occurs in the return type of functions that use `enable_if`, such as `std::make_shared` up to C++17.
/// When cpp_demangle stops, it has already demangled the function's name and template arguments, but not the
/// parameters. So edleak prints a name without parameters if its mangled form contains `srSt`.
const GCC_STD_IN_EXPRESSION: &str = "srSt";

/// The source name for the mangled name `name`. If `name` is not mangled, the result is `name` itself.
pub fn demangle(name: &str) -> Cow<'_, str> {
    let name = plain(name);
    match try_demangle(name) {
        Some(demangled) => Cow::Owned(demangled),
        None => Cow::Borrowed(name),
    }
}

/// A symbol without the suffix that a compiler or linker added: `f.part.0`, `f.cold`, `f@@V_1`.
pub fn plain(name: &str) -> &str {
    if memchr::memchr2(b'@', b'.', name.as_bytes()).is_none() {
        return name; // most names of a large program have no such suffix
    }
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    // In a legacy Rust name, dots belong to the name, for example in `alloc..vec`, so they do not begin a
    // suffix.
    rust_legacy(name).unwrap_or_else(|| without_clone(name))
}

/// Whether a symbol is a mangled Rust name. A mangled name in Rust's legacy form looks like a C++ name,
/// except for the hash at its end.
pub fn is_rust(name: &str) -> bool {
    name.starts_with("_R") || rust_legacy(name).is_some()
}

/// Whether `name` is a mangled name that this file can demangle.
pub(crate) fn is_mangled(name: &[u8]) -> bool {
    name.starts_with(b"_Z") || name.starts_with(b"_R")
}

/// The name of a function that a compiler split or copied: both `grow.part.0` and `grow.cold` become `grow`.
///
/// In the debug information, `grow.part.0` and `grow.cold` also have the name `grow`. The function removes
/// only suffixes in its list: for example, `main.main` is the full name of a Go function and stays unchanged.
fn without_clone(name: &str) -> &str {
    const CLONES: [&str; 8] =
        ["cold", "part", "isra", "constprop", "lto_priv", "llvm", "clone", "localalias"];
    let is_clone = |(at, _): &(usize, &str)| {
        let suffix = name[at + 1..].split('.').next().unwrap_or_default();
        CLONES.contains(&suffix)
    };
    match name.match_indices('.').find(is_clone) {
        Some((at, _)) if at > 0 => &name[..at],
        _ => name,
    }
}

fn try_demangle(name: &str) -> Option<String> {
    if name.len() > MAX_MANGLED_BYTES {
        return None;
    }
    if name.starts_with("_R") || rust_legacy(name).is_some() {
        let parsed = rustc_demangle::try_demangle(name).ok()?;
        let mut out = Bounded(String::new());
        fmt::write(&mut out, format_args!("{parsed:#}")).ok()?;
        return Some(out.0);
    }
    if name.starts_with("_Z") {
        let (parsed, rest) = cpp_demangle::BorrowedSymbol::with_tail(name.as_bytes()).ok()?;
        let options = cpp_demangle::DemangleOptions::new().no_return_type().hide_expression_literal_types();
        let options = match rest {
            [] => options,
            _ if name.contains(GCC_STD_IN_EXPRESSION) => options.no_params(),
            _ => return None,
        };
        let mut out = Bounded(String::new());
        parsed.structured_demangle(&mut out, &options).ok()?;
        // cpp_demangle prints a comma too many for an empty parameter pack.
        return Some(out.0.replace(", >", ">").replace(", )", ")"));
    }
    if name.starts_with("_D") {
        return demangle_other::d(name);
    }
    demangle_other::go(name)
}

/// A legacy Rust name, `_ZN…17h0123456789abcdefE`, without the suffix that LLVM may add. A mangled C++ name
/// also begins with `_ZN`, but has no hash, so the hash shows that a name is a Rust name.
fn rust_legacy(name: &str) -> Option<&str> {
    const HASH_DIGITS: usize = 16;
    if !name.starts_with("_ZN") {
        return None;
    }
    // Most legacy Rust names end with the hash and an `E`. In other legacy Rust names, a suffix that
    // begins with a dot follows the `E`.
    let hash_at_end = name.len().checked_sub("17hE".len() + HASH_DIGITS);
    if !name.contains('.')
        && !hash_at_end.is_some_and(|at| name.get(at..).is_some_and(|end| end.starts_with("17h")))
    {
        return None;
    }
    let hash = name.rfind("17h")? + "17h".len();
    let end = hash + HASH_DIGITS;
    let is_hash = name.get(hash..end)?.bytes().all(|digit| digit.is_ascii_hexdigit());
    let rest = name.get(end..)?;
    (is_hash && (rest == "E" || rest.starts_with("E."))).then(|| &name[..=end])
}

/// A string with a maximum length. A write fails if it would make the string longer than the
/// maximum.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        if self.0.len() + part.len() > MAX_DEMANGLED_BYTES {
            return Err(fmt::Error);
        }
        self.0.push_str(part);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{demangle, plain};

    #[test]
    fn appended_words_are_no_part_of_a_symbol() {
        assert_eq!(plain("xmalloc.part.0"), "xmalloc");
        assert_eq!(plain("_Z3fooi.cold"), "_Z3fooi");
        assert_eq!(plain("malloc@@GLIBC_2.2.5"), "malloc");
        assert_eq!(plain(".L1"), ".L1");
        assert_eq!(plain("main.main"), "main.main");
        let rust = "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE";
        assert_eq!(plain(&format!("{rust}.llvm.1")), rust);
    }

    #[test]
    fn names_become_source_names() {
        for (mangled, expected) in [
            ("_ZN2ns5outer4growEi", "ns::outer::grow(int)"),
            // The mangled name of a template contains its return type, which the source name does not have.
            ("_ZN2ns6max_ofIiEET_S1_S1_", "ns::max_of<int>(int, int)"),
            (
                "_ZNSt6vectorIiSaIiEE9push_backERKi",
                "std::vector<int, std::allocator<int> >::push_back(int const&)",
            ),
            ("_ZN12_GLOBAL__N_17collectEv", "(anonymous namespace)::collect()"),
            ("_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE", "alloc::raw_vec::finish_grow"),
            ("_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE.llvm.123", "alloc::raw_vec::finish_grow"),
            ("_ZN2ns5outer4growEi.part.0", "ns::outer::grow(int)"),
            ("_ZN2ns5outer4growEi.isra.0.cold", "ns::outer::grow(int)"),
            ("grow.constprop.0", "grow"),
            ("main.main", "main.main"),
            (
                "_ZN67_$LT$alloc..vec..Vec$LT$T$C$A$GT$$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE",
                "<alloc::vec::Vec<T,A> as core::clone::Clone>::clone",
            ),
            (
                "_ZSt11make_sharedI4NodeJiEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES4_E4typeEEDpOT0_",
                "std::make_shared<Node, int>",
            ),
            (
                "_ZSt11make_sharedI4NodeJEESt10shared_ptrINSt9enable_ifIXntsrSt8is_arrayIT_E5valueES4_E4typeEEDpOT0_",
                "std::make_shared<Node>",
            ),
            ("_Z4makeI4NodeJEEvT_DpT0_", "make<Node>(Node)"),
            (
                "_ZNKSt14default_deleteIA_iEclIiEENSt9enable_ifIXsrSt14is_convertibleIPA_T_PS0_E5valueEvE4typeEPS5_",
                "std::default_delete<int []>::operator()<int>",
            ),
            ("_RNvCs1234_7mycrate4main", "mycrate::main"),
            ("_RINvNtC3std3mem8align_ofjdE", "std::mem::align_of::<usize, f64>"),
        ] {
            assert_eq!(demangle(mangled), expected, "{mangled}");
        }
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in ["main", "", "_", "_Z", "_R", "_ZN", "g_malloc0", "_ZN3foo", "_Zfoo", "_ZN17hE", "é"] {
            assert_eq!(demangle(name), name);
        }
    }

    #[test]
    fn hostile_names_are_given_up_soon() {
        // Each of the 40 pairs of references (such as `S0_S0_`) doubles the length of the demangled name,
        // so the name would have 2^40 characters.
        let mut doubling = String::from("_Z1fPFvii");
        for i in 0..40_u8 {
            doubling.push_str(&format!("PFvS{0}_S{0}_E", char::from(b'0' + i % 10)));
        }
        doubling.push('E');
        let _ = demangle(&doubling);
        // To demangle nested empty parameter packs takes exponential time, although the demangled
        // name is short.
        let mut packs = String::from("_Z1fI");
        for i in 0..30_u32 {
            packs.push_str(&format!(
                "JT{}_T{}_E",
                if i == 0 { String::new() } else { (i - 1).to_string() },
                i
            ));
        }
        packs.push_str("EvT_");
        let _ = demangle(&packs);
        let _ = demangle(&"_Z".repeat(MANY));
        let _ = demangle(&format!("_ZN{}E", "1a".repeat(MANY)));
        let _ = demangle(&format!("_Z1f{}", "P".repeat(MANY)));
        let _ = demangle(&format!("_R{}", "Nv".repeat(MANY)));
    }

    const MANY: usize = 20_000;
}
