//! One page of metrics in the text format that OpenMetrics and Prometheus share.
//!
//! All metrics have the type `gauge`. None has the type `counter`, because OpenMetrics and Prometheus need
//! different names for counters. In OpenMetrics, the values of a counter have the suffix `_total`, and the
//! `TYPE` line has the name without this suffix. The parser of Prometheus, which the node exporter uses,
//! requires the same name in the values and in the `TYPE` line. All figures describe the recording from its
//! start up to the present.

use crate::args::SortArg;
use crate::snapshot::{Row, Snapshot};
use edleak_model::classify::Verdict;
use edleak_model::growth_kind::GrowthKind;
use std::fmt::Write;

/// The state of one recorded process at one instant.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Whether the recording is still running.
    pub(crate) is_running: bool,
    pub(crate) snapshot: Snapshot,
}

const GROWTH_KINDS: [GrowthKind; 6] = [
    GrowthKind::Live,
    GrowthKind::Retained,
    GrowthKind::Outside,
    GrowthKind::Unclear,
    GrowthKind::None,
    GrowthKind::Unknown,
];

/// One value of a metric: the labels that it has in addition to the labels of the process, and the number.
type Sample = (String, f64);

/// A metric that has one or more values for each process.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: fn(&Recorded, &[&Row]) -> Vec<Sample>,
}

/// The metrics of each process.
const FAMILIES: &[Family] = &[
    Family {
        name: "edleak_recording",
        help: "1 while the process is recorded, 0 when the recording has ended.",
        samples: |recorded, _| plain(f64::from(u8::from(recorded.is_running))),
    },
    Family {
        name: "edleak_record_seconds",
        help: "Time from the start of the record to its last slice.",
        samples: |recorded, _| plain(recorded.snapshot.duration_s),
    },
    Family {
        name: "edleak_live_bytes",
        help: "Bytes that the program allocated and has not freed.",
        samples: |recorded, _| plain(recorded.snapshot.live_bytes as f64),
    },
    Family {
        name: "edleak_live_allocations",
        help: "Allocations that the program has not freed.",
        samples: |recorded, _| plain(recorded.snapshot.live_count as f64),
    },
    Family {
        name: "edleak_allocated_bytes",
        help: "Bytes allocated since the start of the record.",
        samples: |recorded, _| plain(recorded.snapshot.allocated_bytes as f64),
    },
    Family {
        name: "edleak_allocations",
        help: "Allocations since the start of the record.",
        samples: |recorded, _| plain(recorded.snapshot.allocs as f64),
    },
    Family {
        name: "edleak_resident_bytes",
        help: "Anonymous memory of the process, resident and swapped.",
        samples: |recorded, _| plain(recorded.snapshot.resident_bytes as f64),
    },
    Family {
        name: "edleak_growth_kind",
        help: "1 for the kind of growth that the process has.",
        samples: |recorded, _| {
            let is = |kind| f64::from(u8::from(recorded.snapshot.growth_kind == Some(kind)));
            GROWTH_KINDS.map(|kind| (labels(&[("kind", kind.as_str())]), is(kind))).into()
        },
    },
    Family {
        name: "edleak_leaking_sites",
        help: "Allocation sites that leak, by confidence.",
        samples: |recorded, _| {
            let leaks = |is_strict| {
                let rows = recorded.snapshot.rows.iter();
                rows.filter(|row| row.verdict == Verdict::Leak && row.is_strict == is_strict).count() as f64
            };
            [("strict", true), ("suspect", false)]
                .map(|(word, is_strict)| (labels(&[("confidence", word)]), leaks(is_strict)))
                .into()
        },
    },
    Family {
        name: "edleak_undecided_sites",
        help: "Allocation sites that grow and have no verdict yet.",
        samples: |recorded, _| {
            let rows = recorded.snapshot.rows.iter();
            plain(rows.filter(|row| row.verdict == Verdict::Undecided).count() as f64)
        },
    },
    Family {
        name: "edleak_losses",
        help: "Events that the recorder lost since the start of the record, by kind.",
        samples: |recorded, _| {
            let losses = recorded.snapshot.losses.iter();
            losses.map(|(kind, count)| (labels(&[("kind", kind)]), *count as f64)).collect()
        },
    },
    Family {
        name: "edleak_site_live_bytes",
        help: "Live bytes of a listed site.",
        samples: |_, rows| rows.iter().map(|row| (site(row, None), row.live_bytes as f64)).collect(),
    },
    Family {
        name: "edleak_site_leaked_bytes",
        help: "Bytes that a listed site has leaked; 0 where it does not leak.",
        samples: |_, rows| rows.iter().map(|row| (site(row, None), row.leak_bytes as f64)).collect(),
    },
    Family {
        name: "edleak_site_growth_bytes_per_second",
        help: "Rate of the leak of a listed site, or of its growth where it does not leak.",
        samples: |_, rows| rows.iter().map(|row| (site(row, None), row.rate_bytes_per_s)).collect(),
    },
    Family {
        name: "edleak_site_verdict",
        help: "1 with the verdict so far of a listed site.",
        samples: |_, rows| rows.iter().map(|row| (site(row, Some(verdict(row))), 1.0)).collect(),
    },
];

