//! Compares the memory that each iteration leaves behind (`--per-mark`) with the counts that the programs
//! make themselves.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::programs;
use edleak_tests::record::{Recorder, Recording};
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// A recording of tests/programs/iterations.cpp. `ledger` has the bytes and the number of allocations that
/// the program held at each mark.
struct Iterations {
    recording: Recording,
    ledger: Vec<(u64, u64)>,
}

impl Iterations {
    fn record(arguments: &[&str]) -> Iterations {
        Iterations::record_with(&[], arguments)
    }

    fn record_with(options: &[&str], arguments: &[&str]) -> Iterations {
        let recording =
            Recorder::new("iterations").options(options).record(programs().binary("iterations"), arguments);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        let ledger = serde_json::from_str(&recording.outcome.stdout).expect("the ledger is JSON");
        Iterations { recording, ledger }
    }

    fn report(&self, options: &[&str]) -> Report {
        let all: Vec<_> = ["--all", "--per-mark", "iteration"].iter().chain(options).copied().collect();
        Report::of(&self.recording.trace, &all)
    }
}

/// The sites of a report with a verdict on the memory per mark, the worst verdict first.
fn judged(report: &Report) -> Vec<&Value> {
    let sites = report.json["sites"].as_array().expect("`sites` is an array");
    sites.iter().filter(|site| !site["per_mark"].is_null()).collect()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no `{field}` in {value}"))
}

/// Compares the only leak of a report with the growth of the program's own counts since the end of the
/// warm-up. The leak must have the same bytes and the same number of allocations as the growth in the
/// program's counts.
fn assert_as_in_the_ledger(found: &Iterations, report: &Report) {
    let leaks: Vec<_> = judged(report).into_iter().filter(|site| site["verdict"] == "leak").collect();
    assert_eq!(leaks.len(), 1, "{leaks:#?}");
    let per_mark = &leaks[0]["per_mark"];
    let from = number(&report.json["per_mark"]["marks"][0], "warm_up") as usize;
    let to = from + number(per_mark, "judged_iterations") as usize;
    let (before, after) = (found.ledger[from], found.ledger[to]);
    assert_eq!(number(per_mark, "left_bytes"), after.0 - before.0, "{per_mark}");
    assert_eq!(number(per_mark, "left_allocations"), after.1 - before.1, "{per_mark}");
}

#[test]
fn leaks_are_counted_as_the_program_counts_them() {
    for arguments in [
        ["each", "8", "1024", "1"],
        ["each", "90", "24", "1"],
        ["each", "20000", "700", "1"],
        ["thread", "60", "333", "1"],
        ["realloc", "500", "100", "1"],
        ["periodic", "64", "640", "7"],
        ["periodic", "63", "40000", "3"],
    ] {
        let found = Iterations::record(&arguments);
        let report = found.report(&[]);
        assert_eq!(report.code, 1, "{arguments:?}: {}", report.json["summary"]);
        assert_as_in_the_ledger(&found, &report);
        let exact = judged(&report)[0]["per_mark"]["exact"].as_bool();
        assert_eq!(exact, Some(arguments[0] != "periodic"), "{arguments:?}");
    }
}

/// Compares the leak of one domain (for example mapped memory) with the program's own counts. Each row of
/// `ledger` contains the program's counts at one mark: the bytes of the domain at index `place`, and its
/// number of objects at the next index.
fn assert_leak_of_domain(report: &Report, ledger: &[[u64; 4]], domain: &str, function: &str, place: usize) {
    let of_domain = |site: &&&Value| site["domain"] == domain && site["verdict"] == "leak";
    let sites = judged(report);
    let leaks: Vec<_> = sites.iter().filter(of_domain).collect();
    assert_eq!(leaks.len(), 1, "{domain}: {sites:#?}");
    assert!(leaks[0]["stack"].to_string().contains(function), "{domain}: {}", leaks[0]["stack"]);
    let per_mark = &leaks[0]["per_mark"];
    let from = number(&report.json["per_mark"]["marks"][0], "warm_up") as usize;
    let to = from + number(per_mark, "judged_iterations") as usize;
    assert_eq!(number(per_mark, "left_bytes"), ledger[to][place] - ledger[from][place], "{per_mark}");
    let left = ledger[to][place + 1] - ledger[from][place + 1];
    assert_eq!(number(per_mark, "left_allocations"), left, "{per_mark}");
    assert_eq!(per_mark["exact"], true, "{per_mark}");
}

