//! Tests the formats that other programs read. The JSON report of a given trace must stay the same. The
//! output in each format must be well-formed and must name the leak.

use crate::programs::run;
use crate::traces::{Scratch, caller, leaker, leaking, watched};
use serde_json::{Value, json};

#[test]
fn json_has_every_key_of_the_contract() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let report = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
    let has = |value: &Value, keys: &[&str]| {
        let object = value.as_object().expect("an object");
        keys.iter().for_each(|key| assert!(object.contains_key(*key), "{key} is missing in {value}"));
    };
    has(&report, &["format_version", "trace", "summary", "sites"]);
    has(&report["trace"], &["command", "pid", "duration_s", "slices", "period_s", "complete"]);
    has(
        &report["summary"],
        &[
            "sites",
            "leaks",
            "live_bytes",
            "live_count",
            "allocated_bytes",
            "freed_bytes",
            "allocs",
            "frees",
            "unknown_frees",
            "lost_slices",
        ],
    );
    for site in report["sites"].as_array().unwrap() {
        has(
            site,
            &[
                "id",
                "parent",
                "class",
                "verdict",
                "leak_bytes",
                "rate_bytes_per_s",
                "began_s",
                "live_bytes",
                "live_count",
                "allocs",
                "frees",
                "allocated_bytes",
                "freed_bytes",
                "stack",
                "confidence",
                "why",
                "survivors",
                "curve",
                "record_longer_s",
            ],
        );
        for frame in site["stack"].as_array().unwrap() {
            has(frame, &["address", "module", "build_id", "offset", "function", "file", "line", "inlined"]);
        }
    }
    assert_eq!(report["format_version"], 1);
    assert_eq!(report["trace"]["command"], json!(["./leaker", "--fast"]));
    assert_eq!((&report["trace"]["slices"], &report["trace"]["complete"]), (&json!(80), &json!(true)));
    assert_eq!(
        (&report["summary"]["sites"], &report["summary"]["live_bytes"]),
        (&json!(4), &json!(8000 + 1280 + 4096 + 1000))
    );
    assert_eq!(report["summary"]["allocs"], json!(80 + 20 + 1 + 800));
    let frame = &report["sites"][0]["stack"][0];
    let expected = json!({"address": "0x550000001010", "module": "/src/leaker",
        "build_id": "abcd1234", "offset": "0x1010",
        "function": "grow_list", "file": "/src/leaker.c", "line": 42, "inlined": false});
    assert_eq!(frame, &expected);
}

#[test]
fn numbers_beyond_two_to_the_53_stay_exact() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites[2].counters = |_| crate::traces::counters(u64::MAX, u64::MAX, 0, 0);
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]);
    assert!(ran.out.contains("\"live_bytes\":18446744073709551615"), "{}", ran.out);
}

#[test]
fn stacks_are_children_of_their_caller() {
    let scratch = Scratch::new();
    let trace = watched().write(&scratch.path("t.edl"));
    let report = run([trace.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]).json();
    let child = report["sites"].as_array().unwrap().iter().find(|site| site["id"] == 1).unwrap();
    assert_eq!((&child["parent"], &child["verdict"]), (&json!(0), &json!("leak")));
    let functions: Vec<&str> =
        child["stack"].as_array().unwrap().iter().filter_map(|f| f["function"].as_str()).collect();
    assert_eq!(functions, ["make", "handle_request", "main"]);
}

#[test]
fn several_traces_are_one_document() {
    let scratch = Scratch::new();
    let (one, two) = (leaker().write(&scratch.path("1.edl")), watched().write(&scratch.path("2.edl")));
    let ran = run([one.as_os_str(), two.as_os_str(), "--format=json".as_ref()]);
    let report = ran.json();
    assert_eq!((ran.code, report["traces"].as_array().map(Vec::len)), (1, Some(2)));
    assert_eq!(report["traces"][1]["sites"][0]["id"], 1);
}

