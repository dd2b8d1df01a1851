//! Tests `edleak-record --idle` and `--pid`: a process starts with the idle library, which counts nothing,
//! and is recorded later while it runs.

use edleak_tests::analyze::analyze;
use edleak_tests::ledger_program::{
    LedgerProgram as Target, ask, cycles_under_load_are_exact, next_recording_is_exact, phases_are_exact,
    recorder, report_of, stop, wait_for_recording,
};
use edleak_tests::programs::{programs, samples};
use edleak_tests::run::{Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

fn idle_phases_are_exact(threads: u32, cycles: usize) {
    let target = Target::start_idle(threads);
    assert_eq!(target.mapped_sessions(), 0, "an idle process has no session");
    phases_are_exact(target, cycles, |target, report| {
        let is_bounded = report.is_none() || target.mapped_sessions() <= 2;
        assert!(is_bounded, "the session before the last one is unmapped");
    });
}

#[test]
fn counters_of_one_thread_equal_its_ledger_in_each_recording() {
    idle_phases_are_exact(1, 6);
}

#[test]
fn counters_of_eight_threads_equal_their_ledger_in_each_recording() {
    idle_phases_are_exact(8, 6);
}

#[test]
fn recordings_that_begin_and_end_under_load_are_exact() {
    cycles_under_load_are_exact(Target::start_idle(8), 12);
}

/// Makes 120 recordings of a process under load. This test takes one minute.
#[test]
#[ignore = "a minute long; run it with --ignored"]
fn hundred_recordings_under_load_are_exact() {
    cycles_under_load_are_exact(Target::start_idle(8), 120);
    cycles_under_load_are_exact(Target::start_idle(1), 20);
}

/// If edleak-record is killed at any moment, the process runs on, and the next recording counts correctly.
#[test]
fn killed_recorder_leaves_the_process_running_and_the_next_recording_exact() {
    let dir = TempDir::new("idle-killed");
    let mut target = Target::start_idle(4);
    target.tell("go");
    for step in 0..8u64 {
        let trace = dir.join(format!("killed{step}.edl"));
        let killed = Running::start(&mut recorder(target.pid(), &trace, &[]), b"");
        // edleak-record is killed at different moments: before it finds the process, while it waits for the
        // process, and while it records.
        std::thread::sleep(std::time::Duration::from_millis(4 * step * step));
        killed.signal(libc::SIGKILL);
        let killed = killed.finish();
        assert_eq!(killed.code, 128 + libc::SIGKILL, "{}", killed.stderr);
        target.tell("pause");
        target.tell("go");
    }
    next_recording_is_exact(&mut target, &dir.join("after.edl"), &[]);
}

#[test]
fn second_recorder_is_refused_and_the_first_goes_on() {
    let dir = TempDir::new("idle-second");
    let mut target = Target::start_idle(2);
    target.tell("go");
    let first = ask(target.pid(), &dir.join("first.edl"), &[]);
    wait_for_recording(target.pid());
    let second = run(&mut recorder(target.pid(), &dir.join("second.edl"), &[]));
    assert_eq!(second.code, 126, "{}", second.stderr);
    let names_it = format!("edleak-record (pid {}) records it already", first.pid());
    assert!(second.stderr.contains(&names_it), "{}", second.stderr);
    assert!(!dir.join("second.edl").exists(), "a refused recording leaves no trace");
    target.tell("drain");
    stop(first);
    assert_eq!(report_of(&dir.join("first.edl")).json["trace"]["complete"], true);
}

#[test]
fn process_that_does_not_allocate_is_recorded_once_it_does() {
    let dir = TempDir::new("idle-silent");
    let mut target = Target::start_idle(1);
    let mut recorder = ask(target.pid(), &dir.join("trace.edl"), &[]);
    recorder.wait_for_text("has not allocated yet");
    target.tell("tick");
    wait_for_recording(target.pid());
    stop(recorder);
    let silent = Running::start(&mut self::recorder(target.pid(), &dir.join("none.edl"), &[]), b"");
    let mut silent = silent;
    silent.wait_for_text("has not allocated yet");
    silent.signal(libc::SIGINT);
    let outcome = silent.finish();
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("nothing was recorded"), "{}", outcome.stderr);
    // edleak-record has withdrawn its request for a recording, so the next allocation of the process must not
    // begin a recording.
    target.tell("tick");
    let sessions = run(Command::new(&tools().record).arg("sessions"));
    assert!(!sessions.stdout.contains(&target.pid().to_string()), "{}", sessions.stdout);
}

