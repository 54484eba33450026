#![no_main]

use kwal_fuzz::AnyMessage;

libfuzzer_sys::fuzz_target!(|input: (AnyMessage, u8)| kwal_fuzz::round_trip(
    &input.0,
    i16::from(input.1 % 20)
));
