//! Code memory: one range per host process, mapped twice (to write, to execute), filled from the
//! bottom, and the table that finds a region by a host address inside a signal handler.
//!
//! # Safety
//! The two mappings show the same memfd pages. A piece is handed out once by an atomic bump, written
//! through the writable mapping by its owner only, and executed only after its descriptor is
//! published with release order. Descriptors are leaked boxes: never freed, so a signal handler may
//! read them at any time.
#![allow(unsafe_code)]

use super::space::Table;
use evm_backend::direct::ADDRESS;
use std::io;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Code memory of the host process in bytes; reserved, not committed.
const SIZE: usize = 1 << 30;
/// Most regions that can be published.
const MAX_REGIONS: usize = 1 << 19;

/// A published piece of compiled code.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Host address of its first byte.
    pub start: u64,
    /// Length in bytes.
    pub len: u32,
    /// (code offset, guest pc) of each point that may fault, sorted.
    pub pcs: &'static [(u32, u64)],
    /// It is copied code.
    pub copied: bool,
    /// Guest address of its first entry.
    pub pc: u64,
}

pub(crate) struct CodeMemory {
    write: u64,
    exec: u64,
    used: Mutex<Used>,
    pieces: Table<AtomicPtr<Piece>>,
    count: AtomicUsize,
}

/// What is taken of code memory, and what is left of the memory for tables and guest bytes: these live as long, so thousands of
/// small ones share large allocations.
#[derive(Default)]
struct Used {
    code: usize,
    pcs: &'static mut [(u32, u64)],
    bytes: &'static mut [u8],
}

/// Elements of one such allocation.
const CHUNK: usize = 1 << 14;

/// Put a copy of some items where they stay.
fn keep<T: Copy + Default>(left: &mut &'static mut [T], items: &[T]) -> &'static [T] {
    if left.len() < items.len() {
        *left = Box::leak(vec![T::default(); CHUNK.max(items.len())].into_boxed_slice());
    }
    let (now, rest) = std::mem::take(left).split_at_mut(items.len());
    now.copy_from_slice(items);
    *left = rest;
    now
}

static MEMORY: OnceLock<Option<CodeMemory>> = OnceLock::new();

impl CodeMemory {
    fn create() -> io::Result<CodeMemory> {
        // SAFETY: plain system calls; the results are checked.
        unsafe {
            let fd = libc::memfd_create(c"evm-code".as_ptr(), libc::MFD_CLOEXEC);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            if libc::ftruncate(fd, SIZE as i64) != 0 {
                return Err(io::Error::last_os_error());
            }
            let map = |prot| {
                let p = libc::mmap(std::ptr::null_mut(), SIZE, prot, libc::MAP_SHARED | libc::MAP_NORESERVE, fd, 0);
                if p == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(p as u64) }
            };
            let write = map(libc::PROT_READ | libc::PROT_WRITE)?;
            let exec = map(libc::PROT_READ | libc::PROT_EXEC)?;
            libc::close(fd);
            let pieces = Table::new(MAX_REGIONS)?;
            Ok(CodeMemory { write, exec, used: Mutex::default(), pieces, count: AtomicUsize::new(0) })
        }
    }
    /// The host process's code memory; `None` if the host forbids it (then everything is interpreted).
    pub(crate) fn get() -> Option<&'static CodeMemory> {
        MEMORY.get_or_init(|| CodeMemory::create().ok()).as_ref()
    }
    /// Copy code in and publish it; `None` when code memory is full.
    pub(crate) fn publish(&self, pc: u64, code: &[u8], pcs: &[(u32, u64)], copied: bool) -> Option<&'static Piece> {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let at = used.code.next_multiple_of(16);
        let n = self.count.load(Ordering::Relaxed);
        if at + code.len() > SIZE || n == MAX_REGIONS {
            return None;
        }
        // SAFETY: [at, at + len) was not handed out before; the lock makes this writer the only one.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), (self.write + at as u64) as *mut u8, code.len());
        }
        used.code = at + code.len();
        let pcs = keep(&mut used.pcs, pcs);
        let piece: &'static Piece =
            Box::leak(Box::new(Piece { start: self.exec + at as u64, len: code.len() as u32, pcs, copied, pc }));
        self.pieces.slice()[n].store(std::ptr::from_ref(piece).cast_mut(), Ordering::Release);
        self.count.store(n + 1, Ordering::Release);
        Some(piece)
    }
    /// Put guest bytes where they stay.
    pub(crate) fn keep(&self, bytes: &[u8]) -> &'static [u8] {
        keep(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner).bytes, bytes)
    }
}

/// Guest pc of the access at a host address if that is in compiled code, of this run or kept from another: `Some(None)` if it is
/// none that was known to fault. Safe in a signal handler.
pub(crate) fn guest_pc(host: u64) -> Option<Option<u64>> {
    match find(host) {
        Some(piece) => Some(piece.guest_pc(host)),
        None => crate::cache::mapped::guest_pc(host),
    }
}

/// The same of copied code alone, with its marks.
pub(crate) fn copied_pc(host: u64) -> Option<u64> {
    match find(host) {
        Some(piece) => piece.guest_pc(host).filter(|_| piece.copied),
        None => crate::cache::mapped::copied_pc(host),
    }
}

/// Guest address of the code at a host address, or of what is shortly in front of it; and whether that is copied code. `None`: it is none of
/// translated code. Safe in a signal handler.
pub(crate) fn nearest(host: u64) -> Option<(u64, bool)> {
    let Some(piece) = find(host) else { return crate::cache::mapped::nearest(host) };
    let off = (host - piece.start) as u32;
    let before = piece.pcs.partition_point(|p| p.0 <= off).checked_sub(1);
    Some((before.map_or(piece.pc, |n| piece.pcs[n].1 & ADDRESS), piece.copied))
}

/// The piece that holds a host address.
fn find(host: u64) -> Option<&'static Piece> {
    let m = MEMORY.get()?.as_ref()?;
    if host < m.exec || host >= m.exec + SIZE as u64 {
        return None;
    }
    let n = m.count.load(Ordering::Acquire);
    let pieces = m.pieces.slice();
    let at = pieces[..n].partition_point(|p| {
        // SAFETY: the first `count` entries point to leaked descriptors.
        unsafe { (*p.load(Ordering::Acquire)).start <= host }
    });
    let p = pieces.get(at.checked_sub(1)?)?.load(Ordering::Acquire);
    // SAFETY: as above.
    let p: &'static Piece = unsafe { &*p };
    (host < p.start + u64::from(p.len)).then_some(p)
}

impl Piece {
    /// Guest pc of the instruction whose code is at a host address.
    fn guest_pc(&self, host: u64) -> Option<u64> {
        let off = (host - self.start) as u32;
        let at = self.pcs.binary_search_by_key(&off, |p| p.0).ok()?;
        Some(self.pcs[at].1)
    }
}
