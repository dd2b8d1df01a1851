//! The limits of site ids.

/// Limit of site ids, as a multiple of the number of sites in the catalog. Site ids have no gaps, so an id
/// above this limit is forged, and accepting it would only waste memory.
pub(super) const SLACK: usize = 4;
/// The limit of site ids is never below this number. If the catalog is damaged and has too few sites,
/// undamaged slices must still be readable.
pub(super) const MIN_ID_LIMIT: usize = 1 << 16;
