//! HOT where a site is watched: walking the stack by rules that the collector compiled.
//!
//! A frame costs one probe of a cache (return address → rule) and one or two loads from the stack. What the cache does not
//! have is searched in the published tables, and what those do not have ends the walk: the stack is marked as cut. No
//! loader lock, no DWARF, no fault: every load lies below the end of the memory that the stack is known to lie in.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::modules;
use crate::cold::sites::Frame;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use edleak_session::header::Header;
use edleak_session::rule::{Kind, Rule};
use edleak_session::stack::{self, Bound, Cell, MAX_FRAMES, RuleRow, RuleTable, StackInfo, Stacks, mix};

/// Where the tables of a session lie.
pub(crate) struct Tables {
    /// Hash table of stacks.
    pub slots: *mut AtomicU64,
    /// Stacks.
    pub infos: *mut StackInfo,
    /// Their frames.
    pub frames: *mut AtomicU64,
    /// Their cells.
    pub cells: *mut Cell,
    /// Unwind tables of modules.
    pub tables: *mut RuleTable,
    /// Their rows.
    pub rows: *mut RuleRow,
    /// Mapped ranges.
    pub bounds: *mut Bound,
}

impl Tables {
    /// Those in use.
    pub(crate) fn in_use() -> Tables {
        Tables {
            slots: SLOTS.load(Ordering::Relaxed),
            infos: INFOS.load(Ordering::Relaxed),
            frames: FRAMES.load(Ordering::Relaxed),
            cells: CELLS.load(Ordering::Relaxed),
            tables: TABLES.load(Ordering::Relaxed),
            rows: ROWS.load(Ordering::Relaxed),
            bounds: BOUNDS.load(Ordering::Relaxed),
        }
    }

    /// The site whose stack a cell belongs to.
    ///
    /// # Safety
    /// The session that these lie in is mapped.
    pub(crate) unsafe fn site_of(&self, number: u32) -> Option<u32> {
        // SAFETY: as the caller says; the layout of the session says how many there are.
        let cells = unsafe { core::slice::from_raw_parts(self.cells, stack::MAX_CELLS) };
        let stack = cells.get(number as usize)?.stack.load(Ordering::Acquire).checked_sub(1)?;
        // SAFETY: as above.
        let infos = unsafe { core::slice::from_raw_parts(self.infos, stack::MAX_STACKS) };
        Some(infos.get(stack as usize)?.site.load(Ordering::Relaxed))
    }
}

static SLOTS: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static INFOS: AtomicPtr<StackInfo> = AtomicPtr::new(ptr::null_mut());
static FRAMES: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
static CELLS: AtomicPtr<Cell> = AtomicPtr::new(ptr::null_mut());
static TABLES: AtomicPtr<RuleTable> = AtomicPtr::new(ptr::null_mut());
static ROWS: AtomicPtr<RuleRow> = AtomicPtr::new(ptr::null_mut());
static BOUNDS: AtomicPtr<Bound> = AtomicPtr::new(ptr::null_mut());
/// End of the main thread's stack; 0: not known.
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// Makes the tables of a session known. Called once, before anything is counted.
pub(crate) fn set_tables(tables: &Tables, main_stack_end: usize) {
    SLOTS.store(tables.slots, Ordering::Relaxed);
    INFOS.store(tables.infos, Ordering::Relaxed);
    FRAMES.store(tables.frames, Ordering::Relaxed);
    CELLS.store(tables.cells, Ordering::Relaxed);
    TABLES.store(tables.tables, Ordering::Relaxed);
    ROWS.store(tables.rows, Ordering::Relaxed);
    BOUNDS.store(tables.bounds, Ordering::Relaxed);
    MAIN_STACK_END.store(main_stack_end, Ordering::Relaxed);
}

/// A table of the session that holds `count` values.
fn table<T>(at: &AtomicPtr<T>, count: usize) -> &'static [T] {
    // SAFETY: set from the layout of the session, whose tables are this long, before anything is counted; the session is
    // mapped for the life of the process.
    unsafe { core::slice::from_raw_parts(at.load(Ordering::Relaxed), count) }
}

/// The cell with this number.
pub(crate) fn cell(number: u32) -> Option<&'static Cell> {
    table(&CELLS, stack::MAX_CELLS).get(number as usize)
}

