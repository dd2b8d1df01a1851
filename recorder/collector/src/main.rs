//! edleak-record: runs a program and writes the trace of its allocations.

use clap::Parser;
use edleak_collector::args::{Args, CollectArgs};
use edleak_collector::{detached, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Commands are told from programs by their place: a program of the same name is given as ./collect.
    let arguments: Vec<_> = std::env::args_os().collect();
    let command = arguments.get(1).and_then(|word| word.to_str());
    if command == Some("collect") {
        return parse::<CollectArgs>(arguments.get(1..).unwrap_or_default())
            .map_or_else(|code| code, |args| detached::collect(&args));
    }
    parse::<Args>(&arguments).map_or_else(|code| code, |args| run::run(&args))
}

/// Parses a command line; a mistake in it is a failure of edleak-record, never the target's exit code.
fn parse<T: Parser>(arguments: &[std::ffi::OsString]) -> Result<T, ExitCode> {
    const FAILED: u8 = 125;
    T::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    })
}
