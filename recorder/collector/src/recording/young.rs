//! The first milliseconds of a child's recording. Most children of a shell end in their first milliseconds,
//! so the collector postpones all work that such a short-lived child does not need.
//!
//! - The trace stays in memory, so that one system call can write the whole trace if the child ends in its
//!   first milliseconds.
//! - A forked child uses the rules in the session of its parent (`READY_WITH_PARENTS_RULES`), so the
//!   collector publishes no rules for this child.
//!
//! To decide when the postponed work is due, the collector uses the age of the child's own recording and not
//! the age of the run, because a child can start at any time in a run.

use super::Recording;
use crate::recording::output;
use edleak_format::{Error, TraceWriter};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// When a recording has this age, the collector does the postponed work: it writes the trace into its file,
/// and gives a forked child rules of its own.
const YOUNG: Duration = Duration::from_millis(20);

impl Recording {
    /// Time until the collector does the postponed work; `None`: no work is postponed.
    pub(super) fn delay_left(&self, now: Instant) -> Option<Duration> {
        let is_young = self.has_parents_rules || self.is_in_memory();
        is_young.then(|| (self.began + YOUNG).saturating_duration_since(now))
    }

    /// Whether the file of the trace exists, so that the trace is not only in memory.
    pub(crate) fn has_file(&self) -> bool {
        self.writer.as_ref().is_none_or(TraceWriter::has_file)
    }

    /// Whether the child has already lived for longer than most children of a shell, but its trace has no
    /// file yet.
    pub(crate) fn needs_file(&self, now: Instant) -> bool {
        !self.has_file() && now.saturating_duration_since(self.began) >= YOUNG
    }

    /// Whether the whole trace is only in memory: the collector has not yet written any part of it into a
    /// file.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.writer.as_ref().is_some_and(TraceWriter::is_in_memory)
    }

    /// Creates the file of the trace. The new file stays empty until [`Recording::poll`] or
    /// [`Recording::finish`] is called. If a file with the name of the trace exists already, the collector
    /// keeps this file as `.old`.
    pub(crate) fn create_file(&mut self) -> Result<(), crate::error::Error> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        output::create_file(writer, &self.path)
    }

    /// Does the postponed work if its time has come: publishes the rules, and writes the trace so far into
    /// its file.
    pub(super) fn end_delay(&mut self, now: Instant) -> Result<(), Error> {
        if self.delay_left(now) != Some(Duration::ZERO) {
            return Ok(());
        }
        if self.has_parents_rules {
            self.publish_rules();
        }
        match &mut self.writer {
            Some(writer) if writer.has_file() => writer.map_file(),
            _ => Ok(()),
        }
    }

    /// Publishes the rules of all modules. If the target used the rules of its parent until now, tells the
    /// target to use its own rules.
    pub(super) fn publish_rules(&mut self) {
        self.publisher.publish(&self.session, self.modules.all());
        if std::mem::take(&mut self.has_parents_rules) {
            self.session.header().ready.store(edleak_session::header::READY, Ordering::Release);
        }
    }
}
