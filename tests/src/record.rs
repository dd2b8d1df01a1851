//! Records a program into a temporary trace and analyzes the trace.

use crate::report::Report;
use crate::run::{Outcome, Running};
use crate::temp::TempDir;
use crate::tools::tools;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Greatest share of slices that the recorder may lose. If the machine gave the recorder no processor time
/// for a longer part of the record, the verdicts may be undecided, so the program is recorded again.
const MOST_LOST: f64 = 0.05;
/// How many times a program is recorded at most. If the recorder lost too many slices every time, the test
/// uses the last recording.
const MOST_RECORDINGS: usize = 3;

/// A finished recording.
#[derive(Debug)]
pub struct Recording {
    /// The exit code and the output of edleak-record.
    pub outcome: Outcome,
    /// The path of the trace.
    pub trace: PathBuf,
    /// The directory that contains the trace.
    pub dir: TempDir,
}

/// The settings of a recording.
#[derive(Debug, Clone)]
pub struct Recorder {
    name: String,
    options: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<PathBuf>,
}

impl Recorder {
    /// A recorder with a period of 50 ms for the test `name`. `EDLEAK_RECORD_OPTIONS` adds options to all
    /// recordings, for example to run the same tests with `--watch *`.
    pub fn new(name: &str) -> Recorder {
        let mut options = vec!["--period".to_owned(), "50ms".to_owned()];
        let more = std::env::var("EDLEAK_RECORD_OPTIONS").unwrap_or_default();
        options.extend(more.split_whitespace().map(str::to_owned));
        Recorder { name: name.to_owned(), options, env: Vec::new(), cwd: None }
    }

    /// Adds options for edleak-record. If the added options contain `--period`, it replaces the default
    /// period of 50 ms.
    pub fn options<S: AsRef<str>>(mut self, options: impl IntoIterator<Item = S>) -> Recorder {
        let options: Vec<_> = options.into_iter().map(|option| option.as_ref().to_owned()).collect();
        if options.iter().any(|option| option == "--period") {
            self.options.retain(|option| option != "--period" && option != "50ms");
        }
        self.options.extend(options);
        self
    }

    /// Sets an environment variable for edleak-record and the target.
    pub fn env(mut self, name: &str, value: &str) -> Recorder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets the working directory of edleak-record and the target.
    pub fn cwd(mut self, dir: &Path) -> Recorder {
        self.cwd = Some(dir.to_path_buf());
        self
    }

    /// The command that records `program` into `trace`.
    pub fn command<S: AsRef<OsStr>>(
        &self,
        trace: &Path,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(&tools().record);
        command.arg("-o").arg(trace).args(&self.options).arg("--").arg(program).args(args);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        command
    }

    /// Records `program` until it ends.
    pub fn record<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Recording {
        self.record_with_input(program, args, b"")
    }

    /// Records `program` until it ends, with `input` as its standard input.
    pub fn record_with_input<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Recording {
        let args: Vec<S> = args.into_iter().collect();
        let record = || {
            let dir = TempDir::new(&self.name);
            let trace = dir.join("trace.edl");
            let outcome =
                Running::start(&mut self.command(&trace, program.as_ref(), args.iter()), input).finish();
            Recording { outcome, trace, dir }
        };
        let mut recording = record();
        for _ in 1..MOST_RECORDINGS {
            if lost_share(&recording.outcome.stderr) <= MOST_LOST {
                break;
            }
            eprintln!("recorded again: {}", recording.outcome.stderr);
            recording = record();
        }
        recording
    }
}

/// The share of the slices that the recorder lost, from its summary: `edleak-record: 42 slices of 2 sites in
/// 2.3 s; trace.edl is 5.4 KiB, 5 lost slices; …`. 0 if it lost no slice, or if there is no summary.
fn lost_share(stderr: &str) -> f64 {
    let number_before = |words: &str| -> Option<f64> {
        let before = stderr.split_once(words)?.0;
        before.rsplit([' ', '\n']).next()?.replace(',', "").parse().ok()
    };
    match (number_before(" lost slice"), number_before(" slice")) {
        (Some(lost), Some(taken)) => lost / (lost + taken),
        _ => 0.0,
    }
}

impl Recording {
    /// The report of all sites in the trace.
    pub fn all_sites(&self) -> Report {
        Report::of(&self.trace, &["--all", "--min-class", "constant"])
    }

    /// The report with edleak-analyze's default options.
    pub fn leaks(&self) -> Report {
        Report::of(&self.trace, &[])
    }
}

#[cfg(test)]
mod tests {
    use super::lost_share;

    #[test]
    fn lost_slices_are_read_from_the_summary() {
        let summary = |lost: &str| {
            format!(
                "edleak-record: recording ./a (pid 7) into t.edl\n\
                 edleak-record: 1,140 slices of 2 sites in 2.3 s; t.edl is 5.4 KiB{lost}; next: …\n"
            )
        };
        assert_eq!(lost_share(&summary(", 60 lost slices")), 0.05);
        assert_eq!(lost_share(&summary(", 1 lost slice")), 1.0 / 1141.0);
        assert_eq!((lost_share(&summary("")), lost_share("")), (0.0, 0.0));
    }
}
