//! The commands `sessions`, `watch`, `unwatch`, `mark` and `unpack`. All commands except `unpack` send
//! requests to the control socket of a running recording.

use crate::args::{MarkArgs, UnpackArgs, WatchArgs};
use crate::embedded::{HEADERS, LIBRARY};
use edleak_collector::control::progress::Progress;
use edleak_collector::control::socket::{PROTOCOL, directories, is_private, is_stale};
use edleak_collector::recording::mark_slices::{MAX_NAME_BYTES, printable};
use edleak_collector::start::unpack::copy_to;
use edleak_collector::sys::say::say;
use edleak_collector::sys::shell;
use edleak_collector::watch::request::Request;
use edleak_collector::{Error, ErrorKind};
use edleak_text::units::{self, plural};
use std::io::{self, IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The exit code of edleak-record if a command or a recording fails.
pub(crate) const FAILED: u8 = 125;
/// Maximum time for which a client waits for the answer to a request: 60 seconds, because the collector may
/// have to read the symbols of a large program before it answers.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum time for which a client waits for the progress of a recording: 2 seconds suffice, because a
/// collector answers a request for the progress immediately.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(2);

/// Lists the running recordings of this user.
pub(crate) fn sessions() -> ExitCode {
    let (running, silent) = running();
    silent.iter().for_each(say);
    if running.is_empty() && silent.is_empty() {
        say("no recording is running (start one: edleak-record PROGRAM)");
    } else if !running.is_empty() {
        // Ignore an error here: if the program that reads the output has closed the pipe, it does not need
        // the rest.
        let is_for_a_person = io::stdout().is_terminal();
        let _ = io::stdout().write_all(table(&running, is_for_a_person).as_bytes());
    }
    ExitCode::SUCCESS
}

/// Writes edleak-record and its library into a directory.
pub(crate) fn unpack(args: &UnpackArgs) -> ExitCode {
    match copy_to(&args.directory, LIBRARY.0, &HEADERS) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(error);
            ExitCode::from(FAILED)
        }
    }
}

/// Starts or ends the recording of full stacks at sites in a running recording.
pub(crate) fn watch(args: &WatchArgs, is_for: bool) -> ExitCode {
    print_answer(steer(args, is_for))
}

