//! The result of a run: the finished traces, and the failures to write traces.

use crate::error::Error;
use crate::recording::Summary;
use crate::sys::own_child::Ended;
use crate::sys::say::say;
use std::io;
use std::path::{Path, PathBuf};

/// A failure to create a trace or to write into it.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// The path of the trace.
    pub(crate) path: PathBuf,
    /// The error, with the reason and the remedy.
    pub(crate) error: Error,
}

/// The result of a run.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The exit status or the signal with which the root process ended; `None`: the root process still runs.
    pub ended: Option<Ended>,
    /// The finished traces; the root's trace is the last.
    pub summaries: Vec<Summary>,
    /// The failures to write traces; each failure is listed once. The collector has already printed every
    /// failure of this list. A failure to write a trace does not disturb the target.
    pub(crate) failures: Vec<Failure>,
}

impl Outcome {
    /// Stores a failure for the outcome, and prints the failure immediately, because the program may run on
    /// for weeks. If the same failure occurs again, the collector does not print it again.
    pub(super) fn fail(&mut self, path: &Path, error: Error) {
        let failure = Failure { path: path.to_owned(), error };
        if !self.failures.contains(&failure) {
            say(format_args!("the program is not disturbed, but {}", failure.error));
            self.failures.push(failure);
        }
    }
}

/// The error for a trace that edleak could not write to its end. `is_in_memory` means that the file of the
/// trace contains no slice.
pub(super) fn unwritten(error: &edleak_format::Error, is_in_memory: bool) -> Error {
    let remedy = match is_in_memory {
        true => "record again into another directory",
        false => "the slices so far can be read; record again",
    };
    Error::output(error, remedy)
}

/// The error for a session that edleak could not create. Without a free session, the next program that the
/// target executes may have no recording.
pub(super) fn no_session(error: &io::Error) -> Error {
    Error::system("the program that it executes next may not be recorded", error, "see `ulimit -a`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_failure_is_kept_once() {
        let mut outcome = Outcome::default();
        for errno in [libc::EMFILE, libc::EMFILE, libc::ENOMEM, libc::EMFILE] {
            outcome.fail(Path::new("a.edl"), no_session(&io::Error::from_raw_os_error(errno)));
        }
        outcome.fail(Path::new("b.edl"), no_session(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert_eq!(outcome.failures.len(), 3, "{:?}", outcome.failures);
        assert_eq!(outcome.failures[0].error.remedy(), Some("raise `ulimit -n`"));
    }
}
