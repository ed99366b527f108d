//! Floating-point arithmetic while MXCSR's FTZ or DAZ is set, which WebAssembly does not know: functions of the module that code calls
//! in place of an instruction then, after a look at the state's word `mxcsr`.
//!
//! Under DAZ a denormal operand is a zero of its sign. Under FTZ so is a result that is *tiny*: below the least normal number
//! after rounding to the format's precision with any exponent. Where the result is denormal that is so. Where it is the least normal
//! number, it may have been rounded up to it from denormals' coarser steps, and the operation on an operand 2^64 times as large, which is rounded as
//! if there were no least exponent, tells. (Sums of that size are exact, and roots are never so small.)

use super::abi::WasmAbi;
use super::emit::{Body, Ins, Sym, at, ins};
use super::intern::{INF_PD, INF_PS, Intern, four, raise_if_any, twice};
use super::lower::Lower;
use wasm_encoder::{Ieee32, Ieee64, ValType};

/// MXCSR's bits.
const DAZ: i32 = 0x40;
const FTZ: i32 = 0x8000;
/// Its flags of underflow and inexact results.
const UE_PE: i32 = 0x10 | 0x20;

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
    exponent: i128,
    infinity: i128,
    /// One in each lane, as an integer.
    unit: i128,
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
    exponent: INF_PS,
    infinity: INF_PS,
    unit: four(1),
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
    exponent: INF_PD,
    infinity: INF_PD,
    unit: twice(1),
    least: twice(1 << 52),
    scaled: twice(65 << 52),
    scale: twice((1023 + 64) << 52),
};

fn shape(single: bool) -> &'static Shape {
    if single { &PS } else { &PD }
}

/// Open a block that runs if this bit of MXCSR is set.
fn if_set(b: &mut Body, abi: &WasmAbi, bits: i32) {
    b.load32(abi.mxcsr);
    b.ins().i32_const(bits).i32_and();
    b.if_();
}

/// Make zeros of those lanes of local `v` that `mask` is set for.
fn clear(b: &mut Body, s: &Shape, v: u32, mask: u32) {
    b.ins().local_get(v).v128_const(s.sign).v128_and().local_get(v).local_get(mask).v128_bitselect().local_set(v);
}

/// Under DAZ, make zeros of the denormal lanes of local 1. (Those that are zero already are treated alike.)
fn count(b: &mut Body, abi: &WasmAbi, s: &Shape, operands: &[u32], mask: u32) {
    if_set(b, abi, DAZ);
    for v in operands {
        b.ins().local_get(*v).v128_const(s.exponent).v128_and().v128_const(0);
        b.op(s.int_eq);
        b.ins().local_set(mask);
        clear(b, s, *v, mask);
    }
    b.end();
}

/// Lanes that may be denormal or the least normal number: those of local `v` that are not zero, but small.
fn small(b: &mut Body, s: &Shape, v: u32) {
    b.ins().local_get(v);
    b.op(s.abs);
    b.ins().v128_const(s.least + s.unit);
    b.op(s.lt);
    b.ins().local_get(v).v128_const(0);
    b.op(s.ne);
    b.ins().v128_and();
}

/// [`Intern::Counted`].
pub fn counted(b: &mut Body, abi: &WasmAbi, single: bool) {
    b.locals.push(ValType::V128);
    small(b, shape(single), 1);
    b.ins().v128_any_true().i32_eqz();
    b.if_();
    b.ins().local_get(1).return_();
    b.end();
    count(b, abi, shape(single), &[1], 2);
    b.ins().local_get(1);
}

