//! See the module of this name.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| akv_pkcs11_fuzz::config::run(input));
