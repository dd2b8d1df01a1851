//! The names of a function: the mangled name, the demangled name, and a path without parameters and generic
//! arguments.

use crate::demangle::{demangle, plain};
use edleak_text::globs::Glob;
use std::borrow::Cow;

/// The three names of a function: the name in the symbol table, the demangled name, and the path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionName<'raw> {
    /// The function's name in the symbol table, which is the mangled name for C++ and Rust.
    pub raw: &'raw str,
    /// The name that reports show.
    pub demangled: Cow<'raw, str>,
    /// The demangled name without parameters and generic arguments: `std::vector::push_back`,
    /// `<alloc::vec::Vec as core::clone::Clone>::clone`.
    pub path: String,
}

impl<'raw> FunctionName<'raw> {
    /// Computes the three names from `raw`, the name in the symbol table.
    pub fn new(raw: &'raw str) -> FunctionName<'raw> {
        let demangled = demangle(raw);
        let path = path_of(&demangled);
        FunctionName { raw, demangled, path }
    }

    /// Whether a pattern matches the function. It is enough if the pattern matches one of these four names:
    /// the raw name, the demangled name, the path, or the short name that the text report shows.
    pub fn matches(&self, glob: &Glob) -> bool {
        glob.matches(&self.demangled)
            || glob.matches(&self.path)
            || glob.matches(self.raw)
            || glob.matches(plain(self.raw))
            || self.demangled.contains("std::") && glob.matches(&short(&self.demangled))
    }
}

/// A demangled name without parameters and generic arguments. The inline namespaces of the standard libraries
/// are also removed.
pub(crate) fn path_of(demangled: &str) -> String {
    let mut path = String::with_capacity(demangled.len().min(128));
    let mut rest = demangled;
    while let Some(c) = rest.chars().next() {
        if let Some(symbol) = rest.strip_prefix("operator").filter(|_| !ends_in_word(&path)) {
            let symbol = operator_symbol(symbol);
            path.push_str("operator");
            path.push_str(symbol);
            rest = &rest["operator".len() + symbol.len()..];
            continue;
        }
        match c {
            '<' => {
                let inside = bracketed(rest);
                if path.is_empty() {
                    push_qualified(&mut path, inside);
                } else if inside.starts_with("impl ") {
                    path.push('<');
                    path.push_str(inside);
                    path.push('>');
                } else if path.ends_with("::") {
                    path.truncate(path.len() - 2); // `f::<T>`
                }
                rest = rest.get(inside.len() + 2..).unwrap_or_default();
            }
            '(' if rest.starts_with("(anonymous namespace)") => {
                path.push_str("(anonymous namespace)");
                rest = &rest["(anonymous namespace)".len()..];
            }
            '(' => {
                // The path ends before the parameters. But if `::` follows the parameters, the name is that
                // of a function or type inside the function, so go on after the parameters.
                let after = rest.get(bracketed(rest).len() + 2..).unwrap_or_default();
                let after = after.strip_prefix(" const").unwrap_or(after);
                if !after.starts_with("::") {
                    break;
                }
                rest = after;
            }
            '{' => {
                let inside = bracketed(rest);
                path.push('{');
                path.push_str(inside.split('(').next().unwrap_or_default());
                path.push('}');
                rest = rest.get(inside.len() + 2..).unwrap_or_default();
            }
            '[' if rest.starts_with("[abi:") => {
                rest = rest.get(bracketed(rest).len() + 2..).unwrap_or_default()
            }
            ' ' => {
                if !rest.starts_with(" <") {
                    path.clear(); // the text before the space is a return type, or `vtable for`
                }
                rest = &rest[1..];
            }
            _ => {
                path.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    for inline in INLINE_NAMESPACES {
        if path.starts_with("std::") && path.contains(inline) {
            path = path.replacen(inline, "::", 1);
        }
    }
    path
}

/// Template arguments that C++ uses by default.
const DEFAULTS: [&str; 6] = [
    "std::allocator<",
    "std::char_traits<",
    "std::less<",
    "std::hash<",
    "std::equal_to<",
    "std::default_delete<",
];
/// For each long name of the standard library, the shorter name that people write. The two names with ABI
/// namespaces (`std::__cxx11::` and `std::__1::`) stand first in the list, because they must be replaced
/// first.
const ALIASES: [(&str, &str); 6] = [
    ("std::__cxx11::", "std::"),
    ("std::__1::", "std::"),
    ("std::basic_string<char>", "std::string"),
    ("std::basic_string_view<char>", "std::string_view"),
    ("std::basic_ostream<char>", "std::ostream"),
    ("std::basic_istream<char>", "std::istream"),
];
/// Shortens a name: removes default template arguments, and replaces long names of the standard library by
/// short names.
pub fn short(name: &str) -> String {
    let [abi @ .., _, _, _, _] = &ALIASES;
    let mut name = abi.iter().fold(name.to_owned(), |name, (from, to)| name.replace(from, to));
    for default in DEFAULTS {
        let argument = format!(", {default}");
        while let Some(start) = name.find(&argument) {
            let mut depth = 0usize;
            let closes = |c: char| {
                depth = match c {
                    '<' => depth + 1,
                    '>' => depth.saturating_sub(1),
                    _ => return false,
                };
                depth == 0
            };
            let Some(length) = name[start..].find(closes) else { break };
            name.replace_range(start..=start + length, "");
        }
    }
    if !name.contains("operator >") {
        name = name.replace(" >", ">");
    }
    ALIASES.iter().fold(name, |name, (from, to)| name.replace(from, to))
}

/// The inline namespaces of libstdc++ and libc++, which people leave out when they write a name.
pub const INLINE_NAMESPACES: [&str; 5] = ["::__cxx11::", "::__1::", "::__ndk1::", "::__debug::", "::_V2::"];

fn ends_in_word(path: &str) -> bool {
    path.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// The characters of an operator, such as `<<`; `rest` is the text after the word `operator`.
fn operator_symbol(rest: &str) -> &str {
    const SYMBOLS: [&str; 18] = [
        " new[]",
        " delete[]",
        " new",
        " delete",
        "()",
        "[]",
        "<<=",
        ">>=",
        "<=>",
        "->*",
        "->",
        "<<",
        ">>",
        "<=",
        ">=",
        "<",
        ">",
        "",
    ];
    let symbol = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)).unwrap_or_default();
    if symbol.is_empty() && rest.starts_with(' ') {
        return rest.split('(').next().unwrap_or_default(); // a conversion: `operator T()`
    }
    symbol
}

/// The text between the bracket at the start of `text` and the matching bracket. If no bracket matches, the
/// result is all text after the first bracket.
fn bracketed(text: &str) -> &str {
    let mut depth = 0_u32;
    let mut previous = ' ';
    for (i, c) in text.char_indices() {
        match c {
            '<' | '(' | '[' | '{' => depth += 1,
            '>' if previous == '-' => {} // an arrow
            '>' | ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return &text[1..i];
                }
            }
            _ => {}
        }
        previous = c;
    }
    text.get(1..).unwrap_or_default()
}

/// Adds the type of a qualified Rust name (`<Type>` or `<Type as Trait>`) to `path`, without generic
/// arguments; `inside` is the text between the angle brackets. `<Type as Trait>` keeps its brackets, and
/// `<Type>` becomes `Type`.
fn push_qualified(path: &mut String, inside: &str) {
    match split_as(inside) {
        Some((implementor, of)) => {
            path.push('<');
            path.push_str(&path_of_type(implementor));
            path.push_str(" as ");
            path.push_str(&path_of_type(of));
            path.push('>');
        }
        None => path.push_str(&path_of_type(inside)),
    }
}

/// A type without generic arguments. A type that is not a path (`[T]`, `&T`, `(A, B)`, `dyn Trait`) stays
/// unchanged.
fn path_of_type(name: &str) -> String {
    if name.starts_with(|c: char| c.is_alphanumeric() || c == '_') && !name.contains(' ')
        || name.contains('<')
    {
        let bare = name.split('<').next().unwrap_or_default();
        if !bare.contains(' ') {
            return path_of(name);
        }
    }
    name.to_owned()
}

/// Splits a text at the ` as ` that is not inside brackets.
fn split_as(inside: &str) -> Option<(&str, &str)> {
    inside.match_indices(" as ").map(|(at, _)| (&inside[..at], &inside[at + 4..])).find(|(before, _)| {
        let opened = before.matches('<').count();
        let closed = before.matches('>').count() - before.matches("->").count();
        opened == closed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_no_parameters_and_no_generic_arguments() {
        for (demangled, expected) in [
            ("main", "main"),
            ("xmalloc(unsigned long)", "xmalloc"),
            ("operator new(unsigned long)", "operator new"),
            ("operator new[](unsigned long, std::align_val_t)", "operator new[]"),
            ("std::vector<int, std::allocator<int> >::push_back(int const&)", "std::vector::push_back"),
            (
                "std::__cxx11::basic_string<char, std::char_traits<char> >::_M_create(unsigned long&)",
                "std::basic_string::_M_create",
            ),
            ("std::__1::vector<int>::reserve(unsigned long)", "std::vector::reserve"),
            ("void ns::take<int>(int)", "ns::take"),
            ("ns::less::operator()(int, int) const", "ns::less::operator()"),
            ("std::operator<< <std::char_traits<char> >(std::ostream&, char const*)", "std::operator<<"),
            ("bool operator< <int>(Pair<int> const&, Pair<int> const&)", "operator<"),
            ("(anonymous namespace)::grow(int)", "(anonymous namespace)::grow"),
            ("f(int)::{lambda(int)#1}::operator()(int) const", "f::{lambda}::operator()"),
            ("ns::Name::operator std::string() const", "ns::Name::operator std::string"),
            ("name[abi:cxx11](int)", "name"),
            ("A<(B)1>::f()", "A::f"),
            ("A<void (*)(int)>::f(void (*)(int))", "A::f"),
            ("alloc::vec::Vec<T,A>::push", "alloc::vec::Vec::push"),
            ("<alloc::vec::Vec<u8>>::push", "alloc::vec::Vec::push"),
            (
                "<alloc::vec::Vec<T,A> as core::clone::Clone>::clone",
                "<alloc::vec::Vec as core::clone::Clone>::clone",
            ),
            ("alloc::slice::<impl [T]>::to_vec", "alloc::slice::<impl [T]>::to_vec"),
            ("<[u8]>::to_vec", "[u8]::to_vec"),
            ("core::iter::once::<alloc::string::String>", "core::iter::once"),
            ("app::run::{{closure}}", "app::run::{{closure}}"),
            (
                "<fn(u8) -> u8 as core::ops::function::FnOnce<(u8,)>>::call_once",
                "<fn(u8) -> u8 as core::ops::function::FnOnce>::call_once",
            ),
            ("<str as alloc::borrow::ToOwned>::to_owned", "<str as alloc::borrow::ToOwned>::to_owned"),
        ] {
            assert_eq!(path_of(demangled), expected, "{demangled}");
        }
    }

    #[test]
    fn names_of_the_standard_library_are_shortened() {
        let string = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
        assert_eq!(short(string), "std::string");
        assert_eq!(
            short(&format!("Registry<{string}, std::pair<int, unsigned long> >::add_item({string} const&)")),
            "Registry<std::string, std::pair<int, unsigned long>>::add_item(std::string const&)"
        );
        let map = format!(
            "std::map<{string}, int, std::less<{string} >, std::allocator<std::pair<{string} const, int> > >"
        );
        assert_eq!(short(&map), "std::map<std::string, int>");
        assert_eq!(short("my::allocator<int>::get"), "my::allocator<int>::get");
    }

    #[test]
    fn compiler_suffixes_are_ignored() {
        let rust = "_ZN5alloc7raw_vec11finish_grow17h0123456789abcdefE.llvm.1";
        assert_eq!(FunctionName::new("_Z7xmallocm.part.0").path, "xmalloc");
        assert_eq!(FunctionName::new(rust).path, "alloc::raw_vec::finish_grow");
    }

    #[test]
    fn no_text_makes_the_parser_panic() {
        for text in
            ["", "<", "(", "{", "<<<", "a<b", "operator", "::<", "<a as ", "é<ü>", " ", "[abi:", "->", "<->"]
        {
            let _ = path_of(text);
        }
    }
}