#[test]
fn objects_of_pools_and_mappings_are_judged_by_iterations_and_exact() {
    for iterations in ["40", "2000"] {
        let program = programs().binary("iterations_domains");
        let recording = Recorder::new("iterations-domains").record(program, [iterations]);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        let ledger: Vec<[u64; 4]> =
            serde_json::from_str(&recording.outcome.stdout).expect("the ledger is JSON");
        let report = Report::of(&recording.trace, &["--all", "--per-mark", "iteration"]);
        assert_eq!(report.code, 1, "{}", report.json["summary"]);
        assert_leak_of_domain(&report, &ledger, "pool", "keep_object", 0);
        assert_leak_of_domain(&report, &ledger, "mapping", "keep_pages", 2);
        let clean: Vec<_> = judged(&report).into_iter().filter(|site| site["verdict"] != "leak").collect();
        let borrowed = |function: &str| clean.iter().any(|site| site["stack"].to_string().contains(function));
        assert!(borrowed("borrow_object") && borrowed("borrow_pages"), "{clean:#?}");
    }
}

/// Forty iterations are too few for a verdict on the address space. But address space without any resident
/// page cannot be a leak.
#[test]
fn undecided_address_space_without_memory_is_clean() {
    for (argument, expected) in [("reserve", 0), ("use", 2)] {
        let program = programs().binary("iterations_reserve");
        let recording = Recorder::new("iterations-reserve").record(program, [argument]);
        assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
        let report = Report::of(&recording.trace, &["--all", "--per-mark", "iteration"]);
        assert_eq!(report.code, expected, "{argument}: {:#}", report.json["summary"]);
        let site = report.sites_in("region").next().expect("it maps");
        let verdict = if expected == 0 { "no-leak" } else { "undecided" };
        assert_eq!(site.verdict, verdict, "{argument}: {:#}", report.json["sites"]);
    }
}

#[test]
fn verdicts_are_those_that_the_programs_were_made_for() {
    const LEAK: i32 = 1;
    const CLEAN: i32 = 0;
    const UNDECIDED: i32 = 2;
    for (arguments, expected) in [
        (["periodic", "1000", "48", "10"], LEAK),
        (["periodic", "3000", "48", "100"], LEAK),
        (["periodic", "40", "48", "10"], UNDECIDED),
        (["random", "3000", "200", "1"], LEAK),
        (["vector", "100", "1", "1"], LEAK),
        (["vector", "5000", "1", "1"], LEAK),
        (["cache", "400", "64", "20"], CLEAN),
        (["cache", "5000", "64", "200"], CLEAN),
        (["history", "200", "500", "25"], CLEAN),
        (["queue", "300", "5000", "12"], CLEAN),
        (["reused_vector", "400", "1", "1"], CLEAN),
        (["warm_up", "60", "1024", "15"], CLEAN),
        (["nothing", "100", "100", "1"], CLEAN),
        (["nothing", "50000", "100", "1"], CLEAN),
    ] {
        let report = Iterations::record(&arguments).report(&[]);
        assert_eq!(
            report.code,
            expected,
            "{arguments:?}: {}\n{:#?}",
            report.json["summary"],
            judged(&report)
        );
    }
}

#[test]
fn too_few_iterations_are_undecided_and_the_number_needed_is_told() {
    let few = Iterations::record(&["each", "7"]);
    let report = few.report(&[]);
    let reason = report.json["summary"]["too_little"].as_str().unwrap_or_default().to_owned();
    assert_eq!(report.code, 2);
    assert!(reason.starts_with("7 iterations are too few at mark `iteration`, 8 are the least"), "{reason}");
    // If the user sets the number of warm-up iterations, a verdict needs at least five iterations after the
    // warm-up.
    assert_eq!(few.report(&["--warm-up", "2"]).code, 1);
    assert_eq!(few.report(&["--warm-up", "3"]).code, 2);
}

#[test]
fn a_pattern_that_no_mark_matches_is_undecided_and_names_the_marks() {
    let found = Iterations::record(&["each", "20"]);
    let outcome = analyze(["--per-mark", "request"], &found.recording.trace);
    let text = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(outcome.code, 2, "{text}");
    assert!(text.contains("no mark matches `request` (the trace has `iteration`)"), "{text}");
}

