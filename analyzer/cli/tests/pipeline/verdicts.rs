//! Tests verdicts. A verdict must not depend on the kind of input (trace or series lines), on the number of
//! threads, or on missing slices.

use crate::programs::{command, finish, run, run_with_input};
use crate::traces::{
    Draft, Scratch, caller, churning, constant, counters, filling, leaker, leaking, nothing, watched,
};
use edleak_format::{Counters, CpuUse, EndReason};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// For each site, the fields of the verdict that must be equal for a trace and for its series lines.
fn verdicts(report: &Value) -> BTreeMap<String, Value> {
    let sites = report["sites"].as_array().expect("a report has sites");
    let keys = [
        "class",
        "verdict",
        "confidence",
        "leak_bytes",
        "rate_bytes_per_s",
        "why",
        "record_longer_s",
        "live_bytes",
        "live_count",
        "allocs",
        "frees",
    ];
    let of = |site: &Value| {
        let values: serde_json::Map<String, Value> =
            keys.iter().map(|&key| (key.into(), site[key].clone())).collect();
        (site["id"].to_string(), Value::Object(values))
    };
    sites.iter().map(of).collect()
}

#[test]
fn the_leak_is_found_and_nothing_else() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let ran = run([trace.as_os_str(), "--format=json".as_ref()]);
    let report = ran.json();
    assert_eq!((ran.code, ran.err.as_str()), (1, ""));
    assert_eq!(report["summary"]["leaks"], 1);
    assert_eq!(report["sites"].as_array().map(Vec::len), Some(1));
    let leak = &report["sites"][0];
    assert_eq!(
        (&leak["id"], &leak["class"], &leak["verdict"]),
        (&json!(0), &json!("linear"), &json!("leak"))
    );
    assert_eq!((&leak["live_bytes"], &leak["live_count"]), (&json!(8000), &json!(80)));
    let rate = leak["rate_bytes_per_s"].as_f64().unwrap();
    assert!((900.0..1100.0).contains(&rate), "{rate}");
}

#[test]
fn series_lines_read_back_with_the_verdicts_of_the_trace() {
    let mut late = leaker();
    late.sites.push(caller(0x1050, "late", 80, |slice| {
        if slice < 30 { nothing(slice) } else { leaking(slice - 30) }
    }));
    let mut born = leaker();
    born.sites[0].survivors = Some((0..16).map(|_| (500, 5, 5)).collect());
    let mut uneven = leaker();
    (uneven.ticks_per_slice, uneven.off_grid) = (4, Some(1));
    let mut short = leaker();
    short.slices = 5;
    for (name, draft) in
        [("late", late), ("born", born), ("uneven", uneven), ("short", short), ("watched", watched())]
    {
        let scratch = Scratch::new();
        let trace = draft.write(&scratch.path("t.edl"));
        for model in ["--model=growth", "--model=edleak"] {
            let from_trace =
                run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref(), model.as_ref()]);
            let series = run([trace.as_os_str(), "--format=series".as_ref()]);
            let from_lines = run_with_input(&["-", "--format=json", "--all", model], series.out.as_bytes());
            assert_eq!(from_trace.code, from_lines.code, "{name}");
            let (mut expected, mut found) = (verdicts(&from_trace.json()), verdicts(&from_lines.json()));
            if name == "uneven" {
                // The last slice of this trace comes at an irregular time. The slice at the irregular
                // time changes only the totals of a site, so compare all fields except the totals.
                for totals in expected.values_mut().chain(found.values_mut()) {
                    for key in ["live_bytes", "live_count", "allocs", "frees"] {
                        totals[key] = Value::Null;
                    }
                }
            }
            assert_eq!(expected, found, "{name} {model}");
            let again = run_with_input(&["-", "--format=series"], series.out.as_bytes());
            assert_eq!(
                verdicts(
                    &run_with_input(&["-", "--format=json", "--all", model], again.out.as_bytes()).json()
                ),
                verdicts(&from_lines.json()),
                "{name} {model}"
            );
        }
    }
}

