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
            if !near(i) && !i.is_call_near_indirect() {
                cx.raise(exc::GP, 0);
                return Ok(true);
            }
            if cx.is_word_branch(i) {
                let target =
                    if near(i) { cx.iconst(Type::I64, i.near_branch_target() as i64) } else { cx.jump_target(i) };
                let v = cx.iconst(Type::I16, cx.next as i64);
                cx.push_value(v);
                cx.leave(target);
            } else if !near(i) {
                call_indirect(cx, i);
            } else {
                match cx.plt.get(&i.near_branch_target()).copied() {
                    // The stub only jumps through a pointer: call what it points to.
                    Some((pointer, now)) if cx.bits == 64 => call_through(cx, pointer, now),
                    _ => call_known(cx, i.near_branch_target()),
                }
            }
        }
        M::Ret => {
            let ty = if cx.is_word_branch(i) { Type::I16 } else { Type::int(cx.bits / 8) };
            let at = cx.stack(0);
            let v = cx.load(ty, at);
            let v = cx.zext(Type::I64, v);
            let extra = if i.op_count() > 0 { i.immediate(0) as i64 & 0xffff } else { 0 };
            let size = i64::from(ty.bytes()) + extra;
            cx.move_sp(size);
            let Some((ret, back)) = cx.way_back() else {
                cx.end(Term::Return(v));
                return Ok(true);
            };
            let same = cx.icmpi(Cond::Eq, v, ret as i64);
            let other = cx.inner();
            cx.end(Term::Br(same, back, other));
            cx.start(other);
            // Values are gone; it still lies below the stack pointer.
            let at = cx.stack(-(size as i32));
            let v = cx.load(ty, at);
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

/// Push the return address and go to a callee: inside the region if that is where it is.
fn call_known(cx: &mut Lifter, target: u64) {
    let v = cx.iconst(Type::int(cx.bits / 8), cx.next as i64);
    cx.push_value(v);
    match cx.inlined() {
        Some((pc, b)) if pc == target => cx.end(Term::Jump(b)),
        _ => {
            let (ret, cont) = (cx.next, cx.known_block(cx.next));
            let target = cx.iconst(Type::I64, target as i64);
            cx.end(Term::Call { target, ret, cont });
        }
    }
}

fn call_value(cx: &mut Lifter, target: Value) {
    let (ret, cont) = (cx.next, cx.known_block(cx.next));
    let v = cx.iconst(Type::int(cx.bits / 8), ret as i64);
    cx.push_value(v);
    cx.end(Term::Call { target, ret, cont });
}

/// Call what the pointer at a known address points to: directly if that is still `now`.
fn call_through(cx: &mut Lifter, pointer: u64, now: u64) {
    let load = |cx: &mut Lifter| {
        let base = cx.iconst(Type::I64, pointer as i64);
        cx.load(Type::I64, crate::ctx::Addr { base, disp: 0 })
    };
    let target = load(cx);
    if now == 0 {
        return call_value(cx, target);
    }
    let same = cx.icmpi(Cond::Eq, target, now as i64);
    let (yes, no) = (cx.inner(), cx.inner());
    cx.end(Term::Br(same, yes, no));
    cx.start(yes);
    call_known(cx, now);
    cx.start(no);
    let target = load(cx);
    call_value(cx, target);
}

/// Most callees that an indirect call is compared with.
const KNOWN_CALLEES: usize = 3;

/// Call what an operand says: directly if it is one of the callees that it was before.
fn call_indirect(cx: &mut Lifter, i: &Instruction) {
    let known = cx.seen_targets.get(&cx.pc).cloned().unwrap_or_default();
    if known.len() <= KNOWN_CALLEES && cx.bits == 64 {
        for t in known {
            let v = cx.jump_target(i);
            let same = cx.icmpi(Cond::Eq, v, t as i64);
            let (yes, no) = (cx.inner(), cx.inner());
            cx.end(Term::Br(same, yes, no));
            cx.start(yes);
            call_known(cx, t);
            cx.start(no);
        }
    }
    let v = cx.jump_target(i);
    call_value(cx, v);
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
            cx.leave(v);
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
