//! The counters of every site at evenly spaced instants, with the peak of each site and the totals of the
//! process.
//!
//! The verdicts are computed from [`edleak_model::series`], which does not keep the counters of single
//! slices. But the HTML page and the profiles need the counters of single slices. The history keeps the
//! counters in packed form ([`Packed`]), for at most as many instants as a screen has columns of pixels.
//!
//! ```text
//!   instants   0    1    2    3  …        evenly spaced; the last one is the last slice
//!   site 7     ├─Δ──┼────┼─Δ──┤           counters where they changed, exact
//!   others     the sum of all sites whose counters do not fit into the limit of bytes, exact
//!   peak       the peak of each site and of the process, over all slices and not only over the instants
//! ```
//!
//! The counters at an instant are the counters of the newest slice at or before the instant. If no slice was
//! taken since the previous instant, the instant is marked as missing, and its counters are those of the
//! newest slice before the instant.

mod build;
mod of_lines;
mod of_trace;
mod packed;

pub use packed::Packed;
use packed::PackedBuilder;

use crate::site::{JudgedSite, SiteLabel};
use edleak_format::Counters;

/// The counters and the memory of the whole process at one instant.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Instant {
    /// Seconds since the recording began.
    pub at_s: f64,
    /// Whether no slice was taken since the previous instant.
    pub is_missing: bool,
    /// The counters of all sites together.
    pub counters: Counters,
    /// RssAnon of the process in bytes; 0 if RssAnon was not recorded.
    pub resident_bytes: u64,
    /// VmSwap of the process in bytes.
    pub swap_bytes: u64,
}

/// The greatest number of live bytes of a site or of the process, and the time at which this number was live.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
pub struct Peak {
    /// The time of the peak, in seconds since the recording began.
    pub at_s: f64,
    /// Live bytes at the peak.
    pub live_bytes: u64,
}

/// The counters and the peak of one site, at the instants of the history.
#[derive(Clone, Debug)]
pub struct SiteHistory {
    /// The site.
    pub label: SiteLabel,
    /// The site's counters at the instants; `None`: the counters did not fit into the limit of bytes and are
    /// part of [`History::others`].
    pub packed: Option<Packed>,
    /// The greatest number of live bytes of this site, and its time.
    pub peak: Peak,
    /// The site's live bytes when the process had its peak.
    pub live_bytes_at_peak: u64,
    /// The site's live allocations when the process had its peak.
    pub live_count_at_peak: u64,
}

/// The counters of every site at evenly spaced instants of the record.
#[derive(Clone, Default, Debug)]
pub struct History {
    /// The instants, in time order.
    pub instants: Vec<Instant>,
    /// The sites, in the order of [`Analysis::sites`](crate::analysis::Analysis::sites).
    pub sites: Vec<SiteHistory>,
    /// For each instant, the sum of the counters of all sites that have no counters of their own in this
    /// history.
    pub others: Packed,
    /// Number of sites whose counters are added up in [`History::others`].
    pub others_sites: u64,
    /// The greatest number of live bytes of the process, and its time.
    pub peak: Peak,
    /// The end of the judged record, in seconds since the recording began. After the judged record, the
    /// program only freed its memory because it was about to end.
    pub judged_until_s: f64,
    /// Whether the input gives the allocated and freed bytes, and not only the live bytes.
    pub has_turnover: bool,
    /// Whether the input gives the resident memory of the process.
    pub has_resident: bool,
}

/// The limits for the size of a history.
#[derive(Clone, Copy, Debug)]
pub struct HistoryOptions {
    /// The greatest number of instants.
    pub instants: usize,
    /// The greatest number of bytes of packed counters.
    pub packed_bytes: usize,
}

impl History {
    /// Limits the packed counters to `packed_bytes` bytes: removes the counters of the least important sites,
    /// and adds these counters to the sum `others`.
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
                    // The counters of this site do not fit into the limit. The counters of a less important
                    // site (one that holds less memory) might still fit, but the history keeps no site if a
                    // more important site did not fit.
                    left = 0;
                }
            }
        }
        self.others = Packed::of(&others);
    }

    /// Keeps the counters of the first `sites` sites, and adds the counters of all sites after them to the
    /// sum `others`.
    pub fn sum_up_beyond(&mut self, sites: usize) {
        let mut others = vec![Counters::ZERO; self.instants.len()];
        self.others.add_to(&mut others);
        for packed in self.sites.iter_mut().skip(sites).filter_map(|site| site.packed.take()) {
            packed.add_to(&mut others);
            self.others_sites += 1;
        }
        self.others = Packed::of(&others);
    }

    /// Number of bytes of all packed counters.
    pub fn packed_bytes(&self) -> usize {
        self.sites.iter().filter_map(|site| site.packed.as_ref()).map(|packed| packed.bytes().len()).sum()
    }
}

/// The indexes of the sites, sorted by importance for the user. Sites that leak come before all other sites.
/// If two sites are both leaks or both no leaks, the site that holds more memory comes first. If two sites
/// hold the same number of bytes, the site that allocated more bytes comes first.
fn by_importance(judged: &[JudgedSite]) -> Vec<usize> {
    // The function computes the sort key of each site only once, because each computation reads the whole
    // curve of the site.
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
