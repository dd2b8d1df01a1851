//! Converts the times at which the surviving allocations were made into the unit of the model: slices since
//! the site's first slice.

use super::clock;
use super::merge::Merged;
use edleak_format::{Grid, SiteId, Survivors, Trace};
use edleak_model::series::Births;
use std::collections::HashMap;

/// The surviving allocations of a trace, and the numbers that convert times into slices.
#[derive(Debug)]
pub struct BirthTable {
    survivors: HashMap<SiteId, Survivors>,
    first_ns: f64,
    period_ns: f64,
}

impl BirthTable {
    /// Indexes the surviving allocations of `trace`; `grid` is the grid of this trace.
    pub fn new(trace: &Trace, merged: &Merged, grid: Grid) -> Self {
        let tick_ns = clock::tick_ns(trace);
        let mut survivors = merged.survivors(trace);
        // After the watch of a site ends, no new allocations are counted for its stacks. If the function gave
        // the birth times of such a site's stacks to the model, the model would conclude that the stacks
        // stopped growing. So the stacks of a site whose watch has ended get no birth times.
        let ended = merged.ended_watches(trace);
        let is_ended = |id: &SiteId| {
            let parent = trace.site(*id).and_then(|site| site.parent);
            parent.is_some_and(|parent| ended.contains(&merged.root(parent)))
        };
        survivors.retain(|id, _| !is_ended(id));
        Self {
            survivors,
            first_ns: grid.first_tick as f64 * tick_ns,
            period_ns: grid.stride_ticks as f64 * tick_ns,
        }
    }

    /// For each birth epoch, the number of allocations of a site that are still live at the end. The site's
    /// first slice is at grid point `absent`; the function leaves out epochs that end before this slice.
    pub fn of(&self, site: SiteId, absent: usize) -> Option<Births> {
        let survivors = self.survivors.get(&site)?;
        if survivors.epochs.is_empty() || self.period_ns <= 0.0 {
            return None;
        }
        let began_ns = self.first_ns + absent as f64 * self.period_ns;
        // The first slice of a site counts the allocations of the period before this slice, so the first
        // allocations may be one period older than the slice.
        let own = survivors.epochs.iter().filter(|epoch| epoch.to_ns as f64 > began_ns - self.period_ns);
        let last_free_slice = match survivors.last_free_ns {
            // The value −1 means that the site never freed an allocation. The labelled corpora use −1 in the
            // same sense.
            0 => -1.0,
            freed_ns => ((freed_ns as f64 - began_ns) / self.period_ns).max(0.0),
        };
        Some(Births {
            epoch_live_bytes: own.clone().map(|epoch| epoch.live_bytes).collect(),
            epoch_live_count: own.clone().map(|epoch| epoch.live_count).collect(),
            epoch_allocs: own.map(|epoch| epoch.allocs).collect(),
            last_free_slice,
            max_age_at_free: survivors.max_age_at_free_ns as f64 / self.period_ns,
        })
    }
}
