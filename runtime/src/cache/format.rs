//! The file of one image's kept translations: written whole, mapped and never parsed.
//!
//! ```text
//! header   HEADER bytes: magic, checksum of header and tables, key, where the parts are, a label for people
//! pages    48 bytes each, ascending: a guest page and its parts of what follows
//! entries  32 bytes each, by pc: slot, piece of code, guest bytes
//! regions  64 bytes each: optimized code and its parts of what follows
//! words    of regions: entries (pc, slot), source (pc, length), blocks (pc, slot)
//! targets  8 bytes each, ascending: an indirect jump, where it went
//! pcs      8 bytes each: offset in the page's or region's code, guest pc
//! bytes    guest bytes that the code was made from
//! code     from a multiple of 4096 on: that of pages, then that of regions
//! ```
//! Little endian; guest addresses are told from the image's first byte, `lo`. The code, bytes and fault tables of a page or region
//! have a checksum of their own, which is looked at when it is first used.
//!
//! [`View`] trusts nothing: each access is within the file or gives `None`. What it cannot know is whether code is good;
//! that follows from who may write the folder (see [`super::folder`]).

use evm_backend::direct::ADDRESS;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// First bytes of a file.
const MAGIC: [u8; 8] = *b"EVMimage";
/// Changes with the layout.
pub(crate) const VERSION: u32 = 2;
const HEADER: usize = 432;
/// Where the offsets of the parts are in it, and the label.
const PARTS: usize = 104;
const PART_COUNT: usize = 9;
const LABEL: usize = 176;
const LABEL_MAX: usize = 255;
const PAGE_SIZE: usize = 48;
const ENTRY_SIZE: usize = 32;
const REGION_SIZE: usize = 64;
const PC_SIZE: usize = 8;
const TARGET_SIZE: usize = 8;
/// Code offset of an address that has a slot and no code.
const NO_CODE: u32 = u32::MAX;
/// Slot of a block that has none.
const NO_SLOT: u32 = u32::MAX;
/// Most targets of one jump that are kept, and of all jumps of an image.
const TARGETS_OF_JUMP: usize = 256;
const TARGETS_OF_IMAGE: usize = 1 << 16;
/// Largest file that is written or read.
pub(crate) const MAX_FILE: usize = 1 << 30;
/// Guest bytes to which one slot is given: hardly any code has more basic blocks, and all entry indices, times eight, must be
/// 32-bit displacements.
pub(crate) const BYTES_PER_SLOT: u64 = 10;
/// Executable bytes of an image of copied code, at most: the guest addresses of its fault tables have marks above them.
const MOST_COPIED: u64 = 1 << COPIED_BITS;
const COPIED_BITS: u32 = 27;
/// Images lie below this address.
pub(crate) const IMAGE_END: u64 = 1 << 31;

/// What an image is, and for whom its translations are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Key {
    /// Build of EVM, host CPU, options of the translators.
    pub engine: u128,
    /// First 4 KiB of the file.
    pub head: u128,
    /// Its size.
    pub size: u64,
    /// Where its executable mapping starts and ends.
    pub lo: u64,
    /// See `lo`.
    pub hi: u64,
    /// Offset in the file of `lo`.
    pub offset: u64,
    /// For address spaces of at least this many bytes.
    pub min_limit: u64,
    /// 64 or 32.
    pub bits: u32,
    /// For a CPU with the instructions of x86-64-v3.
    pub v3: bool,
    /// Entries of a piece between two reports that it is hot.
    pub threshold: u32,
    /// Most of it is copied code.
    pub copied: bool,
}

impl Key {
    pub(crate) fn bytes(&self) -> [u8; 80] {
        let mut b = [0; 80];
        b[..16].copy_from_slice(&self.engine.to_le_bytes());
        b[16..32].copy_from_slice(&self.head.to_le_bytes());
        for (i, v) in [self.size, self.lo, self.hi, self.offset, self.min_limit].iter().enumerate() {
            b[32 + 8 * i..40 + 8 * i].copy_from_slice(&v.to_le_bytes());
        }
        b[72..76].copy_from_slice(&(self.bits | u32::from(self.v3) << 8 | u32::from(self.copied) << 9).to_le_bytes());
        b[76..].copy_from_slice(&self.threshold.to_le_bytes());
        b
    }
    /// What [`Key::bytes`] gave, if an image can be so.
    pub(crate) fn from_bytes(b: &[u8]) -> Option<Key> {
        let sixteen = |at: usize| Some(u128::from_le_bytes(b.get(at..at + 16)?.try_into().ok()?));
        let key = Key {
            engine: sixteen(0)?,
            head: sixteen(16)?,
            size: long(b, 32)?,
            lo: long(b, 40)?,
            hi: long(b, 48)?,
            offset: long(b, 56)?,
            min_limit: long(b, 64)?,
            bits: word(b, 72)? & !(3 << 8),
            v3: word(b, 72)? & 1 << 8 != 0,
            copied: word(b, 72)? & 1 << 9 != 0,
            threshold: word(b, 76)?,
        };
        key.is_sane().then_some(key)
    }
    /// Name of its file.
    pub fn name(&self) -> String {
        format!("{:032x}.img", xxh3_128(&self.bytes()))
    }
    /// Whether an image can be so.
    pub(crate) fn is_sane(&self) -> bool {
        self.lo < self.hi
            && self.hi <= IMAGE_END
            && self.lo.is_multiple_of(4096)
            && self.hi.is_multiple_of(4096)
            && matches!(self.bits, 32 | 64)
            && (!self.copied || self.bits == 64 && self.hi - self.lo <= MOST_COPIED)
    }
    /// Slots that the image may use.
    pub(crate) fn slots(&self) -> u32 {
        ((self.hi - self.lo) / BYTES_PER_SLOT) as u32
    }
    /// Entry index of its slot 0 behind those that are given out one by one.
    pub(crate) fn first_slot(&self) -> u32 {
        (self.lo / BYTES_PER_SLOT) as u32
    }
}

