//! Limits the cost of auto-watch to a share of the target's processor time.
//!
//! The budget is a share of the processor time that the target has used so far. Each allocation at a watched
//! site costs processor time. Auto-watch estimates the cost of watching a site from the number of allocations
//! and the depth of the stacks. The stacks of a site become known only after the site has been watched for
//! some slices. Auto-watch begins to watch a site only if the rest of the budget is enough to watch this site
//! until its stacks are known. When the stacks of a site are known, auto-watch stops watching the site if
//! this site alone costs more than the whole budget. If the budget is used up, auto-watch stops watching the
//! most expensive sites.

use std::collections::BTreeMap;

/// The additional cost, in nanoseconds, of an allocation and its free at a watched site, compared with a site
/// that is not watched; without the cost of walking the frames. A watched allocation needs this time for the
/// slow path, for the hash table of stacks, and for counters that threads share. Measured cost of an
/// allocation together with the walk of its stack: 150 ns with 5 frames, 235 ns with 25 frames.
const ALLOCATION_NS: f64 = 130.0;
/// The cost, in nanoseconds, of walking one frame, measured on a slow machine (docs/performance.md).
const FRAME_NS: f64 = 6.2;
/// The additional cost, in nanoseconds, of a stack that the target stores for the first time: the unwind
/// rules are not in the processor's cache yet, and the tables need new memory. Measured with 20,000 stacks of
/// a compiler, with 60 to 100 frames each: a new stack took 33 µs.
const NEW_STACK_NS: f64 = 2000.0;
/// The additional cost, in nanoseconds, of each frame of a stack that the target stores for the first time.
const NEW_FRAME_NS: f64 = 350.0;
/// The assumed number of frames of a stack, for a site of which no stack is known yet.
const USUAL_FRAMES: f64 = 24.0;
/// After a site has been watched for this number of slices, auto-watch considers the stacks of the site and
/// the ages of its live allocations as known.
const SLICES_TO_KNOW: u64 = 16;
/// After this number of allocations at a watched site, auto-watch considers the stacks of the site and the
/// ages of its live allocations as known, even before [`SLICES_TO_KNOW`] slices.
const ALLOCS_TO_KNOW: u64 = 20_000;

/// Auto-watch begins to watch a site only if at most this share of the budget is used. In some programs,
/// every site that looks like a leak allocates so often that auto-watch must soon stop watching it. If
/// auto-watch must soon stop watching every site, this limit keeps the cost of auto-watch at or below this
/// share of the budget.
const SHARE_TO_BEGIN: f64 = 0.5;

/// The counters of a watched site at one slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watched {
    /// The session id of the watched site, minus `OTHER`.
    pub(crate) site: usize,
    /// Number of allocations that were counted at the stacks of the site since the recording began.
    pub(crate) allocs: u64,
    /// Number of stacks of the site.
    pub(crate) stacks: u64,
    /// Average number of frames of the site's stacks; 0: no stack is known yet.
    pub(crate) frames: f64,
}

/// The cost of a site that is or was watched.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    is_watched: bool,
    /// Number of slices during which the site was watched.
    slices: u64,
    /// Number of allocations that were counted at the stacks of the site.
    allocs: u64,
    stacks: u64,
    /// The cost of the site between the two latest slices, in nanoseconds of processor time.
    latest_ns: f64,
    /// The cost of the site since the recording began, in nanoseconds of processor time.
    spent_ns: f64,
    /// The part of the budget that is reserved for this site until its stacks are known.
    reserved_ns: f64,
}

/// The budget of auto-watch, and the cost of each site that is or was watched.
#[derive(Debug)]
pub(crate) struct Budget {
    share: f64,
    spent_ns: f64,
    /// Number of slices since the recording began.
    slices: u64,
    accounts: BTreeMap<usize, Account>,
}

impl Account {
    /// Number of slices for which the site must still be watched until its stacks are known, if the site
    /// makes `allocs_per_slice` allocations between two slices.
    fn slices_left(&self, allocs_per_slice: u64) -> u64 {
        let by_allocs = ALLOCS_TO_KNOW.saturating_sub(self.allocs).div_ceil(allocs_per_slice.max(1));
        by_allocs.min(SLICES_TO_KNOW.saturating_sub(self.slices))
    }

    fn is_known(&self) -> bool {
        self.slices_left(1) == 0
    }

    /// The expected cost of `allocs` allocations at the site, in nanoseconds of processor time.
    fn price_ns(&self, allocs: u64) -> f64 {
        let one = if self.allocs > 0 { self.spent_ns / self.allocs as f64 } else { cost_ns(1.0, 0.0) };
        one * allocs as f64
    }
}

fn cost_ns(allocs: f64, frames: f64) -> f64 {
    let frames = if frames > 0.0 { frames } else { USUAL_FRAMES };
    allocs * (ALLOCATION_NS + FRAME_NS * frames)
}

