//! The limits of site ids.

/// Limit of site ids, as a multiple of the number of sites in the catalog. Site ids have no gaps, so an id
/// far above this number is forged. Such an id would only take memory.
pub(super) const SLACK: usize = 4;
/// The limit of site ids is at least this number: a damaged catalog must not hide slices that are not
/// damaged.
pub(super) const MIN_ID_LIMIT: usize = 1 << 16;
