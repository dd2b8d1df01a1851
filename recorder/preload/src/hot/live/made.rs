//! COLD: the set of the leaves that exist.

use crate::hot::tables::LEAVES;
use core::sync::atomic::{AtomicU64, Ordering};

/// The set of existing leaves: one bit for each leaf in `words`, and one bit in `summary` for each word of
/// `words`. To visit all leaves, the library scans these bits, and not the 16 MiB of the upper level. The
/// library sets the bit of a leaf just before the leaf becomes part of the table, and never clears the bit.
pub(super) struct Made {
    words: [AtomicU64; LEAVES / 64],
    summary: [AtomicU64; LEAVES / 64 / 64],
}

pub(super) static MADE: Made = Made {
    words: [const { AtomicU64::new(0) }; LEAVES / 64],
    summary: [const { AtomicU64::new(0) }; LEAVES / 64 / 64],
};

impl Made {
    pub(super) fn add(&self, region: usize) {
        let word = region / 64;
        self.words[word].fetch_or(1 << (region % 64), Ordering::Relaxed);
        self.summary[word / 64].fetch_or(1 << (word % 64), Ordering::Release);
    }

    pub(super) fn regions(&self) -> impl Iterator<Item = usize> {
        let words = self.summary.iter().enumerate().flat_map(|(at, bits)| ones(at, bits));
        words.flat_map(|word| ones(word, &self.words[word]))
    }
}

/// The numbers of the bits that are set in `bits`. `bits` is word number `at` of an array of 64-bit words,
/// so its first bit has the number 64 · `at`.
fn ones(at: usize, bits: &AtomicU64) -> impl Iterator<Item = usize> + use<> {
    let bits = bits.load(Ordering::Acquire);
    (0..64).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| at * 64 + bit)
}
