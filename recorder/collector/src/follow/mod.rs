//! Follows each image of a run (a program in a process until its next exec) from the time at which the image
//! claims a session until the image ends. One thread follows all images; it wakes up when a signal arrives,
//! when an image claims a session, or after a time limit.

pub(crate) mod attached;
pub(crate) mod claim_notifier;
mod claims;
mod ending;
mod idle;
mod images;
mod outcome;
mod requests;
pub(crate) mod session_stock;
mod trace_names;
mod unrecorded;

use crate::control::socket::ControlSocket;
use crate::follow::attached::Attached;
use crate::follow::claim_notifier::ClaimNotifier;
use crate::follow::session_stock::SessionStock;
use crate::recording::{Options, Recording, Remains};
use crate::rules::publisher::Publisher;
use crate::sys::own_child::{Ended, OwnChild};
use crate::sys::process;
use crate::sys::shm::Session;
use crate::sys::signals::{self, Signals, Watch};
use edleak_format::{EndReason, TraceWriter};
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub use outcome::Outcome;
use outcome::{no_session, unwritten};
pub(crate) use trace_names::child_path;
use unrecorded::{Unrecorded, UnrecordedProcesses};

/// Interval between two checks for claimed sessions while a run starts. The interval between two checks is
/// short, because a starting target may wait until the collector has published its rules.
const START_POLL: Duration = Duration::from_micros(500);
/// Interval between two checks for claimed sessions after the first part (`START`) of a run.
const POLL: Duration = Duration::from_millis(20);
/// Longest pause of the main loop while the collector prepares a watch request in the background.
const BUSY_POLL: Duration = Duration::from_millis(2);
/// Interval between scans for children that have not allocated yet, when no recorded process is left.
const LOOK_FOR_CHILDREN: Duration = Duration::from_millis(200);
/// Length of the first part of a run. During the first part of a run, the collector checks for claimed
/// sessions most often. (Each recording also has a first part, which is shorter than `START`; see
/// `recording/young.rs`.)
const START: Duration = Duration::from_millis(200);
/// If children are not recorded, only the target itself claims sessions: one at its start, and one after each
/// exec. So claims are rare after the first 10 s of a run, and the collector then checks for claims only
/// every 10 × [`POLL`].
const CALM_AFTER: Duration = Duration::from_secs(10);
/// If a process does not attach to its session within this time after its claim, the collector assumes that
/// the process has ended or cannot attach.
const ATTACH_LIMIT: Duration = Duration::from_millis(200);

/// The process whose images the collector follows.
pub(crate) enum Root<'a> {
    /// A child process that this collector started.
    Child(&'a OwnChild),
    /// A process that started this collector.
    Other(u32, Watch),
    /// A process that already ran when its recording began.
    Attached(Box<Attached>),
}

impl Root<'_> {
    /// The watch that notices the end of the process; `None`: the process is a child of this collector.
    fn watch(&self) -> Option<&Watch> {
        match self {
            Root::Child(_) => None,
            Root::Other(_, watch) => Some(watch),
            Root::Attached(attached) => Some(&attached.watch),
        }
    }

    fn pid(&self) -> u32 {
        match self {
            Root::Child(child) => child.pid(),
            Root::Other(pid, _) => *pid,
            Root::Attached(attached) => attached.library.pid(),
        }
    }
}

/// The settings of a run.
pub(crate) struct RunSettings {
    /// Settings that all recordings of the run share.
    pub(crate) options: Options,
    /// The path of the trace of the root process.
    pub(crate) output: PathBuf,
    /// The time after which the run ends; `None`: the run has no time limit.
    pub(crate) duration: Option<Duration>,
    /// Whether the run also records child processes.
    pub(crate) children: bool,
    /// Patterns of the programs to record, separated by colons; empty: all programs. Each target compares its
    /// own name with the patterns.
    pub(crate) only: String,
    /// Publishes to the targets the rules for wrapper functions and for the unwinding of stacks.
    pub(crate) publisher: Publisher,
}

/// A recorded child process, and the watch that notices the end of this process.
struct Child {
    recording: Recording,
    watch: Option<Watch>,
}