#[test]
fn folded_stacks_weigh_leaked_bytes_outermost_first() {
    let scratch = Scratch::new();
    let trace = watched().write(&scratch.path("t.edl"));
    let out = run([trace.as_os_str(), "--format=folded".as_ref()]).out;
    let (stack, bytes) = out.trim().rsplit_once(' ').unwrap();
    assert_eq!(stack, "main;handle_request;make");
    assert!((7000..9000).contains(&bytes.parse::<u64>().unwrap()), "{bytes}");
}

#[test]
fn annotations_point_at_the_line() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let out = run([trace.as_os_str(), "--format=github".as_ref()]).out;
    assert!(
        out.starts_with("::error file=leaker.c,line=42,title=memory leak in grow_list::linear growth, "),
        "{out}"
    );
    assert_eq!(out.lines().count(), 1);
}

#[test]
fn junit_has_a_failure_per_leak() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let out = run([trace.as_os_str(), "--format=junit".as_ref()]).out;
    assert!(out.starts_with("<?xml version=\"1.0\""), "{out}");
    assert!(out.contains(r#"tests="2" skipped="0" errors="0" failures="1" time="8.000">"#), "{out}");
    assert!(out.contains(r#"<testcase name="no leak in grow_list" classname=""#), "{out}");
    assert!(out.contains("grow_list at /src/leaker.c:42"), "{out}");
    let mut short = leaker();
    short.slices = 3;
    let out = run([short.write(&scratch.path("s.edl")).as_os_str(), "--format=junit".as_ref()]).out;
    assert!(out.contains(r#"errors="1""#) && out.contains("type=\"undecided\""), "{out}");
}

#[test]
fn sarif_has_one_result_per_leak_with_a_place_a_stack_and_a_stable_fingerprint() {
    let scratch = Scratch::new();
    let report = |build: u8| {
        let mut draft = watched();
        draft.build_id = vec![build; 4];
        let trace = draft.write(&scratch.path("t.edl"));
        run([trace.as_os_str(), "--format=sarif".as_ref()]).json()
    };
    let sarif = report(1);
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    assert_eq!(run["tool"]["driver"]["name"], "edleak");
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), 1);
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(
        place,
        &json!({
            "artifactLocation": {"uri": "leaker.c", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 77},
        })
    );
    assert_eq!(results[0]["stacks"][0]["frames"].as_array().map(Vec::len), Some(3));
    let rule = results[0]["ruleIndex"].as_u64().unwrap() as usize;
    assert_eq!(run["tool"]["driver"]["rules"][rule]["id"], results[0]["ruleId"]);
    let fingerprint = |report: &Value| report["runs"][0]["results"][0]["partialFingerprints"].clone();
    assert_eq!(fingerprint(&sarif), fingerprint(&report(2)), "a rebuild keeps the fingerprint");
}

#[test]
fn fingerprints_of_one_function_do_not_follow_the_rates() {
    let scratch = Scratch::new();
    let fast = |slice: u64| crate::traces::counters(900 * (slice + 1), slice + 1, 0, 0);
    let by_line = |rates: [fn(u64) -> edleak_format::Counters; 2]| {
        let mut draft = leaker();
        draft.sites = vec![caller(0x1010, "grow", 42, rates[0]), caller(0x1020, "grow", 43, rates[1])];
        let trace = draft.write(&scratch.path("t.edl"));
        let report = run([trace.as_os_str(), "--format=sarif".as_ref()]).json();
        let results = report["runs"][0]["results"].as_array().unwrap().clone();
        let mut prints: Vec<(u64, String)> = results
            .iter()
            .map(|result| {
                let line = &result["locations"][0]["physicalLocation"]["region"]["startLine"];
                (line.as_u64().unwrap(), result["partialFingerprints"]["edleakSite/v1"].to_string())
            })
            .collect();
        prints.sort();
        prints
    };
    let (one, other) = (by_line([leaking, fast]), by_line([fast, leaking]));
    assert_eq!(one.len(), 2);
    assert_eq!(one, other);
    assert_ne!(one[0].1, one[1].1);
}
