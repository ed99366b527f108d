//! Conversions between integers and floats of each size.
//!
//! Those that round by MXCSR in the IR (int to float, double to float) are IR operations; float to
//! integer with rounding is a helper, which runs the instruction itself.

use super::{Done, Form, Vector, scalar, select};
use evm_cpu::helper as h;
use evm_ir::{Op, Type, Type::*, Value};
use iced_x86::Mnemonic as M;

/// Translate a conversion.
pub(super) fn lift(v: &mut Vector) -> Done {
    use M::*;
    match v.i.mnemonic() {
        Cvtss2sd | Vcvtss2sd => float_float(v, Op::FPromote, F32, F64),
        Cvtsd2ss | Vcvtsd2ss => float_float(v, Op::FDemote, F64, F32),
        Cvtsi2ss | Vcvtsi2ss => int_float(v, F32),
        Cvtsi2sd | Vcvtsi2sd => int_float(v, F64),
        Cvttss2si | Vcvttss2si => truncate(v, F32),
        Cvttsd2si | Vcvttsd2si => truncate(v, F64),
        Cvtss2si | Vcvtss2si => rounded(v, I32),
        Cvtsd2si | Vcvtsd2si => rounded(v, I64),
        Cvtdq2pd | Vcvtdq2pd => widen(v, I32, Op::CvtIF),
        Cvtps2pd | Vcvtps2pd => widen(v, F32, Op::FPromote),
        Cvtpd2ps | Vcvtpd2ps => narrow(v, h::CVTPD2PS),
        Cvtpd2dq | Vcvtpd2dq => narrow(v, h::CVTPD2DQ),
        Cvttpd2dq | Vcvttpd2dq => narrow(v, h::CVTTPD2DQ),
        Cvtpi2ps => {
            // Two dwords to floats; the upper half stays.
            let x = v.part(1, 0, 8);
            if !v.is_mem(1) {
                v.enter_mmx();
            }
            let d = v.cx.xmm(v.reg(0));
            let lo = cvt_lane(v, Op::CvtIF, F32, I32, x, 0);
            let hi = cvt_lane(v, Op::CvtIF, F32, I32, x, 1);
            let d = v.cx.b.insert(F32X4, d, 0, lo);
            let d = v.cx.b.insert(F32X4, d, 1, hi);
            v.cx.set_xmm(v.reg(0), d);
        }
        Cvtpi2pd => {
            let x = v.part(1, 0, 8);
            if !v.is_mem(1) {
                v.enter_mmx();
            }
            let r = pair(v, Op::CvtIF, F64, I32, x, 0);
            v.cx.set_xmm(v.reg(0), r);
        }
        Cvtps2pi => to_mmx(v, h::CVTPS2DQ, 8),
        Cvttps2pi => to_mmx(v, h::CVTTPS2DQ, 8),
        Cvtpd2pi => to_mmx(v, h::CVTPD2DQ, 16),
        Cvttpd2pi => to_mmx(v, h::CVTTPD2DQ, 16),
        Vcvtph2ps => {
            let halves: Vec<Value> = (0..v.halves())
                .map(|half| {
                    let x = v.part(1, 8 * half as u32, 8);
                    v.cx.call(h::CVTPH2PS, &[x])
                })
                .collect();
            v.set(&halves);
        }
        Vcvtps2ph => cvtps2ph(v),
        _ => return Ok(false),
    }
    Ok(true)
}

fn cvt_lane(v: &mut Vector, op: Op, to: Type, from: Type, x: Value, lane: u8) -> Value {
    let x = v.cx.b.extract(scalar::shape(from), x, lane);
    v.cx.b.conv(op, to, x)
}

/// Lanes `lane` and `lane + 1` of `x`, converted to doubles.
fn pair(v: &mut Vector, op: Op, to: Type, from: Type, x: Value, lane: u8) -> Value {
    let lo = cvt_lane(v, op, to, from, x, lane);
    let hi = cvt_lane(v, op, to, from, x, lane + 1);
    let z = v.zero();
    let r = v.cx.b.insert(scalar::shape(to), z, 0, lo);
    v.cx.b.insert(scalar::shape(to), r, 1, hi)
}

