//! Signals: which we take for the target, and which inherited dispositions we change for ourselves but not
//! for the target.
#![allow(unsafe_code)]

use crate::sys::terminal::leads_session;
use std::fs::File;
use std::io::{self, Read};
use std::mem::{MaybeUninit, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Signals that somebody may send to edleak-record and mean the target. Those that stop and continue a
/// process are not among them: a terminal sends them to both. Nor are the real-time ones missing: see
/// [`Signals::block`].
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

/// The signals of this process, held back and read one by one.
pub struct Signals {
    original: libc::sigset_t,
    /// The dispositions that we inherited and changed for ourselves.
    inherited: [(libc::c_int, libc::sigaction); 4],
    /// Signals that our parent wanted ignored, as `nohup` does.
    ignored: Vec<libc::c_int>,
    reader: File,
}

/// A signal that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Signal {
    /// Its number.
    pub number: i32,
    /// Nobody has sent it to the target as well, as a terminal does.
    pub is_ours_alone: bool,
    /// Our parent wanted it ignored, as `nohup` does.
    pub is_ignored: bool,
}

impl Signal {
    /// Whether somebody wants an end of it all.
    pub fn asks_for_an_end(self) -> bool {
        !self.is_ignored && matches!(self.number, libc::SIGINT | libc::SIGTERM | libc::SIGHUP | libc::SIGQUIT)
    }
}

impl Signals {
    /// Holds back every signal that is to be passed on, and SIGCHLD.
    pub fn block() -> io::Result<Signals> {
        // SAFETY: plain data that the calls below fill in.
        let mut set: libc::sigset_t = unsafe { zeroed() };
        // SAFETY: as above.
        let mut original: libc::sigset_t = unsafe { zeroed() };
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        for number in PASSED_ON.into_iter().chain([libc::SIGCHLD]).chain(real_time) {
            // SAFETY: a set of ours and a valid number.
            unsafe { libc::sigaddset(&raw mut set, number) };
        }
        // SAFETY: two sets of ours.
        if unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, &raw mut original) } < 0 {
            return Err(io::Error::last_os_error());
        }
        unblock(libc::SIGBUS);
        // SAFETY: a new descriptor for a set of ours.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        let reader = unsafe { File::from_raw_fd(fd) };
        let ignored = PASSED_ON.into_iter().filter(|&number| is_ignored(number)).collect();
        let bus_action = survive_cut_files();
        // A closed terminal or a file size limit must end the recording in order, not kill the recorder.
        let mut pipe_action = set_action(libc::SIGPIPE, libc::SIG_IGN);
        pipe_action.sa_sigaction = SIGPIPE_AT_START.load(Ordering::Relaxed);
        let size_action = set_action(libc::SIGXFSZ, libc::SIG_IGN);
        // With SIGCHLD ignored the kernel reaps the target, and nobody learns of its end.
        let child_action = set_action(libc::SIGCHLD, libc::SIG_DFL);
        let inherited = [
            (libc::SIGBUS, bus_action),
            (libc::SIGPIPE, pipe_action),
            (libc::SIGXFSZ, size_action),
            (libc::SIGCHLD, child_action),
        ];
        Ok(Signals { original, inherited, ignored, reader })
    }

    /// Undoes all of this in a forked child. Async-signal-safe.
    pub fn restore(&self) {
        for (number, action) in &self.inherited {
            // SAFETY: an action that was in force before.
            unsafe { libc::sigaction(*number, &raw const *action, std::ptr::null_mut()) };
        }
        // SAFETY: the set that was in force before.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.original, std::ptr::null_mut()) };
    }

    /// Holds nothing back any more: there is no target left to pass it on to, and what is still to do may be
    /// interrupted. What has arrived up to now was meant for the target.
    pub fn release(mut self) {
        self.take();
        // SAFETY: the set that was in force before.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const self.original, std::ptr::null_mut()) };
    }

    /// A descriptor that is readable while a signal waits.
    pub fn fd(&self) -> RawFd {
        self.reader.as_raw_fd()
    }

    /// The signals that wait.
    pub fn take(&mut self) -> Vec<Signal> {
        const BYTES: usize = size_of::<libc::signalfd_siginfo>();
        let mut signals = Vec::new();
        let mut buffer = [0u8; BYTES];
        while self.reader.read_exact(&mut buffer).is_ok() {
            let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
            // SAFETY: both are `BYTES` long.
            unsafe { std::ptr::copy_nonoverlapping(buffer.as_ptr(), info.as_mut_ptr().cast::<u8>(), BYTES) };
            // SAFETY: plain data, filled in completely.
            let info = unsafe { info.assume_init() };
            // SI_USER, SI_QUEUE, SI_TKILL; the kernel's own are positive
            let from_process = info.ssi_code <= 0;
            let number = info.ssi_signo as i32;
            let to_both = match number {
                libc::SIGHUP => !leads_session(),
                libc::SIGINT | libc::SIGQUIT | libc::SIGWINCH => true,
                // A timer that our parent's program had set for this process, say.
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

/// Puts memory in the place of a mapped file whose end somebody cut off while we read or wrote it (the trace,
/// a module of the target), so that it is an error and not our death. Returns the action before.
fn survive_cut_files() -> libc::sigaction {
    // SAFETY: plain data; all zero is the default action with an empty mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = on_bus_error as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: two actions of ours; the handler makes one system call and nothing else.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const action, &raw mut before) };
    before
}

extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    const BUS_ADRERR: libc::c_int = 2;
    const PAGE: usize = 4096;
    // SAFETY: the kernel passes it.
    let info = unsafe { &*info };
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mut is_replaced = false;
    if info.si_code == BUS_ADRERR {
        // SAFETY: a SIGBUS has an address.
        let page = unsafe { info.si_addr() } as usize & !(PAGE - 1);
        // SAFETY: the page belonged to the mapping of a file, and there is nothing behind it any more.
        is_replaced =
            unsafe { libc::mmap(page as *mut _, PAGE, protection, flags, -1, 0) } != libc::MAP_FAILED;
    }
    if !is_replaced {
        // SAFETY: the default action; the fault comes again and ends us.
        unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
    }
}

/// What SIGPIPE did before Rust's runtime began to ignore it: what the target is to find.
static SIGPIPE_AT_START: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

#[used]
#[unsafe(link_section = ".init_array")]
static NOTE_SIGPIPE: extern "C" fn() = note_sigpipe;

extern "C" fn note_sigpipe() {
    // SAFETY: plain data that the call fills in.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: only asks.
    if unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut action) } == 0 {
        SIGPIPE_AT_START.store(action.sa_sigaction, Ordering::Relaxed);
    }
}

