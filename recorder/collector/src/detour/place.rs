//! Finds free memory near a module in the memory map of its process.

use edleak_session::layout::PAGE_BYTES;

/// Maximum distance in bytes between a module and its stubs: the range of a jump, minus 16 MiB for the sizes
/// of the module and of the stubs.
const REACH: u64 = (1 << 31) - (16 << 20);
/// The kernel maps nothing below this address.
const LOWEST: u64 = 1 << 16;
/// Least distance in bytes (16 pages) between the stubs and the mappings below and above them. A mapping that
/// grows by less than this distance does not reach the stubs.
const DISTANCE: u64 = 16 << 12;
const PAGE: u64 = PAGE_BYTES as u64;

/// Chooses a free address for `bytes` bytes near the module at `start..end`. The chosen address is below the
/// module, because the heap of a program grows above the program. `None`: no free address is near enough.
pub(crate) fn near(mapped: &[(u64, u64)], start: u64, end: u64, bytes: u64) -> Option<u64> {
    let bytes = bytes.next_multiple_of(PAGE);
    let lowest = end.saturating_sub(REACH).max(LOWEST);
    let mut below: Vec<(u64, u64)> = mapped.iter().copied().filter(|mapping| mapping.0 <= start).collect();
    below.sort_unstable();
    // Search the free address ranges below the module, from high to low addresses.
    let mut gap_end = start;
    for &(mapping_start, mapping_end) in below.iter().rev() {
        if let Some(place) = fits(mapping_end, gap_end, bytes).filter(|&place| place >= lowest) {
            return Some(place);
        }
        gap_end = gap_end.min(mapping_start);
    }
    fits(lowest, gap_end, bytes).filter(|&place| place >= lowest)
}

/// The highest address in a free address range at which `bytes` bytes fit. These bytes are at least
/// `DISTANCE` away from the start and the end of the free range. `None`: the free range is too small.
fn fits(gap_start: u64, gap_end: u64, bytes: u64) -> Option<u64> {
    let place = gap_end.checked_sub(DISTANCE)?.checked_sub(bytes)? & !(PAGE - 1);
    (place >= gap_start.checked_add(DISTANCE)?).then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_lies_in_the_gap_below() {
        let mapped = [(0x1000_0000, 0x1000_1000), (0x2000_0000, 0x2001_0000), (0x2001_0000, 0x2002_0000)];
        let place = near(&mapped, 0x2000_0000, 0x2002_0000, 5000).expect("there is room");
        assert!(place + 8192 <= 0x2000_0000 && place >= 0x1fff_0000 - 8192, "{place:#x}");
        assert!(place.is_multiple_of(4096));
    }

    #[test]
    fn a_gap_that_is_too_small_is_passed_over() {
        let mapped = [(0x1fff_0000, 0x1fff_f000), (0x2000_0000, 0x2001_0000)];
        let place = near(&mapped, 0x2000_0000, 0x2001_0000, 4096).expect("there is room");
        assert!(place < 0x1fff_0000, "{place:#x}");
    }

    #[test]
    fn no_place_is_out_of_reach() {
        let start = 0x7000_0000_0000;
        let wall = (start - (3 << 30), start - 4096);
        assert_eq!(near(&[wall, (start, start + 4096)], start, start + 4096, 4096), None);
        // Below a program at a fixed low address, all addresses down to `LOWEST` are free.
        let low = near(&[(0x40_0000, 0x41_0000)], 0x40_0000, 0x41_0000, 4096).expect("there is room");
        assert!((LOWEST..0x40_0000).contains(&low));
    }
}
