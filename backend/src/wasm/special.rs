//! Floating-point results and operands that are not simply what WebAssembly computes: NaNs and infinities, whose flags and payloads
//! x86 has rules for, and, while MXCSR's FTZ or DAZ is set, what is near or below the least normal number.
//!
//! Code computes, looks at the result's exponent, and calls a function of the module if it is one of these (`special`). Whether FTZ
//! and DAZ are set is looked at there alone. Operands whose smallness the result does not show are looked at before,
//! and replaced by what counts of them.
//!
//! Under DAZ a denormal operand is a zero of its sign. Under FTZ so is a result that is *tiny*: below the least normal number
//! after rounding to the format's precision with any exponent. Where the result is denormal that is so. Where it is the least normal
//! number, it may have been rounded up to it from denormals' coarser steps, and the operation on an operand 2^64 times as large, which is rounded as
//! if there were no least exponent, tells. (Sums of that size are exact, and roots are never so small.)
//!
//! A sum that is well above the least normal number is the same with a zero in place of a denormal operand, which is less than half of the
//! last place of the other one. So sums and differences look at their results only.

use super::abi::WasmAbi;
use super::emit::{Body, Ins, at, ins};
use wasm_encoder::{Ieee32, Ieee64, ValType};

/// MXCSR's bits.
pub const DAZ: i32 = 0x40;
const FTZ: i32 = 0x8000;
/// Its flags.
pub const IE: i32 = 1;
const ZE: i32 = 4;
const OE_PE: i32 = 8 | 32;
const UE_PE: i32 = 16 | 32;

/// An operation on two vectors, the root of the first.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Arith {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
}

/// Instructions and constants of a shape.
struct Shape {
    /// In the order of [`Arith`].
    arith: [Ins; 5],
    abs: Ins,
    lt: Ins,
    eq: Ins,
    ne: Ins,
    int_eq: Ins,
    all: Ins,
    sign: i128,
    infinity: i128,
    /// The bit that makes a NaN quiet, and the NaN that operations give that had none.
    quiet: i128,
    default: i128,
    /// The least normal number, and 2^64 times it.
    least: i128,
    scaled: i128,
    /// 2^64.
    scale: i128,
}
const PS: Shape = Shape {
    arith: [ins!(f32x4_add), ins!(f32x4_sub), ins!(f32x4_mul), ins!(f32x4_div), ins!(f32x4_sqrt)],
    abs: ins!(f32x4_abs),
    lt: ins!(f32x4_lt),
    eq: ins!(f32x4_eq),
    ne: ins!(f32x4_ne),
    int_eq: ins!(i32x4_eq),
    all: ins!(i32x4_all_true),
    sign: four(1 << 31),
    infinity: four(0x7f80_0000),
    quiet: four(0x0040_0000),
    default: four(0xffc0_0000),
    least: four(1 << 23),
    scaled: four(65 << 23),
    scale: four((127 + 64) << 23),
};
const PD: Shape = Shape {
    arith: [ins!(f64x2_add), ins!(f64x2_sub), ins!(f64x2_mul), ins!(f64x2_div), ins!(f64x2_sqrt)],
    abs: ins!(f64x2_abs),
    lt: ins!(f64x2_lt),
    eq: ins!(f64x2_eq),
    ne: ins!(f64x2_ne),
    int_eq: ins!(i64x2_eq),
    all: ins!(i64x2_all_true),
    sign: twice(1 << 63),
    infinity: twice(0x7ff << 52),
    quiet: twice(1 << 51),
    default: twice(0xfff8 << 48),
    least: twice(1 << 52),
    scaled: twice(65 << 52),
    scale: twice((1023 + 64) << 52),
};

fn shape(single: bool) -> &'static Shape {
    if single { &PS } else { &PD }
}
/// A vector of two equal lanes.
pub const fn twice(x: u64) -> i128 {
    ((x as u128) << 64 | x as u128) as i128
}
/// A vector of four equal lanes.
pub const fn four(x: u32) -> i128 {
    twice((x as u64) << 32 | x as u64)
}

/// Open a block that runs if one of these bits of MXCSR is set.
pub fn if_set(b: &mut Body, abi: &WasmAbi, bits: i32) {
    b.load32(abi.mxcsr);
    b.ins().i32_const(bits).i32_and();
    b.if_();
}
/// `mxcsr |= flags`.
pub fn raise(b: &mut Body, abi: &WasmAbi, flags: i32) {
    b.ins().local_get(0);
    b.load32(abi.mxcsr);
    b.ins().i32_const(flags).i32_or().i32_store(at(abi.mxcsr));
}
/// The same if the vector on the stack is not zero.
fn raise_if_any(b: &mut Body, abi: &WasmAbi, flags: i32) {
    b.ins().v128_any_true();
    b.if_();
    raise(b, abi, flags);
    b.end();
}

