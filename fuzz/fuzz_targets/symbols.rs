//! `cargo +nightly fuzz run symbols`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::symbols(input));
