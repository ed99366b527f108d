//! Address spaces: which ranges of the arena the guest has mapped, from what, and how it may use them.
//!
//! Invariants:
//! 1. `vmas` are disjoint, page-aligned, inside the arena; what is in none of them is unmapped on the host.
//! 2. Host pages of a VMA have its protection (execution counts as reading), except [`Backing::Hole`], which is never
//!    accessible, and pages that the runtime watches for writes.
//! 3. A VMA with `charged` set is counted with its length in the memory account.
//! 4. No address is random: the same program gets the same addresses in every run.

mod map;
mod remap;
pub(crate) mod scratch;
mod share;
mod snapshot;

#[cfg(test)]
mod tests;

use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::ipc::shm::Segment;
use crate::kernel::Kernel;
use crate::process::lock;
use evm_memory::{Arena, Fault, Mem, PAGE, Prot};
use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

pub(crate) use share::memory_file as segment_file;
pub(crate) use snapshot::Snapshots;

pub use map::MapRequest;
pub use remap::RemapRequest;

/// PROT_READ.
pub const R: u8 = 1;
/// PROT_WRITE.
pub const W: u8 = 2;
/// PROT_EXEC.
pub const X: u8 = 4;

/// Lowest address that can be mapped (vm.mmap_min_addr).
pub const MIN_ADDR: u64 = 0x1_0000;

/// Images (programs, libraries, small files) are mapped below 2 GiB where there is room: then their addresses are
/// 32-bit constants of translated code, and accesses at known addresses need no check.
pub(crate) const IMAGE_LOW: u64 = 0x3000_0000;
/// End of the range for images.
pub(crate) const IMAGE_TOP: u64 = 0x7fff_0000;
/// Distance of the places that an image may prefer.
const IMAGE_STEP: u64 = 1 << 20;
/// Largest mapping that goes there.
pub(crate) const IMAGE_MAX: u64 = 256 << 20;

/// The place for an image of `len` bytes that its path picks in a range, which is as long at least: one of those that are `step` apart.
pub(crate) fn image_place(range: Range<u64>, step: u64, len: u64, path: &[u8]) -> u64 {
    // FNV-1a.
    let hash = path.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    let places = (range.end - range.start - len) / step + 1;
    range.start + (hash ^ hash >> 32) % places * step
}

/// Round up to a page; `None` on overflow.
pub(crate) fn page_up(v: u64) -> Option<u64> {
    Some(v.checked_add(PAGE - 1)? & !(PAGE - 1))
}
/// Round down to a page.
pub(crate) fn page_down(v: u64) -> u64 {
    v & !(PAGE - 1)
}

/// Where the pages of a mapping come from.
#[derive(Clone)]
pub(crate) enum Backing {
    /// Private anonymous pages.
    Anon,
    /// Shared anonymous pages, in a host memory file.
    Shared(Arc<OwnedFd>),
    /// A segment of System V, which is accounted for by itself.
    Segment(Arc<Segment>),
    /// A file with a host descriptor.
    File(Arc<Description>),
    /// A private copy of a file that has none.
    Copy(Arc<Description>),
    /// The part of a copied mapping beyond the file's end: any access is SIGBUS.
    Hole(Arc<Description>),
}

