//! Computes verdicts from the iterations of a mark instead of from the time (`--per-mark`).
//!
//! A slice of a mark has the counters of the instant at which the program set the mark. Like
//! [`crate::replay`], this module merges sites that are the same code at several addresses. A watched caller
//! is judged together with all its stacks.

use crate::analysis::Analysis;
use crate::load::Input;
pub use crate::marks::{JudgedMark, MarkSeen, PerMark, SitePerMark};
use crate::replay::Merged;
use crate::site::{Domain, JudgedSite, Kind, SiteLabel};
use crate::{mapped, pools};
use edleak_format::{Counters, Mark, MarkId, MarkSlice, SiteId, Trace};
use edleak_model::classify::{Confidence, Judgement, Verdict};
use edleak_model::growth_class::Class;
use edleak_model::iterations::{
    self, AtMark, Iterations, LEAST_ITERATIONS, LEAST_SLICES, Verdict as OfIterations, warm_up,
};
use edleak_text::globs::Glob;
use edleak_text::units::{self, plural};
use std::collections::{BTreeMap, HashMap, HashSet};

/// The options of `--per-mark`. They choose marks; edleak judges each site by its growth from iteration to
/// iteration of these marks.
#[derive(Clone, Debug)]
pub struct PerMarkOptions {
    /// The pattern for the names of the marks.
    pub pattern: String,
    /// Number of iterations in the warm-up; `None`: a third of all iterations.
    pub warm_up: Option<u64>,
}

/// The marks of a recording.
pub(crate) fn marks_of(trace: &Trace) -> Vec<MarkSeen> {
    let seen = |mark: &Mark| {
        let slices = || slices_of(trace, mark.id);
        let seconds = |slice: Option<&MarkSlice>| slice.map_or(0.0, |slice| slice.read_ns as f64 / 1e9);
        MarkSeen {
            name: mark.name.clone(),
            is_cut: mark.is_cut,
            count: mark.count.max(slices().map(|slice| slice.count).max().unwrap_or(0)),
            slices: slices().count() as u64,
            first_s: seconds(slices().next()),
            last_s: seconds(slices().last()),
        }
    };
    trace.marks().iter().map(seen).collect()
}

fn slices_of(trace: &Trace, mark: MarkId) -> impl Iterator<Item = &MarkSlice> {
    trace.mark_slices().iter().filter(move |slice| slice.mark == mark && !slice.goes_on)
}

/// Judges every site by the marks that match the pattern of `options`, and replaces the verdicts by time with
/// these verdicts.
pub(crate) fn judge_by_marks(analysis: &mut Analysis, recording: &Input, options: &PerMarkOptions) {
    let mut per_mark = PerMark { pattern: options.pattern.clone(), marks: Vec::new(), unnamed: 0 };
    let mut found: HashMap<SiteLabel, SitePerMark> = HashMap::new();
    if let Input::Trace(trace) = recording {
        per_mark.unnamed = trace.mark_losses().unnamed;
        let (merged, pattern) = (Merged::of(trace), Glob::new(&options.pattern));
        for mark in trace.marks().iter().filter(|mark| pattern.matches(&mark.name)) {
            let curves = Curves::of(trace, &merged, mark.id);
            let judged = curves.mark(&mark.name, options.warm_up);
            if judged.too_few.is_none() {
                curves.judge(&analysis.sites, &judged, &mut found);
            }
            per_mark.marks.push(judged);
        }
    }
    let is_judged = per_mark.marks.iter().any(|mark| mark.too_few.is_none());
    let seconds = analysis.header.duration_s;
    let covered = match recording {
        Input::Trace(trace) => covered_domains(trace),
        Input::Lines(_) => vec![Domain::Heap],
    };
    // The function does not judge memory that an allocator maps for itself: if this memory leaks, the leak is
    // visible at the sites that request memory from the allocator.
    let has_marks = |site: &&mut JudgedSite| {
        !matches!(site.kind, Kind::Injected | Kind::Allocator) && covered.contains(&site.domain())
    };
    for site in analysis.sites.iter_mut().filter(has_marks) {
        site.judged_with_stacks = false;
        site.leak_share = None;
        site.per_mark = found.get(&site.label).cloned().map(Box::new);
        site.judgement = match &site.per_mark {
            Some(per_mark) => judgement_of(per_mark, seconds),
            None if is_judged => judgement(Verdict::NoLeak, "nothing was allocated at a mark".into()),
            None => judgement(Verdict::Undecided, "there are too few iterations".into()),
        };
        if let Some(with_stacks) = &mut site.with_stacks {
            with_stacks.judgement = site.judgement.clone();
        }
    }
    mapped::judge_iterations_by_resident_memory(&mut analysis.sites);
    let has_lost = analysis.mapped.as_ref().is_some_and(|mapped| mapped.lost_give_backs > 0);
    mapped::tell_given_back(&mut analysis.sites, has_lost);
    if let Input::Trace(trace) = recording {
        pools::withdraw_unsure_leaks(&mut analysis.sites, trace, seconds);
    }
    share_out(&mut analysis.sites);
    let rank = |site: &JudgedSite| {
        let bytes = site.per_mark.as_ref().map_or(0.0, |per_mark| per_mark.iterations.bytes);
        (site.is_leak(), bytes)
    };
    analysis.sites.sort_by(|a, b| {
        let (a_rank, b_rank) = (rank(a), rank(b));
        b_rank.0.cmp(&a_rank.0).then(b_rank.1.total_cmp(&a_rank.1)).then_with(|| a.label.cmp(&b.label))
    });
    analysis.summary.undecided =
        analysis.sites.iter().filter(|site| site.judgement.verdict == Verdict::Undecided).count() as u64;
    analysis.unexplained = None;
    analysis.per_mark = Some(per_mark);
}