/// Make zeros of those lanes of local `v` that `mask` is set for.
fn clear(b: &mut Body, s: &Shape, v: u32, mask: u32) {
    b.ins().local_get(v).v128_const(s.sign).v128_and().local_get(v).local_get(mask).v128_bitselect().local_set(v);
}
/// Make zeros of the denormal lanes of a local. (Those that are zero already are treated alike.)
fn count(b: &mut Body, s: &Shape, v: u32, mask: u32) {
    b.ins().local_get(v).v128_const(s.infinity).v128_and().v128_const(0);
    b.op(s.int_eq);
    b.ins().local_set(mask);
    clear(b, s, v, mask);
}

/// [`Intern::Counted`](super::Intern::Counted).
pub fn counted(b: &mut Body, abi: &WasmAbi, single: bool) {
    b.locals.push(ValType::V128);
    if_set(b, abi, DAZ);
    count(b, shape(single), 1, 2);
    b.end();
    b.ins().local_get(1);
}

/// [`Intern::Special`](super::Intern::Special).
pub fn arithmetic(b: &mut Body, abi: &WasmAbi, op: Arith, single: bool) {
    let s = shape(single);
    let (x, y, r, mask) = (1, 2, 3, 4);
    b.locals.extend([ValType::V128; 6]);
    if_set(b, abi, DAZ);
    let operands = if op == Arith::Sqrt { 1 } else { 2 };
    for v in [x, y].into_iter().take(operands) {
        b.ins().local_get(v);
        count(b, s, v, mask);
        b.ins().local_get(v).v128_xor();
    }
    if operands == 2 {
        b.ins().v128_or();
    }
    b.ins().v128_any_true();
    b.if_();
    for v in [x, y].into_iter().take(operands) {
        b.ins().local_get(v);
    }
    b.op(s.arith[op as usize]);
    b.ins().local_set(r);
    b.end();
    b.end();
    b.ins().local_get(r);
    b.op(s.abs);
    b.ins().v128_const(s.infinity);
    b.op(s.lt);
    b.op(s.all);
    b.ins().i32_eqz();
    b.if_();
    not_finite(b, abi, s, op == Arith::Div);
    b.ins().local_set(r);
    b.end();
    if_set(b, abi, FTZ);
    tiny(b, s, op);
    b.ins().local_tee(mask);
    raise_if_any(b, abi, UE_PE);
    clear(b, s, r, mask);
    b.end();
    b.ins().local_get(r);
}

/// Which lanes of the result (local 3) of operands (1 and 2) are tiny.
fn tiny(b: &mut Body, s: &Shape, op: Arith) {
    let (x, y, r) = (1, 2, 3);
    // 0 < |r| < least
    b.ins().local_get(r);
    b.op(s.abs);
    b.ins().v128_const(s.least);
    b.op(s.lt);
    b.ins().local_get(r).v128_const(0);
    b.op(s.ne);
    b.ins().v128_and();
    if !matches!(op, Arith::Mul | Arith::Div) {
        return;
    }
    b.ins().local_get(r);
    b.op(s.abs);
    b.ins().v128_const(s.least);
    b.op(s.eq);
    b.ins().local_get(x).v128_const(s.scale);
    b.op(s.arith[Arith::Mul as usize]);
    b.ins().local_get(y);
    b.op(s.arith[op as usize]);
    b.op(s.abs);
    b.ins().v128_const(s.scaled);
    b.op(s.lt);
    b.ins().v128_and().v128_or();
}

