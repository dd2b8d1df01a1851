//! COLD: stores the version of this library in an ELF note; `readelf --notes` shows the version.
//!
//! edleak-record reads the note before it uses a library. A note is the right place for the version, because
//! linkers keep notes even if no code refers to them.
//!
//! A second note contains the position of the object through which a collector begins a recording
//! ([`IDLE`]). The collector reads the second note from the memory of the process, not from
//! the file of the library. So the collector finds the object even if another file has replaced the file of
//! the library.
#![allow(unsafe_code)] // a section name

use edleak_session::IDENTITY;
use edleak_session::idle::Idle;

/// The object through which a collector begins a recording in this process.
pub(crate) static IDLE: Idle = Idle::new();

#[cfg(not(test))]
core::arch::global_asm!(
    ".pushsection .note.edleak,\"a\",@note",
    ".p2align 2",
    ".long {owner_bytes}, 4, {kind}",
    ".asciz \"edleak\"",
    ".p2align 2",
    ".long {idle} - .",
    ".popsection",
    owner_bytes = const edleak_session::idle::NOTE_OWNER.len(),
    kind = const edleak_session::idle::NOTE_TYPE,
    idle = sym IDLE,
);

#[cfg_attr(not(test), unsafe(link_section = ".note.edleak"))]
#[used]
static NOTE: Note = Note::of_version();

/// An ELF note: first the lengths and the kind, then the owner and the text, whose lengths are multiples of
/// four bytes.
#[repr(C)]
struct Note {
    owner_bytes: u32,
    text_bytes: u32,
    kind: u32,
    owner: [u8; 8],
    text: [u8; 64],
}

impl Note {
    const fn of_version() -> Note {
        let from = IDENTITY.as_bytes();
        let mut text = [0; 64];
        let mut at = 0;
        while at < from.len() {
            text[at] = from[at];
            at += 1;
        }
        Note { owner_bytes: 7, text_bytes: 64, kind: 1, owner: *b"edleak\0\0", text }
    }
}
