//! Controls the program tests/programs/idle_ledger.cpp. The program idle_ledger counts its own allocations in
//! a ledger, and a test records the program while it runs.

use crate::ledger::{Ledger, assert_equal, read_ledger};
use crate::programs::programs;
use crate::report::{Report, Site};
use crate::run::{Outcome, Running, run, wait_for};
use crate::temp::TempDir;
use crate::tools::tools;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A running program that counts its own allocations. The test sends commands to the program.
pub struct LedgerProgram {
    child: Child,
    pid: u32,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl LedgerProgram {
    /// Starts the program with the preload library. The library is idle: the library counts nothing until a
    /// recording begins.
    pub fn start_idle(threads: u32) -> LedgerProgram {
        let mut command = Command::new(&tools().record);
        command.args(["--idle", "--"]).arg(programs().binary("idle_ledger")).arg(threads.to_string());
        LedgerProgram::start(command)
    }

    /// Starts the program without the preload library.
    pub fn start_plain(threads: u32) -> LedgerProgram {
        let mut command = Command::new(programs().binary("idle_ledger"));
        command.arg(threads.to_string());
        LedgerProgram::start(command)
    }

    /// Starts another program that takes the same commands as tests/programs/idle_ledger.cpp, without the
    /// preload library.
    pub fn start_program(program: &Path, threads: u32) -> LedgerProgram {
        let mut command = Command::new(program);
        command.arg(threads.to_string());
        LedgerProgram::start(command)
    }

    /// Starts the program with a command that executes the program in its own process (exec).
    pub fn start(mut command: Command) -> LedgerProgram {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("edleak-record starts");
        let commands = child.stdin.take().expect("piped above");
        let answers = BufReader::new(child.stdout.take().expect("piped above"));
        LedgerProgram { pid: child.id(), child, commands, answers }
    }

    /// Starts the program with a command that runs the program in a child process. The program is the only
    /// child of the command, and the first process of a PID namespace.
    pub fn start_in_namespace(command: Command) -> LedgerProgram {
        let mut target = LedgerProgram::start(command);
        // Wait for the program's answer to `pause`: after the answer, the program has certainly started.
        target.tell("pause");
        let parent = target.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let children = children.expect("the command waits for its child");
        target.pid = children.trim().parse().expect("one child");
        target
    }

    /// The process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a command, and returns the program's answer without its last line, `done`.
    pub fn tell(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").expect("the program reads");
        let mut answer = String::new();
        loop {
            let before = answer.len();
            let read = self.answers.read_line(&mut answer).expect("the program answers in UTF-8");
            assert!(read > 0, "the program ended at `{command}`: {:?}", self.child.try_wait());
            if &answer[before..] == "done\n" {
                answer.truncate(before);
                return answer;
            }
        }
    }

    /// Asks the program for its ledger.
    pub fn ledger(&mut self) -> Ledger {
        read_ledger(&self.tell("print"))
    }

    /// The number of sessions that the process has mapped, according to /proc/PID/maps.
    pub fn mapped_sessions(&self) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).expect("it runs");
        maps.lines().filter(|line| line.contains("edleak-session")).count()
    }
}

