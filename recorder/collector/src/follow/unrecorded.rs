//! Finds descendants of the root process that have no recording. Some descendants cannot reach the collector,
//! because they run in a chroot, as another user, or with another /proc. Some descendants started without the
//! library, and some ended before they could claim a session. If edleak did not report such descendants, a
//! user could believe that they have no leaks.

use crate::error::{Error, ErrorKind};
use crate::sys::maps;
use crate::sys::process;
use edleak_format::place::identity;
use edleak_session::ENV_SESSION;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

/// Time from the start of the run to the first scan of the process tree. `LEAST_OFTEN` is the longest usual
/// pause between two scans. A scan reads about two files of every process in the tree. The collector does not
/// see a process that starts and ends between two scans.
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LEAST_OFTEN: Duration = Duration::from_secs(1);
/// After a scan, the collector pauses for at least `REST` times the duration of the scan.
const REST: u32 = 50;
/// If an image claims no session within this time, the collector assumes that the image started without the
/// library.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// A process without a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unrecorded {
    pid: u32,
    name: String,
    /// Whether the process has the address of the control page but cannot open this page.
    is_out_of_reach: bool,
}

impl Unrecorded {
    /// The process ID.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether the process has the address of the control page but cannot open this page. If the process
    /// cannot open the control page, a request to begin counting would fail.
    pub(super) fn is_out_of_reach(&self) -> bool {
        self.is_out_of_reach
    }

    /// The error that reports this process to the user.
    pub(super) fn error(&self) -> Error {
        let Unrecorded { pid, name, is_out_of_reach } = self;
        let process = format!("process {pid} (`{name}`)");
        let (message, remedy) = if *is_out_of_reach {
            (
                format!("{process} cannot reach edleak-record, so it is not recorded"),
                "start edleak-record as the user of the process, with the /proc of the process".into(),
            )
        } else {
            (
                format!("{process} runs without edleak's library, so it is not recorded"),
                format!("it must inherit LD_PRELOAD and {ENV_SESSION}, and be linked dynamically"),
            )
        };
        Error::new(ErrorKind::Unrecorded, message).with_remedy(remedy)
    }
}

/// A process that the collector saw without a session.
struct Seen {
    since: Instant,
    name: String,
    is_told: bool,
}

/// The running processes without a session that the scans have found, and the time of the next scan. The PID
/// and the start time identify a process.
pub(super) struct UnrecordedProcesses {
    seen: HashMap<(u32, u64), Seen>,
    next: Instant,
    pause: Duration,
}

impl UnrecordedProcesses {
    pub(super) fn new(now: Instant) -> UnrecordedProcesses {
        UnrecordedProcesses { seen: HashMap::new(), next: now + FIRST_LOOK, pause: FIRST_LOOK }
    }

    /// If a scan is due, scans the descendants of `root`, and also the descendants from older scans that have
    /// another parent now. `control` is the address of the control page. The scan skips the processes in
    /// `recorded`, which have or had a recording, and processes for which `is_wanted` returns `false`.
    /// Returns the newly found processes.
    pub(super) fn look(
        &mut self,
        now: Instant,
        root: u32,
        control: &str,
        recorded: &HashSet<u32>,
        is_wanted: impl Fn(u32) -> bool,
    ) -> Vec<Unrecorded> {
        if now < self.next {
            return Vec::new();
        }
        let began = Instant::now();
        let mut there = HashSet::new();
        let known: Vec<u32> = self.seen.keys().map(|(pid, _)| *pid).collect();
        let mut new = Vec::new();
        for pid in process::descendants(root).into_iter().chain(known) {
            let Some(start) = process::start_ticks(pid).filter(|_| !recorded.contains(&pid)) else {
                continue;
            };
            let key = (pid, start);
            if !there.insert(key) {
                continue;
            }
            if !is_without_session(pid) || !is_wanted(pid) {
                self.seen.remove(&key);
                continue;
            }
            let seen = self.seen.entry(key).or_insert_with(|| Seen {
                since: now,
                name: name_of(pid),
                is_told: false,
            });
            let is_out_of_reach = is_out_of_reach(pid, control);
            if !seen.is_told
                && (is_out_of_reach || now.saturating_duration_since(seen.since) >= CLAIM_TIMEOUT)
            {
                seen.is_told = true;
                new.push(Unrecorded { pid, name: name_of(pid), is_out_of_reach });
            }
        }
        // Also report each process that ended before the collector could tell whether the process would claim
        // a session.
        self.seen.retain(|key, seen| {
            let is_there = there.contains(key);
            if !is_there && !seen.is_told && !recorded.contains(&key.0) {
                new.push(Unrecorded { pid: key.0, name: seen.name.clone(), is_out_of_reach: false });
            }
            is_there
        });
        self.pause = (2 * self.pause).max(REST * began.elapsed()).min(LEAST_OFTEN.max(self.pause));
        self.next = now + self.pause;
        new
    }

    /// Whether the latest scan found processes without a session, including processes that the collector has
    /// already reported.
    pub(super) fn are_there(&self) -> bool {
        !self.seen.is_empty()
    }
}

