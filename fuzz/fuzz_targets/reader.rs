//! `cargo +nightly fuzz run reader`
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| edleak_fuzz::reader(input));
