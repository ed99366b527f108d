//! Vector operations by opcode and lane shape. Integer ones are written by their definition, lane by lane;
//! floating ones are the hardware's instructions, for the reason given in [`super::scalar`].
//!
//! # Safety
//! The assembly blocks work on registers only; `cast` reinterprets arrays of integers.
#![allow(unsafe_code)]

use evm_ir::{FCond, Op, Type};
use std::array::from_fn;

#[cfg(not(target_arch = "x86_64"))]
#[macro_use]
#[path = "vector_portable.rs"]
mod instructions;
#[cfg(target_arch = "x86_64")]
#[macro_use]
#[path = "vector_x86.rs"]
mod instructions;
use instructions::{cmpd, cmps};

/// Two vectors to one.
pub type Fn2 = fn(u128, u128) -> u128;
/// One vector to one.
pub type Fn1 = fn(u128) -> u128;
/// A vector, a cell and a lane number to a vector.
pub type FnIns = fn(u128, u64, u32) -> u128;
/// A vector and a lane number to a cell.
pub type FnExt = fn(u128, u32) -> u64;
/// A cell to a vector.
pub type FnSplat = fn(u64) -> u128;

/// Plain 128-bit data.
trait Bits128: Copy {}
impl Bits128 for u128 {}
impl Bits128 for evm_ir::Vector {}
macro_rules! bits { ($($t:ty)*) => { $( impl Bits128 for [$t; 16 / size_of::<$t>()] {} )* } }
bits!(u8 i8 u16 i16 u32 i32 u64 i64);

#[inline(always)]
fn cast<A: Bits128, B: Bits128>(a: A) -> B {
    const { assert!(size_of::<A>() == 16 && size_of::<B>() == 16) };
    // SAFETY: both are 16 bytes of plain integers.
    unsafe { std::mem::transmute_copy(&a) }
}

macro_rules! map2 {
    ($t:ty, |$x:ident, $y:ident| $e:expr) => {
        |a, b| {
            let (a, b): ([$t; 16 / size_of::<$t>()], [$t; 16 / size_of::<$t>()]) = (cast(a), cast(b));
            let r: [$t; 16 / size_of::<$t>()] = from_fn(|i| {
                let ($x, $y) = (a[i], b[i]);
                $e
            });
            cast(r)
        }
    };
}
macro_rules! map1 {
    ($t:ty, |$x:ident| $e:expr) => {
        |a| {
            let a: [$t; 16 / size_of::<$t>()] = cast(a);
            let r: [$t; 16 / size_of::<$t>()] = from_fn(|i| {
                let $x = a[i];
                $e
            });
            cast(r)
        }
    };
}
macro_rules! unsigned {
    ($shape:expr, |$x:ident, $y:ident| $e:expr) => {
        match $shape {
            Type::I8X16 => map2!(u8, |$x, $y| $e),
            Type::I16X8 => map2!(u16, |$x, $y| $e),
            Type::I32X4 => map2!(u32, |$x, $y| $e),
            Type::I64X2 => map2!(u64, |$x, $y| $e),
            _ => return None,
        }
    };
}
macro_rules! signed {
    ($shape:expr, |$x:ident, $y:ident| $e:expr) => {
        match $shape {
            Type::I8X16 => map2!(i8, |$x, $y| $e),
            Type::I16X8 => map2!(i16, |$x, $y| $e),
            Type::I32X4 => map2!(i32, |$x, $y| $e),
            Type::I64X2 => map2!(i64, |$x, $y| $e),
            _ => return None,
        }
    };
}
macro_rules! fp_both {
    ($shape:expr, $s:tt, $d:tt) => {
        match $shape {
            Type::F32X4 => fp!($s),
            Type::F64X2 => fp!($d),
            _ => return None,
        }
    };
}

