//! Tests processes into which `edleak-record --pid` cannot load its library. edleak-record must print the
//! reason and the remedy, and must not change the process.

mod namespaces;
mod permission;
mod state;
mod system_calls;
mod time;

use edleak_tests::fed::Fed;
use edleak_tests::ledger_program::recorder;
use edleak_tests::programs::programs;
use edleak_tests::run::{Outcome, cannot_run, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Starts tests/programs/attach_answer.c, which answers each byte of its input.
fn answering(kind: &str) -> Fed {
    Fed::start(&programs().binary("attach_answer"), &[kind], "ready")
}

/// Options for `setpriv` that run a program as the user nobody.
const AS_NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// A copy of edleak-record in a directory that every user may read and write.
struct Shared {
    dir: TempDir,
    record: PathBuf,
}

impl Shared {
    fn new(name: &str) -> Shared {
        let dir = TempDir::new(name);
        let open = |path: &Path| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("ours");
        };
        open(dir.path());
        for program in [&tools().record, &tools().preload, &programs().binary("attach_answer")] {
            let copy = dir.join(program.file_name().expect("a file"));
            edleak_tests::run::copy_program(program, &copy);
            open(&copy);
        }
        Shared { record: dir.join("edleak-record"), dir }
    }

    /// The arguments of edleak-record for a recording of the process `pid` into the shared directory.
    fn arguments(&self, pid: u32) -> Vec<String> {
        let trace = self.dir.join("trace.edl").display().to_string();
        let record = self.record.display().to_string();
        [&record, "-o", &trace, "--attach-timeout", "3s", "--pid", &pid.to_string()].map(str::to_owned).into()
    }

    /// Starts tests/programs/attach_answer.c as the user nobody.
    fn as_nobody(&self, kind: &str) -> Fed {
        let program = self.dir.join("attach_answer").display().to_string();
        let arguments = [&AS_NOBODY[..], &[&program, kind]].concat();
        Fed::start(Path::new("setpriv"), &arguments, "ready")
    }
}

/// Whether this test runs as root. Tests that change users, namespaces or control groups need root.
fn is_root() -> bool {
    let is_root = run(Command::new("id").arg("-u")).stdout.trim() == "0";
    if !is_root {
        cannot_run("it needs root");
    }
    is_root
}

/// The files that a process has mapped, and a hash of the code in these files.
#[derive(PartialEq, Eq, Debug)]
struct Snapshot {
    files: Vec<String>,
    code: u64,
}

impl Snapshot {
    fn of(pid: u32) -> Snapshot {
        let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
        let files: Vec<String> = maps.lines().filter(|line| line.contains(" /")).map(str::to_owned).collect();
        let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("this user may trace it");
        let mut hasher = DefaultHasher::new();
        for line in files.iter().filter(|line| line.contains(" r-xp")) {
            let (start, end) =
                line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
            let number = |text| u64::from_str_radix(text, 16).expect("hexadecimal");
            let mut code = vec![0; (number(end) - number(start)) as usize];
            memory.read_exact_at(&mut code, number(start)).expect("mapped");
            code.hash(&mut hasher);
        }
        Snapshot { files, code: hasher.finish() }
    }
}

/// Checks that edleak-record refused a process: the exit code is 126, one line contains each of `texts` and a
/// remedy, and there is no trace.
fn is_refusal(outcome: &Outcome, trace: &Path, texts: &[&str]) {
    assert_eq!(outcome.code, 126, "{texts:?}: {}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    assert!(outcome.stderr.trim_end().ends_with(')'), "no remedy: {}", outcome.stderr);
    for text in texts {
        assert!(outcome.stderr.contains(text), "no `{text}` in {}", outcome.stderr);
    }
    assert!(!trace.exists(), "a refused recording leaves no trace");
}

/// Runs `command`, which starts edleak-record. Checks that edleak-record refuses the process, and leaves the
/// files and the code of the process unchanged.
fn refused_by(pid: u32, command: &mut Command, trace: &Path, texts: &[&str]) {
    let before = Snapshot::of(pid);
    let outcome = run(command);
    is_refusal(&outcome, trace, texts);
    assert!(before == Snapshot::of(pid), "{texts:?}: its code or its files have changed");
}

/// Checks that edleak-record refuses the process and leaves the process unchanged. edleak-record runs as the
/// user who runs the test.
fn refused(pid: u32, texts: &[&str]) {
    let dir = TempDir::new("attach-refused");
    let trace = dir.join("trace.edl");
    refused_by(pid, &mut recorder(pid, &trace, &["--attach-timeout", "3s"]), &trace, texts);
}

/// Checks that edleak-record refuses the answering program. The program must answer before and after the
/// refusal, and must end as usual.
fn refused_and_answers(mut program: Fed, texts: &[&str]) {
    assert_eq!(program.ask("a"), "a");
    refused(program.pid(), texts);
    assert_eq!(program.ask("b"), "b");
    assert_eq!(program.finish(), "sound\n");
}
