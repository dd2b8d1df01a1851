//! Inputs, outputs and messages that the commands share.

use anyhow::{Context, Result, bail};
use edleak_analysis::load::{LoadOptions, Recording, load};
use edleak_binary::Symbolizer;
use edleak_format::Trace;
use edleak_format::place::{self, identity};
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Exit code of `diff` and `verify`: a leak is new or faster, or a part of a trace is damaged.
pub(crate) const EXIT_WORSE: u8 = 1;
/// Exit code for errors.
pub(crate) const EXIT_ERROR: u8 = 3;

/// Prints one line, even if a name in it has line breaks. If stderr is closed, nobody can read the message.
pub(crate) fn say(message: impl Display) {
    let message = message.to_string().replace(['\n', '\r'], " ");
    let _ = writeln!(io::stderr(), "edleak-analyze: {message}");
}

/// Reports symbols that the user asked for and that edleak could not get.
pub(crate) fn complain(symbolizer: &Symbolizer) {
    if let Some(complaint) = symbolizer.complaint() {
        say(complaint);
    }
}

/// Refuses to overwrite an input: it is a mistake, and the recording would be lost.
pub(crate) fn refuse_overwriting(input: &Path, output: &Path) -> Result<()> {
    // The comparison is by inode: a second name of a file, or the file behind stdin, is the same recording.
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

/// Opens a trace; refuses other kinds of recordings.
pub(crate) fn open_trace(path: &Path) -> Result<Trace> {
    match load(path, LoadOptions::default())? {
        Recording::Trace(trace) => Ok(*trace),
        Recording::Lines(_) => {
            bail!("`{}` is not a trace (give a file that edleak-record wrote)", path.display())
        }
    }
}

/// Runs `write` on the file at `path`, or on stdout.
pub(crate) fn write_out(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        let mut out = BufWriter::new(io::stdout().lock());
        return write(&mut out).and_then(|()| out.flush()).context("failed to write the report");
    };
    let failed = || format!("failed to write the report to `{}` (give another file with -o)", path.display());
    // Truncate the file only under its lock. A recording may begin at any time, and an unlocked truncation
    // would destroy its first slices.
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
