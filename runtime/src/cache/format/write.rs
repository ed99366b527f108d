//! Writing a file of translations.

use super::{
    CODE, COPIED, Content, ENTRY_SIZE, HEADER, IN_UNIT, Key, Known, LABEL, LABEL_MAX, MAGIC, MAX_FILE, NO_CODE,
    NO_SLOT, PART_COUNT, PARTS, PCS, Piece, Region, SLOTS, Unit, VERSION, checksum, long,
};
use xxhash_rust::xxh3::xxh3_64;

impl Content {
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
            t.page(page, &of_page, self.units.get(&page))?;
        }
        let slot = |pc: u32| self.entries.get(&pc).map_or(NO_SLOT, |e| e.0);
        self.regions.iter().try_for_each(|r| t.region(r, &slot))?;
        self.targets.iter().for_each(|(jump, to)| put(&mut t.targets, &[*jump, *to]));
        t.finish(key, self.slots, &self.label)
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
    fn page(&mut self, page: u32, of_page: &[(&u32, &(u32, Known))], unit: Option<&Unit>) -> Option<()> {
        let start = |v: &Vec<u8>| u32::try_from(v.len()).ok();
        let first = (self.entries.len() / ENTRY_SIZE) as u32;
        let (code, bytes, pcs) = (start(&self.code)?, start(&self.bytes)?, start(&self.pcs)?);
        let words = start(&self.words)?;
        let unit = unit.filter(|u| !u.code.is_empty());
        let unit_len = unit.map_or(Some(0), |u| self.unit(u))?;
        let mut inside = vec![];
        for (pc, (slot, known)) in of_page {
            match known {
                Known::InUnit { entered: false } if *slot == NO_SLOT => inside.push(**pc),
                Known::Named => put(&mut self.entries, &[**pc, *slot, NO_CODE, 0, 0, 0, 0, 0]),
                Known::Alone(p) => self.piece(**pc, *slot, p, code)?,
                Known::InUnit { entered } => {
                    let starts = unit.map_or(&[][..], |u| &u.starts);
                    let at = starts.binary_search_by_key(*pc, |s| s.0).ok().filter(|_| *entered).map(|i| starts[i].1);
                    let (at, len) = at.map_or((NO_CODE, 0), |at| (code + at, unit_len.saturating_sub(at)));
                    put(&mut self.entries, &[**pc, *slot, at, len, 0, 0, COPIED | IN_UNIT, 0]);
                }
            }
        }
        let (code_end, bytes_end, pcs_end) = (start(&self.code)?, start(&self.bytes)?, start(&self.pcs)?);
        put(&mut self.words, &inside);
        self.words.resize(self.words.len().next_multiple_of(8), 0);
        let entries = (of_page.len() - inside.len()) as u32;
        put(&mut self.pages, &[page, first, entries, code, code_end - code, bytes, bytes_end - bytes]);
        put(&mut self.pages, &[pcs, pcs_end - pcs, words, unit.map_or(0, |u| u.source.len() as u32), unit_len]);
        put(&mut self.pages, &[inside.len() as u32, 0]);
        let sum = checksum(&self.code[code as usize..], &self.bytes[bytes as usize..], &self.pcs[pcs as usize..]);
        self.pages.extend_from_slice(&sum.to_le_bytes());
        Some(())
    }
    /// Add a page's unit, before its pieces; gives the length of its code.
    fn unit(&mut self, u: &Unit) -> Option<u32> {
        u.source.iter().for_each(|(pc, len)| put(&mut self.words, &[*pc, *len]));
        self.bytes.extend_from_slice(&u.bytes);
        u.pcs.iter().for_each(|(off, pc)| put(&mut self.pcs, &[*off, *pc]));
        self.code.extend_from_slice(&u.code);
        self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
        u32::try_from(u.code.len()).ok()
    }
    /// Add a piece; `page` is where its page's code starts.
    fn piece(&mut self, pc: u32, slot: u32, p: &Piece, page: u32) -> Option<()> {
        let start = |v: &Vec<u8>| u32::try_from(v.len()).ok();
        let at = start(&self.code)?;
        put(&mut self.entries, &[pc, slot, at, p.code.len() as u32, start(&self.bytes)?, p.source.len() as u32]);
        put(&mut self.entries, &[if p.copied { COPIED } else { 0 }, 0]);
        self.bytes.extend_from_slice(&p.source);
        p.pcs.iter().for_each(|(off, pc)| put(&mut self.pcs, &[at - page + off, *pc]));
        self.code.extend_from_slice(&p.code);
        self.code.resize(self.code.len().next_multiple_of(16), 0xcc);
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
    fn finish(mut self, key: &Key, slots: u32, label: &[u8]) -> Option<Vec<u8>> {
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
        out[SLOTS..SLOTS + 4].copy_from_slice(&slots.to_le_bytes());
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
