//! Ranges of code, and functions that combine two lists of such ranges. Each range has an action, which tells
//! edleak what to do with an allocation whose caller is in the range.

use crate::watch::request::RequestRange;
use edleak_session::site::Action;

/// A range of code, and the action for allocations whose return address is in this range. A return address is
/// in the range if `start < address <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CodeRange {
    /// The address one byte before the first return address of the range.
    pub(crate) start: u64,
    /// The last return address of the range.
    pub(crate) end: u64,
    /// The action for allocations whose return address is in this range.
    pub(crate) action: Action,
}

/// Inserts the watch request for one return address into a list of code ranges. If the list already contains
/// a request for the function around this address, the new request replaces the old request only at this
/// address.
pub(crate) fn insert_request(asked: &mut Vec<RequestRange>, single: RequestRange) {
    let after = asked.partition_point(|one| one.start <= single.start);
    let covering = after.checked_sub(1).filter(|&index| single.start < asked[index].end);
    match covering {
        Some(index) if asked[index].serial > single.serial => {}
        Some(index) => {
            let covered = asked[index];
            let parts = [
                RequestRange { end: single.start, ..covered },
                single,
                RequestRange { start: single.end, ..covered },
            ];
            asked.splice(index..=index, parts.into_iter().filter(|part| part.start < part.end));
        }
        None => asked.insert(after, single),
    }
}

/// Combines two lists of ranges, which are sorted by address. If an address is in both lists, the combined
/// list gives it the action of `top`.
pub(crate) fn overlay(below: impl Iterator<Item = CodeRange>, top: &[CodeRange]) -> Vec<CodeRange> {
    let mut merged: Vec<CodeRange> = Vec::new();
    for code_range in top {
        // Two ranges of `top` may overlap, because a function may have two names or because two patterns may
        // match it.
        match merged.last_mut() {
            Some(last) if code_range.start < last.end => last.end = last.end.max(code_range.end),
            _ => merged.push(*code_range),
        }
    }
    let top = merged.clone();
    for code_range in below {
        let mut start = code_range.start;
        let first = top.partition_point(|over| over.end <= code_range.start);
        for over in top.iter().skip(first).take_while(|over| over.start < code_range.end) {
            if start < over.start {
                merged.push(CodeRange { start, end: over.start, ..code_range });
            }
            start = start.max(over.end);
        }
        if start < code_range.end {
            merged.push(CodeRange { start, ..code_range });
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code_range(start: u64, end: u64, action: Action) -> CodeRange {
        CodeRange { start, end, action }
    }

    #[test]
    fn later_request_for_an_address_wins_over_its_function() {
        let asked = |start, end, is_for, serial| RequestRange { start, end, is_for, serial };
        let mut all = vec![asked(10, 20, false, 2), asked(30, 40, false, 5)];
        for single in
            [asked(14, 15, true, 3), asked(34, 35, true, 4), asked(25, 26, true, 1), asked(10, 11, true, 6)]
        {
            insert_request(&mut all, single);
        }
        let expected = [
            asked(10, 11, true, 6),
            asked(11, 14, false, 2),
            asked(14, 15, true, 3),
            asked(15, 20, false, 2),
            asked(25, 26, true, 1),
            asked(30, 40, false, 5),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn watch_wins_over_wrapper() {
        const STEP: Action = Action(1);
        const WATCH: Action = Action::WATCH;
        let below = [code_range(0, 10, STEP), code_range(20, 30, STEP), code_range(40, 50, STEP)];
        let top = [
            code_range(5, 8, WATCH),
            code_range(6, 9, WATCH),
            code_range(18, 32, WATCH),
            code_range(60, 61, WATCH),
        ];
        let mut merged = overlay(below.into_iter(), &top);
        merged.sort_by_key(|code_range| code_range.start);
        let expected = [
            code_range(0, 5, STEP),
            code_range(5, 9, WATCH),
            code_range(9, 10, STEP),
            code_range(18, 32, WATCH),
            code_range(40, 50, STEP),
            code_range(60, 61, WATCH),
        ];
        assert_eq!(merged, expected);
    }
}
