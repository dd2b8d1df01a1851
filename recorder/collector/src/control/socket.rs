//! The control socket: through this socket, other programs ask a running recording for its progress, change
//! the watched sites and set marks.
//!
//! Each collector has one socket, `PID.sock`, in a directory that only the user of the collector can enter. A
//! client sends one line and reads the whole answer. Tabs separate the words of a request: `edleak-1 list`,
//! `edleak-1 watch PID SPEC…`, `edleak-1 unwatch PID SPEC…`, `edleak-1 mark PID NAME`. The first line of an
//! answer is `ok` or `error`.
//!
//! No function of this file waits for a client, so a slow client does not delay the collector's main loop.
//! The collector closes the connection of a client that sends or reads too slowly. If there are already
//! `MAX_CLIENTS` clients, the collector immediately closes a new connection.

use crate::error::Error;
use std::fs::{DirBuilder, Metadata};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The text with which every request begins.
pub const PROTOCOL: &str = "edleak-1";
/// Maximum number of clients at the same time.
const MAX_CLIENTS: usize = 16;
/// Length of the longest request in bytes.
const MAX_REQUEST: usize = 64 << 10;
/// Longest time that a client may take to send its request, and also the longest time that the client may
/// take to read the answer.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(2);

/// Identifies a connected client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ClientId(u64);

/// One request, split into words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Line {
    /// The client that sent the request.
    pub(crate) client: ClientId,
    /// The words of the request after [`PROTOCOL`]; `None`: the request does not begin with [`PROTOCOL`].
    pub(crate) words: Option<Vec<String>>,
}

enum State {
    Asking(Vec<u8>),
    /// The collector has received the request, but has not answered the request yet.
    Waiting,
    Reading(Vec<u8>),
}

struct Client {
    id: ClientId,
    stream: UnixStream,
    state: State,
    since: Instant,
}

/// The collector's end of the control socket.
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    clients: Vec<Client>,
    next_id: u64,
    /// The collector accepts no client before this time, because it could not accept a client, for example
    /// for lack of a free descriptor. `None`: the collector accepts clients.
    paused_until: Option<Instant>,
}

