//! Being asked to leave guest code: by a signal, by the end of the job, or because code was dropped.
//!
//! Whoever asks sets the *poll word* of a thread's state, which loops in compiled code look at, and its `stack_limit`, which calls look
//! at; the thread serves both in its run loop. Copied code looks at nothing: a thread in it is interrupted by a signal. Code that was
//! dropped, as it changed, is left in the same way: a thread is *stale* until nothing on its host stack is such code.
//!
//! # Safety
//! As in [`crate::thread`]: states of other threads are touched while the registry of threads is locked, and only in words that all sides
//! touch atomically.
#![allow(unsafe_code)]

use super::{LEAVE, Leave, Thread};
use evm_cpu::CpuState;
use evm_kernel::task::Task;
use std::sync::atomic::{AtomicU64, Ordering};

impl Thread {
    /// Serve the poll word. False: leave.
    pub(super) fn poll(&mut self) -> bool {
        // SAFETY: own state; `poll` and `stack_limit` are written by others atomically.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*self.cpu).poll).store(0, Ordering::SeqCst);
            AtomicU64::from_ptr(&raw mut (*self.cpu).stack_limit).store(self.stack_limit, Ordering::SeqCst);
        }
        if self.deaf.swap(false, Ordering::Relaxed) {
            evm_memory::fault::unblock();
        }
        let flow = self.in_kernel(Task::deliver_signals);
        self.note(flow)
    }
    /// Whether someone asks the thread to leave guest code, or did while it served the last such wish.
    #[inline]
    pub(super) fn wants_poll(&self) -> bool {
        // SAFETY: as in `poll`.
        unsafe {
            AtomicU64::from_ptr(&raw mut (*self.cpu).poll).load(Ordering::Relaxed) != 0
                || AtomicU64::from_ptr(&raw mut (*self.cpu).stack_limit).load(Ordering::Relaxed) == u64::MAX
        }
    }
    /// Whether code was dropped, as it changed, that this thread may be in or return to.
    #[inline]
    pub(super) fn is_stale(&self) -> bool {
        self.stale != self.space.stale()
    }
    /// Have the other threads of this address space leave such code as well.
    pub(super) fn tell(&self) {
        let stale = self.space.stale();
        if self.space.tells(stale) {
            self.shared.leave_code(self.cpu);
        }
    }
    /// No caller of this thread is compiled code: from here on all of its code is new.
    pub(super) fn renew(&mut self) {
        self.stale = self.space.stale();
        self.forget_calls();
    }
    /// Leave all code on the host's stack, and go on at `pc`.
    pub(super) fn unwind(&mut self, pc: u64) -> u64 {
        self.set_rip(pc);
        self.leave = Leave::Unwind;
        LEAVE
    }
}

/// Ask the thread that owns a state to leave guest code soon. Called with the registry of threads locked, so
/// the state is alive.
pub(crate) fn request_poll(cpu: *mut CpuState) {
    // SAFETY: registered states are alive (`Shared::unregister` takes the same lock); these two words are only
    // touched atomically while other threads may be here.
    unsafe {
        AtomicU64::from_ptr(&raw mut (*cpu).poll).store(1, Ordering::SeqCst);
        // Last: a thread that has served the poll word already finds this, and takes back all of it.
        AtomicU64::from_ptr(&raw mut (*cpu).stack_limit).store(u64::MAX, Ordering::SeqCst);
        if AtomicU64::from_ptr(&raw mut (*cpu).inside).load(Ordering::SeqCst) != 0 {
            interrupt(AtomicU64::from_ptr(&raw mut (*cpu).host_tid).load(Ordering::Relaxed));
        }
        let mirror = AtomicU64::from_ptr(&raw mut (*cpu).mirror).load(Ordering::SeqCst) as *mut CpuState;
        if !mirror.is_null() {
            AtomicU64::from_ptr(&raw mut (*mirror).poll).store(1, Ordering::SeqCst);
        }
    }
}

/// Have the hook of a thread that is in copied code look after it, which looks at nothing itself. Signal-safe.
pub(crate) fn interrupt(host_tid: u64) {
    // SAFETY: no pointers; a signal that has a handler which does nothing where nothing is asked.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), host_tid as libc::pid_t, evm_memory::fault::ASK) };
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
