//! The unwind rules of a file, packed in the form of the session.

use edleak_binary::elf::Elf;
use edleak_binary::unwind::{self, Base, CallerRule};
use edleak_session::rule::{Kind, Rule};
use std::ops::Range;

/// The rules of one file.
pub type UnwindTable = unwind::UnwindTable<Rule>;

/// All rules of a file.
pub fn compile(elf: &Elf<'_>) -> UnwindTable {
    UnwindTable::compile(elf, pack)
}

/// The rules of the given functions; the table may also hold rules of other functions. `functions` are sorted
/// ranges without overlap.
pub fn compile_in(elf: &Elf<'_>, functions: &[Range<u32>]) -> UnwindTable {
    UnwindTable::compile_in(elf, functions, pack)
}

/// Packs a rule. A rule that does not fit into the 32 bits becomes unknown.
pub fn pack(rule: CallerRule) -> Rule {
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
