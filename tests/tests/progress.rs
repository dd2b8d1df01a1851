//! Tests when edleak-analyze shows its progress: on a terminal if the work takes more than a second, and
//! never in a pipe.

use edleak_tests::run::DEADLINE;
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const LINE: &str = r#"{"id":7,"period_s":1.0,"live_bytes":[0,96,192,288]}"#;

/// Makes a named pipe as the input of an analysis. The analysis waits until a writer opens the pipe.
fn pipe(dir: &TempDir) -> PathBuf {
    let pipe = dir.join("lines.jsonl");
    let made = Command::new("mkfifo").arg(&pipe).status().expect("mkfifo is part of coreutils");
    assert!(made.success());
    pipe
}

fn write_line(pipe: &Path) {
    std::fs::write(pipe, LINE).expect("the analysis reads");
}

#[test]
fn long_work_shows_itself_on_a_terminal() {
    let dir = TempDir::new("progress");
    let (pipe, seen) = (pipe(&dir), dir.join("seen"));
    // script(1) runs the command on a terminal and stores the output of the command in a file.
    let command = format!("'{}' '{}'", tools().analyze.display(), pipe.display());
    let mut script = Command::new("script")
        .args(["-qefc", &command])
        .arg(&seen)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("script is part of every Debian");
    let shown = || String::from_utf8_lossy(&std::fs::read(&seen).unwrap_or_default()).into_owned();
    let start = Instant::now();
    while !shown().contains("analyzing ") {
        assert!(start.elapsed() < DEADLINE, "no progress was shown: {}", shown());
        sleep(Duration::from_millis(20));
    }
    write_line(&pipe);
    script.wait().expect("it was started");
    let shown = shown();
    let report = shown.rfind("edleak: ").unwrap_or_else(|| panic!("no report in {shown}"));
    assert!(!shown[report..].contains("analyzing"), "the progress is gone before the report: {shown}");
}

#[test]
fn long_work_shows_nothing_in_a_pipe() {
    let dir = TempDir::new("progress-pipe");
    let pipe = pipe(&dir);
    let child = Command::new(&tools().analyze)
        .arg(&pipe)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("edleak-analyze was built");
    // Sleep longer than edleak-analyze waits before it prints its first line of progress.
    sleep(Duration::from_millis(1500));
    write_line(&pipe);
    let output = child.wait_with_output().expect("it was started");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(String::from_utf8_lossy(&output.stdout).contains("edleak: "));
}
