//! Tests `edleak-record --pid` for a process that was started without edleak's library. edleak-record loads
//! the library into the process, and redirects the malloc of the process to the library.

use edleak_tests::fed::Fed;
use edleak_tests::ledger_program::{
    LedgerProgram, ask, next_recording_is_exact, phases_are_exact, recorder, report_of, stop,
    wait_for_recording,
};
use edleak_tests::programs::{programs, samples};
use edleak_tests::report::Counts;
use edleak_tests::run::{Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::io::Write;
use std::process::Command;

/// Whether malloc and its related functions have their original first bytes, without a jump to edleak's
/// library.
fn code_is_original(pid: u32) -> bool {
    entries(pid) == entries(std::process::id())
}

/// The first bytes of malloc and its related functions in a process that uses the same libc as this test.
fn entries(pid: u32) -> Vec<[u8; 5]> {
    let own = std::process::id();
    let base = |pid: u32| {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
        let line = maps.lines().find(|line| line.contains("/libc.so.6")).expect("glibc").to_owned();
        usize::from_str_radix(line.split('-').next().expect("a range"), 16).expect("hexadecimal")
    };
    let functions: [*const (); 4] =
        [libc::malloc as _, libc::calloc as _, libc::realloc as _, libc::free as _];
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("this user may trace it");
    functions
        .iter()
        .map(|function| {
            let mut bytes = [0; 5];
            let at = (*function as usize - base(own) + base(pid)) as u64;
            std::os::unix::fs::FileExt::read_exact_at(&memory, &mut bytes, at).expect("mapped");
            bytes
        })
        .collect()
}

fn writable_code(pid: u32) -> Vec<String> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    maps.lines().filter(|line| line.contains(" rwx")).map(str::to_owned).collect()
}

fn attached_phases_are_exact(threads: u32, cycles: usize) {
    phases_are_exact(LedgerProgram::start_plain(threads), cycles, |target, report| {
        let Some(report) = report else {
            return assert!(!code_is_original(target.pid()), "the jumps are there");
        };
        assert!(code_is_original(target.pid()), "the jumps are removed");
        assert_eq!(writable_code(target.pid()), [""; 0]);
        assert_eq!(report.summary("unknown_frees"), 0);
    });
}

#[test]
fn counters_of_one_thread_equal_its_ledger_after_an_attach() {
    attached_phases_are_exact(1, 4);
}

#[test]
fn counters_of_eight_threads_equal_their_ledger_after_an_attach() {
    attached_phases_are_exact(8, 4);
}

#[test]
fn counters_of_64_threads_equal_their_ledger_after_an_attach() {
    attached_phases_are_exact(64, 2);
}

/// The recording of an attached process begins at its next allocation. Without any, the duration still ends
/// the attach.
#[test]
fn the_duration_ends_an_attach_to_a_process_that_allocates_nothing() {
    let dir = TempDir::new("no_work");
    let sleeper = Running::start(Command::new("sleep").arg("600"), b"");
    wait_for("the sleep", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", sleeper.pid()));
        stat.is_ok_and(|stat| stat.contains("(sleep) S"))
    });
    let trace = dir.join("trace.edl");
    let pid = sleeper.pid().to_string();
    let mut command = Command::new("timeout");
    command.args(["60".as_ref(), tools().record.as_os_str(), "-o".as_ref(), trace.as_os_str()]);
    let recorded = run(command.args(["--pid", &pid, "--duration", "1"]));
    assert_eq!(recorded.code, 125, "{recorded:?}");
    assert!(recorded.stderr.contains("(it allocated nothing"), "{recorded:?}");
    assert!(!trace.exists());
}

/// If edleak-record dies at any step of an attach, the process runs on, and the next recording counts
/// correctly.
#[test]
fn killed_recorder_leaves_the_process_running_at_every_step() {
    let steps = ["seized", "written", "set", "inside", "loaded", "restored", "code", "half", "all"];
    let dir = TempDir::new("attach-killed");
    for step in steps {
        let mut target = LedgerProgram::start_plain(4);
        target.tell("go");
        let trace = dir.join(format!("{step}.edl"));
        let killed = run(&mut recorder(target.pid(), &trace, &["--die-at", step]));
        assert_eq!(killed.code, 128 + libc::SIGKILL, "{step}: {}", killed.stderr);
        target.tell("pause");
        target.tell("go");
        next_recording_is_exact(&mut target, &dir.join(format!("{step}-after.edl")), &[]);
        assert!(code_is_original(target.pid()), "{step}");
    }
}

/// Whether the main thread of a process waits in the system call `number`.
fn waits_in(pid: u32, number: libc::c_long) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    text.split_whitespace().next() == Some(&number.to_string())
}

