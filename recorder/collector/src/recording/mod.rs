//! Records one image (a program in a process until the next exec). At regular intervals, the collector reads
//! the counters in the session of the image and writes a slice into the trace.

mod attached;
mod auto_watch;
mod auto_watch_state;
mod begin;
mod counter_reader;
mod detours;
mod domain_marks;
mod domains;
mod ending;
pub(crate) mod image;
pub(crate) mod inject;
mod learn;
mod mapping_sites;
pub(crate) mod mappings;
pub mod mark_slices;
mod marks;
mod options;
pub(crate) mod output;
pub mod period;
mod pool_sites;
pub(crate) mod pools;
mod slice;
pub(crate) mod stacks;
mod summary;
mod uncounted_allocators;
mod unpublished;
pub(crate) mod watch_requests;
mod young;

use crate::control::progress::Progress;
use crate::control::socket::ClientId;
use crate::recording::auto_watch_state::{Watches, Watching};
use crate::recording::counter_reader::CounterReader;
use crate::recording::detours::Detours;
pub use crate::recording::domains::Domains;
use crate::recording::image::ImageWatch;
use crate::recording::inject::Injected;
use crate::recording::mappings::Mappings;
use crate::recording::mark_slices::Marks;
pub(crate) use crate::recording::options::Options;
pub(crate) use crate::recording::options::{Inherited, KnownCode};
use crate::recording::period::Schedule;
use crate::recording::pools::PoolReader;
use crate::recording::stacks::{Epochs, Snapshots, WatchedStacks};
pub use crate::recording::summary::Summary;
pub(crate) use crate::recording::summary::{Others, Remains};
use crate::recording::watch_requests::{PendingRequests, WatchRequest};
use crate::rules::modules::Modules;
use crate::rules::publisher::Publisher;
use crate::rules::stack_bounds::StackBounds;
use crate::sys::memory::AreaReader;
use crate::sys::process::{ProcessorTime, Size};
use crate::sys::shm::Session;
use edleak_format::{
    Attached, Counters, CpuTotals, Earlier, Error, Losses, ModuleId, Record, SiteId, TraceWriter,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The running recording of one image.
pub(crate) struct Recording {
    pid: u32,
    command: Vec<String>,
    session: Arc<Session>,
    writer: Option<TraceWriter>,
    path: PathBuf,
    /// The file names of the traces of the programs that the process executed before this one.
    earlier: Vec<String>,
    began: Instant,
    schedule: Schedule,
    last_tick: u64,
    slices: u64,
    counter_reader: CounterReader,
    modules: Modules,
    publisher: Publisher,
    /// Whether the target uses the rules in the session of its parent.
    has_parents_rules: bool,
    /// For each site, indexed by its id in the session: its id in the trace. A site gets the next free trace
    /// id when the collector first sees the site.
    trace_ids: Vec<SiteId>,
    /// Session ids of sites that still had no address when the collector last read them, because a thread of
    /// the target was still inserting the site.
    late_sites: Vec<u32>,
    /// Number of sites in [`edleak_session::header::Header::thread_starts`] that the trace already contains.
    thread_starts: usize,
    /// Number of sites of all kinds in the trace.
    sites: u32,
    stacks: WatchedStacks,
    epochs: Epochs,
    marks: Marks,
    capacity_bytes: u64,
    survivors: Snapshots,
    watching: Option<Watching>,
    watches: Watches,
    bounds: StackBounds,
    pending_requests: PendingRequests,
    injected: Option<Injected>,
    /// The module of the program's own file.
    image: Option<ModuleId>,
    own_allocator: Option<PathBuf>,
    detours: Detours,
    /// The modules with an allocator that edleak does not count, if the collector has already told the user
    /// about this allocator.
    told_unseen: Vec<ModuleId>,
    /// Number of modules at the time when the collector last told the user about uncounted allocators.
    modules_when_told: usize,
    image_sites: Vec<usize>,
    /// The counters for the next slice, indexed by the trace id of the site.
    counters: Vec<Counters>,
    events_read: u32,
    losses: Losses,
    /// The losses (counts of events that were not recorded) that the collector last wrote into the trace.
    recorded_losses: Losses,
    size: Size,
    /// The first and the newest reading of the processor time, each with its time since the start of the
    /// recording.
    processor: Option<[(u64, ProcessorTime); 2]>,
    areas: AreaReader,
    /// The mapped memory of the process; `None`: the recording does not cover mapped memory.
    mappings: Option<Mappings>,
    unmapped_unseen_bytes: u64,
    recorded_mappings: Option<edleak_format::Mappings>,
    /// The time, since the start of the recording, at which the collector next records the bytes that the
    /// program gave back with madvise.
    next_given_back: Duration,
    recorded_lost_give_backs: u64,
    /// The program's own pools; `None`: the recording does not cover pools.
    pools: Option<PoolReader>,
    /// Number of pool names that the trace contains.
    pool_names: usize,
    recorded_pools: Option<edleak_format::Pools>,
    cpu: CpuTotals,
    /// Whether the process has had a child.
    has_children: bool,
    /// Whether the target runs in its own PID namespace, so that the target sees other thread ids than the
    /// collector; `None`: /proc does not show this.
    own_pid_namespace: Option<bool>,
    image_watch: ImageWatch,
    /// The state of the process at the start of the recording; `None`: the process did not run before this
    /// start.
    attached: Option<Attached>,
    /// Whether the library in the target no longer counts allocations, so that the collector can free the
    /// memory of the session at the end of the recording.
    is_idle: bool,
}

impl Recording {
    /// The ID of the recorded process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// The serial number of the session (shared memory) of this recording.
    pub(crate) fn serial(&self) -> u64 {
        self.session.header().serial.load(Ordering::Relaxed)
    }

    /// The session of the recorded image.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// The rules and modules for a child that the recorded process forked. Before the fork, the recorded
    /// process had reported `events` loads and unloads of modules.
    pub(crate) fn code_for_child(&self, events: u32) -> KnownCode {
        let modules = self.modules.at_fork(events);
        // The publisher stores the module numbers of the parent's recording. So the child can use a copy of
        // the parent's publisher only if child and parent have the same modules.
        let is_same = modules.all().len() == self.modules.all().len();
        let publisher = if is_same { self.publisher.for_child() } else { self.publisher.for_another() };
        KnownCode { publisher, modules: Some(modules) }
    }

    /// The facts (modules and command line) that the collector keeps after the end of this recording, for
    /// children that the process has forked.
    pub(crate) fn remains(&self) -> Remains {
        Remains { serial: self.serial(), modules: self.modules.clone(), command: self.command.clone() }
    }

    /// The number that the image got when it claimed the session of this recording.
    pub(crate) fn claim(&self) -> u32 {
        self.session.header().claim.load(Ordering::Relaxed)
    }

    /// The program and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    /// The path of the trace.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Number of shards (sets of counters) of the session.
    pub(crate) fn shards(&self) -> usize {
        self.session.shards().len()
    }

    /// Notes that the collector has told the library in the target to stop counting.
    pub(crate) fn set_idle(&mut self) {
        self.is_idle = true;
    }

    /// The time at which the recording began.
    pub(crate) fn began(&self) -> Instant {
        self.began
    }

    /// The time at which the next slice is due.
    pub(crate) fn next_due(&self) -> Instant {
        self.began + self.schedule.start_of(self.schedule.due_after(self.last_tick))
    }

    /// Handles watch requests, and updates the addresses at which the walk of a thread's stack must end. The
    /// function does only the work that is due. The caller may call this function at any time. If a watch
    /// request is done, the function returns the client that sent the request, and the answer.
    pub(crate) fn tend(&mut self, now: Instant) -> Option<(ClientId, String)> {
        let answer = self.pending_requests.advance(&mut self.publisher, &self.session, self.modules.all());
        if self.publisher.walks() {
            self.bounds.refresh(&self.session, self.pid, now);
        }
        answer
    }

    /// Adds a request to watch or unwatch sites. [`Recording::tend`] returns the answer to the request.
    pub(crate) fn steer(&mut self, wanted: WatchRequest) {
        self.pending_requests.add(wanted);
    }

    /// Whether a watch request waits until [`Recording::tend`] handles it.
    pub(crate) fn is_busy(&self) -> bool {
        self.pending_requests.is_busy()
    }

    /// The clients that wait for the answer to a watch request.
    pub(crate) fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.pending_requests.clients()
    }

    /// The progress of the recording so far.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            pid: self.pid,
            seconds: self.began.elapsed().as_secs(),
            slices: self.slices,
            sites: self.seen_sites(),
            stacks: self.stacks.sites().len(),
            watched: self.publisher.watch().to_string(),
            picked: self.publisher.picked(),
            trace: std::path::absolute(&self.path).unwrap_or_else(|_| self.path.clone()),
            command: self.command.join(" "),
        }
    }

    /// Takes a slice if a slice is due. If the collector comes too late for a due slice, this slice counts as
    /// missed.
    ///
    /// # Errors
    /// The collector cannot write the trace any more.
    pub(crate) fn poll(&mut self, now: Instant) -> Result<(), Error> {
        self.end_delay(now)?;
        self.pools.iter_mut().for_each(|pools| pools.tend(now));
        if now < self.next_due() {
            self.read_mappings();
            return Ok(());
        }
        let tick = self.schedule.tick_at(now.duration_since(self.began));
        let (due, missed) = self.schedule.due_at(self.last_tick, tick);
        self.losses.missed_slices += missed;
        self.take_slice(due)?;
        self.schedule.taken(due, self.stacks.sites().len(), missed);
        self.watch_suspects();
        if self.has_modules_to_tell() && self.session.header().detours_done.load(Ordering::Acquire) != 0 {
            self.tell_unseen();
        }
        if self.own_pid_namespace == Some(false) {
            self.counter_reader.reclaim(&self.session, self.pid);
        }
        Ok(())
    }

    /// Checks whether the process still runs the recorded image.
    pub(crate) fn look_at_image(&mut self, now: Instant) {
        self.image_watch.look(now);
    }

    /// The file names of the traces of the programs that the process executed before this one.
    pub(crate) fn earlier(&self) -> &[String] {
        &self.earlier
    }

    /// Writes into the trace which programs the process executed before this one.
    ///
    /// # Errors
    /// The collector cannot write the trace.
    pub(crate) fn set_earlier(&mut self, traces: Vec<String>) -> Result<(), Error> {
        if !traces.is_empty() {
            self.record(&Record::Earlier(Earlier { traces: traces.clone() }))?;
        }
        self.earlier = traces;
        Ok(())
    }

    /// Tells this recording that the process has executed another program (image), which has its own
    /// recording.
    pub(crate) fn set_followed(&mut self) {
        self.image_watch.set_followed();
    }

    /// Whether the process executed another program (image) at least 100 ms ago, so that the recording of the
    /// new image should have begun by now.
    pub(crate) fn is_left_behind(&self, now: Instant) -> bool {
        const WHILE: Duration = Duration::from_millis(100);
        self.image_watch.is_left_for(now, WHILE)
    }

    /// Whether the process executed another program (image) that edleak does not record. The function returns
    /// `true` only after the new program has had enough time to claim a session; from then on, the counters
    /// of this recording no longer change.
    pub(crate) fn is_left(&self, now: Instant) -> bool {
        self.image_watch.is_over(now)
    }

    fn record(&mut self, record: &Record) -> Result<(), Error> {
        match &mut self.writer {
            Some(writer) => writer.record(record),
            None => Ok(()),
        }
    }
}
