//! A process that already ran when its recording began. The collector asks the library in this process to
//! begin counting.
//!
//! ```text
//! wake ──▶ at its next allocation, the process attaches to a new session
//!      ──▶ open, as soon as no thread uses the session of an earlier recording
//! ```

use crate::attach::Redirected;
use crate::error::{Error, ErrorKind};
use crate::sys::idle::{self, Library};
use crate::sys::quiescence::Quiescence;
use crate::sys::say::say;
use crate::sys::signals::Watch;
use edleak_session::idle::{COUNTING, NO_FAILURE, UNREACHABLE, WAKE};
use std::io;
use std::time::{Duration, Instant};

/// After this time without an allocation, the collector tells the user that the process does not allocate.
const SILENCE: Duration = Duration::from_secs(3);

/// A process that already ran when its recording began, and edleak's library in this process.
pub(crate) struct Attached {
    pub(crate) library: Library,
    pub(crate) watch: Watch,
    /// The jumps from the process's code to the edleak library; `None`: the process loaded the library when
    /// it started. Dropping this value removes the jumps.
    _redirected: Option<Redirected>,
    control: String,
    quiet: bool,
    /// Whether the process was attached to the session of an earlier recording. In a process that was
    /// attached before, no thread uses the fast path of the library until the collector calls
    /// [`Attached::open`].
    was_attached: bool,
    woken: Instant,
    is_told: bool,
    attempts: u32,
    opening: Option<Quiescence>,
}

impl Attached {
    /// Asks the library to begin counting, with a session from the control page `control`. The caller must
    /// ensure that no thread of the process uses the session of an earlier recording during this call.
    pub(crate) fn wake(
        library: Library,
        redirected: Option<Redirected>,
        watch: Watch,
        control: String,
        quiet: bool,
    ) -> io::Result<Attached> {
        let was_attached = library.header()?.is_some();
        library.wake(&control)?;
        Ok(Attached {
            library,
            watch,
            _redirected: redirected,
            control,
            quiet,
            was_attached,
            woken: Instant::now(),
            is_told: false,
            attempts: 1,
            opening: None,
        })
    }

    /// Checks whether the process has answered the request to begin counting, and repeats the request if the
    /// request failed. `has_claimed` means that a process has claimed a session but has not attached to this
    /// session. Returns whether the collector has repeated the request. If the function returns an error, the
    /// recording ends.
    pub(super) fn look_after_request(&mut self, now: Instant, has_claimed: bool) -> Result<bool, Error> {
        // The first attempts to attach may fail only because a thread tried to reach an earlier edleak-record
        // process that was killed. So the function returns an error only after more than `SURE_ATTEMPTS`
        // attempts.
        const SURE_ATTEMPTS: u32 = 4;
        // On a busy machine, many attempts to attach may fail within milliseconds, before the collector
        // offers a session. So the function also waits for the time `LEAST_TIME` before it returns an error.
        const MOST_ATTEMPTS: u32 = 50;
        const LEAST_TIME: Duration = Duration::from_secs(2);
        let pid = self.library.pid();
        // If the collector cannot read the memory of the process, the process has ended, and the watch will
        // notice this end.
        let Ok(phase) = self.library.phase() else { return Ok(false) };
        if idle::is_off(phase) {
            let failure = self.library.failure().unwrap_or(NO_FAILURE);
            self.attempts += 1;
            if failure == UNREACHABLE && self.attempts > SURE_ATTEMPTS {
                let message =
                    format!("process {pid} cannot open the memory of edleak-record at `{}`", self.control);
                let remedy = "start edleak-record as the user of the process, with its /proc and without \
                              more capabilities, or start the process with edleak-record";
                return Err(Error::new(ErrorKind::Process, message).with_remedy(remedy));
            }
            let is_in_vain = self.attempts > MOST_ATTEMPTS && now - self.woken > LEAST_TIME;
            if is_in_vain && has_claimed {
                let message =
                    format!("process {pid} cannot map the memory that it shares with edleak-record");
                let remedy =
                    format!("raise its limit of address space: `prlimit --pid {pid} --as=unlimited`");
                return Err(Error::new(ErrorKind::Process, message).with_remedy(remedy));
            }
            if is_in_vain {
                let message = format!("process {pid} found no session");
                let remedy = "start edleak-record in its PID namespace";
                return Err(Error::new(ErrorKind::Process, message).with_remedy(remedy));
            }
            // A child that shares the memory of the process may have answered the request before the process
            // could answer, so the collector asks again.
            let _ = self.library.wake(&self.control);
            return Ok(true);
        }
        if phase == WAKE && !self.is_told && !self.quiet && now - self.woken > SILENCE {
            self.is_told = true;
            say(format_args!("process {pid} has not allocated yet: its recording begins when it does"));
        }
        Ok(false)
    }

    /// Lets the threads of the process use the fast path of the library, as soon as no thread can hold a
    /// pointer into the session of an earlier recording.
    pub(super) fn open(&mut self, shards: usize) {
        if !self.was_attached || self.library.phase().ok() != Some(COUNTING) {
            return;
        }
        let library = &self.library;
        let opening =
            self.opening.get_or_insert_with(|| Quiescence::new(library.pid(), library.range.clone()));
        if opening.is_reached() {
            self.was_attached = false;
            // This call of `open` fails only if the process has ended, so the collector ignores the error.
            let _ = library.open(shards);
        }
    }
}
