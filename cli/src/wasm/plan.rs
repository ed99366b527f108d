//! Where the images of a module will be in its guest's memory, and the code in them.
//!
//! Each position-independent file has a place of its own below the heap, which starts at a quarter of the address space; the
//! runtime has the kernel put it there. So code is lifted for the addresses it will have.

use crate::starts;
use evm_kernel::fs::archive::{self, Entry};
use evm_runtime::ahead::{Image, Segment};
use object::Endianness;
use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};

/// Lowest place, and what places are multiples of.
const LOWEST: u64 = 16 << 20;
const STEP: u64 = 1 << 20;
const PAGE: u64 = 4096;

/// An image and its place.
pub struct Placed {
    pub image: Image,
    /// Where its first page is wanted; 0: it has a fixed address.
    pub at: u64,
    /// Index of its file among the entries.
    entry: usize,
}

/// Places for all ELF files in the entries, and those that found none. `memory`: size of the address space.
pub fn plan(entries: &[Entry], memory: u64) -> (Vec<Placed>, Vec<String>) {
    let (mut placed, mut left) = (vec![], vec![]);
    let mut files: Vec<(usize, Layout)> =
        entries.iter().enumerate().filter_map(|(i, e)| Some((i, layout(&e.bytes)?))).collect();
    // Those that cannot be elsewhere come first.
    files.sort_by_key(|f| (f.1.movable, f.0));
    let mut taken: Vec<(u64, u64)> = vec![];
    for (entry, l) in files {
        let size = (l.high - l.low).next_multiple_of(STEP);
        let at = if l.movable {
            let free = |at: u64| taken.iter().all(|(a, b)| at + size <= *a || *b <= at);
            // Places are free, or behind one that is not.
            let tries =
                taken.iter().map(|t| t.1.next_multiple_of(STEP.max(l.align))).chain([LOWEST.next_multiple_of(l.align)]);
            tries.filter(|at| *at >= LOWEST && free(*at) && at + size <= memory / 4).min()
        } else {
            Some(l.low)
        };
        let label = String::from_utf8_lossy(&entries[entry].path).into_owned();
        let Some(at) = at else {
            left.push(label);
            continue;
        };
        taken.push((at, at + size));
        let data = entries[entry].bytes.clone();
        let bias = at.wrapping_sub(l.low);
        let segments: Vec<Segment> =
            l.segments.iter().map(|s| Segment { addr: s.addr.wrapping_add(bias), ..*s }).collect();
        let s = starts::find(&data);
        let address = |offset: &u64| {
            let s = segments.iter().find(|s| s.code && (s.offset..s.offset + s.size).contains(offset))?;
            Some(s.addr + (offset - s.offset))
        };
        let functions = s.functions.iter().filter_map(address).collect();
        let guesses = s.starts.difference(&s.functions).filter_map(address).collect();
        let image = Image { label, data, segments, functions, guesses };
        placed.push(Placed { image, at: if l.movable { at } else { 0 }, entry });
    }
    (placed, left)
}

/// What the runtime reads: see `lifted.rs` of the crate `wasm`.
pub fn describe(placed: &[Placed], entries: &[Entry], files: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    for p in placed {
        let path = &entries[p.entry].path;
        let Some((start, _)) = archive::position(files, path) else { continue };
        for s in p.image.segments.iter().filter(|s| s.code) {
            let path = String::from_utf8_lossy(path);
            out.push_str(&format!("{:x} {:x} {:x} {:x} {path}\n", p.at, s.addr, s.size, start as u64 + s.offset));
        }
    }
    out.into_bytes()
}

/// How a file wants to be mapped.
struct Layout {
    segments: Vec<Segment>,
    /// Page-aligned range of addresses.
    low: u64,
    high: u64,
    align: u64,
    movable: bool,
}

/// `None`: it is no program or library for this CPU.
fn layout(data: &[u8]) -> Option<Layout> {
    if !data.starts_with(&elf::ELFMAG) || data.get(4) != Some(&elf::ELFCLASS64) {
        return None;
    }
    let header = elf::FileHeader64::<Endianness>::parse(data).ok()?;
    let e = header.endian().ok()?;
    let movable = header.e_type(e) == elf::ET_DYN;
    if header.e_machine(e) != elf::EM_X86_64 || !(movable || header.e_type(e) == elf::ET_EXEC) {
        return None;
    }
    let loads: Vec<_> = header.program_headers(e, data).ok()?.iter().filter(|p| p.p_type(e) == elf::PT_LOAD).collect();
    let low = loads.iter().map(|p| p.p_vaddr(e) & !(PAGE - 1)).min()?;
    let high = loads.iter().filter_map(|p| p.p_vaddr(e).checked_add(p.p_memsz(e))).max()?.next_multiple_of(PAGE);
    let align = loads.iter().map(|p| p.p_align(e)).filter(|a| a.is_power_of_two()).max()?.max(PAGE);
    let segments = loads.iter().map(|p| Segment {
        addr: p.p_vaddr(e),
        offset: p.p_offset(e),
        size: p.p_filesz(e),
        code: p.p_flags(e) & elf::PF_X != 0,
    });
    Some(Layout { segments: segments.collect(), low, high, align, movable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let entry = |path: &str| Entry { path: path.into(), mode: 0o10_0755, mtime: 0, bytes: bytes.clone() };
        let text = Entry { path: b"/c".to_vec(), mode: 0o10_0644, mtime: 0, bytes: b"text".to_vec() };
        let entries = [entry("/a"), text, entry("/b")];
        let (placed, left) = plan(&entries, 8 << 30);
        let ends: Vec<(u64, u64)> =
            placed.iter().map(|p| (p.at, p.image.segments.iter().map(|s| s.addr + s.size).max().unwrap())).collect();
        assert!(left.is_empty() && ends.len() == 2 && ends[0].0 == LOWEST && ends[0].1 <= ends[1].0, "{ends:x?}");
        assert!(placed.iter().all(|p| p.image.functions.len() > 1000));
        let files = archive::write(&entries);
        let text = String::from_utf8(describe(&placed, &entries, &files)).unwrap();
        let first: Vec<&str> = text.lines().next().unwrap().split(' ').collect();
        let number = |i: usize| usize::from_str_radix(first[i], 16).unwrap();
        let code = placed[0].image.segments.iter().find(|s| s.code).unwrap();
        assert_eq!((number(0), number(1), first[4]), (LOWEST as usize, code.addr as usize, "/a"));
        let (at, from) = (number(3), code.offset as usize);
        assert_eq!(files[at..at + number(2)], bytes[from..from + code.size as usize]);
        assert_eq!(plan(&entries, 64 << 20).1, ["/a", "/b"]);
    }
}
