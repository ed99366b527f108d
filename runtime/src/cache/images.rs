//! The images that the processes of an engine run: which files of translations belong to them, and what a run adds.
//!
//! An image is an executable private mapping of a host file below 2 GiB. Its translations use entry indices of its own, from its
//! address on ([`super::SLOTS`]), so two images may not have translations at the same addresses: of images that overlap in
//! different processes the first has its file used, the others do without.

use super::artifact::Artifact;
use super::folder::Folder;
use super::format::Key;
use super::maker::HOT;
use super::mapped::Mapped;
use super::print;
use crate::code::space::{CodeSpace, Compiled, Targets};
use crate::engine::lock;
use evm_kernel::mm::{Mm, W};
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use xxhash_rust::xxh3::xxh3_128;

/// Most images that an engine keeps track of.
const MOST: usize = 1024;
/// Entries of a block that are noted, and that make it part of regions.
pub(crate) const WARM: u32 = 16;
/// Most address spaces that are asked how often blocks were entered.
const MOST_HARVESTS: u32 = 64;
/// Most new blocks of one image that are noted.
const MOST_NEW: usize = 1 << 20;
/// Most targets of indirect jumps of one image that are noted.
const MOST_TARGETS: usize = 1 << 16;
/// Most regions of one image that are noted.
const MOST_RECIPES: usize = 1 << 14;

/// An image.
pub(crate) struct Image {
    pub key: Key,
    /// The guest's file, for the translator.
    pub file: OwnedFd,
    /// Its translations, if there are any.
    pub kept: Option<&'static Mapped>,
    /// The guest's path of it, for people.
    label: Vec<u8>,
    /// Entries of its regions (page, pc, number of the region), sorted.
    regions: Vec<(u32, u32, u32)>,
    /// The regions that were asked for.
    made: Vec<OnceLock<Option<Arc<Compiled>>>>,
    /// Blocks translated in this run, told from its first address, and their entry indices.
    new: Mutex<Vec<(u32, u32)>>,
    /// How often blocks were entered as quick code, where that was noteworthy.
    heat: Mutex<HashMap<u32, u32>>,
    /// Where its indirect jumps and calls went within it; both told from its first address.
    targets: Mutex<BTreeSet<(u32, u32)>>,
    /// Entries of the regions that were compiled of it.
    recipes: Mutex<Vec<Vec<u32>>>,
    /// How many address spaces told how often blocks were entered.
    harvests: AtomicU32,
    /// The translations are of an artifact, so that nothing is added to them.
    lifted: bool,
    /// Whether it ran in a process that wants exact registers at faults.
    pub precise: AtomicBool,
    /// Blocks of it that were taken from the file.
    pub taken: AtomicU32,
}