impl Budget {
    /// Makes a budget. `share` is the share of the target's processor time that auto-watch may cost, from 0
    /// to 1.
    pub(crate) fn new(share: f64) -> Budget {
        Budget { share, spent_ns: 0.0, slices: 0, accounts: BTreeMap::new() }
    }

    /// The sites that are watched.
    pub(crate) fn watched(&self) -> impl Iterator<Item = usize> {
        self.watched_accounts().map(|(site, _)| site)
    }

    /// Begins to watch a site, if enough of the budget is left. Returns whether the site is watched now. The
    /// site makes `allocs_per_slice` allocations between two slices; the target has used `used_ns` of
    /// processor time so far. If auto-watch stopped watching this site before because of its cost, and the
    /// stacks of the site are known, the site is not watched again.
    pub(crate) fn begin(&mut self, site: usize, allocs_per_slice: u64, used_ns: u64) -> bool {
        let Some(price_ns) = self.price_ns(site, allocs_per_slice, used_ns) else { return false };
        let account = self.accounts.entry(site).or_default();
        (account.is_watched, account.reserved_ns) = (true, price_ns);
        true
    }

    /// Whether the rest of the budget suffices to begin watching this site ([`Budget::begin`]).
    pub(crate) fn can_begin(&self, site: usize, allocs_per_slice: u64, used_ns: u64) -> bool {
        self.price_ns(site, allocs_per_slice, used_ns).is_some()
    }

    /// Marks a site that auto-watch must never watch.
    pub(crate) fn exclude(&mut self, site: usize) {
        let excluded = Account { slices: SLICES_TO_KNOW, ..Account::default() };
        self.accounts.insert(site, excluded);
    }

    /// The expected cost of watching a site until its stacks are known; `None`: the budget does not suffice
    /// to watch the site.
    fn price_ns(&self, site: usize, allocs_per_slice: u64, used_ns: u64) -> Option<f64> {
        let account = self.accounts.get(&site).copied().unwrap_or_default();
        let left = account.slices_left(allocs_per_slice);
        if self.share <= 0.0 || account.is_watched || left == 0 {
            return None;
        }
        let reserved: f64 = self.accounts.values().map(|account| account.reserved_ns).sum();
        let price_ns = account.price_ns(allocs_per_slice.max(1)) * left as f64;
        let earned_ns = self.share * used_ns as f64;
        (self.spent_ns + reserved + price_ns <= SHARE_TO_BEGIN * earned_ns).then_some(price_ns)
    }

    /// Adds the cost of the allocations since the previous slice to the used part of the budget. The
    /// collector calls this function once for each slice. Returns the sites that the collector must stop
    /// watching.
    pub(crate) fn charge(&mut self, watched: &[Watched], used_ns: u64) -> Vec<usize> {
        self.slices += 1;
        let earned_ns = self.share * used_ns as f64;
        let earned_per_slice_ns = earned_ns / self.slices as f64;
        let mut ended = Vec::new();
        for &Watched { site, allocs, stacks, frames } in watched {
            let Some(account) = self.accounts.get_mut(&site) else { continue };
            let new_stacks = stacks.saturating_sub(account.stacks) as f64;
            let cost = cost_ns(allocs.saturating_sub(account.allocs) as f64, frames)
                + new_stacks * (NEW_STACK_NS + NEW_FRAME_NS * frames);
            (account.latest_ns, account.allocs, account.stacks) = (cost, allocs, stacks);
            account.slices += 1;
            account.spent_ns += cost;
            account.reserved_ns =
                if account.is_known() { 0.0 } else { (account.reserved_ns - cost).max(0.0) };
            self.spent_ns += cost;
            if account.is_known() && account.spent_ns > earned_per_slice_ns * account.slices as f64 {
                ended.push(site);
            }
        }
        ended.iter().for_each(|&site| self.end(site));
        // The cost until the next slice will probably be as high as the cost since the previous slice.
        let latest_ns: f64 = self.watched_accounts().map(|(_, account)| account.latest_ns).sum();
        if self.spent_ns + latest_ns > earned_ns {
            ended.extend(self.end_expensive(latest_ns - earned_per_slice_ns / 2.0));
        }
        ended
    }

    /// Stops watching the most expensive sites, until the cost of watching has fallen by at least `least_ns`
    /// between two slices.
    fn end_expensive(&mut self, least_ns: f64) -> Vec<usize> {
        let mut order: Vec<(usize, f64)> = self
            .watched_accounts()
            .map(|(site, account)| (site, account.latest_ns))
            .filter(|(_, latest_ns)| *latest_ns > 0.0)
            .collect();
        order.sort_by(|(_, a), (_, b)| b.total_cmp(a));
        let mut ended_ns = 0.0;
        let is_ended = |(_, latest_ns): &(usize, f64)| {
            let is_ended = ended_ns < least_ns;
            ended_ns += latest_ns;
            is_ended
        };
        let ended: Vec<usize> = order.into_iter().take_while(is_ended).map(|(site, _)| site).collect();
        ended.iter().for_each(|&site| self.end(site));
        ended
    }

