//! libFuzzer's way into `garpike_fuzz::configmap`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::configmap(data));
