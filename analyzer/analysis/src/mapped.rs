//! Mapped memory: computes the resident share of each site that maps memory, and the anonymous memory that no
//! recorded call mapped.
//!
//! A mapping is a range of address space, and takes memory only if its pages are resident or swapped out. For
//! example, a garbage collector reserves much more address space than the memory that it uses. So growth of
//! address space is no leak if resident memory does not grow as well.

use crate::replay::Merged;
use crate::replay::memory::{MemoryEnds, SiteBytes};
use crate::site::{Domain, GivenBack, JudgedSite, Kind, SiteLabel};
use edleak_format::{SiteId, Trace};
use edleak_model::classify::{Judgement, Verdict};
use edleak_model::growth_kind::{ProcessGrowth, UnseenBytes};
use edleak_text::units;
use std::collections::HashMap;

/// A site leaks only address space and no memory if its resident memory grew by less than this share of its
/// leaked address space.
const LEAST_RESIDENT_SHARE: f64 = 0.01;
/// A site that maps memory is not a leak if its resident memory grew by fewer bytes than this (one page).
const LEAST_RESIDENT_BYTES: f64 = 4096.0;
/// edleak computes which share of a site's memory is resident only if at least this share of the site's
/// address space was mapped before the last reading of /proc. A reading of /proc does not show whether
/// address space that the program mapped after this reading is resident.
const LEAST_SEEN_SHARE: f64 = 0.5;
/// Anonymous memory that no recorded call mapped is in the report only if it has at least this number of
/// bytes. Every program has some anonymous memory that no recorded call mapped, for example stacks and tables
/// of the C library.
const NOTICEABLE_BYTES: u64 = 4 << 20;
/// If anonymous memory that no recorded call mapped grows by at least this number of bytes per second, the
/// report mentions its growth.
const NOTICEABLE_RATE: f64 = 1024.0;

/// The totals of mapped memory.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Mapped {
    /// Number of sites that map memory. Sites of allocators do not count.
    pub sites: u64,
    /// Bytes of address space that all sites hold in mappings at the end. Mappings of allocators do not
    /// count.
    pub live_bytes: u64,
    /// Number of mappings that all sites hold at the end. Mappings of allocators do not count.
    pub live_count: u64,
    /// Resident and swapped bytes in the mappings of all sites that have a reading of /proc. edleak computes
    /// this number from the resident share that each site had at the last reading of /proc. `None`: the sites
    /// with a reading hold less than half of `live_bytes`, for example in a short recording.
    pub resident_bytes: Option<u64>,
    /// Address space that allocators mapped for themselves.
    pub allocator_bytes: u64,
    /// Number of calls that map or unmap memory and that the recorder lost. If this number is not 0, all
    /// totals of mapped memory are lower bounds.
    pub lost_events: u64,
    /// Pages that the program gave back with madvise, in the mappings of all sites that map memory.
    pub given_back: GivenBack,
    /// Number of calls of madvise that the recorder lost. If the recorder lost calls of madvise, `given_back`
    /// is a lower bound.
    pub lost_give_backs: u64,
    /// Anonymous memory that no recorded call mapped; `None` if it is less than 4 MiB.
    pub unseen: Option<Unseen>,
}

/// Anonymous memory that no recorded call mapped.
#[derive(Clone, PartialEq, Debug)]
pub struct Unseen {
    /// Resident and swapped bytes at the end. If the process ran before its recording began, this field has
    /// only the bytes that were added during the recording.
    pub bytes: u64,
    /// Growth of the memory that no recorded call mapped, in bytes per second over the record.
    pub rate_bytes_per_s: f64,
    /// The parts of the unseen memory that the program named (`[anon:NAME]`), each with its name and its
    /// bytes; the largest part comes first.
    pub names: Vec<(String, u64)>,
}

