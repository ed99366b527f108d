//! Scalar operations by opcode and type, on zero-extended 64-bit cells.
//!
//! Floating-point operations are the hardware's own instructions under the host's current MXCSR (or `evm-fpu`'s, on hosts without), written as
//! assembly: the compiler may neither fold them nor exchange operands, so NaN results and status
//! flags are those of the guest's instruction.
//!
//! # Safety
//! The assembly blocks work on registers only.
#![allow(unsafe_code)]

use evm_ir::{FCond, Op, Type};
#[cfg(target_arch = "x86_64")]
use std::arch::asm;

// The instructions by name: on the CPU, or in portable code.
#[cfg(not(target_arch = "x86_64"))]
#[macro_use]
#[path = "scalar_portable.rs"]
mod instructions;
#[cfg(target_arch = "x86_64")]
#[macro_use]
#[path = "scalar_x86.rs"]
mod instructions;
use instructions::{cmp32, cmp64, signal32, signal64};

/// Two cells to one.
pub type Fn2 = fn(u64, u64) -> u64;
/// One cell to one.
pub type Fn1 = fn(u64) -> u64;

/// Low bits of a cell that a value of `ty` occupies.
pub fn mask(ty: Type) -> u64 {
    match ty.bytes() {
        1 => 0xff,
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    }
}

macro_rules! fp_both {
    ($ty:expr, $s:tt, $d:tt) => {
        match $ty {
            Type::F32 => fp2!($s, f32, u32),
            Type::F64 => fp2!($d, f64, u64),
            _ => return None,
        }
    };
}
macro_rules! ints {
    ($ty:expr, |$a:ident: $t:ident, $b:ident| $e:expr) => {
        match $ty {
            Type::I8 => {
                #[allow(dead_code)]
                type $t = u8;
                |a, b| {
                    let ($a, $b) = (a as u8, b as u8);
                    u64::from($e)
                }
            }
            Type::I16 => {
                #[allow(dead_code)]
                type $t = u16;
                |a, b| {
                    let ($a, $b) = (a as u16, b as u16);
                    u64::from($e)
                }
            }
            Type::I32 => {
                #[allow(dead_code)]
                type $t = u32;
                |a, b| {
                    let ($a, $b) = (a as u32, b as u32);
                    u64::from($e)
                }
            }
            Type::I64 => {
                #[allow(dead_code)]
                type $t = u64;
                |a, b| {
                    let ($a, $b) = (a, b);
                    $e
                }
            }
            _ => return None,
        }
    };
}
macro_rules! sints {
    ($ty:expr, |$a:ident, $b:ident| $e:expr) => {
        match $ty {
            Type::I8 => |a, b| {
                let ($a, $b) = (a as i8, b as i8);
                ($e) as u8 as u64
            },
            Type::I16 => |a, b| {
                let ($a, $b) = (a as i16, b as i16);
                ($e) as u16 as u64
            },
            Type::I32 => |a, b| {
                let ($a, $b) = (a as i32, b as i32);
                ($e) as u32 as u64
            },
            Type::I64 => |a, b| {
                let ($a, $b) = (a as i64, b as i64);
                ($e) as u64
            },
            _ => return None,
        }
    };
}

/// Two-operand operation.
#[rustfmt::skip]
#[allow(clippy::redundant_closure_call, clippy::cast_lossless, clippy::useless_conversion)]
pub fn bin(op: Op, ty: Type) -> Option<Fn2> {
    Some(match op {
        Op::Add => ints!(ty, |a: T, b| a.wrapping_add(b)),
        Op::Sub => ints!(ty, |a: T, b| a.wrapping_sub(b)),
        Op::Mul => ints!(ty, |a: T, b| a.wrapping_mul(b)),
        Op::UMulHi => ints!(ty, |a: T, b| ((u128::from(a) * u128::from(b)) >> T::BITS) as T),
        Op::SMulHi => match ty {
            Type::I8 => |a, b| ((i32::from(a as i8) * i32::from(b as i8)) >> 8) as u8 as u64,
            Type::I16 => |a, b| ((i32::from(a as i16) * i32::from(b as i16)) >> 16) as u16 as u64,
            Type::I32 => |a, b| ((i64::from(a as i32) * i64::from(b as i32)) >> 32) as u32 as u64,
            Type::I64 => |a, b| ((i128::from(a as i64) * i128::from(b as i64)) >> 64) as u64,
            _ => return None,
        },
        // Division by zero and overflow are excluded by the lifter; the value for them is arbitrary.
        Op::UDiv => ints!(ty, |a: T, b| a.checked_div(b).unwrap_or(0)),
        Op::URem => ints!(ty, |a: T, b| a.checked_rem(b).unwrap_or(0)),
        Op::SDiv => sints!(ty, |a, b| a.checked_div(b).unwrap_or(0)),
        Op::SRem => sints!(ty, |a, b| a.checked_rem(b).unwrap_or(0)),
        Op::And => ints!(ty, |a: T, b| a & b),
        Op::Or => ints!(ty, |a: T, b| a | b),
        Op::Xor => ints!(ty, |a: T, b| a ^ b),
        Op::Shl => ints!(ty, |a: T, b| a.wrapping_shl(b as u32)),
        Op::Shr => ints!(ty, |a: T, b| a.wrapping_shr(b as u32)),
        Op::Sar => sints!(ty, |a, b| a.wrapping_shr(b as u32)),
        Op::Rotl => ints!(ty, |a: T, b| a.rotate_left(b as u32 % T::BITS)),
        Op::Rotr => ints!(ty, |a: T, b| a.rotate_right(b as u32 % T::BITS)),
        Op::FAdd => fp_both!(ty, "addss", "addsd"),
        Op::FSub => fp_both!(ty, "subss", "subsd"),
        Op::FMul => fp_both!(ty, "mulss", "mulsd"),
        Op::FDiv => fp_both!(ty, "divss", "divsd"),
        Op::FMinX => fp_both!(ty, "minss", "minsd"),
        Op::FMaxX => fp_both!(ty, "maxss", "maxsd"),
        _ => return None,
    })
}

