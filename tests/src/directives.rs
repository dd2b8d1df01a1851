//! Reads directives. A directive is a line at the top of a test program, such as `//#Expect: Leak in
//! grow_list`.

use std::path::Path;

/// All directives of one source file, in the order of the file.
#[derive(Debug, Default)]
pub struct Directives(Vec<(String, String)>);

/// The leaks that edleak must report for a sample program.
#[derive(Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The functions in which edleak must report a leak.
    pub leaks: Vec<String>,
    /// Whether edleak must not report a leak in any other function.
    pub nothing_else: bool,
}

impl Directives {
    /// The directives of the file at `path`.
    pub fn read(path: &Path) -> Directives {
        let source = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read `{}`: {error}", path.display()));
        Directives::parse(&source)
    }

    /// Reads the directives in `source`. A directive is a line `//#Name: value`.
    pub fn parse(source: &str) -> Directives {
        let directive = |line: &str| {
            let (name, value) = line.strip_prefix("//#")?.split_once(':')?;
            Some((name.to_owned(), value.trim().to_owned()))
        };
        Directives(source.lines().filter_map(directive).collect())
    }

    /// The values of all directives named `name`.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// The words of all directives named `name`.
    pub fn words(&self, name: &str) -> Vec<String> {
        self.all(name).flat_map(str::split_whitespace).map(str::to_owned).collect()
    }

    /// The content of the `Expect` directives. Panics if the source has no `Expect` directive, or an `Expect`
    /// directive that this function does not know.
    pub fn expectation(&self) -> Expectation {
        let mut expectation = Expectation { leaks: Vec::new(), nothing_else: false };
        for line in self.all("Expect") {
            match (line, line.strip_prefix("Leak in ")) {
                (_, Some(function)) => expectation.leaks.push(function.to_owned()),
                ("nothing else" | "no leak", _) => expectation.nothing_else = true,
                _ => panic!("`//#Expect: {line}` is none of `Leak in F`, `nothing else`, `no leak`"),
            }
        }
        assert!(expectation.nothing_else || !expectation.leaks.is_empty(), "no `//#Expect:` line");
        expectation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_are_read_in_order() {
        let directives = Directives::parse("// text\n//#Run: a b\n//#Expect: Leak in f\n//#Run: c\nint x;\n");
        assert_eq!(directives.words("Run"), ["a", "b", "c"]);
        assert_eq!(directives.expectation(), Expectation { leaks: vec!["f".into()], nothing_else: false });
    }

    #[test]
    fn no_leak_means_nothing_at_all() {
        let expectation = Directives::parse("//#Expect: no leak\n").expectation();
        assert_eq!(expectation, Expectation { leaks: Vec::new(), nothing_else: true });
    }

    #[test]
    #[should_panic(expected = "is none of")]
    fn an_unknown_expectation_is_an_error() {
        Directives::parse("//#Expect: leak in f\n").expectation();
    }
}