/// The test stops `edleak-record --idle PROGRAM` before it executes PROGRAM, for longer than the recorder
/// waits for other programs to start.
#[test]
fn process_that_has_yet_to_execute_its_program_is_waited_for() {
    let dir = TempDir::new("idle-start");
    let signal = |target: &Target, signal| {
        // SAFETY: `kill` takes no pointers; the target is not reaped, so its ID still belongs to it.
        assert_eq!(unsafe { libc::kill(target.pid() as i32, signal) }, 0);
    };
    let mut stopped = None;
    wait_for("a target that was stopped before it executed its program", || {
        let target = Target::start_idle(1);
        signal(&target, libc::SIGSTOP);
        let program = std::fs::read_link(format!("/proc/{}/exe", target.pid())).expect("it is not reaped");
        stopped = program.ends_with("edleak-record").then_some(target);
        stopped.is_some()
    });
    let mut target = stopped.expect("waited for");
    let mut recorder = Running::start(&mut recorder(target.pid(), &dir.join("trace.edl"), &[]), b"");
    std::thread::sleep(std::time::Duration::from_millis(700));
    signal(&target, libc::SIGCONT);
    recorder.wait_for_text("recording process");
    target.tell("tick");
    wait_for_recording(target.pid());
    stop(recorder);
}

#[test]
fn process_that_cannot_be_recorded_is_refused_with_the_reason() {
    let dir = TempDir::new("idle-refused");
    let refused = |pid: u32, code: i32, why: &str| {
        let trace = dir.join("trace.edl");
        let outcome = run(&mut recorder(pid, &trace, &[]));
        assert_eq!(outcome.code, code, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(why) && outcome.stderr.contains('('), "{}", outcome.stderr);
        assert!(!trace.exists(), "a refused recording leaves no trace");
    };
    refused(0, 127, "there is no such process");
    refused(4_194_304, 127, "there is no such process");
    let mut plain = Command::new("sleep").arg("600").spawn().expect("it is installed");
    plain.kill().expect("it runs");
    // A process that has ended is a zombie until this test waits for it.
    wait_for("a zombie", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", plain.id())).unwrap_or_default();
        stat.contains(") Z ")
    });
    refused(plain.id(), 126, "it has ended");
    plain.wait().expect("ours");
}

/// A process with too little address space cannot map the shared memory of the recording, and does not answer
/// edleak-record. edleak-record must print the reason and end.
#[test]
fn process_without_address_space_for_the_session_is_refused() {
    let dir = TempDir::new("idle-narrow");
    let mut target = Target::start_idle(1);
    // The command `go` makes the program's thread allocate its heap (malloc arena). The test limits the
    // address space only after the thread has allocated its heap.
    target.tell("go");
    target.tell("pause");
    let pid = target.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a line of status");
    let used: u64 = used.trim().trim_end_matches(" kB").parse().expect("KiB");
    let limit = format!("--as={}", (used + (8 << 10)) << 10);
    let limited = run(Command::new("prlimit").args(["--pid", &pid.to_string(), &limit]));
    assert_eq!(limited.code, 0, "{}", limited.stderr);
    target.tell("go");
    let outcome = run(&mut recorder(pid, &dir.join("trace.edl"), &["--duration", "60s"]));
    let why = "cannot map the memory that it shares with edleak-record (raise its limit";
    assert!(outcome.code != 0 && outcome.stderr.contains(why), "{}", outcome.stderr);
    target.tell("pause");
}

