//! Tests the gate, which decides whether leaks make the exit code 1: by class, confidence, budget,
//! suppressions and baseline.

use crate::programs::run;
use crate::traces::{Scratch, caller, constant, counters, leaker, leaking, nothing, watched};
use edleak_format::{Children, Counters, CpuTotals, CpuUse, Earlier, EndReason, Record};
use std::ffi::OsStr;

#[test]
fn a_budget_is_for_all_leaks_together() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.push(caller(0x1050, "grow_too", 44, leaking));
    let trace = draft.write(&scratch.path("t.edl"));
    // The trace has two leaks of about 1000 bytes per second each.
    for (budget, code) in [("3KB/s", 0), ("1500B/s", 1), ("1MB/min", 0)] {
        let ran = run([trace.as_os_str(), "--budget".as_ref(), budget.as_ref()]);
        assert_eq!(ran.code, code, "{budget}: {}", ran.out);
        assert_eq!(ran.out.contains("TOLERATED"), code == 0, "{}", ran.out);
    }
    assert_eq!(run([trace.as_os_str(), "--exit-zero".as_ref()]).code, 0);
}

#[test]
fn unrecorded_program_is_undecided() {
    let scratch = Scratch::new();
    let mut clean = leaker();
    clean.sites.remove(0);
    assert_eq!(run([&clean.write(&scratch.path("t.edl"))]).code, 0);
    let mut replaced = clean.clone();
    replaced.end = Some(EndReason::Replaced);
    clean.losses.unrecorded_images = 3;
    for (draft, why) in [
        (replaced, "the process executed a program that was not recorded"),
        (clean, "3 child processes were not recorded"),
    ] {
        let ran = run([&draft.write(&scratch.path("t.edl"))]);
        assert_eq!(ran.code, 2, "{}", ran.out);
        assert!(ran.out.contains(&format!("undecided: {why}")), "{}", ran.out);
    }
}

/// The program may have leaked after the last slice, so the gate must not pass.
#[test]
fn a_recording_that_was_cut_short_is_undecided() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.end = None;
    assert_eq!(run([&draft.write(&scratch.path("t.edl"))]).code, 1, "a leak is a leak");
    draft.sites.remove(0);
    let ran = run([&draft.write(&scratch.path("t.edl"))]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("undecided: the recording was cut short, or still runs"), "{}", ran.out);
}

#[test]
fn a_program_before_an_exec_must_be_given_too() {
    let scratch = Scratch::new();
    let mut last = leaker();
    last.sites.remove(0);
    let mut first = leaker();
    first.end = Some(EndReason::Executed);
    first.started_unix_ns -= 5_000_000_000;
    let earlier = Earlier { traces: vec!["t.exec1.edl".into()] };
    last.further.push(Record::Earlier(earlier));
    let (first, last) = (first.write(&scratch.path("t.exec1.edl")), last.write(&scratch.path("t.edl")));
    let ran = run([&last]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(ran.out.contains("(give `t.exec1.edl` to the same"), "{}", ran.out);
    let both = run([&first, &last]);
    assert_eq!(both.code, 1, "{}", both.out);
    assert!(!both.out.contains("executed another program before"), "{}", both.out);
    // The process ID decides if the names are hashes.
    let hidden = [("first", &first), ("last", &last)].map(|(name, trace)| {
        let to = scratch.path(&format!("{name}.edl"));
        assert_eq!(run(["anonymize".as_ref(), trace.as_os_str(), "-o".as_ref(), to.as_os_str()]).code, 0);
        to
    });
    assert_eq!(run([&hidden[1]]).code, 2);
    assert!(!run(&hidden).out.contains("executed another program before"));
}

/// A shell that waits for a child: it frees memory after 78 of 80 slices, when the child has ended.
fn waiting(slice: u64) -> Counters {
    let frees = 50 * u64::from(slice >= 78);
    counters(64 * 100, 100, 64 * frees, frees)
}

/// A free in the middle of the record.
fn working(slice: u64) -> Counters {
    let frees = 50 * u64::from(slice >= 50);
    counters(64 * 100, 100, 64 * frees, frees)
}

#[test]
fn launcher_whose_children_were_not_recorded_is_undecided() {
    let scratch = Scratch::new();
    for (what, counters, own_ns, children_ns, code) in [
        ("a shell that waited", waiting as fn(u64) -> Counters, 0, 0, 2),
        ("a program that worked", working, 50_000_000, 10_000_000, 0),
        ("a program whose children worked", working, 0, 10_000_000, 2),
    ] {
        let mut draft = leaker();
        draft.sites = vec![caller(0x1010, "start", 42, counters)];
        draft.further.push(Record::CpuTotals(CpuTotals { own_ns, children_ns }));
        draft.further.push(Record::Children(Children { unrequested: 1 }));
        let ran = run([&draft.write(&scratch.path("t.edl"))]);
        assert_eq!(ran.code, code, "{what}: {}", ran.out);
        assert_eq!(ran.out.contains("child processes did the work"), code == 2, "{what}: {}", ran.out);
    }
}

#[test]
fn allocations_that_were_not_counted_may_hide_a_leak() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.remove(0);
    // The other sites make 821 allocations.
    for (untracked_allocs, code) in [(0, 0), (1, 2)] {
        draft.losses.untracked_allocs = untracked_allocs;
        let ran = run([&draft.write(&scratch.path("t.edl"))]);
        assert_eq!(ran.code, code, "{}", ran.out);
        assert_eq!(
            ran.out.contains("undecided: 1 allocation could not be counted"),
            code == 2,
            "{}",
            ran.out
        );
    }
}

