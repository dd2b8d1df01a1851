//! Functions of counted allocators whose calls the recorder did not count, for example `mallocx` of a shared
//! jemalloc whose code the system does not let edleak change.

use crate::frame::base_name;
use edleak_format::Trace;
use edleak_model::growth_kind::{GrowthKind, ProcessGrowth};
use edleak_text::units;

/// Number of functions that a sentence names.
const NAMED: usize = 3;
/// Least memory outside the counted allocations that can make a report undecided. Less is usual: it is the
/// program's own data, edleak's tables, and free memory of the allocator. In a small program, this free
/// memory may be several times the live memory.
const NOTICEABLE_HIDDEN_BYTES: u64 = 8 << 20;

/// The memory that is in no counted allocation, in bytes, if it is most of the program's memory.
pub(crate) fn hidden_bytes(growth: &ProcessGrowth) -> Option<u64> {
    let hidden = growth.resident_to_bytes.saturating_sub(growth.live_to_bytes);
    (hidden > NOTICEABLE_HIDDEN_BYTES.max(4 * growth.live_to_bytes)).then_some(hidden)
}

/// The uncounted functions of one module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UncountedFunctions {
    /// The file name of the module.
    pub module: String,
    /// The functions.
    pub names: Vec<String>,
}

impl UncountedFunctions {
    /// The sentence of the report.
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
        module: trace
            .module(functions.module)
            .map_or("a module", |module| base_name(&module.path))
            .to_owned(),
        names: functions.symbols.clone(),
    });
    all.collect()
}

/// The reason why these functions leave the report undecided: memory grows that no counted allocation explains, or
/// most of the memory is in no counted allocation.
pub(crate) fn doubt(functions: &[UncountedFunctions], growth: &ProcessGrowth) -> Option<String> {
    let first = functions.first()?;
    let is_outside = matches!(growth.kind, GrowthKind::Outside | GrowthKind::Retained);
    let size = |bytes: u64| units::bytes(bytes as f64);
    let fact = if is_outside && growth.resident_goes_on {
        let (from, to) = (growth.resident_from_bytes, growth.resident_to_bytes);
        format!(
            "resident memory grew from {} to {}, and not through counted allocations",
            size(from),
            size(to)
        )
    } else if let Some(hidden) = hidden_bytes(growth) {
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
