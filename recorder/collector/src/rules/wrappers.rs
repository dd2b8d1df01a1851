//! Decides which functions are allocation wrappers, and finds the ranges of their code.
//!
//! The collector checks every symbol of every module while the target starts, so the check must be fast.
//! Demangling a name is slow, so the collector checks the mangled name instead. Checking the mangled name is
//! possible because a mangled C++ name contains the first words of its path as plain text. The collector
//! demangles only Rust names, and all names if the user gives patterns.

use crate::error::{Error, ErrorKind};
use crate::rules::unwind::UnwindTable;
use crate::rules::wrapper_list as list;
use edleak_binary::calls::Code;
use edleak_binary::demangle::{is_rust, plain};
use edleak_binary::elf::Elf;
use edleak_binary::functions::FunctionTable;
use edleak_binary::names::{FunctionName, INLINE_NAMESPACES};
use edleak_session::rule::{Kind, Rule};
use edleak_text::globs::Glob;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A range of a wrapper's code in which one unwind rule applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WrapperRange {
    /// Offset in the file of the first byte of the range.
    pub start: u32,
    /// Offset in the file of the first byte after the range.
    pub end: u32,
    /// The unwind rule with which a walk of a stack skips the frame of a call in this range; the kind of the
    /// rule is always `Sp` or `Fp`.
    pub rule: Rule,
}

/// The set of functions that count as wrappers.
#[derive(Clone, Debug)]
pub struct WrapperSet {
    c_functions: Paths,
    own_functions: Paths,
    cpp_paths: Paths,
    rust_paths: Paths,
    has_libraries: bool,
    patterns: Vec<Pattern>,
}

/// A pattern of the user, and a flag that is set when the pattern matches a function. All clones of a
/// [`WrapperSet`] share the flag of each pattern.
#[derive(Clone, Debug)]
struct Pattern {
    text: String,
    glob: Glob,
    is_used: Arc<AtomicBool>,
}

/// A list of complete names and of prefixes of names; a prefix is written with a `*` at the end. No prefix in
/// the list begins with another prefix in the list.
#[derive(Clone, Debug, Default)]
struct Paths {
    exact: HashSet<&'static str>,
    prefixes: BTreeSet<&'static str>,
}

impl Paths {
    fn new(names: &[&'static str]) -> Paths {
        let (prefixes, exact): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with('*'));
        Paths {
            exact: exact.into_iter().collect(),
            prefixes: prefixes.into_iter().map(|name: &str| name.trim_end_matches('*')).collect(),
        }
    }

    fn contains(&self, name: &str) -> bool {
        // If the name begins with a prefix in the sorted list, this prefix is the last entry of the list that
        // is not greater than the name. There is no other entry between this prefix and the name: such an
        // entry would begin with this prefix, and no entry of [`Paths`] begins with another entry.
        let before = self.prefixes.range(..=name).next_back();
        before.is_some_and(|prefix| name.starts_with(prefix)) || self.exact.contains(name)
    }

    /// Whether the list contains the path or the first words of the path. For example, an entry `a::b`
    /// matches the path `a::b::c`.
    fn has_start_of(&self, path: &str) -> bool {
        let ends = path.match_indices("::").map(|(at, _)| at).chain([path.len()]);
        ends.into_iter().any(|end| self.contains(&path[..end]))
    }
}

impl WrapperSet {
    /// Whether the set contains only the built-in list, which is the same in every run, and no patterns of
    /// the user.
    pub(crate) fn is_only_builtin(&self) -> bool {
        self.has_libraries && self.patterns.is_empty()
    }

    /// The set of the wrappers that edleak knows.
    pub fn builtin() -> WrapperSet {
        WrapperSet {
            c_functions: Paths::new(list::C_FUNCTIONS),
            own_functions: Paths::new(list::OWN_FUNCTIONS),
            cpp_paths: Paths::new(list::CPP_PATHS),
            rust_paths: Paths::new(list::RUST_PATHS),
            has_libraries: true,
            patterns: Vec::new(),
        }
    }

    /// A set without wrappers, so that the site of an allocation is always the direct caller of malloc or a
    /// similar function.
    pub fn none() -> WrapperSet {
        WrapperSet {
            c_functions: Paths::default(),
            own_functions: Paths::default(),
            cpp_paths: Paths::default(),
            rust_paths: Paths::default(),
            has_libraries: false,
            patterns: Vec::new(),
        }
    }

