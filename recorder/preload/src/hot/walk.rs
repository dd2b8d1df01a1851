//! HOT for watched sites, whose allocations edleak counts separately for each full stack: walks the stack
//! with the unwind rules that the collector has compiled.
//!
//! For each frame, the walk reads one entry of a cache (return address → rule) and one or two words of the
//! stack. If the cache does not contain a rule, the walk searches for the rule in the published tables. If
//! the published tables have no rule for the address either, the walk ends before the outermost frame, and
//! the library marks the stack as cut. The walk takes no loader lock, reads no DWARF and causes no fault:
//! every load lies below the known end of the stack's memory.
#![allow(unsafe_code)]

use crate::arch;
use crate::cold::module_table;
use crate::hot::frame::Frame;
use core::mem::MaybeUninit;
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use edleak_session::header::Header;
use edleak_session::layout::PAGE_BYTES;
use edleak_session::rule::{Kind, Rule};
use edleak_session::stack::{self, Bound, Cell, MAX_FRAMES, RuleRow, RuleTable, StackInfo, Stacks, mix};

/// The addresses of the tables in a session.
pub(crate) struct Tables {
    /// Hash table of stacks.
    pub slots: *mut AtomicU64,
    /// The watched stacks.
    pub infos: *mut StackInfo,
    /// The frames of the stacks.
    pub frames: *mut AtomicU64,
    /// The cells of the stacks.
    pub cells: *mut Cell,
    /// The unwind tables of modules.
    pub tables: *mut RuleTable,
    /// The rows of the unwind tables.
    pub rows: *mut RuleRow,
    /// The mapped ranges.
    pub bounds: *mut Bound,
}

impl Tables {
    /// The tables of the attached session.
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

    /// The site of the stack to which a cell belongs.
    ///
    /// # Safety
    /// The session that contains these tables is mapped.
    pub(crate) unsafe fn site_of(&self, number: u32) -> Option<u32> {
        // SAFETY: the caller guarantees that the session is mapped; the layout of the session fixes the
        // number of cells.
        let cells = unsafe { core::slice::from_raw_parts(self.cells, stack::MAX_CELLS) };
        let stack = cells.get(number as usize)?.stack.load(Ordering::Acquire).checked_sub(1)?;
        // SAFETY: the caller guarantees that the session is mapped; the layout of the session fixes the
        // number of stacks.
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
/// End address of the main thread's stack; 0: unknown.
static MAIN_STACK_END: AtomicUsize = AtomicUsize::new(0);

/// Stores the addresses of the tables of a session. The library calls `set_tables` before it counts any
/// allocation.
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

/// The table of `count` values whose address is stored in `at`; the table lies in the attached session.
fn table<T>(at: &AtomicPtr<T>, count: usize) -> &'static [T] {
    // SAFETY: before any allocation was counted, `set_tables` stored the address of this table. In the layout
    // of a session, the table has `count` values. The session is mapped for the life of the process.
    unsafe { core::slice::from_raw_parts(at.load(Ordering::Relaxed), count) }
}

/// The cell (the counters of one stack in one epoch) with this number.
pub(crate) fn cell(number: u32) -> Option<&'static Cell> {
    table(&CELLS, stack::MAX_CELLS).get(number as usize)
}

/// Walks the stack of an allocation at a watched site and finds the cell of this stack. `None`: the table has
/// no room for another stack, so the caller counts the allocation at the site.
///
/// # Safety
/// `frame` is the frame of the site on this thread's stack, and the function of this frame is still running.
#[inline(never)]
pub(crate) unsafe fn record(header: &Header, site: u32, frame: Frame) -> Option<u32> {
    let mut frames = [const { MaybeUninit::uninit() }; MAX_FRAMES];
    // SAFETY: the caller guarantees that `frame` lies on this thread's stack and is still in use.
    let mut walked = unsafe { walk(header, site, frame, &mut frames) };
    let mark = module_table::mark_of_stack(walked.frames);
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
    /// The return addresses of the walked frames, innermost first.
    frames: &'f [u64],
    hash: u64,
    is_cut: bool,
}

/// A buffer for the return addresses of one stack. The walk does not set the buffer to 0, because this would
/// take as long as walking three frames.
type Frames = [MaybeUninit<u64>; MAX_FRAMES];

/// Walks the stack from the frame `start` to the outermost frame. Between one frame and the next, the
/// processor waits only for one load from the stack, one load from the cache, and two additions. Rare cases
/// are separate functions, so that the values of the common case stay in registers.
#[inline(always)]
unsafe fn walk<'f>(header: &Header, site: u32, start: Frame, frames: &'f mut Frames) -> Walked<'f> {
    let bound = bound_of(header, start.sp);
    // The current frame is split into three variables, which stay in registers. The compiler would keep a
    // single `Frame` in memory, and each step of the walk would have to wait until the step before has
    // stored it.
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
            // SAFETY: the caller guarantees that `start` is a frame of this thread's stack, and `caller`
            // checks the bounds.
            Kind::Sp | Kind::Fp => unsafe { caller(frame, rule, bound) },
            Kind::End => {
                is_cut = false;
                break;
            }
            Kind::Unknown => break,
            Kind::Signal => {
                let Some(place) = frames.get_mut(count) else { break };
                // SAFETY: the function `interrupted` reads only the stack between `frame` and `bound`.
                let Some(interrupted) = (unsafe { arch::interrupted(frame, bound) }) else { break };
                place.write(interrupted.address as u64);
                hash = mix(hash, interrupted.address as u64);
                count += 1;
                // The interrupted address is not a return address, so the code looks up the rule at this
                // address. For a return address, it would look up the rule of the byte before.
                let rule = rule_slow(header, interrupted.address);
                // SAFETY: the function `caller` reads only the stack between the frame and `bound`; for a
                // rule that is not of kind `Sp` or `Fp`, it returns `None` and reads nothing.
                unsafe { caller(interrupted, rule, bound) }
            }
        };
        let Some(next) = next else { break };
        if next.address == 0 {
            is_cut = false; // in the psABI, the return address 0 marks the outermost frame
            break;
        }
        Frame { address, sp, fp } = next;
    }
    // SAFETY: the walk has written the first `count` elements, and a `MaybeUninit<u64>` is laid out as a
    // `u64`.
    let frames = unsafe { core::slice::from_raw_parts(frames.as_ptr().cast(), count) };
    Walked { frames, hash, is_cut }
}

