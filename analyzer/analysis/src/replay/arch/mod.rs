//! Chooses the loops of a replay for the processor that runs edleak-analyze. On a machine without its own
//! folder, the plain loops run.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(super) use x86_64::condense;

/// Adds the changes of one window to the series of a range of sites.
#[cfg(not(target_arch = "x86_64"))]
pub(super) fn condense(
    range: &super::window::Range<'_>,
    first_site: usize,
    groups: &mut [super::group::Group],
) -> super::window::Condensed {
    range.condense(first_site, groups)
}
