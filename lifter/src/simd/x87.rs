//! x87: operands and memory here, arithmetic in helpers that run the host's x87.
//!
//! A helper raises a pending #MF first (the instruction waits), so each waiting instruction has
//! at least one helper call before it writes anything. A helper does all of a store to memory but the access itself, and notes
//! how to take it back; the access follows, then that note is dropped.

use super::Done;
use crate::ctx::{Addr, Lifter};
use evm_cpu::{helper as h, helpers::X87_PC, slot};
use evm_ir::{Type, Type::*, Value};
use iced_x86::{ConditionCode, Instruction, MemorySize, Mnemonic as M, OpKind, Register};

/// Kinds of memory operand, as helpers number them.
fn kind(i: &Instruction) -> Option<(u64, Type)> {
    Some(match i.memory_size() {
        MemorySize::Float32 => (0, I32),
        MemorySize::Float64 => (1, I64),
        MemorySize::Int16 => (2, I16),
        MemorySize::Int32 => (3, I32),
        MemorySize::Int64 => (4, I64),
        _ => return None,
    })
}

fn is_mem(i: &Instruction) -> bool {
    i.op_count() > 0 && i.op_kind(0) == OpKind::Memory
}

/// Number of the stack register that is operand `n`.
fn st(i: &Instruction, n: u32) -> i64 {
    (i.op_register(n) as i64 - Register::ST0 as i64) & 7
}

fn konst(cx: &mut Lifter, v: i64) -> Value {
    cx.iconst(I64, v)
}

/// What a helper is told that may note an exception: what to do, and the instruction's address.
fn form(cx: &mut Lifter, what: i64) -> Value {
    konst(cx, what | (cx.pc << X87_PC) as i64)
}

/// Address of the memory operand in its segment.
fn offset(cx: &mut Lifter, i: &Instruction) -> Value {
    let a = cx.addr_of(i, false);
    if cx.bits == 32 && a.disp != 0 { cx.narrow_addr(a).base } else { cx.flat(a) }
}

/// Load the memory operand: its kind, its bits as I64, and its offset.
fn operand(cx: &mut Lifter, i: &Instruction) -> Option<(u64, Value, Value)> {
    let (k, ty) = kind(i)?;
    let a = cx.addr(i);
    let v = cx.load(ty, a);
    Some((k, cx.zext(I64, v), offset(cx, i)))
}

/// Translate an x87 instruction. All but those that control the unit leave their address.
pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    use M::*;
    if !execute(cx, i)? {
        return Ok(false);
    }
    let controls =
        matches!(i.mnemonic(), Wait | Fndisi | Fneni | Fnsetpm | Fninit | Fnclex | Emms | Fldcw | Fnstcw | Fnstsw);
    if !controls {
        let pc = konst(cx, cx.pc as i64);
        cx.put(slot::FIP, pc);
    }
    Ok(true)
}

