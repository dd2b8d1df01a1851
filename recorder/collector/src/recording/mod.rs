//! The recording of one image: reads its session and writes slice after slice into its trace.

mod at_marks;
mod attached;
mod auto_watch;
mod auto_watch_state;
mod detours;
mod domains;
mod ending;
pub(crate) mod inject;
mod learn;
mod mapping_sites;
pub(crate) mod mappings;
mod marking;
pub mod marks;
pub(crate) mod modules;
pub mod period;
mod pool_sites;
pub(crate) mod pools;
pub(crate) mod slicer;
pub(crate) mod stacks;
mod uncounted_allocators;
mod unpublished;
pub(crate) mod watch_requests;

use crate::control::progress::Progress;
use crate::control::socket::ClientId;
use crate::follow::image::ImageWatch;
use crate::recording::auto_watch_state::{Watches, Watching};
use crate::recording::detours::{Detours, Surroundings};
pub use crate::recording::domains::Domains;
use crate::recording::inject::Injected;
use crate::recording::mappings::Mappings;
use crate::recording::marks::Marks;
use crate::recording::modules::Modules;
use crate::recording::period::{Period, Schedule};
use crate::recording::pools::PoolReader;
use crate::recording::pools::ledger::Ledger as PoolLedger;
use crate::recording::slicer::Slicer;
use crate::recording::stacks::{Epochs, Snapshot, Snapshots, WatchedStacks};
use crate::recording::watch_requests::{PendingRequests, WatchRequest};
use crate::rules::publisher::Publisher;
use crate::rules::stack_bounds::StackBounds;
use crate::sys::maps;
use crate::sys::memory::AreaReader;
use crate::sys::process::{self, ProcessorTime, Size, Status};
use crate::sys::shm::Session;
use edleak_format::{
    Attached, Children, Counters, CpuTotals, Error, Losses, ModuleId, Record, Site, SiteId, SiteKind,
    SliceHeader, Start, TraceWriter,
};
use edleak_session::site::OTHER;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

/// Maximum number of stacks with survivor records at the end of an epoch: the stacks with the most live
/// bytes. Writing the records of tens of thousands of stacks would cost slices. At the end of the recording,
/// the collector writes the records of all stacks.
const SURVIVORS_AT_ONCE: usize = 1024;

/// Settings that all recordings of one run share.
#[derive(Clone, Debug)]
pub struct Options {
    /// The recorded command line, for the trace.
    pub command: Vec<String>,
    /// The interval between slices.
    pub period: Period,
    /// The maximum size of a trace.
    pub capacity_bytes: u64,
    /// Watch sites that look like leaks, for at most this share of the target's processor time.
    pub auto_watch: Option<f64>,
    /// Add an artificial leak of so many bytes per second to the counters.
    pub inject_bytes_per_s: Option<f64>,
    /// The program's file, if the file contains its own allocator.
    pub own_allocator: Option<PathBuf>,
    /// The domains of memory to record.
    pub domains: Domains,
}

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
    slicer: Slicer,
    modules: Modules,
    publisher: Publisher,
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
    /// Whether the collector has told the user about uncounted allocators.
    is_unseen_told: bool,
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

/// The result of a finished recording.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The path of the trace.
    pub path: PathBuf,
    /// The size of the trace in bytes.
    pub bytes: u64,
    /// Number of slices taken.
    pub slices: u64,
    /// Number of sites seen.
    pub sites: usize,
    /// The duration of the recording.
    pub duration: Duration,
    /// Events that the recording could not count.
    pub losses: Losses,
    /// The rate of the injected leak in bytes per second.
    pub injected_bytes_per_s: Option<f64>,
    /// Requests to watch a name that no module has.
    pub unmatched_watches: Vec<String>,
    /// Whether the process executed a program that is not recorded.
    pub is_replaced: bool,
    /// Whether edleak counted almost nothing of the program, because the program has its own allocator.
    pub is_blind: bool,
    /// Whether another process moved or deleted the trace during the recording, so that its name now belongs
    /// to another file or to none.
    pub is_moved: bool,
    /// Child processes without a trace.
    pub children: Children,
    /// Whether the process ran before its recording. If so, its earlier allocations are unknown.
    pub attached: bool,
}

/// The rules and modules of an image, as far as they are known before its recording begins.
pub(crate) struct KnownCode {
    /// Publishes the rules to the target.
    pub publisher: Publisher,
    /// The modules at the fork; `None`: no recorded process forked the image.
    pub modules: Option<Modules>,
}

/// The memory that a forked child has from its parent, in the domains that the collector counts itself.
#[derive(Default)]
pub(crate) struct Inherited {
    /// Mappings; `None`: the parent is not recorded, or not in this domain.
    pub mappings: Option<Mappings>,
    /// Objects of pools; `None` as for mappings.
    pub pools: Option<PoolLedger>,
}

