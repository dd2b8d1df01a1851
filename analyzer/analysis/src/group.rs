//! Groups leaks as a person counts them: a watched caller and its stacks are one leak.

use crate::site::{JudgedSite, SiteLabel, parts_of};
use edleak_model::classify::Verdict;
use edleak_model::levels::Levels;
use std::collections::HashMap;

/// Least share of a leak that gets its own line.
const LEAST_SHARE: f64 = 0.005;

/// A caller with its stacks, or a single site.
#[derive(Debug)]
pub struct Group<'a> {
    /// The caller.
    pub site: &'a JudgedSite,
    /// The member with the highest rate; its verdict is the verdict of the group.
    pub lead: &'a JudgedSite,
    /// The rate of all members together.
    pub rate_bytes_per_s: f64,
    /// Seconds from the start of the record to the beginning of the leak.
    pub began_s: f64,
    /// The leaked bytes of all members together.
    pub leak_bytes: f64,
    /// Live allocations of the caller and all its stacks, listed or not, at the last judged slice.
    pub live_count: Option<u64>,
    /// Whether less than half of the leaked bytes was still live when the recording ended.
    pub is_freed_at_end: bool,
    /// Live bytes of all members together, over the record.
    pub levels: &'a Levels,
    /// The share of each stack, by falling share; empty if there are no stacks.
    pub shares: Vec<Share<'a>>,
}

/// The share of one stack in a leak.
#[derive(Debug)]
pub struct Share<'a> {
    /// The stack; `None` stands for the bytes that the caller leaked while it was not watched.
    pub site: Option<&'a JudgedSite>,
    /// The stack's share of the leaked bytes, 0 to 1.
    pub of_leaked: f64,
}

/// The listed leaks as groups, by falling rate.
pub(crate) fn groups<'a>(
    sites: &'a [JudgedSite],
    listed: impl Iterator<Item = &'a JudgedSite>,
) -> Vec<Group<'a>> {
    let by_label: HashMap<&SiteLabel, &JudgedSite> = sites.iter().map(|site| (&site.label, site)).collect();
    let mut stacks_of: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
    for site in sites {
        if let Some(parent) = &site.parent {
            stacks_of.entry(parent).or_default().push(site);
        }
    }
    // Listed sites come by falling rate, so the first member of a group is its lead.
    let mut order: Vec<&SiteLabel> = Vec::new();
    let mut members: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
    for site in listed {
        let root = site.parent.as_ref().filter(|parent| by_label.contains_key(parent)).unwrap_or(&site.label);
        members
            .entry(root)
            .or_insert_with(|| {
                order.push(root);
                Vec::new()
            })
            .push(site);
    }
    let group = |root: &SiteLabel| {
        let members = members.get(root)?;
        let stacks = stacks_of.get(root).map_or(&[][..], Vec::as_slice);
        Some(group_of(sites, by_label.get(root)?, members, stacks))
    };
    let mut groups: Vec<Group<'_>> = order.into_iter().filter_map(group).collect();
    groups.sort_by(|a, b| b.rate_bytes_per_s.total_cmp(&a.rate_bytes_per_s));
    groups
}

fn group_of<'a>(
    sites: &'a [JudgedSite],
    site: &'a JudgedSite,
    members: &[&'a JudgedSite],
    stacks: &[&'a JudgedSite],
) -> Group<'a> {
    let own_bytes: f64 = members.iter().map(|member| member.judgement.leak_bytes as f64).sum();
    let own_rate: f64 = members.iter().map(|member| member.judgement.rate_bytes_per_s).sum();
    // The sum over caller and stacks also holds the bytes that leaked before the stacks were watched.
    let together = site.with_stacks.as_deref();
    let (leak_bytes, rate_bytes_per_s, began_s) = match together.map(|family| &family.judgement) {
        Some(judgement) if judgement.verdict == Verdict::Leak => {
            (judgement.leak_bytes as f64, judgement.rate_bytes_per_s, judgement.began_s)
        }
        _ => {
            let began = members.iter().map(|member| member.judgement.began_s);
            (own_bytes, own_rate, began.fold(f64::INFINITY, f64::min))
        }
    };
    let family = || std::iter::once(site).chain(stacks.iter().copied());
    let live_count = family().filter_map(|site| site.judged_count).reduce(u64::saturating_add);
    let levels = together.map_or(&site.levels, |family| &family.levels);
    let judged_bytes = levels.last();
    let final_bytes: f64 = family().map(|site| site.totals.live_bytes as f64).sum();
    Group {
        site,
        lead: members[0],
        rate_bytes_per_s,
        began_s,
        leak_bytes,
        live_count,
        is_freed_at_end: final_bytes < leak_bytes.min(judged_bytes) / 2.0,
        levels,
        shares: if stacks.is_empty() { Vec::new() } else { shares_of(sites, site, members, own_bytes) },
    }
}

fn shares_of<'a>(
    sites: &'a [JudgedSite],
    site: &'a JudgedSite,
    members: &[&'a JudgedSite],
    leak_bytes: f64,
) -> Vec<Share<'a>> {
    let is_caller = |member: &JudgedSite| member.label == site.label;
    let mut shares: Vec<Share<'_>> = if site.judged_with_stacks {
        let share =
            |part: &'a JudgedSite| Share { site: Some(part), of_leaked: part.leak_share.unwrap_or(0.0) };
        let mut shares: Vec<Share<'_>> = parts_of(sites, site).into_iter().map(share).collect();
        // The bytes that the caller leaked while it was not watched.
        let rest = 1.0 - shares.iter().map(|share| share.of_leaked).sum::<f64>();
        if rest > LEAST_SHARE {
            shares.push(Share { site: None, of_leaked: rest });
        }
        shares
    } else {
        let of = |bytes: u64| if leak_bytes > 0.0 { bytes as f64 / leak_bytes } else { 0.0 };
        let share = |&member: &&'a JudgedSite| Share {
            site: (!is_caller(member)).then_some(member),
            of_leaked: of(member.judgement.leak_bytes),
        };
        members.iter().map(share).collect()
    };
    shares.sort_by(|a, b| b.of_leaked.total_cmp(&a.of_leaked));
    shares
}
