//! Any bytes as the contents of blocks whose checksums hold: `cargo +nightly fuzz run content` in `format/`.
#![no_main]

use edleak_format::fuzzing::{file_of, read_everything};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    read_everything(file_of(input));
});
