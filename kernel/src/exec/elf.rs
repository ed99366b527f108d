//! ELF files: headers parsed from bytes with every number checked, segments mapped.
//!
//! Whatever the file holds, the result is a mapping inside the address space or an error; ENOEXEC says that the file is no
//! program of this machine, as Linux does.

use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::mm::{MIN_ADDR, MapRequest, Mm, R, W, X, page_down, page_up};
use crate::wait::Blocking;
use evm_memory::PAGE;
use std::sync::Arc;

/// Most bytes of program headers.
const MAX_PHDRS: usize = 65536;
/// Longest interpreter path (PATH_MAX).
const MAX_INTERP: u64 = 4096;

/// Size of Elf64_Ehdr.
const EHDR: usize = 64;

/// Where the headers of a class have what.
struct Layout {
    bits: u32,
    class: u8,
    machine: u16,
    ehdr: usize,
    phdr: usize,
    /// e_entry, e_phoff; e_phentsize, e_phnum.
    entry: usize,
    phoff: usize,
    phentsize: usize,
    phnum: usize,
    /// p_flags, p_offset, p_vaddr, p_filesz, p_memsz, p_align.
    fields: [usize; 6],
}

static LAYOUTS: [Layout; 2] = [
    Layout {
        bits: 64,
        class: libc::ELFCLASS64,
        machine: libc::EM_X86_64,
        ehdr: EHDR,
        phdr: 56,
        entry: 24,
        phoff: 32,
        phentsize: 54,
        phnum: 56,
        fields: [4, 8, 16, 32, 40, 48],
    },
    Layout {
        bits: 32,
        class: libc::ELFCLASS32,
        machine: libc::EM_386,
        ehdr: 52,
        phdr: 32,
        entry: 24,
        phoff: 28,
        phentsize: 42,
        phnum: 44,
        fields: [24, 4, 8, 16, 20, 28],
    },
];

impl Layout {
    /// A word of the class.
    fn word(&self, b: &[u8], at: usize) -> u64 {
        if self.bits == 32 { u64::from(u32_at(b, at)) } else { u64_at(b, at) }
    }
}

fn field<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    b.get(at..at + N).and_then(|s| s.try_into().ok()).unwrap_or([0; N])
}
fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(field(b, at))
}
fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(field(b, at))
}
fn u64_at(b: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(field(b, at))
}

/// One PT_LOAD segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub vaddr: u64,
    pub offset: u64,
    pub filesz: u64,
    pub memsz: u64,
    pub prot: u8,
}

/// A parsed program.
#[derive(Clone, Debug)]
pub(crate) struct Elf {
    /// 64 or 32.
    pub bits: u32,
    /// Size of a program header.
    pub phent: usize,
    pub entry: u64,
    pub position_independent: bool,
    pub phoff: u64,
    pub phnum: u16,
    /// PT_PHDR, if there is one.
    pub phdr: Option<u64>,
    pub segments: Vec<Segment>,
    pub interp: Option<Vec<u8>>,
    /// PT_GNU_STACK asks for (or, missing, implies) an executable stack.
    pub exec_stack: bool,
    /// Largest alignment of a segment.
    pub align: u64,
}

/// Read exactly; ENOEXEC if the file ends before.
pub(crate) fn read_exact(d: &Description, who: &dyn Blocking, off: u64, buf: &mut [u8]) -> Result<()> {
    let mut done = 0;
    while done < buf.len() {
        match d.file.read(who, off.checked_add(done as u64).ok_or(Errno::ENOEXEC)?, &mut buf[done..], false)? {
            0 => return Err(Errno::ENOEXEC),
            n => done += n,
        }
    }
    Ok(())
}

