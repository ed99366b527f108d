//! The run loop.
//!
//! Nesting. Compiled code calls a guest function as a host function. When the callee has no code, or
//! leaves code before it returned, the cold path calls back and a nested run loop goes on until the
//! guest comes back to the expected return address. It ends early, with the pc it has, when the
//! guest's stack pointer rises past the call (longjmp, exceptions, stack switches): the caller then
//! sees an unexpected pc and unwinds in turn. When the host stack runs low, everything unwinds to the
//! outermost loop; that costs time, never correctness.
//!
//! # Safety
//! As in [`crate::thread`]: one step each is done with a reference to the record, which ends before compiled code runs.
#![allow(unsafe_code)]

use super::{LEAVE, Leave, Thread};
#[cfg(feature = "wasm")]
use crate::config::EngineKind;
use crate::host::enter;
use crate::stats::Counters;
use evm_cpu::exc;

/// Where a nested loop ends.
#[derive(Clone, Copy)]
pub(super) struct Until {
    /// Expected return address.
    pub(super) ret: u64,
    /// Stack pointer at the callee's entry; the call is over when it has risen above.
    pub(super) rsp: u64,
}

/// The run loop. Gives the pc at which it ended, or [`LEAVE`] when `leave` says why.
///
/// # Safety
/// `t` is the calling thread's record and no reference to it is live.
pub(super) unsafe fn run(t: *mut Thread, mut pc: u64, until: Option<Until>) -> u64 {
    let mut nested = until.is_some();
    loop {
        // SAFETY: one step each with a reference that ends before compiled code runs; see the module head.
        unsafe {
            if pc == LEAVE {
                let th = &mut *t;
                (*th.cpu).x87_settle();
                if th.leave != Leave::No {
                    return LEAVE;
                }
                if (*th.cpu).pending == 0 {
                    // Nobody wants to leave: the guest itself jumped to this address.
                    th.set_rip(LEAVE);
                    pc = if th.raise(exc::PF_EXEC, LEAVE) { th.rip() } else { LEAVE };
                    continue;
                }
                pc = th.leave_pending();
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
                (*(*t).cpu).x87_settle();
                pc = (*t).strictly(pc);
                continue;
            }
            #[cfg(feature = "wasm")]
            if (*t).kind == EngineKind::Wasm {
                if stack_pointer() < (*t).stack_limit {
                    return (*t).unwind(pc);
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
            (*(*t).cpu).x87_settle();
            let code = (*t).space.lookup(pc);
            if code != 0 {
                let cpu = (*t).cpu;
                if stack_pointer() < (*t).stack_limit {
                    return (*t).unwind(pc);
                }
                Counters::add(&(*t).engine.counters().jit_entries, 1);
                pc = enter::enter(code, cpu, pc);
                continue;
            }
            pc = (*t).cold(pc);
        }
    }
}

/// A run loop within compiled code, which waits for it.
///
/// # Safety
/// As in [`run`].
#[inline]
pub(super) unsafe fn nested(t: *mut Thread, pc: u64, until: Until) -> u64 {
    // SAFETY: as in `fn_call`; no reference is live.
    unsafe {
        if stack_pointer() < (*t).stack_limit + (1 << 20) && pc != LEAVE {
            return (*t).unwind(pc);
        }
        run(t, pc, Some(until))
    }
}

#[inline]
fn stack_pointer() -> u64 {
    let here = 0u8;
    &raw const here as u64
}
