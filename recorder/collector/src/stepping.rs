//! Which return addresses are stepped over: the wrapper ranges of every module, published to the target.

use crate::modules::Loaded;
use crate::shm::Session;

/// The wrapper ranges of one target.
#[derive(Clone, Debug, Default)]
pub struct Stepping {
    ranges: Vec<(u64, u64)>,
}

impl Stepping {
    /// Publishes the wrapper ranges of modules that were not there before.
    pub fn publish(&mut self, _session: &Session, _modules: &[Loaded]) {}

    /// Whether allocations from this return address are stepped over.
    pub fn steps_over(&self, _session: &Session, address: u64) -> bool {
        self.ranges.iter().any(|&(start, end)| start < address && address <= end)
    }
}
