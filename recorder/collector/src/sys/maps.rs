//! Reads and parses memory maps: /proc/PID/maps, and the first line of each entry of /proc/PID/smaps.

use crate::sys::proc_file;
use std::fs::File;
use std::io::{self, Read, Seek};

/// One line of a memory map, with the fields `start-end perms offset dev inode name`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Line<'a> {
    /// First address of the mapping.
    pub(crate) start: u64,
    /// The address after the last byte of the mapping.
    pub(crate) end: u64,
    /// The permissions, for example `rw-p`.
    pub(crate) permissions: &'a str,
    /// Offset of `start` in the file.
    pub(crate) offset: u64,
    /// The inode number of the file; 0: the mapping has no file.
    pub(crate) inode: u64,
    /// The name of the mapping: the path of a file as the kernel writes it, a name in brackets such as
    /// `[heap]`, or an empty text.
    pub(crate) name: &'a str,
}

impl<'a> Line<'a> {
    /// Parses one line; `None`: the line is not a line of a memory map.
    pub(crate) fn parse(line: &'a str) -> Option<Line<'a>> {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let (permissions, offset) = (fields.next()?, fields.next()?);
        let (_device, inode) = (fields.next()?, fields.next()?);
        let name = fields.next().unwrap_or_default().trim();
        let hex = |digits| u64::from_str_radix(digits, 16).ok();
        let (start, end, offset) = (hex(start)?, hex(end)?, hex(offset)?);
        Some(Line { start, end, permissions, offset, inode: inode.parse().ok()?, name })
    }

    /// Whether the mapping is the shared memory of a recording.
    pub(crate) fn is_session(&self) -> bool {
        self.name.starts_with("/memfd:edleak-session")
    }
}

/// The lines of a memory map, sorted by address.
pub(crate) fn lines(map: &str) -> impl Iterator<Item = Line<'_>> {
    map.lines().filter_map(Line::parse)
}

/// The content of /proc/PID/maps or /proc/PID/smaps; empty: the process has ended.
///
/// The kernel creates the text of a long memory map in parts, one part for each read. If the process ends
/// between two reads, the rest of the memory map is missing, but no read returns an error. So after the last
/// part, the function reads the beginning of the memory map again. If the beginning is then empty, the
/// process has ended.
pub(crate) fn read(pid: u32, name: &str) -> io::Result<Vec<u8>> {
    whole(&mut File::open(format!("/proc/{pid}/{name}"))?)
}

fn whole(file: &mut File) -> io::Result<Vec<u8>> {
    let map = proc_file::read_open(file)?;
    file.rewind()?;
    let is_whole = file.read(&mut [0])? > 0;
    Ok(if is_whole { map } else { Vec::new() })
}

/// The memory map of a process as text; empty: the process has ended. `None`: the process does not exist, or
/// this user may not inspect it.
pub(crate) fn text_of(pid: u32) -> Option<String> {
    let map = read(pid, "maps").ok()?;
    Some(String::from_utf8_lossy(&map).into_owned())
}

/// The address range of every line of a memory map, sorted by address.
pub(crate) fn ranges(map: &str) -> Vec<(u64, u64)> {
    lines(map).map(|line| (line.start, line.end)).collect()
}

/// A mapping of a file in a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mapping {
    /// First address of the mapping.
    pub(crate) start: u64,
    /// The address after the last byte of the mapping.
    pub(crate) end: u64,
    /// Offset of `start` in the file.
    pub(crate) offset: u64,
    /// The file's path, as the process sees it. The ending ` (deleted)`, which the kernel adds to the path of
    /// a deleted file, is removed.
    pub(crate) path: String,
    /// Whether the process may execute the mapping.
    pub(crate) is_code: bool,
}

