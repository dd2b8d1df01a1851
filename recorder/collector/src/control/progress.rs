//! The progress of a running recording. The control socket sends the progress as one line, as the answer to
//! the request `list`.

use crate::sys::shell;
use std::fmt;
use std::path::PathBuf;

/// The progress of a running recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Progress {
    /// The process ID of the target.
    pub pid: u32,
    /// Number of seconds since the recording began.
    pub seconds: u64,
    /// Number of slices taken so far.
    pub slices: u64,
    /// Number of sites seen so far.
    pub sites: usize,
    /// Number of watched stacks seen so far.
    pub stacks: usize,
    /// Number of sites that auto-watch watches because they look like leaks.
    pub picked: usize,
    /// The watch requests as the user wrote them; empty: there are no requests.
    pub watched: String,
    /// The path of the trace.
    pub trace: PathBuf,
    /// The target's command line.
    pub command: String,
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress { pid, seconds, slices, sites, stacks, picked, watched, trace, command } = self;
        write!(f, "{pid}\t{seconds}\t{slices}\t{sites}\t{stacks}\t{picked}")?;
        let printable = |text: &str| text.replace(char::is_control, "?");
        // The client opens the trace, so the path must keep all its bytes.
        let trace = shell::escaped(trace.as_os_str());
        write!(f, "\t{}\t{trace}\t{}", printable(watched), printable(command))
    }
}

impl Progress {
    /// Parses a line that [`fmt::Display`] wrote; `None`: the line does not have this form.
    pub fn parse(line: &str) -> Option<Progress> {
        let words: Vec<&str> = line.split('\t').collect();
        let &[pid, seconds, slices, sites, stacks, picked, watched, trace, command] = words.as_slice() else {
            return None;
        };
        Some(Progress {
            pid: pid.parse().ok()?,
            seconds: seconds.parse().ok()?,
            slices: slices.parse().ok()?,
            sites: sites.parse().ok()?,
            stacks: stacks.parse().ok()?,
            picked: picked.parse().ok()?,
            watched: watched.to_owned(),
            trace: shell::unescaped(trace).into(),
            command: command.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let progress = Progress {
            pid: 7,
            seconds: 90,
            slices: 82,
            sites: 12,
            stacks: 3,
            picked: 1,
            watched: String::new(),
            trace: OsStr::from_bytes(b"/tmp/a b\n\t\\'\xff.edl").into(),
            command: "./x a\tb".into(),
        };
        let read = Progress::parse(&progress.to_string()).expect("well-formed");
        assert_eq!(read, Progress { command: "./x a?b".into(), ..progress });
        assert_eq!(Progress::parse("7\t90"), None);
    }
}
