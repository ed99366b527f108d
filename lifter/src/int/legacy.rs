//! What only 32-bit code has: decimal adjustment, PUSHA and POPA, BOUND, ARPL, LDS and LES; and what looks at
//! descriptors, which 64-bit code has too.

use super::Done;
use crate::ctx::Lifter;
use evm_cpu::{bcd, cc, exc, helper, segment};
use evm_ir::{Cond, Op, Type, Value};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

/// Registers in the order in which PUSHA pushes them.
const ALL: [Register; 8] = [
    Register::EAX,
    Register::ECX,
    Register::EDX,
    Register::EBX,
    Register::ESP,
    Register::EBP,
    Register::ESI,
    Register::EDI,
];

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Lar | M::Lsl | M::Verr | M::Verw => inspect(cx, i),
        M::Lds | M::Les | M::Lfs | M::Lgs | M::Lss => far_pointer(cx, i),
        _ if cx.bits == 64 => return Ok(false),
        M::Aaa => adjust(cx, bcd::AAA),
        M::Aas => adjust(cx, bcd::AAS),
        M::Daa => adjust(cx, bcd::DAA),
        M::Das => adjust(cx, bcd::DAS),
        M::Aam | M::Aad => {
            let base = i.immediate(0) & 0xff;
            if i.mnemonic() == M::Aam && base == 0 {
                cx.raise(exc::DE, 0);
                return Ok(true);
            }
            adjust(cx, if i.mnemonic() == M::Aam { bcd::AAM } else { bcd::AAD } | base << 8);
        }
        M::Pusha => push_all(cx, Type::I16),
        M::Pushad => push_all(cx, Type::I32),
        M::Popa => pop_all(cx, Type::I16),
        M::Popad => pop_all(cx, Type::I32),
        M::Bound => bound(cx, i),
        M::Arpl => arpl(cx, i),
        M::Salc => {
            let c = cx.cond(iced_x86::ConditionCode::b);
            let v = cx.un(Op::Neg, Type::I8, c);
            cx.set_gpr(Register::AL, v);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A decimal adjustment: a helper of AX and the flags gives both.
fn adjust(cx: &mut Lifter, what: u64) {
    let what = cx.iconst(Type::I64, what as i64);
    let ax = cx.gpr(Register::AX);
    let ax = cx.zext(Type::I64, ax);
    let flags = cx.all_flags();
    let v = cx.call(helper::BCD, &[what, ax, flags]);
    let ax = cx.trunc(Type::I16, v);
    cx.set_gpr(Register::AX, ax);
    let flags = cx.bini(Op::Shr, Type::I64, v, 32);
    cx.set_flags(flags);
}

fn push_all(cx: &mut Lifter, ty: Type) {
    let n = ty.bytes() as i32;
    for (k, r) in ALL.iter().enumerate() {
        let v = cx.gpr(*r);
        let v = cx.trunc(ty, v);
        let at = cx.stack(-n * (k as i32 + 1));
        cx.store(ty, at, v);
    }
    cx.move_sp(-i64::from(8 * n));
}

fn pop_all(cx: &mut Lifter, ty: Type) {
    let n = ty.bytes() as i32;
    let mut values = Vec::with_capacity(7);
    for (k, r) in ALL.iter().rev().enumerate().filter(|(_, r)| **r != Register::ESP) {
        let at = cx.stack(n * k as i32);
        values.push((*r, cx.load(ty, at)));
    }
    cx.move_sp(i64::from(8 * n));
    for (r, v) in values {
        cx.set_gpr(if ty == Type::I16 { Register::AX + (r as u32 - Register::EAX as u32) } else { r }, v);
    }
}

fn bound(cx: &mut Lifter, i: &Instruction) {
    let ty = cx.op_type(i, 0);
    let a = cx.addr(i);
    let (low, high) = (cx.load(ty, a), cx.load(ty, a.plus(ty.bytes() as i32)));
    let v = cx.gpr(i.op_register(0));
    let (below, above) = (cx.icmp(Cond::Slt, v, low), cx.icmp(Cond::Sgt, v, high));
    let out = cx.bin(Op::Or, Type::I8, below, above);
    cx.raise_if(out, exc::BR, 0);
}

/// ZF from a boolean, the other flags as they are.
fn set_zero_flag(cx: &mut Lifter, z: Value) {
    let all = cx.all_flags();
    let all = cx.bini(Op::And, Type::I64, all, !(cc::ZF as i64));
    let z = cx.zext(Type::I64, z);
    let z = cx.bini(Op::Shl, Type::I64, z, 6);
    let f = cx.bin(Op::Or, Type::I64, all, z);
    cx.set_flags(f);
}

fn arpl(cx: &mut Lifter, i: &Instruction) {
    let to = cx.dest(i);
    let old = cx.read_loc(to);
    let old = cx.trunc(Type::I16, old);
    let with = cx.gpr(i.op_register(1));
    let with = cx.trunc(Type::I16, with);
    let (a, b) = (cx.bini(Op::And, Type::I16, old, 3), cx.bini(Op::And, Type::I16, with, 3));
    let less = cx.icmp(Cond::Ult, a, b);
    let rest = cx.bini(Op::And, Type::I16, old, !3);
    let raised = cx.bin(Op::Or, Type::I16, rest, b);
    let v = cx.select(less, raised, old);
    let v = match to {
        super::Loc::Reg(r) => cx.zext_like(r, v),
        super::Loc::Mem(..) => v,
    };
    cx.write_loc(to, v);
    set_zero_flag(cx, less);
}

/// LAR, LSL, VERR, VERW.
fn inspect(cx: &mut Lifter, i: &Instruction) {
    let check = matches!(i.mnemonic(), M::Verr | M::Verw);
    let n = u32::from(!check);
    let sel = match i.op_kind(n) {
        OpKind::Register => cx.gpr(i.op_register(n)),
        _ => {
            let a = cx.addr(i);
            cx.load(Type::I16, a)
        }
    };
    let sel = cx.trunc(Type::I16, sel);
    let sel = cx.zext(Type::I64, sel);
    let what = match i.mnemonic() {
        M::Lar => segment::RIGHTS,
        M::Lsl => segment::LIMIT,
        M::Verr => segment::READ,
        _ => segment::WRITE,
    };
    let what = cx.iconst(Type::I64, what as i64);
    let found = cx.call(helper::SELECTOR, &[sel, what]);
    let good = cx.bini(Op::Shr, Type::I64, found, 32);
    let good = cx.trunc(Type::I8, good);
    if !check {
        let ty = cx.op_type(i, 0);
        let r = i.op_register(0);
        let old = cx.gpr(r);
        let v = cx.bini(Op::And, Type::I64, found, 0xffff_ffff);
        let v = cx.trunc(ty, v);
        let v = cx.select(good, v, old);
        cx.set_gpr(r, v);
    }
    set_zero_flag(cx, good);
}

/// LDS and kin: offset and selector from memory.
fn far_pointer(cx: &mut Lifter, i: &Instruction) {
    let seg = match i.mnemonic() {
        M::Les => 0,
        M::Lss => 2,
        M::Lds => 3,
        M::Lfs => 4,
        _ => 5,
    };
    let r = i.op_register(0);
    let ty = Type::int(r.size() as u32);
    let a = cx.addr(i);
    let off = cx.load(ty, a);
    let sel = cx.load(Type::I16, a.plus(ty.bytes() as i32));
    let sel = cx.zext(Type::I64, sel);
    let k = cx.iconst(Type::I64, seg);
    cx.call(helper::SET_SEG, &[k, sel]);
    cx.set_gpr(r, off);
}

impl Lifter {
    /// A 16-bit value as the contents of `r`: the upper half stays.
    fn zext_like(&mut self, r: Register, v: Value) -> Value {
        let ty = Type::int(r.size() as u32);
        if ty == Type::I16 {
            return v;
        }
        let old = self.gpr(r);
        let old = self.bini(Op::And, ty, old, !0xffff);
        let v = self.zext(ty, v);
        self.bin(Op::Or, ty, old, v)
    }
    /// A near call or return with a 16-bit operand, which 32-bit code may have.
    pub(super) fn is_word_branch(&self, i: &Instruction) -> bool {
        self.bits == 32 && matches!(i.code(), Code::Call_rel16 | Code::Call_rm16 | Code::Retnw | Code::Retnw_imm16)
    }
}
