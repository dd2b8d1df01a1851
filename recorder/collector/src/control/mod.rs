//! The socket through which other programs send requests to a running recording, and the progress report that
//! the recording sends back.

pub mod progress;
pub mod socket;
