//! What /proc shows of an address space.

use crate::mm::{MapEntry, Mm};
use std::io::Write;

/// Bytes mapped and bytes resident.
pub(super) fn size(mm: &Mm) -> (u64, u64) {
    (mm.total(), mm.resident())
}

/// Text of /proc/pid/maps.
pub(super) fn maps(mm: &Mm) -> Vec<u8> {
    let mut out = Vec::new();
    for m in mm.maps() {
        line(&mut out, &m);
    }
    if mm.bits == 64 {
        let start = crate::arch::vsyscall::PAGE;
        let gate = MapEntry {
            start,
            end: start + evm_memory::PAGE,
            prot: crate::mm::X,
            shared: false,
            offset: 0,
            dev: 0,
            ino: 0,
            name: b"[vsyscall]".to_vec(),
        };
        line(&mut out, &gate);
    }
    out
}

/// The numbers of a mapping (or of all) in kB: in smaps every page that is there is one's own and was written to.
fn numbers(out: &mut Vec<u8>, resident: u64, shared: bool) {
    let (private, shared) = if shared { (0, resident) } else { (resident, 0) };
    let rows = [
        ("Rss", resident),
        ("Pss", resident),
        ("Pss_Dirty", resident),
        ("Shared_Clean", 0),
        ("Shared_Dirty", shared),
        ("Private_Clean", 0),
        ("Private_Dirty", private),
        ("Referenced", resident),
        ("Anonymous", private),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", 0),
    ];
    for (name, n) in rows {
        let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), n);
    }
}

/// Text of /proc/pid/smaps.
pub(super) fn smaps(mm: &Mm) -> Vec<u8> {
    let mut out = Vec::new();
    for m in mm.maps() {
        line(&mut out, &m);
        for (name, n) in [("Size", (m.end - m.start) >> 10), ("KernelPageSize", 4), ("MMUPageSize", 4)] {
            let _ = writeln!(out, "{:<16}{:>8} kB", format!("{name}:"), n);
        }
        numbers(&mut out, mm.resident_in(m.start, m.end) >> 10, m.shared);
        let flag = |on: bool, name: &'static str| if on { name } else { "" };
        let p = m.prot;
        let (r, w, x) = (p & crate::mm::R != 0, p & crate::mm::W != 0, p & crate::mm::X != 0);
        let _ = writeln!(
            out,
            "THPeligible:           0\nVmFlags: {}{}{}{}mr mw me ",
            flag(r, "rd "),
            flag(w, "wr "),
            flag(x, "ex "),
            flag(m.shared, "sh ")
        );
    }
    out
}

/// Text of /proc/pid/smaps_rollup.
pub(super) fn rollup(mm: &Mm) -> Vec<u8> {
    let all = mm.maps();
    let (Some(first), Some(last)) = (all.first(), all.last()) else {
        return Vec::new();
    };
    let mut out = format!("{:x}-{:x} ---p 00000000 00:00 0                          [rollup]\n", first.start, last.end);
    let mut bytes = std::mem::take(&mut out).into_bytes();
    numbers(&mut bytes, mm.resident() >> 10, false);
    bytes
}

fn line(out: &mut Vec<u8>, m: &MapEntry) {
    {
        let bit = |b: u8, c: char| if m.prot & b != 0 { c } else { '-' };
        let start = out.len();
        let _ = write!(
            out,
            "{:x}-{:x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
            m.start,
            m.end,
            bit(crate::mm::R, 'r'),
            bit(crate::mm::W, 'w'),
            bit(crate::mm::X, 'x'),
            if m.shared { 's' } else { 'p' },
            m.offset,
            m.dev >> 8 & 0xfff,
            m.dev & 0xff,
            m.ino
        );
        if !m.name.is_empty() {
            while out.len() - start < 73 {
                out.push(b' ');
            }
            out.extend_from_slice(&m.name);
        }
        out.push(b'\n');
    }
}
