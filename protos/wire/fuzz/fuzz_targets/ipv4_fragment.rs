#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| castgate_wire::fuzzing::ipv4_fragment(bytes));
