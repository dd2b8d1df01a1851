//! The registers that unwinding needs.

use gimli::Register;

/// The registers of one machine for unwinding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// The register column of DWARF that stands for the return address.
    pub(crate) return_address: Register,
    pub(crate) sp: Register,
    pub(crate) fp: Register,
    /// The place of the return address, in bytes from the CFA.
    pub(crate) return_address_at: i64,
}
