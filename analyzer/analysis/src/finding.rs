//! A finding is one entry of the list of leaks: a single place in the code that leaks, or several places that
//! leak in step (at the same times).
//!
//! Places that leak in step probably have one mistake in the program as their cause. This table shows when
//! two or more places that leak in step become one finding:
//!
//! | two places in step | result |
//! |---|---|
//! | stacks that share a function below `main` (or the start of a thread) | one finding below that function |
//! | stacks that do not share such a function | two findings |
//! | no stacks; both are in one function | one finding in that function |
//! | no stacks; three or more in shared libraries, perhaps also one function of the program | one finding |
//! | no stacks, all other cases | two findings |

use crate::common_function::{Common, is_entry};
use crate::frame::{SiteFrame, base_name};
use crate::group::{Group, LevelSum};
use crate::identity::{Identity, fnv1a};
use crate::site::{Domain, JudgedSite, Kind};
use crate::steps::{Growth, Step, Steps};
use edleak_model::classify::Confidence;

/// Least number of places in shared libraries that become one finding only because they grow at the same
/// times. `LEAST_BY_STEP` applies only to places whose stacks are not known.
const LEAST_BY_STEP: usize = 3;
/// To decide whether a place belongs to a finding, the analyzer compares the place with at most this number
/// of places of the finding.
const MOST_COMPARED: usize = 3;

/// One entry of the list of leaks.
#[derive(Clone, Debug)]
pub struct Finding<'a> {
    /// The places that leak. The list has at least one place; the place that leaked the most bytes comes
    /// first.
    pub parts: Vec<Group<'a>>,
    /// The reason why several places are one finding; `None`: there is only one place.
    pub together: Option<Together<'a>>,
    /// The sum of the live bytes of all parts of the finding, as a curve over the time of the record.
    pub levels: LevelSum<'a>,
}

/// The reason why several places are one finding.
#[derive(Clone, Copy, Debug)]
pub enum Together<'a> {
    /// The places leak at the same times, and one function calls all of them, directly or through other
    /// functions. The variant holds the frame of this common function.
    Below(SiteFrame<'a>),
    /// The places leak at the same times, and their stacks are not known.
    ByStep,
}

