//! A memory barrier on all threads of the host process (membarrier(2)).
//!
//! # Safety
//! The only unsafe code is the system call membarrier, which takes and gives numbers only.
#![allow(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};

/// MEMBARRIER_CMD_PRIVATE_EXPEDITED and its registration.
const EXPEDITED: i32 = 8;
const REGISTER: i32 = 16;

#[cfg(target_family = "wasm")]
fn command(_: i32) -> bool {
    true // there is one thread
}
#[cfg(not(target_family = "wasm"))]
fn command(cmd: i32) -> bool {
    // SAFETY: membarrier has no pointer arguments.
    unsafe { libc::syscall(libc::SYS_membarrier, cmd, 0, 0) == 0 }
}

/// Returns when every running thread of the process has executed a full barrier.
pub(crate) fn all_threads() {
    static READY: OnceLock<bool> = OnceLock::new();
    fence(Ordering::SeqCst);
    // MEMBARRIER_CMD_GLOBAL needs no registration but takes milliseconds.
    if !*READY.get_or_init(|| command(REGISTER)) || !command(EXPEDITED) {
        command(1);
    }
    fence(Ordering::SeqCst);
}
