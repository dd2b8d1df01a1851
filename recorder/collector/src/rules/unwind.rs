//! Compiles the unwind rules of a file into the form in which the session stores them: 32 bits for each rule.

use edleak_binary::elf::Elf;
use edleak_binary::unwind::{self, Base, CallerRule};
use edleak_session::rule::{Kind, Rule};
use std::ops::Range;

/// The unwind rules of one file.
pub type UnwindTable = unwind::UnwindTable<Rule>;

/// Compiles all unwind rules of a file.
pub fn compile(elf: &Elf<'_>) -> UnwindTable {
    UnwindTable::compile(elf, pack)
}

/// Compiles the unwind rules of some functions of a file. The returned table may also contain rules of
/// functions that `functions` does not contain. `functions` contains the code ranges of the wanted functions;
/// the ranges must be sorted and must not overlap.
pub fn compile_in(elf: &Elf<'_>, functions: &[Range<u32>]) -> UnwindTable {
    UnwindTable::compile_in(elf, functions, pack)
}

/// Packs a rule into 32 bits. If a rule does not fit into 32 bits, the result is [`Rule::UNKNOWN`].
fn pack(rule: CallerRule) -> Rule {
    match rule {
        CallerRule::Unknown => Rule::UNKNOWN,
        CallerRule::End => Rule::END,
        CallerRule::Signal => Rule::SIGNAL,
        CallerRule::Cfa { from, offset, saved_fp } => {
            let kind = match from {
                Base::Sp => Kind::Sp,
                Base::Fp => Kind::Fp,
            };
            Rule::pack(kind, offset, saved_fp).unwrap_or(Rule::UNKNOWN)
        }
    }
}
