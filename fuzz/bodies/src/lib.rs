//! What the fuzz targets do with their bytes, shared with ordinary tests that feed them from a seed.
//!
//! Each takes any bytes and panics if something is wrong: a panic of the code under test, a region from the lifter
//! that the validator refuses, a valid region that a back end does not take. The result says whether the input got past
//! the first check, so that the tests see that they test something.
#![deny(unsafe_code)]

mod artifact;
mod elf;
mod kept;
mod link;

pub use artifact::artifact;
pub use elf::elf;
pub use kept::kept;
pub use link::link;

use evm_backend::cranelift::{CompileOptions, Compiler, CompilerSettings};
use evm_backend::wasm::{self, Link, Module, WasmAbi};
use evm_backend::{interp, quick};
use evm_cpu::{CpuState, LAYOUT, helpers};
use evm_ir::passes::{OptLevel, optimize};
use evm_ir::random::{Rng, Shape};
use evm_ir::{Region, parse, validate};
use evm_lifter::{Mode, Options, lift as lift_code};
use evm_runtime::ABI;

thread_local! {
    static COMPILER: std::cell::RefCell<Compiler> =
        std::cell::RefCell::new(Compiler::new(ABI, CompilerSettings::default()).expect("a compiler for this host"));
}

/// Compiled with this many instructions at most: Cranelift's time is not what is tested.
const COMPILE_MAX: u32 = 400;

/// Every engine takes a valid region, as it is and after each kind of optimization.
fn engines(region: &Region) {
    let passed = |level| {
        let mut r = region.clone();
        optimize(&mut r, level);
        if let Err(e) = validate(&r) {
            panic!("{level:?} made it invalid: {e}\nbefore:\n{region}\nafter:\n{r}");
        }
        r
    };
    interp::prepare(region, &ABI);
    webassembly(region);
    let block = passed(OptLevel::Interp);
    interp::prepare(&block, &ABI);
    if block.entries.len() == 1 && quick::supported() {
        // It may refuse, but not panic.
        let _ = quick::Quick::default().compile(&block, &ABI, 64, &mut |pc| (pc & 0xffff) as u32);
    }
    for (level, precise) in [(OptLevel::Full, false), (OptLevel::Precise, true)] {
        let r = passed(level);
        if r.insns > COMPILE_MAX {
            continue;
        }
        COMPILER.with_borrow_mut(|c| {
            let options = CompileOptions { precise, ..CompileOptions::default() };
            if let Err(e) = c.compile(&r, options, &mut |pc| (pc & 0xffff) as u32) {
                panic!("{level:?}: {e}\n{r}");
            }
        });
    }
}

const WASM: WasmAbi = evm_backend::wasm_abi_of!(CpuState);

/// WebAssembly of a valid region is a valid module.
fn webassembly(region: &Region) {
    let mut r = region.clone();
    wasm::prepare(&mut r);
    if let Err(e) = validate(&r) {
        panic!("preparing made it invalid: {e}\nbefore:\n{region}\nafter:\n{r}");
    }
    let pc = r.blocks[r.entries[0].0 as usize].pc;
    for (tail_calls, atomics, link) in [(true, false, Link::Table), (false, true, Link::Nowhere)] {
        let settings = wasm::Settings { tail_calls, atomics, ..wasm::Settings::new(WASM) };
        let links = |to: u64| if to == pc { Link::Direct } else { link };
        let body = wasm::compile(&r, &settings, &links).unwrap_or_else(|e| panic!("{e}\n{r}"));
        let mut m = Module::new(settings, &helpers::SIGS);
        m.add(pc, body);
        let bytes = m.finish().unwrap_or_else(|e| panic!("{e}\n{r}"));
        if let Err(e) = wasm::validate(&bytes, &settings) {
            panic!("{e}\n{r}");
        }
    }
}

/// Guest code: two bytes say where it stands and how it is read, the rest is the code.
pub fn lift(data: &[u8]) -> bool {
    let [place, how, code @ ..] = data else { return false };
    let bases = [0x40_1000u64, 0, 0x40_1ff3, 0xffff_fff0, (1 << 36) - 16, 0x7fff_ffff_fff0, u64::MAX - 15, 1 << 63];
    let base = bases[usize::from(*place) % bases.len()];
    let mut fetch = |addr: u64, buf: &mut [u8]| {
        let at = addr.wrapping_sub(base);
        let Some(rest) = usize::try_from(at).ok().and_then(|a| code.get(a..)) else { return 0 };
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    };
    let mode = if how & 1 == 0 { Mode::Block } else { Mode::Region };
    let extra: Vec<u64> =
        if how & 2 == 0 { Vec::new() } else { (1..4).map(|i| base.wrapping_add(i * u64::from(how >> 2))).collect() };
    let Ok(lifted) = lift_code(base, &extra, &mut fetch, &Options { mode, ..Options::default() }) else {
        return false;
    };
    if let Err(e) = validate(&lifted.region) {
        panic!("the lifter's region is invalid: {e}\n{}", lifted.region);
    }
    engines(&lifted.region);
    true
}

/// The text form. What parses prints as what parses to the same text; what is valid, every engine takes.
pub fn text(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    let Ok(region) = parse(text, &LAYOUT, &helpers::SIGS) else { return false };
    let printed = region.to_string();
    match parse(&printed, &LAYOUT, &helpers::SIGS) {
        Ok(again) => assert_eq!(again.to_string(), printed),
        Err(e) => panic!("what was printed does not parse: {e}\n{printed}"),
    }
    if validate(&region).is_ok() {
        engines(&region);
    }
    true
}

/// A random valid region.
pub fn valid_region(seed: u64) -> Region {
    let shape = Shape {
        layout: &LAYOUT,
        helpers: &helpers::SIGS,
        fuel: evm_cpu::gpr(15),
        base: 0x10000,
        mask: 0xfff,
        blocks: 6,
        faults: true,
        floats: true,
    };
    evm_ir::random::region(&shape, seed)
}

/// A random valid region's text with some words replaced by others of it: nearly right programs for the validator.
/// Eight bytes are the seed, the others say what is replaced.
pub fn region(data: &[u8]) -> bool {
    let Some((seed, changes)) = data.split_at_checked(8) else { return false };
    let good = valid_region(u64::from_le_bytes(seed.try_into().unwrap_or_default()));
    if let Err(e) = validate(&good) {
        panic!("a random region is invalid: {e}\n{good}");
    }
    if changes.is_empty() {
        engines(&good);
        return true;
    }
    let printed = good.to_string();
    let mut words: Vec<&str> = printed.split_inclusive([' ', '\n', ',']).collect();
    let n = words.len();
    for c in changes.chunks_exact(4).take(8) {
        let from = usize::from(u16::from_le_bytes([c[0], c[1]])) % n;
        let to = usize::from(u16::from_le_bytes([c[2], c[3]])) % n;
        words[to] = words[from];
    }
    text(words.concat().as_bytes())
}

/// Seeded bytes for the tests.
pub fn bytes(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next() as u8).collect()
}
