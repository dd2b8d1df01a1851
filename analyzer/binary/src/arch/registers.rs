//! The registers that are needed to unwind a stack.

use gimli::Register;

/// The registers of one machine that are needed to unwind a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The register number that DWARF uses for the return address.
    pub(crate) return_address: Register,
    pub(crate) sp: Register,
    pub(crate) fp: Register,
    /// Where the return address is stored: its distance from the CFA, in bytes.
    pub(crate) return_address_at: i64,
}
