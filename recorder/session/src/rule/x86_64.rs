//! x86-64: the position of the return address in a frame, and the offsets of a frame with a frame pointer.

/// Number of bytes from a frame's return address up to its CFA: the call instruction pushes the return
/// address (psABI).
pub const RETURN_ADDRESS_TO_CFA: usize = 8;

/// Number of bytes from fp up to the CFA, after `push rbp; mov rbp, rsp`.
pub(super) const FRAME_POINTER_CFA_OFFSET: i64 = 16;
/// Number of bytes from the caller's saved fp up to the CFA, after `push rbp; mov rbp, rsp`.
pub(super) const FRAME_POINTER_FP_OFFSET: i64 = 16;
