//! Attaches to one running process many times. Each cycle attaches, records and detaches, while a load of
//! requests keeps the process busy.

use crate::ledger_program::recorder;
use crate::run::run;
use crate::temp::TempDir;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The number of cycles: the value of `EDLEAK_CYCLES`, or `few` if this variable is not set.
pub fn cycles(few: usize) -> usize {
    match std::env::var("EDLEAK_CYCLES") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("EDLEAK_CYCLES is no number: `{text}`")),
        Err(_) => few,
    }
}

/// The length of each stop of the process in milliseconds, from the messages of edleak-record.
pub fn stops_in(stderr: &str) -> Vec<f64> {
    let times = stderr.lines().filter_map(|line| line.split_once("stood still for "));
    times.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok()).collect()
}

/// Prints one line for a program: the median length and the greatest length of its stops.
pub fn tell_stops(name: &str, cycles: usize, mut stops: Vec<f64>) {
    assert!(stops.len() >= 2 * cycles, "one stop at each begin and end: {} in {cycles} cycles", stops.len());
    stops.sort_by(f64::total_cmp);
    let median = stops[stops.len() / 2];
    let longest = stops[stops.len() - 1];
    println!("{name:<22} {cycles:>4} cycles  median stop {median:>6.1} ms  longest stop {longest:>7.1} ms");
}

/// The command that records a process for a short time.
pub fn short_recording(pid: u32, trace: &Path) -> Command {
    recorder(pid, trace, &["--duration", "60ms", "--attach-timeout", "60s"])
}

/// Attaches to a process, records the process and detaches, `cycles` times. Prints one line with the lengths
/// of the stops of the process.
pub fn attach_cycles(name: &str, pid: u32, cycles: usize) {
    attach_cycles_with(name, cycles, &|trace| short_recording(pid, trace));
}

/// Attaches, records and detaches like `attach_cycles`, but with another command than edleak-record.
/// `command` gets the path of a trace, and returns the command that records into this trace.
pub fn attach_cycles_with(name: &str, cycles: usize, command: &dyn Fn(&Path) -> Command) {
    let mut attached = Attached::default();
    for _ in 0..cycles {
        attached.attach(name, command);
    }
    attached.tell(name);
}

/// The cycles so far, each of which attached to a process, recorded it and detached.
#[derive(Debug, Default)]
pub struct Attached {
    stops: Vec<f64>,
    cycles: usize,
    /// The number of recordings that counted an allocation.
    recorded: usize,
}

impl Attached {
    /// Runs one cycle with the command of [`attach_cycles_with`].
    pub fn attach(&mut self, name: &str, command: &dyn Fn(&Path) -> Command) {
        let dir = TempDir::new("cycles");
        let outcome = run(&mut command(&dir.join("trace.edl")));
        // On a busy machine, a program may allocate nothing within the duration of a recording.
        let is_empty = outcome.stderr.contains("nothing was recorded");
        let cycle = self.cycles;
        assert!(outcome.code == 0 || is_empty, "{name}, cycle {cycle}: {}", outcome.stderr);
        assert!(!outcome.stderr.contains("not counted"), "{name}, cycle {cycle}: {}", outcome.stderr);
        self.stops.extend(stops_in(&outcome.stderr));
        self.recorded += usize::from(!is_empty);
        self.cycles += 1;
    }

    /// Checks that enough recordings counted an allocation, and prints one line with the lengths of all
    /// stops.
    pub fn tell(self, name: &str) {
        let Attached { stops, cycles, recorded } = self;
        assert!(4 * recorded >= cycles, "{name}: only {recorded} of {cycles} recordings counted anything");
        tell_stops(name, cycles, stops);
    }
}

/// Threads that send requests to a server until the end of the test. Each request must succeed.
#[derive(Debug)]
pub struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts threads that call `request` again and again. `request` panics if the server does not answer.
    pub fn start(threads: usize, request: impl Fn() + Clone + Send + 'static) -> Load {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let threads = (0..threads).map(|_| {
            let (is_over, answered, request) = (is_over.clone(), answered.clone(), request.clone());
            std::thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    request();
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        Load { threads: threads.collect(), is_over, answered }
    }

    /// Requests `/page` from a web server again and again. Each answer of the server must end with `hello`.
    pub fn of_web_server(port: u16) -> Load {
        Load::start(2, move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket takes a timeout");
            stream.write_all(b"GET /page HTTP/1.0\r\n\r\n").expect("the server reads");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("the server answers");
            assert!(answer.contains("200 OK") && answer.ends_with("hello"), "{answer}");
        })
    }

    /// Waits until the server has answered one more request after all recordings, and checks that no request
    /// failed.
    pub fn finish(mut self) {
        let before = self.answered.load(Ordering::Relaxed);
        let limit = Instant::now() + Duration::from_secs(60);
        while self.answered.load(Ordering::Relaxed) == before && Instant::now() < limit {
            if self.threads.iter().any(JoinHandle::is_finished) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("every request was answered");
        }
        assert!(self.answered.load(Ordering::Relaxed) > before, "the server answers after the recordings");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}