/// The mappings of files in a memory map, sorted by address.
pub(crate) fn files(map: &[u8]) -> Vec<Mapping> {
    let files = |line: Line<'_>| {
        let path = line.name.strip_suffix(" (deleted)").unwrap_or(line.name);
        // In the paths of a memory map, the kernel writes `\012` for a line feed. The kernel writes every
        // other character unchanged, even the backslash.
        let path = path.replace("\\012", "\n");
        path.starts_with('/').then_some(Mapping {
            start: line.start,
            end: line.end,
            offset: line.offset,
            path,
            is_code: line.permissions.contains('x'),
        })
    };
    lines(&String::from_utf8_lossy(map)).filter_map(files).collect()
}

/// The mappings of files in a running process; empty: the process has ended, or this user may not inspect the
/// process.
pub(crate) fn files_of(pid: u32) -> Vec<Mapping> {
    read(pid, "maps").map_or_else(|_| Vec::new(), |map| files(&map))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};
    use std::process::Command;

    const MAP: &str = "55d0-55e0 r--p 00002000 08:01 123                        /usr/bin/a b\n\
                       55e0-55f0 rw-p 00000000 00:00 0                          [heap]\n\
                       7f00-7f10 r-xp 00000000 08:01 9                          /tmp/x.so (deleted)\n\
                       7ffd-7ffe rw-p 00000000 00:00 0\n\
                       7fff-8000 rw-s 00000000 00:01 7                          \
                       /memfd:edleak-session (deleted)\n\
                       broken line\n";

    #[test]
    fn line_has_all_fields_and_a_broken_one_none() {
        let lines: Vec<_> = lines(MAP).collect();
        let first = Line {
            start: 0x55d0,
            end: 0x55e0,
            permissions: "r--p",
            offset: 0x2000,
            inode: 123,
            name: "/usr/bin/a b",
        };
        assert_eq!(lines[0], first);
        assert_eq!(lines.iter().map(|line| line.name).nth(3), Some(""));
        assert_eq!(
            lines.iter().filter(|line| line.is_session()).map(|line| line.inode).collect::<Vec<_>>(),
            [7]
        );
        assert_eq!(lines.len(), 5);
        assert_eq!(Line::parse("VmFlags: rd wr mr mw me"), None);
    }

    #[test]
    fn mappings_of_files_are_read_and_others_left_out() {
        let files = files(MAP.as_bytes());
        let paths: Vec<_> = files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["/usr/bin/a b", "/tmp/x.so", "/memfd:edleak-session"]);
        assert_eq!((files[0].start, files[0].end, files[0].offset), (0x55d0, 0x55e0, 0x2000));
        assert_eq!((files[0].is_code, files[1].is_code), (false, true));
    }

    #[test]
    fn a_line_feed_in_a_path_is_one() {
        let files = files(b"55d0-55e0 r-xp 00000000 08:01 123   /tmp/a\\012b/c\\d\n");
        assert_eq!(files[0].path, "/tmp/a\nb/c\\d");
    }

    #[test]
    fn this_process_has_its_own_file() {
        let own = std::env::current_exe().expect("a process knows its file").display().to_string();
        assert!(files_of(std::process::id()).iter().any(|file| file.path == own));
        assert_eq!(text_of(0), None);
    }

    #[test]
    fn map_of_a_process_that_ends_meanwhile_is_empty() {
        let mut child = Command::new("sleep").arg("100").spawn().expect("sleep is installed");
        let mut map = File::open(format!("/proc/{}/maps", child.id())).expect("it runs");
        let mut start = [0; 64];
        map.read_exact(&mut start).expect("it has a map");
        let rest = whole(&mut map).expect("it is readable");
        assert!(!rest.is_empty());
        map.read_exact(&mut start).expect("it has a map");
        child.kill().expect("it runs");
        let ends = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&child)), ends).expect("it ends");
        assert!(!proc_file::read_open(&mut map).expect("the kernel has a part ready").is_empty());
        map.rewind().expect("a file of /proc has a beginning");
        assert_eq!(whole(&mut map).expect("it is readable"), []);
        child.wait().expect("it has ended");
    }
}