impl Unseen {
    /// The sentence in the report about anonymous memory that no recorded call mapped.
    pub fn sentence(&self) -> String {
        let mut text = format!(
            "{} of anonymous memory was mapped by no call that edleak saw",
            units::bytes(self.bytes as f64)
        );
        if self.rate_bytes_per_s >= NOTICEABLE_RATE {
            text += &format!("; growing {}", units::rate(self.rate_bytes_per_s));
        }
        let names: Vec<String> = self
            .names
            .iter()
            .take(3)
            .map(|(name, bytes)| format!("{} in [anon:{name}]", units::bytes(*bytes as f64)))
            .collect();
        if !names.is_empty() {
            text += &format!(" ({})", names.join(", "));
        }
        text
    }
}

/// Sets the resident bytes of each site that maps memory. The function also changes the verdict on a site
/// that maps memory from leak to no leak in two cases: its growth is not resident, or the site is an
/// allocator whose allocations are counted.
pub(crate) fn judge_by_resident_memory(
    sites: &mut [JudgedSite],
    ends: &MemoryEnds,
    merged: &Merged,
    trace: &Trace,
) {
    let is_uncounted = |site: &JudgedSite| {
        let module = site.stack.first().and_then(|address| address.module_id);
        trace.allocators().iter().any(|allocator| Some(allocator.module) == module)
    };
    let mut readings: HashMap<SiteLabel, [SiteBytes; 2]> = HashMap::new();
    for (id, [from, to]) in &ends.sites {
        let root = SiteLabel::Number(u64::from(merged.root(SiteId(*id)).0));
        let sum = readings.entry(root).or_default();
        *sum = [sum[0].plus(*from), sum[1].plus(*to)];
    }
    for site in sites.iter_mut().filter(|site| site.domain() == Domain::Mapping) {
        let class = site.judgement.class;
        if site.kind == Kind::Allocator && !is_uncounted(site) {
            let why = "an allocator maps it for itself; the sites that ask it for memory are counted";
            site.judgement = Judgement::without_memory(class, why.into());
        }
        let Some(&[from, to]) = readings.get(&site.label) else { continue };
        // The last reading of /proc is older than the last slice. So the function computes the resident share
        // of the site from this reading of /proc, and multiplies the share by the live bytes at the last
        // slice.
        let live = site.totals.live_bytes as f64;
        site.resident_bytes = share_of(SiteBytes::default(), to, live).map(|share| (share * live) as u64);
        if let Some(share) = share_of(from, to, site.judgement.leak_bytes as f64) {
            limit_leak(site, share);
        }
    }
}

/// Corrects the verdicts of `--per-mark` on sites that map memory. If a site is a leak or undecided, but its
/// growth is not resident, the verdict becomes no leak. The collector does not read /proc at each mark, so
/// the function cannot see how much resident memory the iterations added. So the function assumes the worst
/// case: all resident memory of the site belongs to the leak.
pub(crate) fn judge_iterations_by_resident_memory(sites: &mut [JudgedSite]) {
    for site in sites.iter_mut().filter(|site| site.domain() == Domain::Mapping && site.per_mark.is_some()) {
        let Some(resident) = site.resident_bytes else { continue };
        if site.judgement.verdict == Verdict::Undecided {
            acquit_undecided(site, resident);
        } else {
            let share = greatest_share(resident, site.judgement.leak_bytes);
            limit_leak(site, share);
        }
    }
}

/// For each site that maps memory, sets the number of pages that the program gave back with madvise.
pub(crate) fn read_given_back(sites: &mut [JudgedSite], trace: &Trace, merged: &Merged) {
    let mut by_site: HashMap<SiteLabel, GivenBack> = HashMap::new();
    for given in trace.given_back() {
        if let Some(id) = given.site {
            let root = SiteLabel::Number(u64::from(merged.root(id).0));
            by_site.entry(root).or_default().add(GivenBack { calls: given.calls, bytes: given.bytes });
        }
    }
    for site in sites.iter_mut().filter(|site| site.domain() == Domain::Mapping) {
        site.given_back = by_site.get(&site.label).copied();
    }
}

