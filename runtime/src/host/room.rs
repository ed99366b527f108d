//! Whether the host has room for another thread.
//!
//! # Safety
//! Mappings of our own, which go before this returns.
#![allow(unsafe_code)]

const PAGE: usize = 4096;
/// Mappings that a thread is started with: its stack, the one that signals are handled on, that of its calls, each between guards; and some
/// for what starts meanwhile.
const MAPPINGS: usize = 32;

/// Whether this process may have as many more mappings as a thread needs. (The host bounds their number, and guests have most of them. The start of a thread in
/// Rust's library ends the process if it gets none.)
pub(crate) fn for_thread() -> bool {
    // SAFETY: a fresh mapping, inside of which protections change.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let p = libc::mmap(std::ptr::null_mut(), MAPPINGS * PAGE, libc::PROT_NONE, flags, -1, 0);
        if p == libc::MAP_FAILED {
            return false;
        }
        let there = (0..MAPPINGS).step_by(2).all(|n| libc::mprotect(p.add(n * PAGE), PAGE, libc::PROT_READ) == 0);
        libc::munmap(p, MAPPINGS * PAGE);
        there
    }
}
