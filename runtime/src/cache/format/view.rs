//! Reading a file of translations as it lies in memory.

use super::{
    CODE, COPIED, Content, ENTRY_SIZE, HEADER, IN_UNIT, Key, Known, LABEL, LABEL_MAX, MAGIC, MAX_FILE, NO_CODE,
    NO_SLOT, PAGE_SIZE, PART_COUNT, PARTS, PC_SIZE, PCS, Piece, REGION_SIZE, Refused, Region, SLOTS, TARGET_SIZE, Unit,
    VERSION, checksum, long, part, word,
};
use xxhash_rust::xxh3::xxh3_64;

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
    /// Place in the words, number of ranges, and length of code of its unit.
    unit: (u32, u32, u32),
    /// Blocks of its unit that are not entered: a word each.
    inside: &'a [u8],
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
    /// It is a block of the page's unit. Without code it is not entered from outside.
    pub in_unit: bool,
}

impl Entry {
    /// Whether there is a translation that can be entered.
    pub fn has_code(&self) -> bool {
        self.code.is_some()
    }
    /// Whether there is a translation.
    pub fn is_translated(&self) -> bool {
        self.in_unit || self.has_code()
    }
    /// Bytes of guest code.
    pub fn guest_bytes(&self) -> u32 {
        self.bytes.1
    }
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
            unit: (w(9)?, w(10)?, w(11)?),
            inside: part(self.words, (w(9)?.checked_add(w(10)?.checked_mul(8)?)?, w(12)?.checked_mul(4)?))?,
            sum: long(b, 56)?,
        })
    }
    /// How many pages have something.
    pub fn page_count(&self) -> usize {
        self.pages.len() / PAGE_SIZE
    }
    /// How many slots are in use.
    pub fn slots(&self) -> u32 {
        word(self.file, SLOTS).unwrap_or(0)
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
        // Processes ask for hundreds of pages while they start: of those in between only the number is read.
        let (mut lo, mut hi) = (0, self.page_count());
        while lo < hi {
            let mid = lo.midpoint(hi);
            if word(self.pages, mid * PAGE_SIZE)? < number { lo = mid + 1 } else { hi = mid }
        }
        self.page_at(lo).filter(|p| p.number == number)
    }
    /// Whether what a page refers to is as it was written.
    pub fn is_intact(&self, p: &Page<'_>) -> bool {
        let parts = (part(self.code, p.code), part(self.bytes, p.bytes), part(self.pcs, p.pcs));
        matches!(parts, (Some(c), Some(b), Some(f)) if checksum(c, b, f) == p.sum)
    }
    /// Guest bytes of a page's unit: pc told from `lo`, and the bytes there. `None`: it has none.
    pub fn unit_source(&self, p: &Page<'_>) -> Option<Vec<(u32, &'a [u8])>> {
        let (words, ranges, _) = p.unit;
        let words = part(self.words, (words, ranges.checked_mul(8)?)).filter(|w| !w.is_empty())?;
        let mut bytes = part(self.bytes, p.bytes)?;
        let mut out = Vec::with_capacity(ranges as usize);
        for range in words.chunks_exact(8) {
            let (now, rest) = bytes.split_at_checked(word(range, 4)? as usize)?;
            out.push((word(range, 0)?, now));
            bytes = rest;
        }
        Some(out)
    }
    fn unit(&self, p: &Page<'a>) -> Option<Unit> {
        let source = self.unit_source(p)?;
        let code = part(self.code, p.code)?.get(..p.unit.2 as usize)?;
        let pcs = part(self.pcs, p.pcs)?.chunks_exact(PC_SIZE).filter_map(|c| Some((word(c, 0)?, word(c, 4)?)));
        let starts = p.entries().filter(|e| e.in_unit).filter_map(|e| Some((e.pc, e.code?.0.checked_sub(p.code.0)?)));
        Some(Unit {
            bytes: source.iter().flat_map(|s| s.1).copied().collect(),
            source: source.into_iter().map(|(pc, bytes)| (pc, bytes.len() as u32)).collect(),
            code: code.to_vec(),
            pcs: pcs.take_while(|c| c.0 < p.unit.2).collect(),
            starts: starts.collect(),
        })
    }
    /// Guest bytes of an entry with a piece of its own.
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
    /// How many blocks are translated.
    pub fn translated(&self) -> usize {
        let of_page = |p: Page<'_>| p.inside_len() + p.entries().filter(Entry::is_translated).count();
        self.all_pages().map(of_page).sum()
    }
    /// Entries that have code, of all pages: pc and slot.
    pub fn coded(&self) -> impl Iterator<Item = (u32, u32)> {
        let is = |e: &&[u8]| word(e, 8) != Some(NO_CODE);
        self.entries.chunks_exact(ENTRY_SIZE).filter(is).filter_map(|e| Some((word(e, 0)?, word(e, 4)?)))
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
        let n = self.entries.len() / ENTRY_SIZE;
        c.slots = self.slots();
        // Each has an entry.
        let mut seen = vec![false; Some(c.slots as usize).filter(|s| *s <= n)?];
        for p in self.all_pages() {
            let good = self.is_intact(&p);
            let pcs = part(self.pcs, p.pcs).unwrap_or_default();
            let unit = good.then(|| self.unit(&p)).flatten();
            for e in p.entries() {
                if e.slot != NO_SLOT && std::mem::replace(seen.get_mut(e.slot as usize)?, true) {
                    return None;
                }
                let known = good.then(|| self.known(&p, &e, pcs, unit.is_some())).flatten();
                c.entries.insert(e.pc, (e.slot, known.unwrap_or_default()));
            }
            // Of a unit that is not good they are nothing.
            let inside = if unit.is_some() { p.inside } else { &[] };
            let inside = inside.chunks_exact(4).filter_map(|w| word(w, 0));
            c.entries.extend(inside.map(|pc| (pc, (NO_SLOT, Known::InUnit { entered: false }))));
            c.units.extend(unit.map(|u| (p.number, u)));
        }
        c.label = self.label().to_vec();
        self.targets().for_each(|(jump, to)| c.target(jump, to));
        c.regions = (0..self.region_count()).filter_map(|i| self.whole_region(i)).collect();
        (c.entries.len() >= n).then_some(c)
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
    fn known(&self, p: &Page<'_>, e: &Entry, pcs: &[u8], unit: bool) -> Option<Known> {
        match e.in_unit {
            true => unit.then(|| Known::InUnit { entered: e.has_code() }),
            false => self.piece(p, e, pcs).map(Known::Alone),
        }
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
        let (copied, in_unit) = (w(6)? & COPIED != 0, w(6)? & IN_UNIT != 0);
        Some(Entry { pc: w(0)?, slot: w(1)?, code, bytes: (w(4)?, w(5)?), copied, in_unit })
            .filter(|e| e.pc / 4096 == self.number)
    }
    /// How many entries it has at most.
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY_SIZE
    }
    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How many blocks of its unit are not entered.
    pub fn inside_len(&self) -> usize {
        self.inside.len() / 4
    }
    fn is_inside(&self, pc: u32) -> bool {
        let (mut lo, mut hi) = (0, self.inside_len());
        while lo < hi {
            let mid = lo.midpoint(hi);
            match word(self.inside, 4 * mid) {
                Some(at) if at < pc => lo = mid + 1,
                _ => hi = mid,
            }
        }
        word(self.inside, 4 * lo) == Some(pc)
    }
    /// Its entries: addresses that have a slot.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        (0..self.entries.len() / ENTRY_SIZE).filter_map(|i| self.entry_at(i))
    }
    /// The entry of a pc.
    pub fn entry(&self, pc: u32) -> Option<Entry> {
        let (mut lo, mut hi) = (0, self.entries.len() / ENTRY_SIZE);
        while lo < hi {
            let mid = lo.midpoint(hi);
            if word(self.entries, mid * ENTRY_SIZE)? < pc { lo = mid + 1 } else { hi = mid }
        }
        let inside = Entry { pc, slot: NO_SLOT, code: None, bytes: (0, 0), copied: true, in_unit: true };
        self.entry_at(lo).filter(|e| e.pc == pc).or_else(|| self.is_inside(pc).then_some(inside))
    }
}
