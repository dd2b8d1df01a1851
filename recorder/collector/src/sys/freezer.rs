//! Finds out whether a process cannot run because its control group (cgroup) is frozen.
//!
//! A machine can have the control groups of version 2 (with the file `cgroup.freeze`), the freezer of version
//! 1 (with the file `freezer.state`), or both. /proc/PID/cgroup names the group of a process in each
//! hierarchy, and /proc/self/mountinfo names the directory of each hierarchy.

use crate::sys::proc_file::read_text;
use std::fs;
use std::path::{Path, PathBuf};

/// A frozen control group, with the file through which the user can let the group run again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frozen {
    /// The file into which the user must write `text`, so that the group runs again.
    pub(crate) file: PathBuf,
    /// The text that the user must write into the file.
    pub(crate) text: &'static str,
}

/// The frozen control group that keeps a process from running; `None`: the process may run.
pub(crate) fn of(pid: u32) -> Option<Frozen> {
    let groups = read_text(format!("/proc/{pid}/cgroup")).ok()?;
    let mounts = read_text("/proc/self/mountinfo").ok()?;
    frozen_group(&groups, &mounts)
}

/// Finds the frozen control group. `groups` is the content of /proc/PID/cgroup, and `mounts` the content of
/// /proc/self/mountinfo.
fn frozen_group(groups: &str, mounts: &str) -> Option<Frozen> {
    mounts.lines().filter_map(Hierarchy::parse).find_map(|hierarchy| {
        let directory = hierarchy.directory_of(groups)?;
        // If a group is frozen, the processes in all groups below this group are frozen, too.
        let path = || directory.ancestors().take_while(|path| path.starts_with(&hierarchy.mount_point));
        let has = |path: &Path, name: &str, text: &str| {
            fs::read_to_string(path.join(name)).is_ok_and(|content| content.lines().any(|line| line == text))
        };
        if hierarchy.is_unified {
            let is_frozen = has(&directory, "cgroup.events", "frozen 1");
            let asked = path().find(|path| has(path, "cgroup.freeze", "1"));
            let group = asked.or_else(|| is_frozen.then_some(directory.as_path()))?;
            Some(Frozen { file: group.join("cgroup.freeze"), text: "0" })
        } else {
            let states = ["FROZEN", "FREEZING"];
            if !states.iter().any(|state| has(&directory, "freezer.state", state)) {
                return None;
            }
            let asked = path().find(|path| has(path, "freezer.self_freezing", "1"));
            let group = asked.unwrap_or(&directory);
            Some(Frozen { file: group.join("freezer.state"), text: "THAWED" })
        }
    })
}

/// A mounted hierarchy of control groups that can freeze processes.
struct Hierarchy {
    /// Whether the hierarchy belongs to version 2 of control groups.
    is_unified: bool,
    /// The control group whose directory is the mount point of the hierarchy.
    root: PathBuf,
    mount_point: PathBuf,
}

impl Hierarchy {
    /// Parses a line of mountinfo; `None`: the line is about another file system, or about a hierarchy that
    /// cannot freeze processes.
    fn parse(line: &str) -> Option<Hierarchy> {
        let (place, file_system) = line.split_once(" - ")?;
        let mut fields = file_system.split(' ');
        let is_unified = match fields.next()? {
            "cgroup2" => true,
            "cgroup" if fields.next_back()?.split(',').any(|option| option == "freezer") => false,
            _ => return None,
        };
        let mut fields = place.split(' ').skip(3);
        let (root, mount_point) = (fields.next()?.into(), fields.next()?.into());
        Some(Hierarchy { is_unified, root, mount_point })
    }

