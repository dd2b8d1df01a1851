//! The state of the library in a process: whether the library waits, begins a recording, counts, or only
//! forwards calls. The collector finds the state of the library in the memory of a running process. To
//! begin and to end a recording, the collector changes this state.
//!
//! ```text
//!  edleak note of the library ──▶ Idle      addresses of the phase, of the limits and of the session
//!  (type 2: distance to Idle)                the address of a control page, written by the collector
//! ```
//!
//! To begin a recording, the collector writes the address of its control page, then [`WAKE`] into the
//! phase. At the next call of an entry point, the library sees the phase [`WAKE`] and attaches the process
//! to a session of the collector. To end the recording, the collector writes [`ENDING`] into the phase and
//! zeros into the limits of every thread, so that every thread leaves the fast path.
//!
//! A library that the collector has loaded into a running process is called *late*. The process of a late
//! library still calls its own malloc and free, and not the exported functions of the library. So the
//! collector redirects the calls of the process's allocator to the hooks of the late library.

use crate::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use crate::detour::HOOKS;

/// "edlkidle", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"edlkidle");
/// The type of the ELF note that contains the position of the library's [`Idle`]. The content of the note
/// is a number of four bytes: the distance in bytes from this number to the [`Idle`].
pub const NOTE_TYPE: u32 = 2;
/// The type of the ELF note of a module that contains calls of edleak.h or of the crate edleak-annotate.
/// The content of the note is a number of four bytes: the distance in bytes from this number to two words
/// of 8 bytes in the module. The first word is for the address of `edleak_set_mark`, and the second word is
/// for the address of `edleak_note_pool`. As long as a word is 0, the program does not call the function of
/// this word. In a process that was started without the library, the collector stores [`Idle::set_mark`] in
/// the first word and [`Idle::note_pool`] in the second word.
pub const CALLS_NOTE_TYPE: u32 = 3;
/// The owner name in edleak's ELF notes.
pub const NOTE_OWNER: &[u8; 7] = b"edleak\0";

/// Phase: the library has not started yet.
pub const NEW: u32 = 0;
/// Phase: a thread is starting the library.
pub const STARTING: u32 = 1;
/// Phase: the process is attached to a session, and the library counts.
pub const COUNTING: u32 = 2;
/// Phase: the library counts nothing, and entry points only forward calls. A collector may write [`WAKE`]
/// into the phase.
pub const OFF: u32 = 3;
/// Phase: a collector asks for a recording. The next call of an entry point, such as malloc, begins the
/// recording.
pub const WAKE: u32 = 4;
/// Phase: a thread of the running process is attaching the process to a session.
pub const BEGINNING: u32 = 5;

/// Phase: the recording has ended. The next call of an entry point changes the phase to [`OFF`].
pub const ENDING: u32 = 6;

/// Value of the field `failure`: the last attempt to begin a recording has not failed.
pub const NO_FAILURE: u32 = 0;
/// Value of the field `failure`: the process could not open the control page.
pub const UNREACHABLE: u32 = 1;
/// Value of the field `failure`: the control page had no free session, or the process could not map the
/// session.
pub const NO_SESSION: u32 = 2;

/// Maximum length in bytes of the address of a control page, including the NUL byte at the end of the
/// address.
pub const ADDRESS_BYTES: usize = 512;

/// Maximum number of modules with detours in a process that was started without the library.
pub const MAX_PLACES: usize = 8;

/// The memory for the code of the detours of one module, in a process that was started without the library.
#[repr(C)]
pub struct DetourPlace {
    /// The address at which the module is mapped; 0: this entry is not used.
    pub module: AtomicU64,
    /// The address of the memory for the code of this module's detours.
    pub address: AtomicU64,
}

impl DetourPlace {
    const fn new() -> DetourPlace {
        DetourPlace { module: AtomicU64::new(0), address: AtomicU64::new(0) }
    }
}

