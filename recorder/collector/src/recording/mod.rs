//! The recording of one image: reads its session and writes slice after slice into its trace.

mod attached;
mod auto_watch;
mod auto_watch_state;
mod begin;
mod counter_reader;
mod detours;
mod domain_marks;
mod domains;
mod ending;
mod file_facts;
pub(crate) mod inject;
mod learn;
mod mapping_sites;
pub(crate) mod mappings;
pub mod mark_slices;
mod marks;
pub(crate) mod modules;
mod options;
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
use crate::follow::image::ImageWatch;
use crate::recording::auto_watch_state::{Watches, Watching};
use crate::recording::counter_reader::CounterReader;
use crate::recording::detours::Detours;
pub use crate::recording::domains::Domains;
use crate::recording::inject::Injected;
use crate::recording::mappings::Mappings;
use crate::recording::mark_slices::Marks;
use crate::recording::modules::Modules;
pub use crate::recording::options::Options;
pub(crate) use crate::recording::options::{Inherited, KnownCode};
use crate::recording::period::Schedule;
use crate::recording::pools::PoolReader;
use crate::recording::stacks::{Epochs, Snapshots, WatchedStacks};
pub(crate) use crate::recording::summary::Remains;
pub use crate::recording::summary::{Others, Summary};
use crate::recording::watch_requests::{PendingRequests, WatchRequest};
use crate::rules::publisher::Publisher;
use crate::rules::stack_bounds::StackBounds;
use crate::sys::memory::AreaReader;
use crate::sys::process::{ProcessorTime, Size};
use crate::sys::shm::Session;
use edleak_format::{Attached, Counters, CpuTotals, Error, Losses, ModuleId, Record, SiteId, TraceWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// One image being recorded.
pub struct Recording {
    pid: u32,
    command: Vec<String>,
    session: Arc<Session>,
    writer: Option<TraceWriter>,
    path: PathBuf,
    began: Instant,
    schedule: Schedule,
    last_tick: u64,
    slices: u64,
    counter_reader: CounterReader,
    modules: Modules,
    publisher: Publisher,
    /// Whether the target uses the rules in the session of its parent.
    has_parents_rules: bool,
    /// Trace ids, indexed by session id. A site gets the next trace id when the collector first sees it.
    trace_ids: Vec<SiteId>,
    /// Session ids whose address the target had not stored yet.
    late_sites: Vec<u32>,
    /// Number of the sites in [`edleak_session::header::Header::thread_starts`] that the trace has.
    thread_starts: usize,
    /// Number of sites in the trace: call sites and stacks.
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
    /// The module of the program itself.
    image: Option<ModuleId>,
    own_allocator: Option<PathBuf>,
    detours: Detours,
    /// The modules of uncounted allocators about which the collector has told the user.
    told_unseen: Vec<ModuleId>,
    /// Number of modules when the user was last told about such allocators.
    modules_when_told: usize,
    image_sites: Vec<usize>,
    /// The counters of a slice, indexed by trace site.
    counters: Vec<Counters>,
    events_read: u32,
    losses: Losses,
    /// The losses that the trace records so far.
    recorded_losses: Losses,
    size: Size,
    /// The first and the newest reading of the processor time, each with the time since the start.
    processor: Option<[(u64, ProcessorTime); 2]>,
    areas: AreaReader,
    /// The mapped memory of the process; `None`: edleak does not record this domain.
    mappings: Option<Mappings>,
    unmapped_unseen_bytes: u64,
    recorded_mappings: Option<edleak_format::Mappings>,
    /// The time since the start at which the next records of bytes given back are due.
    next_given_back: Duration,
    recorded_lost_give_backs: u64,
    /// The program's own pools; `None`: edleak does not record this domain.
    pools: Option<PoolReader>,
    /// Number of names of pools that the trace has.
    pool_names: usize,
    recorded_pools: Option<edleak_format::Pools>,
    cpu: CpuTotals,
    /// Whether the process has had a child.
    has_children: bool,
    /// Whether the target sees other thread ids than the collector (its own PID namespace); `None`: /proc
    /// does not say.
    own_pid_namespace: Option<bool>,
    image_watch: ImageWatch,
    /// The state of the process when its recording began, if it ran before.
    attached: Option<Attached>,
    /// Whether the target no longer counts, so that the collector can give back the memory of its session.
    is_idle: bool,
}

impl Recording {
    /// The ID of the recorded process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The serial number of this recording's session.
    pub(crate) fn serial(&self) -> u64 {
        self.session.header().serial.load(Ordering::Relaxed)
    }

    /// The session of the recorded image.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.session)
    }

    /// The rules and modules of a child that this process forked after `events` module events.
    pub(crate) fn code_for_child(&self, events: u32) -> KnownCode {
        let modules = self.modules.at_fork(events);
        // The publisher numbers modules as this recording does.
        let is_same = modules.all().len() == self.modules.all().len();
        let publisher = if is_same { self.publisher.for_child() } else { self.publisher.for_another() };
        KnownCode { publisher, modules: Some(modules) }
    }

    /// The part to keep for the children, once this recording is finished.
    pub(crate) fn remains(&self) -> Remains {
        Remains { serial: self.serial(), modules: self.modules.clone(), command: self.command.clone() }
    }

    /// The number of the claim with which this recording began.
    pub(crate) fn claim(&self) -> u32 {
        self.session.header().claim.load(Ordering::Relaxed)
    }

    /// The program and its arguments.
    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    /// The trace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of shards of the session.
    pub fn shards(&self) -> usize {
        self.session.shards().len()
    }

    /// Notes that the collector has set the library in the target idle.
    pub fn set_idle(&mut self) {
        self.is_idle = true;
    }

    /// The start of the recording.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The time of the next slice.
    pub fn next_due(&self) -> Instant {
        self.began + self.schedule.start_of(self.schedule.due_after(self.last_tick))
    }

    /// Handles requests and updates the ends of stacks. The caller may call it at any time. If a request is
    /// done, the function returns the request's client and the answer.
    pub fn tend(&mut self, now: Instant) -> Option<(ClientId, String)> {
        let answer = self.pending_requests.advance(&mut self.publisher, &self.session, self.modules.all());
        if self.publisher.walks() {
            self.bounds.refresh(&self.session, self.pid, now);
        }
        answer
    }

    /// Adds a request to watch or unwatch; [`Recording::tend`] answers it.
    pub fn steer(&mut self, wanted: WatchRequest) {
        self.pending_requests.add(wanted);
    }

    /// Whether requests wait for [`Recording::tend`].
    pub fn is_busy(&self) -> bool {
        self.pending_requests.is_busy()
    }

    /// The clients that wait for an answer.
    pub fn clients(&self) -> impl Iterator<Item = ClientId> {
        self.pending_requests.clients()
    }

    /// The progress of the recording so far.
    pub fn progress(&self) -> Progress {
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

    /// Takes a slice if one is due. Due slices that the collector has not taken count as missed.
    ///
    /// # Errors
    /// The collector cannot write the trace any more.
    pub fn poll(&mut self, now: Instant) -> Result<(), Error> {
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
    pub fn look_at_image(&mut self, now: Instant) {
        self.image_watch.look(now);
    }

    /// Notes that the process now runs another image, which another recording counts.
    pub fn set_followed(&mut self) {
        self.image_watch.set_followed();
    }

    /// Whether the process has run another image for so long that its recording should have begun by now.
    pub fn is_left_behind(&self, now: Instant) -> bool {
        const WHILE: Duration = Duration::from_millis(100);
        self.image_watch.is_left_for(now, WHILE)
    }

    /// Whether the process has long run another image that is not recorded. The counters of this recording no
    /// longer change.
    pub fn is_left(&self, now: Instant) -> bool {
        self.image_watch.is_over(now)
    }

    fn record(&mut self, record: &Record) -> Result<(), Error> {
        match &mut self.writer {
            Some(writer) => writer.record(record),
            None => Ok(()),
        }
    }
}
