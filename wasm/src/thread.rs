//! The run loop, and the runtime's side of the kernel's `Host` trait.
//!
//! There is one thread: a second guest thread or process cannot be had (EAGAIN). What happens to translated pages while guest code
//! runs is noted in [`Shared`] and done by the loop before the next block, or when a lifted function's call of the kernel ends.
//!
//! Lifted functions call each other; where one has to be left, or comes to code that was not lifted, a nested loop goes on until the guest
//! is back (`evm_runtime`'s `thread/run.rs` has the same scheme). When functions are dropped or stack runs low, everything unwinds to
//! the outermost loop.
//!
//! While a timer is armed, the word that lifted loops poll stays set, as nobody else could interrupt them: each round of a loop
//! comes through here then.
//!
//! # Safety
//! The CPU state belongs to the task, and the `Thread` is reached through its `owner`: references to either end before guest code runs.
#![allow(unsafe_code)]

use crate::code::{self, Block, Blocks, Failure};
use crate::entry;
use crate::lifted::Lifted;
use evm_backend::abi::MISALIGNED;
use evm_backend::interp::{self, Exit};
use evm_cpu::{CpuState, exc, helpers, service};
use evm_fpu::sse;
use evm_kernel::errno::Errno;
use evm_kernel::kernel::{Flow, Host};
use evm_kernel::mm::Mm;
use evm_kernel::task::Task;
use evm_kernel::timers;
use evm_lifter::{Mode, Step};
use evm_memory::{Fault, Mem};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Blocks between looks at the timers.
const LOOK: u32 = 512;
/// "Next pc" of code that leaves for the run loop.
pub const LEAVE: u64 = evm_backend::abi::EXIT_PENDING;
/// Pending: interpret at `rip` (`evm_backend::wasm::abi`, which is not part of this build, says the same).
const STEP: u64 = 1 << 32;
/// Bytes of stack that lifted functions may take, as they count them: about half of what they take of the engine's, of which some have 512 KiB.
const BUDGET: u64 = 160 << 10;
/// What a nested loop takes.
const NESTED: u64 = 3 << 10;

/// What others tell the loop.
#[derive(Default)]
pub struct Shared {
    /// Ranges of the address space whose translations are to be dropped, with the base of the memory.
    changed: Mutex<Vec<(u64, u64, u64)>>,
    has_changed: AtomicBool,
    /// There is something to do in the kernel.
    kicked: AtomicBool,
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
        self.kicked.store(true, Ordering::Relaxed);
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

/// Why all loops unwind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    No,
    /// Start over at the current pc.
    Unwind,
    /// The thread has ended.
    Exit,
}

/// Where a nested loop ends.
#[derive(Clone, Copy)]
pub struct Until {
    /// Expected return address.
    pub ret: u64,
    /// Stack pointer at the callee's entry; the call is over when it has risen above.
    pub rsp: u64,
}

/// The guest's thread.
pub struct Thread {
    task: Task,
    cpu: *mut CpuState,
    shared: Arc<Shared>,
    blocks: Blocks,
    lifted: Lifted,
    frame: interp::Frame,
    leave: Leave,
    until_look: u32,
}

/// Run a task to its end.
pub fn run(mut task: Task, shared: Arc<Shared>) {
    SHARED.with(|s| drop(s.set(shared.clone())));
    evm_memory::set_write_hook(written);
    task.enter();
    let cpu: *mut CpuState = &raw mut *task.cpu;
    shared.cpu.store(cpu as usize, Ordering::Relaxed);
    let v3 = evm_cpu::model::has_v3(task.kernel().config.cpu_model);
    let mut t = Box::new(Thread {
        task,
        cpu,
        shared: shared.clone(),
        blocks: Blocks::new(v3),
        lifted: Lifted::new(),
        frame: interp::Frame::default(),
        leave: Leave::No,
        until_look: LOOK,
    });
    sse::set_mxcsr(t.state().mxcsr);
    let t: *mut Thread = &raw mut *t;
    // SAFETY: one step each with a reference that ends before guest code runs.
    unsafe {
        (*t).bind(t);
        if (*t).kernel(Task::deliver_signals) {
            while (*t).leave != Leave::Exit {
                (*t).leave = Leave::No;
                (*cpu).depth = BUDGET;
                let next = run_on(t, (*cpu).rip, None);
                if next != LEAVE {
                    (*cpu).rip = next;
                }
            }
        }
    }
    shared.cpu.store(0, Ordering::Relaxed);
}

