//! Finds functions of an allocator whose calls the recorder did not count, although it counted other
//! functions of this allocator. For example, the recorder cannot count the calls of `mallocx` in a jemalloc
//! that is a shared library if the system does not allow edleak to change the code of the library.

use crate::frame::base_name;
use crate::own_heap::OwnHeap;
use edleak_format::{ModuleId, Trace};
use edleak_model::growth_kind::{GrowthKind, ProcessGrowth};
use edleak_text::units;

/// Maximum number of uncounted functions that one sentence of the report names.
const NAMED: usize = 3;
/// The report can become undecided only if at least this number of resident bytes is in no counted
/// allocation. Every program has resident memory that is in no counted allocation: its own data, edleak's
/// tables, and free memory of the allocator. In a small program, the free memory of the allocator may be
/// several times the live memory.
const NOTICEABLE_HIDDEN_BYTES: u64 = 8 << 20;

/// The number of resident bytes that are in no counted allocation (hidden bytes); `None` if this number is at
/// most 8 MiB, or at most four times the live bytes.
pub(crate) fn hidden_bytes(growth: &ProcessGrowth) -> Option<u64> {
    let hidden = growth.resident_to_bytes.saturating_sub(growth.live_to_bytes);
    (hidden > least_hidden(growth)).then_some(hidden)
}

/// The result of [`hidden_bytes`], minus the memory that recorded calls mapped. The function is only for an
/// allocator of which the recorder counts some functions: the recorder knows which mappings belong to such
/// an allocator.
fn hidden_beside_mappings(growth: &ProcessGrowth) -> Option<u64> {
    let hidden = hidden_bytes(growth)?.saturating_sub(growth.mapped_bytes());
    (hidden > least_hidden(growth)).then_some(hidden)
}

fn least_hidden(growth: &ProcessGrowth) -> u64 {
    NOTICEABLE_HIDDEN_BYTES.max(growth.live_to_bytes.saturating_mul(4))
}

/// The uncounted functions of one module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UncountedFunctions {
    /// The id of the module in the trace.
    pub(crate) module_id: ModuleId,
    /// The file name of the module.
    pub module: String,
    /// The names of the functions.
    pub names: Vec<String>,
}

impl UncountedFunctions {
    /// The sentence in the report about the uncounted functions of this module.
    pub fn sentence(&self) -> String {
        let named: Vec<String> = self.names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
        let more = match self.names.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more functions"),
        };
        format!("allocations through {}{more} of {} are not counted", named.join(", "), self.module)
    }
}

pub(crate) fn of_trace(trace: &Trace) -> Vec<UncountedFunctions> {
    let all = trace.uncounted_functions().iter().map(|functions| UncountedFunctions {
        module_id: functions.module,
        module: trace
            .module(functions.module)
            .map_or("a module", |module| base_name(&module.path))
            .to_owned(),
        names: functions.symbols.clone(),
    });
    all.collect()
}

/// Part of a sentence in the report: names the first allocator whose allocations are not all counted.
pub(crate) fn clause(functions: &[UncountedFunctions], own_heaps: &[OwnHeap]) -> Option<String> {
    let whole = own_heaps.iter().find(|heap| heap.uncounted.is_some());
    let of_whole = whole.map(|heap| format!("allocations of {} are not counted", heap.name));
    functions.first().map(UncountedFunctions::sentence).or(of_whole)
}

/// If the uncounted functions make the report undecided, returns the reason. The report becomes undecided if
/// memory grows that no counted allocation explains, or if most of the memory is in no counted allocation.
pub(crate) fn undecided_reason(functions: &[UncountedFunctions], growth: &ProcessGrowth) -> Option<String> {
    let first = functions.first()?;
    let is_outside = matches!(growth.kind, GrowthKind::Outside | GrowthKind::Retained | GrowthKind::Unclear);
    let size = |bytes: u64| units::bytes(bytes as f64);
    let fact = if is_outside && growth.resident_goes_on && growth.may_be_uncounted() {
        let (from, to) = (growth.resident_from_bytes, growth.resident_to_bytes);
        format!(
            "resident memory grew from {} to {}, and not through counted allocations",
            size(from),
            size(to)
        )
    } else if let Some(hidden) = hidden_beside_mappings(growth) {
        format!("{} of {} are in no counted allocation", size(hidden), size(growth.resident_to_bytes))
    } else {
        return None;
    };
    let more = match functions.len() - 1 {
        0 => String::new(),
        more => format!(", and the same in {}", units::plural(more as u64, "more module", "more modules")),
    };
    Some(format!(
        "{fact}; {}{more} (edleak-record gives the reason and a remedy when it records)",
        first.sentence()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_names_three_functions_and_counts_the_rest() {
        let names = |all: &[&str]| UncountedFunctions {
            module_id: ModuleId(0),
            module: "libjemalloc.so.2".into(),
            names: all.iter().map(|&name| name.into()).collect(),
        };
        assert_eq!(
            names(&["mallocx", "rallocx"]).sentence(),
            "allocations through `mallocx`, `rallocx` of libjemalloc.so.2 are not counted"
        );
        assert!(names(&["a", "b", "c", "d", "e"]).sentence().contains("`c` and 2 more functions of"));
    }
}
