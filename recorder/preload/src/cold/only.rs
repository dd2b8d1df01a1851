//! COLD: decides whether the user wants the program of this process recorded (`EDLEAK_ONLY`).
//!
//! The library compares each pattern with two paths: the path that was passed to execve, and the path to
//! which /proc/self/exe leads. These two paths differ in two cases: the path passed to execve is a symbolic
//! link, or it names a script, and /proc/self/exe leads to the script's interpreter.
#![allow(unsafe_code)]

use crate::cold::environment::Environment;
use crate::cold::sys;
use edleak_session::{ENV_ONLY, only};

/// Whether the user wants this program to be recorded.
pub(super) fn is_wanted(environment: &Environment) -> bool {
    let Some(patterns) = environment.get(ENV_ONLY.as_bytes()) else { return true };
    // SAFETY: the value of a variable ends in NUL.
    let patterns = unsafe { bytes_of(patterns.cast()) };
    if patterns.is_empty() {
        return true;
    }
    // SAFETY: the kernel's name of the executed file ends in NUL.
    let executed = environment.executed_file().map(|file| unsafe { bytes_of(file.cast()) });
    if executed.is_some_and(|file| only::is_wanted(patterns, file)) {
        return true;
    }
    let mut link = [0; 512];
    let length = sys::read_link(b"/proc/self/exe\0", &mut link);
    let file = link.get(..length).unwrap_or(b"");
    // If an update has removed the file of this program, the link /proc/self/exe ends in ` (deleted)`.
    only::is_wanted(patterns, file.strip_suffix(b" (deleted)").unwrap_or(file))
}

/// The bytes of a C string before its NUL.
///
/// `CStr::from_ptr` would call strlen, and the compiler turns a plain loop into a call of strlen. The library
/// may import only dlsym, so the loop uses volatile reads.
///
/// # Safety
/// `text` must end in NUL and stay unchanged.
unsafe fn bytes_of<'a>(text: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: no byte after the NUL is read.
    while unsafe { text.wrapping_add(length).read_volatile() } != 0 {
        length += 1;
    }
    // SAFETY: the caller guarantees that `text` is a C string; the loop has found the length of `text`.
    unsafe { core::slice::from_raw_parts(text, length) }
}