#[test]
fn reports_are_the_same_to_the_bit_on_any_number_of_threads() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.slices = 700;
    draft.sites = (0..1500).map(|i| draft.sites[i % 4].clone()).collect();
    let trace = draft.write(&scratch.path("t.edl"));
    for format in ["--format=json", "--format=series", "--format=text"] {
        let on = |threads: &str| {
            let mut command = command();
            command.env("RAYON_NUM_THREADS", threads).arg(&trace).args(["--all", format]);
            finish(&mut command).out
        };
        let one = on("1");
        assert!(one.len() > 1000);
        assert!(one == on("2") && one == on("5"), "{format}");
    }
}

#[test]
fn a_straight_line_leads_over_missing_slices() {
    let scratch = Scratch::new();
    let series_and_sites = |draft: &Draft| {
        let trace = draft.write(&scratch.path("t.edl"));
        let series = run([trace.as_os_str(), "--format=series".as_ref()]).out;
        let json = run([trace.as_os_str(), "--format=json".as_ref()]).json();
        // Read the series lines again: they must give the same verdicts as the trace.
        let lines = scratch.path("lines.jsonl");
        std::fs::write(&lines, &series).unwrap();
        let reread = run([lines.as_os_str(), "--format=json".as_ref()]).json();
        for (site, again) in json["sites"].as_array().unwrap().iter().zip(reread["sites"].as_array().unwrap())
        {
            for field in ["class", "verdict", "leak_bytes", "rate_bytes_per_s"] {
                assert_eq!(site[field], again[field], "{field}");
            }
        }
        (series, json["sites"].clone())
    };
    // Each site of this trace grows or shrinks by the same number of bytes in every slice. If slices are
    // missing, edleak draws a straight line over the gap, so the series must be the same as without the gap.
    // The series of a site whose growth is spread over several stacks must also be the same as without the
    // gap.
    let mut draft = watched();
    draft.sites.push(caller(0x30, "shrink", 3, |slice| counters(80_000, 80, 1000 * slice, slice)));
    draft.sites[2].counters = leaking;
    let whole = series_and_sites(&draft);
    assert!(whole.1.as_array().is_some_and(|sites| sites.len() > 1), "{:#}", whole.1);
    for missing in [5..62, 30..50, 50..51] {
        draft.missing = missing;
        assert!(series_and_sites(&draft) == whole, "{:?}", draft.missing);
    }
    // If a site makes its first allocation while slices are missing, its series must begin after the gap.
    draft.missing = 20..40;
    draft.sites[2].counters = |slice| if slice < 30 { Counters::ZERO } else { leaking(slice) };
    let series = series_and_sites(&draft).0;
    let late: Value = serde_json::from_str(series.lines().nth(2).unwrap()).unwrap();
    assert_eq!((&late["first_slice"], &late["live_bytes"][0]), (&json!(40), &json!(4100)));
}

#[test]
fn frees_at_the_end_of_the_program_do_not_hide_a_leak() {
    /// The site grows for 1,000 slices. In the next twelve slices, the program frees all memory of the site.
    fn ending(slice: u64) -> Counters {
        let kept = slice.min(999);
        let freed = (slice - kept).min(12) * 1000 / 12;
        Counters { freed_bytes: 100 * freed, frees: freed, ..leaking(kept) }
    }
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites[0].counters = ending;
    // The verdict must be the same for every number of slices, although edleak joins several slices to a
    // bucket.
    for slices in 1000..=1012 {
        draft.slices = slices;
        let trace = draft.write(&scratch.path("t.edl"));
        let ran = run([&trace]);
        assert!(ran.code == 1 && ran.out.contains("98 KiB leaked"), "{slices}: {}", ran.out);
        let said = ran.out.contains("most of it was freed when the program ended");
        assert_eq!(said, slices > 1006, "{slices}: {}", ran.out);
        // The series lines must end where the judged record ends, which is before the frees.
        let series = run([trace.as_os_str(), "--format=series".as_ref()]).out;
        let line: Value = serde_json::from_str(series.lines().next().unwrap()).unwrap();
        assert_eq!(line["live_bytes"].as_array().unwrap().last(), Some(&json!(100_000)), "{slices}");
    }
    // If the user stopped the recording while the program freed memory, the program has not ended. So the
    // frees may be normal work of the program, and the series lines must contain the slices with the frees.
    (draft.slices, draft.end) = (1012, Some(EndReason::Stopped));
    let series = run([draft.write(&scratch.path("t.edl")).as_os_str(), "--format=series".as_ref()]).out;
    let line: Value = serde_json::from_str(series.lines().next().unwrap()).unwrap();
    assert_eq!(line["live_bytes"].as_array().unwrap().last(), Some(&json!(0)));
}

