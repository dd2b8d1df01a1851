//! Compares the counts in a trace with a ledger. The recorded program counts its own allocations in this
//! ledger.

use crate::report::{Counts, Report};
use serde_json::Value;
use std::collections::BTreeMap;

/// Functions of libc that allocate for their caller, such as strdup. Each entry has the function of the test
/// program that calls the function of libc, and all names of this function in libc. At first edleak counts
/// the allocations of strdup at strdup itself. After at most one period, edleak knows that strdup is a
/// wrapper, and counts its allocations at the caller of strdup.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("site_strdup", &["strdup", "__strdup", "__GI___strdup"]),
    ("site_strndup", &["strndup", "__strndup", "__GI___strndup"]),
];

/// The counts that a program made of its own allocations, by function name.
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

/// Reads one line of a ledger: the name of a function, and its counts.
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

/// The counts in the trace for each function of the ledger.
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

/// Asserts that the counts of the trace and of the ledger are equal to the byte. On a failure, the message
/// shows only the functions whose counts differ.
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

/// For each function: how often it called madvise, and how many bytes these calls gave back.
pub type GivenBack = BTreeMap<String, (u64, u64)>;

/// For each function in `functions`: how often it called madvise according to `report`, and how many bytes
/// these calls gave back.
pub fn given_back<'a>(report: &Report, functions: impl Iterator<Item = &'a String>) -> GivenBack {
    let of = |function: &String| {
        let site = report.sites_in(function).next().unwrap_or_else(|| panic!("no site in `{function}`"));
        (function.clone(), site.given_back)
    };
    functions.map(of).collect()
}

/// For each function: how often it called madvise, and how many bytes these calls gave back, according to the
/// ledger that the program printed.
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