fn execute(cx: &mut Lifter, i: &Instruction) -> Done {
    use M::*;
    let m = i.mnemonic();
    match m {
        Fld if is_mem(i) && i.memory_size() == MemorySize::Float80 => {
            let (lo, hi) = load80(cx, i);
            let (what, at) = (form(cx, 0), offset(cx, i));
            cx.call(h::X87_FLD80, &[lo, hi, what, at]);
        }
        Fld | Fild if is_mem(i) => {
            let Some((k, v, at)) = operand(cx, i) else {
                return Ok(false);
            };
            let what = form(cx, k as i64);
            cx.call(h::X87_FLD, &[what, v, at]);
        }
        Fld => call1(cx, h::X87_FLD_ST, st(i, 0)),
        Fbld => {
            let (lo, hi) = load80(cx, i);
            let (what, at) = (form(cx, 0), offset(cx, i));
            cx.call(h::X87_FBLD, &[lo, hi, what, at]);
        }
        Fld1 => call1(cx, h::X87_FLDC, 0),
        Fldl2t => call1(cx, h::X87_FLDC, 1),
        Fldl2e => call1(cx, h::X87_FLDC, 2),
        Fldpi => call1(cx, h::X87_FLDC, 3),
        Fldlg2 => call1(cx, h::X87_FLDC, 4),
        Fldln2 => call1(cx, h::X87_FLDC, 5),
        Fldz => call1(cx, h::X87_FLDC, 6),
        Fst | Fstp | Fstpnce if !is_mem(i) => {
            let pop = if m == Fstpnce { 2 } else { i64::from(m != Fst) };
            call1(cx, h::X87_FST_ST, st(i, 0) | pop << 3);
        }
        Fstp | Fbstp if matches!(i.memory_size(), MemorySize::Float80 | MemorySize::Bcd) => {
            let (what, next, at) = (form(cx, 0), konst(cx, i.next_ip() as i64), offset(cx, i));
            let v = cx.call(if m == Fbstp { h::X87_FBST } else { h::X87_FST80 }, &[what, next, at]);
            let (lo, hi) = (cx.b.extract(I64X2, v, 0), cx.b.extract(I16X8, v, 4));
            let a = cx.addr(i);
            store_both(cx, a, lo, hi);
            stored(cx);
        }
        Fst | Fstp | Fist | Fistp | Fisttp => {
            let Some((k, ty)) = kind(i) else {
                return Ok(false);
            };
            let pop = !matches!(m, Fst | Fist);
            let what = form(cx, k as i64 | i64::from(m == Fisttp) << 3 | i64::from(pop) << 4);
            let (next, at) = (konst(cx, i.next_ip() as i64), offset(cx, i));
            let v = cx.call(h::X87_FST, &[what, next, at]);
            let v = cx.trunc(ty, v);
            let a = cx.addr(i);
            cx.store(ty, a, v);
            stored(cx);
        }
        Fadd | Faddp | Fiadd => arith(cx, i, 0)?,
        Fmul | Fmulp | Fimul => arith(cx, i, 1)?,
        Fsub | Fsubp | Fisub => arith(cx, i, 4)?,
        Fsubr | Fsubrp | Fisubr => arith(cx, i, 5)?,
        Fdiv | Fdivp | Fidiv => arith(cx, i, 6)?,
        Fdivr | Fdivrp | Fidivr => arith(cx, i, 7)?,
        Fcom | Fcomp | Ficom | Ficomp if is_mem(i) => {
            let Some((k, v, at)) = operand(cx, i) else {
                return Ok(false);
            };
            let pops = i64::from(matches!(m, Fcomp | Ficomp));
            let what = form(cx, k as i64 | pops << 3);
            cx.call(h::X87_COM_MEM, &[what, v, at]);
        }
        Fcom => com(cx, last_st(i), 0, false),
        Fcomp => com(cx, last_st(i), 1, false),
        Fcompp => com(cx, 1, 2, false),
        Fucom => com(cx, last_st(i), 0, true),
        Fucomp => com(cx, last_st(i), 1, true),
        Fucompp => com(cx, 1, 2, true),
        Fcomi => comi(cx, i, 0, false),
        Fcomip => comi(cx, i, 1, false),
        Fucomi => comi(cx, i, 0, true),
        Fucomip => comi(cx, i, 1, true),
        Fchs => call1(cx, h::X87_UNARY, 0xe0),
        Fabs => call1(cx, h::X87_UNARY, 0xe1),
        Ftst => call1(cx, h::X87_UNARY, 0xe4),
        Fxam => call1(cx, h::X87_UNARY, 0xe5),
        F2xm1 => call1(cx, h::X87_UNARY, 0xf0),
        Fyl2x => call1(cx, h::X87_UNARY, 0xf1),
        Fptan => call1(cx, h::X87_UNARY, 0xf2),
        Fpatan => call1(cx, h::X87_UNARY, 0xf3),
        Fxtract => call1(cx, h::X87_UNARY, 0xf4),
        Fprem1 => call1(cx, h::X87_UNARY, 0xf5),
        Fprem => call1(cx, h::X87_UNARY, 0xf8),
        Fyl2xp1 => call1(cx, h::X87_UNARY, 0xf9),
        Fsqrt => call1(cx, h::X87_UNARY, 0xfa),
        Fsincos => call1(cx, h::X87_UNARY, 0xfb),
        Frndint => call1(cx, h::X87_UNARY, 0xfc),
        Fscale => call1(cx, h::X87_UNARY, 0xfd),
        Fsin => call1(cx, h::X87_UNARY, 0xfe),
        Fcos => call1(cx, h::X87_UNARY, 0xff),
        Fxch => call1(cx, h::X87_FXCH, last_st(i)),
        Ffree => ffree(cx, i, 0),
        Ffreep => ffree(cx, i, 1),
        Fincstp => call1(cx, h::X87_TOP, 1),
        Fdecstp => call1(cx, h::X87_TOP, 7),
        Fnop | Wait => call1(cx, h::X87_TOP, 0),
        // What the 8087 and 80287 needed; nothing since.
        Fndisi | Fneni | Fnsetpm => {}
        Fninit => {
            cx.call(h::X87_INIT, &[]);
        }
        Fnclex => {
            cx.call(h::X87_CLEAR, &[]);
        }
        Emms => {
            cx.call(h::X87_EMMS, &[]);
        }
        Fldcw => {
            let a = cx.addr(i);
            let v = cx.load(I16, a);
            let v = cx.zext(I64, v);
            cx.call(h::X87_LDCW, &[v]);
        }
        // The control word is in its slot wherever the rest is.
        Fnstcw => {
            let v = cx.get(slot::FCW);
            let a = cx.addr(i);
            cx.store(I16, a, v);
        }
        Fnstsw => {
            let v = cx.call(h::X87_STATUS, &[]);
            let v = cx.trunc(I16, v);
            cx.write_op(i, 0, v);
        }
        Fcmovb => fcmov(cx, i, ConditionCode::b),
        Fcmove => fcmov(cx, i, ConditionCode::e),
        Fcmovbe => fcmov(cx, i, ConditionCode::be),
        Fcmovu => fcmov(cx, i, ConditionCode::p),
        Fcmovnb => fcmov(cx, i, ConditionCode::ae),
        Fcmovne => fcmov(cx, i, ConditionCode::ne),
        Fcmovnbe => fcmov(cx, i, ConditionCode::a),
        Fcmovnu => fcmov(cx, i, ConditionCode::np),
        _ => return Ok(false),
    }
    Ok(true)
}

