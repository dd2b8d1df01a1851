//! HOT: the tables of the fast path in one object, so that one address leads to all of them.

use crate::hot::live::Top;
use crate::hot::thread::Page;

/// The only instance is [`TABLES`].
#[repr(C)]
pub(crate) struct Tables {
    /// The counters and limits of each thread.
    pub page: Page,
    /// The upper level of the side table.
    pub top: Top,
}

// The hot path adds a thread's offset in the page to the address of this object.
const _: () = assert!(core::mem::offset_of!(Tables, page) == 0);

/// The only instance of [`Tables`].
pub(crate) static TABLES: Tables = Tables { page: Page::new(), top: Top::new() };
