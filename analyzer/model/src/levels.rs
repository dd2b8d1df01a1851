//! The curve of the live bytes of one site, in a small form from which a chart of any width can be drawn.

use crate::series::Series;

/// The curve of live bytes: the mean of each bucket of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Levels {
    /// Number of slices before the site was first seen.
    absent: u64,
    /// Number of slices since the site was first seen.
    points: u64,
    /// Number of slices per bucket; the last bucket may have fewer slices.
    width: u64,
    /// The mean of the live bytes in each bucket; the list has only one mean if the live bytes never changed.
    means: Box<[f64]>,
}

impl Levels {
    /// The live bytes of `series`.
    pub fn of(series: &Series) -> Self {
        let (absent, points) = (series.absent(), series.points());
        let Some(buckets) = series.buckets() else {
            let means = (points > 0).then_some(series.last().live_bytes as f64).into_iter().collect();
            return Self { absent, points, width: u64::MAX, means };
        };
        let last = buckets.all().len() - 1;
        let mean = |(index, bucket): (usize, crate::bucket::Bucket)| {
            let slices = if index == last { buckets.filled() } else { buckets.width() };
            bucket.bytes.sum as f64 / slices as f64
        };
        Self { absent, points, width: buckets.width(), means: buckets.all().enumerate().map(mean).collect() }
    }

    /// Live bytes at `columns` equally spaced instants of the record; 0 before the site was first seen. The
    /// last column shows the last bucket. If the series has no slice, the list is empty.
    pub fn at(&self, columns: usize) -> Vec<f64> {
        let Some(last) = self.means.len().checked_sub(1) else { return Vec::new() };
        let record = u128::from(self.absent) + u128::from(self.points);
        let level_at = |column: usize| {
            if column + 1 == columns {
                return self.means[last];
            }
            let slice = column as u128 * record / columns as u128;
            let Some(point) = slice.checked_sub(u128::from(self.absent)) else { return 0.0 };
            let bucket = usize::try_from(point / u128::from(self.width)).unwrap_or(last);
            self.means[bucket.min(last)]
        };
        (0..columns).map(level_at).collect()
    }

    /// Live bytes at the beginning of the record.
    pub fn first(&self) -> f64 {
        if self.absent > 0 { 0.0 } else { self.means.first().copied().unwrap_or(0.0) }
    }

    /// Live bytes at the end of the judged part of the record.
    pub fn last(&self) -> f64 {
        self.means.last().copied().unwrap_or(0.0)
    }

    /// The greatest of the means of all buckets; 0 if there is no bucket.
    pub fn highest(&self) -> f64 {
        self.means.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Point, SeriesBuilder};

    fn levels(absent: u64, live_bytes: impl IntoIterator<Item = u64>) -> Levels {
        let mut builder = SeriesBuilder::new();
        builder.absent(absent);
        for live_bytes in live_bytes {
            builder.push(Point { live_bytes, ..Point::default() });
        }
        Levels::of(&builder.finish())
    }

    #[test]
    fn a_short_series_is_drawn_point_by_point_at_any_width() {
        let levels = levels(0, [10, 20, 30, 40]);
        assert_eq!(levels.at(4), [10.0, 20.0, 30.0, 40.0]);
        assert_eq!(levels.at(8), [10.0, 10.0, 20.0, 20.0, 30.0, 30.0, 40.0, 40.0]);
        assert_eq!(levels.at(2), [10.0, 40.0]);
        assert_eq!(levels.at(1), [40.0]);
        assert_eq!((levels.first(), levels.last(), levels.highest()), (10.0, 40.0, 40.0));
    }

    #[test]
    fn a_site_that_came_late_has_nothing_before() {
        let levels = levels(4, [8, 16, 24, 32]);
        assert_eq!(levels.at(8), [0.0, 0.0, 0.0, 0.0, 8.0, 16.0, 24.0, 32.0]);
        assert_eq!(levels.first(), 0.0);
    }

    #[test]
    fn a_flat_site_and_one_without_a_slice_have_a_level() {
        assert_eq!(levels(0, [7; 1000]).at(3), [7.0; 3]);
        assert_eq!(levels(0, []).at(3), [0.0; 0]);
        assert_eq!((levels(0, []).first(), levels(0, []).last()), (0.0, 0.0));
    }

    #[test]
    fn a_long_series_keeps_the_mean_of_its_buckets() {
        let levels = levels(0, 0..100_000);
        for (column, level) in levels.at(50).iter().enumerate().take(49) {
            let exact = column as f64 * 2000.0;
            assert!((level - exact).abs() <= 1024.0, "column {column}: {level}, not {exact}");
        }
        assert!((levels.last() - 99_999.0).abs() <= 1024.0);
    }
}
