//! Compares a trace with a reference: the program tests/programs/exact.cpp counts its own allocations in a
//! ledger, and the counters of the trace must equal this ledger.

use edleak_format::{Counters, SiteId, SliceHeader, SliceVisitor, Trace};
use edleak_tests::ledger::{Ledger, assert_equal, counts_in, read_ledger};
use edleak_tests::programs::{programs, samples};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use serde_json::Value;

/// Asserts that no stack contains a function of edleak's library, and that no count was lost.
fn assert_nothing_lost(report: &Report) {
    for site in &report.sites {
        assert!(
            !site.stack.iter().any(|frame| frame.module.contains("libedleak")),
            "a site of our own: {site:?}"
        );
    }
    assert_eq!(report.json["trace"]["complete"], true);
    assert_eq!(report.summary("unknown_frees"), 0, "frees of addresses that no hook handed out");
    let allocs: u64 = report.sites.iter().map(|site| site.counts.allocs).sum();
    assert_eq!(report.summary("allocs"), allocs, "the summary is the sum of the sites");
}

fn assert_exact(threads: u32, seed: u32) -> Recording {
    let operations = 2_000_000;
    let args = [threads.to_string(), operations.to_string(), seed.to_string()];
    let recording = Recorder::new("exact").record(programs().binary("exact"), &args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let ledger = read_ledger(&recording.outcome.stdout);
    // Checks the ledger itself: every function in it must have allocated more than 1,000 times, except the
    // function whose calls must fail.
    for (function, counts) in &ledger {
        assert_eq!(
            counts.allocs > 1000,
            function != "site_fail",
            "{function} was called {} times",
            counts.allocs
        );
    }

    let report = recording.all_sites();
    assert_equal(&report, &ledger);
    for function in ["balanced_asprintf", "balanced_getline"] {
        for site in report.sites_in(function) {
            assert_eq!(
                site.counts.allocs, site.counts.frees,
                "{function} frees all that it allocates: {site:?}"
            );
        }
    }
    assert_nothing_lost(&report);
    recording
}

#[test]
fn one_thread_is_exact() {
    assert_exact(1, 1);
    assert_exact(1, 2);
}

#[test]
fn eight_threads_are_exact() {
    assert_exact(8, 3);
}

#[test]
fn sixty_four_threads_are_exact() {
    assert_exact(64, 4);
}

/// The number of counters in the trace, and a list of the counters that show more frees than allocations.
#[derive(Default)]
struct Balance {
    counters: usize,
    negative: Vec<(u64, SiteId, Counters)>,
}

impl SliceVisitor for Balance {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        self.counters += changed.len();
        let is_negative = |c: &Counters| c.freed_bytes > c.allocated_bytes || c.frees > c.allocs;
        let negative = changed.iter().filter(|(_, counters)| is_negative(counters));
        self.negative.extend(negative.map(|(site, counters)| (header.tick, *site, *counters)));
    }
}

/// Reads the counters directly from the trace. The series that edleak-analyze prints never become negative,
/// so they would hide a free that edleak counts before it counts the allocation.
#[test]
fn slices_of_eight_threads_show_no_free_before_its_allocation() {
    let args = ["8", "6000000", "5"];
    let recording =
        Recorder::new("negative").options(["--period", "2ms"]).record(programs().binary("exact"), args);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let trace =
        Trace::open(&recording.trace).map_err(|error| error.to_string()).expect("it was just written");
    let mut balance = Balance::default();
    for block in 0..trace.blocks().len() {
        trace.replay_block(block, &mut balance).expect("no block is damaged");
    }
    assert_eq!(balance.negative, []);
    assert!(balance.counters > 1000, "only {} counters: the recording was too short", balance.counters);
}

/// Compares the trace of the sample leaker with the counts of its allocations that the leaker prints.
#[test]
fn the_leaker_is_exact() {
    let recording =
        Recorder::new("leaker-ledger").record(samples().binary("leaker"), ["--seconds", "2", "--ledger"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let json: Value = serde_json::from_str(&recording.outcome.stdout).expect("--ledger prints JSON");
    let functions = json["functions"].as_array().expect("the ledger lists functions");
    let ledger: Ledger = functions.iter().map(counts_in).collect();
    let report = recording.all_sites();
    assert_equal(&report, &ledger);
    assert_nothing_lost(&report);
}