macro_rules! un_ints {
    ($ty:expr, |$a:ident| $e:expr) => {
        match $ty {
            Type::I8 => |a| {
                let $a = a as u8;
                u64::from($e)
            },
            Type::I16 => |a| {
                let $a = a as u16;
                u64::from($e)
            },
            Type::I32 => |a| {
                let $a = a as u32;
                u64::from($e)
            },
            Type::I64 => |a| {
                let $a = a;
                u64::from($e)
            },
            _ => return None,
        }
    };
}

/// One-operand operation.
#[rustfmt::skip]
#[allow(clippy::redundant_closure_call, clippy::useless_conversion)]
pub fn un(op: Op, ty: Type) -> Option<Fn1> {
    Some(match op {
        Op::Neg => un_ints!(ty, |a| a.wrapping_neg()),
        Op::Not => un_ints!(ty, |a| !a),
        Op::Clz => un_ints!(ty, |a| a.leading_zeros()),
        Op::Ctz => un_ints!(ty, |a| a.trailing_zeros()),
        Op::Popcnt => un_ints!(ty, |a| a.count_ones()),
        Op::Bswap => un_ints!(ty, |a| a.swap_bytes()),
        Op::FSqrt => match ty {
            Type::F32 => |a| { let f: Fn2 = fp2!("sqrtss", f32, u32); f(a, a) },
            Type::F64 => |a| { let f: Fn2 = fp2!("sqrtsd", f64, u64); f(a, a) },
            _ => return None,
        },
        _ => return None,
    })
}

/// Conversion from `from` to `to`, except those that change no bit of the cell (zext, bitcast).
pub fn conv(op: Op, from: Type, to: Type) -> Option<Fn1> {
    Some(match (op, from, to) {
        (Op::Sext, Type::I8, Type::I16) => |a| a as i8 as u16 as u64,
        (Op::Sext, Type::I8, Type::I32) => |a| a as i8 as u32 as u64,
        (Op::Sext, Type::I8, Type::I64) => |a| a as i8 as u64,
        (Op::Sext, Type::I16, Type::I32) => |a| a as i16 as u32 as u64,
        (Op::Sext, Type::I16, Type::I64) => |a| a as i16 as u64,
        (Op::Sext, Type::I32, Type::I64) => |a| a as i32 as u64,
        (Op::FPromote, Type::F32, Type::F64) => |a| cvt!("cvtss2sd", f32::from_bits(a as u32) => xmm_reg, 0f64),
        (Op::FDemote, Type::F64, Type::F32) => |a| cvt!("cvtsd2ss", f64::from_bits(a) => xmm_reg, 0f32),
        (Op::CvtIF, Type::I32, Type::F32) => |a| cvt!("cvtsi2ss", i64::from(a as i32) => reg, 0f32),
        (Op::CvtIF, Type::I32, Type::F64) => |a| cvt!("cvtsi2sd", i64::from(a as i32) => reg, 0f64),
        (Op::CvtIF, Type::I64, Type::F32) => |a| cvt!("cvtsi2ss", a => reg, 0f32),
        (Op::CvtIF, Type::I64, Type::F64) => |a| cvt!("cvtsi2sd", a => reg, 0f64),
        (Op::CvtFI, Type::F32, Type::I32) => |a| cvt!("cvttss2si", f32::from_bits(a as u32), ":e", u32),
        (Op::CvtFI, Type::F64, Type::I32) => |a| cvt!("cvttsd2si", f64::from_bits(a), ":e", u32),
        (Op::CvtFI, Type::F32, Type::I64) => |a| cvt!("cvttss2si", f32::from_bits(a as u32), ":r", u64),
        (Op::CvtFI, Type::F64, Type::I64) => |a| cvt!("cvttsd2si", f64::from_bits(a), ":r", u64),
        _ => return None,
    })
}

/// Floating comparison that raises the flags of COMISx.
pub fn fcomi(cond: FCond, ty: Type) -> Option<Fn2> {
    const S: [Fn2; 8] = [
        signal32::<0>,
        signal32::<1>,
        signal32::<2>,
        signal32::<3>,
        signal32::<4>,
        signal32::<5>,
        signal32::<6>,
        signal32::<7>,
    ];
    const D: [Fn2; 8] = [
        signal64::<0>,
        signal64::<1>,
        signal64::<2>,
        signal64::<3>,
        signal64::<4>,
        signal64::<5>,
        signal64::<6>,
        signal64::<7>,
    ];
    match ty {
        Type::F32 => Some(S[cond as usize]),
        Type::F64 => Some(D[cond as usize]),
        _ => None,
    }
}

/// Floating comparison, 0 or 1.
pub fn fcmp(cond: FCond, ty: Type) -> Option<Fn2> {
    const S: [Fn2; 8] =
        [cmp32::<0>, cmp32::<1>, cmp32::<2>, cmp32::<3>, cmp32::<4>, cmp32::<5>, cmp32::<6>, cmp32::<7>];
    const D: [Fn2; 8] =
        [cmp64::<0>, cmp64::<1>, cmp64::<2>, cmp64::<3>, cmp64::<4>, cmp64::<5>, cmp64::<6>, cmp64::<7>];
    match ty {
        Type::F32 => Some(S[cond as usize]),
        Type::F64 => Some(D[cond as usize]),
        _ => None,
    }
}