fn float_float(v: &mut Vector, op: Op, from: Type, to: Type) {
    let first = v.first();
    let x = scalar::lane(v, first + 1, from);
    let a = v.src(first, 0);
    let r = v.cx.b.conv(op, to, x);
    let r = v.cx.b.insert(scalar::shape(to), a, 0, r);
    v.set(&[r]);
}

fn int_float(v: &mut Vector, to: Type) {
    let first = v.first();
    let x = v.cx.read_op(v.i, first + 1);
    let a = v.src(first, 0);
    let r = v.cx.b.conv(Op::CvtIF, to, x);
    let r = v.cx.b.insert(scalar::shape(to), a, 0, r);
    v.set(&[r]);
}

fn truncate(v: &mut Vector, from: Type) {
    let x = scalar::lane(v, 1, from);
    let d = v.i.op_register(0);
    let r = v.cx.b.conv(Op::CvtFI, Type::int(d.size() as u32), x);
    v.cx.set_gpr(d, r);
}

/// CVTSS2SI, CVTSD2SI; `bits` is the integer type of the float's size.
fn rounded(v: &mut Vector, bits: Type) {
    let x = scalar::lane(v, 1, bits);
    let x = v.cx.zext(I64, x);
    let d = v.i.op_register(0);
    let form = u64::from(bits == I64) | u64::from(d.size() == 8) << 1;
    let form = v.iconst(form);
    let r = v.cx.call(h::CVT_FLOAT_INT, &[form, x]);
    let r = v.cx.trunc(Type::int(d.size() as u32), r);
    v.cx.set_gpr(d, r);
}

/// Two (VEX.256: four) lanes of 32 bits to doubles.
fn widen(v: &mut Vector, from: Type, op: Op) {
    let halves: Vec<Value> = (0..v.halves())
        .map(|half| {
            let x = v.part(1, 8 * half as u32, 8);
            pair(v, op, F64, from, x, 0)
        })
        .collect();
    v.set(&halves);
}

/// Two doubles to the low half of the result, by a helper; VEX.256: four to one XMM register.
fn narrow(v: &mut Vector, helper: u16) {
    v.aligned_if_legacy();
    // The result is an XMM register, so the form follows the source.
    let wide = if v.is_mem(1) { v.i.memory_size().size() == 32 } else { v.i.op_register(1).is_ymm() };
    let x = v.src(1, 0);
    // Read before anything is raised.
    let y = wide.then(|| v.src(1, 1));
    let mut r = v.cx.call(helper, &[x]);
    if let Some(y) = y {
        let y = v.cx.call(helper, &[y]);
        r = v.cx.b.shuffle(r, y, select::lanes(8, |k| 2 * k));
    }
    v.set(&[r]);
}

/// CVT(T)PS2PI, CVT(T)PD2PI.
fn to_mmx(v: &mut Vector, helper: u16, bytes: u32) {
    v.wait();
    if bytes == 16 && v.is_mem(1) {
        v.aligned(16);
    }
    let x = v.part(1, 0, bytes);
    // Only the low half's conversions may raise flags: upper lanes of a register are made zero.
    let x = if bytes == 8 {
        let q = v.cx.b.extract(I64X2, x, 0);
        v.low64(q)
    } else {
        x
    };
    let r = v.cx.call(helper, &[x]);
    let r = v.cx.b.extract(I64X2, r, 0);
    v.set_mm(v.reg(0), r);
}

/// VCVTPS2PH: the destination (operand 0) is half as long as the source.
fn cvtps2ph(v: &mut Vector) {
    let imm = v.iconst(u64::from(v.imm()));
    let wide = v.form == Form::Vex256;
    let x = v.src(1, 0);
    let mut r = v.cx.call(h::CVTPS2PH, &[imm, x]);
    if wide {
        let y = v.src(1, 1);
        let y = v.cx.call(h::CVTPS2PH, &[imm, y]);
        r = v.cx.b.shuffle(r, y, select::lanes(8, |k| 2 * k));
    }
    if v.is_mem(0) {
        let a = v.addr();
        if wide {
            v.cx.store(V128, a, r);
        } else {
            let q = v.cx.b.extract(I64X2, r, 0);
            v.cx.store(I64, a, q);
        }
    } else {
        v.set(&[r]);
    }
}
