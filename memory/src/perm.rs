//! The table of page permissions that WebAssembly code looks at: one byte for each guest page.
//!
//! Compiled WebAssembly has no page protection below it, so each access asks this table. It asks once for what
//! lies near: [`READ_NEAR`] and [`WRITE_NEAR`] speak of a page and the one behind it, so that an access that begins in the
//! page and ends within 4096 bytes of its start needs one look, and so do all accesses up to 4096 bytes behind one
//! that was looked up. They follow from the other bits; whoever changes those goes through [`PermTable`].

use std::sync::atomic::{AtomicU8, Ordering};

/// The guest may read the page.
pub const READ: u8 = 1;
/// The guest may write the page.
pub const WRITE: u8 = 2;
/// The guest may execute the page.
pub const EXEC: u8 = 4;
/// Translations were made from the page: a write has to drop them.
pub const CODE: u8 = 8;
/// This page and the next one are [`READ`].
pub const READ_NEAR: u8 = 0x10;
/// This page and the next one are [`WRITE`] and not [`CODE`].
pub const WRITE_NEAR: u8 = 0x20;

/// A view of the table of one address space.
#[derive(Clone, Copy, Debug)]
pub struct PermTable<'a>(&'a [AtomicU8]);

impl<'a> PermTable<'a> {
    /// Over one byte for each page of the address space.
    pub const fn new(bytes: &'a [AtomicU8]) -> PermTable<'a> {
        PermTable(bytes)
    }
    /// What the guest may do with a page; nothing outside of the table.
    pub fn get(&self, page: usize) -> u8 {
        self.0.get(page).map_or(0, |b| b.load(Ordering::Relaxed)) & (READ | WRITE | EXEC | CODE)
    }
    /// Give `count` pages from `first` on these permissions ([`READ`], [`WRITE`], [`EXEC`]). [`CODE`] goes: what was
    /// translated from them is to be dropped.
    pub fn set(&self, first: usize, count: usize, bits: u8) {
        let end = first.saturating_add(count).min(self.0.len());
        for b in self.0.get(first..end).unwrap_or_default() {
            b.store(bits & (READ | WRITE | EXEC), Ordering::Relaxed);
        }
        self.derive(first, end);
    }
    /// Note that translations are made from a page, or that they were dropped.
    pub fn set_code(&self, page: usize, code: bool) {
        if let Some(b) = self.0.get(page) {
            if code {
                b.fetch_or(CODE, Ordering::Relaxed);
            } else {
                b.fetch_and(!CODE, Ordering::Relaxed);
            }
            self.derive(page, page + 1);
        }
    }
    /// Whether each byte of `[addr, addr + len)` may be read, or written without dropping translations.
    pub fn allows(&self, addr: u64, len: u64, write: bool) -> bool {
        let Some(last) = addr.checked_add(len.max(1) - 1) else {
            return false;
        };
        let (first, last) = (addr / crate::PAGE, last / crate::PAGE);
        last < self.0.len() as u64 && (first..=last).all(|p| plain(self.get(p as usize), write))
    }
    /// Bring the derived bits of pages `[first, end)`, and of the one before, up to date.
    fn derive(&self, first: usize, end: usize) {
        for p in (first.saturating_sub(1)..end).rev() {
            let (this, next) = (self.get(p), self.get(p + 1));
            let mut near = 0;
            for (write, bit) in [(false, READ_NEAR), (true, WRITE_NEAR)] {
                if plain(this, write) && plain(next, write) {
                    near |= bit;
                }
            }
            self.0[p].store(this | near, Ordering::Relaxed);
        }
    }
}

fn plain(bits: u8, write: bool) -> bool {
    if write { bits & (WRITE | CODE) == WRITE } else { bits & READ != 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_bits_follow() {
        let bytes: Vec<AtomicU8> = (0..8).map(|_| AtomicU8::new(0)).collect();
        let t = PermTable::new(&bytes);
        let raw = || bytes.iter().map(|b| b.load(Ordering::Relaxed) >> 4).collect::<Vec<_>>();
        t.set(1, 4, READ | WRITE);
        assert_eq!(raw(), [0, 3, 3, 3, 0, 0, 0, 0]);
        t.set_code(3, true);
        assert_eq!(raw(), [0, 3, 1, 1, 0, 0, 0, 0]);
        assert!(t.allows(0x1fff, 2, true) && !t.allows(0x2fff, 2, true) && t.allows(0x2fff, 2, false));
        t.set_code(3, false);
        t.set(2, 1, READ);
        assert_eq!(raw(), [0, 1, 1, 3, 0, 0, 0, 0]);
        // The page behind the last one is not there.
        t.set(5, 99, READ);
        assert_eq!(raw(), [0, 1, 1, 3, 1, 1, 1, 0]);
        assert!(t.allows(0x7fff, 1, false) && !t.allows(0x7fff, 2, false) && !t.allows(u64::MAX, 1, false));
    }
}
