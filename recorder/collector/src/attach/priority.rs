//! Gives the collector a high priority while threads of the target stand still.
//!
//! While the threads stand still, the collector must not wait for a processor, so that the threads can soon
//! run again. Without privileges, the collector may not raise its priority, so the priority does not change.
#![allow(unsafe_code)] // two system calls

/// Keeps the priority raised while this value lives. Dropping this value restores the priority that the
/// collector had before.
#[derive(Debug)]
pub(crate) struct Priority {
    before: libc::c_int,
}

const HIGHEST: libc::c_int = -20;

impl Priority {
    pub(crate) fn raise() -> Priority {
        // SAFETY: the call passes only numbers, and no pointer.
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
    // SAFETY: the call passes only numbers, and no pointer.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, priority) };
}
