//! Allocates, reallocates and frees at random. Prints as JSON how many allocations and frees it made.
//!
//! Arguments: `THREADS ROUNDS`. If the number of threads is 0, the main thread works. With `THREADS` alone,
//! the program reads commands, as tests/programs/idle_ledger.cpp does.
//!
//! Each kind of allocation has its own function, which calls the global allocator itself. So each site of the
//! trace equals one line of the printed ledger. Each function contains its own number, because the compiler
//! would merge equal functions. The threads share the slots, so most allocations are freed by another thread.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

const SITES: usize = 5;
const NAMES: [&str; SITES] = ["site_alloc", "site_zeroed", "site_aligned", "site_realloc", "site_large"];

static BOOKS: [[AtomicU64; 4]; SITES] = [const { [const { AtomicU64::new(0) }; 4] }; SITES];

struct Slot {
    address: usize,
    layout: Layout,
    site: usize,
    epoch: u32,
}

/// The number of `reset` commands so far. If a block was allocated before the newest `reset`, the ledger does
/// not contain it.
static EPOCH: AtomicU32 = AtomicU32::new(0);
static RUNS: AtomicBool = AtomicBool::new(false);
static RUNNING: AtomicU32 = AtomicU32::new(0);

fn epoch() -> u32 {
    EPOCH.load(Ordering::Relaxed)
}

static SLOTS: [Mutex<Option<Slot>>; 2048] = [const { Mutex::new(None) }; 2048];

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_alloc(layout: &Layout) -> usize {
    let address = unsafe { alloc(*layout) };
    std::hint::black_box(0);
    std::hint::black_box(address) as usize
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_zeroed(layout: &Layout) -> usize {
    let address = unsafe { alloc_zeroed(*layout) };
    std::hint::black_box(1);
    std::hint::black_box(address) as usize
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_aligned(layout: &Layout) -> usize {
    let address = unsafe { alloc(*layout) };
    std::hint::black_box(2);
    std::hint::black_box(address) as usize
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_large(layout: &Layout) -> usize {
    let address = unsafe { alloc(*layout) };
    std::hint::black_box(3);
    std::hint::black_box(address) as usize
}

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_realloc(old: usize, layout: &Layout, size: usize) -> usize {
    let address = unsafe { realloc(old as *mut u8, *layout, size) };
    std::hint::black_box(4);
    std::hint::black_box(address) as usize
}

fn add(site: usize, size: usize) {
    BOOKS[site][0].fetch_add(1, Ordering::Relaxed);
    BOOKS[site][1].fetch_add(size as u64, Ordering::Relaxed);
}

fn sub(slot: &Slot) {
    if slot.epoch == epoch() {
        BOOKS[slot.site][2].fetch_add(1, Ordering::Relaxed);
        BOOKS[slot.site][3].fetch_add(slot.layout.size() as u64, Ordering::Relaxed);
    }
}

fn fill(slot: &Slot, value: u8) {
    unsafe { std::ptr::write_bytes(slot.address as *mut u8, value, slot.layout.size()) };
}

fn check(slot: &Slot, size: usize, value: u8) {
    let bytes = unsafe { std::slice::from_raw_parts(slot.address as *const u8, size) };
    assert!(bytes.iter().all(|&byte| byte == value), "somebody wrote into an allocation");
    assert!(slot.address.is_multiple_of(slot.layout.align()), "not aligned");
}

fn work(state: &mut u64, rounds: u64) {
    for _ in 0..rounds {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        let state = *state;
        let index = state as usize % SLOTS.len();
        let how = (state >> 20) % 8;
        let size = 1 + ((state >> 32) % 300) as usize;
        let value = index as u8;
        let mut place = SLOTS[index].lock().unwrap();
        match place.take() {
            None => {
                let (site, layout) = match how {
                    0 => (4, Layout::from_size_align(size * 1000, 16)),
                    1 | 2 => (2, Layout::from_size_align(size, 1 << (5 + state % 6))),
                    3 | 4 => (1, Layout::from_size_align(size, 8)),
                    _ => (0, Layout::from_size_align(size, 1 << (state % 4))),
                };
                let layout = layout.unwrap();
                let allocate = [site_alloc, site_zeroed, site_aligned, site_alloc, site_large][site];
                let slot = Slot { address: allocate(&layout), layout, site, epoch: epoch() };
                assert_ne!(slot.address, 0);
                if site == 1 {
                    check(&slot, layout.size(), 0);
                }
                add(site, layout.size());
                fill(&slot, value);
                *place = Some(slot);
            }
            Some(slot) if how < 3 => {
                check(&slot, slot.layout.size(), value);
                sub(&slot);
                let address = site_realloc(slot.address, &slot.layout, size);
                let kept = size.min(slot.layout.size());
                let layout = Layout::from_size_align(size, slot.layout.align()).unwrap();
                let slot = Slot { address, layout, site: 3, epoch: epoch() };
                check(&slot, kept, value);
                add(3, size);
                fill(&slot, value);
                *place = Some(slot);
            }
            Some(slot) => {
                check(&slot, slot.layout.size(), value);
                sub(&slot);
                unsafe { dealloc(slot.address as *mut u8, slot.layout) };
            }
        }
    }
}

pub fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let (threads, rounds) = (arguments.next().unwrap_or(1), arguments.next());
    let Some(rounds) = rounds else { return commands(threads) };
    if threads == 0 {
        work(&mut SEED.clone(), rounds); // on the main thread
    }
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || work(&mut (SEED + thread * 7919), rounds));
        }
    });
    print();
}

