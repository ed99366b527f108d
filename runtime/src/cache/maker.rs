//! Makes the translations of an image's blocks, from the bytes of its file.
//!
//! What is wanted comes from those who ran the program, or from anyone: an address is just an address here. Whatever it
//! is, the translation is that of the bytes found there, and is used only where a run has the same bytes.

use super::format::{Content, Key, Known, Piece, Region, View, marked};
use super::images::News;
use super::units::{Graph, source};
use crate::code::translate::{BLOCK_INSNS, COPIED, COPIED_LARGE, KEPT, LARGE, UNPROFILED, Unit};
use crate::host::direct::WORDS;
use crate::thread::ABI;
use evm_backend::cranelift::{CompileOptions, Compiler, CompilerSettings};
use evm_backend::direct::{Block, Direct, is_for_compiler};
use evm_backend::quick::Quick;
use evm_ir::passes::OptLevel;
use evm_lifter::{Instruction, Mode, Options};
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The executable bytes of an image: those of its file from the key's offset on, zeros behind its end.
pub(crate) struct Text {
    pub(super) lo: u64,
    pub(super) hi: u64,
    bytes: Vec<u8>,
    /// The file, and the offset in it of `lo`.
    file: File,
    offset: u64,
}

impl Text {
    /// `bytes` are those of the file from the key's offset on, at most up to its mapping's end.
    pub(crate) fn new(key: &Key, mut bytes: Vec<u8>, file: File) -> Text {
        // The mapping ends with the page that the file ends in.
        let most = ((key.hi - key.lo) as usize).min(bytes.len().next_multiple_of(4096));
        bytes.resize(most, 0);
        Text { lo: key.lo, hi: key.lo + most as u64, bytes, file, offset: key.offset }
    }
    pub(super) fn range(&self, addr: u64, len: usize) -> &[u8] {
        if addr < self.lo || addr >= self.hi {
            return &[];
        }
        let from = (addr - self.lo) as usize;
        &self.bytes[from..(from + len).min(self.bytes.len())]
    }
    /// An address told from the first.
    pub(super) fn near(&self, pc: u64) -> Option<u32> {
        (self.lo..self.hi).contains(&pc).then(|| (pc - self.lo) as u32)
    }
}

impl evm_lifter::Code for &Text {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let b = self.range(addr, buf.len());
        buf[..b.len()].copy_from_slice(b);
        b.len()
    }
}

/// Code for regions, and what is known of how it runs. Addresses are told from the image's first.
pub(super) struct Warm<'a> {
    pub text: &'a Text,
    /// Other blocks are left out.
    pub warm: &'a dyn Fn(u32) -> bool,
    /// Blocks of large regions, which are left to these.
    pub taken: &'a dyn Fn(u32) -> bool,
    /// Where indirect jumps went: pairs, ascending.
    pub targets: &'a [(u32, u32)],
}

impl<'a> Warm<'a> {
    /// All of it.
    pub(super) fn all(text: &'a Text) -> Warm<'a> {
        Warm { text, warm: &|_| true, taken: &|_| false, targets: &[] }
    }
    fn near(&self, pc: u64) -> Option<u32> {
        u32::try_from(pc.checked_sub(self.text.lo)?).ok()
    }
}

impl evm_lifter::Code for Warm<'_> {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let mut text = self.text;
        text.fetch(addr, buf)
    }
    /// Constants beside the code: in most files they are as far from it as in memory. Where they are not, jump tables are not
    /// understood.
    fn read(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        let at = addr.wrapping_sub(self.text.lo).wrapping_add(self.text.offset);
        self.text.file.read_at(buf, at).unwrap_or(0)
    }
    fn is_warm(&mut self, pc: u64) -> bool {
        self.near(pc).is_some_and(|pc| (self.warm)(pc))
    }
    fn is_taken(&mut self, pc: u64) -> bool {
        self.near(pc).is_some_and(|pc| (self.taken)(pc))
    }
    fn targets(&mut self, pc: u64) -> Vec<u64> {
        let Some(jump) = self.near(pc) else { return vec![] };
        let from = self.targets.partition_point(|t| t.0 < jump);
        self.targets[from..].iter().take_while(|t| t.0 == jump).map(|t| self.text.lo + u64::from(t.1)).collect()
    }
}

