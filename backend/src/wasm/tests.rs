//! Compiled WebAssembly run by wasmtime against the interpreter: every opcode, random regions, calls and jumps.
//!
//! # Safety
//! States are copied to and from the engine's memory as bytes; the interpreter runs on states and memory of its own.
#![allow(unsafe_code)]

mod flow;
mod fuzz;
mod link;
mod ops;

use super::abi::{ENV, HELPERS as HELPER_MODULE, Import, MODULE, STEP, WasmAbi};
use super::{Link, Module, Settings, compile, prepare, validate};
use crate::cranelift::tests::{HELPERS, State};
use evm_ir::{Op, Region, SlotSet};
use evm_memory::perm::{self, PermTable};
use std::mem::offset_of;
use std::sync::atomic::AtomicU8;
use wasmtime::{Caller, Func, Linker, Memory, Ref, Store, Table, V128};

/// Guest address of the data, and the size of guest memory.
const DATA: u64 = 0x10000;
const LIMIT: u64 = 1 << 20;
/// Addresses in the engine's memory.
const STATE: usize = 0x1000;
const PERMS: usize = 0x4000;
const IBTC: usize = 0x10000;
const GUEST: usize = 0x10_0000;

const FIXED: super::Fixed = super::Fixed { base: GUEST as u32, limit: LIMIT, perms: PERMS as u32 };

const WORDS: u32 = offset_of!(State, scratch) as u32;
const ABI: WasmAbi = WasmAbi {
    mem_base: WORDS,
    mem_limit: WORDS + 8,
    perms: WORDS + 16,
    poll: offset_of!(State, poll) as u32,
    depth: WORDS + 24,
    ibtc: WORDS + 32,
    pending: offset_of!(State, pending) as u32,
    fp_exact: WORDS + 40,
    mxcsr: WORDS + 48,
    rip: offset_of!(State, rip) as u32,
};

