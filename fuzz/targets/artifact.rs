#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let _ = evm_fuzz_bodies::artifact(data);
});
