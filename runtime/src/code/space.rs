//! The code space of one guest process: which guest pcs have compiled code or interpreter blocks, and
//! which pages they were made from.
//!
//! Lookups and invalidation are lock-free, because the write fault of a code page is served inside a
//! signal handler. Registration takes the lock.
//!
//! # Safety
//! Plain system calls in what runs in a signal handler. For the tables see [`super::tables`]: every store to an entry, a record or a
//! counter of an image's slot comes after [`CodeSpace::commit`] for its index.
#![allow(unsafe_code)]

use crate::code::kept::Kept;
use crate::code::records::Records;
pub(super) use crate::code::tables::KEPT;
pub(crate) use crate::code::tables::MAX_ENTRIES;
pub(super) use crate::code::tables::{ALL_ENTRIES, CHUNK, Table, Tables};
use crate::code::tables::{Lent, MAX_NODES, Pool};
use crate::code::translate::{BlockEntry, COPIED_LARGE};
use crate::config::EngineKind;
use evm_backend::abi::ibtc_slot;
use evm_kernel::mm::PageView;
use evm_lifter::AddressHasher;
use evm_memory::{Arena, PAGE, Prot};
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whoever writes to code waits while it is there: it goes even if what is done meanwhile panics.
struct Busy<'a>(&'a AtomicBool);
impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// States of a page: no translation; has translations; is being write-protected for them; has them and is write-protected;
/// has been written and is being released.
const UNUSED: u8 = 0;
const WATCHED: u8 = 1;
const PROTECTING: u8 = 2;
const PROTECTED: u8 = 3;
const RELEASING: u8 = 4;

/// Where indirect jumps and calls went, by the low half of their address.
pub(crate) type Targets = HashMap<u32, Vec<u64>>;
type ByPc<T> = HashMap<u64, T, BuildHasherDefault<AddressHasher>>;

/// A compiled region as installed in code spaces.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Host address of its code.
    pub code: u64,
    /// Guest pcs at which it can be entered, with their entry indices.
    pub entries: Vec<(u64, u32)>,
    /// Guest bytes it was made from.
    pub source: Vec<(u64, Vec<u8>)>,
    /// Compiled in precise mode.
    pub precise: bool,
    /// Kept from another run.
    pub kept: bool,
    /// It is copied code.
    pub copied: bool,
    /// Mode that it was translated in.
    pub bits: u32,
    /// For a CPU with the instructions of x86-64-v3.
    pub v3: bool,
    /// It is for address spaces of at least this many bytes.
    pub min_limit: u64,
    /// Guest instructions in it.
    pub insns: u32,
    /// Guest pcs of its blocks that could be entries, and of those that were left out as cold, with their entry indices.
    pub blocks: Vec<(u64, u32)>,
}

/// Code of the quick tier for a basic block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuickPiece {
    /// Host address of its code.
    pub code: u64,
    /// Guest address of the block.
    pub pc: u64,
    /// Entry index of that.
    pub index: u32,
    /// Guest bytes it was made from.
    pub source: &'static [u8],
    /// See [`Compiled`].
    pub bits: u32,
    /// See [`Compiled`].
    pub v3: bool,
    /// See [`Compiled`].
    pub min_limit: u64,
    /// See [`CodeSpace::traps`].
    pub traps: bool,
    /// It is copied code.
    pub copied: bool,
}

/// The pieces of an engine, for processes that have not made them.
#[derive(Default)]
pub(crate) struct QuickStore {
    /// Number of the newest of a pc.
    newest: ByPc<u32>,
    /// With the number of the one before, of the same pc.
    pieces: Vec<(QuickPiece, Option<u32>)>,
}

/// Pieces of one pc that are looked at: code that is changed again and again is made anew in the end.
const VARIANTS: usize = 4;

impl QuickStore {
    pub(crate) fn add(&mut self, p: QuickPiece) {
        let n = self.pieces.len() as u32;
        let before = self.newest.insert(p.pc, n);
        self.pieces.push((p, before));
    }
    /// The pieces of a pc, the newest first.
    pub(crate) fn of(&self, pc: u64) -> [Option<QuickPiece>; VARIANTS] {
        let mut next = self.newest.get(&pc).copied();
        [(); VARIANTS].map(|()| {
            let (piece, before) = self.pieces.get(next? as usize)?;
            next = *before;
            Some(*piece)
        })
    }
}

