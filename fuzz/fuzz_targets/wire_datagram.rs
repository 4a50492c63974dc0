//! libFuzzer's way into `garpike_fuzz::wire_datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::wire_datagram(data));
