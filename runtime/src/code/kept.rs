//! Translations kept from other runs in a code space: an image's file is consulted a page of guest code at a time.
//!
//! When the run loop first comes to a page, the page is watched, the guest bytes of the page's unit and of each of its pieces are compared, and
//! what is equal is installed together. After that compiled code finds them by itself. A page that changes
//! drops all of them, and those of the page before that reach into it.
//!
//! # Safety
//! Records of images are shared by `Arc`, of which one is kept beside each pointer in the table: the
//! write fault handler, which runs while the space is alive, may follow the pointers, and so may who empties the tables after that.
#![allow(unsafe_code)]

use crate::cache::format::Entry;
use crate::cache::images::{Found, Image};
use crate::code::space::{CodeSpace, KEPT, Targets};
use crate::engine::QUICK_HOT;
use evm_kernel::mm::Mm;
use evm_memory::PAGE;
use std::cell::OnceCell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Bit of a node's index besides [`KEPT`]: the page before the node's, because a piece of it reaches into the node's.
const BEFORE: u32 = 1 << 30;
/// Most mappings of images in the life of a code space.
const MOST: usize = 1024;
/// Bytes behind a page that a piece beginning in it may have: 64 instructions.
const REACH: usize = 1024;

/// A mapping of an image in a code space.
pub(crate) struct Attached {
    start: u64,
    end: u64,
    pub image: Arc<Image>,
    /// One more than the version of each page at which its pieces were installed; 0: never.
    installed: Box<[AtomicU32]>,
    number: u32,
}

/// The images of a code space.
pub(crate) struct Kept {
    now: RwLock<Vec<Arc<Attached>>>,
    /// All there ever were, by number.
    all: Mutex<Vec<Arc<Attached>>>,
    table: Box<[AtomicPtr<Attached>]>,
    /// The images know how often their blocks were entered.
    harvested: AtomicBool,
}

impl Default for Kept {
    fn default() -> Kept {
        let table = (0..MOST).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect();
        Kept { now: RwLock::default(), all: Mutex::default(), table, harvested: AtomicBool::new(false) }
    }
}

impl Attached {
    /// Number of a page, told from the image's first address.
    pub(crate) fn page(&self, addr: u64) -> u32 {
        ((addr - self.image.key.lo) / PAGE) as u32
    }
}

/// A page and its version when it was looked at, before its bytes were.
struct Looked {
    addr: u64,
    version: u32,
}