/// The part of a finished recording that the collector keeps for the children of its process.
pub(crate) struct Remains {
    /// The serial number of the session of the finished recording.
    pub serial: u64,
    /// The modules of the finished recording.
    pub modules: Modules,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// Images that have no trace of their own.
#[derive(Clone, Copy, Default, Debug)]
pub struct Others {
    /// Number of images that found no session.
    pub unrecorded: u64,
    /// Number of children that the user did not ask to record.
    pub unrequested: u64,
    /// Whether the collector records each child into its own trace.
    pub children_are_recorded: bool,
}

impl Recording {
    /// Begins the recording of the image that claimed `session`. Learns its modules, publishes the rules of
    /// its wrappers and takes the first slice. The slice goes into `writer`, whose file at `path` is new.
    /// `inherited` is the memory that a forked child has from its parent.
    ///
    /// # Errors
    /// The trace cannot be written.
    pub(crate) fn begin(
        session: Session,
        pid: u32,
        path: &Path,
        mut writer: TraceWriter,
        options: &Options,
        known: KnownCode,
        inherited: Inherited,
    ) -> Result<Recording, Error> {
        let began = Instant::now();
        let session = Arc::new(session);
        let KnownCode { mut publisher, modules } = known;
        let areas = match modules {
            _ if options.domains.mapping => AreaReader::with_calls(),
            Some(_) => AreaReader::after_pause(began),
            None => AreaReader::default(),
        };
        let is_map_copied = session.header().maps_bytes.load(Ordering::Acquire) > 0;
        let mut modules = match modules {
            Some(parents) if !is_map_copied => parents.of_process(pid),
            _ => {
                publisher = publisher.for_another();
                Modules::new(pid)
            }
        };
        if is_map_copied {
            modules.add_maps(&maps::files(&session.maps()), 0);
        } else if modules.all().is_empty() {
            modules.add_maps(&maps::files_of(pid), 0);
        }
        publisher.publish(&session, modules.all());
        let program = process::program(pid).map(|path| path.display().to_string());
        let image = modules.all().iter().find(|loaded| Some(&loaded.module.path) == program.as_ref());
        // For a process that has ended already, /proc has no link to the program. The program is the first
        // entry of a memory map.
        let image = image.or(modules.all().first()).map(|loaded| loaded.module.id);
        let surroundings = Surroundings {
            pid,
            maps: &session.maps(),
            program: image,
            has_one_thread: process::thread_ids(pid).count() == 1,
        };
        let detours = Detours::publish(&session, modules.all(), &publisher, &surroundings);

        let schedule = Schedule::new(options.period);
        writer.record(&Record::Start(Start {
            command: options.command.clone(),
            pid,
            started_unix_ns: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |since| since.as_nanos() as u64),
            tick_ns: schedule.tick().as_nanos() as u64,
            period_ticks: schedule.period_ticks(),
            machine: std::env::consts::ARCH.into(),
            recorder: env!("CARGO_PKG_VERSION").into(),
        }))?;
        for loaded in modules.all() {
            writer.record(&Record::Module(loaded.module.clone()))?;
        }
        let slicer = Slicer::new(session.shards().len());
        let is_attached = session.header().attached.load(Ordering::Relaxed) != 0;
        let status = process::read_status(pid);
        let image_watch = ImageWatch::new(pid, session.header().stack_start.load(Ordering::Relaxed), status);
        // If every site is watched, there is nothing to pick.
        let share = options.auto_watch.filter(|share| *share > 0.0 && !publisher.watch().is_everything());
        let watching = share.map(Watching::new);
        let pools = options.domains.pool.then(|| PoolReader::start(&session, inherited.pools));
        let mut recording = Recording {
            pid,
            command: options.command.clone(),
            session,
            writer: Some(writer),
            path: path.to_owned(),
            began,
            schedule,
            last_tick: 0,
            slices: 0,
            slicer,
            modules,
            publisher,
            trace_ids: Vec::new(),
            late_sites: Vec::new(),
            thread_starts: 0,
            sites: 0,
            stacks: WatchedStacks::default(),
            epochs: Epochs::default(),
            marks: Marks::default(),
            capacity_bytes: options.capacity_bytes,
            survivors: Snapshots::default(),
            watching,
            watches: Watches::default(),
            bounds: StackBounds::default(),
            pending_requests: PendingRequests::default(),
            injected: None,
            image,
            own_allocator: options.own_allocator.clone(),
            detours,
            is_unseen_told: false,
            image_sites: Vec::new(),
            counters: Vec::new(),
            events_read: 0,
            losses: Losses::default(),
            recorded_losses: Losses::default(),
            size: Size::default(),
            processor: None,
            areas,
            mappings: options.domains.mapping.then(|| inherited.mappings.unwrap_or_default()),
            unmapped_unseen_bytes: 0,
            recorded_mappings: None,
            pools,
            pool_names: 0,
            recorded_pools: None,
            cpu: CpuTotals::default(),
            has_children: false,
            own_pid_namespace: None,
            image_watch,
            attached: is_attached.then(|| attached::begin(pid)),
            is_idle: false,
        };
        if let Some(bytes_per_s) = options.inject_bytes_per_s {
            recording.inject(bytes_per_s)?;
        }
        if recording.publisher.walks() {
            recording.bounds.refresh(&recording.session, pid, began);
        }
        for area in recording.areas.first_areas() {
            recording.record(&Record::MemoryArea(area))?;
        }
        recording.note_size(status);
        recording.write_slice(0)?;
        Ok(recording)
    }

