//! A guest thread on its host thread: the run loop, and what compiled code calls back.
//!
//! Nesting. Compiled code calls a guest function as a host function. When the callee has no code, or
//! leaves code before it returned, the cold path calls back and a nested run loop goes on until the
//! guest comes back to the expected return address. It ends early, with the pc it has, when the
//! guest's stack pointer rises past the call (longjmp, exceptions, stack switches): the caller then
//! sees an unexpected pc and unwinds in turn. When the host stack runs low, everything unwinds to the
//! outermost loop; that costs time, never correctness.
//!
//! # Safety
//! A `Thread` is owned by one host thread and reached from compiled code through `state.owner`. Rust
//! references to it are made only while no compiled code of this thread runs above them on the stack:
//! the callbacks take the raw pointer, make a reference for one step, and give it up before they enter
//! compiled code again.
#![allow(unsafe_code)]

use crate::code::space::CodeSpace;
use crate::code::translate::{self, BlockEntry};
use crate::config::EngineKind;
use crate::engine::{self, Engine, Job, Target};
use crate::guard;
use crate::host::enter;
use crate::profile;
use crate::stats::Counters;
use crate::vm::Shared;
use evm_backend::abi::{Abi, EXIT_PENDING, FIRST_HELPER, MISALIGNED, RuntimeFn};
use evm_backend::interp::{self, Exit};
use evm_backend::quick::Quick;
use evm_cpu::{CpuState, exc, helpers};
use evm_kernel::kernel::Flow;
use evm_kernel::task::Task;
use evm_lifter::{AddressHasher, Mode, Step};
use evm_memory::{Fault, Mem};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// "Next pc" of code that leaves for the run loop: a pending exception, or the thread is to leave.
pub(crate) const LEAVE: u64 = EXIT_PENDING;

/// Host stack of a guest thread in bytes.
pub(crate) const STACK: usize = 16 << 20;
/// What compiled code must leave free for helpers, the kernel and signal handlers.
const RESERVE: u64 = 2 << 20;

/// Where compiled code and the interpreter find things in the state.
pub const ABI: Abi = evm_backend::abi_of!(CpuState);

