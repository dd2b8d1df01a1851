//! Every site over the record: its counters at evenly spaced instants, its peak, and the process beside them.
//!
//! The verdicts rest on [`edleak_model::series`], which keeps no counters. A page, a profile of an instant and a profile of a range
//! need the counters themselves. They are kept at no more instants than a screen has columns, packed ([`Packed`]).
//!
//! ```text
//!   instants   0    1    2    3  …        evenly spaced; the last one is the last slice
//!   site 7     ├─Δ──┼────┼─Δ──┤           counters where they changed, exact
//!   others     the sum of all sites that do not fit into the budget, exact
//!   peak       of each site and of the process, over all slices and not only over the instants
//! ```
//!
//! A counter at an instant is that of the newest slice not after it. An instant that no slice came for since the instant
//! before is missing: its counters are those of the slice before.

mod build;
mod of_lines;
mod of_trace;
mod packed;

pub use packed::{Packed, PackedBuilder};

use crate::site::{JudgedSite, SiteLabel};
use edleak_format::Counters;

/// The process at one instant.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Instant {
    /// Seconds since the recording began.
    pub at_s: f64,
    /// No slice came for it.
    pub is_missing: bool,
    /// The counters of all sites together.
    pub counters: Counters,
    /// RssAnon; 0 where it was not recorded.
    pub resident_bytes: u64,
    /// VmSwap.
    pub swap_bytes: u64,
}

/// The most that was ever live, and when.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Peak {
    /// Seconds since the recording began.
    pub at_s: f64,
    /// Live bytes then.
    pub live_bytes: u64,
}

/// One site over the record.
#[derive(Clone, Debug)]
pub struct SiteHistory {
    /// The site.
    pub label: SiteLabel,
    /// Its counters at the instants; `None` where they did not fit and are part of [`History::others`].
    pub packed: Option<Packed>,
    /// Its own peak.
    pub peak: Peak,
    /// Its live bytes when the process had its peak.
    pub live_bytes_at_peak: u64,
    /// Its live allocations then.
    pub live_count_at_peak: u64,
}

/// Every site over the record.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// The instants, in time order.
    pub instants: Vec<Instant>,
    /// The sites, in the order of [`Findings::sites`](crate::findings::Findings::sites).
    pub sites: Vec<SiteHistory>,
    /// The sum of the sites without counters of their own, at the instants.
    pub others: Packed,
    /// Sites in that sum.
    pub others_sites: u64,
    /// The peak of the process.
    pub peak: Peak,
    /// Until when the sites were judged: after that the program freed everything because it ended.
    pub judged_until_s: f64,
    /// The input says what was allocated and freed in between, and not only what was live.
    pub has_turnover: bool,
    /// The input says what the process held.
    pub has_resident: bool,
}

/// How much of it to keep.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// At most so many instants.
    pub instants: usize,
    /// At most so many bytes of packed counters.
    pub packed_bytes: usize,
}

impl History {
    /// Sums sites up into the others, the least important first, until the packed counters fit into so many bytes.
    pub fn keep(&mut self, judged: &[JudgedSite], packed_bytes: usize) {
        let mut left = packed_bytes;
        let mut others = vec![Counters::ZERO; self.instants.len()];
        self.others.add_to(&mut others);
        for site in by_importance(judged) {
            let Some(packed) = self.sites.get(site).and_then(|site| site.packed.as_ref()) else { continue };
            match left.checked_sub(packed.bytes().len()) {
                Some(rest) => left = rest,
                None => {
                    packed.add_to(&mut others);
                    self.sites[site].packed = None;
                    self.others_sites += 1;
                    // A smaller one further down would fit, but what is kept should be a question of rank alone.
                    left = 0;
                }
            }
        }
        self.others = Packed::of(&others);
    }

    /// Sums up every site after the first `sites` ones.
    pub fn sum_up_beyond(&mut self, sites: usize) {
        let mut others = vec![Counters::ZERO; self.instants.len()];
        self.others.add_to(&mut others);
        for packed in self.sites.iter_mut().skip(sites).filter_map(|site| site.packed.take()) {
            packed.add_to(&mut others);
            self.others_sites += 1;
        }
        self.others = Packed::of(&others);
    }

    /// Bytes of all packed counters.
    pub fn packed_bytes(&self) -> usize {
        self.sites.iter().filter_map(|site| site.packed.as_ref()).map(|packed| packed.bytes().len()).sum()
    }
}

/// The sites by falling importance: leaks first, then what holds or moves most memory.
fn by_importance(judged: &[JudgedSite]) -> Vec<usize> {
    let size = |i: usize| {
        let site = &judged[i];
        let highest = site.levels.highest();
        (site.is_leak() || site.leak_share.is_some(), highest.max(site.totals.live_bytes as f64))
    };
    let turnover = |i: usize| judged[i].totals.allocated_bytes.unwrap_or(0);
    let mut order: Vec<usize> = (0..judged.len()).collect();
    order.sort_by(|&a, &b| {
        let ((a_leak, a_size), (b_leak, b_size)) = (size(a), size(b));
        let leaks = b_leak.cmp(&a_leak).then(b_size.total_cmp(&a_size));
        leaks.then(turnover(b).cmp(&turnover(a))).then(a.cmp(&b))
    });
    order
}
