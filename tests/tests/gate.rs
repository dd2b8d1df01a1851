//! Tests the gate of a build pipeline from end to end. The gate passes programs without leaks, fails on
//! leaks, proves with an injected leak that it can fail, and recognizes known leaks.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{programs, samples};
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, run, run_with_input};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Records a sample that has no leak, with an injected leak of 20 KB/s.
fn clean_and_injected(name: &str) -> Recording {
    Recorder::new(name)
        .options(["--inject-leak", "20KB/s"])
        .record(samples().binary("lru_churn"), ["--seconds", "3"])
}

#[test]
fn an_injected_leak_fails_the_gate_by_name_and_rate_and_nothing_else_does() {
    let clean = Recorder::new("clean").record(samples().binary("lru_churn"), ["--seconds", "3"]);
    let passed = analyze(["--format", "text"], &clean.trace);
    assert_eq!(passed.code, 0, "{}", passed.stdout);

    let injected = clean_and_injected("injected");
    assert!(injected.outcome.stderr.contains("edleak_injected_leak of 20"), "{}", injected.outcome.stderr);
    let report = injected.leaks();
    assert_eq!((report.code, report.sites.len()), (1, 1), "{}", report.describe());
    let leak = &report.json["sites"][0];
    assert_eq!((&leak["kind"], &leak["confidence"]), (&"injected".into(), &"strict".into()), "{leak}");
    let rate = leak["rate_bytes_per_s"].as_f64().expect("a number");
    assert!((18_000.0..22_000.0).contains(&rate), "{rate} B/s");
    let text = analyze(["--format", "text"], &injected.trace).stdout;
    assert!(text.contains("edleak_injected_leak") && text.contains("1 leak in "), "{text}");
}

#[test]
fn an_injected_leak_within_the_budget_passes() {
    let injected = clean_and_injected("budget");
    for (budget, code) in [("30KB/s", 0), ("1.8MB/min", 0), ("10KB/s", 1), ("0.6MB/min", 1)] {
        let gate = analyze(["--budget", budget], &injected.trace);
        assert_eq!(gate.code, code, "{budget}: {}", gate.stdout);
        assert_eq!(gate.stdout.contains("1. LEAK"), code == 1, "{budget}: {}", gate.stdout);
    }
    // A user can suppress an injected leak, or store it in a baseline, like any other leak.
    let rules = injected.dir.join("rules");
    std::fs::write(&rules, "leak:edleak_injected_leak budget=30KB/s\n").expect("writable");
    let rules = rules.to_str().expect("UTF-8");
    assert_eq!(analyze(["--suppressions", rules], &injected.trace).code, 0);
    let itself = injected.trace.to_str().expect("UTF-8");
    assert_eq!(analyze(["--baseline", itself], &injected.trace).code, 0);
}

/// Runs samples/ci-gate.sh with a sample as the service. The tests of the service take three seconds.
fn ci_gate(sample: &str, dir: &TempDir, prove: &str) -> Outcome {
    let service = format!("{} --seconds 60", samples().binary(sample).display());
    ci_gate_of(&service, "sleep 3", dir, &[("EDLEAK_PROVE", prove)])
}

/// Runs samples/ci-gate.sh with these commands as the service and as its tests.
fn ci_gate_of(service: &str, tests: &str, dir: &TempDir, env: &[(&str, &str)]) -> Outcome {
    let mut command = Command::new(repository().join("samples/ci-gate.sh"));
    command.arg(service).arg(tests).arg(dir.join("leaks"));
    let bin = tools().analyze.parent().expect("a program is in a directory");
    run(command.env("EDLEAK_BIN", bin).envs(env.iter().copied()))
}

/// Writes an executable script, and returns its path.
fn script(dir: &TempDir, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("writable");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("it is ours");
    path.to_str().expect("UTF-8").to_owned()
}

/// A program that leaks for three seconds in perl and then runs `then`.
fn leaking_perl(then: &str) -> String {
    format!(
        "#!/usr/bin/perl\n\
         for (1 .. 150) {{ push @kept, 'x' x 1000 for 1 .. 20; select(undef, undef, undef, 0.02); }}\n\
         {then};\n"
    )
}

#[test]
fn the_sample_job_judges_the_trace_before_an_exec_and_the_traces_of_children() {
    let dir = TempDir::new("ci-traces");
    // The program that the service executes does not leak, so only the trace before the exec shows the leak.
    let service = script(&dir, "service", &leaking_perl("exec 'sleep', '60'"));
    let job = ci_gate_of(&service, "sleep 5", &dir, &[]);
    assert_eq!(job.code, 1, "{}{}", job.stdout, job.stderr);
    assert!(dir.join("leaks/service.exec1.edl").exists());
    // The second trace alone says that the first is missing.
    let last = Report::of(&dir.join("leaks/service.edl"), &[]);
    let why = last.json["summary"]["too_little"].as_str().unwrap_or_default();
    assert!(why.contains("give `service.exec1.edl` to the same edleak-analyze"), "{why}");

    // Only the child leaks. Without the trace of the child, the verdict is undecided. `service.exec1.edl` of
    // the job before must not be judged again.
    let child = script(&dir, "child", &leaking_perl("1"));
    let parent = script(&dir, "parent", &format!("#!/bin/bash\n{child} &\nwait\n"));
    for (options, code) in [("", 2), ("--children", 1)] {
        let job = ci_gate_of(&parent, "sleep 5", &dir, &[("EDLEAK_RECORD_OPTIONS", options)]);
        assert_eq!(job.code, code, "{options}: {}{}", job.stdout, job.stderr);
        assert!(!dir.join("leaks/service.exec1.edl").exists());
    }
}

