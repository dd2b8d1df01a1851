//! The counters of one site at the instants of a history, packed as differences. A difference is stored only
//! for an instant at which a counter changed.
//!
//! | field | meaning |
//! |---|---|
//! | skip | number of instants since the last change, minus one; for the first change, the instant's index |
//! | allocated bytes, freed bytes, allocations, frees | the increase since the last change |
//!
//! Each field is a LEB128 number. The four counters of a site never fall in a normal trace. If a hostile
//! target makes a counter fall, the history keeps the higher value. A browser reads the packed numbers as
//! doubles, so no number exceeds 2⁵³ − 1.

use edleak_format::Counters;

/// The greatest number in a history: a double can store every integer up to 2⁵³ − 1 without an error.
const MOST: u64 = (1 << 53) - 1;

/// The counters of one site at the instants.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Packed(Box<[u8]>);

/// Packs counters one instant at a time.
#[derive(Clone, Default, Debug)]
pub(crate) struct PackedBuilder {
    bytes: Vec<u8>,
    next: usize,
    last: Counters,
}

impl PackedBuilder {
    /// Adds the counters at `instant`, which must come after all instants added before.
    pub(crate) fn push(&mut self, instant: usize, counters: &Counters) {
        let counters = Counters {
            allocated_bytes: counters.allocated_bytes.clamp(self.last.allocated_bytes, MOST),
            freed_bytes: counters.freed_bytes.clamp(self.last.freed_bytes, MOST),
            allocs: counters.allocs.clamp(self.last.allocs, MOST),
            frees: counters.frees.clamp(self.last.frees, MOST),
        };
        if counters == self.last {
            return;
        }
        put(&mut self.bytes, instant.saturating_sub(self.next) as u64);
        put(&mut self.bytes, counters.allocated_bytes - self.last.allocated_bytes);
        put(&mut self.bytes, counters.freed_bytes - self.last.freed_bytes);
        put(&mut self.bytes, counters.allocs - self.last.allocs);
        put(&mut self.bytes, counters.frees - self.last.frees);
        (self.next, self.last) = (instant + 1, counters);
    }

    /// Returns the packed counters.
    pub(crate) fn finish(self) -> Packed {
        Packed(self.bytes.into_boxed_slice())
    }
}

impl Packed {
    /// Packs the counters of every instant.
    pub fn of(counters: &[Counters]) -> Self {
        let mut builder = PackedBuilder::default();
        counters.iter().enumerate().for_each(|(instant, counters)| builder.push(instant, counters));
        builder.finish()
    }

    /// The packed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// All changes of the counters, in order of time. Each item has an instant, and the counters that the
    /// site has from this instant on.
    fn changes(&self) -> impl Iterator<Item = (usize, Counters)> + '_ {
        let (mut rest, mut next, mut last) = (&self.0[..], 0usize, Counters::ZERO);
        std::iter::from_fn(move || {
            let instant = next + usize::try_from(take(&mut rest)?).ok()?;
            last.allocated_bytes += take(&mut rest)?;
            last.freed_bytes += take(&mut rest)?;
            last.allocs += take(&mut rest)?;
            last.frees += take(&mut rest)?;
            next = instant + 1;
            Some((instant, last))
        })
    }

    /// The counters at one instant.
    pub(crate) fn at(&self, instant: usize) -> Counters {
        self.changes().take_while(|(at, _)| *at <= instant).last().map_or(Counters::ZERO, |(_, last)| last)
    }

    /// Adds the counters of every instant to `sums`.
    pub(crate) fn add_to(&self, sums: &mut [Counters]) {
        let mut changes = self.changes().peekable();
        let mut now = Counters::ZERO;
        for (instant, sum) in sums.iter_mut().enumerate() {
            if let Some((_, counters)) = changes.next_if(|(at, _)| *at == instant) {
                now = counters;
            }
            sum.allocated_bytes = sum.allocated_bytes.saturating_add(now.allocated_bytes);
            sum.freed_bytes = sum.freed_bytes.saturating_add(now.freed_bytes);
            sum.allocs = sum.allocs.saturating_add(now.allocs);
            sum.frees = sum.frees.saturating_add(now.frees);
        }
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Removes one number from the front of `bytes`. The function [`put`] wrote all numbers of the packed
/// counters, so each number is below 2⁵³.
fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..56).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(allocated_bytes: u64, freed_bytes: u64, allocs: u64, frees: u64) -> Counters {
        Counters { allocated_bytes, freed_bytes, allocs, frees }
    }

    #[test]
    fn packed_counters_are_read_as_they_were_written() {
        let all = [
            Counters::ZERO,
            counters(100, 0, 1, 0),
            counters(100, 0, 1, 0),
            counters(1 << 40, 300, 70_000, 2),
            counters(MOST, MOST, MOST, MOST),
        ];
        let packed = Packed::of(&all);
        assert_eq!(packed.changes().map(|(at, _)| at).collect::<Vec<_>>(), [1, 3, 4]);
        for (instant, expected) in all.iter().enumerate() {
            assert_eq!(packed.at(instant), *expected, "instant {instant}");
        }
        let mut sums = [counters(1, 1, 1, 1); 5];
        packed.add_to(&mut sums);
        assert_eq!(sums[3], counters((1 << 40) + 1, 301, 70_001, 3));
        assert_eq!(sums[0], counters(1, 1, 1, 1));
    }

    #[test]
    fn counters_that_fall_or_overflow_are_held() {
        let packed = Packed::of(&[counters(50, 0, 5, 0), counters(40, 0, 6, 0), counters(u64::MAX, 0, 7, 0)]);
        assert_eq!(packed.at(1), counters(50, 0, 6, 0));
        assert_eq!(packed.at(2), counters(MOST, 0, 7, 0));
        assert_eq!(Packed::default().at(7), Counters::ZERO);
    }
}