/// A buffer doubles its size four times. The buffer may double again later, so the verdict is undecided. But
/// if the program frees the buffer before it ends, the verdict must be "no leak".
#[test]
fn memory_freed_at_the_end_does_not_make_the_gate_undecided() {
    fn doubling(slice: u64) -> Counters {
        let steps = [6, 12, 25, 50].iter().filter(|&&step| slice >= step).count() as u64;
        let replaced = (1 << steps) - 1;
        counters(10_000 * (2 * replaced + 1), steps + 1, 10_000 * replaced, steps)
    }
    fn doubling_and_freed(slice: u64) -> Counters {
        let now = doubling(slice);
        if slice < 97 { now } else { Counters { freed_bytes: now.allocated_bytes, frees: now.allocs, ..now } }
    }
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.slices = 100;
    for (append, code) in [(doubling as fn(u64) -> Counters, 2), (doubling_and_freed, 0)] {
        draft.sites = vec![caller(0x10, "append", 1, append)];
        let ran = run([draft.write(&scratch.path("t.edl"))]);
        assert_eq!(ran.code, code, "{}", ran.out);
        assert_eq!(ran.out.contains("sites that hold 156 KiB are undecided"), code == 2, "{}", ran.out);
    }
}

/// The recorder got no processor time before the program ended, so the last part of the record has few slices
/// or none.
#[test]
fn gap_at_the_end_counts_as_missing() {
    fn leaks_in_the_gap(slice: u64) -> Counters {
        constant(slice).plus(if slice < 30 { Counters::ZERO } else { leaking(slice - 30) })
    }
    fn leaks(slice: u64) -> Counters {
        leaking(slice)
    }
    // The program ends early in the gap, but the recorder takes the last slice only after the gap.
    fn leaks_and_ends(slice: u64) -> Counters {
        leaking(slice.min(88))
    }
    fn leaks_and_is_freed(slice: u64) -> Counters {
        if slice < 100 { leaking(slice) } else { counters(10_000, 100, 10_000, 100) }
    }
    let scratch = Scratch::new();
    let mut draft = leaker();
    // After the gap, the trace has 0, 1 or 3 slices at regular times, and then a last slice at an irregular
    // time.
    for after in [0, 1, 3] {
        for (grow, slices, missing, codes) in [
            (leaks_in_the_gap as fn(u64) -> Counters, 100, 30..100, &[1, 2][..]),
            // At most nine slices of this trace are left, too few for a verdict. edleak draws a straight
            // line over the gap, which looks like a leak. But the points of the straight line do not
            // count as slices.
            (leaks, 12, 5..12, &[2]),
            (leaks, 100, 85..100, &[1]),
            (leaks_and_ends, 100, 85..100, &[1]),
            (leaks_and_is_freed, 100, 85..100, &[1]),
            (leaks_and_is_freed, 100, 60..100, &[1]),
        ] {
            (draft.slices, draft.missing, draft.off_grid) = (slices + after, missing, Some(1));
            draft.ticks_per_slice = 2;
            draft.sites = vec![caller(0x10, "grow", 1, grow), caller(0x20, "serve", 2, constant)];
            let trace = draft.write(&scratch.path("t.edl"));
            let ran = run([&trace]);
            assert!(codes.contains(&ran.code), "{:?}, {after} after: {}", draft.missing, ran.out);
            let report = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
            let share = report["summary"]["missing_share"].as_f64().unwrap();
            let expected = draft.missing.clone().count() as f64 / (slices + after) as f64;
            assert!((share - expected).abs() < 0.06, "{share} and {expected}");
            // Read the series lines again: they must give the same verdicts as the trace.
            let series = run([trace.as_os_str(), "--format=series".as_ref()]);
            let lines = run_with_input(&["-", "--format=json", "--all"], series.out.as_bytes()).json();
            for (site, again) in
                report["sites"].as_array().unwrap().iter().zip(lines["sites"].as_array().unwrap())
            {
                if slices > 12 {
                    assert_eq!(site["verdict"], again["verdict"], "{site:#} {again:#}");
                }
            }
        }
    }
}

