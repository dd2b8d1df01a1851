//! The error for a size, rate or duration that cannot be read. The message tells the user how to write the
//! value.

use std::fmt;

/// The error for a size, rate or duration that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: String,
}

/// The kind of value that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A size in bytes.
    Size,
    /// A size per unit of time.
    Rate,
    /// A span of time.
    Duration,
}

/// The result of a function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: remedy.into() }
    }

    /// The kind of value that was expected.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The first part of the message: why the value cannot be read.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Tells the user in which form to write the value, with an example.
    pub fn remedy(&self) -> &str {
        &self.remedy
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.remedy)
    }
}

impl std::error::Error for Error {}
