//! Tests processes that the user of edleak-record may not trace.

use super::{AS_NOBODY, Shared, answering, is_root, refused_by};
use edleak_tests::fed::Fed;
use std::process::Command;

/// Checks that edleak-record, started by `setpriv` with `options`, refuses the process.
fn refused_with_privileges(shared: &Shared, mut program: Fed, options: &[&str], texts: &[&str]) {
    let mut command = Command::new("setpriv");
    command.args(options).args(shared.arguments(program.pid()));
    refused_by(program.pid(), &mut command, &shared.dir.join("trace.edl"), texts);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}

#[test]
fn process_of_another_user_is_refused() {
    if is_root() {
        let shared = Shared::new("attach-other-user");
        let texts = ["it belongs to another user (start edleak-record as that user)"];
        refused_with_privileges(&shared, answering("plain"), &AS_NOBODY, &texts);
    }
}

#[test]
fn root_without_sys_ptrace_is_told_to_get_it() {
    if is_root() {
        let shared = Shared::new("attach-no-capability");
        let options = ["--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace"];
        let texts =
            ["edleak-record is root without CAP_SYS_PTRACE", "(give edleak-record", "--cap-add SYS_PTRACE"];
        refused_with_privileges(&shared, shared.as_nobody("plain"), &options, &texts);
        // The target process and edleak-record both run as root, but the process has more capabilities than
        // edleak-record.
        refused_with_privileges(&shared, answering("plain"), &options, &texts);
    }
}

#[test]
fn process_that_is_not_dumpable_is_refused() {
    if is_root() {
        let shared = Shared::new("attach-undumpable");
        let texts = ["it has made itself unreadable to its user", "(start edleak-record as root)"];
        refused_with_privileges(&shared, shared.as_nobody("undumpable"), &AS_NOBODY, &texts);
    }
}

/// On a kernel without the security module yama, edleak-record refuses the process for another reason. So in
/// this test edleak-record reads a file of the test in place of yama's file (ptrace_scope).
#[test]
fn scope_of_yama_is_named_with_its_remedy() {
    if !is_root() {
        return;
    }
    for (scope, texts) in [
        (
            "1",
            [
                "kernel.yama.ptrace_scope is 1 (start edleak-record as root",
                "`sysctl kernel.yama.ptrace_scope=0`",
            ],
        ),
        ("3", ["kernel.yama.ptrace_scope is 3, so no process may be traced", "(start the process with"]),
    ] {
        let shared = Shared::new("attach-yama");
        let mut program = shared.as_nobody("undumpable");
        let script = "mount -t tmpfs tmpfs /proc/sys/kernel && mkdir /proc/sys/kernel/yama && \
                      echo \"$1\" > /proc/sys/kernel/yama/ptrace_scope && shift && exec setpriv \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script, "sh", scope]).args(AS_NOBODY);
        command.args(shared.arguments(program.pid()));
        refused_by(program.pid(), &mut command, &shared.dir.join("trace.edl"), &texts);
        assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
    }
}

/// Tests the security module yama of the running kernel. For a short time, the test changes ptrace_scope, a
/// setting of the whole machine.
#[test]
#[ignore = "needs a kernel with yama, whose scope it sets; run it with --ignored as root"]
fn kernel_with_yama_is_refused() {
    const SCOPE: &str = "/proc/sys/kernel/yama/ptrace_scope";
    let before = std::fs::read_to_string(SCOPE).expect("a kernel with yama");
    let shared = Shared::new("attach-real-yama");
    let program = shared.as_nobody("plain");
    std::fs::write(SCOPE, "1").expect("root may set it");
    let texts = ["kernel.yama.ptrace_scope is 1", "start edleak-record as root"];
    refused_with_privileges(&shared, program, &AS_NOBODY, &texts);
    std::fs::write(SCOPE, before).expect("root may set it");
}