fn helper_table() -> &'static [u64] {
    static TABLE: std::sync::OnceLock<Vec<u64>> = std::sync::OnceLock::new();
    TABLE.get_or_init(|| {
        let mut t = vec![0; FIRST_HELPER as usize];
        t[RuntimeFn::Call as usize] = fn_call as *const () as u64;
        t[RuntimeFn::Resume as usize] = fn_resume as *const () as u64;
        t[RuntimeFn::Service as usize] = fn_service as *const () as u64;
        t[RuntimeFn::Raise as usize] = fn_raise as *const () as u64;
        t[RuntimeFn::Hot as usize] = fn_hot as *const () as u64;
        t[RuntimeFn::Origin as usize] = evm_backend::quick::origin();
        t.extend(helpers::addresses());
        t
    })
}

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
    let space = shared.space_of(task.mm());
    let mut task = task;
    task.enter();
    let cpu: *mut CpuState = &raw mut *task.cpu;
    let kind = shared.kind;
    let mut thread = Box::new(Thread {
        task,
        cpu,
        space_ptr: Arc::as_ptr(&space),
        stale: space.stale(),
        retried: (u64::MAX, 0),
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
    });
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
            let pc = run(t, pc, None);
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
        cpu.helpers = helper_table().as_ptr() as u64;
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
    fn note(&mut self, flow: Flow) -> bool {
        match flow {
            Flow::Run => true,
            Flow::ExecDone => {
                self.leave = Leave::Exec;
                false
            }
            Flow::Exit => {
                self.leave = Leave::Exit;
                false
            }
        }
    }
    /// Run kernel code with the default floating-point environment. `f` acts on an exact state.
    fn in_kernel<R>(&mut self, f: impl FnOnce(&mut Task) -> R) -> R {
        // SAFETY: the state belongs to this thread; mxcsr is the guest's while guest code runs.
        unsafe {
            (*self.cpu).x87_settle();
            (*self.cpu).settle_flags();
            (*self.cpu).mxcsr = mxcsr();
            set_mxcsr(0x1f80);
            let r = f(&mut self.task);
            set_mxcsr((*self.cpu).mxcsr);
            r
        }
    }
    fn raise(&mut self, code: u32, arg: u64) -> bool {
        Counters::add(&self.engine.counters().faults, 1);
        let (code, arg) = match code {
            exc::UD => {
                self.shared.note_unlifted(self.task.mem(), self.space.bits, self.rip());
                (code, arg)
            }
            exc::PF | exc::PF_WRITE => self.memory_fault(code, arg),
            _ => (code, arg),
        };
        let flow = self.in_kernel(|t| t.exception(code, arg));
        self.note(flow)
    }
    /// The exception of a memory access that failed, as the CPU would find it.
    fn memory_fault(&self, code: u32, arg: u64) -> (u32, u64) {
        if arg == MISALIGNED {
            return (exc::GP, 0);
        }
        // SAFETY: own state.
        let cpu = unsafe { &*self.cpu };
        let mem = self.task.mem();
        let register = |n: usize| match n {
            16 => cpu.fs_base,
            17 => cpu.gs_base,
            n => cpu.gpr[n & 15],
        };
        let access = evm_lifter::access(self.space.bits, cpu.rip, &self.shared.code_at(mem, cpu.rip), arg, register);
        if access.waits && cpu.fsw & 0x80 != 0 {
            return (exc::MF, 0);
        }
        let canonical = arg as i64 >> 47 == 0 || arg as i64 >> 47 == -1;
        if !canonical {
            return (if access.stack { exc::SS } else { exc::GP }, arg);
        }
        if code == exc::PF && !access.modifies {
            return (code, arg);
        }
        // It asks for write access first, from the first byte on.
        (exc::PF_WRITE, access.first_missing(arg, |at| mem.fetch_or(at, 1, 0).is_err()))
    }
    /// Whether code was dropped, as it changed, that this thread may be in or return to.
    fn is_stale(&self) -> bool {
        self.stale != self.space.stale()
    }
    /// Have the other threads of this address space leave such code as well.
    fn tell(&self) {
        let stale = self.space.stale();
        if self.space.tells(stale) {
            self.shared.leave_code(self.cpu);
        }
    }
    /// No caller of this thread is compiled code: from here on all of its code is new.
    fn renew(&mut self) {
        self.stale = self.space.stale();
        self.forget_calls();
    }
    /// Leave all code on the host's stack, and go on at `pc`.
    fn unwind(&mut self, pc: u64) -> u64 {
        self.set_rip(pc);
        self.leave = Leave::Unwind;
        LEAVE
    }
    /// Serve the poll word. False: leave.
    fn poll(&mut self) -> bool {
        // SAFETY: own state; `poll` and `stack_limit` are written by others atomically.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*self.cpu).poll).store(0, Ordering::SeqCst);
            AtomicU64::from_ptr(&raw mut (*self.cpu).stack_limit).store(self.stack_limit, Ordering::SeqCst);
        }
        if self.copied.is_some() {
            self.find_copied();
        }
        let flow = self.in_kernel(Task::deliver_signals);
        self.note(flow)
    }
    /// Whether someone asks the thread to leave guest code, or did while it served the last such wish.
    fn wants_poll(&self) -> bool {
        // SAFETY: as in `poll`.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*self.cpu).poll).load(Ordering::Relaxed) != 0
                || AtomicU64::from_ptr(&raw mut (*self.cpu).stack_limit).load(Ordering::Relaxed) == u64::MAX
        }
    }
    /// The interpreter block at a pc.
    fn block(&mut self, pc: u64) -> Result<Arc<BlockEntry>, translate::Failure> {
        let slot = (pc ^ pc >> 10) as usize % CACHE;
        if let Some(b) = &self.cache[slot]
            && b.pc == pc
            && self.space.fresh(b)
        {
            return Ok(b.clone());
        }
        let b = match self.space.block(pc) {
            Some(b) => b,
            None => {
                let b =
                    guard::caught(pc, || translate::block(&self.engine, &self.space, self.task.mm(), pc, Mode::Block))?;
                let b = Arc::new(b);
                Counters::add(&self.engine.counters().blocks_lifted, 1);
                self.space.keep(b.clone());
                b
            }
        };
        self.cache[slot] = Some(b.clone());
        Ok(b)
    }
    fn job(&self, pc: u64) -> Job {
        Job {
            space: self.space.clone(),
            mm: self.task.mm().clone(),
            pc,
            precise: handles_faults(&self.task),
            background: false,
            wasm: self.kind == EngineKind::Wasm,
        }
    }
    /// Count a block; true if it has compiled code now.
    fn heat(&mut self, b: &BlockEntry) -> bool {
        let n = b.count.fetch_add(1, Ordering::Relaxed);
        if n < self.threshold {
            // Another process may have compiled it already.
            let adopts = matches!(self.kind, EngineKind::Jit | EngineKind::Direct);
            return n == 1 && adopts && self.try_adopt(b.pc);
        }
        match self.kind {
            EngineKind::Interp | EngineKind::Quick | EngineKind::Wasm => false,
            EngineKind::Cranelift => n == 0 && self.engine.compile_now(&self.job(b.pc)),
            EngineKind::Jit | EngineKind::Direct if self.space.traps() => false,
            EngineKind::Jit | EngineKind::Direct => {
                // Ask again at doubled counts: code may have been dropped, or the region was not enterable here.
                if n == self.threshold
                    || (n > self.threshold
                        && (n / self.threshold).is_power_of_two()
                        && n.is_multiple_of(self.threshold))
                {
                    self.engine.request(self.job(b.pc));
                }
                false
            }
        }
    }
    fn try_adopt(&mut self, pc: u64) -> bool {
        self.engine.adopt(&self.job(pc))
    }
    /// Quick code for `pc` where there is no code yet; true if there is now.
    fn compile_quick(&mut self, pc: u64) -> Result<bool, translate::Failure> {
        if !matches!(self.kind, EngineKind::Jit | EngineKind::Quick | EngineKind::Direct) {
            return Ok(false);
        }
        let image = self.engine.image(&self.space, self.task.mm(), pc);
        let index = self.engine.entry_index(pc);
        let kept = |a| {
            let to = Target { space: &self.space, mm: self.task.mm(), precise: handles_faults(&self.task) };
            self.engine.kept(&to, a, pc, index)
        };
        let there = self.space.code(index) != 0 || self.space.records().code(index).is_some();
        if there || image.as_deref().is_some_and(kept) {
            self.space.remember(pc, index);
            return Ok(true);
        }
        if self.refused.contains(&pc) {
            return Ok(false);
        }
        let mm = self.task.mm().clone();
        let threshold = engine::quick_threshold(self.kind);
        let done = match self.engine.quick(&self.space, &mm, pc, &mut self.quick, threshold) {
            Ok(done) => done,
            Err(translate::Failure::Internal(e)) => {
                // The interpreter does without it. A panic may have left the compiler's buffers in any state.
                self.engine.report(e);
                self.quick = Quick::default();
                false
            }
            Err(e) => return Err(e),
        };
        if !done {
            self.refused.insert(pc);
        }
        Ok(done)
    }
    /// Quick code at `pc` has run often.
    fn hot(&mut self, pc: u64) {
        let compiles = matches!(self.kind, EngineKind::Jit | EngineKind::Direct);
        if compiles && !self.space.traps() && self.space.is_wanted(pc, self.engine.entry_index(pc)) {
            self.engine.request(Job { background: true, ..self.job(pc) });
        }
    }
    /// Run at `pc`, which the code tables do not know; gives the next pc or [`LEAVE`].
    fn cold(&mut self, pc: u64) -> u64 {
        // SAFETY: own state.
        let unmasked = unsafe { (*self.cpu).unmasked() };
        if unmasked {
            // No arithmetic of our own may trap.
            set_mxcsr(mxcsr() | MASKS);
        }
        let compiled = self.compile_quick(pc);
        if unmasked {
            self.unmask();
        }
        match compiled {
            Ok(true) => pc,
            Ok(false) if unmasked => self.strictly(pc),
            Ok(false) => self.interpret(pc),
            Err(e) => self.untranslatable(pc, e),
        }
    }
    pub(crate) fn untranslatable(&mut self, pc: u64, e: translate::Failure) -> u64 {
        self.set_rip(pc);
        let go_on = match e {
            translate::Failure::Fetch(at) => self.raise(exc::PF_EXEC, at),
            translate::Failure::Internal(e) => {
                self.engine.report(e);
                self.raise(exc::UD, pc)
            }
        };
        if go_on { self.rip() } else { LEAVE }
    }
    /// Interpret from `pc`; gives the next pc or [`LEAVE`].
    pub(crate) fn interpret(&mut self, pc: u64) -> u64 {
        let b = match self.block(pc) {
            Ok(b) => b,
            Err(e) => return self.untranslatable(pc, e),
        };
        let code = self.space.code(b.index);
        if code != 0 {
            self.space.remember(pc, b.index);
            return pc;
        }
        if self.heat(&b) {
            return pc;
        }
        self.insns += u64::from(b.insns);
        self.blocks += 1;
        let mem = self.task.mem();
        // SAFETY: cpu is the state this code was prepared for (same layout), owned by this thread.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        self.exit(exit, mem)
    }
    pub(crate) fn exit(&mut self, exit: Exit, _mem: Mem) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).x87_settle() };
        match exit {
            Exit::Jump { pc } | Exit::Return { pc } | Exit::Poll { pc } => pc,
            Exit::Call { target, .. } => target,
            Exit::Service { code, pc, next } => self.service(code, pc, next),
            Exit::Raise { code, arg, pc } => {
                self.set_rip(pc);
                if self.raise(code, arg) { self.rip() } else { LEAVE }
            }
            Exit::Fault { pc, fault: Fault { addr, write } } => {
                self.set_rip(pc);
                if self.raise(if write { exc::PF_WRITE } else { exc::PF }, addr) { self.rip() } else { LEAVE }
            }
            Exit::Pending { pc } => {
                self.set_rip(pc);
                self.pending()
            }
        }
    }
    /// A helper, or a host fault, left an exception.
    pub(crate) fn pending(&mut self) -> u64 {
        // SAFETY: own state.
        let (code, arg) = unsafe { ((*self.cpu).pending - 1, (*self.cpu).pending_arg) };
        // SAFETY: own state.
        unsafe { (*self.cpu).pending = 0 };
        if code == u64::from(exc::SKIP) {
            return arg;
        }
        if code == u64::from(exc::MODE) {
            return self.careful(arg);
        }
        if self.raise(code as u32, arg) { self.rip() } else { LEAVE }
    }
    pub(crate) fn service(&mut self, code: u32, pc: u64, next: u64) -> u64 {
        // Each mode has its own way; the other table is not there.
        if code != if self.space.bits == 32 { evm_cpu::service::INT80 } else { evm_cpu::service::SYSCALL } {
            self.set_rip(pc);
            return if self.raise(exc::GP, 0) { self.rip() } else { LEAVE };
        }
        self.set_rip(next);
        // SAFETY: own state.
        let nr = unsafe { (*self.cpu).gpr[0] } as u32;
        let (action, back) = (self.task.is_sigaction(nr), self.task.is_sigreturn(nr));
        let precise = action && handles_faults(&self.task);
        let flow = self.in_kernel(if self.space.bits == 32 { Task::syscall32 } else { Task::syscall });
        if !self.note(flow) {
            return LEAVE;
        }
        if action && !precise && handles_faults(&self.task) {
            // From now on faults need exact registers: drop the imprecise regions, and leave those on the stack.
            self.space.drop_all();
            self.leave = Leave::Unwind;
            return LEAVE;
        }
        // SAFETY: own state.
        if back && unsafe { (*self.cpu).careful() } {
            return self.careful(self.rip());
        }
        self.rip()
    }
    /// Go on at `pc` one instruction at a time: no compiled code of this thread may run any more.
    fn careful(&mut self, pc: u64) -> u64 {
        if self.kind == EngineKind::Interp || self.may_trap() {
            return pc;
        }
        self.set_rip(pc);
        self.leave = Leave::Unwind;
        LEAVE
    }
    /// Give the host's register the guest's masks again.
    fn unmask(&self) {
        // SAFETY: own state.
        set_mxcsr(mxcsr() & !MASKS | unsafe { (*self.cpu).mxcsr } & MASKS);
    }
    /// Whether it is only unmasked floating-point exceptions that compiled code has to mind, and there is code that does.
    fn may_trap(&self) -> bool {
        // SAFETY: own state.
        self.only_traps && unsafe { !(*self.cpu).steps() }
    }
    /// Run one instruction, with SSE exceptions unmasked, or TF or AC set.
    fn strictly(&mut self, pc: u64) -> u64 {
        self.steps = self.steps.saturating_add(1);
        let patience = if self.kind == EngineKind::Quick { 0 } else { PATIENCE };
        // SAFETY: own state.
        let unmasked = unsafe { (*self.cpu).unmasked() };
        let compiles = matches!(self.kind, EngineKind::Jit | EngineKind::Quick | EngineKind::Direct);
        if self.steps > patience && compiles && unmasked && !self.space.traps() {
            self.space.set_traps();
        }
        // Whoever comes here has left all code of before: see `careful`.
        self.only_traps |= unmasked && self.space.traps();
        if self.strict.get(&pc).is_none_or(|b| !self.space.fresh(b)) {
            let b = match translate::block(&self.engine, &self.space, self.task.mm(), pc, Mode::Strict) {
                Ok(b) => b,
                Err(_) => return self.interpret(pc),
            };
            if self.strict.len() > 1 << 16 {
                self.strict.clear();
            }
            self.strict.insert(pc, b);
        }
        let code = self.shared.code_at(self.task.mem(), pc);
        // SAFETY: own state.
        let Ok(step) = Step::begin(self.space.bits, pc, &code, unsafe { &mut *self.cpu }) else {
            return self.raise_at(pc, exc::AC);
        };
        let Some(b) = self.strict.get(&pc) else {
            return self.interpret(pc);
        };
        let mem = self.task.mem();
        // SAFETY: own state; as in `interpret`.
        let exit = unsafe {
            let before = (*self.cpu).clone();
            let flags = mxcsr();
            let exit = interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame);
            if (*self.cpu).pending == u64::from(exc::XM) + 1 {
                // The fault hook noted the flags and masked all exceptions, and the instruction was done: take it back.
                let raised = (*self.cpu).pending_arg as u32 & 0x3f;
                let cpu = &mut *self.cpu;
                (cpu.gpr, cpu.xmm, cpu.ymm_hi, cpu.fpr) = (before.gpr, before.xmm, before.ymm_hi, before.fpr);
                (cpu.cc_op, cpu.cc_a, cpu.cc_b, cpu.cc_c) = (before.cc_op, before.cc_a, before.cc_b, before.cc_c);
                cpu.pending = 0;
                cpu.mxcsr = flags & !0x3f | raised;
                set_mxcsr(flags & !0x3f | raised);
                step.undo(cpu);
                return self.raise_at(pc, exc::XM);
            }
            exit
        };
        let Some(next) = self.executed(&exit) else {
            // SAFETY: own state.
            step.undo(unsafe { &mut *self.cpu });
            return self.exit(exit, mem);
        };
        // SAFETY: own state.
        let (next, traps) = unsafe {
            (*self.cpu).x87_settle();
            step.end(&mut *self.cpu, next)
        };
        if traps { self.raise_at(next, exc::DB) } else { next }
    }
    /// Where the guest goes on after one instruction, if it was executed and asks for nothing.
    fn executed(&mut self, exit: &Exit) -> Option<u64> {
        match exit {
            Exit::Jump { pc } | Exit::Return { pc } | Exit::Poll { pc } => Some(*pc),
            Exit::Call { target, .. } => Some(*target),
            Exit::Pending { .. } => {
                // SAFETY: own state.
                let cpu = unsafe { &mut *self.cpu };
                let done = cpu.pending == u64::from(exc::SKIP) + 1 || cpu.pending == u64::from(exc::MODE) + 1;
                done.then(|| {
                    cpu.pending = 0;
                    cpu.pending_arg
                })
            }
            _ => None,
        }
    }
    fn raise_at(&mut self, pc: u64, code: u32) -> u64 {
        self.set_rip(pc);
        if self.raise(code, 0) { self.rip() } else { LEAVE }
    }
    fn rip(&self) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).rip }
    }
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
    fn rsp(&self) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).gpr[4] }
    }
}

