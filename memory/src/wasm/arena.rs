//! Windows: reserve, map, protect.
//!
//! # Safety
//! See [`super`]; ranges are checked by `range`.
#![allow(unsafe_code)]

use super::{DIRTY, Mem, READ, WATCHED, WRITE};
use crate::{PAGE, Prot};
use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;

/// Page size of linear memory.
const GROWTH: u64 = 64 << 10;

thread_local! {
    /// Windows that are free: base and size.
    static FREE: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
}

/// A guest address space's window.
#[derive(Debug)]
pub struct Arena {
    base: u64,
    size: u64,
}

fn no_room() -> io::Error {
    ErrorKind::OutOfMemory.into()
}

impl Arena {
    /// A window of `size` bytes.
    pub fn reserve(size: u64) -> io::Result<Arena> {
        let size = size.next_multiple_of(GROWTH);
        let used = FREE.with_borrow_mut(|f| {
            let i = f.iter().position(|w| w.1 == size)?;
            Some(f.swap_remove(i))
        });
        if let Some((base, size)) = used {
            return Ok(Arena { base, size });
        }
        let table = (size >> 12).next_multiple_of(GROWTH);
        let at = core::arch::wasm32::memory_grow(0, ((size + table) / GROWTH) as usize);
        if at == usize::MAX {
            return Err(no_room());
        }
        Ok(Arena { base: at as u64 * GROWTH + table, size })
    }
    /// Host address of guest address 0.
    pub fn base(&self) -> u64 {
        self.base
    }
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }
    /// Access to its bytes. Copies of the view must not outlive the arena.
    pub fn mem(&self) -> Mem {
        // SAFETY: the window is ours while `self` lives.
        unsafe { Mem::new(self.base, self.size) }
    }
    /// The bytes of the pages of a range.
    fn table(&self, addr: u64, len: u64) -> io::Result<&mut [u8]> {
        if !addr.is_multiple_of(PAGE)
            || !len.is_multiple_of(PAGE)
            || len == 0
            || len > self.size
            || addr > self.size - len
        {
            return Err(ErrorKind::InvalidInput.into());
        }
        // SAFETY: inside the table; there is one thread and the borrow ends with the caller's statement.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.mem().entry(addr), (len >> 12) as usize) })
    }
    /// Zero a page that was written.
    fn clean(&self, page: u64) {
        // SAFETY: a whole page of the window.
        unsafe { ((self.base + page * PAGE) as usize as *mut u8).write_bytes(0, PAGE as usize) };
    }
    /// Map fresh zero pages.
    pub fn map_anon(&self, addr: u64, len: u64, prot: Prot) -> io::Result<()> {
        let first = addr / PAGE;
        for (i, e) in self.table(addr, len)?.iter_mut().enumerate() {
            if *e & DIRTY != 0 {
                self.clean(first + i as u64);
            }
            *e = bits(prot);
        }
        self.mem().derive(first, len / PAGE);
        Ok(())
    }
    /// Files cannot be mapped: the kernel copies.
    pub fn map_file(&self, _: u64, _: u64, _: Prot, _: bool, _: BorrowedFd<'_>, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    /// Give the pages back; later accesses fault.
    pub fn unmap(&self, addr: u64, len: u64) -> io::Result<()> {
        for e in self.table(addr, len)? {
            *e &= DIRTY;
        }
        self.mem().derive(addr / PAGE, len / PAGE);
        Ok(())
    }
    /// Change protection.
    pub fn protect(&self, addr: u64, len: u64, prot: Prot) -> io::Result<()> {
        for e in self.table(addr, len)? {
            *e = *e & DIRTY | bits(prot);
        }
        self.mem().derive(addr / PAGE, len / PAGE);
        Ok(())
    }
    /// `madvise`: MADV_DONTNEED (4), MADV_FREE (8) and MADV_REMOVE (9) make zero pages of anonymous ones, other advice does
    /// nothing.
    pub fn advise(&self, addr: u64, len: u64, advice: i32) -> io::Result<()> {
        let first = addr / PAGE;
        for (i, e) in self.table(addr, len)?.iter_mut().enumerate() {
            if matches!(advice, 4 | 8 | 9) && *e & DIRTY != 0 {
                self.clean(first + i as u64);
                if *e & WRITE == 0 {
                    *e &= !DIRTY;
                }
            }
        }
        Ok(())
    }
    /// Move pages inside the arena (mremap); the old range becomes unmapped.
    pub fn move_pages(&self, from: u64, to: u64, len: u64) -> io::Result<()> {
        self.table(to, len)?;
        for (i, e) in self.table(from, len)?.iter_mut().enumerate() {
            let at = i as u64 * PAGE;
            // SAFETY: both pages are inside the window; they do not overlap, as pages.
            unsafe {
                let (p, q) = ((self.base + from + at) as usize as *const u8, (self.base + to + at) as usize as *mut u8);
                let dst = self.mem().entry(to + at);
                if (*e | *dst) & DIRTY != 0 {
                    q.copy_from_nonoverlapping(p, PAGE as usize);
                }
                *dst = *e | *dst & DIRTY;
            }
            *e &= DIRTY;
        }
        self.mem().derive(from / PAGE, len / PAGE);
        self.mem().derive(to / PAGE, len / PAGE);
        Ok(())
    }
    /// Nothing is behind the pages.
    pub fn sync(&self, addr: u64, len: u64) -> io::Result<()> {
        self.table(addr, len).map(drop)
    }
    /// Nothing is: there are no memory files.
    pub fn dirty_runs(&self, _: u64, _: u64, _anon: bool) -> io::Result<Vec<(u64, u64)>> {
        Ok(vec![])
    }
    /// Not here.
    pub fn write_to(&self, _: BorrowedFd<'_>, _: u64, _: u64) -> io::Result<()> {
        Err(ErrorKind::Unsupported.into())
    }
    /// Pages are never those of a file.
    pub fn renew(&self, _: u64, _: u64, _: Prot) -> io::Result<()> {
        Ok(())
    }
    /// Bytes of `[start, end)` that were written.
    pub fn resident(&self, start: u64, end: u64) -> u64 {
        match self.table(start, end - start) {
            Ok(t) => t.iter().filter(|e| **e & DIRTY != 0).count() as u64 * PAGE,
            Err(_) => 0,
        }
    }
    /// Copy pages into `child` (fork).
    pub fn copy_dirty(&self, child: &Arena, addr: u64, len: u64, _anon: bool) -> io::Result<()> {
        child.table(addr, len)?;
        for (i, e) in self.table(addr, len)?.iter().enumerate() {
            if *e & DIRTY != 0 {
                let at = addr + i as u64 * PAGE;
                // SAFETY: the page of each window.
                unsafe {
                    let (p, q) = ((self.base + at) as usize as *const u8, (child.base + at) as usize as *mut u8);
                    q.copy_from_nonoverlapping(p, PAGE as usize);
                    *child.mem().entry(at) |= DIRTY;
                }
            }
        }
        Ok(())
    }
}

/// The table's byte for a protection. A page that may be written counts as written.
fn bits(p: Prot) -> u8 {
    match (p.read, p.write) {
        (_, true) => READ | WRITE | DIRTY,
        (true, false) => READ,
        _ => 0,
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Ok(t) = self.table(0, self.size) {
            for e in t {
                *e &= DIRTY & !WATCHED;
            }
        }
        FREE.with_borrow_mut(|f| f.push((self.base, self.size)));
    }
}