    /// The ID of the recorded process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The serial number of this recording's session.
    pub(crate) fn serial(&self) -> u64 {
        self.session.header().serial.load(Ordering::Relaxed)
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
        if now < self.next_due() {
            self.read_mappings();
            return Ok(());
        }
        let tick = self.schedule.tick_at(now.duration_since(self.began));
        let (due, missed) = self.schedule.due_at(self.last_tick, tick);
        self.losses.missed_slices += missed;
        self.take_slice(due)?;
        self.schedule.taken(due);
        self.watch_suspects();
        if self.session.header().detours_done.load(Ordering::Acquire) != 0 {
            self.tell_unseen();
        }
        if self.own_pid_namespace == Some(false) {
            self.slicer.reclaim(&self.session, self.pid);
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

    /// Makes the site of the injected leak.
    fn inject(&mut self, bytes_per_s: f64) -> Result<(), Error> {
        let site = SiteId(self.sites);
        self.sites += 1;
        self.injected = Some(Injected { site, bytes_per_s });
        self.record(&Record::Site(Site {
            id: site,
            kind: SiteKind::Injected,
            parent: None,
            address: 0,
            module: None,
            stack: None,
        }))
    }

    fn take_slice(&mut self, tick: u64) -> Result<(), Error> {
        self.note_size(process::read_status(self.pid));
        self.write_slice(tick)
    }

    /// Lets the target run, which waits for its rules. The collector calls this after it has read the
    /// counters of the first slice, so this slice shows the state before the target runs. The target does not
    /// wait until the slice is written.
    fn let_target_go(&self) {
        let ready = &self.session.header().ready;
        if ready.load(Ordering::Relaxed) == 0 {
            ready.store(1, Ordering::Release);
            crate::sys::shm::wake(ready);
        }
    }

    /// Stores the size of the process. After the end of the process, the last size stays.
    fn note_size(&mut self, status: Option<Status>) {
        if let Some(status) = status.filter(|status| status.size != Size::default()) {
            self.size = status.size;
            self.own_pid_namespace = Some(status.own_pid_namespace);
        }
    }

    fn write_slice(&mut self, tick: u64) -> Result<(), Error> {
        let marked_until = Marks::written(&self.session);
        let learning_ns = self.began.elapsed().as_nanos() as u64;
        self.read_events(learning_ns)?;
        self.learn_sites(learning_ns)?;
        self.learn_thread_starts()?;
        self.learn_stacks(learning_ns)?;
        self.note_ended_watches(learning_ns)?;
        self.read_mappings();
        self.learn_mapping_sites()?;
        self.read_pools(false);
        self.learn_pool_sites()?;
        // The slices up to this place have their events in the rings of both domains.
        self.read_marks(marked_until, tick)?;
        // Learning sites may take a while, so the collector reads the time of the slice just before the
        // counters.
        let now_ns = self.began.elapsed().as_nanos() as u64;
        self.slicer.read(&self.session, self.stacks.in_slice(&self.session));
        self.epochs.grow(now_ns);
        self.survivors.latest = Arc::new(self.stacks.snapshot(&self.session, &self.epochs, now_ns));
        if self.epochs.advance(&self.session, now_ns) {
            let latest = Arc::clone(&self.survivors.latest);
            self.record_survivors(&latest, SURVIVORS_AT_ONCE)?;
            self.survivors.keep();
        }
        self.gather_counters(now_ns);
        self.gather_mappings();
        self.gather_pools();
        self.read_areas()?;
        self.let_target_go();
        if let Some(time) = process::processor_time(self.pid) {
            let [_, newest] = self.processor.get_or_insert([(now_ns, time); 2]);
            *newest = (now_ns, time);
        }
        self.read_losses()?;
        self.note_earlier_frees(now_ns, false)?;
        self.record_mapping_losses()?;
        self.record_pool_totals()?;
        let header = SliceHeader {
            tick,
            time_ns: now_ns,
            rss_anon_bytes: self.size.rss_anon_bytes,
            swap_bytes: self.size.swap_bytes,
        };
        let Some(writer) = &mut self.writer else { return Ok(()) };
        writer.memory(self.areas.areas());
        writer.slice(&header, &self.counters)?;
        self.last_tick = tick;
        self.slices += 1;
        if let Some(watching) = &mut self.watching
            && self.schedule.is_even(tick)
        {
            let with_stacks = call_sites(&self.trace_ids, &self.slicer, &self.session);
            watching.auto_watch.push(&with_stacks);
        }
        Ok(())
    }

    /// Copies the counters of the session to the indices of their sites in the trace.
    fn gather_counters(&mut self, now_ns: u64) {
        self.counters.clear();
        self.counters.resize(self.sites as usize, Counters::ZERO);
        let of_sites =
            self.trace_ids.iter().zip(self.slicer.sites().get(OTHER as usize..).unwrap_or_default());
        let of_stacks = self.stacks.sites().iter().zip(self.slicer.stacks());
        for (id, counters) in of_sites.chain(of_stacks) {
            self.counters[id.0 as usize] = *counters;
        }
        // If the trace takes no more stacks, the further stacks count at their call sites.
        let named = self.stacks.sites().len();
        let others = self.session.stack_infos().iter().zip(self.slicer.stacks()).skip(named);
        for (info, counters) in others {
            let site = info.site.load(Ordering::Relaxed).wrapping_sub(OTHER) as usize;
            if let Some(id) = self.trace_ids.get(site) {
                let sum = &mut self.counters[id.0 as usize];
                *sum = sum_of(*sum, *counters);
            }
        }
        if let Some(injected) = self.injected {
            self.counters[injected.site.0 as usize] = injected.counters(now_ns);
        }
    }

    /// Number of sites with counters other than zero. A call site that the library only steps over does not
    /// count.
    fn seen_sites(&self) -> usize {
        let injected = self.injected.map(|injected| injected.site.0 as usize);
        let counted = self.counters.iter().enumerate().filter(|(_, counters)| **counters != Counters::ZERO);
        counted.filter(|(site, _)| Some(*site) != injected).count()
    }

    fn record(&mut self, record: &Record) -> Result<(), Error> {
        match &mut self.writer {
            Some(writer) => writer.record(record),
            None => Ok(()),
        }
    }

    /// Records the birth times of survivors, for at most `most` stacks.
    fn record_survivors(&mut self, survivors: &Snapshot, most: usize) -> Result<(), Error> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        survivors.each(self.stacks.sites(), &self.epochs, most, |one| writer.record(&Record::Survivors(one)))
    }

    fn read_losses(&mut self) -> Result<(), Error> {
        let header = self.session.header();
        let losses = Losses {
            unknown_frees: header.unknown_frees.load(Ordering::Relaxed),
            lost_module_events: u64::from(header.events_lost.load(Ordering::Relaxed)),
            other_site_allocs: header.other_site_allocs.load(Ordering::Relaxed),
            untracked_allocs: header.untracked_allocs.load(Ordering::Relaxed),
            lost_stacks: header.lost_stacks.load(Ordering::Relaxed)
                + self.stacks.without_site(&self.session) as u64,
            missed_slices: self.losses.missed_slices,
            unrecorded_images: self.losses.unrecorded_images,
        };
        if losses != self.recorded_losses || self.slices == 0 {
            (self.losses, self.recorded_losses) = (losses, losses);
            self.record(&Record::Losses(losses))?;
        }
        Ok(())
    }
}

/// The counters of all call sites; each includes the counters of its stacks.
fn call_sites(trace_ids: &[SiteId], slicer: &Slicer, session: &Session) -> Vec<Counters> {
    let mut sums: Vec<Counters> = slicer.sites().get(OTHER as usize..).unwrap_or_default().to_vec();
    sums.truncate(trace_ids.len());
    for (info, counters) in session.stack_infos().iter().zip(slicer.stacks()) {
        let site = info.site.load(Ordering::Relaxed).wrapping_sub(OTHER) as usize;
        if let Some(sum) = sums.get_mut(site) {
            *sum = sum_of(*sum, *counters);
        }
    }
    sums
}

fn sum_of(a: Counters, b: Counters) -> Counters {
    Counters {
        allocated_bytes: a.allocated_bytes.wrapping_add(b.allocated_bytes),
        allocs: a.allocs.wrapping_add(b.allocs),
        freed_bytes: a.freed_bytes.wrapping_add(b.freed_bytes),
        frees: a.frees.wrapping_add(b.frees),
    }
}
