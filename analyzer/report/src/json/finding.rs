//! JSON: a finding, which is one leak. Several places in the code may belong to the same leak.

use crate::json::place::{FrameJson, LabelJson};
use crate::json::words::confidence_name;
use crate::why_of;
use edleak_analysis::finding::{Finding, Together};
use edleak_analysis::group::Group;
use serde::Serialize;

/// One leak, with all places in the code that belong to it. In the text report, each finding has a number.
#[derive(Serialize)]
pub(super) struct FindingJson<'a> {
    name: String,
    /// `step`: the finding has several places in the code, which grow at the same instants. Null: the finding
    /// has only one place.
    together: Option<&'static str>,
    /// The innermost function that is in the stacks of all parts. Null: no such function is known, or the
    /// finding has only one part.
    below: Option<FrameJson<'a>>,
    headline: Option<FrameJson<'a>>,
    class: &'static str,
    confidence: Option<&'static str>,
    standing: &'static str,
    why: String,
    leak_bytes: u64,
    leak_count: Option<u64>,
    rate_bytes_per_s: f64,
    began_s: f64,
    freed_at_end: bool,
    fingerprint: String,
    parts: Vec<PartJson<'a>>,
}

/// A part of a finding: one place in the code.
#[derive(Serialize)]
struct PartJson<'a> {
    name: String,
    headline: Option<FrameJson<'a>>,
    /// The label of the site: the function that calls malloc.
    site: LabelJson<'a>,
    /// The recorded stacks of this site that leaked.
    stacks: Vec<LabelJson<'a>>,
    share: f64,
    leak_bytes: u64,
    leak_count: Option<u64>,
    rate_bytes_per_s: f64,
}

impl<'a> FindingJson<'a> {
    pub(super) fn of(finding: &Finding<'a>) -> Self {
        let lead = finding.lead();
        // If the number of bytes is too large for a `u64`, the cast gives the greatest `u64`.
        let bytes = |bytes: f64| bytes.round() as u64;
        let part = |part: &Group<'a>| PartJson {
            name: part.name(),
            headline: part.headline().map(FrameJson::of),
            site: (&part.site.label).into(),
            stacks: part.shares.iter().filter_map(|share| Some((&share.site?.label).into())).collect(),
            share: part.leak_bytes / finding.leak_bytes().max(1.0),
            leak_bytes: bytes(part.leak_bytes),
            leak_count: part.leak_count,
            rate_bytes_per_s: part.rate_bytes_per_s,
        };
        Self {
            name: finding.name(),
            together: finding.together.map(|_| "step"),
            below: match finding.together {
                Some(Together::Below(frame)) => Some(FrameJson::of(frame)),
                _ => None,
            },
            headline: finding.headline().map(FrameJson::of),
            class: lead.judgement.class.name(),
            confidence: lead.judgement.confidence.map(confidence_name),
            standing: lead.standing.as_str(),
            why: why_of(finding),
            leak_bytes: bytes(finding.leak_bytes()),
            leak_count: finding.leak_count(),
            rate_bytes_per_s: finding.rate_bytes_per_s(),
            began_s: finding.began_s(),
            freed_at_end: finding.is_freed_at_end(),
            fingerprint: finding.fingerprint(),
            parts: finding.parts.iter().map(part).collect(),
        }
    }
}