/// A run that is in progress.
pub(crate) struct Follower<'a> {
    settings: &'a RunSettings,
    stock: SessionStock,
    root: Root<'a>,
    recording: Option<Recording>,
    children: Vec<Child>,
    /// Claimed sessions that are not attached yet, each with the time of its claim.
    attaching: Vec<(Session, Instant)>,
    /// The socket for requests. Without the socket, no program can send requests to this run, but the
    /// collector still records.
    control: Option<ControlSocket>,
    /// A notifier whose descriptor is readable after an image has mapped a session.
    claim_notifier: Option<ClaimNotifier>,
    outcome: Outcome,
    began: Instant,
    /// The inode numbers of the sessions that a child may have inherited.
    inherited: HashSet<u64>,
    looked_at: Option<Instant>,
    /// The facts that the collector keeps about each of the latest finished recordings (oldest first), for
    /// children that the ended process has forked.
    finished: VecDeque<Remains>,
    /// For each PID: number of recorded children so far that had this PID.
    child_numbers: HashMap<u32, u32>,
    /// Number of traces that the collector has renamed because the recorded process executed another program.
    executed: u32,
    /// The writer of the root process's trace, until a recording uses this writer. The collector creates and
    /// locks the trace early, so that no other process takes the name of the trace.
    reserved: Option<TraceWriter>,
    /// The start time of the first recording of the root process. With `--only`, the start time of the first
    /// recording of any process.
    recorded_since: Option<Instant>,
    /// Finds descendants of the root process that have no recording.
    unrecorded: UnrecordedProcesses,
    /// Number of descendants without a recording that the collector has found so far.
    seen_unrecorded: u64,
    /// The PIDs of all processes that have or had a recording.
    recorded: HashSet<u32>,
    /// Number of children without a trace. The collector could not create or write the trace, or the child
    /// never attached to its session.
    unwritten: u64,
    /// Number of sessions that processes other than the root process have claimed, although the user did not
    /// ask to record children.
    strangers: u64,
}

