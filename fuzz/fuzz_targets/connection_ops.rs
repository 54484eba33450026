#![no_main]

libfuzzer_sys::fuzz_target!(|ops: Vec<kwal_fuzz::Op>| kwal_fuzz::connection_ops(ops));
