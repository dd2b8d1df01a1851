//! Tests `edleak-record --pid` with mapped memory, marks and pools, in a process that was started without
//! edleak's library.

use edleak_tests::analyze::analyze;
use edleak_tests::fed::Fed;
use edleak_tests::ledger::{Ledger, assert_equal, given_back, given_back_of_ledger, read_ledger};
use edleak_tests::ledger_program::{LedgerProgram, ask, recorder, report_of, stop, wait_for_recording};
use edleak_tests::programs::programs;
use edleak_tests::report::{Counts, Report, is_named};
use edleak_tests::run::{Outcome, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use serde_json::Value;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The recording of a program that began to work only after the attach.
struct Attached {
    /// The standard output of the program.
    stdout: String,
    recorder: Outcome,
    trace: PathBuf,
    _dir: TempDir,
}

/// Attaches to a program that begins its work when it reads a line, and records the program to its end.
fn attach(program: &Path, arguments: &[&str], options: &[&str]) -> Attached {
    let dir = TempDir::new("attach-domains");
    let arguments: Vec<&str> = arguments.iter().copied().chain(["wait"]).collect();
    let mut target = Fed::start(program, &arguments, "ready");
    let trace = dir.join("trace.edl");
    let recorder = ask(target.pid(), &trace, options);
    writeln!(target.input(), "go").expect("it reads");
    let stdout = target.finish();
    let recorder = recorder.finish();
    assert_eq!(recorder.code, 0, "{}", recorder.stderr);
    assert!(!recorder.stderr.contains("not recorded"), "{}", recorder.stderr);
    Attached { stdout, recorder, trace, _dir: dir }
}

/// Compares every site that maps memory with the ledger that the program prints. The ledger does not contain
/// ranges that the program mapped before the recording.
fn mappings_are_exact(threads: &str, operations: &str, seed: &str) {
    let attached = attach(&programs().binary("mappings"), &[threads, operations, seed], &[]);
    let ledger = read_ledger(&attached.stdout);
    assert!(ledger.values().all(|counts| counts.allocs > 100 && counts.frees > 10), "{ledger:?}");
    let report = report_of(&attached.trace);
    assert_eq!(report.json["mapped"]["lost_events"], 0);
    assert_equal(&report, &ledger);
    assert_eq!(given_back(&report, ledger.keys()), given_back_of_ledger(&attached.stdout));
}

#[test]
fn calls_of_mmap_of_one_thread_are_exact() {
    mappings_are_exact("1", "40000", "1");
    mappings_are_exact("1", "40000", "2");
}

#[test]
fn calls_of_mmap_of_eight_threads_are_exact() {
    mappings_are_exact("8", "60000", "3");
    mappings_are_exact("8", "60000", "4");
}

/// libc maps memory for its own malloc and for threads. edleak does not record the memory that libc maps,
/// whether edleak's library is preloaded or loaded by an attach.
#[test]
fn mappings_of_libc_itself_are_not_recorded() {
    let attached = attach(&programs().binary("mappings"), &["8", "20000", "5"], &[]);
    let report = report_of(&attached.trace);
    let sites = report.json["sites"].as_array().expect("an array").iter();
    let modules: Vec<&str> = sites
        .filter(|site| site["domain"] == "mapping")
        .flat_map(|site| site["stack"].as_array().expect("an array"))
        .filter_map(|frame| frame["module"].as_str())
        .collect();
    assert!(!modules.is_empty() && modules.iter().all(|name| name.contains("mappings")), "{modules:?}");
}

#[test]
fn calls_of_mmap_are_left_alone_with_the_heap_alone() {
    let attached = attach(&programs().binary("mappings"), &["1", "20000", "6"], &["--domains", "heap"]);
    assert_eq!(report_of(&attached.trace).json["mapped"], Value::Null);
}

/// The sum of the counts of all sites in `function` that get objects from a pool.
fn of_pools(report: &Report, function: &str) -> Counts {
    let mut sum = Counts::default();
    for site in report.json["sites"].as_array().expect("an array") {
        let is_in = is_named(site["name"].as_str().unwrap_or_default(), function);
        if site["domain"] == "pool" && is_in {
            let number = |field: &str| site[field].as_u64().expect("a number");
            sum.add(&Counts {
                allocs: number("allocs"),
                allocated_bytes: number("allocated_bytes"),
                frees: number("frees"),
                freed_bytes: number("freed_bytes"),
            });
        }
    }
    sum
}

fn pools_are_exact(attached: &Attached) -> Report {
    let ledger = read_ledger(&attached.stdout);
    let report = report_of(&attached.trace);
    let found: Ledger = ledger.keys().map(|name| (name.clone(), of_pools(&report, name))).collect();
    assert_eq!(found, ledger, "trace (left) and ledger (right): {}", attached.recorder.stderr);
    report
}

#[test]
fn objects_of_pools_are_exact() {
    for threads in ["1", "4"] {
        let report = pools_are_exact(&attach(&programs().binary("pools"), &[threads, "200000", "1"], &[]));
        assert_eq!(report.json["pools"]["lost_events"], 0);
        assert_eq!(report.json["pools"]["unknown_frees"], 0);
    }
}

#[test]
fn objects_and_marks_of_a_rust_program_are_exact() {
    let options = ["--wrapper", "*alloc_apart*"];
    let report = pools_are_exact(&attach(&programs().binary("pool_rust"), &["10000"], &options));
    assert_eq!(report.json["marks"][0]["name"], "round");
    assert_eq!(report.json["marks"][0]["count"], 10_000);
}

#[test]
fn iterations_between_marks_are_judged() {
    let attached = attach(&programs().binary("iterations_domains"), &["60"], &[]);
    let outcome = analyze(["--per-mark", "iteration", "--format", "json"], &attached.trace);
    assert_eq!(outcome.code, 1, "{}", outcome.stderr);
    let json: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(json["marks"][0]["count"], 61, "{}", json["marks"]);
    let text = analyze(["--per-mark", "iteration"], &attached.trace).stdout;
    assert!(text.contains("keep_pages") && text.contains("keep_object"), "{text}");
    assert!(text.contains("48 bytes in 1") && text.contains("12,288 bytes in 1"), "{text}");
}

/// A program that sets a mark in each round, until its standard input ends.
const ROUNDS: &str = r"
#include <edleak.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    struct pollfd input = {0, POLLIN, 0};
    write(1, ready, 6);
    while (poll(&input, 1, 1) == 0) {
        edleak_mark(round);
        free(malloc(24));
    }
    return 0;
}
";