fn call1(cx: &mut Lifter, helper: u16, what: i64) {
    let what = form(cx, what);
    cx.call(helper, &[what]);
}

/// The last operand's stack register; ST(1) when there is none.
fn last_st(i: &Instruction) -> i64 {
    match i.op_count() {
        0 => 1,
        n => st(i, n - 1),
    }
}

fn load80(cx: &mut Lifter, i: &Instruction) -> (Value, Value) {
    let a = cx.addr(i);
    let lo = cx.load(I64, a);
    let hi = cx.load(I16, a.plus(8));
    (lo, cx.zext(I64, hi))
}

/// Ten bytes. The CPU does it in two stores as well: the first stays if the second faults.
fn store_both(cx: &mut Lifter, a: Addr, lo: Value, hi: Value) {
    cx.store(I64, a, lo);
    cx.store(I16, a.plus(8), hi);
}

/// After a store: there is nothing to take back any more.
fn stored(cx: &mut Lifter) {
    let none = konst(cx, 0);
    cx.put(slot::X87_UNDO, none);
}

/// `op` is the reg field of opcode D8: 0 add, 1 mul, 4 sub, 5 subr, 6 div, 7 divr.
fn arith(cx: &mut Lifter, i: &Instruction, op: i64) -> Result<(), crate::ctx::Unlifted> {
    if is_mem(i) {
        let (k, v, at) = operand(cx, i).ok_or(crate::ctx::Unlifted)?;
        let what = form(cx, (k as i64) << 3 | op);
        cx.call(h::X87_ARITH_MEM, &[what, v, at]);
        return Ok(());
    }
    let pop = matches!(i.mnemonic(), M::Faddp | M::Fmulp | M::Fsubp | M::Fsubrp | M::Fdivp | M::Fdivrp);
    call1(cx, h::X87_ARITH, op | st(i, 0) << 3 | st(i, 1) << 6 | i64::from(pop) << 9);
    Ok(())
}

fn com(cx: &mut Lifter, with: i64, pops: i64, unordered: bool) {
    call1(cx, h::X87_COM, with | pops << 3 | i64::from(unordered) << 5);
}

fn comi(cx: &mut Lifter, i: &Instruction, pops: i64, unordered: bool) {
    let what = form(cx, last_st(i) | pops << 3 | i64::from(unordered) << 5);
    let f = cx.call(h::X87_COMI, &[what]);
    cx.set_flags(f);
}

fn ffree(cx: &mut Lifter, i: &Instruction, pop: i64) {
    call1(cx, h::X87_FREE, st(i, 0) | pop << 3);
}

fn fcmov(cx: &mut Lifter, i: &Instruction, c: ConditionCode) {
    let c = cx.cond(c);
    let c = cx.zext(I64, c);
    let what = form(cx, last_st(i));
    cx.call(h::X87_CMOV, &[what, c]);
}