impl Image {
    /// Note that a block had to be translated, and its entry index.
    pub(crate) fn note(&self, pc: u64, index: u32) {
        let mut new = lock(&self.new);
        if new.len() < MOST_NEW {
            new.push(((pc - self.key.lo) as u32, index));
        }
    }
    /// Add up how often blocks were entered in an address space; `entered` tells that of an entry index, `targets` where
    /// indirect jumps went.
    pub(crate) fn harvest(&self, entered: impl Fn(u32) -> u32, targets: impl Fn() -> Arc<Targets>) {
        // A job of a thousand small processes does not get hotter than its first ones show.
        // Counts of copied code are other ones, and are for the run.
        if self.key.copied || self.harvests.fetch_add(1, Ordering::Relaxed) >= MOST_HARVESTS {
            return;
        }
        let warm = |(pc, index)| Some((pc, entered(index))).filter(|e| e.1 >= WARM);
        // One lock at a time: `news` takes the same two.
        let mut hot: Vec<(u32, u32)> = lock(&self.new).iter().copied().filter_map(warm).collect();
        if let Some(kept) = self.kept {
            let known = kept.view.coded().filter(|e| e.1 < self.used());
            hot.extend(known.map(|(pc, slot)| (pc, self.first() + slot)).filter_map(warm));
        }
        // They are for regions.
        if hot.iter().any(|h| h.1 >= HOT) {
            self.note_targets(&targets());
        }
        let mut heat = lock(&self.heat);
        for (pc, n) in hot {
            let h = heat.entry(pc).or_insert(0);
            *h = h.saturating_add(n);
        }
    }
    /// A pc told from the first address.
    fn near(&self, pc: u64) -> Option<u32> {
        (self.key.lo..self.key.hi).contains(&pc).then(|| (pc - self.key.lo) as u32)
    }
    /// Note a region of copied code that was made in this run, by the address of its first block.
    pub(crate) fn note_copied(&self, pc: u64) {
        let mut recipes = lock(&self.recipes);
        if self.key.copied && recipes.len() < MOST_RECIPES {
            recipes.extend(self.near(pc).map(|pc| vec![pc]));
        }
    }
    /// Note a region that was compiled in this run.
    pub(crate) fn note_region(&self, r: &Compiled) {
        let Some(entries) = r.entries.iter().map(|e| self.near(e.0)).collect::<Option<Vec<u32>>>() else { return };
        let mut recipes = lock(&self.recipes);
        // What was hot first has its blocks to itself, also in the translator; a region that was extended stands for what it was.
        let old = recipes.iter().position(|r| r.first() == entries.first());
        if let Some(i) = old {
            recipes[i] = entries;
        } else if recipes.len() < MOST_RECIPES {
            recipes.push(entries);
        }
    }
    fn note_targets(&self, all: &Targets) {
        let mut noted = lock(&self.targets);
        for (jump, to) in all {
            let Some(jump) = self.near(u64::from(*jump)) else { continue };
            let room = MOST_TARGETS - noted.len();
            noted.extend(to.iter().filter_map(|t| Some((jump, self.near(*t)?))).take(room));
        }
    }
    /// Where the indirect jumps in it went in earlier runs.
    pub(crate) fn known_targets(&self) -> impl Iterator<Item = (u64, u64)> {
        let lo = self.key.lo;
        let all = self.kept.into_iter().flat_map(|k| k.view.targets());
        all.map(move |(jump, to)| (lo + u64::from(jump), lo + u64::from(to)))
    }
    /// What people call it: the guest's path.
    pub(crate) fn label(&self) -> &[u8] {
        &self.label
    }
    /// Whether its translations are of an artifact.
    pub(crate) fn is_lifted(&self) -> bool {
        self.lifted
    }
    /// What is to be told to the translator.
    pub(crate) fn news(&self) -> News {
        // Statements of their own: a lock taken in the expression below would be held to its end.
        let blocks: Vec<u32> = std::mem::take(&mut *lock(&self.new)).into_iter().map(|b| b.0).collect();
        let heat = std::mem::take(&mut *lock(&self.heat));
        let targets = std::mem::take(&mut *lock(&self.targets));
        let recipes = std::mem::take(&mut *lock(&self.recipes));
        let (missed, blocks) = blocks.into_iter().partition(|pc| self.is_in_unit(*pc));
        News {
            key: self.key,
            used: self.taken.load(Ordering::Relaxed) > 0,
            precise: self.precise.load(Ordering::Relaxed),
            blocks,
            missed,
            heat: heat.into_iter().collect(),
            targets: targets.into_iter().collect(),
            recipes,
            label: self.label.clone(),
            due: false,
        }
    }
    /// Whether its file has a pc, told from the first address, in a unit.
    fn is_in_unit(&self, pc: u32) -> bool {
        self.kept.and_then(|k| k.view.entry(pc)).is_some_and(|e| e.in_unit)
    }
    /// Regions that can be entered in a page, told by its number.
    pub(crate) fn regions(&self, page: u32) -> impl Iterator<Item = &Arc<Compiled>> {
        let from = self.regions.partition_point(|r| r.0 < page);
        let here = self.regions[from..].iter().take_while(move |r| r.0 == page);
        here.filter_map(|r| self.made.get(r.2 as usize)?.get_or_init(|| self.make(r.2)).as_ref())
    }
    /// Entry index of a pc told from the first address; 0, which counts nothing, if it has no slot.
    fn index(&self, pc: u32) -> u32 {
        self.of_slot(self.kept.and_then(|k| k.view.entry(pc)).map(|e| e.slot))
    }
    fn of_slot(&self, slot: Option<u32>) -> u32 {
        slot.filter(|s| *s < self.used()).map_or(0, |s| self.first() + s)
    }
    fn make(&self, n: u32) -> Option<Arc<Compiled>> {
        let (kept, lo) = (self.kept?, self.key.lo);
        let r = kept.view.region(n as usize).filter(|r| kept.view.is_region_intact(r))?;
        let entries: Vec<_> = r.entries().map(|(pc, slot)| (lo + u64::from(pc), self.first() + slot)).collect();
        if entries.is_empty() || r.entries().any(|e| e.1 >= self.used()) {
            return None;
        }
        let source = kept.view.region_source(&r)?;
        Some(Arc::new(Compiled {
            code: kept.host(kept.view.region_code(&r)?),
            entries,
            source: source.into_iter().map(|(pc, b)| (lo + u64::from(pc), b.to_vec())).collect(),
            precise: r.is_precise(),
            kept: true,
            copied: self.key.copied,
            bits: self.key.bits,
            v3: self.key.v3,
            min_limit: self.key.min_limit,
            insns: r.insns(),
            blocks: r.blocks().map(|(pc, slot)| (lo + u64::from(pc), self.of_slot(slot))).collect(),
        }))
    }
    /// Entry index of slot 0.
    pub(crate) fn first(&self) -> u32 {
        super::SLOTS + self.key.first_slot()
    }
    /// Slots that its file uses.
    pub(crate) fn used(&self) -> u32 {
        self.kept.map_or(0, |m| m.view.slots().min(self.key.slots()))
    }
}