/// The last 40 of 100 slices are lost. The end record shows that the recording went on after the last slice
/// in the trace.
#[test]
fn a_record_that_ended_long_after_its_last_slice_is_undecided() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    (draft.slices, draft.missing) = (100, 60..100);
    draft.sites = vec![caller(0x10, "fill", 1, filling), caller(0x20, "serve", 2, churning)];
    let ran = run([draft.write(&scratch.path("t.edl"))]);
    assert!(ran.code == 2 && ran.out.contains("no slice was taken for 40 %"), "{}", ran.out);
}

/// A service gets no more requests in the last third of the record, and the memory of one site stops growing.
/// The site may be a leak or a full cache, so the verdict on the site must be undecided, both if edleak reads
/// the trace and if it reads the series lines.
#[test]
fn growth_that_stopped_with_the_work_is_undecided_from_a_trace_and_from_lines() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.slices = 300;
    draft.sites = vec![
        caller(0x10, "session_open", 1, |slice| leaking(slice.min(200))),
        caller(0x20, "serve", 2, |slice| churning(slice.min(200))),
    ];
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([&trace]);
    let said = ran.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(ran.code, 2, "{}", ran.out);
    assert!(said.contains("the program did next to nothing in the last 9.6 s (no allocation)"), "{said}");
    let series = run([trace.as_os_str(), "--format=series".as_ref()]);
    assert_eq!(run_with_input(&["-"], series.out.as_bytes()).code, 2);
    // If the program goes on working after the growth has stopped, the site is a full cache and no leak.
    draft.sites[1].counters = churning;
    assert_eq!(run([draft.write(&scratch.path("t.edl"))]).code, 0);
}

/// A program that computes without a pause may keep all its results until it ends. The memory of these
/// results grows like a leak, so edleak reports a leak in a busy program only with the confidence
/// `suspect`.
#[test]
fn memory_kept_by_a_busy_program_is_at_most_a_suspect() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    let confidence = |draft: &Draft| {
        let trace = draft.write(&scratch.path("t.edl"));
        let report = run([trace.as_os_str(), "--format=json".as_ref()]).json();
        report["sites"][0]["confidence"].as_str().unwrap_or("none").to_owned()
    };
    let processor = |used_s: u64, waited_s: u64| {
        Some(CpuUse {
            span_ns: 8_000_000_000,
            used_ns: used_s * 1_000_000_000,
            waited_ns: waited_s * 1_000_000_000,
        })
    };
    draft.sites = vec![caller(0x10, "keep", 1, leaking), caller(0x20, "serve", 2, churning)];
    assert_eq!(confidence(&draft), "strict");
    // If the program used a processor for only 1 s of 8 s, it mostly waited for requests. A leak in a
    // program that mostly waits keeps the confidence `strict`.
    draft.processor = processor(1, 0);
    assert_eq!(confidence(&draft), "strict");
    for (used_s, waited_s) in [(8, 0), (3, 4)] {
        draft.processor = processor(used_s, waited_s);
        assert_eq!(confidence(&draft), "suspect");
    }
    // If a program uses a processor, or waits for one, nearly all the time, its leak normally gets only the
    // confidence `suspect`. But if most of the program's memory existed from the start, the leak gets
    // `strict`.
    draft.sites.push(caller(0x30, "start", 3, |_| counters(1 << 20, 1, 0, 0)));
    assert_eq!(confidence(&draft), "strict");
    draft.processor = processor(1, 6);
    assert_eq!(confidence(&draft), "suspect");
    // If the program frees the memory just before it ends, the leak gets only the confidence `suspect`.
    draft.processor = processor(8, 0);
    draft.sites[0].counters = |slice| match slice {
        ..79 => leaking(slice),
        _ => Counters { freed_bytes: 7900, frees: 79, ..leaking(78) },
    };
    assert_eq!(confidence(&draft), "suspect");
}

