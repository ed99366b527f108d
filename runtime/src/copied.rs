//! A guest thread in copied code: entering it, and what it is left for.
//!
//! # Safety
//! As in [`crate::thread`]: copied code runs while no reference to the thread's record is live.
#![allow(unsafe_code)]

use crate::code::memory;
use crate::code::targets::SAMPLE;
use crate::code::translate::{self, BlockEntry, Plain, PlainAt};
use crate::host::direct::{self, Shadow};
use crate::stats::Counters;
use crate::thread::{LEAVE, Thread};
use evm_backend::abi::STEP;
use evm_backend::direct::{ADDRESS, DESTINATION, HOT, LOOKUP, SOURCE};
use evm_backend::interp;
use evm_cpu::{CpuState, helper, helpers};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// Single instructions that are kept, at most.
const SINGLES: usize = 1 << 12;

/// A thread's part of the engine that copies.
pub(crate) struct CopiedThread {
    shadow: Shadow,
    /// Instructions that are not copied.
    singles: HashMap<u64, BlockEntry>,
    /// Those among them that take no translation.
    plain: HashMap<u64, PlainAt>,
}

impl Thread {
    /// Set what copied code asks of the state, if it runs in this process.
    pub(crate) fn bind_copied(&mut self) {
        self.copied = None;
        let records = self.space_ref().records();
        if !records.used() {
            return;
        }
        let words = records.words();
        match Shadow::new() {
            Ok(shadow) => {
                // SAFETY: own state.
                let cpu = unsafe { &mut *self.cpu };
                direct::bind(cpu, &shadow);
                (cpu.records, cpu.hashes, cpu.near_targets) = words;
                self.copied = Some(CopiedThread { shadow, singles: HashMap::new(), plain: HashMap::new() });
            }
            Err(e) => self.report(format!("no stack for copied code ({e})")),
        }
    }
    /// The bottom of the stack of calls.
    pub(crate) fn calls_end(&self) -> Option<u64> {
        self.copied.as_ref().map(|c| c.shadow.bottom())
    }
    /// Returns look up where they go: the code that they would go to may be old.
    pub(crate) fn forget_calls(&mut self) {
        if let Some(own) = &self.copied {
            // SAFETY: own state.
            unsafe { (*self.cpu).shadow = own.shadow.bottom() };
        }
    }
    /// Indirect jumps of this thread go to `pc` at once from now on.
    fn add_target(&mut self, pc: u64) {
        let records = self.space_ref().records();
        records.add_target(pc);
        let (_, _, targets) = records.words();
        // SAFETY: own state.
        unsafe { ((*self.cpu).finds, (*self.cpu).near_targets) = (SAMPLE, targets) };
    }
    /// The hook's part: a fault in copied code, or a jump of it to a record that nobody has named. True: the context goes on elsewhere.
    /// Signal-safe.
    pub(crate) fn leaves_copied(
        &self,
        state: *mut CpuState,
        gregs: &mut [libc::greg_t; 23],
        signal: libc::c_int,
        addr: u64,
    ) -> bool {
        let Some(own) = &self.copied else { return false };
        let rip = gregs[libc::REG_RIP as usize] as u64;
        // SAFETY: own state; R9 tells whether this is copied code.
        let inside = gregs[libc::REG_R9 as usize] as u64 == state as u64 + u64::from(evm_backend::direct::SHIFT);
        if !inside {
            return false;
        }
        let out = direct::way_out() as i64;
        if rip == 0 && signal == libc::SIGSEGV {
            gregs[libc::REG_RIP as usize] = out;
            return true;
        }
        if signal == libc::SIGSEGV && own.shadow.is_full(addr) {
            gregs[libc::REG_RSP as usize] = own.shadow.bottom() as i64;
            return true;
        }
        let Some(pc) = memory::copied_pc(rip) else { return false };
        if pc & LOOKUP == LOOKUP {
            if !self.space_ref().records().open_targets(addr) {
                gregs[libc::REG_RIP as usize] = direct::way_dispatch() as i64;
            }
            return true;
        }
        if pc & HOT != 0 {
            // SAFETY: own state.
            unsafe { (*state).hot = 1 };
        } else {
            // SAFETY: own state. The interpreter finds out.
            unsafe { ((*state).pending, (*state).pending_arg) = (STEP, 0) };
        }
        // SAFETY: own state.
        leave_at(pc, gregs, unsafe { (*state).mem_base });
        true
    }
    /// The hook's part: the thread was interrupted, as it is asked to leave copied code; or it comes to the next instruction on its way to a place where
    /// it can. False: what runs is something else that has interrupted copied code. Signal-safe.
    pub(crate) fn interrupted(&self, state: *mut CpuState, gregs: &mut [libc::greg_t; 23]) -> bool {
        const TRAP_FLAG: libc::greg_t = 1 << 8;
        gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
        // SAFETY: own state; these words are touched atomically.
        let (asked, inside, base) = unsafe {
            let word = |p: *mut u64| AtomicU64::from_ptr(p).load(Ordering::SeqCst);
            (word(&raw mut (*state).poll) != 0, word(&raw mut (*state).inside) != 0, (*state).mem_base)
        };
        if !asked || !inside {
            return true;
        }
        let rip = gregs[libc::REG_RIP as usize] as u64;
        if rip == 0 {
            // Of a record that nobody has named; R15 is where the guest goes.
            gregs[libc::REG_RIP as usize] = direct::way_out() as i64;
            return true;
        }
        match direct::place(rip) {
            direct::Place::Entering => gregs[libc::REG_RIP as usize] = direct::way_back() as i64,
            direct::Place::Leaving => {}
            direct::Place::Between => gregs[libc::REG_EFL as usize] |= TRAP_FLAG,
            direct::Place::Elsewhere => match memory::copied_pc(rip) {
                // R15 is where the guest goes.
                Some(pc) if pc & LOOKUP == LOOKUP => gregs[libc::REG_RIP as usize] = direct::way_out() as i64,
                Some(pc) => leave_at(pc, gregs, base),
                None if memory::nearest(rip).is_some_and(|n| n.1) => gregs[libc::REG_EFL as usize] |= TRAP_FLAG,
                None => return false,
            },
        }
        true
    }
    /// Copy the region of the block at `pc`, which has run often.
    fn copy_region(&mut self, pc: u64) {
        let start = std::time::Instant::now();
        let (engine, space, mm) = (self.engine_ref(), self.space_ref(), self.mm());
        let done = crate::guard::caught(pc, || translate::copied_region(engine, space, mm, pc));
        space.cool(engine.entry_index(pc));
        let c = engine.counters();
        Counters::add(&c.compile_us, start.elapsed().as_micros() as u64);
        match done {
            Ok(Some(insns)) => {
                Counters::add(&c.regions_copied, 1);
                Counters::add(&c.insns_copied, insns.into());
            }
            // It is tried again when it has run as often once more; code that is gone is found to be gone when it runs.
            Ok(None) | Err(translate::Failure::Fetch(_)) => {}
            Err(translate::Failure::Internal(e)) => engine.report(e),
        }
    }
    /// Run one instruction that is not copied; gives the next pc or [`LEAVE`].
    fn single(&mut self, pc: u64) -> u64 {
        let known = self.copied.as_ref().and_then(|c| c.singles.get(&pc)).is_some_and(|b| self.space_ref().fresh(b));
        if !known {
            if let Some(next) = self.plain(pc) {
                return next;
            }
            match self.translate_single(pc) {
                Ok(b) => {
                    if let Some(c) = &mut self.copied {
                        if c.singles.len() >= SINGLES {
                            c.singles.clear();
                        }
                        c.singles.insert(pc, b);
                    }
                }
                Err(e) => return self.untranslatable(pc, e),
            }
        }
        // SAFETY: own state.
        unsafe { (*self.cpu).x87_settle() };
        let mem = self.memory();
        let Some(own) = self.copied.as_ref() else { return self.interpret(pc) };
        let Some(b) = own.singles.get(&pc) else { return self.interpret(pc) };
        // SAFETY: the state is the one that this code was prepared for, and this thread's.
        let exit = unsafe { interp::run(&b.code, 0, self.cpu.cast(), mem, &helpers::FNS, &mut self.frame) };
        self.exit(exit, mem)
    }
    /// Do a plain instruction; gives the next pc. `None`: it is another, or raises an exception.
    fn plain(&mut self, pc: u64) -> Option<u64> {
        let known = self.copied.as_ref()?.plain.get(&pc).copied();
        let p = match known.filter(|p| self.space_ref().versions(pc, p.len) == p.versions) {
            Some(p) => p,
            None => {
                let p = translate::plain(self.space_ref(), self.mm(), pc)?;
                let all = &mut self.copied.as_mut()?.plain;
                if all.len() >= SINGLES {
                    all.clear();
                }
                all.insert(pc, p);
                p
            }
        };
        // SAFETY: own state; the reference ends before the helper has it.
        let (rcx, model) = unsafe { ((*self.cpu).gpr[1] as u32, (*self.cpu).model) };
        let helper = match p.what {
            Plain::Cpuid => helper::CPUID,
            Plain::Rdtsc => helper::RDTSC,
            Plain::Xgetbv if rcx == 0 && evm_cpu::model::xcr0(model) != 0 => helper::XGETBV,
            Plain::Xgetbv => return None,
            Plain::Xsavec(at) => return Some(self.save_or_restore(helper::XSAVEC, pc, at, p.len)),
            Plain::Xrstor(at) => return Some(self.save_or_restore(helper::XRSTOR, pc, at, p.len)),
        };
        // SAFETY: own state, to which nothing refers.
        let value = unsafe { helpers::FNS[usize::from(helper)].call(self.cpu.cast(), &[0; 4], &[0; 3]) } as u64;
        if p.what != Plain::Cpuid {
            // SAFETY: own state.
            let cpu = unsafe { &mut *self.cpu };
            (cpu.gpr[0], cpu.gpr[2]) = (value & 0xffff_ffff, value >> 32);
        }
        Some(pc + p.len)
    }
    /// XSAVEC or XRSTOR of the area so many bytes behind RSP; gives the next pc or [`LEAVE`].
    fn save_or_restore(&mut self, helper: u16, pc: u64, at: i8, len: u64) -> u64 {
        // SAFETY: own state; the reference ends before the helper has it.
        let [rax, .., rdx, _, rsp] = unsafe { std::array::from_fn::<u64, 5, _>(|n| (*self.cpu).gpr[n]) };
        let mask = rax & 0xffff_ffff | rdx << 32;
        let args = [rsp.wrapping_add_signed(at.into()), mask, 0, 0];
        // SAFETY: own state, to which nothing refers.
        unsafe { helpers::FNS[usize::from(helper)].call(self.cpu.cast(), &args, &[0; 3]) };
        // SAFETY: own state.
        let done = unsafe {
            (*self.cpu).x87_settle();
            (*self.cpu).pending == 0
        };
        if done {
            return pc + len;
        }
        self.set_rip(pc);
        self.pending()
    }
    fn translate_single(&self, pc: u64) -> Result<BlockEntry, translate::Failure> {
        crate::guard::caught(pc, || translate::single(self.engine_ref(), self.space_ref(), self.mm(), pc))
    }
}