/// Ignores a signal, or takes its default action again; returns the action before.
fn set_action(number: libc::c_int, disposition: libc::sighandler_t) -> libc::sigaction {
    // SAFETY: plain data; all zero is the default action with an empty mask.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: as above.
    let mut before: libc::sigaction = unsafe { zeroed() };
    action.sa_sigaction = disposition;
    // SAFETY: two actions of ours.
    unsafe { libc::sigaction(number, &raw const action, &raw mut before) };
    before
}

/// Lets a signal through that our parent had blocked.
fn unblock(number: libc::c_int) {
    // SAFETY: plain data that the next call fills in.
    let mut set: libc::sigset_t = unsafe { zeroed() };
    // SAFETY: a set of ours and a valid number.
    unsafe { libc::sigaddset(&raw mut set, number) };
    // SAFETY: a set of ours.
    unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut()) };
}

fn is_ignored(number: libc::c_int) -> bool {
    // SAFETY: plain data that the call fills in.
    let mut action: libc::sigaction = unsafe { zeroed() };
    // SAFETY: only asks.
    let known = unsafe { libc::sigaction(number, std::ptr::null(), &raw mut action) } == 0;
    known && action.sa_sigaction == libc::SIG_IGN
}

/// A descriptor of a process (pidfd): whether it is still there, and a way to it that no other process gets
/// by its number.
#[derive(Debug)]
pub struct Watch(File);

impl Watch {
    /// Watches a process; `None`: it is gone already, or the kernel has no such descriptors.
    pub fn of(pid: u32) -> Option<Watch> {
        Watch::open(pid).ok()
    }

    fn open(pid: u32) -> io::Result<Watch> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours.
        Ok(Watch(unsafe { File::from_raw_fd(fd as RawFd) }))
    }

    /// Why no process can be watched here: the kernel is older than 5.3, or a sandbox forbids it. `None`: it
    /// can be.
    pub(crate) fn unavailable() -> Option<String> {
        let error = Watch::open(std::process::id()).err()?;
        Some(format!("`pidfd_open` failed: {error} (use Linux 5.3 or later, or allow it in the sandbox)"))
    }

    /// A descriptor that is readable once the process has ended.
    pub fn fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// Sends the process a signal; one that has ended gets nothing.
    pub fn send(&self, signal: i32) {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: a descriptor of ours; no information goes with the signal.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd(), signal, nothing, 0) };
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        wait_readable(&[self.fd()], std::time::Duration::ZERO)
    }
}

/// Waits until one of the descriptors is readable, at most this long; tells whether one is.
pub(crate) fn wait_readable(fds: &[RawFd], at_most: std::time::Duration) -> bool {
    let mut polled: Vec<_> =
        fds.iter().map(|&fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    let timeout =
        libc::timespec { tv_sec: at_most.as_secs() as i64, tv_nsec: i64::from(at_most.subsec_nanos()) };
    // SAFETY: an array of ours and its length.
    let ready = unsafe {
        libc::ppoll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, &raw const timeout, std::ptr::null())
    };
    ready > 0
}