    /// Adds a pattern of the user. A function is a wrapper if the pattern matches its symbol, its demangled
    /// name, or its path without parameters and generic arguments.
    ///
    /// # Errors
    /// The pattern is empty, or matches every function.
    pub fn add(&mut self, pattern: &str) -> Result<(), Error> {
        let glob = Glob::new(pattern);
        if glob.is_empty() || glob.matches_everything() {
            let which = if pattern.is_empty() { "no" } else { "every" };
            let message = format!("wrapper pattern `{pattern}` means {which} function");
            return Err(
                Error::new(ErrorKind::Request, message).with_remedy("name some, for example `my_alloc*`")
            );
        }
        self.patterns.push(Pattern { text: pattern.into(), glob, is_used: Arc::default() });
        Ok(())
    }

    /// The patterns of the user that have matched no function so far.
    pub(crate) fn unused(&self) -> impl Iterator<Item = &str> {
        let unused = self.patterns.iter().filter(|pattern| !pattern.is_used.load(Ordering::Relaxed));
        unused.map(|pattern| pattern.text.as_str())
    }

    /// Whether the function with the symbol `raw` is a wrapper.
    fn matches(&self, raw: &str) -> bool {
        // Always check all patterns of the user, even if a built-in name matches: each check also records
        // which patterns have matched a function.
        let is_users = !self.patterns.is_empty() && self.is_users(raw);
        is_users || self.is_builtin(plain(raw))
    }

    fn is_users(&self, raw: &str) -> bool {
        let name = FunctionName::new(raw);
        let matching = self.patterns.iter().filter(|pattern| name.matches(&pattern.glob));
        matching.inspect(|pattern| pattern.is_used.store(true, Ordering::Relaxed)).count() > 0
    }

    fn is_builtin(&self, raw: &str) -> bool {
        if is_rust(raw) {
            return !self.rust_paths.exact.is_empty()
                && rust_may_match(raw)
                && self.is_rust_wrapper(&FunctionName::new(raw).path);
        }
        match cpp_leading_path(raw) {
            Some(path) if self.cpp_paths.has_start_of(&path) => true,
            Some(path) if path.starts_with("std::") => {
                self.has_libraries && list::CPP_STD_MEMBERS.iter().any(|member| raw.contains(member))
            }
            Some(path) => self.own_functions.contains(path.rsplit("::").next().unwrap_or(&path)),
            None => self.c_functions.contains(raw) || self.own_functions.contains(raw),
        }
    }

    fn is_rust_wrapper(&self, path: &str) -> bool {
        let Some((implementor, of)) = path.strip_prefix('<').and_then(|rest| rest.split_once(" as ")) else {
            return self.rust_paths.has_start_of(path) && !is_foreign_closure(path);
        };
        let starts = |paths: &[&str]| paths.iter().any(|path| of.strip_prefix(path).is_some_and(ends_a_word));
        if starts(list::RUST_CALL_TRAITS) || is_foreign_closure(path) {
            return false;
        }
        let is_primitive = !implementor.contains("::");
        starts(list::RUST_TRAITS)
            || self.rust_paths.has_start_of(implementor)
            || is_primitive && of.starts_with("core::") && self.rust_paths.has_start_of(of)
    }

    /// Whether every function of the file is a wrapper.
    fn has_whole(&self, elf: &Elf<'_>) -> bool {
        self.has_libraries && elf.soname().is_some_and(|soname| list::LIBRARIES.contains(&stem(soname)))
    }

    /// Whether the functions of the file that have no name are wrappers.
    fn has_nameless(&self, elf: &Elf<'_>, named: &FunctionTable<'_>) -> bool {
        self.has_libraries
            && !named.is_full
            && elf.soname().is_some_and(|soname| list::LIBRARIES_INSIDE.contains(&stem(soname)))
    }
}

fn stem(soname: &str) -> &str {
    soname.split('.').next().unwrap_or_default()
}

