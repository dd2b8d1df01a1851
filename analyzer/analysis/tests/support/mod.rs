//! Simulates sites for tests. The simulator is independent of the labelled corpus: it has its own code, its
//! own parameters and its own definitions of the mechanisms.

mod families;
mod harder;
mod world;

use edleak_analysis::score::Case;
pub(crate) use families::{Family, KNOWN, UNSEEN};
pub(crate) use harder::HARDER;
use rayon::prelude::*;
use world::World;

/// Simulates `each` records of every mechanism. The records of one mechanism differ in length and noise: all
/// lengths with noise 0 come first, then all lengths with noise 1, and so on.
pub(crate) fn simulate(families: &[Family], lengths: &[usize], each: usize, seed: u64) -> Vec<Case> {
    let work: Vec<(usize, usize)> =
        (0..families.len()).flat_map(|f| (0..each).map(move |k| (f, k))).collect();
    work.par_iter()
        .map(|&(f, k)| {
            let (name, leaks, shape, fill) = families[f];
            let seed = seed.wrapping_add((f * 1_000_003 + k) as u64);
            let mut world = World::new(seed, lengths[k % lengths.len()], k / lengths.len() % 3);
            fill(&mut world);
            world.record(format!("{name}-{k}"), name, leaks, shape)
        })
        .collect()
}