/// Translates blocks into a content.
pub(crate) struct Maker<'a> {
    pub(super) key: &'a Key,
    pub(super) text: &'a Text,
    quick: Quick,
    /// Where code is copied.
    pub(super) direct: Option<Direct>,
    compiler: Option<Compiler>,
    /// Behind instructions that were not copied, where the run goes on: told from `lo`.
    pub(crate) starts: Vec<u32>,
}

/// Entries of a block in one run that make it worth a region.
pub(super) const HOT: u32 = 128;
/// Most entries of a region.
const MOST_ENTRIES: usize = 1024;
/// Instructions compiled at most at a time; the next run asks for the rest.
const MOST_INSNS: u32 = 100_000;
/// CPU time of the process after which no region is begun.
const MOST_SECONDS: i64 = 30;

/// How much may still be compiled.
struct Budget(u32);

impl Budget {
    fn spend(&mut self, insns: u32) {
        self.0 = self.0.saturating_sub(insns);
    }
    fn is_left(&self) -> bool {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        self.0 > 0 && t.tv_sec < MOST_SECONDS
    }
}

/// What is known of how code runs, and how far its regions reach.
#[derive(Clone, Copy)]
struct Profile<'a> {
    warm: &'a dyn Fn(u32) -> bool,
    taken: &'a dyn Fn(u32) -> bool,
    targets: &'a [(u32, u32)],
    bounds: Options,
    precise: bool,
}

/// Nothing is known.
const UNKNOWN: Profile<'static> =
    Profile { warm: &|_| true, taken: &|_| false, targets: &[], bounds: UNPROFILED, precise: false };

/// Which regions have a block, told by their numbers.
#[derive(Default)]
struct Owners {
    blocks: HashMap<u32, usize>,
    entries: HashSet<u32>,
    /// Blocks that were not left out as cold. Where there are regions of them, runs no longer count them.
    held: HashSet<u32>,
    /// Of large ones: these blocks are not translated again as part of others.
    large: HashMap<u32, usize>,
}

impl Owners {
    fn of(regions: &[Region], precise: bool) -> Owners {
        let mut all = Owners::default();
        regions.iter().enumerate().filter(|(_, r)| r.precise == precise).for_each(|(i, r)| all.add(i, r));
        all
    }
    fn add(&mut self, i: usize, r: &Region) {
        for pc in &r.blocks {
            self.blocks.entry(*pc).or_insert(i);
            if r.holds(*pc) {
                self.held.insert(*pc);
                if r.insns >= LARGE {
                    self.large.entry(*pc).or_insert(i);
                }
            }
        }
        self.entries.extend(r.entries.iter().map(|e| e.0));
    }
    /// Whether a block is left to another large region than that.
    fn is_taken(&self, pc: u32, but: Option<usize>) -> bool {
        self.large.get(&pc).is_some_and(|i| Some(*i) != but)
    }
}

