//! The tables of a guest process, and their way from a process that has ended to one that begins.
//!
//! Tables cost more to make than what a short program does with them: mappings, and a page fault for each page that is touched, of
//! which tables that are looked at by a hash have hundreds. So a job keeps a few sets, and the next process has what the last one
//! mapped, emptied: what was set is noted.
//!
//! # Safety
//! The tables are anonymous mappings owned by a [`Table`] and viewed as slices of atomics; zero is a
//! valid initial value of each. The part of the entry tables that belongs to images' slots is mapped to read until
//! [`CodeSpace::commit`](super::space::CodeSpace::commit) is called for an index in it, so every store to an entry or a counter comes
//! after that.
#![allow(unsafe_code)]

use crate::cache::format::{BYTES_PER_SLOT, IMAGE_END};
use crate::code::kept::Kept;
use crate::code::records::Records;
use crate::config::EngineKind;
use evm_backend::abi::{IBTC, TARGETS};
use evm_backend::direct::RECORD;
use evm_lifter::AddressHasher;
use evm_memory::{Arena, PAGE};
use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Entry indices an engine can give out one by one; those of images' slots follow.
pub(crate) const MAX_ENTRIES: usize = 1 << 22;
/// All entry indices.
pub(super) const ALL_ENTRIES: usize =
    (MAX_ENTRIES + (IMAGE_END / BYTES_PER_SLOT) as usize).next_multiple_of(CHUNK as usize);
const _: () = assert!(ALL_ENTRIES * 8 <= i32::MAX as usize);
const _: () = assert!(ALL_ENTRIES * (RECORD as usize) <= u32::MAX as usize);
/// Slots whose entries are made writable together: two pages of entries, one of counters.
pub(super) const CHUNK: u32 = 1024;
pub(super) const MAX_NODES: usize = 1 << 22;
/// Bit of a node's index: all translations that an image's file has of a page.
pub(super) const KEPT: u32 = 1 << 31;

/// Sets that a job keeps: as many as processes of a pipeline that end together.
const SETS: usize = 4;
/// Chunks of slots that a set which is kept may have in memory: 8 MB of tables.
const MOST: usize = 256;

/// A zero-initialised table that costs memory only where it is touched.
pub(super) struct Table<T> {
    ptr: *mut T,
    len: usize,
}
// SAFETY: T is an atomic type (see the uses below), shared access is what it is for.
unsafe impl<T: Sync> Sync for Table<T> {}
// SAFETY: the mapping has no thread affinity.
unsafe impl<T: Send> Send for Table<T> {}

impl<T> Table<T> {
    pub(super) fn new(len: usize) -> std::io::Result<Table<T>> {
        // SAFETY: a fresh mapping.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * size_of::<T>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Table { ptr: p.cast(), len })
    }
    /// A table of which `[0, writable)` can be written; the rest counts as no memory until it is opened.
    pub(super) fn partly(len: usize, writable: usize) -> std::io::Result<Table<T>> {
        let t = Table::new(len)?;
        t.protect(writable, len - writable, libc::PROT_READ)?;
        Ok(t)
    }
    pub(super) fn protect(&self, from: usize, len: usize, prot: i32) -> std::io::Result<()> {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: inside the owned mapping; what is mapped to read holds zeros that nobody stores to.
        let r = unsafe { libc::mprotect(self.ptr.add(from).cast(), len * size_of::<T>(), prot) };
        if r == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
    /// Have memory for a part that will be used nearly all: a page fault for each page, or two if it is read first, costs several
    /// times as much. A host that does not know how leaves it to the faults.
    pub(super) fn populate(&self, from: usize, len: usize) {
        assert!(from <= self.len && len <= self.len - from);
        // SAFETY: inside the owned mapping, and no content changes.
        unsafe { libc::madvise(self.ptr.add(from).cast(), len * size_of::<T>(), libc::MADV_POPULATE_WRITE) };
    }
    /// All zero again, and no memory.
    pub(super) fn discard(&mut self) -> std::io::Result<()> {
        // SAFETY: inside the owned mapping, which is anonymous and private; nobody else sees it now.
        let r = unsafe { libc::madvise(self.ptr.cast(), self.len * size_of::<T>(), libc::MADV_DONTNEED) };
        if r == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    }
    /// All zero again, and in memory; the table can be written.
    pub(super) fn clear(&mut self) {
        // SAFETY: the owned mapping, which nobody else sees now; zero is a value of T.
        unsafe { std::ptr::write_bytes(self.ptr, 0, self.len) };
    }
    pub(super) fn slice(&self) -> &[T] {
        // SAFETY: the mapping is `len` zeroed atomics and lives as long as self.
        unsafe { std::slice::from_raw_parts(self.ptr, self.len) }
    }
}
impl<T> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: owned mapping.
        unsafe { libc::munmap(self.ptr.cast(), self.len * size_of::<T>()) };
    }
}

