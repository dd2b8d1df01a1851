//! Static programs that count their allocations with the crate edleak-alloc. The tests compare the counts of
//! edleak-alloc with the counts that each program makes itself.

use edleak_tests::ledger::{assert_equal, read_ledger};
use edleak_tests::programs::{Static, rust_allocator, static_program};
use edleak_tests::record::Recorder;
use edleak_tests::report::{Report, is_named};
use edleak_tests::run::{Running, copy_program, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Calls `check` once for each libc with which this machine can build static Rust programs.
fn with_each_libc(check: impl Fn(Static)) {
    Static::all().into_iter().for_each(check);
}

#[test]
fn counts_of_a_static_program_are_exact_at_any_number_of_threads() {
    with_each_libc(|libc| {
        let program = static_program("counted", libc);
        for (threads, rounds) in [("1", "200000"), ("8", "40000"), ("80", "4000")] {
            let recording = Recorder::new("counted").record(&program, [threads, rounds]);
            assert_eq!(recording.outcome.code, 0, "{libc:?}: {}", recording.outcome.stderr);
            let stderr = &recording.outcome.stderr;
            assert!(!stderr.contains("not counted"), "{libc:?}: the allocator is counted: {stderr}");
            assert_equal(&recording.all_sites(), &read_ledger(&recording.outcome.stdout));
        }
    });
}

#[test]
fn watched_stacks_of_a_static_program_have_all_callers() {
    with_each_libc(|libc| {
        let recording = Recorder::new("counted-stacks")
            .options(["--watch", "*"])
            .record(static_program("static_host", libc), ["stacks"]);
        assert_eq!(recording.outcome.code, 0, "{libc:?}: {}", recording.outcome.stderr);
        let report = recording.all_sites();
        let counts = report.counts_of("site_inner");
        assert_eq!(
            (counts.allocs, counts.allocated_bytes),
            (700, 700 * 24),
            "{libc:?}: {}",
            report.describe()
        );
        let stack = report.sites_in("site_inner").find(|site| site.kind == "stack").expect("it has a stack");
        let at = |name: &str| stack.stack.iter().position(|frame| is_named(&frame.function, name));
        let (inner, outer, main) = (at("site_inner"), at("site_outer"), at("main"));
        assert!(inner.is_some() && inner < outer && outer < main, "{libc:?}: {}", report.describe());
        // The start code of musl has no unwind information, so the walk of a stack ends at this code.
        assert_eq!(stack.is_stack_cut, libc == Static::Musl, "{}", report.describe());
    });
}

#[test]
fn a_forked_child_of_a_static_program_has_its_own_trace() {
    with_each_libc(|libc| {
        let program = static_program("static_host", libc);
        let recording = Recorder::new("counted-fork").options(["--children"]).record(&program, ["fork"]);
        assert_eq!(recording.outcome.code, 0, "{libc:?}: {}", recording.outcome.stderr);
        let traces = recording.dir.path().read_dir().expect("the directory of the trace").flatten();
        let child = traces
            .map(|entry| entry.path())
            .find(|path| *path != recording.trace && path.extension().is_some_and(|e| e == "edl"));
        let child = Report::of(&child.expect("a trace of the child"), &["--all"]);
        assert_eq!(child.counts_of("site_child").allocs, 2000, "{libc:?}");
        assert_eq!(child.counts_of("site_parent").allocs, 1000, "{libc:?}: inherited");
        let parent = recording.all_sites();
        assert_eq!(parent.counts_of("site_parent").allocs, 2000, "{libc:?}");
        assert!(parent.sites.iter().all(|site| !site.is_in("site_child")), "{libc:?}");

        let alone = Recorder::new("counted-fork-alone").record(&program, ["fork"]);
        assert_eq!(alone.all_sites().counts_of("site_parent").allocs, 2000, "{libc:?}");
        assert!(alone.all_sites().sites.iter().all(|site| !site.is_in("site_child")), "{libc:?}");
    });
}

#[test]
fn a_recorded_script_that_executes_a_static_program_yields_its_trace() {
    let program = static_program("counted", Static::all()[0]);
    let script = format!("exec '{}' 1 200000", program.display());
    let recording = Recorder::new("counted-exec").record("/bin/sh", ["-c", &script]);
    assert_eq!(recording.outcome.code, 0, "{}", recording.outcome.stderr);
    assert_equal(&recording.all_sites(), &read_ledger(&recording.outcome.stdout));
}

#[test]
fn a_dynamic_program_is_counted_once_with_and_without_the_library() {
    let program = rust_allocator("counted", "release");
    let preloaded = Recorder::new("counted-dynamic").record(&program, ["2", "100000"]);
    assert_equal(&preloaded.all_sites(), &read_ledger(&preloaded.outcome.stdout));
    let script = format!("unset LD_PRELOAD; exec '{}' 2 100000", program.display());
    let alone = Recorder::new("counted-alone").record("/bin/sh", ["-c", &script]);
    assert_equal(&alone.all_sites(), &read_ledger(&alone.outcome.stdout));
}

#[test]
fn marks_and_pools_of_a_static_program_are_recorded() {
    with_each_libc(|libc| {
        let recording = Recorder::new("counted-marks").record(static_program("static_host", libc), ["marks"]);
        let report = recording.all_sites();
        assert_eq!(report.json["marks"][0]["name"], "request", "{libc:?}: {}", report.json["marks"]);
        assert_eq!(report.json["marks"][0]["count"], 100, "{libc:?}: {}", report.json["marks"]);
        let pool = report.json["pools"]["names"][0].clone();
        assert_eq!((pool["name"].as_str(), pool["live_count"].as_u64()), (Some("requests"), Some(100)));
    });
}

/// The system calls of a program, without the calls that change its heap. Calls that change the heap are left
/// out, because edleak-alloc adds 64 bytes of thread-local storage, which shift the heap of libc.
fn system_calls(program: &Path, environment: &[(&str, &str)]) -> Vec<String> {
    let dir = TempDir::new("system-calls");
    let log = dir.path().join("log");
    let mut command = Command::new("strace");
    command.arg("-o").arg(&log).arg(program).args(["0", "2000"]);
    command.envs(environment.iter().copied());
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let log = std::fs::read_to_string(log).expect("strace has written it");
    let name = |line: &str| line.split('(').next().unwrap_or_default().to_owned();
    let is_for_memory =
        |name: &String| ["brk", "mmap", "munmap", "mremap", "madvise"].contains(&name.as_str());
    log.lines().map(name).filter(|name| !is_for_memory(name)).collect()
}

#[test]
fn an_unrecorded_static_program_makes_the_same_system_calls_as_without_the_crate() {
    with_each_libc(|libc| {
        let (counted, plain) = (static_program("counted", libc), static_program("plain", libc));
        assert_eq!(system_calls(&counted, &[]), system_calls(&plain, &[]), "{libc:?}");
    });
}

#[test]
fn a_static_program_with_another_version_of_the_crate_is_refused() {
    let dir = TempDir::new("counted-version");
    let other: PathBuf = dir.path().join("other");
    copy_program(&static_program("counted", Static::all()[0]), &other);
    let mut bytes = std::fs::read(&other).expect("the copy can be read");
    let text = b"edleak-preload ";
    let at = bytes.windows(text.len()).position(|window| window == text).expect("the note is there");
    bytes[at + text.len()] = b'9';
    let patched = dir.path().join("patched");
    std::fs::write(&patched, bytes).expect("the directory can be written");
    let runnable = dir.path().join("runnable");
    copy_program(&patched, &runnable);
    assert_eq!(run(Command::new("chmod").arg("+x").arg(&runnable)).code, 0);
    let refused = run(Command::new(&tools().record).arg("-o").arg(dir.path().join("t.edl")).arg(&runnable));
    assert_eq!(refused.code, 126, "{}", refused.stderr);
    assert!(refused.stderr.contains("has version 9.1.0"), "{}", refused.stderr);
    assert!(!dir.path().join("t.edl").exists(), "nothing was started");
}

#[test]
fn an_idle_static_program_is_recorded_by_its_process_id() {
    with_each_libc(|libc| {
        let dir = TempDir::new("counted-idle");
        let trace = dir.path().join("t.edl");
        let mut start = Command::new("sh");
        let record = tools().record.display().to_string();
        let program = static_program("static_host", libc).display().to_string();
        // The shell keeps the program's standard input open, and sends one byte every 10 ms.
        start.args([
            "-c",
            "i=0; while [ $i -lt 3000 ]; do echo; sleep 0.01; i=$((i+1)); done | \
             exec \"$0\" --idle \"$1\" obey",
        ]);
        start.args([&record, &program]);
        let running = Running::start(&mut start, b"");
        let pid = wait_for_child(running.pid());
        let recording =
            run(Command::new(&record).args(["--pid", &pid.to_string(), "--duration", "2", "-o"]).arg(&trace));
        assert_eq!(recording.code, 0, "{libc:?}: {}", recording.stderr);
        let report = Report::of(&trace, &["--all"]);
        let counts = report.counts_of("site_parent");
        assert!(counts.allocs > 0, "{libc:?}: {}", report.describe());
        assert_eq!(counts.allocated_bytes, 100 * counts.allocs, "{libc:?}");
    });
}

/// Waits until a descendant of `parent` runs the static program, and returns its process ID.
fn wait_for_child(parent: i32) -> i32 {
    let mut found = None;
    let children = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<i32>>()
    };
    wait_for("the static program", || {
        let mut next = vec![parent];
        while let Some(pid) = next.pop() {
            let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            if program.ends_with("static_host") {
                found = Some(pid);
            }
            next.extend(children(pid));
        }
        found.is_some()
    });
    found.expect("waited for")
}