/// Calls of the runtime's functions.
#[derive(Default)]
struct Log(Vec<(&'static str, [u64; 3])>);

struct Machine {
    settings: Settings,
    engine: wasmtime::Engine,
    store: Store<Log>,
    memory: Memory,
    table: Table,
    linker: Linker<Log>,
    perms: Vec<AtomicU8>,
    /// The word `fp_exact`.
    exact: u64,
    /// The word `mxcsr`.
    mxcsr: u64,
}

impl Machine {
    fn new(settings: Settings) -> Machine {
        let mut config = wasmtime::Config::new();
        config.wasm_tail_call(true).wasm_simd(true).wasm_threads(true);
        let engine = wasmtime::Engine::new(&config).unwrap();
        let mut store = Store::new(&engine, Log::default());
        let memory = Memory::new(&mut store, wasmtime::MemoryType::new(33, None)).unwrap();
        let nowhere = Func::wrap(&mut store, |_: u32, pc: u64| pc);
        let ty = wasmtime::TableType::new(wasmtime::RefType::FUNCREF, 64, None);
        let table = Table::new(&mut store, ty, Ref::Func(Some(nowhere))).unwrap();
        let mut linker = Linker::new(&engine);
        linker.define(&store, ENV, "memory", memory).unwrap();
        linker.define(&store, ENV, "table", table).unwrap();
        linker
            .func_wrap(MODULE, Import::Call.name(), |mut c: Caller<'_, Log>, _: u32, target: u64, ret: u64| {
                c.data_mut().0.push(("call", [target, ret, 0]));
                ret
            })
            .unwrap();
        linker
            .func_wrap(MODULE, Import::Resume.name(), |mut c: Caller<'_, Log>, _: u32, next: u64, ret: u64| {
                c.data_mut().0.push(("resume", [next, ret, 0]));
                next
            })
            .unwrap();
        linker
            .func_wrap(
                MODULE,
                Import::Service.name(),
                |mut c: Caller<'_, Log>, _: u32, code: u64, pc: u64, next: u64| {
                    c.data_mut().0.push(("service", [code, pc, next]));
                    0x9999u64
                },
            )
            .unwrap();
        linker
            .func_wrap(MODULE, Import::Raise.name(), |mut c: Caller<'_, Log>, _: u32, code: u64, arg: u64, pc: u64| {
                c.data_mut().0.push(("raise", [code, arg, pc]));
                0x4444u64
            })
            .unwrap();
        linker
            .func_wrap(MODULE, Import::Access.name(), |_: u32, a: u64, n: u64, write: u32| {
                u32::from(allows(a, n, write != 0))
            })
            .unwrap();
        linker
            .func_wrap(
                HELPER_MODULE,
                HELPERS[0].name,
                |_: Caller<'_, Log>, _: u32, a: u64, b: u64, x: V128, y: V128| {
                    let half = |v: V128, n: u32| (v.as_u128() >> (64 * n)) as u64;
                    let lo = half(x, 0).wrapping_add(half(y, 0)).wrapping_add(a);
                    let hi = half(x, 1).wrapping_add(half(y, 1)).wrapping_add(b);
                    V128::from(u128::from(hi) << 64 | u128::from(lo))
                },
            )
            .unwrap();
        linker
            .func_wrap(HELPER_MODULE, HELPERS[1].name, move |mut c: Caller<'_, Log>, cpu: u32, a: u64| {
                let at = cpu as usize + offset_of!(State, pending);
                memory.write(&mut c, at, &u64::from(a == 13).to_le_bytes()).unwrap();
                a.wrapping_add(1)
            })
            .unwrap();
        let perms = (0..(LIMIT >> 12) as usize).map(|_| AtomicU8::new(0)).collect();
        Machine { settings, engine, store, memory, table, linker, perms, exact: 0, mxcsr: 0x1fa0 }
    }

    /// Give pages permissions.
    fn protect(&mut self, addr: u64, len: u64, bits: u8) {
        let t = PermTable::new(&self.perms);
        t.set((addr >> 12) as usize, (len >> 12) as usize, bits);
        let raw: Vec<u8> = self.perms.iter().map(|b| b.load(std::sync::atomic::Ordering::Relaxed)).collect();
        PAGES.with_borrow_mut(|p| p.clone_from(&raw));
        self.memory.write(&mut self.store, PERMS, &raw).unwrap();
    }

    /// Compile regions into one module, put their functions into the table and let them be found. Gives the first one.
    fn load(&mut self, regions: &[Region]) -> wasmtime::TypedFunc<(u32, u64), u64> {
        let pcs: Vec<u64> = regions.iter().map(|r| r.blocks[r.entries[0].0 as usize].pc).collect();
        let mut m = Module::new(self.settings, &HELPERS);
        for (r, pc) in regions.iter().zip(&pcs) {
            let mut r = stripped(r);
            evm_ir::validate(&r).unwrap_or_else(|e| panic!("{e}\n{r}"));
            prepare(&mut r);
            evm_ir::validate(&r).unwrap_or_else(|e| panic!("{e}\n{r}"));
            let links = |pc: u64| if pcs.contains(&pc) && pc & 1 == 0 { Link::Direct } else { Link::Table };
            let body = compile(&r, &self.settings, &links).unwrap_or_else(|e| panic!("{e}\n{r}"));
            m.add(*pc, body);
        }
        let bytes = m.finish().unwrap();
        validate(&bytes, &self.settings).unwrap_or_else(|e| panic!("{e}\n{}", regions[0]));
        let module = wasmtime::Module::new(&self.engine, &bytes).unwrap();
        let instance = self.linker.instantiate(&mut self.store, &module).unwrap();
        for (n, pc) in pcs.iter().enumerate() {
            let f = instance.get_func(&mut self.store, &format!("r{pc:x}")).unwrap();
            let index = 1 + n as u64;
            self.table.set(&mut self.store, index, Ref::Func(Some(f))).unwrap();
            let word = pc >> 16 << 32 | index;
            self.memory.write(&mut self.store, IBTC + 8 * (pc & 0xffff) as usize, &word.to_le_bytes()).unwrap();
        }
        instance.get_typed_func(&mut self.store, &format!("r{:x}", pcs[0])).unwrap()
    }
    /// No region is found any more.
    fn forget(&mut self) {
        self.memory.data_mut(&mut self.store)[IBTC..IBTC + (8 << 16)].fill(0);
    }

    /// Run on a state.
    fn run(&mut self, f: &wasmtime::TypedFunc<(u32, u64), u64>, s: &mut State, pc: u64, depth: u64) -> u64 {
        let words: [u64; 7] = [GUEST as u64, LIMIT, PERMS as u64, depth, IBTC as u64, self.exact, self.mxcsr];
        for (n, w) in words.iter().enumerate() {
            let half = u128::from(*w) << (64 * (n % 2));
            let keep = if n % 2 == 0 { 0 } else { s.scratch[n / 2] };
            s.scratch[n / 2] = keep | half;
        }
        // SAFETY: a state is plain data.
        let bytes = unsafe { std::slice::from_raw_parts_mut((&raw mut *s).cast::<u8>(), size_of::<State>()) };
        self.memory.write(&mut self.store, STATE, bytes).unwrap();
        self.store.data_mut().0.clear();
        let next = f.call(&mut self.store, (STATE as u32, pc)).unwrap();
        self.memory.read(&self.store, STATE, bytes).unwrap();
        next
    }
}

thread_local! {
    static PAGES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(vec![]) };
}
fn allows(addr: u64, len: u64, write: bool) -> bool {
    PAGES.with_borrow(|p| {
        let bytes: Vec<AtomicU8> = p.iter().map(|b| AtomicU8::new(*b)).collect();
        PermTable::new(&bytes).allows(addr, len, write)
    })
}

/// A region without fills and spills.
fn stripped(r: &Region) -> Region {
    let mut r = r.clone();
    r.slot_sets.clear();
    for b in &mut r.blocks {
        b.insts.retain(|i| !matches!(i.op, Op::Fill | Op::Spill));
        b.poll_spill = SlotSet::default();
    }
    r
}

fn new_state() -> Box<State> {
    // SAFETY: a state is plain data, for which zero is valid.
    unsafe { Box::new(std::mem::zeroed()) }
}

const RW: u8 = perm::READ | perm::WRITE;
