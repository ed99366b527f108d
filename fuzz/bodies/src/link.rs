//! From guest code to a module.

use evm_backend::wasm::{Module, link as linker, validate};
use evm_cpu::helpers;
use evm_runtime::Progress;
use evm_runtime::ahead::{self, Image, SETTINGS, Segment};

/// The runtime of modules.
const RUNTIME: &[u8] = include_bytes!("../../../wasm/evm-runtime.wasm");

/// Guest code, all of it lifted ahead of time and linked with the runtime: a valid module. The first byte says how it is read. With
/// another first bit the rest alters the runtime module instead: it is refused, or linked.
pub fn link(data: &[u8]) -> bool {
    let [how, code @ ..] = data else { return false };
    let mut module = Module::new(SETTINGS, &helpers::SIGS);
    let at = 0x40_1000;
    let segment = Segment { addr: at, offset: 0, size: code.len() as u64, code: true };
    let guesses = (0..u64::from(how >> 4)).map(|n| at + n * 7).collect();
    let image =
        Image { data: code.to_vec(), segments: vec![segment], functions: vec![at], guesses, ..Image::default() };
    let done = ahead::lower(&image, how & 2 != 0, 1, &mut module, &Progress::default());
    if how & 1 == 0 {
        let bytes = linker::link(RUNTIME, &module, &[]).unwrap_or_else(|e| panic!("{e}"));
        if let Err(e) = validate(&bytes, &SETTINGS) {
            panic!("{e}");
        }
        return done.regions > 0;
    }
    let mut runtime = RUNTIME.to_vec();
    for c in code.chunks_exact(4) {
        // What the linker reads is at the start or at the end.
        let place = usize::from(u16::from_le_bytes([c[0], c[1]]));
        let at = if c[3] & 1 == 0 { place } else { runtime.len() - 1 - place };
        runtime[at] = c[2];
    }
    linker::link(&runtime, &module, &[]).is_ok()
}
