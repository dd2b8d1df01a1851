//! COLD: finds the registers of the function that a signal interrupted. The kernel has stored the registers
//! of the interrupted function on the stack for the signal handler.
#![allow(unsafe_code)]

use crate::hot::frame::Frame;

/// The frame that a signal interrupted. The kernel has stored the registers of the interrupted frame in the
/// `ucontext` at `frame.sp`. `None`: the registers do not lie below `bound`, or the interrupted frame is not
/// on this stack.
///
/// # Safety
/// `frame` is the frame of a running signal trampoline, and its stack is mapped up to `bound`.
#[cold]
#[inline(never)]
pub(crate) unsafe fn interrupted(frame: Frame, bound: usize) -> Option<Frame> {
    // `struct ucontext`: 40 bytes, then the general registers.
    const RBP: usize = 40 + 10 * 8;
    const RSP: usize = 40 + 15 * 8;
    const RIP: usize = 40 + 16 * 8;
    if frame.sp.checked_add(RIP + 8)? > bound {
        return None;
    }
    // SAFETY: the 8 bytes at each offset lie inside the stack on which the kernel delivered the signal.
    let word = |offset: usize| unsafe { ((frame.sp + offset) as *const usize).read() };
    let next = Frame { address: word(RIP), sp: word(RSP), fp: word(RBP) };
    // If the signal handler runs on a stack of its own (sigaltstack), the interrupted frame is on another
    // stack, whose end is not known here. If the interrupted frame is on the same stack as the signal
    // handler, the interrupted frame lies above the handler's frame.
    (next.sp > frame.sp && next.sp <= bound).then_some(next)
}