/// The processes without a recording that have the address of the control page in their environment. A daemon
/// keeps this address in its environment, so the collector also finds daemons, which are no longer
/// descendants of the root process. With `only_old`, the list omits processes that may still claim a session.
pub(super) fn told_about_us(control: &str, recorded: &HashSet<u32>, only_old: bool) -> Vec<Unrecorded> {
    let told = process::all().filter(|pid| !recorded.contains(pid) && was_told(*pid, control));
    let counts =
        |pid: &u32| !only_old || (is_without_session(*pid) && process::age(*pid) >= Some(CLAIM_TIMEOUT));
    let unrecorded =
        |pid| Unrecorded { pid, name: name_of(pid), is_out_of_reach: is_out_of_reach(pid, control) };
    told.filter(counts).map(unrecorded).collect()
}

fn name_of(pid: u32) -> String {
    let program = process::program(pid).unwrap_or_default();
    program.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a process has mapped neither its own session nor the session of its parent. If this user may not
/// read the memory map of the process, the function compares user IDs: a program whose file has the
/// set-user-ID bit runs as another user and ignores LD_PRELOAD.
fn is_without_session(pid: u32) -> bool {
    match maps::text_of(pid) {
        // If a process has ended and its parent has not waited for it yet, the memory map of the process is
        // empty.
        Some(map) => !map.is_empty() && !process::has_session(&map),
        None => user(pid).is_some_and(|theirs| Some(theirs) != user(std::process::id())),
    }
}

fn was_told(pid: u32, control: &str) -> bool {
    let told = format!("{ENV_SESSION}={control}");
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|&byte| byte == 0).any(|word| OsStr::from_bytes(word) == told.as_str())
}

/// Whether a process has the address of the control page but cannot open this page. If this user may not
/// inspect the process, the function returns `false`.
fn is_out_of_reach(pid: u32, control: &str) -> bool {
    let Some(map) = maps::text_of(pid) else { return false };
    was_told(pid, control) && !process::has_session(&map) && !can_reach(pid, control)
}

fn can_reach(pid: u32, control: &str) -> bool {
    let (control, _nonce) = control.split_once('#').unwrap_or((control, ""));
    let Ok(own) = fs::metadata(control) else { return true };
    match fs::metadata(format!("/proc/{pid}/root{control}")) {
        Ok(there) => identity(&there) == identity(&own) && is_our_user(pid),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn user(pid: u32) -> Option<u32> {
    process::read_status(pid).map(|status| status.privileges.ids[0])
}

/// Whether the process may open the collector's files, because it belongs to root or to the user of the
/// collector.
fn is_our_user(pid: u32) -> bool {
    user(pid).is_none_or(|theirs| theirs == 0 || Some(theirs) == user(std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn told(control: &str, program: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new(program);
        command.args(arguments).env(ENV_SESSION, control).spawn().expect("it is installed")
    }

    #[test]
    fn child_with_the_address_and_without_the_collector_is_lost() {
        if user(std::process::id()) != Some(0) {
            assert!(std::env::var_os("CI").is_none(), "CI runs as root");
            eprintln!("not run: only root can become another user");
            return;
        }
        let control = format!("/proc/{}/exe", std::process::id());
        let as_nobody = ["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"];
        let mut children = [
            told(&control, "setpriv", &as_nobody),
            told(&control, "sleep", &["60"]),
            told("/proc/1/exe", "setpriv", &as_nobody),
        ];
        let pids = children.each_ref().map(Child::id);
        let is_asleep = |pid: &u32| process::program(*pid).is_some_and(|path| path.ends_with("sleep"));
        let limit = Instant::now() + Duration::from_secs(60);
        while !pids.iter().all(is_asleep) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut unrecorded = UnrecordedProcesses::new(Instant::now());
        let later = Instant::now() + FIRST_LOOK;
        let own = std::process::id();
        // The test ignores child processes of other tests, including child processes that start during this
        // test.
        let ours = |mut found: Vec<Unrecorded>| {
            found.retain(|one| pids.contains(&one.pid));
            found
        };
        let others: HashSet<u32> =
            process::descendants(own).into_iter().filter(|pid| !pids.contains(pid)).collect();
        let mut look = |at: Instant| ours(unrecorded.look(at, own, &control, &others, |_| true));
        assert!(look(Instant::now()).is_empty(), "not yet");
        let (found, again) = (look(later), look(later + CLAIM_TIMEOUT / 2));
        let without_library = look(later + 2 * CLAIM_TIMEOUT);
        for child in &mut children {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert_eq!((found.len(), again.len()), (1, 0), "{found:?} {again:?}");
        let error = found[0].error();
        let message = error.message();
        assert!(message.starts_with(&format!("process {} (`sleep`) cannot reach", pids[0])), "{message}");
        assert_eq!(without_library.len(), 2, "{without_library:?}");
        assert!(without_library.iter().all(|one| one.error().message().contains("without edleak's library")));
    }
}
