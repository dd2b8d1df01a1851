//! Tests a process whose seccomp filter forbids system calls: the kernel would kill the process for a call
//! that the loader makes. Also tests an edleak-record to which the kernel forbids ptrace.

use super::{Shared, answering, is_root, refused_and_answers, refused_by};
use edleak_tests::programs::hosts;
use std::process::Command;

const REASON: &str = "has forbidden itself system calls (seccomp)";
const REMEDY: &str = "(start it recorded: `edleak-record PROGRAM`; in a container, start";

#[test]
fn process_in_strict_mode_is_refused() {
    refused_and_answers(answering("strict"), &[REASON, REMEDY]);
}

#[test]
fn process_that_dies_for_openat_and_mmap_is_refused() {
    refused_and_answers(answering("filter"), &[REASON, REMEDY]);
}

/// Only the answering thread has a seccomp filter; the main thread has no filter.
#[test]
fn process_with_a_filter_on_one_thread_is_refused() {
    let program = answering("thread-filter");
    let threads = std::fs::read_dir(format!("/proc/{}/task", program.pid())).expect("it runs");
    let numbers = threads.map(|entry| entry.expect("it runs").file_name().to_string_lossy().into_owned());
    let thread = numbers.filter_map(|text| text.parse::<u32>().ok()).max().expect("two threads");
    let name = format!("its thread {thread} (`attach_answer`) ");
    refused_and_answers(program, &[&name, REASON, REMEDY]);
}

/// A seccomp filter forbids ptrace to edleak-record, as the seccomp profile of a container does.
#[test]
fn recorder_that_may_not_trace_is_told_so() {
    if !is_root() {
        return;
    }
    let shared = Shared::new("attach-no-ptrace");
    let mut program = answering("plain");
    let mut command = Command::new(hosts().binary("helper_container_seccomp"));
    command.arg("--no-ptrace").args(shared.arguments(program.pid()));
    let texts = ["forbids `ptrace`", "--cap-add SYS_PTRACE"];
    refused_by(program.pid(), &mut command, &shared.dir.join("trace.edl"), &texts);
    assert_eq!((program.ask("a").as_str(), program.finish().as_str()), ("a", "sound\n"));
}