/// Two-operand operation, comparisons included.
#[allow(clippy::redundant_closure_call)]
pub fn bin(op: Op, shape: Type) -> Option<Fn2> {
    let float = matches!(shape, Type::F32X4 | Type::F64X2);
    Some(match op {
        Op::VAdd if float => fp_both!(shape, "addps", "addpd"),
        Op::VSub if float => fp_both!(shape, "subps", "subpd"),
        Op::VMul if float => fp_both!(shape, "mulps", "mulpd"),
        Op::VDiv => fp_both!(shape, "divps", "divpd"),
        Op::VFMinX => fp_both!(shape, "minps", "minpd"),
        Op::VFMaxX => fp_both!(shape, "maxps", "maxpd"),
        Op::VAdd => unsigned!(shape, |x, y| x.wrapping_add(y)),
        Op::VSub => unsigned!(shape, |x, y| x.wrapping_sub(y)),
        Op::VMul => unsigned!(shape, |x, y| x.wrapping_mul(y)),
        Op::VAddSatS => signed!(shape, |x, y| x.saturating_add(y)),
        Op::VAddSatU => unsigned!(shape, |x, y| x.saturating_add(y)),
        Op::VSubSatS => signed!(shape, |x, y| x.saturating_sub(y)),
        Op::VSubSatU => unsigned!(shape, |x, y| x.saturating_sub(y)),
        Op::VMinS => signed!(shape, |x, y| x.min(y)),
        Op::VMinU => unsigned!(shape, |x, y| x.min(y)),
        Op::VMaxS => signed!(shape, |x, y| x.max(y)),
        Op::VMaxU => unsigned!(shape, |x, y| x.max(y)),
        Op::VAvgU => match shape {
            Type::I8X16 => map2!(u8, |x, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u8),
            Type::I16X8 => map2!(u16, |x, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16),
            _ => return None,
        },
        Op::VAnd => |a, b| a & b,
        Op::VOr => |a, b| a | b,
        Op::VXor => |a, b| a ^ b,
        Op::VAndNot => |a, b| !a & b,
        Op::VCmpEq => signed!(shape, |x, y| if x == y { -1 } else { 0 }),
        Op::VCmpGtS => signed!(shape, |x, y| if x > y { -1 } else { 0 }),
        Op::VPshufb => |a, b| {
            let (a, b): ([u8; 16], [u8; 16]) = (cast(a), cast(b));
            cast(from_fn::<u8, 16, _>(|i| if b[i] & 0x80 != 0 { 0 } else { a[usize::from(b[i] & 15)] }))
        },
        Op::VPackS => match shape {
            Type::I16X8 => |a, b| {
                let (a, b): ([i16; 8], [i16; 8]) = (cast(a), cast(b));
                cast(from_fn::<i8, 16, _>(|i| {
                    let x = if i < 8 { a[i] } else { b[i - 8] };
                    x.clamp(-128, 127) as i8
                }))
            },
            Type::I32X4 => |a, b| {
                let (a, b): ([i32; 4], [i32; 4]) = (cast(a), cast(b));
                cast(from_fn::<i16, 8, _>(|i| {
                    let x = if i < 4 { a[i] } else { b[i - 4] };
                    x.clamp(-32768, 32767) as i16
                }))
            },
            _ => return None,
        },
        Op::VPackU => match shape {
            Type::I16X8 => |a, b| {
                let (a, b): ([i16; 8], [i16; 8]) = (cast(a), cast(b));
                cast(from_fn::<u8, 16, _>(|i| {
                    let x = if i < 8 { a[i] } else { b[i - 8] };
                    x.clamp(0, 255) as u8
                }))
            },
            Type::I32X4 => |a, b| {
                let (a, b): ([i32; 4], [i32; 4]) = (cast(a), cast(b));
                cast(from_fn::<u16, 8, _>(|i| {
                    let x = if i < 4 { a[i] } else { b[i - 4] };
                    x.clamp(0, 65535) as u16
                }))
            },
            _ => return None,
        },
        _ => return None,
    })
}

/// One-operand operation.
#[allow(clippy::redundant_closure_call)]
pub fn un(op: Op, shape: Type) -> Option<Fn1> {
    macro_rules! widen {
        ($s:ty, $d:ty) => {
            |a| {
                let a: [$s; 16 / size_of::<$s>()] = cast(a);
                cast(from_fn::<$d, { 16 / size_of::<$d>() }, _>(|i| <$d>::from(a[i])))
            }
        };
    }
    macro_rules! fp1 {
        ($ins:tt) => {
            |a| {
                let f: Fn2 = fp!($ins);
                f(a, a)
            }
        };
    }
    Some(match (op, shape) {
        (Op::VSqrt, Type::F32X4) => fp1!("sqrtps"),
        (Op::VSqrt, Type::F64X2) => fp1!("sqrtpd"),
        (Op::VCvtIF, Type::F32X4) => fp1!("cvtdq2ps"),
        (Op::VAbs, Type::I8X16) => map1!(i8, |x| x.wrapping_abs()),
        (Op::VAbs, Type::I16X8) => map1!(i16, |x| x.wrapping_abs()),
        (Op::VAbs, Type::I32X4) => map1!(i32, |x| x.wrapping_abs()),
        (Op::VWidenLowS, Type::I8X16) => widen!(i8, i16),
        (Op::VWidenLowS, Type::I16X8) => widen!(i16, i32),
        (Op::VWidenLowS, Type::I32X4) => widen!(i32, i64),
        (Op::VWidenLowU, Type::I8X16) => widen!(u8, u16),
        (Op::VWidenLowU, Type::I16X8) => widen!(u16, u32),
        (Op::VWidenLowU, Type::I32X4) => widen!(u32, u64),
        _ => return None,
    })
}

