//! Builds the signal frame from which the system call `rt_sigreturn` restores the registers of a thread.

use crate::attach::arch::registers::Registers;

/// Offset of the extended state (the floating-point and vector registers) in the frame. The kernel requires
/// that the address of the extended state is a multiple of 64.
const STATE_AT: usize = 320;
const FLAGS_AT: usize = 0;
const CONTEXT_AT: usize = 40;
const MASK_AT: usize = 296;
/// The flags of the frame: UC_FP_XSTATE, UC_SIGCONTEXT_SS and UC_STRICT_RESTORE_SS.
const FLAGS: u64 = 7;

/// The bytes of a signal frame at `address`: a `ucontext`, followed by the floating-point and vector
/// registers. `address` is a multiple of 64. The frame names an alternative signal stack of size 0. The
/// kernel rejects a signal stack of size 0 and continues, so the thread keeps its own alternative signal
/// stack.
pub(crate) fn frame(address: u64, registers: &Registers, mask: u64, state: &[u8]) -> Vec<u8> {
    let mut frame = vec![0u8; STATE_AT];
    let mut put = |at: usize, word: u64| frame[at..at + 8].copy_from_slice(&word.to_ne_bytes());
    put(FLAGS_AT, FLAGS);
    put(MASK_AT, mask);
    let words = [
        registers.0.r8,
        registers.0.r9,
        registers.0.r10,
        registers.0.r11,
        registers.0.r12,
        registers.0.r13,
        registers.0.r14,
        registers.0.r15,
        registers.0.rdi,
        registers.0.rsi,
        registers.0.rbp,
        registers.0.rbx,
        registers.0.rdx,
        registers.0.rax,
        registers.0.rcx,
        registers.0.rsp,
        registers.0.rip,
        registers.0.eflags,
        registers.0.cs & 0xffff | (registers.0.ss & 0xffff) << 48,
    ];
    for (index, word) in words.into_iter().enumerate() {
        put(CONTEXT_AT + 8 * index, word);
    }
    const STATE_POINTER_AT: usize = CONTEXT_AT + 184;
    put(STATE_POINTER_AT, address + STATE_AT as u64);
    frame.extend(signal_state(state));
    frame
}

/// Number of bytes of a frame that contains this extended state.
pub(crate) fn bytes(state: &[u8]) -> usize {
    STATE_AT + signal_state(state).len()
}

/// Converts the floating-point and vector registers from the form that ptrace returns into the form that a
/// signal frame needs. In a signal frame, the registers end after the last component in use, and contain two
/// magic numbers that the kernel checks.
fn signal_state(state: &[u8]) -> Vec<u8> {
    const MARKS_AT: usize = 464;
    const MAGIC_1: u32 = 0x4650_5853;
    const MAGIC_2: u32 = 0x4650_5845;
    const IN_USE_AT: usize = 512;
    const LEGACY_BYTES: usize = 512 + 64;
    let in_use = state.get(IN_USE_AT..IN_USE_AT + 8).and_then(|bytes| bytes.try_into().ok());
    let in_use = in_use.map_or(3, u64::from_ne_bytes);
    let end = (2..63).filter(|index| in_use >> index & 1 != 0).map(component_end).max();
    let end = end.unwrap_or(0).max(LEGACY_BYTES).min(state.len());
    let mut state = state[..end].to_vec();
    let extended_bytes = (end + 4) as u32;
    state[MARKS_AT..MARKS_AT + 48].fill(0);
    state[MARKS_AT..MARKS_AT + 4].copy_from_slice(&MAGIC_1.to_ne_bytes());
    state[MARKS_AT + 4..MARKS_AT + 8].copy_from_slice(&extended_bytes.to_ne_bytes());
    state[MARKS_AT + 8..MARKS_AT + 16].copy_from_slice(&(in_use | 3).to_ne_bytes());
    state[MARKS_AT + 16..MARKS_AT + 20].copy_from_slice(&(end as u32).to_ne_bytes());
    state.extend(MAGIC_2.to_ne_bytes());
    state
}

/// The offset at which a component of the extended state ends, as this processor stores the state.
fn component_end(index: u64) -> usize {
    const COMPONENTS: u32 = 0xd;
    let component = std::arch::x86_64::__cpuid_count(COMPONENTS, index as u32);
    (component.eax + component.ebx) as usize
}

/// Changes the registers of a thread that was stopped in a system call, so that the thread makes this call
/// again.
pub(crate) fn restarted(registers: &Registers) -> Registers {
    const ERESTARTSYS: i64 = 512;
    const ERESTARTNOINTR: i64 = 513;
    const ERESTARTNOHAND: i64 = 514;
    const ERESTART_RESTARTBLOCK: i64 = 516;
    const SYSCALL_BYTES: u64 = 2;
    let mut restarted = *registers;
    let restarts = [ERESTARTSYS, ERESTARTNOINTR, ERESTARTNOHAND, ERESTART_RESTARTBLOCK];
    if registers.system_call().is_some() && restarts.contains(&-registers.result()) {
        restarted.0.rax = registers.0.orig_rax;
        restarted.0.rip -= SYSCALL_BYTES;
    }
    restarted
}
