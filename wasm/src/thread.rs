//! The run loop, and the runtime's side of the kernel's `Host` trait.
//!
//! There is one thread: a second guest thread or process cannot be had (EAGAIN). What happens to translated pages while guest code
//! runs is noted in [`Shared`] and done by the loop before the next block.
//!
//! # Safety
//! The CPU state belongs to the task; the interpreter gets its address while nothing borrows it.
#![allow(unsafe_code)]

use crate::code::{self, Block, Blocks, Failure};
use evm_backend::interp::{self, Exit};
use evm_cpu::{CpuState, exc, helpers, service};
use evm_fpu::sse;
use evm_kernel::errno::Errno;
use evm_kernel::kernel::{Flow, Host};
use evm_kernel::mm::Mm;
use evm_kernel::task::Task;
use evm_kernel::timers;
use evm_lifter::Mode;
use evm_memory::{Fault, Mem};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks between looks at the timers.
const LOOK: u32 = 512;

/// What others tell the loop.
#[derive(Default)]
pub struct Shared {
    /// Ranges of the address space whose translations are to be dropped, with the base of the memory.
    changed: Mutex<Vec<(u64, u64, u64)>>,
    has_changed: AtomicBool,
    /// The state of the running thread.
    cpu: AtomicUsize,
}

impl Shared {
    fn note(&self, base: u64, start: u64, end: u64) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).push((base, start, end));
        self.has_changed.store(true, Ordering::Relaxed);
    }
}

impl Host for Shared {
    fn spawn(&self, _: Task) -> Result<(), Errno> {
        Err(Errno::EAGAIN)
    }
    fn code_changed(&self, mm: &Mm, addr: u64, len: u64) {
        self.note(mm.arena().base(), addr, addr.saturating_add(len));
    }
    fn new_arena(&self, _: &Mm) -> Result<(), Errno> {
        Ok(())
    }
    fn kick(&self, _: i32) {
        let cpu = self.cpu.load(Ordering::Relaxed) as *mut CpuState;
        if !cpu.is_null() {
            // SAFETY: set by the loop, whose task outlives it.
            unsafe { (*cpu).poll = 1 };
        }
    }
}

thread_local! {
    static SHARED: std::cell::OnceCell<Arc<Shared>> = const { std::cell::OnceCell::new() };
}
fn written(base: u64, page: u64) {
    SHARED.with(|s| {
        if let Some(s) = s.get() {
            s.note(base, page, page + evm_memory::PAGE);
        }
    });
}

/// The guest's thread.
pub struct Thread {
    task: Task,
    cpu: *mut CpuState,
    shared: Arc<Shared>,
    blocks: Blocks,
    frame: interp::Frame,
    until_look: u32,
}

/// Run a task to its end.
pub fn run(mut task: Task, shared: Arc<Shared>) {
    SHARED.with(|s| drop(s.set(shared.clone())));
    evm_memory::set_write_hook(written);
    task.enter();
    let cpu: *mut CpuState = &raw mut *task.cpu;
    shared.cpu.store(cpu as usize, Ordering::Relaxed);
    let mut t = Thread {
        task,
        cpu,
        shared: shared.clone(),
        blocks: Blocks::new(),
        frame: interp::Frame::default(),
        until_look: LOOK,
    };
    sse::set_mxcsr(t.state().mxcsr);
    if t.kernel(Task::deliver_signals) {
        t.go();
    }
    shared.cpu.store(0, Ordering::Relaxed);
}

