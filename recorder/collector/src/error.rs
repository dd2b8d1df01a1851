//! The error type of the collector. Each error has a kind, a message and, if edleak knows one, a remedy.
//!
//! A message is lowercase and quotes values in backticks. `Display` prints the remedy after the message, in
//! parentheses.

use std::{fmt, io};

/// The kind of an error. By the kind, a caller recognises the errors that it handles itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program does not exist.
    Missing,
    /// The user has no permission to execute or to read the program's file.
    NotPermitted,
    /// The file is neither an ELF program nor a script, or the file is damaged.
    NotAProgram,
    /// The program is statically linked.
    Static,
    /// The program is built for another processor architecture or for 32 bits.
    Foreign,
    /// The program gains privileges when it starts, so the loader ignores LD_PRELOAD.
    Privileged,
    /// The program is a script whose interpreter line drops the environment, including LD_PRELOAD.
    CleanEnvironment,
    /// The program is built with a sanitizer, which requires its own allocator.
    Sanitizer,
    /// The program exports its own `malloc`, which takes precedence over the `malloc` of a preloaded library.
    OwnMalloc,
    /// The limit of the data segment (`ulimit -d`) leaves too little memory for edleak's tables in the
    /// target.
    DataLimit,
    /// The operating system could not start the program.
    Start,
    /// The process already runs, and edleak-record cannot record this process.
    Process,
    /// edleak-record found no usable preload library.
    Library,
    /// Another recording already writes a trace with this name.
    InUse,
    /// edleak-record cannot write the trace, or can write only the first part of the trace.
    Output,
    /// The operating system refused an operation that the recording needs.
    System,
    /// A request to watch sites, or a pattern of function names, has a wrong form.
    Request,
    /// edleak-record cannot use a trace of an earlier recording.
    EarlierTrace,
    /// A value that the user gave is not usable.
    Value,
    /// edleak recorded nothing, or did not record a process that the user asked for.
    Unrecorded,
    /// A client cannot reach the running recording, or no recording is running.
    Control,
}

/// An error of the collector, with a message and a remedy.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    remedy: Option<String>,
}

impl Error {
    /// Makes an error without a remedy.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error { kind, message: message.into(), remedy: None }
    }

    /// Makes an error from an error of the operating system. If a resource limit caused the error, the remedy
    /// is to raise this limit. If no limit caused the error, the remedy is `otherwise`.
    pub(crate) fn system(what: &str, error: &io::Error, otherwise: &str) -> Error {
        let remedy = limit_to_raise(error.raw_os_error()).unwrap_or(otherwise);
        Error::new(ErrorKind::System, format!("{what}: {error}")).with_remedy(remedy)
    }

    /// Makes the error for a trace that edleak-record cannot write. If `error` has a remedy, the new error
    /// gets the same remedy. If `error` has no remedy, the new remedy is to raise the resource limit that
    /// caused `error`, or `otherwise` if no limit caused `error`.
    pub(crate) fn output(error: &edleak_format::Error, otherwise: &str) -> Error {
        use edleak_format::ErrorKind as Kind;
        let kind = match error.kind() {
            Kind::InUse | Kind::AlreadyExists => ErrorKind::InUse,
            _ => ErrorKind::Output,
        };
        let remedy = error.remedy().or(limit_to_raise(error.raw_os_error())).unwrap_or(otherwise);
        Error::new(kind, error.message()).with_remedy(remedy)
    }

    /// Sets the remedy of this error.
    #[must_use]
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Error {
        self.remedy = Some(remedy.into());
        self
    }

    /// Puts the text `what` and a colon in front of the message.
    #[must_use]
    pub(crate) fn context(mut self, what: impl fmt::Display) -> Error {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The kind of the error.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The message, without the remedy.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The remedy: the action that the user can take, if edleak knows such an action.
    pub fn remedy(&self) -> Option<&str> {
        self.remedy.as_deref()
    }

    /// The exit code of edleak-record for this error. As in a shell, 127 means that the program is missing,
    /// and 126 that the program cannot be run. 125 means that edleak-record itself failed.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            ErrorKind::Missing => 127,
            ErrorKind::NotPermitted
            | ErrorKind::NotAProgram
            | ErrorKind::Static
            | ErrorKind::Foreign
            | ErrorKind::Privileged
            | ErrorKind::CleanEnvironment
            | ErrorKind::Sanitizer
            | ErrorKind::OwnMalloc
            | ErrorKind::DataLimit
            | ErrorKind::Start
            | ErrorKind::Process => 126,
            _ => 125,
        }
    }
}

/// The remedy for an error number of the operating system that a resource limit causes: how to raise the
/// limit. `None`: no limit causes this error number.
fn limit_to_raise(error: Option<i32>) -> Option<&'static str> {
    match error? {
        libc::EMFILE => Some("raise `ulimit -n`"),
        libc::ENFILE => Some("raise the sysctl fs.file-max"),
        libc::EFBIG => Some("raise `ulimit -f`"),
        libc::EAGAIN => Some("raise `ulimit -u`, or the container's limit of processes"),
        libc::ENOMEM => Some("raise `ulimit -v`, or free some memory"),
        _ => None,
    }
}

/// The error for a running process that edleak-record cannot record.
pub(crate) fn refusal(message: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::new(ErrorKind::Process, message).with_remedy(remedy)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.remedy.iter().try_for_each(|remedy| write!(f, " ({remedy})"))
    }
}

impl std::error::Error for Error {}

impl From<edleak_text::Error> for Error {
    fn from(error: edleak_text::Error) -> Error {
        Error::new(ErrorKind::Value, error.message()).with_remedy(error.remedy())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remedy_names_the_limit_behind_the_error() {
        let explain =
            |errno| Error::system("no process", &io::Error::from_raw_os_error(errno), "see `dmesg`");
        for (errno, limit) in [(libc::EMFILE, "-n"), (libc::EAGAIN, "-u"), (libc::ENOMEM, "-v")] {
            let remedy = explain(errno).remedy().map(str::to_owned);
            assert!(remedy.is_some_and(|remedy| remedy.starts_with(&format!("raise `ulimit {limit}`"))));
        }
        assert_eq!(explain(libc::EPERM).remedy(), Some("see `dmesg`"));
    }

    #[test]
    fn remedy_of_the_format_comes_before_another() {
        let path = std::path::Path::new("/no/such/directory/t.edl");
        let missing = edleak_format::Trace::open(path).map(drop).expect_err("there is none");
        let error = Error::output(&missing, "use -o");
        assert_eq!(error.remedy(), Some(missing.remedy().unwrap_or("use -o")));
        assert!(error.to_string().starts_with(missing.message()), "{error}");
    }
}
