//! Runs the fuzz targets on stable Rust. Each fuzz target (a function that reads input) gets every input of
//! its corpus, and mutants (damaged copies) of the inputs. The mutants are the same in every run.
//!
//! No input may make a target panic, work for seconds, or request more memory than the size of the input
//! justifies.
#![allow(unsafe_code)] // implements an allocator

#[allow(unreachable_pub, reason = "a crate of its own in fuzz/")]
#[path = "../../fuzz/src/lib.rs"]
mod targets;

use edleak_tests::tools::repository;
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::time::{Duration, Instant};

/// The largest single request of memory that an input may cause, in bytes. The inputs have at most a few
/// kilobytes.
const MOST_BYTES: usize = 256 << 20;
/// The longest time that a fuzz target may need for one input. Even on a busy machine, a target needs far
/// less than these 10 s.
const MOST_TIME: Duration = Duration::from_secs(10);
/// The number of mutants of each target. The number is fixed, so the speed of the machine does not change
/// which mutants are tested.
const MUTANTS: usize = 10_000;

/// An allocator that refuses requests of more than `MOST_BYTES`. If the allocator refuses a request, the test
/// fails with a message that contains the requested size.
struct Limited;

// SAFETY: each call is either passed on unchanged to the system's allocator, or refused with a null pointer,
// which `GlobalAlloc` permits.
unsafe impl GlobalAlloc for Limited {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > MOST_BYTES {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static LIMITED: Limited = Limited;

/// The random number generator xorshift64, which gives the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.max(1) as u64) as usize
    }

    /// A random range of bytes, mostly short, in an input of `length` bytes.
    fn span(&mut self, length: usize) -> std::ops::Range<usize> {
        let start = self.below(length + 1);
        let most = [1, 2, 4, 8, 64, length][self.below(6)];
        start..(start + self.below(most + 1)).min(length)
    }

    /// Returns a copy of `input` that is damaged in one to four ways. For example, bytes are removed, or
    /// bytes of `other` replace bytes of the copy.
    fn mutant(&mut self, input: &[u8], other: &[u8]) -> Vec<u8> {
        const EDGES: [u64; 12] = [
            0,
            1,
            0x7f,
            0x80,
            0xff,
            0x7fff,
            0xffff,
            0x7fff_ffff,
            0xffff_ffff,
            1 << 40,
            i64::MAX as u64,
            u64::MAX,
        ];
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(4) {
            let span = self.span(bytes.len());
            match self.below(6) {
                0 => bytes.truncate(span.start),
                1 => drop(bytes.drain(span)),
                2 => {
                    let copy = bytes[span].to_vec();
                    let at = self.below(bytes.len() + 1);
                    drop(bytes.splice(at..at, copy));
                }
                3 => {
                    let copy = other[self.span(other.len())].to_vec();
                    drop(bytes.splice(span, copy));
                }
                4 => {
                    let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                    let width = [1, 2, 4, 8][self.below(4)];
                    bytes[span].iter_mut().zip(&edge[..width]).for_each(|(byte, edge)| *byte = *edge);
                }
                _ => bytes[span].iter_mut().take(1).for_each(|byte| *byte ^= 1 << self.below(8)),
            }
        }
        bytes
    }
}

/// If a target panics or is too slow on an input, writes this input to a file, so that it can be added to the
/// corpus.
struct Trial<'a> {
    target: &'a str,
    input: &'a [u8],
    began: Instant,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        let is_slow = self.began.elapsed() > MOST_TIME;
        if std::thread::panicking() || is_slow {
            let file = std::env::temp_dir().join(format!("edleak-fuzz-{}", self.target));
            let _ = std::fs::write(&file, self.input);
            eprintln!("the input is in {}, slow: {is_slow}", file.display());
            std::process::abort();
        }
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = repository().join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = std::fs::read_dir(directory)
        .expect("every target has a corpus")
        .map(|entry| entry.expect("a directory that was opened can be read").path())
        .collect();
    paths.sort();
    // A fuzzer names each input that it finds by a hash of 40 digits. The inputs of the repository have
    // shorter names, so the test leaves out all files with names of 40 or more characters.
    let is_ours = |path: &Path| path.file_name().is_some_and(|name| name.len() < 40);
    paths.retain(|path| is_ours(path));
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn run(name: &str) {
    let (_, target) = targets::TARGETS.iter().find(|(target, _)| *target == name).expect("it is listed");
    let inputs = corpus(name);
    assert!(inputs.len() >= 2, "the corpus of {name}");
    let attempt = |input: &[u8]| {
        let _trial = Trial { target: name, input, began: Instant::now() };
        target(input);
    };
    inputs.iter().for_each(|input| attempt(input));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..MUTANTS {
        let other = dice.below(inputs.len());
        attempt(&dice.mutant(&inputs[round % inputs.len()], &inputs[other]));
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() { run(stringify!($name)); })*

        #[test]
        fn every_target_is_run() {
            let all: Vec<_> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(all, [$(stringify!($name)),*]);
        }
    };
}

targets! { reader content series edleak_json suppressions symbols unwind }