impl Thread {
    fn state(&mut self) -> &mut CpuState {
        // SAFETY: see the module.
        unsafe { &mut *self.cpu }
    }
    /// Run until the thread ends.
    fn go(&mut self) {
        loop {
            if self.shared.has_changed.swap(false, Ordering::Relaxed) {
                self.drop_changed();
            }
            self.until_look -= 1;
            if self.until_look == 0 {
                self.until_look = LOOK;
                timers::run_due();
            }
            if self.state().poll != 0 {
                self.state().poll = 0;
                if !self.kernel(Task::deliver_signals) {
                    return;
                }
                continue;
            }
            let pc = self.state().rip;
            let going = if self.state().unmasked() { self.strictly(pc) } else { self.block(pc) };
            if !going {
                return;
            }
        }
    }
    fn drop_changed(&mut self) {
        let changed = std::mem::take(&mut *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner));
        let base = self.task.mm().arena().base();
        for (_, start, end) in changed.into_iter().filter(|c| c.0 == base) {
            self.blocks.drop_range(start, end);
        }
    }
    /// Run kernel code on an exact state; false: the thread has ended.
    fn kernel(&mut self, f: impl FnOnce(&mut Task) -> Flow) -> bool {
        self.state().x87_settle();
        self.state().settle_flags();
        self.state().mxcsr = sse::mxcsr();
        let flow = f(&mut self.task);
        sse::set_mxcsr(self.state().mxcsr);
        match flow {
            Flow::Run => true,
            Flow::ExecDone => {
                self.blocks.clear();
                true
            }
            Flow::Exit => false,
        }
    }
    fn block(&mut self, pc: u64) -> bool {
        match self.blocks.get(self.task.mm(), pc) {
            Ok(b) => self.interpret(&b),
            Err(e) => self.untranslatable(e),
        }
    }
    fn interpret(&mut self, b: &Rc<Block>) -> bool {
        let mem = self.task.mem();
        // SAFETY: the task's state and memory; nothing borrows the state.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        self.exit(exit)
    }
    fn untranslatable(&mut self, e: Failure) -> bool {
        match e {
            Failure::Fetch(at) => self.raise(exc::PF_EXEC, at),
            Failure::Internal(e) => {
                eprintln!("evm: {e}; please report this line with the program's name");
                let pc = self.state().rip;
                self.raise(exc::UD, pc)
            }
        }
    }
    fn at(&mut self, pc: u64) -> bool {
        self.state().rip = pc;
        true
    }
    fn exit(&mut self, exit: Exit) -> bool {
        self.state().x87_settle();
        match exit {
            Exit::Jump { pc } | Exit::Return { pc } | Exit::Poll { pc } => self.at(pc),
            Exit::Call { target, .. } => self.at(target),
            Exit::Service { code, pc, next } => self.service(code, pc, next),
            Exit::Raise { code, arg, pc } => self.at(pc) && self.raise(code, arg),
            Exit::Fault { pc, fault: Fault { addr, write } } => {
                self.at(pc) && self.raise(if write { exc::PF_WRITE } else { exc::PF }, addr)
            }
            Exit::Pending { pc } => self.at(pc) && self.pending(),
        }
    }
    /// A helper left an exception.
    fn pending(&mut self) -> bool {
        let (code, arg) = (self.state().pending - 1, self.state().pending_arg);
        self.state().pending = 0;
        match code as u32 {
            // The loop looks at the masks.
            exc::SKIP | exc::MODE => self.at(arg),
            code => self.raise(code, arg),
        }
    }
    fn service(&mut self, code: u32, pc: u64, next: u64) -> bool {
        // Each mode has its own way; the other table is not there.
        let bits = self.task.mm().bits;
        if code != if bits == 32 { service::INT80 } else { service::SYSCALL } {
            return self.at(pc) && self.raise(exc::GP, 0);
        }
        self.state().rip = next;
        self.kernel(if bits == 32 { Task::syscall32 } else { Task::syscall })
    }
    fn raise(&mut self, code: u32, arg: u64) -> bool {
        let (code, arg) = match code {
            exc::PF | exc::PF_WRITE => self.memory_fault(code, arg),
            exc::UD => {
                self.report_unlifted();
                (code, arg)
            }
            _ => (code, arg),
        };
        self.kernel(|t| t.exception(code, arg))
    }
    /// The exception of a memory access that failed, as the CPU would find it.
    fn memory_fault(&mut self, code: u32, arg: u64) -> (u32, u64) {
        let (mem, bits) = (self.task.mem(), self.task.mm().bits);
        let cpu = &*self.state();
        let register = |n: usize| match n {
            16 => cpu.fs_base,
            17 => cpu.gs_base,
            n => cpu.gpr[n & 15],
        };
        let access = evm_lifter::access(bits, cpu.rip, &code_at(mem, cpu.rip), arg, register);
        if access.waits && cpu.fsw & 0x80 != 0 {
            return (exc::MF, 0);
        }
        if !matches!(arg as i64 >> 47, 0 | -1) {
            return (if access.stack { exc::SS } else { exc::GP }, arg);
        }
        if code == exc::PF && !access.modifies {
            return (code, arg);
        }
        // It asks for write access first, from the first byte on.
        (exc::PF_WRITE, access.first_missing(arg, |at| mem.fetch_or(at, 1, 0).is_err()))
    }
    fn report_unlifted(&mut self) {
        let (mem, bits, pc) = (self.task.mem(), self.task.mm().bits, self.state().rip);
        let handled = self.task.process.action(evm_abi::SIGILL).handler > 1;
        if !handled {
            eprintln!("evm: not lifted: {}", evm_lifter::describe(bits, pc, &code_at(mem, pc)));
        }
    }
    /// Run one instruction with SSE exceptions unmasked.
    fn strictly(&mut self, pc: u64) -> bool {
        let b = match code::translate(self.task.mm(), pc, Mode::Strict) {
            Ok((b, _)) => Rc::new(b),
            Err(e) => return self.untranslatable(e),
        };
        let before = self.state().clone();
        let flags = sse::mxcsr();
        sse::set_mxcsr(flags);
        let mem = self.task.mem();
        // SAFETY: as in `interpret`.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        let raised = sse::raised();
        if raised & !(flags >> 7) & 0x3f == 0 {
            return self.exit(exit);
        }
        // The instruction was done: take it back.
        let cpu = self.state();
        (cpu.gpr, cpu.xmm, cpu.ymm_hi, cpu.fpr) = (before.gpr, before.xmm, before.ymm_hi, before.fpr);
        (cpu.cc_op, cpu.cc_a, cpu.cc_b, cpu.cc_c) = (before.cc_op, before.cc_a, before.cc_b, before.cc_c);
        cpu.pending = 0;
        sse::set_mxcsr(flags | raised);
        self.at(pc) && self.raise(exc::XM, 0)
    }
}

/// The bytes of the instruction at `pc`, and some behind it.
fn code_at(mem: Mem, pc: u64) -> Vec<u8> {
    let mut bytes = [0u8; 15];
    let n = (1..=15).rev().find(|n| mem.copy_out(pc, &mut bytes[..*n]).is_ok()).unwrap_or(0);
    bytes[..n].to_vec()
}
