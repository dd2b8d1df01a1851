//! The end of a recording: the last slice, the survivors (allocations that are still live), the end record,
//! and the summary.

use super::{Others, Recording, Summary};
use crate::recording::slice::{call_sites, sum_of};
use crate::sys::process;
use edleak_format::{
    Children, Counters, CpuUse, End, EndReason, Error, ErrorKind, Record, TraceWriter, place,
};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Recording {
    /// Takes the final slice, closes the trace and returns a summary. If the process has executed a program
    /// that edleak does not record, the end reason in the trace is `Replaced`.
    ///
    /// The destructors of an ending program free memory that the program kept until its end. So the collector
    /// records the survivors (the allocations that were still live) from the time before the destructors ran.
    ///
    /// # Errors
    /// The collector cannot write the end of the trace.
    pub(crate) fn finish(mut self, reason: EndReason, others: Others) -> Result<Summary, Error> {
        let runs_on = matches!(reason, EndReason::DurationReached | EndReason::Stopped);
        // If the process still runs, it may have executed a program a moment ago, and this program may still
        // claim a session. So the program counts as not recorded only if it has claimed no session for some
        // time.
        let is_replaced =
            if runs_on { self.image_watch.is_over(Instant::now()) } else { self.image_watch.is_left() };
        let reason = if is_replaced { EndReason::Replaced } else { reason };
        let lost_children = self.session.header().lost_children.load(Ordering::Relaxed);
        let is_blind = self.is_blind();
        self.tell_unseen();
        self.losses.unrecorded_images = others.unrecorded + u64::from(lost_children) + u64::from(is_blind);
        let forked = self.session.header().has_forked.load(Ordering::Relaxed);
        // A forked child sets a flag in the session, but the session does not count the children.
        self.look_at_children();
        // A child without LD_PRELOAD in its environment claims no session and sets no flag, but /proc shows
        // that the process has had a child.
        let seen = u64::from(self.has_children && !others.children_are_recorded);
        let children = Children { unrequested: others.unrequested.max(u64::from(forked)).max(seen) };
        if children.unrequested > 0 {
            self.record(&Record::CpuTotals(self.cpu))?;
        }
        self.find_allocators(true)?;
        for allocator in self.uncounted_allocators() {
            self.record(&Record::Allocator(allocator))?;
        }
        for functions in self.uncounted_functions() {
            self.record(&Record::UncountedFunctions(functions))?;
        }
        if children.unrequested > 0 {
            self.record(&Record::Children(children))?;
        }
        let elapsed = self.began.elapsed();
        let tick = self.schedule.final_tick(self.last_tick, elapsed);
        let before = self.survivors.clone();
        self.read_pools(!runs_on);
        self.take_slice(tick)?;
        self.record_given_back(true)?;
        self.record_marks(true)?;
        let survivors = if runs_on { &self.survivors } else { &before };
        let survivors = Arc::clone(survivors.before_teardown());
        self.record_survivors(&survivors, usize::MAX)?;
        if let Some([(from_ns, first), (to_ns, last)]) = self.processor {
            self.record(&Record::CpuUse(CpuUse {
                span_ns: to_ns - from_ns,
                used_ns: last.used_ns.saturating_sub(first.used_ns),
                waited_ns: last.waited_ns.saturating_sub(first.waited_ns),
            }))?;
        }
        self.note_earlier_frees(elapsed.as_nanos() as u64, true)?;
        let mut bytes = 0;
        let mut is_moved = false;
        if let Some(mut writer) = self.writer.take() {
            writer.record(&Record::End(End { reason, at_ns: elapsed.as_nanos() as u64 }))?;
            is_moved = !writer.is_at(&self.path);
            // If the disk is full and the trace is short, the file of the trace is still empty. An empty file
            // is not a trace, so the collector removes this file.
            let is_empty = writer.is_in_memory() && writer.has_file() && !is_moved;
            bytes = writer.finish().inspect_err(|_| {
                if is_empty {
                    let _ = std::fs::remove_file(&self.path);
                }
            })?;
        }
        if self.is_idle {
            self.pools = None; // the thread of the pool reader reads the session
            self.session.give_back();
        }
        Ok(Summary { is_replaced, is_blind, is_moved, children, ..self.summary(bytes) })
    }

    /// Renames the trace to `to`. No file may exist at the path `to`.
    ///
    /// # Errors
    /// The operating system refuses to move the file.
    pub(crate) fn rename(&mut self, to: &Path) -> io::Result<()> {
        if self.writer.as_ref().is_some_and(|writer| !writer.is_at(&self.path)) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "another process moved or deleted the trace",
            ));
        }
        place::rename_new(&self.path, to)?;
        self.path = to.to_owned();
        Ok(())
    }

    /// Whether edleak counted almost nothing for the program itself, because the program has its own
    /// allocator. In a program with its own allocator, only the memory that libc allocates for the program
    /// (file buffers) goes through `malloc`.
    fn is_blind(&self) -> bool {
        const NOISE_ALLOCS: u64 = 16;
        const NOISE_BYTES: u64 = 64 << 10;
        let Some(own_allocator) = &self.own_allocator else { return false };
        let image = self.image.and_then(|id| self.modules.all().get(id.0 as usize));
        let counted = self.counted_in_image();
        image.is_some_and(|image| {
            Path::new(&image.module.path) == own_allocator
                && !self.detours.is_counted(&self.session, image.module.id)
        }) && counted.allocs <= NOISE_ALLOCS
            && counted.allocated_bytes <= NOISE_BYTES
    }

    /// Ends this recording and returns the writer of its trace, so that the recording of the next image can
    /// use the same file name.
    pub(crate) fn into_writer(mut self) -> Option<TraceWriter> {
        self.writer.take()
    }

    /// Closes the trace after the collector could not write a slice. The slices that the trace already
    /// contains stay readable.
    pub(crate) fn abandon(mut self, error: &Error) -> Option<Summary> {
        let mut writer = self.writer.take()?;
        if error.kind() == ErrorKind::CutOff {
            return None; // there is no trace to close
        }
        if error.kind() == ErrorKind::NoSpace {
            let at_ns = self.began.elapsed().as_nanos() as u64;
            // The writer reserves room in the file for the end record. Even without the end record, the
            // slices in the trace are readable.
            let _ = writer.record(&Record::End(End { reason: EndReason::DiskFull, at_ns }));
        }
        let has_slices = !writer.is_in_memory();
        let is_own = writer.has_file() && writer.is_at(&self.path);
        let bytes = match writer.finish() {
            Ok(bytes) => bytes,
            Err(_) if has_slices => std::fs::metadata(&self.path).ok()?.len(),
            Err(_) => {
                // The file is empty or contains only a part of the first slices, so it is no readable trace.
                if is_own {
                    let _ = std::fs::remove_file(&self.path);
                }
                return None;
            }
        };
        Some(self.summary(bytes))
    }

    fn summary(self, bytes: u64) -> Summary {
        Summary {
            bytes,
            slices: self.slices,
            sites: self.seen_sites(),
            duration: self.began.elapsed(),
            losses: self.losses,
            unmatched_watches: self.publisher.unmatched(self.modules.all()),
            injected_bytes_per_s: self.injected.map(|injected| injected.bytes_per_s),
            path: self.path,
            is_replaced: false,
            is_blind: false,
            is_moved: false,
            children: Children::default(),
            attached: self.attached.is_some(),
        }
    }

    fn counted_in_image(&self) -> Counters {
        let counters = call_sites(&self.trace_ids, &self.counter_reader, &self.session);
        let of_image = self.image_sites.iter().filter_map(|&index| counters.get(index));
        of_image.fold(Counters::ZERO, |sum, site| sum_of(sum, *site))
    }

    /// Reads the processor time of the process and of its children.
    pub(super) fn look_at_children(&mut self) {
        let Some(cpu) = process::cpu(self.pid) else { return };
        let living = process::descendants(self.pid);
        let of_living: u64 =
            living.iter().filter_map(|pid| process::cpu(*pid)).map(|cpu| cpu.own_ns + cpu.waited_ns).sum();
        self.has_children |= cpu.has_waited || !living.is_empty();
        self.cpu.own_ns = self.cpu.own_ns.max(cpu.own_ns);
        self.cpu.children_ns = self.cpu.children_ns.max(cpu.waited_ns + of_living);
    }
}