/// A guest pc of copied code told from `lo`, as fault tables of images have it: its marks are in the highest bits, and one tells it from those
/// of other code.
pub(crate) fn marked(pc: u64, lo: u64) -> Option<u32> {
    let near = (pc & ADDRESS).checked_sub(lo).filter(|n| *n < MOST_COPIED)? as u32;
    Some(near | 1 << COPIED_BITS | ((pc >> 60) as u32) << (COPIED_BITS + 1))
}

/// The guest pc of copied code, with its marks, that [`marked`] made this of.
pub(crate) fn unmarked(word: u32, lo: u64) -> Option<u64> {
    let near = u64::from(word) & (MOST_COPIED - 1);
    (word >> COPIED_BITS & 1 != 0).then(|| (lo + near) | u64::from(word >> (COPIED_BITS + 1)) << 60)
}

/// Why a file is not used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It ends before its parts do.
    #[error("it is truncated")]
    Truncated,
    /// It is no such file.
    #[error("it is no file of translations, or of another version")]
    Version,
    /// It is for another image, build, CPU or setting.
    #[error("it is for another image, build, CPU or setting")]
    Key,
    /// Its checksum is wrong.
    #[error("its checksum is wrong")]
    Checksum,
    /// A table says what cannot be.
    #[error("a table of it is damaged")]
    Damaged,
}

/// Translation of one basic block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Piece {
    /// Guest bytes it was made from, from its pc on.
    pub source: Vec<u8>,
    /// Host code.
    pub code: Vec<u8>,
    /// (code offset, guest pc told from `lo`), ascending.
    pub pcs: Vec<(u32, u32)>,
    /// It is copied code; the guest pcs are what [`marked`] gives.
    pub copied: bool,
}

/// Optimized code of several blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Region {
    /// Pcs at which it can be entered, and their slots.
    pub entries: Vec<(u32, u32)>,
    /// Guest bytes it was made from: pc and length, of `bytes` one after the other.
    pub source: Vec<(u32, u32)>,
    /// Those bytes.
    pub bytes: Vec<u8>,
    /// Pcs of its blocks, and of those left out as cold.
    pub blocks: Vec<u32>,
    /// Host code.
    pub code: Vec<u8>,
    /// (code offset, guest pc told from `lo`), ascending.
    pub pcs: Vec<(u32, u32)>,
    /// Guest instructions.
    pub insns: u32,
    /// Compiled in precise mode.
    pub precise: bool,
    /// How often the translator made it anew.
    pub times: u32,
    /// A run compiled it, so it reaches as far as its regions do.
    pub wide: bool,
}

impl Region {
    /// Whether a pc is in code that it was made from.
    pub(crate) fn holds(&self, pc: u32) -> bool {
        self.source.iter().any(|(at, len)| (*at..at.saturating_add(*len)).contains(&pc))
    }
}

/// All of a file, in memory: what a writer works on.
#[derive(Clone, Debug, Default)]
pub struct Content {
    /// Slot and piece of each pc, told from `lo`.
    pub entries: BTreeMap<u32, (u32, Option<Piece>)>,
    /// Optimized code.
    pub regions: Vec<Region>,
    /// Where indirect jumps and calls went: both told from `lo`.
    pub targets: BTreeSet<(u32, u32)>,
    /// What people call the image.
    pub label: Vec<u8>,
}

impl Content {
    /// The slot of a pc; a new one if it has none. `None`: there are no more.
    pub fn slot(&mut self, pc: u32, most: u32) -> Option<u32> {
        let n = self.entries.len() as u32;
        match self.entries.get(&pc) {
            Some(e) => Some(e.0),
            None if n >= most => None,
            None => {
                self.entries.insert(pc, (n, None));
                Some(n)
            }
        }
    }
    /// Note where an indirect jump went; both told from `lo`.
    pub fn target(&mut self, jump: u32, to: u32) {
        let there = self.targets.range((jump, 0)..=(jump, u32::MAX)).count();
        let is_padding = (jump, to) == (0, 0);
        if there < TARGETS_OF_JUMP && self.targets.len() < TARGETS_OF_IMAGE && !is_padding {
            self.targets.insert((jump, to));
        }
    }
    /// The file.
    pub fn write(&self, key: &Key) -> Option<Vec<u8>> {
        let mut t = Tables::default();
        let mut all = self.entries.iter().peekable();
        while let Some((pc, _)) = all.peek() {
            let page = **pc / 4096;
            let mut of_page = vec![];
            while let Some(e) = all.next_if(|(pc, _)| **pc / 4096 == page) {
                of_page.push(e);
            }
            t.page(page, &of_page)?;
        }
        let slot = |pc: u32| self.entries.get(&pc).map_or(NO_SLOT, |e| e.0);
        self.regions.iter().try_for_each(|r| t.region(r, &slot))?;
        self.targets.iter().for_each(|(jump, to)| put(&mut t.targets, &[*jump, *to]));
        t.finish(key, &self.label)
    }
}

