//! libFuzzer's way into `garpike_fuzz::address_range`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::address_range(data));