impl CodeSpace {
    /// The image that an address belongs to, as far as is known here.
    pub(crate) fn attached(&self, pc: u64) -> Option<Arc<Attached>> {
        let now = self.kept.now.read().unwrap_or_else(PoisonError::into_inner);
        now.iter().find(|a| (a.start..a.end).contains(&pc)).cloned()
    }
    /// An image is mapped.
    pub(crate) fn attach(&self, f: Found) -> Option<Arc<Attached>> {
        if !self.commit(f.image.first(), f.image.used()) {
            return None;
        }
        let pages = ((f.image.key.hi - f.image.key.lo) / PAGE) as usize;
        let mut now = self.kept.now.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(a) = now.iter().find(|a| a.start == f.start && a.image.key == f.image.key) {
            return Some(a.clone());
        }
        now.retain(|a| a.end <= f.start || f.end <= a.start);
        let a = self.enter(f.start, f.end, f.image, (0..pages).map(|_| AtomicU32::new(0)).collect())?;
        now.push(a.clone());
        Some(a)
    }
    fn enter(&self, start: u64, end: u64, image: Arc<Image>, installed: Box<[AtomicU32]>) -> Option<Arc<Attached>> {
        let mut all = self.kept.all.lock().unwrap_or_else(PoisonError::into_inner);
        let number = all.len();
        let slot = self.kept.table.get(number)?;
        let a = Arc::new(Attached { start, end, image, installed, number: number as u32 });
        slot.store(Arc::as_ptr(&a).cast_mut(), Ordering::Release);
        all.push(a.clone());
        Some(a)
    }
    /// The mappings of a range changed.
    pub(super) fn forget_images(&self, start: u64, end: u64) {
        let touched = |a: &Arc<Attached>| a.start < end && start < a.end;
        let any = self.kept.now.read().unwrap_or_else(PoisonError::into_inner).iter().any(touched);
        if any {
            self.kept.now.write().unwrap_or_else(PoisonError::into_inner).retain(|a| !touched(a));
        }
    }
    /// Take the images of the process that this one is a copy of; gives the ranges of their entries.
    pub(super) fn inherit_images(&self, parent: &CodeSpace) -> Vec<Range<usize>> {
        let now = parent.kept.now.read().unwrap_or_else(PoisonError::into_inner);
        let mut mine = self.kept.now.write().unwrap_or_else(PoisonError::into_inner);
        let mut used = vec![];
        // The nodes of pages have numbers of the parent's.
        for old in parent.kept.all.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let current = now.iter().any(|a| Arc::ptr_eq(a, old));
            let versions = old.installed.iter().enumerate().map(|(n, v)| {
                let v = v.load(Ordering::Acquire);
                let now = parent.version(old.image.key.lo + n as u64 * PAGE);
                // Versions begin anew here.
                AtomicU32::new(u32::from(current && v == now.wrapping_add(1)))
            });
            let Some(a) = self.enter(old.start, old.end, old.image.clone(), versions.collect()) else { break };
            let (first, n) = (a.image.first(), a.image.used());
            if current && self.commit(first, n) {
                mine.push(a);
                used.push(first as usize..(first + n) as usize);
            }
        }
        used
    }
    fn look(&self, mm: &Mm, addr: u64, buf: &mut [u8]) -> Option<Looked> {
        let version = mm.with_page(addr, |p| p.executable.then(|| self.watch(p)))??;
        self.arena.mem().copy_out(addr, buf).ok()?;
        Some(Looked { addr, version })
    }
    /// Install what the image's file has of the page of `pc`, or of `pc` alone if the page was installed already. Gives
    /// the number of blocks; `None` if there are none, or if they are damaged.
    pub(crate) fn install_kept(&self, mm: &Mm, a: &Attached, pc: u64) -> Option<u32> {
        let kept = a.image.kept?;
        let lo = a.image.key.lo;
        let number = a.page(pc);
        let page = kept.view.page(number)?;
        let state = a.installed.get(number as usize)?;
        let addr = lo + u64::from(number) * PAGE;
        let again = state.load(Ordering::Acquire) == self.version(addr).wrapping_add(1);
        if again && page.entry((pc - lo) as u32).is_none_or(|e| !e.has_code()) {
            return Some(0);
        }
        if !again && !kept.is_intact(&page) {
            return None;
        }
        let mut buf = [0; PAGE as usize + REACH];
        let (this, behind) = buf.split_at_mut(PAGE as usize);
        let first = self.look(mm, addr, this)?;
        let end = |pc: u32, len: u32| u64::from(pc) % PAGE + u64::from(len);
        let wanted = |e: &Entry| e.has_code() && e.slot < a.image.used() && (!again || lo + u64::from(e.pc) == pc);
        let entries: Vec<Entry> = page.entries().filter(wanted).collect();
        let unit = if self.records().used() && entries.iter().any(|e| e.in_unit) {
            kept.view.unit_source(&page)
        } else {
            None
        };
        let unit_reaches = unit.iter().flatten().any(|(pc, bytes)| end(*pc, bytes.len() as u32) > PAGE);
        let reaches = |e: &Entry| !e.in_unit && end(e.pc, e.guest_bytes()) > PAGE;
        let next = unit_reaches || entries.iter().any(reaches);
        let next = if next { self.look(mm, addr + PAGE, behind) } else { None };
        let is_here = |pc: u32, bytes: &[u8]| {
            let at = (u64::from(pc) % PAGE) as usize;
            let there = (at + bytes.len() <= PAGE as usize || next.is_some()) && pc / PAGE as u32 == number;
            there && !bytes.is_empty() && buf.get(at..at + bytes.len()) == Some(bytes)
        };
        let unit = unit.is_some_and(|u| u.iter().all(|(pc, bytes)| is_here(*pc, bytes)));
        let good = |e: &Entry| match e.in_unit {
            true => unit,
            false => kept.view.source(e).is_some_and(|s| is_here(e.pc, s)) && (!e.copied || self.records().used()),
        };
        let mut all = Vec::with_capacity(entries.len());
        for e in entries.iter().filter(|e| good(e)) {
            all.extend(kept.view.code_of(&page, e).map(|(offset, _)| (*e, kept.host(offset))));
        }
        // Those that only their unit goes to are installed with it.
        let inside = if unit && !again { page.inside_len() } else { 0 };
        let same = |l: &Looked| self.version(l.addr) == l.version;
        Some(self.installing(|| {
            let bound = !self.traps()
                && same(&first)
                && next.as_ref().is_none_or(same)
                && self.bind_page(addr / PAGE, KEPT | a.number)
                && (next.is_none() || self.bind_page(addr / PAGE + 1, KEPT | BEFORE | a.number));
            if !bound {
                return 0;
            }
            for (e, code) in &all {
                let index = a.image.first() + e.slot;
                if e.copied {
                    self.records().set_found(lo + u64::from(e.pc), index, *code);
                } else {
                    self.set_entry(index, *code);
                }
            }
            state.store(first.version.wrapping_add(1), Ordering::Release);
            (all.len() + inside) as u32
        }))
    }
    /// Tell the images how often their blocks were entered here; once.
    pub(crate) fn harvest(&self) {
        if self.kept.harvested.swap(true, Ordering::AcqRel) {
            return;
        }
        let all = self.kept.all.lock().unwrap_or_else(PoisonError::into_inner);
        let targets = OnceCell::new();
        let targets = || Arc::clone(targets.get_or_init(|| Arc::new(self.targets())));
        for (n, a) in all.iter().enumerate() {
            if !all[..n].iter().any(|b| Arc::ptr_eq(&a.image, &b.image)) {
                a.image.harvest(|index| self.entered(index, QUICK_HOT), targets);
                self.compiled_here().iter().for_each(|r| a.image.note_region(r));
            }
        }
    }
    /// Where indirect jumps and calls of the images that are mapped went in earlier runs.
    pub(crate) fn add_kept_targets(&self, to: &mut Targets) {
        let now = self.kept.now.read().unwrap_or_else(PoisonError::into_inner);
        for (jump, target) in now.iter().flat_map(|a| a.image.known_targets()) {
            let known = to.entry(jump as u32).or_default();
            if !known.contains(&target) {
                known.push(target);
            }
        }
    }
}

impl Kept {
    /// The entry indices of what an image's file has of a page, or of the page before, as a node of the page says. Signal-safe.
    pub(super) fn each_of(&self, node: u32, page: u64, each: &mut impl FnMut(u32)) {
        let number = node & !(KEPT | BEFORE);
        let Some(p) = self.table.get(number as usize) else { return };
        let p = p.load(Ordering::Acquire);
        if p.is_null() {
            return;
        }
        // SAFETY: see the module's paragraph.
        let a = unsafe { &*p };
        let Some(kept) = a.image.kept else { return };
        let page = page - u64::from(node & BEFORE != 0);
        let Some(page) = page.checked_sub(a.image.key.lo / PAGE).and_then(|n| kept.view.page(n as u32)) else { return };
        page.entries().filter(|e| e.has_code() && e.slot < a.image.used()).for_each(|e| each(a.image.first() + e.slot));
    }
}
