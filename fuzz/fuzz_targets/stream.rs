//! libFuzzer's way into `garpike_fuzz::stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::stream(data));