/// Where a nested loop ends.
#[derive(Clone, Copy)]
struct Until {
    /// Expected return address.
    ret: u64,
    /// Stack pointer at the callee's entry; the call is over when it has risen above.
    rsp: u64,
}

/// Masks of MXCSR.
const MASKS: u32 = 0x1f80;

/// Single steps with unmasked floating-point exceptions after which code is made for them: who unmasks them for a moment
/// loses nothing else.
const PATIENCE: u32 = 5000;

/// The run loop. Gives the pc at which it ended, or [`LEAVE`] when `leave` says why.
///
/// # Safety
/// `t` is the calling thread's record and no reference to it is live.
unsafe fn run(t: *mut Thread, mut pc: u64, until: Option<Until>) -> u64 {
    let mut nested = until.is_some();
    loop {
        // SAFETY: one step each with a reference that ends before compiled code runs; see the module head.
        unsafe {
            if pc == LEAVE {
                let th = &mut *t;
                if th.leave != Leave::No {
                    return LEAVE;
                }
                if (*th.cpu).pending == 0 {
                    // Nobody wants to leave: the guest itself jumped to this address.
                    th.set_rip(LEAVE);
                    pc = if th.raise(exc::PF_EXEC, LEAVE) { th.rip() } else { LEAVE };
                    continue;
                }
                pc = leave_pending(th);
                continue;
            }
            if (*t).wants_poll() {
                (*t).set_rip(pc);
                pc = if (*t).poll() { (*t).rip() } else { LEAVE };
                continue;
            }
            if (*t).is_stale() {
                (*t).tell();
                if until.is_some() {
                    return (*t).unwind(pc);
                }
                (*t).renew();
            }
            if let Some(u) = until
                && (pc == u.ret || (*t).rsp() > u.rsp)
            {
                return pc;
            }
            if (*(*t).cpu).careful() && !(*t).may_trap() {
                pc = (*t).strictly(pc);
                continue;
            }
            #[cfg(feature = "wasm")]
            if (*t).kind == EngineKind::Wasm {
                if stack_pointer() < (*t).stack_limit {
                    (*t).set_rip(pc);
                    (*t).leave = Leave::Unwind;
                    return LEAVE;
                }
                pc = match crate::wasm::run_region(t, pc) {
                    Some(next) => next,
                    None => (*t).interpret(pc),
                };
                continue;
            }
            if (*t).copied.is_some()
                && let Some(next) = crate::copied::run(t, pc, &mut nested)
            {
                pc = next;
                continue;
            }
            let code = (*t).space.lookup(pc);
            if code != 0 {
                let cpu = (*t).cpu;
                if stack_pointer() < (*t).stack_limit {
                    (*t).set_rip(pc);
                    (*t).leave = Leave::Unwind;
                    return LEAVE;
                }
                Counters::add(&(*t).engine.counters().jit_entries, 1);
                pc = enter::enter(code, cpu, pc);
                continue;
            }
            pc = (*t).cold(pc);
        }
    }
}

