//! Finds the innermost frame at which the leaking stacks of one caller differ from its other stacks.
//!
//! A caller that only allocates for other functions is not the cause of a leak. edleak assumes that a caller
//! only allocates for other functions in two cases: some of its stacks leak and others do not, or its stacks
//! request different sizes. If a caller only allocates for other functions, the cause of its leak is in the
//! innermost frame at which the leaking stacks differ from the other stacks. If the leaking stacks have
//! several such frames, edleak reports each frame as a separate leak.

use crate::site::JudgedSite;
use std::collections::BTreeMap;

/// The stacks that do not leak are ignored if they make no more than this share of the caller's allocations.
const HEALTHY_SHARE: f64 = 0.1;
/// If the average allocation sizes of two stacks differ by more than this factor, the caller counts as a
/// function that only allocates for other functions.
const SIZES_DIFFER: f64 = 2.0;

/// A branch: leaking stacks of one caller that share one frame, and the index of this frame.
#[derive(Clone, Debug)]
pub(crate) struct Branch<'a> {
    /// The leaking stacks.
    pub(crate) stacks: Vec<&'a JudgedSite>,
    /// The index of the shared frame, counted from the allocating frame.
    pub(crate) depth: usize,
}

/// Divides the leaking stacks of one caller into branches.
pub(crate) fn branches<'a>(leaking: &[&'a JudgedSite], healthy: &[&'a JudgedSite]) -> Vec<Branch<'a>> {
    let mut all = Vec::new();
    descend(leaking.to_vec(), healthy.to_vec(), 0, &mut all);
    all
}

fn descend<'a>(
    leaking: Vec<&'a JudgedSite>,
    healthy: Vec<&'a JudgedSite>,
    depth: usize,
    all: &mut Vec<Branch<'a>>,
) {
    let goes_on = leaking.iter().all(|stack| stack.stack.len() > depth + 1);
    if !goes_on || !is_allocation_function(&leaking, &healthy) {
        all.push(Branch { stacks: leaking, depth });
        return;
    }
    let address =
        |stack: &JudgedSite| stack.stack.get(depth + 1).map(|frame| (frame.module_id, frame.address));
    let mut parts: BTreeMap<_, (Vec<&JudgedSite>, Vec<&JudgedSite>)> = BTreeMap::new();
    for stack in leaking {
        parts.entry(address(stack)).or_default().0.push(stack);
    }
    for stack in healthy {
        parts.entry(address(stack)).or_default().1.push(stack);
    }
    for (leaking, healthy) in parts.into_values().filter(|(leaking, _)| !leaking.is_empty()) {
        descend(leaking, healthy, depth + 1, all);
    }
}

fn is_allocation_function(leaking: &[&JudgedSite], healthy: &[&JudgedSite]) -> bool {
    let allocs = |stacks: &[&JudgedSite]| -> f64 {
        stacks.iter().map(|stack| stack.totals.allocs.unwrap_or(0) as f64).sum()
    };
    if allocs(healthy) > HEALTHY_SHARE * (allocs(healthy) + allocs(leaking)) {
        return true;
    }
    let sizes = || leaking.iter().filter_map(|stack| average_size(stack));
    sizes().fold(0.0, f64::max) > SIZES_DIFFER * sizes().fold(f64::INFINITY, f64::min)
}

fn average_size(stack: &JudgedSite) -> Option<f64> {
    let allocs = stack.totals.allocs.filter(|allocs| *allocs > 0)?;
    Some(stack.totals.allocated_bytes? as f64 / allocs as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Address;
    use crate::site::{Kind, SiteLabel, Standing, Totals};
    use edleak_model::classify::{Model, judge};
    use edleak_model::levels::Levels;
    use edleak_model::series::Series;

    /// A stack with these addresses, innermost first, and `allocs` allocations of `size` bytes.
    fn stack(number: u64, addresses: &[u64], allocs: u64, size: u64) -> JudgedSite {
        let address = |&address: &u64| Address { address, ..Address::default() };
        JudgedSite {
            label: SiteLabel::Number(number),
            parent: Some(SiteLabel::Number(0)),
            kind: Kind::Stack,
            pool: None,
            judgement: judge(&Series::default(), 1.0, Model::Growth),
            leak_factor: None,
            with_stacks: None,
            judged_with_stacks: false,
            leak_share: None,
            per_mark: None,
            totals: Totals {
                allocs: Some(allocs),
                allocated_bytes: Some(allocs * size),
                ..Totals::default()
            },
            resident_bytes: None,
            given_back: None,
            levels: Levels::default(),
            block_growth_bytes: 0.0,
            survivors: Vec::new(),
            addresses: 1,
            stack: addresses.iter().map(address).collect(),
            is_stack_cut: false,
            standing: Standing::Unlisted,
        }
    }

    /// For each branch (leaking stacks that share one frame), the index of the shared frame in the stack, and
    /// the address of this frame.
    fn parted(leaking: &[&JudgedSite], healthy: &[&JudgedSite]) -> Vec<(usize, u64)> {
        let branches = branches(leaking, healthy);
        branches.iter().map(|branch| (branch.depth, branch.stacks[0].stack[branch.depth].address)).collect()
    }

    #[test]
    fn a_pool_that_one_caller_leaks_through_is_not_to_blame() {
        let (leaks, uses) = (stack(1, &[10, 20, 90], 500, 64), stack(2, &[10, 30, 90], 500, 64));
        assert_eq!(parted(&[&leaks], &[&uses]), [(1, 20)]);
        // The two stacks share the caller and also a wrapper function around it.
        let (leaks, uses) = (stack(1, &[10, 11, 20, 90], 500, 64), stack(2, &[10, 11, 30, 90], 500, 64));
        assert_eq!(parted(&[&leaks], &[&uses]), [(2, 20)]);
        // A stack that does not leak and made only a few allocations is ignored.
        let warm_up = stack(2, &[10, 30, 90], 5, 64);
        assert_eq!(parted(&[&leaks], &[&warm_up]), [(0, 10)]);
    }

    #[test]
    fn an_allocation_function_whose_callers_all_leak_has_a_finding_for_each() {
        let (small, large) = (stack(1, &[10, 20, 90], 500, 64), stack(2, &[10, 30, 90], 500, 400));
        assert_eq!(parted(&[&small, &large], &[]), [(1, 20), (1, 30)]);
        // If all stacks leak and request the same size, the caller itself is reported as the leak.
        let same = stack(2, &[10, 30, 90], 500, 64);
        assert_eq!(parted(&[&small, &same], &[]), [(0, 10)]);
    }

    #[test]
    fn a_stack_without_a_further_frame_is_blamed_at_its_end() {
        let (leaks, uses) = (stack(1, &[10], 500, 64), stack(2, &[10, 30], 500, 64));
        assert_eq!(parted(&[&leaks], &[&uses]), [(0, 10)]);
    }
}