fn build(dir: &TempDir, source: &str, include: &Path) -> PathBuf {
    let (file, program) = (dir.join("rounds.c"), dir.join("rounds"));
    let source = source.replace("(1, ready,", "(1, \"ready\\n\",").replace("(round)", "(\"round\")");
    std::fs::write(&file, source).expect("writable");
    let mut compiler = Command::new("gcc");
    compiler.args(["-O1", "-fno-builtin", "-I"]).arg(include).arg(&file).arg("-o").arg(&program);
    let built = run(&mut compiler);
    assert_eq!(built.code, 0, "{}", built.stderr);
    program
}

fn include() -> PathBuf {
    repository().join("recorder/cli/include")
}

/// Records a running program for 500 ms. Returns the number of marks that the program set, and the messages
/// of edleak-record.
fn record_rounds(pid: u32, trace: &Path) -> (u64, String) {
    let outcome = run(&mut recorder(pid, trace, &["--duration", "500ms"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let report = report_of(trace);
    (report.json["marks"][0]["count"].as_u64().unwrap_or(0), outcome.stderr)
}

#[test]
fn marks_of_a_second_recording_are_counted_and_the_words_are_set_back() {
    let dir = TempDir::new("attach-marks");
    let program = build(&dir, ROUNDS, &include());
    let target = Fed::start(&program, &[], "ready");
    let words = || {
        let symbols = run(Command::new("nm").arg(&program)).stdout;
        let line = symbols.lines().find(|line| line.ends_with(" edleak_late")).expect("the words").to_owned();
        let offset = u64::from_str_radix(line.split(' ').next().expect("an address"), 16).expect("hex");
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", target.pid())).expect("it runs");
        let base = u64::from_str_radix(maps.split('-').next().expect("a range"), 16).expect("hex");
        let memory = std::fs::File::open(format!("/proc/{}/mem", target.pid())).expect("ours");
        let mut bytes = [0; 16];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, base + offset).expect("mapped");
        bytes
    };
    for _ in 0..2 {
        let (marks, stderr) = record_rounds(target.pid(), &dir.join("trace.edl"));
        assert!(marks > 10, "{marks}: {stderr}");
        assert_eq!(words(), [0; 16]);
    }
    let recorder = ask(target.pid(), &dir.join("other.edl"), &[]);
    assert!(words().iter().any(|&byte| byte != 0), "the functions are known during a recording");
    recorder.signal(libc::SIGINT);
    recorder.finish();
    target.finish();
}

/// The first version of edleak.h has no variables through which a library that is loaded by an attach could
/// get the marks. For a program with this version, edleak-record must report that it does not record the
/// marks.
#[test]
fn marks_of_an_earlier_header_are_told_as_not_recorded() {
    let dir = TempDir::new("attach-earlier-header");
    let header = r#"
static inline void edleak_mark(const char *name) {
    void (*set_mark)(const char *);
    __asm__(".weak edleak_set_mark\n\tmovq edleak_set_mark@GOTPCREL(%%rip), %0" : "=r"(set_mark));
    if (set_mark) set_mark(name);
}
"#;
    std::fs::write(dir.join("edleak.h"), header).expect("writable");
    let program = build(&dir, ROUNDS, dir.path());
    let target = Fed::start(&program, &[], "ready");
    let (marks, stderr) = record_rounds(target.pid(), &dir.join("trace.edl"));
    assert_eq!(marks, 0);
    assert!(stderr.contains("marks and pools of `") && stderr.contains("earlier edleak.h"), "{stderr}");
    target.finish();
}

/// After an attach, a Python program must look for the mark function in the loaded library itself, because
/// the symbols of this library are not global.
#[test]
fn marks_of_a_program_that_finds_the_function_in_the_library_are_counted() {
    const PROGRAM: &str = r"
import ctypes, os, select, sys
print('ready', flush=True)
while not select.select([sys.stdin], [], [], 0.001)[0]:
    try:
        library = ctypes.CDLL('libedleak_preload.so', mode=os.RTLD_NOLOAD)
        library.edleak_set_mark(b'round')
    except OSError:
        pass
";
    let dir = TempDir::new("attach-python");
    let script = dir.join("rounds.py");
    std::fs::write(&script, PROGRAM).expect("writable");
    let path = script.to_string_lossy();
    let target = Fed::start(Path::new("/usr/bin/python3"), &[&*path], "ready");
    let (marks, stderr) = record_rounds(target.pid(), &dir.join("trace.edl"));
    assert!(marks > 10, "{marks}: {stderr}");
    target.finish();
}

/// `--watch`, `top` and `mark` also work for the recording of a process that was started without the library.
#[test]
fn watched_stacks_top_and_marks_from_outside_work() {
    let dir = TempDir::new("attach-commands");
    let mut target = LedgerProgram::start_plain(4);
    let pid = target.pid().to_string();
    let command = |arguments: &[&str]| {
        let outcome = run(Command::new(&tools().record).args(arguments));
        assert_eq!(outcome.code, 0, "{arguments:?}: {}", outcome.stderr);
        outcome.stdout
    };
    let trace = dir.join("trace.edl");
    let recorder = ask(target.pid(), &trace, &["--watch", "site_malloc"]);
    target.tell("tick");
    wait_for_recording(target.pid());
    command(&["watch", "--session", &pid, "site_calloc"]);
    target.tell("go");
    command(&["mark", "--session", &pid, "outside"]);
    let mut sites = Value::Null;
    wait_for("a site in top", || {
        let json = command(&["top", "--session", &pid, "--once", "--format", "json"]);
        sites = serde_json::from_str::<Value>(&json).expect("JSON")["sites"].take();
        sites.as_array().is_some_and(|sites| !sites.is_empty())
    });
    target.tell("pause");
    let ledger = target.ledger();
    stop(recorder);
    let report = report_of(&trace);
    assert_equal(&report, &ledger);
    for function in ["site_malloc", "site_calloc"] {
        let stack = report.sites.iter().find(|site| site.kind == "stack" && site.is_in(function));
        assert!(stack.is_some_and(|stack| stack.is_in("work")), "{function}: {}", report.describe());
    }
    assert_eq!(report.json["marks"][0]["name"], "outside");
    assert_eq!(report.json["marks"][0]["count"], 1);
}