impl<'a> Maker<'a> {
    pub(crate) fn new(key: &'a Key, text: &'a Text) -> Maker<'a> {
        let direct = key.copied.then(|| Direct::new(WORDS));
        Maker { key, text, quick: Quick::default(), direct, compiler: None, starts: vec![] }
    }
    /// A translation panicked: start anew.
    pub(super) fn forget(&mut self) {
        self.quick = Quick::default();
        self.direct = self.key.copied.then(|| Direct::new(WORDS));
    }
    /// Add the blocks that a run had to translate; those that it `missed` are in units that had no entry there. Gives how many were made.
    pub(super) fn blocks(&mut self, content: &mut Content, new: &[u32], missed: &[u32]) -> usize {
        let most = self.key.slots();
        let mut made = 0;
        if self.direct.is_none() {
            let end = (self.text.hi - self.text.lo) as u32;
            for pc in new.iter().filter(|pc| **pc < end) {
                if let (Some(p), Some(slot)) = (self.alone(&mut Slots::Growing(content), *pc), content.slot(*pc, most))
                {
                    content.entries.insert(*pc, (slot, Known::Alone(p)));
                    made += 1;
                }
            }
            return made;
        }
        let graph = Graph::new(self.text, self.key.bits, content, new, missed);
        for (page, nodes) in graph.changed(content) {
            let page = self.page(&mut Slots::Growing(content), page, nodes);
            made += page.len();
            page.put(content, most);
        }
        made
    }
    /// The block at a pc told from `lo`, by itself.
    pub(crate) fn alone(&mut self, slots: &mut Slots<'_>, pc: u32) -> Option<Piece> {
        let made = catch_unwind(AssertUnwindSafe(|| self.translate(slots, pc)));
        made.unwrap_or_else(|_| {
            // Whatever was wrong, the run finds it again and reports it.
            self.forget();
            None
        })
    }
    /// The region of the function at a pc told from `lo`, with these slots alone.
    pub(crate) fn function(&mut self, slots: &HashMap<u32, u32>, pc: u32) -> Option<Region> {
        let made = catch_unwind(AssertUnwindSafe(|| match self.direct {
            Some(_) => {
                let (lo, bits, text) = (self.key.lo, self.key.bits, self.text);
                let is_copied = |pc| {
                    let insns = evm_lifter::block(lo + u64::from(pc), &mut { text }, bits, BLOCK_INSNS);
                    insns.is_ok_and(|i| !is_for_compiler(&i))
                };
                self.copied_region(&mut Slots::Fixed(slots), &is_copied, &|_| false, pc)
            }
            None => self.compile(&mut Slots::Fixed(slots), &[pc], &UNKNOWN),
        }));
        made.unwrap_or_else(|_| {
            self.compiler = None;
            None
        })
    }
    fn translate(&mut self, slots: &mut Slots<'_>, pc: u32) -> Option<Piece> {
        let lo = self.key.lo;
        let at = lo + u64::from(pc);
        let opts = Options { mode: Mode::Block, bits: self.key.bits, v3: self.key.v3, ..Options::default() };
        let mut text = self.text;
        if let Some(direct) = &mut self.direct {
            let insns = evm_lifter::block(at, &mut text, self.key.bits, BLOCK_INSNS).ok()?;
            if !is_for_compiler(&insns) {
                return copied(direct, self.key, self.text, slots, at, insns, &mut self.starts);
            }
        }
        let mut region = evm_lifter::lift(at, &[], &mut text, &opts).ok()?.region;
        evm_ir::passes::optimize(&mut region, OptLevel::Interp);
        evm_ir::validate(&region).ok()?;
        let [(from, len)] = region.source[..] else { return None };
        if from != at || region.source.is_empty() {
            return None;
        }
        self.quick.min_limit = if self.key.bits == 32 { self.key.min_limit } else { 0 };
        let mut links = Links::new(self.key, slots);
        let code = self.quick.compile(&region, &ABI, self.key.threshold, &mut |pc| links.index(pc));
        let full = links.full;
        let code = code.ok().filter(|_| !full)?;
        let near = |pc: u64| u32::try_from(pc.checked_sub(lo)?).ok();
        let pcs: Option<Vec<_>> = code.pcs.iter().map(|(o, pc)| Some((*o, near(*pc)?))).collect();
        Some(Piece {
            source: self.text.range(at, len as usize).to_vec(),
            code: code.code.to_vec(),
            pcs: pcs?,
            copied: false,
        })
    }
}

