//! Scratch memory of 32-bit programs: the kernel's own, behind the end of their address space, where structures of
//! their system calls are put in the layout of 64-bit ones. A 32-bit address never gets there.

use super::Mm;
use crate::errno::{Errno, Result};
use crate::process::lock;
use evm_memory::{PAGE, Prot};
use std::sync::Arc;

/// Size of the address space of a 32-bit program: all but the last two pages, as on a 64-bit kernel.
pub(crate) const SIZE_32: u64 = 0xffff_e000;
/// Where the scratch memory starts: behind all that a 32-bit address, an operand's size and a page can reach.
const BASE: u64 = (1 << 32) + (1 << 20);
/// Bytes that a system call can have.
pub(crate) const SLOT: u64 = 64 << 10;
/// Calls that can have scratch memory at once.
const SLOTS: u32 = 8192;
/// Size of the arena of a 32-bit program.
pub(super) const ARENA_32: u64 = BASE + SLOTS as u64 * SLOT;

/// Which slots are free.
#[derive(Default)]
pub(super) struct Slots {
    /// Given back.
    free: Vec<u32>,
    /// Those from here on were never used.
    fresh: u32,
}

/// Scratch memory of one system call.
pub(crate) struct Scratch {
    mm: Arc<Mm>,
    slot: u32,
    used: u64,
}

impl Scratch {
    /// Memory for one call in `mm`, which is that of a 32-bit program.
    pub fn new(mm: &Arc<Mm>) -> Result<Scratch> {
        let mut s = lock(&mm.slots);
        let slot = match s.free.pop() {
            Some(n) => n,
            None => {
                if mm.bits != 32 || s.fresh >= SLOTS {
                    return Err(Errno::ENOMEM);
                }
                let n = s.fresh;
                mm.arena.map_anon(BASE + u64::from(n) * SLOT, SLOT, Prot::RW).map_err(|_| Errno::ENOMEM)?;
                s.fresh += 1;
                n
            }
        };
        Ok(Scratch { mm: mm.clone(), slot, used: 0 })
    }
    /// Address of `len` more bytes, aligned for any structure. Their contents are left from earlier calls.
    pub fn take(&mut self, len: u64) -> Result<u64> {
        let len = len.checked_next_multiple_of(16).ok_or(Errno::ENOMEM)?;
        if len > self.left() {
            return Err(Errno::ENOMEM);
        }
        let at = BASE + u64::from(self.slot) * SLOT + self.used;
        self.used += len;
        Ok(at)
    }
    /// Bytes that are left.
    pub fn left(&self) -> u64 {
        SLOT - self.used
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        lock(&self.mm.slots).free.push(self.slot);
    }
}

const _: () = assert!(BASE.is_multiple_of(PAGE));
