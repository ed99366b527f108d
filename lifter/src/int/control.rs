//! Jumps, calls, returns, interrupts, system calls.

use super::Done;
use crate::ctx::Lifter;
use evm_cpu::{exc, service, slot};
use evm_ir::{Cond, Op, Term, Type, Value};
use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind, Register};

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    if i.is_jcc_short_or_near() {
        let c = cx.cond(i.condition_code());
        branch(cx, c, i.near_branch_target());
        return Ok(true);
    }
    match i.mnemonic() {
        M::Jmp => {
            if near(i) {
                jump(cx, i.near_branch_target());
            } else if i.is_jmp_near_indirect() {
                let v = cx.jump_target(i);
                cx.indirect_jump(i, v);
            } else {
                cx.raise(exc::GP, 0);
            }
        }
        M::Call => {
            let target = if near(i) {
                match cx.plt.get(&i.near_branch_target()).copied() {
                    // The stub only jumps through a pointer: call what it points to.
                    Some((pointer, now)) if cx.bits == 64 => {
                        call_through(cx, pointer, now);
                        return Ok(true);
                    }
                    _ => cx.iconst(Type::I64, i.near_branch_target() as i64),
                }
            } else if i.is_call_near_indirect() {
                cx.jump_target(i)
            } else {
                cx.raise(exc::GP, 0);
                return Ok(true);
            };
            let ret = cx.next;
            if cx.is_word_branch(i) {
                let v = cx.iconst(Type::I16, ret as i64);
                cx.push_value(v);
                cx.end(Term::Exit(target));
                return Ok(true);
            }
            let v = cx.iconst(Type::int(cx.bits / 8), ret as i64);
            cx.push_value(v);
            let cont = cx.known_block(ret);
            cx.end(Term::Call { target, ret, cont });
        }
        M::Ret => {
            let ty = if cx.is_word_branch(i) { Type::I16 } else { Type::int(cx.bits / 8) };
            let at = cx.stack(0);
            let v = cx.load(ty, at);
            let v = cx.zext(Type::I64, v);
            let extra = if i.op_count() > 0 { i.immediate(0) as i64 & 0xffff } else { 0 };
            cx.move_sp(i64::from(ty.bytes()) + extra);
            cx.end(Term::Return(v));
        }
        M::Jrcxz | M::Jecxz | M::Jcxz => {
            let r = match i.mnemonic() {
                M::Jrcxz => Register::RCX,
                M::Jecxz => Register::ECX,
                _ => Register::CX,
            };
            let v = cx.gpr(r);
            let c = cx.icmpi(Cond::Eq, v, 0);
            branch(cx, c, i.near_branch_target());
        }
        M::Loop | M::Loope | M::Loopne => {
            let r = counter(i);
            let ty = Type::int(r.size() as u32);
            let flag = match i.mnemonic() {
                M::Loope => Some(cx.cond(ConditionCode::e)),
                M::Loopne => Some(cx.cond(ConditionCode::ne)),
                _ => None,
            };
            let v = cx.gpr(r);
            let v = cx.bini(Op::Sub, ty, v, 1);
            let mut c = cx.icmpi(Cond::Ne, v, 0);
            if let Some(f) = flag {
                c = cx.bin(Op::And, Type::I8, c, f);
            }
            cx.set_gpr(r, v);
            branch(cx, c, i.near_branch_target());
        }
        M::Syscall => {
            if cx.bits == 32 {
                // As on Intel's CPUs.
                cx.raise(exc::UD, 0);
                return Ok(true);
            }
            let f = cx.rflags();
            let next = cx.iconst(Type::I64, cx.next as i64);
            cx.put(slot::RCX, next);
            cx.put(slot::R11, f);
            serve(cx, service::SYSCALL);
        }
        M::Int => {
            let n = i.immediate(0) as u8;
            if n == 0x80 {
                serve(cx, service::INT80);
            } else {
                cx.raise(exc::GP, u64::from(n) << 3 | 2);
            }
        }
        // The trap is reported behind the instruction.
        M::Int3 => cx.raise(exc::BP, cx.next),
        M::Int1 => cx.raise(exc::DB, cx.next),
        M::Ud0 | M::Ud1 | M::Ud2 => cx.raise(exc::UD, 0),
        M::Into if cx.bits == 32 => {
            let o = cx.cond(ConditionCode::o);
            let next = cx.next;
            cx.raise_if(o, exc::OF, next);
        }
        M::Retf | M::Iret | M::Iretd | M::Iretq => cx.raise(exc::GP, 0),
        _ => return Ok(false),
    }
    Ok(true)
}

/// Call what the pointer at a known address points to: directly if that is still `now`.
fn call_through(cx: &mut Lifter, pointer: u64, now: u64) {
    let load = |cx: &mut Lifter| {
        let base = cx.iconst(Type::I64, pointer as i64);
        cx.load(Type::I64, crate::ctx::Addr { base, disp: 0 })
    };
    let ret = cx.next;
    let cont = cx.known_block(ret);
    let target = load(cx);
    let v = cx.iconst(Type::I64, ret as i64);
    cx.push_value(v);
    if now == 0 {
        cx.end(Term::Call { target, ret, cont });
        return;
    }
    let same = cx.icmpi(Cond::Eq, target, now as i64);
    let (yes, no) = (cx.inner(), cx.inner());
    cx.end(Term::Br(same, yes, no));
    cx.start(yes);
    let target = cx.iconst(Type::I64, now as i64);
    cx.end(Term::Call { target, ret, cont });
    cx.start(no);
    let target = load(cx);
    cx.end(Term::Call { target, ret, cont });
}

fn near(i: &Instruction) -> bool {
    matches!(i.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64)
}

/// LOOP's counter goes by the address size.
fn counter(i: &Instruction) -> Register {
    use iced_x86::Code::*;
    match i.code() {
        Loop_rel8_64_RCX | Loope_rel8_64_RCX | Loopne_rel8_64_RCX | Loop_rel8_16_RCX | Loope_rel8_16_RCX
        | Loopne_rel8_16_RCX => Register::RCX,
        Loop_rel8_16_CX | Loop_rel8_32_CX | Loope_rel8_16_CX | Loope_rel8_32_CX | Loopne_rel8_16_CX
        | Loopne_rel8_32_CX => Register::CX,
        _ => Register::ECX,
    }
}

fn jump(cx: &mut Lifter, to: u64) {
    match cx.known_block(to) {
        Some(b) => cx.end(Term::Jump(b)),
        None => {
            let v = cx.iconst(Type::I64, to as i64);
            cx.end(Term::Exit(v));
        }
    }
}

fn branch(cx: &mut Lifter, c: Value, to: u64) {
    let next = cx.next;
    match cx.const_of(c) {
        Some(0) => return jump(cx, next),
        Some(_) => return jump(cx, to),
        None => {}
    }
    if to == next {
        return jump(cx, next);
    }
    let (t, f) = (cx.edge(to), cx.edge(next));
    cx.end(Term::Br(c, t, f));
}

fn serve(cx: &mut Lifter, code: u32) {
    let (pc, next) = (cx.pc, cx.next);
    let cont = cx.known_block(next);
    cx.end(Term::Service { code, pc, next, cont });
}
