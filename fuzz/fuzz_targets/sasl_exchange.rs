#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kwal_fuzz::sasl_exchange(data));
