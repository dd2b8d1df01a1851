//! The limits for site ids: a site id above the limit is forged.

/// The limit for site ids is this number times the number of sites in the catalog. Site ids have no gaps, so
/// an id above the limit is forged, and a list with an entry for each id up to the forged id would waste
/// memory.
pub(super) const SLACK: usize = 4;
/// The limit for site ids is never below this number, so that undamaged slices can be read even if a damaged
/// catalog has too few sites.
pub(super) const MIN_ID_LIMIT: usize = 1 << 16;
