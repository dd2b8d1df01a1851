//! A group is one place in the code that leaks: a caller, a watched caller with its stacks, or some of the
//! stacks of a caller. If a group has only some of the stacks, all its stacks have one frame that no other
//! stack of the caller has.

use crate::frame::{SiteFrame, frames};
use crate::parting::{Branch, branches};
use crate::site::{JudgedSite, SiteLabel, parts_of};
use edleak_model::classify::Verdict;
use edleak_model::levels::Levels;
use std::collections::{HashMap, HashSet};

/// If the share of a stack in a leak is smaller than this, the report shows no separate line for the stack.
const LEAST_SHARE: f64 = 0.005;

/// A caller with all or some of its stacks, or a single site.
#[derive(Clone, Debug)]
pub struct Group<'a> {
    /// The caller that leaks. If the input does not contain the caller, the field `site` is the stack that
    /// leaks.
    pub site: &'a JudgedSite,
    /// The member of the group with the highest rate; the verdict on this member is the verdict on the group.
    pub lead: &'a JudgedSite,
    /// The sites of the group that the report lists, sorted by leak rate; the highest rate comes first.
    pub(crate) members: Vec<&'a JudgedSite>,
    /// The index of the frame that causes the leak, counted from the allocating frame. Index 0 is the caller
    /// itself. If the index is greater, the caller only allocates for other functions, and the index points
    /// to the innermost frame at which the leaking stacks differ from the caller's other stacks.
    pub depth: usize,
    /// The leak rate of all members of the group together, in bytes per second.
    pub rate_bytes_per_s: f64,
    /// Seconds from the start of the record to the beginning of the leak.
    pub(crate) began_s: f64,
    /// The number of bytes that all members of the group together leaked.
    pub leak_bytes: f64,
    /// Number of leaked allocations; `None`: the number of allocations did not grow because the same
    /// allocations got larger, or only the bytes are known.
    pub leak_count: Option<u64>,
    /// Whether the program freed more than half of the leaked bytes before the recording ended.
    pub(crate) is_freed_at_end: bool,
    /// The sum of the live bytes of all members of the group, as a curve over the time of the record.
    pub(crate) levels: LevelSum<'a>,
    /// The share of each stack in the leak. The greatest share comes first; the list is empty if the caller
    /// was not watched.
    pub shares: Vec<Share<'a>>,
}

/// The share of one stack in a leak.
#[derive(Clone, Copy, Debug)]
pub struct Share<'a> {
    /// The stack; `None`: this entry stands for the bytes that the caller leaked while it was not watched.
    pub site: Option<&'a JudgedSite>,
    /// The stack's share of the leaked bytes, 0 to 1.
    pub of_leaked: f64,
}

/// The sum of the live bytes of several sites, as a curve over the time of the record. Each site is stored
/// with a factor; the live bytes of the site are multiplied by this factor before they are added to the sum.
#[derive(Clone, Default, Debug)]
pub struct LevelSum<'a>(Vec<(&'a Levels, f64)>);

impl<'a> LevelSum<'a> {
    /// Adds up several sums of live bytes.
    pub(crate) fn of<'b>(sums: impl Iterator<Item = &'b LevelSum<'a>>) -> Self
    where
        'a: 'b,
    {
        Self(sums.flat_map(|sum| sum.0.iter().copied()).collect())
    }

    fn of_share(&self, share: f64) -> Self {
        Self(self.0.iter().map(|&(levels, own)| (levels, own * share)).collect())
    }

    /// Live bytes at the beginning of the record.
    pub fn first(&self) -> f64 {
        self.0.iter().map(|(levels, share)| levels.first() * share).sum()
    }

    /// Live bytes at the end of the judged part of the record.
    pub fn last(&self) -> f64 {
        self.0.iter().map(|(levels, share)| levels.last() * share).sum()
    }

    /// The greatest number of live bytes that all sites of the sum hold together.
    pub fn highest(&self) -> f64 {
        const COLUMNS: usize = 64;
        match self.0.as_slice() {
            [(levels, share)] => levels.highest() * share,
            _ => self.at(COLUMNS).into_iter().fold(0.0, f64::max),
        }
    }

    /// Live bytes at `columns` equally spaced instants of the record.
    pub fn at(&self, columns: usize) -> Vec<f64> {
        let mut sum = Vec::new();
        for (levels, share) in &self.0 {
            let levels = levels.at(columns);
            sum.resize(sum.len().max(levels.len()), 0.0);
            sum.iter_mut().zip(levels).for_each(|(sum, level)| *sum += level * share);
        }
        sum
    }
}