/// The thread of a state.
///
/// # Safety
/// It is the one that [`run`] set up.
pub unsafe fn owner(cpu: *mut CpuState) -> *mut Thread {
    // SAFETY: by the contract.
    unsafe { (*cpu).owner as *mut Thread }
}

/// A call from a lifted function has to go on at `pc`, which is not where it came from.
///
/// # Safety
/// As for [`owner`]; no reference to thread or state is live.
pub unsafe fn nested(cpu: *mut CpuState, pc: u64, until: Until) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        let t = owner(cpu);
        if pc == LEAVE && (*t).leave != Leave::No {
            return LEAVE;
        }
        if ((*cpu).depth as i32) < 2 * NESTED as i32 {
            if pc == LEAVE {
                return LEAVE;
            }
            return (*t).unwind(pc);
        }
        (*cpu).depth -= NESTED;
        let next = run_on(t, pc, Some(until));
        (*cpu).depth += NESTED;
        next
    }
}

/// The run loop. Gives the pc at which it ended, or [`LEAVE`].
unsafe fn run_on(t: *mut Thread, mut pc: u64, until: Option<Until>) -> u64 {
    // Something runs between two looks, even if the next one is due already.
    let mut looked = false;
    loop {
        // SAFETY: one step each with a reference that ends before guest code runs.
        unsafe {
            let cpu = (*t).cpu;
            if (*t).leave != Leave::No {
                if pc != LEAVE {
                    (*cpu).rip = pc;
                }
                return LEAVE;
            }
            if pc == LEAVE {
                pc = (*t).left();
                continue;
            }
            if !looked && (*t).is_due() {
                pc = (*t).look(pc);
                looked = true;
                continue;
            }
            looked = false;
            if let Some(u) = until
                && (pc == u.ret || (*cpu).gpr[4] > u.rsp)
            {
                return pc;
            }
            if (*cpu).careful() {
                pc = (*t).strictly(pc);
                continue;
            }
            pc = match (*t).find(pc) {
                Some(index) if ((*cpu).depth as i32) > 0 => entry::enter(index, cpu, pc),
                Some(_) if until.is_some() => (*t).unwind(pc),
                _ => (*t).block(pc),
            };
        }
    }
}

