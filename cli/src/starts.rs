//! Where code starts in an ELF file, as far as the file says so: entry, symbols, initializers, relocations, unwind tables.

use object::elf;
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endianness, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};
use std::collections::{BTreeMap, BTreeSet};

/// A file's segments and starts, all told as offsets in the file.
#[derive(Debug, Default)]
pub struct Starts {
    /// 64 or 32.
    pub bits: u32,
    /// Executable segments: offset and size.
    pub code: Vec<(u64, u64)>,
    /// Starts of code.
    pub starts: BTreeSet<u64>,
    /// Of them, those that are functions for all that is known: symbols, unwind tables, entries.
    pub functions: BTreeSet<u64>,
    /// Names of functions that have one.
    pub names: BTreeMap<u64, String>,
}

/// What an ELF file says; nothing if it is none.
pub fn find(data: &[u8]) -> Starts {
    let r = if data.get(4) == Some(&elf::ELFCLASS32) {
        of_class::<elf::FileHeader32<Endianness>>(data, 32)
    } else {
        of_class::<elf::FileHeader64<Endianness>>(data, 64)
    };
    r.unwrap_or_default()
}

struct Segment {
    address: u64,
    offset: u64,
    size: u64,
    code: bool,
}

fn of_class<H: FileHeader<Endian = Endianness>>(data: &[u8], bits: u32) -> object::Result<Starts> {
    let file = ElfFile::<H>::parse(data)?;
    let e = file.endian();
    let segments: Vec<Segment> = file
        .elf_program_headers()
        .iter()
        .filter(|p| p.p_type(e) == elf::PT_LOAD)
        .map(|p| Segment {
            address: p.p_vaddr(e).into(),
            offset: p.p_offset(e).into(),
            size: p.p_filesz(e).into(),
            code: p.p_flags(e) & elf::PF_X != 0,
        })
        .collect();
    let mut s = Starts { bits, ..Starts::default() };
    s.code = segments.iter().filter(|g| g.code).map(|g| (g.offset, g.size)).collect();
    let offset = |address: u64| {
        let inside = |g: &&Segment| g.code && address.checked_sub(g.address).is_some_and(|o| o < g.size);
        let g = segments.iter().find(inside)?;
        (address - g.address).checked_add(g.offset)
    };
    let functions = &mut s.functions;
    let mut add = |address: u64| functions.extend(offset(address));
    add(file.elf_header().e_entry(e).into());
    // IFUNC symbols are of the kind "unknown" here.
    let code = |k: SymbolKind| matches!(k, SymbolKind::Text | SymbolKind::Unknown);
    for y in file.symbols().chain(file.dynamic_symbols()).filter(|y| y.is_definition() && code(y.kind())) {
        add(y.address());
        if let (Some(at), Ok(name)) = (offset(y.address()), y.name())
            && !name.is_empty()
        {
            s.names.insert(at, name.to_owned());
        }
    }
    for d in &file.elf_dynamic_table()? {
        if matches!(d.tag, elf::DT_INIT | elf::DT_FINI) {
            add(d.val);
        }
    }
    for section in file.sections() {
        let bytes = section.data().unwrap_or_default();
        match section.name() {
            Ok(".eh_frame_hdr") => unwind_table(bytes, section.address(), &mut add),
            // PLT entries, and code of the linker's, of which no symbol tells.
            Ok(".plt" | ".plt.sec" | ".plt.got") => {
                for (o, entry) in (0..).step_by(16).zip(bytes.chunks(16)) {
                    add(section.address() + o);
                    // PUSH imm32: where the entry goes on as long as its symbol is not bound.
                    if entry.get(6) == Some(&0x68) {
                        add(section.address() + o + 6);
                    }
                }
            }
            Ok(".init" | ".fini") => add(section.address()),
            _ => {}
        }
    }
    // Pointers to functions, or to the middle of one.
    let mut add = |address: u64| s.starts.extend(offset(address));
    for (_, r) in file.dynamic_relocations().into_iter().flatten() {
        if r.target() == RelocationTarget::Absolute {
            add(r.addend() as u64);
        }
    }
    // A program at a fixed address has no relocations that tell of its function pointers.
    if file.elf_header().e_type(e) == elf::ET_EXEC {
        let word = bits as usize / 8;
        for g in segments.iter().filter(|g| !g.code) {
            let bytes = data.get(g.offset as usize..(g.offset + g.size) as usize).unwrap_or_default();
            for w in bytes.chunks_exact(word) {
                let mut v = [0; 8];
                v[..word].copy_from_slice(w);
                add(u64::from_le_bytes(v));
            }
        }
    }
    s.starts.extend(&s.functions);
    Ok(s)
}

/// Starts of functions in `.eh_frame_hdr` (Linux Standard Base, 10.6.2) in the form that linkers write: a sorted table
/// of 32-bit offsets from the section.
fn unwind_table(bytes: &[u8], address: u64, add: &mut impl FnMut(u64)) {
    const UDATA4: u8 = 0x03;
    const DATAREL_SDATA4: u8 = 0x3b;
    if bytes.len() < 12 || bytes[0] != 1 || bytes[2] != UDATA4 || bytes[3] != DATAREL_SDATA4 {
        return;
    }
    for row in bytes[12..].chunks_exact(8) {
        let offset = i32::from_le_bytes([row[0], row[1], row[2], row[3]]);
        add(address.wrapping_add_signed(offset.into()));
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn own_program() {
        let data = std::fs::read("/proc/self/exe").unwrap();
        let s = super::find(&data);
        assert!(s.bits == 64 && s.starts.len() > 1000 && !s.code.is_empty());
        assert!(s.starts.iter().all(|o| s.code.iter().any(|(at, n)| (*at..at + n).contains(o))));
        assert!(super::find(b"no ELF file").starts.is_empty());
    }
}