#[derive(Default)]
struct Tables {
    pages: Vec<u8>,
    entries: Vec<u8>,
    regions: Vec<u8>,
    words: Vec<u8>,
    targets: Vec<u8>,
    pcs: Vec<u8>,
    bytes: Vec<u8>,
    code: Vec<u8>,
}

fn put(to: &mut Vec<u8>, words: &[u32]) {
    for w in words {
        to.extend_from_slice(&w.to_le_bytes());
    }
}

impl Tables {
    fn page(&mut self, page: u32, of_page: &[(&u32, &(u32, Option<Piece>))]) -> Option<()> {
        let start = |v: &Vec<u8>| u32::try_from(v.len()).ok();
        let first = (self.entries.len() / ENTRY_SIZE) as u32;
        let (code, bytes, pcs) = (start(&self.code)?, start(&self.bytes)?, start(&self.pcs)?);
        for (pc, (slot, piece)) in of_page {
            let Some(p) = piece else {
                put(&mut self.entries, &[**pc, *slot, NO_CODE, 0, 0, 0, 0, 0]);
                continue;
            };
            let at = start(&self.code)?;
            put(
                &mut self.entries,
                &[
                    **pc,
                    *slot,
                    at,
                    p.code.len() as u32,
                    start(&self.bytes)?,
                    p.source.len() as u32,
                    u32::from(p.copied),
                    0,
                ],
            );
            self.bytes.extend_from_slice(&p.source);
            for (off, pc) in &p.pcs {
                put(&mut self.pcs, &[at - code + off, *pc]);
            }
            self.code.extend_from_slice(&p.code);
            self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
        }
        let (code_end, bytes_end, pcs_end) = (start(&self.code)?, start(&self.bytes)?, start(&self.pcs)?);
        put(
            &mut self.pages,
            &[
                page,
                first,
                of_page.len() as u32,
                code,
                code_end - code,
                bytes,
                bytes_end - bytes,
                pcs,
                pcs_end - pcs,
                0,
            ],
        );
        let sum = checksum(&self.code[code as usize..], &self.bytes[bytes as usize..], &self.pcs[pcs as usize..]);
        self.pages.extend_from_slice(&sum.to_le_bytes());
        Some(())
    }
    fn region(&mut self, r: &Region, slot: &dyn Fn(u32) -> u32) -> Option<()> {
        let start = |v: &Vec<u8>| u32::try_from(v.len()).ok();
        let (code, bytes, pcs, words) =
            (start(&self.code)?, start(&self.bytes)?, start(&self.pcs)?, start(&self.words)?);
        r.entries.iter().chain(&r.source).for_each(|(a, b)| put(&mut self.words, &[*a, *b]));
        r.blocks.iter().for_each(|pc| put(&mut self.words, &[*pc, slot(*pc)]));
        r.pcs.iter().for_each(|(o, pc)| put(&mut self.pcs, &[*o, *pc]));
        self.bytes.extend_from_slice(&r.bytes);
        self.code.extend_from_slice(&r.code);
        let (code_end, pcs_end) = (start(&self.code)?, start(&self.pcs)?);
        put(&mut self.regions, &[code, code_end - code, bytes, r.bytes.len() as u32, pcs, pcs_end - pcs, words]);
        put(&mut self.regions, &[r.entries.len() as u32, r.source.len() as u32, r.blocks.len() as u32]);
        put(&mut self.regions, &[r.insns, u32::from(r.precise), r.times, u32::from(r.wide)]);
        let sum = checksum(&self.code[code as usize..], &self.bytes[bytes as usize..], &self.pcs[pcs as usize..]);
        self.regions.extend_from_slice(&sum.to_le_bytes());
        self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
        Some(())
    }
    fn finish(mut self, key: &Key, label: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![0; HEADER];
        let mut at = [0u64; PART_COUNT];
        let parts = [
            &mut self.pages,
            &mut self.entries,
            &mut self.regions,
            &mut self.words,
            &mut self.targets,
            &mut self.pcs,
            &mut self.bytes,
            &mut self.code,
        ];
        for (i, part) in parts.into_iter().enumerate() {
            if i == CODE {
                out.resize(out.len().next_multiple_of(4096), 0);
            }
            at[i] = out.len() as u64;
            out.append(part);
            if i < CODE {
                out.resize(out.len().next_multiple_of(16), 0);
            }
        }
        at[PART_COUNT - 1] = out.len() as u64;
        if out.len() > MAX_FILE {
            return None;
        }
        out[..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[24..PARTS].copy_from_slice(&key.bytes());
        for (i, a) in at.iter().enumerate() {
            out[PARTS + 8 * i..PARTS + 8 + 8 * i].copy_from_slice(&a.to_le_bytes());
        }
        let label = &label[..label.len().min(LABEL_MAX)];
        out[LABEL..LABEL + label.len()].copy_from_slice(label);
        seal(&mut out);
        Some(out)
    }
}

/// Make the checksum of header and tables that of what is there, as far as there are tables. For writers and fuzzers.
pub fn seal(file: &mut [u8]) {
    let end = long(file, PARTS + 8 * PCS).and_then(|e| usize::try_from(e).ok());
    if let Some(sum) = end.and_then(|e| file.get(24..e)).map(xxh3_64) {
        file[16..24].copy_from_slice(&sum.to_le_bytes());
    }
}

/// Number of the part that ends what the header's checksum is of, and of the part that is code.
const PCS: usize = 5;
const CODE: usize = 7;

fn checksum(code: &[u8], bytes: &[u8], pcs: &[u8]) -> u64 {
    xxh3_64(code) ^ xxh3_64(bytes).rotate_left(21) ^ xxh3_64(pcs).rotate_left(42)
}

/// A file as it lies in memory.
#[derive(Clone, Copy)]
pub struct View<'a> {
    file: &'a [u8],
    pages: &'a [u8],
    entries: &'a [u8],
    regions: &'a [u8],
    words: &'a [u8],
    targets: &'a [u8],
    pcs: &'a [u8],
    bytes: &'a [u8],
    code: &'a [u8],
    code_at: u64,
}