/// Adds the pages that a site gave back with madvise to the reasons for its verdict. Pages that were given
/// back change no verdict, because the program may have used them again; the readings of /proc show which
/// pages are resident.
///
/// If `is_least` is true, the recorder lost calls of madvise, and the numbers of pages and calls are lower
/// bounds.
pub(crate) fn tell_given_back(sites: &mut [JudgedSite], is_least: bool) {
    let least = if is_least { "at least " } else { "" };
    for site in sites {
        let Some(given) = site.given_back else { continue };
        let text = format!("{least}{given}");
        if !site.judgement.why.contains(&text) {
            site.judgement.why.push(text);
        }
    }
}

/// The greatest resident share that a leak of `leak_bytes` bytes can have if its whole site has `resident`
/// resident bytes.
fn greatest_share(resident: u64, leak_bytes: u64) -> f64 {
    (resident as f64 / leak_bytes.max(1) as f64).min(1.0)
}

/// Changes an undecided site to no leak if the site has too little resident memory for a leak, because then
/// the iterations left only address space behind.
fn acquit_undecided(site: &mut JudgedSite, resident: u64) {
    let left = site.per_mark.as_ref().map_or(0, |per_mark| per_mark.iterations.left_bytes) as f64;
    if (resident as f64) < least_grown(left) {
        let (left, held) = (units::bytes(left), units::bytes(resident as f64));
        let why = format!("{left} more of address space, and {held} of the site are resident");
        site.judgement = Judgement::without_memory(site.judgement.class, why);
    }
}

/// The least number of resident bytes with which a leak of `leaked` bytes of address space counts as a leak
/// of memory.
fn least_grown(leaked: f64) -> f64 {
    (LEAST_RESIDENT_SHARE * leaked).max(LEAST_RESIDENT_BYTES)
}

/// Changes a leak of address space to no leak if too little of the leaked address space is resident. `share`
/// is the resident share of the leaked address space, 0 to 1.
fn limit_leak(site: &mut JudgedSite, share: f64) {
    if !site.is_leak() {
        return;
    }
    let leaked = site.judgement.leak_bytes as f64;
    let grown = share * leaked;
    if grown < least_grown(leaked) {
        let (leaked, grown) = (units::bytes(leaked), units::bytes(grown));
        let why = format!("{leaked} more of address space, of which {grown} are resident");
        site.judgement = Judgement::without_memory(site.judgement.class, why);
    } else if share < 0.5 {
        site.judgement.why.push(format!("about {} of it are resident", units::bytes(grown)));
    }
}

/// The resident share of the address space that a site added between two readings of /proc. `bytes` is the
/// address space to which the share will be applied, such as the leaked bytes of the site. `None`: the site
/// added less than half of `bytes` between the two readings, too little for an estimate.
fn share_of(from: SiteBytes, to: SiteBytes, bytes: f64) -> Option<f64> {
    let mapped = to.mapped.checked_sub(from.mapped).filter(|mapped| *mapped > 0)?;
    if (mapped as f64) < LEAST_SEEN_SHARE * bytes {
        return None;
    }
    Some((to.held.saturating_sub(from.held) as f64 / mapped as f64).min(1.0))
}

/// Number of calls of madvise that the recorder lost.
pub(crate) fn lost_give_backs(trace: &Trace) -> u64 {
    trace.given_back().iter().find(|given| given.site.is_none()).map_or(0, |given| given.calls)
}

