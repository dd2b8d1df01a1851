//! Tests verdicts on programs whose work stops before the recording ends. A leaking program must never pass a
//! gate.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::programs;
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use edleak_tests::run::Running;
use edleak_tests::temp::TempDir;
use std::sync::Mutex;

/// Records tests/programs/phases.c with `words` as its arguments and the default period.
fn phases(options: &[&str], words: &[&str]) -> Recording {
    let recorder = Recorder::new("phases").options(["--period", "auto"]).options(options);
    let recording = recorder.record(programs().binary("phases"), words);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    recording
}

/// Records each program twice, with and without `--no-watch`, and asserts that `check` finds no error in any
/// report. The recordings run at the same time, because the programs mostly sleep.
fn each(programs: &[&[&str]], check: impl Fn(&Report) -> Option<String> + Sync) {
    let cases: Vec<(&[&str], &[&str])> =
        programs.iter().flat_map(|&words| [(words, &[][..]), (words, &["--no-watch"][..])]).collect();
    let (todo, failures) = (Mutex::new(cases.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let Some((words, options)) = todo.lock().expect("no thread panics with it").next() else {
                        break;
                    };
                    let report = phases(options, words).all_sites();
                    if let Some(wrong) = check(&report) {
                        let message = format!("{words:?} {options:?}: {wrong}\n{}", report.describe());
                        failures.lock().expect("no thread panics with it").push(message);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().expect("no thread panics with it");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_leak_never_passes_because_the_load_ended() {
    let programs: [&[&str]; 10] = [
        &["l:4", "i:1"],
        &["l:4", "i:4"],
        &["l:3", "i:4.5"],
        &["l:4", "h:2:20"],
        &["l:4:100", "h:3:40"],
        &["l:3", "d:2", "i:1"],
        &["u:1.5", "l:1.5", "d:3"],
        &["l:1", "i:1", "l:1", "i:1", "l:1", "i:2"],
        &["l:2.5", "i:1", "l:2.5", "h:2:20"],
        &["w:0.5", "l:4", "i:1.5"],
    ];
    each(&programs, |report| (report.code == 0).then(|| "passed".to_owned()));
}

#[test]
fn leak_freed_at_the_end_does_not_pass() {
    let programs: [&[&str]; 5] = [
        &["l:4", "f:0.2"],
        &["l:4", "f:0.5"],
        &["l:4", "f:1", "h:0.3:50"],
        &["l:4", "f:0.3", "i:0.6"],
        &["l:4", "f:1.2"],
    ];
    each(&programs, |report| (report.code == 0).then(|| "passed".to_owned()));
}

#[test]
fn cache_is_not_a_leak_when_the_load_ends() {
    // Three programs each fill a cache. When the work of the three programs stops, the first cache is full,
    // the second cache is nearly full, and the third cache is far from full. The verdict on the third cache
    // may be undecided.
    each(&[&["c:5:1000", "i:2"], &["c:4:400", "h:2:20"], &["c:4:150", "i:3"]], |report| {
        report.leaks().next().map(|leak| format!("a leak: {leak:?}"))
    });
    // If the cache became full before the work stopped, there is no leak, and the exit code is 0.
    each(&[&["c:5:1000", "i:2"], &["l:0.5", "w:4", "i:1"]], |report| {
        (report.code != 0).then(|| format!("exit code {}", report.code))
    });
}

#[test]
fn a_teardown_of_a_tenth_of_the_record_makes_no_suspect_of_a_watched_leak() {
    for teardown in ["f:0.7", "f:0.9"] {
        let recording = phases(&["--watch", "session_open"], &["l:8", teardown]);
        let strict = analyze(["--strict"], &recording.trace);
        assert!(strict.code == 1 && strict.stdout.contains("session_open"), "{teardown}: {}", strict.stdout);
    }
}

/// edleak-record is stopped about one second after its start, and continues only when the program has ended.
#[test]
fn a_leak_in_a_gap_at_the_end_never_passes() {
    for words in [&["w:2", "l:3"][..], &["l:5"], &["l:5", "f:0.05"]] {
        let dir = TempDir::new("gap");
        let trace = dir.join("t.edl");
        let recorder = Recorder::new("gap").options(["--period", "auto"]);
        let mut running =
            Running::start(&mut recorder.command(&trace, programs().binary("phases"), words), b"");
        edleak_tests::run::wait_for("slices", || std::fs::metadata(&trace).is_ok_and(|file| file.len() > 0));
        std::thread::sleep(std::time::Duration::from_millis(1000));
        running.signal(libc::SIGSTOP);
        running.wait_for_text("done");
        running.signal(libc::SIGCONT);
        assert_eq!(running.finish().code, 0);
        let report = Report::of(&trace, &[]);
        assert_ne!(report.code, 0, "{words:?}: {}", report.json["summary"]);
        let share = report.json["summary"]["missing_share"].as_f64().expect("a number");
        assert!(share > 0.5, "{words:?}: {share} of the record is missing");
    }
}

#[test]
fn allocations_of_no_bytes_that_leak_are_reported() {
    let report = Recorder::new("empty").record(programs().binary("empty_leak"), [""; 0]).leaks();
    assert_eq!(report.code, 1, "{}", report.describe());
    assert!(report.sites_in("leak_empty").count() > 0, "{}", report.describe());
    // 40,000 allocations of size 0 take 1.2 MiB of the heap, and no mapping of the program grows. So the
    // report must say that the live bytes grow.
    assert_eq!(report.json["growth"]["kind"], "live", "{}", report.json["growth"]);
}

#[test]
fn list_of_a_batch_program_is_at_most_a_suspect() {
    for options in [&[][..], &["--no-watch"]] {
        let recorder = Recorder::new("batch").options(["--period", "auto"]).options(options);
        let recording = recorder.record(programs().binary("batch"), [""; 0]);
        let strict = analyze(["--strict"], &recording.trace);
        assert_ne!(strict.code, 1, "{}", strict.stdout);
        assert_ne!(recording.leaks().code, 0, "a list that only grows is not clean either");
    }
}
