//! The memory of the process by kind of mapping, as /proc shows it.
//!
//! An *area* is all memory of one kind, or of one name if the mappings have names. The catalog lists the
//! areas ([`MemoryArea`]); each slice holds their sizes. Reading /proc costs the process time, so most slices
//! repeat the values of the slice before.

use crate::ids::AreaId;
use bincode::{Decode, Encode};

/// Maximum number of areas in a trace; ids are below this number.
pub const MAX_AREAS: usize = 256;

/// One area of the process's memory.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MemoryArea {
    /// The area's id; slices refer to it.
    pub id: AreaId,
    /// The kind of its mappings.
    pub kind: AreaKind,
    /// The name of its mappings; empty if the kind alone identifies the area.
    pub name: String,
}

/// The kind of mappings that an area has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum AreaKind {
    /// The heap that grows by `brk`; the main arena of glibc's malloc lies there.
    Heap,
    /// The arenas of glibc's malloc for threads: anonymous mappings of up to 64 MiB, each at a multiple of 64
    /// MiB.
    Arena,
    /// Other anonymous memory: `mmap`, other allocators, large allocations.
    Anonymous,
    /// Anonymous memory that the program named (`PR_SET_VMA_ANON_NAME`).
    Named,
    /// Stacks: the main thread's stack, and the stacks of other threads as far as edleak recognizes them.
    Stack,
    /// Shared memory: System V, /dev/shm, memfd, shared anonymous.
    SharedMemory,
    /// Mappings of files.
    File,
    /// Huge pages of any mapping. Another area also counts these pages.
    HugePages,
    /// Memory that edleak needs in the process: the side table and the session.
    Edleak,
    /// The working set of the control group: all its processes, including the active page cache.
    ControlGroup,
    /// All memory that recorded calls mapped: the live bytes of all sites of kind `Mapping` and
    /// `AllocatorMapping`. Every slice has this area. Other areas also count this memory. This kind exists
    /// since version 4.
    Counted,
    /// Anonymous memory that no recorded call mapped, without the heap, arenas, stacks and edleak's own
    /// memory. Another area also counts this memory. This kind exists since version 4.
    Unseen,
    /// The mappings of one site; the name of the area is the id of the site. Another area also counts this
    /// memory. This kind exists since version 4.
    Site,
    /// Anonymous memory that allocators mapped for themselves. Another area also counts this memory. This
    /// kind exists since version 4.
    Allocators,
    /// Free memory inside one arena of glibc's malloc, without its thread caches and fast bins. The name is
    /// the address of the arena's state, or empty for the main arena. Another area also counts this memory.
    /// This kind exists since version 4.
    Free,
}

/// The size of an area.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AreaBytes {
    /// Bytes of address space.
    pub mapped_bytes: u64,
    /// Resident bytes.
    pub resident_bytes: u64,
    /// Proportional set size in bytes: resident memory, with each shared page divided by the number of
    /// processes that share it.
    pub proportional_bytes: u64,
    /// Swapped-out bytes.
    pub swapped_bytes: u64,
}

impl AreaBytes {
    /// The sizes of an area that does not exist.
    pub const ZERO: AreaBytes =
        AreaBytes { mapped_bytes: 0, resident_bytes: 0, proportional_bytes: 0, swapped_bytes: 0 };

    pub(crate) fn fields(self) -> [u64; 4] {
        let AreaBytes { mapped_bytes, resident_bytes, proportional_bytes, swapped_bytes } = self;
        [mapped_bytes, resident_bytes, proportional_bytes, swapped_bytes]
    }

    pub(crate) fn of(fields: [u64; 4]) -> AreaBytes {
        let [mapped_bytes, resident_bytes, proportional_bytes, swapped_bytes] = fields;
        AreaBytes { mapped_bytes, resident_bytes, proportional_bytes, swapped_bytes }
    }
}