/// An exception noted by compiled code or by the fault hook.
fn leave_pending(th: &mut Thread) -> u64 {
    // SAFETY: own state.
    let pending = unsafe { (*th.cpu).pending };
    if pending == evm_backend::abi::STEP {
        // SAFETY: own state.
        let careful = unsafe { (*th.cpu).careful() };
        if !careful {
            return th.step_over();
        }
        // SAFETY: own state.
        unsafe { (*th.cpu).pending = 0 };
        return th.strictly(th.rip());
    }
    let code = (pending - 1) as u32;
    if code == exc::XM && th.may_trap() {
        // The state is that before the instruction, and so are the flags that the piece has left there.
        // SAFETY: own state.
        unsafe {
            (*th.cpu).pending = 0;
            set_mxcsr((*th.cpu).mxcsr);
        }
        return th.strictly(th.rip());
    }
    if matches!(code, exc::PF | exc::PF_WRITE | exc::GP) && handles_faults(&th.task) && th.may_do_again() {
        // The region was precise, so the state is that before the instruction: the interpreter does it again and
        // finds the exact address.
        // SAFETY: own state.
        unsafe { (*th.cpu).pending = 0 };
        let pc = th.rip();
        return match th.step(pc) {
            Some(next) => next,
            None => LEAVE,
        };
    }
    th.pending()
}

