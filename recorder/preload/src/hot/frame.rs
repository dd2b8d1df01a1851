//! HOT: a frame on the stack of the target, and the step to its caller by an unwind rule.
#![allow(unsafe_code)]

use edleak_session::rule::{Kind, RETURN_ADDRESS_TO_CFA, Rule};

/// A frame on the stack of the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    /// The return address that leads into this frame's function.
    pub address: usize,
    /// The stack pointer just after the return into this frame's function.
    pub sp: usize,
    /// The frame pointer just after the return into this frame's function.
    pub fp: usize,
}

impl Frame {
    /// The frame of the function that called an entry point.
    ///
    /// # Safety
    /// `caller` and `fp` come from an entry stub.
    pub(crate) unsafe fn of_caller(caller: *const usize, fp: usize) -> Frame {
        // SAFETY: `caller` comes from an entry stub, so it is the address of the return address.
        Frame { address: unsafe { *caller }, sp: caller as usize + RETURN_ADDRESS_TO_CFA, fp }
    }

    /// The frame of the function that called this frame's function.
    ///
    /// # Safety
    /// `rule` is the unwind rule at `self.address`, so the return address and the saved fp that the rule
    /// describes are on the stack.
    pub(crate) unsafe fn caller(self, rule: Rule) -> Frame {
        let base = if rule.kind() == Kind::Fp { self.fp } else { self.sp };
        let cfa = base.wrapping_add(rule.cfa_offset());
        // SAFETY: the caller guarantees that `rule` belongs to this frame, so the return address lies on the
        // stack.
        let address = unsafe { *(cfa.wrapping_sub(RETURN_ADDRESS_TO_CFA) as *const usize) };
        let fp = match rule.fp_offset() {
            0 => self.fp,
            // SAFETY: the caller guarantees that `rule` belongs to this frame, so the saved fp lies on the
            // stack.
            offset => unsafe { *(cfa.wrapping_sub(offset) as *const usize) },
        };
        Frame { address, sp: cfa, fp }
    }
}
