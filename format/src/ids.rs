//! SiteId, ModuleId, AreaId, MarkId, PoolId, StackId: the numbers of the catalog's entries.
//!
//! The recorder numbers entries in order of first appearance, so tables indexed by an id stay dense. An id is
//! valid within one trace only. Across traces, the analyzer matches sites by build ID and offset, or by
//! function and stack.

use bincode::{Decode, Encode};

/// An allocation site: an interned caller, or, when watched, an interned stack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct SiteId(pub u32);

/// A loaded ELF file. A file that is unloaded and loaded again gets a new id for its new mapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct ModuleId(pub u32);

/// An area of the process's memory: all mappings of one kind, or of one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct AreaId(pub u32);

/// A mark: all instants of one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct MarkId(pub u32);

/// All pools of one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct PoolId(pub u32);

/// A call stack recorded at a watched site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct StackId(pub u32);
