//! `edleak-record --pid` for a process without edleak's library: edleak-record loads the library into the
//! process, and redirects the process's malloc to the library.

use edleak_tests::ledger::assert_equal;
use edleak_tests::ledger_program::{
    LedgerProgram, ask, cycles_under_load_are_exact, recorder, report_of, stop,
};
use edleak_tests::programs::{programs, samples};
use edleak_tests::run::{Running, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Whether the entries of malloc have their original bytes: no two of them begin with the same jump.
fn code_is_original(pid: u32) -> bool {
    entries(pid) == entries(std::process::id())
}

/// The first bytes of malloc and its relatives in a process that has the same libc as this test.
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

fn phases_are_exact(threads: u32, cycles: usize) {
    let dir = TempDir::new("attach-exact");
    let mut target = LedgerProgram::start_plain(threads);
    for cycle in 0..cycles {
        let trace = dir.join(format!("{cycle}.edl"));
        target.tell("go");
        target.tell("pause");
        target.tell("reset");
        let recorder = ask(target.pid(), &trace, &[]);
        assert!(!code_is_original(target.pid()), "the jumps are there");
        target.tell("tick");
        target.tell("go");
        std::thread::sleep(std::time::Duration::from_millis(20 * (cycle as u64 % 4)));
        target.tell("pause");
        let ledger = target.ledger();
        stop(recorder);
        assert!(code_is_original(target.pid()), "the jumps are removed");
        assert_eq!(writable_code(target.pid()), [""; 0]);
        let report = report_of(&trace);
        assert_equal(&report, &ledger);
        assert_eq!(report.json["trace"]["attached"], true);
        assert_eq!(report.json["trace"]["complete"], true);
        assert_eq!(report.summary("unknown_frees"), 0);
    }
}

#[test]
fn counters_of_one_thread_equal_its_ledger_after_an_attach() {
    phases_are_exact(1, 4);
}

#[test]
fn counters_of_eight_threads_equal_their_ledger_after_an_attach() {
    phases_are_exact(8, 4);
}

#[test]
fn counters_of_64_threads_equal_their_ledger_after_an_attach() {
    phases_are_exact(64, 2);
}

/// The times in milliseconds for which a process stood still, in the messages of edleak-record.
fn stops_in(stderr: &str) -> Vec<f64> {
    let times = stderr.lines().filter_map(|line| line.split_once("stood still for "));
    times.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok()).collect()
}

fn tell_stops(name: &str, mut stops: Vec<f64>) {
    stops.sort_by(f64::total_cmp);
    let median = stops[stops.len() / 2];
    let longest = stops[stops.len() - 1];
    println!("{name}: {} stops, median {median:.1} ms, longest {longest:.1} ms", stops.len());
}

/// Returns the times in milliseconds for which the process stood still.
fn cycles_under_load(threads: u32, cycles: usize) -> Vec<f64> {
    let told = cycles_under_load_are_exact(LedgerProgram::start_plain(threads), cycles);
    let stops: Vec<f64> = told.iter().flat_map(|stderr| stops_in(stderr)).collect();
    assert_eq!(stops.len(), 2 * cycles, "one stop at the begin and one at the end");
    stops
}

#[test]
fn attaches_and_detaches_under_load_are_exact() {
    cycles_under_load(8, 10);
}

#[test]
#[ignore = "several minutes long; run it with --ignored"]
fn five_hundred_attaches_under_load_are_exact() {
    for threads in [1, 8, 64] {
        tell_stops(&format!("{threads} threads"), cycles_under_load(threads, 500));
    }
}

/// If edleak-record dies at any step, the process runs on, and the next recording is exact.
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
        target.tell("pause");
        target.tell("reset");
        let recorder = ask(target.pid(), &dir.join(format!("{step}-after.edl")), &[]);
        target.tell("tick");
        target.tell("go");
        target.tell("pause");
        let ledger = target.ledger();
        stop(recorder);
        assert_equal(&report_of(&dir.join(format!("{step}-after.edl"))), &ledger);
        assert!(code_is_original(target.pid()), "{step}");
    }
}

