//! The finished buckets of neighbouring sites, stored in rows: row k contains, for each site of the group,
//! the bucket with index k.
//!
//! The sites of a group finish their buckets at nearly the same time. So when a site writes its bucket into a
//! row, the row is usually still in the processor's cache, because another site of the group has just written
//! to it. Each group of sites allocates the memory for all its rows at once. A site whose live bytes and live
//! count never change stores no bucket in the rows. If no site of a group ever changes, the group has no
//! rows.

use edleak_format::GROUP_SITES;
use edleak_model::bucket::{Bucket, Extent};
use edleak_model::packed::{Narrow, Packed, narrowed, widened};

/// The rows of one group.
#[derive(Clone, Debug, Default)]
pub(super) struct BucketRows {
    rows: Vec<[Narrow; GROUP_SITES]>,
}

/// The state of one site: its position in the rows, and the number and the values of its finished buckets.
#[derive(Clone, Debug)]
pub(super) struct Place {
    lane: usize,
    /// Number of finished buckets.
    closed: u32,
    /// The live bytes and the live count of the site, if they had the same values in all finished buckets.
    /// While this field is not `None`, the rows do not contain the buckets of this site.
    flat: Option<(u64, u64)>,
    /// All finished buckets of the site, if at least one of them has a number of more than four bytes, which
    /// does not fit into a row.
    wide: Option<Box<Packed>>,
}

impl Place {
    pub(super) const fn new(lane: usize) -> Self {
        Self { lane, closed: 0, flat: None, wide: None }
    }

    pub(super) fn closed(&self) -> u32 {
        self.closed
    }

    /// Whether live bytes and live count stayed constant in this bucket and in all buckets before it.
    #[inline]
    pub(super) fn stays_flat(&self, bucket: &Bucket) -> bool {
        let Bucket { bytes, count } = bucket;
        (bytes.min, count.min) == (bytes.max, count.max)
            && (self.closed == 0 || self.flat == Some((bytes.min, count.min)))
    }
}

impl BucketRows {
    /// Adds the next finished bucket of a site to the rows. Each bucket covers `width` points, and no site of
    /// the group will have more than `most` buckets.
    #[inline]
    pub(super) fn put(&mut self, place: &mut Place, bucket: &Bucket, width: u32, most: u32) {
        if place.stays_flat(bucket) {
            place.flat = Some((bucket.bytes.min, bucket.count.min));
        } else {
            if let Some(flat) = place.flat.take() {
                self.unfold(place, flat, width, most);
            }
            self.set(place, place.closed as usize, bucket, most);
        }
        place.closed += 1;
    }

    /// Writes the finished buckets of a site whose values were constant so far into the rows.
    #[cold]
    fn unfold(&mut self, place: &mut Place, (bytes, count): (u64, u64), width: u32, most: u32) {
        let of = |value| {
            let mut extent = Extent::EMPTY;
            extent.add_run(value, u64::from(width));
            extent
        };
        let flat = Bucket { bytes: of(bytes), count: of(count) };
        for index in 0..place.closed as usize {
            self.set(place, index, &flat, most);
        }
    }

    #[inline]
    fn set(&mut self, place: &mut Place, index: usize, bucket: &Bucket, most: u32) {
        match (&mut place.wide, narrowed(bucket)) {
            (None, Some(narrow)) => {
                if index >= self.rows.len() {
                    if self.rows.is_empty() {
                        self.rows.reserve_exact(most as usize);
                    }
                    self.rows.resize(index + 1, [[0; 6]; GROUP_SITES]);
                }
                self.rows[index][place.lane] = narrow;
            }
            (Some(wide), _) => wide.push(*bucket),
            (None, None) => {
                let mut wide = Packed::default();
                self.rows.iter().take(index).for_each(|row| wide.push(widened(&row[place.lane])));
                wide.push(*bucket);
                place.wide = Some(Box::new(wide));
            }
        }
    }

    /// All buckets of a site, including the bucket that is not finished yet; `None`: live bytes and live
    /// count never changed.
    pub(super) fn take(&self, place: Place, open: &Bucket, width: u32) -> Option<Packed> {
        if place.stays_flat(open) {
            return None;
        }
        let mut bucket_rows = Self::default();
        let (lane, closed) = (place.lane, place.closed as usize);
        let mut packed = match (place.flat, place.wide) {
            (Some(flat), _) => {
                let mut place = Place { lane: 0, closed: place.closed, flat: None, wide: None };
                bucket_rows.unfold(&mut place, flat, width, closed as u32);
                match place.wide {
                    Some(wide) => *wide,
                    None => Packed::Narrow(bucket_rows.rows.iter().map(|row| row[0]).collect()),
                }
            }
            (None, Some(wide)) => *wide,
            (None, None) => {
                let mut row = Vec::with_capacity(closed + 1);
                row.extend(self.rows.iter().take(closed).map(|row| row[lane]));
                Packed::Narrow(row)
            }
        };
        packed.push(*open);
        Some(packed)
    }
}