impl Maker<'_> {
    /// Copy the regions that a run copied; gives how many.
    pub(super) fn copied_regions(&mut self, content: &mut Content, n: &News) -> usize {
        let mut there: HashSet<u32> = content.regions.iter().flat_map(|r| r.entries.iter().map(|e| e.0)).collect();
        if n.recipes.is_empty() {
            return 0;
        }
        let is_copied = |k: &Known| match k {
            Known::Named => false,
            Known::Alone(p) => p.copied,
            Known::InUnit { .. } => true,
        };
        let ran: HashSet<u32> = content.entries.iter().filter(|e| is_copied(&e.1.1)).map(|e| *e.0).collect();
        let is_large = |r: &&Region| r.insns >= COPIED_LARGE;
        let mut large: HashSet<u32> =
            content.regions.iter().filter(is_large).flat_map(|r| r.entries.iter().map(|e| e.0)).collect();
        let mut made = 0;
        for pc in n.recipes.iter().filter_map(|r| r.first()) {
            if there.insert(*pc)
                && let Ok(Some(r)) = catch_unwind(AssertUnwindSafe(|| {
                    self.copied_region(
                        &mut Slots::Growing(content),
                        &|pc| ran.contains(&pc),
                        &|pc| large.contains(&pc),
                        *pc,
                    )
                }))
            {
                large.extend(Some(*pc).filter(|_| is_large(&&r)));
                content.regions.push(r);
                made += 1;
            }
        }
        made
    }
    /// Copy what is around the block at a pc, of blocks that are `warm` and not `taken`. `None` if it is all in one page: its unit has it.
    fn copied_region(
        &mut self,
        slots: &mut Slots<'_>,
        warm: &dyn Fn(u32) -> bool,
        taken: &dyn Fn(u32) -> bool,
        pc: u32,
    ) -> Option<Region> {
        let (key, lo) = (self.key, self.key.lo);
        let direct = self.direct.as_mut()?;
        let mut text = Warm { text: self.text, warm, taken, targets: &[] };
        let options = Options { bits: key.bits, v3: key.v3, ..COPIED };
        let unit = Unit::of(evm_lifter::plan(lo + u64::from(pc), &mut text, &options).ok()?.blocks);
        if unit.blocks.iter().all(|b| b.pc / 4096 == unit.blocks[0].pc / 4096) {
            return None;
        }
        let mut links = Links::new(key, slots);
        let slot = links.index(lo + u64::from(pc)).checked_sub(super::SLOTS + key.first_slot())?;
        let code = direct.copy(&unit.blocks, key.bits, key.v3, &mut |pc| links.index(pc))?;
        if links.full {
            return None;
        }
        let (source, bytes) = source(self.text, unit.ranges)?;
        Some(Region {
            entries: vec![(pc, slot)],
            source,
            bytes,
            code: code.code.to_vec(),
            pcs: near_pcs(code.pcs, lo)?,
            insns: unit.insns,
            ..Region::default()
        })
    }
}

/// The copy of the block of these instructions.
fn copied(
    direct: &mut Direct,
    key: &Key,
    text: &Text,
    slots: &mut Slots<'_>,
    at: u64,
    insns: Vec<Instruction>,
    starts: &mut Vec<u32>,
) -> Option<Piece> {
    let mut links = Links::new(key, slots);
    let len = insns.iter().map(|i| i.len().max(1)).sum::<usize>();
    let counted = Some(links.index(at)).filter(|i| *i != 0);
    let block = Block { pc: at, insns, counted, entered: true };
    let code = direct.copy(&[block], key.bits, key.v3, &mut |pc| links.index(pc))?;
    let pcs = near_pcs(code.pcs, key.lo)?;
    starts.extend(code.left_out.iter().filter(|pc| **pc < key.hi).map(|pc| (pc - key.lo) as u32));
    let source = text.range(at, len).to_vec();
    (!links.full && source.len() == len).then(|| Piece { source, code: code.code.to_vec(), pcs, copied: true })
}

/// The fault table of copied code, as images have it.
pub(super) fn near_pcs(pcs: &[(u32, u64)], lo: u64) -> Option<Vec<(u32, u32)>> {
    pcs.iter().map(|(o, pc)| Some((*o, marked(*pc, lo)?))).collect()
}

