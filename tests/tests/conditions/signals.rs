//! Tests edleak-record when it is started with ignored or blocked signals, and in different kinds of terminal
//! sessions.

use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Outcome, Running, run, wait_for};
use edleak_tests::temp::TempDir;
use std::fs::File;
use std::io::Read;
use std::os::fd::FromRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

/// Makes a command that starts `command` with `signal` ignored.
fn ignoring(command: &Command, signal: &str) -> Command {
    let mut shell = Command::new("python3");
    let script = "import os, signal, sys\nsignal.signal(getattr(signal, sys.argv[1]), signal.SIG_IGN)\n\
                  os.execvp(sys.argv[2], sys.argv[2:])";
    shell.args(["-c", script, signal]).arg(command.get_program()).args(command.get_args());
    shell
}

/// A shell script that prints which signals it ignores, from /proc, and exits with 7.
const PRINT_IGNORED: [&str; 2] = ["-c", "grep SigIgn /proc/self/status; exit 7"];

#[test]
fn a_recorder_started_with_sigchld_ignored_sees_the_end_of_its_target() {
    let dir = TempDir::new("sigchld");
    let command = Recorder::new("sigchld").command(&dir.join("t.edl"), "sh", PRINT_IGNORED);
    let recorded = run(&mut ignoring(&command, "SIGCHLD"));
    assert_eq!(recorded.code, 7, "{recorded:?}");
}

#[test]
fn a_target_gets_the_dispositions_that_its_recorder_inherited() {
    let dir = TempDir::new("dispositions");
    for signal in ["SIGCHLD", "SIGPIPE", "SIGBUS", "SIGXFSZ", "SIGHUP", "SIGUSR1"] {
        let plain = run(&mut ignoring(Command::new("sh").args(PRINT_IGNORED), signal));
        let command = Recorder::new("dispositions").command(&dir.join("t.edl"), "sh", PRINT_IGNORED);
        let recorded = run(&mut ignoring(&command, signal));
        assert_eq!(recorded.stdout, plain.stdout, "{signal}");
        assert!(plain.stdout.contains("SigIgn"), "{plain:?}");
    }
}

/// If SIGCHLD is ignored, edleak-record must still pass signals on, and only to its target.
#[test]
fn a_recorder_started_with_sigchld_ignored_passes_signals_on() {
    let dir = TempDir::new("sigchld-term");
    let script = "trap 'echo told; exit 3' TERM; echo started; while :; do sleep 0.05; done";
    let command = Recorder::new("sigchld").command(&dir.join("t.edl"), "bash", ["-c", script]);
    let mut running = Running::start(&mut ignoring(&command, "SIGCHLD"), b"");
    running.wait_for_text("started");
    running.signal(libc::SIGTERM);
    let outcome = running.finish();
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.stdout.contains("told"), "{outcome:?}");
}

/// Opens a terminal and starts `command` as the leader of a session on it. Returns the master side of the
/// terminal and the started process.
fn start_on_terminal(command: &mut Command) -> (File, Child) {
    let (mut master, mut slave) = (-1, -1);
    let nothing = std::ptr::null_mut();
    // SAFETY: the call passes writable memory for two descriptors, and null for the name, the settings and
    // the size.
    let made =
        unsafe { libc::openpty(&raw mut master, &raw mut slave, nothing, nothing.cast(), nothing.cast()) };
    assert_eq!(made, 0, "a terminal can be had");
    let make_leader = move || {
        // SAFETY: the child makes only a system call between fork and exec. The child needs only the slave
        // side of the terminal, so it may close the master side.
        unsafe { libc::close(master) };
        // SAFETY: the child makes only system calls between fork and exec. `slave` is a descriptor of the
        // terminal.
        unsafe { libc::login_tty(slave) };
        Ok(())
    };
    // SAFETY: the child makes only system calls.
    unsafe { command.pre_exec(make_leader) };
    let child = command.spawn().expect("it starts");
    // SAFETY: the call closes the descriptor of this process only. The child has its own copy of the
    // descriptor.
    unsafe { libc::close(slave) };
    // SAFETY: the descriptor `master` is new, and no other code uses it.
    (unsafe { File::from_raw_fd(master) }, child)
}

/// Reads the program's output on the terminal until it contains `end`, or until the output ends.
fn read_until(terminal: &mut File, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    // If the other side of the terminal is closed, the read gives the error EIO.
    while let Ok(read) = terminal.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        if read == 0 || text.contains(end) {
            break;
        }
    }
    text
}

fn recorded_leader(dir: &TempDir, arguments: &[&str]) -> Command {
    Recorder::new("leader").command(&dir.join("t.edl"), programs().binary("session_leader"), arguments)
}

#[test]
fn a_target_leads_its_session_and_has_its_terminal_as_without_a_recorder() {
    let dir = TempDir::new("leader");
    for mut command in [Command::new(programs().binary("session_leader")), recorded_leader(&dir, &[])] {
        let (mut terminal, mut child) = start_on_terminal(&mut command);
        let said = read_until(&mut terminal, "\u{0}");
        assert!(said.contains("session 1 group 1 terminal 1 foreground 1"), "{command:?}: {said}");
        assert_eq!(child.wait().expect("it is ours").code(), Some(0), "{said}");
    }
}

#[test]
fn a_target_that_leads_a_session_is_hung_up_with_its_terminal() {
    let dir = TempDir::new("hangup");
    let file = dir.join("hung-up");
    let mut command = recorded_leader(&dir, &["wait"]);
    let (mut terminal, mut child) = start_on_terminal(command.env("HUP_FILE", &file));
    let said = read_until(&mut terminal, "READY");
    assert!(said.contains("READY"), "{said}");
    drop(terminal);
    let ended = || child.try_wait().expect("it is ours").map(|status| status.code());
    let mut status = None;
    let mut ended = ended;
    wait_for("the end of the recording", || {
        status = ended();
        status.is_some()
    });
    assert_eq!(status, Some(Some(9)), "the program's exit code");
    assert_eq!(std::fs::read_to_string(&file).expect("it was told"), "HUNG-UP");
}

fn leads(command: &Command) -> Outcome {
    let mut leader = Command::new("setsid");
    run(leader.arg("--wait").arg(command.get_program()).args(command.get_args()))
}

#[test]
fn a_target_without_a_terminal_leads_its_session_as_without_a_recorder() {
    let dir = TempDir::new("no-terminal");
    let plain = leads(&Command::new(programs().binary("session_leader")));
    assert!(plain.stdout.contains("session 1 group 1 terminal 0"), "{plain:?}");
    assert_eq!(leads(&recorded_leader(&dir, &[])).stdout, plain.stdout);
}

/// A target that is no session leader without edleak must be no session leader when it is recorded.
#[test]
fn a_target_in_the_session_of_another_stays_there() {
    let dir = TempDir::new("no-leader");
    let plain = run(&mut Command::new(programs().binary("session_leader")));
    assert!(plain.stdout.contains("session 0"), "{plain:?}");
    let recorded = run(&mut recorded_leader(&dir, &[]));
    assert!(recorded.stdout.contains("session 0"), "{recorded:?}");
    assert!(Path::new(&dir.join("t.edl")).exists());
}
