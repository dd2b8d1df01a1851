//! Computes the memory that an allocator holds in addition to the requested bytes. For a small allocation,
//! the additional memory may be more than the requested bytes.

use crate::series::Series;

/// glibc's malloc adds 8 bytes to each allocation, rounds up to a multiple of 16, and takes at least 32
/// bytes. Other allocators hold about the same additional memory as glibc's malloc.
fn held_bytes(asked: f64) -> f64 {
    const BESIDE: f64 = 8.0;
    const STEP: f64 = 16.0;
    const LEAST: f64 = 32.0;
    (((asked + BESIDE) / STEP).ceil() * STEP).max(LEAST)
}

/// The number of bytes by which the allocator's additional memory grew from the first eighth of a series to
/// its end.
pub fn growth_beyond_asked(series: &Series) -> f64 {
    let Some(buckets) = series.buckets() else { return 0.0 };
    let beyond = |index: usize| {
        let bucket = buckets.at(index);
        let (bytes, count) = (bucket.bytes.max as f64, bucket.count.max as f64);
        if count > 0.0 { count * (held_bytes(bytes / count) - bytes / count) } else { 0.0 }
    };
    let last = buckets.all().len() - 1;
    let first = if series.absent() > 0 { 0.0 } else { beyond(last / 8) };
    (beyond(last) - first).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::{Point, SeriesBuilder};

    fn grown(bytes: u64) -> f64 {
        let mut builder = SeriesBuilder::new();
        builder.absent(1);
        for count in 1..=100 {
            builder.push(Point { live_bytes: bytes * count, live_count: count, allocs: count, frees: 0 });
        }
        growth_beyond_asked(&builder.finish())
    }

    #[test]
    fn small_allocations_take_more_than_they_ask_for() {
        assert_eq!([0, 1, 24, 25, 40, 1000].map(grown), [3200.0, 3100.0, 800.0, 2300.0, 800.0, 800.0]);
        assert_eq!(growth_beyond_asked(&Series::default()), 0.0);
    }
}
