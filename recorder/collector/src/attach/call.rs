//! Loads edleak's library into a running process: the collector makes a thread that waits in a system call
//! run `dlopen`.
//!
//! The collector stops only the thread that calls `dlopen`. All other threads run on, so a thread that holds
//! a lock of the dynamic loader can release this lock. The stopped thread runs the machine code of [`code`].
//! The machine code writes only below the part of the stack that the thread uses.
//!
//! ```text
//! the memory below the thread's stack pointer, from low to high addresses:
//!   Block                the arguments and results of the code
//!   frame                the signal frame with the registers of the thread before the call
//!   path                 the path of the library
//!   red zone             128 bytes that the thread may use without moving its stack pointer
//! ```
//!
//! First the collector writes the machine code, and fills the memory below the stack pointer. At this time,
//! the thread uses neither the machine code nor this memory. Then the collector sets the registers of the
//! thread in one call of ptrace. From this call of ptrace on, the machine code can restore the registers of
//! the thread without the collector, so the thread is safe even if the collector dies. If the collector still
//! runs when `dlopen` returns, the collector restores the registers, and the code does not. The kernel then
//! continues the system call in which the thread waited, for the rest of the waiting time.

use crate::attach::arch::code::{self, Block, DONE, Place};
use crate::attach::arch::frame;
use crate::attach::arch::registers::{RED_ZONE, Registers, SELF_AT, TID_AT};
use crate::attach::modules::Module;
use crate::attach::priority::Priority;
use crate::attach::ptrace::{ChildSignals, Stop, Thread};
use crate::attach::safe_point::SafePoints;
use crate::attach::stop;
use crate::attach::target::Functions;
use crate::sys::maps;
use crate::sys::process;
use crate::sys::remote;
use edleak_session::idle::MAX_PLACES;
use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

const RTLD_NOW: u64 = 2;
/// Number of bytes that must be free on the thread's stack below the `Block`, for the frame of a signal
/// handler.
const STACK_RESERVE: u64 = 16 << 10;

/// The arguments for a call of `dlopen` by a thread of the process.
pub(crate) struct Call<'a> {
    pub(crate) functions: Functions,
    /// The path of the library, as the process sees it.
    pub(crate) library: &'a CStr,
    /// For each module with detours, the address and the size of the memory for these detours. If the memory
    /// for the first of these modules is not free, the thread does not load the library.
    pub(crate) places: &'a [(u64, u64)],
}

/// The result of a call of `dlopen` that has loaded the library.
pub(crate) struct Loaded {
    /// The time for which the thread did no work of the program, because the thread stood still or loaded the
    /// library.
    pub(crate) time: Duration,
    /// For each element of [`Call::places`], whether the thread has mapped this memory for detours.
    pub(crate) is_placed: [bool; MAX_PLACES],
}

/// The reason why a thread did not load the library.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The thread cannot call `dlopen` now. The `String` contains the reason, for a message.
    Unsuitable(String),
    /// The thread ended before the collector could stop it. Another thread can load the library.
    Ended,
    /// `dlopen` failed, with this message.
    Refused(String),
    /// The process has mapped other memory at the address that the collector had chosen for the detours of
    /// malloc.
    NoPlace,
    /// The thread had not finished the call of `dlopen` when the time limit was reached.
    Unfinished,
    /// The operating system refused an operation on the thread.
    System(io::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::System(error)
    }
}

/// The threads of a process that wait in a system call. The threads that can most likely call `dlopen` come
/// first.
pub(crate) fn waiting_threads(pid: u32) -> Vec<u32> {
    let ranked = |tid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
        Some((rank(&text)?, tid))
    };
    let mut threads: Vec<(u32, u32)> = process::thread_ids(pid).filter_map(ranked).collect();
    threads.sort_unstable();
    threads.into_iter().map(|(_, tid)| tid).collect()
}

/// The text for a message about a thread that does not wait in a system call.
pub(crate) const RUNNING: &str = "running";

