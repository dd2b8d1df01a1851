//! Folded stacks: `main;run;grow 1234`, outermost first, weighted by leaked bytes. What flame graph tools read.

use super::{Exporter, Report};
use edleak_analysis::analysis::{Analysis, JudgedSite};
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The exporter of folded stacks.
#[derive(Clone, Copy, Debug)]
pub struct Folded;

impl Exporter for Folded {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut weights: BTreeMap<String, u64> = BTreeMap::new();
        for analysis in report.analyses {
            for site in report.listed(analysis).filter(|site| site.judgement.leak_bytes > 0) {
                for (stack, bytes) in weighted(analysis, site) {
                    let weight = weights.entry(folded(stack)).or_default();
                    *weight = weight.saturating_add(bytes);
                }
            }
        }
        weights.iter().try_for_each(|(stack, bytes)| writeln!(out, "{stack} {bytes}"))
    }
}

/// The site, or, where it was judged together with its stacks, they: by their share of the leaked bytes.
fn weighted<'a>(analysis: &'a Analysis, site: &'a JudgedSite) -> Vec<(&'a JudgedSite, u64)> {
    let bytes = site.judgement.leak_bytes;
    let parts = analysis.parts_of(site);
    if parts.is_empty() {
        return vec![(site, bytes)];
    }
    // The shares are of what all of them grew by; a float to integer cast saturates.
    let share = |part: &JudgedSite| (part.leak_share.unwrap_or(0.0) * bytes as f64).round() as u64;
    let mut all: Vec<_> = parts.into_iter().map(|part| (part, share(part))).collect();
    // What it allocated while it was not watched is its own; the shares are rounded, a byte each.
    let rest = bytes.saturating_sub(all.iter().map(|(_, bytes)| bytes).sum());
    if rest > all.len() as u64 {
        all.push((site, rest));
    }
    all.retain(|(_, bytes)| *bytes > 0);
    all
}

fn folded(site: &JudgedSite) -> String {
    let mut names: Vec<String> = site.frames().map(|frame| clean(&frame.name())).collect();
    if names.is_empty() {
        names.push(clean(&site.name()));
    }
    names.reverse();
    names.join(";")
}

/// A semicolon would end the frame, a line break the stack.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { ':' } else { c }).collect()
}