/// The addresses that a collector needs to begin a recording in a running process. The object lies in plain
/// memory of the process. The collector reads and writes this memory with system calls, because it is not
/// shared.
#[repr(C)]
pub struct Idle {
    /// [`MAGIC`]. The library stores `magic` last, after all other fields of this object.
    pub magic: AtomicU64,
    /// [`crate::VERSION`].
    pub version: AtomicU32,
    /// 1: the library can count the allocations of this process. 0: the calls of the process reach another
    /// allocator before they reach the library, or the kernel gave the process the privileges of its
    /// executable file.
    pub is_countable: AtomicU32,
    /// The address of the variable with the phase; this variable has four bytes.
    pub phase: AtomicU64,
    /// The address of the [`Limits`] of the first shard's owner. The limits of the owners of the other shards
    /// follow in memory.
    pub limits: AtomicU64,
    /// The address of the header of the session that is attached, or that was attached last; 0: the process
    /// never had a session.
    pub header: AtomicU64,
    /// The reason why the last attempt to begin a recording failed.
    pub failure: AtomicU32,
    /// Number of seccomp filters that the process had when the library started.
    pub filters: AtomicU32,
    /// 1: the library was loaded after the start of the process, so it counts only through detours.
    pub is_late: AtomicU32,
    /// Padding, without a meaning.
    pub reserved: AtomicU32,
    /// The address of the `malloc` that the process calls; 0: the library was loaded at the start of the
    /// process.
    pub malloc: AtomicU64,
    /// The address of the function that sets marks (`edleak_set_mark`); 0: the library was loaded at the
    /// start of the process.
    pub set_mark: AtomicU64,
    /// The address of the function that notes operations of pools (`edleak_note_pool`); 0: the library was
    /// loaded at the start of the process.
    pub note_pool: AtomicU64,
    /// For each module with detours, the memory for the code of the detours. The collector fills in
    /// `places`.
    pub places: [DetourPlace; MAX_PLACES],
    /// The addresses of the library's hooks ([`crate::detour::Hook`]); all 0: the library was loaded at the
    /// start of the process.
    pub hooks: [AtomicU64; HOOKS],
    /// The address of a control page, as a NUL-terminated text.
    pub address: [AtomicU8; ADDRESS_BYTES],
}

impl Idle {
    /// An [`Idle`] whose addresses are all 0.
    pub const fn new() -> Idle {
        Idle {
            magic: AtomicU64::new(0),
            version: AtomicU32::new(0),
            is_countable: AtomicU32::new(0),
            phase: AtomicU64::new(0),
            limits: AtomicU64::new(0),
            header: AtomicU64::new(0),
            failure: AtomicU32::new(NO_FAILURE),
            filters: AtomicU32::new(0),
            is_late: AtomicU32::new(0),
            reserved: AtomicU32::new(0),
            malloc: AtomicU64::new(0),
            set_mark: AtomicU64::new(0),
            note_pool: AtomicU64::new(0),
            places: [const { DetourPlace::new() }; MAX_PLACES],
            hooks: [const { AtomicU64::new(0) }; HOOKS],
            address: [const { AtomicU8::new(0) }; ADDRESS_BYTES],
        }
    }

    /// Marks the object as complete: stores the version and the magic number. Call this function after you
    /// have stored all other fields of the object.
    pub fn publish(&self) {
        self.version.store(crate::VERSION, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release);
    }
}

impl Default for Idle {
    fn default() -> Idle {
        Idle::new()
    }
}

/// Distance in bytes between the entries of two neighbouring threads in the page of counters. A thread's
/// entry contains a pointer to the counters of the thread, and the limits of its fast path.
pub const LIMITS_STRIDE: usize = 32;
/// Offset in bytes of the limits from the start of a thread's entry in the page of counters. The entry
/// begins with a pointer to the thread's counters.
pub const LIMITS_AT: usize = 8;

/// The limits of the fast path of one thread. If `size` and `small` are 0, every call of the thread leaves
/// the fast path.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Limits {
    /// Only an allocation of fewer than `size` bytes may take the fast path.
    pub size: u64,
    /// A free may take the fast path only if the value of the freed allocation's entry in the side table,
    /// minus 1, is less than `small`.
    pub small: u32,
}
/// Number of bytes of [`Limits`] that the collector writes.
pub const LIMITS_BYTES: usize = 12;

impl Limits {
    /// The limits of a thread that counts on the fast path.
    pub const OPEN: Limits = Limits { size: 1 << 15, small: (1 << 31) - 1 };

    /// The limits as bytes, as they lie in the memory of the process.
    pub fn to_bytes(self) -> [u8; LIMITS_BYTES] {
        let mut bytes = [0; LIMITS_BYTES];
        bytes[..8].copy_from_slice(&self.size.to_ne_bytes());
        bytes[8..].copy_from_slice(&self.small.to_ne_bytes());
        bytes
    }
}
