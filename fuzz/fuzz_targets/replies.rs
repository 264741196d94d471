//! For cargo-fuzz: `cargo +nightly fuzz run replies --features libfuzzer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| limiter_fuzz::replies::target(data));
