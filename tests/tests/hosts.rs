//! Runs programs with unusual behaviour twice: without edleak, and recorded by edleak. The recorded run must
//! have the same output and exit status as the run without edleak, and the trace must be correct.
//!
//! Each program of tests/programs/hosts/ checks its own behaviour and has directives. `//#Run: ARGS` runs the
//! program with these arguments, one line per run. `//#Record: OPTIONS` and `//#Env: NAME=VALUE` set options
//! and variables. `//#Needs: root` means that the test skips the program if the user is not root. `//#Trace:
//! FUNCTION allocs=N frees=N …` gives the expected counters of one function.

use edleak_tests::analyze::analyze;
use edleak_tests::directives::Directives;
use edleak_tests::programs::{hosts, name_of};
use edleak_tests::record::Recorder;
use edleak_tests::report::{Counts, Report};
use edleak_tests::run::{Outcome, Running, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::repository;
use std::path::PathBuf;
use std::process::Command;

/// Makes one test for each program in a list. The test `every_host_is_tested` checks that the list contains
/// all programs of tests/programs/hosts/.
macro_rules! hosts {
    ($($name:ident)*) => {
        const TESTED: &[&str] = &[$(stringify!($name)),*];
        $(#[test] fn $name() { undisturbed(stringify!($name)); })*
    };
}

hosts! {
    address_reuse before_constructors bind_now cancelled_threads chroot_drop clean_heap clone_raw close_fds
    closed_stdio coroutines deepbind deepbind_free deepbind_pieces dlerror_fork dlerror_pending dlmopen
    dlopen_loop dlopen_storm early_dlsym edge_sizes endings exceptions exec_chain exec_failed exec_static
    exit_race fixed_address foreign_malloc fork_cost fork_nested fork_threads high_address late_frees
    late_grandchild locale_lock longjmp many_threads mapped_ranges maps_in_handler mirror musl
    named_like_glibc new_handler outlives own_mmap ptrace_self replaced_new rlimit_as rlimit_start
    scrubbed_exec seccomp_kill seccomp_strict signal_storm small_stacks static_child static_tls
    tls_destructors unreachable_child usable_size user_preload vfork_spawn
}

/// The programs of tests/programs/hosts/ that have their own test function in this file.
const SPECIAL: &[&str] = &["many_sites", "own_malloc"];

#[test]
fn every_host_is_tested() {
    let mut tested: Vec<_> = TESTED.iter().chain(SPECIAL).map(|name| (*name).to_owned()).collect();
    let mut sources: Vec<_> = hosts().sources().iter().map(|source| name_of(source)).collect();
    tested.sort();
    sources.sort();
    assert_eq!(tested, sources);
}

fn source_of(name: &str) -> PathBuf {
    let sources = hosts().sources();
    sources.into_iter().find(|source| name_of(source) == name).expect("every test is named after a source")
}

fn is_root() -> bool {
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// For each `Run` line of the program `name`, runs the program without edleak, and then recorded by edleak.
fn undisturbed(name: &str) {
    let directives = Directives::read(&source_of(name));
    if directives.all("Needs").any(|need| need == "root") && !is_root() {
        return cannot_run(&format!("{name} needs root"));
    }
    let mut runs: Vec<_> = directives.all("Run").collect();
    if runs.is_empty() {
        runs.push("");
    }
    for run in runs {
        undisturbed_run(name, &directives, run);
    }
}

fn undisturbed_run(name: &str, directives: &Directives, arguments: &str) {
    let program = hosts().binary(name);
    let arguments: Vec<_> = arguments.split_whitespace().collect();
    let out = hosts().binaries().to_str().expect("a target directory in UTF-8");
    let env: Vec<_> = directives
        .all("Env")
        .map(|setting| setting.split_once('=').expect("`Env` is NAME=VALUE"))
        .map(|(variable, value)| (variable, value.replace("$OUT", out)))
        .collect();

    let plain = run(Command::new(&program).args(&arguments).envs(env.iter().map(|(n, v)| (n, v))));
    assert_ne!(
        plain.code, 99,
        "{name} {arguments:?} fails without a recorder: {}{}",
        plain.stdout, plain.stderr
    );

    let mut recorder = Recorder::new(name).options(directives.words("Record"));
    for (variable, value) in &env {
        recorder = recorder.env(variable, value);
    }
    let recording = recorder.record(&program, &arguments);
    assert_eq!(
        visible(&recording.outcome),
        visible(&plain),
        "{name} {arguments:?}: recorded (left), plain (right)"
    );

    let expected: Vec<_> = directives.all("Trace").collect();
    if !expected.is_empty() {
        let report = recording.all_sites();
        assert_eq!(report.json["trace"]["complete"], true, "{name}: the trace is complete");
        for line in expected {
            assert_trace(&report, name, line);
        }
    }
}

/// The result of a program that a user sees: exit code, standard output and standard error.
fn visible(outcome: &Outcome) -> (i32, String, String) {
    (outcome.code, outcome.stdout.clone(), outcome.stderr_of_target())
}

/// Checks the report against one `Trace` directive. `line` has the form `FUNCTION field=N …`.
fn assert_trace(report: &Report, name: &str, line: &str) {
    let mut words = line.split_whitespace();
    let function = words.next().expect("`Trace` begins with a function");
    let counts = report.counts_of(function);
    for word in words {
        let (field, value) = word.split_once('=').expect("`Trace` continues with field=N");
        let expected: u64 = value.parse().expect("`Trace` has numbers");
        assert_eq!(
            field_of(&counts, field),
            expected,
            "{name}: {field} of {function}; all sites:\n{}",
            report.describe()
        );
    }
}

fn field_of(counts: &Counts, field: &str) -> u64 {
    match field {
        "allocs" => counts.allocs,
        "allocated_bytes" => counts.allocated_bytes,
        "frees" => counts.frees,
        "freed_bytes" => counts.freed_bytes,
        "live_bytes" => counts.allocated_bytes - counts.freed_bytes,
        "live_count" => counts.allocs - counts.frees,
        _ => panic!("`Trace` has no field `{field}`"),
    }
}

/// The program has more call sites than the site table has slots. No count may be lost: one site counts all
/// calls for which the table has no slot, and both edleak-record and edleak-analyze report this.
#[test]
fn many_sites() {
    let recording = Recorder::new("many_sites").record(hosts().binary("many_sites"), [""; 0]);
    assert_eq!((recording.outcome.code, &*recording.outcome.stdout), (0, "ok\n"));
    let report = recording.all_sites();
    let (mut allocs, mut frees) = (0, 0);
    for site in &report.sites {
        allocs += site.counts.allocs;
        frees += site.counts.frees;
    }
    assert!(allocs >= 100_000, "{allocs} of 100,000 allocations");
    assert!(frees >= 100_000 && frees <= allocs, "{frees} of 100,000 frees");
    if report.sites.len() < 100_000 {
        let missed = "beyond the site table";
        let text = analyze(["--all"], &recording.trace).stdout;
        assert!(text.contains(missed), "no word of what the table does not hold:\n{text}");
        assert!(recording.outcome.stderr.contains(missed), "{}", recording.outcome.stderr);
    }
}

/// The program's malloc calls no other function, so its callers may keep values in registers that a hook
/// would change. Therefore edleak does not replace the program's malloc. The program runs as usual, and the
/// report says that edleak counts nothing.
#[test]
fn own_malloc() {
    let plain = run(&mut Command::new(hosts().binary("own_malloc")));
    let recording = Recorder::new("own_malloc").record(hosts().binary("own_malloc"), [""; 0]);
    let stderr = &recording.outcome.stderr;
    assert!(stderr.contains("`malloc`") && stderr.contains("are not counted"), "{stderr}");
    assert!(stderr.contains("rely on registers"), "{stderr}");
    assert_eq!(recording.outcome.stdout, plain.stdout);
    assert_ne!(recording.outcome.code, 0, "an empty recording is no success");
    assert_eq!(analyze([""; 0], &recording.trace).code, 2, "never an empty success");
}

/// With `--children` every child has its own trace, named after its process ID.
#[test]
fn children_have_their_own_traces() {
    assert_children_have_their_own_traces(&["--children"]);
}

/// If a child frees an allocation that its parent made at a watched site, edleak counts this allocation at
/// the caller site and not at a full stack, because the full stacks stay in the parent's session.
#[test]
fn children_of_a_watched_program_have_their_own_traces() {
    assert_children_have_their_own_traces(&["--children", "--watch", "*"]);
}

fn assert_children_have_their_own_traces(options: &[&str]) {
    let recording =
        Recorder::new("children").options(options).record(hosts().binary("fork_threads"), [""; 0]);
    assert_eq!(
        (recording.outcome.code, &*recording.outcome.stdout),
        (0, "ok\n"),
        "{}",
        recording.outcome.stderr
    );
    let mut children = 0;
    for entry in std::fs::read_dir(recording.dir.path()).expect("it is ours") {
        let path = entry.expect("it is ours").path();
        let name = path.file_name().expect("an entry has a name").to_string_lossy().into_owned();
        let Some(pid) =
            name.strip_suffix(".edl").and_then(|stem| stem.rsplit('.').next()?.parse::<u64>().ok())
        else {
            continue;
        };
        let report = Report::of(&path, &["--all", "--min-class", "constant"]);
        assert_eq!(report.json["trace"]["pid"].as_u64(), Some(pid), "{name}");
        // The child makes twenty allocations, and frees one allocation that it inherited from its parent.
        let counts = report.counts_of("in_parent");
        assert_eq!((counts.allocs, counts.frees), (21, 1), "{name}:\n{}", report.describe());
        assert_eq!(report.summary("unknown_frees"), 0, "{name}:\n{}", report.describe());
        children += 1;
    }
    assert_eq!(children, 20, "one trace for each child");
    assert_trace(&recording.all_sites(), "fork_threads", "in_parent allocs=20 frees=20");
}

/// The parent of a daemon ends before the daemon has allocated anything. edleak-record must continue the
/// recording until the daemon has ended.
#[test]
fn a_daemon_is_recorded_with_its_children() {
    let recorder = Recorder::new("daemon").options(["--children"]);
    let recording = recorder.record(hosts().binary("helper_daemon"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let traces = std::fs::read_dir(recording.dir.path()).expect("it is ours");
    let children: Vec<_> = traces
        .map(|entry| entry.expect("it is ours").path())
        .filter(|path| path != &recording.trace)
        .collect();
    let [child] = children.as_slice() else { panic!("{children:?}: {}", recording.outcome.stderr) };
    let report = Report::of(child, &["--all", "--min-class", "constant"]);
    assert_eq!(report.counts_of("in_daemon").allocs, 40, "{}", report.describe());
}

/// The collector reuses the session (shared memory) of an ended child, but not while a grandchild may still
/// read this memory.
#[test]
fn a_late_grandchild_has_the_allocations_of_its_ended_parent() {
    let recorder = Recorder::new("late-grandchild").options(["--children"]);
    let recording = recorder.record(hosts().binary("late_grandchild"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let traces = std::fs::read_dir(recording.dir.path()).expect("it is ours");
    let reports = traces
        .map(|entry| entry.expect("it is ours").path())
        .filter(|path| path != &recording.trace)
        .map(|path| Report::of(&path, &["--all", "--min-class", "constant"]));
    let (mut short, mut late) = (0, 0);
    for report in reports {
        let of = |name| {
            let counts: Counts = report.counts_of(name);
            (counts.allocs, counts.frees)
        };
        assert_eq!(report.summary("unknown_frees"), 0, "{}", report.describe());
        assert_eq!(of("in_root"), (7, 0), "{}", report.describe());
        match (of("in_short"), of("in_grandchild")) {
            ((20, 0), (0, 0)) => short += 1,
            ((0, 0), (5, 0)) => {
                assert_eq!(of("in_child"), (30, 30), "{}", report.describe());
                late += 1;
            }
            ((0, 0), (0, 0)) => assert_eq!(of("in_child"), (30, 0), "{}", report.describe()),
            other => panic!("{other:?}: {}", report.describe()),
        }
    }
    assert_eq!((short, late), (40, 1));
}

/// edleak cannot record a child that cannot open any file. The parent's trace must report that it has
/// unrecorded children.
#[test]
fn children_out_of_reach_are_reported() {
    let recorder = Recorder::new("out-of-reach").options(["--children"]);
    let recording = recorder.record(hosts().binary("unreachable_child"), [""; 0]);
    assert_eq!(recording.all_sites().summary("unrecorded_images"), 2, "{}", recording.outcome.stderr);
    assert!(recording.outcome.stderr.contains("2 unrecorded programs"), "{}", recording.outcome.stderr);
    assert_eq!(analyze([""; 0], &recording.trace).code, 2);
}

/// Before the collector takes the next slice, the program loads and unloads 2,500 modules. Each load and each
/// unload of a module is one event, but the ring of events holds only 4,096 events.
#[test]
fn module_events_beyond_the_ring_are_reported_by_both_programs() {
    let recorder = Recorder::new("lost-events").options(["--period", "1h"]);
    let recording = recorder.record(hosts().binary("dlopen_loop"), ["2500", "0"]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let lost = recording.all_sites().summary("lost_module_events");
    assert!((800..1_000).contains(&lost), "{lost} lost: {}", recording.outcome.stderr);
    let told = format!("{lost} lost module events");
    assert!(recording.outcome.stderr.contains(&told), "{}", recording.outcome.stderr);
    assert!(analyze([""; 0], &recording.trace).stdout.contains(&told));
}

/// Without `--children`, only the parent has a trace.
#[test]
fn without_children_there_is_one_trace() {
    let recording = Recorder::new("no-children").record(hosts().binary("vfork_spawn"), [""; 0]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    let names: Vec<_> = std::fs::read_dir(recording.dir.path())
        .expect("it is ours")
        .map(|entry| entry.expect("it is ours").file_name())
        .collect();
    assert_eq!(names, ["trace.edl"]);
}

/// If edleak-record is killed, the target runs on undisturbed, and the slices that were written can be read.
#[test]
fn killed_collector_leaves_the_target_running() {
    let dir = TempDir::new("killed");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("killed").command(&trace, hosts().binary("outlives"), [""; 0]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("started");
    wait_for("a trace", || trace.metadata().is_ok_and(|m| m.len() > 0));
    running.signal(libc::SIGKILL);
    running.wait_for_text("ok\n");
    let outcome = running.finish();
    assert_eq!((outcome.code, &*outcome.stdout), (137, "started\nok\n"));
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert_eq!(report.json["trace"]["complete"], false);
}

/// If edleak-record is stopped for a while, the target runs on, and edleak reports the number of missing
/// slices.
#[test]
fn a_stopped_collector_loses_slices_and_nothing_else() {
    let dir = TempDir::new("stopped");
    let trace = dir.join("trace.edl");
    let mut command = Recorder::new("stopped").command(&trace, hosts().binary("outlives"), [""; 0]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("started");
    running.signal(libc::SIGSTOP);
    running.wait_for_text("ok\n");
    running.signal(libc::SIGCONT);
    let outcome = running.finish();
    assert_eq!((outcome.code, &*outcome.stdout), (7, "started\nok\n"));
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert_trace(&report, "outlives", "works allocs=100 allocated_bytes=10000 frees=0");
    assert!(report.summary("lost_slices") > 0, "{}", report.json["summary"]);
}

/// If the user sets LD_PRELOAD without edleak-record, the library starts its own collector once, and the
/// program is undisturbed.
#[test]
fn a_bare_preload_records() {
    let dir = TempDir::new("bare");
    let trace = dir.join("bare.edl");
    let outcome = run(Command::new(hosts().binary("outlives"))
        .env("LD_PRELOAD", &edleak_tests::tools::tools().preload)
        .env("EDLEAK_OUTPUT", &trace)
        .env("EDLEAK_PERIOD", "50ms")
        .current_dir(dir.path()));
    assert_eq!((outcome.code, &*outcome.stdout), (7, "started\nok\n"), "{}", outcome.stderr);
    // The collector writes the last slice some time after the end of the target.
    wait_for("a complete trace", || {
        trace.exists() && analyze(["--format", "json", "--all"], &trace).stdout.contains("\"complete\":true")
    });
    let report = Report::of(&trace, &["--all", "--min-class", "constant"]);
    assert_trace(&report, "outlives", "works allocs=100 allocated_bytes=10000 frees=0");
}

/// The target executes a static program, which edleak cannot record. So the report on the target must not say
/// that there is no leak.
#[test]
fn image_that_cannot_be_recorded_is_not_a_success() {
    let recording = Recorder::new("exec_static").record(hosts().binary("exec_static"), [""; 0]);
    assert_eq!(recording.outcome.code, 3);
    let verdict = analyze([""; 0], &recording.trace);
    assert!([2, 3].contains(&verdict.code), "never an empty success: {verdict:?}");
}

/// Checks that the directives of all programs use only the known names.
#[test]
fn directives_name_known_things() {
    for source in hosts().sources() {
        let text = std::fs::read_to_string(&source).expect("part of the repository");
        for line in text.lines().filter_map(|line| line.strip_prefix("//#")) {
            let name = line.split(':').next().expect("split gives at least one part");
            assert!(
                ["Run", "Record", "Env", "Needs", "Trace", "Build", "Compiler"].contains(&name),
                "{}: unknown directive `{name}`",
                source.strip_prefix(repository()).expect("a path in the repository").display()
            );
        }
    }
}
