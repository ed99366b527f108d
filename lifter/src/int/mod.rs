//! Integer and control instructions; what is not found here goes to `simd`.

use crate::ctx::{Addr, Lifter, Unlifted};
use crate::simd;
use evm_ir::{Op, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

mod arith;
mod bits;
mod control;
mod legacy;
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
        Mov | Movzx
            | Movsx
            | Movsxd
            | Add
            | Sub
            | Adc
            | Adcx
            | Adox
            | Mulx
            | Sbb
            | Cmp
            | Test
            | And
            | Or
            | Xor
            | Neg
            | Not
            | Inc
            | Dec
            | Imul
            | Shl
            | Shr
            | Sar
            | Bswap
            | Cdq
            | Cdqe
            | Cqo
            | Cwd
            | Cwde
            | Cbw
            | Nop
            | Endbr64
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
    for family in [
        mov::lift,
        arith::lift,
        control::lift,
        stack::lift,
        shift::lift,
        bits::lift,
        string::lift,
        system::lift,
        legacy::lift,
    ] {
        if family(cx, i)? {
            return Ok(());
        }
    }
    simd::lift(cx, i)
}

/// What a family says: translated, or not its instruction.
type Done = Result<bool, Unlifted>;

/// A place that an instruction reads and writes: its address is computed once.
#[derive(Clone, Copy)]
pub(crate) enum Loc {
    /// Register.
    Reg(Register),
    /// Memory.
    Mem(Addr, Type),
}

impl Loc {
    /// Width.
    pub(crate) fn ty(self) -> Type {
        match self {
            Loc::Reg(r) => Type::int(r.size() as u32),
            Loc::Mem(_, t) => t,
        }
    }
}

impl Lifter {
    /// The place of operand 0.
    pub(crate) fn dest(&mut self, i: &Instruction) -> Loc {
        match i.op_kind(0) {
            OpKind::Register => Loc::Reg(i.op_register(0)),
            _ => {
                let ty = self.op_type(i, 0);
                Loc::Mem(self.addr(i), ty)
            }
        }
    }
    /// Read a place.
    pub(crate) fn read_loc(&mut self, l: Loc) -> Value {
        match l {
            Loc::Reg(r) => self.gpr(r),
            Loc::Mem(a, ty) => self.load(ty, a),
        }
    }
    /// Write a place.
    pub(crate) fn write_loc(&mut self, l: Loc, v: Value) {
        match l {
            Loc::Reg(r) => self.set_gpr(r, v),
            Loc::Mem(a, ty) => self.store(ty, a, v),
        }
    }
    /// Atomic read-modify-write; gives the old value.
    pub(crate) fn rmw(&mut self, op: Op, ty: Type, a: Addr, v: Value) -> Value {
        self.b.push(op, ty, a.base, v, Value::NONE, i64::from(a.disp))
    }
    /// Atomic compare and swap; gives the old value.
    pub(crate) fn cas(&mut self, ty: Type, a: Addr, want: Value, new: Value) -> Value {
        self.b.push(Op::AtomicCas, ty, a.base, want, new, i64::from(a.disp))
    }
}
