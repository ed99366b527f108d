//! One instruction at a time, where compiled code would not be exact: while SSE exceptions are unmasked, TF or AC is set.
//!
//! No compiled code of the thread runs meanwhile, but for code that minds unmasked exceptions, if there is such (`CodeSpace::set_traps`).
//! It is made for programs that keep them unmasked.
//!
//! # Safety
//! As in [`crate::thread`]: `cpu` is the state of the thread whose record this is, and no compiled code of it runs meanwhile.
#![allow(unsafe_code)]

use super::{LEAVE, Thread};
use crate::code::translate;
use crate::config::EngineKind;
use crate::host::mxcsr::{mxcsr, set_mxcsr};
use evm_backend::interp::{self, Exit};
use evm_cpu::{CpuState, exc, helpers};
use evm_lifter::{Mode, Step};

/// Masks of MXCSR.
pub(super) const MASKS: u32 = 0x1f80;

/// Single steps with unmasked floating-point exceptions after which code is made for them: who unmasks them for a moment
/// loses nothing else.
const PATIENCE: u32 = 5000;

impl Thread {
    /// Go on at `pc` one instruction at a time: no compiled code of this thread may run any more.
    pub(super) fn careful(&mut self, pc: u64) -> u64 {
        if self.kind == EngineKind::Interp || self.may_trap() {
            return pc;
        }
        self.unwind(pc)
    }
    /// Give the host's register the guest's masks again.
    pub(super) fn unmask(&self) {
        // SAFETY: own state.
        set_mxcsr(mxcsr() & !MASKS | unsafe { (*self.cpu).mxcsr } & MASKS);
    }
    /// Whether it is only unmasked floating-point exceptions that compiled code has to mind, and there is code that does.
    #[inline]
    pub(super) fn may_trap(&self) -> bool {
        // SAFETY: own state.
        self.only_traps && unsafe { !(*self.cpu).steps() }
    }
    /// Run one instruction, with SSE exceptions unmasked, or TF or AC set.
    pub(super) fn strictly(&mut self, pc: u64) -> u64 {
        self.count_step();
        if !self.prepare_strict(pc) {
            return self.interpret(pc);
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
                let cpu = &mut *self.cpu;
                take_back(cpu, &before, flags);
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
    /// Count a single step; from some number on there is to be code for unmasked exceptions.
    fn count_step(&mut self) {
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
    }
    /// Have code for the one instruction at `pc`; false if it cannot be translated.
    fn prepare_strict(&mut self, pc: u64) -> bool {
        if self.strict.get(&pc).is_none_or(|b| !self.space.fresh(b)) {
            let b = match translate::block(&self.engine, &self.space, self.task.mm(), pc, Mode::Strict) {
                Ok(b) => b,
                Err(_) => return false,
            };
            if self.strict.len() > 1 << 16 {
                self.strict.clear();
            }
            self.strict.insert(pc, b);
        }
        true
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
    /// Code leaves the instruction at `rip` to the interpreter.
    pub(super) fn step_over(&mut self) -> u64 {
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
}

/// The fault hook noted the flags of an exception and masked all, and the instruction was done: take back what it did. `flags` was MXCSR
/// before.
fn take_back(cpu: &mut CpuState, before: &CpuState, flags: u32) {
    let raised = cpu.pending_arg as u32 & 0x3f;
    (cpu.gpr, cpu.xmm, cpu.ymm_hi, cpu.fpr) = (before.gpr, before.xmm, before.ymm_hi, before.fpr);
    (cpu.cc_op, cpu.cc_a, cpu.cc_b, cpu.cc_c) = (before.cc_op, before.cc_a, before.cc_b, before.cc_c);
    cpu.pending = 0;
    cpu.mxcsr = flags & !0x3f | raised;
    set_mxcsr(cpu.mxcsr);
}
