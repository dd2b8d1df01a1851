//! Reads data about a process from /proc, such as its sessions, its memory size and its threads. This module
//! also asks the kernel whether a process still exists.
#![allow(unsafe_code)] // calls kill and tgkill

use crate::sys::maps;
use crate::sys::proc_file::{has_line, read, read_text};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The IDs of the threads of a process; empty: the process has ended.
pub(crate) fn thread_ids(pid: u32) -> impl Iterator<Item = u32> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// Those entries of a directory that have a number as their name.
fn numbers_in(directory: &str) -> impl Iterator<Item = u32> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Whether any other process has mapped one of the sessions with these inode numbers. A forked child has
/// mapped the session of its parent until the child gets its own session.
pub(crate) fn is_any_mapped(inodes: &HashSet<u64>) -> bool {
    others().any(|pid| maps_session(pid, |inode| inodes.contains(&inode)))
}

/// The process that stored the PID `claimed` in this session; `None`: the process has ended. `claimed` is the
/// PID under which the collector's own /proc shows the process. If the process with this PID has not mapped
/// the session, the process has executed another program, or the PID has been reused. If the process has
/// executed another program or the PID has been reused, the function accepts the process only if it began
/// after the collector.
pub(crate) fn holder_of(session: u64, claimed: u32) -> Option<u32> {
    let maps_it = || maps_session(claimed, |inode| inode == session);
    let is_younger = || Some(start_ticks(claimed)? >= start_ticks(std::process::id())?);
    (maps_it() || is_younger() == Some(true)).then_some(claimed)
}

fn others() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    all().filter(move |pid| *pid != own)
}

/// All processes that /proc shows.
pub(crate) fn all() -> impl Iterator<Item = u32> {
    numbers_in("/proc")
}

/// All descendants of a process: the children, the children of the children, and so on.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let mut all: Vec<u32> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for thread in thread_ids(parent) {
            let children = read_text(format!("/proc/{parent}/task/{thread}/children")).unwrap_or_default();
            let children: Vec<u32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
            parents.extend(&children);
            all.extend(&children);
        }
    }
    all
}

/// Whether a memory map contains a session, which may be the session of the process itself or of its parent.
pub(crate) fn has_session(map: &str) -> bool {
    maps::lines(map).any(|line| line.is_session())
}

/// Whether a process has mapped a session that `is_wanted` accepts.
fn maps_session(pid: u32, is_wanted: impl Fn(u64) -> bool) -> bool {
    let is_wanted_session =
        |line: &str| maps::Line::parse(line).is_some_and(|line| line.is_session() && is_wanted(line.inode));
    has_line(format!("/proc/{pid}/maps"), is_wanted_session) == Some(true)
}

/// The inode number of the session that a process has mapped at an address.
pub(crate) fn session_at(pid: u32, address: u64) -> Option<u64> {
    let map = maps::text_of(pid)?;
    maps::lines(&map).find(|line| line.is_session() && line.start == address).map(|line| line.inode)
}

/// Whether a process has mapped the session with this inode number.
pub(crate) fn maps_this_session(pid: u32, session: u64) -> bool {
    maps_session(pid, |inode| inode == session)
}

/// The time at which a process started, in clock ticks since boot. The start time is the 22nd field of
/// /proc/PID/stat.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    stat_field(&read_text(format!("/proc/{pid}/stat")).ok()?, 22)
}

/// The time since the start of a process; `None`: the process has ended.
pub(crate) fn age(pid: u32) -> Option<Duration> {
    // SAFETY: the call only reads a setting of the system.
    let ticks_per_s =
        u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|&ticks| ticks > 0)?;
    let uptime = fs::read_to_string("/proc/uptime").ok()?;
    let uptime: f64 = uptime.split(' ').next()?.parse().ok()?;
    let began = start_ticks(pid)? as f64 / ticks_per_s as f64;
    Some(Duration::from_secs_f64((uptime - began).max(0.0)))
}

