//! The table that edleak-bench prints. Each row has the name of a measure, the promised limit, edleak's
//! value, and the values of other contenders in the same run of edleak-bench.

use std::fmt::Write;

/// One row of the table.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// The name of the measure.
    pub(crate) measure: String,
    /// The limit that edleak promises to keep, in words; empty if there is no promise.
    pub(crate) promise: String,
    /// The value that was measured for edleak.
    pub(crate) edleak: String,
    /// Whether edleak's value is within the promised limit. `None`: the row has no promised limit.
    pub(crate) is_kept: Option<bool>,
    /// The names of the other contenders, and the values that were measured for them in the same run of
    /// edleak-bench.
    pub(crate) others: Vec<(String, String)>,
}

impl Row {
    /// Makes a row with the promise that the measured value is at most `most`. `unit` is printed after every
    /// number.
    pub(crate) fn at_most(measure: &str, most: f64, measured: f64, unit: &str) -> Row {
        Row {
            measure: measure.to_owned(),
            promise: format!("{}{unit}", number(most)),
            edleak: format!("{}{unit}", number(measured)),
            is_kept: Some(measured <= most),
            others: Vec::new(),
        }
    }

    /// Makes a row that has no promised limit.
    pub(crate) fn plain(measure: &str, measured: String) -> Row {
        let (measure, edleak) = (measure.to_owned(), measured);
        Row { measure, promise: String::new(), edleak, is_kept: None, others: Vec::new() }
    }

    /// Adds the measured value of another contender to the row.
    pub(crate) fn beside(mut self, who: &str, figure: String) -> Row {
        self.others.push((who.to_owned(), figure));
        self
    }
}

/// A number as text, with two digits after the decimal point; from 10 on with one digit, from 100 on with
/// none.
pub(crate) fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 99.5 || v == 0.0 => 0,
        v if v >= 9.95 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

/// A ratio as text.
pub(crate) fn times(value: f64) -> String {
    format!("×{value:.2}")
}

/// A size as text with a unit, such as `9.4 KiB`.
pub(crate) fn bytes(value: u64) -> String {
    edleak_text::units::bytes(value as f64)
}

/// The rows as Markdown.
pub(crate) fn markdown(header: &[String], rows: &[Row]) -> String {
    let mut text = String::new();
    for line in header {
        let _ = writeln!(text, "{line}  ");
    }
    text.push_str("\n| measure | at most | edleak | | beside it, in the same run |\n|---|---|---|---|---|\n");
    for row in rows {
        let kept = row.is_kept.map_or("", |kept| if kept { "kept" } else { "**over**" });
        let others: Vec<_> = row.others.iter().map(|(who, figure)| format!("{who} {figure}")).collect();
        let _ = writeln!(
            text,
            "| {} | {} | {} | {kept} | {} |",
            row.measure,
            row.promise,
            row.edleak,
            others.join(" · ")
        );
    }
    text
}

/// Prints one row on a terminal as soon as it is measured.
pub(crate) fn print(row: &Row) {
    let kept = row.is_kept.map_or("    ", |kept| if kept { "kept" } else { "OVER" });
    let promise = if row.promise.is_empty() { String::new() } else { format!("(at most {})", row.promise) };
    println!("{kept} {:<62} {:>14} {promise}", row.measure, row.edleak);
    for (who, figure) in &row.others {
        println!("       {who:<59} {figure:>14}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_kept_up_to_its_limit() {
        assert_eq!(Row::at_most("x", 90.0, 90.0, "").is_kept, Some(true));
        assert_eq!(Row::at_most("x", 90.0, 90.1, "").is_kept, Some(false));
    }

    #[test]
    fn numbers_have_the_digits_that_mean_something() {
        let shown = [0.0, 1.234, 12.34, 123.4, -3.456].map(number);
        assert_eq!(shown, ["0", "1.23", "12.3", "123", "-3.46"]);
        assert_eq!(bytes(64 << 20), "64 MiB");
    }

    #[test]
    fn markdown_names_everyone() {
        let row = Row::at_most("pair", 90.0, 61.0, " ns").beside("heaptrack", "+600 ns".to_owned());
        let text = markdown(&["machine".to_owned()], &[row]);
        assert!(text.contains("| pair | 90.0 ns | 61.0 ns | kept | heaptrack +600 ns |"), "{text}");
    }
}
