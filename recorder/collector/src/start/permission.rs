//! Explains why this user may not read or write the memory of a process, and names a remedy.

use crate::error::{Error, refusal};
use crate::sys::process::{self, Status};
use std::fs;
use std::io;

/// The bit that stands for CAP_SYS_PTRACE in a set of capabilities.
const SYS_PTRACE: u64 = 1 << 19;

/// Facts about two processes, from which the kernel decides whether one process may read the memory of the
/// other process.
#[derive(Clone, Copy, Debug)]
struct Facts<'a> {
    ours: Status,
    theirs: Status,
    /// The content of /proc/sys/kernel/yama/ptrace_scope; empty: the kernel has no security module yama.
    scope: &'a str,
    /// Whether the process is in another user namespace than this process.
    has_own_users: bool,
}

/// The error to report if edleak-record cannot read or write the memory of a process.
pub(super) fn inaccessible(pid: u32, error: &io::Error) -> Error {
    if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        return refusal(format!("its memory cannot be read or written: {error}"), "does it still run?");
    }
    let own = std::process::id();
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").unwrap_or_default();
    let (message, remedy) = Facts {
        ours: process::read_status(own).unwrap_or_default(),
        theirs: process::read_status(pid).unwrap_or_default(),
        scope: scope.trim(),
        has_own_users: has_own_users(pid),
    }
    .reason();
    refusal(message, remedy)
}

/// Returns an error for a process in another user namespace, because the kernel does not let such a process
/// open the shared memory of edleak-record.
pub(super) fn check_users(pid: u32) -> Result<(), Error> {
    if !has_own_users(pid) {
        return Ok(());
    }
    let message = "it has its own user namespace, and so cannot open the memory of edleak-record";
    Err(refusal(message, "start edleak-record inside that namespace, as the user of the process"))
}

/// Whether a process is in another user namespace than this process. If this user may not see the user
/// namespace of the process, the result is `false`.
fn has_own_users(pid: u32) -> bool {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
    namespace(pid).is_some_and(|theirs| Some(theirs) != namespace(std::process::id()))
}

impl Facts<'_> {
    fn reason(&self) -> (String, &'static str) {
        const AS_ROOT: &str = "start edleak-record as root";
        const WITH_CAPABILITY: &str =
            "give edleak-record CAP_SYS_PTRACE; in a container: `--cap-add SYS_PTRACE`";
        let user = |status: &Status| status.privileges.ids[0];
        let (is_root, may_trace) =
            (user(&self.ours) == 0, self.ours.privileges.capabilities & SYS_PTRACE != 0);
        let of_yama = || format!("kernel.yama.ptrace_scope is {}", self.scope);
        let is_other_user = user(&self.theirs) != user(&self.ours);
        if self.scope == "3" {
            let message = format!("{}, so no process may be traced until the next boot", of_yama());
            return (message, "start the process with `edleak-record PROGRAM`");
        }
        if !is_root && !may_trace && is_other_user {
            return ("it belongs to another user".into(), "start edleak-record as that user");
        }
        if matches!(self.scope, "1" | "2") && !may_trace {
            let as_root = "start edleak-record as root, or `sysctl kernel.yama.ptrace_scope=0`";
            return (of_yama(), if is_root { WITH_CAPABILITY } else { as_root });
        }
        if is_root && !may_trace {
            return ("edleak-record is root without CAP_SYS_PTRACE".into(), WITH_CAPABILITY);
        }
        if !may_trace && self.theirs.privileges.capabilities & !self.ours.privileges.capabilities != 0 {
            return ("it has capabilities that edleak-record lacks".into(), AS_ROOT);
        }
        if !may_trace {
            let message =
                "it has made itself unreadable to its user (it is not dumpable, or had other rights)";
            return (message.into(), AS_ROOT);
        }
        if self.ours.seccomp_filters > 0 {
            let message = "the seccomp filter of edleak-record forbids to read or write its memory";
            return (
                message.into(),
                "allow `ptrace` and `process_vm_writev` in the profile of the container",
            );
        }
        if self.has_own_users {
            let message = "it has its own user namespace, in which edleak-record has no rights";
            return (message.into(), "start edleak-record inside that namespace, or as root outside");
        }
        let message = "a security module of the kernel (SELinux, AppArmor, …) forbids to trace it";
        (message.into(), "allow edleak-record to trace it: `dmesg` shows the refused request")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::Privileges;

    fn status(user: u32, capabilities: u64) -> Status {
        Status { privileges: Privileges { ids: [user, user], capabilities }, ..Status::default() }
    }

    fn reason(ours: Status, theirs: Status, scope: &str) -> String {
        let (message, remedy) = Facts { ours, theirs, scope, has_own_users: false }.reason();
        format!("{message} ({remedy})")
    }

    #[test]
    fn process_of_another_user_is_named_before_yama() {
        for scope in ["", "0", "1", "2"] {
            let text = reason(status(7, 0), status(8, 0), scope);
            assert_eq!(text, "it belongs to another user (start edleak-record as that user)", "{scope}");
        }
    }

    #[test]
    fn yama_is_named_with_its_scope() {
        for scope in ["1", "2"] {
            let text = reason(status(7, 0), status(7, 0), scope);
            assert!(text.starts_with(&format!("kernel.yama.ptrace_scope is {scope} (start")), "{text}");
            assert!(text.contains("as root") && text.contains("sysctl"), "{text}");
            let text = reason(status(0, !SYS_PTRACE), status(0, 0), scope);
            assert!(text.contains(&format!("scope is {scope}")) && text.contains("--cap-add"), "{text}");
        }
        let text = reason(status(0, u64::MAX), status(7, 0), "3");
        assert!(text.contains("until the next boot (start the process with"), "{text}");
        // If `ptrace_scope` is 0 or the kernel has no yama, yama is not the reason why the kernel forbids the
        // access.
        assert!(!reason(status(7, 0), status(7, 0), "0").contains("yama"));
    }

    #[test]
    fn root_without_the_capability_is_told_to_get_it() {
        let text = reason(status(0, !SYS_PTRACE), status(7, 0), "");
        assert!(text.contains("without CAP_SYS_PTRACE") && text.contains("--cap-add SYS_PTRACE"), "{text}");
    }

    #[test]
    fn process_with_more_rights_than_its_user_needs_root() {
        let text = reason(status(7, 0), status(7, 1 << 10), "");
        assert!(text.contains("it has capabilities") && text.contains("as root"), "{text}");
        let text = reason(status(7, 0), status(7, 0), "");
        assert!(text.contains("not dumpable") && text.contains("as root"), "{text}");
    }

    #[test]
    fn filter_of_the_recorder_and_its_namespace_come_last() {
        let filtered = Status { seccomp_filters: 1, ..status(0, u64::MAX) };
        assert!(reason(filtered, status(7, 0), "").contains("`process_vm_writev`"));
        let ours = status(0, u64::MAX);
        let facts = Facts { ours, theirs: status(0, 0), scope: "", has_own_users: true };
        assert!(facts.reason().0.contains("its own user namespace"));
        assert!(reason(ours, status(0, 0), "0").contains("security module"));
    }
}