/// Whether a process has waited for a child process; `None`: the process has ended. The kernel adds the page
/// faults of a child to a counter of the parent when the parent waits for the child. The result is `true` if
/// the parent's counter for page faults of its children is not 0.
pub(crate) fn has_waited_for_children(pid: u32) -> Option<bool> {
    const CHILDRENS_MINOR_FAULTS: usize = 11;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat_field(&stat, CHILDRENS_MINOR_FAULTS)? > 0)
}

/// The value of one field of /proc/PID/stat. `number` is the number of the field in proc(5). The search
/// starts after the second field, because this field is a name in parentheses and may contain any character.
pub(crate) fn stat_field(stat: &str, number: usize) -> Option<u64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

/// The letter for the state of a process or thread, such as `R`, `S`, `T` or `Z`. `stat` is the content of
/// the process's or thread's file `stat` in /proc.
pub(crate) fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The processor time that a process has used since its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct ProcessorTime {
    /// Processor time that all threads of the process have used, in nanoseconds.
    pub(crate) used_ns: u64,
    /// Time for which the main thread was ready to run but waited for a processor, in nanoseconds.
    pub(crate) waited_ns: u64,
}

/// Reads the processor time; `None`: the process has ended.
pub(crate) fn processor_time(pid: u32) -> Option<ProcessorTime> {
    /// Length of a clock tick in nanoseconds. Linux always reports processor times in units of 1/100 s, even
    /// if the kernel uses another clock rate.
    const NS_PER_TICK: u64 = 1_000_000_000 / 100;
    let stat = read_text(format!("/proc/{pid}/stat")).ok()?;
    // Prefer the processor-time clock of the process to /proc. /proc has a resolution of only 1/100 s, and a
    // program that mostly sleeps may use less processor time than 1/100 s in a whole recording.
    let exact_ns = processor_clock(pid);
    let ticks = stat_field(&stat, 14)?.saturating_add(stat_field(&stat, 15)?);
    // If the kernel has no scheduler statistics, the file schedstat does not exist.
    let schedule = read_text(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let waited = schedule.split_whitespace().nth(1).and_then(|field| field.parse().ok());
    let used_ns = exact_ns.unwrap_or(ticks.saturating_mul(NS_PER_TICK));
    Some(ProcessorTime { used_ns, waited_ns: waited.unwrap_or(0) })
}

/// Reads the processor-time clock of a process. The clock counts the processor time of all threads of the
/// process, in nanoseconds.
fn processor_clock(pid: u32) -> Option<u64> {
    let mut clock = 0;
    // SAFETY: the call only writes the number of the clock into a local variable.
    if unsafe { libc::clock_getcpuclockid(pid.try_into().ok()?, &raw mut clock) } != 0 {
        return None;
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call only writes the time into a local variable.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).ok()?))
}

/// Processor time of a process and of its children, as the kernel reports it in /proc/PID/stat.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Cpu {
    /// Processor time of the process itself, in nanoseconds.
    pub(crate) own_ns: u64,
    /// Processor time of the children that the process has waited for, in nanoseconds.
    pub(crate) waited_ns: u64,
    /// Whether the process has waited for a child.
    pub(crate) has_waited: bool,
}

