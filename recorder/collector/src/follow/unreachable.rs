//! Child processes that were to be recorded and cannot reach us: after chroot, as another user, behind a /proc of their own. They cannot
//! say so themselves, and silence would look like a clean run.

use crate::sys::process;
use edleak_session::ENV_SESSION;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// When the tree of processes is first looked through, and how often at least once it is old. Each look reads two files or so of every
/// process in it; one that comes and goes between two looks is not seen.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LEAST_OFTEN: Duration = Duration::from_secs(5);

/// Those that were found, and when to look again.
pub(super) struct UnreachableChildren {
    found: HashSet<(u32, u64)>,
    next: Instant,
    pause: Duration,
}

impl UnreachableChildren {
    pub(super) fn new(now: Instant) -> UnreachableChildren {
        UnreachableChildren { found: HashSet::new(), next: now + FIRST_LOOK, pause: FIRST_LOOK }
    }

    /// Looks through the descendants of `root`, if it is time; `control` is where they would find us. What is said of each that is new.
    pub(super) fn look(
        &mut self,
        now: Instant,
        root: u32,
        control: &str,
        is_recorded: impl Fn(u32) -> bool,
    ) -> Vec<String> {
        if now < self.next {
            return Vec::new();
        }
        self.pause = (2 * self.pause).min(LEAST_OFTEN);
        self.next = now + self.pause;
        let mut new = Vec::new();
        for pid in process::descendants(root).into_iter().filter(|&pid| !is_recorded(pid)) {
            let Some(began) = process::start_ticks(pid) else { continue };
            if is_lost(pid, control) && self.found.insert((pid, began)) {
                let program = process::program(pid).unwrap_or_default();
                let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
                new.push(format!(
                    "process {pid} (`{name}`) cannot reach edleak-record, so it is not recorded (start edleak-record in its place: \
                     as its user, behind its /proc)"
                ));
            }
        }
        new
    }
}

/// Whether a process was told where to find us and does not. Of one that is not ours to look at nothing is said.
fn is_lost(pid: u32, control: &str) -> bool {
    let (Ok(environment), Ok(maps)) =
        (fs::read(format!("/proc/{pid}/environ")), fs::read(format!("/proc/{pid}/maps")))
    else {
        return false;
    };
    let told = format!("{ENV_SESSION}={control}").into_bytes();
    let was_told = environment.split(|&byte| byte == 0).any(|word| word == told);
    was_told && !process::has_session(&maps) && !can_reach(pid, control)
}

fn can_reach(pid: u32, control: &str) -> bool {
    let (control, _nonce) = control.split_once('#').unwrap_or((control, ""));
    let Ok(own) = fs::metadata(control) else { return true };
    let is_same = |there: fs::Metadata| (there.dev(), there.ino()) == (own.dev(), own.ino());
    match fs::metadata(format!("/proc/{pid}/root{control}")) {
        Ok(there) => is_same(there) && is_our_user(pid),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

fn user(pid: u32) -> Option<u32> {
    process::read_status(pid).map(|status| status.privileges.ids[0])
}

/// Whether it may open what is ours: it is who we are, or root.
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
    fn who_was_told_and_does_not_see_us_is_lost() {
        if user(std::process::id()) != Some(0) {
            eprintln!("skipped: only root can become another user");
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
        let mut lost = UnreachableChildren::new(Instant::now());
        let later = Instant::now() + FIRST_LOOK;
        assert!(lost.look(Instant::now(), std::process::id(), &control, |_| false).is_empty(), "not yet");
        let found = lost.look(later, std::process::id(), &control, |_| false);
        let again = lost.look(later + LEAST_OFTEN, std::process::id(), &control, |_| false);
        for child in &mut children {
            let _ = child.kill();
            let _ = child.wait();
        }
        assert_eq!((found.len(), again.len()), (1, 0), "{found:?} {again:?}");
        assert!(found[0].starts_with(&format!("process {} (`sleep`)", pids[0])), "{found:?}");
    }
}
