//! Any bytes as a trace file: `cargo +nightly fuzz run reader` in `format/`.
#![no_main]

use edleak_format::fuzzing::read_everything;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    read_everything(bytes.to_vec());
});