/// Prints the answer of a collector, or the error message.
fn print_answer(answer: Result<String, Error>) -> ExitCode {
    match answer {
        Ok(answer) => {
            let _ = writeln!(io::stdout(), "{answer}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(error);
            ExitCode::from(FAILED)
        }
    }
}

fn steer(args: &WatchArgs, is_for: bool) -> Result<String, Error> {
    // The client and not the collector parses the requests, because the names of traces are relative to the
    // client's directory.
    let requests: Vec<_> = args.specs.iter().map(|spec| Request::parse(spec)).collect::<Result<_, _>>()?;
    let session = select(args.session)?;
    let verb = if is_for { "watch" } else { "unwatch" };
    let mut words = vec![verb.to_owned(), session.progress.pid.to_string()];
    words.extend(requests.iter().map(Request::to_string));
    ask(&session.socket, &words, REQUEST_TIMEOUT)
}

/// Marks this instant of a running recording.
pub(crate) fn mark(args: &MarkArgs) -> ExitCode {
    print_answer(set_mark(args))
}

fn set_mark(args: &MarkArgs) -> Result<String, Error> {
    let bytes = args.name.as_bytes();
    if bytes.is_empty() {
        return Err(Error::new(ErrorKind::Value, "the mark has no name")
            .with_remedy("give one, like `edleak-record mark deployed`"));
    }
    let name = printable(&bytes[..bytes.len().min(MAX_NAME_BYTES)]);
    let session = select(args.session)?;
    ask(&session.socket, &["mark".to_owned(), session.progress.pid.to_string(), name], REQUEST_TIMEOUT)
}

/// The running recording of the process `session`; if `session` is `None`, the only running recording.
pub(crate) fn select(session: Option<u32>) -> Result<Running, Error> {
    let (mut running, silent) = running();
    silent.iter().for_each(say);
    match (session, running.len()) {
        (_, 0) if !silent.is_empty() => Err(control("no recording responds", "see above")),
        (_, 0) => Err(control("no recording is running", "start one: edleak-record PROGRAM")),
        (None, 1) => Ok(running.remove(0)),
        (None, _) => {
            let pids: Vec<_> = running.iter().map(|session| session.progress.pid.to_string()).collect();
            let message = format!("more than one recording is running: {}", pids.join(", "));
            Err(control(&message, "choose one with --session PID"))
        }
        (Some(pid), _) => running.into_iter().find(|session| session.is_called(pid)).ok_or_else(|| {
            if silent.is_empty() {
                let message = format!("process {pid} is not being recorded");
                control(&message, "list the recorded ones with `edleak-record sessions`")
            } else {
                control(&format!("no recording of process {pid} responds"), "see above")
            }
        }),
    }
}

/// The error for a running recording that the client cannot reach.
fn control(message: &str, remedy: &str) -> Error {
    Error::new(ErrorKind::Control, message).with_remedy(remedy)
}

/// A running recording, and the socket of its collector.
pub(crate) struct Running {
    pub(crate) socket: PathBuf,
    pub(crate) progress: Progress,
}

impl Running {
    /// Whether `pid` is the PID of the recorded process or the PID of its edleak-record.
    fn is_called(&self, pid: u32) -> bool {
        self.progress.pid == pid
            || self.socket.file_stem().is_some_and(|name| name == pid.to_string().as_str())
    }
}

/// All recordings of this user, sorted by PID, and one message for each recording that did not answer.
fn running() -> (Vec<Running>, Vec<String>) {
    let (mut running, mut silent) = (Vec::new(), Vec::new());
    for directory in directories() {
        if directory.exists() && !is_private(&directory) {
            silent.push(format!(
                "`{}` belongs to another user, so recordings in it cannot be listed (remove it)",
                directory.display()
            ));
            continue;
        }
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let socket = entry.path();
            if socket.extension().is_none_or(|extension| extension != "sock") {
                continue;
            }
            if is_stale(&socket) {
                // The collector of this socket was killed, so remove the socket. If the removal fails,
                // another process has already removed the socket.
                let _ = std::fs::remove_file(&socket);
                continue;
            }
            match ask(&socket, &["list".to_owned()], PROGRESS_TIMEOUT) {
                Ok(list) => {
                    let sessions = list.lines().filter_map(Progress::parse);
                    running.extend(sessions.map(|progress| Running { socket: socket.clone(), progress }));
                }
                // The recording has no socket any more: it ended just after `running` had found the socket.
                Err(_) if !socket.exists() => {}
                Err(_) => silent.push(format!(
                    "edleak-record with pid {0} does not answer (is it stopped? `kill -CONT {0}`)",
                    socket.file_stem().unwrap_or_default().display()
                )),
            }
        }
    }
    running.sort_by_key(|session| session.progress.pid);
    (running, silent)
}

/// The progress of the recordings that this process itself makes.
pub(crate) fn own_sessions() -> Vec<Progress> {
    let own = format!("{}.sock", std::process::id());
    let socket =
        directories().into_iter().map(|directory| directory.join(&own)).find(|socket| socket.exists());
    let list = socket.and_then(|socket| ask(&socket, &["list".to_owned()], PROGRESS_TIMEOUT).ok());
    list.iter().flat_map(|list| list.lines()).filter_map(Progress::parse).collect()
}

/// The current progress of the recording. `None`: the recording has ended, or its collector does not answer.
pub(crate) fn progress_of(session: &Running) -> Option<Progress> {
    let list = ask(&session.socket, &["list".to_owned()], PROGRESS_TIMEOUT).ok()?;
    list.lines().filter_map(Progress::parse).find(|progress| progress.pid == session.progress.pid)
}

