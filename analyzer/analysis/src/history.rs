//! The counters of every site at evenly spaced instants, with the peak of each site and the totals of the
//! process.
//!
//! The verdicts rest on [`edleak_model::series`], which keeps no counters. But a page, a profile of an
//! instant and a profile of a range need the counters. The history keeps these counters packed ([`Packed`]),
//! for at most as many instants as a screen has columns.
//!
//! ```text
//!   instants   0    1    2    3  …        evenly spaced; the last one is the last slice
//!   site 7     ├─Δ──┼────┼─Δ──┤           counters where they changed, exact
//!   others     the sum of all sites that do not fit into the budget, exact
//!   peak       of each site and of the process, over all slices and not only over the instants
//! ```
//!
//! A counter at an instant is the counter of the newest slice that is not after the instant. If no slice was
//! taken since the previous instant, the instant is missing, and its counters are those of the slice before
//! it.

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
    /// Whether no slice was taken since the previous instant.
    pub is_missing: bool,
    /// The counters of all sites together.
    pub counters: Counters,
    /// RssAnon; 0 if it was not recorded.
    pub resident_bytes: u64,
    /// VmSwap, in bytes.
    pub swap_bytes: u64,
}

/// The highest number of live bytes, and its time.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Peak {
    /// Seconds since the recording began.
    pub at_s: f64,
    /// Live bytes at that time.
    pub live_bytes: u64,
}

/// One site over the record.
#[derive(Clone, Debug)]
pub struct SiteHistory {
    /// The site.
    pub label: SiteLabel,
    /// The site's counters at the instants; `None`: they did not fit and are part of [`History::others`].
    pub packed: Option<Packed>,
    /// The peak of the site.
    pub peak: Peak,
    /// The site's live bytes when the process had its peak.
    pub live_bytes_at_peak: u64,
    /// The site's live allocations when the process had its peak.
    pub live_count_at_peak: u64,
}

/// The counters of every site over the record.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// The instants, in time order.
    pub instants: Vec<Instant>,
    /// The sites, in the order of [`Findings::sites`](crate::findings::Findings::sites).
    pub sites: Vec<SiteHistory>,
    /// The sum of all sites without counters of their own in this history, at each instant.
    pub others: Packed,
    /// Number of sites in [`History::others`].
    pub others_sites: u64,
    /// The peak of the process.
    pub peak: Peak,
    /// The end of the judged record, in seconds. After this time, the program freed everything because it
    /// ended.
    pub judged_until_s: f64,
    /// Whether the input gives the allocated and freed bytes, and not only the live bytes.
    pub has_turnover: bool,
    /// Whether the input gives the resident memory of the process.
    pub has_resident: bool,
}

/// The limits of a history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// The greatest number of instants.
    pub instants: usize,
    /// The greatest number of bytes of packed counters.
    pub packed_bytes: usize,
}

impl History {
    /// Adds sites to the others, the least important first, until the packed counters fit into
    /// `packed_bytes`.
    pub fn keep(&mut self, judged: &[JudgedSite], packed_bytes: usize) {
        if self.packed_bytes() <= packed_bytes {
            return;
        }
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
                    // A smaller site further down the list might fit. But only the rank may decide which
                    // sites are kept.
                    left = 0;
                }
            }
        }
        self.others = Packed::of(&others);
    }

    /// Adds every site after the first `sites` sites to the others.
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

/// The sites by falling importance: leaks first, then the sites that hold or allocate most memory.
fn by_importance(judged: &[JudgedSite]) -> Vec<usize> {
    // A key reads the whole curve of a site, so each key is computed once.
    let key = |site: &JudgedSite| {
        let size = site.levels.highest().max(site.totals.live_bytes as f64);
        (site.is_leak() || site.leak_share.is_some(), size, site.totals.allocated_bytes.unwrap_or(0))
    };
    let keys: Vec<(bool, f64, u64)> = judged.iter().map(key).collect();
    let mut order: Vec<usize> = (0..judged.len()).collect();
    order.sort_by(|&a, &b| {
        let ((a_leak, a_size, a_turnover), (b_leak, b_size, b_turnover)) = (keys[a], keys[b]);
        let leaks = b_leak.cmp(&a_leak).then(b_size.total_cmp(&a_size));
        leaks.then(b_turnover.cmp(&a_turnover)).then(a.cmp(&b))
    });
    order
}
