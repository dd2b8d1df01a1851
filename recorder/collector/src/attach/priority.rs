//! Runs the collector with a high priority for a moment.
//!
//! While threads of the process stand still, the collector must not wait for a processor. A user without
//! privileges may not raise the priority. For a user without privileges, the priority does not change.
#![allow(unsafe_code)] // two system calls

/// A raised priority. Dropping this value restores the earlier priority.
#[derive(Debug)]
pub(crate) struct Priority {
    before: libc::c_int,
}

const HIGHEST: libc::c_int = -20;

impl Priority {
    pub(crate) fn raise() -> Priority {
        // SAFETY: the call passes no memory.
        let before = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        set(HIGHEST);
        Priority { before }
    }
}

impl Drop for Priority {
    fn drop(&mut self) {
        set(self.before);
    }
}

fn set(priority: libc::c_int) {
    // SAFETY: the call passes no memory.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
}
