//! Handles a new image: a program that has claimed a session. The collector finds the process that owns the
//! session, and chooses the name of the trace. If the process ran another recorded image before, the
//! collector ends the recording of that image.

use super::outcome::unwritten;
use super::trace_names::{beside, child_path};
use super::{Child, Follower};
use crate::error::{Error, ErrorKind};
use crate::recording::output;
use crate::recording::{Inherited, KnownCode, Others, Recording};
use crate::sys::process;
use crate::sys::shm::Session;
use crate::sys::signals::Watch;
use edleak_format::{EndReason, TraceWriter};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// If an image ran for at least this time before its process executed another program, the collector keeps
/// the trace of this image.
const WORTH_KEEPING: Duration = Duration::from_secs(1);

impl Follower<'_> {
    pub(super) fn begin(&mut self, session: Session) {
        let claimed_pid = session.header().pid.load(Ordering::Relaxed);
        let root = self.root.pid();
        // The root process may have ended already. No other process can have the PID of the root process
        // before the collector has waited for the root process.
        let is_attached = matches!(self.root, super::Root::Attached(_));
        let holder = session.inode().and_then(|inode| {
            // In its own PID namespace, an attached process may have another PID than in the collector's PID
            // namespace.
            let is_roots = is_attached && process::maps_this_session(root, inode);
            if is_roots { Some(root) } else { process::holder_of(inode, claimed_pid) }
        });
        let holder = holder.or((claimed_pid == root).then_some(root));
        let is_root = holder == Some(root);
        if !is_root && !self.settings.children {
            self.strangers += 1;
            return;
        }
        // If the owner of the session has ended, another process may have the owner's PID. The collector does
        // not inspect this other process, and uses PID 0, which means that the owner is unknown.
        let pid = holder.unwrap_or_else(|| if process::is_there(claimed_pid) { 0 } else { claimed_pid });
        let own_number = if pid == 0 { claimed_pid } else { pid };
        let inherited = self.inherited(&session, pid);
        let (known, parents_command) = self.known_of_parent(&session);
        // The system can give the PID of an ended child to a new process. So close the recordings of ended
        // children before the search for a recording by PID.
        self.end_children();
        let index = self.children.iter().position(|child| pid != 0 && child.recording.pid() == pid);
        let now = match index {
            _ if is_root => self.recording.as_ref(),
            Some(index) => Some(&self.children[index].recording),
            None => None,
        };
        let claim = session.header().claim.load(Ordering::Relaxed);
        if now.is_some_and(|now| now.claim().wrapping_sub(claim) as i32 > 0) {
            // This session belongs to an image that the process ran before the image that is already
            // recorded. The collector sees the session of the earlier image only now, and ignores this
            // session.
            return;
        }
        // After an exec, the trace of the new image gets the name that the trace of the old image had.
        let before = if is_root {
            self.recording.take()
        } else {
            index.map(|index| self.children.swap_remove(index).recording)
        };
        let path = match &before {
            Some(before) => before.path().to_owned(),
            None if self.takes_output(is_root) => self.settings.output.clone(),
            None => self.child_output(own_number),
        };
        let mut earlier = before.as_ref().map_or_else(Vec::new, |before| before.earlier().to_vec());
        let taken_over = before.and_then(|before| self.set_aside(before, &mut earlier));
        if self.settings.children {
            self.inherited.extend(session.inode());
        }
        self.recorded.insert(pid);
        let mut options = self.settings.options.clone();
        if !is_root {
            options.command = process::command_line(pid);
            if options.command.is_empty() {
                // The process has ended already. A forked child runs its parent's program, so use the
                // parent's command line.
                options.command = parents_command.unwrap_or_default();
            }
        }
        let reserved = if path == self.settings.output { self.reserved.take() } else { None };
        let begun = match taken_over.or(reserved.map(Ok)) {
            Some(writer) => writer,
            None if path == self.settings.output => {
                output::reserve(&path, options.capacity_bytes).map(|(writer, _)| writer)
            }
            // The trace of a child gets its file only when the child has lived for some time, or when the
            // child ends.
            None => TraceWriter::in_memory(&path, options.capacity_bytes)
                .map_err(|error| Error::output(&error, "choose another --size")),
        }
        .and_then(|writer| {
            Recording::begin(session, pid, &path, writer, &options, known, inherited)
                .and_then(|mut recording| recording.set_earlier(earlier).map(|()| recording))
                .map_err(|error| Error::output(&error, "choose another file with -o"))
        });
        match begun {
            Ok(recording) if is_root => {
                self.recorded_since.get_or_insert(recording.began());
                self.recording = Some(recording);
            }
            Ok(recording) => {
                if !self.settings.only.is_empty() {
                    self.recorded_since.get_or_insert(recording.began());
                }
                let watch = holder.and_then(Watch::of);
                self.children.push(Child { recording, watch });
            }
            Err(error) => {
                self.unwritten += u64::from(!is_root);
                self.outcome.fail(&self.settings.output, error);
            }
        }
    }

    /// The mappings and pools that a forked child inherits from its parent, if the parent is still recorded.
    fn inherited(&mut self, child: &Session, pid: u32) -> Inherited {
        let serial = child.header().parent.load(Ordering::Relaxed);
        let parent = self.recordings().find(|recording| serial != 0 && recording.serial() == serial);
        parent.map_or_else(Inherited::default, |parent| Inherited {
            mappings: parent.mappings_of_child(child, pid),
            pools: parent.pools_of_child(child),
        })
    }

    /// Whether the trace of a new process gets the output path of the run. Without `--only`, the trace of the
    /// root process gets this path. With `--only`, the trace of the first matching process gets this path.
    fn takes_output(&self, is_root: bool) -> bool {
        if self.settings.only.is_empty() { is_root } else { self.reserved.is_some() }
    }

    /// The rules and modules that the collector already knows for the process that claimed `session`, and the
    /// command line of the parent of this process. The collector takes the rules, the modules and the command
    /// line from the recording of the parent. Without a recording of the parent, the modules and the command
    /// line are unknown.
    fn known_of_parent(&mut self, session: &Session) -> (KnownCode, Option<Vec<String>>) {
        let header = session.header();
        let serial = header.parent.load(Ordering::Relaxed);
        let events = header.parent_events.load(Ordering::Relaxed);
        if let Some(parent) = self.recordings().find(|recording| recording.serial() == serial) {
            return (parent.code_for_child(events), Some(parent.command().to_vec()));
        }
        let publisher = self.settings.publisher.for_another();
        let parent = self.finished.iter().find(|parent| parent.serial == serial);
        let modules = parent.map(|parent| parent.modules.at_fork(events));
        (KnownCode { publisher, modules }, parent.map(|parent| parent.command.clone()))
    }

    /// The path of a child's trace: `NAME.PID.edl`. If an earlier child of this run had the same PID, its
    /// trace has the same path, so the function adds a number to the name. If the path belongs to a trace of
    /// an earlier run, edleak renames that trace to `.old`, as for the root's trace.
    fn child_output(&mut self, pid: u32) -> PathBuf {
        let times = self.child_numbers.entry(pid).or_insert(0);
        *times += 1;
        match *times {
            1 => child_path(&self.settings.output, pid),
            times => beside(&self.settings.output, &format!("{pid}.{times}")),
        }
    }

    /// Ends the recording of an image whose process has executed another program. If the old image ran for at
    /// least [`WORTH_KEEPING`], the collector keeps the trace of the old image under another name. For
    /// example, a shell that only starts a server runs for less than [`WORTH_KEEPING`]. Adds the name of the
    /// kept trace to `earlier`, and returns the writer for the trace of the next image. No other process can
    /// take the name of the trace, because the collector reuses the file or immediately replaces the file.
    fn set_aside(
        &mut self,
        mut recording: Recording,
        earlier: &mut Vec<String>,
    ) -> Option<Result<TraceWriter, Error>> {
        recording.set_followed();
        let path = recording.path().to_owned();
        if recording.began().elapsed() < WORTH_KEEPING {
            self.dismiss_clients(&recording);
            let writer = recording.into_writer()?;
            let is_in_memory = writer.is_in_memory();
            return Some(writer.restart().map_err(|error| unwritten(&error, is_in_memory)));
        }
        self.executed += 1;
        let aside = beside(&path, &format!("exec{}", self.executed));
        let created = if recording.has_file() { Ok(()) } else { recording.create_file() };
        let moved = created.and_then(|()| output::keep_old(&aside)).and_then(|_| {
            recording.rename(&aside).map_err(|error| {
                Error::new(ErrorKind::Output, format!("failed to move `{}`: {error}", path.display()))
                    .with_remedy("the slices so far can be read; record again")
            })
        });
        let next = output::reserve(&path, self.settings.options.capacity_bytes);
        self.finish(recording, EndReason::Executed, Others::default());
        if let Err(error) = moved {
            self.outcome.fail(&aside, error);
            return None;
        }
        earlier.extend(aside.file_name().map(|name| name.to_string_lossy().into_owned()));
        Some(next.map(|(writer, _)| writer))
    }

    /// Ends the recording of each process that executed another program some time ago, if this program has
    /// claimed no session since then.
    pub(super) fn look_at_images(&mut self, now: Instant) {
        self.recordings().for_each(|recording| recording.look_at_image(now));
        if self.recording.as_ref().is_some_and(|recording| recording.is_left(now)) {
            self.end_root(EndReason::Gone);
        }
        self.end_children_that(|child| child.recording.is_left(now));
    }
}
