//! Tests symbols from a debuginfod server. edleak requests symbols only if the user asks for them, and uses
//! only symbols of the same build. If the server fails, edleak gives up quickly.

use edleak_tests::programs::samples;
use edleak_tests::record::Recorder;
use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How the test's server reacts to a request.
#[derive(Clone)]
enum Answer {
    File(Vec<u8>),
    NotFound,
    /// The server announces the length of the whole file, but sends only the first half.
    Half(Vec<u8>),
    /// The server sends only the first half of the file, and announces no length.
    Less(Vec<u8>),
    /// The server accepts the connection and never answers.
    Silence,
}

/// An HTTP server that this test runs on a free port of the loopback device.
struct Server {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: Answer) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a loopback device");
        let address = listener.local_addr().expect("it is bound");
        let (requests, is_over) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicBool::new(false)));
        let (log, over) = (requests.clone(), is_over.clone());
        let thread = std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                if over.load(Ordering::Acquire) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                silent.extend(serve(stream, &answer, &log));
            }
        });
        Server { address, requests, is_over, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The paths that clients have requested from the server.
    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("the server does not panic").clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        let _ = TcpStream::connect(self.address); // the connection ends the wait of the server
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Answers one request. Returns the connection if it must stay open without an answer.
fn serve(mut stream: TcpStream, answer: &Answer, log: &Mutex<Vec<String>>) -> Option<TcpStream> {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a second is not zero");
    let mut lines = BufReader::new(stream.try_clone().expect("there are descriptors")).lines();
    let first = lines.next()?.ok()?;
    while !lines.next()?.ok()?.is_empty() {}
    log.lock().expect("nobody panics with it").push(first.split(' ').nth(1).unwrap_or_default().to_owned());
    let head = |status: &str, length: Option<usize>| {
        let length = length.map_or(String::new(), |length| format!("Content-Length: {length}\r\n"));
        format!("HTTP/1.1 {status}\r\n{length}Connection: close\r\n\r\n")
    };
    let (head, body) = match answer {
        Answer::File(file) => (head("200 OK", Some(file.len())), &file[..]),
        Answer::NotFound => (head("404 Not Found", Some(0)), &[][..]),
        Answer::Half(file) => (head("200 OK", Some(file.len())), &file[..file.len() / 2]),
        Answer::Less(file) => (head("200 OK", None), &file[..file.len() / 2]),
        Answer::Silence => return Some(stream),
    };
    // If the client has already closed the connection, the write fails, and the server ignores the error.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    None
}

/// The files of one test: the trace of a stripped program that leaked, the separate debug information of this
/// program, and the debug information of a different program.
struct Recorded {
    _dir: TempDir,
    trace: PathBuf,
    debug: Vec<u8>,
    other: Vec<u8>,
}

fn recorded() -> &'static Recorded {
    static RECORDED: OnceLock<Recorded> = OnceLock::new();
    RECORDED.get_or_init(|| {
        let dir = TempDir::new("debuginfod");
        let part = |name: &str| {
            let program = dir.join(name);
            fs::copy(samples().binary(name), &program).expect("samples are built");
            let debug = dir.join("debug");
            objcopy(&["--only-keep-debug"], &program, &debug);
            objcopy(&["--strip-all"], &program, &program);
            (program, fs::read(debug).expect("just written"))
        };
        let (program, debug) = part("linear_leak");
        let (_, other) = part("one_shot");
        let trace = dir.join("trace.edl");
        let outcome = run(&mut Recorder::new("debuginfod").command(&trace, &program, [""; 0]));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        Recorded { _dir: dir, trace, debug, other }
    })
}

fn objcopy(options: &[&str], from: &Path, to: &Path) {
    let outcome = run(Command::new("objcopy").args(options).arg(from).arg(to));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
}

/// Analyzes the trace with the debuginfod servers at `urls` and an empty cache.
fn analyze(urls: &str, options: &[&str]) -> Outcome {
    let cache = TempDir::new("debuginfod-cache");
    let mut command = Command::new(&tools().analyze);
    command.args(options).arg(&recorded().trace);
    command.env("DEBUGINFOD_URLS", urls).env("DEBUGINFOD_CACHE_PATH", cache.path()).env("no_proxy", "*");
    command.env("DEBUGINFOD_TIMEOUT", "4").env("DEBUGINFOD_RETRY_LIMIT", "1");
    let began = Instant::now();
    let outcome = run(&mut command);
    assert!(began.elapsed() < Duration::from_secs(60), "it took {:?}", began.elapsed());
    assert_eq!(outcome.code, 1, "the leak is reported, with symbols or without: {}", outcome.stderr);
    outcome
}

fn is_named(outcome: &Outcome) -> bool {
    outcome.stdout.contains("grow_list at ") && outcome.stdout.contains("linear_leak.c:")
}

/// Asserts that edleak found no function name, that the report says so, and that one line gives the reason.
fn assert_unnamed(outcome: &Outcome, why: &str) {
    assert!(!is_named(outcome), "{}", outcome.stdout);
    assert!(outcome.stdout.contains("linear_leak+0x"), "module and offset:\n{}", outcome.stdout);
    assert!(outcome.stdout.contains("without a function"), "counted:\n{}", outcome.stdout);
    assert!(outcome.stdout.contains("is stripped"), "the way out:\n{}", outcome.stdout);
    assert_eq!(outcome.stderr.lines().count(), usize::from(!why.is_empty()), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
}

#[test]
fn a_stripped_program_gets_its_functions_and_lines_from_the_server() {
    let server = Server::start(Answer::File(recorded().debug.clone()));
    let outcome = analyze(&server.url(), &["--debuginfod"]);
    assert!(is_named(&outcome), "{}\n{}", outcome.stdout, outcome.stderr);
    assert_eq!(outcome.stderr, "");
    let requests = server.requests();
    assert!(
        requests.iter().any(|path| path.starts_with("/buildid/") && path.ends_with("/debuginfo")),
        "{requests:?}"
    );
}

#[test]
fn no_request_without_the_option() {
    let server = Server::start(Answer::File(recorded().debug.clone()));
    assert_unnamed(&analyze(&server.url(), &[]), "");
    assert_unnamed(&analyze("", &["--debuginfod"]), "DEBUGINFOD_URLS is not set");
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn build_unknown_to_the_server_is_not_an_error() {
    let server = Server::start(Answer::NotFound);
    assert_unnamed(&analyze(&server.url(), &["--debuginfod"]), "");
    assert!(!server.requests().is_empty());
}

#[test]
fn file_of_another_build_is_refused() {
    let server = Server::start(Answer::File(recorded().other.clone()));
    assert_unnamed(&analyze(&server.url(), &["--debuginfod"]), "of another build, or a damaged one");
}

#[test]
fn truncated_file_is_refused() {
    // debuginfod-find notices that half of the file is missing, and then reports that the server does not
    // have the file.
    let server = Server::start(Answer::Half(recorded().debug.clone()));
    assert_unnamed(&analyze(&server.url(), &["--debuginfod"]), "");
    let server = Server::start(Answer::Less(recorded().debug.clone()));
    assert_unnamed(&analyze(&server.url(), &["--debuginfod"]), "of another build, or a damaged one");
}

#[test]
fn a_server_that_is_dead_or_silent_is_not_waited_for() {
    let address = Server::start(Answer::Silence).url(); // the server stops at the end of this statement
    assert_unnamed(&analyze(&address, &["--debuginfod"]), "debuginfod: 1 request failed: ");
    let server = Server::start(Answer::Silence);
    assert_unnamed(&analyze(&server.url(), &["--debuginfod"]), "the servers were not asked again");
}
