//! Moves, extensions, conditional moves, exchanges of bytes, address computation.

use super::Done;
use crate::ctx::{Lifter, full};
use evm_ir::{Op, Type};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Mov => {
            if is_special(i) {
                return segment_move(cx, i);
            }
            let v = cx.read_op(i, 1);
            cx.write_op(i, 0, v);
        }
        M::Movzx | M::Movsx | M::Movsxd => {
            let v = cx.read_op(i, 1);
            let ty = cx.op_type(i, 0);
            let v = if i.mnemonic() == M::Movzx { cx.zext(ty, v) } else { cx.sext(ty, v) };
            cx.write_op(i, 0, v);
        }
        M::Lea => {
            let a = cx.addr_of(i, false);
            let v = cx.flat(a);
            let ty = cx.op_type(i, 0);
            let v = cx.trunc(ty, v);
            cx.write_op(i, 0, v);
        }
        M::Movbe => {
            let v = cx.read_op(i, 1);
            let ty = cx.op_type(i, 1);
            let v = cx.un(Op::Bswap, ty, v);
            cx.write_op(i, 0, v);
        }
        M::Bswap => {
            let v = cx.read_op(i, 0);
            let ty = cx.op_type(i, 0);
            // BSWAP r16 is undefined; the hardware gives 0.
            let v = if ty == Type::I16 { cx.iconst(ty, 0) } else { cx.un(Op::Bswap, ty, v) };
            cx.write_op(i, 0, v);
        }
        M::Cbw => extend(cx, Register::AL, Register::AX),
        M::Cwde => extend(cx, Register::AX, Register::EAX),
        M::Cdqe => extend(cx, Register::EAX, Register::RAX),
        M::Cwd => sign(cx, Register::AX, Register::DX),
        M::Cdq => sign(cx, Register::EAX, Register::EDX),
        M::Cqo => sign(cx, Register::RAX, Register::RDX),
        M::Xlatb => {
            // [rbx + al], the segment and address size as for a memory operand.
            let al = cx.gpr(Register::AL);
            let al = cx.zext(Type::I64, al);
            let width = if i.op_kind(0) == OpKind::Memory { i.memory_base().size() } else { 4 };
            let b = cx.gpr64(Register::RBX);
            let at = cx.bin(Op::Add, Type::I64, b, al);
            let at = cx.trunc(Type::int(width as u32), at);
            let at = cx.zext(Type::I64, at);
            let at = cx.with_segment(i, at);
            let v = cx.load(Type::I8, crate::ctx::Addr { base: at, disp: 0 });
            cx.set_gpr(Register::AL, v);
        }
        _ => {
            let c = i.condition_code();
            if c == iced_x86::ConditionCode::None {
                return Ok(false);
            }
            return conditional(cx, i, c);
        }
    }
    Ok(true)
}

fn conditional(cx: &mut Lifter, i: &Instruction, c: iced_x86::ConditionCode) -> Done {
    match i.mnemonic() {
        M::Cmova
        | M::Cmovae
        | M::Cmovb
        | M::Cmovbe
        | M::Cmove
        | M::Cmovg
        | M::Cmovge
        | M::Cmovl
        | M::Cmovle
        | M::Cmovne
        | M::Cmovno
        | M::Cmovnp
        | M::Cmovns
        | M::Cmovo
        | M::Cmovp
        | M::Cmovs => {
            // The load happens whatever the condition; a 32-bit destination is zero-extended.
            let new = cx.read_op(i, 1);
            let cond = cx.cond(c);
            let old = cx.read_op(i, 0);
            let v = cx.select(cond, new, old);
            cx.write_op(i, 0, v);
        }
        M::Seta
        | M::Setae
        | M::Setb
        | M::Setbe
        | M::Sete
        | M::Setg
        | M::Setge
        | M::Setl
        | M::Setle
        | M::Setne
        | M::Setno
        | M::Setnp
        | M::Setns
        | M::Seto
        | M::Setp
        | M::Sets => {
            let v = cx.cond(c);
            cx.write_op(i, 0, v);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn is_special(i: &Instruction) -> bool {
    (0..2).any(|n| i.op_kind(n) == OpKind::Register && !i.op_register(n).is_gpr())
}

/// MOV from and to segment, control and debug registers.
fn segment_move(cx: &mut Lifter, i: &Instruction) -> Done {
    let (dst, src) = (i.op_register(0), i.op_register(1));
    if src.is_segment_register() {
        let k = cx.iconst(Type::I64, src.number() as i64);
        let v = cx.call(evm_cpu::helper::GET_SEG, &[k]);
        if i.op_kind(0) == OpKind::Memory {
            let a = cx.addr(i);
            let v = cx.trunc(Type::I16, v);
            cx.store(Type::I16, a, v);
        } else {
            let ty = cx.op_type(i, 0);
            let v = cx.trunc(ty, v);
            cx.set_gpr(dst, v);
        }
        return Ok(true);
    }
    if dst == Register::CS {
        cx.raise(evm_cpu::exc::UD, 0);
        return Ok(true);
    }
    if dst.is_segment_register() {
        let v = if i.op_kind(1) == OpKind::Memory {
            let a = cx.addr(i);
            cx.load(Type::I16, a)
        } else {
            let v = cx.gpr64(src);
            cx.trunc(Type::I16, v)
        };
        let v = cx.zext(Type::I64, v);
        let k = cx.iconst(Type::I64, dst.number() as i64);
        cx.call(evm_cpu::helper::SET_SEG, &[k, v]);
        return Ok(true);
    }
    cx.raise(evm_cpu::exc::GP, 0);
    Ok(true)
}

fn extend(cx: &mut Lifter, from: Register, to: Register) {
    let v = cx.gpr(from);
    let v = cx.sext(Type::int(to.size() as u32), v);
    cx.set_gpr(to, v);
}

fn sign(cx: &mut Lifter, from: Register, to: Register) {
    debug_assert!(full(from) == 0);
    let ty = Type::int(to.size() as u32);
    let v = cx.gpr(from);
    let v = cx.bini(Op::Sar, ty, v, i64::from(ty.bits()) - 1);
    cx.set_gpr(to, v);
}
