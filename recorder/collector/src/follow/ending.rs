//! Ends recordings and the run: decides which recordings have ended, finishes their traces, and counts the
//! processes without a trace.

use super::outcome::{Outcome, unwritten};
use super::{ATTACH_LIMIT, Child, Follower, Root, START, unrecorded};
use crate::error::{Error, ErrorKind};
use crate::recording::{Others, Recording};
use crate::sys::shm::Session;
use crate::sys::signals::Watch;
use edleak_format::EndReason;
use edleak_text::units::plural;
use std::sync::Arc;
use std::time::Instant;

/// Number of finished recordings whose modules and command line the collector keeps for the children of the
/// ended process. A child may claim its session just before its parent ends.
const MAX_FINISHED: usize = 64;

impl Follower<'_> {
    /// Counts the unrecorded processes that still run after the end of the root process. When the root
    /// process ends, its running children get another parent. The function does not count children for which
    /// the root process has waited, because they no longer exist.
    pub(super) fn look_at_legacy(&mut self) {
        let lasted = self.recorded_since.is_some_and(|began| began.elapsed() >= START);
        // edleak gives no verdict on a program that ran for less than [`START`], so the trace of such a
        // program does not need the number of unrecorded processes.
        if let (Root::Child(_), true, true) = (&self.root, lasted, self.settings.only.is_empty()) {
            let found =
                unrecorded::told_about_us(&self.stock.address(), &self.recorded, self.settings.children);
            self.add_unrecorded(&found);
            let now = Instant::now();
            let left = self.children.iter().filter(|child| child.recording.is_left_behind(now)).count();
            self.unwritten += left as u64;
        }
    }

    /// Number of known child processes without a trace, if the user did not ask to record children.
    pub(super) fn unrequested(&self) -> u64 {
        let claimed = self.stock.others() + self.strangers;
        if self.settings.children {
            return claimed;
        }
        let has_had_children = matches!(&self.root, Root::Child(child) if child.has_had_children());
        let is_known = has_had_children || self.unrecorded.are_there();
        claimed.max(self.seen_unrecorded).max(u64::from(is_known))
    }

    pub(super) fn end_children(&mut self) {
        self.end_children_that(|child| child.watch.as_ref().is_none_or(Watch::has_ended));
    }

    pub(super) fn end_children_that(&mut self, have_ended: impl Fn(&Child) -> bool) {
        let (ended, running) =
            std::mem::take(&mut self.children).into_iter().partition::<Vec<_>, _>(|child| have_ended(child));
        self.children = running;
        for child in ended {
            let finished = self.outcome.summaries.len();
            self.finish(child.recording, EndReason::Gone, Others::default());
            // The program that the child executed last has no trace. The root's trace reports that this
            // program is not recorded, because users look for missing recordings in the root's trace.
            let replaced = self.outcome.summaries.iter().skip(finished).filter(|summary| summary.is_replaced);
            self.unwritten += if self.settings.only.is_empty() { replaced.count() as u64 } else { 0 };
        }
    }

    pub(super) fn root_has_ended(&mut self) -> bool {
        if self.outcome.ended.is_some() {
            return false;
        }
        match &self.root {
            Root::Child(child) => {
                self.outcome.ended = child.ended();
                self.outcome.ended.is_some()
            }
            Root::Other(_, watch) => watch.has_ended(),
            Root::Attached(attached) => attached.watch.has_ended(),
        }
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        // If the collector attached to a running process, the duration counts from the start of the first
        // recording, which begins at the next allocation of the process. A process that allocates nothing for
        // the whole duration gets no recording.
        let began = self.recorded_since.unwrap_or(self.began);
        self.settings.duration.is_some_and(|duration| now.duration_since(began) >= duration)
    }

    pub(super) fn end_root(&mut self, reason: EndReason) {
        let runs_on = matches!(reason, EndReason::DurationReached | EndReason::Stopped);
        if !runs_on && self.recording.is_some() {
            self.look_at_legacy();
        }
        if let Some(recording) = self.recording.take() {
            // A process that claimed a session but did not attach counts as unrecorded, because it has ended
            // or cannot attach. If the root process still runs, a process that has just claimed its session
            // may still attach. So the collector counts a process as unrecorded only if it claimed its
            // session at least the time `ATTACH_LIMIT` ago.
            let could_not =
                |(_, claimed): &&(Session, Instant)| !runs_on || claimed.elapsed() >= ATTACH_LIMIT;
            let unattached = self.attaching.iter().filter(could_not).count() as u64;
            // The trace of a child that started a few milliseconds ago may have no file yet. If the collector
            // cannot create the file of a child's trace, the root's trace must report the child as not
            // recorded.
            let young = self.children.iter_mut().filter(|child| !child.recording.has_file());
            let fileless = young.filter_map(|child| child.recording.create_file().err()).count() as u64;
            let unrecorded = self.stock.missed() + self.unwritten + unattached + fileless;
            let others = Others { unrecorded, unrequested: self.unrequested(), ..Others::default() };
            self.finish(recording, reason, others);
        }
    }

    /// Returns the result of the run. With `--only`, the root process may have no trace, so no trace can
    /// report the unrecorded processes; the result then contains them as a failure.
    pub(super) fn ended(mut self) -> Outcome {
        let unrecorded = self.stock.missed() + self.attaching.len() as u64;
        if !self.settings.only.is_empty() && unrecorded > 0 {
            let processes = plural(unrecorded, "process", "processes");
            let error = Error::new(
                ErrorKind::Unrecorded,
                format!("{processes} could not be recorded, because no session was free"),
            );
            let remedy = "start fewer at the same time";
            self.outcome.fail(&self.settings.output, error.with_remedy(remedy));
        }
        self.outcome
    }

    pub(super) fn end_all(&mut self, reason: EndReason) {
        for child in std::mem::take(&mut self.children) {
            self.finish(child.recording, reason, Others::default());
        }
        self.end_root(reason);
    }

    /// Finishes a recording. Only the trace of the root process reports `others`, the processes without a
    /// recording; for a child, `others` is empty.
    pub(super) fn finish(&mut self, mut recording: Recording, reason: EndReason, others: Others) {
        let others = Others { children_are_recorded: self.settings.children, ..others };
        self.dismiss_clients(&recording);
        if self.settings.children {
            self.finished.push_back(recording.remains());
            let too_many = self.finished.len().saturating_sub(MAX_FINISHED);
            self.finished.drain(..too_many);
        }
        if !recording.has_file()
            && let Err(error) = recording.create_file()
        {
            self.unwritten += 1;
            return self.outcome.fail(recording.path(), error);
        }
        let path = recording.path().to_owned();
        let is_in_memory = recording.is_in_memory();
        let session = recording.session();
        let finished = recording.finish(reason, others);
        if self.settings.children
            && let Some(session) = Arc::into_inner(session)
        {
            self.stock.take_back(session);
        }
        match finished {
            Ok(summary) => self.outcome.summaries.push(summary),
            Err(error) => {
                self.unwritten += u64::from(is_in_memory);
                self.outcome.fail(&path, unwritten(&error, is_in_memory));
            }
        }
    }
}
