//! Auto-watch: checks during the recording which sites look like leaks, and picks these sites, so that their
//! full stacks are recorded.

use edleak_format::Counters;
use edleak_model::classify::{Model, Verdict, judge};
use edleak_model::growth_class::Class;
use edleak_model::series::{Point, SeriesBuilder};

/// Number of slices after which the collector checks the sites for the first time.
const FIRST_LOOK: u64 = 12;
/// Auto-watch checks at most this number of sites, because the series of live bytes of each checked site
/// takes 3 KiB of memory.
const MOST_SITES: usize = 1 << 14;

/// For each site, the series of its live bytes over the slices; also the results of the latest check.
#[derive(Default)]
pub(crate) struct AutoWatch {
    series: Vec<SeriesBuilder>,
    slices: u64,
    next_look: u64,
    /// The sites that looked like leaks at the previous check.
    suspected: Vec<usize>,
    /// The live bytes of every site at the latest slice. Auto-watch checks only sites with more live bytes
    /// than at the previous check.
    live_bytes: Vec<u64>,
    /// For every site: the number of its allocations since the start of the recording, and the number of its
    /// allocations between the two latest slices.
    allocs: Vec<(u64, u64)>,
    looked_at_bytes: Vec<u64>,
}

impl AutoWatch {
    /// Adds the counters of a slice to the series of the sites. `counters` are the counters of all sites; the
    /// counters of a watched site include the counters of its stacks.
    pub(crate) fn push(&mut self, counters: &[Counters]) {
        let counters = &counters[..counters.len().min(MOST_SITES)];
        let before = self.slices;
        self.series.resize_with(counters.len().max(self.series.len()), || {
            let mut builder = SeriesBuilder::new();
            builder.absent(before);
            builder
        });
        self.allocs.resize(counters.len().max(self.allocs.len()), (0, 0));
        for ((sum, latest), counters) in self.allocs.iter_mut().zip(counters) {
            *latest = counters.allocs.saturating_sub(*sum);
            *sum = counters.allocs;
        }
        self.live_bytes.clear();
        self.live_bytes.extend(counters.iter().map(Counters::live_bytes));
        for (builder, counters) in self.series.iter_mut().zip(counters) {
            builder.push(Point {
                live_bytes: counters.live_bytes(),
                live_count: counters.live_count(),
                allocs: counters.allocs,
                frees: counters.frees,
            });
        }
        self.slices += 1;
    }

    /// The expected number of allocations at a site between two slices: the number of allocations between the
    /// two latest slices, or the average number of allocations between two slices if the average is greater.
    pub(crate) fn allocs_per_slice(&self, site: usize) -> u64 {
        self.allocs.get(site).map_or(0, |(sum, latest)| (*latest).max(sum / self.slices.max(1)))
    }

    /// The sites that looked like a leak at two checks in a row; `None`: no check is due. A site looks like a
    /// leak if the analysis of its live bytes finds a leak with linear or exponential growth, and not a
    /// constant value or logarithmic growth. The first check is due after 12 slices. Each further check is
    /// due when the number of slices has grown by 1/6 since the previous check. Auto-watch requires two
    /// checks, because a cache looks like a leak until the cache is full.
    pub(crate) fn suspects(&mut self, period_s: f64) -> Option<Vec<usize>> {
        if self.slices < self.next_look.max(FIRST_LOOK) {
            return None;
        }
        self.next_look = self.slices + self.slices / 6;
        let leaks = |builder: &SeriesBuilder| {
            let judgement = judge(&builder.clone().finish(), period_s, Model::Growth);
            judgement.verdict == Verdict::Leak && matches!(judgement.class, Class::Linear | Class::Exp)
        };
        let before = std::mem::take(&mut self.looked_at_bytes);
        let has_grown = |site: usize| self.live_bytes.get(site) > before.get(site);
        let suspected: Vec<usize> = self
            .series
            .iter()
            .enumerate()
            .filter(|(site, builder)| has_grown(*site) && leaks(builder))
            .map(|(site, _)| site)
            .collect();
        self.looked_at_bytes.clone_from(&self.live_bytes);
        let before = std::mem::replace(&mut self.suspected, suspected);
        Some(self.suspected.iter().copied().filter(|site| before.binary_search(site).is_ok()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_picked_and_a_filled_cache_is_not() {
        let mut watch = AutoWatch::default();
        let mut picked = Vec::new();
        for slice in 0..60u64 {
            let counters =
                |live: u64| Counters { allocated_bytes: live, allocs: live / 10, ..Counters::ZERO };
            watch.push(&[counters(slice * 100), counters(slice.min(10) * 100), counters(500)]);
            for site in watch.suspects(1.0).unwrap_or_default() {
                if !picked.contains(&site) {
                    picked.push(site);
                }
            }
        }
        assert_eq!(picked, [0]);
    }
}
