//! Accesses, checked in software.
//!
//! # Safety
//! See [`super`].
#![allow(unsafe_code)]

use super::{DIRTY, READ, WATCHED, WRITE};
use crate::perm::{READ_NEAR, WRITE_NEAR};
use crate::{Fault, PAGE};
use std::cell::Cell;

/// A view of one guest address space: base and limit by value. Copyable, cheap.
#[derive(Clone, Copy, Debug)]
pub struct Mem {
    base: u64,
    limit: u64,
}

thread_local! {
    static HOOK: Cell<Option<fn(u64, u64)>> = const { Cell::new(None) };
}
/// Register what is called, with the window's base and the page's address, before a watched page is written.
pub fn set_write_hook(hook: fn(u64, u64)) {
    HOOK.set(Some(hook));
}

impl Mem {
    /// A view of the window at `base` of `limit` bytes.
    ///
    /// # Safety
    /// It is the window of a live [`super::Arena`].
    pub const unsafe fn new(base: u64, limit: u64) -> Mem {
        Mem { base, limit }
    }
    /// Host address of guest address 0.
    pub const fn base(&self) -> u64 {
        self.base
    }
    /// Size of the guest address space.
    pub const fn limit(&self) -> u64 {
        self.limit
    }
    /// The byte of the page of an address below the limit.
    #[inline(always)]
    pub(super) fn entry(&self, addr: u64) -> *mut u8 {
        (self.base as usize - (self.limit >> 12) as usize + (addr >> 12) as usize) as *mut u8
    }
    #[inline(always)]
    fn host(&self, addr: u64) -> *mut u8 {
        (self.base as usize + addr as usize) as *mut u8
    }
    /// Whether an access of a few bytes may be made; it touches at most two pages.
    #[inline(always)]
    fn check(&self, addr: u64, size: u64, want: u8) -> Result<(), Fault> {
        if addr > self.limit - size {
            return Err(Fault { addr, write: want == WRITE });
        }
        // SAFETY: both bytes are in the window's table.
        let have = unsafe { *self.entry(addr) & *self.entry(addr + size - 1) };
        if have & want != 0 { Ok(()) } else { self.refused(addr, size, want) }
    }
    /// The access is not plainly allowed: pages with translated code become writable, others are a fault at the access, or
    /// where it crosses into the page that is not there.
    #[cold]
    #[inline(never)]
    fn refused(&self, addr: u64, size: u64, want: u8) -> Result<(), Fault> {
        let last = (addr + size - 1) & !(PAGE - 1);
        for at in [addr, last.max(addr)] {
            self.page(at, want).map_err(|()| Fault { addr: at, write: want == WRITE })?;
        }
        Ok(())
    }
    /// Whether the page of an address below the limit allows something; a watched page is given up for a write.
    fn page(&self, addr: u64, want: u8) -> Result<(), ()> {
        let e = self.entry(addr);
        // SAFETY: in the window's table.
        let have = unsafe { *e };
        if have & want != 0 {
            return Ok(());
        }
        if want == READ || have & WATCHED == 0 {
            return Err(());
        }
        // SAFETY: as above.
        unsafe { *e = have & !WATCHED | WRITE | DIRTY };
        self.derive(addr / PAGE, 1);
        if let Some(hook) = HOOK.get() {
            hook(self.base, addr & !(PAGE - 1));
        }
        Ok(())
    }
    /// Bring what speaks of two pages up to date, for `count` pages from `first` on and the one before.
    pub(super) fn derive(&self, first: u64, count: u64) {
        let pages = self.limit / PAGE;
        let end = (first + count).min(pages);
        // SAFETY: the window's table.
        let table = unsafe { std::slice::from_raw_parts_mut(self.entry(0), pages as usize) };
        let mut next = table.get(end as usize).copied().unwrap_or(0);
        for e in table[first.saturating_sub(1) as usize..end as usize].iter_mut().rev() {
            let both = *e & next;
            *e = *e & !(READ_NEAR | WRITE_NEAR)
                | if both & READ != 0 { READ_NEAR } else { 0 }
                | if both & WRITE != 0 { WRITE_NEAR } else { 0 };
            next = *e;
        }
    }
    /// Whether the guest may read or write all of a range; a write to a watched page has to be noticed, so it may not.
    pub fn allows(&self, addr: u64, len: u64, want: u8) -> bool {
        if len > self.limit || addr > self.limit - len {
            return false;
        }
        let last = addr + len.max(1) - 1;
        // SAFETY: in the window's table.
        (addr / PAGE..=last / PAGE).all(|p| unsafe { *self.entry(p * PAGE) } & want != 0)
    }
    /// Take the right to write a page away until the hook was called, if it is there.
    pub fn watch(&self, addr: u64) {
        if addr < self.limit {
            let e = self.entry(addr);
            // SAFETY: in the window's table.
            unsafe {
                if *e & WRITE == 0 {
                    return;
                }
                *e = *e & !WRITE | WATCHED;
            }
            self.derive(addr / PAGE, 1);
        }
    }
    /// Read `size` (1, 2, 4, 8) bytes, zero-extended.
    #[inline(always)]
    pub fn load(&self, addr: u64, size: u64) -> Result<u64, Fault> {
        self.check(addr, size, READ)?;
        let p = self.host(addr);
        // SAFETY: the access was checked.
        unsafe {
            Ok(match size {
                1 => u64::from(*p),
                2 => u64::from(p.cast::<u16>().read_unaligned()),
                4 => u64::from(p.cast::<u32>().read_unaligned()),
                _ => p.cast::<u64>().read_unaligned(),
            })
        }
    }
    /// Write the low `size` (1, 2, 4, 8) bytes of `v`.
    #[inline(always)]
    pub fn store(&self, addr: u64, size: u64, v: u64) -> Result<(), Fault> {
        self.check(addr, size, WRITE)?;
        let p = self.host(addr);
        // SAFETY: the access was checked.
        unsafe {
            match size {
                1 => *p = v as u8,
                2 => p.cast::<u16>().write_unaligned(v as u16),
                4 => p.cast::<u32>().write_unaligned(v as u32),
                _ => p.cast::<u64>().write_unaligned(v),
            }
        }
        Ok(())
    }
    /// Read 16 bytes.
    #[inline(always)]
    pub fn load128(&self, addr: u64) -> Result<u128, Fault> {
        self.check(addr, 16, READ)?;
        // SAFETY: the access was checked.
        Ok(unsafe { self.host(addr).cast::<u128>().read_unaligned() })
    }
    /// Write 16 bytes.
    #[inline(always)]
    pub fn store128(&self, addr: u64, v: u128) -> Result<(), Fault> {
        self.check(addr, 16, WRITE)?;
        // SAFETY: the access was checked.
        unsafe { self.host(addr).cast::<u128>().write_unaligned(v) };
        Ok(())
    }
    /// Compare and swap of `size` (1, 2, 4, 8) bytes; gives the old value, zero-extended.
    #[inline]
    pub fn cas(&self, addr: u64, size: u64, expected: u64, new: u64) -> Result<u64, Fault> {
        self.check(addr, size, WRITE)?;
        let old = self.load(addr, size)?;
        if old == expected & u64::MAX >> (64 - 8 * size) {
            self.store(addr, size, new)?;
        }
        Ok(old)
    }
    /// Compare and swap of 16 bytes at a 16-byte aligned address (an unaligned one is a fault).
    pub fn cas128(&self, addr: u64, expected: u128, new: u128) -> Result<u128, Fault> {
        if addr & 15 != 0 {
            return Err(Fault { addr, write: true });
        }
        self.check(addr, 16, WRITE)?;
        let old = self.load128(addr)?;
        if old == expected {
            self.store128(addr, new)?;
        }
        Ok(old)
    }
    /// Go through a range page by page: `f` gets the host address, the offset in the range and the length of each piece. On a fault the pieces
    /// before it have been done.
    fn pieces(&self, addr: u64, len: u64, want: u8, mut f: impl FnMut(*mut u8, usize, usize)) -> Result<(), Fault> {
        let write = want == WRITE;
        if len > self.limit || addr > self.limit - len {
            return Err(Fault { addr, write });
        }
        let mut done = 0;
        while done < len {
            let at = addr + done;
            let n = (PAGE - at % PAGE).min(len - done);
            self.page(at, want).map_err(|()| Fault { addr: at, write })?;
            f(self.host(at), done as usize, n as usize);
            done += n;
        }
        Ok(())
    }
    /// Copy guest bytes out. On a fault some bytes may have been copied.
    pub fn copy_out(&self, addr: u64, buf: &mut [u8]) -> Result<(), Fault> {
        self.pieces(addr, buf.len() as u64, READ, |p, at, n| {
            // SAFETY: `n` bytes of a readable page; no Rust object lives there.
            buf[at..at + n].copy_from_slice(unsafe { std::slice::from_raw_parts(p, n) });
        })
    }
    /// Copy bytes into guest memory. On a fault some bytes may have been copied.
    pub fn copy_in(&self, addr: u64, buf: &[u8]) -> Result<(), Fault> {
        self.pieces(addr, buf.len() as u64, WRITE, |p, at, n| {
            // SAFETY: `n` bytes of a writable page.
            unsafe { std::slice::from_raw_parts_mut(p, n) }.copy_from_slice(&buf[at..at + n]);
        })
    }
    /// Fill guest memory with a byte.
    pub fn fill(&self, addr: u64, len: u64, byte: u8) -> Result<(), Fault> {
        self.pieces(addr, len, WRITE, |p, _, n| {
            // SAFETY: `n` bytes of a writable page.
            unsafe { p.write_bytes(byte, n) };
        })
    }
}