impl Elf {
    /// Parse the headers of a file. ENOEXEC if it is no x86-64 or i386 ELF program.
    pub fn parse(d: &Description, who: &dyn Blocking) -> Result<Elf> {
        let mut h = [0u8; EHDR];
        read_exact(d, who, 0, &mut h[..LAYOUTS[1].ehdr])?;
        let layout = LAYOUTS.iter().find(|l| l.class == h[4]).ok_or(Errno::ENOEXEC)?;
        read_exact(d, who, 0, &mut h[..layout.ehdr])?;
        let kind = u16_at(&h, 16);
        if h[..4] != *b"\x7fELF"
            || h[5] != libc::ELFDATA2LSB
            || u16_at(&h, 18) != layout.machine
            || (kind != libc::ET_EXEC && kind != libc::ET_DYN)
            || u16_at(&h, layout.phentsize) as usize != layout.phdr
        {
            return Err(Errno::ENOEXEC);
        }
        let phoff = layout.word(&h, layout.phoff);
        let phnum = u16_at(&h, layout.phnum);
        let bytes = phnum as usize * layout.phdr;
        if phnum == 0 || bytes > MAX_PHDRS {
            return Err(Errno::ENOEXEC);
        }
        let mut table = vec![0u8; bytes];
        read_exact(d, who, phoff, &mut table)?;
        let mut out = Elf {
            bits: layout.bits,
            phent: layout.phdr,
            entry: layout.word(&h, layout.entry),
            position_independent: kind == libc::ET_DYN,
            phoff,
            phnum,
            phdr: None,
            segments: Vec::new(),
            interp: None,
            exec_stack: true,
            align: PAGE,
        };
        for p in table.chunks_exact(layout.phdr) {
            let [flags, offset, vaddr, filesz, memsz, align] = layout.fields.map(|at| layout.word(p, at));
            let flags = flags as u32;
            match u32_at(p, 0) {
                libc::PT_LOAD => {
                    let bit = |f, b| if flags & f != 0 { b } else { 0 };
                    let prot = bit(libc::PF_R, R) | bit(libc::PF_W, W) | bit(libc::PF_X, X);
                    let s = Segment { vaddr, offset, filesz, memsz, prot };
                    check_segment(&s)?;
                    if align.is_power_of_two() && align <= 1 << 30 {
                        out.align = out.align.max(align);
                    }
                    if s.memsz > 0 {
                        out.segments.push(s);
                    }
                }
                libc::PT_INTERP if out.interp.is_none() => {
                    if !(2..=MAX_INTERP).contains(&filesz) {
                        return Err(Errno::ENOEXEC);
                    }
                    let mut path = vec![0u8; filesz as usize];
                    read_exact(d, who, offset, &mut path)?;
                    let Some(end) = path.iter().position(|b| *b == 0) else {
                        return Err(Errno::ENOEXEC);
                    };
                    path.truncate(end);
                    out.interp = Some(path);
                }
                libc::PT_PHDR => out.phdr = Some(vaddr),
                libc::PT_GNU_STACK => out.exec_stack = flags & libc::PF_X != 0,
                _ => {}
            }
        }
        if out.segments.is_empty() {
            return Err(Errno::ENOEXEC);
        }
        Ok(out)
    }

    /// Page-aligned range of all segments.
    pub fn span(&self) -> Result<(u64, u64)> {
        let low = self.segments.iter().map(|s| page_down(s.vaddr)).min().unwrap_or(0);
        let mut high = low;
        for s in &self.segments {
            let end = s.vaddr.checked_add(s.memsz).and_then(page_up).ok_or(Errno::ENOEXEC)?;
            high = high.max(end);
        }
        Ok((low, high))
    }

