//! The expected content of a trace, slice by slice. Tests compare this content with the trace that a reader
//! gives.

#![allow(dead_code, reason = "every test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use edleak_format::{
    Counters, Error, Record, Site, SiteId, SiteKind, SliceHeader, SliceVisitor, Start, Trace, TraceWriter,
};

/// For each tick, the counters of every site whose counters are not zero.
pub(crate) type Slices = BTreeMap<u64, (SliceHeader, BTreeMap<u32, Counters>)>;

/// A file name that no other test uses. The file is removed on drop.
pub(crate) struct TempFile(pub PathBuf);

impl TempFile {
    pub(crate) fn new(name: &str) -> TempFile {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        TempFile(std::env::temp_dir().join(format!("edleak-format-{pid}-{number}-{name}.edl")))
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_file(&self.0);
    }
}

/// A deterministic source of numbers (xorshift64*).
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Advances the counters of all sites. The sites are of four kinds in turn: a leak, a steady site, a noisy
/// site, and a site that rarely allocates.
pub(crate) fn advance(counters: &mut [Counters], random: &mut Random) {
    for (index, site) in counters.iter_mut().enumerate() {
        let allocs = match index % 4 {
            0 => 1 + index as u64 % 5,
            1 => 10,
            2 => random.below(20),
            _ => u64::from(random.below(10) == 0),
        };
        let size = 16 + 8 * (index as u64 % 30);
        site.allocs += allocs;
        site.allocated_bytes += allocs * size;
        if !index.is_multiple_of(4) {
            site.frees = site.allocs - random.below(1 + allocs.min(3));
            site.freed_bytes = site.frees * size;
        }
    }
}

/// Advances the counters by random amounts that do not compress. Since such amounts do not compress, a few
/// slices fill the file, and a short test can write many times the capacity of the file.
pub(crate) fn advance_wide(counters: &mut [Counters], random: &mut Random) {
    for site in counters {
        site.allocs += 1 + random.below(1 << 24);
        site.frees += random.below(1 << 24);
        site.allocated_bytes += random.below(1 << 40);
        site.freed_bytes += random.below(1 << 40);
    }
}

pub(crate) fn header(tick: u64) -> SliceHeader {
    SliceHeader {
        tick,
        time_ns: tick * 1_000_000_000 + tick * 7919 % 50_000,
        rss_anon_bytes: (100 + tick % 17) << 12,
        swap_bytes: 0,
    }
}

pub(crate) fn non_zero(counters: &[Counters]) -> BTreeMap<u32, Counters> {
    (0..).zip(counters.iter().copied()).filter(|(_, counters)| *counters != Counters::ZERO).collect()
}

pub(crate) fn site(id: u32) -> Site {
    Site {
        id: SiteId(id),
        kind: SiteKind::Caller,
        parent: None,
        address: 0x5555_0000_0000 + u64::from(id) * 0x40,
        module: None,
        stack: None,
    }
}

pub(crate) fn start() -> Record {
    Record::Start(Start {
        command: vec!["leaker".into(), "--fast".into()],
        pid: 42,
        tick_ns: 1_000_000_000,
        period_ticks: 1,
        ..Start::default()
    })
}

/// Writes `slices` slices of `sites` sites, and returns the slices that a reader must find.
pub(crate) fn write(
    writer: &mut TraceWriter,
    sites: u32,
    ticks: impl Iterator<Item = u64>,
) -> Result<Slices, Error> {
    let mut random = Random(7);
    let mut counters = vec![Counters::ZERO; sites as usize];
    let mut model = Slices::new();
    writer.record(&start())?;
    for id in 0..sites {
        writer.record(&Record::Site(site(id)))?;
    }
    for tick in ticks {
        advance(&mut counters, &mut random);
        writer.slice(&header(tick), &counters)?;
        model.insert(tick, (header(tick), non_zero(&counters)));
    }
    Ok(model)
}

/// Collects the slices of a block and checks the rules of [`SliceVisitor`].
#[derive(Default)]
pub(crate) struct Collect {
    pub slices: Slices,
    table: BTreeMap<u32, Counters>,
}

impl SliceVisitor for Collect {
    fn slice(&mut self, header: &SliceHeader, changed: &[(SiteId, Counters)]) {
        assert!(changed.is_sorted_by_key(|(id, _)| *id));
        for (SiteId(id), counters) in changed {
            let was = self.table.insert(*id, *counters);
            assert_ne!(was.unwrap_or_default(), *counters, "only what changed");
        }
        let table =
            self.table.iter().filter(|(_, c)| **c != Counters::ZERO).map(|(id, c)| (*id, *c)).collect();
        self.slices.insert(header.tick, (*header, table));
    }
}

/// Every slice of a trace.
pub(crate) fn read(trace: &Trace) -> Slices {
    let mut slices = Slices::new();
    for (index, block) in trace.blocks().iter().enumerate() {
        let mut collect = Collect::default();
        trace.replay_block(index, &mut collect).expect("nobody changes the file");
        assert!(collect.slices.len() <= block.slices as usize);
        slices.append(&mut collect.slices);
    }
    slices
}