/// Asks a collector to watch or unwatch one site. Returns the answer of the collector, which is a sentence
/// for the user.
pub(crate) fn watch_site(session: &Running, spec: &str, is_for: bool) -> Result<String, Error> {
    let verb = if is_for { "watch" } else { "unwatch" };
    let words = [verb.to_owned(), session.progress.pid.to_string(), spec.to_owned()];
    ask(&session.socket, &words, REQUEST_TIMEOUT)
}

/// Sends one request and waits for the answer for at most `timeout`.
fn ask(socket: &Path, words: &[String], timeout: Duration) -> Result<String, Error> {
    let failed = |error: io::Error| {
        control(&format!("failed to reach the recording: {error}"), "is it still running?")
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(timeout)).map_err(failed)?;
    stream.set_write_timeout(Some(timeout)).map_err(failed)?;
    let request = format!("{PROTOCOL}\t{}\n", words.join("\t"));
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    match answer.split_once('\n') {
        Some(("ok", text)) => Ok(text.trim_end().to_owned()),
        // The collector's message already contains the remedy.
        Some(("error", text)) => Err(Error::new(ErrorKind::Request, text.trim_end())),
        _ => Err(control(
            "the recording ended before it answered",
            "list the running recordings: edleak-record sessions",
        )),
    }
}

/// The list of recordings as text. On a terminal, a long command line is shortened, so that each recording
/// takes one line. The PID in the line still identifies a recording whose command line is shortened.
fn table(running: &[Running], is_for_a_person: bool) -> String {
    // The five columns of figures to the left of the command take 43 characters.
    const COMMAND_COLUMNS: usize = 80 - 43;
    let mut text =
        format!("{:>7}  {:>8}  {:>6}  {:>6}  {:>6}  program\n", "pid", "for", "slices", "sites", "stacks");
    for Running { progress, .. } in running {
        let Progress { pid, seconds, slices, sites, stacks, picked, watched, trace, command } = progress;
        // The collector reports whole seconds.
        let duration = if *seconds == 0 { "< 1 s".into() } else { units::duration(*seconds as f64) };
        let command = match command.char_indices().nth(COMMAND_COLUMNS - 1) {
            Some((at, _)) if is_for_a_person && command.chars().count() > COMMAND_COLUMNS => {
                format!("{}…", &command[..at])
            }
            _ => command.clone(),
        };
        text.push_str(&format!("{pid:>7}  {duration:>8}  {slices:>6}  {sites:>6}  {stacks:>6}  {command}\n"));
        text.push_str(&format!("{:9}into {}\n", "", shell::path(trace)));
        let picked = (*picked > 0)
            .then(|| plural(*picked as u64, "site that looks like a leak", "sites that look like leaks"));
        let watched: Vec<_> =
            Some(watched.clone()).filter(|all| !all.is_empty()).into_iter().chain(picked).collect();
        if !watched.is_empty() {
            text.push_str(&format!("{:9}watching {}\n", "", watched.join(", ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recording_takes_two_lines_and_a_third_for_its_watches() {
        let mut progress = Progress {
            pid: 4711,
            seconds: 90,
            slices: 82,
            sites: 12,
            stacks: 0,
            picked: 0,
            watched: String::new(),
            trace: "/tmp/trace.edl".into(),
            command: "./server --port 80".into(),
        };
        let shown = |progress: &Progress| {
            table(&[Running { socket: PathBuf::new(), progress: progress.clone() }], true)
        };
        assert_eq!(shown(&progress).lines().count(), 3);
        progress.seconds = 0;
        assert!(shown(&progress).contains(" < 1 s "), "{}", shown(&progress));
        (progress.watched, progress.picked) = ("parse_*".into(), 2);
        let text = shown(&progress);
        assert_eq!(text.lines().nth(3), Some("         watching parse_*, 2 sites that look like leaks"));
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        progress.command = "java -jar service.jar --port 80 --and-so-on".into();
        let text = shown(&progress);
        let line = text.lines().nth(1).unwrap_or_default();
        assert!(line.chars().count() == 80 && line.ends_with('…'), "{text}");
    }
}