/// Describes, for a message, whether a thread waits in a system call or runs. The function reads the state of
/// the thread from /proc and does not stop the thread.
pub(crate) fn position_of(pid: u32, tid: u32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).unwrap_or_default();
    match text.split_whitespace().next() {
        Some(number) if number.parse::<u32>().is_ok() => {
            format!("in system call {number}, which must not be interrupted")
        }
        _ => RUNNING.into(),
    }
}

/// The rank of a thread, computed from its line in /proc/PID/task/TID/syscall. The collector tries threads
/// with a low rank first. A thread that waits without a time limit has rank 0. `None`: the thread runs, or
/// waits in a system call that must not be interrupted.
fn rank(line: &str) -> Option<u32> {
    let mut fields = line.split_whitespace();
    let number: libc::c_long = fields.next()?.parse().ok()?;
    let hex = |word: &str| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok();
    let arguments: Vec<u64> = fields.filter_map(hex).collect();
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    match number {
        libc::SYS_futex if argument(3) == 0 => Some(0),
        libc::SYS_read | libc::SYS_accept | libc::SYS_accept4 | libc::SYS_recvfrom | libc::SYS_recvmsg => {
            Some(0)
        }
        libc::SYS_wait4 | libc::SYS_waitid | libc::SYS_write => Some(1),
        libc::SYS_poll | libc::SYS_epoll_wait | libc::SYS_select => Some(1),
        libc::SYS_epoll_pwait if argument(4) == 0 => Some(1),
        libc::SYS_ppoll if argument(3) == 0 => Some(1),
        libc::SYS_pselect6 => Some(2),
        libc::SYS_futex | libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Some(2),
        libc::SYS_restart_syscall => Some(3),
        _ => None,
    }
}

impl Call<'_> {
    /// Makes the thread `tid` load the library, if possible before the time `limit`.
    pub(crate) fn run(
        &self,
        pid: u32,
        tid: u32,
        modules: &[Module],
        safe_points: &SafePoints<'_>,
        limit: Instant,
        step: &dyn Fn(&str),
    ) -> Result<Loaded, Failure> {
        const STOP: Duration = Duration::from_millis(100);
        let unsuitable = |why: &str| Err(Failure::Unsuitable(why.to_owned()));
        let _signals = ChildSignals::block();
        let _priority = Priority::raise();
        let began = Instant::now();
        let Some(mut thread) = stop::begin_stop(pid, tid)? else {
            return Err(Failure::Ended);
        };
        match thread.wait(limit.min(began + STOP))? {
            Some(Stop::Event) => {}
            Some(Stop::Ended) => return Err(Failure::Ended),
            _ => return unsuitable(RUNNING),
        }
        step("seized");
        let registers = thread.registers()?;
        let waits = registers.system_call().is_some() && registers.result() < 0;
        if !waits {
            return unsuitable(RUNNING);
        }
        if !is_thread_of_glibc(pid, tid, &registers) {
            return unsuitable("a thread without glibc's control block");
        }
        if thread.redirects_system_calls() {
            return unsuitable("a thread whose system calls are redirected");
        }
        safe_points.check(&registers).map_err(|place| Failure::Unsuitable(place.to_string()))?;
        let mask = thread.signal_mask()?;
        let state = thread.extended_state()?;
        let Some(code_at) = place_for_code(pid, modules) else {
            return unsuitable("in a process without free space behind its code");
        };

        let path = self.library.to_bytes_with_nul();
        let frame_at = size_of::<Block>().next_multiple_of(64);
        let path_at = frame_at + frame::bytes(&state);
        let bytes = (path_at + path.len()) as u64;
        let block_at = registers.sp().wrapping_sub(RED_ZONE + bytes) & !63;
        if !has_stack(pid, block_at) {
            return unsuitable("a thread with little stack");
        }
        let block = Block {
            dlopen: self.functions.dlopen,
            dlerror: self.functions.dlerror,
            errno_location: self.functions.errno_location,
            path: block_at + path_at as u64,
            flags: RTLD_NOW,
            places: Place::table(self.places),
            frame: block_at + frame_at as u64,
            all_signals: u64::MAX,
            ..Block::default()
        };
        let mut memory = block.to_bytes();
        memory.resize(frame_at, 0);
        memory.extend(frame::frame(block.frame, &frame::restarted(&registers), mask, &state));
        memory.extend(path);
        // Some kernels let only the tracer of a thread change the code of a process, and only through the
        // file `mem` of this thread.
        let memory_of_thread = format!("/proc/{pid}/task/{tid}/mem");
        let process = OpenOptions::new().read(true).write(true).open(memory_of_thread)?;
        process.write_all_at(&memory, block_at)?;
        process.write_all_at(code::code(), code_at)?;
        step("written");

        thread.set_registers(&registers.running(code_at, block_at))?;
        step("set");
        // The first system call of the code blocks all signals. But the kernel would deliver a pending signal
        // before this system call, so the collector blocks all signals of the thread now.
        thread.set_signal_mask(u64::MAX)?;
        let restore = |thread: &Thread| -> io::Result<()> {
            thread.set_extended_state(&state)?;
            thread.set_signal_mask(mask)?;
            thread.set_registers(&registers)
        };
        match run_to_the_end(&mut thread, limit, step) {
            Ok(true) => {}
            // The collector detaches from the thread. The thread finishes the call of `dlopen`, and then the
            // code restores the registers of the thread.
            Ok(false) => return Err(Failure::Unfinished),
            Err(failure) => {
                thread.forget_signal();
                restore(&thread)?;
                return Err(failure);
            }
        }
        step("loaded");
        let result = Results::read(pid, block_at, &block.places)?;
        // The thread is now stopped at a system call that the machine code made. If the thread ran on from
        // here, the kernel would not continue the system call in which the thread waited before the attach.
        // So the collector first stops the thread a second time, with `interrupt`.
        thread.interrupt()?;
        thread.go_on()?;
        match thread.wait(limit + STOP)? {
            Some(Stop::Event) => {}
            Some(Stop::Ended) => return Err(killed()),
            _ => return Err(Failure::Unfinished),
        }
        let message = result.message(pid);
        restore(&thread)?;
        stop::restart_wait(&thread);
        step("restored");
        drop(thread);
        let time = began.elapsed();
        match result {
            _ if result.stack >= FIRST_ERROR => {
                Err(Failure::System(io::Error::from_raw_os_error(-(result.stack as i32))))
            }
            Results { handle: 0, .. } => Err(Failure::Refused(message)),
            Results { is_placed, .. } if !is_placed[0] => Err(Failure::NoPlace),
            Results { is_placed, .. } => Ok(Loaded { time, is_placed }),
        }
    }
}