impl Thread {
    /// Whether the instruction at `rip`, which has faulted, may be done again. ENTER with a nesting level may have written what it
    /// reads; it is a helper, which knows what it was doing.
    fn may_do_again(&self) -> bool {
        let code = self.shared.code_at(self.task.mem(), self.rip());
        !evm_lifter::is_nested_enter(self.space.bits, &code)
    }
    /// Code leaves the instruction at `rip` to the interpreter.
    fn step_over(&mut self) -> u64 {
        // SAFETY: own state.
        unsafe { (*self.cpu).pending = 0 };
        let next = self.step(self.rip()).unwrap_or(LEAVE);
        // Native code raises all flags by itself; WebAssembly may have been left because it does not.
        if self.kind == EngineKind::Wasm {
            // SAFETY: own state.
            unsafe {
                (*self.cpu).mxcsr = mxcsr();
                (*self.cpu).settle_fp_mode();
            }
        }
        next
    }
    /// Interpret the block at `pc` whether or not it has compiled code.
    fn step(&mut self, pc: u64) -> Option<u64> {
        match self.block(pc) {
            Ok(b) => {
                let mem = self.task.mem();
                // SAFETY: as in `interpret`.
                let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
                Some(self.exit(exit, mem))
            }
            Err(_) => {
                let ok = self.raise(exc::PF_EXEC, pc);
                ok.then(|| self.rip())
            }
        }
    }
}

