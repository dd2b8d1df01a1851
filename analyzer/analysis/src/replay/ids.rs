//! The limits of site ids.

/// Site ids are dense. An id far beyond the catalog is forged; it would only cost memory.
pub(super) const SLACK: usize = 4;
/// Least limit of site ids: a damaged catalog must not hide the slices of a sound trace.
pub(super) const MIN_ID_LIMIT: usize = 1 << 16;
