//! Receives the signals that a user sends to edleak-record but that are meant for the target. This module
//! also changes the dispositions (handlers) of some signals for the collector, but not for the target.
#![allow(unsafe_code)]

use crate::error::{Error, ErrorKind};
use crate::sys::terminal::leads_session;
use edleak_session::layout::PAGE_BYTES;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs::File;
use std::io::{self, Read};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Signals that edleak-record passes on to the target, because a user who sends such a signal to
/// edleak-record means the target. The list does not contain the signals that stop and continue a process,
/// because a terminal sends these signals to both edleak-record and the target. [`Signals::block`] adds the
/// real-time signals.
const PASSED_ON: [libc::c_int; 12] = [
    libc::SIGHUP,
    libc::SIGINT,
    libc::SIGQUIT,
    libc::SIGTERM,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGPWR,
    libc::SIGIO,
    libc::SIGWINCH,
];

/// The signals that this process has blocked, so that it can read them one by one from a descriptor.
pub(crate) struct Signals {
    original: libc::sigset_t,
    /// For each signal whose disposition the collector has changed for itself: the original disposition.
    inherited: [(libc::c_int, libc::sigaction); 4],
    /// The signals that were ignored when edleak-record started, because the parent process set this, as
    /// `nohup` does.
    ignored: Vec<libc::c_int>,
    reader: File,
}

/// A signal that this process has received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Signal {
    /// The number of the signal.
    pub(crate) number: i32,
    /// Whether only edleak-record got the signal, and not the target. If a terminal sends a signal, both
    /// edleak-record and the target get it.
    pub(crate) is_ours_alone: bool,
    /// Whether the signal was ignored when edleak-record started, because the parent process set this, as
    /// `nohup` does.
    pub(crate) is_ignored: bool,
}

impl Signal {
    /// Whether the sender of the signal wants the recording to end.
    pub(crate) fn asks_for_an_end(self) -> bool {
        !self.is_ignored && matches!(self.number, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
    }
}

impl Signals {
    /// Blocks SIGCHLD and every signal that edleak-record passes on.
    pub(crate) fn block() -> io::Result<Signals> {
        // SAFETY: a `sigset_t` is plain data; the calls below fill it in.
        let mut set: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: a `sigset_t` is plain data; the calls below fill it in.
        let mut original: libc::sigset_t = unsafe { zeroed() };
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        for number in PASSED_ON.into_iter().chain([libc::SIGCHLD]).chain(real_time) {
            // SAFETY: the call passes a local signal set and a valid signal number.
            unsafe { libc::sigaddset(&raw mut set, number) };
        }
        // SAFETY: the call passes two local signal sets.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut original) } < 0 {
            return Err(io::Error::last_os_error());
        }
        unblock(libc::SIGBUS);
        // SAFETY: the call passes a local signal set, and makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and no other code owns this descriptor.
        let reader = unsafe { File::from_raw_fd(fd) };
        let ignored = PASSED_ON.into_iter().filter(|&number| is_ignored(number)).collect();
        let bus_action = survive_cut_files();
        // If the reader of a pipe closes it (SIGPIPE) or a file reaches its size limit (SIGXFSZ), the signal
        // must not kill the collector, so that the recording ends cleanly.
        let mut pipe_action = set_action(libc::SIGPIPE, libc::SIG_IGN);
        pipe_action.sa_sigaction = SIGPIPE_AT_START.load(Ordering::Relaxed);
        let size_action = set_action(libc::SIGXFSZ, libc::SIG_IGN);
        // If the parent process had set SIGCHLD to be ignored, the kernel would discard the exit status of
        // the target.
        let child_action = set_action(libc::SIGCHLD, libc::SIG_DFL);
        let inherited = [
            (libc::SIGBUS, bus_action),
            (libc::SIGPIPE, pipe_action),
            (libc::SIGXFSZ, size_action),
            (libc::SIGCHLD, child_action),
        ];
        Ok(Signals { original, inherited, ignored, reader })
    }

    /// Undoes the changes of [`Signals::block`] in a forked child. The function is async-signal-safe.
    pub(crate) fn restore(&self) {
        for (number, action) in &self.inherited {
            // SAFETY: the call restores the action that the signal had before `block` changed it.
            unsafe { libc::sigaction(*number, &raw const *action, std::ptr::null_mut()) };
        }
        // SAFETY: the call passes the signal set that was in force before `block` changed it.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.original, std::ptr::null_mut()) };
    }

    /// Unblocks all signals after the target has ended, so that the user can interrupt the remaining work.
    /// Signals that have arrived before the call of `release` were meant for the target, so `release`
    /// discards them.
    pub(crate) fn release(mut self) {
        self.take();
        // SAFETY: the call passes the signal set that was in force before `block` changed it.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.original, std::ptr::null_mut()) };
    }

    /// A descriptor that is readable while a blocked signal is pending.
    pub(crate) fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// Reads all signals that are pending for this process.
    pub(crate) fn take(&mut self) -> Vec<Signal> {
        const BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut signals = Vec::new();
        let mut buffer = [0u8; BYTES];
        while self.reader.read_exact(&mut buffer).is_ok() {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            // SAFETY: both buffers are `BYTES` long.
            unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), info.as_mut_ptr().cast::<u8>(), BYTES) };
            // SAFETY: the structure `info` is plain data, and the copy has filled all its bytes.
            let info = unsafe { info.assume_init() };
            // The code of a signal from another process (SI_USER, SI_QUEUE, SI_TKILL) is 0 or negative; the
            // code of a signal from the kernel is positive.
            let from_process = info.ssi_code <= 0;
            let number = info.ssi_signo as i32;
            let to_both = match number {
                libc::SIGHUP => !leads_session(),
                libc::SIGINT | libc::SIGQUIT | libc::SIGWINCH => true,
                // A signal that the kernel has sent only to this process, for example from a timer that this
                // process has kept through an exec.
                _ => false,
            };
            signals.push(Signal {
                number,
                is_ours_alone: from_process || !to_both,
                is_ignored: self.ignored.contains(&number),
            });
        }
        signals
    }
}

