//! See `labsw_tests::fuzz::work`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| labsw_tests::fuzz::work(data));