fn ends_a_word(rest: &str) -> bool {
    !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Whether a Rust symbol may be a wrapper, because its crate contains wrappers or because the symbol is a
/// method of an allocator. If a Rust symbol cannot be a wrapper, the collector does not demangle it.
fn rust_may_match(raw: &str) -> bool {
    let Some(first) = rust_first_word(raw) else { return true };
    first.starts_with("_$LT$")
        || list::RUST_PATHS.iter().any(|path| path.split("::").next() == Some(first))
        || raw.contains("GlobalAlloc")
}

/// The first word of a mangled Rust path: the name of the crate. In Rust's legacy mangling, the first word of
/// a path can also be a type.
fn rust_first_word(raw: &str) -> Option<&str> {
    let word = |text: &'_ str| -> Option<Range<usize>> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = text[..digits].parse().ok()?;
        // If a name begins with a digit or `_`, the v0 mangling writes a `_` between the length of the name
        // and the name.
        let start = digits + usize::from(raw.starts_with("_R") && text[digits..].starts_with('_'));
        (start + length <= text.len()).then_some(start..start + length)
    };
    if let Some(rest) = raw.strip_prefix("_ZN") {
        return rest.get(word(rest)?);
    }
    // The v0 mangling encodes a crate as the letter `C`, an optional number in the form `s…_`, and the name
    // of the crate. If the letter `C` stands for something other than a crate, no name follows the letter.
    raw.match_indices('C').find_map(|(at, _)| {
        let rest = &raw[at + 1..];
        let rest = match rest.strip_prefix('s') {
            Some(numbered) => numbered.split_once('_').map_or(rest, |(_, rest)| rest),
            None => rest,
        };
        rest.get(word(rest)?)
    })
}

/// Whether a path names a closure of a library; the compiler may have inlined a closure of the user into the
/// library's closure.
fn is_foreign_closure(path: &str) -> bool {
    path.contains("{closure") && {
        let path = path.trim_start_matches('<');
        !list::RUST_CLOSURE_PATHS.iter().any(|own| path.strip_prefix(own).is_some_and(ends_a_word))
    }
}

/// The words of a mangled C++ path before its first template arguments. For example, the result for
/// `std::vector<int>::push_back` is `std::vector`. `None`: the name is not a C++ name, or belongs to code
/// that is local to a function.
fn cpp_leading_path(raw: &str) -> Option<String> {
    let mut rest = raw.strip_prefix("_Z")?;
    let mut words: Vec<&str> = Vec::new();
    rest = rest.strip_prefix('L').unwrap_or(rest);
    let is_nested = rest.starts_with('N');
    if is_nested {
        rest = rest[1..].trim_start_matches(['r', 'V', 'K', 'R', 'O']);
    }
    loop {
        if is_nested && rest.starts_with('C') {
            words.extend(words.last().copied()); // the name of a constructor is the name of its class
            break;
        }
        let (word, length) = next_word(rest)?;
        words.extend(word);
        rest = &rest[length..];
        // In a mangled C++ name, one word follows `St` (the namespace std), even if the path is not enclosed
        // in `N…E`.
        if length == 0 || !is_nested && word != Some("std") {
            break;
        }
    }
    if words.is_empty() {
        return None;
    }
    let mut path = words.join("::");
    if path.starts_with("std::") {
        path.push_str("::");
        for inline in INLINE_NAMESPACES {
            path = path.replacen(inline, "::", 1);
        }
        path.truncate(path.len() - 2);
    }
    Some(path)
}

/// The first word of the mangled path `rest`, and the number of bytes that this word takes in `rest`. If the
/// text after the first word cannot be read without demangling, the returned number of bytes is 0. `None`:
/// `rest` is not a path.
fn next_word(rest: &str) -> Option<(Option<&str>, usize)> {
    const ABBREVIATIONS: [(&str, &str); 7] = [
        ("St", "std"),
        ("Sa", "std::allocator"),
        ("Sb", "std::basic_string"),
        ("Ss", "std::basic_string"),
        ("Si", "std::basic_istream"),
        ("So", "std::basic_ostream"),
        ("Sd", "std::basic_iostream"),
    ];
    const OPERATORS: [(&str, &str); 5] = [
        ("nw", "operator new"),
        ("na", "operator new[]"),
        ("pl", "operator+"),
        ("ls", "operator<<"),
        ("rs", "operator>>"),
    ];
    if let Some((code, word)) = ABBREVIATIONS.iter().find(|(code, _)| rest.starts_with(code)) {
        return Some((Some(word), code.len()));
    }
    match rest.bytes().next()? {
        b'0'..=b'9' => {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let length: usize = rest[..digits].parse().ok()?;
            let word = rest.get(digits..digits.checked_add(length)?)?;
            Some((Some(word), digits + length))
        }
        b'L' => Some((None, 1)),
        b'T' | b'Z' | b'G' => None,
        _ => Some((OPERATORS.iter().find(|(code, _)| rest.starts_with(code)).map(|(_, word)| *word), 0)),
    }
}