/// Where slots come from.
pub(crate) enum Slots<'a> {
    /// Given out as they are asked for.
    Growing(&'a mut Content),
    /// There are no others.
    Fixed(&'a HashMap<u32, u32>),
}

/// Gives entry indices for what code refers to.
pub(super) struct Links<'a, 'b> {
    key: &'a Key,
    slots: &'a mut Slots<'b>,
    /// The image has no slots left; the code is not to be used.
    pub full: bool,
}

impl<'a, 'b> Links<'a, 'b> {
    pub(super) fn new(key: &'a Key, slots: &'a mut Slots<'b>) -> Links<'a, 'b> {
        Links { key, slots, full: false }
    }
    pub(super) fn index(&mut self, pc: u64) -> u32 {
        // Entry 0 never has code: what jumps there goes on in the run loop.
        if pc < self.key.lo || pc >= self.key.hi {
            return 0;
        }
        let at = (pc - self.key.lo) as u32;
        let slot = match self.slots {
            Slots::Growing(content) => {
                let slot = content.slot(at, self.key.slots());
                self.full |= slot.is_none();
                slot
            }
            Slots::Fixed(all) => all.get(&at).copied(),
        };
        slot.map_or(0, |s| super::SLOTS + self.key.first_slot() + s)
    }
}

/// Whether [`Maker::regions`] would make any.
pub(super) fn wants_regions(view: &View<'_>, n: &News) -> bool {
    let mut owners: HashMap<u32, (bool, u32)> = HashMap::new();
    for r in (0..view.region_count()).filter_map(|i| view.region(i)).filter(|r| r.is_precise() == n.precise) {
        r.blocks().for_each(|(pc, _)| {
            owners.entry(pc).or_insert((false, r.times()));
        });
        r.entries().for_each(|(pc, _)| {
            owners.insert(pc, (true, r.times()));
        });
    }
    let is_entry = |pc: &u32| owners.get(pc).is_some_and(|o| o.0);
    n.heat.iter().filter(|h| h.1 >= HOT).any(|(pc, n)| match owners.get(pc) {
        Some((is_entry, times)) => !is_entry && *n >= worth_again(*times),
        None => true,
    }) || n.recipes.iter().any(|r| !r.iter().all(is_entry))
}

/// Entries from outside of a block of a region that was made so often, for it to be made again: each time four times as many.
fn worth_again(times: u32) -> u32 {
    HOT << (2 * times.min(8))
}

/// What regions are made from, and what is known of the image so far.
struct Regions<'a> {
    content: &'a mut Content,
    heat: HashMap<u32, u32>,
    targets: Vec<(u32, u32)>,
    precise: bool,
    owners: Owners,
    /// Numbers of those that were made now.
    made: HashSet<usize>,
    budget: Budget,
}

