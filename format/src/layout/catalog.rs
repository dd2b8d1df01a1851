//! The catalog: everything in a trace that is not a slice. If several records in the catalog have the same
//! key, only the newest of these records is valid.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::layout::block::MAX_RAW_BYTES;
use crate::layout::delta::MAX_SITES;
use crate::layout::header::FORMAT_VERSION;
use crate::layout::record_v1::RecordV1;
use crate::record::Record;

/// The key of a record: its kind, and its id if it has one. A later record replaces an earlier record with
/// the same key. The writer writes records in the order of the variants of `Key`.
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
    CpuTotals,
    CpuUse,
    Mark(u32),
    MarkSlice(u32),
    MarkLosses,
    Attached,
    Mappings,
    ThreadStart(u32),
    WatchEnd(u32),
    Pool(u32),
    Pools,
    UncountedFunctions(u32),
    GivenBack(Option<u32>),
    Earlier,
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
            Record::CpuTotals(_) => Key::CpuTotals,
            Record::CpuUse(_) => Key::CpuUse,
            Record::Mark(mark) => Key::Mark(mark.id.0),
            Record::MarkSlice(slice) => Key::MarkSlice(slice.number),
            Record::MarkLosses(_) => Key::MarkLosses,
            Record::Attached(_) => Key::Attached,
            Record::Mappings(_) => Key::Mappings,
            Record::ThreadStart(start) => Key::ThreadStart(start.site.0),
            Record::WatchEnd(end) => Key::WatchEnd(end.site.0),
            Record::Pool(pool) => Key::Pool(pool.id.0),
            Record::Pools(_) => Key::Pools,
            Record::UncountedFunctions(functions) => Key::UncountedFunctions(functions.module.0),
            Record::GivenBack(given) => Key::GivenBack(given.site.map(|site| site.0)),
            Record::Earlier(_) => Key::Earlier,
            Record::End(_) => Key::End,
        }
    }
}

/// The newest record of each key.
pub(crate) type Records = BTreeMap<Key, Record>;

// The configuration of bincode. bincode reserves memory for a whole list before it reads the items of the
// list. The limit in this configuration bounds the memory that bincode reserves.
fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<MAX_RAW_BYTES>()
}

pub(crate) fn encode(record: &Record, out: &mut Vec<u8>) {
    bincode::encode_into_std_write(record, out, bincode::config::standard())
        .expect("a record is plain data, and a vector takes every byte");
}

/// Reads consecutive records of one format version. At the first damaged record, the function stops and
/// returns `None`; `records` keeps the records before it.
pub(crate) fn decode(bytes: &[u8], version: u32, records: &mut Records) -> Option<()> {
    each(bytes, version, |record, _| _ = records.insert(Key::of(&record), record))
}

/// Calls `visit` for each record, with the decoded record and with its encoded bytes.
fn each(mut bytes: &[u8], version: u32, mut visit: impl FnMut(Record, &[u8])) -> Option<()> {
    while !bytes.is_empty() {
        let (record, used) = match version {
            1 => {
                let (record, used) = bincode::decode_from_slice::<RecordV1, _>(bytes, config()).ok()?;
                (record.into(), used)
            }
            _ => bincode::decode_from_slice::<Record, _>(bytes, config()).ok()?,
        };
        let (encoded, rest) = bytes.split_at_checked(used).filter(|_| used > 0)?;
        let is_site = |id: u32| (id as usize) < MAX_SITES;
        let is_sound = match (Key::of(&record), &record) {
            (Key::Site(id) | Key::Survivors(id) | Key::ThreadStart(id) | Key::WatchEnd(id), _) => is_site(id),
            (Key::GivenBack(Some(id)), _) => is_site(id),
            (_, Record::MarkSlice(slice)) => slice.sites.iter().all(|(site, _)| is_site(site.0)),
            _ => true,
        };
        is_sound.then_some(())?;
        visit(record, encoded);
        bytes = rest;
    }
    Some(())
}

/// The newest record of each key. The records stay encoded, because decoded records would need several times
/// as much memory.
#[derive(Default)]
pub(crate) struct EncodedRecords {
    bytes: Vec<u8>,
    /// For each key, the position of its record in `bytes`.
    places: BTreeMap<Key, Range<usize>>,
}

impl EncodedRecords {
    /// Adds encoded records that are newer than all records in this value. `None`: a record is damaged; the
    /// function has added the records before that record.
    pub(crate) fn add(&mut self, encoded: &[u8]) -> Option<()> {
        each(encoded, FORMAT_VERSION, |record, bytes| self.push(Key::of(&record), bytes))
    }

    /// Adds encoded records that are older than all records in `self`. `add_older` skips an older record if
    /// `self` already has a record with the same key.
    pub(crate) fn add_older(&mut self, encoded: &[u8]) -> Option<()> {
        let newer: BTreeSet<Key> = self.places.keys().copied().collect();
        each(encoded, FORMAT_VERSION, |record, bytes| {
            let key = Key::of(&record);
            if !newer.contains(&key) {
                self.push(key, bytes);
            }
        })
    }

    fn push(&mut self, key: Key, record: &[u8]) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(record);
        self.places.insert(key, begin..self.bytes.len());
    }

    /// Whether the catalog has no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The records, in the order of their keys.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let records = self.places.values().filter_map(|place| self.bytes.get(place.clone()));
        records.for_each(|record| bytes.extend_from_slice(record));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SiteId;
    use crate::record::{End, EndReason, GivenBack, Losses};

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
    fn encoded_records_are_what_decoding_and_encoding_them_gives() {
        let losses = |unknown_frees| Record::Losses(Losses { unknown_frees, ..Losses::default() });
        let end = |status| Record::End(End { reason: EndReason::Exited(status), at_ns: 9 });
        let encoded = |records: &[Record]| {
            let mut bytes = Vec::new();
            records.iter().for_each(|record| encode(record, &mut bytes));
            bytes
        };
        let mut records = EncodedRecords::default();
        records.add(&encoded(&[end(1), losses(1), losses(70_000)])).expect("sound");
        assert_eq!(records.to_bytes(), encoded(&[losses(70_000), end(1)]));
        records.add_older(&encoded(&[losses(2), end(2)])).expect("sound");
        assert_eq!(records.to_bytes(), encoded(&[losses(70_000), end(1)]));
        records.add(&encoded(&[losses(3)])).expect("sound");
        assert_eq!(records.to_bytes(), encoded(&[losses(3), end(1)]));
        let mut records = EncodedRecords::default();
        records.add(&encoded(&[end(1)])).expect("sound");
        records.add_older(&encoded(&[losses(2), losses(5)])).expect("sound");
        assert_eq!(records.to_bytes(), encoded(&[losses(5), end(1)]));
        assert_eq!(records.add(&[250, 250]), None);
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
    fn pages_given_back_by_a_site_beyond_the_limit_are_an_unsound_record() {
        let given = |id: usize| {
            let mut bytes = Vec::new();
            let site = Some(SiteId(id as u32));
            encode(&Record::GivenBack(GivenBack { site, calls: 1, bytes: 4096 }), &mut bytes);
            decode(&bytes, FORMAT_VERSION, &mut Records::new())
        };
        assert_eq!((given(MAX_SITES - 1), given(MAX_SITES)), (Some(()), None));
    }

    #[test]
    fn a_hostile_length_is_an_unsound_record() {
        // A stack whose length field claims 2^60 frames.
        let bytes = [3, 0, 253, 0, 0, 0, 0, 0, 0, 0, 16];
        assert_eq!(decode(&bytes, FORMAT_VERSION, &mut Records::new()), None);
    }
}
