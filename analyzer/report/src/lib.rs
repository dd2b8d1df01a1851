//! Turns findings into text and into every machine-readable format: one exporter per file, one trait.
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

use edleak_analysis::findings::Findings;
use edleak_analysis::gate::{Outcome, RuleUse, outcome};
use edleak_analysis::load::Recording;
use edleak_analysis::site::{JudgedSite, SiteLabel, Standing};
use edleak_analysis::suppressions::Rule;
use std::collections::HashSet;
use std::io::{self, Write};

/// Number of columns of a site's curve in text and in JSON.
pub(crate) const CURVE_COLUMNS: usize = 40;

/// The data of a report.
#[derive(Debug)]
pub struct Report<'a> {
    /// The judged recordings, in the order in which the user gave them.
    pub analyses: &'a [Findings],
    /// The recordings themselves, for exporters that print their numbers.
    pub recordings: &'a [Recording],
    /// The rules of the suppressions, by their index.
    pub rules: &'a [Rule],
    /// The effect of each rule.
    pub rule_uses: Vec<RuleUse>,
    /// Maximum number of sites to list of each recording.
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
    /// The rules with the effect `wanted`.
    pub fn rules_that_are(&self, wanted: RuleUse) -> impl Iterator<Item = &Rule> {
        self.rules.iter().zip(&self.rule_uses).filter(move |(_, is)| **is == wanted).map(|(rule, _)| rule)
    }

    /// The result of all recordings together for the build.
    pub fn outcome(&self) -> Outcome {
        self.analyses.iter().map(outcome).max().unwrap_or(Outcome::Undecided)
    }

    /// The sites to list, in order.
    pub fn listed<'a>(&self, analysis: &'a Findings) -> impl Iterator<Item = &'a JudgedSite> + Clone {
        let is_listed = |site: &&JudgedSite| {
            matches!(site.standing, Standing::Reported | Standing::Tolerated | Standing::Shown)
        };
        analysis.sites.iter().filter(is_listed).take(self.top.unwrap_or(usize::MAX))
    }

    /// The sites to list, in order. A site that was judged together with its stacks is followed by the stacks
    /// that have a share in the leak.
    pub fn with_parts<'a>(&self, analysis: &'a Findings) -> impl Iterator<Item = &'a JudgedSite> {
        let listed: HashSet<&SiteLabel> = self.listed(analysis).map(|site| &site.label).collect();
        let parts = move |site: &'a JudgedSite| {
            let mut parts = analysis.parts_of(site);
            parts.retain(|part| !listed.contains(&part.label));
            std::iter::once(site).chain(parts)
        };
        self.listed(analysis).flat_map(parts)
    }

    /// The leaks that fail the gate, in order.
    pub fn reported<'a>(&self, analysis: &'a Findings) -> impl Iterator<Item = &'a JudgedSite> + Clone {
        self.listed(analysis).filter(|site| site.standing == Standing::Reported)
    }
}

/// The stacks of a leak, each with a heading. If a leak was not judged together with its stacks, it has a
/// single stack without a heading.
pub(crate) fn stacks_of<'a>(
    analysis: &'a Findings,
    site: &'a JudgedSite,
) -> Vec<(Option<String>, &'a JudgedSite)> {
    let parts = analysis.parts_of(site);
    if parts.is_empty() {
        return vec![(None, site)];
    }
    let heading =
        |part: &JudgedSite| format!("{:.0} % of the leaked bytes:", 100.0 * part.leak_share.unwrap_or(0.0));
    parts.into_iter().map(|part| (Some(heading(part)), part)).collect()
}

/// The stacks of a leak, one line per frame. Each line begins with a line break.
pub(crate) fn stack_text(analysis: &Findings, site: &JudgedSite) -> String {
    let mut text = String::new();
    for (heading, stack) in stacks_of(analysis, site) {
        if let Some(heading) = heading {
            text += &format!("\n{heading}");
        }
        for frame in stack.frames() {
            let place = frame.place().map_or_else(String::new, |(file, line)| format!(" at {file}:{line}"));
            text += &format!("\n{}{place}", frame.name());
        }
    }
    text
}

/// The reasons of a site's verdict, in one line.
pub(crate) fn why(site: &JudgedSite) -> String {
    site.judgement.why.join("; ")
}

/// The path of a source file, relative to the root of the repository if the file lies below it.
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
