//! libFuzzer's way into `garpike_fuzz::gossip_plaintext`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::gossip_plaintext(data));