/// Optimized code of a view.
#[derive(Clone, Copy)]
pub struct RegionView<'a> {
    record: &'a [u8],
    words: &'a [u8],
}

/// A guest page of a view.
#[derive(Clone, Copy)]
pub struct Page<'a> {
    /// Its number, told from `lo`.
    pub number: u32,
    /// Its place among the pages of the file.
    pub order: usize,
    entries: &'a [u8],
    code: (u32, u32),
    bytes: (u32, u32),
    pcs: (u32, u32),
    sum: u64,
}

/// An address of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Guest pc told from `lo`.
    pub pc: u32,
    /// Its slot.
    pub slot: u32,
    /// Offset and length in the code.
    code: Option<(u32, u32)>,
    bytes: (u32, u32),
    /// The code is copied.
    pub copied: bool,
}

impl Entry {
    /// Whether there is a translation.
    pub fn has_code(&self) -> bool {
        self.code.is_some()
    }
    /// Bytes of guest code.
    pub fn guest_bytes(&self) -> u32 {
        self.bytes.1
    }
}

fn word(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(b.get(at..at + 4)?.try_into().ok()?))
}
fn long(b: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(b.get(at..at + 8)?.try_into().ok()?))
}
fn part(b: &[u8], (at, len): (u32, u32)) -> Option<&[u8]> {
    b.get(at as usize..(at as usize).checked_add(len as usize)?)
}