impl ControlSocket {
    /// Opens the socket of this process, in the first directory of [`directories`] in which this is possible.
    ///
    /// # Errors
    /// In each possible directory, either edleak could not create the socket, or another user owns the
    /// directory.
    pub(crate) fn open() -> io::Result<ControlSocket> {
        let mut failure = io::Error::from(ErrorKind::NotFound);
        for directory in directories() {
            match ControlSocket::open_in(&directory) {
                Ok(socket) => return Ok(socket),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn open_in(directory: &Path) -> io::Result<ControlSocket> {
        if !directory.parent().is_some_and(may_hold_ours) {
            let message = format!("`{}` would lie in another user's directory", directory.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        let made = DirBuilder::new().mode(0o700).create(directory);
        made.or_else(|error| if error.kind() == ErrorKind::AlreadyExists { Ok(()) } else { Err(error) })?;
        if !is_private(directory) {
            let message = format!("`{}` belongs to another user (remove it)", directory.display());
            return Err(io::Error::new(ErrorKind::PermissionDenied, message));
        }
        let path = directory.join(format!("{}.sock", std::process::id()));
        // If this file exists, either a killed collector with the same PID left it behind, or a running
        // collector in another PID namespace has the same PID. Remove the file only if no process listens on
        // this socket.
        if is_stale(&path) {
            std::fs::remove_file(&path)?;
        }
        // A client removes a socket on which no process listens. So the socket has a temporary name until the
        // collector listens on it.
        let draft = path.with_extension("new");
        if is_stale(&draft) {
            std::fs::remove_file(&draft)?;
        }
        let listener = UnixListener::bind(&draft)?;
        std::fs::rename(&draft, &path)?;
        listener.set_nonblocking(true)?;
        Ok(ControlSocket { listener, path, clients: Vec::new(), next_id: 0, paused_until: None })
    }

    /// The descriptors for which the main loop must wait: one for new clients, and one for each client that
    /// is sending a request.
    pub(crate) fn fds(&self) -> impl Iterator<Item = RawFd> {
        let asking = self.clients.iter().filter(|client| matches!(client.state, State::Asking(_)));
        let listener = self.paused_until.is_none().then(|| self.listener.as_raw_fd());
        listener.into_iter().chain(asking.map(|client| client.stream.as_raw_fd()))
    }

    /// Reads from and writes to every client as far as possible without waiting. Returns the requests that
    /// are complete.
    pub(crate) fn serve(&mut self, now: Instant) -> Vec<Line> {
        self.accept(now);
        let mut lines = Vec::new();
        self.clients.retain_mut(|client| {
            let is_in_time = now.saturating_duration_since(client.since) <= CLIENT_TIMEOUT;
            match &mut client.state {
                State::Waiting => true,
                State::Asking(line) => match receive(&mut client.stream, line) {
                    Progress::Done => {
                        lines.push(Line { client: client.id, words: words_of(line) });
                        client.state = State::Waiting;
                        true
                    }
                    Progress::Later => is_in_time,
                    Progress::Gone => false,
                },
                State::Reading(rest) => send(&mut client.stream, rest) == Progress::Later && is_in_time,
            }
        });
        lines
    }

    /// Sends the answer to a client, if the client is still connected.
    pub(crate) fn answer(&mut self, client: ClientId, text: Result<String, Error>, now: Instant) {
        let Some(client) = self.clients.iter_mut().find(|one| one.id == client) else { return };
        let (verdict, text) = match text {
            Ok(text) => ("ok", text),
            Err(error) => ("error", error.to_string()),
        };
        client.state = State::Reading(format!("{verdict}\n{text}\n").into_bytes());
        client.since = now;
        self.turn_out();
    }

    fn turn_out(&mut self) {
        self.clients.retain_mut(|client| match &mut client.state {
            State::Reading(rest) => send(&mut client.stream, rest) == Progress::Later,
            _ => true,
        });
    }

    fn accept(&mut self, now: Instant) {
        const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
        if self.paused_until.is_some_and(|until| now < until) {
            return;
        }
        self.paused_until = None;
        for _ in 0..MAX_CLIENTS {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let is_ours = peer_uid(&stream) == Some(own_uid());
                    if is_ours && self.clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                        let id = ClientId(self.next_id);
                        self.next_id += 1;
                        let state = State::Asking(Vec::new());
                        self.clients.push(Client { id, stream, state, since: now });
                    }
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        self.paused_until = Some(now + ACCEPT_PAUSE);
                    }
                    return;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // If another process has already removed the file, the call fails, which does no harm.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[derive(PartialEq, Eq)]
enum Progress {
    Done,
    Later,
    Gone,
}

/// Reads the bytes that have arrived from a client, up to the end of the line.
fn receive(stream: &mut UnixStream, line: &mut Vec<u8>) -> Progress {
    let mut buffer = [0; 4096];
    while line.len() <= MAX_REQUEST {
        match stream.read(&mut buffer) {
            Ok(0) => return Progress::Gone,
            Ok(read) => {
                line.extend_from_slice(&buffer[..read]);
                if let Some(end) = line.iter().position(|&byte| byte == b'\n') {
                    line.truncate(end);
                    return Progress::Done;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Later,
            Err(_) => return Progress::Gone,
        }
    }
    Progress::Gone
}

/// Writes as many bytes of the answer as the client's socket accepts now.
fn send(stream: &mut UnixStream, rest: &mut Vec<u8>) -> Progress {
    while !rest.is_empty() {
        match stream.write(rest) {
            Ok(written) => drop(rest.drain(..written)),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Later,
            Err(_) => return Progress::Gone,
        }
    }
    Progress::Done
}

fn words_of(line: &[u8]) -> Option<Vec<String>> {
    let mut words = std::str::from_utf8(line).ok()?.split('\t').map(str::to_owned);
    (words.next()? == PROTOCOL).then(|| words.collect())
}

/// The possible directories of sockets, best first: the directory of XDG_RUNTIME_DIR, the usual run-time
/// directory of the user, and a directory below /tmp. The collector and a client may have different
/// environments. So the list contains every directory that the collector or a client may use.
pub fn directories() -> Vec<PathBuf> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty());
    let runtime = runtime.map(|path| PathBuf::from(path).join("edleak"));
    let usual = PathBuf::from(format!("/run/user/{}/edleak", own_uid()));
    let below_tmp = PathBuf::from(format!("/tmp/edleak-{}", own_uid()));
    let mut all: Vec<_> = runtime.into_iter().chain([usual, below_tmp]).collect();
    all.dedup();
    all
}

/// Whether edleak-record may create its directory in `directory`. `directory` must belong to this user, or
/// must be shared by all users, like /tmp. Under `sudo -E`, XDG_RUNTIME_DIR is the directory of another user.
/// If root created files in the directory of another user, this user could not remove the files.
fn may_hold_ours(directory: &Path) -> bool {
    const SHARED: u32 = libc::S_ISVTX | libc::S_IWOTH;
    let may = |metadata: Metadata| metadata.uid() == own_uid() || metadata.mode() & SHARED == SHARED;
    std::fs::metadata(directory).is_ok_and(may)
}

/// Whether the path is a directory, and not a link, that belongs to this user and that no other user can
/// enter. If another user could create files in the directory, that user could pretend to be a recording.
pub fn is_private(directory: &Path) -> bool {
    let is_ours =
        |metadata: Metadata| metadata.is_dir() && metadata.uid() == own_uid() && metadata.mode() & 0o077 == 0;
    std::fs::symlink_metadata(directory).is_ok_and(is_ours)
}

/// Whether `path` is a socket on which no process listens.
pub fn is_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The effective user ID.
fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user ID of the connected process.
fn peer_uid(stream: &UnixStream) -> Option<u32> {
    Some(rustix::net::sockopt::socket_peercred(stream).ok()?.uid.as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn client_that_removes_stale_sockets_never_removes_one_that_is_being_opened() {
        let directory = std::env::temp_dir().join(format!("edleak-socket-test-{}", std::process::id()));
        let path = directory.join(format!("{}.sock", std::process::id()));
        let is_over = AtomicBool::new(false);
        let lost = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if is_stale(&path) {
                        let _ = std::fs::remove_file(&path);
                    }
                }
            });
            let lost = (0..2000).filter(|_| {
                let socket = ControlSocket::open_in(&directory).expect("a directory of ours");
                let is_lost = !path.exists();
                drop(socket);
                is_lost
            });
            let lost = lost.count();
            is_over.store(true, Ordering::Relaxed);
            lost
        });
        std::fs::remove_dir_all(&directory).expect("ours");
        assert_eq!(lost, 0);
    }
}