/// The code ranges of those functions of a file that are wrappers, sorted by address and without overlap.
pub fn wrapper_functions(elf: &Elf<'_>, named: &FunctionTable<'_>, set: &WrapperSet) -> Vec<Range<u32>> {
    if set.has_whole(elf) {
        return vec![WHOLE_FILE];
    }
    let has_nameless = set.has_nameless(elf, named);
    let mut found = Vec::new();
    let mut end = 0; // the loop has handled all code before this offset
    let mut rest = named.functions.as_slice();
    while let Some(first) = rest.first() {
        // If a function has several names, the function is a wrapper if one of its names matches.
        let same = rest.iter().take_while(|other| other.start == first.start).count();
        let (names, later) = rest.split_at(same);
        rest = later;
        if has_nameless && end < first.start {
            found.push(end..first.start);
        }
        let to = names.iter().map(|name| name.end).max().unwrap_or(first.end);
        let to = later.first().map_or(to, |next| to.min(next.start));
        if names.iter().any(|name| set.matches(name.name)) {
            found.push(first.start..to);
        }
        end = end.max(to);
    }
    if has_nameless {
        found.push(end..u32::MAX);
    }
    found
}

/// The range that [`wrapper_functions`] returns for a file in which every function is a wrapper.
pub(crate) const WHOLE_FILE: Range<u32> = 0..u32::MAX;

/// The ranges of code inside `functions` in which the library can skip the frame of a call: each range
/// contains a call and has one unwind rule. The returned ranges are sorted and do not overlap. To find the
/// range of a return address, look up the return address minus 1, which is inside the call instruction.
///
/// Look up only return addresses in the returned ranges, because a range may also contain code that makes no
/// call.
pub fn wrapper_ranges(elf: &Elf<'_>, table: &UnwindTable, functions: &[Range<u32>]) -> Vec<WrapperRange> {
    let mut ranges = Ranges { table, code: Code::new(elf), done: Vec::new() };
    for function in functions {
        ranges.push(function.start, function.end);
    }
    ranges.done
}

struct Ranges<'elf, 'data> {
    table: &'elf UnwindTable,
    code: Code<'elf, 'data>,
    done: Vec<WrapperRange>,
}

