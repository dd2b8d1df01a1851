//! Tests `--only` and EDLEAK_ONLY: edleak records only the matching programs among all programs that inherit
//! the preload library.

use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with the script `start`. The script `start` runs mkdir, then `server` and `worker`, then ls.
/// `server` and `worker` are copies of the sample leaker and run for one second.
struct Service {
    dir: TempDir,
}

impl Service {
    fn new(name: &str) -> Service {
        let dir = TempDir::new(name);
        for program in ["server-1", "worker"] {
            std::fs::copy(samples().binary("leaker"), dir.join(program)).expect("writable");
        }
        let here = dir.path().display();
        let script = format!(
            "#!/bin/bash\nmkdir -p {here}/made\n{here}/server-1 --seconds 1 >/dev/null\n\
             {here}/worker --seconds 1 >/dev/null\nls {here} >/dev/null\n"
        );
        let start = dir.join("start");
        std::fs::write(&start, script).expect("writable");
        std::fs::set_permissions(&start, PermissionsExt::from_mode(0o755)).expect("ours");
        Service { dir }
    }

    fn start(&self) -> PathBuf {
        self.dir.join("start")
    }

    fn record(&self, options: &[&str], env: &[(&str, &str)]) -> Outcome {
        let recorder =
            env.iter().fold(Recorder::new("only"), |recorder, (name, value)| recorder.env(name, value));
        let mut command =
            recorder.options(options).command(&self.dir.join("trace.edl"), self.start(), [""; 0]);
        run(&mut command)
    }

    /// The programs that have a trace, by file name. The first entry is the trace whose name the user gave.
    fn recorded(&self) -> Vec<(String, String)> {
        let mut found: Vec<_> = std::fs::read_dir(self.dir.path())
            .expect("ours")
            .map(|entry| entry.expect("ours").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "edl"))
            .map(|path| {
                let command = Report::of(&path, &["--all"]).json["trace"]["command"].clone();
                let program = command[0].as_str().or(command.as_str()).unwrap_or_default().to_owned();
                let program = program.split(' ').next().unwrap_or_default();
                let name = Path::new(program).file_name().unwrap_or_default().to_string_lossy().into_owned();
                (path.file_name().unwrap_or_default().to_string_lossy().into_owned(), name)
            })
            .collect();
        found.sort_by_key(|(trace, _)| (trace != "trace.edl", trace.clone()));
        found
    }
}

#[test]
fn one_pattern_records_the_program_that_matches_and_not_its_shell() {
    let service = Service::new("only-one");
    let outcome = service.record(&["--only", "server*"], &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(service.recorded(), [("trace.edl".into(), "server-1".into())]);
    let leaks = Report::of(&service.dir.join("trace.edl"), &["--all"]);
    assert!(leaks.summary("allocs") > 10, "the server's allocations are in the trace");
}

#[test]
fn each_further_match_has_a_trace_of_its_own() {
    let service = Service::new("only-two");
    let outcome = service.record(&["--only", "server*", "--only", "work?r"], &[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let recorded = service.recorded();
    let programs: Vec<_> = recorded.iter().map(|(_, program)| program.as_str()).collect();
    assert_eq!(programs, ["server-1", "worker"]);
    assert_eq!(recorded[0].0, "trace.edl");
}

#[test]
fn variable_says_the_same_as_the_option() {
    let service = Service::new("only-variable");
    let outcome = service.record(&[], &[("EDLEAK_ONLY", "nothing:worker")]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(service.recorded(), [("trace.edl".into(), "worker".into())]);
}

#[test]
fn script_matches_by_its_own_name_and_by_its_interpreter() {
    for pattern in ["start", "bash", "/*/start"] {
        let service = Service::new("only-script");
        let outcome = service.record(&["--only", pattern], &[]);
        assert_eq!(outcome.code, 0, "{pattern}: {}", outcome.stderr);
        let traces = service.recorded();
        assert_eq!(traces.first().map(|(trace, _)| trace.as_str()), Some("trace.edl"), "{pattern}");
    }
}

#[test]
fn pattern_without_a_match_is_not_a_clean_run() {
    let service = Service::new("only-none");
    let outcome = service.record(&["--only", "serv"], &[]);
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    let line = outcome.stderr.lines().last().unwrap_or_default();
    assert!(line.contains("no program that ran is called `serv` (--only looks"), "{line}");
    assert_eq!(service.recorded(), []);
}

#[test]
fn pattern_with_a_colon_is_refused_with_the_remedy() {
    let service = Service::new("only-colon");
    let outcome = service.record(&["--only", "a:b"], &[]);
    assert_eq!(outcome.code, 125);
    assert!(outcome.stderr.contains("(repeat --only for each pattern)"), "{}", outcome.stderr);
}

/// Records a service with LD_PRELOAD but without edleak-record, as in a container. The shell also runs
/// `mkdir`, which must not take the name of the trace.
#[test]
fn bare_preload_records_the_program_that_matches() {
    let service = Service::new("only-bare");
    let trace = service.dir.join("trace.edl");
    let started = run(Command::new(service.start())
        .env("LD_PRELOAD", &tools().preload)
        .env("EDLEAK_RECORD", &tools().record)
        .env("EDLEAK_OUTPUT", &trace)
        .env("EDLEAK_ONLY", "server*"));
    assert_eq!(started.code, 0, "{}", started.stderr);
    let is_complete = || trace.is_file() && Report::of(&trace, &["--all"]).json["trace"]["complete"] == true;
    wait_for("the collector to finish the trace", is_complete);
    assert_eq!(service.recorded(), [("trace.edl".into(), "server-1".into())]);
}

/// The greatest number of instructions per malloc+free pair that the preload library may add to a program
/// that does not match `--only`. A library that only forwards the calls to libc adds 14 instructions per
/// malloc+free pair; a recording adds 59 instructions per pair.
#[test]
fn program_that_does_not_match_pays_little_more_than_a_forwarded_call() {
    const MOST: f64 = 34.0;
    let dir = TempDir::new("only-cost");
    let source = dir.join("pairs.c");
    let text = "#include <stdlib.h>\nint main(int n, char **words) {\n  \
                for (long i = atol(words[1]); i > 0; i--) {\n    \
                void *volatile block = malloc(64);\n    free(block);\n  }\n  return 0;\n}\n";
    std::fs::write(&source, text).expect("writable");
    let program = dir.join("pairs");
    let compiled = run(Command::new("gcc").args(["-O1", "-fno-builtin", "-o"]).arg(&program).arg(&source));
    assert_eq!(compiled.code, 0, "{}", compiled.stderr);
    let instructions = |pairs: &str, preload: &str| -> f64 {
        let counted = run(Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(&program)
            .arg(pairs)
            .env("LD_PRELOAD", preload)
            .env("EDLEAK_ONLY", "another"));
        let line = counted.stderr.lines().find_map(|line| line.split_once("Collected : "));
        line.and_then(|(_, count)| count.trim().parse().ok()).unwrap_or_else(|| panic!("{}", counted.stderr))
    };
    let a_pair = |preload: &str| (instructions("21000", preload) - instructions("1000", preload)) / 20_000.0;
    let added = a_pair(&tools().preload.display().to_string()) - a_pair("");
    assert!((5.0..=MOST).contains(&added), "{added:.1} instructions a pair");
}
