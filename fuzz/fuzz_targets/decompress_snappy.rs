#![no_main]

use kwal_protocol::compression::Compression;

libfuzzer_sys::fuzz_target!(|data: &[u8]| kwal_fuzz::decompress(Compression::Snappy, data));