/// What the code space of a process looks things up in.
pub(crate) struct Tables {
    pub(super) entries: Table<AtomicU64>,
    pub(super) ibtc: Table<AtomicU64>,
    pub(super) counts: Table<AtomicU32>,
    /// What copied code jumps through.
    pub(super) records: Records,
    /// Where indirect jumps went.
    pub(super) targets: Table<[AtomicU64; 2]>,
    /// States of pages. Changed under the lock of the address space, except by
    /// [`CodeSpace::write_fault`](super::space::CodeSpace::write_fault).
    pub(super) page_state: Table<AtomicU8>,
    pub(super) page_version: Table<AtomicU32>,
    pub(super) page_head: Table<AtomicU32>,
    /// For a page at which a page with translations can be written as well: that page's number plus 1.
    pub(super) aliases: Table<AtomicU32>,
    /// Nodes (entry index, next node); node 0 is "none".
    pub(super) nodes: Table<[AtomicU32; 2]>,
    pub(super) node_count: AtomicU32,
    /// There is, or was, code other than copied code: `entries`, `ibtc` and `targets` are empty otherwise.
    pub(super) has_entries: AtomicBool,
    /// Chunks of images' slots that can be written.
    pub(super) committed: Mutex<HashSet<u64, BuildHasherDefault<AddressHasher>>>,
}

impl Tables {
    fn new(copies: bool, pages: usize) -> std::io::Result<Tables> {
        Ok(Tables {
            entries: Table::partly(ALL_ENTRIES, MAX_ENTRIES)?,
            records: Records::new(copies)?,
            ibtc: Table::new(IBTC)?,
            counts: Table::partly(ALL_ENTRIES, MAX_ENTRIES)?,
            targets: Table::new(TARGETS)?,
            page_state: Table::new(pages)?,
            page_version: Table::new(pages)?,
            page_head: Table::new(pages)?,
            aliases: Table::new(pages)?,
            nodes: Table::new(MAX_NODES)?,
            node_count: AtomicU32::new(1),
            has_entries: AtomicBool::new(false),
            committed: Mutex::default(),
        })
    }
    /// There is code other than copied code from now on.
    pub(super) fn note_entries(&self) {
        let first = !self.has_entries.load(Ordering::Relaxed) && !self.has_entries.swap(true, Ordering::Relaxed);
        if first && !self.records.used() {
            // All code is of this kind then, and nearly all of the table will be used.
            self.ibtc.populate(0, IBTC);
        }
    }
    /// The entry indices that have code made from a page, which has none after that. Signal-safe.
    pub(super) fn take_page(&self, kept: &Kept, page: usize, mut each: impl FnMut(u32)) {
        let mut n = self.page_head.slice()[page].swap(0, Ordering::AcqRel);
        while n != 0 {
            let node = &self.nodes.slice()[n as usize];
            match node[0].load(Ordering::Relaxed) {
                index if index & KEPT != 0 => kept.each_of(index, page as u64, &mut each),
                index => each(index),
            }
            n = node[1].load(Ordering::Relaxed);
        }
    }
    /// As new, but for memory that is there already and slots that can be written already.
    fn empty(&mut self, watched: &[u32]) -> std::io::Result<()> {
        for page in watched.iter().map(|p| *p as usize) {
            self.page_head.slice()[page].store(0, Ordering::Relaxed);
            self.page_state.slice()[page].store(0, Ordering::Relaxed);
            self.page_version.slice()[page].store(0, Ordering::Relaxed);
            self.aliases.slice()[page].store(0, Ordering::Relaxed);
        }
        self.node_count = AtomicU32::new(1);
        // Entries themselves go below.
        self.records.forget();
        self.records.forget_found()?;
        // Copied code counts as well, in few pages.
        self.counts.discard()?;
        if std::mem::take(self.has_entries.get_mut()) {
            self.entries.discard()?;
            self.ibtc.discard()?;
            self.targets.discard()?;
        }
        Ok(())
    }
}

/// A set that a process is done with: all entries that it has are of pages that are named.
struct Used {
    tables: Tables,
    watched: Vec<u32>,
}

