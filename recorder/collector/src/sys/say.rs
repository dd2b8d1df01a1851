//! Prints messages to stderr. Each message is one line, and one system call writes the whole line.

use std::fmt::Display;
use std::io::{self, Write};

/// Prints a message to stderr and ignores errors. If stderr is a file on a full disk or a closed terminal,
/// `eprintln!` would panic and end the recording.
///
/// A name in the message can have control characters, such as a line feed. The function prints `?` for each.
pub fn say(message: impl Display) {
    let message = message.to_string().replace(char::is_control, "?");
    let line = format!("edleak-record: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