impl Ranges<'_, '_> {
    /// Adds the parts of `start..end` that contain a call and have an unwind rule. If two neighbouring ranges
    /// have the same unwind rule and no call is between them, they become one range, which halves the number
    /// of ranges.
    fn push(&mut self, start: u32, end: u32) {
        for (start, end, rule) in self.table.known_in(start, end) {
            if !matches!(rule.kind(), Kind::Sp | Kind::Fp) || !self.code.may_call(start, end) {
                continue;
            }
            match self.done.last_mut() {
                Some(last) if last.rule == rule && !self.code.may_call(last.end, start) => last.end = end,
                _ => self.done.push(WrapperRange { start, end, rule }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_prefix_begins_with_another_one() {
        for names in [list::C_FUNCTIONS, list::OWN_FUNCTIONS, list::CPP_PATHS, list::RUST_PATHS] {
            let paths = Paths::new(names);
            for (a, b) in paths.prefixes.iter().zip(paths.prefixes.iter().skip(1)) {
                assert!(!b.starts_with(a), "{b}* is {a}* already");
            }
            for name in names {
                assert!(paths.contains(name.trim_end_matches('*')), "{name}");
            }
        }
    }

    #[test]
    fn known_wrappers_are_matched_by_their_symbols() {
        let set = WrapperSet::builtin();
        for raw in [
            "malloc",
            "xmalloc",
            "xmalloc.part.0",
            "g_malloc0_n",
            "_ZN2os6mallocEm8MEMFLAGS",
            "_Z12AllocateHeapm8MEMFLAGSN17AllocFailStrategy13AllocFailEnumE",
            "__gnat_malloc",
            "my_malloc",
            "alloc_root",
            "__zend_malloc",
            "ruby_xmalloc2",
            "AllocSetAllocLarge",
            "palloc0",
            "_PyMem_RawMalloc",
            "_Z7xmallocm",
            "_ZL11safe_mallocm",
            "_ZN3app8xreallocEPvm",
            "_Znwm",
            "_ZnamSt11align_val_t",
            "_ZnwmRKSt9nothrow_t",
            "_ZNSt6vectorIiSaIiEE17_M_realloc_insertIJRKiEEEvN9__gnu_cxx17__normal_iteratorIPiS1_EEDpOT_",
            "_ZNSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEE9_M_createERmm",
            "_ZNSt3__16vectorIiNS_9allocatorIiEEE9push_backERKi",
            "_ZNSs4_Rep9_S_createEmmRKSaIcE",
            "_ZNSaIcE8allocateEm",
            "_ZStplIcSt11char_traitsIcESaIcEENSt7__cxx1112basic_stringIT_T0_T1_EERKS8_PKS5_",
            "_ZSt9to_stringi",
            "_ZNSt16allocator_traitsISaIcEE8allocateERS0_m",
            "_ZNSt6threadC1IRFvvEJEvEEOT_DpOT0_",
            "_ZNSt17_Function_handlerIFivEZ4mainEUlvE_E10_M_managerERSt9_Any_dataRKS3_St18_Manager_operation",
            "_ZN10QArrayData8allocateEmmm6QFlagsINS_16AllocationOptionEE",
            "_ZN7QObjectC2EPS_",
            "__rust_alloc",
            "_RNvCsdBezzDwma51_7___rustc12___rust_alloc",
            "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE",
            "_ZN67_$LT$alloc..vec..Vec$LT$T$C$A$GT$$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE",
            "_RNvMs_NtC5alloc3vecINtB4_3VechE4pushCs1_3app",
            "_ZN9hashbrown3raw21RawTable$LT$T$C$A$GT$14reserve_rehash17h0123456789abcdefE",
            "_ZN66_$LT$app..Counting$u20$as$u20$core..alloc..global..GlobalAlloc$GT$5alloc17h0123456789abcdefE",
        ] {
            assert!(set.matches(raw), "{raw}");
            assert!(!WrapperSet::none().matches(raw), "{raw}");
        }
    }

    #[test]
    fn users_functions_are_not_matched() {
        let set = WrapperSet::builtin();
        for raw in [
            "main",
            "my_mallocator",
            "xml_parse",
            "g_main_loop_run",
            "PyList_Append",
            "_Z7xprocessv",
            "_ZN2ns6vectorIiE9push_backEi",
            "_ZN4user3Box4growEv",
            "_ZSt4sortIPiEvT_S1_",
            "_ZNSt6thread11_State_implINS_8_InvokerISt5tupleIJPFvvEEEEEE6_M_runEv",
            "_ZNSt17_Function_handlerIFivEZ4mainEUlvE_E9_M_invokeERKSt9_Any_data",
            "_ZZN4user3runEvENKUlvE_clEv",
            "_ZZNSt6vectorIiE4growEvENKUlvE_clEv",
            "_ZN3app6insert17h0123456789abcdefE",
            "_ZN11alloc_stats3add17h0123456789abcdefE",
            "_ZN48_$LT$app..Item$u20$as$u20$core..clone..Clone$GT$5clone17h0123456789abcdefE",
            "_ZN4core3ops8function6FnOnce40call_once$u7b$$u7b$vtable.shim$u7d$$u7d$17h0123456789abcdefE",
            "_ZN3std3sys9backtrace28__rust_begin_short_backtrace17h0123456789abcdefE",
            "_RNvCs1234_3app4main",
            "_RNCNvCs1234_3app4main0B3_",
            "_Z",
            "_ZN",
            "_ZN99999999999999999999x",
            "_R",
            "",
        ] {
            assert!(!set.matches(raw), "{raw}");
        }
    }

    #[test]
    fn a_users_pattern_matches_symbol_name_and_path() {
        for pattern in ["_ZN4pool4takeEm", "pool::take", "pool::take(unsigned long)", "pool::t*", "*::take*"]
        {
            let mut set = WrapperSet::none();
            set.add(pattern).expect("a good pattern");
            assert!(set.matches("_ZN4pool4takeEm"), "{pattern}");
            assert!(set.matches("_ZN4pool4takeEm.cold"), "{pattern}");
            assert!(!set.matches("_ZN4pool4dropEm"), "{pattern}");
        }
    }

    #[test]
    fn patterns_without_a_match_are_reported() {
        let mut set = WrapperSet::builtin();
        for pattern in ["pool_*", "xmalloc", "nobody"] {
            set.add(pattern).expect("a good pattern");
        }
        let clone = set.clone();
        assert!(clone.matches("xmalloc") && clone.matches("pool_take") && !clone.matches("main"));
        assert_eq!(set.unused().collect::<Vec<_>>(), ["nobody"]);
    }

    #[test]
    fn empty_patterns_are_refused() {
        for pattern in ["", "  ", "*", "**"] {
            let refusal = WrapperSet::builtin().add(pattern).expect_err("it names no function");
            assert!(refusal.to_string().ends_with("(name some, for example `my_alloc*`)"), "{refusal}");
        }
    }
}
