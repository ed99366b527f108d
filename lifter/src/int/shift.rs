//! Shifts and rotates.

use super::{Done, Loc};
use crate::ctx::Lifter;
use evm_cpu::{cc, helper};
use evm_ir::{Cond, Op, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const NO: Value = Value::NONE;

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Shl | M::Sal | M::Shr | M::Sar => shift(cx, i),
        M::Rol | M::Ror => rotate(cx, i),
        M::Rcl | M::Rcr => rotate_carry(cx, i),
        M::Shld | M::Shrd => double(cx, i),
        M::Shlx | M::Shrx | M::Sarx => {
            let v = cx.read_op(i, 1);
            let n = cx.read_op(i, 2);
            let ty = cx.b.ty(v);
            let op = match i.mnemonic() {
                M::Shlx => Op::Shl,
                M::Shrx => Op::Shr,
                _ => Op::Sar,
            };
            let r = cx.bin(op, ty, v, n);
            cx.set_gpr(i.op_register(0), r);
        }
        M::Rorx => {
            let v = cx.read_op(i, 1);
            let ty = cx.b.ty(v);
            let r = cx.bini(Op::Rotr, ty, v, i.immediate(2) as i64);
            cx.set_gpr(i.op_register(0), r);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A masked count: constant, or a value (I8).
enum Count {
    Const(u32),
    Dynamic(Value),
}

fn count(cx: &mut Lifter, i: &Instruction, operand: u32, ty: Type) -> Count {
    let mask = if ty == Type::I64 { 63 } else { 31 };
    if i.op_kind(operand) == OpKind::Register {
        let v = cx.gpr(Register::CL);
        if let Some(k) = cx.const_of(v) {
            return Count::Const(k as u32 & mask);
        }
        return Count::Dynamic(cx.bini(Op::And, Type::I8, v, i64::from(mask)));
    }
    Count::Const(i.immediate(operand) as u32 & mask)
}

fn shift(cx: &mut Lifter, i: &Instruction) {
    let d = cx.dest(i);
    let ty = d.ty();
    let n = count(cx, i, 1, ty);
    let a = cx.read_loc(d);
    let (op, kind) = match i.mnemonic() {
        M::Shr => (Op::Shr, cc::SHR),
        M::Sar => (Op::Sar, cc::SAR),
        _ => (Op::Shl, cc::SHL),
    };
    // Counts go up to 31 also for narrow operands: those are shifted at 32 bits.
    let wide = if ty.bytes() < 4 { Type::I32 } else { ty };
    let (n8, dynamic) = match n {
        Count::Const(0) => {
            cx.write_loc(d, a);
            return;
        }
        Count::Const(n) => (cx.iconst(Type::I8, i64::from(n)), false),
        Count::Dynamic(v) => (v, true),
    };
    let w = cx.extend(if op == Op::Sar { Op::Sext } else { Op::Zext }, wide, a);
    let nw = cx.zext(wide, n8);
    let r = cx.bin(op, wide, w, nw);
    let r = cx.trunc(ty, r);
    cx.write_loc(d, r);
    let n64 = cx.zext(Type::I64, n8);
    if dynamic {
        let some = cx.icmpi(Cond::Ne, n8, 0);
        cx.set_cc_if(some, kind, ty, a, n64, NO);
    } else {
        cx.set_cc_res(kind, ty, a, n64, NO, r);
    }
}

/// CF and OF replaced (OF as a count of one gives it), the other flags kept; for a count that may be 0, only if `cond`.
fn set_cf_of(cx: &mut Lifter, cond: Option<Value>, cf: Value, of: Value) {
    let all = cx.all_flags();
    let rest = cx.bini(Op::And, Type::I64, all, !((cc::CF | cc::OF) as i64));
    let cf = cx.zext(Type::I64, cf);
    let of = cx.zext(Type::I64, of);
    let of = cx.bini(Op::Shl, Type::I64, of, 11);
    let f = cx.bin(Op::Or, Type::I64, rest, cf);
    let mut f = cx.bin(Op::Or, Type::I64, f, of);
    if let Some(c) = cond {
        f = cx.select(c, f, all);
    }
    cx.set_flags(f);
}

fn bit(cx: &mut Lifter, ty: Type, v: Value, n: u32) -> Value {
    let v = cx.bini(Op::Shr, ty, v, i64::from(n));
    let v = cx.trunc(Type::I8, v);
    cx.bini(Op::And, Type::I8, v, 1)
}

fn rotate(cx: &mut Lifter, i: &Instruction) {
    let d = cx.dest(i);
    let ty = d.ty();
    let n = count(cx, i, 1, ty);
    let a = cx.read_loc(d);
    let left = i.mnemonic() == M::Rol;
    let (n8, cond) = match n {
        Count::Const(0) => {
            cx.write_loc(d, a);
            return;
        }
        Count::Const(n) => (cx.iconst(Type::I8, i64::from(n)), None),
        Count::Dynamic(v) => (v, Some(cx.icmpi(Cond::Ne, v, 0))),
    };
    let nw = cx.zext(ty, n8);
    let r = cx.bin(if left { Op::Rotl } else { Op::Rotr }, ty, a, nw);
    cx.write_loc(d, r);
    let top = ty.bits() - 1;
    let cf = bit(cx, ty, r, if left { 0 } else { top });
    if matches!(d, Loc::Reg(_)) && i.op_kind(1) != OpKind::Register && !matches!(n, Count::Const(1)) {
        // A register by a constant other than one: OF, undefined, stays.
        cx.replace_carry(cf);
        return;
    }
    let (x, y) = (bit(cx, ty, a, top), bit(cx, ty, a, if left { top - 1 } else { 0 }));
    let of = cx.bin(Op::Xor, Type::I8, x, y);
    set_cf_of(cx, cond, cf, of);
}

fn rotate_carry(cx: &mut Lifter, i: &Instruction) {
    let d = cx.dest(i);
    let ty = d.ty();
    let n = count(cx, i, 1, ty);
    let left = i.mnemonic() == M::Rcl;
    let cin = cx.carry();
    let a = cx.read_loc(d);
    let top = ty.bits() - 1;
    let (r, cf, cond);
    match n {
        // A full turn changes nothing, not even OF.
        Count::Const(n) if n % (ty.bits() + 1) == 0 => {
            cx.write_loc(d, a);
            return;
        }
        Count::Const(1) => {
            let c = cx.zext(ty, cin);
            if left {
                let v = cx.bini(Op::Shl, ty, a, 1);
                r = cx.bin(Op::Or, ty, v, c);
                cf = bit(cx, ty, a, top);
            } else {
                let v = cx.bini(Op::Shr, ty, a, 1);
                let c = cx.bini(Op::Shl, ty, c, i64::from(top));
                r = cx.bin(Op::Or, ty, v, c);
                cf = bit(cx, ty, a, 0);
            }
            cond = None;
        }
        n => {
            let n8 = match n {
                Count::Const(n) => cx.iconst(Type::I8, i64::from(n)),
                Count::Dynamic(v) => v,
            };
            let how = cx.iconst(Type::I64, i64::from(ty.bits()) | i64::from(left) << 8);
            let (a64, c64, n64) = (cx.zext(Type::I64, a), cx.zext(Type::I64, cin), cx.zext(Type::I64, n8));
            let v = cx.call(helper::RC_VALUE, &[a64, c64, n64, how]);
            r = cx.trunc(ty, v);
            let v = cx.call(helper::RC_CARRY, &[a64, c64, n64, how]);
            cf = cx.trunc(Type::I8, v);
            cond = match n {
                Count::Const(_) => None,
                Count::Dynamic(v) if ty.bits() < 32 => {
                    let turn = cx.iconst(Type::I8, i64::from(ty.bits()) + 1);
                    let rest = cx.bin(Op::URem, Type::I8, v, turn);
                    Some(cx.icmpi(Cond::Ne, rest, 0))
                }
                Count::Dynamic(v) => Some(cx.icmpi(Cond::Ne, v, 0)),
            };
        }
    }
    cx.write_loc(d, r);
    let msb = bit(cx, ty, a, top);
    let other = if left { bit(cx, ty, a, top - 1) } else { cin };
    let of = cx.bin(Op::Xor, Type::I8, msb, other);
    set_cf_of(cx, cond, cf, of);
}

fn double(cx: &mut Lifter, i: &Instruction) {
    let d = cx.dest(i);
    let ty = d.ty();
    let n = count(cx, i, 2, ty);
    let b = cx.gpr(i.op_register(1));
    let a = cx.read_loc(d);
    let left = i.mnemonic() == M::Shld;
    let (n8, cond) = match n {
        Count::Const(0) => {
            cx.write_loc(d, a);
            return;
        }
        Count::Const(n) => (cx.iconst(Type::I8, i64::from(n)), None),
        Count::Dynamic(v) => (v, Some(cx.icmpi(Cond::Ne, v, 0))),
    };
    let bits = i64::from(ty.bits());
    // The last bit shifted out is found by shifting one less (count - 1 is only used if count > 0).
    let n1 = cx.bini(Op::Sub, Type::I8, n8, 1);
    let (mut r, cf);
    if ty == Type::I64 {
        let (nw, n1w) = (cx.zext(ty, n8), cx.zext(ty, n1));
        let back = cx.un(Op::Neg, ty, nw);
        let (main, fill) = if left { (Op::Shl, Op::Shr) } else { (Op::Shr, Op::Shl) };
        let x = cx.bin(main, ty, a, nw);
        let y = cx.bin(fill, ty, b, back);
        r = cx.bin(Op::Or, ty, x, y);
        let x = cx.bin(main, ty, a, n1w);
        cf = bit(cx, ty, x, if left { 63 } else { 0 });
    } else {
        // In 64 bits: a:b (32) or a:b:a (16) from the top, or b:a, a:b:a from the bottom.
        let w = Type::I64;
        let (a64, b64) = (cx.zext(w, a), cx.zext(w, b));
        let mut v = if left {
            let h = cx.bini(Op::Shl, w, a64, bits);
            cx.bin(Op::Or, w, h, b64)
        } else {
            let h = cx.bini(Op::Shl, w, b64, bits);
            cx.bin(Op::Or, w, h, a64)
        };
        let mut pos = bits;
        if ty == Type::I16 {
            v = if left {
                let h = cx.bini(Op::Shl, w, v, 16);
                cx.bin(Op::Or, w, h, a64)
            } else {
                let h = cx.bini(Op::Shl, w, a64, 32);
                cx.bin(Op::Or, w, h, v)
            };
            pos = 32;
        }
        let (nw, n1w) = (cx.zext(w, n8), cx.zext(w, n1));
        if left {
            let x = cx.bin(Op::Shl, w, v, nw);
            let x = cx.bini(Op::Shr, w, x, pos);
            r = cx.trunc(ty, x);
            let x = cx.bin(Op::Shl, w, v, n1w);
            cf = bit(cx, w, x, (pos + bits - 1) as u32);
        } else {
            let x = cx.bin(Op::Shr, w, v, nw);
            r = cx.trunc(ty, x);
            let x = cx.bin(Op::Shr, w, v, n1w);
            cf = bit(cx, w, x, 0);
        }
    }
    if let Some(c) = cond {
        r = cx.select(c, r, a);
    }
    cx.write_loc(d, r);
    let other = if left { bit(cx, ty, a, ty.bits() - 2) } else { bit(cx, ty, b, 0) };
    let msb = bit(cx, ty, a, ty.bits() - 1);
    let of = cx.bin(Op::Xor, Type::I8, msb, other);
    let of = cx.zext(Type::I64, of);
    let of = cx.bini(Op::Shl, Type::I64, of, 11);
    let c = cx.zext(Type::I64, cf);
    let c = cx.bin(Op::Or, Type::I64, c, of);
    match cond {
        Some(k) => cx.set_cc_if(k, cc::RES, ty, r, NO, c),
        None => cx.set_cc(cc::RES, ty, r, NO, c),
    }
}