/// Walks the stack of an allocation at a watched site and finds its cell. `None`: there is no room for another stack, and
/// the allocation stays with the site.
///
/// # Safety
/// `frame` is that of the site, on this thread's stack, under way.
#[inline(never)]
pub(crate) unsafe fn record(header: &Header, site: u32, frame: Frame) -> Option<u32> {
    let mut frames = [const { MaybeUninit::uninit() }; MAX_FRAMES];
    // SAFETY: as the caller says.
    let mut walked = unsafe { walk(header, site, frame, &mut frames) };
    let mark = modules::mark_of_stack(walked.frames);
    if mark != 0 {
        walked.hash = mix(walked.hash, mark);
    }
    let stacks = Stacks {
        slots: table(&SLOTS, stack::SLOTS),
        infos: table(&INFOS, stack::MAX_STACKS),
        frames: table(&FRAMES, stack::MAX_ADDRESSES),
        cells: table(&CELLS, stack::MAX_CELLS),
        next: &header.stacks,
        module_events: &header.events_written,
    };
    stacks.cell(site, walked.frames, walked.hash, walked.is_cut, header.epoch.load(Ordering::Relaxed))
}

struct Walked<'f> {
    /// Return addresses, innermost first.
    frames: &'f [u64],
    hash: u64,
    is_cut: bool,
}

/// Room for the return addresses of one stack. Not zeroed: that would cost as much as walking three frames.
type Frames = [MaybeUninit<u64>; MAX_FRAMES];

/// A frame waits for the one below it only through one load from the stack, one from the cache, and two additions. What is
/// rare is a call, so that what is common stays in registers.
#[inline(always)]
unsafe fn walk<'f>(header: &Header, site: u32, start: Frame, frames: &'f mut Frames) -> Walked<'f> {
    let bound = bound_of(header, start.sp);
    // Taken apart: in one piece it would live in memory, and each frame would wait for the one below it to be stored.
    let Frame { mut address, mut sp, mut fp } = start;
    let mut hash = u64::from(site);
    let mut is_cut = true;
    let mut count = 0;
    while let Some(place) = frames.get_mut(count) {
        place.write(address as u64);
        hash = mix(hash, address as u64);
        count += 1;
        let frame = Frame { address, sp, fp };
        let rule = rule_at(header, address);
        let next = match rule.kind() {
            // SAFETY: as the caller says, and bounded there.
            Kind::Sp | Kind::Fp => unsafe { caller(frame, rule, bound) },
            Kind::End => {
                is_cut = false;
                break;
            }
            Kind::Unknown => break,
            Kind::Signal => {
                let Some(place) = frames.get_mut(count) else { break };
                // SAFETY: bounded there.
                let Some(interrupted) = (unsafe { interrupted(frame, bound) }) else { break };
                place.write(interrupted.address as u64);
                hash = mix(hash, interrupted.address as u64);
                count += 1;
                // Not a return address: the pc itself is looked up.
                let rule = rule_slow(header, interrupted.address);
                // SAFETY: as above; any other kind leads nowhere.
                unsafe { caller(interrupted, rule, bound) }
            }
        };
        let Some(next) = next else { break };
        if next.address == 0 {
            is_cut = false; // the psABI's mark of the outermost frame
            break;
        }
        Frame { address, sp, fp } = next;
    }
    // SAFETY: the first `count` were written, and a `MaybeUninit<u64>` is laid out as a `u64`.
    let frames = unsafe { core::slice::from_raw_parts(frames.as_ptr().cast(), count) };
    Walked { frames, hash, is_cut }
}

/// The caller's frame, if all of it lies between this frame and `bound`.
#[inline(always)]
unsafe fn caller(frame: Frame, rule: Rule, bound: usize) -> Option<Frame> {
    let base = match rule.kind() {
        Kind::Sp => frame.sp,
        Kind::Fp => frame.fp,
        _ => return None,
    };
    let cfa = base.wrapping_add(rule.cfa_offset());
    // A CFA that does not move up the stack would walk in circles.
    if cfa <= frame.sp || cfa > bound || cfa % 8 != 0 {
        return None;
    }
    if rule.fp_offset() > cfa - frame.sp {
        return None;
    }
    // SAFETY: both words that the rule names lie in `frame.sp..cfa`, inside the stack.
    Some(unsafe { frame.caller(rule) })
}

