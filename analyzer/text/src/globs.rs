//! Patterns on function names: `*` is any run of characters, `?` any one, everything else is itself.
//!
//! Brackets are not special, since names are full of them (`operator new[]`, `<[T]>::to_vec`). Blanks count only
//! between words: `vector<int, A<int> >` and `vector<int,A<int>>` are the same name.

use std::borrow::Cow;

/// A pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Glob(String);

impl Glob {
    /// The pattern written `pattern`.
    pub fn new(pattern: &str) -> Glob {
        Glob(without_idle_blanks(pattern.trim()).into_owned())
    }

    /// Whether it matches every name there is.
    pub fn matches_everything(&self) -> bool {
        self.0.contains('*') && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` matches.
    pub fn matches(&self, text: &str) -> bool {
        matches(self.0.as_bytes(), without_idle_blanks(text).as_bytes())
    }
}

/// Greedy with one point to return to: a later `*` never needs an earlier one to match differently. Quadratic at worst.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[t] => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((star_at, from)) = star else { return false };
                star = Some((star_at, from + 1));
                (p, t) = (star_at + 1, from + 1);
            }
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// `text` without the blanks that no reader would miss: those that do not separate two words.
fn without_idle_blanks(text: &str) -> Cow<'_, str> {
    if !text.contains(' ') {
        return Cow::Borrowed(text);
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '*';
    let mut kept = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let before = kept.chars().next_back();
        if c != ' ' || before.is_some_and(is_word) && characters.peek().copied().is_some_and(is_word) {
            kept.push(c);
        }
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_match_what_they_say() {
        for (pattern, text, expected) in [
            ("xmalloc", "xmalloc", true),
            ("xmalloc", "xmalloc2", false),
            ("x*alloc", "xalloc", true),
            ("x*alloc", "xcalloc", true),
            ("x*alloc", "xcalloc_at", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a--b--b-c", true),
            ("a*b*c", "a--c--b", false),
            ("?lloc", "alloc", true),
            ("?lloc", "lloc", false),
            ("ns::Pool<*>::take(*)", "ns::Pool<int, 4ul>::take(unsigned long)", true),
            ("operator new[](*)", "operator new[](unsigned long)", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn blanks_count_only_between_words() {
        let name = "std::vector<int, std::allocator<int> >::push_back(int const&)";
        assert!(Glob::new("std::vector<int,std::allocator<int>>::push_back(int const&)").matches(name));
        assert!(!Glob::new("operatornew*").matches("operator new(unsigned long)"));
    }

    #[test]
    fn patterns_that_match_everything_are_known() {
        assert!(Glob::new("**").matches_everything());
        assert!(!Glob::new("").matches_everything());
        assert!(!Glob::new("a*").matches_everything());
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!Glob::new(&"*a".repeat(50)).matches(&"a".repeat(49)));
        assert!(!Glob::new(&format!("{}b", "*a".repeat(50))).matches(&"a".repeat(5_000)));
    }
}