/// Of operands in locals 1 and 2 and the result in 3, of which a lane is not finite: the NaNs that an
/// x86 gives (the first operand that is one, made quiet; else the default), and the exception flags.
fn not_finite(b: &mut Body, abi: &WasmAbi, s: &Shape, division: bool) {
    let (a, y, r) = (1, 2, 3);
    let (na, ny, nr, over, zero) = (5, 6, 7, 8, 9);
    for (v, n) in [(a, na), (y, ny), (r, nr)] {
        b.ins().local_get(v).local_get(v);
        b.op(s.ne);
        b.ins().local_set(n);
    }
    // Invalid: a signalling operand, or a NaN from none.
    for (v, n) in [(a, na), (y, ny)] {
        b.ins().local_get(v).v128_const(s.quiet).v128_and().v128_const(0);
        b.op(s.int_eq);
        b.ins().local_get(n).v128_and();
    }
    b.ins().v128_or().local_get(nr).local_get(na).v128_andnot().local_get(ny).v128_andnot().v128_or();
    raise_if_any(b, abi, IE);
    // An infinity from finite operands: overflow, or division by zero.
    for v in [r, a, y] {
        b.ins().local_get(v);
        b.op(s.abs);
        b.ins().v128_const(s.infinity);
        b.op(s.eq);
        if v != r {
            b.ins().v128_andnot();
        }
    }
    b.ins().local_set(over);
    if division {
        b.ins().local_get(y).v128_const(0);
        b.op(s.eq);
        b.ins().local_tee(zero).local_get(over).v128_and();
        raise_if_any(b, abi, ZE);
        b.ins().local_get(over).local_get(zero).v128_andnot().local_set(over);
    }
    b.ins().local_get(over);
    raise_if_any(b, abi, OE_PE);
    // bitselect(x, y, mask): mask ? x : y
    b.ins().local_get(a).v128_const(s.quiet).v128_or();
    b.ins().local_get(y).v128_const(s.quiet).v128_or();
    b.ins().v128_const(s.default).local_get(r).local_get(nr).v128_bitselect();
    b.ins().local_get(ny).v128_bitselect().local_get(na).v128_bitselect();
}

/// [`Intern::Demoted`](super::Intern::Demoted).
pub fn demoted(b: &mut Body, abi: &WasmAbi) {
    let (a, r, bits) = (1, 2, 3);
    b.locals.push(ValType::I64);
    b.ins().local_get(a).local_get(a).f64_ne();
    b.if_();
    b.ins().local_get(a).i64_reinterpret_f64().local_tee(bits).i64_const(1 << 51).i64_and().i64_eqz();
    b.if_();
    raise(b, abi, IE);
    b.end();
    b.ins().local_get(bits).i64_const(32).i64_shr_u().i32_wrap_i64().i32_const(i32::MIN).i32_and();
    b.ins().local_get(bits).i64_const(29).i64_shr_u().i32_wrap_i64().i32_const(0x7f_ffff).i32_and();
    b.ins().i32_or().i32_const(0x7fc0_0000).i32_or().f32_reinterpret_i32().return_();
    b.end();
    let magnitude = |b: &mut Body| {
        b.ins().local_get(a).f64_abs();
    };
    // Infinite, of what was not.
    b.ins().local_get(r).f32_abs().f32_const(Ieee32::new(f32::INFINITY.to_bits())).f32_eq();
    magnitude(b);
    b.ins().f64_const(Ieee64::new(f64::INFINITY.to_bits())).f64_ne().i32_and();
    b.if_();
    raise(b, abi, OE_PE);
    b.end();
    // What is half a last place below the least normal number is rounded up to it, which is even.
    let tiny = f64::from_bits((1023 - 126) << 52) - f64::from_bits((1023 - 151) << 52);
    if_set(b, abi, FTZ);
    magnitude(b);
    b.ins().f64_const(Ieee64::new(tiny.to_bits())).f64_lt();
    magnitude(b);
    b.ins().f64_const(Ieee64::new(0)).f64_gt().i32_and();
    b.if_();
    raise(b, abi, UE_PE);
    b.ins().f32_const(Ieee32::new(0)).local_get(r).f32_copysign().local_set(r);
    b.end();
    b.end();
    b.ins().local_get(r);
}

/// [`Intern::Promoted`](super::Intern::Promoted).
pub fn promoted(b: &mut Body, abi: &WasmAbi) {
    let (a, bits) = (1, 2);
    b.locals.push(ValType::I32);
    b.ins().local_get(a).local_get(a).f32_ne();
    b.if_();
    b.ins().local_get(a).i32_reinterpret_f32().local_tee(bits).i32_const(1 << 22).i32_and().i32_eqz();
    b.if_();
    raise(b, abi, IE);
    b.end();
    b.ins().local_get(bits).i32_const(i32::MIN).i32_and().i64_extend_i32_u().i64_const(32).i64_shl();
    b.ins().local_get(bits).i32_const(0x7f_ffff).i32_and().i64_extend_i32_u().i64_const(29).i64_shl().i64_or();
    b.ins().i64_const(0x7ff8_0000_0000_0000).i64_or().f64_reinterpret_i64().return_();
    b.end();
    if_set(b, abi, DAZ);
    b.ins().local_get(a).f32_abs().f32_const(Ieee32::new(1 << 23)).f32_lt();
    b.if_();
    b.ins().f32_const(Ieee32::new(0)).local_get(a).f32_copysign().local_set(a);
    b.end();
    b.end();
    b.ins().local_get(a).f64_promote_f32();
}