/// The domains (heap, mapped memory, pools) that `--per-mark` judges by marks. The heap is always in the
/// returned list. Mapped memory and pools are in the returned list only if a slice of a mark has a site of
/// this kind, because earlier versions of edleak recorded only sites of the heap in slices of marks. A site
/// of a domain that is not in the list keeps its verdict by time.
fn covered_domains(trace: &Trace) -> Vec<Domain> {
    let marked: HashSet<SiteId> =
        trace.mark_slices().iter().flat_map(|slice| slice.sites.iter().map(|(site, _)| *site)).collect();
    let kinds = trace.sites().iter().filter(|site| marked.contains(&site.id)).map(|site| site.kind);
    let mut covered = vec![Domain::Heap];
    for kind in kinds {
        let domain = Kind::of(kind).domain();
        if !covered.contains(&domain) {
            covered.push(domain);
        }
    }
    covered
}

/// Divides the leak of a watched caller among its stacks, in proportion to the bytes that the iterations left
/// behind at each stack.
fn share_out(sites: &mut [JudgedSite]) {
    let left =
        |site: &JudgedSite| site.per_mark.as_ref().map_or(0, |per_mark| per_mark.iterations.left_bytes);
    let leaking: HashMap<SiteLabel, u64> = sites
        .iter()
        .filter(|site| site.parent.is_none() && site.is_leak())
        .map(|site| (site.label.clone(), left(site)))
        .collect();
    let mut with_stacks = Vec::new();
    for site in sites.iter_mut() {
        let Some(&all) = site.parent.as_ref().and_then(|parent| leaking.get(parent)) else { continue };
        site.judgement = Judgement::part_of_a_leak(Class::Linear);
        let share = left(site) as f64 / all.max(1) as f64;
        site.leak_share = Some(share.min(1.0)).filter(|share| *share > 0.0);
        with_stacks.extend(site.parent.clone());
    }
    for site in sites.iter_mut().filter(|site| with_stacks.contains(&site.label)) {
        site.judged_with_stacks = true;
    }
}

fn judgement_of(found: &SitePerMark, seconds: f64) -> Judgement {
    let per = &found.iterations;
    let verdict = match per.verdict {
        OfIterations::Leak => Verdict::Leak,
        OfIterations::Undecided => Verdict::Undecided,
        OfIterations::Clean => Verdict::NoLeak,
    };
    if verdict != Verdict::Leak {
        return judgement(verdict, per.why.clone());
    }
    let pace = format!("leaks {} (mark `{}`)", per.per_iteration(), found.mark);
    Judgement {
        why: vec![pace, per.why.clone()],
        class: Class::Linear,
        confidence: Some(if per.is_strict { Confidence::Strict } else { Confidence::Suspect }),
        leak_bytes: per.left_bytes,
        leak_count: Some(per.left_count),
        rate_bytes_per_s: if seconds > 0.0 { per.left_bytes as f64 / seconds } else { 0.0 },
        ..judgement(verdict, String::new())
    }
}