impl<'a> Finding<'a> {
    /// The part that leaked the most bytes.
    pub fn largest(&self) -> &Group<'a> {
        &self.parts[0]
    }

    /// The site whose verdict is the verdict of the finding. The function chooses the first part with the
    /// confidence `Strict`, or the largest part if no part has this confidence. The function returns the lead
    /// of the chosen part: the site with the highest rate.
    pub fn lead(&self) -> &'a JudgedSite {
        let leads = self.parts.iter().map(|part| part.lead);
        let is_strict = |site: &JudgedSite| site.judgement.confidence == Some(Confidence::Strict);
        let better = |best: &'a JudgedSite, site: &'a JudgedSite| {
            if is_strict(site) && !is_strict(best) { site } else { best }
        };
        leads.reduce(better).unwrap_or(self.parts[0].lead)
    }

    /// The frame that the user should look at first. If the finding has several parts (sites), it is the
    /// function from which all parts are called. If the finding has one part, it is the frame that allocates.
    pub fn headline(&self) -> Option<SiteFrame<'a>> {
        match self.together {
            Some(Together::Below(frame)) => Some(frame),
            _ => self.own_part().headline(),
        }
    }

    /// The first part that is in the program itself and not in a shared library; if there is no such part,
    /// the largest part.
    fn own_part(&self) -> &Group<'a> {
        self.parts.iter().find(|part| !is_in_library(part)).unwrap_or(self.largest())
    }

    /// The name of the finding, as a report prints it.
    pub fn name(&self) -> String {
        match self.together {
            Some(Together::Below(frame)) => frame.name(),
            _ => self.own_part().name(),
        }
    }

    /// All listed sites of the finding, sorted by the part to which they belong.
    pub fn sites(&self) -> impl Iterator<Item = &'a JudgedSite> + '_ {
        self.parts.iter().flat_map(|part| part.members.iter().copied())
    }

    /// Number of bytes that all parts of the finding together leak per second.
    pub fn rate_bytes_per_s(&self) -> f64 {
        self.parts.iter().map(|part| part.rate_bytes_per_s).sum()
    }

    /// Number of bytes that all parts of the finding together leaked.
    pub fn leak_bytes(&self) -> f64 {
        self.parts.iter().map(|part| part.leak_bytes).sum()
    }

    /// Number of leaked allocations; `None`: for at least one part of the finding, the number is not known.
    pub fn leak_count(&self) -> Option<u64> {
        self.parts.iter().map(|part| part.leak_count).sum()
    }

    /// Seconds from the start of the record until the first part of the finding began to leak.
    pub fn began_s(&self) -> f64 {
        self.parts.iter().map(|part| part.began_s).fold(f64::INFINITY, f64::min)
    }

    /// Whether the program freed most of the leaked bytes when it ended.
    pub fn is_freed_at_end(&self) -> bool {
        let freed = self.parts.iter().filter(|part| part.is_freed_at_end).map(|part| part.leak_bytes);
        freed.sum::<f64>() > self.leak_bytes() / 2.0
    }

    /// The least and the greatest number of allocations that a part leaked; `None`: for at least one part of
    /// the finding, the number is not known.
    pub fn counts_of_parts(&self) -> Option<(u64, u64)> {
        let counts: Vec<u64> = self.parts.iter().map(|part| part.leak_count).collect::<Option<_>>()?;
        Some((*counts.iter().min()?, *counts.iter().max()?))
    }

    /// A short hash of the finding, for tools that compare the results of many runs. A finding has the same
    /// hash in every run of the program and after every rebuild.
    pub fn fingerprint(&self) -> String {
        if let ([part], None) = (self.parts.as_slice(), self.together) {
            return Identity::of(part.lead).fingerprint();
        }
        // The parts of a finding are ordered by leaked bytes, and this order depends on chance. So the hash
        // of a finding without stacks is the least hash of all its parts, and not the hash of the first part.
        let parts = self.parts.iter().map(|part| Identity::of(part.lead).fingerprint());
        match (self.together, self.parts.iter().find_map(|part| part.stacks().next())) {
            (Some(Together::Below(frame)), Some(stack)) => {
                let outer = &stack.stack[stack.stack.len() - self.shared_tail()..];
                let outer = Identity::new(Kind::Caller, outer).names.unwrap_or_default();
                format!("{:016x}", fnv1a(format!("{};{outer}", frame.name()).as_bytes()))
            }
            _ => parts.min().unwrap_or_default(),
        }
    }

    /// The number of outermost addresses that all stacks of all parts share.
    pub fn shared_tail(&self) -> usize {
        let mut stacks = self.parts.iter().flat_map(Group::stacks);
        let Some(first) = stacks.next() else { return 0 };
        stacks.map(|stack| shared_addresses(first, stack)).min().unwrap_or(0)
    }
}

/// The rate and the leaked bytes of all findings together.
pub fn totals(findings: &[Finding<'_>]) -> (f64, f64) {
    let counted = || counted_once(findings);
    (counted().map(Finding::rate_bytes_per_s).sum(), counted().map(Finding::leak_bytes).sum())
}

/// Selects the findings for a total of leaked bytes, so that no byte counts twice. A pool takes its objects
/// from the heap or from mapped memory. So the findings of pools count only if there are no other findings.
pub fn counted_once<'f, 'a>(findings: &'f [Finding<'a>]) -> impl Iterator<Item = &'f Finding<'a>> {
    let is_of_pool = |finding: &Finding<'_>| finding.lead().domain() == Domain::Pool;
    let only_pools = findings.iter().all(is_of_pool);
    findings.iter().filter(move |finding| only_pools || !is_of_pool(finding))
}

