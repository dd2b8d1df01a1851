//! How hard a payload is compressed: as hard as the time between two slices allows.
//!
//! What is random in counters is random in single bytes, so most of what is left to gain is not in longer matches but in
//! where zstd begins a new Huffman table. Its optimal parser does that well, and needs a small hash table and few searches
//! for it: 16 % less than level 3 on sites that allocate random sizes, 25 % less on steady ones, at fourteen times the cost.

use std::io;
use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, Strategy};

/// Where slices follow each other closely; costs 4 ns a byte.
const LEVEL: i32 = 3;
/// What the dense way is reckoned to cost, in nanoseconds a byte. (It was 40 to 50; half of the pause is left for the rest.)
const DENSE_NS: u64 = 40;
/// Compressing may take this share of the time to the next slice.
const SHARE: u64 = 2;

/// Compresses payloads into single zstd frames.
pub(crate) struct PayloadCompressor {
    quick: Compressor<'static>,
    dense: Compressor<'static>,
}

impl PayloadCompressor {
    pub(crate) fn new() -> io::Result<PayloadCompressor> {
        let mut dense = Compressor::new(LEVEL)?;
        for parameter in [
            CParameter::Strategy(Strategy::ZSTD_btopt),
            CParameter::HashLog(10),
            CParameter::ChainLog(10),
            CParameter::SearchLog(3),
            CParameter::MinMatch(6),
            CParameter::TargetLength(32),
        ] {
            dense.set_parameter(parameter)?;
        }
        Ok(PayloadCompressor { quick: Compressor::new(LEVEL)?, dense })
    }

    /// Compresses `raw`, when the next slice is due about `pause_ns` after the last one.
    pub(crate) fn compress(&mut self, raw: &[u8], pause_ns: u64) -> io::Result<Vec<u8>> {
        let is_quick = raw.len() as u64 * DENSE_NS > pause_ns / SHARE;
        let way = if is_quick { &mut self.quick } else { &mut self.dense };
        way.compress(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_lead_back_and_time_makes_it_smaller() {
        // Two kinds of bytes, one behind the other, as the planes of two columns are.
        let mut state = 88_172_645_463_325_252u64;
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below) as u8
        };
        let raw: Vec<u8> = (0..200_000).map(|at| if at < 70_000 { random(3) } else { random(200) }).collect();
        let mut compressor = PayloadCompressor::new().expect("memory");
        let quick = compressor.compress(&raw, 0).expect("memory to memory");
        let dense = compressor.compress(&raw, 1_000_000_000).expect("memory to memory");
        for frame in [&quick, &dense] {
            assert_eq!(zstd::bulk::decompress(frame, raw.len()).expect("a frame"), raw);
        }
        assert!(dense.len() < quick.len(), "{} {}", dense.len(), quick.len());
    }
}
