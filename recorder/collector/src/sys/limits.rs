//! Finds the limit behind an error of the operating system, and names the way to raise it.

#![allow(unsafe_code)] // getrlimit

use std::fmt::Display;
use std::io;

/// The remedy for an error, in parentheses; `otherwise` if the error number is not about a limit.
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

/// The smallest data limit (`ulimit -d`) with which a program can be recorded, in bytes. The upper level of
/// edleak's tables takes 16 MiB of data, and libc has data, too.
const LEAST_DATA_BYTES: u64 = 20 << 20;

/// The reason why the data limit (`ulimit -d`), which the target inherits, leaves too little room for
/// edleak's tables. `None`: it leaves enough.
pub(crate) fn too_little_data() -> Option<String> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a local structure.
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

/// A message about `what` and its error, which ends with the remedy.
pub(crate) fn explain(what: &str, error: &io::Error, otherwise: &str) -> String {
    format!("{what}: {error} {}", remedy(error.raw_os_error(), otherwise))
}

/// A message that ends with a remedy: its own if it has one, else this one.
pub(crate) fn with_remedy(message: &dyn Display, remedy: &str) -> String {
    let message = message.to_string();
    // System error messages end with a parenthesis that is not a remedy.
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
