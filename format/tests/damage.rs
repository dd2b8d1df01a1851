//! Tests files that are cut at any length or have any bit flipped: the reader must read sound data, count
//! damage, and never panic.

mod common;

use common::{Random, Slices, TempFile, read, write};
use edleak_format::{DEFAULT_CAPACITY_BYTES, End, EndReason, MIN_CAPACITY_BYTES, Record, Trace, TraceWriter};

/// The file of a recorder that finished its trace: several compressed blocks.
fn sealed() -> (Vec<u8>, Slices) {
    let file = TempFile::new("damage-sealed");
    let mut writer = TraceWriter::create(&file.0, MIN_CAPACITY_BYTES).expect("a new file");
    let model = write(&mut writer, 6, 0..1500).expect("there is room");
    writer.record(&Record::End(End { reason: EndReason::Exited(0), at_ns: 1 })).expect("there is room");
    writer.finish().expect("there is room");
    (std::fs::read(&file.0).expect("it is there"), model)
}

/// The file of a killed recorder: all slices are in the journal.
fn open() -> (Vec<u8>, Slices) {
    let file = TempFile::new("damage-open");
    let mut writer = TraceWriter::create(&file.0, DEFAULT_CAPACITY_BYTES).expect("a new file");
    let model = write(&mut writer, 6, 0..40).expect("there is room");
    let bytes = std::fs::read(&file.0).expect("it is there");
    drop(writer);
    (bytes, model)
}

/// Checks that every slice that was read equals the slice that was written.
fn assert_sound_slices(trace: &Trace, model: &Slices) -> usize {
    let found = read(trace);
    for (tick, slice) in &found {
        assert_eq!(Some(slice), model.get(tick), "tick {tick}");
    }
    found.len()
}

#[test]
fn a_file_cut_at_any_byte_reads_up_to_the_cut() {
    for (bytes, model) in [sealed(), open()] {
        let mut most = 0;
        for length in 0..bytes.len() {
            let Ok(trace) = Trace::from_bytes(bytes[..length].to_vec()) else {
                assert!(length < 4096, "cut at {length}");
                continue;
            };
            // Decode the cut file only if it has more slices than the file that was one byte shorter;
            // otherwise both files give the same slices.
            let slices: usize = trace.blocks().iter().map(|block| block.slices as usize).sum();
            assert!(slices >= most, "fewer slices at {length}");
            if slices > most || length % 1009 == 0 {
                assert_eq!(assert_sound_slices(&trace, &model), slices);
            }
            most = slices;
        }
        let trace = Trace::from_bytes(bytes).expect("the whole of it");
        assert_eq!(assert_sound_slices(&trace, &model), model.len());
    }
}

#[test]
fn a_flipped_bit_costs_one_block_and_is_counted() {
    for (bytes, model) in [sealed(), open()] {
        let whole = Trace::from_bytes(bytes.clone()).expect("sound");
        assert!(whole.damage().is_sound(), "{:?}", whole.damage());
        let most_per_block = whole.blocks().iter().map(|block| block.slices as usize).max().unwrap_or(0);
        let used = bytes.iter().rposition(|&byte| byte != 0).expect("not all zero") + 1;
        let mut random = Random(3);
        for _ in 0..3000 {
            let bit = random.below(used as u64 * 8) as usize;
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let trace = Trace::from_bytes(flipped).expect("three copies of the first page are left");
            let found = assert_sound_slices(&trace, &model);
            assert!(found + most_per_block >= model.len(), "bit {bit} cost {} slices", model.len() - found);
            if found < model.len() {
                assert!(!trace.damage().is_sound(), "bit {bit}");
            }
        }
    }
}

#[test]
fn lost_slices_are_counted() {
    let (bytes, model) = sealed();
    let whole = Trace::from_bytes(bytes.clone()).expect("sound");
    let blocks = whole.blocks().len();
    assert!(blocks >= 3, "{blocks} blocks");
    let mut lost_by_payload = 0;
    for at in (4096..bytes.len()).step_by(64) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        let trace = Trace::from_bytes(flipped).expect("sound first page");
        let missing = (model.len() - assert_sound_slices(&trace, &model)) as u64;
        // If the newest block is lost, nothing but its own header shows that the block existed. If an older
        // block is lost, the ticks of its neighbours show the loss.
        if trace.blocks().last().map(|block| block.last_tick) == Some(1499) || trace.damage().lost_slices > 0
        {
            assert_eq!(trace.damage().lost_slices, missing, "byte {at}");
        }
        lost_by_payload += u64::from(missing > 0);
    }
    assert!(lost_by_payload > 20);
}

#[test]
fn rubbish_is_refused_or_empty_but_never_a_panic() {
    let (bytes, model) = sealed();
    let mut random = Random(5);
    for round in 0..300 {
        let mut rubbish = bytes.clone();
        for _ in 0..=round {
            let at = random.below(rubbish.len() as u64) as usize;
            let length = 1 + random.below(200) as usize;
            for byte in rubbish[at..].iter_mut().take(length) {
                *byte = random.next() as u8;
            }
        }
        if let Ok(trace) = Trace::from_bytes(rubbish) {
            assert_sound_slices(&trace, &model);
        }
    }
}
