//! Reads series lines. Each series line is a JSON object that describes one site; `--format series` prints
//! series lines.
//!
//! ```json
//! {"id":7,"period_s":1.0,"live_bytes":[0,96,192],"live_count":[0,1,2],"allocs":[0,1,2],"frees":[0,0,0]}
//! ```
//!
//! Only `live_bytes` is required. The reader skips unknown fields. If the live counts are missing, the reader
//! uses the live bytes as live counts, so that every rule about counts gives the same result as the rule
//! about bytes. A line may also have the fields of [`Births`], under the same names.
//!
//! The reader condenses each line as soon as it has read the line, and does not keep the text. So the reader
//! needs memory in proportion to the number of lines; the length of a line does not matter.

use super::edleak_json;
use super::line_series::{KeptPoints, LineSeries, LoadOptions, address_of, short};
use crate::error::{Error, ErrorKind, Result};
use crate::site::{SiteLabel, Survivor, Totals};
use edleak_model::series::{Births, Point, SeriesBuilder};
use edleak_model::work::Work;
use edleak_text::reason::reason;
use serde::Deserialize;
use std::io::{BufRead, Read};
use std::sync::Arc;

/// Maximum length of a line in bytes; the reader refuses a longer line.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// One line of the input. Every field of the type `Line` is optional. So if the output of another tool lacks
/// a field, edleak can print a helpful message instead of a type error.
#[derive(Deserialize)]
struct Line {
    id: Option<Id>,
    parent: Option<Id>,
    period_s: Option<f64>,
    first_slice: Option<u64>,
    live_bytes: Option<Vec<u64>>,
    live_count: Option<Vec<u64>>,
    allocs: Option<Vec<u64>>,
    frees: Option<Vec<u64>>,
    with_stacks_first_slice: Option<u64>,
    with_stacks_live_bytes: Option<Vec<u64>>,
    with_stacks_live_count: Option<Vec<u64>>,
    program_allocs: Option<Vec<u64>>,
    program_allocs_every: Option<u64>,
    allocated_bytes: Option<u64>,
    freed_bytes: Option<u64>,
    #[serde(default)]
    stack: Vec<String>,
    epoch_live_bytes: Option<Vec<u64>>,
    epoch_live_count: Option<Vec<u64>>,
    epoch_allocs: Option<Vec<u64>>,
    last_free_slice: Option<f64>,
    max_age_at_free: Option<f64>,
    undecided: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Number(u64),
    Text(String),
}

impl From<Id> for SiteLabel {
    fn from(id: Id) -> Self {
        match id {
            Id::Number(number) => Self::Number(number),
            Id::Text(text) => Self::Text(text),
        }
    }
}

/// Reads series lines. If the input is a JSON document of edLeak instead, the function reads this document.
///
/// # Errors
/// A line cannot be read, or a line is not a series.
pub fn read(mut reader: impl BufRead, options: LoadOptions) -> Result<Vec<LineSeries>> {
    let mut all = Vec::new();
    let mut text = Vec::new();
    for number in 1u64.. {
        text.clear();
        reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut text).map_err(|error| {
            Error::new(ErrorKind::Io, format!("line {number}: {}", reason(&error)))
                .with_remedy("check the file and its disk")
        })?;
        if text.is_empty() {
            break;
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        match serde_json::from_slice::<Line>(&text) {
            Ok(line) if line.live_bytes.is_some() => {
                all.push(
                    condense(line, number, options)
                        .map_err(|error| error.context(format_args!("line {number}")))?,
                );
            }
            // The input may be a JSON document of edLeak instead of series lines. The first line of an edLeak
            // document is not complete JSON; if the whole document is one line, this line has no
            // `live_bytes`.
            _ if all.is_empty() => return edleak_json::read((&text[..]).chain(reader), options),
            Ok(_) => return Err(not_a_series(number, "there is no `live_bytes`")),
            Err(error) => return Err(not_a_series(number, &short(&error))),
        }
    }
    Ok(all)
}

fn not_a_series(number: u64, why: &str) -> Error {
    Error::new(ErrorKind::Unreadable, format!("line {number} is not a series: {why}"))
        .with_remedy("each line is an object as `--format series` prints it")
}

