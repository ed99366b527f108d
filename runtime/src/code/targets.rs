//! The table of targets that indirect jumps of copied code go through: see `evm_backend::direct`.
//!
//! It has a word for each address of guest memory: the code of the block there or, nearly everywhere, the way that looks further. That is
//! address space, of which a *chunk* is opened when a jump first comes to it (the fault hook does). An open chunk shows a file of words that
//! all are that way, and has memory of its own where targets were added. What is added is a sample: what that way finds,
//! each [`SAMPLE`]th time. So a target that is jumped to often is there soon, and those that are not cost no memory.
//!
//! A process has its own table when it has made many jumps. Until then it uses the *empty* one, that of all processes, to which nothing is added.
//!
//! # Safety
//! A table owns its reservation. Chunks are opened in it, by fixed mappings of a file that is never shortened, and never closed; words are
//! read and stored as atomics, and only in chunks that are open.
#![allow(unsafe_code)]

use crate::code::tables::Table;
use crate::host::direct::way_dispatch;
use evm_backend::direct::SPACE;
use evm_memory::PAGE;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Each so many finds of the way that looks further are added.
pub(crate) const SAMPLE: u64 = 16;
/// The first of a thread comes later: a process that is shorter has no use for a table, which costs as much as looking further a few
/// thousand times.
pub(crate) const FIRST: u64 = 128 * SAMPLE;

const WORD: u64 = 8;
/// Bytes of a table.
const SIZE: u64 = SPACE * WORD;
/// Bytes that are opened at once: for 64 KiB of the guest's code.
const CHUNK: u64 = 1 << 19;
/// The same of the empty table: a short job has no other, and to fill the file takes longer than to open a few more.
const EMPTY_CHUNK: u64 = 1 << 17;
/// Chunks of a table that are opened at most, as the host bounds the number of mappings. Jumps to others fault, and are looked up.
const MOST: u32 = 4096;
/// The same of all tables together: a quarter of the mappings that Linux lets a process have.
const MOST_OF_ALL: u32 = 16384;
static OPENED: AtomicU32 = AtomicU32::new(0);
/// What has no table has this address for it, at which every access faults.
const NOWHERE: u64 = 1 << 62;

/// Words that all are the way that looks further: a chunk, and one of the empty table.
static FILE: OnceLock<Option<OwnedFd>> = OnceLock::new();
static EMPTY_FILE: OnceLock<Option<OwnedFd>> = OnceLock::new();
static EMPTY: OnceLock<Option<TargetTable>> = OnceLock::new();

/// A table.
pub(super) struct TargetTable {
    start: u64,
    /// Size of a chunk.
    chunk: u64,
    /// What the hook does if threads come to the same chunk at once: one opens it.
    open: Table<AtomicU8>,
    opened: AtomicU32,
    /// Targets can be added.
    own: bool,
    /// Those that were, up to [`LOG`].
    added: Mutex<Vec<u64>>,
    /// How often a target in a page of the table was to be added, by its number modulo their count.
    asked: Box<[AtomicU8; ASKED]>,
}

/// A page of the table is written to when targets in it have been to be added so often: the host gives it its own memory then,
/// which takes as long as looking further a few hundred times.
const OFTEN: u8 = 8;
const ASKED: usize = 1 << 12;

/// A table that has more targets is not emptied for another process.
const LOG: usize = 1 << 14;

/// The file of a table's chunks, and their size.
fn file_of(own: bool) -> (&'static OnceLock<Option<OwnedFd>>, u64) {
    if own { (&FILE, CHUNK) } else { (&EMPTY_FILE, EMPTY_CHUNK) }
}

fn file(own: bool) -> Option<&'static OwnedFd> {
    let (file, size) = file_of(own);
    let made = || {
        let fd = rustix::fs::memfd_create("evm-targets", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
        let words = [way_dispatch().to_le_bytes(); 1 << 12];
        let bytes = words.as_flattened();
        let all = size / bytes.len() as u64;
        (0..all).all(|_| rustix::io::write(&fd, bytes) == Ok(bytes.len())).then_some(fd)
    };
    file.get_or_init(made).as_ref()
}

