//! `--metrics FILE`: writes the leaks and figures of a running recording to a text file for a monitoring
//! system. A reader of the file always sees a complete page.
//!
//! ```text
//! page    the findings of some recordings, as one page in the text format of OpenMetrics and Prometheus
//! mod     a thread that reads the traces of this recorder repeatedly and replaces the file
//! ```
//! The thread runs in edleak-record and reads the traces from their files, so neither the target nor the
//! collector waits for the thread. If the file cannot be written, the thread reports the error once, and the
//! recording goes on.

mod page;

use crate::commands::own_sessions;
use crate::snapshot::{Reader, Snapshot};
use edleak_collector::sys::say::say;
use edleak_collector::{Error, ErrorKind};
use edleak_text::reason::reason;
use std::collections::{BTreeMap, HashMap};
use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use page::Recorded;

/// Time from the start of the thread to the first page: only 1 second, so that even a short recording writes
/// a page before it ends.
const FIRST: Duration = Duration::from_secs(1);
/// Time between two pages. Monitoring systems read the file every 15 to 60 seconds.
const REFRESH: Duration = Duration::from_secs(5);
/// The thread spends at most 1/`MOST_BUSY` of its time on reading, so the thread reads large traces less
/// often than small traces.
const MOST_BUSY: u32 = 10;

/// Writes the file again and again until this value is dropped or [`finish`](Self::finish)ed.
#[derive(Debug)]
pub(crate) struct Metrics {
    file: PathBuf,
    most_sites: usize,
    thread: Option<(Sender<()>, JoinHandle<Traces>)>,
}

/// The readers of the traces. The thread keeps each reader, so that the symbols of a trace are read only
/// once.
#[derive(Debug, Default)]
struct Traces {
    readers: HashMap<PathBuf, Reader>,
    /// For each trace, the latest state of its process. The key is the absolute path, because the socket
    /// gives absolute paths, and the summaries may give paths relative to the working directory.
    last: HashMap<PathBuf, Recorded>,
}

impl Metrics {
    /// Checks that edleak-record can write `file`, by writing an empty page.
    ///
    /// # Errors
    /// edleak-record cannot write the file. The message gives the reason and the remedy.
    pub(crate) fn create(file: PathBuf, most_sites: usize) -> Result<Self, Error> {
        replace(&file, &page::page(&[], most_sites))
            .map_err(|error| unwritten(&file, &error, "name a file in a directory of yours"))?;
        Ok(Self { file, most_sites, thread: None })
    }

    /// Starts the thread that writes the metrics. Call this function only after the target has started: a
    /// thread that exists before could receive signals that edleak-record must pass to the target.
    pub(crate) fn start(&mut self) {
        let (file, most_sites) = (self.file.clone(), self.most_sites);
        let (stop, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("metrics".into()).spawn(move || {
            let mut traces = Traces::default();
            let mut has_failed = false;
            let mut pause = FIRST;
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                traces.refresh();
                if let Err(error) = replace(&file, &page::page(&traces.in_order(), most_sites))
                    && !has_failed
                {
                    has_failed = true;
                    let remedy =
                        "make room or permit it: edleak-record goes on and writes the next page again";
                    say(unwritten(&file, &error, remedy));
                }
                pause = REFRESH.max(began.elapsed() * MOST_BUSY);
            }
            traces
        });
        match thread {
            Ok(thread) => self.thread = Some((stop, thread)),
            Err(error) => say(format_args!("no metrics are written: {error} (see `ulimit -u`)")),
        }
    }

    /// Writes the last page, from the finished traces.
    pub(crate) fn finish(mut self, traces: &[&Path]) {
        let Some((stop, thread)) = self.thread.take() else { return };
        drop(stop);
        let mut known = thread.join().unwrap_or_default();
        for recorded in known.last.values_mut() {
            recorded.is_running = false;
        }
        for path in traces {
            known.read(path, false);
        }
        if let Err(error) = replace(&self.file, &page::page(&known.in_order(), self.most_sites)) {
            say(unwritten(&self.file, &error, "read the figures with edleak-analyze"));
        }
    }
}

