//! Reads `--metrics FILE` with the parsers of Prometheus and of OpenMetrics, and compares the file with the
//! JSON report.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Running, run, run_with_input, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::repository;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

/// Parses a page with the OpenMetrics parser of Debian's Python, and asserts that no two samples have the
/// same name and labels. Returns name, labels and value of each sample on the page.
fn samples_of(page: &str) -> Vec<(String, BTreeMap<String, String>, f64)> {
    let script = "import json, sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
        print(json.dumps([[s.name, s.labels, s.value] for f in read(sys.stdin.read()) for s in f.samples]))";
    let read = run_with_input(Command::new("/usr/bin/python3").args(["-c", script]), page.as_bytes());
    assert_eq!(read.code, 0, "{}\n{page}", read.stderr);
    let samples: Vec<(String, BTreeMap<String, String>, f64)> =
        serde_json::from_str(&read.stdout).expect("json.dumps writes JSON");
    let mut series = BTreeSet::new();
    for (name, labels, _) in &samples {
        assert!(series.insert((name, labels)), "two samples of {name}{labels:?}\n{page}");
    }
    samples
}

/// Checks the page with `promtool check metrics`, which reads a page as Prometheus does.
fn check_with_promtool(page: &str) {
    let checked = run_with_input(Command::new("promtool").args(["check", "metrics"]), page.as_bytes());
    assert_eq!((checked.code, checked.stderr.as_str()), (0, ""), "{}\n{page}", checked.stdout);
}

#[test]
fn metrics_are_whole_at_any_time_and_the_last_equal_the_report() {
    let dir = TempDir::new("metrics");
    let page = dir.path().join("edleak.prom");
    let recorder = Recorder::new("metrics").options([
        "--period",
        "50ms",
        "--metrics",
        page.to_str().expect("UTF-8"),
        "--metrics-top",
        "10",
    ]);
    let trace = dir.path().join("trace.edl");
    let mut command = recorder.command(&trace, samples().binary("leaker"), ["--seconds", "4"]);
    let running = Running::start(&mut command, b"");
    let read = || std::fs::read_to_string(&page).unwrap_or_default();
    wait_for("a page of the running program", || {
        let text = read();
        assert!(text.is_empty() || text.ends_with("# EOF\n"), "half a page:\n{text}");
        text.lines().any(|line| line.starts_with("edleak_recording{") && line.ends_with(" 1"))
    });
    check_with_promtool(&read());
    let outcome = running.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);

    let text = read();
    check_with_promtool(&text);
    let samples = samples_of(&text);
    let value = |name: &str| {
        let found: Vec<_> = samples.iter().filter(|(own, ..)| own == name).collect();
        assert_eq!(found.len(), 1, "{name}\n{text}");
        found[0].2
    };
    let report: Value = serde_json::from_str(&analyze(["--format", "json", "--all"], &trace).stdout)
        .expect("a report is JSON");
    let summary = &report["summary"];
    assert_eq!(value("edleak_recording"), 0.0);
    for (name, key) in [
        ("edleak_live_bytes", "live_bytes"),
        ("edleak_live_allocations", "live_count"),
        ("edleak_allocated_bytes", "allocated_bytes"),
        ("edleak_allocations", "allocs"),
    ] {
        assert_eq!(value(name), summary[key].as_f64().expect("a count"), "{name}\n{text}");
    }
    let leaks: BTreeMap<_, _> = samples
        .iter()
        .filter(|(name, _, leaked)| name == "edleak_site_leaked_bytes" && *leaked > 0.0)
        .map(|(_, labels, leaked)| (labels["function"].clone(), *leaked))
        .collect();
    let sites = report["sites"].as_array().expect("sites");
    let mut of_report: BTreeMap<String, f64> = BTreeMap::new();
    for site in sites.iter().filter(|site| site["verdict"] == "leak") {
        let function = site["name"].as_str().expect("named").to_owned();
        *of_report.entry(function).or_default() += site["leak_bytes"].as_f64().expect("bytes");
    }
    assert_eq!(leaks, of_report, "{text}");
    assert_eq!(leaks.len(), 7, "the sample has seven leaks\n{text}");
    let listed = samples.iter().filter(|(name, ..)| name == "edleak_site_verdict").count();
    assert_eq!(listed, 10, "{text}");
}

/// The trace has a relative path, and the process executes two more programs. The last page still has one
/// series for the process, with the figures of the last program.
#[test]
fn relative_trace_and_exec_give_no_duplicate_series() {
    let dir = TempDir::new("metrics-exec");
    let recorder = Recorder::new("metrics-exec").cwd(dir.path()).options(["--metrics", "edleak.prom"]);
    // A trace before an exec is kept if the program ran for at least one second.
    let script = "sleep 1.5; exec bash -c 'sleep 1.5; exec bash -c \"sleep 1.5; exit 0\"'";
    let outcome = run(&mut recorder.command(Path::new("trace.edl"), "bash", ["-c", script]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(dir.join("trace.exec1.edl").exists() && dir.join("trace.exec2.edl").exists());
    let text = std::fs::read_to_string(dir.join("edleak.prom")).expect("written at the end");
    check_with_promtool(&text);
    let samples = samples_of(&text);
    let live: Vec<_> = samples.iter().filter(|(name, ..)| name == "edleak_live_bytes").collect();
    let report: Value =
        serde_json::from_str(&analyze(["--format", "json"], &dir.join("trace.edl")).stdout).expect("JSON");
    assert_eq!(live.len(), 1, "{text}");
    assert_eq!(live[0].2, report["summary"]["live_bytes"].as_f64().expect("a count"), "{text}");
}

#[test]
fn unwritable_metrics_file_is_an_error_before_the_program_starts() {
    let dir = TempDir::new("metrics-none");
    let nowhere = dir.path().join("none/edleak.prom");
    let recorder = Recorder::new("metrics-none").options(["--metrics", nowhere.to_str().expect("UTF-8")]);
    let started = dir.path().join("started");
    let trace = dir.path().join("trace.edl");
    let outcome = run(&mut recorder.command(&trace, "/usr/bin/touch", [&started]));
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    let said = format!(
        "edleak-record: cannot write metrics to `{}`: no such file or directory \
         (name a file in a directory of yours)\n",
        nowhere.display()
    );
    assert_eq!(outcome.stderr, said);
    assert!(!started.exists() && !trace.exists());
}

#[test]
fn the_rules_for_prometheus_are_well_formed() {
    let rules = repository().join("samples/prometheus/edleak.rules.yml");
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(rules));
    assert_eq!(checked.code, 0, "{}{}", checked.stdout, checked.stderr);
    assert!(checked.stdout.contains("3 rules found"), "{}", checked.stdout);
}
