//! Sorted code ranges of allocation wrappers and of watched functions. If the return address of a new site
//! lies in the range of a wrapper, the library skips the wrapper's frame. If the return address lies in a
//! watched function, the library records the stack of every allocation of this site, from the first
//! allocation on.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::site::Action;

/// Maximum number of ranges in the wrapper table.
pub const MAX_RANGES: usize = 1 << 15;

/// The action for return addresses in one range: `start < address <= end`.
#[repr(C)]
#[derive(Default)]
pub struct WrapperRange {
    /// The address of the first byte of the code range.
    pub start: AtomicU64,
    /// The address after the last byte of the code range.
    pub end: AtomicU64,
    /// The number of an [`Action`].
    pub action: AtomicU32,
    _reserved: u32,
}
const _: () = assert!(core::mem::size_of::<WrapperRange>() == 24);

/// Finds the action of the range that contains `address`. A return address belongs to the call before the
/// address, so the search uses `address - 1`.
///
/// `ranges` is sorted by `start`, without overlap. The collector may replace `ranges` during the search, so
/// the caller of this function compares the number of ranges before the search with the number after the
/// search.
pub fn find(ranges: &[WrapperRange], address: u64) -> Option<Action> {
    let pc = address.wrapping_sub(1);
    let after = ranges.partition_point(|range| range.start.load(Ordering::Relaxed) <= pc);
    let range = ranges.get(after.checked_sub(1)?)?;
    (pc < range.end.load(Ordering::Relaxed)).then(|| Action(range.action.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Kind, Rule};

    fn range(start: u64, end: u64, cfa: i64) -> WrapperRange {
        let rule = Rule::pack(Kind::Sp, cfa, None).expect("fits");
        WrapperRange { start: start.into(), end: end.into(), action: rule.0.into(), _reserved: 0 }
    }

    #[test]
    fn a_return_address_belongs_to_the_call_before_it() {
        let ranges = [range(100, 110, 16), range(110, 120, 24), range(200, 210, 32)];
        assert_eq!(find(&ranges, 100), None);
        assert_eq!(find(&ranges, 101).and_then(Action::as_step).map(Rule::cfa_offset), Some(16));
        assert_eq!(find(&ranges, 110).and_then(Action::as_step).map(Rule::cfa_offset), Some(16));
        assert_eq!(find(&ranges, 111).and_then(Action::as_step).map(Rule::cfa_offset), Some(24));
        assert_eq!(find(&ranges, 121), None);
        assert_eq!(find(&ranges, 210).and_then(Action::as_step).map(Rule::cfa_offset), Some(32));
        assert_eq!(find(&ranges, 211), None);
        assert_eq!(find(&[], 5), None);
    }
}
