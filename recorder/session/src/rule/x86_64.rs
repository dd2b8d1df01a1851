//! x86-64: the place of a frame's return address, and the offsets of a frame with a frame pointer.

/// Bytes from a frame's return address up to its CFA: the call instruction pushes the return address (psABI).
pub const RETURN_ADDRESS_TO_CFA: usize = 8;

/// Bytes from fp up to the CFA, after `push rbp; mov rbp, rsp`.
pub(super) const FRAME_POINTER_CFA_OFFSET: i64 = 16;
/// Bytes from the caller's fp, saved on the stack, up to the CFA, after `push rbp; mov rbp, rsp`.
pub(super) const FRAME_POINTER_FP_OFFSET: i64 = 16;
