//! Finds growth that no single site explains, because it is spread over many sites that each grew only for a
//! moment.
//!
//! If a site allocated only once, its curve is flat for nearly all of the record, so the site is not a leak.
//! Some programs allocate at new sites all the time. None of the sites that grew only for a moment is a leak,
//! but together their memory grows. So edleak adds up the curves of all sites that grew only for a moment,
//! and judges the sum like the curve of one site. If the curves, added up, grow like a leak, the recording
//! becomes undecided. The report does not name a leak, because no single site causes the growth.

use crate::site::{Domain, JudgedSite, Kind, SiteLabel};
use edleak_model::classify::{Model, Verdict, judge};
use edleak_model::series::{Point, SeriesBuilder};
use std::collections::HashSet;

/// Number of instants at which edleak adds up the live bytes of the sites that grew only for a
/// moment.
const COLUMNS: usize = 64;
/// A site grew only for a moment if its live bytes rose at no more than this number of instants. If the live
/// bytes of a site rose at more instants, the curve of this site alone is enough for a verdict.
const MOST_RISES: usize = 3;
/// edleak adds up and judges the curves of the sites that grew only for a moment only if there are
/// at least this number of such sites.
const LEAST_SITES: usize = 12;
/// The recording becomes undecided only if all sites that grew only for a moment together grew by more than
/// this share of the live bytes, and also by more than `LEAST_BYTES`.
const LEAST_SHARE: f64 = 0.05;
/// The recording becomes undecided only if all sites that grew only for a moment together grew by
/// more than this number of bytes.
const LEAST_BYTES: f64 = 4096.0;

/// The number of sites that each grew only for a moment, and their growth.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Unexplained {
    /// Number of sites that each grew only for a moment.
    pub sites: u64,
    /// The growth of all sites that each grew only for a moment, in bytes.
    pub bytes: u64,
}

/// Adds up the curves of the sites that grew only for a moment, and judges the sum. `None`: the curves,
/// added up, do not grow like a leak.
pub(crate) fn growth_of(sites: &[JudgedSite], record_s: f64) -> Option<Unexplained> {
    let leaking: HashSet<&SiteLabel> =
        sites.iter().filter(|site| site.is_leak()).filter_map(|site| site.parent.as_ref()).collect();
    let callers = sites.iter().filter(|site| {
        site.parent.is_none()
            && !site.is_leak()
            && site.kind != Kind::Injected
            && site.domain() == Domain::Heap
            && !leaking.contains(&site.label)
    });
    let mut sum = vec![(0.0, 0u64); COLUMNS];
    let (mut count, mut live) = (0, 0.0);
    for site in callers {
        let levels = site.with_stacks.as_deref().map_or(&site.levels, |family| &family.levels);
        let levels = levels.at(COLUMNS);
        let Some(last) = levels.last().copied().filter(|last| *last > 0.0) else { continue };
        live += last;
        let rises = levels.windows(2).filter(|pair| pair[1] > pair[0]).count();
        if rises == 0 || rises > MOST_RISES || last <= levels[0] {
            continue;
        }
        count += 1;
        // The trace of the sum needs a count beside the bytes: the number of rises so far. If it were only
        // the number of sites that have risen, the sum of sites that rise twice would stop growing at half
        // of the record, like a full cache.
        let mut rises = u64::from(levels[0] > 0.0);
        for (at, (sum, level)) in sum.iter_mut().zip(&levels).enumerate() {
            rises += u64::from(at > 0 && *level > levels[at - 1]);
            sum.0 += level;
            sum.1 += rises;
        }
    }
    if count < LEAST_SITES {
        return None;
    }
    let mut series = SeriesBuilder::new();
    for (bytes, live_count) in &sum {
        series.push(Point {
            live_bytes: *bytes as u64,
            live_count: *live_count,
            allocs: *live_count,
            frees: 0,
        });
    }
    let judgement = judge(&series.finish(), record_s / COLUMNS as f64, Model::Growth);
    let bytes = sum[COLUMNS - 1].0 - sum[0].0;
    let matters = bytes > LEAST_BYTES && bytes > LEAST_SHARE * live;
    let is_growth = judgement.verdict == Verdict::Leak && matters;
    is_growth.then_some(Unexplained { sites: count as u64, bytes: bytes as u64 })
}
