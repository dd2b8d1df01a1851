//! The program edleak-analyze: reads its arguments, runs a command, and returns the exit code (0 no leak, 1
//! leaks, 2 undecided, 3 error). The file `bin/edleak-analyze.rs` only calls this crate.

mod args;
mod commands;
mod output;
mod profile;
mod report;

use args::{Cli, Command};
use clap::Parser;
use output::{EXIT_ERROR, say};
use std::process::ExitCode;

/// The description of the command line. The manual pages and the shell completions are generated from this
/// description.
pub fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs edleak-analyze with the arguments of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap also returns an error for `--help` and `--version`, but these two are no failures. If
            // stderr is closed, the message is lost.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(EXIT_ERROR) } else { ExitCode::SUCCESS };
        }
    };
    let code = match cli.command {
        None => report::run(&cli.analyze),
        Some(Command::Diff { before, after, format, symbols }) => {
            commands::diff(&before, &after, format, symbols)
        }
        Some(Command::Profile(args)) => profile::run(&args),
        Some(Command::Verify { traces }) => commands::verify(&traces),
        Some(Command::Embed { trace, output, symbols }) => {
            commands::embed(&trace, output.as_deref(), symbols)
        }
        Some(Command::Anonymize { trace, output, key }) => {
            commands::anonymize(&trace, &output, key.as_deref())
        }
        Some(Command::Score { corpus, births }) => commands::score(&corpus, births.as_deref()),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(EXIT_ERROR)
        }
    }
}