/// Ask the thread that owns a state to leave guest code soon. Called with the registry of threads locked, so
/// the state is alive.
pub(crate) fn request_poll(cpu: *mut CpuState) {
    // SAFETY: registered states are alive (`Shared::unregister` takes the same lock); these two words are only
    // touched atomically while other threads may be here.
    unsafe {
        AtomicU64::from_ptr(&raw mut (*cpu).poll).store(1, Ordering::SeqCst);
        if AtomicU64::from_ptr(&raw mut (*cpu).hashes).load(Ordering::Relaxed) != 0 {
            crate::copied::hide_copied(cpu);
        }
        // Last: a thread that has served the poll word already finds this, and takes back all of it.
        AtomicU64::from_ptr(&raw mut (*cpu).stack_limit).store(u64::MAX, Ordering::SeqCst);
        let mirror = AtomicU64::from_ptr(&raw mut (*cpu).mirror).load(Ordering::SeqCst) as *mut CpuState;
        if !mirror.is_null() {
            AtomicU64::from_ptr(&raw mut (*mirror).poll).store(1, Ordering::SeqCst);
        }
    }
}

/// Ask the calling thread, whose state it is, to leave guest code soon. Signal-safe.
///
/// # Safety
/// The state is alive.
pub(crate) unsafe fn ask_own(cpu: *mut CpuState) {
    // SAFETY: by the contract; other threads touch these words atomically alone.
    unsafe {
        AtomicU64::from_ptr(&raw mut (*cpu).poll).store(1, Ordering::SeqCst);
        AtomicU64::from_ptr(&raw mut (*cpu).stack_limit).store(u64::MAX, Ordering::SeqCst);
    }
}

