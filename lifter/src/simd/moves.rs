//! Moves, inserts, extracts, masks and tests of vectors.

use super::{Done, Form, Vector, select};
use evm_cpu::{cc, helper as h};
use evm_ir::{Cond, Op, Type, Type::*, Value};
use iced_x86::{Mnemonic as M, OpKind, Register};

/// Translate a move.
pub(super) fn lift(v: &mut Vector) -> Done {
    match v.i.mnemonic() {
        M::Movaps
        | M::Movapd
        | M::Movdqa
        | M::Movntdq
        | M::Movntps
        | M::Movntpd
        | M::Movntdqa
        | M::Vmovaps
        | M::Vmovapd
        | M::Vmovdqa
        | M::Vmovntdq
        | M::Vmovntps
        | M::Vmovntpd
        | M::Vmovntdqa => {
            if v.is_mem(0) || v.is_mem(1) {
                v.aligned(16 * v.halves() as i64);
            }
            whole(v, true);
        }
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu | M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => {
            whole(v, false);
        }
        M::Movss | M::Vmovss => low(v, F32X4)?,
        // Movsd and Cmpsd are also string instructions; those have no vector register.
        M::Movsd | M::Vmovsd if has_xmm(v) => low(v, F64X2)?,
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => half(v, 0),
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => half(v, 1),
        M::Movhlps | M::Vmovhlps => merge(v, [3, 1]),
        M::Movlhps | M::Vmovlhps => merge(v, [0, 2]),
        M::Movddup | M::Vmovddup => movddup(v),
        M::Movd | M::Vmovd => movd(v, I32)?,
        M::Movq | M::Vmovq => movd(v, I64)?,
        M::Movmskps | M::Vmovmskps => mask(v, I32X4),
        M::Movmskpd | M::Vmovmskpd => mask(v, I64X2),
        M::Pmovmskb | M::Vpmovmskb => mask(v, I8X16),
        M::Pinsrb | M::Vpinsrb => pinsr(v, I8X16),
        M::Pinsrw | M::Vpinsrw => pinsr(v, I16X8),
        M::Pinsrd | M::Vpinsrd => pinsr(v, I32X4),
        M::Pinsrq | M::Vpinsrq => pinsr(v, I64X2),
        M::Pextrb | M::Vpextrb => pextr(v, I8X16),
        M::Pextrw | M::Vpextrw => pextr(v, I16X8),
        M::Pextrd | M::Vpextrd | M::Extractps | M::Vextractps => pextr(v, I32X4),
        M::Pextrq | M::Vpextrq => pextr(v, I64X2),
        M::Insertps | M::Vinsertps => insertps(v),
        M::Ptest | M::Vptest => ptest(v, None),
        M::Vtestps => ptest(v, Some(0x80000000_80000000_80000000_80000000)),
        M::Vtestpd => ptest(v, Some(0x8000000000000000_8000000000000000)),
        M::Maskmovdqu | M::Vmaskmovdqu => {
            let (x, m) = (v.src(1, 0), v.src(2, 0));
            maskmov(v, x, m);
        }
        M::Pcmpistri
        | M::Vpcmpistri
        | M::Pcmpistrm
        | M::Vpcmpistrm
        | M::Pcmpestri
        | M::Vpcmpestri
        | M::Pcmpestrm
        | M::Vpcmpestrm
        | M::Pcmpestri64
        | M::Pcmpestrm64
        | M::Vpcmpestri64
        | M::Vpcmpestrm64 => pcmpstr(v),
        _ => return Ok(false),
    }
    Ok(true)
}

pub(super) fn has_xmm(v: &Vector) -> bool {
    (0..v.i.op_count()).any(|n| v.is_reg(n) && v.i.op_register(n).is_xmm())
}

