//! `--watch` and `--wrapper` must know every function name that a report shows. The options must also know
//! the names of a stripped program, whose symbols are in `.gnu_debugdata` or in a separate debug file.

use edleak_tests::record::Recorder;
use edleak_tests::temp::TempDir;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The source of the recorded program: its function `grow_list` allocates through its function `take`. The
/// program exports neither `grow_list` nor `take`.
const SOURCE: &str = r#"
#include <stdlib.h>
#include <unistd.h>
void *volatile kept;
static __attribute__((noinline)) void *take(size_t size) { void *p = malloc(size); kept = p; return p; }
static __attribute__((noinline)) void grow_list(void) { kept = take(100); }
int main(void) { for (int i = 0; i < 200; i++) { grow_list(); usleep(1000); } return 0; }
"#;

fn run(dir: &Path, tool: &str, arguments: &[&str]) {
    let status = Command::new(tool).args(arguments).current_dir(dir).status();
    assert!(status.expect("tests/setup.sh installs it").success(), "{tool} {arguments:?}");
}

fn program(dir: &Path) -> PathBuf {
    std::fs::write(dir.join("prog.c"), SOURCE).expect("a directory of the test's own");
    run(dir, "gcc", &["-g", "-O1", "-Wl,--build-id", "-o", "prog", "prog.c"]);
    run(dir, "objcopy", &["--only-keep-debug", "prog", "prog.debug"]);
    run(dir, "strip", &["prog"]);
    dir.join("prog")
}

/// Records the program with `--wrapper take --watch grow_list`, and checks that full stacks in `grow_list`
/// exist.
fn is_watched_and_stepped_over(name: &str, program: &Path) {
    let recorder = Recorder::new(name).options(["--wrapper", "take", "--watch", "grow_list"]);
    let recording = recorder.record(program, [] as [&str; 0]);
    let said = &recording.outcome.stderr;
    assert!(!said.contains("matches no function"), "{said}");
    let all = recording.all_sites();
    // On a busy machine, the unwind rules for the stacks may be ready late, because the target waits at most
    // 250 ms for them. Until the unwind rules are ready, edleak counts the allocations at `take`.
    let stacks = all.sites.iter().filter(|site| site.kind == "stack" && site.is_in("grow_list"));
    let allocs: u64 = stacks.map(|site| site.counts.allocs).sum();
    assert!(allocs > 0, "{}", all.describe());
}

#[test]
fn symbols_in_gnu_debugdata_are_known_to_watch_and_wrapper() {
    let dir = TempDir::new("names_mini");
    let program = program(dir.path());
    run(dir.path(), "objcopy", &["--strip-debug", "prog.debug", "mini"]);
    run(dir.path(), "xz", &["mini"]);
    run(dir.path(), "objcopy", &["--add-section", ".gnu_debugdata=mini.xz", "prog"]);
    std::fs::remove_file(dir.join("prog.debug")).expect("it was made here");
    is_watched_and_stepped_over("names_mini", &program);
}

#[test]
fn symbols_in_a_debug_file_are_known_to_watch_and_wrapper() {
    let dir = TempDir::new("names_debug");
    let program = program(dir.path());
    run(dir.path(), "objcopy", &["--add-gnu-debuglink=prog.debug", "prog"]);
    is_watched_and_stepped_over("names_debug", &program);
}
