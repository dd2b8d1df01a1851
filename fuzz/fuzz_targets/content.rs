//! `cargo +nightly fuzz run content`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::content(input));