/// edleak makes a thread of the process load the library. The thread that loads the library must keep its
/// registers, its red zone, errno and its system call.
fn state_is_kept(kind: &str, number: libc::c_long, step: &str) {
    let dir = TempDir::new("attach-state");
    let mut program = Fed::start(&programs().binary("attach_state"), &[kind], "waiting");
    let pid = program.pid();
    wait_for("the system call", || waits_in(pid, number));
    let trace = dir.join("trace.edl");
    if step.is_empty() {
        // The program allocates nothing, so edleak-record records nothing.
        let recorder = ask(pid, &trace, &[]);
        recorder.signal(libc::SIGINT);
        let outcome = recorder.finish();
        assert!(outcome.stderr.contains("loaded edleak's library"), "{}", outcome.stderr);
        assert!(code_is_original(pid), "{}", outcome.stderr);
    } else {
        let outcome = run(&mut recorder(pid, &trace, &["--die-at", step]));
        assert_eq!(outcome.code, 128 + libc::SIGKILL, "{}", outcome.stderr);
    }
    wait_for("the same system call, or its restart", || {
        waits_in(pid, number) || waits_in(pid, libc::SYS_restart_syscall)
    });
    if kind == "futex" {
        // SAFETY: this process has not waited for the child, so the ID still belongs to the child.
        unsafe { libc::kill(pid as i32, libc::SIGUSR1) };
    } else {
        program.input().write_all(b"x").expect("it reads");
    }
    assert_eq!(program.finish(), "same\n", "{kind} {step}");
}

#[test]
fn thread_that_loads_the_library_is_unchanged() {
    state_is_kept("read", libc::SYS_read, "");
    state_is_kept("poll", libc::SYS_poll, "");
    state_is_kept("futex", libc::SYS_futex, "");
}

#[test]
fn thread_restores_itself_if_the_recorder_dies() {
    for step in ["set", "inside", "loaded"] {
        state_is_kept("read", libc::SYS_read, step);
        state_is_kept("poll", libc::SYS_poll, step);
        state_is_kept("futex", libc::SYS_futex, step);
    }
}

#[test]
fn leak_of_a_process_without_the_library_is_found_with_its_stack() {
    let dir = TempDir::new("attach-leak");
    let mut command = Command::new(samples().binary("leaker"));
    command.args(["--seconds", "60"]);
    let running = Running::start(&mut command, b"");
    let trace = dir.join("trace.edl");
    let recorded = run(&mut recorder(running.pid() as u32, &trace, &["--duration", "6s"]));
    assert_eq!(recorded.code, 0, "{}", recorded.stderr);
    let outcome = edleak_tests::analyze::analyze::<&str>([], &trace);
    assert_eq!(outcome.code, 1, "{}", outcome.stdout);
    let report = report_of(&trace);
    let stack = report.sites.iter().find(|site| site.kind == "stack" && site.is_in("leak_malloc"));
    assert!(stack.is_some_and(|stack| stack.is_in("main")), "{}", report.describe());
}

/// Compares the allocations of a function in one trace with `orders`: each order is a number of blocks that
/// the test told the program to allocate. The program allocates blocks of 100 bytes and frees every second
/// block.
fn has_blocks(trace: &std::path::Path, function: &str, orders: &[u64]) {
    let report = report_of(trace);
    let (blocks, freed) = (orders.iter().sum::<u64>(), orders.iter().map(|blocks| blocks / 2).sum::<u64>());
    let expected =
        Counts { allocs: blocks, allocated_bytes: 100 * blocks, frees: freed, freed_bytes: 100 * freed };
    assert_eq!(report.counts_of(function), expected, "{function}: {}", report.describe());
    assert_eq!(report.json["trace"]["complete"], true);
}

/// `--children` records the children that are started after the attach, and the children of these children. A
/// child that was started before the attach continues to run, but edleak does not record it.
#[test]
fn children_of_an_attached_process_are_counted_exactly() {
    let dir = TempDir::new("attach-children");
    let mut target = LedgerProgram::start_program(&programs().binary("attach_children"), 0);
    let numbers = |answer: String| -> Vec<u32> {
        answer.lines().map(|line| line.parse().expect("a process ID")).collect()
    };
    let earlier = numbers(target.tell("fork 50"))[0];
    let before = entries(earlier);
    let recorder = ask(target.pid(), &dir.join("trace.edl"), &["--children"]);
    target.tell("self 40");
    wait_for_recording(target.pid());
    target.tell("more 0 70");
    let child = numbers(target.tell("fork 101"))[0];
    let [parent, grandchild] = numbers(target.tell("nested 30"))[..] else { panic!("two process IDs") };
    target.tell("more 1 20");
    target.tell("more 2 8");
    target.tell("self 6");
    assert!(!code_is_original(child), "a child of the recording has the jumps");
    assert_eq!(entries(earlier), before, "a child from before has none");
    stop(recorder);
    for pid in [target.pid(), earlier, child, parent, grandchild] {
        assert!(code_is_original(pid), "process {pid}");
    }
    // All children to which the test can send commands must still answer.
    for order in ["more 0 5", "more 1 5", "more 2 5", "fork 3"] {
        target.tell(order);
    }
    has_blocks(&dir.join("trace.edl"), "site_self", &[40, 6]);
    has_blocks(&dir.join(format!("trace.{child}.edl")), "site_child", &[101, 20]);
    has_blocks(&dir.join(format!("trace.{parent}.edl")), "site_child", &[30, 8]);
    has_blocks(&dir.join(format!("trace.{grandchild}.edl")), "site_child", &[30]);
    let traces = std::fs::read_dir(dir.path()).expect("ours").count();
    assert_eq!(traces, 4, "the earlier child has no trace");
}

#[test]
fn help_lists_the_options_of_an_attach() {
    let help = run(Command::new(&tools().record).arg("--help"));
    assert!(help.stdout.contains("--attach-timeout") && !help.stdout.contains("--die-at"));
}
