//! Tests edleak under restrictions that containers have: a read-only root, no home directory, another user
//! than root, no /proc/sys, forbidden system calls, missing capabilities, a full disk.
//!
//! Each test is a row of the table in docs/containers.md. The tests use Linux namespaces instead of
//! containers, because they cannot download a container image.

use edleak_tests::analyze::analyze;
use edleak_tests::programs::{hosts, samples};
use edleak_tests::report::Report;
use edleak_tests::run::{Outcome, cannot_run, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A directory like a container image, with edleak-record, edleak-analyze and the sample leaker. The image
/// has two volumes: one contains the preload library, which is not beside edleak-record, and one is for the
/// traces.
struct Image {
    dir: TempDir,
}

impl Image {
    fn new(name: &str) -> Image {
        let dir = TempDir::new(name);
        for below in ["bin", "shared", "traces"] {
            std::fs::create_dir(dir.join(below)).expect("writable");
            std::fs::set_permissions(dir.join(below), PermissionsExt::from_mode(0o1777)).expect("ours");
        }
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("ours");
        std::fs::set_permissions(dir.join("bin"), PermissionsExt::from_mode(0o755)).expect("ours");
        let copy = |from: &Path, to: &str| {
            edleak_tests::run::copy_program(from, &dir.join(to));
        };
        copy(&tools().record, "bin/edleak-record");
        copy(&samples().binary("leaker"), "bin/server");
        copy(&hosts().binary("helper_container_seccomp"), "bin/seccomp");
        let unpacked = run(Command::new(dir.join("bin/edleak-record")).arg("unpack").arg(dir.join("shared")));
        assert_eq!(unpacked.code, 0, "{}", unpacked.stderr);
        Image { dir }
    }

    /// Runs a script as root in a new mount namespace and a new PID namespace. In the script, `$E` is the
    /// directory of the image.
    fn run(&self, script: &str) -> Outcome {
        run(Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--fork",
                "--mount-proc",
                "--propagation",
                "private",
                "bash",
                "-euc",
                script,
            ])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("E", self.dir.path()))
    }

    /// Whether the trace of the leaker exists, and its analysis finds the leak.
    fn has_leak(&self, trace: &str) -> bool {
        let trace = self.dir.join("traces").join(trace);
        trace.is_file() && analyze(["--min-class", "linear"], &trace).code == 1
    }

    fn records(&self, script: &str) {
        let outcome = self.run(script);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        wait_for("a trace that names the leak", || self.has_leak("trace.edl"));
    }
}

const RECORD: &str =
    "$E/bin/edleak-record -q --period 50ms -o $E/traces/trace.edl $E/bin/server --seconds 2 >/dev/null";
const PRELOAD: &str =
    "env LD_PRELOAD=$E/shared/libedleak_preload.so EDLEAK_OUTPUT=$E/traces/trace.edl EDLEAK_PERIOD=50ms";
/// Waits for the collector that the library has started, because LD_PRELOAD was set without edleak-record.
/// The collector ends later than its target. If the script did not wait, the end of the PID namespace would
/// kill the collector.
const WAIT: &str = "for i in $(seq 400); do pgrep -x edleak-record >/dev/null || break; sleep 0.05; done";
/// Makes every file system read-only except the volume for traces and the mounts that the script makes.
/// /dev/shm is read-only too, as in most container images.
const READ_ONLY: &str = "mount --bind $E/traces $E/traces; mount -o remount,bind,ro /";
const AS_NOBODY: &str = "setpriv --reuid=65534 --regid=65534 --clear-groups";

/// Whether namespaces can be made; this needs root. CI runs as root. On another machine without root, the
/// test reports that it was skipped.
fn can_make_namespaces() -> bool {
    let made = run(Command::new("unshare").args(["--mount", "--pid", "--fork", "true"])).code == 0;
    if !made {
        cannot_run("namespaces need root");
    }
    made
}

