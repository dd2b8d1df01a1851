//! Computes the time until the memory of the process reaches a round size, if all leaks continue at the same
//! rate.

use crate::analysis::Analysis;

/// The round sizes that the report may name.
const SIZES: [u64; 12] = [
    16 << 20,
    64 << 20,
    256 << 20,
    1 << 30,
    4 << 30,
    16 << 30,
    64 << 30,
    256 << 30,
    1 << 40,
    4 << 40,
    16 << 40,
    64 << 40,
];
/// The round size is at least this number of times the memory that the process holds at the end of the
/// record. The process would soon reach a smaller size, so a prediction for a smaller size would not help the
/// user.
const LEAST_FACTOR: u64 = 2;
/// Longest predicted time in seconds: ten years. A prediction from the present rate for more than ten years
/// would be worthless.
const MOST_SECONDS: f64 = 10.0 * 365.0 * 86400.0;

/// The next round size, and the time until the memory of the process reaches it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Outlook {
    /// The memory of the process at the end of the record: resident and swapped bytes, or live bytes if
    /// resident bytes were not recorded.
    pub holds_bytes: u64,
    /// The round size.
    pub reaches_bytes: u64,
    /// Seconds from the end of the record until the memory of the process reaches the round size.
    pub in_s: f64,
}

impl Outlook {
    /// Predicts the growth of the process for a leak rate of `rate_bytes_per_s`. `None`: nothing leaks, or
    /// the process does not reach the round size within ten years.
    pub fn of(analysis: &Analysis, rate_bytes_per_s: f64) -> Option<Self> {
        let growth = &analysis.growth;
        let holds_bytes = growth.resident_to_bytes.max(growth.live_to_bytes).max(analysis.summary.live_bytes);
        Self::from(holds_bytes, rate_bytes_per_s)
    }

    fn from(holds_bytes: u64, rate_bytes_per_s: f64) -> Option<Self> {
        let least = holds_bytes.saturating_mul(LEAST_FACTOR);
        let reaches_bytes = SIZES.into_iter().find(|&size| size >= least)?;
        let in_s = (reaches_bytes - holds_bytes) as f64 / rate_bytes_per_s;
        (rate_bytes_per_s > 0.0 && in_s <= MOST_SECONDS).then_some(Self { holds_bytes, reaches_bytes, in_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_round_size_is_at_least_twice_what_is_held() {
        let outlook =
            |holds, rate| Outlook::from(holds, rate).map(|outlook| (outlook.reaches_bytes, outlook.in_s));
        assert_eq!(outlook(0, 1024.0), Some((16 << 20, 16384.0)));
        assert_eq!(outlook(200 << 20, 1024.0 * 1024.0), Some((1 << 30, 824.0)));
        assert_eq!(outlook(1 << 30, 0.0), None);
        assert_eq!(outlook(1 << 30, 1.0), None);
        assert_eq!(outlook(u64::MAX, 1e12), None);
    }
}
