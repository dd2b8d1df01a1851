//! Checks that /proc is mounted and shows the processes of this PID namespace.

use crate::error::{Error, ErrorKind};
use std::fs;
use std::path::Path;

/// Returns an error if edleak cannot use /proc. The target opens its session through /proc, so without /proc
/// edleak-record would record nothing.
pub(super) fn check_proc() -> Result<(), Error> {
    check_own_link(Path::new("/proc/self"), std::process::id())
}

/// `link` leads to the directory of this process. Its text is the process ID in the PID namespace for which
/// /proc was mounted; `own_pid` is the process ID in the PID namespace of this process.
fn check_own_link(link: &Path, own_pid: u32) -> Result<(), Error> {
    let message = match fs::read_link(link) {
        Ok(target) if target.as_os_str() == own_pid.to_string().as_str() => return Ok(()),
        Ok(_) => "/proc shows another PID namespace than the one of edleak-record",
        Err(_) => "/proc is not mounted, and edleak-record cannot record without it",
    };
    Err(Error::new(ErrorKind::System, message).with_remedy("mount it here: `mount -t proc proc /proc`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn missing_and_foreign_proc_are_refused() {
        assert_eq!(check_proc(), Ok(()));
        let link = std::env::temp_dir().join(format!("edleak-proc-{}", std::process::id()));
        let message = |pid| check_own_link(&link, pid).map_err(|error| error.message().to_owned());
        assert!(message(7).is_err_and(|message| message.contains("is not mounted")));
        symlink("7", &link).expect("temporary files can be made");
        assert_eq!(message(7), Ok(()));
        assert!(message(8).is_err_and(|message| message.contains("another PID namespace")));
        fs::remove_file(&link).expect("it was made here");
    }
}