    /// Map the segments. Position-independent programs go to `base`, or to the highest free range if that is `None`.
    pub fn load(&self, mm: &Mm, d: &Arc<Description>, base: Option<u64>, who: &dyn Blocking) -> Result<Loaded> {
        let (low, high) = self.span()?;
        let bias = if self.position_independent {
            let at = match mm.wanted(d, high - low).or(base) {
                Some(b) => b.checked_add(self.align - 1).ok_or(Errno::ENOMEM)? & !(self.align - 1),
                None => {
                    let len = (high - low).checked_add(self.align).ok_or(Errno::ENOMEM)?;
                    let at = mm.image_range(len, &d.path).ok_or(Errno::ENOMEM)?;
                    // As high as the alignment allows.
                    (at + len - (high - low)) & !(self.align - 1)
                }
            };
            if at.checked_add(high - low).is_none_or(|e| e > mm.size()) {
                return Err(Errno::ENOMEM);
            }
            at.wrapping_sub(low)
        } else {
            if low < MIN_ADDR {
                return Err(Errno::EPERM);
            }
            if high > mm.size() {
                return Err(Errno::ENOMEM);
            }
            0
        };
        let mut brk = 0;
        for s in &self.segments {
            self.map_segment(mm, d, s, bias, who)?;
            brk = brk.max(bias.wrapping_add(s.vaddr).wrapping_add(s.memsz));
        }
        let phdr = match self.phdr {
            Some(v) => v.wrapping_add(bias),
            // Where the headers were loaded, if a segment covers them.
            None => self
                .segments
                .iter()
                .find(|s| self.phoff >= s.offset && self.phoff - s.offset < s.filesz)
                .map_or(0, |s| s.vaddr.wrapping_add(self.phoff - s.offset).wrapping_add(bias)),
        };
        Ok(Loaded { bias: bias.wrapping_add(low), entry: self.entry.wrapping_add(bias), phdr, brk })
    }

    fn map_segment(&self, mm: &Mm, d: &Arc<Description>, s: &Segment, bias: u64, who: &dyn Blocking) -> Result<()> {
        let fixed = (libc::MAP_PRIVATE | libc::MAP_FIXED) as u32;
        let start = bias.wrapping_add(s.vaddr);
        let file_end = start.checked_add(s.filesz).ok_or(Errno::ENOEXEC)?;
        let mem_end = start.checked_add(s.memsz).ok_or(Errno::ENOEXEC)?;
        let from = page_down(start);
        let file_pages_end = if s.filesz == 0 { from } else { page_up(file_end).ok_or(Errno::ENOEXEC)? };
        let request = |addr, len, prot, file| MapRequest { addr, len, prot, flags: fixed, file, limit: u64::MAX, who };
        let anon = (libc::MAP_ANONYMOUS as u32) | fixed;
        if file_pages_end > from {
            let off = s.offset - (start - from); // congruent, so this does not go below zero
            mm.map(request(from, file_pages_end - from, s.prot, Some((d.clone(), off))))?;
        }
        let end = page_up(mem_end).ok_or(Errno::ENOEXEC)?;
        if end > file_pages_end {
            mm.map(MapRequest { flags: anon, ..request(file_pages_end, end - file_pages_end, s.prot, None) })?;
        }
        // What the file has after the segment's contents on the last page is not part of it.
        if s.memsz > s.filesz && s.filesz > 0 && file_pages_end > file_end {
            if s.prot & W == 0 {
                mm.protect(page_down(file_end), PAGE, R | W)?;
            }
            let cleared = mm.mem().fill(file_end, file_pages_end - file_end, 0);
            if s.prot & W == 0 {
                mm.protect(page_down(file_end), PAGE, s.prot)?;
            }
            cleared.map_err(|_| Errno::ENOEXEC)?;
        }
        Ok(())
    }
}

fn check_segment(s: &Segment) -> Result<()> {
    let ok = s.filesz <= s.memsz
        && s.vaddr % PAGE == s.offset % PAGE
        && s.vaddr.checked_add(s.memsz).and_then(page_up).is_some()
        && s.offset.checked_add(s.filesz).is_some_and(|e| e <= i64::MAX as u64);
    if ok { Ok(()) } else { Err(Errno::ENOEXEC) }
}

/// A program in memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loaded {
    /// Where its lowest page is.
    pub bias: u64,
    pub entry: u64,
    pub phdr: u64,
    /// End of its memory.
    pub brk: u64,
}
