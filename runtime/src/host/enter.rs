//! Entering and leaving compiled code.
//!
//! Stack of a thread in compiled code, growing down:
//! ```text
//!   Rust frames (run loop)
//!   trampoline: rbp rbx r12 r13 r14 r15 | previous host_sp | state pointer   <- state.host_sp
//!   compiled frames …
//!   (a helper's Rust frames, a nested run loop, another trampoline …)
//! ```
//! A fault in a compiled frame continues at `evm_landing` with rsp = `state.host_sp`: the innermost
//! trampoline returns `u64::MAX` and only compiled frames are skipped.
//!
//! # Safety
//! `evm_enter` is entered with a pointer to code that the Cranelift back end made for this layout of
//! [`CpuState`] and keeps the System V rules for callee-saved registers. The handler hook touches only
//! the faulting thread's own record (thread local) and lock-free tables.
#![allow(unsafe_code)]

use crate::code::memory;
use crate::profile::{self, Tier};
use crate::thread::{Thread, interrupt};
use evm_backend::abi::{MISALIGNED, STEP};
use evm_backend::direct::ADDRESS;
use evm_cpu::{CpuState, exc};
use evm_memory::fault::{ASK, Action, HostFault};
use std::arch::global_asm;
use std::cell::Cell;
use std::mem::offset_of;
use std::sync::Once;
use std::sync::atomic::Ordering;

/// Number of the host's trap for an operand that is not aligned.
const GENERAL_PROTECTION: i64 = 13;

global_asm!(
    ".global evm_enter",
    "evm_enter:",
    "push rbp",
    "mov rbp, rsp",
    "push rbx",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "push qword ptr [rsi + {host_sp}]",
    "push rsi",
    "sub rsp, 8",
    "mov [rsi + {host_sp}], rsp",
    "mov r15, [rsi + {mem_base}]",
    "mov rax, rdi",
    "mov rdi, rsi",
    "mov rsi, rdx",
    "call rax",
    ".global evm_landing",
    "evm_landing:",
    "add rsp, 8",
    "pop rsi",
    "pop qword ptr [rsi + {host_sp}]",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbx",
    "pop rbp",
    "ret",
    host_sp = const offset_of!(CpuState, host_sp),
    mem_base = const offset_of!(CpuState, mem_base),
);

unsafe extern "sysv64" {
    fn evm_enter(code: u64, state: *mut CpuState, pc: u64) -> u64;
    fn evm_landing();
}

/// Run compiled code; gives the next guest pc, or [`crate::thread::LEAVE`].
///
/// # Safety
/// `code` is the start of a published piece and `state` is the running thread's state.
pub(crate) unsafe fn enter(code: u64, state: *mut CpuState, pc: u64) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        let next = evm_enter(code, state, pc);
        (*state).x87_settle();
        next
    }
}

thread_local! {
    static CURRENT: Cell<*mut Thread> = const { Cell::new(std::ptr::null_mut()) };
}

/// Make this thread's record known to the fault hook; null when it ends.
pub(crate) fn set_current(t: *mut Thread) {
    CURRENT.set(t);
}

/// Where the calling thread was when a signal came: what ran, and how many addresses were put into `stack`. `None`: it runs no guest. Safe in a
/// signal handler.
pub(crate) fn sample(rip: u64, rsp: u64, r9: u64, stack: &mut [u64]) -> Option<(Tier, usize)> {
    let t = CURRENT.get();
    if t.is_null() {
        return None;
    }
    // SAFETY: as in `hook`.
    let state = unsafe { &raw mut *(*t).cpu };
    let Some((pc, copied)) = memory::nearest(rip) else {
        // SAFETY: the state lives as long as the record; it is this thread's.
        stack[0] = unsafe { (*state).rip };
        return Some((Tier::Runtime, 1));
    };
    stack[0] = pc;
    if !copied || r9 != state as u64 + u64::from(evm_backend::direct::SHIFT) {
        return Some((Tier::Compiled, 1));
    }
    // SAFETY: copied code runs, so nothing changes the record.
    let bottom = unsafe { (*t).calls_end() };
    Some((Tier::Copied, 1 + bottom.map_or(0, |b| profile::calls(rsp, b, &mut stack[1..]))))
}

/// Register the hook, once per host process.
pub(crate) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| evm_memory::fault::set_hook(hook));
    evm_memory::fault::install();
}

