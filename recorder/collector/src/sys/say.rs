//! What is told on stderr: a line at a time, in one code_range.

use std::fmt::Display;
use std::io::{self, Write};

/// Says something, if anybody listens. A log on a full disk or a terminal that is gone must not end a
/// recording, as `eprintln!` would.
pub fn say(message: impl Display) {
    let line = format!("edleak-record: {message}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}