    fn end(&mut self, site: usize) {
        if let Some(account) = self.accounts.get_mut(&site) {
            (account.is_watched, account.reserved_ns, account.latest_ns) = (false, 0.0, 0.0);
        }
    }

    fn watched_accounts(&self) -> impl Iterator<Item = (usize, Account)> {
        self.accounts
            .iter()
            .filter(|(_, account)| account.is_watched)
            .map(|(site, account)| (*site, *account))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    /// Processor time that the target of these tests uses between two slices.
    const SLICE_NS: u64 = SECOND / 50;

    /// Simulates a recording of `slices` slices. `sites` contains, for each site, the number of allocations
    /// between two slices. Returns, for each site, the number of slices for which the site was watched, and
    /// the share of the processor time that watching all sites cost.
    fn watched_for(sites: &[u64], frames: f64, slices: u64, share: f64) -> (Vec<u64>, f64) {
        let mut budget = Budget::new(share);
        let mut watched_slices = vec![0; sites.len()];
        let mut most = 0.0f64;
        for slice in 1..=slices {
            let used_ns = slice * SLICE_NS;
            for (site, &allocs) in sites.iter().enumerate() {
                budget.begin(site, allocs, used_ns);
            }
            let watched: Vec<usize> = budget.watched().collect();
            watched.iter().for_each(|&site| watched_slices[site] += 1);
            let counters: Vec<Watched> = watched
                .iter()
                .map(|&site| Watched { site, allocs: watched_slices[site] * sites[site], stacks: 1, frames })
                .collect();
            budget.charge(&counters, used_ns);
            let cost: f64 = watched_slices
                .iter()
                .zip(sites)
                .map(|(n, allocs)| cost_ns((n * allocs) as f64, frames))
                .sum();
            most = most.max((cost - share * used_ns as f64) / used_ns as f64);
        }
        (watched_slices, share + most)
    }

    #[test]
    fn a_cold_site_is_watched_to_the_end() {
        let (watched, share) = watched_for(&[10], 30.0, 1000, 0.02);
        assert!(watched[0] > 990 && share <= 0.0201, "{watched:?}, {share}");
    }

    #[test]
    fn a_hot_site_is_watched_until_it_is_known_and_costs_no_more_than_the_budget() {
        let (watched, share) = watched_for(&[5000], 24.0, 5000, 0.02);
        assert!((4..8).contains(&watched[0]), "{watched:?}");
        assert!(share <= 0.021, "{share}");
    }

    #[test]
    fn a_very_hot_site_is_known_after_one_slice() {
        let (watched, share) = watched_for(&[60_000], 24.0, 5000, 0.02);
        assert!((1..3).contains(&watched[0]), "{watched:?}");
        assert!(share <= 0.021, "{share}");
    }

    #[test]
    fn a_site_with_deeper_stacks_than_expected_is_watched_again_until_it_is_known() {
        let (watched, share) = watched_for(&[5000], 120.0, 5000, 0.02);
        assert!((4..8).contains(&watched[0]), "{watched:?}");
        assert!(share <= 0.021, "{share}");
    }

    #[test]
    fn many_hot_sites_together_cost_no_more_than_the_budget() {
        let (watched, share) = watched_for(&[2000; 50], 24.0, 5000, 0.02);
        assert!(watched.iter().all(|&slices| (10..20).contains(&slices)), "{watched:?}");
        assert!(share <= 0.021, "{share}");
    }

    #[test]
    fn a_cold_site_stays_watched_beside_a_hot_one() {
        let (watched, _) = watched_for(&[20_000, 5], 24.0, 5000, 0.02);
        assert!(watched[1] > 4000, "{watched:?}");
    }

    #[test]
    fn a_site_with_a_new_stack_for_each_allocation_is_ended_by_the_cost_of_its_stacks() {
        let mut budget = Budget::new(0.02);
        let (mut slices, mut allocs) = (0, 0);
        for slice in 1..=500 {
            let used_ns = slice * SLICE_NS;
            budget.begin(7, 100, used_ns);
            let mut watched = Vec::new();
            if budget.watched().next().is_some() {
                (slices, allocs) = (slices + 1, allocs + 100);
                watched.push(Watched { site: 7, allocs, stacks: allocs, frames: 80.0 });
            }
            budget.charge(&watched, used_ns);
        }
        // In this test, 100 new stacks cost 3 ms, and the budget grows by 0.4 ms in each slice.
        assert!((2..40).contains(&slices), "{slices}");
    }

    #[test]
    fn without_a_budget_nothing_is_watched() {
        assert_eq!(watched_for(&[1], 10.0, 5000, 0.0).0, [0]);
    }
}
