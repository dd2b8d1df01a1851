//! SiteId, ModuleId, StackId: small numbers that name things of the catalog.
//!
//! An id is an index given out in order of first appearance, so tables indexed by it stay dense. Ids mean something only
//! within one trace; across traces a site is matched by build ID and offset, or by function and stack.

use bincode::{Decode, Encode};

/// An allocation site: an interned caller, or, when watched, an interned stack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct SiteId(pub u32);

/// A loaded ELF file. A file that was unloaded and loaded again gets a new id for its new place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct ModuleId(pub u32);

/// An area of the process's memory: all mappings of one kind or name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct AreaId(pub u32);

/// A call stack recorded at a watched site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct StackId(pub u32);
