//! The artificial leak of `--inject-leak`. edleak adds the leak only to the counters and allocates no memory,
//! so that a user can test whether a leak makes a check fail.

use edleak_format::{Counters, SiteId};

/// The artificial leak of `--inject-leak`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Injected {
    /// The site that stands for the artificial leak in the trace.
    pub(crate) site: SiteId,
    /// The growth rate of the artificial leak, in bytes per second.
    pub(crate) bytes_per_s: f64,
}

impl Injected {
    /// Size in bytes of each allocation that the artificial leak counts.
    const SIZE: u64 = 64;

    /// The counters of the leak `elapsed_ns` after the start of the recording. The injected leak never frees.
    pub(crate) fn counters(self, elapsed_ns: u64) -> Counters {
        let allocs = (self.bytes_per_s * elapsed_ns as f64 / 1e9) as u64 / Injected::SIZE;
        Counters { allocs, allocated_bytes: allocs.saturating_mul(Injected::SIZE), ..Counters::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_injected_leak_grows_by_its_rate_in_whole_allocations() {
        let injected = Injected { site: SiteId(0), bytes_per_s: 1000.0 };
        let at = |ms: u64| injected.counters(ms * 1_000_000);
        assert_eq!(at(0), Counters::ZERO);
        assert_eq!(at(63), Counters::ZERO);
        assert_eq!((at(64).allocs, at(64).live_bytes()), (1, 64));
        assert_eq!((at(60_000).allocs, at(60_000).live_bytes()), (937, 937 * 64));
        let absurd = Injected { bytes_per_s: f64::MAX, ..injected };
        assert!(absurd.counters(u64::MAX).allocated_bytes >= 1 << 60);
    }
}
