//! `cargo +nightly fuzz run edleak_json`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::edleak_json(input));