/// What a run says of an image.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    pub key: Key,
    /// Translations of it were used.
    pub used: bool,
    /// See [`Image::precise`].
    pub precise: bool,
    /// Blocks that were translated.
    pub blocks: Vec<u32>,
    /// Those that were, although they are in units that were used: there was no entry.
    pub missed: Vec<u32>,
    /// How often blocks were entered.
    pub heat: Vec<(u32, u32)>,
    /// Where indirect jumps and calls went.
    pub targets: Vec<(u32, u32)>,
    /// Entries of the regions that were compiled.
    pub recipes: Vec<Vec<u32>>,
    /// See [`Image`].
    pub label: Vec<u8>,
    /// Few as they are, the blocks are to be kept.
    pub due: bool,
}

/// An executable mapping as a code space sees it.
pub(crate) struct Found {
    pub start: u64,
    pub end: u64,
    pub image: Arc<Image>,
}

/// See the module.
pub(crate) struct Images {
    folder: Option<Arc<Folder>>,
    artifact: Option<Arc<Artifact>>,
    engine: u128,
    threshold: u32,
    copies: bool,
    known: RwLock<Vec<Arc<Image>>>,
    /// Hashes of files' first bytes, by what tells that a file is the same.
    heads: Mutex<HashMap<[u64; 7], u128>>,
    /// Why files were not used.
    refused: Mutex<Vec<String>>,
}