impl<'a> Group<'a> {
    /// The frame that the user should look at first.
    pub fn headline(&self) -> Option<SiteFrame<'a>> {
        let from_part = || {
            let stack = &self.shares.iter().find_map(|share| share.site)?.stack;
            let outer = || frames(stack.get(self.depth..).unwrap_or_default());
            outer().find(|frame| !frame.is_runtime()).or_else(|| outer().next())
        };
        match self.depth {
            0 => self.site.headline(),
            _ => from_part().or_else(|| self.site.headline()),
        }
    }

    /// The name of the group, as a report prints it.
    pub fn name(&self) -> String {
        match self.depth {
            0 => self.site.name(),
            _ => self.headline().map_or_else(|| self.site.name(), SiteFrame::name),
        }
    }

    /// The stacks of the group, all of which leak.
    pub fn stacks(&self) -> impl Iterator<Item = &'a JudgedSite> + Clone {
        // If the input does not contain the caller of a stack, the group consists of this stack only.
        let own = self.shares.is_empty().then_some(self.site);
        let stacks = self.shares.iter().filter_map(|share| share.site).chain(own);
        stacks.filter(|site| site.stack.len() > 1)
    }
}

/// Divides the listed leaks into groups. The group with the highest rate comes first.
pub(crate) fn groups<'a>(
    sites: &'a [JudgedSite],
    listed: impl Iterator<Item = &'a JudgedSite>,
) -> Vec<Group<'a>> {
    let listed: Vec<&JudgedSite> = listed.collect();
    if listed.is_empty() {
        return Vec::new();
    }
    let roots: HashSet<&SiteLabel> =
        listed.iter().map(|site| site.parent.as_ref().unwrap_or(&site.label)).collect();
    let by_label: HashMap<&SiteLabel, &JudgedSite> =
        sites.iter().filter(|site| roots.contains(&site.label)).map(|site| (&site.label, site)).collect();
    let mut stacks_of: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
    for site in sites {
        if let Some(parent) = site.parent.as_ref().filter(|parent| roots.contains(parent)) {
            stacks_of.entry(parent).or_default().push(site);
        }
    }
    // The listed site with the highest rate comes first, so the first member of a group is its lead.
    let mut order: Vec<&JudgedSite> = Vec::new();
    let mut members: HashMap<&SiteLabel, Vec<&JudgedSite>> = HashMap::new();
    for site in listed {
        let root = site.parent.as_ref().and_then(|parent| by_label.get(parent).copied()).unwrap_or(site);
        members
            .entry(&root.label)
            .or_insert_with(|| {
                order.push(root);
                Vec::new()
            })
            .push(site);
    }
    let groups_of = |root: &'a JudgedSite| {
        let members = members.remove(&root.label).unwrap_or_default();
        let stacks = stacks_of.get(&root.label).map_or(&[][..], Vec::as_slice);
        parted(group_of(sites, root, members, stacks), stacks)
    };
    let mut groups: Vec<Group<'_>> = order.into_iter().flat_map(groups_of).collect();
    groups.sort_by(|a, b| b.rate_bytes_per_s.total_cmp(&a.rate_bytes_per_s));
    groups
}

