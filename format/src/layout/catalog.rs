//! The catalog: everything in a trace that is not a slice. Of each key, the newest record counts.

use std::collections::BTreeMap;

use crate::layout::block::MAX_RAW_BYTES;
use crate::layout::delta::MAX_SITES;
use crate::layout::record_v1::RecordV1;
use crate::record::Record;

/// The subject of a record. A later record with the same key replaces the earlier one. Records are written in
/// this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Key {
    Start,
    Module(u32),
    Stack(u32),
    Site(u32),
    Survivors(u32),
    Symbols(u32),
    Losses,
    Children,
    MemoryArea(u32),
    Allocator(u32),
    CpuTime,
    Processor,
    End,
}

impl Key {
    pub(crate) fn of(record: &Record) -> Key {
        match record {
            Record::Start(_) => Key::Start,
            Record::Module(module) => Key::Module(module.id.0),
            Record::Stack(stack) => Key::Stack(stack.id.0),
            Record::Site(site) => Key::Site(site.id.0),
            Record::Survivors(survivors) => Key::Survivors(survivors.site.0),
            Record::Symbols(symbols) => Key::Symbols(symbols.module.0),
            Record::Losses(_) => Key::Losses,
            Record::Children(_) => Key::Children,
            Record::MemoryArea(area) => Key::MemoryArea(area.id.0),
            Record::Allocator(allocator) => Key::Allocator(allocator.module.0),
            Record::CpuTime(_) => Key::CpuTime,
            Record::Processor(_) => Key::Processor,
            Record::End(_) => Key::End,
        }
    }
}

/// The newest record of each key.
pub(crate) type Records = BTreeMap<Key, Record>;

// The limit bounds the memory that bincode reserves for one length field before it reads the items.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_RAW_BYTES>()
}

pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(record, out, bincode::config::standard())
        .expect("a record is plain data, and a vector takes every byte");
}

/// Reads consecutive records of one format version. Stops at the first unsound record and returns `None`; the
/// records before it are kept.
pub(crate) fn decode(mut bytes: &[u8], version: u32, records: &mut Records) -> Option<()> {
    while !bytes.is_empty() {
        let (record, used) = match version {
            1 => {
                let (record, used) = bincode::decode_from_slice::<RecordV1, _>(bytes, config()).ok()?;
                (record.into(), used)
            }
            _ => bincode::decode_from_slice::<Record, _>(bytes, config()).ok()?,
        };
        bytes = bytes.get(used..).filter(|_| used > 0)?;
        let key = Key::of(&record);
        let is_sound = match key {
            Key::Site(id) | Key::Survivors(id) => (id as usize) < MAX_SITES,
            _ => true,
        };
        is_sound.then_some(())?;
        records.insert(key, record);
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::header::FORMAT_VERSION;
    use crate::record::{End, EndReason, Losses};

    #[test]
    fn the_newest_record_of_a_key_wins() {
        let mut bytes = Vec::new();
        for unknown_frees in 0..3 {
            encode(&Record::Losses(Losses { unknown_frees, ..Losses::default() }), &mut bytes);
        }
        encode(&Record::End(End { reason: EndReason::Exited(3), at_ns: 9 }), &mut bytes);
        let mut records = Records::new();
        decode(&bytes, FORMAT_VERSION, &mut records).expect("sound");
        assert_eq!(records.len(), 2);
        assert_eq!(records[&Key::Losses], Record::Losses(Losses { unknown_frees: 2, ..Losses::default() }));
        bytes.truncate(bytes.len() - 1);
        assert_eq!(decode(&bytes, FORMAT_VERSION, &mut Records::new()), None);
    }

    #[test]
    fn the_last_words_have_a_known_largest_size() {
        let mut bytes = Vec::new();
        let most = u64::MAX;
        encode(
            &Record::Losses(Losses {
                unknown_frees: most,
                lost_module_events: most,
                other_site_allocs: most,
                untracked_allocs: most,
                missed_slices: most,
                lost_stacks: most,
                unrecorded_images: most,
            }),
            &mut bytes,
        );
        encode(&Record::End(End { reason: EndReason::Exited(i32::MIN), at_ns: most }), &mut bytes);
        assert!(bytes.len() + crate::layout::chunk::CHUNK_HEADER_BYTES <= 128, "{}", bytes.len());
    }

    #[test]
    fn a_hostile_length_is_an_unsound_record() {
        // A stack that claims 2^60 frames.
        let bytes = [3, 0, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert_eq!(decode(&bytes, FORMAT_VERSION, &mut Records::new()), None);
    }
}
