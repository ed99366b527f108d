//! The counterpart of `host.rs` where the host is WASI: no file of the guest's has a host descriptor, so nothing gets here.

use crate::errno::{Errno, Result};
use evm_memory::Mem;
use std::os::fd::BorrowedFd;

/// Most bytes that one read or write moves.
pub const MAX_RW: u64 = 0x7fff_f000;

/// Read from a host file to guest memory.
pub fn pread_guest(_: BorrowedFd<'_>, _: &Mem, _: u64, _: u64, _: u64) -> Result<usize> {
    Err(Errno::ENOSYS)
}
/// Write guest memory to a host file.
pub fn pwrite_guest(_: BorrowedFd<'_>, _: &Mem, _: u64, _: u64, _: u64) -> Result<usize> {
    Err(Errno::ENOSYS)
}
