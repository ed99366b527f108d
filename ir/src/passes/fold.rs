//! Values of integer operations on constants. A constant is its bits, zero-extended. Floating-point operations
//! are not evaluated here: their value depends on MXCSR at run time.

use crate::{Cond, Op, Type};

/// The bits that a value of `ty` has.
pub(super) fn mask(ty: Type) -> u64 {
    u64::MAX >> (64 - ty.bits().min(64))
}

/// Sign extension from `ty`.
pub(super) fn signed(ty: Type, v: u64) -> i64 {
    let n = 64 - ty.bits().min(64);
    (v << n) as i64 >> n
}

/// Two-operand operation; `None` if it has no value (division by zero) or is not one of integers.
pub(super) fn bin(op: Op, ty: Type, a: u64, b: u64) -> Option<u64> {
    if !ty.is_int() {
        return None;
    }
    let bits = ty.bits();
    let n = (b % u64::from(bits)) as u32;
    let (sa, sb) = (signed(ty, a), signed(ty, b));
    let r = match op {
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Mul => a.wrapping_mul(b),
        Op::UMulHi => (u128::from(a) * u128::from(b) >> bits) as u64,
        Op::SMulHi => (i128::from(sa) * i128::from(sb) >> bits) as u64,
        Op::UDiv => a.checked_div(b)?,
        Op::URem => a.checked_rem(b)?,
        Op::SDiv => overflows(ty, sa, sb)?.0 as u64,
        Op::SRem => overflows(ty, sa, sb)?.1 as u64,
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
        Op::Shl => a << n,
        Op::Shr => a >> n,
        Op::Sar => (sa >> n) as u64,
        Op::Rotl => rotl(a, n, bits),
        Op::Rotr => rotl(a, (bits - n) % bits, bits),
        _ => return None,
    };
    Some(r & mask(ty))
}

fn overflows(ty: Type, a: i64, b: i64) -> Option<(i64, i64)> {
    let min = signed(ty, 1 << (ty.bits() - 1));
    if b == 0 || (b == -1 && a == min) { None } else { Some((a / b, a % b)) }
}

fn rotl(a: u64, n: u32, bits: u32) -> u64 {
    if n == 0 { a } else { a << n | a >> (bits - n) }
}

/// One-operand operation.
pub(super) fn un(op: Op, ty: Type, a: u64) -> Option<u64> {
    if !ty.is_int() {
        return None;
    }
    let bits = ty.bits();
    let r = match op {
        Op::Neg => a.wrapping_neg(),
        Op::Not => !a,
        Op::Clz => u64::from(a.leading_zeros() - (64 - bits)),
        Op::Ctz => u64::from(a.trailing_zeros().min(bits)),
        Op::Popcnt => u64::from(a.count_ones()),
        Op::Bswap if bits >= 16 => a.swap_bytes() >> (64 - bits),
        _ => return None,
    };
    Some(r & mask(ty))
}

/// Conversion that only moves bits.
pub(super) fn conv(op: Op, from: Type, to: Type, a: u64) -> Option<u64> {
    match op {
        Op::Zext | Op::Bitcast => Some(a),
        Op::Trunc => Some(a & mask(to)),
        Op::Sext => Some(signed(from, a) as u64 & mask(to)),
        _ => None,
    }
}

/// Comparison.
pub(super) fn icmp(cond: Cond, ty: Type, a: u64, b: u64) -> bool {
    let (sa, sb) = (signed(ty, a), signed(ty, b));
    match cond {
        Cond::Eq => a == b,
        Cond::Ne => a != b,
        Cond::Ult => a < b,
        Cond::Ule => a <= b,
        Cond::Ugt => a > b,
        Cond::Uge => a >= b,
        Cond::Slt => sa < sb,
        Cond::Sle => sa <= sb,
        Cond::Sgt => sa > sb,
        Cond::Sge => sa >= sb,
    }
}
