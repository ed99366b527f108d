//! The decimal adjustments of 32-bit code: AAA, AAS, AAM, AAD, DAA, DAS.

use crate::cc;

/// AAA
pub const AAA: u64 = 0;
/// AAS
pub const AAS: u64 = 1;
/// AAM; the number base is in bits 8-15.
pub const AAM: u64 = 2;
/// AAD; the number base is in bits 8-15.
pub const AAD: u64 = 3;
/// DAA
pub const DAA: u64 = 4;
/// DAS
pub const DAS: u64 = 5;

/// AX and the flags after the adjustment `what`. Where the manual leaves flags undefined: OF is 0, and after AAA and AAS
/// so are the others but AF and CF.
pub fn adjust(what: u64, ax: u16, flags: u64) -> (u16, u64) {
    let ([al, ah], base) = (ax.to_le_bytes(), (what >> 8) as u8);
    let (af, cf) = (flags & cc::AF != 0, flags & cc::CF != 0);
    let low = al & 15 > 9 || af;
    let of_result = |v: u8| cc::flags(cc::LOGIC, u64::from(v), 0, 0);
    match what & 0xff {
        op @ (AAA | AAS) => {
            let by = if low { 0x106 } else { 0 };
            let v = if op == AAA { ax.wrapping_add(by) } else { ax.wrapping_sub(by) };
            (v & 0xff0f, if low { cc::AF | cc::CF } else { 0 })
        }
        AAM => {
            // The lifter has dealt with base 0.
            let v = al.checked_rem(base).unwrap_or(0);
            (u16::from_le_bytes([v, al.checked_div(base).unwrap_or(0)]), of_result(v))
        }
        AAD => {
            let v = al.wrapping_add(ah.wrapping_mul(base));
            (u16::from(v), of_result(v))
        }
        op => {
            let high = al > 0x99 || cf;
            let by = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
            let v = if op == DAA { al.wrapping_add(by) } else { al.wrapping_sub(by) };
            // A borrow of the lower digit may be one of the whole.
            let carry = high || op != DAA && low && al < 6;
            let f = of_result(v) | if low { cc::AF } else { 0 } | if carry { cc::CF } else { 0 };
            (u16::from_le_bytes([v, ah]), f)
        }
    }
}