pub(crate) struct CodeSpace {
    /// In front of what else there is, as [`CodeSpace`] reads like them.
    tables: Lent,
    /// Times that a pc was reported hot.
    asked: Mutex<HashMap<u64, u32>>,
    /// Held while translations are installed.
    installs: Mutex<()>,
    /// Entries are being set whose versions were looked at before; see [`CodeSpace::installing`].
    busy: AtomicBool,
    /// Translations of images that were kept from other runs.
    pub(super) kept: Kept,
    /// Pages that ever had translations; two threads that come to one together may name it twice.
    watched: Mutex<Vec<u32>>,
    /// Changes whenever any page's version does.
    pub(crate) generation: AtomicU64,
    /// Changes whenever translations are dropped because their page changed: threads may still be in them, or return to them.
    stale: AtomicU64,
    /// The last value of `stale` that all threads have been told of.
    told: AtomicU64,
    /// Host base of guest memory.
    base: u64,
    regions: Mutex<ByPc<Arc<Compiled>>>,
    /// Region that holds each block, live or not, and the block's entry counter when it was installed.
    owners: Mutex<ByPc<(Arc<Compiled>, u32)>>,
    /// Regions that were kept from other runs, and whose blocks are in no map: many processes install them, few look for
    /// one. Their blocks were counted from the start.
    kept_regions: Mutex<Vec<Arc<Compiled>>>,
    /// Times that the region at a pc was compiled.
    compiled: Mutex<HashMap<u64, u32>>,
    /// Where large regions of copied code begin, or began.
    large: Mutex<HashSet<u64>>,
    /// Interpreter blocks by pc.
    blocks: Mutex<HashMap<u64, Arc<BlockEntry>>>,
    /// Keeps the memory alive.
    pub(crate) arena: Arc<Arena>,
    /// Mode of the code: 64 or 32.
    pub(crate) bits: u32,
    /// The CPU has the instructions of x86-64-v3.
    pub(crate) v3: bool,
    pub(crate) invalidations: AtomicU64,
    /// See [`CodeSpace::traps`].
    traps: AtomicBool,
    /// What the WebAssembly engine has in front of guest memory.
    #[cfg(feature = "wasm")]
    pub(crate) front: Option<crate::wasm::Front>,
}

