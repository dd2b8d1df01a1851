//! Reads edLeak's own JSON format. (edLeak calls a site an allocer.) The input is one document with all
//! slices and with the stacks of the allocers. A slice gives the live bytes of each allocer.
//!
//! ```json
//! {"slice": [[{"mem":384,"alc":0}, {"mem":248,"alc":1}], …],
//!  "allocer": [{"id":0,"stack":["0x4008a1:main"]}]}
//! ```
//!
//! The document does not give the time between two slices, so the reader assumes one second. The document
//! does not give the number of live allocations either. If a slice does not name an allocer, the allocer has
//! the same live bytes as in the slice before. The series of an allocer starts at the first slice that names
//! the allocer, as in edLeak.

use super::line_series::{KeptPoints, LineSeries, LoadOptions, address_of, short};
use crate::error::{Error, ErrorKind, Result};
use crate::site::{SiteLabel, Totals};
use edleak_model::series::{Point, SeriesBuilder};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};

#[derive(Deserialize)]
struct Document {
    slice: Vec<Vec<Entry>>,
    #[serde(default)]
    allocer: Vec<Allocer>,
}

#[derive(Deserialize)]
struct Entry {
    mem: u64,
    alc: u64,
}

#[derive(Deserialize)]
struct Allocer {
    id: u64,
    #[serde(default)]
    stack: Vec<String>,
}

/// The unfinished series of one allocer, and the number of slices that this series covers so far.
struct Growing {
    builder: SeriesBuilder,
    first: u64,
    covered: u64,
    last: Point,
    runs: Vec<(Point, u64)>,
}

impl Growing {
    fn push(&mut self, point: Point, repeat: u64, options: LoadOptions) {
        self.builder.push_run(point, repeat);
        self.covered += repeat;
        self.last = point;
        if options.keep_points {
            self.runs.push((point, repeat));
        }
    }
}

/// Reads a document.
///
/// # Errors
/// The document does not have the form that edLeak writes.
pub fn read(reader: impl Read, options: LoadOptions) -> Result<Vec<LineSeries>> {
    let document: Document = serde_json::from_reader(BufReader::new(reader)).map_err(|error| {
        Error::new(
            ErrorKind::Unreadable,
            format!("neither series lines nor edLeak's JSON slices: {}", short(&error)),
        )
        .with_remedy("give a trace that edleak-record wrote, or the output of `--format series`")
    })?;
    let mut sites: BTreeMap<u64, Growing> = BTreeMap::new();
    for (slice, entries) in (0u64..).zip(&document.slice) {
        for entry in entries {
            let site = sites.entry(entry.alc).or_insert_with(|| {
                let mut builder = SeriesBuilder::new();
                builder.absent(slice);
                Growing { builder, first: slice, covered: 0, last: Point::default(), runs: Vec::new() }
            });
            // If a slice names the same allocer twice, the first value counts.
            let due = slice - site.first;
            if site.covered <= due {
                let point = Point { live_bytes: entry.mem, live_count: entry.mem, allocs: 0, frees: 0 };
                site.push(site.last, due - site.covered, options);
                site.push(point, 1, options);
            }
        }
    }
    let mut stacks: BTreeMap<u64, Vec<String>> =
        document.allocer.into_iter().map(|allocer| (allocer.id, allocer.stack)).collect();
    let slices = document.slice.len() as u64;
    Ok(sites
        .into_iter()
        .map(|(id, mut site)| {
            site.push(site.last, slices - site.first - site.covered, options);
            LineSeries {
                undecided: None,
                label: SiteLabel::Number(id),
                parent: None,
                period_s: 1.0,
                series: site.builder.finish(),
                with_stacks: None,
                totals: Totals { live_bytes: site.last.live_bytes, ..Totals::default() },
                stack: stacks.remove(&id).unwrap_or_default().iter().map(|text| address_of(text)).collect(),
                survivors: Vec::new(),
                kept: options.keep_points.then_some(KeptPoints { runs: site.runs, ..KeptPoints::default() }),
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_and_missing_allocers_keep_their_place() {
        let text = concat!(
            r#"{"slice":[[{"mem":10,"alc":0}],"#,
            r#"[{"mem":20,"alc":0},{"mem":5,"alc":18446744073709551615}],[],"#,
            "\n            ",
            r#"[{"mem":40,"alc":0}]],"allocer":[{"id":0,"stack":["0x4008a1:main","0x12"]}]}"#
        );
        let sites = read(text.as_bytes(), LoadOptions { keep_points: true }).unwrap();
        let bytes = |i: usize| -> Vec<u64> {
            let runs = &sites[i].kept.as_ref().unwrap().runs;
            runs.iter().flat_map(|&(point, repeat)| vec![point.live_bytes; repeat as usize]).collect()
        };
        assert_eq!(sites[0].label, SiteLabel::Number(0));
        assert_eq!(bytes(0), [10, 20, 20, 40]);
        assert_eq!(sites[0].stack.len(), 2);
        assert_eq!(bytes(1), [5, 5, 5]);
        assert_eq!((sites[1].series.absent(), sites[1].series.points()), (1, 3));
    }

    #[test]
    fn malformed_json_gets_one_line_with_a_remedy() {
        for text in ["{", "{}", r#"{"slice":3}"#, r#"{"slice":[[{"mem":-1,"alc":0}]]}"#, "{\"slice\":[]} x"] {
            let error = read(text.as_bytes(), LoadOptions::default()).err().map(|error| error.to_string());
            let error = error.unwrap_or_else(|| panic!("{text} was accepted"));
            assert!(error.starts_with("neither series lines nor edLeak's JSON slices: "), "{error}");
            assert!(error.ends_with(')') && !error.contains('\n'), "{error}");
        }
    }
}