/// A program that prints a line when it is ready, and ends when its input ends.
struct Fed {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Fed {
    fn start(program: &Path, arguments: &[&str], ready: &str) -> Fed {
        let mut command = Command::new(program);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it tells that it is ready");
        assert_eq!(line.trim(), ready);
        Fed { child, input, output }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the input and returns the rest of the output.
    fn finish(mut self) -> String {
        drop(self.input.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("ours");
        assert!(status.success(), "{status}: {rest}");
        rest
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a thread of a process waits in this system call.
fn waits_in(pid: u32, number: libc::c_long) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
    text.split_whitespace().next() == Some(&number.to_string())
}

/// The thread that loads the library keeps its registers, its red zone, errno and its system call.
fn state_is_kept(kind: &str, number: libc::c_long, step: &str) {
    let dir = TempDir::new("attach-state");
    let mut program = Fed::start(&programs().binary("attach_state"), &[kind], "waiting");
    let pid = program.pid();
    wait_for("the system call", || waits_in(pid, number));
    let trace = dir.join("trace.edl");
    if step.is_empty() {
        // The program allocates nothing, so nothing is recorded.
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
        program.input.as_mut().expect("open").write_all(b"x").expect("it reads");
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

fn storm_stays_sound(arguments: &[&str], cycles: usize) -> Vec<f64> {
    let dir = TempDir::new("attach-storm");
    let program = Fed::start(&programs().binary("attach_storm"), arguments, "running");
    let mut stops = Vec::new();
    for cycle in 0..cycles {
        let options = ["--duration", "60ms", "--attach-timeout", "60s"];
        let outcome = run(&mut recorder(program.pid(), &dir.join(format!("{cycle}.edl")), &options));
        assert_eq!(outcome.code, 0, "cycle {cycle}: {}", outcome.stderr);
        stops.extend(stops_in(&outcome.stderr));
    }
    assert_eq!(program.finish(), "sound\n");
    stops
}

#[test]
fn program_under_a_storm_of_signals_stays_sound() {
    storm_stays_sound(&[], 10);
}

#[test]
fn program_that_forks_in_a_loop_stays_sound() {
    storm_stays_sound(&["forks"], 10);
}

#[test]
#[ignore = "several minutes long; run it with --ignored"]
fn five_hundred_attaches_in_a_storm_stay_sound() {
    tell_stops("signals", storm_stays_sound(&[], 500));
    tell_stops("forks", storm_stays_sound(&["forks"], 500));
}

/// A web server answers every request while recordings begin and end.
fn web_server_answers(cycles: usize) -> Vec<f64> {
    let dir = TempDir::new("attach-web");
    std::fs::write(dir.join("page"), "hello").expect("writable");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]);
    command.current_dir(dir.path()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut server = command.spawn().expect("python is installed");
    let mut line = String::new();
    BufReader::new(server.stdout.take().expect("piped")).read_line(&mut line).expect("it tells its port");
    let port = line.split("port ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("a port");
    let address = format!("127.0.0.1:{port}");
    let (is_over, answered) = (AtomicBool::new(false), AtomicU32::new(0));
    let (mut stops, mut recorded) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut stream = std::net::TcpStream::connect(&address).expect("the server listens");
                stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").expect("the server reads");
                let mut answer = String::new();
                stream.read_to_string(&mut answer).expect("the server answers");
                assert!(answer.ends_with("hello"), "{answer}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        for cycle in 0..cycles {
            let options = ["--duration", "50ms"];
            let outcome = run(&mut recorder(server.id(), &dir.join(format!("{cycle}.edl")), &options));
            stops.extend(stops_in(&outcome.stderr));
            recorded += usize::from(outcome.code == 0);
            // In 50 ms, a server on a busy machine may answer nothing.
            if outcome.code != 0 && !outcome.stderr.contains("nothing was recorded") {
                is_over.store(true, Ordering::Relaxed);
                panic!("cycle {cycle}: {}", outcome.stderr);
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(answered.into_inner() > 0 && 4 * recorded >= cycles, "{recorded} recordings of {cycles}");
    server.kill().expect("it runs");
    server.wait().expect("ours");
    stops
}

#[test]
fn web_server_answers_all_requests_while_recordings_attach_and_detach() {
    web_server_answers(8);
}

#[test]
#[ignore = "several minutes long; run it with --ignored"]
fn web_server_answers_all_requests_over_500_attaches() {
    tell_stops("python3", web_server_answers(500));
}

/// redis, whose malloc is a shared jemalloc, answers a benchmark while recordings attach and detach.
fn redis_answers(cycles: usize) -> Vec<f64> {
    let dir = TempDir::new("attach-redis");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port();
    let port = port.to_string();
    let mut server = Command::new("redis-server");
    server.args(["--port", &port, "--save", "", "--bind", "127.0.0.1"]).current_dir(dir.path());
    let mut server = server.stdout(Stdio::null()).spawn().expect("redis is installed");
    wait_for("redis", || std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_ok());
    let is_over = AtomicBool::new(false);
    let mut stops = Vec::new();
    let mut failure = None;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let mut benchmark = Command::new("redis-benchmark");
                benchmark.args(["-p", &port, "-n", "4000", "-c", "10", "-q", "-t", "set,get,lpush,hset"]);
                let outcome = run(&mut benchmark);
                assert_eq!(outcome.code, 0, "{}", outcome.stderr);
                assert!(!outcome.stdout.contains("rror"), "{}", outcome.stdout);
            }
        });
        for cycle in 0..cycles {
            let trace = dir.join(format!("{cycle}.edl"));
            let outcome = run(&mut recorder(server.id(), &trace, &["--duration", "100ms"]));
            stops.extend(stops_in(&outcome.stderr));
            if outcome.code != 0 || outcome.stderr.contains("not counted") {
                failure = Some(outcome.stderr);
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let is_running = server.try_wait().expect("ours").is_none();
    server.kill().expect("it runs");
    server.wait().expect("ours");
    assert!(is_running && failure.is_none(), "{failure:?}");
    stops
}

#[test]
fn redis_with_jemalloc_answers_a_benchmark_while_recordings_attach_and_detach() {
    redis_answers(6);
}

#[test]
#[ignore = "several minutes long; run it with --ignored"]
fn redis_answers_a_benchmark_over_500_attaches() {
    tell_stops("redis", redis_answers(500));
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

#[test]
fn process_that_cannot_be_attached_is_refused_with_the_reason() {
    let dir = TempDir::new("attach-refused");
    let refused = |pid: u32, why: &str| {
        let trace = dir.join("trace.edl");
        let outcome = run(&mut recorder(pid, &trace, &["--attach-timeout", "300ms"]));
        assert_eq!(outcome.code, 126, "{why}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(why) && outcome.stderr.contains('('), "{}", outcome.stderr);
        assert!(!trace.exists(), "a refused recording leaves no trace");
    };
    // A stopped process.
    let stopped = Fed::start(&programs().binary("attach_state"), &["read"], "waiting");
    let pid = stopped.pid() as i32;
    // SAFETY: this process has not waited for the child, so the ID still belongs to the child.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    wait_for("a stopped process", || {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
    });
    refused(stopped.pid(), "it is stopped (let it go on");
    // SAFETY: as above.
    unsafe { libc::kill(pid, libc::SIGCONT) };

    // A process that strace traces.
    let mut tracer = Command::new("strace");
    tracer.args(["-f", "-o", "/dev/null", "-p", &pid.to_string()]).stderr(Stdio::null());
    let mut tracer = tracer.spawn().expect("strace is installed");
    let status = format!("/proc/{pid}/status");
    wait_for("the tracer", || {
        std::fs::read_to_string(&status).is_ok_and(|text| !text.contains("TracerPid:\t0"))
    });
    refused(stopped.pid(), "`strace` (pid ");
    tracer.kill().expect("it runs");
    tracer.wait().expect("ours");

    // A static program, and a program with a sanitizer.
    let source = dir.join("wait.c");
    std::fs::write(&source, "#include <unistd.h>\nint main(void) { write(1, \"ready\\n\", 6); char c; read(0, &c, 1); return 0; }\n")
        .expect("writable");
    for (flag, why) in
        [("-static", "it is statically linked"), ("-fsanitize=address", "it is built with a sanitizer")]
    {
        let program = dir.join("wait");
        let built = run(Command::new("gcc").arg(flag).arg("-o").arg(&program).arg(&source));
        assert_eq!(built.code, 0, "{}", built.stderr);
        let waiting = Fed::start(&program, &[], "ready");
        refused(waiting.pid(), why);
    }
    let help = run(Command::new(&tools().record).arg("--help"));
    assert!(help.stdout.contains("--attach-timeout") && !help.stdout.contains("--die-at"));
}
