//! State save and restore, MXCSR and cache hints.

use super::Done;
use crate::ctx::Lifter;
use evm_cpu::helper as h;
use evm_ir::{Op, Type::*};
use iced_x86::{Instruction, Mnemonic as M, Register};

/// Translate an instruction on the vector units' state.
pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    match i.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => {
            let a = cx.addr(i);
            let v = cx.load(I32, a);
            let v = cx.zext(I64, v);
            cx.call(h::LDMXCSR, &[v]);
            mode_changed(cx);
        }
        M::Stmxcsr | M::Vstmxcsr => {
            let v = cx.call(h::STMXCSR, &[]);
            let v = cx.trunc(I32, v);
            let a = cx.addr(i);
            cx.store(I32, a, v);
        }
        M::Fxsave | M::Fxsave64 => state(cx, i, h::FXSAVE, i.mnemonic() == M::Fxsave64),
        M::Fxrstor | M::Fxrstor64 => {
            state(cx, i, h::FXRSTOR, i.mnemonic() == M::Fxrstor64);
            mode_changed(cx);
        }
        M::Xsave | M::Xsave64 | M::Xsaveopt | M::Xsaveopt64 => {
            masked(cx, i, h::XSAVE, matches!(i.mnemonic(), M::Xsave64 | M::Xsaveopt64));
        }
        M::Xsavec | M::Xsavec64 => masked(cx, i, h::XSAVEC, i.mnemonic() == M::Xsavec64),
        M::Xrstor | M::Xrstor64 => {
            masked(cx, i, h::XRSTOR, i.mnemonic() == M::Xrstor64);
            mode_changed(cx);
        }
        M::Fnsave => state(cx, i, h::FNSAVE, i.memory_size().size() == 94),
        M::Frstor => state(cx, i, h::FRSTOR, i.memory_size().size() == 94),
        M::Fnstenv => state(cx, i, h::FNSTENV, i.memory_size().size() == 14),
        M::Fldenv => state(cx, i, h::FLDENV, i.memory_size().size() == 14),
        _ => return Ok(false),
    }
    Ok(true)
}

/// MXCSR was loaded. Floating operations before and behind it are not in one region, so that none is moved
/// over it or merged with one on the other side.
fn mode_changed(cx: &mut Lifter) {
    let next = cx.iconst(I64, cx.next as i64);
    cx.call(h::MODE, &[next]);
    let next = cx.iconst(I64, cx.next as i64);
    cx.leave(next);
}

/// A helper of the address and a flag.
fn state(cx: &mut Lifter, i: &Instruction, helper: u16, flag: bool) {
    let a = cx.addr(i);
    let a = cx.flat(a);
    let f = cx.iconst(I64, i64::from(flag));
    cx.call(helper, &[a, f]);
}

/// XSAVE and kin: a helper of the address, EDX:EAX, and whether pointers have 64 bits.
fn masked(cx: &mut Lifter, i: &Instruction, helper: u16, wide: bool) {
    let a = cx.addr(i);
    let a = cx.flat(a);
    let lo = cx.gpr(Register::EAX);
    let lo = cx.zext(I64, lo);
    let hi = cx.gpr64(Register::RDX);
    let hi = cx.bini(Op::Shl, I64, hi, 32);
    let mask = cx.bin(Op::Or, I64, lo, hi);
    let wide = cx.iconst(I64, i64::from(wide));
    cx.call(helper, &[a, mask, wide]);
}
