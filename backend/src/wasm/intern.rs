//! Functions that each module has for itself: what is too long to stand at each place, and is seldom needed.

use super::abi::WasmAbi;
use super::emit::{Body, Ins, Label, Sym, at, ins};
use super::flush::{self, Arith};
use evm_memory::perm;
use wasm_encoder::ValType::{F32, F64, I32, I64, V128};
use wasm_encoder::{Ieee32, Ieee64, ValType};

/// A function of the module.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Intern {
    /// A region's type: run the region at `pc` if the table has it, else return `pc`.
    Jump,
    /// High half of the unsigned product.
    MulHiU,
    /// High half of the signed product.
    MulHiS,
    /// `(cpu, a, b, r, division: i32) -> r`: after arithmetic on four floats one of whose results is not finite: the NaNs that an
    /// x86 gives (the first operand that is one, made quiet; else the default), and the exception flags.
    OddPs,
    /// The same for two doubles.
    OddPd,
    /// The same for one float.
    OddSs,
    /// The same for one double.
    OddSd,
    /// `(cpu, a: f64, r: f32) -> f32`: after a conversion whose result is not finite.
    OddDemote,
    /// `(cpu, a: f32) -> f64`: conversion of a NaN.
    OddPromote,
    /// `(cpu)`: raise the invalid flag.
    Invalid,
    /// `(cpu, a, b: v128) -> v128`: arithmetic on floats, or else doubles, while FTZ or DAZ is set.
    Flushed(Arith, bool),
    /// `(cpu, a: v128) -> v128`: what counts of operands that are floats, or else doubles, then.
    Counted(bool),
    /// `(cpu, a: f64, r: f32) -> f32`: a conversion's result, then.
    FlushedDemote,
    /// As [`Import::Access`](super::abi::Import::Access), which it calls if the range has more than two pages or may not be accessed.
    Access,
    /// `(cpu, addr: i64, place: i32, what: i32) -> i32`: `place`, which is not 0, if an access may not be made, else 0. `what` is twice
    /// its length, and 1 more if it writes.
    Refused,
    /// `(cpu, next: i64, ret: i64, left: i32) -> i64`: as [`Import::Resume`](super::abi::Import::Resume), but `next` if no stack was left
    /// for what was called.
    Back,
}

/// MXCSR's flags.
const IE: i32 = 1;
const ZE: i32 = 4;
const OE_PE: i32 = 8 | 32;

impl Intern {
    /// Parameters and result.
    pub fn signature(self) -> (Vec<ValType>, Vec<ValType>) {
        match self {
            Intern::Jump => (vec![I32, I64], vec![I64]),
            Intern::MulHiU | Intern::MulHiS => (vec![I64, I64], vec![I64]),
            Intern::OddPs | Intern::OddPd => (vec![I32, V128, V128, V128, I32], vec![V128]),
            Intern::OddSs => (vec![I32, F32, F32, F32, I32], vec![F32]),
            Intern::OddSd => (vec![I32, F64, F64, F64, I32], vec![F64]),
            Intern::OddDemote => (vec![I32, F64, F32], vec![F32]),
            Intern::OddPromote => (vec![I32, F32], vec![F64]),
            Intern::Invalid => (vec![I32], vec![]),
            Intern::Flushed(..) => (vec![I32, V128, V128], vec![V128]),
            Intern::Counted(_) => (vec![I32, V128], vec![V128]),
            Intern::FlushedDemote => (vec![I32, F64, F32], vec![F32]),
            Intern::Access => super::abi::Import::Access.signature(),
            Intern::Refused => (vec![I32, I64, I32, I32], vec![I32]),
            Intern::Back => (vec![I32, I64, I64, I32], vec![I64]),
        }
    }
    /// The function.
    pub fn body(self, abi: &WasmAbi, tail_calls: bool) -> Body {
        let mut b = Body::default();
        match self {
            Intern::Jump => jump(&mut b, abi, tail_calls),
            Intern::MulHiU => high_product(&mut b, false),
            Intern::MulHiS => high_product(&mut b, true),
            Intern::OddPs => odd_packed(&mut b, abi, &PS),
            Intern::OddPd => odd_packed(&mut b, abi, &PD),
            Intern::OddSs => odd_scalar(&mut b, ins!(f32x4_splat), Intern::OddPs, |b| {
                b.ins().f32x4_extract_lane(0);
            }),
            Intern::OddSd => odd_scalar(&mut b, ins!(f64x2_splat), Intern::OddPd, |b| {
                b.ins().f64x2_extract_lane(0);
            }),
            Intern::OddDemote => odd_demote(&mut b, abi),
            Intern::OddPromote => odd_promote(&mut b, abi),
            Intern::Invalid => raise(&mut b, abi, IE),
            Intern::Flushed(op, single) => flush::flushed(&mut b, abi, op, single),
            Intern::Counted(single) => flush::counted(&mut b, abi, single),
            Intern::FlushedDemote => flush::flushed_demote(&mut b, abi),
            Intern::Access => access(&mut b, abi),
            Intern::Refused => refused(&mut b),
            Intern::Back => back(&mut b),
        }
        b.ins().end();
        b
    }
}

