//! COLD: if the program was started with LD_PRELOAD only, without edleak-record, the library itself starts a
//! collector. Each image (the program that a process runs until the next exec) starts a collector at most
//! once. A process with a recorded ancestor starts no collector.
//!
//! The collector is `edleak-record`. The library looks for `edleak-record` in the library's own directory, in
//! `../../bin`, or at the path in `EDLEAK_RECORD`. The collector gets the PID of this process, creates the
//! session, sends the path of its control page through a pipe, and detaches itself from this process. If an
//! ancestor of a process is recorded, the process starts no collector: the library sees a session in the
//! memory map of the ancestor. edleak-record itself starts no collector either; this library is loaded into
//! edleak-record if /etc/ld.so.preload names the library.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::environment::Environment;
use crate::cold::lines::{for_each_line, number_in};
use crate::cold::path::Path;
use crate::cold::sys;
use core::ptr;

const MARK: &[u8] = b"/memfd:edleak-session";
const MAX_VARIABLES: usize = 4096;
const RECORDER: &[u8] = b"edleak-record";
/// The variable that the library sets in the collector's environment, so that the collector itself is not
/// recorded.
const NO_SESSION: &[u8] = b"EDLEAK_SESSION=\0";

/// Starts a collector for this process and writes the address of its control page into `path`. `false`: no
/// collector was started.
pub(crate) fn start(environment: &Environment, path: &mut Path) -> bool {
    if ancestor_is_recorded() {
        return false;
    }
    let mut program = Path::new();
    let found = match environment.get(b"EDLEAK_RECORD") {
        Some(value) => program.push_c(value),
        None => beside_us(&mut program),
    };
    if !found || is_recorder(&program) {
        return false;
    }
    let Some([read_end, write_end]) = sys::pipe() else { return false };
    let mut pid = Path::new();
    pid.push_number(sys::getpid());
    let mut reply = Path::new();
    reply.push_number(write_end as u32);
    let arguments = [
        program.as_ptr().cast(),
        c"collect".as_ptr().cast(),
        c"--pid".as_ptr().cast(),
        pid.as_ptr().cast(),
        c"--reply-fd".as_ptr().cast(),
        reply.as_ptr().cast(),
        ptr::null(),
    ];
    let bytes = (MAX_VARIABLES + 1) * size_of::<*const u8>();
    let answered = sys::map_private(bytes).is_some_and(|scratch| {
        let variables = scratch.cast::<*const u8>();
        // The collector must run without the preload library, so that the collector itself is not recorded.
        let kept = environment.variables().filter(|&variable| !is_preload(variable));
        let all = core::iter::once(NO_SESSION.as_ptr()).chain(kept).take(MAX_VARIABLES);
        for (index, variable) in all.enumerate() {
            // SAFETY: `scratch` has room for `MAX_VARIABLES` pointers and a null pointer. The null pointer at
            // the end is already there, because the memory at `scratch` contains only zeros.
            unsafe { variables.wrapping_add(index).write(variable) };
        }
        // SAFETY: the path ends in NUL, and both arrays end in a null pointer.
        let child = unsafe { arch::spawn(program.as_ptr().cast(), arguments.as_ptr(), variables) };
        sys::close(write_end);
        let answered = child > 0 && read_answer(read_end, path);
        if child > 0 {
            sys::wait_for(child as usize);
        }
        sys::unmap(scratch, bytes);
        answered
    });
    sys::close(read_end);
    answered
}

fn read_answer(fd: usize, path: &mut Path) -> bool {
    let mut answer = [0; 128];
    let mut any = false;
    loop {
        match sys::read(fd, &mut answer) {
            0 => return any,
            read => any = answer.get(..read).is_some_and(|part| path.push_all(part)),
        }
    }
}

fn is_preload(variable: *const u8) -> bool {
    // SAFETY: the loop compares only up to the first difference, so it does not read beyond the NUL.
    b"LD_PRELOAD=".iter().enumerate().all(|(i, &byte)| unsafe { *variable.wrapping_add(i) } == byte)
}

