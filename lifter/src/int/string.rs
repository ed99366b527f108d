//! String instructions. Without a prefix they are spelled out; with REP a helper does the whole of it,
//! leaving its progress in the registers if it faults.

use super::Done;
use crate::ctx::{Addr, Lifter};
use evm_cpu::{cc, helper, slot};
use evm_ir::{Op, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Movs,
    Stos,
    Lods,
    Cmps,
    Scas,
}

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    let string = (0..i.op_count()).any(|n| {
        use OpKind::*;
        matches!(i.op_kind(n), MemorySegSI | MemorySegESI | MemorySegRSI | MemoryESDI | MemoryESEDI | MemoryESRDI)
    });
    if !string {
        return Ok(false);
    }
    let (kind, size) = match i.mnemonic() {
        M::Movsb => (Kind::Movs, 1),
        M::Movsw => (Kind::Movs, 2),
        M::Movsd => (Kind::Movs, 4),
        M::Movsq => (Kind::Movs, 8),
        M::Stosb => (Kind::Stos, 1),
        M::Stosw => (Kind::Stos, 2),
        M::Stosd => (Kind::Stos, 4),
        M::Stosq => (Kind::Stos, 8),
        M::Lodsb => (Kind::Lods, 1),
        M::Lodsw => (Kind::Lods, 2),
        M::Lodsd => (Kind::Lods, 4),
        M::Lodsq => (Kind::Lods, 8),
        M::Cmpsb => (Kind::Cmps, 1),
        M::Cmpsw => (Kind::Cmps, 2),
        M::Cmpsd => (Kind::Cmps, 4),
        M::Cmpsq => (Kind::Cmps, 8),
        M::Scasb => (Kind::Scas, 1),
        M::Scasw => (Kind::Scas, 2),
        M::Scasd => (Kind::Scas, 4),
        M::Scasq => (Kind::Scas, 8),
        M::Insb | M::Insw | M::Insd | M::Outsb | M::Outsw | M::Outsd => {
            cx.raise(evm_cpu::exc::GP, 0);
            return Ok(true);
        }
        _ => return Ok(false),
    };
    let width = (0..i.op_count())
        .find_map(|n| match i.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(2),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(4),
            _ => None,
        })
        .unwrap_or(8);
    if i.has_rep_prefix() || i.has_repne_prefix() {
        repeated(cx, i, kind, size, width);
    } else {
        single(cx, i, kind, size, width);
    }
    Ok(true)
}

/// The base of the segment that the source is in.
fn segment(cx: &mut Lifter, i: &Instruction) -> Value {
    match i.memory_segment() {
        Register::FS => cx.get(slot::FS_BASE),
        Register::GS => cx.get(slot::GS_BASE),
        _ => cx.iconst(Type::I64, 0),
    }
}

/// `width` is that of addresses and the counter, in bytes.
fn repeated(cx: &mut Lifter, i: &Instruction, kind: Kind, size: u32, width: u32) {
    let how = i64::from(size)
        | i64::from(width == 4) << 8
        | i64::from(i.has_repne_prefix()) << 9
        | i64::from(width == 2) << 10
        | i64::from(cx.bits == 32) << 11;
    let how = cx.iconst(Type::I64, how);
    match kind {
        Kind::Movs => {
            let seg = segment(cx, i);
            cx.call(helper::REP_MOVS, &[how, seg]);
        }
        Kind::Stos => {
            cx.call(helper::REP_STOS, &[how]);
        }
        Kind::Lods => {
            let seg = segment(cx, i);
            cx.call(helper::REP_LODS, &[how, seg]);
        }
        Kind::Cmps => {
            let seg = segment(cx, i);
            cx.call(helper::REP_CMPS, &[how, seg]);
            cx.cc_unknown();
        }
        Kind::Scas => {
            cx.call(helper::REP_SCAS, &[how]);
            cx.cc_unknown();
        }
    }
}

fn single(cx: &mut Lifter, i: &Instruction, kind: Kind, size: u32, width: u32) {
    let ty = Type::int(size);
    let (si, di) = match width {
        2 => (Register::SI, Register::DI),
        4 => (Register::ESI, Register::EDI),
        _ => (Register::RSI, Register::RDI),
    };
    let acc = match size {
        1 => Register::AL,
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    let source = |cx: &mut Lifter| {
        let v = cx.gpr(si);
        let v = cx.zext(Type::I64, v);
        Addr { base: cx.with_segment(i, v), disp: 0 }
    };
    let dest = |cx: &mut Lifter| {
        let v = cx.gpr(di);
        Addr { base: cx.zext(Type::I64, v), disp: 0 }
    };
    match kind {
        Kind::Movs => {
            let (s, d) = (source(cx), dest(cx));
            let v = cx.load(ty, s);
            cx.store(ty, d, v);
            step(cx, si, size);
            step(cx, di, size);
        }
        Kind::Stos => {
            let d = dest(cx);
            let v = cx.gpr(acc);
            cx.store(ty, d, v);
            step(cx, di, size);
        }
        Kind::Lods => {
            let s = source(cx);
            let v = cx.load(ty, s);
            cx.set_gpr(acc, v);
            step(cx, si, size);
        }
        Kind::Cmps => {
            let (s, d) = (source(cx), dest(cx));
            let b = cx.load(ty, d);
            let a = cx.load(ty, s);
            step(cx, si, size);
            step(cx, di, size);
            cx.set_cc(cc::SUB, ty, a, b, Value::NONE);
        }
        Kind::Scas => {
            let d = dest(cx);
            let b = cx.load(ty, d);
            let a = cx.gpr(acc);
            step(cx, di, size);
            cx.set_cc(cc::SUB, ty, a, b, Value::NONE);
        }
    }
}

/// Move an index register by the operand size in the direction of DF.
fn step(cx: &mut Lifter, r: Register, size: u32) {
    let ty = Type::int(r.size() as u32);
    let df = cx.get(slot::DF);
    let back = cx.bini(Op::Shl, Type::I64, df, i64::from(size.trailing_zeros()) + 1);
    let by = cx.iconst(Type::I64, i64::from(size));
    let by = cx.bin(Op::Sub, Type::I64, by, back);
    let by = cx.trunc(ty, by);
    let v = cx.gpr(r);
    let v = cx.bin(Op::Add, ty, v, by);
    cx.set_gpr(r, v);
}
