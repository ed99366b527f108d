//! A guest thread on its host thread: its record, and its life.
//!
//! [`run`] is the run loop, [`callbacks`] what compiled code calls. [`tiers`] is for code that is not compiled yet, [`strict`] for what
//! compiled code does not do exactly; [`kernel`] is the way to system calls and exceptions, [`asked`] how a thread is made to leave guest code.
//!
//! # Safety
//! A `Thread` is owned by one host thread and reached from compiled code through `state.owner`. Rust
//! references to it are made only while no compiled code of this thread runs above them on the stack:
//! the callbacks take the raw pointer, make a reference for one step, and give it up before they enter
//! compiled code again.
#![allow(unsafe_code)]

mod asked;
mod callbacks;
mod kernel;
mod run;
mod strict;
mod tiers;
#[cfg(feature = "wasm")]
mod wasm;

#[cfg(feature = "wasm")]
pub(crate) use asked::clear_mirror;
pub(crate) use asked::{ask_own, interrupt, request_poll, request_poll_beside};
#[cfg(feature = "wasm")]
pub(crate) use callbacks::{fn_call, fn_raise, fn_resume, fn_service};

use crate::code::space::CodeSpace;
use crate::code::translate::BlockEntry;
use crate::config::EngineKind;
use crate::engine::{self, Engine};
use crate::host::enter;
use crate::profile;
use crate::stats::Counters;
use crate::vm::Shared;
use evm_backend::abi::{Abi, EXIT_PENDING};
use evm_backend::interp;
use evm_backend::quick::Quick;
use evm_cpu::CpuState;
use evm_kernel::task::Task;
use evm_lifter::AddressHasher;
use evm_memory::Mem;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// "Next pc" of code that leaves for the run loop: a pending exception, or the thread is to leave.
pub(crate) const LEAVE: u64 = EXIT_PENDING;

/// Host stack of a guest thread in bytes.
pub(crate) const STACK: usize = 16 << 20;
/// What compiled code must leave free for helpers, the kernel and signal handlers.
const RESERVE: u64 = 2 << 20;

/// Where compiled code and the interpreter find things in the state.
pub const ABI: Abi = evm_backend::abi_of!(CpuState);

/// Why all loops of a thread unwind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    No,
    /// Host stack low: start over at the current pc.
    Unwind,
    /// execve replaced the address space.
    Exec,
    /// The thread ended.
    Exit,
}

/// Blocks that a thread finds without a look at the table, by their address.
const CACHE: usize = 1024;

/// A guest thread.
pub(crate) struct Thread {
    task: Task,
    /// The task's CPU state (owned by the task; stable).
    pub(crate) cpu: *mut CpuState,
    space: Arc<CodeSpace>,
    pub(crate) space_ptr: *const CodeSpace,
    /// Value of [`CodeSpace::stale`] at which nothing of this thread was in code that had been dropped.
    stale: u64,
    /// See [`CodeSpace::write_fault`].
    pub(crate) retried: (u64, u32),
    /// The hook has blocked the signal by which threads are asked to leave copied code, until another handler ends.
    pub(crate) deaf: AtomicBool,
    shared: Arc<Shared>,
    engine: Engine,
    kind: EngineKind,
    threshold: u32,
    leave: Leave,
    stack_limit: u64,
    cache: Box<[Option<Arc<BlockEntry>>; CACHE]>,
    pub(crate) frame: interp::Frame,
    quick: Quick,
    /// Blocks that the quick tier did not take.
    refused: HashSet<u64, BuildHasherDefault<AddressHasher>>,
    /// Single instructions, while SSE exceptions are unmasked.
    strict: HashMap<u64, BlockEntry>,
    /// How many of them were run.
    steps: u32,
    /// Nothing on the host stack is code from before [`CodeSpace::set_traps`], and nothing will be.
    only_traps: bool,
    insns: u64,
    blocks: u64,
    /// Its part of copied code.
    pub(crate) copied: Option<crate::copied::CopiedThread>,
    /// Its part of the WebAssembly engine.
    #[cfg(feature = "wasm")]
    pub(crate) wasm: Option<Box<crate::wasm::WasmThread>>,
}

