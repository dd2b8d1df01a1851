//! Pieces of code and what to do when they allocate, laid over each other.

use crate::watch::Asked;
use edleak_session::site::Action;

/// A piece of code and what to do when it allocates: return addresses in `start < address <= end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// One byte before the first return address.
    pub start: u64,
    /// The last return address.
    pub end: u64,
    /// What to do.
    pub action: Action,
}

/// Lays what is asked for one address over what is asked for functions, if it was asked later.
pub fn lay_over(asked: &mut Vec<Asked>, single: Asked) {
    let after = asked.partition_point(|one| one.start <= single.start);
    let covering = after.checked_sub(1).filter(|&index| single.start < asked[index].end);
    match covering {
        Some(index) if asked[index].serial > single.serial => {}
        Some(index) => {
            let whole = asked[index];
            let parts = [Asked { end: single.start, ..whole }, single, Asked { start: single.end, ..whole }];
            asked.splice(index..=index, parts.into_iter().filter(|part| part.start < part.end));
        }
        None => asked.insert(after, single),
    }
}

/// Lays `top` over `below`: where both have something to say, `top` is heard. Both are sorted.
pub fn overlay(below: impl Iterator<Item = Piece>, top: &[Piece]) -> Vec<Piece> {
    let mut merged: Vec<Piece> = Vec::new();
    for piece in top {
        // Two names of one function, or two patterns that match it.
        match merged.last_mut() {
            Some(last) if piece.start < last.end => last.end = last.end.max(piece.end),
            _ => merged.push(*piece),
        }
    }
    let top = merged.clone();
    for piece in below {
        let mut start = piece.start;
        let first = top.partition_point(|over| over.end <= piece.start);
        for over in top.iter().skip(first).take_while(|over| over.start < piece.end) {
            if start < over.start {
                merged.push(Piece { start, end: over.start, ..piece });
            }
            start = start.max(over.end);
        }
        if start < piece.end {
            merged.push(Piece { start, ..piece });
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(start: u64, end: u64, action: Action) -> Piece {
        Piece { start, end, action }
    }

    #[test]
    fn an_address_is_heard_over_a_function_if_it_was_asked_later() {
        let asked = |start, end, is_for, serial| Asked { start, end, is_for, serial };
        let mut all = vec![asked(10, 20, false, 2), asked(30, 40, false, 5)];
        for single in
            [asked(14, 15, true, 3), asked(34, 35, true, 4), asked(25, 26, true, 1), asked(10, 11, true, 6)]
        {
            lay_over(&mut all, single);
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
    fn what_is_watched_is_heard_over_what_is_stepped_over() {
        const STEP: Action = Action(1);
        const WATCH: Action = Action::WATCH;
        let below = [piece(0, 10, STEP), piece(20, 30, STEP), piece(40, 50, STEP)];
        let top = [piece(5, 8, WATCH), piece(6, 9, WATCH), piece(18, 32, WATCH), piece(60, 61, WATCH)];
        let mut merged = overlay(below.into_iter(), &top);
        merged.sort_by_key(|piece| piece.start);
        let expected = [
            piece(0, 5, STEP),
            piece(5, 9, WATCH),
            piece(9, 10, STEP),
            piece(18, 32, WATCH),
            piece(40, 50, STEP),
            piece(60, 61, WATCH),
        ];
        assert_eq!(merged, expected);
    }
}