/// Leave what `pc` (local 1) has in the table of entry points on the stack: its function's number, or 0.
fn look_up(b: &mut Body, abi: &WasmAbi, word: u32) {
    b.load32(abi.ibtc);
    b.ins().local_get(1).i32_wrap_i64().i32_const(0xffff).i32_and().i32_const(3).i32_shl().i32_add();
    b.ins().i64_load(at(0)).local_tee(word).i32_wrap_i64().i32_const(0);
    b.ins().local_get(word).i64_const(32).i64_shr_u().local_get(1).i64_const(16).i64_shr_u().i64_eq().select();
}

fn jump(b: &mut Body, abi: &WasmAbi, tail_calls: bool) {
    b.locals.extend([I64, I32]);
    let (word, left) = (2, 3);
    if tail_calls {
        b.ins().local_get(0).local_get(1);
        look_up(b, abi, word);
        b.call_indirect(true);
        return;
    }
    // A call in place of a jump: as long as there is stack for it.
    b.load32(abi.depth);
    b.ins().i32_const(super::exits::JUMP_FRAME).i32_sub().local_tee(left).i32_const(0).i32_lt_s();
    b.if_();
    b.ins().local_get(1).return_();
    b.end();
    b.ins().local_get(0).local_get(left).i32_store(at(abi.depth));
    b.ins().local_get(0).local_get(1);
    look_up(b, abi, word);
    b.call_indirect(false);
    b.ins().local_get(0).local_get(left).i32_const(super::exits::JUMP_FRAME).i32_add().i32_store(at(abi.depth));
}

/// Whether the range's first and last page allow the access.
fn access(b: &mut Body, abi: &WasmAbi) {
    let (addr, len, write) = (1, 2, 3);
    b.locals.extend([I64, I32, I32]);
    let (last, first, second) = (4, 5, 6);
    let elsewhere = b.block();
    b.ins().local_get(addr).local_get(len).i64_add().i64_const(1).i64_sub().local_set(last);
    for at in [addr, last] {
        b.ins().local_get(at);
        b.load64(abi.mem_limit);
        b.ins().i64_ge_u();
        b.br_if(elsewhere);
    }
    b.ins().local_get(last).local_get(addr).i64_sub().i64_const(i64::from(evm_memory::PAGE as u32)).i64_ge_u();
    b.br_if(elsewhere);
    for (at, page) in [(addr, first), (last, second)] {
        b.load32(abi.perms);
        b.ins()
            .local_get(at)
            .i64_const(12)
            .i64_shr_u()
            .i32_wrap_i64()
            .i32_add()
            .i32_load8_u(super::emit::at(0))
            .local_set(page);
    }
    // Of a page with translations only reading is plain.
    let (r, w, code) = (i32::from(perm::READ), i32::from(perm::WRITE), i32::from(perm::CODE));
    b.ins().local_get(first).local_get(second).i32_and().i32_const(w).i32_const(r).local_get(write).select().i32_and();
    b.ins().i32_eqz();
    b.br_if(elsewhere);
    b.ins().local_get(first).local_get(second).i32_or().i32_const(code).i32_and();
    b.ins().i32_const(0).local_get(write).select();
    b.br_if(elsewhere);
    b.ins().i32_const(1).return_();
    b.end();
    b.ins().local_get(0).local_get(addr).local_get(len).local_get(write);
    b.call(Sym::Import(super::abi::Import::Access));
}