/// The processor time of a process and of its children; `None`: the process has ended.
pub(crate) fn cpu(pid: u32) -> Option<Cpu> {
    parse_cpu(&read_text(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_cpu(stat: &str) -> Option<Cpu> {
    /// Length of a clock tick in nanoseconds. The kernel reports times to programs in hundredths of a second
    /// (`USER_HZ`).
    const TICK_NS: u64 = 10_000_000;
    let field = |number| stat_field(stat, number);
    let time = |user: u64, system: u64| user.saturating_add(system).saturating_mul(TICK_NS);
    Some(Cpu {
        own_ns: time(field(14)?, field(15)?),
        waited_ns: time(field(16)?, field(17)?),
        // Every process has at least one page fault. So if the counter for page faults of children is not 0,
        // the process has waited for a child.
        has_waited: field(11)? > 0,
    })
}

/// The path through which the collector can open the file that a process sees at `path`, even if the process
/// is in a chroot or a container. If the process has ended, the result is `path` itself.
pub(crate) fn path_in(pid: u32, path: &str) -> PathBuf {
    let inside = PathBuf::from(format!("/proc/{pid}/root{path}"));
    if inside.exists() { inside } else { PathBuf::from(path) }
}

/// Whether the collector can open the files that a process has mapped, through the root directory of the
/// process (/proc/PID/root). The function tries at most two of `files`: either all files can be opened, or
/// the process has ended and no file can be opened.
pub(crate) fn shows_its_files<'p>(pid: u32, files: impl Iterator<Item = &'p str>) -> bool {
    files.into_iter().take(2).any(|path| path_in(pid, path) != Path::new(path))
}

/// Whether two paths lead to the same file (the same device and the same inode).
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| edleak_format::place::identity(&file));
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Makes a path absolute that may be relative to the working directory of a process. The result is a path in
/// the root directory that the process `pid` sees. If the process has ended, the result is `path` itself.
pub(crate) fn absolute_in(pid: u32, path: &str) -> String {
    if path.starts_with('/') || path.is_empty() {
        return path.to_owned();
    }
    match fs::read_link(format!("/proc/{pid}/cwd")) {
        Ok(cwd) if cwd.is_absolute() => {
            // Remove `.` from the path, so that it equals the path in the memory map, which contains no `.`.
            cwd.join(path).components().collect::<PathBuf>().display().to_string()
        }
        _ => path.to_owned(),
    }
}

/// The anonymous memory (memory without a file) of a process, by resident and swapped bytes.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Size {
    /// Resident anonymous memory in bytes (RssAnon).
    pub(crate) rss_anon_bytes: u64,
    /// Swapped anonymous memory in bytes (VmSwap).
    pub(crate) swap_bytes: u64,
}

/// The content of /proc/PID/status.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Status {
    /// The anonymous memory of the process; 0 after the end of the process.
    pub(crate) size: Size,
    /// Whether the process is in another PID namespace than the collector. In another PID namespace, the
    /// process sees other IDs for its threads than the collector.
    pub(crate) own_pid_namespace: bool,
    /// The privileges of the process.
    pub(crate) privileges: Privileges,
    /// The ID of the process as the process itself sees it (in its own PID namespace).
    pub(crate) own_number: u32,
    /// The process ID of the process to which the thread belongs.
    pub(crate) group: u32,
    /// Number of seccomp filters. The number of filters is 1 in strict mode, and [`UNKNOWN_FILTERS`] if the
    /// kernel tells only that there are filters but not how many.
    pub(crate) seccomp_filters: u32,
}

/// A value that stands for an unknown number of seccomp filters: Linux before 5.9 tells only whether a
/// process has filters.
pub(crate) const UNKNOWN_FILTERS: u32 = u32::MAX;

/// The privileges of a process. The privileges show whether the process gained privileges from the file of
/// its program. Every user may read the privileges of any process.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Privileges {
    /// The effective user ID and the effective group ID of the process.
    pub(crate) ids: [u32; 2],
    /// The capabilities that the process may use (permitted set).
    pub(crate) capabilities: u64,
}

/// Reads /proc/PID/status; `None`: the process has ended.
pub(crate) fn read_status(pid: u32) -> Option<Status> {
    Some(parse_status(&read_text(format!("/proc/{pid}/status")).ok()?))
}

/// Reads the status of this process, even if /proc shows this process under another PID.
pub(crate) fn read_own_status() -> Option<Status> {
    Some(parse_status(&read_text("/proc/self/status").ok()?))
}

/// Reads /proc/PID/task/TID/status; `None`: the thread has ended.
pub(crate) fn read_thread_status(pid: u32, tid: u32) -> Option<Status> {
    Some(parse_status(&read_text(format!("/proc/{pid}/task/{tid}/status")).ok()?))
}

