//! Turns names of D (`_D…`) and of Go into source names. The source names of D and Go functions have no
//! parameter types.
//!
//! The rules for mangled names of D are in the chapter "Name Mangling" of its specification. A mangled name
//! is `_D`, and then a list of names. The length of each name stands before the name. Instead of a name, an
//! entry of the list may be a back reference `Q` to a previous name, a template instance `__T…Z`, or an
//! anonymous part (`0`).
//!
//! Go's linker writes names unchanged, except that it writes `%2e` for a dot in the last part of an import
//! path. The compiler gccgo writes codes such as `..z2e` and `..u00b7` for special characters.

/// Maximum depth of nested back references and template instances in a mangled D name.
const MAX_DEPTH: usize = 32;
/// Maximum length of a demangled name in bytes. A name whose demangled form exceeds the maximum stays
/// mangled.
const MAX_BYTES: usize = 4096;

/// The qualified name of a D symbol.
pub(crate) fn d(name: &str) -> Option<String> {
    if name == "_Dmain" {
        return Some("D main".into());
    }
    let rest = name.strip_prefix("_D")?;
    let mut parser = D { text: name, out: String::new() };
    let start = name.len() - rest.len();
    parser.qualified(start, 0)?;
    (!parser.out.is_empty()).then_some(parser.out)
}

struct D<'a> {
    text: &'a str,
    out: String,
}

impl D<'_> {
    /// Reads the list of names that begins at `at`, and joins the names with dots. Returns the position after
    /// the last name.
    fn qualified(&mut self, mut at: usize, depth: usize) -> Option<usize> {
        let begin = at;
        while let Some(next) = self.symbol(at, at > begin, depth) {
            at = next;
        }
        (at > begin).then_some(at)
    }

    /// Reads one name. `None`: no name begins at `at`.
    fn symbol(&mut self, at: usize, has_dot: bool, depth: usize) -> Option<usize> {
        if depth > MAX_DEPTH || self.out.len() > MAX_BYTES {
            return None;
        }
        let rest = self.text.get(at..)?;
        if let Some(reference) = rest.strip_prefix('Q') {
            let (distance, length) = base26(reference)?;
            let target = at.checked_sub(distance)?;
            // A back reference may also refer to a type. A type is no part of the list of names, so the list
            // ends here.
            self.text.get(target..)?.starts_with(|c: char| c.is_ascii_digit()).then_some(())?;
            self.symbol(target, has_dot, depth + 1)?;
            return Some(at + 1 + length);
        }
        if rest.starts_with("__T") || rest.starts_with("__U") {
            return self.template(at, has_dot, depth);
        }
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let length: usize = rest.get(..digits)?.parse().ok()?;
        let from = at + digits;
        let identifier = self.text.get(from..from.checked_add(length)?)?;
        if length == 0 {
            return Some(from); // an anonymous part
        }
        if identifier.starts_with("__T") || identifier.starts_with("__U") {
            self.template(from, has_dot, depth + 1)?;
            return Some(from + length);
        }
        // In the mangled name of a function inside another function, the D compiler adds `__S` and a
        // number. `__S` and its number have no meaning for the user, so the demangled name does not
        // contain them.
        let is_number =
            identifier.strip_prefix("__S").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()));
        if !is_number {
            if has_dot && !self.out.is_empty() {
                self.out.push('.');
            }
            self.out.push_str(match identifier {
                "__ctor" => "this",
                "__dtor" => "~this",
                "__postblit" => "this(this)",
                other => other,
            });
        }
        let mut end = from + length;
        // If the name of an inner function or type follows the name of a function, skip the text between the
        // two names: `M` for a method, the calling convention, and the type of the outer function.
        if let Some(next) = self.function_type(end) {
            end = next;
        }
        Some(end)
    }

    /// Reads a template instance: its name, and `!(…)` for its arguments, which are types and values.
    fn template(&mut self, at: usize, has_dot: bool, depth: usize) -> Option<usize> {
        let after_name = self.symbol(at + 3, has_dot, depth + 1)?;
        self.out.push_str("!(…)");
        // The arguments may contain template instances, which also end with `Z`. So count the nesting level
        // of template instances to find the `Z` that ends the outer instance.
        let mut level = 1usize;
        let bytes = self.text.as_bytes();
        let mut at = after_name;
        while level > 0 {
            let rest = self.text.get(at..)?;
            if rest.is_empty() {
                return None;
            }
            if rest.starts_with("__T") {
                level += 1;
                at += 3;
            } else if bytes[at] == b'Z' {
                level -= 1;
                at += 1;
            } else if bytes[at].is_ascii_digit() {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                let length: usize = rest[..digits].parse().ok()?;
                // A name in the template arguments may be a nested template instance. Read a nested instance
                // to find its end, and skip any other name by its length.
                let name = rest.get(digits..)?;
                at += digits + if name.starts_with("__T") { 0 } else { length };
            } else {
                at += 1;
            }
        }
        Some(at)
    }

    /// The end of the function type at `at`, if another name follows the type.
    fn function_type(&self, at: usize) -> Option<usize> {
        let rest = self.text.get(at..)?;
        let inner = rest.strip_prefix('M').unwrap_or(rest);
        inner.starts_with(['F', 'U', 'W', 'V', 'R']).then_some(())?;
        let end = rest.find('Z')? + 1;
        rest.get(end..)?.starts_with(|c: char| c.is_ascii_digit()).then_some(at + end)
    }
}