impl Traces {
    /// Reads all traces of this recorder that are not finished.
    fn refresh(&mut self) {
        for recorded in self.last.values_mut() {
            recorded.is_running = false;
        }
        for progress in own_sessions() {
            self.read(&progress.trace, true);
        }
    }

    /// Reads one trace. If the trace cannot be read, the page keeps the figures of the previous read.
    fn read(&mut self, trace: &Path, is_running: bool) {
        let trace = std::path::absolute(trace).unwrap_or_else(|_| trace.to_owned());
        let reader = self.readers.entry(trace.clone()).or_insert_with(|| Reader::new(trace.clone()));
        match reader.read() {
            Ok(snapshot) => {
                self.last.insert(trace, Recorded { is_running, snapshot });
            }
            Err(_) => {
                if let Some(recorded) = self.last.get_mut(&trace) {
                    recorded.is_running = is_running;
                }
            }
        }
    }

    /// The processes, sorted by PID, so that the lines of the page keep their order.
    ///
    /// Several traces can have the same PID and program: a process that executes another program has a trace
    /// for each program, and the kernel can reuse a PID. The PID and the program are the labels of a series,
    /// and OpenMetrics forbids two series with the same labels. So the page has only the recording that
    /// started last.
    fn in_order(&self) -> Vec<&Recorded> {
        let mut all: Vec<_> = self.last.iter().collect();
        all.sort_by_key(|(trace, recorded)| (recorded.snapshot.started_unix_ns, *trace));
        let labels = |snapshot: &Snapshot| (snapshot.pid, snapshot.program.clone());
        let latest: BTreeMap<_, _> =
            all.into_iter().map(|(_, recorded)| (labels(&recorded.snapshot), recorded)).collect();
        latest.into_values().collect()
    }
}

/// The error for a page that edleak-record cannot write. The text of `error` can end with the name of the
/// temporary file, which the user does not know, so the message has only the reason and the path of the user.
fn unwritten(file: &Path, error: &io::Error, remedy: &str) -> Error {
    let message = format!("cannot write metrics to `{}`: {}", file.display(), reason(error));
    Error::new(ErrorKind::Output, message).with_remedy(remedy)
}

/// Replaces `file` by a new file with this text. So a reader sees either the whole old page or the whole new
/// page.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    // The new file is in the directory of the old file, because a rename cannot cross file systems.
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut prefix = file.file_name().ok_or(io::ErrorKind::IsADirectory)?.to_owned();
    prefix.push(".");
    // Other users may read the page, if the umask allows it, as for every new file.
    let readable = Permissions::from_mode(0o666);
    let mut new = tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(".new")
        .permissions(readable)
        .tempfile_in(directory)?;
    new.write_all(text.as_bytes())?;
    new.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_with_the_same_labels_give_the_series_of_the_latest() {
        let mut traces = Traces::default();
        for (trace, pid, program, started_unix_ns, live_bytes) in [
            ("t.exec1.edl", 7, "p", 10, 1),
            ("t.edl", 7, "p", 30, 3),
            ("t.exec2.edl", 7, "p", 20, 2),
            ("t.5.edl", 5, "p", 15, 5),
            ("t.7.edl", 7, "q", 5, 4),
        ] {
            let snapshot =
                Snapshot { pid, program: program.into(), started_unix_ns, live_bytes, ..Snapshot::default() };
            traces.last.insert(trace.into(), Recorded { is_running: false, snapshot });
        }
        let figures: Vec<_> =
            traces.in_order().iter().map(|one| (one.snapshot.pid, one.snapshot.live_bytes)).collect();
        assert_eq!(figures, [(5, 5), (7, 3), (7, 4)]);
    }
}
