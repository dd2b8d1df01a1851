//! x86-64: the place of a frame's return address, and the rule of a frame with a frame pointer.

use super::{Kind, Rule};

/// Bytes from a frame's return address up to its CFA: the call instruction pushes the return address (psABI).
pub const RETURN_ADDRESS_TO_CFA: usize = 8;

/// The rule after `push rbp; mov rbp, rsp`: CFA = rbp + 16, and the caller's rbp is saved at rbp.
pub const FRAME_POINTER_RULE: Rule = match Rule::pack(Kind::Fp, 16, Some(16)) {
    Some(rule) => rule,
    None => panic!("these offsets fit"),
};