#[test]
fn every_format_tells_what_an_iteration_leaves_behind() {
    let found = Iterations::record(&["each", "30"]);
    for format in ["text", "json", "html", "junit", "sarif", "github"] {
        let outcome = analyze(["--per-mark", "iter*", "--format", format], &found.recording.trace);
        assert_eq!(outcome.code, 1, "{format}: {}", outcome.stderr);
        let text = outcome.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains("1,024 bytes in 1 allocation per iteration"), "{format}: {text}");
    }
}

#[test]
fn reports_with_marks_hold_what_their_schema_asks_for() {
    let found = Iterations::record(&["each", "30"]);
    let script = "import json, sys, jsonschema as j\n\
        j.validate(json.load(sys.stdin), json.load(open(sys.argv[1])))";
    let schema = repository().join("tests/schema/marks.json");
    let validate = |report: &str| {
        let mut python = Command::new("/usr/bin/python3");
        edleak_tests::run::run_with_input(python.args(["-c", script]).arg(&schema), report.as_bytes())
    };
    for options in [&["--per-mark", "iteration", "--all"][..], &["--all"], &["--per-mark", "none"]] {
        let report = analyze(["--format", "json"].iter().chain(options), &found.recording.trace).stdout;
        let checked = validate(&report);
        assert_eq!(checked.code, 0, "{}\n{report}", checked.stderr);
        assert_ne!(validate(&report.replace("\"marks\"", "\"mark\"")).code, 0, "the schema notices");
    }
}

/// edleak counts the allocations of a watched site at its full stacks. The sum of the counts of the site's
/// full stacks is the number of allocations of the site.
#[test]
fn watched_sites_are_judged_with_their_stacks() {
    let found = Iterations::record_with(&["--watch", "*"], &["each", "300"]);
    let report = found.report(&[]);
    assert_eq!(report.code, 1, "{}", report.json["summary"]);
    let callers: Vec<_> = judged(&report).into_iter().filter(|site| site["verdict"] == "leak").collect();
    assert_eq!(callers.len(), 1, "{callers:#?}");
    assert_eq!(callers[0]["per_mark"]["bytes_per_iteration"], 1024.0);
    assert_as_in_the_ledger(&found, &report);
}

