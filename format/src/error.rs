//! The error type for trace files. Each error has a kind.
//!
//! If a part of a trace is damaged, the reader returns no error and counts the damage in
//! [`Damage`](crate::Damage). An `Error` means that the reader cannot read anything, or that the writer
//! cannot continue to write.

use std::{fmt, io, path::Path};

/// The kind of an error, for a caller that handles some kinds itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system reported an error; the message names the file and the reason.
    Io,
    /// The file holds no bytes.
    Empty,
    /// The first bytes of the file are not the first bytes of a trace.
    NotATrace,
    /// The file ends inside its first page.
    TruncatedHeader,
    /// The file has a format version that is newer than this edleak.
    NewerVersion,
    /// The writer has no room for the trace: the disk is full, or the file has reached a quota or the file
    /// size limit. The trace written so far stays readable.
    NoSpace,
    /// Another writer is writing this file.
    InUse,
    /// A file with this name already exists.
    AlreadyExists,
    /// Another process truncated the file while the writer was writing it. The trace has lost the data after
    /// the new end of the file.
    CutOff,
    /// The requested capacity is too small for a trace with this number of sites.
    CapacityTooSmall,
    /// The records of modules, sites, stacks and symbols need more than a third of the capacity.
    CatalogTooLarge,
    /// A caller passed invalid data to the writer: a tick that is not higher than the previous tick, fewer
    /// sites than in the previous slice, or an id that is not below the limit.
    InvalidInput,
    /// The checksum of a block was right when the reader opened the trace, and was wrong when the reader read
    /// the block.
    ChangedWhileRead,
}

/// The reason why a trace cannot be read or written, and the remedy.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), remedy: None, source: None }
    }

    /// Makes an `Error` from an error of the operating system. If the disk has no room, the kind is
    /// `NoSpace`: the recording then ends as usual and keeps its data.
    pub(crate) fn io(what: &str, source: io::Error) -> Error {
        let (kind, remedy) = match source.raw_os_error() {
            Some(libc::EFBIG) => (ErrorKind::NoSpace, Some("raise `ulimit -f`, or use a smaller --size")),
            Some(libc::ENOSPC | libc::EDQUOT) => {
                (ErrorKind::NoSpace, Some("free some space, or use a smaller --size"))
            }
            _ => (ErrorKind::Io, None),
        };
        Error {
            kind,
            message: format!("{what}: {source}"),
            remedy: remedy.map(str::to_owned),
            source: Some(source),
        }
    }

    /// Adds the remedy to the error.
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// Puts the caller's context in front of the message: "failed to open trace `app.edl`".
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, without the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The action with which the user can solve the problem; `None`: edleak knows no such action.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The error number of the operating system, if the operating system reported the error.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

pub(crate) fn opening(path: &Path) -> String {
    format!("failed to open trace `{}`", path.display())
}

pub(crate) fn writing(path: &Path) -> String {
    format!("failed to write trace `{}`", path.display())
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // The message already contains the text of the error that caused this error. If this function also
        // returned that error, a program that prints an error and all its sources would print the text twice.
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_its_own_kind_and_says_what_to_do() {
        for errno in [libc::ENOSPC, libc::EFBIG, libc::EDQUOT] {
            let error = Error::io("cannot grow", io::Error::from_raw_os_error(errno));
            assert_eq!(error.kind(), ErrorKind::NoSpace);
            assert!(error.to_string().ends_with("use a smaller --size)"));
        }
        let error = Error::io("cannot read", io::Error::from_raw_os_error(libc::EIO));
        assert_eq!(error.kind(), ErrorKind::Io);
    }

    #[test]
    fn context_comes_first() {
        let error = Error::new(ErrorKind::Empty, "the file is empty").context("failed to open trace `a`");
        assert_eq!(error.to_string(), "failed to open trace `a`: the file is empty");
    }
}
