//! A list of buckets that takes four bytes per number as long as all its numbers fit into four bytes, and
//! eight bytes per number otherwise.
//!
//! When edleak-analyze reads a trace, buckets take most of its memory, so they must be small. Four bytes
//! per number nearly always suffice, because almost no site has a sum of 4 GiB or more in one bucket.

use super::bucket::{Bucket, Extent};

/// A bucket with four bytes per number: the sum, the least and the greatest value of the live bytes, and then
/// the sum, the least and the greatest value of the live count.
pub type Narrow = [u32; 6];

/// A list of buckets in order of time.
#[derive(Clone, Debug)]
pub enum Packed {
    /// Buckets with four bytes per number.
    Narrow(Vec<Narrow>),
    /// Buckets with eight bytes per number.
    Wide(Vec<Bucket>),
}

impl Default for Packed {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl Packed {
    /// Number of buckets.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Narrow(row) => row.len(),
            Self::Wide(row) => row.len(),
        }
    }

    /// The bucket with this index.
    ///
    /// # Panics
    /// Panics if there is no bucket with this index.
    #[inline]
    pub(crate) fn get(&self, index: usize) -> Bucket {
        match self {
            Self::Narrow(row) => widened(&row[index]),
            Self::Wide(row) => row[index],
        }
    }

    /// Replaces the bucket with this index.
    ///
    /// # Panics
    /// Panics if there is no bucket with this index.
    pub(crate) fn set(&mut self, index: usize, bucket: Bucket) {
        match (&mut *self, narrowed(&bucket)) {
            (Self::Narrow(row), Some(narrow)) => row[index] = narrow,
            (Self::Wide(row), _) => row[index] = bucket,
            (Self::Narrow(_), None) => self.widen()[index] = bucket,
        }
    }

    /// Appends a bucket.
    #[inline]
    pub fn push(&mut self, bucket: Bucket) {
        match (&mut *self, narrowed(&bucket)) {
            (Self::Narrow(row), Some(narrow)) => row.push(narrow),
            (Self::Wide(row), _) => row.push(bucket),
            (Self::Narrow(_), None) => self.widen().push(bucket),
        }
    }

    /// Removes all buckets after the first `buckets` buckets.
    pub(crate) fn truncate(&mut self, buckets: usize) {
        match self {
            Self::Narrow(row) => row.truncate(buckets),
            Self::Wide(row) => row.truncate(buckets),
        }
    }

    #[cold]
    fn widen(&mut self) -> &mut Vec<Bucket> {
        if let Self::Narrow(row) = self {
            let mut wide = Vec::with_capacity(row.capacity());
            wide.extend(row.iter().map(widened));
            *self = Self::Wide(wide);
        }
        match self {
            Self::Wide(row) => row,
            Self::Narrow(_) => unreachable!("it was just made wide"),
        }
    }
}

/// Converts a bucket from four bytes per number to eight bytes per number.
#[inline]
pub fn widened(&[sum, min, max, count_sum, count_min, count_max]: &Narrow) -> Bucket {
    let extent = |sum, min, max| Extent { sum: u64::from(sum), min: u64::from(min), max: u64::from(max) };
    Bucket { bytes: extent(sum, min, max), count: extent(count_sum, count_min, count_max) }
}

/// Converts a bucket from eight bytes per number to four bytes per number; `None`: a number does not fit in
/// four bytes.
#[inline]
pub fn narrowed(bucket: &Bucket) -> Option<Narrow> {
    let Bucket { bytes, count } = bucket;
    let all = [bytes.sum, bytes.min, bytes.max, count.sum, count.min, count.max];
    let bits = all.iter().fold(0, |bits, number| bits | number);
    (bits >> 32 == 0).then(|| all.map(|number| number as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_great_number_changes_none_of_the_others() {
        let bucket = |n: u64| Bucket {
            bytes: Extent { sum: 32 * n, min: n, max: n + 1 },
            count: Extent { sum: 7, min: 0, max: 3 },
        };
        let numbers = [0, 5, 1 << 26, 1 << 27, 9, u64::MAX >> 6];
        let (mut pushed, mut set) = (Packed::default(), Packed::default());
        numbers.iter().for_each(|_| set.push(bucket(1)));
        for (index, &n) in numbers.iter().enumerate() {
            pushed.push(bucket(n));
            set.set(index, bucket(n));
        }
        for (index, &n) in numbers.iter().enumerate() {
            assert_eq!((pushed.get(index), set.get(index)), (bucket(n), bucket(n)));
        }
        assert!(matches!(pushed, Packed::Wide(_)) && matches!(set, Packed::Wide(_)));
    }
}