fn condense(line: Line, number: u64, options: LoadOptions) -> Result<LineSeries> {
    let invalid = |what: &str, remedy: &str| Err(Error::new(ErrorKind::Unreadable, what).with_remedy(remedy));
    let period_s = line.period_s.unwrap_or(1.0);
    if !(period_s.is_finite() && period_s > 0.0) {
        return invalid("`period_s` is not a positive number", "give the seconds from slice to slice");
    }
    let live_bytes = line.live_bytes.unwrap_or_default();
    let same_length =
        |other: &Option<Vec<u64>>| other.as_ref().is_none_or(|values| values.len() == live_bytes.len());
    if ![&line.live_count, &line.allocs, &line.frees].into_iter().all(same_length) {
        return invalid("its arrays differ in length", "each holds one number per slice");
    }
    let at = |values: &Option<Vec<u64>>, i: usize| values.as_ref().map(|values| values[i]);
    let point = |i: usize| Point {
        live_bytes: live_bytes[i],
        live_count: at(&line.live_count, i).unwrap_or(live_bytes[i]),
        allocs: at(&line.allocs, i).unwrap_or(0),
        frees: at(&line.frees, i).unwrap_or(0),
    };
    let mut builder = SeriesBuilder::new();
    builder.absent(line.first_slice.unwrap_or(0));
    (0..live_bytes.len()).for_each(|i| builder.push(point(i)));

    let births = match (line.epoch_live_bytes, line.epoch_live_count, line.epoch_allocs) {
        (Some(epoch_live_bytes), Some(epoch_live_count), Some(epoch_allocs)) => Some(Births {
            epoch_live_bytes,
            epoch_live_count,
            epoch_allocs,
            last_free_slice: line.last_free_slice.unwrap_or(0.0),
            max_age_at_free: line.max_age_at_free.unwrap_or(0.0),
        }),
        _ => None,
    };
    let survivors = births.as_ref().map_or_else(Vec::new, |births| {
        survivors_of(
            births,
            line.first_slice.unwrap_or(0) as f64 * period_s,
            live_bytes.len() as f64 * period_s,
        )
    });
    if let Some(births) = births.clone() {
        builder.births(births);
    }
    let work = match (line.program_allocs, line.program_allocs_every) {
        // A site that first allocates in the last slice has no points, and needs no curve of the program.
        (Some(allocs), Some(every)) if !live_bytes.is_empty() => {
            let slices = line.first_slice.unwrap_or(0).saturating_add(live_bytes.len() as u64);
            match Work::from_parts(every, slices, allocs) {
                Some(work) => Some(Arc::new(work)),
                None => {
                    return invalid(
                        "`program_allocs` does not fit the series",
                        "give the first slice's, then one number for every `program_allocs_every` slices, \
                         none smaller",
                    );
                }
            }
        }
        _ => None,
    };
    work.iter().for_each(|work| builder.work(Arc::clone(work)));
    let with_stacks =
        line.with_stacks_live_bytes.map(|bytes| with_stacks(&bytes, line.with_stacks_live_count.as_deref()));
    let last = live_bytes.len().checked_sub(1);
    Ok(LineSeries {
        label: line.id.map_or(SiteLabel::Number(number), SiteLabel::from),
        undecided: line.undecided,
        parent: line.parent.map(SiteLabel::from),
        period_s,
        series: builder.finish(),
        with_stacks: with_stacks.as_deref().map(|runs| {
            let mut builder = SeriesBuilder::new();
            builder.absent(line.with_stacks_first_slice.or(line.first_slice).unwrap_or(0));
            runs.iter().for_each(|&(point, repeat)| builder.push_run(point, repeat));
            work.iter().for_each(|work| builder.work(Arc::clone(work)));
            builder.finish()
        }),
        totals: Totals {
            live_bytes: live_bytes.last().copied().unwrap_or(0),
            live_count: last.and_then(|last| at(&line.live_count, last)),
            allocs: last.and_then(|last| at(&line.allocs, last)),
            frees: last.and_then(|last| at(&line.frees, last)),
            allocated_bytes: line.allocated_bytes,
            freed_bytes: line.freed_bytes,
        },
        stack: line.stack.iter().map(|text| address_of(text)).collect(),
        survivors,
        kept: options.keep_points.then(|| KeptPoints {
            runs: (0..live_bytes.len()).map(|i| (point(i), 1)).collect(),
            has_counts: line.live_count.is_some(),
            with_stacks,
            births,
        }),
    })
}

