//! SiteId, ModuleId, AreaId, MarkId, PoolId, StackId: the numbers by which records and slices refer to an
//! item.
//!
//! The recorder numbers the items of each kind in order of first appearance, so tables indexed by an id have
//! no gaps. An id is valid within one trace only. To compare two traces, the analyzer matches sites by build
//! ID and offset, or by function and stack.

use bincode::{Decode, Encode};

/// An allocation site. A site is one caller of the allocator. For a watched caller, each call stack is a site
/// of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct SiteId(pub u32);

/// A loaded ELF file. A file that is unloaded and loaded again gets a new id for its new mapping.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct ModuleId(pub u32);

/// A memory area of the process: all mappings of one kind or of one name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct AreaId(pub u32);

/// A mark: a named instant. All marks with the same name have the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct MarkId(pub u32);

/// The number of a pool name: all pools with the same name have the same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct PoolId(pub u32);

/// A call stack recorded at a watched site.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct StackId(pub u32);
