//! The memory of the process by kind of mapping, as /proc shows it.
//!
//! An *area* is all memory of one kind, or of one name where mappings have names. What areas there are stands in the catalog
//! ([`MemoryArea`]); a slice says how large each of them is. Reading /proc costs the process, so most slices have the values of the
//! slice before.

use crate::ids::AreaId;
use bincode::{Decode, Encode};

/// Areas that a trace can have: ids are below this.
pub const MAX_AREAS: usize = 256;

/// One area.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct MemoryArea {
    /// Its id; slices refer to it.
    pub id: AreaId,
    /// What kind of mappings it is made of.
    pub kind: AreaKind,
    /// The name that its mappings have; empty where the kind says everything.
    pub name: String,
}

/// What kind of mappings an area is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub enum AreaKind {
    /// The heap that grows by `brk`, where the main arena of glibc's malloc lies.
    Heap,
    /// Arenas of glibc's malloc for threads: anonymous memory in pieces of up to 64 MiB, each at a multiple of that.
    Arena,
    /// Other anonymous memory: `mmap`, other allocators, large allocations.
    Anonymous,
    /// Anonymous memory that the program named (`PR_SET_VMA_ANON_NAME`).
    Named,
    /// Stacks: that of the main thread, and those of threads as far as they can be told.
    Stack,
    /// Shared memory: System V, /dev/shm, memfd, shared anonymous.
    SharedMemory,
    /// Mappings of files.
    File,
    /// Huge pages, of whatever mapping: they are in another area as well.
    HugePages,
    /// What the recorder needs in the process: the side table and the session.
    Recorder,
    /// The working set of the control group: all its processes, with the active page cache.
    ControlGroup,
}

/// How large an area is.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct AreaBytes {
    /// Address space.
    pub mapped_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Resident memory, that which is shared with other processes divided among them.
    pub proportional_bytes: u64,
    /// Swapped out.
    pub swapped_bytes: u64,
}

impl AreaBytes {
    /// An area that is not there.
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
