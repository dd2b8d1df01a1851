//! The registers of a stopped thread, with a method for each use of a register.
#![allow(unsafe_code)] // zeroed registers

/// The number of ptrace's register set for the floating-point and vector registers (`NT_X86_XSTATE`), as
/// XSAVE stores them.
pub(crate) const EXTENDED_STATE: usize = 0x202;
/// Number of bytes below the stack pointer that a function may use without moving the stack pointer.
pub(crate) const RED_ZONE: u64 = 128;
/// Offset of the thread ID in glibc's control block of a thread.
pub(crate) const TID_AT: u64 = 0x2d0;
/// Offset, in glibc's control block of a thread, of the pointer to the control block itself.
pub(crate) const SELF_AT: u64 = 0x10;

/// The general registers of a thread.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Registers(pub(super) libc::user_regs_struct);

impl Registers {
    /// Registers that are all 0.
    pub(crate) fn zeroed() -> Registers {
        // SAFETY: the structure consists of integers, for which zeros are valid.
        Registers(unsafe { std::mem::zeroed() })
    }

    /// The address of the next instruction.
    pub(crate) fn pc(&self) -> u64 {
        self.0.rip
    }

    /// The stack pointer.
    pub(crate) fn sp(&self) -> u64 {
        self.0.rsp
    }

    /// The frame pointer.
    pub(crate) fn fp(&self) -> u64 {
        self.0.rbp
    }

    /// The address of libc's control block of the thread.
    pub(crate) fn thread_pointer(&self) -> u64 {
        self.0.fs_base
    }

    /// The number of the system call in which the thread has stopped; `None`: the thread has stopped outside
    /// a system call.
    pub(crate) fn system_call(&self) -> Option<i64> {
        Some(self.0.orig_rax.cast_signed()).filter(|number| *number >= 0)
    }

    /// An argument of the system call; `index` is 0 to 5.
    pub(crate) fn argument(&self, index: usize) -> u64 {
        [self.0.rdi, self.0.rsi, self.0.rdx, self.0.r10, self.0.r8, self.0.r9][index]
    }

    /// The result of the system call. A negative result is an error number, or a code that makes the kernel
    /// restart the system call.
    pub(crate) fn result(&self) -> i64 {
        self.0.rax.cast_signed()
    }

    /// Sets the result of the system call.
    pub(crate) fn set_result(&mut self, result: i64) {
        self.0.rax = result.cast_unsigned();
    }

    /// The registers with which the thread runs the code at the address `code` ([`super::code`]). `block` is
    /// the address of the arguments of the code. The code uses the memory below `block` as its stack.
    pub(crate) fn running(&self, code: u64, block: u64) -> Registers {
        const TRAP_AND_DIRECTION: u64 = 0x500;
        Registers(libc::user_regs_struct {
            rip: code,
            rsp: block,
            rbx: block,
            rax: 0,
            orig_rax: u64::MAX,
            eflags: self.0.eflags & !TRAP_AND_DIRECTION,
            ..self.0
        })
    }
}