/// The address of the empty table.
pub(super) fn empty() -> u64 {
    EMPTY.get_or_init(|| TargetTable::new(false).ok()).as_ref().map_or(NOWHERE, |t| t.start)
}

/// A jump in copied code found no memory at this host address. Whether it does now, if it is in this table or the empty one.
/// Signal-safe.
pub(super) fn open(table: Option<&TargetTable>, addr: u64) -> bool {
    let empty = EMPTY.get().and_then(Option::as_ref);
    [table, empty].into_iter().flatten().any(|t| t.chunk(addr).is_some_and(|n| t.open(n)))
}

impl TargetTable {
    /// `own`: to which targets can be added.
    pub(super) fn new(own: bool) -> io::Result<TargetTable> {
        file(own).ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let chunk = file_of(own).1;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), SIZE as usize, libc::PROT_NONE, flags, -1, 0) };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = p as u64;
        match Table::new((SIZE / chunk) as usize) {
            Ok(open) => {
                let (opened, added) = (AtomicU32::new(0), Mutex::default());
                Ok(TargetTable {
                    start,
                    chunk,
                    open,
                    opened,
                    own,
                    added,
                    asked: Box::new([const { AtomicU8::new(0) }; ASKED]),
                })
            }
            Err(e) => {
                // SAFETY: the mapping made above, which nobody knows.
                unsafe { libc::munmap(p, SIZE as usize) };
                Err(e)
            }
        }
    }
    pub(super) fn address(&self) -> u64 {
        self.start
    }
    /// The chunk of a host address.
    fn chunk(&self, addr: u64) -> Option<usize> {
        let at = addr.wrapping_sub(self.start);
        (at < SIZE).then_some((at / self.chunk) as usize)
    }
    fn is_open(&self, chunk: usize) -> bool {
        self.open.slice()[chunk].load(Ordering::Acquire) != 0
    }
    /// Open a chunk, if it is not. A second thread that does so takes away what was added, which is looked up again. Signal-safe.
    fn open(&self, chunk: usize) -> bool {
        if self.is_open(chunk) {
            return true;
        }
        let Some(fd) = file_of(self.own).0.get().and_then(Option::as_ref) else { return false };
        let counts = [(&self.opened, MOST), (&OPENED, MOST_OF_ALL)];
        let undo = || counts.iter().for_each(|c| _ = c.0.fetch_sub(1, Ordering::Relaxed));
        // Both count, whether or not there is room.
        if counts.map(|(n, most)| n.fetch_add(1, Ordering::Relaxed) >= most).contains(&true) {
            undo();
            return false;
        }
        let (prot, kind) = match self.own {
            true => (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE),
            false => (libc::PROT_READ, libc::MAP_SHARED),
        };
        let at = self.start + chunk as u64 * self.chunk;
        let flags = kind | libc::MAP_FIXED | libc::MAP_NORESERVE;
        // SAFETY: inside the reservation of this table; the file has as many bytes.
        let p = unsafe { libc::mmap(at as *mut libc::c_void, self.chunk as usize, prot, flags, fd.as_raw_fd(), 0) };
        if p == libc::MAP_FAILED {
            undo();
            return false;
        }
        self.open.slice()[chunk].store(1, Ordering::Release);
        true
    }
    /// The word of a guest address, if there is memory for it.
    fn word(&self, pc: u64) -> Option<&AtomicU64> {
        let addr = self.start + pc.checked_mul(WORD).filter(|n| *n < SIZE)?;
        let there = self.own && self.is_open(self.chunk(addr)?);
        // SAFETY: an aligned word of an open chunk of this table, which can be written and lives as long as self.
        there.then(|| unsafe { AtomicU64::from_ptr(addr as *mut u64) })
    }
    /// The code of a guest address, for who jumps there often.
    pub(super) fn add(&self, pc: u64, code: u64) {
        let asked = &self.asked[(pc / (PAGE / WORD)) as usize % ASKED];
        // Two threads that count at once are one.
        match asked.load(Ordering::Relaxed) {
            OFTEN.. => self.put(pc, code),
            n => asked.store(n + 1, Ordering::Relaxed),
        }
    }
    fn put(&self, pc: u64, code: u64) {
        if let Some(n) = pc.checked_mul(WORD).and_then(|n| self.chunk(self.start.wrapping_add(n))) {
            self.open(n);
        }
        if let Some(w) = self.word(pc)
            && w.swap(code, Ordering::AcqRel) == way_dispatch()
        {
            let mut added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
            if added.len() <= LOG {
                added.push(pc);
            }
        }
    }
    /// Nothing is added, and what is open stays so. False: it cannot be done.
    pub(super) fn clear(&mut self) -> bool {
        let added = std::mem::take(self.added.get_mut().unwrap_or_else(PoisonError::into_inner));
        let all = added.len() <= LOG;
        self.asked.iter_mut().for_each(|n| *n.get_mut() = 0);
        added.into_iter().filter_map(|pc| self.word(pc)).for_each(|w| w.store(way_dispatch(), Ordering::Relaxed));
        all
    }
    /// The same if it was added. `None`: it has no code any more. Signal-safe.
    pub(super) fn change(&self, pc: u64, code: Option<u64>) {
        if let Some(w) = self.word(pc)
            && w.load(Ordering::Acquire) != way_dispatch()
        {
            w.store(code.unwrap_or_else(way_dispatch), Ordering::Release);
        }
    }
}

