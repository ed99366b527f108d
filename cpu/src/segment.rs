//! Segment selectors and descriptors as a program can see them: Linux's global table, with the three entries a thread
//! may set. There is no local table.
//!
//! Code, data, extra and stack segments are flat: a descriptor with another base is refused for them. The limits of
//! segments are not checked.

use crate::CpuState;

/// LAR
pub const RIGHTS: u64 = 0;
/// LSL
pub const LIMIT: u64 = 1;
/// VERR
pub const READ: u64 = 2;
/// VERW
pub const WRITE: u64 = 3;

/// First entry of the global table that a thread may set, and how many there are.
pub const TLS: std::ops::Range<usize> = 12..15;
/// Selector of 32-bit user code.
pub const CODE32: u16 = 0x23;
/// Selector of 64-bit user code.
pub const CODE64: u16 = 0x33;
/// Selector of user data.
pub const DATA: u16 = 0x2b;

/// The segment that tells a CPU's number by its limit: it is 0 here.
const CPU_NUMBER: u64 = 0x0040_f500_0000_0000;

/// The descriptor that a selector names, if user code may know of it.
fn descriptor(st: &CpuState, sel: u16) -> Option<u64> {
    if sel & 4 != 0 {
        return None;
    }
    let d = match usize::from(sel >> 3) {
        4 => 0x00cf_fb00_0000_ffff,
        5 => 0x00cf_f300_0000_ffff,
        6 => 0x00af_fb00_0000_ffff,
        15 => CPU_NUMBER,
        n if TLS.contains(&n) => st.tls[n - TLS.start],
        _ => return None,
    };
    // A segment of privilege 3, code or data.
    (d >> 44 & 7 == 7).then_some(d)
}

fn is_present(d: u64) -> bool {
    d >> 47 & 1 != 0
}
fn is_code(d: u64) -> bool {
    d >> 43 & 1 != 0
}
/// Data can be read; code if it says so.
fn is_readable(d: u64) -> bool {
    !is_code(d) || d >> 41 & 1 != 0
}
fn is_writable(d: u64) -> bool {
    !is_code(d) && d >> 41 & 1 != 0
}
/// Base of a descriptor.
pub fn base(d: u64) -> u64 {
    d >> 16 & 0xff_ffff | d >> 56 << 24
}
fn limit(d: u64) -> u32 {
    let v = (d & 0xffff | d >> 32 & 0xf_0000) as u32;
    if d >> 55 & 1 != 0 { v << 12 | 0xfff } else { v }
}

/// Load segment register `n` (es cs ss ds fs gs): the base of the segment, or `None` for #GP.
pub fn load(st: &CpuState, n: usize, sel: u16) -> Option<u64> {
    let stack = n == 2;
    if sel < 4 && !stack {
        return Some(0);
    }
    let d = descriptor(st, sel).filter(|d| is_present(*d))?;
    let fits = if stack { sel & 3 == 3 && is_writable(d) } else { is_readable(d) };
    let base = base(d);
    (fits && (n >= 4 || base == 0)).then_some(base)
}

/// What LAR, LSL, VERR or VERW (`what`) find of a selector; the last two give any number.
pub fn inspect(st: &CpuState, sel: u16, what: u64) -> Option<u32> {
    let d = descriptor(st, sel)?;
    match what {
        RIGHTS => Some((d >> 32) as u32 & 0x00ff_ff00),
        LIMIT => Some(limit(d)),
        READ => is_readable(d).then_some(0),
        _ => is_writable(d).then_some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let mut st = CpuState::default();
        assert_eq!(load(&st, 5, 0x63), None);
        st.tls[0] = 0x12cf_f334_5678_ffff;
        assert_eq!(load(&st, 5, 0x63), Some(0x1234_5678));
        assert_eq!(load(&st, 3, 0x63), None);
        assert_eq!((load(&st, 3, DATA), load(&st, 2, DATA), load(&st, 2, 0x2a)), (Some(0), Some(0), None));
        assert_eq!((load(&st, 0, 3), load(&st, 2, 3), load(&st, 0, 0x0b)), (Some(0), None, None));
        assert_eq!(inspect(&st, CODE32, RIGHTS), Some(0x00cf_fb00));
        assert_eq!(inspect(&st, DATA, LIMIT), Some(u32::MAX));
        assert_eq!((inspect(&st, CODE32, WRITE), inspect(&st, CODE32, READ)), (None, Some(0)));
    }
}