/// The frame that a signal interrupted: its registers lie in the `ucontext` that the kernel left at sp.
#[cold]
#[inline(never)]
unsafe fn interrupted(frame: Frame, bound: usize) -> Option<Frame> {
    // x86-64 `struct ucontext`: 40 bytes, then the general registers.
    const RBP: usize = 40 + 10 * 8;
    const RSP: usize = 40 + 15 * 8;
    const RIP: usize = 40 + 16 * 8;
    if frame.sp.checked_add(RIP + 8)? > bound {
        return None;
    }
    // SAFETY: inside the stack that the signal was delivered on.
    let word = |offset: usize| unsafe { ((frame.sp + offset) as *const usize).read() };
    let next = Frame { address: word(RIP), sp: word(RSP), fp: word(RBP) };
    // The interrupted frame may lie on another stack (sigaltstack), whose end is not known here; on the same one it lies
    // above the handler's.
    (next.sp > frame.sp && next.sp <= bound).then_some(next)
}

/// How far up a stack may be read that is not known any better.
const PAGE: usize = 4096;

/// The end of the memory that the stack with this sp lies in.
fn bound_of(header: &Header, sp: usize) -> usize {
    const MOST: usize = 1 << 30;
    let main = MAIN_STACK_END.load(Ordering::Relaxed);
    if sp < main && main - sp < MOST {
        return main;
    }
    let count = header.bounds.load(Ordering::Acquire) as usize;
    if let Some(bound) = stack::find_bound(table(&BOUNDS, count.min(stack::MAX_BOUNDS)), sp as u64) {
        return bound as usize;
    }
    // Both libcs put a thread's control block at the top of its stack, so what lies between is the stack. A coroutine's
    // stack is somewhere else, and usually farther away than any thread's stack is large.
    const LARGEST_UNSEEN: usize = 8 << 20;
    let thread = arch::thread_pointer();
    if sp < thread && thread - sp < LARGEST_UNSEEN {
        return thread;
    }
    (sp | (PAGE - 1)) + 1
}

/// Rules by return address. The low bits of an address choose the entry as they are: hashing them would come between one
/// load and the next.
const CACHE_BITS: u32 = 15;

/// The rest of the address (high half) and the rule (low half), so that one load has both; 0: empty. 47 bits are all
/// that an address of a program has, so an entry is never taken for that of another address.
static CACHE: [AtomicU64; 1 << CACHE_BITS] = [const { AtomicU64::new(0) }; 1 << CACHE_BITS];
const _: () = assert!(CACHE_BITS + 32 == 47);

/// Whether anything was ever cached: most programs never walk, and then 256 KiB need not be looked at.
static IS_CACHE_USED: AtomicBool = AtomicBool::new(false);

/// The rule at a return address.
#[inline(always)]
fn rule_at(header: &Header, address: usize) -> Rule {
    let entry = CACHE[address % CACHE.len()].load(Ordering::Relaxed);
    // An empty entry is that of the addresses below 2^15, where no program is.
    if entry >> 32 == (address >> CACHE_BITS) as u64 {
        return Rule(entry as u32);
    }
    learn(header, address)
}

/// The rule at a return address, from the published tables, and from then on from the cache.
#[cold]
#[inline(never)]
fn learn(header: &Header, address: usize) -> Rule {
    let rule = rule_slow(header, address.wrapping_sub(1));
    let tag = (address >> CACHE_BITS) as u64;
    if rule.kind() != Kind::Unknown && tag >> 32 == 0 {
        IS_CACHE_USED.store(true, Ordering::Relaxed);
        CACHE[address % CACHE.len()].store(tag << 32 | u64::from(rule.0), Ordering::Relaxed);
    }
    rule
}

/// The rule at an exact pc.
#[cold]
#[inline(never)]
fn rule_slow(header: &Header, pc: usize) -> Rule {
    let count = header.rule_tables.load(Ordering::Acquire);
    let tables = table(&TABLES, (count as usize).min(stack::MAX_TABLES));
    let rule = stack::find_rule(tables, table(&ROWS, stack::MAX_ROWS), pc as u64).unwrap_or(Rule::UNKNOWN);
    // A table that was replaced meanwhile may have shown anything.
    if header.rule_tables.load(Ordering::Acquire) != count {
        return Rule::UNKNOWN;
    }
    rule
}

/// Forgets every cached rule: other code may lie at the same addresses now.
pub(crate) fn forget_rules() {
    if !IS_CACHE_USED.load(Ordering::Relaxed) {
        return;
    }
    // Pages that were never written stay the kernel's one page of zeros.
    for entry in CACHE.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0) {
        entry.store(0, Ordering::Relaxed);
    }
}
