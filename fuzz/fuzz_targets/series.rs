//! `cargo +nightly fuzz run series`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::series(input));
