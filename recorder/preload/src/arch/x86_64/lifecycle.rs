//! COLD: x86-64: the three symbols through which `cold::phase` calls the functions of `cold::lifecycle`.
//!
//! `phase` calls these symbols only when the phase of the process changes, so the jumps cost nothing while
//! the library counts.
#![allow(unsafe_code)]

use crate::cold::lifecycle;

core::arch::global_asm!(
    ".pushsection .text.edleak_lifecycle,\"ax\",@progbits",
    ".hidden edleak_start, edleak_uncounted, edleak_forked",
    ".globl edleak_start, edleak_uncounted, edleak_forked",
    ".type edleak_start, @function",
    ".type edleak_uncounted, @function",
    ".type edleak_forked, @function",
    "edleak_start: jmp {start}",
    "edleak_uncounted: jmp {uncounted}",
    "edleak_forked: jmp {forked}",
    ".popsection",
    start = sym lifecycle::start,
    uncounted = sym lifecycle::uncounted,
    forked = sym lifecycle::forked,
);
