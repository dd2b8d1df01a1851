//! edleak-record: runs a program and writes the trace of its allocations.

#![forbid(unsafe_code)]

mod analysis;
mod args;
mod commands;
mod run;

use args::{Args, CollectArgs, SessionsArgs, WatchArgs};
use clap::Parser;
use edleak_collector::start::detached;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Commands are told from programs by their place: a program of the same name is given as ./collect.
    let arguments: Vec<_> = std::env::args_os().collect();
    let of_command = arguments.get(1..).unwrap_or_default();
    let command = of_command.first().and_then(|word| word.to_str());
    let code = match command {
        Some("collect") => parse::<CollectArgs>(of_command).map(|args| detached::collect(&args.request())),
        Some("sessions") => parse::<SessionsArgs>(of_command).map(|SessionsArgs {}| commands::sessions()),
        Some("watch") => parse::<WatchArgs>(of_command).map(|args| commands::watch(&args, true)),
        Some("unwatch") => parse::<WatchArgs>(of_command).map(|args| commands::watch(&args, false)),
        _ => parse::<Args>(&arguments).map(|args| run::run(&args)),
    };
    code.unwrap_or_else(|code| code)
}

/// Parses a command line; a mistake in it is a failure of edleak-record, never the target's exit code.
fn parse<T: Parser>(arguments: &[std::ffi::OsString]) -> Result<T, ExitCode> {
    const FAILED: u8 = 125;
    T::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    })
}