fn refused(b: &mut Body) {
    let (addr, place, what) = (1, 2, 3);
    b.ins().i32_const(0).local_get(place).local_get(0).local_get(addr);
    b.ins().local_get(what).i32_const(1).i32_shr_u().i64_extend_i32_u();
    b.ins().local_get(what).i32_const(1).i32_and();
    b.call(Sym::Intern(Intern::Access));
    b.ins().select();
}

fn back(b: &mut Body) {
    let (next, ret, left) = (1, 2, 3);
    b.ins().local_get(left).i32_const(0).i32_lt_s();
    b.if_();
    b.ins().local_get(next).return_();
    b.end();
    b.ins().local_get(0).local_get(next).local_get(ret);
    b.call(Sym::Import(super::abi::Import::Resume));
}

/// By four products of 32-bit halves.
fn high_product(b: &mut Body, signed: bool) {
    b.locals.extend([I64; 5]);
    let (al, ah, bl, bh, t) = (2, 3, 4, 5, 6);
    for (v, lo, hi) in [(0, al, ah), (1, bl, bh)] {
        b.ins().local_get(v).i64_const(0xffff_ffff).i64_and().local_set(lo);
        b.ins().local_get(v).i64_const(32).i64_shr_u().local_set(hi);
    }
    // t = ah * bl + (al * bl >> 32)
    b.ins().local_get(ah).local_get(bl).i64_mul();
    b.ins().local_get(al).local_get(bl).i64_mul().i64_const(32).i64_shr_u().i64_add().local_set(t);
    // ah * bh + (t >> 32) + ((al * bh + (t & mask)) >> 32)
    b.ins().local_get(ah).local_get(bh).i64_mul().local_get(t).i64_const(32).i64_shr_u().i64_add();
    b.ins().local_get(al).local_get(bh).i64_mul().local_get(t).i64_const(0xffff_ffff).i64_and().i64_add();
    b.ins().i64_const(32).i64_shr_u().i64_add();
    if signed {
        for (v, other) in [(0, 1), (1, 0)] {
            b.ins().local_get(v).i64_const(63).i64_shr_s().local_get(other).i64_and().i64_sub();
        }
    }
}

/// `mxcsr |= flags`.
fn raise(b: &mut Body, abi: &WasmAbi, flags: i32) {
    b.ins().local_get(0);
    b.load32(abi.mxcsr);
    b.ins().i32_const(flags).i32_or().i32_store(at(abi.mxcsr));
}
/// The same if the vector on the stack is not zero.
pub fn raise_if_any(b: &mut Body, abi: &WasmAbi, flags: i32) {
    b.ins().v128_any_true();
    b.if_();
    raise(b, abi, flags);
    b.end();
}

/// Instructions and constants of a shape.
struct Shape {
    ne: Ins,
    eq: Ins,
    abs: Ins,
    int_eq: Ins,
    quiet: i128,
    default: i128,
    infinity: i128,
}
pub const fn twice(x: u64) -> i128 {
    ((x as u128) << 64 | x as u128) as i128
}
pub const fn four(x: u32) -> i128 {
    twice((x as u64) << 32 | x as u64)
}
const PS: Shape = Shape {
    ne: ins!(f32x4_ne),
    eq: ins!(f32x4_eq),
    abs: ins!(f32x4_abs),
    int_eq: ins!(i32x4_eq),
    quiet: four(0x0040_0000),
    default: four(0xffc0_0000),
    infinity: four(0x7f80_0000),
};
const PD: Shape = Shape {
    ne: ins!(f64x2_ne),
    eq: ins!(f64x2_eq),
    abs: ins!(f64x2_abs),
    int_eq: ins!(i64x2_eq),
    quiet: twice(0x0008_0000_0000_0000),
    default: twice(0xfff8_0000_0000_0000),
    infinity: twice(0x7ff0_0000_0000_0000),
};

