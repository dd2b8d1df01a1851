//! Computes the totals of the program's own pools, from the objects that these pools hand out.
//!
//! A pool takes its memory from malloc or maps memory. So the memory of a pool is already counted at a site
//! of the heap or of mapped memory, and no total of all memory adds the bytes of pool objects again.

use crate::site::{Domain, JudgedSite};
use edleak_format::Trace;
use edleak_model::classify::Judgement;
use edleak_model::growth_class::Class;
use edleak_text::units::plural;
use std::collections::BTreeMap;

/// A pool leak stays a leak only if it has more than this number of objects for each lost event. If the
/// recorder lost the event with which a pool took an object back, this object still counts as live, and looks
/// like a leaked object.
const OBJECTS_PER_LOST_EVENT: u64 = 2;

/// The totals of the program's own pools.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pools {
    /// Number of sites that take objects from pools.
    pub sites: u64,
    /// Bytes of live objects at the end.
    pub live_bytes: u64,
    /// Number of live objects at the end.
    pub live_count: u64,
    /// Number of pools that held objects at the end.
    pub pools: u64,
    /// Number of events about a single pool object that the recorder lost. If this number is not 0, all
    /// figures of pools are inexact.
    pub lost_events: u64,
    /// Number of events about a whole pool, such as its reset, that the recorder lost.
    pub lost_resets: u64,
    /// Number of objects that a pool took back although it had not handed them out.
    pub unknown_frees: u64,
    /// The pools, grouped by their name; the group with the most live bytes comes first. Pools without a name
    /// have an empty name.
    pub names: Vec<NamedPools>,
}

/// All pools of one name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NamedPools {
    /// The name.
    pub name: String,
    /// Bytes of live objects at the end.
    pub live_bytes: u64,
    /// Number of live objects at the end.
    pub live_count: u64,
}

/// Makes a leak of pool objects undecided if events that the recorder lost may explain its growth.
pub(crate) fn withdraw_unsure_leaks(sites: &mut [JudgedSite], trace: &Trace, record_s: f64) {
    let Some(totals) = trace.pool_totals().filter(|totals| totals.lost_events + totals.lost_resets > 0)
    else {
        return;
    };
    for site in sites.iter_mut().filter(|site| site.domain() == Domain::Pool && site.is_leak()) {
        let count = site.judgement.leak_count.unwrap_or(0);
        if let Some(reason) = reason_to_withdraw(count, totals.lost_events, totals.lost_resets) {
            let mut why = std::mem::take(&mut site.judgement.why);
            why.push(reason);
            site.judgement = Judgement::undecided(Class::Log, record_s, why);
        }
    }
}

/// If lost events may explain a leak of `count` objects, returns the reason; `None`: they do not
/// explain it.
fn reason_to_withdraw(count: u64, lost_events: u64, lost_resets: u64) -> Option<String> {
    if lost_resets > 0 {
        return Some(format!(
            "{} lost, so the pool may hold less",
            plural(lost_resets, "reset was", "resets were")
        ));
    }
    (count <= lost_events.saturating_mul(OBJECTS_PER_LOST_EVENT)).then(|| {
        format!("{} lost, which may explain the growth", plural(lost_events, "event was", "events were"))
    })
}

/// The totals of the program's own pools; `None`: the trace does not record pools, or the program reported no
/// pool.
pub(crate) fn of_trace(trace: &Trace, sites: &[JudgedSite]) -> Option<Pools> {
    let totals = trace.pool_totals()?;
    let mut pools = Pools {
        pools: totals.pools,
        lost_events: totals.lost_events,
        lost_resets: totals.lost_resets,
        unknown_frees: totals.unknown_frees,
        ..Pools::default()
    };
    let mut names: BTreeMap<&str, NamedPools> = BTreeMap::new();
    for site in sites.iter().filter(|site| site.domain() == Domain::Pool) {
        let (bytes, count) = (site.totals.live_bytes, site.totals.live_count.unwrap_or(0));
        pools.sites += 1;
        pools.live_bytes = pools.live_bytes.saturating_add(bytes);
        pools.live_count = pools.live_count.saturating_add(count);
        let named = names.entry(site.pool.as_deref().unwrap_or_default()).or_default();
        named.live_bytes = named.live_bytes.saturating_add(bytes);
        named.live_count = named.live_count.saturating_add(count);
    }
    let named = names.into_iter().map(|(name, of)| NamedPools { name: name.to_owned(), ..of });
    pools.names = named.collect();
    pools.names.sort_by(|a, b| b.live_bytes.cmp(&a.live_bytes).then_with(|| a.name.cmp(&b.name)));
    let is_seen = pools.sites > 0 || pools.lost_events > 0 || pools.unknown_frees > 0;
    is_seen.then_some(pools)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_lost_events_leave_a_large_leak_and_a_lost_reset_leaves_none() {
        assert_eq!(reason_to_withdraw(1000, 400, 0), None);
        assert!(reason_to_withdraw(1000, 500, 0).is_some_and(|why| why.contains("500 events were lost")));
        assert!(reason_to_withdraw(1 << 40, 0, 1).is_some_and(|why| why.contains("1 reset was lost")));
    }
}
