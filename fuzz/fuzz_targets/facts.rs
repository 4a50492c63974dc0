//! libFuzzer's way into `garpike_fuzz::facts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::facts(data));