fn hook(f: &mut HostFault<'_>) -> Action {
    const DEBUG: libc::greg_t = 1;
    let t = CURRENT.get();
    let step = f.signal == libc::SIGTRAP && f.context.uc_mcontext.gregs[libc::REG_TRAPNO as usize] == DEBUG;
    if t.is_null() {
        return if f.signal == ASK { Action::Resume } else { Action::Pass };
    }
    // SAFETY: set by the thread that is interrupted; cleared before the record goes away. Only fields that
    // this thread alone uses, or atomics, are touched.
    let (state, space, retried) = unsafe { (&raw mut *(*t).cpu, &*(*t).space_ptr, &mut (*t).retried) };
    // SAFETY: the state lives as long as the record.
    let (base, limit) = unsafe { ((*state).mem_base, (*state).mem_limit) };
    let guest = f.addr.wrapping_sub(base);
    let gregs = &mut f.context.uc_mcontext.gregs;
    // SAFETY: as above; fpregs points into the signal frame.
    unsafe {
        if (*state).x87_live != 0
            && let Some(unit) = f.context.uc_mcontext.fpregs.as_ref()
            && let Some(pc) = memory::copied_pc(unit.rip)
        {
            // Within a block of copied code the host's unit alone knows.
            (*state).fip = pc & ADDRESS;
        }
    }
    if f.signal == ASK || step {
        // SAFETY: as above.
        if unsafe { !(*t).interrupted(state, &mut f.context.uc_mcontext.gregs) } {
            // Again, as soon as that other handler is done: its end brings back the mask that was before it.
            // SAFETY: the context's own mask; the state and the record are this thread's.
            unsafe {
                libc::sigaddset(&raw mut f.context.uc_sigmask, ASK);
                (*t).deaf.store(true, Ordering::Relaxed);
                interrupt((*state).host_tid);
            }
        }
        return Action::Resume;
    }
    let stale = space.stale();
    if f.signal == libc::SIGSEGV && f.write && guest < limit && space.write_fault(guest, retried) {
        // Code was dropped, perhaps what runs here. Copied code is left, and the interpreter does what writes.
        // SAFETY: as above.
        if stale != space.stale() && unsafe { !(*t).leaves_copied(state, gregs, f.signal, f.addr) } {
            // SAFETY: as above.
            unsafe { crate::thread::ask_own(state) };
        }
        return Action::Resume;
    }
    // SAFETY: as above.
    if unsafe { (*t).leaves_copied(state, gregs, f.signal, f.addr) } {
        return Action::Resume;
    }
    // INT3 is behind us, other instructions are at hand.
    let rip = gregs[libc::REG_RIP as usize] as u64 - u64::from(f.signal == libc::SIGTRAP);
    let Some(pc) = memory::guest_pc(rip) else {
        if f.signal == libc::SIGFPE && !f.context.uc_mcontext.fpregs.is_null() {
            // An unmasked SSE exception in the interpreter or a helper: mask, note, go on to the end of the step.
            // SAFETY: fpregs points into the signal frame.
            unsafe {
                let live = &mut (*f.context.uc_mcontext.fpregs).mxcsr;
                (*state).pending = u64::from(exc::XM) + 1;
                (*state).pending_arg = u64::from(*live);
                *live |= 0x1f80;
            }
            return Action::Resume;
        }
        return Action::Pass;
    };
    let noted = |code: u32| u64::from(code) + 1;
    let (pending, arg) = match f.signal {
        // An access that checks its alignment: every address that compiled code forms is canonical.
        libc::SIGSEGV if gregs[libc::REG_TRAPNO as usize] == GENERAL_PROTECTION => (noted(exc::GP), 0),
        libc::SIGSEGV | libc::SIGBUS => {
            // A non-canonical or guard address has no guest meaning of its own: the limit check traps first.
            let near = guest.wrapping_add(1 << 32) < limit + (2 << 32);
            let arg = if near { guest } else { f.addr };
            (noted(if f.write { exc::PF_WRITE } else { exc::PF }), arg)
        }
        libc::SIGFPE => (noted(exc::XM), 0),
        // A region's trap for a failed address check; it has stored the address.
        libc::SIGILL => {
            // SAFETY: as above.
            let addr = unsafe { (*state).pending_arg };
            let canonical = addr as i64 >> 47 == 0 || addr as i64 >> 47 == -1;
            match addr {
                MISALIGNED => (noted(exc::GP), 0),
                _ => (noted(if canonical { exc::PF } else { exc::GP }), addr),
            }
        }
        // That of quick code, whose state is exact: the interpreter finds out.
        libc::SIGTRAP => (STEP, 0),
        _ => return Action::Pass,
    };
    // SAFETY: as above.
    unsafe {
        (*state).rip = pc.unwrap_or(0);
        (*state).pending = pending;
        (*state).pending_arg = arg;
        gregs[libc::REG_RSP as usize] = (*state).host_sp as i64;
    }
    gregs[libc::REG_RIP as usize] = evm_landing as *const () as i64;
    gregs[libc::REG_RAX as usize] = -1;
    Action::Resume
}
