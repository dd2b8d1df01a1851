//! Walks stacks of edleak-bench itself with the library framehop, as a profiler does that runs inside the
//! program that it measures.
#![allow(unsafe_code)] // reads registers and the stack

use anyhow::{Context, Result};
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, Module, Unwinder};
use object::{Object, ObjectSection};
use std::arch::asm;
use std::cell::RefCell;
use std::hint::black_box;
use std::time::Instant;

/// An unwinder with the unwind tables of this program.
pub(crate) struct Framehop {
    unwinder: UnwinderX86_64<Vec<u8>>,
    cache: RefCell<CacheX86_64>,
}

impl Framehop {
    /// Reads the unwind tables of the running program.
    pub(crate) fn of_this_program() -> Result<Framehop> {
        let path = std::env::current_exe()?;
        let bytes = std::fs::read(&path)?;
        let file = object::File::parse(&*bytes)?;
        let maps = std::fs::read_to_string("/proc/self/maps")?;
        let ours: Vec<_> = maps.lines().filter(|line| line.ends_with(&*path.to_string_lossy())).collect();
        let address = |range: Option<&str>| u64::from_str_radix(range?, 16).ok();
        let ends = |line: &&str| {
            let mut ends = line.split(['-', ' ']);
            (address(ends.next()), address(ends.next()))
        };
        let start = ours.first().and_then(|line| ends(line).0).context("no mapping of this program")?;
        let end = ours.last().and_then(|line| ends(line).1).context("no mapping of this program")?;
        let range = |name| file.section_by_name(name).map(|one| one.address()..one.address() + one.size());
        let data = |name| file.section_by_name(name).and_then(|one| Some(one.data().ok()?.to_vec()));
        let sections = ExplicitModuleSectionInfo {
            text_svma: range(".text"),
            text: data(".text"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        };
        let mut unwinder = UnwinderX86_64::new();
        unwinder.add_module(Module::new("this program".into(), start..end, start, sections));
        Ok(Framehop { unwinder, cache: RefCell::new(CacheX86_64::new()) })
    }

    /// Nanoseconds for one walk that begins below `depth` frames.
    pub(crate) fn ns_per_walk(&self, depth: usize, count: u64) -> f64 {
        descend(depth, &|| {
            let frames = self.walk();
            assert!(frames >= depth, "framehop found {frames} of {depth} frames");
            let start = Instant::now();
            for _ in 0..count {
                black_box(self.walk());
            }
            start.elapsed().as_nanos() as f64 / count as f64
        })
    }

    /// Walks the stack of the caller and returns the number of frames.
    fn walk(&self) -> usize {
        let (ip, sp, bp): (u64, u64, u64);
        // SAFETY: the code reads three registers.
        unsafe {
            asm!("lea {}, [rip]", "mov {}, rsp", "mov {}, rbp", out(reg) ip, out(reg) sp, out(reg) bp,
                 options(nomem, nostack, preserves_flags));
        }
        let mut cache = self.cache.borrow_mut();
        // SAFETY: framehop follows the unwind rules of this program, so it reads only addresses in the used
        // part of this thread's stack.
        let mut read = |address: u64| Ok(unsafe { (address as *const u64).read() });
        let regs = UnwindRegsX86_64::new(ip, sp, bp);
        let mut frames = self.unwinder.iter_frames(ip, regs, &mut cache, &mut read);
        let mut count = 0;
        while let Ok(Some(frame)) = frames.next() {
            black_box(frame);
            count += 1;
        }
        count
    }
}

/// One of the sixteen functions that call each other: passes the depth and the closure to the next
/// function, or calls the closure if the depth is 0.
type Descent = fn(usize, &dyn Fn() -> f64) -> f64;

/// Makes `depth` nested calls, in which sixteen functions call each other in turn. The innermost function
/// calls `then`.
fn descend(depth: usize, then: &dyn Fn() -> f64) -> f64 {
    const FUNCTIONS: [Descent; 16] = [
        one::<0>, one::<1>, one::<2>, one::<3>, one::<4>, one::<5>, one::<6>, one::<7>, one::<8>, one::<9>,
        one::<10>, one::<11>, one::<12>, one::<13>, one::<14>, one::<15>,
    ];
    #[inline(never)]
    fn one<const N: usize>(depth: usize, then: &dyn Fn() -> f64) -> f64 {
        let room = black_box([N as u64; N]);
        let result = if depth == 0 { then() } else { FUNCTIONS[depth % FUNCTIONS.len()](depth - 1, then) };
        black_box(room);
        result
    }
    one::<0>(depth, then)
}
