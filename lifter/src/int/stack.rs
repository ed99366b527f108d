//! Stack instructions: the store comes before the stack pointer moves.

use super::Done;
use crate::ctx::{Addr, Lifter};
use evm_cpu::{cc, helper, slot};
use evm_ir::{Cond, Op, Term, Type, Value};
use iced_x86::{Instruction, Mnemonic as M, OpKind, Register};

impl Lifter {
    /// The stack pointer plus `n`, as a value for RSP.
    fn sp_plus(&mut self, n: i64) -> Value {
        if self.bits == 32 {
            let v = self.gpr(Register::ESP);
            let v = self.bini(Op::Add, Type::I32, v, n);
            return self.zext(Type::I64, v);
        }
        let v = self.get(slot::RSP);
        self.bini(Op::Add, Type::I64, v, n)
    }
    /// Address `n` bytes above the stack pointer.
    pub(super) fn stack(&mut self, n: i32) -> Addr {
        if self.bits == 32 {
            return Addr { base: self.sp_plus(i64::from(n)), disp: 0 };
        }
        Addr { base: self.get(slot::RSP), disp: n }
    }
    /// Move the stack pointer.
    pub(super) fn move_sp(&mut self, n: i64) {
        let v = self.sp_plus(n);
        self.put(slot::RSP, v);
    }
    /// Push a value.
    pub(super) fn push_value(&mut self, v: Value) {
        let ty = self.b.ty(v);
        let n = ty.bytes() as i32;
        let at = self.stack(-n);
        self.store(ty, at, v);
        self.move_sp(-i64::from(n));
    }
    /// RFLAGS as PUSHF shows it (I64).
    pub(super) fn rflags(&mut self) -> Value {
        let f = self.all_flags();
        let df = self.get(slot::DF);
        let df = self.bini(Op::Shl, Type::I64, df, 10);
        let sys = self.get(slot::RFLAGS_SYS);
        let f = self.bin(Op::Or, Type::I64, f, df);
        let f = self.bin(Op::Or, Type::I64, f, sys);
        self.bini(Op::Or, Type::I64, f, 0x202)
    }
}

