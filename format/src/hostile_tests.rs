//! Tests with hostile files. The reader must not panic. The memory of the reader must stay below a limit that
//! depends on the size of the file.

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;

use crate::fuzzing::{file_of, read_everything};
use crate::layout::block::{BlockHeader, BlockKind, MAX_RAW_BYTES, extent_bytes, payload_sum};
use crate::layout::delta::MAX_SITES;
use crate::layout::header::{FORMAT_VERSION, Header};
use crate::layout::varint::put;

/// An allocator that counts the allocations of this thread only, so that parallel tests do not disturb the
/// count.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn note(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
    PEAK.set(PEAK.get().max(LIVE.get()));
}

// SAFETY: all arguments and results are passed unchanged to and from the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        note(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// The greatest number of bytes that were allocated at one time while `work` ran.
pub(crate) fn peak_bytes_of(work: impl FnOnce()) -> isize {
    let before = LIVE.get();
    PEAK.set(before);
    work();
    PEAK.get() - before
}

fn peak_bytes(file: Vec<u8>) -> isize {
    peak_bytes_of(|| {
        read_everything(file);
    })
}

/// A file of one block whose decompressed payload is `raw`.
fn one_block(kind: BlockKind, slices: u32, raw: &[u8]) -> Vec<u8> {
    let salt = 7;
    let mut file = Header { version: FORMAT_VERSION, capacity_bytes: 1 << 20, salt }.to_page();
    let payload = zstd::bulk::compress(raw, 19).expect("memory to memory");
    let header = BlockHeader {
        slices,
        raw_bytes: raw.len() as u32,
        payload_sum: payload_sum(salt, 1, &payload),
        last_tick: u64::MAX - 1,
        ..BlockHeader::new(kind, 1, payload.len() as u64)
    };
    file.extend(header.to_bytes(salt));
    file.extend(&payload);
    file.resize(4096 + extent_bytes(payload.len() as u64) as usize, 0);
    file
}

#[test]
fn a_small_file_does_not_ask_for_much_memory() {
    const LIMIT: isize = 160 << 20;
    let mut slices = Vec::new();
    // A block with one change, for the site with the highest valid id.
    let mut headers = vec![0, 0, 0, 0, 1, 3, 0, 0];
    put(&mut slices, headers.len() as u64);
    slices.append(&mut headers);
    slices.extend(&(MAX_SITES as u32 - 1).to_le_bytes()[..3]);
    // A block with one slice that has a change for every valid site id. All changes are zero bytes, so zstd
    // compresses the block to a few bytes.
    let mut every = Vec::new();
    let mut headers = vec![0, 0, 0, 0];
    put(&mut headers, MAX_SITES as u64);
    headers.extend([1, 0, 0]);
    put(&mut every, headers.len() as u64);
    every.append(&mut headers);
    every.resize(every.len() + MAX_SITES, 0);
    // A stack with the largest number of frames that its length field can claim, and a vector of a million
    // empty strings.
    let frames = [&[3, 0, 253][..], &u64::MAX.to_le_bytes()].concat();
    let strings = [&[0, 252][..], &1_000_000u32.to_le_bytes(), &[0; 1_000_000]].concat();
    let files = [
        one_block(BlockKind::Slices, 1, &slices),
        one_block(BlockKind::Slices, 1, &every),
        one_block(BlockKind::Slices, u32::MAX, &vec![0; MAX_RAW_BYTES]),
        one_block(BlockKind::Catalog, 0, &frames),
        one_block(BlockKind::Catalog, 0, &strings),
        one_block(BlockKind::Catalog, 0, &vec![0; MAX_RAW_BYTES]),
    ];
    for (index, file) in files.into_iter().enumerate() {
        let length = file.len();
        assert!(length < 16 << 10, "file {index} has {length} bytes");
        let peak = peak_bytes(file);
        assert!(peak < LIMIT, "file {index} of {length} bytes took {peak} bytes");
    }
}

#[test]
fn a_block_that_claims_any_length_ends_with_the_file() {
    let mut file = one_block(BlockKind::Slices, 1, &[0]);
    for payload_bytes in [0, 1, 63, 64, 1 << 32, (1 << 62) - 1] {
        for kind in [BlockKind::Free, BlockKind::Catalog, BlockKind::Slices, BlockKind::Journal] {
            let header = BlockHeader { raw_bytes: 1, ..BlockHeader::new(kind, 9, payload_bytes) };
            file[4096..4160].copy_from_slice(&header.to_bytes(7));
            assert!(peak_bytes(file.clone()) < 1 << 20);
        }
    }
}

proptest! {
    #[test]
    fn no_content_behind_good_checksums_makes_a_reader_panic(
        blocks in prop::collection::vec(
            (any::<[u8; 3]>(), prop::collection::vec(0u8..6, 0..60), any::<u8>()),
            0..6,
        )
    ) {
        let mut input = Vec::new();
        for ([kind, level, ticks], mut content, last) in blocks {
            content.push(last);
            input.extend([kind, level, ticks]);
            input.extend((content.len() as u16).to_le_bytes());
            input.extend(content);
        }
        read_everything(file_of(&input));
    }

    #[test]
    fn no_bytes_behind_a_sound_first_page_make_a_reader_panic(bytes: Vec<u8>) {
        let mut file = file_of(&[]);
        file.extend(bytes);
        read_everything(file);
    }
}