impl Drop for TargetTable {
    fn drop(&mut self) {
        OPENED.fetch_sub(self.opened.load(Ordering::Relaxed), Ordering::Relaxed);
        // SAFETY: owned mapping.
        unsafe { libc::munmap(self.start as *mut libc::c_void, SIZE as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_added_changed_and_forgotten() {
        let way = way_dispatch();
        let mut t = TargetTable::new(true).unwrap();
        let code = |t: &TargetTable, pc| t.word(pc).map(|w| w.load(Ordering::Relaxed));
        // Nothing is open. What is not added is not changed.
        assert_eq!(code(&t, 0x1234_5678), None);
        t.change(0x1234_5678, Some(7));
        assert_eq!(code(&t, 0x1234_5678), None);
        // Not at once.
        t.add(0x1234_5678, 4);
        assert_eq!(code(&t, 0x1234_5678), None);
        (0..OFTEN).for_each(|_| t.add(0x1234_5678, 5));
        assert_eq!((code(&t, 0x1234_5678), code(&t, 0x1234_5679)), (Some(5), Some(way)));
        t.change(0x1234_5679, Some(7));
        t.change(0x1234_5678, Some(6));
        assert_eq!((code(&t, 0x1234_5678), code(&t, 0x1234_5679)), (Some(6), Some(way)));
        t.change(0x1234_5678, None);
        assert_eq!(code(&t, 0x1234_5678), Some(way));
        // The last address of guest memory, and those behind it.
        t.put(SPACE - 1, 8);
        assert_eq!(code(&t, SPACE - 1), Some(8));
        for pc in [SPACE, 1 << 61, u64::MAX] {
            t.put(pc, 9);
            assert_eq!(code(&t, pc), None);
        }
        assert!(t.clear());
        assert_eq!((code(&t, 0x1234_5678), code(&t, SPACE - 1)), (Some(way), Some(way)));
        // One with many is not for another process.
        (0..=LOG as u64).for_each(|pc| t.put(pc, 1));
        assert!(!t.clear());
    }

    #[test]
    fn chunks_are_opened_where_one_looks_and_not_all() {
        let t = TargetTable::new(true).unwrap();
        let at = |n: u64| t.address() + n * CHUNK;
        assert!(!open(Some(&t), t.address() - 8) && !open(Some(&t), NOWHERE) && !open(None, at(0)));
        for n in 0..u64::from(MOST) {
            assert!(open(Some(&t), at(n) + 8));
            assert!(open(Some(&t), at(n)));
        }
        assert!(!open(Some(&t), at(MOST.into())));
        assert!(open(Some(&t), at(0)));
        // SAFETY: it was opened.
        assert_eq!(unsafe { (at(1) as *const u64).read() }, way_dispatch());
        // Nothing is added to the empty one.
        let addr = empty() + 16;
        assert!(open(None, addr));
        // SAFETY: it was opened.
        assert_eq!(unsafe { (addr as *const u64).read() }, way_dispatch());
        assert!(EMPTY.get().and_then(Option::as_ref).is_some_and(|e| e.word(2).is_none()));
    }
}