impl Backing {
    fn same(&self, o: &Backing) -> bool {
        match (self, o) {
            (Backing::Anon, Backing::Anon) => true,
            (Backing::Shared(a), Backing::Shared(b)) => Arc::ptr_eq(a, b),
            (Backing::Segment(a), Backing::Segment(b)) => Arc::ptr_eq(a, b),
            (Backing::File(a), Backing::File(b))
            | (Backing::Copy(a), Backing::Copy(b))
            | (Backing::Hole(a), Backing::Hole(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
    fn description(&self) -> Option<&Arc<Description>> {
        match self {
            Backing::File(d) | Backing::Copy(d) | Backing::Hole(d) => Some(d),
            _ => None,
        }
    }
}

/// What a mapping is for (/proc/pid/maps).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Label {
    #[default]
    None,
    Heap,
    Stack,
    Trampolines,
}

/// One mapping; the key in the map is its start.
#[derive(Clone)]
pub(crate) struct Vma {
    pub end: u64,
    pub prot: u8,
    pub shared: bool,
    pub backing: Backing,
    /// Offset in the file of the start.
    pub offset: u64,
    pub charged: bool,
    pub noreserve: bool,
    /// Made with MAP_STACK: large, and used up to a small part.
    pub stack: bool,
    pub dontfork: bool,
    pub wipe: bool,
    /// The pages that nobody has written since are those of the snapshot.
    pub snapshot: bool,
    pub label: Label,
}

impl Vma {
    fn anon(end: u64, prot: u8, label: Label) -> Vma {
        Vma {
            end,
            prot,
            shared: false,
            backing: Backing::Anon,
            offset: 0,
            charged: false,
            noreserve: false,
            stack: false,
            dontfork: false,
            wipe: false,
            snapshot: false,
            label,
        }
    }
    fn has_offset(&self) -> bool {
        !matches!(self.backing, Backing::Anon)
    }
    /// Whether a mapping with these properties counts as memory of the job.
    fn counts(&self) -> bool {
        match self.backing {
            Backing::Shared(_) => true,
            Backing::Hole(_) | Backing::Segment(_) => false,
            _ => !self.shared && self.prot & W != 0 && !self.noreserve && !self.stack,
        }
    }
    /// Whether others may have the same pages.
    fn is_shared(&self) -> bool {
        self.shared || matches!(self.backing, Backing::Shared(_) | Backing::Segment(_))
    }
    fn host_prot(&self) -> Prot {
        if matches!(self.backing, Backing::Hole(_)) { Prot::NONE } else { host_prot(self.prot) }
    }
    /// `next` starts at our end: can the two be one?
    fn joins(&self, start: u64, next: &Vma) -> bool {
        self.snapshot == next.snapshot && self.looks_joined(start, next)
    }
    /// Are the two one for the guest?
    fn looks_joined(&self, start: u64, next: &Vma) -> bool {
        self.prot == next.prot
            && self.shared == next.shared
            && self.charged == next.charged
            && self.noreserve == next.noreserve
            && self.stack == next.stack
            && self.dontfork == next.dontfork
            && self.wipe == next.wipe
            && self.label == next.label
            && self.backing.same(&next.backing)
            && (!self.has_offset() || self.offset.wrapping_add(self.end - start) == next.offset)
    }
}

pub(crate) fn host_prot(p: u8) -> Prot {
    Prot { read: p & (R | W | X) != 0, write: p & W != 0 }
}

/// Everything the lock of an address space protects.
pub(crate) struct Space {
    pub vmas: BTreeMap<u64, Vma>,
    pub brk_start: u64,
    pub brk: u64,
    /// Images are put at this address or above.
    pub images_from: u64,
    /// Searches for free ranges start below this.
    pub mmap_top: u64,
    /// Bytes mapped.
    pub total: u64,
    /// What forked processes may share of it.
    pub snapshot: Option<Arc<OwnedFd>>,
}

/// What the translator needs to know about a page. While there is one, no mapping of its address space changes.
pub struct PageView<'a> {
    /// Where it is.
    pub addr: u64,
    /// The guest may execute it.
    pub executable: bool,
    /// The guest may write it.
    pub writable: bool,
    /// It is of a shared mapping: see [`Mm::writable_aliases`].
    pub shared: bool,
    _space: &'a Space,
}

/// An executable private mapping of a file.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct CodeFile {
    pub start: u64,
    pub end: u64,
    /// R, W, X bits.
    pub prot: u8,
    /// Offset in the file of the start.
    pub offset: u64,
    pub file: Arc<Description>,
}

/// One mapping, for /proc/pid/maps and faults.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct MapEntry {
    pub start: u64,
    pub end: u64,
    /// R, W, X bits.
    pub prot: u8,
    pub shared: bool,
    pub offset: u64,
    pub dev: u64,
    pub ino: u64,
    /// Guest path, `[heap]`, `[stack]` or nothing.
    pub name: Vec<u8>,
}

/// Kind of an access that faulted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store.
    Write,
    /// Instruction fetch.
    Exec,
}

/// The signal of a faulting access, and its si_code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// SIGSEGV, SEGV_MAPERR.
    Unmapped,
    /// SIGSEGV, SEGV_ACCERR.
    Denied,
    /// SIGBUS, BUS_ADRERR: the mapping is there but not what is behind it.
    Beyond,
}

