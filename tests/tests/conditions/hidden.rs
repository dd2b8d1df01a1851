//! Tests a /proc that hides processes. If edleak cannot find a thread in /proc, it must not treat the thread
//! as ended.

use super::{as_nobody, is_root, may_unshare, share, share_tools};
use edleak_tests::programs::programs;
use edleak_tests::report::Report;
use edleak_tests::run::{cannot_run, run};
use edleak_tests::temp::TempDir;

/// Records the program hidden_threads as nobody behind a /proc with hidepid=2. The counts in the trace must
/// equal the count that the program prints.
fn assert_exact(arguments: &[&str]) {
    if !is_root() || !may_unshare(&["--mount", "--pid", "--fork"]) {
        return cannot_run("only root can become another user behind another /proc");
    }
    let dir = TempDir::new("hidden");
    let record = share_tools(&dir);
    let program = share(&dir, &programs().binary("hidden_threads"));
    let nobody = as_nobody();
    let mut inside = std::process::Command::new("unshare");
    inside.args(["--mount", "--pid", "--fork", "sh", "-c"]);
    inside.arg("mount -t proc -o hidepid=2 proc /proc && exec \"$@\"").arg("sh");
    inside.arg(nobody.get_program()).args(nobody.get_args());
    inside.arg(record).args(["--period", "20ms", "-o", "t.edl", "--"]).arg(program).args(arguments);
    let recorded = run(inside.current_dir(dir.path()));
    assert_eq!(recorded.code, 0, "{recorded:?}");
    let expected: u64 = recorded.stdout.trim().parse().expect("it prints a number");
    let report = Report::of(&dir.join("t.edl"), &["--all", "--min-class", "constant"]);
    let counts = report.counts_of("site_a");
    assert_eq!((counts.allocs, counts.frees), (expected, expected), "{}", report.describe());
}

#[test]
fn threads_behind_hidepid_are_counted_exactly() {
    assert_exact(&[]);
}

#[test]
fn threads_of_a_process_hidden_from_its_own_user_are_counted_exactly() {
    assert_exact(&["private"]);
}