/// The whole register, from or to a register or memory that is known to be aligned or not.
fn whole(v: &mut Vector, aligned: bool) {
    let vals: Vec<Value> = (0..v.halves()).map(|half| v.src(1, half)).collect();
    if v.is_mem(0) {
        let a = v.addr();
        if vals.len() > 1 && !aligned {
            v.cx.whole(a, 32);
        }
        for (k, x) in vals.iter().enumerate() {
            v.cx.store(V128, a.plus(16 * k as i32), *x);
        }
    } else {
        v.set(&vals);
    }
}

/// MOVSS/MOVSD: load zeroes the rest, store writes the lane, register to register keeps the rest of the
/// first source. The lane is a floating one, as in what computes with it, so that it need not be part of a vector meanwhile.
fn low(v: &mut Vector, shape: Type) -> Result<(), crate::ctx::Unlifted> {
    if v.is_mem(0) {
        let x = v.src(1, 0);
        let x = v.cx.b.extract(shape, x, 0);
        let a = v.addr();
        v.cx.store(shape.lane(), a, x);
        return Ok(());
    }
    let r = if v.is_mem(1) {
        let x = v.load(shape.lane(), 0);
        let z = v.zero();
        v.cx.b.insert(shape, z, 0, x)
    } else {
        let first = v.first();
        let (a, b) = (v.src(first, 0), v.src(first + 1, 0));
        let bytes = shape.lane().bytes() as usize;
        v.cx.b.shuffle(a, b, select::blend(bytes, 1))
    };
    v.set(&[r]);
    Ok(())
}

/// MOVLPS/MOVHPS and their kin: one half to or from memory.
fn half(v: &mut Vector, lane: u8) {
    let shape = if lane == 0 { F64X2 } else { I64X2 };
    if v.is_mem(0) {
        let x = v.src(1, 0);
        let x = v.cx.b.extract(shape, x, lane);
        let a = v.addr();
        v.cx.store(shape.lane(), a, x);
        return;
    }
    let first = v.first();
    let x = v.load(shape.lane(), 0);
    let a = v.src(first, 0);
    let r = v.cx.b.insert(shape, a, lane, x);
    v.set(&[r]);
}

/// Two quadwords of the four of both sources.
fn merge(v: &mut Vector, from: [usize; 2]) {
    let first = v.first();
    let (a, b) = (v.src(first, 0), v.src(first + 1, 0));
    let r = v.cx.b.shuffle(a, b, select::lanes(8, |k| from[k]));
    v.set(&[r]);
}

fn movddup(v: &mut Vector) {
    let halves: Vec<Value> = (0..v.halves())
        .map(|half| {
            // The form of 256 bits reads all of them, so faults at the first byte that is missing.
            let x = if v.is_mem(1) && v.halves() == 1 { v.part(1, 0, 8) } else { v.src(1, half) };
            v.cx.b.shuffle(x, x, select::lanes(8, |_| 0))
        })
        .collect();
    v.set(&halves);
}

/// MOVD and MOVQ in all their forms: general register or memory and vector, or two vectors (MOVQ).
fn movd(v: &mut Vector, ty: Type) -> Result<(), crate::ctx::Unlifted> {
    let vector = |r: Register| r.is_xmm() || r.is_mm();
    let shape = if ty == I64 { I64X2 } else { I32X4 };
    let to_vector = v.is_reg(0) && vector(v.i.op_register(0));
    let from_vector = v.is_reg(1) && vector(v.i.op_register(1));
    if from_vector {
        let x = v.src(1, 0);
        let x = v.cx.b.extract(shape, x, 0);
        if !to_vector {
            if v.is_mem(0) {
                if v.form == Form::Mmx {
                    v.wait_mmx();
                }
                let a = v.addr();
                v.cx.store(ty, a, x);
                if v.form == Form::Mmx {
                    v.enter_mmx();
                }
            } else {
                if v.form == Form::Mmx {
                    v.enter_mmx();
                }
                v.cx.set_gpr(v.i.op_register(0), x);
            }
            return Ok(());
        }
        let r = v.low64(x);
        v.set(&[r]);
        return Ok(());
    }
    let x = if v.is_mem(1) { v.load(ty, 0) } else { v.cx.gpr(v.i.op_register(1)) };
    let z = v.zero();
    let r = v.cx.b.insert(shape, z, 0, x);
    v.set(&[r]);
    Ok(())
}