fn parse_status(text: &str) -> Status {
    let kilobytes =
        |value: &str| value.trim().trim_end_matches(" kB").parse::<u64>().map_or(0, |kb| kb * 1024);
    // The kernel writes four IDs in this order: real, effective, saved, file system.
    let effective = |value: &str| value.split_whitespace().nth(1).and_then(|id| id.parse().ok()).unwrap_or(0);
    let mut status = Status::default();
    for line in text.lines() {
        match line.split_once(':') {
            Some(("RssAnon", value)) => status.size.rss_anon_bytes = kilobytes(value),
            Some(("VmSwap", value)) => status.size.swap_bytes = kilobytes(value),
            Some(("Uid", value)) => status.privileges.ids[0] = effective(value),
            Some(("Gid", value)) => status.privileges.ids[1] = effective(value),
            Some(("CapPrm", value)) => {
                status.privileges.capabilities = u64::from_str_radix(value.trim(), 16).unwrap_or(0)
            }
            Some(("Tgid", value)) => status.group = value.trim().parse().unwrap_or(0),
            Some(("Seccomp", value)) => {
                status.seccomp_filters = match value.trim() {
                    "0" => 0,
                    "1" => 1,
                    _ => UNKNOWN_FILTERS,
                }
            }
            // Linux 5.9 and later write the line `Seccomp_filters`; in strict mode, the number in this line
            // is 0.
            Some(("Seccomp_filters", value)) if status.seccomp_filters == UNKNOWN_FILTERS => {
                status.seccomp_filters = value.trim().parse().unwrap_or(UNKNOWN_FILTERS);
            }
            Some(("NSpid", value)) => {
                status.own_pid_namespace = value.split_whitespace().count() > 1;
                status.own_number =
                    value.split_whitespace().last().and_then(|id| id.parse().ok()).unwrap_or(0);
            }
            _ => {}
        }
    }
    status
}

/// The program and the arguments of a process, as text; empty: the process has ended.
pub(crate) fn command_line(pid: u32) -> Vec<String> {
    command_words(pid).iter().map(|word| word.to_string_lossy().into_owned()).collect()
}

/// The program and the arguments of a process; empty: the process has ended.
pub(crate) fn command_words(pid: u32) -> Vec<OsString> {
    let text = read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments = text.strip_suffix(b"\0").unwrap_or(&text).split(|&byte| byte == 0);
    arguments.map(|argument| OsStr::from_bytes(argument).to_owned()).collect()
}

/// The path of the program that a process executes, as the process sees the path.
pub(crate) fn program(pid: u32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Whether a process with this PID exists. The function asks the kernel and does not search /proc, because
/// /proc may hide processes (mount option `hidepid`).
pub(crate) fn is_there(pid: u32) -> bool {
    // SAFETY: the call passes no memory, and signal 0 sends no signal.
    is_known(unsafe { libc::kill(pid as libc::pid_t, 0) })
}

/// Whether a process has ended: no thread of the process executes code of the program any more. The parent of
/// the process may not have waited for it yet. If /proc cannot be read, the result is `false`.
pub(crate) fn has_ended(pid: u32) -> bool {
    let have_ended = || {
        let mut threads = thread_ids(pid).peekable();
        match threads.peek() {
            None => !is_there(pid),
            Some(_) => threads.all(|tid| has_thread_ended(pid, tid)),
        }
    };
    // A thread that executes a program gets the number of the main thread, so one look at the threads may
    // miss it. So look twice.
    have_ended() && have_ended()
}

/// Whether a thread has ended, or runs only the kernel's code that ends it.
pub(crate) fn has_thread_ended(pid: u32, tid: u32) -> bool {
    const EXITING: u64 = 0x4;
    match fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")) {
        Ok(stat) => {
            let flags = stat_field(&stat, 9).unwrap_or(0);
            matches!(state_in(&stat), Some('Z' | 'X')) || flags & EXITING != 0
        }
        Err(error) => error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH),
    }
}

