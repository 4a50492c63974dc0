//! libFuzzer's way into `garpike_fuzz::secret`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| garpike_fuzz::secret(data));