pub(super) fn lift(cx: &mut Lifter, i: &Instruction) -> Done {
    let size = i.stack_pointer_increment().unsigned_abs();
    let ty = Type::int(size);
    match i.mnemonic() {
        M::Push => {
            let v = match i.op_kind(0) {
                OpKind::Register if i.op_register(0).is_segment_register() => {
                    let k = cx.iconst(Type::I64, i.op_register(0).number() as i64);
                    let v = cx.call(helper::GET_SEG, &[k]);
                    cx.trunc(ty, v)
                }
                OpKind::Register | OpKind::Memory => cx.read_op(i, 0),
                _ => cx.iconst(ty, i.immediate(0) as i64),
            };
            cx.push_value(v);
        }
        M::Pop => {
            let at = cx.stack(0);
            let v = cx.load(ty, at);
            match i.op_kind(0) {
                OpKind::Memory => {
                    // The address is formed after the stack pointer has moved.
                    let mut a = cx.addr(i);
                    if matches!(i.memory_base(), Register::RSP | Register::ESP) {
                        a = a.plus(size as i32);
                        if i.memory_base() == Register::ESP {
                            a = cx.narrow_addr(a);
                        }
                    }
                    cx.store(ty, a, v);
                    cx.move_sp(i64::from(size));
                }
                _ if i.op_register(0).is_segment_register() => {
                    let k = cx.iconst(Type::I64, i.op_register(0).number() as i64);
                    let sel = cx.trunc(Type::I16, v);
                    let sel = cx.zext(Type::I64, sel);
                    cx.call(helper::SET_SEG, &[k, sel]);
                    cx.move_sp(i64::from(size));
                }
                _ => {
                    cx.move_sp(i64::from(size));
                    cx.set_gpr(i.op_register(0), v);
                }
            }
        }
        M::Leave => {
            let size: u32 = match i.code() {
                iced_x86::Code::Leavew => 2,
                iced_x86::Code::Leaved => 4,
                _ => 8,
            };
            let ty = Type::int(size);
            let rbp = cx.get(slot::RBP);
            let base = if cx.bits == 32 {
                let v = cx.trunc(Type::I32, rbp);
                cx.zext(Type::I64, v)
            } else {
                rbp
            };
            let v = cx.load(ty, Addr { base, disp: 0 });
            cx.put(slot::RSP, base);
            cx.move_sp(i64::from(size));
            cx.set_gpr(if size == 2 { Register::BP } else { wide(cx, Register::RBP, Register::EBP) }, v);
        }
        M::Enter => enter(cx, i),
        M::Pushf | M::Pushfd | M::Pushfq => {
            let f = cx.rflags();
            let f = cx.trunc(ty, f);
            cx.push_value(f);
        }
        M::Popf | M::Popfd | M::Popfq => {
            let at = cx.stack(0);
            let v = cx.load(ty, at);
            let v = cx.zext(Type::I64, v);
            let f = cx.bini(Op::And, Type::I64, v, cc::MASK as i64);
            let df = cx.bini(Op::Shr, Type::I64, v, 10);
            let df = cx.bini(Op::And, Type::I64, df, 1);
            let sys = if size == 2 {
                let old = cx.get(slot::RFLAGS_SYS);
                let old = cx.bini(Op::And, Type::I64, old, 0x24_0000);
                let low = cx.bini(Op::And, Type::I64, v, 0x4100);
                cx.bin(Op::Or, Type::I64, old, low)
            } else {
                cx.bini(Op::And, Type::I64, v, 0x24_4100)
            };
            cx.move_sp(i64::from(size));
            cx.put(slot::DF, df);
            cx.put(slot::RFLAGS_SYS, sys);
            cx.set_flags(f);
            let careful = cx.bini(Op::And, Type::I64, sys, 0x4_0100);
            let plain = cx.icmpi(Cond::Eq, careful, 0);
            let (yes, no) = (cx.inner(), cx.inner());
            cx.end(Term::Br(plain, yes, no));
            cx.start(no);
            let next = cx.iconst(Type::I64, cx.next as i64);
            cx.call(helper::MODE, &[next]);
            let next = cx.iconst(Type::I64, cx.next as i64);
            cx.leave(next);
            cx.start(yes);
        }
        M::Lahf => {
            let f = cx.all_flags();
            let f = cx.trunc(Type::I8, f);
            let f = cx.bini(Op::And, Type::I8, f, 0xd5);
            let f = cx.bini(Op::Or, Type::I8, f, 2);
            cx.set_gpr(Register::AH, f);
        }
        M::Sahf => {
            let all = cx.all_flags();
            let of = cx.bini(Op::And, Type::I64, all, cc::OF as i64);
            let ah = cx.gpr(Register::AH);
            let ah = cx.zext(Type::I64, ah);
            let f = cx.bini(Op::And, Type::I64, ah, 0xd5);
            let f = cx.bin(Op::Or, Type::I64, f, of);
            cx.set_flags(f);
        }
        M::Clc | M::Stc | M::Cmc => {
            let cf = match i.mnemonic() {
                M::Clc => cx.iconst(Type::I8, 0),
                M::Stc => cx.iconst(Type::I8, 1),
                _ => {
                    let c = cx.carry();
                    cx.bini(Op::Xor, Type::I8, c, 1)
                }
            };
            cx.replace_carry(cf);
        }
        M::Cld | M::Std => {
            let v = cx.iconst(Type::I64, i64::from(i.mnemonic() == M::Std));
            cx.put(slot::DF, v);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The 64-bit register, or in 32-bit code the 32-bit one.
fn wide(cx: &Lifter, r64: Register, r32: Register) -> Register {
    if cx.bits == 64 { r64 } else { r32 }
}

fn enter(cx: &mut Lifter, i: &Instruction) {
    let (alloc, level) = (i.immediate(0) as u16, i.immediate(1) as u32 & 31);
    let ty = match i.code() {
        iced_x86::Code::Enterw_imm16_imm8 => Type::I16,
        iced_x86::Code::Enterd_imm16_imm8 => Type::I32,
        _ => Type::I64,
    };
    let n = ty.bytes() as i32;
    if level > 0 {
        let form = cx.iconst(Type::I64, i64::from(n) | i64::from(level) << 8 | i64::from(alloc) << 16);
        cx.call(helper::ENTER, &[form]);
        return;
    }
    let bp = wide(cx, Register::RBP, Register::EBP);
    let old = cx.get(slot::RBP);
    let v = cx.trunc(ty, old);
    let at = cx.stack(-n);
    cx.store(ty, at, v);
    let frame = cx.sp_plus(-i64::from(n));
    if alloc > 0 {
        // It asks whether the new top of the stack can be written.
        let at = cx.sp_plus(-i64::from(n) - i64::from(alloc));
        let zero = cx.iconst(Type::I8, 0);
        cx.rmw(Op::AtomicOr, Type::I8, Addr { base: at, disp: 0 }, zero);
    }
    cx.move_sp(-i64::from(n) - i64::from(alloc));
    let f = cx.trunc(Type::int(bp.size() as u32), frame);
    let f = if ty == Type::I16 { cx.trunc(Type::I16, frame) } else { f };
    cx.set_gpr(if ty == Type::I16 { Register::BP } else { bp }, f);
}
