//! `cargo +nightly fuzz run suppressions`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::suppressions(input));
