//! The WebAssembly engine: each region is compiled to a module, which wasmtime runs.
//!
//! It is there to show that the WebAssembly back end is right, and as a second wall: what a region could do wrong, it does inside
//! the engine's linear memory. That memory is a window of the host's address space: the pages in front of guest
//! memory ([`front`]) and guest memory itself, which is made to fit. In front are the table of page permissions, the table of entry
//! points, and for each thread a copy of its state. The state proper is brought up to date whenever Rust code runs that wants it; helpers
//! work on the copy.
//!
//! Compiled code runs with MXCSR as a WebAssembly engine has it, and the guest's in the copy of the state: rounding and exception
//! flags are done the way a stand-alone module does them.

mod front;
mod thread;

pub(crate) use front::{ARENA, Front, WINDOW};
pub(crate) use thread::{WasmThread, run_region};

use crate::engine::lock;
use evm_backend::wasm::{Settings, WasmAbi};
use evm_cpu::CpuState;
use std::collections::HashMap;
use std::mem::offset_of;
use std::sync::{Arc, Mutex};

/// Words that are only for compiled code stand where quick code has its scratch.
const WORDS: u32 = offset_of!(CpuState, scratch) as u32;

/// Where compiled WebAssembly finds things in the copy of the state.
pub(crate) const ABI: WasmAbi = WasmAbi {
    mem_base: WORDS,
    mem_limit: WORDS + 8,
    perms: WORDS + 16,
    ibtc: WORDS + 24,
    poll: offset_of!(CpuState, poll) as u32,
    depth: offset_of!(CpuState, depth) as u32,
    pending: offset_of!(CpuState, pending) as u32,
    fp_exact: offset_of!(CpuState, fp_exact) as u32,
    mxcsr: offset_of!(CpuState, mxcsr) as u32,
    rip: offset_of!(CpuState, rip) as u32,
};

/// Guest threads are host threads that share memory.
pub(crate) const SETTINGS: Settings =
    Settings { abi: ABI, tail_calls: true, fixed: Some(front::FIXED), atomics: true, trust_pages: false };

/// Host stack that WebAssembly may use on a guest thread.
const STACK: usize = crate::thread::STACK - (4 << 20);

/// What all guest threads share: the compiler and the compiled modules.
pub(crate) struct WasmEngine {
    engine: wasmtime::Engine,
    /// A module that has nothing but a memory: only memories of modules are made as the configuration says.
    memory: wasmtime::Module,
    modules: Mutex<HashMap<u64, Arc<wasmtime::Module>>>,
}

impl WasmEngine {
    pub(crate) fn new() -> Result<WasmEngine, String> {
        let mut c = wasmtime::Config::new();
        c.wasm_tail_call(true)
            .wasm_simd(true)
            .wasm_threads(true)
            // The first must not be larger than the second, which is not used.
            .max_wasm_stack(STACK)
            .async_stack_size(STACK)
            // Each region is compiled before it first runs, and most run seldom.
            .cranelift_opt_level(wasmtime::OptLevel::None)
            .memory_reservation(WINDOW)
            .memory_guard_size(front::GUARD)
            .memory_may_move(false)
            .with_host_memory(Arc::new(front::Windows));
        let engine = wasmtime::Engine::new(&c).map_err(|e| format!("{e:?}"))?;
        let memory = evm_backend::wasm::memory_module(WINDOW >> 16);
        let memory = wasmtime::Module::new(&engine, memory).map_err(|e| format!("{e:?}"))?;
        Ok(WasmEngine { engine, memory, modules: Mutex::default() })
    }
    /// Compile a module; gives what stands for it in tables of entry points.
    pub(crate) fn compile(&self, bytes: &[u8]) -> Result<u64, String> {
        let m = wasmtime::Module::new(&self.engine, bytes).map_err(|e| format!("{e:?}"))?;
        let mut all = lock(&self.modules);
        let id = all.len() as u64 + 1;
        all.insert(id, Arc::new(m));
        Ok(id)
    }
    fn module(&self, id: u64) -> Option<Arc<wasmtime::Module>> {
        lock(&self.modules).get(&id).cloned()
    }
}
