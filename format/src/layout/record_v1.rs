//! Records of format version 1. Three fields exist only in version 1; their names begin with `_`. No reader
//! uses these three fields.

use crate::ids::{ModuleId, SiteId, StackId};
use crate::record::{
    Children, End, Losses, Module, ModuleSymbols, Record, Site, SiteKind, Stack, Start, Survivors,
};
use bincode::{Decode, Encode};

/// [`Record`] in format version 1.
#[derive(Encode, Decode)]
pub(crate) enum RecordV1 {
    Start(StartV1),
    Module(Module),
    Site(SiteV1),
    Stack(Stack),
    Survivors(Survivors),
    Symbols(ModuleSymbols),
    /// In format version 1 the second number of `Losses`, `lost_module_events`, was always 0. Since version 2
    /// this second number counts lost module events.
    Losses(Losses),
    End(End),
    Children(Children),
}

/// [`Start`] in format version 1.
#[derive(Encode, Decode)]
pub(crate) struct StartV1 {
    command: Vec<String>,
    pid: u32,
    started_unix_ns: u64,
    tick_ns: u64,
    period_ticks: u64,
    machine: String,
    recorder: String,
    _max_sites: u32,
}

/// [`Site`] in format version 1.
#[derive(Encode, Decode)]
pub(crate) struct SiteV1 {
    id: SiteId,
    kind: SiteKind,
    parent: Option<SiteId>,
    address: u64,
    module: Option<ModuleId>,
    stack: Option<StackId>,
    _first_seen_ns: u64,
    _is_wrapper: bool,
}

impl From<RecordV1> for Record {
    fn from(record: RecordV1) -> Record {
        match record {
            RecordV1::Start(start) => {
                let StartV1 {
                    command, pid, started_unix_ns, tick_ns, period_ticks, machine, recorder, ..
                } = start;
                Record::Start(Start {
                    command,
                    pid,
                    started_unix_ns,
                    tick_ns,
                    period_ticks,
                    machine,
                    recorder,
                })
            }
            RecordV1::Site(SiteV1 { id, kind, parent, address, module, stack, .. }) => {
                Record::Site(Site { id, kind, parent, address, module, stack })
            }
            RecordV1::Module(module) => Record::Module(module),
            RecordV1::Stack(stack) => Record::Stack(stack),
            RecordV1::Survivors(survivors) => Record::Survivors(survivors),
            RecordV1::Symbols(symbols) => Record::Symbols(symbols),
            RecordV1::Losses(losses) => Record::Losses(losses),
            RecordV1::End(end) => Record::End(end),
            RecordV1::Children(children) => Record::Children(children),
        }
    }
}