/// The lowest result of a system call that means an error. Each result from this value to -1 is a negative
/// error number.
const FIRST_ERROR: u64 = -4095i64 as u64;

/// The results that the code has stored in its [`Block`] after the call of `dlopen`.
struct Results {
    stack: u64,
    is_placed: [bool; MAX_PLACES],
    handle: u64,
    message: u64,
}

impl Results {
    fn read(pid: u32, block: u64, places: &[Place; MAX_PLACES]) -> io::Result<Results> {
        let word = |offset: usize| remote::read_u64(pid, block + offset as u64);
        let mut is_placed = [false; MAX_PLACES];
        for (index, (is_placed, place)) in is_placed.iter_mut().zip(places).enumerate() {
            let result = offset_of!(Block, places) + index * size_of::<Place>() + offset_of!(Place, result);
            *is_placed = place.bytes > 0 && word(result)? == place.address;
        }
        Ok(Results {
            stack: word(offset_of!(Block, stack))?,
            is_placed,
            handle: word(offset_of!(Block, handle))?,
            message: word(offset_of!(Block, message))?,
        })
    }

    /// Reads the message of `dlerror` from the process.
    fn message(&self, pid: u32) -> String {
        const MOST_BYTES: u64 = 1024;
        let mut text = Vec::new();
        let mut byte = [0];
        while self.message != 0 && (text.len() as u64) < MOST_BYTES {
            let at = self.message + text.len() as u64;
            if remote::read(pid, at, &mut byte).is_err() || byte[0] == 0 {
                break;
            }
            text.push(byte[0]);
        }
        String::from_utf8_lossy(&text).replace(char::is_control, "?")
    }
}

