//! Tests that edleak-record watches sites without an option. The first recording of a leaking program has
//! full stacks, and the time that edleak spends on these stacks stays within the budget.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{samples, stacks};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::{Report, Site};

/// The sites of a report that are full stacks.
fn stacks_in(report: &Report) -> Vec<&Site> {
    report.sites.iter().filter(|site| site.kind == "stack").collect()
}

#[test]
fn first_run_of_a_leaker_has_full_stacks_without_an_option() {
    let recording = Recorder::new("first").record(samples().binary("leaker"), ["--seconds", "8"]);
    let report = recording.all_sites();
    for function in ["leak_malloc", "leak_calloc", "leak_new", "leak_new_array"] {
        let stack = stacks_in(&report).into_iter().find(|stack| stack.is_in(function));
        let stack = stack.unwrap_or_else(|| panic!("{function} has no stack:\n{}", report.describe()));
        assert!(stack.is_in("main") && !stack.is_stack_cut, "{stack:?}");
        assert!(stack.counts.allocs > 0, "{stack:?}");
    }
    let text = analyze([""; 0], &recording.trace).stdout;
    assert!(text.contains("main at"), "{text}");
}

#[test]
fn no_watch_records_no_stacks() {
    let recorder = Recorder::new("no-watch").options(["--no-watch"]);
    let report = recorder.record(samples().binary("leaker"), ["--seconds", "4"]).all_sites();
    assert!(report.leaks().count() > 0, "{}", report.describe());
    assert!(stacks_in(&report).is_empty(), "{}", report.describe());
}

/// Records `hot_site`, which runs until it has used `seconds` seconds of processor time. Returns the
/// recording, and the processor time that the program used, in nanoseconds.
fn hot_site(options: &[&str], seconds: &str) -> (Recording, f64) {
    let recorder = Recorder::new("hot").options(["--period", "20ms"]).options(options);
    let recording = recorder.record(stacks().binary("hot_site"), [seconds]);
    let used_ns = recording.outcome.stdout.trim().parse().expect("the program prints its processor time");
    (recording, used_ns)
}

/// Returns two numbers for `hot_make`: the allocations that edleak counted at its caller sites, and the
/// allocations that edleak counted at its full stacks.
fn hot_allocs(report: &Report) -> (u64, u64) {
    let of = |kind: &str| -> u64 {
        let sites = report.sites_in("hot_make").filter(|site| site.kind == kind);
        sites.map(|site| site.counts.allocs).sum()
    };
    (of("caller"), of("stack"))
}

#[test]
fn a_site_that_costs_more_than_the_budget_is_watched_until_its_stacks_are_known() {
    // edleak-record's estimate for the time of one allocation with a full stack: 130 ns, plus 6.2 ns per
    // frame. The stacks of `hot_site` have about seven frames.
    const COST_NS: f64 = 170.0;
    let (recording, used_ns) = hot_site(&[], "6");
    let report = recording.all_sites();
    let (unwatched, watched) = hot_allocs(&report);
    let cost = watched as f64 * COST_NS / used_ns;
    assert!(watched > 0, "never watched:\n{}", report.describe());
    assert!(unwatched > watched && cost <= 0.02, "{watched} of {unwatched} at {cost}");
    // edleak gives one verdict on a site and all its stacks together. Nearly all leaked bytes were allocated
    // through `path_kept`.
    let site = report.json["sites"].as_array().expect("sites").iter().find(|site| {
        site["kind"] == "caller" && site["verdict"] == "leak" && site["judged_with_stacks"] == true
    });
    assert!(site.is_some(), "{}", report.describe());
    let kept = report.json["sites"]
        .as_array()
        .expect("sites")
        .iter()
        .filter(|site| site["stack"].to_string().contains("path_kept") && site["kind"] == "stack");
    let share: f64 = kept.filter_map(|site| site["leak_share"].as_f64()).sum();
    assert!(share > 0.95, "{share}: {}", report.describe());
    let text = analyze([""; 0], &recording.trace).stdout;
    assert!(text.contains("path_kept at"), "{text}");
}

#[test]
fn a_larger_budget_watches_a_hot_site_to_the_end() {
    let (recording, _) = hot_site(&["--watch-budget", "100"], "4");
    let (unwatched, watched) = hot_allocs(&recording.all_sites());
    assert!(watched > unwatched, "{watched} watched, {unwatched} not");
}