/// Without this check, the job passes, because the trace of a killed edleak-record shows no leak.
#[test]
fn the_sample_job_fails_if_edleak_record_is_killed() {
    let dir = TempDir::new("ci-killed");
    let tests = script(&dir, "tests", "#!/bin/bash\nsleep 1.5\npkill -KILL -P $PPID -x edleak-record\n");
    let job = ci_gate_of("sleep 3", &tests, &dir, &[]);
    assert_eq!(job.code, 3, "{}{}", job.stdout, job.stderr);
    let line = job.stderr.lines().last().unwrap_or_default();
    assert!(line.starts_with("ci-gate: edleak-record ended with exit code 137 before it finished"), "{line}");
    assert!(line.ends_with("service.edl (run the job again)"), "{line}");
}

#[test]
fn the_sample_job_passes_a_clean_service_and_fails_a_leaking_one() {
    for (sample, code) in [("lru_churn", 0), ("linear_leak", 1)] {
        let dir = TempDir::new("ci-gate");
        let job = ci_gate(sample, &dir, "");
        assert_eq!(job.code, code, "{sample}: {}{}", job.stdout, job.stderr);
        // The archived trace contains the symbols, so it names the leak without the program's file.
        let leaks = Report::of(&dir.join("leaks/service.edl"), &[]);
        assert_eq!(leaks.sites_in("grow_list").count(), usize::from(code == 1), "{}", leaks.describe());
        let sarif = std::fs::read_to_string(dir.join("leaks/leaks.sarif")).expect("written by the job");
        assert_eq!(sarif.contains("grow_list"), code == 1);
    }
}

#[test]
fn the_sample_job_proves_that_its_gate_can_fail() {
    let dir = TempDir::new("prove");
    let job = ci_gate("lru_churn", &dir, "100KB/s");
    assert_eq!(job.code, 0, "{}{}", job.stdout, job.stderr);
    assert!(job.stdout.contains("ci-gate: proved: the gate fails"), "{}", job.stdout);
    // edleak cannot find an injected leak of 1 B/min in three seconds. If edleak does not find the injected
    // leak, the job must report that nothing proves that the gate works.
    let job = ci_gate("lru_churn", &dir, "1B/min");
    assert_eq!(job.code, 1, "{}{}", job.stdout, job.stderr);
    assert!(job.stderr.contains("NOT PROVED"), "{}", job.stderr);
}

/// Builds a leaking program in its own directory. The code `before` is inserted before the leak, so it moves
/// the lines and the addresses of the leak.
fn build(dir: &Path, before: &str) -> PathBuf {
    std::fs::create_dir_all(dir).expect("writable");
    let (source, program) = (dir.join("grower.c"), dir.join("grower"));
    let leak = "__attribute__((noinline)) void grow(void) {\n  void **p = malloc(200);\n  \
                *p = kept;\n  kept = p;\n}\n\
                int main(void) {\n  for (int i = 0; i < 500; i++) {\n    grow();\n    usleep(4000);\n  }\n\
                }\n";
    let text = format!("#include <stdlib.h>\n#include <unistd.h>\nvoid *volatile kept;\n{before}{leak}");
    std::fs::write(&source, text).expect("writable");
    let gcc = run(Command::new("gcc").args(["-g", "-O1", "-o"]).arg(&program).arg(&source));
    assert_eq!(gcc.code, 0, "{}", gcc.stderr);
    program
}

/// Records the same leak in two builds. In the second build, the leaking code has other line numbers and
/// other addresses than in the first.
fn before_and_after_a_rebuild(name: &str, options: &[&str]) -> [Recording; 2] {
    let dir = TempDir::new(name);
    let moved = "/* more\n   lines */\n__attribute__((noinline)) int other(int n) { return n * n + 7; }\n";
    [("a #1 b", ""), ("elsewhere", moved)].map(|(place, before)| {
        let program = build(&dir.join(place), before);
        let recording = Recorder::new(name).options(options).record(program, [""; 0]);
        let embedded = run(Command::new(&tools().analyze).arg("embed").arg(&recording.trace));
        assert_eq!(embedded.code, 0, "{}", embedded.stderr);
        recording
    })
}

fn sarif(options: &[&str], traces: &[&Path]) -> Value {
    let mut command = Command::new(&tools().analyze);
    let report = run(command.args(["--format", "sarif"]).args(options).args(traces));
    assert_schema_holds(&report.stdout);
    serde_json::from_str(&report.stdout).expect("JSON")
}