/// Whether a process has ended, or ends within a short time: when a process ends, its threads end one after
/// another.
pub(crate) fn ends_now(pid: u32) -> bool {
    const LONGEST_END: Duration = Duration::from_millis(50);
    const PAUSE: Duration = Duration::from_millis(2);
    let limit = Instant::now() + LONGEST_END;
    while !has_ended(pid) {
        if Instant::now() >= limit {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}

/// Whether a thread of a process still exists. The function asks the kernel whether the thread exists and
/// does not look into /proc, because /proc hides a process that is not dumpable.
pub(crate) fn has_thread(pid: u32, tid: u32) -> bool {
    // SAFETY: the call passes no memory, and signal 0 sends no signal.
    is_known(unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, 0) as libc::c_int })
}

/// Interprets the result of sending signal 0. Only the error ESRCH means that the process or thread does not
/// exist.
fn is_known(answer: libc::c_int) -> bool {
    answer == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_where_the_process_is() {
        let pid = std::process::id();
        let here = std::env::current_dir().expect("there is one").join("x.so").display().to_string();
        assert_eq!((absolute_in(pid, "./x.so"), absolute_in(pid, "x.so")), (here.clone(), here));
        assert_eq!(absolute_in(pid, "/x.so"), "/x.so");
    }

    #[test]
    fn status_gives_sizes_and_namespaces() {
        let status = parse_status(
            "Name:\tx\nUid:\t7\t8\t9\t10\nGid:\t1\t2\t3\t4\nNSpid:\t812\t3\nRssAnon:\t  1024 kB\n\
             VmSwap:\t       8 kB\n\
             CapPrm:\t0000000000000400\n",
        );
        assert_eq!(status.privileges, Privileges { ids: [8, 2], capabilities: 0x400 });
        assert_eq!(status.size, Size { rss_anon_bytes: 1 << 20, swap_bytes: 8 << 10 });
        assert!(status.own_pid_namespace);
        assert!(!parse_status("NSpid:\t812\n").own_pid_namespace);
        let filters = |mode, number| {
            parse_status(&format!("Seccomp:\t{mode}\nSeccomp_filters:\t{number}\n")).seccomp_filters
        };
        assert_eq!((filters(0, 0), filters(1, 0), filters(2, 3)), (0, 1, 3), "strict mode is a filter");
        assert_eq!(parse_status("Seccomp:\t2\n").seccomp_filters, UNKNOWN_FILTERS);
    }

    #[test]
    fn a_name_in_parentheses_may_hold_anything() {
        let behind: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("1 (a) b (c) {}", behind.join(" "));
        assert_eq!((stat_field(&stat, 28), stat_field(&stat, 3)), (Some(28), Some(3)));
        assert_eq!((stat_field("1 (x) S 2", 28), stat_field(&stat, 1)), (None, None));
    }

    #[test]
    fn holder_of_a_session_is_found_by_its_file() {
        // No process has mapped a session with the inode number `none`, so `holder_of` decides by the start
        // time. Process 1 began before this test, and the child process begins after the start of this test.
        let none = u64::MAX;
        assert_eq!(holder_of(none, 1), None);
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("it is installed");
        assert_eq!(holder_of(none, child.id()), Some(child.id()));
        let _ = child.kill();
        let _ = child.wait();
        assert_eq!(holder_of(none, child.id()), None);
    }

    #[test]
    fn processor_time_is_that_of_the_process_and_of_children_it_has_waited_for() {
        let stat = "7 (a b) S 1 7 7 0 -1 0 900 41 0 0 12 3 200 5 20 0 1 0 99";
        let cpu = Cpu { own_ns: 150_000_000, waited_ns: 2_050_000_000, has_waited: true };
        assert_eq!(parse_cpu(stat), Some(cpu));
        assert_eq!(parse_cpu("7 (x) S 1"), None);
    }

    #[test]
    fn this_process_is_there() {
        let pid = std::process::id();
        assert!(read_status(pid).is_some_and(|status| status.size.rss_anon_bytes > 0));
        assert!(processor_clock(pid).is_some_and(|used_ns| used_ns > 0));
        assert!(has_thread(pid, pid));
        assert!(!has_thread(pid, 1));
    }
}
