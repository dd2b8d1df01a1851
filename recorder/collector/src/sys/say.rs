//! Prints messages to stderr. Each message is one line, which is written in one system call.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a message to stderr and ignores errors. A log on a full disk or a closed terminal must not end a
/// recording, as `eprintln!` would.
pub fn say(message: impl Display) {
    let line = format!("edleak-record: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