/// Shift of every lane by one count, taken modulo the lane width.
pub fn shift(op: Op, shape: Type) -> Option<FnIns> {
    macro_rules! sh {
        ($t:ty, $f:ident) => {
            |a, n, _| {
                let f: Fn1Shift<$t> = |x, n| x.$f(n);
                let a: [$t; 16 / size_of::<$t>()] = cast(a);
                let r: [$t; 16 / size_of::<$t>()] = from_fn(|i| f(a[i], n as u32));
                cast(r)
            }
        };
    }
    type Fn1Shift<T> = fn(T, u32) -> T;
    Some(match (op, shape) {
        (Op::VShl, Type::I8X16) => sh!(u8, wrapping_shl),
        (Op::VShl, Type::I16X8) => sh!(u16, wrapping_shl),
        (Op::VShl, Type::I32X4) => sh!(u32, wrapping_shl),
        (Op::VShl, Type::I64X2) => sh!(u64, wrapping_shl),
        (Op::VShr, Type::I8X16) => sh!(u8, wrapping_shr),
        (Op::VShr, Type::I16X8) => sh!(u16, wrapping_shr),
        (Op::VShr, Type::I32X4) => sh!(u32, wrapping_shr),
        (Op::VShr, Type::I64X2) => sh!(u64, wrapping_shr),
        (Op::VSar, Type::I8X16) => sh!(i8, wrapping_shr),
        (Op::VSar, Type::I16X8) => sh!(i16, wrapping_shr),
        (Op::VSar, Type::I32X4) => sh!(i32, wrapping_shr),
        (Op::VSar, Type::I64X2) => sh!(i64, wrapping_shr),
        _ => return None,
    })
}

/// Floating comparison, a mask per lane.
pub fn fcmp(cond: FCond, shape: Type) -> Option<Fn2> {
    const S: [Fn2; 8] = [cmps::<0>, cmps::<1>, cmps::<2>, cmps::<3>, cmps::<4>, cmps::<5>, cmps::<6>, cmps::<7>];
    const D: [Fn2; 8] = [cmpd::<0>, cmpd::<1>, cmpd::<2>, cmpd::<3>, cmpd::<4>, cmpd::<5>, cmpd::<6>, cmpd::<7>];
    match shape {
        Type::F32X4 => Some(S[cond as usize]),
        Type::F64X2 => Some(D[cond as usize]),
        _ => None,
    }
}

/// One lane, zero-extended; the lane number is taken modulo their count.
pub fn extract(shape: Type) -> FnExt {
    match shape.lane().bytes() {
        1 => |a, n| u64::from(cast::<_, [u8; 16]>(a)[n as usize % 16]),
        2 => |a, n| u64::from(cast::<_, [u16; 8]>(a)[n as usize % 8]),
        4 => |a, n| u64::from(cast::<_, [u32; 4]>(a)[n as usize % 4]),
        _ => |a, n| cast::<_, [u64; 2]>(a)[n as usize % 2],
    }
}

/// Replace one lane; the lane number is taken modulo their count.
pub fn insert(shape: Type) -> FnIns {
    macro_rules! ins {
        ($t:ty) => {
            |a, x, n| {
                let mut a: [$t; 16 / size_of::<$t>()] = cast(a);
                a[n as usize % (16 / size_of::<$t>())] = x as $t;
                cast(a)
            }
        };
    }
    match shape.lane().bytes() {
        1 => ins!(u8),
        2 => ins!(u16),
        4 => ins!(u32),
        _ => ins!(u64),
    }
}

/// One scalar in all lanes.
pub fn splat(shape: Type) -> FnSplat {
    match shape.lane().bytes() {
        1 => |x| cast([x as u8; 16]),
        2 => |x| cast([x as u16; 8]),
        4 => |x| cast([x as u32; 4]),
        _ => |x| cast([x; 2]),
    }
}

/// Top bits of the lanes.
pub fn mask(shape: Type) -> FnExt {
    macro_rules! msk {
        ($t:ty) => {
            |a, _| {
                let a: [$t; 16 / size_of::<$t>()] = cast(a);
                a.iter().enumerate().fold(0, |m, (i, x)| m | u64::from(*x >> (<$t>::BITS - 1) != 0) << i)
            }
        };
    }
    match shape.lane().bytes() {
        1 => msk!(u8),
        2 => msk!(u16),
        4 => msk!(u32),
        _ => msk!(u64),
    }
}

/// Bytes of `a` (selectors 0-15) and `b` (16-31).
pub fn shuffle(a: u128, b: u128, sel: u128) -> u128 {
    let (a, b, s): ([u8; 16], [u8; 16], [u8; 16]) = (cast(a), cast(b), cast(sel));
    cast(from_fn::<u8, 16, _>(|i| {
        let n = usize::from(s[i] & 31);
        if n < 16 { a[n] } else { b[n - 16] }
    }))
}