/// The frame of the caller. `None`: the part of the stack that `rule` describes does not lie completely
/// between `frame` and `bound`.
#[inline(always)]
unsafe fn caller(frame: Frame, rule: Rule, bound: usize) -> Option<Frame> {
    let base = match rule.kind() {
        Kind::Sp => frame.sp,
        Kind::Fp => frame.fp,
        _ => return None,
    };
    let cfa = base.wrapping_add(rule.cfa_offset());
    // If the CFA did not move up the stack, the walk could run in a circle.
    if cfa <= frame.sp || cfa > bound || cfa % 8 != 0 {
        return None;
    }
    if rule.fp_offset() > cfa - frame.sp {
        return None;
    }
    // SAFETY: the return address and the saved fp that the rule describes lie in `frame.sp..cfa`, inside the
    // stack.
    Some(unsafe { frame.caller(rule) })
}

/// The end address of the memory that contains the stack to which `sp` points.
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
    // glibc and musl put the control block of a thread at the top of the thread's stack, so the memory
    // between sp and the control block is the stack. The stack of a coroutine lies elsewhere, and its
    // distance from the control block is usually larger than the size of any thread's stack.
    const LARGEST_UNSEEN: usize = 8 << 20;
    let thread = arch::thread_pointer();
    if sp < thread && thread - sp < LARGEST_UNSEEN {
        return thread;
    }
    // Nothing is known about this stack, so the walk reads only up to the end of the page that contains sp.
    (sp | (PAGE_BYTES - 1)) + 1
}

/// Number of bits of an index into the cache of rules. The index of a return address is the lower 15 bits
/// of the address. The library computes no hash as the index, because the walk would have to wait for the
/// hash before it could load the rule.
const CACHE_BITS: u32 = 15;

/// The cache of unwind rules. One entry holds the upper bits of a return address (high half) and the rule
/// at this address (low half), so that one load reads both parts; 0: the entry is empty. The index and the
/// high half together contain all bits of an address, so the walk never uses an entry of another address.
static CACHE: [AtomicU64; 1 << CACHE_BITS] = [const { AtomicU64::new(0) }; 1 << CACHE_BITS];
const _: () = assert!(CACHE_BITS + 32 >= arch::ADDRESS_BITS);

/// Whether any thread has ever stored a rule in the cache. Most programs never walk a stack. In a program
/// that never walks a stack, `forget_rules` need not scan the 256 KiB of the cache.
static IS_CACHE_USED: AtomicBool = AtomicBool::new(false);

/// The rule at a return address.
#[inline(always)]
fn rule_at(header: &Header, address: usize) -> Rule {
    let entry = CACHE[address % CACHE.len()].load(Ordering::Relaxed);
    // An empty entry is 0, so this comparison takes it for the entry of an address below 2^15. No program
    // has code below 2^15.
    if entry >> 32 == (address >> CACHE_BITS) as u64 {
        return Rule(entry as u32);
    }
    learn(header, address)
}

/// The rule at a return address, from the published tables. The function also stores the rule in the cache.
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

/// The rule of the instruction at the address `pc`. For a return address, the caller passes the address of
/// the byte before it.
#[cold]
#[inline(never)]
fn rule_slow(header: &Header, pc: usize) -> Rule {
    let count = header.rule_tables.load(Ordering::Acquire);
    let tables = table(&TABLES, (count as usize).min(stack::MAX_TABLES));
    let rule = stack::find_rule(tables, table(&ROWS, stack::MAX_ROWS), pc as u64).unwrap_or(Rule::UNKNOWN);
    // If the collector has replaced a table during the search, the search may have returned a wrong rule.
    if header.rule_tables.load(Ordering::Acquire) != count {
        return Rule::UNKNOWN;
    }
    rule
}

/// Removes every rule from the cache, because the program may now have other code at the same addresses.
pub(crate) fn forget_rules() {
    if !IS_CACHE_USED.load(Ordering::Relaxed) {
        return;
    }
    // The loop writes only to entries that are not 0. As long as nothing was written to a page of the
    // cache, this page takes no memory, because the kernel maps its shared page of zeros there.
    for entry in CACHE.iter().filter(|entry| entry.load(Ordering::Relaxed) != 0) {
        entry.store(0, Ordering::Relaxed);
    }
}
