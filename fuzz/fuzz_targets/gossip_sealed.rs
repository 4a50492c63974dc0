//! libFuzzer's way into `garpike_fuzz::gossip_sealed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::gossip_sealed(data));
