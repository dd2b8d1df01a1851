//! Patterns for names. `*` stands for any text, and all other characters stand for themselves.
//!
//! | pattern | matches | special characters |
//! |---|---|---|
//! | [`Glob::new`]: `--watch`, `--wrapper` | the whole name | `*`, `?` (any one character) |
//! | [`Glob::part`]: suppressions, as in LeakSanitizer | part of the name | `*`, leading `^`, trailing `$` |
//!
//! Brackets are ordinary characters, because many names contain them (`operator new[]`, `<[T]>::to_vec`). In
//! patterns for whole names, a blank matters only between two words: the patterns `vector<int, A<int> >` and
//! `vector<int,A<int>>` match the same names.
//!
//! The search takes, for each text between two `*`, the first place in the name where this text occurs, and
//! never tries a second place. The search still misses no match: if the text occurs again further right, the
//! `*` after it can match the characters up to there. So, for any number of `*`, the time of a search is at
//! most proportional to the length of the name times the length of the longest text between two `*`.

use std::borrow::Cow;

/// A pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Glob {
    text: String,
    /// The texts between the `*` characters.
    pieces: Vec<Piece>,
    at_start: bool,
    at_end: bool,
    skips_blanks: bool,
}

/// A text between two `*` of a pattern.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Piece {
    text: String,
    /// Whether the text contains the special character `?`, which matches any one character.
    has_any: bool,
}

impl Glob {
    /// Makes a pattern for whole names.
    pub fn new(pattern: &str) -> Glob {
        let text = without_idle_blanks(pattern.trim()).into_owned();
        let piece = |piece: &str| Piece { text: piece.to_owned(), has_any: piece.contains('?') };
        let pieces = text.split('*').map(piece).collect();
        Glob { text, pieces, at_start: true, at_end: true, skips_blanks: true }
    }

    /// Makes a pattern that may match any part of a name. If the pattern begins with `^`, it matches only at
    /// the start of a name. If the pattern ends with `$`, it matches only at the end of a name.
    pub fn part(pattern: &str) -> Glob {
        let (inner, at_start) = pattern.strip_prefix('^').map_or((pattern, false), |rest| (rest, true));
        let (inner, at_end) = inner.strip_suffix('$').map_or((inner, false), |rest| (rest, true));
        let piece = |piece: &str| Piece { text: piece.to_owned(), has_any: false };
        let pieces = inner.split('*').map(piece).collect();
        Glob { text: pattern.to_owned(), pieces, at_start, at_end, skips_blanks: false }
    }

    /// Whether the pattern matches every name.
    pub fn matches_everything(&self) -> bool {
        self.text.contains('*') && self.text.bytes().all(|byte| byte == b'*')
    }

    /// Whether the pattern is empty.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// The text of the pattern. In a pattern for whole names, the blanks that do not matter are already
    /// removed.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the pattern matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        let name = if self.skips_blanks { without_idle_blanks(name) } else { Cow::Borrowed(name) };
        let Some((last, before)) = self.pieces.split_last() else { return false };
        let mut rest: &str = &name;
        for (i, piece) in before.iter().enumerate() {
            let end = if i == 0 && self.at_start { piece.end_at_start(rest) } else { piece.first_end(rest) };
            let Some(end) = end else { return false };
            rest = &rest[end..];
        }
        match (self.at_start && before.is_empty(), self.at_end) {
            (true, true) => last.end_at_start(rest) == Some(rest.len()),
            (true, false) => last.end_at_start(rest).is_some(),
            (false, true) => last.is_at_end(rest),
            (false, false) => last.first_end(rest).is_some(),
        }
    }
}

impl Piece {
    /// If `text` begins with this piece of the pattern, returns the position after the piece.
    fn end_at_start(&self, text: &str) -> Option<usize> {
        if !self.has_any {
            return text.starts_with(&self.text).then_some(self.text.len());
        }
        let mut characters = text.chars();
        let is_met = |wanted| characters.next().is_some_and(|c| wanted == '?' || wanted == c);
        self.text.chars().all(is_met).then(|| text.len() - characters.as_str().len())
    }