/// The address space of a process (shared by CLONE_VM).
pub struct Mm {
    arena: Arc<Arena>,
    /// 64, or 32 for a 32-bit program.
    pub bits: u32,
    slots: Mutex<scratch::Slots>,
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) space: Mutex<Space>,
    /// Processes that run in it.
    users: AtomicU32,
    /// Number that no other address space of the host process has.
    pub id: u64,
    /// The runtime's own record for this address space (its translations), set in
    /// [`Host::new_arena`](crate::kernel::Host::new_arena).
    pub attachment: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Mm {
    /// A new, empty address space for a program of 64 or 32 bits.
    pub fn new(kernel: &Arc<Kernel>, bits: u32) -> Result<Arc<Mm>> {
        let size = match bits {
            32 => scratch::ARENA_32,
            _ => page_down(kernel.config.arena_size).max(1 << 24),
        };
        Mm::with_size(kernel, bits, size)
    }
    /// A small one that nothing is mapped in: what the first process has before its execve.
    pub(crate) fn empty(kernel: &Arc<Kernel>) -> Result<Arc<Mm>> {
        Mm::with_size(kernel, 64, 1 << 24)
    }
    fn with_size(kernel: &Arc<Kernel>, bits: u32, size: u64) -> Result<Arc<Mm>> {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
        let arena = Arc::new(Arena::reserve(size).map_err(|_| Errno::ENOMEM)?);
        let mm = Arc::new(Mm {
            arena,
            bits,
            slots: Mutex::default(),
            kernel: kernel.clone(),
            space: Mutex::new(Space {
                vmas: BTreeMap::new(),
                brk_start: 0,
                brk: 0,
                images_from: IMAGE_LOW,
                mmap_top: size - PAGE,
                total: 0,
                snapshot: None,
            }),
            id: NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
            attachment: OnceLock::new(),
            users: AtomicU32::new(1),
        });
        kernel.host.new_arena(&mm)?;
        Ok(mm)
    }
    /// Another process runs in it (CLONE_VM).
    pub(crate) fn join(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }
    /// A process has ended or executes another program, and runs no guest code here any more. With the last one all
    /// mappings go, whoever still holds the address space itself: who learns of the end finds what was shared released.
    pub(crate) fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            let mut s = lock(&self.space);
            // First: nothing has to be let go of page by page.
            s.snapshot = None;
            let size = self.size();
            self.clear(&mut s, 0, size);
            // If the host refuses, the pages go with the arena.
            let _ = self.arena.unmap(0, size);
        }
    }
    /// The memory.
    pub fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
    /// Access to the memory.
    pub fn mem(&self) -> Mem {
        self.arena.mem()
    }
    /// Write to the memory for another process. Not while it forks: a page that is put into the snapshot meanwhile would lose that.
    pub(crate) fn write_for_other(&self, addr: u64, bytes: &[u8]) -> std::result::Result<(), Fault> {
        let _space = lock(&self.space);
        self.mem().copy_in(addr, bytes)
    }
    /// Size of the address space.
    pub fn size(&self) -> u64 {
        if self.bits == 32 { scratch::SIZE_32 } else { self.arena.size() }
    }
    /// Bytes of a word of its programs.
    pub fn word(&self) -> u64 {
        u64::from(self.bits / 8)
    }
    /// Look at the page at an address, which is mapped and stays as it is during the call.
    pub fn with_page<T>(&self, addr: u64, look: impl FnOnce(&PageView<'_>) -> T) -> Option<T> {
        let s = lock(&self.space);
        let (_, v) = s.at(addr)?;
        let (addr, writable) = (page_down(addr), v.prot & W != 0);
        Some(look(&PageView { addr, executable: v.prot & X != 0, writable, shared: v.is_shared(), _space: &s }))
    }
    /// The file that the code at an address is from, if it is a private mapping of one.
    pub fn code_file(&self, addr: u64) -> Option<CodeFile> {
        let s = lock(&self.space);
        let (start, v) = s.at(addr)?;
        match &v.backing {
            Backing::File(file) if v.prot & X != 0 && !v.shared => {
                Some(CodeFile { start, end: v.end, prot: v.prot, offset: v.offset, file: file.clone() })
            }
            _ => None,
        }
    }
    /// The executable range around an address.
    pub fn exec_range(&self, addr: u64) -> Option<(u64, u64)> {
        let s = lock(&self.space);
        let (start, v) = s.at(addr)?;
        (v.prot & X != 0).then_some((start, v.end))
    }
    /// The mapping at an address.
    pub fn lookup(&self, addr: u64) -> Option<MapEntry> {
        let s = lock(&self.space);
        s.at(addr).map(|(start, v)| entry(start, v))
    }
    /// All mappings in order.
    pub fn maps(&self) -> Vec<MapEntry> {
        let s = lock(&self.space);
        let mut all: Vec<MapEntry> = vec![];
        let mut last: Option<(u64, &Vma)> = None;
        for (start, v) in &s.vmas {
            match (last, all.last_mut()) {
                (Some((at, l)), Some(e)) if l.end == *start && l.looks_joined(at, v) => e.end = v.end,
                _ => all.push(entry(*start, v)),
            }
            last = Some((*start, v));
        }
        all
    }
    /// Bytes mapped.
    pub fn total(&self) -> u64 {
        lock(&self.space).total
    }
    /// Bytes that Linux would count as mapped now: there a stack is mapped as far as it has grown, here as far as it may.
    pub fn grown(&self) -> u64 {
        let s = lock(&self.space);
        let stacks: Vec<(u64, u64)> =
            s.vmas.iter().filter(|(_, v)| v.label == Label::Stack).map(|(k, v)| (*k, v.end)).collect();
        let may: u64 = stacks.iter().map(|(from, end)| end - from).sum();
        (s.total - may) + share::resident(&self.arena, &stacks)
    }
    /// Bytes that are resident on the host (private and shared).
    pub fn resident(&self) -> u64 {
        let ranges: Vec<(u64, u64)> = lock(&self.space).vmas.iter().map(|(s, v)| (*s, v.end)).collect();
        share::resident(&self.arena, &ranges)
    }
    /// Files of shared mappings that are or may be made writable.
    pub fn shared_writable_files(&self) -> Vec<Arc<Description>> {
        let s = lock(&self.space);
        let writable = |d: &&Arc<Description>| d.flags() & libc::O_ACCMODE as u32 == libc::O_RDWR as u32;
        s.vmas.values().filter(|v| v.shared).filter_map(|v| v.backing.description().filter(writable)).cloned().collect()
    }
    /// Whether the page table of a real machine would have the page of an address: it was touched, and is not PROT_NONE.
    pub fn is_present(&self, addr: u64) -> bool {
        let page = page_down(addr);
        let accessible = lock(&self.space).at(addr).is_some_and(|(_, v)| v.prot != 0);
        accessible && share::resident(&self.arena, &[(page, page + PAGE)]) != 0
    }
    /// Bytes of a range that are resident on the host.
    pub fn resident_in(&self, start: u64, end: u64) -> u64 {
        share::resident(&self.arena, &[(start, end)])
    }
    /// Why an access faulted.
    pub fn fault_kind(&self, addr: u64, access: Access) -> FaultKind {
        let s = lock(&self.space);
        let Some((_, v)) = s.at(addr) else {
            return FaultKind::Unmapped;
        };
        let allowed = match access {
            Access::Read => v.prot & (R | W | X) != 0,
            Access::Write => v.prot & W != 0,
            Access::Exec => v.prot & X != 0,
        };
        if allowed { FaultKind::Beyond } else { FaultKind::Denied }
    }
    /// Guest code in a range that is mapped anew may be other code. What the translator did to protect it went with the mapping;
    /// it can do nothing here meanwhile, since the space is locked.
    pub(crate) fn code_changed(&self, _locked: &Space, addr: u64, len: u64) {
        self.kernel.host.code_changed(self, addr, len);
    }
    /// Guest code in a range may be other code, though the range is mapped as before: the pages that the translator
    /// write-protected can be written again.
    pub(crate) fn code_replaced(&self, s: &Space, addr: u64, end: u64) {
        let first = s.at(addr).map_or(addr, |(k, _)| k);
        let written = |v: &Vma| v.prot & W != 0 && !matches!(v.backing, Backing::Hole(_));
        for (k, v) in s.vmas.range(first..end).filter(|(_, v)| written(v)) {
            let (from, to) = (addr.max(*k), end.min(v.end));
            // What fails here is beyond a file's end.
            let _ = self.arena.protect(from, to - from, v.host_prot());
        }
        self.code_changed(s, addr, end - addr);
    }
}

