//! COLD: claims a session from the control page of a collector and maps the session.
//!
//! A control page lies in a memory file of the collector. A process finds the file of the control page by an
//! address of the form `/proc/COLLECTOR/fd/N#NONCE`. If edleak records children, the process keeps the
//! control page and its address, so that every forked child can claim a session of its own.
#![allow(unsafe_code)]

use crate::cold::path::Path;
use crate::cold::sys;
use core::cell::UnsafeCell;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use edleak_session::VERSION;
use edleak_session::control::{self, Control};
use edleak_session::header::{Header, IDENTITY_BYTES, Identity, MAGIC};
use edleak_session::layout::total_bytes;

/// The domains of memory that the control page asks the library to record, besides the heap.
static DOMAINS: AtomicU32 = AtomicU32::new(0);

/// Whether the library records the memory of this domain ([`control::DOMAIN_MAPPING`] or
/// [`control::DOMAIN_POOL`]) in this process. The control page from which this process has claimed its
/// session says which domains the library records.
pub(super) fn is_recorded(domain: u32) -> bool {
    DOMAINS.load(Ordering::Relaxed) & domain != 0
}

/// The address of the control page, through which a forked child claims a session; empty: edleak does not
/// record children.
pub(super) struct ChildrenPath(UnsafeCell<Path>);

// SAFETY: the path of the control page is written before any allocation is counted, and afterwards threads
// only read the path.
unsafe impl Sync for ChildrenPath {}

pub(super) static CHILDREN: ChildrenPath = ChildrenPath(UnsafeCell::new(Path::new()));

impl ChildrenPath {
    pub(super) fn path(&self) -> Option<&Path> {
        // SAFETY: the path was written before this read, and no thread writes the path now.
        let path = unsafe { &*self.0.get() };
        (!path.is_empty()).then_some(path)
    }

    fn set(&self, path: &Path) {
        // SAFETY: only one thread writes the path: the thread that starts the preload library or begins a
        // recording.
        let own = unsafe { &mut *self.0.get() };
        *own = Path::new();
        if !own.push_all(path.as_c().strip_suffix(b"\0").unwrap_or(b"")) {
            *own = Path::new();
        }
    }
}

/// Clears the address through which forked children found a session in the previous recording.
pub(super) fn forget_children() {
    CHILDREN.set(&Path::new());
    let page = CONTROL.swap(ptr::null_mut(), Ordering::Relaxed);
    if !page.is_null() {
        sys::unmap(page.cast(), control::BYTES);
    }
}

/// The control page; null: edleak does not record children. The control page stays mapped, so that a forked
/// child also has this page.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(ptr::null_mut());

/// Wakes the collector, which then sees that this process has claimed a session.
pub(super) fn wake_collector() {
    // SAFETY: the control page stays mapped until `forget_children`, which runs while no thread counts.
    if let Some(control) = unsafe { CONTROL.load(Ordering::Relaxed).as_ref() } {
        wake(control);
    }
}

/// Wakes the collector of a control page. The number changes before the wake, so the collector notices the
/// change even if it does not wait at this moment.
fn wake(control: &Control) {
    control.wakes.fetch_add(1, Ordering::Release);
    sys::wake(&control.wakes);
}

/// The control page that a forked child has from its parent; `None`: the child has no such page, or the page
/// has another nonce.
fn inherited_control(nonce: u64) -> Option<&'static Control> {
    // SAFETY: the control page stays mapped until `forget_children`, which runs while no thread counts.
    let control = unsafe { CONTROL.load(Ordering::Relaxed).as_ref() }?;
    (control.nonce.load(Ordering::Relaxed) == nonce).then_some(control)
}

/// Number of free sessions that were left on the control page when this process claimed its session. If few
/// free sessions are left, every forked child waits until the collector has published the child's rules. This
/// wait slows down a parent that forks children faster than the collector can prepare sessions. So the
/// collector has enough time to prepare a session for every child.
static FREE_SESSIONS: AtomicUsize = AtomicUsize::new(0);

/// Whether few sessions were left on the control page when this process claimed its session.
pub(super) fn left_few_sessions() -> bool {
    FREE_SESSIONS.load(Ordering::Relaxed) < control::SLOTS / 2
}

/// The result of an attempt to get a session.
pub(super) enum Claim {
    /// The session is mapped at this address.
    Mapped(*mut u8),
    /// The process gets no session, and the collector knows that the process tried to claim a session.
    Refused,
    /// This process did not reach the collector, so the collector does not know that the process tried to
    /// claim a session.
    Unreachable,
}

impl Claim {
    pub(super) fn session(self) -> Option<*mut u8> {
        match self {
            Claim::Mapped(base) => Some(base),
            Claim::Refused | Claim::Unreachable => None,
        }
    }
}