fn shared_addresses(one: &JudgedSite, other: &JudgedSite) -> usize {
    let pairs = one.stack.iter().rev().zip(other.stack.iter().rev());
    pairs.take_while(|(one, other)| (one.address, one.module_id) == (other.address, other.module_id)).count()
}

/// Converts groups into findings: groups that leak in step become one finding. The findings are sorted by
/// leak rate, highest first.
pub(crate) fn findings<'a>(mut groups: Vec<Group<'a>>, steps: &Steps) -> Vec<Finding<'a>> {
    groups.sort_by(|a, b| b.leak_bytes.total_cmp(&a.leak_bytes));
    let growths: Vec<Option<Growth>> = groups.iter().map(|group| growth_of(group, steps)).collect();
    let known: Vec<usize> = (0..groups.len()).filter(|&group| growths[group].is_some()).collect();
    let mut is_taken = vec![false; groups.len()];
    let mut findings = Vec::new();
    for seed in 0..groups.len() {
        if is_taken[seed] {
            continue;
        }
        let others: Vec<usize> = match growths[seed] {
            Some(_) => known.iter().copied().filter(|&other| other > seed && !is_taken[other]).collect(),
            None => Vec::new(),
        };
        let (members, together) = in_step(seed, &others, &groups, &growths, steps);
        members.iter().for_each(|&member| is_taken[member] = true);
        let parts: Vec<Group<'_>> = members.iter().map(|&member| groups[member].clone()).collect();
        let levels = LevelSum::of(parts.iter().map(|part| &part.levels));
        findings.push(Finding { parts, together, levels });
    }
    findings.sort_by(|a, b| b.rate_bytes_per_s().total_cmp(&a.rate_bytes_per_s()));
    findings
}

/// The growth of a group at each slice; `None`: the growth is not known, or the group has another kind than
/// `Caller` or `Stack`.
fn growth_of(group: &Group<'_>, steps: &Steps) -> Option<Growth> {
    if !matches!(group.site.kind, Kind::Caller | Kind::Stack) {
        return None;
    }
    // If the stacks of a caller are split into several groups, the function does not use the caller's own
    // counters, because they belong to no single group.
    let caller = (group.depth == 0).then_some(&group.site.label);
    let stacks = group.shares.iter().filter_map(|share| share.site).map(|stack| &stack.label);
    steps.growth_of(caller.into_iter().chain(stacks))
}

/// The groups that grow at the same times as the group `seed`, and the reason why these groups are one
/// finding.
fn in_step<'a>(
    seed: usize,
    others: &[usize],
    groups: &[Group<'a>],
    growths: &[Option<Growth>],
    steps: &Steps,
) -> (Vec<usize>, Option<Together<'a>>) {
    let has_stacks = |group: usize| groups[group].stacks().next().is_some();
    let step_with = |members: &[usize], other: usize| {
        let step = |&member: &usize| match (&growths[member], &growths[other]) {
            (Some(one), Some(other)) => steps.step(one, other),
            _ => Step::Apart,
        };
        let compared = members.iter().take(MOST_COMPARED).map(step);
        compared.fold(Step::Apart, Step::max)
    };
    // A comparison of two stacks is much faster than a comparison of two curves of growth, so the function
    // compares the stacks first.
    let may_be_by_step = |other: usize| {
        (!has_stacks(seed) || !has_stacks(other))
            && (is_in_library(&groups[seed])
                || is_in_library(&groups[other])
                || is_same_function(&groups[seed], &groups[other]))
    };
    let (mut members, mut by_step) = (vec![seed], Vec::new());
    let mut common = if has_stacks(seed) { Common::of(&groups[seed]) } else { None };
    for &other in others {
        let narrower =
            common.as_ref().filter(|_| has_stacks(other)).and_then(|known| known.with(&groups[other]));
        match narrower {
            Some(narrower) if step_with(&members, other) > Step::Apart => {
                common = Some(narrower);
                members.push(other);
            }
            None if may_be_by_step(other) && step_with(&members, other) == Step::Together => {
                by_step.push(other)
            }
            _ => {}
        }
    }
    let (same, rest): (Vec<usize>, Vec<usize>) =
        by_step.into_iter().partition(|&other| is_same_function(&groups[seed], &groups[other]));
    members.extend(same);
    let below = match &common {
        _ if members.len() == 1 => None,
        Some(common) => Some(common.frame()),
        None => groups[seed].headline(),
    };
    let joined = by_step_alone(&members, &rest, groups);
    let is_below_known = common.is_some() || joined.is_empty();
    members.extend(joined);
    members.sort_unstable();
    let together = match below.filter(|_| is_below_known) {
        Some(frame) => Some(Together::Below(frame)),
        None => (members.len() > 1).then_some(Together::ByStep),
    };
    (members, together)
}

