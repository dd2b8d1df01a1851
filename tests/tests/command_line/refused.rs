//! Tests the programs, options and systems for which edleak-record prints one line and starts nothing.

use super::assert_refused;
use edleak_tests::programs::programs;
use edleak_tests::record::Recorder;
use edleak_tests::run::{cannot_run, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

#[test]
fn kernel_without_pidfd_open_records_a_program_and_refuses_to_follow_children() {
    let dir = TempDir::new("no-pidfd");
    let on_old_kernel = |options: &[&str]| {
        let trace = dir.join("trace.edl");
        let recorded = Recorder::new("no-pidfd").options(options).command(&trace, "true", [""; 0]);
        let mut command = Command::new(programs().binary("no_pidfd"));
        command.arg(recorded.get_program()).args(recorded.get_args());
        run(&mut command)
    };
    let outcome = on_old_kernel(&[]);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let outcome = on_old_kernel(&["--children"]);
    assert_eq!(outcome.code, 125, "{}", outcome.stderr);
    assert!(outcome.stderr.contains("use Linux 5.3 or later"), "{}", outcome.stderr);
}

/// If the system refuses a thread, a memory file or a process, one line of the message names the limit that
/// was reached.
#[test]
fn a_limit_that_is_met_is_named_once() {
    let dir = TempDir::new("limits");
    let record = tools().record.display().to_string();
    let limited = |limit: &str| {
        let script =
            format!("ulimit {limit}; exec {record} -o trace.edl bash -c 'read -t 0.3 <> <(:); exit 0'");
        run(Command::new("bash").args(["-c", &script]).current_dir(dir.path()))
    };
    // The test does not know how many descriptors are open at the start. So the test tries several limits for
    // open descriptors: at each limit, a different operation of edleak-record is the first that fails.
    let mut refused = 0;
    for descriptors in 6..=13 {
        let what = format!("{descriptors} descriptors");
        let outcome = limited(&format!("-n {descriptors}"));
        assert_eq!(outcome.stderr.matches("(raise `ulimit -n`)").count(), 1, "{what}: {}", outcome.stderr);
        if outcome.code != 0 {
            refused += 1;
            assert_refused(&outcome, &what, &[]);
            assert!(!dir.join("trace.edl").exists(), "{what}: nothing was recorded");
        }
        let _ = std::fs::remove_file(dir.join("trace.edl"));
    }
    assert!(refused > 0, "with so few it cannot record");
    // If edleak-record records nothing, it must keep the traces of earlier recordings.
    let old = dir.join("trace.edl.old");
    for (path, text) in [(&dir.join("trace.edl"), "good"), (&old, "precious")] {
        std::fs::write(path, text).expect("it is ours");
    }
    assert_refused(&limited("-n 9"), "9 descriptors", &["(raise `ulimit -n`)"]);
    assert_eq!(std::fs::read(dir.join("trace.edl")).expect("it is back"), b"good");
    assert_eq!(std::fs::read(&old).expect("it is kept"), b"precious");
    std::fs::remove_file(dir.join("trace.edl")).expect("it is ours");
    // If the limit of the file size is reached, edleak-record must print an error, and the signal SIGXFSZ
    // must not kill edleak-record.
    let outcome = limited("-f 0");
    assert_refused(&outcome, "-f 0", &["(raise `ulimit -f`"]);
    assert!(!dir.join("trace.edl").exists(), "nothing was recorded");
    // With a data limit of 1,000 KiB (`ulimit -d`), a process cannot get the memory for the stack of a
    // thread.
    let outcome = limited("-d 1000");
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
}

#[test]
fn misspelt_option_is_not_run_as_a_program() {
    let outcome = run(Command::new(&tools().record).args(["--childern", "true"]));
    assert_refused(&outcome, "a misspelt option", &["unknown option `--childern`"]);
    assert_eq!(outcome.code, 125);
}

#[test]
fn option_of_pid_without_pid_is_refused() {
    let dir = TempDir::new("without-pid");
    let marker = dir.join("was-started");
    for (option, value) in [("--copy-into", "/tmp"), ("--attach-timeout", "1s")] {
        let mut command = Command::new(&tools().record);
        command.args([option, value, "-o"]).arg(dir.join("t.edl")).arg("touch").arg(&marker);
        let outcome = run(&mut command);
        let said = format!("{option} has no effect without --pid (give --pid PID, or leave {option} out)");
        assert_refused(&outcome, option, &[&said]);
        assert!(outcome.code == 125 && !marker.exists() && !dir.join("t.edl").exists(), "{outcome:?}");
    }
}

#[test]
fn message_about_a_small_size_has_the_size_as_the_user_wrote_it() {
    for size in ["0", "3k", "0.1M"] {
        let outcome = run(Command::new(&tools().record).args(["--size", size, "true"]));
        assert_eq!(outcome.code, 125, "{outcome:?}");
        let said =
            format!("invalid value '{size}' for '--size <BYTES>': too small for a trace (use at least 256k)");
        assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
    }
}

/// Without /proc, or with the /proc of another PID namespace, edleak-record refuses the program before the
/// program starts.
#[test]
fn missing_and_foreign_proc_are_named_before_the_program_starts() {
    let dir = TempDir::new("no-proc");
    let marker = dir.join("was-started");
    let record = format!("{} -o {}", tools().record.display(), dir.join("t.edl").display());
    let run_in = |namespaces: &[&str], before: &str, what: &str| {
        let script = format!("{before}; exec {record} {what}");
        run(Command::new("unshare").args(namespaces).args(["sh", "-c", &script]))
    };
    if run(Command::new("unshare").args(["-mpf", "umount", "-l", "/proc"])).code != 0 {
        return cannot_run("no right to make namespaces");
    }
    let touch = format!("touch {}", marker.display());
    for (namespaces, before, what, said) in [
        (&["-m"][..], "umount -l /proc", &*touch, "/proc is not mounted"),
        (&["-m"], "umount -l /proc", "--pid 1", "/proc is not mounted"),
        (&["-pf"], "true", &touch, "/proc shows another PID namespace"),
    ] {
        let outcome = run_in(namespaces, before, what);
        assert_refused(&outcome, what, &[said, "(mount it here: `mount -t proc proc /proc`)\n"]);
        assert!(outcome.code == 125 && !marker.exists() && !dir.join("t.edl").exists(), "{outcome:?}");
    }
}

#[test]
fn duration_of_zero_is_named() {
    let outcome = run(Command::new(&tools().record).args(["--duration", "0", "true"]));
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert!(outcome.stderr.contains("(use a duration greater than 0)"), "{}", outcome.stderr);
}

#[test]
fn unrecordable_programs_are_refused() {
    let dir = TempDir::new("refused");
    let record =
        |program: &Path| run(&mut Recorder::new("refused").command(&dir.join("t.edl"), program, [""; 0]));

    let missing = dir.join("there-is-no-such-program");
    assert_refused(&record(&missing), "a missing program", &["there-is-no-such-program"]);
    assert_refused(
        &record(Path::new("no-such-program-in-path")),
        "not in PATH",
        &["no-such-program-in-path"],
    );
    assert_refused(&record(dir.path()), "a directory", &[]);

    let text = dir.join("text");
    std::fs::write(&text, "no program\n").expect("writable");
    assert_refused(&record(&text), "a file that is not executable", &["text"]);

    let source = dir.join("main.c");
    std::fs::write(&source, "int main(void) { return 0; }\n").expect("writable");
    let compile = |name: &str, flags: &[&str]| {
        let binary = dir.join(name);
        let outcome = run(Command::new("gcc").arg(&source).arg("-o").arg(&binary).args(flags));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        binary
    };
    assert_refused(&record(&compile("static", &["-static"])), "a static program", &["static"]);
    assert_refused(&record(&compile("static-pie", &["-static-pie"])), "a static PIE", &["static"]);

    // A program with the set-user-ID or the set-group-ID bit runs with the rights of the owner of its file,
    // here the user nobody. Only root can make nobody the owner, so without root the test skips these
    // programs.
    for (name, mode) in [("setuid", 0o4755), ("setgid", 0o2755)] {
        let binary = compile(name, &[]);
        if std::os::unix::fs::chown(&binary, Some(65534), Some(65534)).is_ok() {
            std::fs::set_permissions(&binary, PermissionsExt::from_mode(mode)).expect("it is ours");
            assert_refused(&record(&binary), name, &[name]);
        }
    }

    // A program for another processor: its header names AArch64.
    let foreign = compile("foreign", &[]);
    let mut bytes = std::fs::read(&foreign).expect("just built");
    bytes[18] = 183;
    std::fs::write(&foreign, bytes).expect("it is ours");
    assert_refused(&record(&foreign), "a foreign program", &["foreign"]);
    // A 32-bit program.
    let narrow = compile("narrow", &[]);
    let mut bytes = std::fs::read(&narrow).expect("just built");
    (bytes[4], bytes[18]) = (1, 3);
    std::fs::write(&narrow, bytes).expect("it is ours");
    assert_refused(&record(&narrow), "a 32-bit program", &["narrow"]);
    assert!(!dir.join("t.edl").exists(), "nothing was recorded");
}

#[test]
fn bad_options_are_refused() {
    for options in
        [&["--period", "0s", "true"][..], &["--period", "soon", "true"], &["--no-such-option", "true"], &[]]
    {
        let outcome = run(Command::new(&tools().record).args(options).current_dir(std::env::temp_dir()));
        assert!(outcome.code != 0 && outcome.code < 128, "{options:?}: {outcome:?}");
        assert!(
            !outcome.stderr.is_empty() && !outcome.stderr.contains("panicked"),
            "{options:?}: {outcome:?}"
        );
    }
}