/// Validates a SARIF report with the JSON schema that OASIS publishes.
fn validate(report: &str) -> Outcome {
    let script = "import json, sys, jsonschema as j\n\
                  j.Draft7Validator(json.load(open(sys.argv[1])), \
                  format_checker=j.FormatChecker()).validate(json.load(sys.stdin))";
    let schema = repository().join("tests/schema/sarif-2.1.0.json");
    // tests/setup.sh installs the modules that the script imports for Debian's Python. PATH may contain
    // another Python first, so the test names Debian's Python by its path.
    run_with_input(Command::new("/usr/bin/python3").args(["-c", script]).arg(schema), report.as_bytes())
}

fn assert_schema_holds(report: &str) {
    let checked = validate(report);
    assert_eq!(checked.code, 0, "{}\n{report}", checked.stderr);
}

#[test]
fn fingerprints_are_the_same_in_every_run_and_after_a_rebuild() {
    for options in [&[][..], &["--watch", "grow"]] {
        let [old, new] = before_and_after_a_rebuild("fingerprint", options);
        let fingerprint = |trace: &Path| {
            let report = sarif(&[], &[trace]);
            let results = report["runs"][0]["results"].as_array().expect("results");
            assert_eq!(results.len(), 1, "{report:#}");
            let line = results[0]["locations"][0]["physicalLocation"]["region"]["startLine"].clone();
            (results[0]["partialFingerprints"].clone(), line)
        };
        let ((old, old_line), (new, new_line)) = (fingerprint(&old.trace), fingerprint(&new.trace));
        assert_eq!(old, new, "{options:?}");
        assert_eq!((old_line, new_line), (5.into(), 8.into()));
    }
}

#[test]
fn a_baseline_knows_the_leak_after_a_rebuild() {
    let [old, new] = before_and_after_a_rebuild("rebuild", &[]);
    let saved = old.dir.join("old.json");
    std::fs::write(&saved, analyze(["--format", "json"], &old.trace).stdout).expect("writable");
    assert_eq!(analyze(["--format", "text"], &new.trace).code, 1);
    for baseline in [&old.trace, &saved] {
        let gate = analyze([Path::new("--baseline"), baseline], &new.trace);
        assert_eq!(gate.code, 0, "against {}: {}{}", baseline.display(), gate.stdout, gate.stderr);
        assert!(gate.stdout.contains("passed: 1 leak in the baseline"), "{}", gate.stdout);
    }
    let diff = run(Command::new(&tools().analyze).arg("diff").arg(&old.trace).arg(&new.trace));
    assert_eq!(diff.code, 0, "{}", diff.stdout);
}

#[test]
fn reports_hold_what_their_schemas_ask_for() {
    let leaking = Recorder::new("schema")
        .options(["--watch", "grow_list"])
        .record(samples().binary("linear_leak"), ["--seconds", "2"]);
    let injected = clean_and_injected("schema");
    let short = Recorder::new("short").options(["--period", "1s"]).record("/bin/true", [""; 0]);
    let rules = leaking.dir.join("rules");
    std::fs::write(&rules, "leak:grow_list\nleak:idle\n").expect("writable");
    let rules = ["--suppressions", rules.to_str().expect("UTF-8")];
    let traces = [&*leaking.trace, &*injected.trace, &*short.trace];
    for (options, traces, results) in [
        (&[][..], &traces[..], 2),
        (&["--all"], &traces[..], 2),
        (&rules, &traces[..], 1),
        (&["--budget", "1GB/s"], &traces[..2], 0),
        (&[], &traces[2..], 0),
    ] {
        let report = sarif(options, traces);
        assert_eq!(report["runs"][0]["results"].as_array().map(Vec::len), Some(results), "{options:?}");
        let mut command = Command::new(&tools().analyze);
        let junit = run(command.args(["--format", "junit"]).args(options).args(traces)).stdout;
        let script = "import sys, xml.etree.ElementTree as t\n\
            for s in t.fromstring(sys.stdin.buffer.read()):\n \
            assert int(s.get('tests')) == len(s.findall('testcase'))\n \
            for kind, count in ('failure', 'failures'), ('error', 'errors'), ('skipped', 'skipped'):\n  \
            assert int(s.get(count)) == len(s.findall('testcase/' + kind)), kind";
        let checked = run_with_input(Command::new("/usr/bin/python3").args(["-c", script]), junit.as_bytes());
        assert_eq!(checked.code, 0, "{}\n{junit}", checked.stderr);
    }
    // Checks the validator: it must find an error in a wrong report.
    let wrong = sarif(&[], &traces[..1]).to_string().replace("\"startLine\":", "\"startLine\":-");
    assert_ne!(validate(&wrong).code, 0);
}

#[test]
fn process_growth_is_reported() {
    let growth = |program: &str| {
        let recording = Recorder::new(program).record(programs().binary(program), [""; 0]);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        analyze(["--format", "text"], &recording.trace).stdout
    };
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (program, sentence) in [
        ("live_grows", "the program's live memory grows"),
        ("allocator_retains", "the allocator retains what the program freed"),
        ("outside_malloc", "memory grows outside malloc"),
    ] {
        let text = growth(program);
        assert!(flat(&text).contains(sentence), "{program}: {text}");
    }
}
