//! Chooses the loops of a replay for the machine that runs edleak-analyze. A machine without its own folder
//! uses the plain loops.

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