/// The process ID under which the collector's /proc shows this process. In a PID namespace of its own, this
/// process sees itself under another ID, which may by chance be the ID of the process to record.
pub(super) fn own_number() -> u32 {
    let mut link = [0; 16];
    let length = sys::read_link(b"/proc/self\0", &mut link);
    let digits = link.get(..length).filter(|digits| !digits.is_empty());
    digits.and_then(|digits| digits.iter().try_fold(0u32, decimal)).unwrap_or_else(sys::getpid)
}

/// Appends a decimal digit to a number.
fn decimal(number: u32, &byte: &u8) -> Option<u32> {
    let digit = byte.is_ascii_digit().then(|| u32::from(byte - b'0'))?;
    number.checked_mul(10)?.checked_add(digit)
}

/// Claims a session from the control page at `address` (`/proc/COLLECTOR/fd/N#NONCE`) and maps the session.
pub(super) fn claim(address: &Path) -> Claim {
    let Some((path, nonce)) = address.split_nonce() else { return Claim::Refused };
    let path = &path;
    if let Some(control) = inherited_control(nonce) {
        return claim_from(control, path);
    }
    let Some(fd) = sys::open(path.as_c(), true) else { return Claim::Unreachable };
    let page = sys::map_shared(fd, control::BYTES);
    sys::close(fd);
    let Some(page) = page else { return Claim::Unreachable };
    // SAFETY: the mapped page has the length of a control page, and the collector never shortens it.
    let control = unsafe { &*page.cast::<Control>() };
    // If the nonce is different, the first collector has ended, and another collector, which does not record
    // this process, has the same PID.
    let is_ours = control.nonce.load(Ordering::Relaxed) == nonce;
    let is_for_us = is_ours && is_for_this_process(control);
    let keeps = is_for_us && control.children.load(Ordering::Relaxed) != 0 && CHILDREN.path().is_none();
    if keeps {
        CHILDREN.set(address);
        CONTROL.store(page.cast(), Ordering::Relaxed);
    }
    let claimed = if is_for_us { claim_from(control, path) } else { Claim::Refused };
    if keeps && matches!(claimed, Claim::Unreachable) {
        // A new image (the program after an exec) has no session of a parent in which it could count this
        // failure, so it counts the failure on the control page.
        control.missed.fetch_add(1, Ordering::Relaxed);
    }
    if !keeps {
        wake(control);
        sys::unmap(page, control::BYTES);
    }
    claimed
}

/// Whether the collector of this control page records this process.
fn is_for_this_process(control: &Control) -> bool {
    if control.magic.load(Ordering::Relaxed) != control::MAGIC
        || control.version.load(Ordering::Relaxed) != VERSION
    {
        return false;
    }
    let root = control.root_pid.load(Ordering::Acquire);
    let children = control.children.load(Ordering::Relaxed) != 0;
    if root != 0 && !children && root != own_number() {
        control.others.fetch_add(1, Ordering::Relaxed);
        return false;
    }
    true
}

/// Claims a session from a control page and maps the session. `path` is the path of the control page in
/// /proc.
fn claim_from(control: &Control, path: &Path) -> Claim {
    DOMAINS.store(control.domains.load(Ordering::Acquire), Ordering::Relaxed);
    let Some(claimed) = control.claim() else { return Claim::Refused };
    FREE_SESSIONS.store(control.free_sessions(), Ordering::Relaxed);
    let mut path = path.parent();
    path.push_number(claimed.fd);
    let Some(fd) = sys::open(path.as_c(), true) else {
        // Opening the file fails if this process has no access to the collector, or if the collector has been
        // killed.
        return if control.unclaim(claimed) { Claim::Unreachable } else { Claim::Refused };
    };
    let nonce = control.nonce.load(Ordering::Relaxed);
    let base = session_bytes_of(fd, nonce).and_then(|bytes| sys::map_shared(fd, bytes));
    sys::close(fd);
    let Some(base) = base else { return Claim::Refused };
    // SAFETY: a session begins with its header.
    unsafe { &*base.cast::<Header>() }.claim.store(claimed.number, Ordering::Relaxed);
    Claim::Mapped(base)
}

/// The length in bytes of the session in the file `fd`; `None`: the file is not a session of the collector
/// with this nonce. If the collector has been killed, another process may have the collector's PID and an
/// open file with the same descriptor number. The library reads the start of the session's file before it
/// maps the file, because an access to the mapping of too short a file would kill the target.
fn session_bytes_of(fd: usize, nonce: u64) -> Option<usize> {
    let mut bytes = [0; IDENTITY_BYTES];
    let read = sys::read_at(fd, &mut bytes, 0);
    let found = Identity::from_bytes(&bytes);
    let total = found.total_bytes as usize;
    let is_sound = read == bytes.len()
        && (found.magic, found.version, found.nonce) == (MAGIC, VERSION, nonce)
        && total == total_bytes(found.shards as usize);
    is_sound.then_some(total)
}
