//! The edleak trace file: what is in it, how it is written, how it is read.
#![deny(unsafe_code)]

mod error;
mod ids;
mod reader;
mod record;
mod slice;
mod writer;

pub use error::{Error, ErrorKind};
pub use ids::{ModuleId, SiteId, StackId};
pub use reader::{BlockInfo, Damage, Grid, Trace};
pub use record::*;
pub use slice::{Counters, SliceHeader, SliceVisitor};
pub use writer::{DEFAULT_CAPACITY_BYTES, MIN_CAPACITY_BYTES, TraceWriter, rewrite};