/// Installs a handler for SIGBUS. The kernel sends SIGBUS if the collector reads a mapped file (the trace, or
/// a module of the target) that another process has made shorter. The handler maps empty memory in place of
/// the missing part of the file, so the collector does not die. The function returns the previous action.
fn survive_cut_files() -> libc::sigaction {
    // SAFETY: a `sigaction` is plain data; a `sigaction` of only zeros is the default action with an empty
    // mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: a `sigaction` is plain data; a `sigaction` of only zeros is the default action with an empty
    // mask.
    let mut before: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the call passes two local `sigaction`s; the handler makes only one system call.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) };
    before
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const BUS_ADRERR: libc::c_int = 2;
    // SAFETY: the kernel passes a valid pointer to the information about the signal.
    let info = unsafe { &*info };
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mut is_replaced = false;
    if info.si_code == BUS_ADRERR {
        // SAFETY: the information about a SIGBUS contains an address.
        let page = unsafe { info.si_addr() } as usize & !(PAGE_BYTES - 1);
        // SAFETY: the page belongs to the mapping of a file, and the file no longer has this part, so no
        // valid reference leads to bytes of this page.
        is_replaced =
            unsafe { libc::mmap(page as *mut _, PAGE_BYTES, protection, flags, -1, 0) } != libc::MAP_FAILED;
    }
    if !is_replaced {
        // SAFETY: the call only restores the default action. When the handler returns, the fault occurs again
        // and ends this process.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// The disposition of SIGPIPE when edleak-record started. Rust's runtime changes the disposition so that
/// SIGPIPE is ignored, but the target must get the original disposition.
static SIGPIPE_AT_START: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    // SAFETY: a `sigaction` is plain data; the next call fills it in.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: the call only reads the current action of the signal.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) } == 0 {
        SIGPIPE_AT_START.store(action.sa_sigaction, Ordering::Relaxed);
    }
}

/// Sets a signal to be ignored or to its default action; returns the previous action.
fn set_action(number: libc::c_int, disposition: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: a `sigaction` is plain data; a `sigaction` of only zeros is the default action with an empty
    // mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: a `sigaction` is plain data; a `sigaction` of only zeros is the default action with an empty
    // mask.
    let mut before: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = disposition;
    // SAFETY: the call passes two local `sigaction`s.
    unsafe { libc::sigaction(number, &raw const action, &raw mut before) };
    before
}

/// Unblocks a signal, because the process that started edleak-record may have blocked it.
fn unblock(number: libc::c_int) {
    // SAFETY: a `sigset_t` is plain data; the next call fills it in.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: the call passes a local signal set and a valid signal number.
    unsafe { libc::sigaddset(&raw mut set, number) };
    // SAFETY: the call passes a local signal set.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: a `sigaction` is plain data; the next call fills it in.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: the call only reads the current action of the signal.
    let known = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut action) } == 0;
    known && action.sa_sigaction == libc::SIG_IGN
}

/// A descriptor of a process (pidfd). The descriptor shows whether the process still runs. If the kernel
/// gives the PID to another process, the descriptor still stands for the original process.
#[derive(Debug)]
pub(crate) struct Watch(File);

impl Watch {
    /// Opens a descriptor of a process; `None`: the process has ended already, or the kernel does not support
    /// such descriptors.
    pub(crate) fn of(pid: u32) -> Option<Watch> {
        Watch::open(pid).ok()
    }

    fn open(pid: u32) -> io::Result<Watch> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Watch(pidfd_open(pid, PidfdFlags::empty())?.into()))
    }

    /// The reason why the collector cannot open descriptors of processes: the kernel is older than 5.3, or a
    /// sandbox forbids pidfd_open. `None`: the collector can open descriptors of processes.
    pub(crate) fn unavailable() -> Option<Error> {
        let error = Watch::open(std::process::id()).err()?;
        let message = format!("`pidfd_open` failed: {error}");
        let remedy = "use Linux 5.3 or later, or allow it in the sandbox";
        Some(Error::new(ErrorKind::System, message).with_remedy(remedy))
    }

    /// A descriptor that becomes readable when the process ends.
    pub(crate) fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends a signal to the process. If the process has ended, no process gets the signal.
    pub(crate) fn send(&self, signal: i32) {
        // rustix cannot send real-time signals with its `pidfd_send_signal`, so this is a raw system call.
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor belongs to this value, and a null pointer means that the kernel sends no
        // data with the signal.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd(), signal, nothing, 0) };
    }

    /// Whether the process of this descriptor has ended.
    pub(crate) fn has_ended(&self) -> bool {
        wait_readable(&[self.fd()], std::time::Duration::ZERO)
    }
}

/// Waits until one of the descriptors is readable, for at most the time `at_most`. Returns whether a
/// descriptor is readable.
pub(crate) fn wait_readable(fds: &[RawFd], at_most: std::time::Duration) -> bool {
    let mut polled: Vec<_> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout =
        libc::timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    // SAFETY: the call passes a local array and the length of this array.
    let ready = unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const timeout, std::ptr::null())
    };
    ready > 0
}
