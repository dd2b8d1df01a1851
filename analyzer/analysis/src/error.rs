//! The errors of the analyzer, by kind.
//!
//! An error message begins with a lowercase letter and quotes values in backticks. The remedy (advice for the
//! user) is a separate field; edleak-analyze prints the remedy in parentheses after the message. The function
//! `context` adds text in front of the message, such as the name of the file. A damaged block of a trace does
//! not cause an error: the analyzer counts the block and reports the number.

use std::fmt;

/// An error of the analyzer, with its remedy.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
}

/// The kinds of [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be opened, read or written.
    Io,
    /// The input is neither a trace nor another readable recording.
    Unreadable,
    /// A suppression file has a wrong form.
    Suppressions,
    /// The analyzer cannot use a baseline.
    Baseline,
    /// The user gave a value that has a wrong form, for example a wrong time.
    Value,
    /// A report could not be written.
    Output,
}

/// The result type of the analyzer's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Makes an error of this kind, without a remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None }
    }

    /// Adds a remedy to this error and returns the error.
    #[must_use]
    pub(crate) fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The message, without the remedy.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The remedy (advice for the user); `None`: the error has no remedy.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Puts `what` in front of the message. `what` is a text that names the failed operation, such as "failed
    /// to read" with the path of the file.
    #[must_use]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, " ({remedy})"))
    }
}

impl std::error::Error for Error {}

impl From<edleak_text::Error> for Error {
    fn from(error: edleak_text::Error) -> Self {
        Error::new(ErrorKind::Value, error.message()).with_remedy(error.remedy())
    }
}

impl From<edleak_format::Error> for Error {
    fn from(error: edleak_format::Error) -> Self {
        let remedy = error.remedy().map(str::to_owned);
        Self { kind: ErrorKind::Unreadable, message: error.message().to_owned(), remedy }
    }
}

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_goes_in_front_and_keeps_the_kind() {
        let error = Error::new(ErrorKind::Value, "`x` is no rate")
            .with_remedy("write 10KB/min")
            .context("failed to read `rules`");
        assert_eq!(error.remedy(), Some("write 10KB/min"));
        assert_eq!(error.to_string(), "failed to read `rules`: `x` is no rate (write 10KB/min)");
        assert_eq!(error.kind(), ErrorKind::Value);
    }
}
