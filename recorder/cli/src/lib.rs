//! edleak-record: it runs a program and writes a trace of the program's allocations. The function `main` of
//! edleak-record is in `bin/edleak-record.rs`.

#![forbid(unsafe_code)]

mod analysis;
mod args;
mod commands;
mod doctor;
mod embedded;
mod metrics;
mod run;
mod snapshot;
mod top;

use args::{Args, CollectArgs, DoctorArgs, MarkArgs, SessionsArgs, TopArgs, UnpackArgs, WatchArgs};
use clap::{CommandFactory, Parser};
use edleak_collector::start::detached;
use std::process::ExitCode;

/// The command lines of edleak-record and of its commands, from which manual pages and completions are made.
pub fn commands() -> Vec<clap::Command> {
    vec![
        Args::command(),
        SessionsArgs::command(),
        TopArgs::command(),
        WatchArgs::command(),
        MarkArgs::command(),
        UnpackArgs::command(),
        DoctorArgs::command(),
    ]
}

/// Runs edleak-record with the arguments of this process.
pub fn main() -> ExitCode {
    // Only the first argument can be a command. To record a program that has the name of a command, the user
    // writes a path, such as ./collect.
    let arguments: Vec<_> = std::env::args_os().collect();
    let of_command = arguments.get(1..).unwrap_or_default();
    let command = of_command.first().and_then(|word| word.to_str());
    let code = match command {
        Some("collect") => parse::<CollectArgs>(of_command).map(|args| detached::collect(&args.request())),
        Some("doctor") => parse::<DoctorArgs>(of_command).map(|args| doctor::run(&args)),
        Some("unpack") => parse::<UnpackArgs>(of_command).map(|args| commands::unpack(&args)),
        Some("mark") => parse::<MarkArgs>(of_command).map(|args| commands::mark(&args)),
        Some("sessions") => parse::<SessionsArgs>(of_command).map(|SessionsArgs {}| commands::sessions()),
        Some("top") => parse::<TopArgs>(of_command).map(|args| top::run(&args)),
        Some("watch") => parse::<WatchArgs>(of_command).map(|args| commands::watch(&args, true)),
        Some("unwatch") => parse::<WatchArgs>(of_command).map(|args| commands::watch(&args, false)),
        _ => parse::<Args>(&arguments).map(|args| run::run(&args)),
    };
    code.unwrap_or_else(|code| code)
}

/// Parses a command line. If the command line is wrong, edleak-record exits with 125, so that a script does
/// not take this exit code for the target's exit code.
fn parse<T: Parser>(arguments: &[std::ffi::OsString]) -> Result<T, ExitCode> {
    const FAILED: u8 = 125;
    T::try_parse_from(arguments).map_err(|error| {
        let _ = error.print();
        if error.use_stderr() { ExitCode::from(FAILED) } else { ExitCode::SUCCESS }
    })
}
