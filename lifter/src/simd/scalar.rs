//! Scalar floating point: lane 0 is computed, the other lanes are those of the first source.
//!
//! The flags of UCOMISx are computed, and its exception flags raised, where a condition is wanted; COMISx raises
//! its own, being invalid for quiet NaNs too.

use super::{Done, Vector, moves, packed, select};
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
        Ucomiss | Vucomiss => {
            comis(v, F32, I32, false);
            return Ok(true);
        }
        Ucomisd | Vucomisd => {
            comis(v, F64, I64, false);
            return Ok(true);
        }
        Comiss | Vcomiss => {
            comis(v, F32, I32, true);
            return Ok(true);
        }
        Comisd | Vcomisd => {
            comis(v, F64, I64, true);
            return Ok(true);
        }
        Cmpss | Vcmpss => {
            compare(v, F32);
            return Ok(true);
        }
        Cmpsd | Vcmpsd if moves::has_xmm(v) => {
            compare(v, F64);
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
fn comis(v: &mut Vector, ty: Type, bits: Type, signaling: bool) {
    let (a, b) = (lane(v, 0, bits), lane(v, 1, bits));
    if signaling {
        let (x, y) = (v.cx.bitcast(ty, a), v.cx.bitcast(ty, b));
        v.cx.b.push(Op::FComi, ty, x, y, Value::NONE, FCond::Lt as i64);
    } else if v.cx.strict {
        // A comparison for equality has the same flags, and as a vector it stays.
        let z = v.zero();
        let (x, y) = (v.cx.b.insert(shape(bits), z, 0, a), v.cx.b.insert(shape(bits), z, 0, b));
        v.cx.b.push(Op::VFCmp, shape(ty), x, y, Value::NONE, FCond::Eq as i64);
    }
    v.cx.set_cc(cc::FCMP, bits, a, b, Value::NONE);
    v.cx.fcmp_used = signaling || v.cx.strict;
}

/// CMPSS, CMPSD: a mask in lane 0. Compared as vectors with zeros above, since only those comparisons know which
/// predicates are invalid for quiet NaNs.
fn compare(v: &mut Vector, ty: Type) {
    let first = v.first();
    let imm = if v.vex() { v.imm() } else { v.imm() & 7 };
    let x = lane(v, first + 1, ty);
    let a = v.src(first, 0);
    let y = v.cx.b.extract(shape(ty), a, 0);
    let z = v.zero();
    let (x, y) = (v.cx.b.insert(shape(ty), z, 0, x), v.cx.b.insert(shape(ty), z, 0, y));
    let r = packed::compare(v, shape(ty), y, x, imm);
    let lane0 = select::blend(ty.bytes() as usize, 1);
    let r = v.cx.b.shuffle(a, r, lane0);
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
