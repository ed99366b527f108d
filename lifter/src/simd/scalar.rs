//! Scalar floating point: lane 0 is computed, the other lanes are those of the first source.
//!
//! Quirk: COMISx, UCOMISx and CMPSx give exact results, but the exception flags of MXCSR are those of the
//! comparison that the consumer of the result needs (none if nobody does), not of the instruction.

use super::{Done, Vector, moves, packed};
use evm_cpu::{cc, helper as h};
use evm_ir::{FCond, Op, Type, Type::*, Value};
use iced_x86::Mnemonic as M;

/// Translate a scalar instruction.
pub(super) fn lift(v: &mut Vector) -> Done {
    use M::*;
    let (op, ty) = match v.i.mnemonic() {
        Addss | Vaddss => (Op::FAdd, F32),
        Addsd | Vaddsd => (Op::FAdd, F64),
        Subss | Vsubss => (Op::FSub, F32),
        Subsd | Vsubsd => (Op::FSub, F64),
        Mulss | Vmulss => (Op::FMul, F32),
        Mulsd | Vmulsd => (Op::FMul, F64),
        Divss | Vdivss => (Op::FDiv, F32),
        Divsd | Vdivsd => (Op::FDiv, F64),
        Minss | Vminss => (Op::FMinX, F32),
        Minsd | Vminsd => (Op::FMinX, F64),
        Maxss | Vmaxss => (Op::FMaxX, F32),
        Maxsd | Vmaxsd => (Op::FMaxX, F64),
        Sqrtss | Vsqrtss => (Op::FSqrt, F32),
        Sqrtsd | Vsqrtsd => (Op::FSqrt, F64),
        Ucomiss | Comiss | Vucomiss | Vcomiss => {
            comis(v, I32);
            return Ok(true);
        }
        Ucomisd | Comisd | Vucomisd | Vcomisd => {
            comis(v, I64);
            return Ok(true);
        }
        Cmpss | Vcmpss => {
            compare(v, F32, I32);
            return Ok(true);
        }
        Cmpsd | Vcmpsd if moves::has_xmm(v) => {
            compare(v, F64, I64);
            return Ok(true);
        }
        Rcpss | Vrcpss => {
            approximate(v, h::RCPPS);
            return Ok(true);
        }
        Rsqrtss | Vrsqrtss => {
            approximate(v, h::RSQRTPS);
            return Ok(true);
        }
        Roundss | Vroundss => {
            round(v, h::ROUNDSS, 4);
            return Ok(true);
        }
        Roundsd | Vroundsd => {
            round(v, h::ROUNDSD, 8);
            return Ok(true);
        }
        _ => return Ok(false),
    };
    let first = v.first();
    let x = lane(v, first + 1, ty);
    // SQRT has one source; its legacy form keeps the destination's upper lanes.
    let a = v.src(first, 0);
    let r = if op == Op::FSqrt {
        v.cx.b.un(op, ty, x)
    } else {
        let y = v.cx.b.extract(shape(ty), a, 0);
        v.cx.b.bin(op, ty, y, x)
    };
    let r = v.cx.b.insert(shape(ty), a, 0, r);
    v.set(&[r]);
    Ok(true)
}

/// The vector shape with lanes of a scalar type.
pub(super) fn shape(ty: Type) -> Type {
    match ty {
        F32 => F32X4,
        F64 => F64X2,
        I32 => I32X4,
        _ => I64X2,
    }
}

/// Lane 0 of operand `op`, or a scalar in memory.
pub(super) fn lane(v: &mut Vector, op: u32, ty: Type) -> Value {
    if v.is_mem(op) {
        return v.load(ty, 0);
    }
    let x = v.src(op, 0);
    v.cx.b.extract(shape(ty), x, 0)
}

/// UCOMISx and COMISx: flags from the bits of both (see `cc::FCMP`).
fn comis(v: &mut Vector, bits: Type) {
    let (a, b) = (lane(v, 0, bits), lane(v, 1, bits));
    v.cx.set_cc(cc::FCMP, bits, a, b, Value::NONE);
}

/// CMPSS, CMPSD: a mask in lane 0.
fn compare(v: &mut Vector, ty: Type, bits: Type) {
    let first = v.first();
    let imm = if v.vex() { v.imm() } else { v.imm() & 7 };
    let x = lane(v, first + 1, ty);
    let a = v.src(first, 0);
    let y = v.cx.b.extract(shape(ty), a, 0);
    let one = |v: &mut Vector, c: FCond, a, b| v.cx.b.fcmp(c, ty, a, b);
    let r = match packed::predicate(imm) {
        packed::Pred::Plain(c, false) => one(v, c, y, x),
        packed::Pred::Plain(c, true) => one(v, c, x, y),
        packed::Pred::Or(c, d) => {
            let (p, q) = (one(v, c, y, x), one(v, d, y, x));
            v.cx.bin(Op::Or, I8, p, q)
        }
        packed::Pred::And(c, d) => {
            let (p, q) = (one(v, c, y, x), one(v, d, y, x));
            v.cx.bin(Op::And, I8, p, q)
        }
        packed::Pred::Const(c) => v.cx.iconst(I8, i64::from(c)),
    };
    let r = v.cx.zext(bits, r);
    let r = v.cx.un(Op::Neg, bits, r);
    let r = v.cx.b.insert(shape(bits), a, 0, r);
    v.set(&[r]);
}

/// RCPSS, RSQRTSS by the packed helper.
fn approximate(v: &mut Vector, helper: u16) {
    let first = v.first();
    let b = v.part(first + 1, 0, 4);
    let a = v.src(first, 0);
    let r = v.cx.call(helper, &[b]);
    let r = v.cx.b.extract(I32X4, r, 0);
    let r = v.cx.b.insert(I32X4, a, 0, r);
    v.set(&[r]);
}

fn round(v: &mut Vector, helper: u16, bytes: u32) {
    let first = v.first();
    let b = v.part(first + 1, 0, bytes);
    let a = v.src(first, 0);
    let imm = v.iconst(u64::from(v.imm()));
    let r = v.cx.call(helper, &[imm, a, b]);
    v.set(&[r]);
}
