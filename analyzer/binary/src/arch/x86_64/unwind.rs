//! The registers of x86-64 (psABI, table 3.36), and the stack position at which a call stores the return
//! address.

use crate::arch::registers::Registers;
use gimli::X86_64;

/// The instruction `call` pushes the return address. The CFA is the value of the stack pointer before
/// `call` pushes the return address.
pub(crate) const REGISTERS: Registers =
    Registers { return_address: X86_64::RA, sp: X86_64::RSP, fp: X86_64::RBP, return_address_at: -8 };
