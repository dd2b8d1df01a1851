//! Compares `--format pprof` with `--format json`: `go tool pprof`, Google's own reader, must print the same
//! bytes and counts.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn go_pprof(arguments: &[&str], profile: &Path) -> String {
    let outcome = run(Command::new("go")
        .args(["tool", "pprof"])
        .args(arguments)
        .arg(profile)
        // PPROF_TMPDIR keeps pprof from storing a copy of the profile in the home directory.
        .env("PPROF_TMPDIR", profile.parent().expect("the profile lies in a directory"))
        .env("HOME", profile.parent().expect("the profile lies in a directory")));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome.stdout
}

/// The samples in the output of `pprof -raw`: five values, and the function names, innermost first.
fn samples_of(raw: &str) -> Vec<([i64; 5], String)> {
    let locations: Vec<&str> = raw
        .lines()
        .skip_while(|line| *line != "Locations")
        .skip(1)
        .take_while(|line| *line != "Mappings")
        .collect();
    // A location has the form `     2: 0x561d792c9a1f M=1 cache_insert /src/leaker.cpp:80 s=0`. If the
    // function of a location is inlined, one more line follows for each function into which it is inlined.
    let name_of = |id: &str| {
        let own = locations.iter().find(|line| line.trim_start().starts_with(&format!("{id}: ")));
        let words: Vec<&str> = own.expect("every location is listed").split_whitespace().collect();
        words.iter().skip(2).find(|word| !word.starts_with("M=")).unwrap_or(&"").to_string()
    };
    let lines = raw.lines().skip_while(|line| !line.contains("inuse_space/bytes[dflt]")).skip(1);
    lines
        .take_while(|line| *line != "Locations")
        .filter_map(|line| {
            let (values, ids) = line.split_once(": ")?;
            let values: Vec<i64> =
                values.split_whitespace().map(|v| v.parse().ok()).collect::<Option<_>>()?;
            Some((values.try_into().ok()?, name_of(ids.split_whitespace().next()?)))
        })
        .collect()
}

fn sum(samples: &[([i64; 5], String)], value: usize) -> i64 {
    samples.iter().map(|(values, _)| values[value]).sum()
}

#[test]
fn google_s_reader_tells_the_numbers_of_the_json_report() {
    let recorder = Recorder::new("pprof").options(["--period", "50ms", "--watch", "leak_*"]);
    let recording = recorder.record(samples().binary("leaker"), ["--seconds", "3"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let json: Value = {
        let outcome = analyze(["--format", "json", "--all"], &recording.trace);
        serde_json::from_str(&outcome.stdout).expect("a report is JSON")
    };
    let profile = recording.dir.join("profile.pb.gz");
    let written = analyze(["--format", "pprof", "-o", profile.to_str().expect("UTF-8")], &recording.trace);
    assert!([0, 1, 2].contains(&written.code), "{}", written.stderr);

    let raw = go_pprof(&["-raw"], &profile);
    let samples = samples_of(&raw);
    let summary = &json["summary"];
    for (value, key) in [(0, "allocs"), (1, "allocated_bytes"), (2, "live_count"), (3, "live_bytes")] {
        assert_eq!(sum(&samples, value), summary[key].as_i64().expect("a count"), "{key}\n{raw}");
    }
    let sites = json["sites"].as_array().expect("sites");
    let leaked = sites.iter().filter(|site| site["verdict"] == "leak");
    let leaked: i64 = leaked.map(|site| site["leak_bytes"].as_i64().expect("bytes")).sum();
    assert_eq!(sum(&samples, 4), leaked, "{raw}");
    // Compares, for each function, the bytes of all sites whose innermost frame is in this function.
    for function in ["leak_calloc", "leak_new", "cache_insert", "startup_table"] {
        let of_json: i64 = sites
            .iter()
            .filter(|site| site["stack"][0]["function"] == function)
            .map(|site| site["live_bytes"].as_i64().expect("bytes"))
            .sum();
        let of_pprof: i64 =
            samples.iter().filter(|(_, name)| name == function).map(|(values, _)| values[3]).sum();
        assert!(of_json > 0, "{function} holds memory: {json}");
        assert_eq!(of_pprof, of_json, "{function}\n{raw}");
    }
    // Checks the total and the sample type that pprof shows by default.
    let top = go_pprof(&["-top", "-unit=B"], &profile);
    assert!(top.contains("Type: inuse_space"), "{top}");
    let total = format!("{}B total", summary["live_bytes"]);
    assert!(top.contains(&total), "{total}\n{top}");
    let leaker = samples_path("leaker");
    let mut mappings = raw.lines().skip_while(|line| *line != "Mappings");
    let mapping = mappings.find(|line| line.contains(&leaker)).unwrap_or_else(|| panic!("{raw}"));
    assert!(mapping.contains("[FN]") && mapping.contains(&build_id(&leaker)), "{mapping}");
}

fn samples_path(name: &str) -> String {
    samples().binary(name).display().to_string()
}

/// The build ID of a program, as readelf prints it.
fn build_id(program: &str) -> String {
    let notes = run(Command::new("readelf").arg("-n").arg(program)).stdout;
    let line = notes.lines().find_map(|line| line.trim().strip_prefix("Build ID: "));
    line.expect("the samples have a build ID").to_owned()
}

#[test]
fn an_instant_of_a_pprof_profile_is_that_of_the_profile_command() {
    let recording = Recorder::new("pprof-at")
        .options(["--period", "50ms"])
        .record(samples().binary("leaker"), ["--seconds", "2"]);
    let directory = TempDir::new("pprof-at-output");
    for span in [&["--at", "1s"][..], &["--from", "500ms", "--to", "1500ms"], &["--at", "peak"]] {
        let profile = directory.join("profile.pb.gz");
        let mut arguments = vec!["--format", "pprof", "-o", profile.to_str().expect("UTF-8")];
        arguments.extend(span);
        let written = analyze(arguments, &recording.trace);
        assert!(written.code < 3, "{}", written.stderr);
        let outcome = run(Command::new(&tools().analyze)
            .arg("profile")
            .arg(&recording.trace)
            .args(["--format", "json"])
            .args(span));
        let json: Value = serde_json::from_str(&outcome.stdout).expect("a profile is JSON");
        let samples = samples_of(&go_pprof(&["-raw"], &profile));
        for (value, key) in [(0, "allocs"), (1, "allocated_bytes"), (2, "live_count"), (3, "live_bytes")] {
            assert_eq!(sum(&samples, value), json["total"][key].as_i64().expect("a count"), "{span:?} {key}");
        }
    }
}
