//! From guest code into the kernel: system calls and exceptions.
//!
//! An exception is raised at once by who finds it, or noted as *pending* in the state (its code plus 1) by a helper, by the fault
//! hook or by compiled code, which then leaves.
//!
//! # Safety
//! As in [`crate::thread`]: `cpu` is the state of the thread whose record this is, and no compiled code of it runs meanwhile.
#![allow(unsafe_code)]

use super::{LEAVE, Leave, Thread};
use crate::host::mxcsr::{mxcsr, set_mxcsr};
use crate::stats::Counters;
use evm_backend::abi::MISALIGNED;
use evm_cpu::exc;
use evm_kernel::kernel::Flow;
use evm_kernel::task::Task;

impl Thread {
    /// A system call at `pc`, with the instruction at `next` behind it; gives the next pc or [`LEAVE`].
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
    /// Note what the kernel wants of the thread. False: leave.
    pub(super) fn note(&mut self, flow: Flow) -> bool {
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
    pub(super) fn in_kernel<R>(&mut self, f: impl FnOnce(&mut Task) -> R) -> R {
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
    /// Raise an exception at `rip`. False: leave.
    pub(super) fn raise(&mut self, code: u32, arg: u64) -> bool {
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
    /// Raise at `pc`; gives where the guest goes on.
    pub(super) fn raise_at(&mut self, pc: u64, code: u32) -> u64 {
        self.set_rip(pc);
        if self.raise(code, 0) { self.rip() } else { LEAVE }
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
    /// An exception noted by compiled code or by the fault hook.
    pub(super) fn leave_pending(&mut self) -> u64 {
        // SAFETY: own state.
        let pending = unsafe { (*self.cpu).pending };
        if pending == evm_backend::abi::STEP {
            // SAFETY: own state.
            let careful = unsafe { (*self.cpu).careful() };
            if !careful {
                return self.step_over();
            }
            // SAFETY: own state.
            unsafe { (*self.cpu).pending = 0 };
            return self.strictly(self.rip());
        }
        let code = (pending - 1) as u32;
        if code == exc::XM && self.may_trap() {
            // The state is that before the instruction, and so are the flags that the piece has left there.
            // SAFETY: own state.
            unsafe {
                (*self.cpu).pending = 0;
                set_mxcsr((*self.cpu).mxcsr);
            }
            return self.strictly(self.rip());
        }
        if matches!(code, exc::PF | exc::PF_WRITE | exc::GP) && handles_faults(&self.task) && self.may_do_again() {
            // The region was precise, so the state is that before the instruction: the interpreter does it again and
            // finds the exact address.
            // SAFETY: own state.
            unsafe { (*self.cpu).pending = 0 };
            let pc = self.rip();
            return self.step(pc).unwrap_or(LEAVE);
        }
        self.pending()
    }
    /// Whether the instruction at `rip`, which has faulted, may be done again. ENTER with a nesting level may have written what it
    /// reads; it is a helper, which knows what it was doing.
    fn may_do_again(&self) -> bool {
        let code = self.shared.code_at(self.task.mem(), self.rip());
        !evm_lifter::is_nested_enter(self.space.bits, &code)
    }
}

/// Whether the guest has a handler that wants exact registers at a memory fault.
pub(super) fn handles_faults(t: &Task) -> bool {
    [libc::SIGSEGV, libc::SIGBUS].iter().any(|s| t.process.action(*s).handler > 1)
}