fn judgement(verdict: Verdict, why: String) -> Judgement {
    Judgement {
        verdict,
        why: vec![why],
        record_longer_s: None,
        ..Judgement::undecided(Class::Constant, 0.0, Vec::new())
    }
}

impl PerMark {
    /// If the result is undecided, the reason and the remedy; `None`: the verdicts by marks decide the
    /// result.
    pub(crate) fn undecided(&self, sites: &[JudgedSite], all: &[MarkSeen]) -> Option<String> {
        if self.marks.is_empty() {
            return Some(match all {
                [] => "the trace holds no marks (set them with `edleak_mark` of edleak.h, or with \
                       `edleak-record mark NAME`)"
                    .into(),
                marks => {
                    let names: Vec<_> = marks.iter().take(8).map(|mark| format!("`{}`", mark.name)).collect();
                    format!("no mark matches `{}` (the trace has {})", self.pattern, names.join(", "))
                }
            });
        }
        if let Some(why) = self.marks.iter().find_map(|mark| mark.too_few.clone()) {
            return Some(why);
        }
        // The trace may have marks whose names it does not store. If the pattern is the exact name of a
        // stored mark, no other mark can match, so the marks without a stored name do not matter.
        let is_name =
            !self.pattern.contains(['*', '?']) && self.marks.iter().any(|mark| mark.name == self.pattern);
        if self.unnamed > 0 && !is_name {
            let number = plural(self.unnamed, "mark had", "marks had");
            return Some(format!(
                "{number} no room for a name, so their iterations are not judged (use fewer names)"
            ));
        }
        let undecided = || {
            sites
                .iter()
                .filter(|site| site.judgement.verdict == Verdict::Undecided)
                .filter_map(|site| site.per_mark.as_ref())
        };
        let most = undecided().max_by_key(|per_mark| per_mark.iterations.left_bytes)?;
        let needed = undecided().filter_map(|per_mark| per_mark.iterations.needed).max();
        let remedy = needed.map_or("run more iterations".into(), |needed| {
            format!("run {}", plural(needed, "iteration", "iterations"))
        });
        let number = plural(undecided().count() as u64, "site is", "sites are");
        Some(format!("{number} undecided: {} ({remedy})", most.iterations.why))
    }

    /// The number of judged iterations of each mark, in words: `66 iterations of `iteration``.
    pub fn judged(&self) -> String {
        let judged = |mark: &JudgedMark| {
            let after = plural(mark.iterations - mark.warm_up, "iteration", "iterations");
            format!("{after} of `{}` after a warm-up of {}", mark.name, units::count(mark.warm_up))
        };
        let all: Vec<_> = self.marks.iter().filter(|mark| mark.too_few.is_none()).map(judged).collect();
        match all.len() {
            0..=3 => all.join(" and "),
            many => format!("the iterations of {many} marks"),
        }
    }
}

/// The counters of every site at the slices of one mark.
struct Curves {
    counts: Vec<u64>,
    sites: BTreeMap<SiteId, Vec<AtMark>>,
    /// For each stack of a watched site, the id of the watched site.
    parents: HashMap<SiteId, SiteId>,
}

impl Curves {
    fn of(trace: &Trace, merged: &Merged, mark: MarkId) -> Curves {
        let parents = trace.sites().iter().filter_map(|site| {
            let parent = merged.root(site.parent?);
            Some((merged.root(site.id), parent))
        });
        let mut curves = Curves { counts: Vec::new(), sites: BTreeMap::new(), parents: parents.collect() };
        let mut of_site: HashMap<SiteId, Counters> = HashMap::new();
        let mut now: BTreeMap<SiteId, (u64, u64)> = BTreeMap::new();
        for slice in trace.mark_slices() {
            for (site, counters) in &slice.sites {
                let before = of_site.insert(*site, *counters).unwrap_or(Counters::ZERO);
                let (bytes, count) = now.entry(merged.root(*site)).or_default();
                *bytes = bytes.wrapping_add(counters.live_bytes()).wrapping_sub(before.live_bytes());
                *count = count.wrapping_add(counters.live_count()).wrapping_sub(before.live_count());
            }
            let is_later = curves.counts.last().is_none_or(|&last| slice.count > last);
            if slice.mark == mark && !slice.goes_on && is_later {
                curves.push(slice.count, &now);
            }
        }
        curves
    }

