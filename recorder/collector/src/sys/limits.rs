//! Which limit an error of the operating system means, and how it is raised.

#![allow(unsafe_code)] // getrlimit

use std::fmt::Display;
use std::io;

/// What to do about an error, in parentheses; `otherwise` where its number says nothing of a limit.
pub(crate) fn remedy(error: Option<i32>, otherwise: &str) -> String {
    match error {
        Some(libc::EMFILE) => "(raise `ulimit -n`)".into(),
        Some(libc::ENFILE) => "(raise the sysctl fs.file-max)".into(),
        Some(libc::EFBIG) => "(raise `ulimit -f`)".into(),
        Some(libc::EAGAIN) => "(raise `ulimit -u`, or the container's limit of processes)".into(),
        Some(libc::ENOMEM) => "(raise `ulimit -v`, or free some memory)".into(),
        _ => format!("({otherwise})"),
    }
}

/// Bytes of data that a program of any size needs with edleak's tables in it: their upper level is 16 MiB,
/// and libc has data, too.
const LEAST_DATA_BYTES: u64 = 20 << 20;

/// Why the limit of data (`ulimit -d`), which the target inherits, leaves no room for edleak's tables;
/// `None`: it leaves enough.
pub(crate) fn too_little_data() -> Option<String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a structure of ours.
    let is_known = unsafe { libc::getrlimit(libc::RLIMIT_DATA, &raw mut limit) } == 0;
    (is_known && limit.rlim_cur < LEAST_DATA_BYTES).then(|| {
        format!(
            "a program may have {} KiB of data, and edleak's tables in it take 16 MiB at once and 8 MiB for each 64 MiB with a heap \
             (raise `ulimit -d` to at least {}, or better to `unlimited`)",
            limit.rlim_cur >> 10,
            LEAST_DATA_BYTES >> 10
        )
    })
}

/// An error with the way out at its end, whichever of `what` it happened to.
pub(crate) fn explain(what: &str, error: &io::Error, otherwise: &str) -> String {
    format!("{what}: {error} {}", remedy(error.raw_os_error(), otherwise))
}

/// A message that ends with a remedy: its own, or this one.
pub(crate) fn with_remedy(message: &dyn Display, remedy: &str) -> String {
    let message = message.to_string();
    // What the system says of an error ends with a parenthesis that is no remedy.
    let has_one = message.ends_with(')') && !is_errno(&message);
    if has_one { message } else { format!("{message} {remedy}") }
}

fn is_errno(message: &str) -> bool {
    message.rsplit_once('(').is_some_and(|(_, last)| last.starts_with("os error "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_named_is_the_one_that_was_met() {
        let explain = |errno| explain("no process", &io::Error::from_raw_os_error(errno), "see dmesg");
        for (errno, limit) in [(libc::EMFILE, "-n"), (libc::EAGAIN, "-u"), (libc::ENOMEM, "-v")] {
            let message = explain(errno);
            assert!(message.contains(&format!("(raise `ulimit {limit}`")), "{message}");
        }
        assert!(explain(libc::EPERM).ends_with("(see dmesg)"));
    }

    #[test]
    fn a_message_has_one_remedy() {
        let system = io::Error::from_raw_os_error(libc::EROFS);
        assert!(with_remedy(&system, "(use -o)").ends_with("(os error 30) (use -o)"));
        assert_eq!(with_remedy(&"no room (free some)", "(use -o)"), "no room (free some)");
        assert_eq!(with_remedy(&"a file (old) is there", "(use -o)"), "a file (old) is there (use -o)");
    }
}
