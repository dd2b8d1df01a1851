//! Writes reports about leaks, as text for people and in formats for programs. Each format has one file and
//! one implementation of the trait [`Exporter`].
#![forbid(unsafe_code)]

pub mod diff;
pub mod folded;
pub mod github;
pub mod html;
pub mod json;
pub mod junit;
pub mod pprof;
pub mod profile;
pub mod progress;
pub mod sarif;
pub mod series;
pub mod text;

use edleak_analysis::analysis::Analysis;
use edleak_analysis::finding::{self, Finding, Together};
use edleak_analysis::frame::frames;
use edleak_analysis::gate::{Outcome, RuleUse, outcome};
use edleak_analysis::load::Input;
use edleak_analysis::site::{JudgedSite, SiteLabel, Standing};
use edleak_analysis::suppressions::Rule;
use edleak_model::iterations::per_iteration;
use edleak_text::units;
use std::collections::HashSet;
use std::io::{self, Write};

/// Number of columns of a site's curve, in the text report and in JSON.
pub(crate) const CURVE_COLUMNS: usize = 40;

/// The data of a report.
#[derive(Debug)]
pub struct Report<'a> {
    /// The recordings with their verdicts, in the order in which the user gave them.
    pub analyses: &'a [Analysis],
    /// The recordings without verdicts, for exporters that print the counters of sites.
    pub recordings: &'a [Input],
    /// The suppression rules. A suppressed leak names its rule by the rule's index in `rules`.
    pub rules: &'a [Rule],
    /// For each suppression rule in `rules`, at the same index: whether the rule matched a leak, and whether
    /// the budget of the rule was exceeded.
    pub rule_uses: Vec<RuleUse>,
    /// Maximum number of entries to list for each recording: leaks first, then other sites. `None`: no limit.
    pub top: Option<usize>,
}

/// Writes a report in one format.
pub trait Exporter {
    /// Writes the whole report.
    ///
    /// # Errors
    /// `out` cannot be written to.
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()>;
}

impl Report<'_> {
    /// The suppression rules of one kind of use, `wanted`: for example, all rules that matched no leak.
    pub(crate) fn rules_that_are(&self, wanted: RuleUse) -> impl Iterator<Item = &Rule> {
        self.rules.iter().zip(&self.rule_uses).filter(move |(_, is)| **is == wanted).map(|(rule, _)| rule)
    }

    /// The worst outcome of all recordings. The exit code of edleak-analyze depends on this outcome.
    pub fn outcome(&self) -> Outcome {
        self.analyses.iter().map(outcome).max().unwrap_or(Outcome::Undecided)
    }

    /// The leaks to list, with the highest rate first; `--top` limits their number.
    pub(crate) fn findings<'a>(&self, analysis: &'a Analysis) -> Vec<Finding<'a>> {
        let mut findings =
            analysis.with_standing(|standing| matches!(standing, Standing::Reported | Standing::Tolerated));
        findings.truncate(self.top.unwrap_or(usize::MAX));
        findings
    }

    /// The listed leaks that fail the gate.
    pub(crate) fn reported<'a>(&self, analysis: &'a Analysis) -> Vec<Finding<'a>> {
        let mut findings = analysis.with_standing(|standing| standing == Standing::Reported);
        findings.truncate(self.top.unwrap_or(usize::MAX));
        findings
    }

    /// The sites that are listed although they do not fail the gate; `--top` limits their number.
    pub(crate) fn shown<'a>(&self, analysis: &'a Analysis) -> Vec<&'a JudgedSite> {
        let shown = analysis.sites.iter().filter(|site| site.standing == Standing::Shown);
        let room = self.top.map_or(usize::MAX, |top| top - self.findings(analysis).len());
        shown.take(room).collect()
    }

    /// The sites that the report lists, in the order of the report.
    pub(crate) fn listed<'a>(&self, analysis: &'a Analysis) -> Vec<&'a JudgedSite> {
        let is_listed = |site: &&JudgedSite| {
            matches!(site.standing, Standing::Reported | Standing::Tolerated | Standing::Shown)
        };
        let all = analysis.sites.iter().filter(is_listed);
        if self.top.is_none() {
            return all.collect();
        }
        let findings = self.findings(analysis);
        let leaks = findings.iter().flat_map(Finding::sites).map(|site| &site.label);
        let kept: HashSet<&SiteLabel> =
            leaks.chain(self.shown(analysis).iter().map(|site| &site.label)).collect();
        all.filter(|site| kept.contains(&site.label)).collect()
    }

    /// The sites to list, in order, with their stacks: if a site was judged together with its stacks, the
    /// stacks that leaked follow this site in the list.
    pub(crate) fn with_parts<'a>(&self, analysis: &'a Analysis) -> Vec<&'a JudgedSite> {
        let listed = self.listed(analysis);
        let labels: HashSet<&SiteLabel> = listed.iter().map(|site| &site.label).collect();
        let parts = |site: &'a JudgedSite| {
            let mut parts = analysis.parts_of(site);
            parts.retain(|part| !labels.contains(&part.label));
            std::iter::once(site).chain(parts)
        };
        listed.into_iter().flat_map(parts).collect()
    }
}

