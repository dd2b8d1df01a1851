//! Folded stacks for flame graph tools: `main;run;grow 1234`. In each line, the outermost frame comes first,
//! and the number after the stack is the number of leaked bytes.

use super::{Exporter, Report};
use edleak_analysis::site::JudgedSite;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// The exporter of folded stacks.
#[derive(Clone, Copy, Debug)]
pub struct Folded;

impl Exporter for Folded {
    fn export(&self, report: &Report<'_>, out: &mut dyn Write) -> io::Result<()> {
        let mut weights: BTreeMap<String, u64> = BTreeMap::new();
        for analysis in report.analyses {
            for site in report.listed(analysis).into_iter().filter(|site| site.judgement.leak_bytes > 0) {
                for (stack, bytes) in analysis.leaked_by_stack(site) {
                    let weight = weights.entry(folded(stack)).or_default();
                    *weight = weight.saturating_add(bytes);
                }
            }
        }
        weights.iter().try_for_each(|(stack, bytes)| writeln!(out, "{stack} {bytes}"))
    }
}

fn folded(site: &JudgedSite) -> String {
    let mut names: Vec<String> = site.frames().map(|frame| clean(&frame.name())).collect();
    if names.is_empty() {
        names.push(clean(&site.name()));
    }
    names.reverse();
    names.join(";")
}

/// Replaces semicolons and line breaks in a name, because a semicolon would end the frame, and a line break
/// would end the stack.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c == ';' || c.is_control() { ':' } else { c }).collect()
}
