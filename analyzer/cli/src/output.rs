//! Opens inputs, writes outputs and prints messages, for all commands.

use anyhow::{Context, Result, anyhow, bail};
use edleak_analysis::load::{Input, LoadOptions, load};
use edleak_analysis::replacement::Replacement;
use edleak_binary::Symbolizer;
use edleak_format::Trace;
use edleak_format::place::identity;
use edleak_text::reason::reason;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
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

/// Calls `write` with the file at `path`, or with stdout. A file at `path` is replaced when the new file is
/// complete, so a full disk does not destroy an older report.
///
/// If the reader of a pipe has closed it, as `head` does after the first lines, the rest of the output is
/// lost. This is no failure, and the caller still returns the exit code of its result.
pub(crate) fn write_out(
    path: Option<&Path>,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<()> {
    let Some(path) = path else {
        return written(io::stdout().lock(), write).context("failed to write the report");
    };
    let failed = |error: io::Error| {
        let reason = reason(&error);
        anyhow!("failed to write the report to `{}`: {reason} (give another file with -o)", path.display())
    };
    // A file that the user may not write is not replaced either, although the folder would allow it.
    if path.is_file() {
        OpenOptions::new().write(true).open(path).map_err(failed)?;
    }
    use io::ErrorKind::{
        CrossesDevices, InvalidFilename, InvalidInput, PermissionDenied, ReadOnlyFilesystem, ResourceBusy,
    };
    let open = || OpenOptions::new().write(true).create(true).truncate(true).open(path);
    // If a file has several names, a replacement would have only one of them.
    let has_names = std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.nlink() > 1);
    let replacement = match Replacement::of(path, 0o666) {
        Ok(replacement) if !has_names => replacement,
        Err(error)
            if !matches!(
                error.kind(),
                InvalidFilename | InvalidInput | PermissionDenied | ReadOnlyFilesystem
            ) =>
        {
            return Err(failed(error));
        }
        // The path may be a device or a pipe, or the user may write the file but not its folder. Then write
        // directly to the path.
        _ => return written(open().map_err(failed)?, write).map_err(failed),
    };
    written(replacement.file(), write).map_err(failed)?;
    let mut content = replacement.file().try_clone().map_err(failed)?;
    match replacement.put_in_place() {
        // The name of a file that is mounted into a container cannot lead to another file. The report is
        // complete, so copy it.
        Err(error) if matches!(error.kind(), CrossesDevices | PermissionDenied | ResourceBusy) => {
            content.rewind().map_err(failed)?;
            let mut file = open().map_err(failed)?;
            io::copy(&mut content, &mut file).map(drop).map_err(failed)
        }
        put => put.map_err(failed),
    }
}

/// Calls `write` with a buffer for `out`.
fn written(out: impl Write, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(WithoutReader { out, is_closed: false });
    write(&mut out).and_then(|()| out.flush())
}

/// Discards the output from the time at which the reader of a pipe has closed it. The exporters do not see
/// the error, because some of their libraries wrap it in an error of another kind.
struct WithoutReader<W> {
    out: W,
    is_closed: bool,
}

impl<W: Write> WithoutReader<W> {
    fn unless_closed<T>(&mut self, lost: T, write: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        if self.is_closed {
            return Ok(lost);
        }
        match write(&mut self.out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.is_closed = true;
                Ok(lost)
            }
            done => done,
        }
    }
}

impl<W: Write> Write for WithoutReader<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_closed(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_closed((), W::flush)
    }
}
