//! Checks this machine and lists the reasons why a recording would fail, each with its remedy.
//!
//! Where possible, a check performs the same operation as a recording. So the checks also find obstacles that
//! edleak does not know, such as a security module or a seccomp filter.
//!
//! ```text
//! kernel        checks the kernel: memory files, process descriptors, opening shared memory through /proc
//! surroundings  checks the user's setup: limits, libraries that are preloaded already, directories
//! ```

mod finding;
mod kernel;
mod surroundings;

use crate::start::check;
use crate::start::library::Embedded;
use std::ffi::OsStr;

pub use finding::{Finding, State};

/// Makes all checks, and also checks `program` if the user gives one.
pub fn examine(embedded: Option<Embedded>, program: Option<&OsStr>) -> Vec<Finding> {
    let mut findings = kernel::examine();
    findings.extend(surroundings::examine(embedded));
    findings.extend(program.map(target));
    findings
}

/// Checks whether the file of a program shows a reason why edleak cannot record the program.
fn target(program: &OsStr) -> Finding {
    const SUBJECT: &str = "target";
    match check::check_program(program, std::env::var_os("PATH").as_deref()) {
        Err(error) => Finding::of_error(SUBJECT, &error),
        Ok(program) => match program.own_malloc {
            Some(own) => Finding::good(
                SUBJECT,
                format!("`{}` can be recorded, with its own `{}`", program.image.display(), own.symbol),
            ),
            None => Finding::good(SUBJECT, format!("`{}` can be recorded", program.image.display())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_target_is_bad_and_dynamic_target_good() {
        assert_eq!(target(OsStr::new("/nowhere/program")).state, State::Bad);
        assert_eq!(target(OsStr::new("sh")).state, State::Good);
    }

    #[test]
    fn every_finding_that_is_bad_has_a_remedy() {
        for finding in examine(None, None) {
            assert!(finding.state != State::Bad || !finding.remedy.is_empty(), "{finding:?}");
            assert!(!finding.what.is_empty() && !finding.what.contains('\n'), "{finding:?}");
        }
    }
}
