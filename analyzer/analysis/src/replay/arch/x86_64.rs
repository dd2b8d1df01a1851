//! The loops of a replay compiled for AVX2 and AVX-512. At run time, edleak-analyze chooses the version with
//! the widest registers that the processor has.
#![allow(unsafe_code)] // calls functions for CPU features that were detected before

use crate::replay::group::Group;
use crate::replay::window::{Condensed, Range};

/// Adds the slices of a window (several decompressed blocks) to the series of a range of sites, with the
/// widest registers that this machine has.
pub(crate) fn condense(range: &Range<'_>, first_site: usize, groups: &mut [Group]) -> Condensed {
    if is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
    {
        // SAFETY: the detection above shows that this machine has the features that the function needs.
        return unsafe { condense_avx512(range, first_site, groups) };
    }
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the detection above shows that this machine has AVX2.
        return unsafe { condense_avx2(range, first_site, groups) };
    }
    range.condense(first_site, groups)
}

#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl")]
fn condense_avx512(range: &Range<'_>, first_site: usize, groups: &mut [Group]) -> Condensed {
    range.condense(first_site, groups)
}

#[target_feature(enable = "avx2")]
fn condense_avx2(range: &Range<'_>, first_site: usize, groups: &mut [Group]) -> Condensed {
    range.condense(first_site, groups)
}