/// In a program with a thousand sites, some sites look like a small leak by chance. So a leak with the
/// confidence `suspect` is undecided if it has less than 1/1000 of the live memory. A leak with the
/// confidence `strict` is reported, even if it has less than 1/1000 of the live memory.
#[test]
fn negligible_suspect_is_undecided() {
    let scratch = Scratch::new();
    let suspected = |slice: u64| counters(100 * (slice / 8), slice / 8, 0, 0);
    let beyond_doubt = |slice: u64| counters(slice, slice, 0, 0);
    let (small, large) = (|_| counters(500_000, 9, 0, 0), |_| counters(5_000_000, 9, 0, 0));
    let mut draft = leaker();
    for (grows, base, code) in [
        (suspected as fn(u64) -> Counters, small as fn(u64) -> Counters, 1),
        (suspected, large, 0),
        (beyond_doubt, large, 1),
    ] {
        draft.sites = vec![caller(0x10, "f", 1, grows), caller(0x20, "g", 2, base)];
        let trace = draft.write(&scratch.path("t.edl"));
        let ran = run([&trace]);
        assert_eq!(ran.code, code, "{}", ran.out);
        if code == 0 {
            let json = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
            let site = json["sites"].as_array().unwrap().iter().find(|site| site["id"] == 0).unwrap();
            assert_eq!(site["verdict"], "undecided", "{site:#}");
            assert!(
                site["why"].to_string().contains("less than a thousandth of the live memory"),
                "{site:#}"
            );
        }
    }
}

/// If slices are missing, edleak draws a straight line over the gap. The points of the straight line must
/// not count as slices: if only eight recorded slices remain, the verdict must be undecided.
#[test]
fn interpolated_points_do_not_count_as_slices() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.slices = 24;
    for (missing, code) in [(10..14, 1), (4..20, 2)] {
        draft.missing = missing;
        let ran = run([draft.write(&scratch.path("t.edl"))]);
        assert_eq!(ran.code, code, "{:?}: {}", draft.missing, ran.out);
        assert_eq!(ran.out.contains("8 slices are too few for a verdict"), code == 2, "{}", ran.out);
    }
}

#[test]
fn unchanged_site_keeps_its_value_through_missing_slices() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites = vec![
        caller(0x10, "f", 1, |slice| counters(8 * (slice + 1), slice + 1, 0, 0)),
        caller(0x20, "g", 2, constant),
    ];
    let trace = draft.write(&scratch.path("t.edl"));
    let lines = run([trace.as_os_str(), "--format=series".as_ref()]).out;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["live_bytes"], json!((1..=80).map(|i| 8 * i).collect::<Vec<u64>>()));
    assert_eq!(lines[1]["live_bytes"], json!(vec![4096; 80]));
    assert_eq!((&lines[0]["period_s"], &lines[0]["id"]), (&json!(0.1), &json!(0)));
}

