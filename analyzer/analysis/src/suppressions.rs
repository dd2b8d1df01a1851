//! Reads suppression files. The files have the syntax of LeakSanitizer; in addition, a rule may have a
//! budget.
//!
//! ```text
//! # a comment
//! leak:libfontconfig.so
//! leak:^my_cache_*$
//! leak:Registry::add budget=64KiB
//! leak:telemetry_ budget=10KB/min
//! ```
//!
//! As in LeakSanitizer, a pattern may match any part of the function name, the file name or the module name
//! of every frame. `*` stands for any text; `^` and `$` match the start and the end of a name.
//!
//! The budget of a rule limits the leaks that the rule may hide. A budget is a number of bytes leaked over
//! the recording, or a rate if it ends with `/s`, `/min`, `/h` or `/day`. edleak adds up the bytes or the
//! rates of all leaks that the rule matches. If the sum of bytes or rates exceeds the budget, edleak reports
//! all leaks that the rule matches.

use crate::error::{Error, ErrorKind, Result};
use edleak_text::globs::Glob;
use edleak_text::units;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Maximum size of a suppression file in bytes; edleak refuses a larger file.
const MAX_FILE_BYTES: usize = 16 << 20;

/// One `leak:` line.
#[derive(Clone, PartialEq, Debug)]
pub struct Rule {
    /// The text of the rule as it is in the suppression file, without the budget.
    pub text: String,
    /// The line number, counted from 1.
    pub line: usize,
    /// The budget of the rule; `None`: the rule hides leaks of any size.
    pub(crate) budget: Option<Budget>,
    pattern: Glob,
}

/// The limit for the sum of the leaks that a rule may hide.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Budget {
    /// Limit for the number of bytes that all matching leaks together leaked over the recording.
    Bytes(f64),
    /// Limit for the rate of all matching leaks together, in bytes per second.
    Rate(f64),
}

impl Budget {
    /// Whether leaks that have this number of bytes and this rate together are within the budget.
    pub(crate) fn covers(self, leak_bytes: f64, rate_bytes_per_s: f64) -> bool {
        match self {
            Self::Bytes(most) => leak_bytes <= most,
            Self::Rate(most) => rate_bytes_per_s <= most,
        }
    }
}

/// The rules of one file, in the order of the file.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Suppressions {
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Suppressions {
    /// Reads a suppression file.
    ///
    /// # Errors
    /// The file cannot be read, or a line of the file is not a rule.
    pub fn read(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut text))
            .map_err(|error| {
                let reason = edleak_text::reason::reason(&error);
                Error::new(ErrorKind::Io, format!("failed to read suppressions `{name}`: {reason}"))
                    .with_remedy("check the path")
            })?;
        Self::parse(&name, &text)
    }

    /// Reads the text of a suppression file. Error messages contain `name`, which is the path of the file.
    ///
    /// # Errors
    /// A line is not a rule.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        let invalid = |line: usize, what: &str, remedy: &str| {
            let message = format!("{name}:{line}: {what}");
            Err(Error::new(ErrorKind::Suppressions, message).with_remedy(remedy))
        };
        if text.len() > MAX_FILE_BYTES {
            return invalid(1, "the file is larger than 16 MiB", "give a file of `leak:pattern` lines");
        }
        let Ok(text) = std::str::from_utf8(text) else {
            return invalid(1, "not a text file", "give a file of `leak:pattern` lines in UTF-8");
        };
        // Some editors write an invisible mark (a BOM) at the start of a file; the parser skips this mark.
        let text = text.trim_start_matches('\u{feff}');
        let mut rules = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let (line, body) = (index + 1, raw.trim());
            if body.is_empty() || body.starts_with('#') {
                continue;
            }
            let Some((kind, rest)) = body.split_once(':') else {
                return invalid(
                    line,
                    &format!("`{body}` is not a rule"),
                    "write `leak:pattern`, or `#` before a comment",
                );
            };
            if kind.trim() != "leak" {
                return invalid(
                    line,
                    &format!("`{kind}:` is not a kind of rule"),
                    "only `leak:pattern` is understood",
                );
            }
            let (pattern, budget) = match rest.rsplit_once(" budget=") {
                None => (rest.trim(), None),
                Some((pattern, budget)) => match parse_budget(budget) {
                    Ok(budget) => (pattern.trim(), Some(budget)),
                    Err(error) => return invalid(line, error.message(), error.remedy()),
                },
            };
            if pattern.is_empty() {
                return invalid(line, "the pattern is empty", "name a function, a file or a module");
            }
            rules.push(Rule { text: format!("leak:{pattern}"), line, budget, pattern: Glob::part(pattern) });
        }
        Ok(Self { rules })
    }

    /// The index of the first rule whose pattern matches at least one of `names`; `None`: no rule matches.
    pub fn matching<'n>(&self, names: impl Iterator<Item = &'n str> + Clone) -> Option<usize> {
        self.rules.iter().position(|rule| names.clone().any(|name| rule.pattern.matches(name)))
    }
}

fn parse_budget(text: &str) -> edleak_text::Result<Budget> {
    if text.contains('/') {
        Ok(Budget::Rate(units::parse_rate(text)?))
    } else {
        Ok(Budget::Bytes(units::parse_bytes(text)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_with_budgets_and_line_numbers() {
        let text = b"# comment\n\nleak:one\n leak: two * three budget=64KiB\r\nleak:four budget=60KB/min\n";
        let rules = Suppressions::parse("rules.txt", text).unwrap().rules;
        let read: Vec<_> = rules.iter().map(|r| (r.text.as_str(), r.line, r.budget)).collect();
        assert_eq!(
            read,
            [
                ("leak:one", 3, None),
                ("leak:two * three", 4, Some(Budget::Bytes(65536.0))),
                ("leak:four", 5, Some(Budget::Rate(1000.0)))
            ]
        );
    }

    #[test]
    fn the_first_matching_rule_wins() {
        let rules = Suppressions::parse("r", b"leak:nothing\nleak:main\nleak:libc").unwrap();
        assert_eq!(rules.matching(["libc.so.6", "main"].into_iter()), Some(1));
        assert_eq!(rules.matching(["other"].into_iter()), None);
    }

    #[test]
    fn errors_name_the_line_and_the_remedy() {
        let cases: [(&[u8], &str); 6] = [
            (b"leak:ok\nrace:x", "r.txt:2: `race:` is not a kind of rule (only"),
            (b"oops", "r.txt:1: `oops` is not a rule (write"),
            (b"#\n\nleak:x budget=lots", "r.txt:3: `lots` is not a size (write"),
            (b"leak:x budget=1KB/eon", "r.txt:1: `1KB/eon` is not a rate (write"),
            (b"leak: ", "r.txt:1: the pattern is empty (name"),
            (b"\xff\xfe", "r.txt:1: not a text file (give"),
        ];
        for (text, message) in cases {
            let error = Suppressions::parse("r.txt", text).unwrap_err();
            assert!(error.to_string().starts_with(message), "{error}");
            assert_eq!(error.kind(), ErrorKind::Suppressions);
        }
    }

    #[test]
    fn budgets_bound_bytes_or_rate() {
        assert!(Budget::Bytes(100.0).covers(100.0, 1e9));
        assert!(!Budget::Bytes(100.0).covers(101.0, 0.0));
        assert!(Budget::Rate(2.0).covers(1e9, 2.0));
        assert!(!Budget::Rate(2.0).covers(0.0, 2.1));
    }
}
