//! Leaks as a person counts them: a watched caller and its stacks are one.

use crate::analysis::{Analysis, JudgedSite, SiteLabel};
use std::collections::HashMap;

/// A caller with its stacks, or a site by itself.
pub(super) struct Group<'a> {
    /// The caller.
    pub site: &'a JudgedSite,
    /// The member with the highest rate: its verdict stands for the group.
    pub lead: &'a JudgedSite,
    /// Of all members.
    pub rate_bytes_per_s: f64,
    /// Of all members.
    pub leak_bytes: f64,
    /// Of the caller and every stack of it, listed or not.
    pub live_count: Option<u64>,
    /// The curve of all together.
    pub curve: Vec<f64>,
    /// Who leaks how much of it, by falling share; empty if there are no stacks.
    pub shares: Vec<Share<'a>>,
}

/// A stack's part in a leak.
pub(super) struct Share<'a> {
    /// The stack; `None` for what the caller leaked before it was watched.
    pub site: Option<&'a JudgedSite>,
    /// Its share of the leaked bytes, 0 to 1.
    pub of_leaked: f64,
}

/// The listed leaks as groups, by falling rate.
pub(super) fn groups<'a>(
    analysis: &'a Analysis,
    listed: impl Iterator<Item = &'a JudgedSite>,
) -> Vec<Group<'a>> {
    let by_label: HashMap<&SiteLabel, &JudgedSite> =
        analysis.sites.iter().map(|site| (&site.label, site)).collect();
    let mut stacks_of: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
    for site in &analysis.sites {
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
        Some(group_of(by_label.get(root)?, members, stacks))
    };
    let mut groups: Vec<Group<'_>> = order.into_iter().filter_map(group).collect();
    groups.sort_by(|a, b| b.rate_bytes_per_s.total_cmp(&a.rate_bytes_per_s));
    groups
}

fn group_of<'a>(site: &'a JudgedSite, members: &[&'a JudgedSite], stacks: &[&'a JudgedSite]) -> Group<'a> {
    let leak_bytes: f64 = members.iter().map(|member| member.judgement.leak_bytes as f64).sum();
    let count = |site: &JudgedSite| site.totals.live_count;
    let stack_counts = stacks.iter().filter_map(|stack| count(stack)).fold(0, u64::saturating_add);
    let together = site.with_stacks.as_ref().map(|family| family.curve.clone());
    Group {
        site,
        lead: members[0],
        rate_bytes_per_s: members.iter().map(|member| member.judgement.rate_bytes_per_s).sum(),
        leak_bytes,
        live_count: count(site).map(|own| own.saturating_add(stack_counts)),
        curve: together.unwrap_or_else(|| site.curve.clone()),
        shares: if stacks.is_empty() { Vec::new() } else { shares_of(site, members, stacks, leak_bytes) },
    }
}

fn shares_of<'a>(
    site: &'a JudgedSite,
    members: &[&'a JudgedSite],
    stacks: &[&'a JudgedSite],
    leak_bytes: f64,
) -> Vec<Share<'a>> {
    let is_caller = |member: &JudgedSite| member.label == site.label;
    let mut shares: Vec<Share<'_>> = if site.judged_with_stacks {
        // No stack leaks enough alone: each has the share by which it grew.
        let grown: Vec<(&JudgedSite, f64)> =
            stacks.iter().map(|&stack| (stack, growth(stack))).filter(|(_, grown)| *grown > 0.0).collect();
        let all: f64 = grown.iter().map(|(_, grown)| grown).sum();
        grown.into_iter().map(|(stack, grown)| Share { site: Some(stack), of_leaked: grown / all }).collect()
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

fn growth(site: &JudgedSite) -> f64 {
    site.curve.last().copied().unwrap_or(0.0) - site.curve.first().copied().unwrap_or(0.0)
}