/// 1,000 allocations at the start, and again after 15, 28 and 62 slices.
fn late_bursts(slice: u64) -> Counters {
    let count = 1000 * (1 + [15, 28, 62].iter().filter(|&&at| slice >= at).count() as u64);
    counters(48 * count, count, 0, 0)
}

/// The bursts are over after 30 of 80 slices.
fn early_bursts(slice: u64) -> Counters {
    let count = 1000 * (1 + slice.min(30) / 10);
    counters(48 * count, count, 0, 0)
}

/// A process that mostly waits allocates in bursts and frees nothing. Three bursts are no trend.
#[test]
fn a_few_bursts_of_a_program_that_waits_are_undecided() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites = vec![caller(0x1010, "report", 42, nothing), caller(0x1030, "start", 60, constant)];
    draft.processor = Some(CpuUse { span_ns: 8_000_000_000, used_ns: 80_000_000, waited_ns: 0 });
    draft.sites[0].counters = early_bursts;
    assert_eq!(run([&draft.write(&scratch.path("t.edl"))]).code, 0);
    draft.sites[0].counters = late_bursts;
    let ran = run([&draft.write(&scratch.path("t.edl"))]);
    assert_eq!(ran.code, 2, "{}", ran.out);
    let busy = CpuUse { span_ns: 8_000_000_000, used_ns: 8_000_000_000, waited_ns: 0 };
    draft.processor = Some(busy);
    assert_eq!(run([&draft.write(&scratch.path("t.edl"))]).code, 0, "a program that computes has phases");
}

/// Series lines have neither the memory of the process nor the end of the recording, so they carry the
/// reason.
#[test]
fn series_lines_keep_the_reason_why_a_recording_is_undecided() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.remove(0);
    draft.losses.unrecorded_images = 3;
    // The last site first allocates in a slice after the last regular one, so its series is empty.
    draft.off_grid = Some(1);
    draft.ticks_per_slice = 4;
    draft.sites.push(caller(0x1050, "print", 80, |slice| match slice {
        80.. => counters(64, 1, 0, 0),
        _ => Counters::ZERO,
    }));
    let trace = draft.write(&scratch.path("t.edl"));
    let series = run(["--format=series".as_ref(), trace.as_os_str()]);
    assert_eq!(series.code, 2, "{}", series.err);
    let lines = scratch.file("t.jsonl", &series.out);
    let ran = run([&lines]);
    assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("undecided: 3 child processes were not recorded"), "{}", ran.out);
    let again = run(["--format=series".as_ref(), lines.as_os_str()]);
    assert_eq!((again.code, again.out.lines().count()), (2, 4), "{}", again.err);
}

#[test]
fn suppressions_hide_within_their_budget_and_idle_rules_are_listed() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let with = |rules: &str| {
        let file = scratch.file("rules", rules);
        run([trace.as_os_str(), "--suppressions".as_ref(), file.as_os_str()])
    };
    for rule in [
        "leak:grow_list",
        "leak:leaker.c",
        "leak:/src/leaker$",
        "leak:^grow_*t budget=1MB/min",
        "leak:grow budget=9KB",
    ] {
        let ran = with(rule);
        assert_eq!(ran.code, 0, "{rule}: {}", ran.out);
        assert!(ran.out.contains("passed: 1 leak suppressed"), "{}", ran.out);
    }
    for rule in ["leak:other", "leak:^row", "leak:grow budget=1KB", "leak:grow budget=1B/s"] {
        assert_eq!(with(rule).code, 1, "{rule}");
    }
    let ran = with("leak:grow budget=1KB");
    assert!(ran.out.contains("suppression `leak:grow` (line 1) hides nothing"), "{}", ran.out);
    let ran = with("# mine\nleak:grow\n\nleak:idle\n");
    assert!(ran.out.contains("suppression `leak:idle` (line 4) matched nothing"), "{}", ran.out);
    let ran = with("leak:grow\nnonsense\n");
    assert_eq!((ran.code, ran.err.lines().count()), (3, 1));
    assert!(ran.err.contains("rules:2: `nonsense` is not a rule (write"), "{}", ran.err);
}