impl<'a> View<'a> {
    /// Check a file's header and tables.
    pub fn new(file: &'a [u8], key: &Key) -> Result<View<'a>, Refused> {
        if file.len() < HEADER {
            return Err(Refused::Truncated);
        }
        if file[..8] != MAGIC || word(file, 8) != Some(VERSION) {
            return Err(Refused::Version);
        }
        if file[24..PARTS] != key.bytes() {
            return Err(Refused::Key);
        }
        let mut at = [0usize; PART_COUNT];
        for (i, a) in at.iter_mut().enumerate() {
            *a = long(file, PARTS + 8 * i).and_then(|v| v.try_into().ok()).ok_or(Refused::Truncated)?;
        }
        if at[PART_COUNT - 1] != file.len() {
            return Err(Refused::Truncated);
        }
        if at[0] != HEADER || !at.is_sorted() || !at[CODE].is_multiple_of(4096) || file.len() > MAX_FILE {
            return Err(Refused::Damaged);
        }
        if long(file, 16) != Some(xxh3_64(&file[24..at[PCS]])) {
            return Err(Refused::Checksum);
        }
        let of = |i: usize| &file[at[i]..at[i + 1]];
        // Records are of multiples of the 16 bytes that parts are padded to.
        if ![PAGE_SIZE, ENTRY_SIZE, REGION_SIZE].iter().enumerate().all(|(i, size)| of(i).len().is_multiple_of(*size)) {
            return Err(Refused::Damaged);
        }
        Ok(View {
            file,
            pages: of(0),
            entries: of(1),
            regions: of(2),
            words: of(3),
            targets: of(4),
            pcs: of(PCS),
            bytes: of(6),
            code: of(CODE),
            code_at: at[CODE] as u64,
        })
    }
    /// What people call the image.
    pub fn label(&self) -> &'a [u8] {
        let l = &self.file[LABEL..LABEL + LABEL_MAX];
        &l[..l.iter().position(|b| *b == 0).unwrap_or(l.len())]
    }
    /// Where indirect jumps and calls went: both told from `lo`, ascending.
    pub fn targets(&self) -> impl Iterator<Item = (u32, u32)> {
        let pairs = self.targets.chunks_exact(TARGET_SIZE).filter_map(|t| Some((word(t, 0)?, word(t, 4)?)));
        pairs.filter(|t| *t != (0, 0))
    }
    /// How much optimized code there is.
    pub fn region_count(&self) -> usize {
        self.regions.len() / REGION_SIZE
    }
    /// Optimized code by its number.
    pub fn region(&self, i: usize) -> Option<RegionView<'a>> {
        let record = self.regions.get(i * REGION_SIZE..(i + 1) * REGION_SIZE)?;
        let n = |at: usize| Some(word(record, 4 * at)? as usize);
        let len = n(7)?.checked_add(n(8)?)?.checked_add(n(9)?)?.checked_mul(8)?;
        let words = self.words.get(n(6)?..n(6)?.checked_add(len)?)?;
        Some(RegionView { record, words })
    }
    /// Whether what a region refers to is as it was written.
    pub fn is_region_intact(&self, r: &RegionView<'_>) -> bool {
        let parts = (part(self.code, r.pair(0)), part(self.bytes, r.pair(2)), part(self.pcs, r.pair(4)));
        matches!(parts, (Some(c), Some(b), Some(f)) if Some(checksum(c, b, f)) == long(r.record, 56))
    }
    /// Where a region's code is in the file.
    pub fn region_code(&self, r: &RegionView<'_>) -> Option<u64> {
        let code = r.pair(0);
        part(self.code, code).filter(|c| !c.is_empty())?;
        Some(self.code_at + u64::from(code.0))
    }
    /// Guest bytes of a region: pc told from `lo`, and the bytes there.
    pub fn region_source(&self, r: &RegionView<'_>) -> Option<Vec<(u32, &'a [u8])>> {
        let mut bytes = part(self.bytes, r.pair(2))?;
        let mut out = vec![];
        for (pc, len) in r.source() {
            let (now, rest) = bytes.split_at_checked(len as usize)?;
            out.push((pc, now));
            bytes = rest;
        }
        Some(out)
    }
    /// The key in a file's header, for listings; the file may be anything.
    pub fn key_of(file: &[u8]) -> Option<Key> {
        if file.get(..8)? != MAGIC || word(file, 8)? != VERSION {
            return None;
        }
        Key::from_bytes(file.get(24..PARTS)?)
    }
    /// Offset of the code in the file.
    pub fn code_at(&self) -> u64 {
        self.code_at
    }
    /// Length of the file.
    pub fn size(&self) -> usize {
        self.file.len()
    }
    fn page_at(&self, i: usize) -> Option<Page<'a>> {
        let b = self.pages.get(i * PAGE_SIZE..(i + 1) * PAGE_SIZE)?;
        let w = |n: usize| word(b, 4 * n);
        let (first, count) = (w(1)? as usize, w(2)? as usize);
        let entries =
            self.entries.get(first.checked_mul(ENTRY_SIZE)?..first.checked_add(count)?.checked_mul(ENTRY_SIZE)?)?;
        Some(Page {
            number: w(0)?,
            order: i,
            entries,
            code: (w(3)?, w(4)?),
            bytes: (w(5)?, w(6)?),
            pcs: (w(7)?, w(8)?),
            sum: long(b, 40)?,
        })
    }
    /// How many pages have something.
    pub fn page_count(&self) -> usize {
        self.pages.len() / PAGE_SIZE
    }
    /// Entries of all pages.
    pub fn entry_count(&self) -> usize {
        self.entries.len() / ENTRY_SIZE
    }
    /// All pages.
    pub fn all_pages(&self) -> impl Iterator<Item = Page<'a>> {
        let view = *self;
        (0..self.page_count()).filter_map(move |i| view.page_at(i))
    }
    /// Index of the first page for which `before` does not hold.
    fn partition(&self, before: impl Fn(&Page<'a>) -> bool) -> usize {
        let (mut lo, mut hi) = (0, self.page_count());
        while lo < hi {
            let mid = lo.midpoint(hi);
            if self.page_at(mid).is_some_and(|p| before(&p)) { lo = mid + 1 } else { hi = mid }
        }
        lo
    }
    /// A page by its number.
    pub fn page(&self, number: u32) -> Option<Page<'a>> {
        self.page_at(self.partition(|p| p.number < number)).filter(|p| p.number == number)
    }
    /// Whether what a page refers to is as it was written.
    pub fn is_intact(&self, p: &Page<'_>) -> bool {
        let parts = (part(self.code, p.code), part(self.bytes, p.bytes), part(self.pcs, p.pcs));
        matches!(parts, (Some(c), Some(b), Some(f)) if checksum(c, b, f) == p.sum)
    }
    /// Guest bytes of an entry.
    pub fn source(&self, e: &Entry) -> Option<&'a [u8]> {
        part(self.bytes, e.bytes)
    }
    /// Where an entry's code is, in the file; only if it lies within its page's.
    pub fn code_of(&self, p: &Page<'_>, e: &Entry) -> Option<(u64, u32)> {
        let (at, len) = e.code?;
        part(self.code, (at, len))?;
        (at >= p.code.0 && u64::from(at) + u64::from(len) <= u64::from(p.code.0) + u64::from(p.code.1))
            .then_some((self.code_at + u64::from(at), len))
    }
    /// Entries that have code, of all pages: pc and slot.
    pub fn coded(&self) -> impl Iterator<Item = (u32, u32)> {
        let coded = |e: &&[u8]| word(e, 8) != Some(NO_CODE);
        self.entries.chunks_exact(ENTRY_SIZE).filter(coded).filter_map(|e| Some((word(e, 0)?, word(e, 4)?)))
    }
    /// The entry of a pc told from `lo`.
    pub fn entry(&self, pc: u32) -> Option<Entry> {
        self.page(pc / 4096)?.entry(pc)
    }
    /// Guest pc, told from `lo`, of the access at an offset in the file. Signal-safe.
    pub fn pc_at(&self, offset: u64) -> Option<u32> {
        let (at, pc) = self.pc_near(offset)?;
        (at == offset).then_some(pc)
    }
    /// The same of the last access that begins there or before, in the same page or region. Signal-safe.
    pub fn pc_before(&self, offset: u64) -> Option<u32> {
        let first =
            || Some(self.region_at(u32::try_from(offset.checked_sub(self.code_at)?).ok()?)?.entries().next()?.0);
        self.pc_near(offset).map(|n| n.1).or_else(first)
    }
    /// Its offset, and its guest pc.
    fn pc_near(&self, offset: u64) -> Option<(u64, u32)> {
        let at = u32::try_from(offset.checked_sub(self.code_at)?).ok()?;
        let (pcs, start) = self.fault_table(at)?;
        let at = at - start;
        let (mut lo, mut hi) = (0, pcs.len() / PC_SIZE);
        while lo < hi {
            let mid = lo.midpoint(hi);
            if word(pcs, mid * PC_SIZE)? <= at { lo = mid + 1 } else { hi = mid }
        }
        let n = lo.checked_sub(1)? * PC_SIZE;
        Some((self.code_at + u64::from(start + word(pcs, n)?), word(pcs, n + 4)?))
    }
    /// The region whose code is at an offset, which is behind all pages' code.
    fn region_at(&self, at: u32) -> Option<RegionView<'a>> {
        let (mut lo, mut hi) = (0, self.region_count());
        while lo < hi {
            let mid = lo.midpoint(hi);
            if self.region(mid)?.pair(0).0 <= at { lo = mid + 1 } else { hi = mid }
        }
        self.region(lo.checked_sub(1)?)
    }
    /// The fault table of the page or region whose code is at an offset, and where that code starts.
    fn fault_table(&self, at: u32) -> Option<(&'a [u8], u32)> {
        if let Some(r) = self.region_at(at) {
            return Some((part(self.pcs, r.pair(4))?, r.pair(0).0));
        }
        let p = self.page_at(self.partition(|p| p.code.0 <= at).checked_sub(1)?)?;
        Some((part(self.pcs, p.pcs)?, p.code.0))
    }
    /// Whether all of it is as it was written.
    pub fn is_whole(&self) -> bool {
        let n = self.region_count();
        self.all_pages().all(|p| self.is_intact(&p))
            && self.all_pages().count() == self.page_count()
            && (0..n).all(|i| self.region(i).is_some_and(|r| self.is_region_intact(&r)))
    }
    /// Everything, to be added to. Pages that are damaged are left out, and slots that are not unique end it.
    pub fn content(&self) -> Option<Content> {
        let mut c = Content::default();
        let n = self.entry_count() as u32;
        let mut seen = vec![false; n as usize];
        for p in self.all_pages() {
            let good = self.is_intact(&p);
            let pcs = part(self.pcs, p.pcs).unwrap_or_default();
            for e in p.entries() {
                if std::mem::replace(seen.get_mut(e.slot as usize)?, true) {
                    return None;
                }
                let piece = good.then(|| self.piece(&p, &e, pcs)).flatten();
                c.entries.insert(e.pc, (e.slot, piece));
            }
        }
        c.label = self.label().to_vec();
        self.targets().for_each(|(jump, to)| c.target(jump, to));
        c.regions = (0..self.region_count()).filter_map(|i| self.whole_region(i)).collect();
        (c.entries.len() == n as usize).then_some(c)
    }
    fn whole_region(&self, i: usize) -> Option<Region> {
        let r = self.region(i).filter(|r| self.is_region_intact(r))?;
        let pcs = part(self.pcs, r.pair(4))?;
        Some(Region {
            entries: r.entries().collect(),
            source: r.source().collect(),
            bytes: part(self.bytes, r.pair(2))?.to_vec(),
            blocks: r.blocks().map(|b| b.0).collect(),
            code: part(self.code, r.pair(0))?.to_vec(),
            pcs: pcs.chunks_exact(PC_SIZE).filter_map(|c| Some((word(c, 0)?, word(c, 4)?))).collect(),
            insns: r.insns(),
            precise: r.is_precise(),
            times: r.times(),
            wide: r.is_wide(),
        })
    }
    fn piece(&self, p: &Page<'_>, e: &Entry, pcs: &[u8]) -> Option<Piece> {
        let (at, len) = self.code_of(p, e)?;
        let rel = (at - self.code_at) as u32 - p.code.0;
        let pcs = pcs
            .chunks_exact(PC_SIZE)
            .filter_map(|c| Some((word(c, 0)?, word(c, 4)?)))
            .filter(|(o, _)| (rel..rel + len).contains(o))
            .map(|(o, pc)| (o - rel, pc))
            .collect();
        let code = self.file.get(at as usize..at as usize + len as usize)?.to_vec();
        Some(Piece { source: self.source(e)?.to_vec(), code, pcs, copied: e.copied })
    }
}

