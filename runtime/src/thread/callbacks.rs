//! What compiled code calls: the table of its helpers, and those that are the run loop's.
//!
//! # Safety
//! As in [`crate::thread`]: compiled code calls these with its own state, on its own host thread, with everything spilled that the
//! callback may look at. A reference to the record ends before compiled code goes on.
#![allow(unsafe_code)]

use super::run::{Until, nested};
use super::{LEAVE, Leave, Thread};
use crate::stats::Counters;
use evm_backend::abi::{FIRST_HELPER, RuntimeFn};
use evm_cpu::{CpuState, helpers};

/// Addresses by the number of the helper.
pub(super) fn helper_table() -> &'static [u64] {
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

/// The thread record behind a state.
///
/// # Safety
/// `state` is what `Thread::bind` set up, on its own host thread.
#[inline]
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

/// Compiled code asks for a service of the kernel.
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

/// The code at `pc` has counted to where it is hot.
unsafe extern "sysv64" fn fn_hot(state: *mut CpuState, pc: u64) {
    // SAFETY: as in `fn_service`.
    unsafe { (*owner(state)).hot(pc) }
}

/// Compiled code raises an exception at `pc`.
pub(crate) unsafe extern "sysv64" fn fn_raise(state: *mut CpuState, code: u32, arg: u64, pc: u64) -> u64 {
    // SAFETY: as in `fn_service`.
    unsafe {
        (*state).x87_settle();
        let th = &mut *owner(state);
        th.set_rip(pc);
        if th.raise(code, arg) { th.rip() } else { LEAVE }
    }
}