/// Lets the thread run until it has finished the call of `dlopen`. Returns `false` if the call of `dlopen` is
/// not finished at the time `limit`.
fn run_to_the_end(thread: &mut Thread, limit: Instant, step: &dyn Fn(&str)) -> Result<bool, Failure> {
    loop {
        thread.go_on_to_system_call()?;
        match thread.wait(limit)? {
            None => return Ok(false),
            Some(Stop::SystemCall) => {
                let registers = thread.registers()?;
                if registers.system_call() == Some(libc::SYS_openat) {
                    step("inside");
                }
                if registers.system_call() == Some(libc::SYS_getpid) && registers.argument(0) == DONE {
                    return Ok(true);
                }
            }
            Some(Stop::Event) => {}
            Some(Stop::Signal(signal)) => {
                let message = format!("signal {signal} hit the thread while it loaded the library");
                return Err(Failure::System(io::Error::other(message)));
            }
            Some(Stop::Ended) => return Err(killed()),
        }
    }
}

/// The error for a thread that ended after the collector had stopped it. Only the end of the whole process,
/// or another thread that executes a program, can end such a thread.
fn killed() -> Failure {
    Failure::System(io::Error::from_raw_os_error(libc::ESRCH))
}

/// Whether glibc made the thread. If it did, the thread pointer leads to a control block with the thread's
/// id. Only a thread with such a control block may call functions of libc.
fn is_thread_of_glibc(pid: u32, tid: u32, registers: &Registers) -> bool {
    let own = process::read_thread_status(pid, tid).map(|status| status.own_number);
    let block = registers.thread_pointer();
    let pointer = remote::read_u64(pid, block + SELF_AT).ok();
    pointer == Some(block) && remote::read_u32(pid, block + TID_AT).ok() == own
}

/// Whether the memory at `lowest` and the [`STACK_RESERVE`] bytes below `lowest` can be part of a stack.
fn has_stack(pid: u32, lowest: u64) -> bool {
    let map = maps::text_of(pid).unwrap_or_default();
    maps::lines(&map).any(|line| {
        line.permissions.starts_with("rw-p")
            && (line.start..line.end).contains(&lowest)
            && lowest - line.start >= STACK_RESERVE
    })
}

/// A free address for the code that a thread runs to load the library. The address is in the last page of a
/// module's code, after the last byte of this code. The collector never removes the written code, because a
/// thread of an earlier attempt may still run it.
fn place_for_code(pid: u32, modules: &[Module]) -> Option<u64> {
    let needed = code::code().len() as u64;
    let map = maps::text_of(pid)?;
    let is_libc_last = |module: &&Module| !module.is_libc();
    let mut modules: Vec<&Module> = modules.iter().filter(|module| !module.is_loader()).collect();
    modules.sort_by_key(is_libc_last);
    modules.into_iter().find_map(|module| {
        let elf = module.elf()?;
        let end = elf.code_segments().map(|(start, bytes)| start + bytes.len() as u64).max()?;
        let end = module.start + (end - elf.link_base());
        let place = end.next_multiple_of(16);
        let is_code = |line: &maps::Line<'_>| {
            line.permissions == "r-xp"
                && line.start < place
                && place + needed <= line.end
                && line.end - end < 4096
        };
        maps::lines(&map).find(is_code)?;
        let mut before = vec![0; needed as usize];
        remote::read(pid, place, &mut before).ok()?;
        (before == code::code() || before.iter().all(|&byte| byte == 0)).then_some(place)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_without_a_limit_come_first_and_waits_for_signals_never() {
        assert_eq!(rank("202 0x7f00 0x189 0x0 0x0 0x0 0xffffffff 0x7ffd 0x7f01"), Some(0));
        assert_eq!(rank("202 0x7f00 0x189 0x0 0x7ffc 0x0 0xffffffff 0x7ffd 0x7f01"), Some(2));
        assert_eq!(rank("0 0x0 0x7ffc 0x400 0x0 0x0 0x0 0x7ffd 0x7f01"), Some(0));
        for line in ["running", "-1 0x7ffd 0x7f01", "34 0x0 0x0", "130 0x7ffd 0x8", "281 1 2 3 4 0x7ffd"] {
            assert_eq!(rank(line), None, "{line}");
        }
    }
}