/// The sets of a job.
#[derive(Default)]
pub(crate) struct Pool(Mutex<Vec<Used>>);

impl Pool {
    /// Tables for an address space.
    pub(super) fn lend(self: &Arc<Pool>, arena: &Arena, bits: u32, kind: EngineKind) -> std::io::Result<Lent> {
        let fits = bits == 32 || arena.size() == evm_backend::direct::SPACE;
        let copies = kind == EngineKind::Direct && fits;
        let pages = (arena.size() / PAGE) as usize;
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sets.iter().rposition(|u| copies && u.tables.page_state.slice().len() == pages);
        let used = known.map(|n| sets.remove(n));
        drop(sets);
        // Those that cannot be emptied go.
        let again = used.and_then(|mut u| u.tables.empty(&u.watched).ok().map(|()| u.tables));
        let tables = match again {
            Some(t) => t,
            None => Tables::new(copies, pages)?,
        };
        Ok(Lent { tables: ManuallyDrop::new(tables), pool: self.clone(), rest: None })
    }
}

/// Tables of a process that go back to their pool.
pub(super) struct Lent {
    tables: ManuallyDrop<Tables>,
    pool: Arc<Pool>,
    /// The pages to be emptied.
    rest: Option<Vec<u32>>,
}

impl Lent {
    /// Nothing will run that is found here: when this is dropped the tables may be another process's.
    pub(super) fn done(&mut self, watched: Vec<u32>) {
        self.rest = Some(watched);
    }
}

impl Deref for Lent {
    type Target = Tables;
    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // SAFETY: they are taken once, here.
        let mut tables = unsafe { ManuallyDrop::take(&mut self.tables) };
        let committed = tables.committed.get_mut().unwrap_or_else(PoisonError::into_inner).len();
        if let Some(watched) = self.rest.take()
            && tables.records.used()
            && committed <= MOST
        {
            let mut sets = self.pool.0.lock().unwrap_or_else(PoisonError::into_inner);
            if sets.len() < SETS {
                sets.push(Used { tables, watched });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_next_process_are_empty() {
        let pool: Arc<Pool> = Arc::default();
        let arena = Arena::reserve(evm_backend::direct::SPACE).unwrap();
        let lend = || pool.lend(&arena, 64, EngineKind::Direct).unwrap();
        let kept = || pool.0.lock().unwrap().len();
        let (page, zero) = (3, Ordering::Relaxed);
        // With few targets and with many, which are forgotten in different ways; and once more what was emptied.
        for targets in [1, 100, 100] {
            let mut t = lend();
            assert_eq!(kept(), 0);
            for index in 1..=targets {
                let pc = page as u64 * PAGE + u64::from(index);
                assert_eq!((t.records.code(index), t.records.index(pc)), (None, None));
                t.records.set(pc, index, 0x1234);
                t.records.remember(pc, index);
                (0..200).for_each(|_| t.records.add_target(pc));
                assert_eq!((t.records.code(index), t.records.index(pc)), (Some(0x1234), Some(index)));
                t.nodes.slice()[index as usize][0].store(index, zero);
                t.nodes.slice()[index as usize][1].store(index - 1, zero);
                assert_eq!(t.counts.slice()[index as usize].fetch_add(5, zero), 0);
            }
            assert_eq!(t.node_count.swap(targets + 1, zero), 1);
            assert_eq!(t.page_head.slice()[page].swap(targets, zero), 0);
            assert_eq!(t.page_state.slice()[page].swap(1, zero), 0);
            assert_eq!(t.page_version.slice()[page].swap(2, zero), 0);
            assert_eq!(t.aliases.slice()[page].swap(9, zero), 0);
            assert_eq!(t.entries.slice()[1].load(zero), 0);
            t.note_entries();
            t.entries.slice()[1].store(0x5678, zero);
            t.done(vec![page as u32, page as u32]);
            drop(t);
            assert_eq!(kept(), 1);
        }
        // Those of a process that does not say that it is done are not used again, and others have none.
        drop(lend());
        assert_eq!(kept(), 0);
        let mut t = pool.lend(&arena, 64, EngineKind::Jit).unwrap();
        t.done(vec![]);
        drop(t);
        assert_eq!(kept(), 0);
        let mut all: Vec<_> = (0..SETS + 2).map(|_| lend()).collect();
        all.iter_mut().for_each(|t| t.done(vec![]));
        drop(all);
        assert_eq!(kept(), SETS);
    }
}
