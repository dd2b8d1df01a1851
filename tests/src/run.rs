//! Runs a program with a time limit and collects its output.

#![allow(unsafe_code)] // calls kill(2), and runs a step between fork and exec

use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

/// The longest time that a test waits for a program. Every program of the tests ends in less than 120 s, even
/// on a loaded machine. So a test whose program runs longer has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// The exit code and the output of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The exit code of the program; 128 + N, as in a shell, if a signal N killed the program.
    pub code: i32,
    /// The program's standard output.
    pub stdout: String,
    /// The program's standard error.
    pub stderr: String,
}

impl Outcome {
    /// The lines of standard error that edleak's programs did not write.
    pub fn stderr_of_target(&self) -> String {
        let ours = |line: &&str| !line.starts_with("edleak");
        self.stderr.lines().filter(ours).flat_map(|line| [line, "\n"]).collect()
    }
}

/// Runs `command` to its end; standard input is empty. If the command does not end within [`DEADLINE`], `run`
/// kills the command and panics.
pub fn run(command: &mut Command) -> Outcome {
    run_with_input(command, b"")
}

/// Runs `command` to its end with `input` as its standard input. If the command does not end within
/// [`DEADLINE`], `run_with_input` kills the command and panics.
pub fn run_with_input(command: &mut Command, input: &[u8]) -> Outcome {
    Running::start(command, input).finish()
}

/// A running program that has its own process group. If the `Running` is dropped before the program ends, the
/// whole process group is killed.
pub struct Running {
    child: Child,
    description: String,
    started: Instant,
    stdout: Output,
    stderr: Output,
    is_reaped: bool,
}

impl Running {
    /// Starts `command` with `input` as its standard input.
    pub fn start(command: &mut Command, input: &[u8]) -> Running {
        let description = format!("{command:?}");
        command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // SAFETY: the child makes only system calls between fork and exec.
        unsafe { command.pre_exec(as_from_a_terminal) };
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {description}: {error}"));
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            // If a program ends before it has read all its input, the write fails. The test ignores the
            // failed write.
            std::thread::spawn(move || stdin.write_all(&input));
        }
        let stdout = Output::read(child.stdout.take().expect("piped above"));
        let stderr = Output::read(child.stderr.take().expect("piped above"));
        Running { child, description, started: Instant::now(), stdout, stderr, is_reaped: false }
    }

    /// The process ID.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Sends `signal` to the process, but not to its group.
    pub fn signal(&self, signal: i32) {
        // SAFETY: `kill` takes no pointers; the child is not reaped, so its ID still belongs to it.
        unsafe { libc::kill(self.pid(), signal) };
    }

    /// Waits until standard output or standard error contains `text`. Panics with all output if the program
    /// ends without `text`.
    pub fn wait_for_text(&mut self, text: &str) {
        let description = self.description.clone();
        wait_for(&format!("`{text}` from {description}"), || {
            let is_open = [self.stdout.collect_now(), self.stderr.collect_now()].contains(&true);
            let (stdout, stderr) = (self.stdout.text(), self.stderr.text());
            let is_there = stdout.contains(text) || stderr.contains(text);
            assert!(is_there || is_open, "{description} ended without `{text}`: {stdout}{stderr}");
            is_there
        });
    }

    /// Waits for the end of the program.
    pub fn finish(mut self) -> Outcome {
        let limit = self.started + DEADLINE;
        // When the program ends, the kernel closes its pipes. So `finish` reads the pipes to their end, and
        // then waits for the exit code.
        let in_time = self.stdout.collect_until(limit) && self.stderr.collect_until(limit);
        if !in_time {
            panic!(
                "{} did not end within {DEADLINE:?}\nstdout: {}\nstderr: {}",
                self.description,
                self.stdout.text(),
                self.stderr.text()
            );
        }
        let mut status = None;
        wait_for(&format!("the end of {}", self.description), || {
            status = self.child.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        self.is_reaped = true;
        let code = exit_code(status.expect("waited for"));
        Outcome { code, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_reaped {
            // SAFETY: `kill` takes no pointers. The process group contains only the child and its
            // descendants, because `start` made the group for the child.
            unsafe { libc::kill(-self.pid(), libc::SIGKILL) };
            let _ = self.child.wait();
        }
    }
}

/// Makes the environment of the tested program independent of how the tests were started. Makes exec close
/// all descriptors except standard input, output and error. Resets signals that are ignored because a shell's
/// background job or nohup started the tests.
fn as_from_a_terminal() -> std::io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT] {
        // SAFETY: the call sets the default action, and installs no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: `close_range` takes no pointers. With CLOSE_RANGE_CLOEXEC, the kernel closes the descriptors
    // only at exec, because the standard library still uses one of them until then.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) };
    // A kernel before 5.11 does not know the flag CLOSE_RANGE_CLOEXEC, so inherited descriptors stay open. If
    // the tested program inherits an open descriptor, the test `mirror` fails.
    Ok(())
}

/// The exit code as a shell reports it: 128 + N if signal N killed the program.
pub fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).expect("exited or killed")
}

