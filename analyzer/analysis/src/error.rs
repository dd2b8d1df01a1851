//! What can go wrong, by kind.
//!
//! A message is lowercase and quotes values in backticks; the remedy is a field of its own, and is printed behind it in
//! parentheses. `context` adds what only the caller knows, in front. A damaged block of a trace is not an error: it is counted and reported.

use std::fmt;

/// What went wrong in the analyzer, with the way out.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
}

/// What an [`Error`] is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file could not be opened, read or written.
    Io,
    /// The input is neither a trace nor anything else that can be judged.
    Unreadable,
    /// A suppression file does not parse.
    Suppressions,
    /// A baseline cannot be used.
    Baseline,
    /// A value given by the user does not parse.
    Value,
    /// A report could not be written.
    Output,
}

/// What the analyzer's functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of this kind, without a remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: None }
    }

    /// The same, with the way out.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }

    /// The way out, where there is one.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// What the error is about.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Puts what only the caller knows in front of the message.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Self {
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

impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        std::io::Error::other(error)
    }
}

/// The operating system's reason without Rust's `(os error 2)`, in the lower case that our messages have.
pub(crate) fn reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
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
