//! Tests `edleak-analyze profile` with traces in which the counters of every slice are known.

use crate::programs::run;
use crate::traces::{Draft, Scratch, caller, counters, leaker, watched};
use serde_json::{Value, json};

/// A program with four sites: a buffer that is largest at slice 40, a leak, a site that keeps its allocations
/// for one slice, and a site that frees all its allocations at once.
fn hump() -> Draft {
    let mut draft = leaker();
    draft.sites = vec![
        caller(0x1010, "buffer", 10, |i| {
            let most = 1000 * (i + 1).min(41);
            counters(most, most / 1000, 1000 * i.saturating_sub(40), i.saturating_sub(40))
        }),
        caller(0x1020, "leak", 20, |i| counters(100 * (i + 1), i + 1, 0, 0)),
        caller(0x1030, "scratch", 30, |i| counters(50 * 10 * (i + 1), 10 * (i + 1), 50 * 10 * i, 10 * i)),
        caller(0x1040, "format", 40, |i| {
            counters(70 * 5 * (i + 1), 5 * (i + 1), 70 * 5 * (i + 1), 5 * (i + 1))
        }),
    ];
    draft
}

fn profile(draft: &Draft, arguments: &[&str]) -> Value {
    let scratch = Scratch::new();
    let trace = draft.write(&scratch.path("t.edl"));
    let mut all = vec!["profile", trace.to_str().unwrap(), "--format=json"];
    all.extend(arguments);
    run(all).json()
}