impl Maker<'_> {
    /// Compile the regions that a run compiled, and others for blocks that were entered often as quick code; gives how many.
    pub(super) fn regions(&mut self, content: &mut Content, n: &News) -> usize {
        let all = &mut Regions {
            heat: n.heat.iter().copied().collect(),
            targets: content.targets.iter().copied().collect(),
            precise: n.precise,
            owners: Owners::of(&content.regions, n.precise),
            made: HashSet::new(),
            budget: Budget(MOST_INSNS),
            content,
        };
        // What a run compiled was hot there, and has the entries that it needed.
        let mut parts: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for recipe in &n.recipes {
            let is_new = !recipe.is_empty() && !recipe.iter().all(|pc| all.owners.entries.contains(pc));
            if is_new && all.budget.is_left() {
                let old = all.content.regions.iter().position(|r| all.is_of(r, recipe[0]));
                match self.large_near(all, old, recipe) {
                    Some(i) if old != Some(i) => parts.entry(i).or_default().extend(recipe),
                    Some(_) | None => self.region(all, old, recipe, true),
                }
            }
        }
        self.extend(all, parts);
        self.hot_regions(all);
        all.made.len()
    }
    fn hot_regions(&mut self, all: &mut Regions<'_>) {
        let mut hot: Vec<(u32, u32)> = all.heat.iter().map(|(pc, n)| (*pc, *n)).filter(|h| h.1 >= HOT).collect();
        hot.sort_unstable_by_key(|h| (std::cmp::Reverse(h.1), h.0));
        // Blocks that are inside a region and are entered from outside all the same, by region.
        let mut wanted: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        for (pc, n) in hot {
            match all.owners.blocks.get(&pc) {
                // What was counted before a region was there says nothing about it.
                Some(i) if all.made.contains(i) || all.owners.entries.contains(&pc) => {}
                Some(i) if n >= worth_again(all.content.regions[*i].times) => wanted.entry(*i).or_default().push(pc),
                // Not that hot: it need not reach far, and others have blocks of their own.
                None if all.budget.is_left() => self.region(all, None, &[pc], false),
                Some(_) | None => {}
            }
        }
        self.extend(all, wanted);
    }
    /// Make regions again with more entries.
    fn extend(&mut self, all: &mut Regions<'_>, more: BTreeMap<usize, Vec<u32>>) {
        for (i, more) in more {
            if all.budget.is_left() {
                let old = &all.content.regions[i];
                let mut entries: Vec<u32> = old.entries.iter().map(|e| e.0).collect();
                let known: HashSet<u32> = entries.iter().copied().collect();
                entries.extend(more.into_iter().filter(|pc| !known.contains(pc)));
                let wide = old.wide;
                self.region(all, Some(i), &entries, wide);
            }
        }
    }
    /// The large region that these entries go on in, or are in: a run compiled a loop of many blocks piece by piece, as
    /// they got hot, and what goes on in another's blocks leaves for it each time.
    fn large_near(&self, all: &Regions<'_>, old: Option<usize>, entries: &[u32]) -> Option<usize> {
        let Regions { content, heat, targets, owners, .. } = all;
        let found = Cell::new(None);
        let warm = |pc| heat.contains_key(&pc) || owners.held.contains(&pc);
        let taken = |pc| {
            let i = owners.large.get(&pc).copied().filter(|i| Some(*i) != old);
            found.set(found.get().or(i));
            i.is_some()
        };
        if let Some(i) = owners.large.get(entries.first()?) {
            return Some(*i);
        }
        let mut code = Warm { text: self.text, warm: &warm, taken: &taken, targets };
        let at: Vec<u64> = entries.iter().map(|e| self.key.lo + u64::from(*e)).collect();
        let opts = Options { bits: self.key.bits, v3: self.key.v3, ..KEPT };
        let lifted = evm_lifter::lift(*at.first()?, &at[1..], &mut code, &opts).ok()?;
        found.get().filter(|i| lifted.region.insns + content.regions[*i].insns <= KEPT.max_insns as u32)
    }
    /// Make the region of these entries, in the place of an old one if it is to replace that. Callees and the targets of jumps
    /// become part of a wide one only.
    fn region(&mut self, all: &mut Regions<'_>, old: Option<usize>, entries: &[u32], wide: bool) {
        let entries = &entries[..entries.len().min(MOST_ENTRIES)];
        let precise = all.precise;
        let made = {
            let Regions { content, heat, targets, owners, .. } = &mut *all;
            let warm = |pc| heat.contains_key(&pc) || owners.held.contains(&pc);
            let taken = |pc| owners.is_taken(pc, old);
            let (bounds, targets) = if wide { (KEPT, &targets[..]) } else { (UNPROFILED, &[][..]) };
            let profile = Profile { warm: &warm, taken: &taken, targets, bounds, precise };
            self.compiled(content, entries, &profile)
        };
        let times = old.map_or(0, |i| all.content.regions[i].times + 1);
        let i = old.unwrap_or(all.content.regions.len());
        match (made, old) {
            (Some(r), _) => {
                all.budget.spend(r.insns);
                all.owners.add(i, &r);
                all.put(i, Region { times, wide, ..r });
            }
            (None, Some(i)) => all.content.regions[i].times = times,
            // One without code keeps later runs from trying again.
            (None, None) => {
                let blocks = entries.to_vec();
                let none = Region { entries: vec![], blocks, precise, times: 8, ..Region::default() };
                all.owners.add(i, &none);
                all.put(i, none);
            }
        }
        all.made.insert(i);
    }
}