/// [`Intern::Flushed`].
pub fn flushed(b: &mut Body, abi: &WasmAbi, op: Arith, single: bool) {
    b.locals.extend([ValType::V128; 2]);
    let (x, y, r, mask) = (1, 2, 3, 4);
    let s = shape(single);
    let f = s.arith[op as usize];
    // Nearly always nothing is small, and the result is the one it would be otherwise.
    let two = op != Arith::Sqrt;
    b.ins().local_get(x);
    if two {
        b.ins().local_get(y);
    }
    b.op(f);
    b.ins().local_set(r);
    small(b, s, x);
    if two {
        small(b, s, y);
        b.ins().v128_or();
    }
    small(b, s, r);
    b.ins().v128_or();
    b.ins().local_get(r);
    b.op(s.abs);
    b.ins().v128_const(s.infinity);
    b.op(s.lt);
    // (Finite and not small.)
    b.ins().v128_not().v128_or().v128_any_true().i32_eqz();
    b.if_();
    b.ins().local_get(r).return_();
    b.end();
    count(b, abi, s, &[x, y], mask);
    b.ins().local_get(x);
    if op != Arith::Sqrt {
        b.ins().local_get(y);
    }
    b.op(f);
    b.ins().local_tee(r);
    b.op(s.abs);
    b.ins().v128_const(s.infinity);
    b.op(s.lt);
    b.op(s.all);
    b.ins().i32_eqz();
    b.if_();
    b.ins().local_get(0).local_get(x).local_get(y).local_get(r).i32_const(i32::from(op == Arith::Div));
    b.call(Sym::Intern(if single { Intern::OddPs } else { Intern::OddPd }));
    b.ins().local_set(r);
    b.end();
    if_set(b, abi, FTZ);
    // 0 < |r| < least
    b.ins().local_get(r);
    b.op(s.abs);
    b.ins().v128_const(s.least);
    b.op(s.lt);
    b.ins().local_get(r).v128_const(0);
    b.op(s.ne);
    b.ins().v128_and();
    if matches!(op, Arith::Mul | Arith::Div) {
        b.ins().local_get(r);
        b.op(s.abs);
        b.ins().v128_const(s.least);
        b.op(s.eq);
        b.ins().local_get(x).v128_const(s.scale);
        b.op(s.arith[Arith::Mul as usize]);
        b.ins().local_get(y);
        b.op(f);
        b.op(s.abs);
        b.ins().v128_const(s.scaled);
        b.op(s.lt);
        b.ins().v128_and().v128_or();
    }
    b.ins().local_tee(mask);
    raise_if_any(b, abi, UE_PE);
    clear(b, s, r, mask);
    b.end();
    b.ins().local_get(r);
}

/// [`Intern::FlushedDemote`]: what is half a last place below the least normal number is rounded up to it, which is even.
pub fn flushed_demote(b: &mut Body, abi: &WasmAbi) {
    let (a, r) = (1, 2);
    let tiny = f64::from_bits((1023 - 126) << 52) - f64::from_bits((1023 - 151) << 52);
    let one = |b: &mut Body| {
        b.ins().local_get(a).f64_abs();
    };
    if_set(b, abi, FTZ);
    one(b);
    b.ins().f64_const(Ieee64::new(tiny.to_bits())).f64_lt();
    one(b);
    b.ins().f64_const(Ieee64::new(0)).f64_gt().i32_and();
    b.if_();
    b.ins().local_get(0);
    b.load32(abi.mxcsr);
    b.ins().i32_const(UE_PE).i32_or().i32_store(at(abi.mxcsr));
    b.ins().f32_const(Ieee32::new(0)).local_get(r).f32_copysign().local_set(r);
    b.end();
    b.end();
    b.ins().local_get(r);
}

impl Lower<'_> {
    /// Open a block that runs if FTZ or DAZ is set.
    pub(super) fn if_flushing(&mut self) {
        if_set(&mut self.b, &self.s.abi, DAZ | FTZ);
    }
    /// Vectors in locals become what counts of them as operands.
    pub(super) fn count_packed(&mut self, single: bool, locals: &[u32]) {
        self.if_flushing();
        for l in locals {
            self.b.ins().local_get(0).local_get(*l);
            self.b.call(Sym::Intern(Intern::Counted(single)));
            self.b.ins().local_set(*l);
        }
        self.b.end();
    }
    /// The same for floats.
    pub(super) fn count_scalar(&mut self, single: bool, locals: &[u32]) {
        self.if_flushing();
        for l in locals {
            self.b.ins().local_get(0);
            self.splat(single, *l);
            self.b.call(Sym::Intern(Intern::Counted(single)));
            self.lane(single);
            self.b.ins().local_set(*l);
        }
        self.b.end();
    }
    /// A vector of a float.
    pub(super) fn splat(&mut self, single: bool, local: u32) {
        self.b.ins().local_get(local);
        self.b.op(if single { ins!(f32x4_splat) } else { ins!(f64x2_splat) });
    }
    /// The float of such a vector.
    pub(super) fn lane(&mut self, single: bool) {
        if single {
            self.b.ins().f32x4_extract_lane(0);
        } else {
            self.b.ins().f64x2_extract_lane(0);
        }
    }
}
