//! The result of one check of `edleak-record doctor`.

use crate::error::Error;

/// The result of one check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// A name of one or two words for the part of the system that was checked.
    pub subject: &'static str,
    /// Whether the result prevents a recording.
    pub state: State,
    /// The result of the check, as a text for the user.
    pub what: String,
    /// The remedy; empty if no remedy is needed.
    pub remedy: String,
}

/// Whether the result of a check prevents a recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// The check found no problem.
    Good,
    /// A recording works, but the result matters to the user.
    Note,
    /// A recording fails or is incomplete.
    Bad,
}

impl Finding {
    pub(crate) fn good(subject: &'static str, what: impl Into<String>) -> Finding {
        Finding { subject, state: State::Good, what: what.into(), remedy: String::new() }
    }

    pub(crate) fn note(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject, state: State::Note, what: what.into(), remedy: remedy.into() }
    }

    /// Makes the result of a check that found an obstacle to a recording.
    pub fn bad(subject: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { subject, state: State::Bad, what: what.into(), remedy: remedy.into() }
    }

    /// Makes the result of a check from an error that prevents a recording.
    pub(crate) fn of_error(subject: &'static str, error: &Error) -> Finding {
        Finding::bad(subject, error.message(), error.remedy().unwrap_or("see `dmesg`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn error_becomes_a_finding_with_its_remedy() {
        let error = Error::new(ErrorKind::Static, "cannot record `a (b)`: it is static (really)");
        assert_eq!(Finding::of_error("x", &error).remedy, "see `dmesg`");
        let finding = Finding::of_error("x", &error.with_remedy("link it without `-static`"));
        assert_eq!(finding.what, "cannot record `a (b)`: it is static (really)");
        assert_eq!(finding.remedy, "link it without `-static`");
    }
}