macro_rules! rows {
    ($($name:ident: $script:expr;)*) => {$(
        #[test]
        fn $name() {
            if can_make_namespaces() {
                let script = String::from($script);
                Image::new(stringify!($name)).records(&script);
            }
        }
    )*};
}

rows! {
    pid_namespace_of_its_own_is_recorded: RECORD;
    bare_preload_with_the_shared_volume_is_recorded:
        format!("{PRELOAD} $E/bin/server --seconds 2 >/dev/null; {WAIT}");
    service_script_with_only_is_recorded:
        format!("{PRELOAD} EDLEAK_ONLY='server*' sh -c 'mkdir -p $E/traces/d; $E/bin/server --seconds 2; \
                 ls / ' >/dev/null; {WAIT}");
    read_only_root_unpacks_to_dev_shm:
        // The user with ID 54321 has no unpacked copy of the library on this machine yet.
        format!("{READ_ONLY}; mount -t tmpfs tmpfs /dev/shm; \
                 setpriv --reuid=54321 --regid=54321 --clear-groups {RECORD}; \
                 test -n \"$(ls -d /dev/shm/edleak-54321/*)\"");
    read_only_root_with_the_shared_volume_is_recorded:
        format!("{READ_ONLY}; {PRELOAD} $E/bin/server --seconds 2 >/dev/null; {WAIT}");
    user_without_home_unpacks_to_tmp: format!("{AS_NOBODY} env HOME=/nonexistent {RECORD}");
    user_with_a_bare_preload_is_recorded:
        format!("{AS_NOBODY} {PRELOAD} $E/bin/server --seconds 2 >/dev/null; {WAIT}");
    no_proc_sys_is_recorded:
        format!("mount -t tmpfs -o ro tmpfs /proc/sys; test -z \"$(ls /proc/sys)\"; {RECORD}");
    default_seccomp_profile_is_recorded: format!("$E/bin/seccomp {RECORD}");
    default_seccomp_profile_with_a_bare_preload_is_recorded:
        format!("$E/bin/seccomp {PRELOAD} $E/bin/server --seconds 2 >/dev/null; {WAIT}");
    no_capabilities_are_recorded: format!("{AS_NOBODY} --bounding-set=-all --inh-caps=-all {RECORD}");
    other_preload_that_allocates_nothing_is_recorded:
        format!("LD_PRELOAD=/lib/x86_64-linux-gnu/libm.so.6 {RECORD}");
    other_preload_behind_edleak_is_recorded:
        format!("{} LD_PRELOAD=$E/shared/libedleak_preload.so:/lib/x86_64-linux-gnu/libm.so.6 $E/bin/server \
                 --seconds 2 >/dev/null; {WAIT}", PRELOAD);
    profile_that_does_not_know_new_calls_is_recorded: format!("$E/bin/seccomp --old {RECORD}");
}

/// edleak-record cannot unpack the library anywhere. edleak-record prints one line that names each directory
/// that it tried and the variables to set, and starts no program.
#[test]
fn places_without_execution_are_refused_with_the_remedy() {
    if !can_make_namespaces() {
        return;
    }
    let image = Image::new("noexec");
    let script = format!(
        "for d in /var/cache /tmp-of /var/tmp /dev/shm /run; \
         do [ -d $d ] && mount -t tmpfs -o noexec tmpfs $d; done; mkdir -p /run/home; \
         export HOME=/run/home TMPDIR=/run/home XDG_CACHE_HOME=/run/home; \
         cp -r $E/bin /dev/shm/x 2>/dev/null || true; mount -t tmpfs tmpfs /mnt; \
         cp -r $E/bin $E/traces /mnt; E=/mnt; mount -t tmpfs -o noexec tmpfs /tmp; {RECORD}"
    );
    let outcome = image.run(&script);
    assert_eq!(outcome.code, 125, "{outcome:?}");
    assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    for part in ["`/run/home/edleak`", "`/dev/shm/edleak-0`", "noexec", "set XDG_CACHE_HOME"] {
        assert!(outcome.stderr.contains(part), "no {part}: {}", outcome.stderr);
    }
    // Now the test sets XDG_CACHE_HOME, as the message recommends, and the recording succeeds.
    let script = script.replace(RECORD, &format!("mkdir /mnt/cache; XDG_CACHE_HOME=/mnt/cache {RECORD}"));
    assert_eq!(image.run(&script).code, 0);
}

