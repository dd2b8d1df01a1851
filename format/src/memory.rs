//! The memory of the process, separately for each kind of mapping, as /proc shows it.
//!
//! An *area* is all memory of one kind; if the mappings of this kind have names, all memory of one name. The
//! catalog lists the areas ([`MemoryArea`]), and each slice holds the size of each area. When the collector
//! reads the sizes of the areas from /proc, it delays the target. So the collector reads them rarely, and
//! most slices repeat the sizes of the previous slice.

use crate::ids::AreaId;
use bincode::{Decode, Encode};

/// Maximum number of areas in a trace; every area id is below this number.
pub const MAX_AREAS: usize = 256;

/// One area of the process's memory.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MemoryArea {
    /// The id by which slices refer to the area.
    pub id: AreaId,
    /// The kind of the area's mappings.
    pub kind: AreaKind,
    /// The name of the area's mappings; empty if the kind alone identifies the area.
    pub name: String,
}

/// The kind of mappings that an area has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum AreaKind {
    /// The heap that grows by `brk`. The main arena of glibc's malloc is in this heap.
    Heap,
    /// The arenas of glibc's malloc for threads: anonymous mappings of up to 64 MiB that begin at multiples
    /// of 64 MiB.
    Arena,
    /// Anonymous memory that has none of the other kinds: for example from calls of `mmap`, from allocators
    /// other than glibc's, and for large allocations.
    Anonymous,
    /// Anonymous memory that the program named (`PR_SET_VMA_ANON_NAME`).
    Named,
    /// Stacks: the main thread's stack, and the stacks of other threads if edleak recognizes them.
    Stack,
    /// Shared memory of any kind: System V, /dev/shm, memfd, or a shared anonymous mapping.
    SharedMemory,
    /// Mappings of files.
    File,
    /// Huge pages of any mapping. The area of the mapping also counts its huge pages.
    HugePages,
    /// Memory that edleak needs in the process: the side table and the session.
    Edleak,
    /// The working set of the control group: memory of all its processes, including the active page cache.
    ControlGroup,
    /// All memory that recorded calls mapped: the live bytes of all sites of kind `Mapping` and
    /// `AllocatorMapping`. Each slice holds the mapped bytes of `Counted` at the time of the slice. Each byte
    /// of `Counted` also belongs to a second area, for example to `Anonymous`. `Counted` exists since format
    /// version 4.
    Counted,
    /// Anonymous memory that no recorded call mapped, without the heap, arenas, stacks and edleak's own
    /// memory. Each byte of `Unseen` also belongs to a second area, for example to `Anonymous`. `Unseen`
    /// exists since format version 4.
    Unseen,
    /// The mappings of one site; the name of the area is the id of the site. Each byte of `Site` also belongs
    /// to a second area, for example to `Anonymous`. `Site` exists since format version 4.
    Site,
    /// Anonymous memory that allocators mapped for themselves. Each byte of `Allocators` also belongs to a
    /// second area, for example to `Anonymous`. `Allocators` exists since format version 4.
    Allocators,
    /// Free memory inside one arena of glibc's malloc, except the memory in thread caches and fast bins. The
    /// name is the address of the arena's state, or empty for the main arena. Each byte of `Free` also
    /// belongs to a second area, for example to `Arena`. `Free` exists since format version 4.
    Free,
}

/// The size of an area.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AreaBytes {
    /// Size of the area's address space, in bytes.
    pub mapped_bytes: u64,
    /// Resident bytes of the area.
    pub resident_bytes: u64,
    /// Proportional set size in bytes: resident memory, with each shared page divided by the number of
    /// processes that share it.
    pub proportional_bytes: u64,
    /// Bytes of the area that are swapped out.
    pub swapped_bytes: u64,
}

impl AreaBytes {
    /// The sizes of an area that has no mapping.
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