/// [`request_poll`] if it is not `own`, which is the caller's, and has the same guest memory.
pub(crate) fn request_poll_beside(cpu: *mut CpuState, own: *mut CpuState) {
    // SAFETY: as in `request_poll`. The word is written by its thread alone, when it begins and at execve, when it is alone.
    let base = |cpu: *mut CpuState| unsafe { AtomicU64::from_ptr(&raw mut (*cpu).mem_base).load(Ordering::Relaxed) };
    if cpu != own && base(cpu) == base(own) {
        request_poll(cpu);
    }
}

/// The state has no mirror any more. Called as [`request_poll`] is.
#[cfg(feature = "wasm")]
pub(crate) fn clear_mirror(cpu: *mut CpuState) {
    // SAFETY: as in `request_poll`.
    unsafe { AtomicU64::from_ptr(&raw mut (*cpu).mirror).store(0, Ordering::SeqCst) };
}

/// Whether the guest has a handler that wants exact registers at a memory fault.
fn handles_faults(t: &Task) -> bool {
    [libc::SIGSEGV, libc::SIGBUS].iter().any(|s| t.process.action(*s).handler > 1)
}

fn stack_pointer() -> u64 {
    let here = 0u8;
    &raw const here as u64
}

pub(crate) fn mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores the register to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut v, options(nostack, preserves_flags)) };
    v
}

pub(crate) fn set_mxcsr(v: u32) {
    let v = v & 0xffff;
    // SAFETY: only defined bits are set, so no #GP; unmasked exceptions are served by the fault hook.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack, preserves_flags)) };
}

