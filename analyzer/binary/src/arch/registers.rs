//! What unwinding has to know of a machine.

use gimli::Register;

/// The registers that unwinding is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    /// Where the caller goes on.
    pub(crate) return_address: Register,
    pub(crate) sp: Register,
    pub(crate) fp: Register,
    /// Where a frame keeps its return address, from its CFA.
    pub(crate) return_address_at: i64,
}