impl RegionView<'_> {
    fn number(&self, i: usize) -> u32 {
        word(self.record, 4 * i).unwrap_or(0)
    }
    fn pair(&self, i: usize) -> (u32, u32) {
        (self.number(i), self.number(i + 1))
    }
    fn pairs(&self, from: usize, n: usize) -> impl Iterator<Item = (u32, u32)> {
        let words = self.words;
        (from..from + n).filter_map(move |i| Some((word(words, 8 * i)?, word(words, 8 * i + 4)?)))
    }
    /// Pcs at which it can be entered, and their slots.
    pub fn entries(&self) -> impl Iterator<Item = (u32, u32)> {
        self.pairs(0, self.number(7) as usize)
    }
    /// Where its guest bytes are: pc and length.
    pub fn source(&self) -> impl Iterator<Item = (u32, u32)> {
        self.pairs(self.number(7) as usize, self.number(8) as usize)
    }
    /// Pcs of its blocks, and their slots if they have any.
    pub fn blocks(&self) -> impl Iterator<Item = (u32, Option<u32>)> {
        let from = self.number(7) as usize + self.number(8) as usize;
        self.pairs(from, self.number(9) as usize).map(|(pc, slot)| (pc, Some(slot).filter(|s| *s != NO_SLOT)))
    }
    /// Guest instructions.
    pub fn insns(&self) -> u32 {
        self.number(10)
    }
    /// Compiled in precise mode.
    pub fn is_precise(&self) -> bool {
        self.number(11) != 0
    }
    /// See [`Region::wide`].
    pub fn is_wide(&self) -> bool {
        self.number(13) != 0
    }
    /// How often it was made anew.
    pub fn times(&self) -> u32 {
        self.number(12)
    }
}

