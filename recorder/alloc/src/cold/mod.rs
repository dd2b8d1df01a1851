//! All code of this crate that is not on the fast path.

pub(crate) use crate::absent::{detached, detours, inside};

#[path = "../shared/cold/claim.rs"]
mod claim;
pub(crate) mod decision;
#[path = "../shared/cold/elf.rs"]
pub(crate) mod elf;
#[path = "../shared/cold/environment.rs"]
pub(crate) mod environment;
#[path = "../shared/cold/given_name.rs"]
pub(crate) mod given_name;
#[path = "../shared/cold/identity.rs"]
mod identity;
#[path = "../shared/cold/idle.rs"]
pub(crate) mod idle;
#[path = "../shared/cold/lifecycle.rs"]
pub(crate) mod lifecycle;
#[path = "../shared/cold/lines.rs"]
pub(crate) mod lines;
#[path = "../shared/cold/marks.rs"]
pub(crate) mod marks;
#[path = "../shared/cold/module_table.rs"]
pub(crate) mod module_table;
#[path = "../shared/cold/modules.rs"]
pub(crate) mod modules;
#[path = "../shared/cold/only.rs"]
mod only;
#[path = "../shared/cold/path.rs"]
pub(crate) mod path;
#[path = "../shared/cold/phase.rs"]
pub(crate) mod phase;
#[path = "../shared/cold/publish.rs"]
mod publish;
pub(crate) mod real;
#[path = "../shared/cold/sites.rs"]
pub(crate) mod sites;
#[path = "../shared/cold/slow.rs"]
pub(crate) mod slow;
pub(crate) mod symbols;
#[path = "../shared/cold/sys.rs"]
pub(crate) mod sys;
#[path = "../shared/cold/thread_id.rs"]
mod thread_id;