/// Writes the page of metrics. For each process the page lists at most `most_sites` sites. Leaks come first,
/// and then the sites with the most growth.
pub(super) fn page(recorded: &[&Recorded], most_sites: usize) -> String {
    let listed: Vec<Vec<&Row>> = recorded
        .iter()
        .map(|recorded| {
            let mut rows: Vec<&Row> = recorded.snapshot.rows.iter().collect();
            rows.sort_by(|a, b| Row::order(SortArg::Growth, a, b));
            rows.truncate(most_sites);
            rows
        })
        .collect();
    let mut text = String::new();
    for Family { name, help, samples } in FAMILIES {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (recorded, rows) in recorded.iter().zip(&listed) {
            let process = labels(&[
                ("pid", &recorded.snapshot.pid.to_string()),
                ("program", &recorded.snapshot.program),
            ]);
            for (own, value) in samples(recorded, rows) {
                let comma = if own.is_empty() { "" } else { "," };
                let _ = writeln!(text, "{name}{{{process}{comma}{own}}} {value}");
            }
        }
    }
    text.push_str("# EOF\n");
    text
}

fn plain(value: f64) -> Vec<Sample> {
    vec![(String::new(), value)]
}

/// The labels of a site. The labels do not contain source lines, because lines change with each build, and a
/// new build should not interrupt a graph.
fn site(row: &Row, verdict: Option<&str>) -> String {
    let id = row.label.to_string();
    let mut all = vec![
        ("site", id.as_str()),
        ("domain", row.domain),
        ("function", row.function.as_str()),
        ("file", row.file.as_str()),
        ("module", row.module.as_str()),
    ];
    all.extend(verdict.map(|verdict| ("verdict", verdict)));
    labels(&all)
}

fn verdict(row: &Row) -> &'static str {
    match (row.verdict, row.is_strict) {
        (Verdict::Leak, true) => "leak",
        (Verdict::Leak, false) => "suspect",
        (Verdict::Undecided, _) => "undecided",
        (Verdict::NoLeak, _) => "no-leak",
    }
}

/// The labels of a value, such as `function="main"`, as the text between `{` and `}` in the page. `\`, `"`
/// and line ends are escaped as the format requires.
fn labels(pairs: &[(&str, &str)]) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    pairs.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Snapshot;

    #[test]
    fn names_with_quotes_and_line_ends_stay_one_label() {
        assert_eq!(labels(&[("a", "x\"y\\z\nw"), ("b", "")]), r#"a="x\"y\\z\nw",b="""#);
    }

    #[test]
    fn the_number_of_listed_sites_is_bounded_and_leaks_come_first() {
        let row = |id, verdict, rate_bytes_per_s| Row { verdict, rate_bytes_per_s, ..Row::for_test(id) };
        let rows = vec![
            row(1, Verdict::NoLeak, 900.0),
            row(2, Verdict::Leak, 5.0),
            row(3, Verdict::Undecided, 50.0),
            row(4, Verdict::Leak, 7.0),
        ];
        let snapshot = Snapshot { pid: 7, program: "p".into(), rows, ..Snapshot::default() };
        let recorded = Recorded { is_running: true, snapshot };
        let text = page(&[&recorded], 3);
        let listed: Vec<_> = text
            .lines()
            .filter_map(|line| {
                line.strip_prefix("edleak_site_growth_bytes_per_second{pid=\"7\",program=\"p\",site=\"")
            })
            .map(|line| line.split('"').next().unwrap_or_default())
            .collect();
        assert_eq!(listed, ["4", "2", "1"]);
    }
}