impl Regions<'_> {
    /// Whether a region begins at a pc.
    fn is_of(&self, r: &Region, pc: u32) -> bool {
        r.precise == self.precise && r.entries.first().is_some_and(|e| e.0 == pc)
    }
    fn put(&mut self, i: usize, r: Region) {
        match self.content.regions.get_mut(i) {
            Some(old) => *old = r,
            None => self.content.regions.push(r),
        }
    }
}

impl Maker<'_> {
    /// The region of these entries.
    fn compiled(&mut self, content: &mut Content, entries: &[u32], profile: &Profile<'_>) -> Option<Region> {
        let made = catch_unwind(AssertUnwindSafe(|| self.compile(&mut Slots::Growing(content), entries, profile)));
        made.unwrap_or_else(|_| {
            self.compiler = None;
            None
        })
    }
    fn compile(&mut self, slots: &mut Slots<'_>, entries: &[u32], profile: &Profile<'_>) -> Option<Region> {
        let Profile { warm, taken, targets, bounds, precise } = *profile;
        let lo = self.key.lo;
        let at: Vec<u64> = entries.iter().map(|e| lo + u64::from(*e)).collect();
        let opts = Options { bits: self.key.bits, v3: self.key.v3, ..bounds };
        let mut code = Warm { text: self.text, warm, taken, targets };
        let evm_lifter::Lifted { mut region, cold, blocks, .. } =
            evm_lifter::lift(*at.first()?, &at[1..], &mut code, &opts).ok()?;
        evm_ir::passes::optimize(&mut region, if precise { OptLevel::Precise } else { OptLevel::Full });
        evm_ir::validate(&region).ok()?;
        if self.compiler.is_none() {
            let settings = CompilerSettings { min_limit: self.key.min_limit, ..CompilerSettings::default() };
            self.compiler = Some(Compiler::new(ABI, settings).ok()?);
        }
        let options = CompileOptions { precise, ..CompileOptions::default() };
        let mut links = Links::new(self.key, slots);
        let code = self.compiler.as_mut()?.compile(&region, options, &mut |pc| links.index(pc)).ok()?;
        let near = |pc: u64| u32::try_from(pc.checked_sub(lo)?).ok();
        let starts = region.entries.iter().map(|b| region.blocks[b.0 as usize].pc);
        let entries = starts.map(|pc| {
            let index = links.index(pc);
            Some((near(pc)?, index.checked_sub(super::SLOTS + self.key.first_slot())?))
        });
        let entries = entries.collect::<Option<Vec<_>>>()?;
        if links.full {
            return None;
        }
        let mut bytes = vec![];
        for (a, n) in &region.source {
            let b = self.text.range(*a, *n as usize);
            if b.len() != *n as usize {
                return None;
            }
            bytes.extend_from_slice(b);
        }
        // Cold blocks may be anywhere.
        let blocks = blocks.into_iter().chain(cold).filter(|pc| *pc < self.key.hi);
        let mut blocks: Vec<u32> = blocks.filter_map(near).collect();
        blocks.sort_unstable();
        blocks.dedup();
        Some(Region {
            entries,
            source: region.source.iter().map(|(a, n)| Some((near(*a)?, *n))).collect::<Option<_>>()?,
            bytes,
            blocks,
            code: code.code,
            pcs: code.pcs.iter().map(|(o, pc)| Some((*o, near(*pc)?))).collect::<Option<_>>()?,
            insns: region.insns,
            precise,
            times: 0,
            wide: false,
        })
    }
}