/// MOVMSK*, PMOVMSKB: to a general register, zero-extended.
fn mask(v: &mut Vector, shape: Type) {
    let lanes = 16 / shape.lane().bytes();
    let mut r: Option<Value> = None;
    for half in 0..v.halves() {
        let x = v.src(1, half);
        let m = v.cx.b.un(Op::VMask, shape, x);
        r = Some(match r {
            None => m,
            Some(low) => {
                let m = v.cx.bini(Op::Shl, I32, m, i64::from(lanes));
                v.cx.bin(Op::Or, I32, low, m)
            }
        });
    }
    let Some(r) = r else { return };
    if v.form == Form::Mmx {
        v.enter_mmx();
    }
    let d = v.i.op_register(0);
    let r = if d.size() == 8 { v.cx.zext(I64, r) } else { r };
    v.cx.set_gpr(d, r);
}

/// PINSR*: operand 0 (VEX: 1) with one lane from a general register or memory.
fn pinsr(v: &mut Vector, shape: Type) {
    let first = v.first();
    let ty = shape.lane();
    let x = if v.is_mem(first + 1) {
        v.load(ty, 0)
    } else {
        let x = v.cx.gpr(v.i.op_register(first + 1));
        v.cx.trunc(ty, x)
    };
    let a = v.src(first, 0);
    let lanes = if v.form == Form::Mmx { 4 } else { 16 / ty.bytes() as u8 };
    let lane = v.imm() & (lanes - 1);
    let r = v.cx.b.insert(shape, a, lane, x);
    v.set(&[r]);
}

/// PEXTR*, EXTRACTPS: a lane to memory, or zero-extended to a general register.
fn pextr(v: &mut Vector, shape: Type) {
    let x = v.src(1, 0);
    let ty = shape.lane();
    let lanes = if v.form == Form::Mmx { 4 } else { 16 / ty.bytes() as u8 };
    let x = v.cx.b.extract(shape, x, v.imm() & (lanes - 1));
    if v.form == Form::Mmx {
        v.enter_mmx();
    }
    if v.is_mem(0) {
        let a = v.addr();
        v.cx.store(ty, a, x);
    } else {
        let d = v.i.op_register(0);
        let x = v.cx.zext(Type::int(d.size() as u32), x);
        v.cx.set_gpr(d, x);
    }
}

fn insertps(v: &mut Vector) {
    let first = v.first();
    let imm = v.imm();
    let x = if v.is_mem(first + 1) {
        v.load(I32, 0)
    } else {
        let b = v.src(first + 1, 0);
        v.cx.b.extract(I32X4, b, imm >> 6)
    };
    let a = v.src(first, 0);
    let r = v.cx.b.insert(I32X4, a, imm >> 4 & 3, x);
    let z = v.zero();
    let r = if imm & 15 != 0 { v.cx.b.shuffle(r, z, select::blend(4, imm & 15)) } else { r };
    v.set(&[r]);
}

/// 1 if the bits of `x` under the mask are all zero, as I64.
fn all_zero(v: &mut Vector, x: Value, m: Option<u128>) -> Value {
    let x = match m {
        Some(m) => {
            let m = v.cx.b.vconst(m);
            v.cx.b.bin(Op::VAnd, V128, x, m)
        }
        None => x,
    };
    let (lo, hi) = (v.cx.b.extract(I64X2, x, 0), v.cx.b.extract(I64X2, x, 1));
    v.cx.bin(Op::Or, I64, lo, hi)
}

