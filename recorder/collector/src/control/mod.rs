//! How a running recording is asked: the socket, and what a recording says of its progress.

pub mod progress;
pub mod socket;