impl<'a> Follower<'a> {
    /// Creates a follower of the process `root`. The images of this process claim their sessions from
    /// `stock`. `reserved` is the writer of the root's trace, if the collector has already created this
    /// trace.
    pub(crate) fn new(
        settings: &'a RunSettings,
        stock: SessionStock,
        root: Root<'a>,
        reserved: Option<TraceWriter>,
    ) -> Follower<'a> {
        Follower {
            settings,
            claim_notifier: ClaimNotifier::of(stock.page()),
            stock,
            root,
            recording: None,
            children: Vec::new(),
            attaching: Vec::new(),
            control: ControlSocket::open().ok(),
            outcome: Outcome::default(),
            began: Instant::now(),
            inherited: HashSet::new(),
            looked_at: None,
            finished: VecDeque::new(),
            child_numbers: HashMap::new(),
            executed: 0,
            reserved,
            recorded_since: None,
            unrecorded: UnrecordedProcesses::new(Instant::now()),
            seen_unrecorded: 0,
            recorded: HashSet::new(),
            unwritten: 0,
            strangers: 0,
        }
    }

    /// Records until every recorded process has ended, or until the time limit of the run is reached.
    pub(crate) fn run(mut self, signals: &mut Signals) -> Outcome {
        loop {
            let mut fds = vec![signals.fd()];
            fds.extend(self.children.iter().filter_map(|child| child.watch.as_ref().map(Watch::fd)));
            if self.outcome.ended.is_none() {
                fds.extend(self.root.watch().map(Watch::fd));
            }
            fds.extend(self.control.iter().flat_map(ControlSocket::fds));
            fds.extend(self.claim_notifier.as_ref().map(ClaimNotifier::fd));
            signals::wait_readable(&fds, self.time_to_wait());
            // The loop resets the notifier before it takes the claims. A wake after the reset makes the
            // descriptor of the notifier readable again, so no claim waits for the next time limit.
            self.claim_notifier.iter().for_each(ClaimNotifier::reset);
            let stop = self.pass_on(signals);
            self.take_claims();
            if let Err(error) = self.stock.fill() {
                self.outcome.fail(&self.settings.output, no_session(&error));
            }
            let now = Instant::now();
            let is_impossible = self.look_after_attached(now);
            self.serve(now);
            self.take_slices(now);
            self.look_at_images(now);
            self.end_children();
            self.look_for_unrecorded(now);
            let root_is_gone = self.root_has_ended();
            if root_is_gone {
                self.take_claims();
                let reason = match self.outcome.ended {
                    Some(Ended::Exited(status)) => EndReason::Exited(status),
                    Some(Ended::Killed(signal)) => EndReason::Killed(signal),
                    Some(Ended::Unknown) | None => EndReason::Gone,
                };
                self.end_root(reason);
            }
            let is_alone = self.children.is_empty();
            if (root_is_gone || self.outcome.ended.is_some()) && is_alone && !self.has_silent_children(now) {
                return self.ended();
            }
            if self.is_over(now) {
                self.set_idle();
                self.end_all(EndReason::DurationReached);
                return self.ended();
            }
            let is_attached = matches!(self.root, Root::Attached(_));
            if is_impossible || (stop && (self.outcome.ended.is_some() || is_attached)) {
                self.set_idle();
                self.end_all(EndReason::Stopped);
                return self.ended();
            }
        }
    }

    /// Whether a child exists that has not allocated yet and so has claimed no session. For example, the
    /// parent of a daemon may end before the daemon allocates.
    fn has_silent_children(&mut self, now: Instant) -> bool {
        if !self.settings.children {
            return false;
        }
        let is_due = self.looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_FOR_CHILDREN);
        if is_due {
            self.looked_at = Some(now);
            return process::is_any_mapped(&self.inherited);
        }
        true
    }

    fn time_to_wait(&self) -> Duration {
        let now = Instant::now();
        let may_wait = self.recording.is_none() || !self.attaching.is_empty();
        let poll = if may_wait && self.began.elapsed() < START { START_POLL } else { POLL };
        let recordings = self.recording.iter().chain(self.children.iter().map(|child| &child.recording));
        let due = recordings.map(|recording| {
            let due = recording.next_due().saturating_duration_since(now);
            let due = if recording.is_busy() { due.min(BUSY_POLL) } else { due };
            recording.next_turn(now).map_or(due, |turn| due.min(turn))
        });
        let due = due.min();
        // If children are not recorded and the run began more than 10 s ago, check for claims only every 10 ×
        // `POLL`.
        let calm = self.began.elapsed() > CALM_AFTER && !self.settings.children;
        let poll = if calm { 10 * POLL } else { poll };
        due.map_or(poll, |due| due.min(poll))
    }

    /// Passes signals on to the target. Returns whether a signal asked for the end of the run.
    fn pass_on(&mut self, signals: &mut Signals) -> bool {
        let mut stop = false;
        for signal in signals.take() {
            if signal.number == libc::SIGCHLD {
                continue;
            }
            stop |= signal.asks_for_an_end();
            if let (Root::Child(child), true) = (&self.root, signal.is_ours_alone) {
                child.send(signal.number);
            }
        }
        stop
    }

    fn recordings(&mut self) -> impl Iterator<Item = &mut Recording> {
        self.recording.iter_mut().chain(self.children.iter_mut().map(|child| &mut child.recording))
    }

    fn take_slices(&mut self, now: Instant) {
        let recordings = self.recording.take().into_iter().map(|recording| (recording, None));
        let children = std::mem::take(&mut self.children);
        let all = recordings.chain(children.into_iter().map(|child| (child.recording, Some(child.watch))));
        let mut kept = Vec::new();
        for (mut recording, child) in all {
            if recording.needs_file(now)
                && let Err(error) = recording.create_file()
            {
                self.unwritten += 1;
                self.dismiss_clients(&recording);
                self.outcome.fail(recording.path(), error);
                continue;
            }
            let is_in_memory = recording.is_in_memory();
            match recording.poll(now) {
                Ok(()) => kept.push((recording, child)),
                Err(error) => {
                    self.dismiss_clients(&recording);
                    self.unwritten += u64::from(is_in_memory);
                    let path = recording.path().to_owned();
                    self.outcome.summaries.extend(recording.abandon(&error));
                    self.outcome.fail(&path, unwritten(&error, is_in_memory));
                }
            }
        }
        for (recording, child) in kept {
            match child {
                None => self.recording = Some(recording),
                Some(watch) => self.children.push(Child { recording, watch }),
            }
        }
    }

    fn look_for_unrecorded(&mut self, now: Instant) {
        let only = self.settings.only.as_bytes();
        let is_wanted = |pid| {
            let program = process::program(pid).unwrap_or_default();
            only.is_empty() || edleak_session::only::is_wanted(only, program.as_os_str().as_bytes())
        };
        let (root, control) = (self.root.pid(), self.stock.address());
        let found = self.unrecorded.look(now, root, &control, &self.recorded, is_wanted);
        self.add_unrecorded(&found);
    }

    fn add_unrecorded(&mut self, found: &[Unrecorded]) {
        /// Maximum number of unrecorded processes for which the collector prints a message. For all further
        /// unrecorded processes, the collector prints no message and only counts them.
        const MOST_NAMED: u64 = 5;
        for one in found {
            if self.settings.children && !one.is_out_of_reach() && self.wake_idle(one.pid()) {
                continue;
            }
            self.seen_unrecorded += 1;
            if self.settings.children {
                self.unwritten += 1;
                if self.seen_unrecorded <= MOST_NAMED {
                    self.outcome.fail(&self.settings.output, one.error());
                }
            }
        }
    }
}