#[test]
fn baseline_accepts_leaks_that_are_not_faster() {
    let scratch = Scratch::new();
    let old = leaker().write(&scratch.path("old.edl"));
    let saved = scratch.file("old.json", run([old.as_os_str(), "--format=json".as_ref()]).out);
    let mut fast = leaker();
    fast.sites[0].counters = |slice| counters(200 * (slice + 1), slice + 1, 0, 0);
    let mut rebuilt = leaker();
    rebuilt.build_id = vec![9; 4];
    rebuilt.sites[0].stack[0].0 = 0x1a1a;
    let mut more = leaker();
    more.sites.push(caller(0x1050, "grow_too", 44, leaking));
    for (name, draft, code) in
        [("same", leaker(), 0), ("faster", fast, 1), ("rebuilt", rebuilt, 0), ("new", more, 1)]
    {
        let new = draft.write(&scratch.path("new.edl"));
        for baseline in [&old, &saved] {
            let ran = run([new.as_os_str(), "--baseline".as_ref(), baseline.as_os_str()]);
            assert_eq!(ran.code, code, "{name} against {}: {}{}", baseline.display(), ran.out, ran.err);
        }
        let diff = run([OsStr::new("diff"), old.as_os_str(), new.as_os_str()]);
        assert_eq!(diff.code, code, "{name}: {}", diff.out);
        let word = if name == "rebuilt" { "same" } else { name };
        assert!(diff.out.lines().any(|line| line.starts_with(word)), "{name}: {}", diff.out);
    }
}

#[test]
fn a_caller_that_is_watched_now_is_the_same_leak() {
    let scratch = Scratch::new();
    let mut plain = watched();
    plain.sites.truncate(1);
    plain.sites[0].counters = leaking;
    let (plain, watched) =
        (plain.write(&scratch.path("plain.edl")), watched().write(&scratch.path("watched.edl")));
    for (old, new) in [(&plain, &watched), (&watched, &plain)] {
        let ran = run([new.as_os_str(), "--baseline".as_ref(), old.as_os_str()]);
        assert_eq!(ran.code, 0, "{}", ran.out);
    }
}

#[test]
fn a_baseline_that_is_none_is_an_error() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let whole = run([trace.as_os_str(), "--format=json".as_ref()]).out;
    let (half, newer) = (&whole[..whole.len() / 2], "{\"format_version\":99,\"sites\":[]}");
    for text in ["", "hello", newer, "{\"format_version\":1,\"sites\":[{}]}", half] {
        let baseline = scratch.file("baseline", text);
        let ran = run([trace.as_os_str(), "--baseline".as_ref(), baseline.as_os_str()]);
        assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{text}: {}", ran.err);
        assert!(ran.err.starts_with("edleak-analyze: failed to use baseline `"), "{}", ran.err);
        assert!(ran.err.trim_end().ends_with(')'), "{}", ran.err);
        if text == half {
            assert!(
                ran.err.contains("the report is incomplete: ") && ran.err.contains("line 1 "),
                "{}",
                ran.err
            );
        }
    }
}

#[test]
fn a_lower_class_shows_more_and_fails_nothing_more() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.remove(0);
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([trace.as_os_str(), "--min-class=log".as_ref()]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("fill_cache") && !ran.out.contains("serve"), "{}", ran.out);
    let ran = run([trace.as_os_str(), "--min-class=constant".as_ref()]);
    assert!(ran.code == 0 && ran.out.contains("serve") && ran.out.contains("start"), "{}", ran.out);
    let leaking = leaker().write(&scratch.path("l.edl"));
    let ran = run([leaking.as_os_str(), "--min-class=exp".as_ref()]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("passed: 1 leak below what --min-class or --strict asks for"), "{}", ran.out);
}

#[test]
fn diff_with_a_short_recording_is_undecided() {
    let scratch = Scratch::new();
    let leaking = leaker().write(&scratch.path("leaking.edl"));
    let mut short = leaker();
    short.slices = 5;
    let short = short.write(&scratch.path("short.edl"));
    for (before, after) in [(&short, &short), (&leaking, &short)] {
        let ran = run([OsStr::new("diff"), before.as_os_str(), after.as_os_str()]);
        assert_eq!(ran.code, 2, "{}{}", ran.out, ran.err);
        assert!(ran.out.contains("undecided: ") && !ran.out.contains("no leak"), "{}", ran.out);
        assert!(ran.out.lines().all(|line| line.chars().count() <= 80), "{}", ran.out);
        let json =
            run([OsStr::new("diff"), "--format=json".as_ref(), before.as_os_str(), after.as_os_str()]).json();
        assert!(json["undecided"].as_array().is_some_and(|all| !all.is_empty()), "{json}");
    }
    // The first recording is too short for a verdict. The diff must still report the leak of the second
    // recording, and the exit code must be 1.
    assert_eq!(run([OsStr::new("diff"), short.as_os_str(), leaking.as_os_str()]).code, 1);
}
