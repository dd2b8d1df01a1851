//! Phase 1: opens an input, which is a trace, edLeak's JSON slices, or series lines.
//!
//! The loader recognizes the kind of an input by its content; the name of the file does not matter. When a
//! trace is opened, its blocks are indexed but no slice is decoded. The loader condenses each series of a
//! text input while it reads the input. So the loader needs memory in proportion to the number of sites, and
//! not to the size of the input.

pub mod edleak_json;
pub mod line_series;
pub mod lines;

use crate::error::{Error, ErrorKind, Result};
use edleak_format::Trace;
use edleak_text::reason::reason;
use line_series::LineSeries;
pub use line_series::LoadOptions;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Maximum number of bytes of a trace on stdin. edleak-analyze must keep such a trace in memory, so it
/// refuses a larger trace; the user can give the larger trace as a file.
const MAX_STDIN_BYTES: u64 = 4 << 30;
/// The loader recognizes a trace by this number of bytes at the start of the input.
const PROBED_BYTES: u64 = 1 << 16;
/// The loader searches this number of bytes at the start of an input for the first character that is not
/// white space.
const SNIFFED_BYTES: usize = 4096;

/// An opened input.
pub enum Input {
    /// A trace.
    Trace(Box<Trace>),
    /// The series of a text input.
    Lines(Vec<LineSeries>),
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trace(trace) => f.debug_tuple("Trace").field(&trace.start().command).finish(),
            Self::Lines(lines) => f.debug_tuple("Lines").field(&lines.len()).finish(),
        }
    }
}

/// Opens the input at `path`; `-` is stdin.
///
/// # Errors
/// The input cannot be read, or the input is not a recording.
pub fn load(path: &Path, options: LoadOptions) -> Result<Input> {
    let failed = |error: Error| error.context(format_args!("failed to read `{}`", path.display()));
    if path.as_os_str() == "-" {
        return load_stream(std::io::stdin().lock(), options).map_err(failed);
    }
    let file = File::open(path).map_err(|error| failed(io_error(&error)))?;
    let metadata = file.metadata().map_err(|error| failed(io_error(&error)))?;
    if metadata.is_dir() {
        return Err(failed(
            Error::new(ErrorKind::Unreadable, "it is a directory")
                .with_remedy("give the trace file inside it"),
        ));
    }
    let mut reader = BufReader::with_capacity(1 << 16, file);
    if metadata.is_file() && !is_text(reader.fill_buf().map_err(|error| failed(io_error(&error)))?) {
        return Trace::open(path)
            .map(|trace| Input::Trace(Box::new(trace)))
            .map_err(|error| trace_error(&error));
    }
    load_stream(reader, options).map_err(failed)
}

/// Reads an input that cannot be mapped into memory, such as a pipe.
fn load_stream(mut reader: impl BufRead, options: LoadOptions) -> Result<Input> {
    let start = reader.fill_buf().map_err(|error| io_error(&error))?;
    if is_report(start) {
        return Err(Error::new(ErrorKind::Unreadable, "it is a saved report, not a recording")
            .with_remedy("give the recording here, and the report with `--baseline`"));
    }
    if is_text(start) {
        return lines::read(reader, options).map(Input::Lines);
    }
    let mut bytes = Vec::new();
    read_up_to(&mut reader, PROBED_BYTES, &mut bytes)?;
    // A pipe may never end, so the loader checks whether the input is a trace before it reads the whole
    // input.
    Trace::from_bytes(bytes.clone()).map_err(|error| trace_error(&error))?;
    read_up_to(&mut reader, MAX_STDIN_BYTES + 1, &mut bytes)?;
    if bytes.len() as u64 > MAX_STDIN_BYTES {
        return Err(Error::new(ErrorKind::Unreadable, "more than 4 GiB on a pipe")
            .with_remedy("save it to a file and give its name"));
    }
    Trace::from_bytes(bytes).map(|trace| Input::Trace(Box::new(trace))).map_err(|error| trace_error(&error))
}

fn read_up_to(reader: &mut impl Read, bytes: u64, into: &mut Vec<u8>) -> Result<()> {
    reader.take(bytes).read_to_end(into).map(|_| ()).map_err(|error| io_error(&error))
}

/// Whether the input is text: a text input is a JSON object, so it begins with `{`. The trace reader gets
/// every input that is not text, and refuses the input if it is not a trace.
fn is_text(start: &[u8]) -> bool {
    start.iter().take(SNIFFED_BYTES).find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{')
}

/// Whether the input is a report saved with `--format json`. A saved report has its version at the start, so
/// the function reads only the start of the input and is fast even for a text input of a gigabyte.
pub(crate) fn is_report(start: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&start[..start.len().min(SNIFFED_BYTES)]);
    start.trim_start().starts_with('{') && start.contains("\"format_version\"")
}

fn io_error(error: &std::io::Error) -> Error {
    let remedy = match error.kind() {
        std::io::ErrorKind::NotFound => {
            "check the path; edleak-record writes `trace.edl` unless -o names another file"
        }
        std::io::ErrorKind::PermissionDenied => {
            "traces are readable by their owner only; run as that user or change the mode"
        }
        _ => "check the file and its disk",
    };
    Error::new(ErrorKind::Io, reason(error)).with_remedy(remedy)
}

fn trace_error(error: &edleak_format::Error) -> Error {
    let told = Error::new(ErrorKind::Unreadable, error.message());
    match error.remedy() {
        Some(remedy) => told.with_remedy(remedy),
        None => told,
    }
}
