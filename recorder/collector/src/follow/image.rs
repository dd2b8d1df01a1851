//! Whether a process is still the image that is recorded, or went on as a program that is not: what a session says then is of the past.

use crate::sys::process::{self, Privileges};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

/// A process is looked at this often, and more often while it is young: a shell's child soon becomes another program ...
const LOOK: Duration = Duration::from_millis(100);
const YOUNG_LOOK: Duration = Duration::from_millis(20);
const YOUNG: Duration = Duration::from_secs(1);
/// ... and its next image has this long to claim a session of its own.
const CLAIM_TIME: Duration = Duration::from_secs(1);

/// What tells one image of a process from the next: the file that it runs, and where its first stack began, which differs even between
/// two of the same file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Image {
    device: u64,
    inode: u64,
    stack_start: u64,
}

/// The image that a process is now; `None`: it has ended, or is not ours to look at.
fn image(pid: u32) -> Option<Image> {
    let file = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let stack_start = stack_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    Some(Image { device: file.dev(), inode: file.ino(), stack_start })
}

/// The 28th field of /proc/PID/stat; 0 is all that is told to whom the process is none of their business.
fn stack_start(stat: &str) -> Option<u64> {
    process::stat_field(stat, 28).filter(|&address| address != 0)
}

/// What a process may do, and which users its namespace knows: in one of its own it may do everything, without another image.
#[derive(PartialEq, Eq, Default, Debug)]
struct Rights {
    privileges: Privileges,
    users: Vec<u8>,
}

/// `None`: it has ended.
fn rights(pid: u32) -> Option<Rights> {
    let privileges = process::read_status(pid)?.privileges;
    Some(Rights { privileges, users: fs::read(format!("/proc/{pid}/uid_map")).ok()? })
}

/// The image of one recording.
pub(crate) struct ImageWatch {
    pid: u32,
    recorded: Option<Image>,
    rights: Rights,
    began: Instant,
    looked_at: Instant,
    /// Since when the process is another.
    left_at: Option<Instant>,
}

impl ImageWatch {
    /// `stack_start` is that of the image that attached, 0 if it did not know: the process may be the next one by now.
    pub(crate) fn new(pid: u32, stack_start: u64) -> ImageWatch {
        let (recorded, looked_at) = (image(pid), Instant::now());
        let is_another = recorded.is_some_and(|image| stack_start != 0 && image.stack_start != stack_start);
        let rights = rights(pid).unwrap_or_default();
        ImageWatch {
            pid,
            recorded,
            rights,
            began: looked_at,
            looked_at,
            left_at: is_another.then_some(looked_at),
        }
    }

    /// Looks again, if it is time.
    pub(crate) fn look(&mut self, now: Instant) {
        let is_young = now.saturating_duration_since(self.began) < YOUNG;
        let pause = if is_young { YOUNG_LOOK } else { LOOK };
        if self.is_left() || now.saturating_duration_since(self.looked_at) < pause {
            return;
        }
        self.looked_at = now;
        let Some(recorded) = self.recorded else { return };
        let is_another = match image(self.pid) {
            Some(image) => image != recorded,
            // It is none of our business any more. Who had no privileges and has others now was given them by the file of a program
            // (set-user-ID, capabilities); who only became private has the same.
            None => {
                let is_given = |now: Rights| now != self.rights && now.users == self.rights.users;
                self.rights.privileges.capabilities == 0 && rights(self.pid).is_some_and(is_given)
            }
        };
        if is_another {
            self.left_at = Some(now);
        }
    }

    /// The next image is recorded, too: leaving this one hides nothing.
    pub(crate) fn set_followed(&mut self) {
        (self.recorded, self.left_at) = (None, None);
    }

    /// The process is another image now.
    pub(crate) fn is_left(&self) -> bool {
        self.left_at.is_some()
    }

    /// It has been for so long.
    pub(crate) fn is_left_for(&self, now: Instant, least: Duration) -> bool {
        self.left_at.is_some_and(|left| now.saturating_duration_since(left) >= least)
    }

    /// It has been for so long that the new image will not claim a session any more.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.is_left_for(now, CLAIM_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_the_image_that_it_was_until_it_is_another() {
        let pid = std::process::id();
        let own = image(pid).expect("this process is there").stack_start;
        let (now, later) = (Instant::now(), Instant::now() + 2 * CLAIM_TIME);
        for (said, is_left) in [(own, false), (0, false), (own + 16, true)] {
            let mut watch = ImageWatch::new(pid, said);
            watch.look(later);
            assert_eq!(
                (watch.is_left(), watch.is_over(now), watch.is_over(later)),
                (is_left, false, is_left)
            );
        }
        let mut watch = ImageWatch::new(pid, own);
        watch.recorded = watch.recorded.map(|image| Image { inode: image.inode + 1, ..image });
        watch.look(later);
        assert!(watch.is_left() && !watch.is_over(later) && watch.is_over(later + CLAIM_TIME));
        watch.set_followed();
        watch.look(later + CLAIM_TIME);
        assert!(!watch.is_left());
    }
}