impl Page<'_> {
    fn entry_at(&self, i: usize) -> Option<Entry> {
        let b = self.entries.get(i * ENTRY_SIZE..(i + 1) * ENTRY_SIZE)?;
        let w = |n: usize| word(b, 4 * n);
        let code = Some((w(2)?, w(3)?)).filter(|c| c.0 != NO_CODE);
        let copied = w(6)? != 0;
        Some(Entry { pc: w(0)?, slot: w(1)?, code, bytes: (w(4)?, w(5)?), copied })
            .filter(|e| e.pc / 4096 == self.number)
    }
    /// Its entries.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.entries.len() / ENTRY_SIZE).filter_map(|i| self.entry_at(i))
    }
    /// The entry of a pc.
    pub fn entry(&self, pc: u32) -> Option<Entry> {
        let (mut lo, mut hi) = (0, self.entries.len() / ENTRY_SIZE);
        while lo < hi {
            let mid = lo.midpoint(hi);
            if self.entry_at(mid)?.pc < pc { lo = mid + 1 } else { hi = mid }
        }
        self.entry_at(lo).filter(|e| e.pc == pc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Key {
        Key {
            engine: 1,
            head: 2,
            size: 0x9000,
            lo: 0x40_0000,
            hi: 0x40_4000,
            offset: 0x1000,
            min_limit: 1 << 36,
            bits: 64,
            v3: true,
            threshold: 64,
            copied: false,
        }
    }
    fn content() -> Content {
        let mut c = Content { label: b"/bin/x".to_vec(), ..Content::default() };
        for (i, pc) in [0x10u32, 0x30, 0xff8, 0x1004, 0x3ff0].into_iter().enumerate() {
            let n = i as u8 + 1;
            let piece = Piece {
                source: vec![n; 12],
                code: vec![0x90 + n; 40],
                pcs: vec![(4, pc), (30, pc + 5)],
                copied: n == 3,
            };
            let slot = c.slot(pc, 100).unwrap();
            c.entries.insert(pc, (slot, (pc != 0x30).then_some(piece)));
        }
        c.regions.push(Region {
            entries: vec![(0x10, 0), (0x1004, 3)],
            source: vec![(0x10, 5), (0x1004, 3)],
            bytes: vec![7; 8],
            blocks: vec![0x10, 0x20, 0x1004],
            code: vec![0xcc; 100],
            pcs: vec![(50, 0x12), (60, 0x1006)],
            insns: 9,
            precise: true,
            times: 2,
            wide: true,
        });
        c.target(0x20, 0x1004);
        c.target(0x20, 0x10);
        c
    }

    #[test]
    fn what_is_written_is_read() {
        let (key, c) = (key(), content());
        let bytes = c.write(&key).unwrap();
        let v = View::new(&bytes, &key).unwrap();
        assert!(v.is_whole());
        assert_eq!(View::key_of(&bytes), Some(key));
        assert_eq!(v.label(), b"/bin/x");
        let back = v.content().unwrap();
        assert_eq!((&back.entries, &back.regions, &back.label), (&c.entries, &c.regions, &c.label));
        assert_eq!(v.targets().collect::<Vec<_>>(), [(0x20, 0x10), (0x20, 0x1004)]);
        assert_eq!(back.targets, c.targets);
        let blocks: Vec<_> = v.region(0).unwrap().blocks().collect();
        assert_eq!(blocks, [(0x10, Some(0)), (0x20, None), (0x1004, Some(3))]);
        assert_eq!(back.write(&key).unwrap(), bytes);
        for (pc, (slot, piece)) in &c.entries {
            let e = v.entry(*pc).unwrap();
            assert_eq!((e.slot, e.has_code()), (*slot, piece.is_some()));
            let Some(p) = piece else { continue };
            let (at, len) = v.code_of(&v.page(pc / 4096).unwrap(), &e).unwrap();
            assert_eq!(bytes[at as usize..(at + u64::from(len)) as usize], p.code);
            assert_eq!(v.source(&e).unwrap(), p.source);
            for (off, guest) in &p.pcs {
                assert_eq!(v.pc_at(at + u64::from(*off)), Some(*guest));
                assert_eq!(v.pc_at(at + u64::from(*off) + 1), None);
            }
        }
        let at = v.region_code(&v.region(0).unwrap()).unwrap();
        assert_eq!(v.pc_at(at + 60), Some(0x1006));
        assert_eq!(v.entry(0x31), None);
        assert_eq!(v.entry(0x2000), None);
    }

    #[test]
    fn other_keys_and_lengths_are_refused() {
        let key = key();
        let bytes = content().write(&key).unwrap();
        for other in [Key { engine: 9, ..key }, Key { lo: 0x40_1000, ..key }, Key { threshold: 65, ..key }] {
            assert_eq!(View::new(&bytes, &other).err(), Some(Refused::Key));
            assert_ne!(other.name(), key.name());
        }
        for n in 0..bytes.len() {
            assert!(View::new(&bytes[..n], &key).is_err(), "{n}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(View::new(&longer, &key).err(), Some(Refused::Truncated));
    }

    /// Each altered byte is noticed, but for padding: by the header, or by what it belongs to.
    #[test]
    fn altered_bytes_are_noticed() {
        let key = key();
        let good = content().write(&key).unwrap();
        let tables = long(&good, PARTS + 8 * PCS).unwrap() as usize;
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            let seen = match View::new(&bytes, &key) {
                Err(_) => true,
                Ok(v) => !v.is_whole() || v.content().is_none_or(|c| c.write(&key).unwrap() != bytes),
            };
            let reserved = (12..16).contains(&at);
            assert!(seen || reserved || at > tables, "{at:#x}");
            assert!(at >= tables || reserved || View::new(&bytes, &key).is_err(), "{at:#x}");
        }
    }

    /// Tables that say what cannot be, under a checksum that is right: nothing is found, nothing panics.
    #[test]
    fn tables_that_lie() {
        let key = key();
        let good = content().write(&key).unwrap();
        let tables = long(&good, PARTS + 8 * PCS).unwrap() as usize;
        for at in (PARTS..tables).step_by(4) {
            for lie in [0u32, 1, 0x7fff_ffff, u32::MAX, u32::MAX - 15] {
                let mut bytes = good.clone();
                bytes[at..at + 4].copy_from_slice(&lie.to_le_bytes());
                seal(&mut bytes);
                if let Ok(v) = View::new(&bytes, &key) {
                    exercise(&v, &key);
                }
            }
        }
    }

    fn exercise(v: &View<'_>, key: &Key) {
        for p in v.all_pages() {
            v.is_intact(&p);
            for e in p.entries() {
                if let Some((at, len)) = v.code_of(&p, &e) {
                    assert!(at >= v.code_at() && at + u64::from(len) <= v.size() as u64);
                }
                v.source(&e);
                v.entry(e.pc);
            }
        }
        for at in (0..v.size() as u64 + 100).step_by(7) {
            v.pc_at(at);
        }
        if let Some(c) = v.content() {
            c.write(key);
        }
    }

    #[test]
    fn marks_of_copied_code_are_kept() {
        use evm_backend::direct::{DESTINATION, HOT, POLL, SOURCE};
        let lo = 0x2000_0000;
        for mark in [0, POLL, HOT, DESTINATION, DESTINATION | SOURCE] {
            for pc in [lo, lo + 0x1234, lo + MOST_COPIED - 1] {
                assert_eq!(marked(pc | mark, lo).and_then(|w| unmarked(w, lo)), Some(pc | mark));
            }
        }
        assert_eq!((marked(lo - 1, lo), marked(lo + MOST_COPIED, lo), unmarked(0x1234, lo)), (None, None, None));
    }
}