/// The totals of mapped memory; `None`: the trace does not record mapped memory.
pub(crate) fn of_trace(
    trace: &Trace,
    sites: &[JudgedSite],
    ends: &MemoryEnds,
    growth: &ProcessGrowth,
    record_s: f64,
) -> Option<Mapped> {
    let lost_events = trace.mappings()?.lost_events;
    let lost_give_backs = lost_give_backs(trace);
    let mut mapped = Mapped { lost_events, lost_give_backs, ..Mapped::default() };
    let (mut read_bytes, mut resident_bytes) = (0u64, 0u64);
    for site in sites.iter().filter(|site| site.domain() == Domain::Mapping) {
        if site.kind == Kind::Allocator {
            mapped.allocator_bytes = mapped.allocator_bytes.saturating_add(site.totals.live_bytes);
            continue;
        }
        mapped.sites += 1;
        mapped.live_bytes = mapped.live_bytes.saturating_add(site.totals.live_bytes);
        mapped.live_count = mapped.live_count.saturating_add(site.totals.live_count.unwrap_or(0));
        if let Some(resident) = site.resident_bytes {
            read_bytes = read_bytes.saturating_add(site.totals.live_bytes);
            resident_bytes = resident_bytes.saturating_add(resident);
        }
        mapped.given_back.add(site.given_back.unwrap_or_default());
    }
    mapped.resident_bytes = (read_bytes >= mapped.live_bytes / 2).then_some(resident_bytes);
    // If the process ran before the recording, edleak does not know which memory it mapped before. So for
    // such a process, the report gives only the growth of unseen memory, and not its size.
    let ran_before = trace.attached().is_some();
    let bytes = |unseen: &UnseenBytes| if ran_before { unseen.grown_bytes } else { unseen.bytes };
    mapped.unseen = growth.unseen.filter(|unseen| bytes(unseen) >= NOTICEABLE_BYTES).map(|unseen| {
        let mut names: Vec<_> = ends.unseen.iter().filter(|(name, _)| !name.is_empty()).cloned().collect();
        names.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        names.retain(|(_, bytes)| *bytes > 0);
        // The growth is the median size in the last eighth of the record minus the median size in the second
        // eighth. From the middle of the second eighth to the middle of the last eighth, the time is 0.75 of
        // the record.
        let rate_bytes_per_s = unseen.grown_bytes as f64 / (0.75 * record_s).max(1e-9);
        Unseen { bytes: bytes(&unseen), rate_bytes_per_s, names }
    });
    Some(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_is_that_of_the_added_address_space() {
        let bytes = |mapped, held| SiteBytes { mapped, held };
        assert_eq!(share_of(bytes(1000, 1000), bytes(3000, 2000), 2000.0), Some(0.5));
        assert_eq!(share_of(bytes(0, 0), bytes(4000, 9000), 4000.0), Some(1.0));
        assert_eq!(share_of(bytes(4000, 0), bytes(4000, 9000), 4000.0), None);
        assert_eq!(share_of(bytes(4000, 50), bytes(5000, 0), 1000.0), Some(0.0));
    }

    // A site reserves 100 GiB of address space that it never uses, and leaks 900 MiB that are resident. So
    // only 0.9 % of the site's address space is leaked memory.
    #[test]
    fn reserved_address_space_does_not_excuse_a_leak_at_a_mark() {
        let leaked = 900 << 20;
        assert!(greatest_share(leaked, leaked) > LEAST_RESIDENT_SHARE);
        assert!(greatest_share(4096, leaked) < LEAST_RESIDENT_SHARE);
    }

    #[test]
    fn readings_before_most_of_the_memory_was_mapped_say_nothing() {
        let (none, early) = (SiteBytes::default(), SiteBytes { mapped: 4000, held: 0 });
        assert_eq!(share_of(none, early, 16_000.0), None);
        assert_eq!(share_of(none, none, 0.0), None);
        assert_eq!(share_of(none, early, 8000.0), Some(0.0));
    }

    #[test]
    fn unseen_memory_is_told_with_its_growth_and_its_names() {
        let unseen = Unseen {
            bytes: 312 << 20,
            rate_bytes_per_s: 1.2 * 1048576.0,
            names: vec![("jit code".into(), 300 << 20)],
        };
        assert_eq!(
            unseen.sentence(),
            "312 MiB of anonymous memory was mapped by no call that edleak saw; growing 1.2 MiB/s (300 MiB \
             in [anon:jit code])"
        );
        let calm = Unseen { rate_bytes_per_s: 10.0, names: Vec::new(), ..unseen };
        assert_eq!(calm.sentence(), "312 MiB of anonymous memory was mapped by no call that edleak saw");
    }
}