/// PTEST, VTESTPS/PD (which look at sign bits only): ZF = (a and b) is 0, CF = (not a and b) is 0.
fn ptest(v: &mut Vector, bits: Option<u128>) {
    v.aligned_if_legacy();
    let mut both: Option<[Value; 2]> = None;
    for half in 0..v.halves() {
        let (a, b) = (v.src(0, half), v.src(1, half));
        let and = v.cx.b.bin(Op::VAnd, V128, a, b);
        let andn = v.cx.b.bin(Op::VAndNot, V128, a, b);
        let now = [all_zero(v, and, bits), all_zero(v, andn, bits)];
        both = Some(match both {
            None => now,
            Some(old) => [v.cx.bin(Op::Or, I64, old[0], now[0]), v.cx.bin(Op::Or, I64, old[1], now[1])],
        });
    }
    let Some([and, andn]) = both else { return };
    let zf = v.cx.icmpi(Cond::Eq, and, 0);
    let zf = v.cx.zext(I64, zf);
    let zf = v.cx.bini(Op::Shl, I64, zf, i64::from(cc::ZF.trailing_zeros()));
    let cf = v.cx.icmpi(Cond::Eq, andn, 0);
    let cf = v.cx.zext(I64, cf);
    let f = v.cx.bin(Op::Or, I64, zf, cf);
    v.cx.set_flags(f);
}

/// MASKMOVDQU, MASKMOVQ: bytes under the mask to `[rdi]`.
pub(super) fn maskmov(v: &mut Vector, x: Value, m: Value) {
    let a = if v.i.op_kind(0) == OpKind::MemorySegRDI {
        v.cx.gpr64(Register::RDI)
    } else {
        let a = v.cx.gpr(Register::EDI);
        v.cx.zext(I64, a)
    };
    let a = v.cx.with_segment(v.i, a);
    let size = v.iconst(if v.form == Form::Mmx { 8 } else { 16 });
    v.cx.call(h::MASKMOV, &[a, size, x, m]);
}

/// PCMPxSTRx: flags, and the index in ECX or the mask in XMM0.
fn pcmpstr(v: &mut Vector) {
    let name = v.i.mnemonic();
    let imm = u64::from(v.imm());
    let a = v.src(0, 0);
    let b = v.src(1, 0);
    let k = v.iconst(imm);
    let packed = match name {
        M::Pcmpistri | M::Vpcmpistri | M::Pcmpistrm | M::Vpcmpistrm => v.cx.call(h::PCMPISTR, &[k, a, b]),
        _ => {
            let wide = matches!(name, M::Pcmpestri64 | M::Pcmpestrm64 | M::Vpcmpestri64 | M::Vpcmpestrm64);
            let (ra, rb) = if wide { (Register::RAX, Register::RDX) } else { (Register::EAX, Register::EDX) };
            let (la, lb) = (v.cx.gpr(ra), v.cx.gpr(rb));
            let (la, lb) = (v.cx.sext(I64, la), v.cx.sext(I64, lb));
            v.cx.call(h::PCMPESTR, &[k, la, lb, a, b])
        }
    };
    let flags = v.cx.bini(Op::Shr, I64, packed, 32);
    let index =
        matches!(name, M::Pcmpistri | M::Vpcmpistri | M::Pcmpestri | M::Vpcmpestri | M::Pcmpestri64 | M::Vpcmpestri64);
    if index {
        let x = v.cx.bini(Op::Shr, I64, packed, 16);
        let x = v.cx.bini(Op::And, I64, x, 255);
        let x = v.cx.trunc(I32, x);
        v.cx.set_gpr(Register::ECX, x);
    } else {
        let m = v.cx.call(h::PCMPSTR_MASK, &[k, packed]);
        v.cx.set_xmm(0, m);
        if v.vex() {
            let z = v.zero();
            v.cx.put(evm_cpu::ymm_hi(0), z);
        }
    }
    v.cx.set_flags(flags);
}
