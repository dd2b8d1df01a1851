//! `cargo +nightly fuzz run unwind`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::unwind(input));