impl Images {
    /// For an engine with these settings.
    pub(crate) fn new(
        folder: Option<Arc<Folder>>,
        artifact: Option<Arc<Artifact>>,
        model: u32,
        threshold: u32,
        copies: bool,
    ) -> Images {
        let engine = print::engine(model);
        Images {
            folder,
            artifact,
            engine,
            threshold,
            copies,
            known: RwLock::default(),
            heads: Mutex::default(),
            refused: Mutex::default(),
        }
    }
    /// The image that holds an address.
    pub(crate) fn find(&self, mm: &Mm, space: &CodeSpace, pc: u64) -> Option<Found> {
        if pc >= super::format::IMAGE_END {
            return None;
        }
        let m = mm.code_file(pc)?;
        if m.prot & W != 0 {
            return None;
        }
        let fd = m.file.file.host_fd()?;
        let key = self.key(fd, &m, space)?;
        let (start, end) = (m.start, m.end);
        let by_key = |all: &[Arc<Image>]| all.iter().find(|i| i.key == key).cloned();
        if let Some(image) = by_key(&self.known.read().unwrap_or_else(PoisonError::into_inner)) {
            return Some(Found { start, end, image });
        }
        let mut all = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = by_key(&all) {
            return Some(Found { start, end, image });
        }
        if all.len() >= MOST {
            return None;
        }
        let file = fd.try_clone_to_owned().ok()?;
        let taken = all.iter().any(|i| i.kept.is_some() && i.key.lo < key.hi && key.lo < i.key.hi);
        let (kept, lifted) = if taken { (None, false) } else { self.open(&key) };
        let count = kept.map_or(0, |k| k.view.region_count());
        let mut regions = vec![];
        for n in 0..count as u32 {
            let r = kept.and_then(|k| k.view.region(n as usize));
            regions.extend(r.iter().flat_map(|r| r.entries()).map(|(pc, _)| (pc / 4096, pc, n)));
        }
        regions.sort_unstable();
        let image = Arc::new(Image {
            key,
            file,
            kept,
            label: m.file.path.clone(),
            regions,
            made: (0..count).map(|_| OnceLock::new()).collect(),
            new: Mutex::default(),
            heat: Mutex::default(),
            targets: Mutex::default(),
            recipes: Mutex::default(),
            harvests: AtomicU32::new(0),
            lifted,
            precise: AtomicBool::new(false),
            taken: AtomicU32::new(0),
        });
        all.push(image.clone());
        Some(Found { start, end, image })
    }
    fn key(&self, fd: BorrowedFd<'_>, m: &evm_kernel::mm::CodeFile, space: &CodeSpace) -> Option<Key> {
        let s = rustix::fs::fstat(fd).ok()?;
        let key = Key {
            engine: self.engine,
            head: self.head(fd, &s)?,
            size: u64::try_from(s.st_size).ok()?,
            lo: m.start,
            hi: m.end,
            offset: m.offset,
            min_limit: space.arena.size(),
            bits: space.bits,
            v3: space.v3,
            threshold: self.threshold,
            copied: self.copies && space.records().used(),
        };
        key.is_sane().then_some(key)
    }
    /// Hash of a file's first 4 KiB. Should it be of what the file was before, all that is found is compared in vain.
    fn head(&self, fd: BorrowedFd<'_>, s: &rustix::fs::Stat) -> Option<u128> {
        let time = |s: i64, ns: u64| (s as u64).wrapping_mul(1_000_000_000).wrapping_add(ns);
        let changed = (time(s.st_mtime, s.st_mtime_nsec), time(s.st_ctime, s.st_ctime_nsec));
        let same = [s.st_dev, s.st_ino, s.st_size as u64, changed.0, changed.1, s.st_uid.into(), s.st_mode.into()];
        if let Some(known) = lock(&self.heads).get(&same) {
            return Some(*known);
        }
        let new = head(&std::fs::File::from(fd.try_clone_to_owned().ok()?))?;
        let mut all = lock(&self.heads);
        if all.len() >= MOST {
            all.clear();
        }
        all.insert(same, new);
        Some(new)
    }
    /// The translations of an image, and whether they are of the artifact.
    fn open(&self, key: &Key) -> (Option<&'static Mapped>, bool) {
        let name = key.name();
        let used = |m: Result<&'static Mapped, String>| match m {
            Ok(m) => Some(m),
            Err(why) => {
                lock(&self.refused).push(format!("{name}: {why}"));
                None
            }
        };
        if let Some(a) = &self.artifact {
            let part = a.parts.iter().find(|p| p.name == name);
            if let Some(m) = part.and_then(|p| used(Mapped::part(&a.file, p.offset, p.len, key))) {
                return (Some(m), true);
            }
        }
        let Some(folder) = self.folder.as_ref().filter(|f| f.has(&name)) else { return (None, false) };
        (used(folder.image(&name).and_then(|fd| Mapped::new(&fd, key))), false)
    }
    /// The entry index of a pc that is in the file of an image.
    pub(crate) fn index(&self, pc: u64) -> Option<u32> {
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let image = all.iter().find(|i| i.kept.is_some() && (i.key.lo..i.key.hi).contains(&pc))?;
        Some(image.index((pc - image.key.lo) as u32)).filter(|i| *i != 0)
    }
    /// Whether the file of an image has a pc in a unit.
    pub(crate) fn is_in_unit(&self, pc: u64) -> bool {
        let all = self.known.read().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|i| i.kept.is_some() && i.near(pc).is_some_and(|pc| i.is_in_unit(pc)))
    }
    /// All images.
    pub(crate) fn all(&self) -> Vec<Arc<Image>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Why files were not used.
    pub(crate) fn refused(&self) -> Vec<String> {
        lock(&self.refused).clone()
    }
    /// See [`Key::engine`].
    pub(crate) fn engine(&self) -> u128 {
        self.engine
    }
    pub(crate) fn folder(&self) -> Option<&Arc<Folder>> {
        self.folder.as_ref()
    }
    /// How many of the images have files, and how many blocks were taken from these.
    pub(crate) fn used(&self) -> (usize, u64) {
        let all = self.all();
        let blocks = all.iter().map(|i| u64::from(i.taken.load(Ordering::Relaxed))).sum();
        (all.iter().filter(|i| i.kept.is_some()).count(), blocks)
    }
}

/// Hash of a file's first 4 KiB.
pub(crate) fn head(f: &std::fs::File) -> Option<u128> {
    let mut buf = [0; 4096];
    let n = f.read_at(&mut buf, 0).ok()?;
    Some(xxh3_128(&buf[..n]))
}

impl AsFd for Image {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