fn group_of<'a>(
    sites: &'a [JudgedSite],
    site: &'a JudgedSite,
    members: Vec<&'a JudgedSite>,
    stacks: &[&'a JudgedSite],
) -> Group<'a> {
    let own_bytes: f64 = members.iter().map(|member| member.judgement.leak_bytes as f64).sum();
    let own_rate: f64 = members.iter().map(|member| member.judgement.rate_bytes_per_s).sum();
    let own_count = members.iter().map(|member| member.judgement.leak_count).sum();
    // The function takes the figures from the judgement on the caller together with its stacks. Only the
    // figures of caller and stacks together include the bytes that leaked before the caller was watched.
    let together = site.with_stacks.as_deref();
    let (leak_bytes, leak_count, rate_bytes_per_s, began_s) = match together.map(|family| &family.judgement) {
        Some(judgement) if judgement.verdict == Verdict::Leak => {
            (judgement.leak_bytes as f64, judgement.leak_count, judgement.rate_bytes_per_s, judgement.began_s)
        }
        _ => {
            let began = members.iter().map(|member| member.judgement.began_s);
            (own_bytes, own_count, own_rate, began.fold(f64::INFINITY, f64::min))
        }
    };
    let levels = together.map_or(&site.levels, |family| &family.levels);
    let family = std::iter::once(site).chain(stacks.iter().copied());
    let final_bytes: f64 = family.map(|site| site.totals.live_bytes as f64).sum();
    let shares = if stacks.is_empty() { Vec::new() } else { shares_of(sites, site, &members, own_bytes) };
    Group {
        site,
        lead: members.first().copied().unwrap_or(site),
        members,
        depth: 0,
        rate_bytes_per_s,
        began_s,
        leak_bytes,
        leak_count,
        is_freed_at_end: final_bytes < leak_bytes.min(levels.last()) / 2.0,
        levels: LevelSum(vec![(levels, 1.0)]),
        shares,
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

/// Splits a group into parts, one for each frame at which leaking stacks differ from the caller's other
/// stacks. The bytes that leaked before the caller was watched are divided between the parts, in proportion
/// to the share of each part in the leak.
fn parted<'a>(group: Group<'a>, stacks: &[&'a JudgedSite]) -> Vec<Group<'a>> {
    let leaking: Vec<&JudgedSite> = group.stacks().filter(|stack| is_plain_share(&group, stack)).collect();
    let is_leaking: HashSet<&SiteLabel> = group.stacks().map(|stack| &stack.label).collect();
    let healthy: Vec<&JudgedSite> =
        stacks.iter().copied().filter(|stack| !is_leaking.contains(&stack.label)).collect();
    let branches = if leaking.is_empty() { Vec::new() } else { branches(&leaking, &healthy) };
    match branches.as_slice() {
        [] | [Branch { depth: 0, .. }] => vec![group],
        _ => {
            let known: f64 = branches.iter().map(|branch| share_of(&group, branch)).sum();
            let mut parts: Vec<Group<'_>> =
                branches.iter().map(|branch| part_of(&group, branch, known)).collect();
            parts.sort_by(|a, b| b.leak_bytes.total_cmp(&a.leak_bytes));
            hand_out_members(&group, &mut parts);
            parts
        }
    }
}

/// Whether the stack clearly leaks: the stack alone is judged as a leak, or it has a large enough share of
/// the caller's leak.
fn is_plain_share(group: &Group<'_>, stack: &JudgedSite) -> bool {
    const PLAIN_SHARE: f64 = 0.02;
    stack.is_leak()
        || group.shares.iter().any(|share| {
            share.of_leaked >= PLAIN_SHARE && share.site.is_some_and(|site| site.label == stack.label)
        })
}

fn share_of(group: &Group<'_>, branch: &Branch<'_>) -> f64 {
    let is_part = |share: &&Share<'_>| {
        share.site.is_some_and(|site| branch.stacks.iter().any(|stack| stack.label == site.label))
    };
    group.shares.iter().filter(is_part).map(|share| share.of_leaked).sum()
}

fn part_of<'a>(group: &Group<'a>, branch: &Branch<'a>, known: f64) -> Group<'a> {
    let own = share_of(group, branch);
    let of_group = if known > 0.0 { own / known } else { 0.0 };
    let mut shares = Vec::new();
    for share in &group.shares {
        match share.site {
            None => shares.push(*share),
            Some(site) if branch.stacks.iter().any(|stack| stack.label == site.label) => {
                shares.push(Share { of_leaked: share.of_leaked / of_group.max(f64::MIN_POSITIVE), ..*share });
            }
            Some(_) => {}
        }
    }
    let part = Group { depth: branch.depth, shares, members: Vec::new(), ..group.clone() };
    // If each stack of a part is a leak on its own, the function uses the figures of these stacks. The
    // figures of the leaking stacks are more exact than the figures of the caller, which include the
    // fluctuation of the stacks that do not leak.
    if !branch.stacks.iter().all(|stack| stack.is_leak()) {
        return Group {
            leak_bytes: group.leak_bytes * of_group,
            rate_bytes_per_s: group.rate_bytes_per_s * of_group,
            leak_count: group.leak_count.map(|count| (count as f64 * of_group).round() as u64),
            levels: group.levels.of_share(of_group),
            ..part
        };
    }
    let judgements = || branch.stacks.iter().map(|stack| &stack.judgement);
    let leak_bytes = judgements().map(|own| own.leak_bytes as f64).sum();
    let levels = LevelSum(branch.stacks.iter().map(|stack| (&stack.levels, 1.0)).collect());
    let final_bytes: f64 = branch.stacks.iter().map(|stack| stack.totals.live_bytes as f64).sum();
    Group {
        leak_bytes,
        rate_bytes_per_s: judgements().map(|own| own.rate_bytes_per_s).sum(),
        leak_count: judgements().map(|own| own.leak_count).sum(),
        is_freed_at_end: final_bytes < f64::min(leak_bytes, levels.last()) / 2.0,
        levels,
        ..part
    }
}

/// Divides the members of a group among its parts: each listed stack goes to the part that contains it, and
/// the caller goes to the largest part.
fn hand_out_members<'a>(group: &Group<'a>, parts: &mut [Group<'a>]) {
    for &member in &group.members {
        let has = |part: &Group<'_>| part.stacks().any(|stack| stack.label == member.label);
        let owner = parts.iter().position(has).unwrap_or(0);
        parts[owner].members.push(member);
    }
    for part in parts {
        part.lead = part.members.first().copied().unwrap_or(group.lead);
    }
}
