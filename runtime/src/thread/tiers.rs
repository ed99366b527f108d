//! Code that is not compiled yet: the interpreter, and what makes it hot.
//!
//! See the book's page "The house" for the tiers. Where the code tables know nothing, the quick tier compiles a block, the interpreter runs
//! what that does not take, and each entry is counted; a count that reaches the threshold asks the engine for a region.
//!
//! # Safety
//! As in [`crate::thread`]: `cpu` is the state of the thread whose record this is, and no compiled code of it runs meanwhile.
#![allow(unsafe_code)]

use super::kernel::handles_faults;
use super::strict::MASKS;
use super::{CACHE, LEAVE, Thread};
use crate::code::translate::{self, BlockEntry};
use crate::config::EngineKind;
use crate::engine::{self, Job, Target};
use crate::guard;
use crate::host::mxcsr::{mxcsr, set_mxcsr};
use crate::stats::Counters;
use evm_backend::interp::{self, Exit};
use evm_backend::quick::Quick;
use evm_cpu::{exc, helpers};
use evm_lifter::Mode;
use evm_memory::{Fault, Mem};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Thread {
    /// Run at `pc`, which the code tables do not know; gives the next pc or [`LEAVE`].
    pub(super) fn cold(&mut self, pc: u64) -> u64 {
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
    pub(super) fn job(&self, pc: u64) -> Job {
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
    pub(super) fn hot(&mut self, pc: u64) {
        let compiles = matches!(self.kind, EngineKind::Jit | EngineKind::Direct);
        if compiles && !self.space.traps() && self.space.is_wanted(pc, self.engine.entry_index(pc)) {
            self.engine.request(Job { background: true, ..self.job(pc) });
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
    /// Interpret the block at `pc` whether or not it has compiled code.
    pub(super) fn step(&mut self, pc: u64) -> Option<u64> {
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
    /// What the interpreter ended with; gives the next pc or [`LEAVE`].
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
}
