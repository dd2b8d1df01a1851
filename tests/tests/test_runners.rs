//! Tests samples/test-gate.sh with each test runner that the script names in its description. If the
//! iterations of a test leave memory behind, the test must fail.

use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use std::path::Path;
use std::process::Command;

/// A directory with a test program in C. The program leaks if its argument is `leak`, and fails if its
/// argument is `fail`.
struct Tests {
    dir: TempDir,
}

const TEST: &str = r#"
#include <edleak.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    const char *kind = argc > 1 ? argv[1] : "", *iterations = getenv("EDLEAK_ITERATIONS");
    for (int i = iterations ? atoi(iterations) : 1; i > 0; i--) {
        if (strcmp(kind, "unmarked") != 0) edleak_mark("iteration");
        void *work = malloc(100);
        __asm__ volatile("" : "+r"(work) : : "memory");
        if (strcmp(kind, "leak") != 0 && strcmp(kind, "unmarked") != 0) free(work);
    }
    return strcmp(kind, "fail") == 0 ? 7 : 0;
}
"#;

impl Tests {
    fn new(name: &str) -> Tests {
        let tests = Tests { dir: TempDir::new(name) };
        std::fs::write(tests.dir.join("test.c"), TEST).expect("writable");
        let mut compiler = Command::new("gcc");
        compiler.args(["-g", "-O2", "-I"]).arg(repository().join("recorder/cli/include"));
        let built = run(compiler.arg(tests.dir.join("test.c")).arg("-o").arg(tests.program()));
        assert_eq!(built.code, 0, "{}", built.stderr);
        tests
    }

    fn program(&self) -> std::path::PathBuf {
        self.dir.join("parser_test")
    }

    fn gate(&self, arguments: &[&str]) -> Outcome {
        let mut command = with_edleak(&gate());
        run(command.arg("--").arg(self.program()).args(arguments).env("EDLEAK_TRACES", self.dir.join("kept")))
    }
}

fn gate() -> std::path::PathBuf {
    repository().join("samples/test-gate.sh")
}

/// A command with two environment variables that contain the paths of edleak-record and edleak-analyze.
fn with_edleak(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("EDLEAK_RECORD_BIN", &tools().record).env("EDLEAK_ANALYZE_BIN", &tools().analyze);
    command
}

#[test]
fn a_leaking_test_fails_and_its_trace_is_kept() {
    let tests = Tests::new("gate-leak");
    let outcome = tests.gate(&["leak"]);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("100 bytes in 1 allocation per iteration"), "{}", outcome.stderr);
    let kept = std::fs::read_dir(tests.dir.join("kept")).expect("the gate keeps the trace").count();
    assert_eq!(kept, 2, "a trace and a report");
}

#[test]
fn a_clean_test_passes_and_a_failing_one_keeps_its_exit_code() {
    let tests = Tests::new("gate-clean");
    for (kind, code) in [("clean", 0), ("fail", 7), ("unmarked", 0), ("--list", 0)] {
        let outcome = tests.gate(&[kind]);
        assert_eq!(outcome.code, code, "{kind}: {}", outcome.stderr);
    }
    assert!(!tests.dir.join("kept").exists());
}

#[test]
fn ctest_fails_the_leaking_test_alone() {
    let tests = Tests::new("gate-ctest");
    let (gate, program) = (gate(), tests.program());
    let list = format!(
        "add_test(clean {0} {1} clean)\nadd_test(leak {0} {1} leak)\n",
        gate.display(),
        program.display()
    );
    std::fs::write(tests.dir.join("CTestTestfile.cmake"), list).expect("writable");
    let outcome = run(with_edleak(Path::new("ctest")).current_dir(tests.dir.path()));
    assert_ne!(outcome.code, 0, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("1 tests failed out of 2"), "{}", outcome.stdout);
}

#[test]
fn pytest_names_the_test_that_leaks() {
    let dir = TempDir::new("gate-pytest");
    let source = "kept = []\n\
        def test_clean():\n    assert bytearray(5000)\n\
        def test_leak(tmp_path):\n    kept.append(bytearray(50000))\n";
    std::fs::write(dir.join("test_it.py"), source).expect("writable");
    let mut command = with_edleak(&gate());
    command.args(["/usr/bin/python3", "-m", "pytest", "-q", "-p", "edleak_marks", "-p", "no:cacheprovider"]);
    command.env("PYTHONPATH", repository().join("samples")).env("PYTHONMALLOC", "malloc");
    let outcome = run(command.arg("test_it.py").current_dir(dir.path()));
    assert_eq!(outcome.code, 1, "{}\n{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stderr.contains("test_leak"), "{}", outcome.stderr);
}
