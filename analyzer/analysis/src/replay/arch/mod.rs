//! Chooses the fastest version of the replay's loops for the processor on which edleak-analyze runs. For a
//! processor architecture without a file in this folder, the replay uses the loops of `window.rs`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::condense;

/// Adds the changes of one window (several decompressed blocks) to the series of a range of sites.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn condense(
    range: &super::window::Range<'_>,
    first_site: usize,
    groups: &mut [super::group::Group],
) -> super::window::Condensed {
    range.condense(first_site, groups)
}