/// Selects the groups that become one finding with `members`. The function is for groups without known
/// stacks: the only evidence for one cause is that the groups grow at the same times. The function selects
/// all groups in shared libraries. It selects the groups in the program itself only if all of them are in one
/// function.
fn by_step_alone(members: &[usize], rest: &[usize], groups: &[Group<'_>]) -> Vec<usize> {
    let (libraries, program): (Vec<usize>, Vec<usize>) =
        rest.iter().copied().partition(|&other| is_in_library(&groups[other]));
    let seed = &groups[members[0]];
    let mut own = members.iter().chain(&program).filter(|&&group| !is_in_library(&groups[group]));
    let is_one_function = match own.next() {
        None => true,
        Some(&first) => own.all(|&other| is_same_function(&groups[first], &groups[other])),
    };
    let joined = match is_one_function {
        true => rest.to_vec(),
        false if is_in_library(seed) => libraries.clone(),
        false => Vec::new(),
    };
    let in_libraries = libraries.len() + usize::from(is_in_library(seed)) * members.len();
    if in_libraries >= LEAST_BY_STEP { joined } else { Vec::new() }
}

fn is_in_library(group: &Group<'_>) -> bool {
    let module = group.headline().and_then(|frame| frame.address.module.as_deref());
    module.is_some_and(|module| base_name(module).contains(".so"))
}

fn is_same_function(one: &Group<'_>, other: &Group<'_>) -> bool {
    match (one.headline(), other.headline()) {
        (Some(one), Some(other)) => {
            one.function().is_some_and(|function| !is_entry(function))
                && (one.function(), &one.address.module) == (other.function(), &other.address.module)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Address;
    use crate::site::{SiteLabel, Standing, Totals};
    use edleak_format::SymbolFrame;
    use edleak_model::classify::{Judgement, Model, Verdict, judge};
    use edleak_model::levels::Levels;
    use edleak_model::series::Series;

    /// Makes a frame of a function at a line, in a module.
    fn frame(module: &str, function: &str, line: u32) -> Address {
        let symbol = SymbolFrame {
            function: Some(function.into()),
            file: Some("/src/server.c".into()),
            line,
            is_inlined: false,
        };
        Address {
            address: u64::from(line) + 1000 * function.len() as u64,
            module: Some(module.into()),
            offset: Some(u64::from(line)),
            frames: [symbol].into(),
            ..Address::default()
        }
    }

    fn site(number: u64, leak_bytes: u64, stack: Vec<Address>) -> JudgedSite {
        let judgement = judge(&Series::default(), 1.0, Model::Growth);
        JudgedSite {
            label: SiteLabel::Number(number),
            parent: None,
            pool: None,
            kind: if stack.len() > 1 { Kind::Stack } else { Kind::Caller },
            judgement: Judgement {
                verdict: Verdict::Leak,
                leak_bytes,
                leak_count: Some(leak_bytes / 10),
                rate_bytes_per_s: leak_bytes as f64,
                ..judgement
            },
            leak_factor: None,
            with_stacks: None,
            judged_with_stacks: false,
            leak_share: None,
            per_mark: None,
            totals: Totals::default(),
            resident_bytes: None,
            given_back: None,
            levels: Levels::default(),
            block_growth_bytes: 0.0,
            survivors: Vec::new(),
            addresses: 1,
            stack,
            is_stack_cut: false,
            standing: Standing::Reported,
        }
    }

    /// The name and the number of parts of each finding. `events` has a number for each site; sites with the
    /// same number grow at the same times.
    fn found(sites: &[JudgedSite], events: &[u64]) -> Vec<(String, usize)> {
        let steps = Steps::of_patterns(sites.iter().map(|site| &site.label).zip(events.iter().copied()));
        let groups = crate::group::groups(sites, sites.iter());
        let findings = findings(groups, &steps);
        findings.iter().map(|finding| (finding.name(), finding.parts.len())).collect()
    }

    fn below_main(function: &str, caller: &str, line: u32) -> Vec<Address> {
        vec![
            frame("/bin/server", function, 5),
            frame("/bin/server", caller, line),
            frame("/bin/server", "main", 90),
        ]
    }

    #[test]
    fn places_in_step_below_one_function_are_one_finding() {
        let sites = [
            site(1, 900, below_main("make_session", "serve_one", 27)),
            site(2, 500, below_main("make_buffers", "serve_one", 28)),
            site(3, 100, below_main("log_line", "serve_one", 29)),
        ];
        assert_eq!(found(&sites, &[0, 0, 0]), [("serve_one".to_owned(), 3)]);
        // If a site does not grow at the same times as the other sites, another mistake causes its growth,
        // even if one function calls all these sites.
        let names = |found: Vec<(String, usize)>| found.into_iter().collect::<Vec<_>>();
        assert_eq!(
            names(found(&sites, &[0, 0, 1])),
            [("serve_one".to_owned(), 2), ("log_line".to_owned(), 1)]
        );
    }

    #[test]
    fn leaks_that_share_nothing_but_main_stay_apart() {
        let in_main = |function: &str, line| {
            vec![frame("/bin/server", function, 5), frame("/bin/server", "main", line)]
        };
        let sites = [site(1, 900, in_main("leak_a", 10)), site(2, 500, in_main("leak_bb", 20))];
        assert_eq!(found(&sites, &[0, 0]).len(), 2);
        // The function with which a thread starts counts as the thread's `main`.
        let in_thread = |function: &str, line| {
            vec![
                frame("/bin/server", function, 5),
                frame("/bin/server", "worker", line),
                frame("/lib/libc.so.6", "start_thread", 1),
            ]
        };
        let sites = [site(1, 900, in_thread("leak_a", 10)), site(2, 500, in_thread("leak_bb", 20))];
        assert_eq!(found(&sites, &[0, 0]).len(), 2);
    }

    #[test]
    fn callers_alone_are_one_finding_by_step_only_in_libraries() {
        let in_module = |number, module: &str, function: &str| {
            site(number, 1000 - number, vec![frame(module, function, number as u32)])
        };
        let libraries = [
            in_module(1, "/lib/libssl.so.3", "SSL_new"),
            in_module(2, "/lib/libssl.so.3", "SSL_set_bio"),
            in_module(3, "/lib/libcrypto.so.3", "BIO_new"),
        ];
        assert_eq!(found(&libraries, &[0, 0, 0]), [("SSL_new".to_owned(), 3)]);
        assert_eq!(found(&libraries[..2], &[0, 0]).len(), 2, "two may be chance");
        assert_eq!(found(&libraries, &[0, 1, 0]).len(), 3);
        let own = |names: [&str; 2]| {
            let own = (4..).zip(names).map(|(number, name)| in_module(number, "/bin/server", name));
            libraries.iter().cloned().chain(own).collect::<Vec<_>>()
        };
        // If one function of the program grows at the same times as the places in libraries, the finding gets
        // the name of this function. If two functions of the program grow at the same times as the places in
        // libraries, the finding contains only the places in libraries.
        assert_eq!(found(&own(["serve", "serve"]), &[0; 5]), [("serve".to_owned(), 5)]);
        assert_eq!(found(&own(["serve", "parse"]), &[0; 5]).len(), 3);
    }
}
