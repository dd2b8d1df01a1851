//! The socket through which other programs ask a running recording, and the progress report that it sends
//! back.

pub mod progress;
pub mod socket;
