//! HOT: what the fast path begins from, in one place, so that one address leads to all of it.

use crate::hot::live::Top;
use crate::hot::thread::Page;

/// See [`TABLES`].
#[repr(C)]
pub(crate) struct Tables {
    /// What each thread counts with.
    pub page: Page,
    /// The upper level of the side table.
    pub top: Top,
}

// The hot path adds a thread's offset in the page to the address of all of it.
const _: () = assert!(core::mem::offset_of!(Tables, page) == 0);

/// The only one.
pub(crate) static TABLES: Tables = Tables { page: Page::new(), top: Top::new() };