impl Drop for LedgerProgram {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command `edleak-record --pid PID` with a period of 20 ms.
pub fn recorder(pid: u32, trace: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(&tools().record);
    command.arg("-o").arg(trace).args(["--period", "20ms", "--pid", &pid.to_string()]).args(options);
    command
}

/// Starts edleak-record and waits until edleak-record has asked the process to begin the recording.
pub fn ask(pid: u32, trace: &Path, options: &[&str]) -> Running {
    let mut running = Running::start(&mut recorder(pid, trace, options), b"");
    running.wait_for_text(&format!("recording process {pid}"));
    running
}

/// Waits until `edleak-record sessions` lists the process.
pub fn wait_for_recording(pid: u32) {
    wait_for(&format!("the recording of process {pid}"), || {
        let sessions = run(Command::new(&tools().record).arg("sessions"));
        sessions.stdout.lines().any(|line| line.split_whitespace().any(|word| word == pid.to_string()))
    });
}

/// Ends a recording that must succeed.
pub fn stop(recorder: Running) -> Outcome {
    recorder.signal(libc::SIGINT);
    let outcome = recorder.finish();
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    outcome
}

/// The report of a trace. The report has every site, not only the leaks.
pub fn report_of(trace: &Path) -> Report {
    // The path of a program in a container does not exist here.
    let binaries = programs().binaries().to_str().expect("a target directory in UTF-8");
    Report::of(trace, &["--all", "--min-class", "constant", "--debug-dir", binaries])
}

/// Resets the ledger of a running program, and then records the program while it works. The counters of the
/// trace must equal the ledger. `options` are options of edleak-record.
pub fn next_recording_is_exact(target: &mut LedgerProgram, trace: &Path, options: &[&str]) {
    target.tell("pause");
    target.tell("reset");
    let recorder = ask(target.pid(), trace, options);
    target.tell("tick");
    target.tell("go");
    target.tell("pause");
    let ledger = target.ledger();
    stop(recorder);
    assert_equal(&report_of(trace), &ledger);
}

/// Records several phases of the program's work, one recording for each phase. The counters of each recording
/// must equal the ledger of the phase that was recorded. `check` is called twice for each recording: during
/// the recording without a report, and after the recording with its report.
pub fn phases_are_exact(
    mut target: LedgerProgram,
    cycles: usize,
    mut check: impl FnMut(&mut LedgerProgram, Option<&Report>),
) {
    let dir = TempDir::new("exact-phases");
    for cycle in 0..cycles {
        let trace = dir.join(format!("{cycle}.edl"));
        target.tell("go");
        target.tell("pause");
        target.tell("reset");
        let recorder = ask(target.pid(), &trace, &[]);
        check(&mut target, None);
        target.tell("tick");
        target.tell("go");
        // In some cycles, the sleep is so long that edleak-record raises the limits of the fast path, which
        // are 0 at the start of a recording. So some recordings use only the slow path, and other recordings
        // use both paths.
        std::thread::sleep(Duration::from_millis(20 * (cycle as u64 % 4)));
        target.tell("pause");
        let ledger = target.ledger();
        stop(recorder);
        let report = report_of(&trace);
        assert_equal(&report, &ledger);
        assert_eq!(report.json["trace"]["attached"], true);
        assert_eq!(report.json["trace"]["complete"], true);
        check(&mut target, Some(&report));
    }
}

/// Makes recordings that begin and end while all threads allocate. Before the end of some recordings, the
/// program frees every block. After the program has freed every block, each site must have as many frees as
/// allocations, and as many freed bytes as allocated bytes. Returns the standard error of edleak-record for
/// each recording.
pub fn cycles_under_load_are_exact(mut target: LedgerProgram, cycles: usize) -> Vec<String> {
    let dir = TempDir::new("cycles-under-load");
    target.tell("go");
    let mut told = Vec::new();
    for cycle in 0..cycles {
        let trace = dir.join(format!("{cycle}.edl"));
        let recorder = ask(target.pid(), &trace, &[]);
        wait_for_recording(target.pid());
        std::thread::sleep(Duration::from_millis(10 * (cycle as u64 % 5)));
        if cycle % 2 == 1 {
            // Every second recording ends while the threads allocate. If edleak did not reset a counter at
            // that moment, the counts of the next recording would be wrong.
            told.push(stop(recorder).stderr);
            std::fs::remove_file(&trace).expect("a recording writes its trace");
            continue;
        }
        target.tell("drain");
        told.push(stop(recorder).stderr);
        target.tell("go");
        let report = report_of(&trace);
        // Skip mapped memory: an allocator keeps the memory that it has mapped for itself. Such a site has
        // the kind `mapping` if the recording ended before the collector read the names of the allocator.
        let is_heap = |site: &&Site| !matches!(site.kind.as_str(), "allocator" | "mapping");
        for site in report.sites.iter().filter(is_heap) {
            let counts = &site.counts;
            let (allocated, freed) =
                ((counts.allocs, counts.allocated_bytes), (counts.frees, counts.freed_bytes));
            assert_eq!(allocated, freed, "cycle {cycle}: {site:?}");
        }
        let sites = ["site_malloc", "site_alloc"];
        let is_there = sites.iter().any(|site| report.sites_in(site).next().is_some());
        assert!(is_there, "cycle {cycle}: {}", report.describe());
        // Each cycle removes its trace, because many cycles would otherwise fill the disk.
        std::fs::remove_file(&trace).expect("a recording writes its trace");
    }
    told
}
