//! JSON: the words for verdicts and for the confidence of a verdict.

use edleak_model::classify::{Confidence, Verdict};

pub(super) fn confidence_name(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Suspect => "suspect",
        Confidence::Strict => "strict",
    }
}

/// The word that stands for a verdict in JSON.
pub(crate) fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Leak => "leak",
        Verdict::NoLeak => "no-leak",
        Verdict::Undecided => "undecided",
    }
}
