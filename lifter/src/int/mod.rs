//! Integer and control instructions; what is not found here goes to `simd`.

use crate::ctx::{Lifter, Unlifted};
use crate::simd;
use iced_x86::{Instruction, Mnemonic as M, OpKind};

mod arith;
mod bits;
mod control;
mod mov;
mod shift;
mod stack;
mod string;
mod system;

/// Whether the instruction can neither fault nor be seen by anyone, so that flag writes of earlier
/// instructions may be put off past it.
pub(crate) fn is_quiet(i: &Instruction) -> bool {
    use M::*;
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Memory) {
        return i.mnemonic() == Lea;
    }
    matches!(
        i.mnemonic(),
        Mov | Movzx | Movsx | Movsxd | Add | Sub | Adc | Sbb | Cmp | Test | And | Or | Xor | Neg
            | Not | Inc | Dec | Imul | Shl | Shr | Sar | Bswap | Cdq | Cdqe | Cqo | Cwd | Cwde | Cbw
            | Nop | Endbr64
    ) || i.is_jcc_short_or_near()
        || i.is_jmp_short_or_near()
        || cmov_or_set(i)
}

fn cmov_or_set(i: &Instruction) -> bool {
    use iced_x86::{ConditionCode, FlowControl};
    i.condition_code() != ConditionCode::None && i.flow_control() == FlowControl::Next
}

/// Translate one instruction.
pub(crate) fn lift(cx: &mut Lifter, i: &Instruction) -> Result<(), Unlifted> {
    for family in [mov::lift, arith::lift, control::lift, stack::lift, shift::lift, bits::lift, string::lift, system::lift] {
        if family(cx, i)? {
            return Ok(());
        }
    }
    simd::lift(cx, i)
}

/// What a family says: translated, or not its instruction.
type Done = Result<bool, Unlifted>;