/// Go on at the way out, where the guest has come to `pc`, which has its marks.
fn leave_at(pc: u64, gregs: &mut [libc::greg_t; 23], mem_base: u64) {
    for (mark, register) in [(DESTINATION, libc::REG_RDI), (SOURCE, libc::REG_RSI)] {
        if pc & mark != 0 {
            gregs[register as usize] = gregs[register as usize].wrapping_sub(mem_base as i64);
        }
    }
    gregs[libc::REG_R15 as usize] = (pc & ADDRESS) as i64;
    gregs[libc::REG_RIP as usize] = direct::way_out() as i64;
}

/// Run copied code at `pc`, if there is any; gives the next pc or [`LEAVE`]. `nested`: a caller on the host's stack waits for the end of
/// what runs: its return is to leave copied code. This is seen to once.
///
/// # Safety
/// `t` is the calling thread's record and no reference to it is live.
pub(crate) unsafe fn run(t: *mut Thread, pc: u64, nested: &mut bool) -> Option<u64> {
    // SAFETY: by the contract; references end before copied code runs.
    unsafe {
        let cpu = (*t).cpu;
        let code = (*t).space_ref().copied(pc)?;
        let narrow = (*t).space_ref().bits == 32;
        if narrow {
            // Copied code takes for granted that there are no upper halves.
            (&mut (*cpu).gpr)[..8].iter_mut().for_each(|r| *r &= 0xffff_ffff);
        }
        if (*cpu).gpr[4] >= evm_backend::direct::SPACE {
            // Copied code takes for granted that this is an address.
            return Some((*t).single(pc));
        }
        if std::mem::take(nested)
            && let Some(own) = &(*t).copied
        {
            own.shadow.leave_at_return(&mut *cpu);
        }
        Counters::add(&(*t).engine_ref().counters().jit_entries, 1);
        let next = direct::enter(code, cpu);
        if (*cpu).left == direct::ASKED {
            return Some(pc);
        }
        if (*cpu).pending != 0 {
            (*t).set_rip(next);
            return Some(LEAVE);
        }
        if std::mem::take(&mut (*cpu).hot) != 0 {
            (*t).copy_region(next);
            return Some(next);
        }
        Some(match (*cpu).left {
            direct::SERVICE if narrow => (*t).service(evm_cpu::service::INT80, next.wrapping_sub(2), next),
            direct::SERVICE => {
                (*cpu).gpr[1] = next;
                (*cpu).gpr[11] = (*cpu).rflags();
                (*t).service(evm_cpu::service::SYSCALL, next.wrapping_sub(2), next)
            }
            direct::STEP => (*t).single(next),
            direct::X87 => {
                if (*cpu).x87_load() {
                    next
                } else {
                    (*t).single(next)
                }
            }
            direct::OFTEN => {
                (*t).add_target(next);
                next
            }
            _ => next,
        })
    }
}