impl Deref for CodeSpace {
    type Target = Tables;
    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl Drop for CodeSpace {
    fn drop(&mut self) {
        self.harvest();
        let watched = std::mem::take(self.watched.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.tables.done(watched);
    }
}

impl CodeSpace {
    pub(crate) fn new(
        arena: Arc<Arena>,
        bits: u32,
        v3: bool,
        kind: EngineKind,
        pool: &Arc<Pool>,
    ) -> std::io::Result<CodeSpace> {
        let tables = pool.lend(&arena, bits, kind)?;
        #[cfg(feature = "wasm")]
        // The one of a process before its execve is smaller, and nothing runs in it.
        let window = kind == EngineKind::Wasm && bits == 64 && arena.size() == crate::wasm::ARENA;
        #[cfg(feature = "wasm")]
        let front = if window { Some(crate::wasm::Front::new(arena.clone())?) } else { None };
        Ok(CodeSpace {
            tables,
            asked: Mutex::new(HashMap::new()),
            installs: Mutex::new(()),
            busy: AtomicBool::new(false),
            kept: Kept::default(),
            watched: Mutex::new(Vec::new()),
            generation: AtomicU64::new(1),
            stale: AtomicU64::new(0),
            told: AtomicU64::new(0),
            base: arena.base(),
            regions: Mutex::default(),
            owners: Mutex::default(),
            kept_regions: Mutex::default(),
            compiled: Mutex::new(HashMap::new()),
            large: Mutex::default(),
            blocks: Mutex::new(HashMap::new()),
            arena,
            bits,
            v3,
            invalidations: AtomicU64::new(0),
            traps: AtomicBool::new(false),
            #[cfg(feature = "wasm")]
            front,
        })
    }
    /// Set an entry to code other than copied code, or to 0.
    pub(super) fn set_entry(&self, index: u32, code: u64) {
        self.note_entries();
        self.entries.slice()[index as usize].store(code, Ordering::Release);
    }
    /// Make the entries and counters of these indices writable. False if the host refuses.
    pub(crate) fn commit(&self, first: u32, len: u32) -> bool {
        if (first + len) as usize <= MAX_ENTRIES || len == 0 {
            return true;
        }
        let mut done = self.committed.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut chunk, to) = (first / CHUNK, (first + len).div_ceil(CHUNK).min((ALL_ENTRIES as u32) / CHUNK));
        while let Some(from) = (chunk..to).find(|c| !done.contains(&u64::from(*c))) {
            let end = (from..to).find(|c| done.contains(&u64::from(*c))).unwrap_or(to);
            let (at, n) = ((from * CHUNK) as usize, ((end - from) * CHUNK) as usize);
            let rw = libc::PROT_READ | libc::PROT_WRITE;
            if self.entries.protect(at, n, rw).is_err()
                || self.counts.protect(at, n, rw).is_err()
                || self.records.commit(at, n).is_err()
            {
                return false;
            }
            if self.records.used() {
                self.records.name_all(at..at + n);
            } else if n > CHUNK as usize {
                self.entries.populate(at, n);
            }
            done.extend(u64::from(from)..u64::from(end));
            chunk = end;
        }
        true
    }
    /// Host address of the entry table.
    pub(crate) fn entries_ptr(&self) -> u64 {
        self.entries.slice().as_ptr() as u64
    }
    /// Host address of the table of entry counters.
    pub(crate) fn counts_ptr(&self) -> u64 {
        self.counts.slice().as_ptr() as u64
    }
    /// Host address of the table of targets of indirect jumps.
    pub(crate) fn targets_ptr(&self) -> u64 {
        self.targets.slice().as_ptr() as u64
    }
    /// Where indirect jumps and calls went, by the low half of their address.
    pub(crate) fn targets(&self) -> Targets {
        let mut all = Targets::new();
        for [target, jump] in self.targets.slice() {
            let (target, jump) = (target.load(Ordering::Relaxed), jump.load(Ordering::Relaxed));
            if jump != 0 {
                all.entry(jump as u32).or_default().push(target);
            }
        }
        all
    }
    /// How often quick code at `pc` was reported hot.
    pub(crate) fn reports(&self, pc: u64) -> u32 {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).get(&pc).copied().unwrap_or(0)
    }
    /// Quick code at `pc` was reported hot; true if it is to be compiled: the first time, and ever more rarely after
    /// that, as code may have been dropped.
    pub(crate) fn is_wanted(&self, pc: u64, index: u32) -> bool {
        if !self.commit(index, 1) {
            return false;
        }
        // The count itself has wrapped around; its low bits are free to say so.
        self.counts.slice()[index as usize].fetch_or(1, Ordering::Relaxed);
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let n = asked.entry(pc).or_insert(0);
        *n += 1;
        n.is_power_of_two()
    }
    /// Host address of the indirect branch table.
    pub(crate) fn ibtc_ptr(&self) -> u64 {
        self.ibtc.slice().as_ptr() as u64
    }
    /// Compiled code for an entry index, or 0.
    pub(crate) fn code(&self, index: u32) -> u64 {
        self.entries.slice()[index as usize].load(Ordering::Acquire)
    }
    /// Compiled code for a guest pc by the indirect branch table, or 0.
    pub(crate) fn lookup(&self, pc: u64) -> u64 {
        if !self.has_entries.load(Ordering::Relaxed) {
            // The table is empty; looking there would cost a page fault for nearly every pc.
            return 0;
        }
        let w = self.ibtc.slice()[ibtc_slot(pc)].load(Ordering::Relaxed);
        if w >> 32 != pc >> 16 || w == 0 {
            return 0;
        }
        self.code(w as u32)
    }
    /// What copied code jumps through.
    pub(crate) fn records(&self) -> &Records {
        &self.records
    }
    /// Copied code for a guest pc.
    pub(crate) fn copied(&self, pc: u64) -> Option<u64> {
        self.records.index(pc).and_then(|index| self.records.code(index))
    }
    /// Let indirect branches find a pc.
    pub(crate) fn remember(&self, pc: u64, index: u32) {
        if self.records.code(index).is_some() {
            self.records.remember(pc, index);
        } else if pc >> 48 == 0 {
            self.note_entries();
            self.ibtc.slice()[ibtc_slot(pc)].store((pc >> 16) << 32 | u64::from(index), Ordering::Relaxed);
        }
    }
    /// Version of the page that holds an address; changes when its code may have changed.
    pub(crate) fn version(&self, addr: u64) -> u32 {
        self.page_version.slice().get((addr / PAGE) as usize).map_or(0, |v| v.load(Ordering::SeqCst))
    }
    /// Sum of the versions of the pages of a range: equal sums mean unchanged code (versions only grow).
    pub(crate) fn versions(&self, start: u64, len: u64) -> u64 {
        let mut sum = 0;
        let mut page = start / PAGE;
        while page <= (start + len.max(1) - 1) / PAGE {
            sum += u64::from(self.version(page * PAGE));
            page += 1;
        }
        sum
    }
    /// Changes whenever translations are dropped that a thread may still run, or return to.
    pub(crate) fn stale(&self) -> u64 {
        self.stale.load(Ordering::Acquire)
    }
    /// Whether nobody has told the other threads yet that this is the value of [`CodeSpace::stale`]; the caller does so.
    pub(crate) fn tells(&self, stale: u64) -> bool {
        self.told.fetch_max(stale, Ordering::AcqRel) < stale
    }
    /// Note that translations are made from a page, before its bytes are read; gives its version.
    pub(crate) fn watch(&self, view: &PageView<'_>) -> u32 {
        let page = (view.addr / PAGE) as usize;
        let Some(s) = self.page_state.slice().get(page) else {
            return 0;
        };
        // The version first: if the page is protected after it was read, each write that comes raises it.
        let (version, now) = loop {
            let version = self.version(view.addr);
            match s.load(Ordering::SeqCst) {
                RELEASING => std::thread::yield_now(),
                now => break (version, now),
            }
        };
        // A page that was dropped before is in the list already.
        if now == UNUSED && version == 0 {
            self.watched.lock().unwrap_or_else(PoisonError::into_inner).push(page as u32);
        }
        if view.writable && now != PROTECTED {
            // Only one thread is here, since the address space is locked; who writes the page now waits for the last mark.
            s.store(PROTECTING, Ordering::Release);
            let _ = self.arena.protect(view.addr, PAGE, Prot::R);
            s.store(PROTECTED, Ordering::Release);
        } else if !view.writable {
            let _ = s.compare_exchange(UNUSED, WATCHED, Ordering::AcqRel, Ordering::Acquire);
        }
        version
    }
    /// Note that what is written to the page `alias` is written to the page of `addr`, which is watched.
    pub(crate) fn watch_alias(&self, alias: &PageView<'_>, addr: u64) {
        if let Some(a) = self.aliases.slice().get((alias.addr / PAGE) as usize)
            && alias.writable
        {
            a.store((addr / PAGE) as u32 + 1, Ordering::Release);
            self.watch(alias);
        }
    }
    /// Serve a host write fault at a guest address: true if the page was protected only by us, so that the write is to be tried
    /// again. `last` is the page and version of this thread's last write that was tried again because another thread may have
    /// been first. Signal-safe.
    pub(crate) fn write_fault(&self, addr: u64, last: &mut (u64, u32)) -> bool {
        let page = (addr / PAGE) as usize;
        let s = &self.page_state.slice()[page];
        loop {
            match s.load(Ordering::Acquire) {
                PROTECTED => {
                    if s.compare_exchange(PROTECTED, RELEASING, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                        break;
                    }
                }
                // SAFETY: a plain system call. Who protects the page has the lock of the address space, which this thread
                // cannot have: nothing writes to pages with code under it.
                PROTECTING | RELEASING => drop(unsafe { libc::sched_yield() }),
                _ => {
                    // Has another thread's write made the page writable in the meantime?
                    let now = (page as u64, self.version(addr));
                    return now.1 != 0 && std::mem::replace(last, now) != now;
                }
            }
        }
        // First, since other threads can write as soon as the page is released. A translation that is being made from the old
        // bytes finds another version when it is to be installed; one that is begun now waits for the last mark and protects
        // the page again, so that the write faults once more.
        self.drop_page(page);
        if let Some(code) = self.aliases.slice()[page].load(Ordering::Acquire).checked_sub(1) {
            self.drop_page(code as usize);
        }
        // SAFETY: mprotect of one page of the arena is a plain system call, allowed in a handler; the guest
        // may write this page (only writable pages are protected).
        unsafe {
            libc::mprotect(
                (self.base + page as u64 * PAGE) as *mut libc::c_void,
                PAGE as usize,
                libc::PROT_READ | libc::PROT_WRITE,
            );
        }
        self.arena.note(page as u64 * PAGE, PAGE, Prot::RW);
        s.store(UNUSED, Ordering::Release);
        true
    }
    /// Drop what was translated from a page; whether it is watched or protected stays. Signal-safe.
    fn drop_page(&self, page: usize) {
        self.page_version.slice()[page].fetch_add(1, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.invalidations.fetch_add(1, Ordering::Relaxed);
        while self.busy.load(Ordering::SeqCst) {
            // SAFETY: a plain system call. Who installs writes to no guest memory, so this is another thread.
            let _ = unsafe { libc::sched_yield() };
        }
        let mut any = false;
        self.take_page(&self.kept, page, |index| {
            // Before anyone can see that the code is gone.
            if !std::mem::replace(&mut any, true) {
                self.stale.fetch_add(1, Ordering::SeqCst);
            }
            self.entries.slice()[index as usize].store(0, Ordering::Release);
            self.records.drop(index);
        });
    }
    /// The guest's mapping of a range changed: drop what was translated from it.
    pub(crate) fn changed(&self, addr: u64, len: u64) {
        self.forget_images(addr, addr + len);
        let last = (addr + len).div_ceil(PAGE).min(self.page_state.slice().len() as u64);
        for page in addr / PAGE..last {
            let state = &self.page_state.slice()[page as usize];
            if state.load(Ordering::Acquire) != UNUSED {
                self.drop_page(page as usize);
                // Not when a write is releasing it at this moment: that one marks it last.
                let unused = |s| (s != RELEASING).then_some(UNUSED);
                let _ = state.fetch_update(Ordering::AcqRel, Ordering::Acquire, unused);
            }
        }
    }
    /// Take over the translations of the process that this one is a copy of, if none was dropped since its
    /// generation was `generation`. `entries` is the number of entry indices in use. Nothing runs here yet.
    pub(crate) fn inherit(&self, parent: &CodeSpace, generation: u64, entries: usize) {
        self.traps.store(parent.traps(), Ordering::SeqCst);
        if parent.has_entries.load(Ordering::Relaxed) {
            self.note_entries();
        }
        // No installation is half done.
        let _guard = parent.installs.lock().unwrap_or_else(PoisonError::into_inner);
        if parent.generation.load(Ordering::Acquire) != generation {
            return;
        }
        let used: Vec<_> = std::iter::once(0..entries).chain(self.inherit_images(parent)).collect();
        self.records.inherit_noted(&parent.records, &used);
        used.iter().for_each(|r| self.records.inherit(&parent.records, r.clone()));
        let each = |f: &dyn Fn(&AtomicU64, &AtomicU64)| {
            for r in &used {
                let (to, from) = (&self.entries.slice()[r.clone()], &parent.entries.slice()[r.clone()]);
                to.iter().zip(from).for_each(|(t, o)| f(t, o));
            }
        };
        let pages: Vec<_> = parent
            .watched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|p| {
                let p = *p as usize;
                (
                    p,
                    // What is being written there is written after the copy was made.
                    match parent.page_state.slice()[p].load(Ordering::Acquire) {
                        RELEASING => PROTECTED,
                        s => s,
                    },
                    parent.page_head.slice()[p].load(Ordering::Acquire),
                )
            })
            .collect();
        let nodes = (parent.node_count.load(Ordering::Acquire) as usize).min(MAX_NODES);
        for (t, f) in self.nodes.slice().iter().zip(parent.nodes.slice()).take(nodes) {
            t[0].store(f[0].load(Ordering::Relaxed), Ordering::Relaxed);
            t[1].store(f[1].load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.node_count.store(nodes as u32, Ordering::Release);
        let regions = parent.regions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        each(&|to, from| {
            let v = from.load(Ordering::Acquire);
            if v != 0 {
                to.store(v, Ordering::Release);
            }
        });
        for (page, state, head) in pages.iter().filter(|p| p.1 != 0) {
            self.page_head.slice()[*page].store(*head, Ordering::Release);
            if *state == PROTECTED {
                let _ = self.arena.protect(*page as u64 * PAGE, PAGE, Prot::R);
            }
            self.page_state.slice()[*page].store(*state, Ordering::Release);
        }
        for (page, ..) in &pages {
            let code = parent.aliases.slice()[*page].load(Ordering::Acquire);
            if code != 0 {
                self.aliases.slice()[*page].store(code, Ordering::Release);
            }
        }
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = pages.iter().map(|p| p.0 as u32).collect();
        *self.regions.lock().unwrap_or_else(PoisonError::into_inner) = regions;
        // What was dropped meanwhile must not come back here.
        if parent.generation.load(Ordering::Acquire) != generation {
            each(&|to, _| to.store(0, Ordering::Release));
            used.iter().for_each(|r| self.records.clear(r.clone()));
            self.forget_images(0, u64::MAX);
        }
    }
    /// Drop every translation (a mode of translation changed).
    pub(crate) fn drop_all(&self) {
        let regions = std::mem::take(&mut *self.regions.lock().unwrap_or_else(PoisonError::into_inner));
        for r in regions.values() {
            for (_, i) in &r.entries {
                self.entries.slice()[*i as usize].store(0, Ordering::Release);
            }
        }
    }
    /// Let invalidation of a page find an entry. False if the table is full.
    pub(super) fn bind_page(&self, page: u64, index: u32) -> bool {
        let n = self.node_count.fetch_add(1, Ordering::Relaxed);
        if n as usize >= MAX_NODES {
            self.node_count.store(MAX_NODES as u32, Ordering::Relaxed);
            return false;
        }
        let node = &self.nodes.slice()[n as usize];
        node[0].store(index, Ordering::Relaxed);
        let head = &self.page_head.slice()[page as usize];
        let mut old = head.load(Ordering::Acquire);
        loop {
            node[1].store(old, Ordering::Relaxed);
            match head.compare_exchange(old, n, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        true
    }
    /// Set entries in `set`, which first looks whether their pages still have the versions that they had when their bytes were
    /// read. Whoever changes the bytes raises the version, then waits for the end of `set`, then clears the entries, then
    /// changes the bytes: at no moment is there an entry of old code after they are changed.
    pub(super) fn installing<T>(&self, set: impl FnOnce() -> T) -> T {
        let _guard = self.installs.lock().unwrap_or_else(PoisonError::into_inner);
        self.busy.store(true, Ordering::SeqCst);
        let _busy = Busy(&self.busy);
        set()
    }
    /// Whether there is code only that may run with unmasked floating-point exceptions: pieces of the quick tier that are
    /// made for it. Nothing else is installed then.
    pub(crate) fn traps(&self) -> bool {
        self.traps.load(Ordering::SeqCst)
    }
    /// From now on it is so.
    pub(crate) fn set_traps(&self) {
        self.traps.store(true, Ordering::SeqCst);
        let pages = self.watched.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // What is being made finds another version when it is to be installed.
        pages.iter().for_each(|p| self.drop_page(*p as usize));
    }
    /// Install code whose pages are watched. `versions` is what [`CodeSpace::source_versions`] gave before
    /// its bytes were read. False if the code changed meanwhile (nothing is installed).
    pub(crate) fn install(&self, r: &Arc<Compiled>, versions: u64) -> bool {
        if self.traps() || !r.entries.iter().all(|e| self.commit(e.1, 1)) {
            return false;
        }
        let pages = r.source.iter().flat_map(|(a, b)| a / PAGE..=(a + (b.len() as u64).max(1) - 1) / PAGE);
        let mut pages: Vec<u64> = pages.collect();
        pages.dedup();
        let installed = self.installing(|| {
            if self.traps()
                || self.source_versions(&r.source) != versions
                || !pages.iter().all(|page| r.entries.iter().all(|e| self.bind_page(*page, e.1)))
            {
                return false;
            }
            for (pc, index) in r.entries.iter().filter(|e| e.1 != 0) {
                if r.copied {
                    self.records.set(*pc, *index, r.code);
                } else {
                    self.set_entry(*index, r.code);
                }
                self.remember(*pc, *index);
            }
            true
        });
        if installed && r.copied {
            r.entries.iter().for_each(|e| self.note_copied(e.0, r.insns));
        }
        if !installed || r.copied {
            return installed;
        }
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        for (pc, _) in r.entries.iter().filter(|e| e.1 != 0) {
            regions.insert(*pc, r.clone());
        }
        drop(regions);
        if r.kept {
            self.kept_regions.lock().unwrap_or_else(PoisonError::into_inner).push(r.clone());
        }
        let mut owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        for (pc, index) in r.blocks.iter().filter(|_| !r.kept) {
            owners.insert(*pc, (r.clone(), self.count(*index)));
        }
        true
    }
    /// Install a piece as [`CodeSpace::install`] does a region.
    pub(crate) fn install_piece(&self, p: &QuickPiece, versions: u64) -> bool {
        let (len, index) = (p.source.len() as u64, p.index);
        let mut pages = p.pc / PAGE..=(p.pc + len.max(1) - 1) / PAGE;
        if !self.commit(index, 1) {
            return false;
        }
        self.installing(|| {
            let good = self.traps() == p.traps
                && self.versions(p.pc, len) == versions
                && pages.all(|page| self.bind_page(page, index));
            if good && index != 0 {
                if p.copied {
                    self.records.set(p.pc, index, p.code);
                } else {
                    self.set_entry(index, p.code);
                }
                self.remember(p.pc, index);
            }
            good
        })
    }
    /// Install copied code made from these ranges of guest bytes, with its entries: guest address, entry index, host address.
    pub(crate) fn install_copied(&self, ranges: &[(u64, u64)], entries: &[(u64, u32, u64)], versions: u64) -> bool {
        let mut pages: Vec<u64> = ranges.iter().flat_map(|r| r.0 / PAGE..=(r.1 - 1) / PAGE).collect();
        pages.sort_unstable();
        pages.dedup();
        if !entries.iter().all(|e| self.commit(e.1, 1)) {
            return false;
        }
        self.installing(|| {
            let now: u64 = ranges.iter().map(|r| self.versions(r.0, r.1 - r.0)).sum();
            if self.traps()
                || now != versions
                || !pages.iter().all(|page| entries.iter().all(|e| self.bind_page(*page, e.1)))
            {
                return false;
            }
            for (pc, index, code) in entries.iter().filter(|e| e.1 != 0) {
                self.records.set(*pc, *index, *code);
                self.remember(*pc, *index);
            }
            true
        })
    }
    /// Count the entries of a block anew.
    pub(crate) fn cool(&self, index: u32) {
        if self.commit(index, 1) {
            self.counts.slice()[index as usize].store(0, Ordering::Relaxed);
        }
    }
    /// Note that a region of copied code with so many instructions begins at `pc`.
    pub(crate) fn note_copied(&self, pc: u64, insns: u32) {
        if insns >= COPIED_LARGE {
            self.large.lock().unwrap_or_else(PoisonError::into_inner).insert(pc);
        }
    }
    /// Whether a large region of copied code begins at `pc`: others go there instead of having the same once more.
    pub(crate) fn has_large(&self, pc: u64) -> bool {
        self.large.lock().unwrap_or_else(PoisonError::into_inner).contains(&pc)
    }
    /// Note that the region at `pc` is being compiled; gives how often it was before.
    pub(crate) fn note_compile(&self, pc: u64) -> u32 {
        let mut m = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let n = m.entry(pc).or_insert(0);
        *n += 1;
        *n - 1
    }
    /// How often the region at `pc` was compiled.
    pub(crate) fn compiles(&self, pc: u64) -> u32 {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&pc).copied().unwrap_or(0)
    }
    /// Whether the code of an entry index is that region's.
    pub(crate) fn has(&self, index: u32, r: &Compiled) -> bool {
        if r.copied { self.records.code(index) == Some(r.code) } else { self.code(index) == r.code }
    }
    fn is_live(&self, r: &Compiled) -> bool {
        self.code(r.entries[0].1) == r.code
    }
    /// The live region that holds the block at `pc`.
    pub(crate) fn owner(&self, pc: u64) -> Option<Arc<Compiled>> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((r, _)) = owners.get(&pc)
            && self.is_live(r)
        {
            return Some(r.clone());
        }
        let kept = self.kept_regions.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().find(|r| self.is_live(r) && r.blocks.iter().any(|b| b.0 == pc)).cloned()
    }
    /// The regions that were compiled in this run and are in use.
    pub(super) fn compiled_here(&self) -> Vec<Arc<Compiled>> {
        let regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |(pc, r): &(&u64, &Arc<Compiled>)| r.entries.first().is_some_and(|e| e.0 == **pc);
        let new = regions.iter().filter(first).map(|(_, r)| r).filter(|r| !r.kept && self.is_live(r));
        new.cloned().collect()
    }
    fn count(&self, index: u32) -> u32 {
        self.counts.slice()[index as usize].load(Ordering::Relaxed)
    }
    /// How often the quick code of a block was entered, modulo `period`, since the region that holds it was installed.
    pub(crate) fn entered_since(&self, pc: u64, index: u32, period: u32) -> u32 {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        let step = ((1u64 << 32) / u64::from(period)) as u32;
        self.count(index).wrapping_sub(owners.get(&pc).map_or(0, |o| o.1)) / step
    }
    /// How often quick code with this entry index was entered, modulo `period`; at least `period` if it was reported
    /// hot.
    pub(crate) fn entered(&self, index: u32, period: u32) -> u32 {
        let step = ((1u64 << 32) / u64::from(period)) as u32;
        let n = self.counts.slice()[index as usize].load(Ordering::Relaxed);
        n / step + if n.is_multiple_of(step) { 0 } else { period }
    }
    /// Blocks of a region that are entered from outside again and again, although the region has them: wanted as
    /// entries. `period` is the number of entries between two reports.
    pub(crate) fn hot_blocks(&self, r: &Compiled, max: usize, period: u32) -> Vec<u64> {
        let hot = |b: &&(u64, u32)| self.entered_since(b.0, b.1, period) >= period / 16;
        r.blocks.iter().filter(hot).map(|b| b.0).take(max).collect()
    }
    /// The interpreter block at a pc, if its bytes are unchanged.
    pub(crate) fn block(&self, pc: u64) -> Option<Arc<BlockEntry>> {
        let b = self.blocks.lock().unwrap_or_else(PoisonError::into_inner).get(&pc).cloned()?;
        self.fresh(&b).then_some(b)
    }
    /// Whether a block's bytes are unchanged since it was made.
    pub(crate) fn fresh(&self, b: &BlockEntry) -> bool {
        let g = self.generation.load(Ordering::Acquire);
        if b.generation.load(Ordering::Relaxed) == g {
            return true;
        }
        if self.versions(b.pc, b.len) != b.versions {
            return false;
        }
        b.generation.store(g, Ordering::Relaxed);
        true
    }
    /// Keep an interpreter block.
    pub(crate) fn keep(&self, b: Arc<BlockEntry>) {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner).insert(b.pc, b);
    }
    /// See [`CodeSpace::versions`], over the pieces of a region.
    pub(crate) fn source_versions(&self, source: &[(u64, Vec<u8>)]) -> u64 {
        source.iter().map(|(a, b)| self.versions(*a, b.len() as u64)).sum()
    }
}