/// Reports that this machine cannot run a test, for the reason `why`. In CI, `cannot_run` fails the test
/// instead, because CI must run every test.
pub fn cannot_run(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "CI must run every test: {why}");
    eprintln!("not run: {why}");
}

/// Copies a program that a test will execute. The program `cp` makes the copy. If the test process made the
/// copy, a child that another test starts at the same time could inherit the descriptor for writing. While
/// this descriptor is open, no process can execute the copy.
pub fn copy_program(from: &Path, to: &Path) {
    let copied = run(Command::new("cp").arg("--preserve=mode").arg(from).arg(to));
    assert_eq!(copied.code, 0, "{}", copied.stderr);
}

/// Waits until `is_true` returns true. Panics after [`DEADLINE`].
pub fn wait_for(what: &str, mut is_true: impl FnMut() -> bool) {
    let limit = Instant::now() + DEADLINE;
    while !is_true() {
        assert!(Instant::now() < limit, "waited {DEADLINE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// One output pipe of a program, which a thread of the test process reads.
struct Output {
    chunks: mpsc::Receiver<Vec<u8>>,
    bytes: Vec<u8>,
}

impl Output {
    fn read(mut pipe: impl Read + Send + 'static) -> Output {
        let (sender, chunks) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 16384];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                if sender.send(buffer[..n].to_vec()).is_err() {
                    return;
                }
            }
        });
        Output { chunks, bytes: Vec::new() }
    }

    /// Takes the output that the reading thread has got from the pipe so far, without waiting. Returns
    /// `false` at the end of the pipe.
    fn collect_now(&mut self) -> bool {
        loop {
            match self.chunks.try_recv() {
                Ok(chunk) => self.bytes.extend(chunk),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    /// Takes all output up to the end of the pipe. Returns `false` if the time `limit` is reached before the
    /// end of the pipe.
    fn collect_until(&mut self, limit: Instant) -> bool {
        loop {
            match self.chunks.recv_timeout(limit.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.bytes.extend(chunk),
                Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_come_back() {
        let outcome = run_with_input(Command::new("sh").args(["-c", "cat; echo no >&2; exit 7"]), b"yes");
        assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (7, "yes", "no\n"));
    }

    #[test]
    fn death_by_signal_is_128_and_the_signal() {
        assert_eq!(run(Command::new("sh").args(["-c", "kill -9 $$"])).code, 137);
    }

    #[test]
    fn our_own_lines_are_left_out_of_the_targets() {
        let stderr = "edleak-record: recording\ntheirs\nedleak-record: done\n".to_owned();
        assert_eq!(Outcome { code: 0, stdout: String::new(), stderr }.stderr_of_target(), "theirs\n");
    }
}