/// Body of a guest thread's host thread.
pub(crate) fn main(task: Task, shared: Arc<Shared>) {
    evm_memory::fault::thread_init();
    let here = 0u8;
    let stack_limit = (&raw const here as u64).saturating_sub(STACK as u64) + RESERVE + (64 << 10);
    let mut thread = Thread::new(task, shared, stack_limit);
    let t: *mut Thread = &raw mut *thread;
    thread.bind(t);
    enter::set_current(t);
    let shared = thread.shared.clone();
    let (tid, cpu) = (thread.task.tid(), thread.cpu);
    shared.register(tid, cpu);
    let ticks = profile::Ticks::new();
    loop {
        // SAFETY: t is this thread's record; no reference to it is live across the call.
        unsafe {
            (*t).leave = Leave::No;
            let pc = (*cpu).rip;
            let pc = run::run(t, pc, None);
            match (*t).leave {
                Leave::Exit => break,
                Leave::Exec => (*t).rebind(t),
                Leave::No | Leave::Unwind => {
                    if pc != LEAVE {
                        (*cpu).rip = pc;
                    }
                }
            }
        }
    }
    drop(ticks);
    shared.unregister(tid);
    enter::set_current(std::ptr::null_mut());
    thread.flush_counters();
    drop(thread);
}

impl Thread {
    fn new(mut task: Task, shared: Arc<Shared>, stack_limit: u64) -> Box<Thread> {
        let space = shared.space_of(task.mm());
        task.enter();
        let cpu: *mut CpuState = &raw mut *task.cpu;
        let kind = shared.kind;
        Box::new(Thread {
            task,
            cpu,
            space_ptr: Arc::as_ptr(&space),
            stale: space.stale(),
            retried: (u64::MAX, 0),
            deaf: AtomicBool::new(false),
            space,
            engine: shared.engine.clone(),
            kind,
            threshold: engine::threshold(kind),
            shared,
            leave: Leave::No,
            stack_limit,
            cache: Box::new([const { None }; CACHE]),
            frame: interp::Frame::default(),
            quick: Quick::default(),
            refused: HashSet::default(),
            strict: HashMap::new(),
            steps: 0,
            only_traps: false,
            insns: 0,
            blocks: 0,
            copied: None,
            #[cfg(feature = "wasm")]
            wasm: None,
        })
    }
    /// Fill in the engine's words of the state.
    fn bind(&mut self, t: *mut Thread) {
        let arena = &self.space.arena;
        // SAFETY: the state belongs to this thread's task.
        let cpu = unsafe { &mut *self.cpu };
        cpu.mem_base = arena.base();
        cpu.mem_limit = arena.size();
        cpu.entries = self.space.entries_ptr();
        cpu.ibtc = self.space.ibtc_ptr();
        cpu.targets = self.space.targets_ptr();
        cpu.counts = self.space.counts_ptr();
        cpu.helpers = callbacks::helper_table().as_ptr() as u64;
        cpu.stack_limit = self.stack_limit;
        cpu.owner = t as u64;
        cpu.pending = 0;
        cpu.mirror = 0;
        self.bind_copied();
    }
    /// After execve: a new address space.
    fn rebind(&mut self, t: *mut Thread) {
        self.space = self.shared.space_of(self.task.mm());
        self.space_ptr = Arc::as_ptr(&self.space);
        self.stale = self.space.stale();
        self.cache.fill(None);
        self.refused.clear();
        self.strict.clear();
        (self.steps, self.only_traps) = (0, false);
        #[cfg(feature = "wasm")]
        {
            self.shared.without_mirror(self.cpu);
            self.wasm = None;
        }
        self.bind(t);
    }
    fn flush_counters(&mut self) {
        let c = self.engine.counters();
        Counters::add(&c.insns_interpreted, std::mem::take(&mut self.insns));
        Counters::add(&c.blocks_interpreted, std::mem::take(&mut self.blocks));
    }
    #[inline]
    fn rip(&self) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).rip }
    }
    #[inline]
    pub(crate) fn set_rip(&mut self, pc: u64) {
        // SAFETY: own state.
        unsafe { (*self.cpu).rip = pc }
    }
    pub(crate) fn space_ref(&self) -> &CodeSpace {
        &self.space
    }
    pub(crate) fn engine_ref(&self) -> &Engine {
        &self.engine
    }
    pub(crate) fn mm(&self) -> &evm_kernel::mm::Mm {
        self.task.mm()
    }
    pub(crate) fn memory(&self) -> Mem {
        self.task.mem()
    }
    pub(crate) fn report(&self, what: String) {
        self.engine.report(what);
    }
    #[inline]
    fn rsp(&self) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).gpr[4] }
    }
}
