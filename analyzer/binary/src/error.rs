//! The error for a file that is not a usable ELF file. Each error has a kind.

use std::fmt;

/// The kinds of [`Error`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bytes do not begin with the ELF magic.
    NotElf,
    /// The file is an ELF file, but for a machine, a word size or a byte order that edleak does not support.
    Foreign,
    /// The end of the file is missing, or its headers contradict each other.
    Damaged,
}

/// The reason why bytes are not a usable ELF file. The caller adds the advice for the user, because the
/// advice depends on the purpose for which the caller needs the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into() }
    }

    pub(crate) fn damaged(how: impl fmt::Display) -> Error {
        Error::new(ErrorKind::Damaged, format!("a damaged ELF file ({how})"))
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<object::Error> for Error {
    fn from(error: object::Error) -> Error {
        Error::damaged(error.to_string().to_lowercase())
    }
}
