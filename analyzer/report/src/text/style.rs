//! The style of text on a terminal: colours, characters, and lines that fit.

use anstyle::AnsiColor;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Number of columns in a line of the report.
pub const WIDTH: usize = 80;

/// The style of the output: whether it may contain colours, and characters outside ASCII.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether escape sequences for colours may be printed.
    pub colour: bool,
    /// Whether characters outside ASCII may be printed.
    pub unicode: bool,
}

/// The meaning of a piece of text. The colour and the weight of the text depend on its meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Ink {
    /// A leak.
    Alarm,
    /// A possible leak.
    Warning,
    /// A good result, for example that no site leaks.
    Calm,
    /// Text that the user should see first.
    Strong,
    /// A place in the code.
    Place,
    /// A detail that the user rarely needs.
    Faint,
}

impl Style {
    /// Chooses the style from the environment variables and the kind of output. The style has colours if the
    /// output is a terminal and NO_COLOR is not set. The style has characters outside ASCII if the locale
    /// uses UTF-8.
    pub fn of_environment(is_terminal: bool) -> Style {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale =
            ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default().to_lowercase();
        Style {
            colour: is_terminal
                && variable("NO_COLOR").is_none()
                && variable("TERM").is_none_or(|term| term != "dumb"),
            unicode: locale.contains("utf-8") || locale.contains("utf8"),
        }
    }

    /// Adds escape sequences to a text, for the colour that belongs to its meaning.
    pub(crate) fn paint(self, ink: Ink, text: &str) -> String {
        let plain = anstyle::Style::new();
        let bold = |colour: AnsiColor| plain.bold().fg_color(Some(colour.into()));
        let style = match ink {
            _ if !self.colour || text.is_empty() => return text.to_owned(),
            Ink::Alarm => bold(AnsiColor::Red),
            Ink::Warning => bold(AnsiColor::Yellow),
            Ink::Calm => bold(AnsiColor::Green),
            Ink::Strong => plain.bold(),
            Ink::Place => plain.fg_color(Some(AnsiColor::Cyan.into())),
            Ink::Faint => plain.dimmed(),
        };
        format!("{style}{text}{style:#}")
    }

    /// The characters that stand for omitted text: `…` or `...`.
    pub(crate) fn ellipsis(self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    /// A curve in one line of text, with one character for each value. The lowest character stands for the
    /// least value and not for 0, because the curve shows only a shape. The report prints the figures beside
    /// the curve.
    pub fn sparkline(self, curve: &[f64]) -> String {
        const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        const ASCII: [char; 5] = ['_', '.', '-', '=', '#'];
        let rows: &[char] = if self.unicode { &BLOCKS } else { &ASCII };
        let least = curve.iter().copied().fold(f64::INFINITY, f64::min);
        let most = curve.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let row = |value: &f64| match most > least {
            true => ((value - least) / (most - least) * (rows.len() - 1) as f64).round() as usize,
            false => 0,
        };
        curve.iter().map(|value| rows[row(value).min(rows.len() - 1)]).collect()
    }

    /// The text, cut at its end to at most `width` columns.
    pub fn clip_end(self, text: &str, width: usize) -> String {
        if columns(text) <= width {
            return text.to_owned();
        }
        let kept = width.saturating_sub(columns(self.ellipsis()));
        let end = text.char_indices().zip(running_width(text.chars())).find(|(_, width)| *width > kept);
        let end = end.map_or(text.len(), |((at, _), _)| at);
        text[..end].to_owned() + self.ellipsis()
    }

    /// The text, cut at its start to at most `width` columns. `clip_start` suits paths, because a path ends
    /// with the name of the file.
    pub(crate) fn clip_start(self, text: &str, width: usize) -> String {
        if columns(text) <= width {
            return text.to_owned();
        }
        let kept = width.saturating_sub(columns(self.ellipsis()));
        let from_behind = text.char_indices().rev().zip(running_width(text.chars().rev()));
        let start = from_behind.take_while(|(_, width)| *width <= kept).last();
        self.ellipsis().to_owned() + start.map_or("", |((at, _), _)| &text[at..])
    }
}

/// For each character, the number of columns that the text takes from its start to the end of this character.
fn running_width(characters: impl Iterator<Item = char>) -> impl Iterator<Item = usize> {
    characters.scan(0, |width, c| {
        *width += c.width().unwrap_or(0);
        Some(*width)
    })
}

/// The number of columns that the text takes on a terminal. A character of a wide script takes two columns,
/// and a combining accent takes no column.
pub(crate) fn columns(text: &str) -> usize {
    text.width()
}

/// The text without control characters. Names come from files that a stranger may have written, and a
/// terminal would execute control characters in a name.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Breaks a text into lines of at most `width` columns. The first line begins with `first`, and all other
/// lines begin with `rest`. A word that is longer than a line is not cut.
pub fn fill(text: &str, first: &str, rest: &str, width: usize) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if words.is_empty() {
        return Vec::new();
    }
    let options = Options::new(width)
        .initial_indent(first)
        .subsequent_indent(rest)
        .break_words(false)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(&words.join(" "), options).into_iter().map(|line| line.into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Style = Style { colour: false, unicode: true };
    const ASCII: Style = Style { colour: false, unicode: false };

    #[test]
    fn sparklines_span_all_rows() {
        assert_eq!(UNICODE.sparkline(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]), "▁▂▃▄▅▆▇█");
        assert_eq!(ASCII.sparkline(&[10.0, 11.0, 12.0, 13.0, 14.0]), "_.-=#");
        assert_eq!(UNICODE.sparkline(&[5.0, 5.0]), "▁▁");
        assert_eq!(UNICODE.sparkline(&[]), "");
    }

    #[test]
    fn clipped_text_keeps_its_end() {
        assert_eq!(UNICODE.clip_end("a_long_function", 7), "a_long…");
        assert_eq!(UNICODE.clip_start("/very/long/path/file.c:12", 10), "…file.c:12");
        assert_eq!(ASCII.clip_end("a_long_function", 9), "a_long...");
        assert_eq!(UNICODE.clip_end("short", 5), "short");
        // Each Japanese character takes two columns; a combining accent takes none.
        assert_eq!(UNICODE.clip_end("読み込み関数", 7), "読み込…");
        assert_eq!(UNICODE.clip_start("/源/読み込み.c", 8), "…込み.c");
        assert_eq!((columns("読み"), columns("e\u{301}t")), (4, 2));
    }

    #[test]
    fn paragraphs_fit_and_words_stay_whole() {
        assert_eq!(fill("one two three", "- ", "  ", 9), ["- one two", "  three"]);
        assert_eq!(fill("unbreakable", "", "", 3), ["unbreakable"]);
        assert!(fill("", "x", "", 10).is_empty());
    }

    #[test]
    fn colour_is_only_there_when_asked_for() {
        assert_eq!(UNICODE.paint(Ink::Alarm, "x"), "x");
        assert_eq!(
            Style { colour: true, unicode: true }.paint(Ink::Alarm, "x"),
            "\u{1b}[1m\u{1b}[31mx\u{1b}[0m"
        );
    }

    #[test]
    fn a_name_cannot_command_the_terminal() {
        assert_eq!(printable("evil\u{1b}[2J\n"), "evil?[2J?");
    }
}
