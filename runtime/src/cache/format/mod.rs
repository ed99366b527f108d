//! The file of one image's kept translations: written whole, mapped and never parsed.
//!
//! ```text
//! header   HEADER bytes: magic, checksum of header and tables, key, where the parts are, a label for people
//! pages    64 bytes each, ascending: a guest page and its parts of what follows
//! entries  32 bytes each, by pc: slot, piece of code or place in the page's unit, guest bytes
//! regions  64 bytes each: optimized code and its parts of what follows
//! words    of units: source (pc, length), blocks that are not entered (pc); of regions: entries (pc, slot), source (pc, length), blocks (pc, slot)
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

#[cfg(test)]
mod tests;
mod view;
mod write;

pub use view::{Entry, Page, RegionView, View};
pub use write::seal;

use evm_backend::direct::ADDRESS;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// First bytes of a file.
const MAGIC: [u8; 8] = *b"EVMimage";
/// Changes with the layout.
pub(crate) const VERSION: u32 = 3;
const HEADER: usize = 448;
/// Where the offsets of the parts are in it, the number of slots, and the label.
const PARTS: usize = 104;
const PART_COUNT: usize = 9;
const SLOTS: usize = 176;
const LABEL: usize = 184;
const LABEL_MAX: usize = 255;
const PAGE_SIZE: usize = 64;
const ENTRY_SIZE: usize = 32;
const REGION_SIZE: usize = 64;
const PC_SIZE: usize = 8;
const TARGET_SIZE: usize = 8;
/// Code offset of an address that has a slot and no code.
const NO_CODE: u32 = u32::MAX;
/// Marks of an entry: its code is copied; it is a block of the page's unit.
const COPIED: u32 = 1;
const IN_UNIT: u32 = 2;
/// Slot of a block that has none: no code goes there but that of its unit.
pub const NO_SLOT: u32 = u32::MAX;
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
            && (!self.copied || self.hi - self.lo <= MOST_COPIED)
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

/// Copied code of the blocks that begin in a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// Guest bytes it was made from: pc and length, of `bytes` one after the other.
    pub source: Vec<(u32, u32)>,
    /// Those bytes.
    pub bytes: Vec<u8>,
    /// Host code.
    pub code: Vec<u8>,
    /// (code offset, what [`marked`] gives), ascending.
    pub pcs: Vec<(u32, u32)>,
    /// Blocks that can be entered, and where in the code; by pc.
    pub starts: Vec<(u32, u32)>,
}

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// Code names it.
    #[default]
    Named,
    /// A block with a translation of its own.
    Alone(Piece),
    /// A block of the unit of its page.
    InUnit {
        /// The unit is entered there.
        entered: bool,
    },
}

impl Known {
    /// Whether there is code for it.
    pub fn is_block(&self) -> bool {
        *self != Known::Named
    }
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
    /// Each pc, told from `lo`: its slot or [`NO_SLOT`], and what there is.
    pub entries: BTreeMap<u32, (u32, Known)>,
    /// How many slots were given out.
    pub slots: u32,
    /// The units of pages, by their numbers.
    pub units: BTreeMap<u32, Unit>,
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
        let e = self.entries.entry(pc).or_insert((NO_SLOT, Known::Named));
        if e.0 == NO_SLOT && self.slots < most {
            e.0 = self.slots;
            self.slots += 1;
        }
        Some(e.0).filter(|s| *s != NO_SLOT)
    }
    /// Note where an indirect jump went; both told from `lo`.
    pub fn target(&mut self, jump: u32, to: u32) {
        let there = self.targets.range((jump, 0)..=(jump, u32::MAX)).count();
        let is_padding = (jump, to) == (0, 0);
        if there < TARGETS_OF_JUMP && self.targets.len() < TARGETS_OF_IMAGE && !is_padding {
            self.targets.insert((jump, to));
        }
    }
}

/// Number of the part that ends what the header's checksum is of, and of the part that is code.
const PCS: usize = 5;
const CODE: usize = 7;

fn checksum(code: &[u8], bytes: &[u8], pcs: &[u8]) -> u64 {
    xxh3_64(code) ^ xxh3_64(bytes).rotate_left(21) ^ xxh3_64(pcs).rotate_left(42)
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
