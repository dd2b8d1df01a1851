//! `doctor`: prints what the collector's probes found, and records a short program as a trial.

use crate::args::DoctorArgs;
use crate::embedded::LIBRARY;
use edleak_collector::doctor::{Finding, State, examine};
use edleak_collector::start::check::check_program;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

/// Runs all probes. The exit code is 1 if the probes found something that prevents a recording.
pub(crate) fn run(args: &DoctorArgs) -> ExitCode {
    let mut findings = examine(Some(LIBRARY), args.program.as_deref());
    // If a probe already shows that a recording fails, skip the trial: it would fail, too.
    if !findings.iter().any(|finding| finding.state == State::Bad && finding.subject != "target") {
        findings.push(trial());
    }
    let in_the_way = findings.iter().filter(|finding| finding.state == State::Bad).count();
    let mut text: String = findings.iter().map(lines).collect();
    text.push_str(&match in_the_way {
        0 => "no problem found\n".to_owned(),
        1 => "1 problem prevents a recording\n".to_owned(),
        count => format!("{count} problems prevent a recording\n"),
    });
    let _ = io::stdout().write_all(text.as_bytes());
    if in_the_way == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One line with the result of a probe, and a second line with the remedy if there is one.
fn lines(finding: &Finding) -> String {
    let Finding { subject, state, what, remedy } = finding;
    let mark = match state {
        State::Good => "ok",
        State::Note => "note",
        State::Bad => "BAD",
    };
    let remedy = if remedy.is_empty() { String::new() } else { format!("{:17}remedy: {remedy}\n", "") };
    format!("{mark:<5}{subject:<12}{what}\n{remedy}")
}

/// Records a short run of a program that every system has. The trace is written to the directory for
/// temporary files.
fn trial() -> Finding {
    const SUBJECT: &str = "trial";
    let Some(program) =
        ["/bin/true", "/usr/bin/true", "/bin/sh"].into_iter().find(|path| is_recordable(path))
    else {
        let what = "not made: neither /bin/true nor /bin/sh is a dynamically linked program here".to_owned();
        return Finding { subject: SUBJECT, state: State::Note, what, remedy: String::new() };
    };
    let trace = std::env::temp_dir().join(format!(".edleak-doctor-trial-{}.edl", std::process::id()));
    let own = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(own);
    command.arg("-q").arg("-o").arg(&trace).args(["--", program, "-c", ":"]);
    let output = command.stdin(Stdio::null()).output();
    let has_trace = std::fs::remove_file(&trace).is_ok();
    match output {
        Err(error) => {
            Finding::bad(SUBJECT, format!("edleak-record cannot be started: {error}"), "install it again")
        }
        Ok(output) if output.status.success() && has_trace => {
            let what = format!("`{program}` was recorded");
            Finding { subject: SUBJECT, state: State::Good, what, remedy: String::new() }
        }
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let line = text.lines().last().unwrap_or("no trace was written");
            let remedy = "do as the message says, then run `edleak-record doctor` again";
            Finding::bad(SUBJECT, line.strip_prefix("edleak-record: ").unwrap_or(line), remedy)
        }
    }
}

fn is_recordable(path: &str) -> bool {
    check_program(path.as_ref(), None).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_has_a_line_and_its_remedy_another() {
        let bad = lines(&Finding::bad("memfd", "no memory", "allow it"));
        assert_eq!(bad, "BAD  memfd       no memory\n                 remedy: allow it\n");
        let good =
            Finding { subject: "limits", state: State::Good, what: "fine".into(), remedy: String::new() };
        assert_eq!(lines(&good), "ok   limits      fine\n");
    }
}
