//! Facts about a process that already ran when its recording began: its age and its size at that time, and
//! samples of its later frees. Each sample tells how many allocations from the time before the recording the
//! process has freed so far.

use crate::sys::process;
use edleak_format::{Attached, EarlierFrees};

/// Maximum number of samples of the number of freed early allocations. The time between two samples is at
/// least 1/16 of the time since the start of the recording.
const MOST: usize = 64;

/// The state of a process whose recording begins now.
pub(super) fn begin(pid: u32) -> Attached {
    let resident_bytes = process::read_status(pid).map_or(0, |status| status.size.rss_anon_bytes);
    let age_ns = process::age(pid).map_or(0, |age| age.as_nanos() as u64);
    Attached { age_ns, resident_bytes, earlier_frees: Vec::new() }
}

/// Adds `sample` to `samples` if a sample is due or if `is_last` is true. Returns whether the function has
/// added the sample.
pub(super) fn add(samples: &mut Vec<EarlierFrees>, sample: EarlierFrees, is_last: bool) -> bool {
    let is_due = samples.last().is_none_or(|last| sample.at_ns > last.at_ns + last.at_ns / 16);
    if !is_due && !is_last {
        return false;
    }
    if samples.len() >= MOST {
        let mut index = 0;
        samples.retain(|_| {
            index += 1;
            index % 2 == 0
        });
    }
    samples.push(sample);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_a_long_recording_are_few_and_end_with_the_last() {
        let mut samples = Vec::new();
        let sample = |at_ns: u64| EarlierFrees { at_ns, frees: at_ns / 2 };
        let added = (0..1_000_000).filter(|&at_ns| add(&mut samples, sample(at_ns), false)).count();
        assert!((MOST..300).contains(&added), "{added}");
        assert!(samples.len() <= MOST && samples.is_sorted_by_key(|sample| sample.at_ns));
        assert!(samples.iter().any(|sample| (400_000..500_000).contains(&sample.at_ns)), "near the middle");
        assert!(!add(&mut samples, sample(1_000_001), false) || samples.len() <= MOST);
        assert!(add(&mut samples, sample(1_000_002), true));
        assert_eq!(samples.last(), Some(&sample(1_000_002)));
    }
}
