//! Checks whether a process still runs the image (the program) that the collector records. After the process
//! has executed a program that is not recorded, the counters of the recording no longer change.

use crate::sys::image::Image;
use crate::sys::proc_file;
use crate::sys::process::{self, Privileges, Status};
use std::time::{Duration, Instant};

/// Interval between two checks of a process. In the first second (`NEW`) of a recording, the interval is
/// `NEW_LOOK`, because a child of a shell soon executes another program.
const LOOK: Duration = Duration::from_millis(100);
const NEW_LOOK: Duration = Duration::from_millis(20);
const NEW: Duration = Duration::from_secs(1);
/// If the next image claims no session within this time after the collector noticed the exec, the collector
/// assumes that the next image is not recorded.
const CLAIM_TIME: Duration = Duration::from_secs(1);

/// The privileges of a process and the user mapping of its user namespace. A process that enters its own user
/// namespace gets all privileges without an exec, so new privileges alone do not prove an exec.
#[derive(PartialEq, Eq, Default, Debug)]
struct Rights {
    privileges: Privileges,
    users: Vec<u8>,
}

/// Reads the privileges and the user mapping of a process; `None`: the process has ended.
fn rights(pid: u32, status: Option<Status>) -> Option<Rights> {
    let privileges = status?.privileges;
    Some(Rights { privileges, users: proc_file::read(format!("/proc/{pid}/uid_map")).ok()? })
}

/// Watches whether the process of one recording still runs the recorded image.
pub(crate) struct ImageWatch {
    pid: u32,
    recorded: Option<Image>,
    rights: Rights,
    began: Instant,
    looked_at: Instant,
    /// The time at which the collector first saw the process with another image.
    left_at: Option<Instant>,
}

impl ImageWatch {
    /// Creates the watch of a process. `stack_start` is the address at which the stack of the recorded image
    /// starts; 0: the image did not report this address. When the collector calls this function, the process
    /// may already have executed another program. `status` is the status of the process; `None`: the process
    /// has ended.
    pub(crate) fn new(pid: u32, stack_start: u64, status: Option<Status>) -> ImageWatch {
        let (recorded, looked_at) = (Image::of(pid), Instant::now());
        let is_another = recorded.is_some_and(|image| stack_start != 0 && image.stack_start != stack_start);
        let rights = rights(pid, status).unwrap_or_default();
        ImageWatch {
            pid,
            recorded,
            rights,
            began: looked_at,
            looked_at,
            left_at: is_another.then_some(looked_at),
        }
    }

    /// Checks the process if the last check was at least [`LOOK`] ago, or at least [`NEW_LOOK`] ago for a new
    /// image.
    pub(crate) fn look(&mut self, now: Instant) {
        let is_new = now.saturating_duration_since(self.began) < NEW;
        let pause = if is_new { NEW_LOOK } else { LOOK };
        if self.is_left() || now.saturating_duration_since(self.looked_at) < pause {
            return;
        }
        self.looked_at = now;
        let Some(recorded) = self.recorded else { return };
        let is_another = match Image::of(self.pid) {
            Some(image) => image != recorded,
            // The collector cannot read which image the process runs, so this user may have lost the right to
            // inspect the process. If the process had no privileges and has other privileges now, it got
            // these privileges from the file of a program that it executed (set-user-ID, capabilities). If
            // the process has only become non-dumpable, its privileges are unchanged.
            None => {
                let is_given = |now: Rights| now != self.rights && now.users == self.rights.users;
                self.rights.privileges.capabilities == 0
                    && rights(self.pid, process::read_status(self.pid)).is_some_and(is_given)
            }
        };
        if is_another {
            self.left_at = Some(now);
        }
    }

    /// Notes that the image after the exec has its own recording. From now on, [`ImageWatch::is_left`]
    /// returns `false`.
    pub(crate) fn set_followed(&mut self) {
        (self.recorded, self.left_at) = (None, None);
    }

    /// Whether the process now runs another image than the recorded one.
    pub(crate) fn is_left(&self) -> bool {
        self.left_at.is_some()
    }

    /// Whether the process has run another image for at least the time `least`.
    pub(crate) fn is_left_for(&self, now: Instant, least: Duration) -> bool {
        self.left_at.is_some_and(|left| now.saturating_duration_since(left) >= least)
    }

    /// Whether the process has run another image for so long that this image will claim no session.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.is_left_for(now, CLAIM_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn process_keeps_its_image_until_exec() {
        let pid = std::process::id();
        let own = Image::of(pid).expect("this process is there").stack_start;
        let (now, later) = (Instant::now(), Instant::now() + 2 * CLAIM_TIME);
        for (said, is_left) in [(own, false), (0, false), (own + 16, true)] {
            let mut watch = ImageWatch::new(pid, said, process::read_status(pid));
            watch.look(later);
            assert_eq!(
                (watch.is_left(), watch.is_over(now), watch.is_over(later)),
                (is_left, false, is_left)
            );
        }
        let mut watch = ImageWatch::new(pid, own, process::read_status(pid));
        watch.recorded = watch.recorded.map(|image| Image { inode: image.inode + 1, ..image });
        watch.look(later);
        assert!(watch.is_left() && !watch.is_over(later) && watch.is_over(later + CLAIM_TIME));
        watch.set_followed();
        watch.look(later + CLAIM_TIME);
        assert!(!watch.is_left());
    }
}