/// The disk fills up while edleak-record unpacks the library into a directory. edleak-record must unpack the
/// library into the next directory in its list, and must leave no partial library behind.
#[test]
fn full_disk_leads_to_the_next_place() {
    if !can_make_namespaces() {
        return;
    }
    let image = Image::new("full");
    let script = format!(
        "mkdir -p /run/full; mount -t tmpfs -o size=16k tmpfs /run/full; XDG_CACHE_HOME=/run/full {RECORD}; \
         test -z \"$(find /run/full -type f)\"; find $XDG_RUNTIME_DIR/edleak -name '*.so' | grep -q ."
    );
    image.records(&script);
}

/// If the container lacks something that edleak needs, `edleak-record doctor` prints the problem and its
/// remedy, and exits with 1.
#[test]
fn doctor_names_what_a_container_lacks() {
    if !can_make_namespaces() {
        return;
    }
    let image = Image::new("doctor");
    let doctor = "cd $E/traces; $E/bin/edleak-record doctor";
    let cases = [
        (format!("{doctor} $E/bin/server"), 0, "no problem found"),
        (format!("mount -t tmpfs tmpfs /proc; {doctor}"), 1, "mount -t proc proc /proc"),
        (format!("ulimit -n 20; {doctor}"), 1, "raise `ulimit -n`"),
        (format!("ulimit -v 200000; {doctor}"), 1, "raise `ulimit -v`"),
        (format!("mount -o remount,bind,ro /; {doctor}"), 1, "change to another directory"),
        ("cd $E/traces; $E/bin/seccomp $E/bin/edleak-record doctor".to_owned(), 0, "note seccomp"),
        (
            "cd $E/traces; $E/bin/seccomp --old $E/bin/edleak-record doctor".to_owned(),
            1,
            "allow `pidfd_open`",
        ),
        (format!("{doctor} /nowhere/program"), 1, "check the path"),
        (format!("echo '#!/bin/sh' > $E/traces/own; {doctor} $E/traces/own"), 1, "chmod +x"),
        (format!("export EDLEAK_PRELOAD=/bin/true; {doctor}"), 1, "unset the variable"),
        (format!("export LD_PRELOAD=/nowhere.so; {doctor} 2>/dev/null"), 0, "remove it from LD_PRELOAD"),
        (format!("export EDLEAK_SESSION=/proc/1/fd/3; {doctor}"), 1, "this process is itself being recorded"),
    ];
    for (script, code, expected) in cases {
        let outcome = image.run(&script);
        assert_eq!(outcome.code, code, "{script}: {outcome:?}");
        assert!(outcome.stdout.contains(expected), "{script}: no `{expected}` in\n{}", outcome.stdout);
    }
}

/// A service runs on after its recording has ended. The children of the service must still find the library
/// that LD_PRELOAD names.
#[test]
fn children_after_the_recording_print_no_loader_error() {
    if !can_make_namespaces() {
        return;
    }
    let image = Image::new("after");
    let trace = image.dir.join("traces/trace.edl");
    let script = "$E/bin/edleak-record -q --duration 300ms -o $E/traces/trace.edl -- \
                  sh -c 'while kill -0 $PPID 2>/dev/null; do sleep 0.05; done; ls / >/dev/null; echo done' & \
                  wait; for i in $(seq 200); do grep -q done $E/traces/out && break; sleep 0.05; done";
    let outcome = image.run(&format!("{{ {script} ; }} >$E/traces/out 2>&1; cat $E/traces/out"));
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "done\n"), "{outcome:?}");
    assert_eq!(analyze(["verify"], &trace).code, 0);
    let _ = Report::of(&trace, &["--all"]);
}