/// Whether this process runs `edleak-record`: its program has this name, or its program is the file that the
/// library would start as the collector.
fn is_recorder(program: &Path) -> bool {
    let mut link = [0; 512];
    let length = sys::read_link(b"/proc/self/exe\0", &mut link);
    let own = link.get(..length).unwrap_or(b"");
    // If an update has removed the file of this program, the link /proc/self/exe ends in ` (deleted)`.
    let own = own.strip_suffix(b" (deleted)").unwrap_or(own);
    let name = own.rsplit(|&byte| byte == b'/').next();
    name == Some(RECORDER) || (!own.is_empty() && program.as_c().strip_suffix(b"\0") == Some(own))
}

/// Finds `edleak-record` in the directory of this library, or in the directory `bin/` of a package whose
/// `lib/edleak/` contains the library.
fn beside_us(program: &mut Path) -> bool {
    let mut ours = Path::new();
    let here = beside_us as *const () as usize;
    let found = for_each_line(b"/proc/self/maps\0", |line| {
        let Some((start, end)) = range(line) else { return false };
        if !(start..end).contains(&here) {
            return false;
        }
        line.iter()
            .position(|&byte| byte == b'/')
            .is_some_and(|slash| ours.push_all(line.get(slash..).unwrap_or(b"")))
    });
    *program = ours.parent();
    if !found || !program.push_all(RECORDER) {
        return false;
    }
    if let Some(fd) = sys::open(program.as_c(), false) {
        sys::close(fd);
        return true;
    }
    *program = ours.parent();
    program.push_all(b"../../bin/") && program.push_all(RECORDER)
}

/// The address range at the start of a line of a memory map.
fn range(line: &[u8]) -> Option<(usize, usize)> {
    let mut numbers = [0usize; 2];
    let mut index = 0;
    for &byte in line {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'-' if index == 0 => {
                index = 1;
                continue;
            }
            _ => break,
        };
        let number = numbers.get_mut(index)?;
        *number = *number << 4 | usize::from(digit);
    }
    (index == 1).then_some((numbers[0], numbers[1]))
}

fn ancestor_is_recorded() -> bool {
    const GENERATIONS: usize = 64;
    // The library does not call the kernel's getppid: in a PID namespace, the result of getppid may differ
    // from the parent's PID in /proc.
    let mut pid = parent_in(b"/proc/self/status\0");
    for _ in 0..GENERATIONS {
        if pid <= 1 {
            return false;
        }
        if for_each_line(process_file(pid, b"/maps").as_c(), |line| contains(line, MARK)) {
            return true;
        }
        pid = parent_in(process_file(pid, b"/status").as_c());
    }
    false
}

/// The parent's process ID in a status file of /proc; 0: the file names no parent.
fn parent_in(status: &[u8]) -> u32 {
    let mut parent = 0;
    for_each_line(status, |line| match line.strip_prefix(b"PPid:") {
        Some(rest) => {
            parent = number_in(rest);
            true
        }
        None => false,
    });
    parent
}

fn process_file(pid: u32, name: &[u8]) -> Path {
    let mut path = Path::new();
    path.push_all(b"/proc/");
    path.push_number(pid);
    path.push_all(name);
    path
}

fn contains(line: &[u8], what: &[u8]) -> bool {
    line.windows(what.len()).any(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_a_memory_map_are_read() {
        assert_eq!(range(b"7f00-7f10 r-xp 0 00:00 0 /x"), Some((0x7f00, 0x7f10)));
        assert_eq!(range(b"not a map"), None);
    }

    #[test]
    fn the_mark_is_found_anywhere_in_a_line() {
        assert!(contains(b"7f00-7f10 rw-s 0 00:01 7 /memfd:edleak-session (deleted)", MARK));
        assert!(!contains(b"7f00-7f10 rw-s 0 00:01 7 /memfd:other (deleted)", MARK));
    }
}