    /// The directory of the control group of a process. `groups` is the content of /proc/PID/cgroup of this
    /// process.
    fn directory_of(&self, groups: &str) -> Option<PathBuf> {
        let group = groups.lines().find_map(|line| {
            let (_, names_and_group) = line.split_once(':')?;
            let (names, group) = names_and_group.split_once(':')?;
            let is_this = match self.is_unified {
                true => names.is_empty(),
                false => names.split(',').any(|name| name == "freezer"),
            };
            is_this.then_some(group)
        })?;
        Some(self.mount_point.join(Path::new(group).strip_prefix(&self.root).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates a directory that contains the given files. Returns the path of the created directory, and a
    /// text in the format of /proc/PID/mountinfo that mounts cgroup hierarchies in this directory.
    fn hierarchies(name: &str, files: &[(&str, &str)]) -> (PathBuf, String) {
        let base = std::env::temp_dir().join(format!("edleak-freezer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&base);
        for (path, content) in files {
            let path = base.join(path);
            fs::create_dir_all(path.parent().expect("a path in the directory")).expect("writable");
            fs::write(path, content).expect("writable");
        }
        let at = base.display();
        let mounts = format!(
            "21 1 0:20 / /proc rw - proc proc rw\n\
             30 1 0:26 / {at}/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
             31 1 0:27 / {at}/freezer rw,relatime - cgroup cgroup rw,freezer\n\
             32 1 0:28 /host {at}/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
        );
        (base, mounts)
    }

    fn frozen(file: PathBuf, text: &'static str) -> Option<Frozen> {
        Some(Frozen { file, text })
    }

    #[test]
    fn group_of_version_1_is_frozen_by_its_own_state_or_by_a_group_above() {
        let (base, mounts) = hierarchies(
            "v1",
            &[
                ("freezer/a/freezer.state", "FROZEN\n"),
                ("freezer/a/freezer.self_freezing", "1\n"),
                ("freezer/a/b/freezer.state", "FREEZING\n"),
                ("freezer/a/b/freezer.self_freezing", "0\n"),
                ("freezer/c/freezer.state", "THAWED\n"),
                ("memory/c/freezer.state", "FROZEN\n"),
            ],
        );
        let group = |path: &str| frozen_group(&format!("9:memory:/c\n6:freezer:{path}\n0::/host\n"), &mounts);
        let state = base.join("freezer/a/freezer.state");
        assert_eq!(group("/a"), frozen(state.clone(), "THAWED"));
        assert_eq!(group("/a/b"), frozen(state, "THAWED"));
        assert_eq!((group("/c"), group("/"), group("/../out")), (None, None, None));
        let _ = fs::remove_dir_all(&base);
    }

    #[test]
    fn group_of_version_2_is_frozen_by_its_events_or_by_a_request_above() {
        let (base, mounts) = hierarchies(
            "v2",
            &[
                ("unified/a/cgroup.freeze", "1\n"),
                ("unified/a/cgroup.events", "populated 1\nfrozen 0\n"),
                ("unified/a/b/cgroup.freeze", "0\n"),
                ("unified/a/b/cgroup.events", "populated 1\nfrozen 1\n"),
                ("unified/c/cgroup.freeze", "0\n"),
                ("unified/c/cgroup.events", "populated 1\nfrozen 0\n"),
                ("unified/d/cgroup.events", "populated 1\nfrozen 1\n"),
            ],
        );
        // This mount shows only the control groups below `/host`.
        let group = |path: &str| frozen_group(&format!("6:freezer:/\n0::{path}\n"), &mounts);
        let freeze = base.join("unified/a/cgroup.freeze");
        assert_eq!(group("/host/a"), frozen(freeze.clone(), "0"), "the kernel has not frozen it yet");
        assert_eq!(group("/host/a/b"), frozen(freeze, "0"));
        assert_eq!(group("/host/d"), frozen(base.join("unified/d/cgroup.freeze"), "0"));
        assert_eq!((group("/host/c"), group("/a"), group("/")), (None, None, None));
        let _ = fs::remove_dir_all(&base);
    }

    #[test]
    fn this_process_is_not_frozen() {
        assert_eq!(of(std::process::id()), None);
    }
}