fn with_stacks(live_bytes: &[u64], live_count: Option<&[u64]>) -> Vec<(Point, u64)> {
    let count = |i: usize| live_count.and_then(|counts| counts.get(i)).copied().unwrap_or(live_bytes[i]);
    let point = |i: usize| Point { live_bytes: live_bytes[i], live_count: count(i), allocs: 0, frees: 0 };
    (0..live_bytes.len()).map(|i| (point(i), 1)).collect()
}

/// Converts the times of the epochs to seconds. All birth epochs of a series have the same length.
fn survivors_of(births: &Births, start_s: f64, length_s: f64) -> Vec<Survivor> {
    let epochs = births.epochs();
    let edge = |i: usize| start_s + length_s * i as f64 / epochs as f64;
    (0..epochs)
        .map(|i| Survivor {
            from_s: edge(i),
            to_s: edge(i + 1),
            bytes: births.epoch_live_bytes[i],
            count: births.epoch_live_count[i],
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<LineSeries>> {
        read(text.as_bytes(), LoadOptions { keep_points: true })
    }

    #[test]
    fn a_line_becomes_a_series() {
        let lines = parse(concat!(
            r#"{"id":7,"period_s":0.5,"live_bytes":[0,96,192],"live_count":[0,1,2],"#,
            r#""allocs":[0,1,3],"frees":[0,0,1],"note":{"x":1}}"#,
            "\r\n\n",
            r#"{"id":"cache","live_bytes":[5,5],"first_slice":1,"parent":7,"#,
            r#""stack":["0x4008a1:main","0x12","somewhere"]}"#
        ))
        .unwrap();
        assert_eq!(lines.len(), 2);
        assert_eq!(
            (&lines[0].label, lines[0].period_s, lines[0].series.points()),
            (&SiteLabel::Number(7), 0.5, 3)
        );
        assert_eq!(lines[0].series.last(), Point { live_bytes: 192, live_count: 2, allocs: 3, frees: 1 });
        assert_eq!(lines[0].totals.live_count, Some(2));
        assert_eq!(
            (&lines[1].label, &lines[1].parent),
            (&SiteLabel::Text("cache".into()), &Some(SiteLabel::Number(7)))
        );
        assert_eq!((lines[1].series.absent(), lines[1].totals.live_count), (1, None));
        assert_eq!(lines[1].series.last().live_count, 5, "bytes stand in for counts");
        let names: Vec<_> = lines[1].stack.iter().map(|a| (a.address, a.frames.len())).collect();
        assert_eq!(names, [(0x4008a1, 1), (0x12, 0), (0, 1)]);
    }

    #[test]
    fn births_are_read_and_put_on_the_clock() {
        let line = concat!(
            r#"{"id":"a","period_s":10.0,"live_bytes":[1,2,3,4],"live_count":[1,2,3,4],"#,
            r#""epoch_live_bytes":[1,3],"#,
            "\n            ",
            r#""epoch_live_count":[1,3],"epoch_allocs":[2,4],"last_free_slice":2.5,"#,
            r#""max_age_at_free":1.25,"leak_bytes":4}"#
        );
        let lines = parse(&line.replace('\n', " ")).unwrap();
        let births = lines[0].series.survivors().unwrap();
        assert_eq!((births.epochs(), births.last_free_slice, births.max_age_at_free), (2, 2.5, 1.25));
        assert_eq!(lines[0].survivors[1], Survivor { from_s: 20.0, to_s: 40.0, bytes: 3, count: 3 });
    }

    #[test]
    fn malformed_series_is_named_with_its_line() {
        let good = r#"{"id":1,"live_bytes":[1]}"#;
        let cases = [
            (format!("{good}\n{{\"id\":2}}"), "line 2 is not a series: there is no `live_bytes`"),
            (format!("{good}\n[1,2]"), "line 2 is not a series: "),
            (
                format!("{good}\n{{\"live_bytes\":[-1]}}"),
                "line 2 is not a series: invalid value: integer `-1`",
            ),
            (r#"{"live_bytes":[1],"live_count":[1,2]}"#.into(), "line 1: its arrays differ in length"),
            (
                r#"{"live_bytes":[1,2],"program_allocs":[1,5,3],"program_allocs_every":1}"#.into(),
                "line 1: `program_allocs` does not fit the series",
            ),
            (r#"{"live_bytes":[1],"period_s":0}"#.into(), "line 1: `period_s` is not a positive number"),
        ];
        for (text, message) in cases {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with(message), "{error}");
            assert!(error.ends_with(')'), "{error}");
        }
    }
}