/// Reads the number of a back reference. The number is written in base 26 with the digits `A`–`Z`; its
/// last digit is in lower case.
fn base26(text: &str) -> Option<(usize, usize)> {
    let mut value = 0usize;
    for (index, letter) in text.bytes().enumerate() {
        let digit = usize::from(letter.to_ascii_uppercase().checked_sub(b'A').filter(|digit| *digit < 26)?);
        value = value.checked_mul(26)?.checked_add(digit)?;
        if letter.is_ascii_lowercase() {
            return Some((value, index + 1));
        }
    }
    None
}

/// A Go name in which the codes of the linker or of gccgo are replaced by the original characters. `None`:
/// the name contains no code of the linker or of gccgo.
pub(crate) fn go(name: &str) -> Option<String> {
    if let Some(rest) = name.strip_prefix("_cgo_") {
        let (_, function) = rest.split_once("_Cfunc_")?;
        return Some(format!("C.{function}"));
    }
    let (escape, digits) = if name.contains("..z") {
        ("..z", 2)
    } else if name.contains("..u") {
        ("..u", 4)
    } else if name.contains('%') && name.contains('.') {
        ("%", 2)
    } else {
        return None;
    };
    let mut out = String::with_capacity(name.len());
    let mut parts = name.split(escape);
    out.push_str(parts.next()?);
    for part in parts {
        let code = part.get(..digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        out.push(char::from_u32(code?)?);
        out.push_str(&part[digits..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_d_are_joined_by_dots() {
        for (mangled, name) in [
            ("_Dmain", "D main"),
            ("_D3std5stdio4File4openMFNfAyaxAaZv", "std.stdio.File.open"),
            ("_D4core6memory2GC6mallocFNaNbmkxC8TypeInfoZPv", "core.memory.GC.malloc"),
            ("_D3app5Cache6__ctorMFiZC3app5Cache", "app.Cache.this"),
            ("_D3app3runFZ5innerMFZv", "app.run.inner"),
            ("_D3std5array__T8appenderTAaZQnFZS3std5array", "std.array.appender!(…).appender"),
            ("_D3foo3barQeFZv", "foo.bar.bar"),
        ] {
            assert_eq!(d(mangled).as_deref(), Some(name), "{mangled}");
        }
        for other in ["_D", "_Dx", "_D99999999999999999999a", "_D3ab", "_D0", "main", "_DQa", "_D3fooQzz"] {
            let _no_panic = d(other);
        }
        assert_eq!((d("_D"), d("main"), d("_D3ab")), (None, None, None));
    }

    #[test]
    fn names_of_go_have_their_dots_back() {
        assert_eq!(
            go("gopkg.in/yaml%2ev3.(*parser).fetch").as_deref(),
            Some("gopkg.in/yaml.v3.(*parser).fetch")
        );
        assert_eq!(go("gopkg.in..zyaml").as_deref(), None);
        assert_eq!(go("example..z2fpkg.Run").as_deref(), Some("example/pkg.Run"));
        assert_eq!(go("_cgo_59b7ff0d2a36_Cfunc_malloc").as_deref(), Some("C.malloc"));
        assert_eq!((go("main.main"), go("100%.txt")), (None, None));
    }
}