/// If an idle process forks, the child is idle. If the idle child executes a program, the program is idle,
/// too.
#[test]
fn children_of_an_idle_process_are_idle() {
    let mut command = Command::new(&tools().record);
    let forked = "(n=0; while read -r line; do case $line in *edleak-session*) n=1;; esac; done \
                  < /proc/$BASHPID/maps; echo $n)";
    let script =
        format!("{forked}; grep -c libedleak /proc/self/maps; grep -c edleak-session /proc/self/maps; :");
    command.args(["--idle", "--", "bash", "-c", &script]);
    let outcome = run(&mut command);
    let numbers: Vec<u32> = outcome.stdout.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(matches!(numbers[..], [0, library, 0] if library > 0), "{outcome:?}");
}

/// The site `site_pool` frees blocks from before the recording and allocates new blocks in their place. The
/// recording does not contain the older blocks, so the live bytes of the site grow from zero, although
/// nothing leaks.
#[test]
fn steady_site_of_an_attached_process_is_no_leak() {
    let dir = TempDir::new("idle-steady");
    let mut command = Command::new(&tools().record);
    command.args(["--idle", "--"]).arg(programs().binary("steady_pool")).args(["60", "12000", "2"]);
    let mut running = Running::start(&mut command, b"");
    running.wait_for_text("full");
    let trace = dir.join("trace.edl");
    let options = ["--duration", "4s"];
    let recorded = run(&mut recorder(running.pid() as u32, &trace, &options));
    assert_eq!(recorded.code, 0, "{}", recorded.stderr);
    let report = report_of(&trace);
    let pool: Vec<_> = report.sites_in("site_pool").collect();
    // edleak may have watched `site_pool`, because the curve of its live bytes rises like that of a leak. So
    // the report may also contain full stacks of `site_pool`.
    assert_eq!(pool.iter().filter(|site| site.kind == "caller").count(), 1, "{}", report.describe());
    assert!(pool.iter().all(|site| site.verdict != "leak"), "{}", report.describe());
    let earlier = report.json["summary"]["earlier_frees"].as_u64();
    assert!(earlier > Some(1000) && report.summary("unknown_frees") == 0, "{earlier:?}");
}

#[test]
fn leak_of_an_attached_process_is_found() {
    let dir = TempDir::new("idle-leak");
    let mut command = Command::new(&tools().record);
    command.args(["--idle", "--"]).arg(samples().binary("leaker")).args(["--seconds", "60"]);
    let running = Running::start(&mut command, b"");
    let comm = format!("/proc/{}/comm", running.pid());
    wait_for("the program", || std::fs::read_to_string(&comm).is_ok_and(|name| name == "leaker\n"));
    let trace = dir.join("trace.edl");
    let recorded = run(&mut recorder(running.pid() as u32, &trace, &["--duration", "6s"]));
    assert_eq!(recorded.code, 0, "{}", recorded.stderr);
    let outcome = analyze::<&str>([], &trace);
    assert_eq!(outcome.code, 1, "{}", outcome.stdout);
    assert!(outcome.stdout.contains("the process had run for"), "{}", outcome.stdout);
}

/// A web server must answer every request while recordings begin and end.
#[test]
fn web_server_answers_all_requests_while_recordings_begin_and_end() {
    let dir = TempDir::new("idle-web");
    std::fs::write(dir.join("page"), "hello").expect("writable");
    let mut command = Command::new(&tools().record);
    command.args(["--idle", "--", "/usr/bin/python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
    command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().expect("edleak-record starts");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("it tells its port");
    let port = line.split("port ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a port");
    let address = format!("127.0.0.1:{port}");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut answered = 0;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let mut stream = std::net::TcpStream::connect(&address).expect("the server listens");
                stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").expect("the server reads");
                let mut answer = String::new();
                std::io::Read::read_to_string(&mut stream, &mut answer).expect("the server answers");
                assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("hello"), "{answer}");
                answered += 1;
            }
            answered
        });
        for cycle in 0..6 {
            let trace = dir.join(format!("{cycle}.edl"));
            let recorder = ask(server.id(), &trace, &[]);
            wait_for_recording(server.id());
            stop(recorder);
            assert_eq!(report_of(&trace).json["trace"]["attached"], true);
        }
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(requests.join().expect("no request failed") > 10);
    });
    let _ = server.kill();
    let _ = server.wait();
}