impl Thread {
    fn state(&mut self) -> &mut CpuState {
        // SAFETY: see the module.
        unsafe { &mut *self.cpu }
    }
    /// Fill in the words of the state that compiled code uses.
    fn bind(&mut self, t: *mut Thread) {
        let arena = self.task.mm().arena().clone();
        let (base, size, table) = (arena.base(), arena.size(), self.lifted.table());
        let cpu = self.state();
        (cpu.mem_base, cpu.mem_limit, cpu.perms, cpu.ibtc) = (base, size, base - (size >> 12), table);
        (cpu.owner, cpu.pending) = (t as u64, 0);
    }
    /// Unwind to the outermost loop, and go on at `pc`.
    fn unwind(&mut self, pc: u64) -> u64 {
        self.state().rip = pc;
        if self.leave == Leave::No {
            self.leave = Leave::Unwind;
        }
        LEAVE
    }
    fn is_due(&mut self) -> bool {
        self.until_look = self.until_look.saturating_sub(1);
        self.until_look == 0 || self.state().poll != 0 || self.shared.has_changed.load(Ordering::Relaxed)
    }
    /// Do what is due before guest code runs at `pc`.
    fn look(&mut self, pc: u64) -> u64 {
        self.until_look = LOOK;
        if self.drop_changed() {
            return self.unwind(pc);
        }
        timers::run_due();
        self.state().rip = pc;
        let going = !self.shared.kicked.swap(false, Ordering::Relaxed) || self.kernel(Task::deliver_signals);
        self.poll_for_timers();
        if going { self.next() } else { LEAVE }
    }
    fn poll_for_timers(&mut self) {
        self.state().poll = u64::from(timers::armed() || self.shared.kicked.load(Ordering::Relaxed));
    }
    fn next(&mut self) -> u64 {
        if self.leave == Leave::No { self.state().rip } else { LEAVE }
    }
    fn find(&mut self, pc: u64) -> Option<u32> {
        self.lifted.find(self.task.mm(), pc)
    }
    /// Drop translations of what has changed; true if lifted functions may be on the stack that are gone.
    fn drop_changed(&mut self) -> bool {
        if !self.shared.has_changed.swap(false, Ordering::Relaxed) {
            return false;
        }
        let changed = std::mem::take(&mut *self.shared.changed.lock().unwrap_or_else(PoisonError::into_inner));
        let base = self.task.mm().arena().base();
        let mut gone = false;
        for (_, start, end) in changed.into_iter().filter(|c| c.0 == base) {
            self.blocks.drop_range(start, end);
            gone |= self.lifted.drop_range(start, end);
        }
        gone
    }
    /// Run kernel code on an exact state; false: all loops unwind.
    fn kernel(&mut self, f: impl FnOnce(&mut Task) -> Flow) -> bool {
        self.state().x87_settle();
        self.state().settle_flags();
        self.state().mxcsr = sse::mxcsr();
        let flow = f(&mut self.task);
        sse::set_mxcsr(self.state().mxcsr);
        match flow {
            Flow::Run => {}
            Flow::ExecDone => {
                self.blocks.clear();
                self.lifted.clear();
                let t: *mut Thread = self;
                self.bind(t);
                self.leave = Leave::Unwind;
            }
            Flow::Exit => self.leave = Leave::Exit,
        }
        self.leave == Leave::No
    }
    /// A lifted function has left at `rip`.
    fn left(&mut self) -> u64 {
        let pc = self.state().rip;
        match self.state().pending {
            // The guest itself jumped to this address.
            0 => self.raise_at(LEAVE, exc::PF_EXEC, LEAVE),
            STEP => {
                self.state().pending = 0;
                let next = self.block(pc);
                self.state().mxcsr = sse::mxcsr();
                self.state().settle_fp_mode();
                next
            }
            _ => self.pending(),
        }
    }
    /// Interpret the block at `pc`; gives the next pc or [`LEAVE`].
    fn block(&mut self, pc: u64) -> u64 {
        self.state().rip = pc;
        match self.blocks.get(self.task.mm(), pc) {
            Ok(b) => self.interpret(&b),
            Err(e) => self.untranslatable(e),
        }
    }
    fn interpret(&mut self, b: &Rc<Block>) -> u64 {
        let mem = self.task.mem();
        // SAFETY: the task's state and memory; nothing borrows the state.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        self.exit(exit)
    }
    fn untranslatable(&mut self, e: Failure) -> u64 {
        match e {
            Failure::Fetch(at) => self.raise(exc::PF_EXEC, at),
            Failure::Internal(e) => {
                eprintln!("evm: {e}; please report this line with the program's name");
                let pc = self.state().rip;
                self.raise(exc::UD, pc)
            }
        }
    }
    fn exit(&mut self, exit: Exit) -> u64 {
        self.state().x87_settle();
        match exit {
            Exit::Jump { pc } | Exit::Return { pc } | Exit::Poll { pc } => pc,
            Exit::Call { target, .. } => target,
            Exit::Service { code, pc, next } => self.service(code, pc, next),
            Exit::Raise { code, arg, pc } => self.raise_at(pc, code, arg),
            Exit::Fault { pc, fault: Fault { addr, write } } => {
                self.raise_at(pc, if write { exc::PF_WRITE } else { exc::PF }, addr)
            }
            Exit::Pending { pc } => {
                self.state().rip = pc;
                self.pending()
            }
        }
    }
    /// A helper left an exception.
    fn pending(&mut self) -> u64 {
        let (code, arg) = (self.state().pending - 1, self.state().pending_arg);
        self.state().pending = 0;
        match code as u32 {
            exc::SKIP => arg,
            // No lifted function may go on.
            exc::MODE => self.unwind(arg),
            code => self.raise(code, arg),
        }
    }
    /// A system call; gives where to go on.
    pub fn service(&mut self, code: u32, pc: u64, next: u64) -> u64 {
        // Each mode has its own way; the other table is not there.
        let bits = self.task.mm().bits;
        if code != if bits == 32 { service::INT80 } else { service::SYSCALL } {
            return self.raise_at(pc, exc::GP, 0);
        }
        self.state().rip = next;
        if !self.kernel(if bits == 32 { Task::syscall32 } else { Task::syscall }) {
            return LEAVE;
        }
        if self.drop_changed() || self.state().careful() {
            let pc = self.state().rip;
            return self.unwind(pc);
        }
        if self.shared.kicked.swap(false, Ordering::Relaxed) && !self.kernel(Task::deliver_signals) {
            return LEAVE;
        }
        self.poll_for_timers();
        self.state().rip
    }
    /// Raise an exception at `pc`; gives where to go on.
    pub fn raise_at(&mut self, pc: u64, code: u32, arg: u64) -> u64 {
        self.state().rip = pc;
        self.raise(code, arg)
    }
    fn raise(&mut self, code: u32, arg: u64) -> u64 {
        let (code, arg) = match code {
            exc::PF | exc::PF_WRITE => self.memory_fault(code, arg),
            exc::UD => {
                self.report_unlifted();
                (code, arg)
            }
            _ => (code, arg),
        };
        if self.kernel(|t| t.exception(code, arg)) { self.state().rip } else { LEAVE }
    }
    /// The exception of a memory access that failed, as the CPU would find it.
    fn memory_fault(&mut self, code: u32, arg: u64) -> (u32, u64) {
        if arg == MISALIGNED {
            return (exc::GP, 0);
        }
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
        let code = code_at(mem, pc);
        if !handled && !evm_lifter::is_undefined(bits, &code) {
            eprintln!("evm: not lifted: {}", evm_lifter::describe(bits, pc, &code));
        }
    }
    /// Run one instruction, with SSE exceptions unmasked, or TF or AC set.
    fn strictly(&mut self, pc: u64) -> u64 {
        self.state().rip = pc;
        let b = match code::translate(self.task.mm(), pc, Mode::Strict, self.blocks.v3) {
            Ok((b, _)) => Rc::new(b),
            Err(e) => return self.untranslatable(e),
        };
        let (bits, code) = (self.task.mm().bits, code_at(self.task.mem(), pc));
        let Ok(step) = Step::begin(bits, pc, &code, self.state()) else {
            return self.raise_at(pc, exc::AC, 0);
        };
        let before = self.state().clone();
        let flags = sse::mxcsr();
        sse::set_mxcsr(flags);
        let mem = self.task.mem();
        // SAFETY: as in `interpret`.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        let raised = sse::raised();
        let cpu = self.state();
        if raised & !(flags >> 7) & 0x3f == 0 {
            let Some(next) = executed(&exit, cpu) else {
                step.undo(cpu);
                return self.exit(exit);
            };
            cpu.x87_settle();
            let (next, traps) = step.end(cpu, next);
            return if traps { self.raise_at(next, exc::DB, 0) } else { next };
        }
        // The instruction was done: take it back.
        (cpu.gpr, cpu.xmm, cpu.ymm_hi, cpu.fpr) = (before.gpr, before.xmm, before.ymm_hi, before.fpr);
        (cpu.cc_op, cpu.cc_a, cpu.cc_b, cpu.cc_c) = (before.cc_op, before.cc_a, before.cc_b, before.cc_c);
        cpu.pending = 0;
        step.undo(cpu);
        sse::set_mxcsr(flags | raised);
        self.raise_at(pc, exc::XM, 0)
    }
}

/// Where the guest goes on after one instruction, if it was executed and asks for nothing.
fn executed(exit: &Exit, cpu: &mut CpuState) -> Option<u64> {
    match exit {
        Exit::Jump { pc } | Exit::Return { pc } | Exit::Poll { pc } => Some(*pc),
        Exit::Call { target, .. } => Some(*target),
        Exit::Pending { .. } if [exc::SKIP, exc::MODE].map(|c| u64::from(c) + 1).contains(&cpu.pending) => {
            cpu.pending = 0;
            Some(cpu.pending_arg)
        }
        _ => None,
    }
}

/// The bytes of the instruction at `pc`, and some behind it.
fn code_at(mem: Mem, pc: u64) -> Vec<u8> {
    let mut bytes = [0u8; 15];
    let n = (1..=15).rev().find(|n| mem.copy_out(pc, &mut bytes[..*n]).is_ok()).unwrap_or(0);
    bytes[..n].to_vec()
}