    /// Returns the position after the first occurrence of this piece of the pattern in `text`.
    fn first_end(&self, text: &str) -> Option<usize> {
        if !self.has_any {
            return text.find(&self.text).map(|at| at + self.text.len());
        }
        text.char_indices().find_map(|(at, _)| Some(at + self.end_at_start(&text[at..])?))
    }

    /// Whether `text` ends with this piece of the pattern.
    fn is_at_end(&self, text: &str) -> bool {
        if !self.has_any {
            return text.ends_with(&self.text);
        }
        let characters = self.text.chars().count();
        let start = text.char_indices().rev().nth(characters - 1).map(|(at, _)| at);
        start.is_some_and(|at| self.end_at_start(&text[at..]).is_some())
    }
}

/// `text` without blanks, except the blanks that separate two words.
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
    fn stars_and_question_marks_match_as_documented() {
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
            ("a?c*", "abcd", true),
            ("*?c", "abc", true),
            ("*b?", "abc", true),
            ("*b?", "ab", false),
            ("*?", "", false),
            ("*a?c*e", "xxaac_abc_e", true),
            ("ab*ab", "ab", false),
            ("gr?ße", "größe", true),
            ("*?ße", "größe", true),
            ("ns::Pool<*>::take(*)", "ns::Pool<int, 4ul>::take(unsigned long)", true),
            ("operator new[](*)", "operator new[](unsigned long)", true),
        ] {
            assert_eq!(Glob::new(pattern).matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_part_matches_as_in_leak_sanitizer() {
        for (pattern, name, expected) in [
            ("grow", "do_grow_list", true),
            ("^do_", "do_grow_list", true),
            ("^grow", "do_grow_list", false),
            ("list$", "do_grow_list", true),
            ("grow$", "do_grow_list", false),
            ("^do_*list$", "do_grow_list", true),
            ("d*g*t", "do_grow_list", true),
            ("g*d", "do_grow_list", false),
            ("^exact$", "exact", true),
            ("^exact$", "exactly", false),
            ("*.so", "/lib/libc.so.6", true),
            ("^ab*ab$", "ab", false),
            ("gr?w", "grow", false),
            ("operator new(unsigned long)", "operator new(unsigned long)", true),
        ] {
            assert_eq!(Glob::part(pattern).matches(name), expected, "{pattern} in {name}");
        }
    }

    /// A simple implementation to which the test compares the real one: for each `*`, it tries to match 0
    /// characters, 1 character, and so on.
    fn matches_by_trial(pattern: &[char], name: &[char]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, _) => name.is_empty(),
            (Some(('*', rest)), _) => (0..=name.len()).any(|taken| matches_by_trial(rest, &name[taken..])),
            (Some((wanted, rest)), Some((c, after))) => {
                (*wanted == '?' || wanted == c) && matches_by_trial(rest, after)
            }
            (Some(_), None) => false,
        }
    }

    #[test]
    fn short_patterns_match_as_every_way_to_read_them_tried_in_turn() {
        let words = |letters: &[char], longest: u32| -> Vec<String> {
            let n = letters.len();
            let word = |length: u32, mut number: usize| {
                (0..length).map(|_| (letters[number % n], number /= n).0).collect::<String>()
            };
            (0..=longest)
                .flat_map(|length| (0..n.pow(length)).map(move |i| (length, i)))
                .map(|(length, i)| word(length, i))
                .collect()
        };
        for pattern in words(&['a', 'b', '*', '?'], 5) {
            let glob = Glob::new(&pattern);
            let pattern: Vec<char> = pattern.chars().collect();
            for name in words(&['a', 'b'], 5) {
                let expected = matches_by_trial(&pattern, &name.chars().collect::<Vec<_>>());
                assert_eq!(glob.matches(&name), expected, "{} on {name}", glob.as_str());
            }
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