/// The stacks of a finding, each with a heading. If a finding has only one stack, the stack has no heading.
pub(crate) fn stacks_of<'a>(finding: &Finding<'a>) -> Vec<(Option<String>, &'a JudgedSite)> {
    let mut all = Vec::new();
    for part in &finding.parts {
        let of_finding = part.leak_bytes / finding.leak_bytes().max(1.0);
        let mut stacks: Vec<(f64, &JudgedSite)> = part
            .shares
            .iter()
            .filter_map(|share| Some((share.of_leaked * of_finding, share.site?)))
            .collect();
        if stacks.is_empty() {
            stacks.push((of_finding, part.site));
        }
        all.extend(stacks);
    }
    if let [(_, only)] = all.as_slice() {
        return vec![(None, only)];
    }
    let heading = |share: f64| format!("{:.0} % of the leaked bytes:", 100.0 * share);
    all.into_iter().map(|(share, site)| (Some(heading(share)), site)).collect()
}

/// The stacks of a finding, one line per frame. The text begins with a line break and does not end with one.
pub(crate) fn stack_text(finding: &Finding<'_>) -> String {
    let mut text = String::new();
    let shared = finding.shared_tail();
    for (i, (heading, stack)) in stacks_of(finding).into_iter().enumerate() {
        if let Some(heading) = heading {
            text += &format!("\n{heading}");
        }
        // The outer callers that are the same in all stacks are shown only in the first stack.
        let own = if i == 0 {
            stack.stack.len()
        } else {
            (stack.stack.len() - shared.min(stack.stack.len())).max(1)
        };
        for frame in frames(&stack.stack[..own.min(stack.stack.len())]) {
            let place = frame.place().map_or_else(String::new, |(file, line)| format!(" at {file}:{line}"));
            text += &format!("\n{}{place}", frame.name());
        }
        if own < stack.stack.len() {
            text += &format!("\nthen {} as above", units::plural(shared as u64, "caller", "callers"));
        }
    }
    text
}

/// The reason why the report shows several places in the code as one leak. `None`: the leak has only one
/// place.
pub(crate) fn in_step(finding: &Finding<'_>) -> Option<String> {
    let grow = grow_together(finding);
    match finding.together? {
        Together::Below(frame) => {
            let place = frame.place().map_or_else(String::new, |(file, line)| format!(" at {file}:{line}"));
            Some(format!("{grow} below {}{place}", frame.name()))
        }
        Together::ByStep => Some(format!("{grow}; {CALLER_IS_UNKNOWN}")),
    }
}

/// The note on a leak with several places in the code whose stacks are unknown. Without stacks, the report
/// cannot name the common caller of several places.
pub(crate) const CALLER_IS_UNKNOWN: &str =
    "their common caller is not known (record longer, without --no-watch)";

/// The number of places of a leak, and the number of allocations that each place leaked.
pub(crate) fn grow_together(finding: &Finding<'_>) -> String {
    let by = match finding.counts_of_parts() {
        Some((one, all)) if one == all => {
            format!(" by {} each", units::plural(one, "allocation", "allocations"))
        }
        Some((least, most)) => {
            format!(" by {} to {} allocations each", units::count(least), units::count(most))
        }
        None => String::new(),
    };
    let places = units::plural(finding.parts.len() as u64, "place", "places");
    format!("{places} grow together{by}")
}

/// All reasons of a leak in one line: the reason why several places are one leak, and the reasons of the
/// verdict on its first place.
pub(crate) fn why_of(finding: &Finding<'_>) -> String {
    let why = why(finding.lead());
    in_step(finding).map_or_else(|| why.clone(), |together| format!("{together}; {why}"))
}

/// The bytes and the number of allocations that one iteration leaks, summed over all leaks in `findings`.
/// `None`: the verdicts are computed from time and not from marks.
pub(crate) fn by_iteration(findings: &[Finding<'_>]) -> Option<(f64, f64)> {
    let parts = finding::counted_once(findings).flat_map(|finding| &finding.parts);
    let of_parts = parts.filter_map(|part| {
        let found = &part.lead.per_mark.as_ref()?.iterations;
        // The figures of one iteration cover all stacks of the caller, but a part of a leak may have only
        // some of the caller's stacks. So multiply each figure by the part's share of the caller's leaked
        // bytes.
        let all = part.lead.judgement.leak_bytes as f64;
        let share = if all > 0.0 { part.leak_bytes / all } else { 1.0 };
        Some((found.bytes * share, found.allocations * share))
    });
    of_parts.reduce(|sum, one| {
        let ((bytes, allocations), (more_bytes, more_allocations)) = (sum, one);
        (bytes + more_bytes, allocations + more_allocations)
    })
}

/// How fast a leak grows: for each iteration if the verdict is computed from marks, else for each unit of
/// time.
pub(crate) fn pace(finding: &Finding<'_>) -> String {
    match by_iteration(std::slice::from_ref(finding)) {
        Some((bytes, allocations)) => per_iteration(bytes, allocations),
        None => units::rate(finding.rate_bytes_per_s()),
    }
}

/// The reasons of a site's verdict, in one line.
pub(crate) fn why(site: &JudgedSite) -> String {
    site.judgement.why.join("; ")
}

/// The path of a source file. If the file is in the repository, the path is relative to the root directory of
/// the repository.
pub(crate) fn source_path<'a>(file: &'a str, root: &str) -> &'a str {
    let root = root.trim_end_matches('/');
    match file.strip_prefix(root).and_then(|rest| rest.strip_prefix('/')) {
        Some(relative) if !root.is_empty() && !relative.is_empty() => relative,
        _ => file,
    }
}

#[cfg(test)]
mod tests {
    use super::source_path;

    #[test]
    fn only_paths_below_the_root_are_relative() {
        assert_eq!(source_path("/src/a/b.c", "/src/"), "a/b.c");
        assert_eq!(source_path("/srcs/b.c", "/src"), "/srcs/b.c");
        assert_eq!(source_path("b.c", "/src"), "b.c");
        assert_eq!(source_path("/a.c", ""), "/a.c");
    }
}
