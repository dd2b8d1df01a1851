//! Compares a program's own ledger with the counts in its trace.

use crate::report::{Counts, Report};
use serde_json::Value;
use std::collections::BTreeMap;

/// Functions of libc that allocate for their caller, by the caller's name in the program. Until edleak knows
/// that libc's function is a wrapper (after at most one period), it counts their allocations at libc's
/// function.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("site_strdup", &["strdup", "__strdup", "__GI___strdup"]),
    ("site_strndup", &["strndup", "__strndup", "__GI___strndup"]),
];

/// A program's own counts, by function.
pub type Ledger = BTreeMap<String, Counts>;

fn line(function: &str, counts: &Counts) -> String {
    let Counts { allocs, allocated_bytes, frees, freed_bytes } = counts;
    format!(
        "{{\"function\":\"{function}\",\"allocs\":{allocs},\"allocated_bytes\":{allocated_bytes},\
         \"frees\":{frees},\"freed_bytes\":{freed_bytes}}}\n"
    )
}

fn lines(ledger: &Ledger) -> String {
    ledger.iter().map(|(function, counts)| line(function, counts)).collect()
}

/// One line of a ledger.
pub fn counts_in(json: &Value) -> (String, Counts) {
    let number = |field: &str| json[field].as_u64().unwrap_or_else(|| panic!("no `{field}` in {json}"));
    let counts = Counts {
        allocs: number("allocs"),
        allocated_bytes: number("allocated_bytes"),
        frees: number("frees"),
        freed_bytes: number("freed_bytes"),
    };
    (json["function"].as_str().expect("a ledger line names its function").to_owned(), counts)
}

/// The counts of the same functions in the trace.
fn counted(report: &Report, ledger: &Ledger) -> Ledger {
    let counts_of = |function: &String| {
        let mut counts = report.counts_of(function);
        let wrappers = WRAPPERS.iter().filter(|(caller, _)| caller == function).flat_map(|(_, inner)| *inner);
        for inner in wrappers {
            counts.add(&report.counts_of(inner));
        }
        (function.clone(), counts)
    };
    ledger.keys().map(counts_of).collect()
}

/// Asserts that trace and ledger are equal to the byte; on a failure, the message shows only the differences.
pub fn assert_equal(report: &Report, ledger: &Ledger) {
    let (trace, ledger) = (lines(&counted(report, ledger)), lines(ledger));
    let differing: Vec<_> =
        trace.lines().zip(ledger.lines()).filter(|(trace, ledger)| trace != ledger).collect();
    assert!(trace == ledger, "trace (left) and ledger (right) differ: {differing:#?}");
}

/// Reads the ledger that a program printed: one JSON object per line.
pub fn read_ledger(stdout: &str) -> Ledger {
    let line = |line| counts_in(&serde_json::from_str(line).expect("the ledger is one JSON object a line"));
    stdout.lines().map(line).collect()
}

/// Calls and bytes of madvise by function.
pub type GivenBack = BTreeMap<String, (u64, u64)>;

/// The calls of madvise in a report.
pub fn given_back<'a>(report: &Report, functions: impl Iterator<Item = &'a String>) -> GivenBack {
    let of = |function: &String| {
        let site = report.sites_in(function).next().unwrap_or_else(|| panic!("no site in `{function}`"));
        (function.clone(), site.given_back)
    };
    functions.map(of).collect()
}

/// The calls of madvise in a ledger that a program printed.
pub fn given_back_of_ledger(stdout: &str) -> GivenBack {
    let of = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("the ledger is one JSON object a line");
        let number = |field: &str| line[field].as_u64().expect("a number");
        let counts = (number("given_back_calls"), number("given_back_bytes"));
        assert!(counts.0 > 50, "{line}");
        (line["function"].as_str().expect("a function").to_owned(), counts)
    };
    stdout.lines().map(of).collect()
}
