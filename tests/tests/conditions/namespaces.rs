//! Tests PID namespaces. A process in a PID namespace has one PID inside the namespace and another PID
//! outside. The collector must look up the owner of a session by the PID outside the namespace.

use super::may_unshare;
use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::report::Report;
use edleak_tests::run::run;
use edleak_tests::temp::TempDir;
use std::process::Command;

/// Records the program same_number in a new PID namespace, where its PID is small. Returns the reports of all
/// traces.
fn record_same_number(dir: &TempDir, options: &[&str]) -> Option<Vec<Report>> {
    let unshare = ["--pid", "--fork", "--mount-proc"];
    if !may_unshare(&unshare) {
        return None;
    }
    let recorder = Recorder::new("same-number").options(options);
    let command = recorder.command(&dir.join("t.edl"), programs().binary("same_number"), [""; 0]);
    let mut inside = Command::new("unshare");
    inside.args(unshare).arg(command.get_program()).args(command.get_args());
    let recorded = run(&mut inside);
    assert_eq!((recorded.code, &*recorded.stdout), (0, "0\n"), "{recorded:?}");
    let mut traces: Vec<_> = super::names_in(dir.path()).iter().map(|name| dir.join(name)).collect();
    traces.sort_by_key(|trace| trace != &dir.join("t.edl"));
    Some(traces.iter().map(|trace| Report::of(trace, &["--all", "--min-class", "constant"])).collect())
}

#[test]
fn a_namesake_in_another_namespace_does_not_take_over_the_recording() {
    let dir = TempDir::new("namesake");
    let Some(reports) = record_same_number(&dir, &[]) else { return };
    let [root] = reports.as_slice() else { panic!("{} traces", reports.len()) };
    assert_eq!(root.counts_of("root_work").allocs, 1000, "{}", root.describe());
    assert_eq!(root.counts_of("impostor_work").allocs, 0, "{}", root.describe());
}

#[test]
fn a_namesake_in_another_namespace_has_a_trace_of_its_own() {
    let dir = TempDir::new("namesake-children");
    let Some(reports) = record_same_number(&dir, &["--children"]) else { return };
    let root = &reports[0];
    assert_eq!(root.counts_of("root_work").allocs, 1000, "{}", root.describe());
    assert_eq!(root.counts_of("impostor_work").allocs, 0, "{}", root.describe());
    let impostors = reports.iter().filter(|report| report.counts_of("impostor_work").allocs == 300).count();
    assert_eq!(impostors, 1, "{} traces", reports.len());
}

/// The address of a session contains the PID of the collector. It also ends in a random number, because the
/// kernel may give the PID of an ended collector to another collector.
#[test]
fn a_target_of_a_dead_recorder_is_not_taken_by_its_namesake() {
    let dir = TempDir::new("nonce");
    // The target executes a program and gives it the address of the target's session, but with a wrong random
    // number at the end.
    let script = "case $EDLEAK_SESSION in *'#'????????????????) ;; *) exit 9;; esac; \
                  EDLEAK_SESSION=\"${EDLEAK_SESSION%????????????????}0000000000000000\" \
                  perl -e 'my @a = map { \"x\" x 100 } 1..1000'";
    let recorder = Recorder::new("nonce").options(["--children"]);
    let recorded = run(&mut recorder.command(&dir.join("t.edl"), "sh", ["-c", script]));
    assert_eq!(recorded.code, 0, "{recorded:?}");
    for name in super::names_in(dir.path()) {
        let report = Report::of(&dir.join(&name), &["--all", "--min-class", "constant"]);
        let command = report.json["trace"]["command"].to_string();
        assert!(!command.contains("perl\",\"-e") && !command.contains("\"perl\""), "{name}: {command}");
    }
}