#[test]
fn a_leak_spread_over_many_stacks_is_the_callers() {
    let scratch = Scratch::new();
    let mut draft = watched();
    let stack = draft.sites[1].clone();
    // The 16 stacks allocate one after the other, each for five slices. So each stack grows only for a short
    // time, but the site grows for 80 slices.
    draft.sites.truncate(1);
    draft.sites.extend((0..16).map(|i| {
        let mut stack = stack.clone();
        stack.stack[1].0 += 16 * i;
        stack.counters = BURSTS[i as usize];
        stack
    }));
    let trace = draft.write(&scratch.path("t.edl"));
    let report = run([trace.as_os_str(), "--format=json".as_ref()]).json();
    let sites = report["sites"].as_array().unwrap();
    assert_eq!((&sites[0]["id"], &sites[0]["judged_with_stacks"]), (&json!(0), &json!(true)));
    // The list of sites must have the site and then its 16 stacks, each with its share of the leak.
    assert_eq!(sites.len(), 17, "{report:#}");
    let shares: f64 = sites[1..].iter().map(|stack| stack["leak_share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9, "{report:#}");
    for stack in &sites[1..] {
        assert_eq!((&stack["parent"], &stack["verdict"]), (&json!(0), &json!("no-leak")));
        assert_eq!(stack["stack"][1]["function"], json!("handle_request"));
    }
    assert_eq!(report["summary"]["leaks"], json!(1));
    let all = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
    assert_eq!(all["sites"].as_array().map(Vec::len), Some(17));
    for format in ["text", "junit", "sarif", "github"] {
        let out = run([trace.as_os_str(), "--format".as_ref(), format.as_ref()]).out;
        assert!(out.contains("handle_request"), "{format}: {out}");
    }
    let folded = run([trace.as_os_str(), "--format=folded".as_ref()]).out;
    let (stack, bytes) = folded.trim_end().rsplit_once(' ').unwrap();
    assert_eq!(stack, "main;handle_request;make");
    let (bytes, leaked) = (bytes.parse::<f64>().unwrap(), sites[0]["leak_bytes"].as_f64().unwrap());
    assert!((bytes - leaked).abs() <= 16.0, "{bytes} of {leaked}");
}

/// The caller leaks 100 bytes in each slice. edleak does not watch the caller in the first case, watches it
/// for some slices in the second case, and watches it until the end in the third case. While edleak watches a
/// caller, allocations count at a stack of the caller and not at the caller, but the verdict must be the same
/// in all cases.
#[test]
fn a_site_watched_for_a_while_leaks_as_it_does_unwatched() {
    let with = |own: fn(u64) -> edleak_format::Counters, of_stack: fn(u64) -> edleak_format::Counters| {
        let mut draft = watched();
        draft.sites.truncate(2);
        (draft.sites[0].counters, draft.sites[1].counters) = (own, of_stack);
        draft
    };
    let scratch = Scratch::new();
    let cases = [
        ("unwatched", with(leaking, |_| counters(0, 0, 0, 0)), None),
        (
            "a while",
            with(
                |slice| leaking(slice.min(29) + slice.saturating_sub(54)),
                |slice| match slice {
                    0..30 => counters(0, 0, 0, 0),
                    _ => leaking(slice.min(54) - 30),
                },
            ),
            Some(0.3),
        ),
        (
            "late",
            with(
                |slice| leaking(slice.min(71)),
                |slice| match slice {
                    0..72 => counters(0, 0, 0, 0),
                    _ => leaking(slice - 72),
                },
            ),
            Some(0.1),
        ),
    ];
    for (name, draft, share) in cases {
        let trace = draft.write(&scratch.path("t.edl"));
        let with = |options: &[&str]| {
            run([trace.as_os_str()].into_iter().chain(options.iter().map(|option| option.as_ref())))
        };
        let report = with(&["--format=json"]).json();
        let site = &report["sites"][0];
        assert_eq!((&site["id"], &site["confidence"]), (&json!(0), &json!("strict")), "{name}: {report:#}");
        let rate = site["rate_bytes_per_s"].as_f64().unwrap();
        assert!((rate - 1000.0).abs() < 20.0, "{name}: {rate}");
        assert_eq!(with(&["--strict"]).code, 1, "{name}");
        assert_eq!(with(&["--budget", "980B/s"]).code, 1, "{name}");
        assert_eq!(with(&["--budget", "1020B/s"]).code, 0, "{name}");
        let folded = with(&["--format=folded"]).out;
        let sum: u64 =
            folded.lines().map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum();
        let leaked = site["leak_bytes"].as_f64().unwrap();
        assert!((sum as f64 - leaked).abs() <= 2.0, "{name}: {folded}");
        let text = with(&[]).out;
        assert_eq!(
            text.contains("(allocated while the site was not watched)"),
            share.is_some(),
            "{name}: {text}"
        );
        if let Some(share) = share {
            let part = report["sites"][1]["leak_share"].as_f64().unwrap();
            assert!((part - share).abs() < 0.03, "{name}: {part}");
            assert!(
                text.contains("handle_request at") && folded.contains("handle_request;make"),
                "{name}: {text}"
            );
        }
    }
}

/// edleak watches the site only in the first 60 of 80 slices. Before slice 60, allocations count at a stack
/// of the site; from slice 60 on, they count at the site itself. So the stack alone stops growing and does
/// not look like a leak.
#[test]
fn a_leak_stays_a_leak_after_the_end_of_its_watch() {
    let scratch = Scratch::new();
    let mut draft = watched();
    draft.sites.truncate(2);
    draft.sites[0].counters = |slice| match slice {
        0..60 => counters(0, 0, 0, 0),
        _ => leaking(slice - 60),
    };
    draft.sites[1].counters = |slice| leaking(slice.min(59));
    draft.sites[1].survivors =
        Some((0..16).map(|epoch| if epoch < 12 { (500, 5, 5) } else { (0, 0, 0) }).collect());
    let judged = |draft: &Draft| {
        let trace = draft.write(&scratch.path("t.edl"));
        run([trace.as_os_str(), "--format=json".as_ref()])
    };
    // Without a record of the end of the watch, the stack looks like a cache that is full.
    assert_eq!(judged(&draft).code, 0);
    draft.watch_end = Some(60);
    let ran = judged(&draft);
    let report = ran.json();
    assert_eq!(ran.code, 1, "{report:#}");
    let (site, stack) = (&report["sites"][0], &report["sites"][1]);
    assert_eq!((&site["id"], &site["verdict"]), (&json!(0), &json!("leak")), "{report:#}");
    assert_eq!((&stack["leak_share"], &stack["verdict"]), (&json!(1.0), &json!("no-leak")), "{report:#}");
    let rate = site["rate_bytes_per_s"].as_f64().unwrap();
    assert!((rate - 1000.0).abs() < 20.0, "{rate}");
    let trace = scratch.path("t.edl");
    let text = run([trace.as_os_str()]).out;
    assert!(text.contains("handle_request at") && !text.contains("was not watched"), "{text}");
}

/// The program has 25 live allocations at any time. At slice 56, edleak ends the watch of the site. From
/// slice 56 on, new allocations count at the site itself, so the site's own curve rises at the end, although
/// the site does not leak.
#[test]
fn a_site_without_leak_is_no_leak_after_the_end_of_its_watch() {
    let scratch = Scratch::new();
    let mut draft = watched();
    draft.sites.truncate(2);
    // In each slice, the program makes one allocation and frees its oldest allocation.
    draft.sites[0].counters = |slice| match slice {
        0..56 => counters(0, 0, 0, 0),
        _ => counters(100 * (slice - 55), slice - 55, 0, 0),
    };
    draft.sites[1].counters = |slice| {
        let (made, gone) = (25 + slice.min(55), slice);
        counters(100 * made, made, 100 * gone, gone)
    };
    draft.watch_end = Some(56);
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([trace.as_os_str()]);
    assert_eq!(ran.code, 0, "{}", ran.out);
}

macro_rules! burst {
    ($($start:literal)*) => {
        [$(|slice| {
            let made = slice.saturating_sub($start * 5).min(5);
            counters(100 * made, made, 0, 0)
        }),*]
    };
}
const BURSTS: [fn(u64) -> edleak_format::Counters; 16] = burst!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);

#[test]
fn too_little_is_undecided_and_never_clean() {
    let scratch = Scratch::new();
    let with = |slices: u64, sites: usize| {
        let mut draft: Draft = leaker();
        draft.slices = slices;
        draft.sites.truncate(sites);
        draft
    };
    for (slices, sites) in [(0, 4), (1, 4), (11, 4), (80, 0), (0, 0)] {
        let trace = with(slices, sites).write(&scratch.path("t.edl"));
        let ran = run([&trace]);
        assert_eq!(ran.code, 2, "{slices} slices, {sites} sites: {}{}", ran.out, ran.err);
        assert!(ran.out.contains("edleak: undecided: "), "{}", ran.out);
    }
    let trace = with(80, 4).write(&scratch.path("t.edl"));
    assert_eq!(run([&trace]).code, 1);
}