    fn push(&mut self, count: u64, now: &BTreeMap<SiteId, (u64, u64)>) {
        let Curves { counts, sites, .. } = self;
        for (&site, &(live_bytes, live_count)) in now {
            let curve = sites.entry(site).or_insert_with(|| {
                counts.iter().map(|&count| AtMark { count, ..AtMark::default() }).collect()
            });
            curve.push(AtMark { count, live_bytes, live_count });
        }
        counts.push(count);
    }

    /// Describes one mark: its number of iterations, its warm-up, and whether the iterations are enough for a
    /// verdict.
    fn mark(&self, name: &str, asked: Option<u64>) -> JudgedMark {
        let iterations = match (self.counts.first(), self.counts.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0,
        };
        let warm_up = asked.unwrap_or_else(|| warm_up(iterations));
        let least = match asked {
            None => LEAST_ITERATIONS,
            Some(warm_up) => warm_up.saturating_add(LEAST_SLICES as u64 - 1),
        };
        let are = |number: u64| plural(number, "iteration is", "iterations are");
        let judged = self.counts.len() - self.skipped(warm_up);
        let too_few = if iterations < least {
            Some(format!("{} too few at mark `{name}`, {least} are the least (run more)", are(iterations)))
        } else if judged < LEAST_SLICES {
            Some(format!(
                "the trace has only {} of mark `{name}` after the warm-up, {LEAST_SLICES} are the least \
                 (record again)",
                plural(judged as u64, "slice", "slices")
            ))
        } else {
            None
        };
        JudgedMark { name: name.to_owned(), iterations, warm_up: warm_up.min(iterations), too_few }
    }

    /// Number of slices that belong to the warm-up, which is not judged.
    fn skipped(&self, warm_up: u64) -> usize {
        let first = self.counts.first().copied().unwrap_or(0);
        self.counts.partition_point(|&count| count - first < warm_up)
    }

    /// Judges each site by this mark. If a site is judged by several marks, `found` keeps the worst of these
    /// verdicts.
    fn judge(&self, sites: &[JudgedSite], mark: &JudgedMark, found: &mut HashMap<SiteLabel, SitePerMark>) {
        let skipped = self.skipped(mark.warm_up);
        let mut families: HashMap<SiteId, Vec<SiteId>> = HashMap::new();
        for (stack, parent) in &self.parents {
            families.entry(*parent).or_default().push(*stack);
        }
        for site in sites {
            let SiteLabel::Number(id) = site.label else { continue };
            let Ok(id) = u32::try_from(id).map(SiteId) else { continue };
            let members = std::iter::once(id).chain(families.get(&id).into_iter().flatten().copied());
            let Some(curve) = self.sum(members) else { continue };
            let iterations = iterations::judge(&curve, skipped);
            let is_worse = found.get(&site.label).is_none_or(|known| {
                let rank = |one: &Iterations| (one.verdict, one.left_bytes);
                rank(&iterations) > rank(&known.iterations)
            });
            if is_worse {
                found.insert(site.label.clone(), SitePerMark { mark: mark.name.clone(), iterations });
            }
        }
    }

    /// The sum of the counters of several sites at each slice of the mark; `None`: none of these sites is in
    /// a slice of the mark.
    fn sum(&self, members: impl Iterator<Item = SiteId>) -> Option<Vec<AtMark>> {
        members.filter_map(|id| self.sites.get(&id)).cloned().reduce(|mut sum, curve| {
            for (sum, point) in sum.iter_mut().zip(curve) {
                sum.live_bytes = sum.live_bytes.saturating_add(point.live_bytes);
                sum.live_count = sum.live_count.saturating_add(point.live_count);
            }
            sum
        })
    }
}