fn odd_packed(b: &mut Body, abi: &WasmAbi, s: &Shape) {
    let (a, y, r, division) = (1, 2, 3, 4);
    b.locals.extend([V128; 5]);
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
    b.ins().local_get(division);
    b.if_();
    b.ins().local_get(y).v128_const(0);
    b.op(s.eq);
    b.ins().local_tee(zero).local_get(over).v128_and();
    raise_if_any(b, abi, ZE);
    b.ins().local_get(over).local_get(zero).v128_andnot().local_set(over);
    b.end();
    b.ins().local_get(over);
    raise_if_any(b, abi, OE_PE);
    // bitselect(x, y, mask): mask ? x : y
    b.ins().local_get(a).v128_const(s.quiet).v128_or();
    b.ins().local_get(y).v128_const(s.quiet).v128_or();
    b.ins().v128_const(s.default).local_get(r).local_get(nr).v128_bitselect();
    b.ins().local_get(ny).v128_bitselect().local_get(na).v128_bitselect();
}

fn odd_scalar(b: &mut Body, splat: Ins, packed: Intern, lane: fn(&mut Body)) {
    b.ins().local_get(0);
    for v in 1..4 {
        b.ins().local_get(v);
        b.op(splat);
    }
    b.ins().local_get(4);
    b.call(Sym::Intern(packed));
    lane(b);
}

fn odd_demote(b: &mut Body, abi: &WasmAbi) {
    let (a, r) = (1, 2);
    b.locals.push(I64);
    let bits = 3;
    b.ins().local_get(a).local_get(a).f64_ne();
    let _: Label = b.if_();
    b.ins().local_get(a).i64_reinterpret_f64().local_tee(bits).i64_const(1 << 51).i64_and().i64_eqz();
    b.if_();
    raise(b, abi, IE);
    b.end();
    b.ins().local_get(bits).i64_const(32).i64_shr_u().i32_wrap_i64().i32_const(i32::MIN).i32_and();
    b.ins().local_get(bits).i64_const(29).i64_shr_u().i32_wrap_i64().i32_const(0x7f_ffff).i32_and();
    b.ins().i32_or().i32_const(0x7fc0_0000).i32_or().f32_reinterpret_i32().return_();
    b.end();
    // The result is infinite.
    b.ins().local_get(a).f64_abs().f64_const(Ieee64::new(f64::INFINITY.to_bits())).f64_ne();
    b.if_();
    raise(b, abi, OE_PE);
    b.end();
    b.ins().local_get(r);
}

fn odd_promote(b: &mut Body, abi: &WasmAbi) {
    b.locals.push(I32);
    let bits = 2;
    b.ins().local_get(1).i32_reinterpret_f32().local_tee(bits).i32_const(1 << 22).i32_and().i32_eqz();
    b.if_();
    raise(b, abi, IE);
    b.end();
    b.ins().local_get(bits).i32_const(i32::MIN).i32_and().i64_extend_i32_u().i64_const(32).i64_shl();
    b.ins().local_get(bits).i32_const(0x7f_ffff).i32_and().i64_extend_i32_u().i64_const(29).i64_shl().i64_or();
    b.ins().i64_const(0x7ff8_0000_0000_0000).i64_or().f64_reinterpret_i64();
}

/// `f32` infinity.
pub fn inf32() -> Ieee32 {
    Ieee32::new(f32::INFINITY.to_bits())
}
/// `f64` infinity.
pub fn inf64() -> Ieee64 {
    Ieee64::new(f64::INFINITY.to_bits())
}
/// Four of them.
pub const INF_PS: i128 = PS.infinity;
/// Two of them.
pub const INF_PD: i128 = PD.infinity;
