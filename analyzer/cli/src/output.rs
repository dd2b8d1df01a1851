//! Opens inputs, writes outputs and prints messages, for all commands.

use anyhow::{Context, Result, bail};
use edleak_analysis::load::{Input, LoadOptions, load};
use edleak_binary::Symbolizer;
use edleak_format::Trace;
use edleak_format::place::{self, identity};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Exit code of `diff` if a leak is new or faster, and of `verify` if a part of a trace is damaged.
pub(crate) const EXIT_WORSE: u8 = 1;
/// Exit code for errors.
pub(crate) const EXIT_ERROR: u8 = 3;

/// Prints a message in one line, even if a name in the message has line breaks. If stderr is closed, the
/// message is lost and the program goes on.
pub(crate) fn say(message: impl Display) {
    let message = message.to_string().replace(['\n', '\r'], " ");
    let _ = writeln!(io::stderr(), "edleak-analyze: {message}");
}

/// Prints a message if requests to the debuginfod servers failed, because then functions may have no names.
pub(crate) fn complain(symbolizer: &Symbolizer) {
    if let Some(complaint) = symbolizer.complaint() {
        say(complaint);
    }
}

/// Fails if the output is the same file as the input, because the recording in the input would be lost.
pub(crate) fn refuse_overwriting(input: &Path, output: &Path) -> Result<()> {
    // Compare inodes and not names, because one file may have two names, and because the input may be stdin.
    let file = |path: &Path| std::fs::metadata(path).map(|file| identity(&file)).ok();
    let stdin = || {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
        stdin.is_file().then(|| identity(&stdin))
    };
    let input_file = if input.as_os_str() == "-" { stdin() } else { file(input) };
    if input_file.is_some_and(|input| file(output) == Some(input)) {
        bail!("`{}` would be overwritten by its own output (give another file with `-o`)", input.display());
    }
    Ok(())
}

/// Opens a trace. If the file is a recording in another format, such as series lines, the function fails.
pub(crate) fn open_trace(path: &Path) -> Result<Trace> {
    match load(path, LoadOptions::default())? {
        Input::Trace(trace) => Ok(*trace),
        Input::Lines(_) => {
            bail!("`{}` is not a trace (give a file that edleak-record wrote)", path.display())
        }
    }
}

/// Calls `write` with the file at `path`, or with stdout.
pub(crate) fn write_out(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        let mut out = BufWriter::new(io::stdout().lock());
        return write(&mut out).and_then(|()| out.flush()).context("failed to write the report");
    };
    let failed = || format!("failed to write the report to `{}` (give another file with -o)", path.display());
    // Lock the file before truncating it. Without the lock, a recording into this file could begin just
    // before the truncation, and the first slices of the recording would be lost.
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path).with_context(failed)?;
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        if !place::lock(&file) {
            bail!("`{}` is still being recorded (give another file with `-o`)", path.display());
        }
        file.set_len(0).with_context(failed)?;
    }
    let mut out = BufWriter::new(file);
    write(&mut out).and_then(|()| out.flush()).with_context(failed)
}