/// The thread record behind a state.
///
/// # Safety
/// `state` is what `Thread::bind` set up, on its own host thread.
unsafe fn owner(state: *mut CpuState) -> *mut Thread {
    // SAFETY: by the contract.
    unsafe { (*state).owner as *mut Thread }
}

/// Compiled code calls `target`, which has no code. The return address is pushed.
pub(crate) unsafe extern "sysv64" fn fn_call(state: *mut CpuState, target: u64, ret: u64) -> u64 {
    // SAFETY: called by compiled code with its own state, everything spilled.
    unsafe {
        (*state).x87_settle();
        let t = owner(state);
        Counters::add(&(*t).engine.counters().nested_calls, 1);
        let rsp = (*state).gpr[4];
        nested(t, target, Until { ret, rsp })
    }
}

/// A call from compiled code came back to `pc` instead of `ret`.
///
/// How deep the guest was at the call is not known here, so the nested loop ends at `ret` alone. A longjmp past the
/// call leaves this host frame behind; the check for a low host stack takes such frames down.
pub(crate) unsafe extern "sysv64" fn fn_resume(state: *mut CpuState, pc: u64, ret: u64) -> u64 {
    // SAFETY: as in `fn_call`.
    unsafe {
        (*state).x87_settle();
        let t = owner(state);
        if pc == LEAVE && ((*t).leave != Leave::No || (*state).pending == 0) {
            return LEAVE;
        }
        nested(t, pc, Until { ret, rsp: u64::MAX })
    }
}

unsafe fn nested(t: *mut Thread, pc: u64, until: Until) -> u64 {
    // SAFETY: as in `fn_call`; no reference is live.
    unsafe {
        if stack_pointer() < (*t).stack_limit + (1 << 20) && pc != LEAVE {
            (*t).set_rip(pc);
            (*t).leave = Leave::Unwind;
            return LEAVE;
        }
        run(t, pc, Some(until))
    }
}

pub(crate) unsafe extern "sysv64" fn fn_service(state: *mut CpuState, code: u32, pc: u64, next: u64) -> u64 {
    // SAFETY: as in `fn_call`; the reference ends before compiled code goes on.
    unsafe {
        (*state).x87_settle();
        let th = &mut *owner(state);
        let pc = th.service(code, pc, next);
        // Compiled code waits for the end of this.
        if pc != LEAVE && th.is_stale() { th.unwind(pc) } else { pc }
    }
}

unsafe extern "sysv64" fn fn_hot(state: *mut CpuState, pc: u64) {
    // SAFETY: as in `fn_service`.
    unsafe { (*owner(state)).hot(pc) }
}

pub(crate) unsafe extern "sysv64" fn fn_raise(state: *mut CpuState, code: u32, arg: u64, pc: u64) -> u64 {
    // SAFETY: as in `fn_service`.
    unsafe {
        (*state).x87_settle();
        let th = &mut *owner(state);
        th.set_rip(pc);
        if th.raise(code, arg) { th.rip() } else { LEAVE }
    }
}

#[cfg(feature = "wasm")]
impl Thread {
    /// The code space, for the WebAssembly engine.
    pub(crate) fn space(&self) -> Arc<CodeSpace> {
        self.space.clone()
    }
    pub(crate) fn wasm_engine(&self) -> Result<Arc<crate::wasm::WasmEngine>, String> {
        self.engine.wasm()
    }
    /// What stands for the region at `pc`, compiled if it has to be. `None`: it is interpreted.
    pub(crate) fn wasm_code(&mut self, pc: u64) -> Option<u64> {
        if self.space.bits != 64 {
            return None;
        }
        let index = self.engine.entry_index(pc);
        let code = self.space.code(index);
        if code != 0 {
            return Some(code);
        }
        if self.refused.contains(&pc) {
            return None;
        }
        let compiled = self.engine.compile_now(&self.job(pc));
        let code = self.space.code(index);
        if !compiled || code == 0 {
            self.refused.insert(pc);
            return None;
        }
        Some(code)
    }
    /// The engine failed in a way that leaves the guest's state unknown: the job ends.
    pub(crate) fn broken(&mut self, pc: u64, what: String) -> u64 {
        self.engine.report(format!("region {pc:#x}: {what}"));
        self.task.kernel().kill_job(evm_kernel::kernel::EndReason::Failed);
        self.leave = Leave::Exit;
        LEAVE
    }
}