fn entry(start: u64, v: &Vma) -> MapEntry {
    let mut e =
        MapEntry { start, end: v.end, prot: v.prot, shared: v.shared, offset: 0, dev: 0, ino: 0, name: Vec::new() };
    if let Backing::Segment(g) = &v.backing {
        return MapEntry { offset: v.offset, dev: 1, ino: g.id() as u64, name: g.name(), ..e };
    }
    match v.backing.description() {
        Some(d) => {
            e.offset = v.offset;
            e.name = d.path.clone();
            if let Ok(st) = d.file.stat() {
                e.dev = st.dev;
                e.ino = st.ino;
            }
        }
        None => {
            e.name = match v.label {
                Label::Heap => b"[heap]".to_vec(),
                Label::Stack => b"[stack]".to_vec(),
                Label::Trampolines => b"[vdso]".to_vec(),
                Label::None if v.shared => b"/dev/zero (deleted)".to_vec(),
                Label::None => Vec::new(),
            }
        }
    }
    e
}

impl Space {
    /// The mapping at an address.
    pub fn at(&self, addr: u64) -> Option<(u64, &Vma)> {
        let (s, v) = self.vmas.range(..=addr).next_back()?;
        (addr < v.end).then_some((*s, v))
    }
    /// Whether nothing is mapped in a range.
    pub fn is_free(&self, start: u64, end: u64) -> bool {
        self.vmas.range(..end).next_back().is_none_or(|(_, v)| v.end <= start)
    }
    /// Highest free range of `len` bytes within `[low, high)`.
    pub fn find_free(&self, len: u64, low: u64, high: u64) -> Option<u64> {
        let mut top = high;
        for (s, v) in self.vmas.range(..high).rev() {
            if v.end < top && top - v.end >= len {
                break;
            }
            top = top.min(*s);
            if top < low {
                return None;
            }
        }
        let start = top.checked_sub(len)?;
        (start >= low && self.is_free(start, top)).then_some(start)
    }
    /// A free range among those for images. The same file gets the same address in every process where that is free,
    /// so that translations of a library are good for all programs that use it.
    pub fn find_image(&self, len: u64, path: &[u8]) -> Option<u64> {
        let (low, top) = (self.images_from, IMAGE_TOP.min(self.mmap_top));
        if len > IMAGE_MAX || top < low + len {
            return None;
        }
        let at = image_place(low..top, IMAGE_STEP, len, path);
        if self.is_free(at, at + len) { Some(at) } else { self.find_free(len, low, top) }
    }
    /// Make `addr` a boundary between mappings.
    pub fn split(&mut self, addr: u64) {
        let Some((&s, v)) = self.vmas.range_mut(..addr).next_back() else {
            return;
        };
        if v.end > addr {
            let mut right = v.clone();
            v.end = addr;
            if right.has_offset() {
                right.offset = right.offset.wrapping_add(addr - s);
            }
            self.vmas.insert(addr, right);
        }
    }
    /// Join neighbours that touch `[start, end]`, where they are alike.
    pub fn join(&mut self, start: u64, end: u64) {
        let mut at = self.vmas.range(..start).next_back().map_or(start, |(s, _)| *s);
        while at <= end {
            let Some(v) = self.vmas.get(&at) else {
                match self.vmas.range(at..).next() {
                    Some((s, _)) if *s > at => {
                        at = *s;
                        continue;
                    }
                    _ => return,
                }
            };
            let next = v.end;
            match self.vmas.get(&next) {
                Some(n) if v.joins(at, n) => {
                    let e = n.end;
                    self.vmas.remove(&next);
                    if let Some(v) = self.vmas.get_mut(&at) {
                        v.end = e;
                    }
                }
                _ => {
                    match self.vmas.range(next..).next() {
                        Some((s, _)) => at = *s,
                        None => return,
                    };
                }
            }
        }
    }
    /// Whether `[start, end)` is mapped without holes.
    pub fn covered(&self, start: u64, end: u64) -> bool {
        self.first_hole(start, end).is_none()
    }
    /// First unmapped address of a range.
    pub fn first_hole(&self, start: u64, end: u64) -> Option<u64> {
        let mut at = start;
        while at < end {
            match self.at(at) {
                Some((_, v)) => at = v.end,
                None => return Some(at),
            }
        }
        None
    }
}

impl Drop for Mm {
    fn drop(&mut self) {
        let s = self.space.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        let charged: u64 = s.vmas.iter().filter(|(_, v)| v.charged).map(|(s, v)| v.end - s).sum();
        self.kernel.limits.release_memory(charged);
    }
}