/// The trace of a recorded child contains only the marks of the child, beginning with its first mark.
#[test]
fn marks_of_a_child_are_in_its_own_trace() {
    let recording =
        Recorder::new("mark-child").options(["--children"]).record(programs().binary("mark_names"), ["fork"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let marks = |trace: &Path| Report::of(trace, &[]).json["marks"].clone();
    assert_eq!(counts(&marks(&recording.trace)), [("parent".to_owned(), 20)]);
    let child = std::fs::read_dir(recording.dir.path())
        .expect("ours")
        .map(|entry| entry.expect("ours").path())
        .find(|path| path != &recording.trace && path.extension().is_some_and(|e| e == "edl"))
        .expect("the child has a trace");
    assert_eq!(counts(&marks(&child)), [("child".to_owned(), 30)]);
}

fn counts(marks: &Value) -> Vec<(String, u64)> {
    let marks = marks.as_array().expect("`marks` is an array");
    let one = |mark: &Value| (mark["name"].as_str().unwrap_or_default().to_owned(), number(mark, "count"));
    marks.iter().map(one).collect()
}

#[test]
fn names_of_any_bytes_are_told_apart_and_printed_safely() {
    let recording = Recorder::new("mark-names").record(programs().binary("mark_names"), ["names"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let json = Report::of(&recording.trace, &[]).json;
    let expected = [
        (String::new(), 1),
        ("für".to_owned(), 2),
        ("\\xff\\xfe".to_owned(), 1),
        ("\\x1b[31m".to_owned(), 1),
        ("x".repeat(96), 5),
    ];
    assert_eq!(counts(&json["marks"]), expected);
    assert_eq!(json["marks"][4]["name_cut"], true);
    assert_eq!(json["marks"][1]["name_cut"], false);
}

#[test]
fn names_beyond_256_are_counted_and_the_rest_is_judged() {
    let recording = Recorder::new("mark-many").record(programs().binary("mark_names"), ["many"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = Report::of(&recording.trace, &["--per-mark", "name 7"]);
    assert_eq!(report.json["marks"].as_array().map(Vec::len), Some(256));
    assert_eq!(report.json["per_mark"]["unnamed_marks"], (300 - 256) * 20);
    assert_eq!(report.code, 0, "{}", report.json["summary"]);
    // The pattern may match one of the names for which the table of 256 mark names had no room, so the
    // verdict is undecided.
    let report = Report::of(&recording.trace, &["--per-mark", "name *"]);
    assert_eq!(report.code, 2, "{}", report.json["summary"]);
}

/// While a thread copies the counters at a mark, the kernel may stop it for milliseconds, and the other
/// threads go on. So the program sets many marks: with few, one such stop hides the pace of the leak.
#[test]
fn threads_that_mark_at_once_lose_no_mark() {
    let recording = Recorder::new("mark-threads").record(programs().binary("mark_names"), ["threads"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let report = Report::of(&recording.trace, &["--per-mark", "shared", "--all"]);
    assert_eq!(counts(&report.json["marks"]), [("shared".to_owned(), 8 * 200_000)]);
    assert_eq!(report.code, 1, "{}", report.json["summary"]);
    let leaks: Vec<_> = judged(&report).into_iter().filter(|site| site["verdict"] == "leak").collect();
    let bytes = leaks[0]["per_mark"]["bytes_per_iteration"].as_f64().unwrap_or_default();
    assert!((bytes / 32.0 - 1.0).abs() < 0.02, "each mark comes with 32 bytes: {bytes}");
}

/// The program sets two million marks. The marks make no system call, and the trace stays small.
#[test]
fn millions_of_marks_make_no_system_call_and_a_small_trace() {
    let dir = TempDir::new("mark-strace");
    let log = dir.join("strace");
    let recorder = Recorder::new("mark-strace").options(["--period", "1h"]);
    let trace = dir.join("trace.edl");
    let shell = format!(
        "exec strace -o {} {} marks_only 2000000",
        log.display(),
        programs().binary("mark_names").display()
    );
    let outcome = run(&mut recorder.command(&trace, "/bin/sh", ["-c", &shell]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let calls = std::fs::read_to_string(&log).expect("strace writes it");
    let between = calls.split("begin marks").nth(1).and_then(|rest| rest.split("end marks").next());
    let between: Vec<_> = between.expect("the program says where it begins").lines().skip(1).collect();
    // Between the lines `begin marks` and `end marks`, the program must make only one system call: the write
    // of `end marks`.
    assert_eq!(between.len(), 1, "{between:#?}");
    let bytes = std::fs::metadata(&trace).map(|file| file.len()).unwrap_or(u64::MAX);
    assert!(bytes < 256 << 10, "{bytes}");
}

#[test]
fn a_program_that_marks_runs_without_edleak_and_static() {
    let alone = run(Command::new(programs().binary("iterations")).args(["nothing", "10"]));
    assert_eq!(alone.code, 0);
    let dir = TempDir::new("mark-builds");
    let source = dir.join("mark.c");
    std::fs::write(&source, "#include <edleak.h>\nint main(void) { edleak_mark(\"built\"); return 0; }\n")
        .expect("writable");
    let include = repository().join("recorder/cli/include");
    for (compiler, flags) in [
        ("gcc", "-O0"),
        ("gcc", "-O2 -no-pie -fno-pie"),
        ("gcc", "-std=c89 -pedantic -O2 -flto"),
        ("gcc", "-O2 -fno-plt -Wl,-z,now"),
        ("gcc", "-x c++ -O0 -no-pie -fno-pie"),
        ("clang", "-O0 -no-pie -fno-pie"),
        ("clang", "-O2"),
    ] {
        let program = dir.join("mark");
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror"]).args(flags.split(' '));
        command.arg("-I").arg(&include).arg(&source).arg("-o").arg(&program);
        let built = run(&mut command);
        assert_eq!(built.code, 0, "{compiler} {flags}: {}", built.stderr);
        assert_eq!(run(&mut Command::new(&program)).code, 0, "{compiler} {flags}: alone");
        let recording = Recorder::new("mark-built").record(&program, [""; 0]);
        let json = Report::of(&recording.trace, &[]).json;
        assert_eq!(counts(&json["marks"]), [("built".to_owned(), 1)], "{compiler} {flags}");
    }
    let program = dir.join("static");
    let mut command = Command::new("gcc");
    command.arg("-static").arg("-I").arg(&include).arg(&source).arg("-o").arg(&program);
    assert_eq!(run(&mut command).code, 0);
    assert_eq!(run(&mut Command::new(&program)).code, 0);
}

/// Runs `edleak-record mark` with `arguments`.
fn mark(arguments: &[&str]) -> Outcome {
    run(Command::new(&tools().record).arg("mark").args(arguments))
}

#[test]
fn marks_from_outside_are_judged_like_those_of_the_program() {
    let dir = TempDir::new("mark-outside");
    let trace = dir.join("trace.edl");
    // For each line on standard input, the program runs one iteration.
    let script = "import sys\nkept = []\nprint('ready', flush=True)\n\
                  for line in iter(sys.stdin.readline, ''):\n kept.append(bytearray(40000))\n \
                  print(line, end='', flush=True)\n";
    let mut command = Recorder::new("mark-outside").command(&trace, "/usr/bin/python3", ["-c", script]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().expect("edleak-record starts");
    let pid = child.id().to_string();
    let mut requests = child.stdin.take().expect("piped");
    let mut answers = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut answer = || {
        let mut line = String::new();
        std::io::BufRead::read_line(&mut answers, &mut line).expect("the program answers");
        line
    };
    assert_eq!(answer(), "ready\n");
    for n in 0..=20 {
        let marked = mark(&["--session", &pid, "re\nquest"]);
        assert_eq!(marked.code, 0, "{}", marked.stderr);
        assert!(marked.stdout.starts_with("marked re\\x0aquest in process"), "{}", marked.stdout);
        std::io::Write::write_all(&mut requests, format!("{n}\n").as_bytes()).expect("the program reads");
        assert_eq!(answer(), format!("{n}\n"));
    }
    drop(requests);
    assert!(child.wait().expect("ours").success());
    let report = Report::of(&trace, &["--per-mark", "re*"]);
    assert_eq!(report.code, 1, "{}", report.json["summary"]);
    let most = judged(&report)[0]["per_mark"]["bytes_per_iteration"].as_f64().unwrap_or_default();
    assert!((40_000.0..41_000.0).contains(&most), "{most}");
}

#[test]
fn a_mark_without_a_recording_or_a_name_is_refused_with_a_remedy() {
    let nobody = mark(&["--session", "1", "x"]);
    assert_eq!(nobody.code, 125);
    assert!(nobody.stderr.contains("edleak-record"), "{}", nobody.stderr);
    let unnamed = mark(&[""]);
    assert_eq!(unnamed.code, 125);
    assert!(unnamed.stderr.contains("the mark has no name"), "{}", unnamed.stderr);
}

/// `edleak-record unpack` must write the headers as they are in this repository.
#[test]
fn unpack_writes_the_headers() {
    let dir = TempDir::new("mark-unpack");
    let unpacked = run(Command::new(&tools().record).arg("unpack").arg(dir.path()));
    assert_eq!(unpacked.code, 0, "{}", unpacked.stderr);
    let header = |path: &Path| std::fs::read_to_string(path).expect("it is there");
    for name in ["edleak.h", "edleak_valgrind.h", "edleak_asan.h"] {
        let own = repository().join("recorder/cli/include").join(name);
        assert_eq!(header(&dir.join(name)), header(&own), "{name}");
    }
}

/// If edleak-record is killed during the recording, the trace contains all marks up to its last slice.
#[test]
fn marks_survive_a_killed_recorder() {
    let dir = TempDir::new("mark-killed");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("mark-killed").options(["--period", "20ms"]).command(
        &trace,
        programs().binary("mark_names"),
        ["wait"],
    );
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("marked");
    wait_for("the marks in the trace", || {
        let marks = Report::of(&trace, &[]).json["marks"].clone();
        marks.as_array().is_some_and(|marks| !marks.is_empty())
    });
    running.signal(libc::SIGKILL);
    let report = Report::of(&trace, &["--per-mark", "before"]);
    assert_eq!(report.code, 1, "{}", report.json["summary"]);
}