fn figure(profile: &Value, key: &str) -> Vec<(String, i64)> {
    let row = |site: &Value| (site["name"].as_str().unwrap().into(), site[key].as_i64().unwrap());
    profile["sites"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn the_peak_is_the_slice_with_the_most_live_bytes() {
    // Slice i is taken at (i + 1) × 100 ms. At slice 40, the four sites have 41 × 1000, 41 × 100, 500 and 0
    // live bytes.
    let peak = profile(&hump(), &[]);
    assert_eq!(
        (&peak["at"], &peak["to_s"], &peak["precision_s"]),
        (&json!("peak"), &json!(4.1), &json!(0.1))
    );
    assert_eq!(peak["total"]["live_bytes"], 41_000 + 4_100 + 500);
    let rows = figure(&peak, "live_bytes");
    assert_eq!(rows[..3], [("buffer".into(), 41_000), ("leak".into(), 4_100), ("scratch".into(), 500)]);
    assert_eq!(peak["sites"][0]["share"], json!(41_000.0 / 45_600.0));
}

#[test]
fn the_end_adds_up_to_the_summary_and_every_site_has_its_peak() {
    let scratch = Scratch::new();
    let trace = hump().write(&scratch.path("t.edl"));
    let report = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
    let end = profile(&hump(), &["--at=end"]);
    for key in ["live_bytes", "live_count", "allocated_bytes", "allocs", "freed_bytes", "frees"] {
        assert_eq!(end["total"][key], report["summary"][key], "{key}");
        let sum: i64 = figure(&end, key).iter().map(|(_, value)| value).sum();
        assert_eq!(end["total"][key], sum, "{key}");
    }
    let peaks: Vec<_> = report["sites"].as_array().unwrap().iter().collect();
    let peak = |name: &str| {
        let site = peaks.iter().find(|site| site["name"] == name).unwrap();
        let milliseconds = (site["peak_s"].as_f64().unwrap() * 1e3).round();
        (site["peak_bytes"].as_u64().unwrap(), milliseconds)
    };
    assert_eq!(peak("buffer"), (41_000, 4100.0));
    assert_eq!(peak("leak"), (8_000, 8000.0));
    // The site `scratch` has the same live bytes at every slice, so its peak is the first slice.
    assert_eq!(peak("scratch"), (500, 100.0));
}

#[test]
fn a_range_counts_what_happened_between_its_two_slices() {
    let range = profile(&hump(), &["--from=2s", "--to=3s", "--by=allocated"]);
    assert_eq!((&range["at"], &range["from_s"], &range["to_s"]), (&json!("range"), &json!(2.0), &json!(3.0)));
    // The range from 2 s to 3 s covers ten slices.
    let expected = [("buffer", 10_000), ("scratch", 5_000), ("format", 3_500), ("leak", 1_000)];
    assert_eq!(figure(&range, "allocated_bytes"), expected.map(|(name, bytes)| (name.into(), bytes)));
    assert_eq!(range["total"]["live_bytes"], 11_000);
    // After the peak, the buffer becomes smaller by 1,000 bytes in each slice.
    let after = profile(&hump(), &["--from=5s", "--to=6s"]);
    assert_eq!(figure(&after, "live_bytes").last().unwrap(), &("buffer".into(), -10_000));
}

#[test]
fn churn_is_what_a_site_frees_beyond_what_it_held() {
    let churn = profile(&hump(), &["--by=churn"]);
    // An allocation is temporary if the program frees it before the next slice. The site `format` frees
    // all its allocations before the next slice. In each slice, the site `scratch` frees only the
    // allocations that it already held at the previous slice, so none of them is temporary.
    let expected = [("format", 400), ("buffer", 0), ("leak", 0), ("scratch", 0)];
    let mut seen = figure(&churn, "temporary_allocs");
    seen[1..].sort();
    assert_eq!(seen, expected.map(|(name, count)| (name.into(), count)));
    assert_eq!(churn["total"]["temporary_bytes"], 400 * 70);
    let part = profile(&hump(), &["--by=churn", "--from=1s", "--to=2s"]);
    assert_eq!(part["total"]["temporary_allocs"], 50);
}

#[test]
fn a_time_outside_the_record_is_refused_with_the_bounds() {
    let scratch = Scratch::new();
    let trace = hump().write(&scratch.path("t.edl"));
    for (arguments, bounds) in [
        (vec!["--at=9s"], "give a time from 0s to 8.000s"),
        (vec!["--from=3s", "--to=2s"], "`--from` (3.000s) is not before `--to` (2.000s) (swap the two)"),
        (vec!["--from=3s", "--to=3010ms"], "give a longer range; slices are 100 ms apart there"),
        (vec!["--at=often"], "write peak, end, or a time such as 90s"),
    ] {
        let mut all = vec!["profile", trace.to_str().unwrap()];
        all.extend(arguments);
        let refused = run(all);
        assert_eq!((refused.code, refused.out.as_str()), (3, ""), "{}", refused.err);
        assert!(refused.err.contains(bounds), "{}", refused.err);
    }
    // A time selects the slice that is nearest to this time, so time 0 selects the first slice.
    let live = |arguments: &[&str]| figure(&profile(&hump(), arguments), "live_bytes");
    assert_eq!(live(&["--at=0s"]), live(&["--at=100ms"]));
    assert_eq!(live(&["--at=3060ms"]), live(&["--at=3100ms"]));
    assert_eq!(live(&["--at=3040ms"]), live(&["--at=3s"]));
    assert_ne!(live(&["--at=3s"]), live(&["--at=3100ms"]));
    let refused = run([trace.to_str().unwrap(), "--at=peak"]);
    assert!(refused.err.contains("use `--format pprof`, or `edleak-analyze profile`"), "{}", refused.err);
}

#[test]
fn the_text_lists_callers_and_the_stacks_below_main() {
    let scratch = Scratch::new();
    let trace = watched().write(&scratch.path("t.edl"));
    let text = run(["profile", trace.to_str().unwrap(), "--at=end"]).out;
    let expected = "\
edleak: ./leaker --fast
at the end, 8 s of 8 s: 9.1 KiB live in 100 allocations
(slices are 100 ms apart there: a shorter peak is not seen)

   share          live   allocations  site
 100.0 %       9.1 KiB           100  make leaker.c:42

from the outermost frame inward; sites without recorded stacks stand alone:
 100.0 %  main
  86.2 %    handle_request
  86.2 %    make
  13.8 %    warm_up
  13.8 %    make
";
    assert_eq!(text, expected);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}

#[test]
fn one_piece_of_code_at_two_addresses_is_one_row() {
    let mut draft = hump();
    // The trace contains the site `leak` twice, with different site ids but with the same build ID and
    // offset. The profile must show `leak` as one site.
    draft.sites[2] = caller(0x1020, "leak", 20, |i| counters(7 * (i + 1), i + 1, 0, 0));
    let end = profile(&draft, &["--at=end", "--by=allocated"]);
    assert_eq!(figure(&end, "live_bytes").iter().find(|(name, _)| name == "leak").unwrap().1, 80 * 107);
    let scratch = Scratch::new();
    let trace = draft.write(&scratch.path("t.edl"));
    let report = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
    let leak = report["sites"].as_array().unwrap().iter().find(|site| site["name"] == "leak").unwrap();
    assert_eq!((&leak["peak_bytes"], &leak["live_bytes"]), (&json!(80 * 107), &json!(80 * 107)));
}
