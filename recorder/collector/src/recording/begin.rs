//! Begins a recording: learns the modules, publishes the rules for the target, writes the start record into
//! the trace, and takes the first slice.

use crate::recording::auto_watch_state::{Watches, Watching};
use crate::recording::counter_reader::CounterReader;
use crate::recording::detours::{Detours, Surroundings};
use crate::recording::image::ImageWatch;
use crate::recording::inject::Injected;
use crate::recording::mark_slices::Marks;
use crate::recording::options::{Inherited, KnownCode, Options};
use crate::recording::period::Schedule;
use crate::recording::pools::PoolReader;
use crate::recording::stacks::{Epochs, Snapshots, WatchedStacks};
use crate::recording::watch_requests::PendingRequests;
use crate::recording::{Recording, attached};
use crate::rules::modules::Modules;
use crate::rules::stack_bounds::StackBounds;
use crate::sys::maps;
use crate::sys::memory::AreaReader;
use crate::sys::process::{self, Size};
use crate::sys::shm::Session;
use edleak_format::{CpuTotals, Error, Losses, Record, Site, SiteId, SiteKind, Start, TraceWriter};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

impl Recording {
    /// Begins the recording of the image that claimed `session`. Learns the modules of the image, publishes
    /// the rules for its wrappers and takes the first slice. `writer` writes the first slice into the file at
    /// `path`; this file is new or does not exist yet. `inherited` is the memory that a forked child inherits
    /// from its parent.
    ///
    /// # Errors
    /// The collector cannot write the trace.
    pub(crate) fn begin(
        session: Session,
        pid: u32,
        path: &Path,
        mut writer: TraceWriter,
        options: &Options,
        known: KnownCode,
        inherited: Inherited,
    ) -> Result<Recording, Error> {
        let claimed = Instant::now();
        let session = Arc::new(session);
        let KnownCode { mut publisher, modules } = known;
        let areas = match () {
            _ if options.domains.mapping => AreaReader::with_calls(),
            // The trace has no file yet, so the process may be a short-lived child of a shell. Read the
            // memory areas of the process only after a pause, because most children of a shell end before
            // this pause is over.
            _ if !writer.has_file() => AreaReader::after_pause(claimed),
            _ => AreaReader::default(),
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
        // A forked child begins with the rules in the session of its parent.
        let has_parents_rules = !is_map_copied && publisher.is_for_child_of(modules.all());
        if !has_parents_rules {
            publisher.publish(&session, modules.all());
        }
        let program = process::program(pid).map(|path| path.display().to_string());
        let image = modules.all().iter().find(|loaded| Some(&loaded.module.path) == program.as_ref());
        // For a process that has ended already, /proc has no link to the program. The first entry of a memory
        // map is the program, so the function takes the first module as the program.
        let image = image.or(modules.all().first()).map(|loaded| loaded.module.id);
        let surroundings = Surroundings {
            pid,
            maps: &session.maps(),
            program: image,
            has_one_thread: process::thread_ids(pid).count() == 1,
        };
        let detours = Detours::publish(&session, modules.all(), &publisher, &surroundings);

        let is_attached = session.header().attached.load(Ordering::Relaxed) != 0;
        let timeout = session.header().rules_timeout_us.load(Ordering::Relaxed);
        // A starting target copies its memory map into the session, and then waits until its rules are
        // published or its timeout is over. The clock of the recording starts after the target has stopped
        // waiting. If the clock started earlier, slices that are due while the target waits would count as
        // lost, for example for a large program on a busy machine. A forked child that has the rules of its
        // parent does not wait for rules, even if the collector compiles the rules again. So slices that are
        // due while the collector compiles the rules count as lost.
        let waited = match is_map_copied && !is_attached {
            true => claimed.elapsed().min(Duration::from_micros(u64::from(timeout))),
            false => Duration::ZERO,
        };
        let began = claimed + waited;
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
        let counter_reader = CounterReader::new(session.shards().len());
        let status = process::read_status(pid);
        let image_watch = ImageWatch::new(pid, session.header().stack_start.load(Ordering::Relaxed), status);
        // If the user has asked to watch every site, auto-watch has no site to pick.
        let share = options.auto_watch.filter(|share| *share > 0.0 && !publisher.watch().is_everything());
        let watching = share.map(Watching::new);
        let pools = options.domains.pool.then(|| PoolReader::new(&session, inherited.pools, began));
        let mut recording = Recording {
            pid,
            command: options.command.clone(),
            session,
            writer: Some(writer),
            path: path.to_owned(),
            earlier: Vec::new(),
            began,
            schedule,
            last_tick: 0,
            slices: 0,
            counter_reader,
            modules,
            publisher,
            has_parents_rules,
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
            told_unseen: Vec::new(),
            modules_when_told: 0,
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
            next_given_back: Duration::ZERO,
            recorded_lost_give_backs: 0,
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

    /// Adds the site of the artificial leak (`--inject-leak`) to the trace.
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
}
