//! What /proc shows of an address space.

use crate::mm::Mm;
use std::io::Write;

/// Bytes mapped and bytes resident.
pub(super) fn size(mm: &Mm) -> (u64, u64) {
    (mm.total(), mm.resident())
}

/// Text of /proc/pid/maps.
pub(super) fn maps(mm: &Mm) -> Vec<u8> {
    let mut out = Vec::new();
    for m in mm.maps() {
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
    out
}
