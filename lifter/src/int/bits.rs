//! Bit tests, scans, counts and fields; CRC32.

use super::{Done, Loc};
use crate::ctx::{Addr, Lifter, full};
use evm_cpu::{cc, helper};
use evm_ir::{Cond, Op, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

const NO: Value = Value::NONE;

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    let dst = i.op_register(0);
    match i.mnemonic() {
        M::Bt | M::Bts | M::Btr | M::Btc => bit_test(cx, i),
        M::Bsf | M::Bsr => {
            let v = cx.read_op(i, 1);
            let ty = cx.b.ty(v);
            let n = if i.mnemonic() == M::Bsf {
                cx.un(Op::Ctz, ty, v)
            } else {
                let z = cx.un(Op::Clz, ty, v);
                // 31 - clz, or 63 - clz
                cx.bini(Op::Xor, ty, z, i64::from(ty.bits()) - 1)
            };
            let zero = cx.icmpi(Cond::Eq, v, 0);
            // A zero source leaves the whole register alone, its upper half too.
            if ty == Type::I16 {
                let old = cx.gpr(dst);
                let n = cx.select(zero, old, n);
                cx.set_gpr(dst, n);
            } else {
                let old = cx.gpr64(dst);
                let n = cx.zext(Type::I64, n);
                let n = cx.select(zero, old, n);
                cx.put(evm_cpu::gpr(full(dst)), n);
            }
            cx.set_cc(if i.mnemonic() == M::Bsf { cc::BSF } else { cc::BSR }, ty, v, NO, NO);
        }
        M::Lzcnt | M::Tzcnt => {
            let v = cx.read_op(i, 1);
            let ty = cx.b.ty(v);
            let r = cx.un(if i.mnemonic() == M::Lzcnt { Op::Clz } else { Op::Ctz }, ty, v);
            cx.set_gpr(dst, r);
            let c = cx.icmpi(Cond::Eq, v, 0);
            cx.set_cc(cc::ZERO, ty, r, NO, c);
        }
        M::Popcnt => {
            let v = cx.read_op(i, 1);
            let ty = cx.b.ty(v);
            let r = cx.un(Op::Popcnt, ty, v);
            cx.set_gpr(dst, r);
            let c = cx.iconst(Type::I8, 0);
            cx.set_cc(cc::ZERO, ty, r, NO, c);
        }
        M::Andn => {
            let a = cx.read_op(i, 1);
            let b = cx.read_op(i, 2);
            let ty = cx.b.ty(a);
            let a = cx.un(Op::Not, ty, a);
            let r = cx.bin(Op::And, ty, a, b);
            let c = cx.iconst(Type::I8, 0);
            result(cx, i, ty, r, c);
        }
        M::Blsr | M::Blsi | M::Blsmsk => {
            let v = cx.read_op(i, 1);
            let ty = cx.b.ty(v);
            let (r, cond) = match i.mnemonic() {
                M::Blsi => {
                    let n = cx.un(Op::Neg, ty, v);
                    (cx.bin(Op::And, ty, v, n), Cond::Ne)
                }
                m => {
                    let n = cx.bini(Op::Sub, ty, v, 1);
                    let op = if m == M::Blsr { Op::And } else { Op::Xor };
                    (cx.bin(op, ty, v, n), Cond::Eq)
                }
            };
            let c = cx.icmpi(cond, v, 0);
            result(cx, i, ty, r, c);
        }
        M::Bzhi => {
            let v = cx.read_op(i, 1);
            let n = cx.read_op(i, 2);
            let ty = cx.b.ty(v);
            let n = cx.bini(Op::And, ty, n, 255);
            let ones = cx.iconst(ty, -1);
            let m = cx.bin(Op::Shl, ty, ones, n);
            let m = cx.un(Op::Not, ty, m);
            let low = cx.bin(Op::And, ty, v, m);
            let c = cx.icmpi(Cond::Uge, n, i64::from(ty.bits()));
            let r = cx.select(c, v, low);
            result(cx, i, ty, r, c);
        }
        M::Bextr => {
            let v = cx.read_op(i, 1);
            let k = cx.read_op(i, 2);
            let ty = cx.b.ty(v);
            let bits = i64::from(ty.bits());
            let start = cx.bini(Op::And, ty, k, 255);
            let len = cx.bini(Op::Shr, ty, k, 8);
            let len = cx.bini(Op::And, ty, len, 255);
            let s = cx.bin(Op::Shr, ty, v, start);
            let zero = cx.iconst(ty, 0);
            let far = cx.icmpi(Cond::Uge, start, bits);
            let s = cx.select(far, zero, s);
            let ones = cx.iconst(ty, -1);
            let m = cx.bin(Op::Shl, ty, ones, len);
            let m = cx.un(Op::Not, ty, m);
            let all = cx.icmpi(Cond::Uge, len, bits);
            let m = cx.select(all, ones, m);
            let r = cx.bin(Op::And, ty, s, m);
            let c = cx.iconst(Type::I8, 0);
            cx.set_gpr(dst, r);
            cx.set_cc(cc::ZERO, ty, r, NO, c);
        }
        M::Pdep | M::Pext => {
            let v = cx.read_op(i, 1);
            let m = cx.read_op(i, 2);
            let ty = cx.b.ty(v);
            let (v, m) = (cx.zext(Type::I64, v), cx.zext(Type::I64, m));
            let h = if i.mnemonic() == M::Pdep { helper::PDEP } else { helper::PEXT };
            let r = cx.call(h, &[v, m]);
            let r = cx.trunc(ty, r);
            cx.set_gpr(dst, r);
        }
        M::Crc32 => {
            let v = cx.read_op(i, 1);
            let bytes = cx.b.ty(v).bytes();
            let v = cx.zext(Type::I64, v);
            let crc = cx.gpr64(dst);
            let n = cx.iconst(Type::I64, i64::from(bytes));
            let r = cx.call(helper::CRC32C, &[crc, v, n]);
            let r = cx.trunc(Type::I32, r);
            let r = if dst.size() == 8 { cx.zext(Type::I64, r) } else { r };
            cx.set_gpr(dst, r);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn result(cx: &mut Lifter, i: &Instruction, ty: Type, r: Value, carry: Value) {
    cx.set_gpr(i.op_register(0), r);
    cx.set_cc(cc::BMI, ty, r, NO, carry);
}

/// Whether an address without registers has the address-size prefix.
fn narrow(i: &Instruction) -> bool {
    i.memory_base() == Register::None && i.memory_index() == Register::None || i.memory_base() == Register::EIP
}

/// Where a bit test with an offset in a register works: the offset is signed, whole operands away from the address. A 32-bit address
/// wraps with it, before the segment's base is added.
fn bit_string(cx: &mut Lifter, i: &Instruction, ty: Type, off: Value) -> Addr {
    let off = cx.sext(Type::I64, off);
    let units = cx.bini(Op::Sar, Type::I64, off, i64::from(ty.bits().trailing_zeros()));
    let bytes = cx.bini(Op::Shl, Type::I64, units, i64::from(ty.bytes().trailing_zeros()));
    let a = cx.addr_of(i, false);
    let mut a = Addr { base: cx.bin(Op::Add, Type::I64, a.base, bytes), disp: a.disp };
    if i.memory_base().is_gpr32() || i.memory_index().is_gpr32() || i.memory_displ_size() == 4 && narrow(i) {
        a = cx.narrow_addr(a);
    }
    Addr { base: cx.with_segment(i, a.base), disp: a.disp }
}

/// BT and friends: CF = the bit, the other flags stay.
fn bit_test(cx: &mut Lifter, i: &Instruction) {
    let ty = cx.op_type(i, 0);
    let bits = i64::from(ty.bits());
    let off = match i.op_kind(1) {
        OpKind::Register => cx.gpr(i.op_register(1)),
        _ => cx.iconst(ty, i.immediate(1) as i64),
    };
    let n = cx.bini(Op::And, ty, off, bits - 1);
    let d = match (i.op_kind(0), i.op_kind(1)) {
        (OpKind::Memory, OpKind::Register) => Loc::Mem(bit_string(cx, i, ty, off), ty),
        _ => cx.dest(i),
    };
    let one = cx.iconst(ty, 1);
    let mask = cx.bin(Op::Shl, ty, one, n);
    let m = i.mnemonic();
    let old;
    if let (true, Loc::Mem(a, _)) = (i.has_lock_prefix(), d) {
        let (op, v) = match m {
            M::Bts => (Op::AtomicOr, mask),
            M::Btr => (Op::AtomicAnd, cx.un(Op::Not, ty, mask)),
            _ => (Op::AtomicXor, mask),
        };
        old = cx.rmw(op, ty, a, v);
    } else {
        old = cx.read_loc(d);
    }
    if m != M::Bt && !(i.has_lock_prefix() && matches!(d, Loc::Mem(..))) {
        let v = match m {
            M::Bts => cx.bin(Op::Or, ty, old, mask),
            M::Btr => {
                let k = cx.un(Op::Not, ty, mask);
                cx.bin(Op::And, ty, old, k)
            }
            _ => cx.bin(Op::Xor, ty, old, mask),
        };
        cx.write_loc(d, v);
    }
    let c = cx.bin(Op::Shr, ty, old, n);
    let c = cx.trunc(Type::I8, c);
    let c = cx.bini(Op::And, Type::I8, c, 1);
    cx.replace_carry(c);
}