const SEED: u64 = 88_172_645_463_325_252;

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn site_tick(layout: &Layout) -> usize {
    let address = unsafe { alloc(*layout) };
    std::hint::black_box(5);
    std::hint::black_box(address) as usize
}

/// Works without pause in `threads` threads, and obeys the commands on standard input.
fn commands(threads: u64) {
    for thread in 0..threads {
        std::thread::spawn(move || {
            let mut state = SEED + thread * 7919;
            loop {
                while !RUNS.load(Ordering::Acquire) {
                    std::thread::sleep(Duration::from_micros(200));
                }
                RUNNING.fetch_add(1, Ordering::AcqRel);
                while RUNS.load(Ordering::Acquire) {
                    work(&mut state, 64);
                }
                RUNNING.fetch_sub(1, Ordering::AcqRel);
            }
        });
    }
    let pause = || {
        RUNS.store(false, Ordering::Release);
        // A thread that has read the old value of `RUNS` adds 1 to `RUNNING` within these 2 ms.
        std::thread::sleep(Duration::from_millis(2));
        while RUNNING.load(Ordering::Acquire) != 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    for line in std::io::stdin().lines() {
        match line.expect("a command").as_str() {
            "go" => RUNS.store(true, Ordering::Release),
            "pause" => pause(),
            "drain" => {
                pause();
                for slot in SLOTS.iter().filter_map(|place| place.lock().unwrap().take()) {
                    sub(&slot);
                    unsafe { dealloc(slot.address as *mut u8, slot.layout) };
                }
            }
            "reset" => {
                EPOCH.fetch_add(1, Ordering::Relaxed);
                BOOKS.iter().flatten().for_each(|count| count.store(0, Ordering::Relaxed));
            }
            "tick" => {
                let layout = Layout::new::<[u64; 3]>();
                unsafe { dealloc(site_tick(&layout) as *mut u8, layout) };
            }
            "print" => print(),
            // set_var calls the C library, which allocates memory for the variable ALLOCATED_BY with its own
            // malloc.
            "libc" => unsafe { std::env::set_var("ALLOCATED_BY", "libc") },
            _ => std::process::exit(2),
        }
        println!("done");
    }
}

fn print() {
    for (name, book) in NAMES.iter().zip(&BOOKS) {
        let [allocs, allocated, frees, freed] = book.each_ref().map(|count| count.load(Ordering::Relaxed));
        println!(
            "{{\"function\":\"{name}\",\"allocs\":{allocs},\"allocated_bytes\":{allocated},\
             \"frees\":{frees},\"freed_bytes\":{freed}}}"
        );
    }
}
