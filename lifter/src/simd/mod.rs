//! MMX, SSE, AVX, x87 and cryptographic instructions.
//!
//! Most vector instructions are one operation on 128 bits, whatever their encoding: [`packed`] says
//! which, and [`Vector`] (here) knows where operands come from and where the result goes:
//!
//! | form | sources | result |
//! |---|---|---|
//! | MMX | the 64-bit registers, in the low half of a vector | low half |
//! | legacy SSE | operand 0 and 1 | operand 0; the upper half of YMM stays |
//! | VEX.128 | operands 1 and 2 | operand 0; the upper half of YMM becomes zero |
//! | VEX.256 | as two halves (slots `xmm` and `ymm_hi`), except where lanes cross (`avx`) | both halves |
//!
//! All operands, also of the second half, are read before the first result is written.

mod avx;
mod convert;
mod mmx;
mod moves;
mod packed;
mod scalar;
mod select;
mod system;
mod x87;

use crate::ctx::{Addr, Lifter, Unlifted, full};
use evm_ir::{Type, Value};
use iced_x86::{EncodingKind, Instruction, OpKind, Register};

/// What a family says: translated, or not its instruction.
type Done = Result<bool, Unlifted>;

/// Translate one instruction that is not an integer instruction.
pub(crate) fn lift(cx: &mut Lifter, i: &Instruction) -> Result<(), Unlifted> {
    if x87::lift(cx, i)? || system::lift(cx, i)? {
        return Ok(());
    }
    if (0..i.op_count()).any(|n| i.op_kind(n) == OpKind::Register && i.op_register(n).is_mm()) {
        // MMX registers are slots of the x87 state.
        cx.call(evm_cpu::helper::X87_REST, &[]);
    }
    let mut v = Vector::new(cx, i)?;
    for family in [packed::lift, moves::lift, scalar::lift, convert::lift, mmx::lift, avx::lift] {
        if family(&mut v)? {
            return Ok(());
        }
    }
    Err(Unlifted)
}

/// Encoding and length of a vector instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Mmx,
    Legacy,
    Vex128,
    Vex256,
}

/// One vector instruction being translated.
struct Vector<'a> {
    cx: &'a mut Lifter,
    i: &'a Instruction,
    form: Form,
    mem: Option<Addr>,
    /// Both halves of a 256-bit memory operand, read at once: no flag is raised before the second was.
    wide: Option<[Value; 2]>,
}

impl<'a> Vector<'a> {
    fn new(cx: &'a mut Lifter, i: &'a Instruction) -> Result<Self, Unlifted> {
        let regs = || (0..i.op_count()).filter(|n| i.op_kind(*n) == OpKind::Register).map(|n| i.op_register(n));
        let form = match i.code().encoding() {
            EncodingKind::Legacy if regs().any(Register::is_mm) => Form::Mmx,
            EncodingKind::Legacy => Form::Legacy,
            EncodingKind::VEX if regs().any(Register::is_ymm) => Form::Vex256,
            EncodingKind::VEX => Form::Vex128,
            _ => return Err(Unlifted),
        };
        Ok(Vector { cx, i, form, mem: None, wide: None })
    }
    fn vex(&self) -> bool {
        matches!(self.form, Form::Vex128 | Form::Vex256)
    }
    /// Number of 128-bit halves worked on.
    fn halves(&self) -> usize {
        if self.form == Form::Vex256 { 2 } else { 1 }
    }
    fn is_mem(&self, op: u32) -> bool {
        self.i.op_kind(op) == OpKind::Memory
    }
    fn is_reg(&self, op: u32) -> bool {
        self.i.op_kind(op) == OpKind::Register
    }
    /// Number of the register that is operand `op`.
    fn reg(&self, op: u32) -> usize {
        self.i.op_register(op).number()
    }
    /// The last immediate.
    fn imm(&self) -> u8 {
        self.i.immediate8()
    }
    /// Index of operand `first source`.
    fn first(&self) -> u32 {
        u32::from(self.vex())
    }
    /// The register that alone, with a displacement, is the memory operand's address.
    fn lone_base(&self) -> Option<usize> {
        let (i, base) = (self.i, self.i.memory_base());
        let plain = i.memory_index() == Register::None && !matches!(i.memory_segment(), Register::FS | Register::GS);
        (plain && base.is_gpr() && base.size() as u32 * 8 == self.cx.bits).then(|| full(base))
    }
    /// #GP if the memory operand is not aligned to `bytes`.
    fn aligned(&mut self, bytes: i64) {
        let base = self.lone_base();
        let (modulus, disp) = (bytes as u64, self.i.memory_displacement64());
        if let Some((m, r)) = base.and_then(|b| self.cx.residues[b])
            && m >= modulus
            && r.wrapping_add(disp) % modulus == 0
        {
            return;
        }
        let a = self.cx.addr(self.i);
        let a = self.cx.flat(a);
        if self.cx.const_of(a).is_none_or(|a| a & (bytes - 1) != 0) {
            self.cx.b.aligned(a, bytes);
        }
        if let Some(b) = base
            && self.cx.residues[b].is_none_or(|(m, _)| m < modulus)
        {
            self.cx.residues[b] = Some((modulus, disp.wrapping_neg() % modulus));
        }
    }
    /// The alignment check that legacy SSE does for 16-byte operands.
    fn aligned_if_legacy(&mut self) {
        let mem = (0..self.i.op_count()).any(|n| self.is_mem(n));
        if self.form == Form::Legacy && mem && self.i.memory_size().size() == 16 {
            self.aligned(16);
        }
    }
    /// Address of the memory operand.
    fn addr(&mut self) -> Addr {
        match self.mem {
            Some(a) => a,
            None => {
                let a = self.cx.addr(self.i);
                self.mem = Some(a);
                a
            }
        }
    }
    /// Load at an offset from the memory operand.
    fn load(&mut self, ty: Type, offset: i32) -> Value {
        let a = self.addr().plus(offset);
        self.cx.load(ty, a)
    }
    fn zero(&mut self) -> Value {
        self.cx.b.vconst(0)
    }
    /// A half of a vector register.
    fn half(&mut self, reg: Register, half: usize) -> Value {
        let n = reg.number();
        if reg.is_mm() {
            let lo = self.cx.get(evm_cpu::mm(n & 7));
            return self.low64(lo);
        }
        if half == 0 { self.cx.xmm(n) } else { self.cx.get(evm_cpu::ymm_hi(n)) }
    }
    /// A vector with an I64 in its low half and zero above.
    fn low64(&mut self, v: Value) -> Value {
        let z = self.zero();
        self.cx.b.insert(Type::I64X2, z, 0, v)
    }
    /// Half `half` of the vector operand `op` (register or memory).
    fn src(&mut self, op: u32, half: usize) -> Value {
        if self.is_reg(op) {
            return self.half(self.i.op_register(op), half);
        }
        if self.form == Form::Mmx {
            // PUNPCKL* reads four bytes.
            let v = if self.i.memory_size().size() == 4 {
                let v = self.load(Type::I32, 0);
                self.cx.zext(Type::I64, v)
            } else {
                self.load(Type::I64, 0)
            };
            return self.low64(v);
        }
        if self.form == Form::Vex256 && self.i.memory_size().size() == 32 {
            if let Some(w) = self.wide {
                return w[half];
            }
            let w = [self.load(Type::V128, 0), self.load(Type::V128, 16)];
            self.wide = Some(w);
            return w[half];
        }
        self.load(Type::V128, 16 * half as i32)
    }
    /// The low `bytes` (2, 4, 8, 16) of vector operand `op` from byte `offset` on, at the bottom of a vector.
    /// A memory operand is read no further than that.
    fn part(&mut self, op: u32, offset: u32, bytes: u32) -> Value {
        if self.is_mem(op) {
            if bytes == 16 {
                return self.load(Type::V128, offset as i32);
            }
            let v = self.load(Type::int(bytes), offset as i32);
            let z = self.zero();
            let shape = match bytes {
                2 => Type::I16X8,
                4 => Type::I32X4,
                _ => Type::I64X2,
            };
            return self.cx.b.insert(shape, z, 0, v);
        }
        let v = self.src(op, 0);
        if offset == 0 {
            return v;
        }
        let sel = std::array::from_fn(|k| (k as u32 + offset).min(31) as u8 & 15);
        self.cx.b.shuffle(v, v, sel)
    }
    /// Write the result to operand 0: one value, or one for each half.
    fn set(&mut self, halves: &[Value]) {
        let r = self.i.op_register(0);
        let n = r.number();
        match self.form {
            Form::Mmx => {
                let v = self.cx.b.extract(Type::I64X2, halves[0], 0);
                self.set_mm(n, v);
            }
            Form::Legacy => self.cx.set_xmm(n, halves[0]),
            Form::Vex128 | Form::Vex256 => {
                let hi = match halves.get(1) {
                    Some(v) => *v,
                    None => self.zero(),
                };
                self.cx.set_xmm(n, halves[0]);
                self.cx.put(evm_cpu::ymm_hi(n), hi);
            }
        }
    }
    /// Write an MMX register (I64): the x87 state becomes that of MMX.
    fn set_mm(&mut self, n: usize, v: Value) {
        let n = self.cx.iconst(Type::I64, n as i64 & 7);
        self.cx.call(evm_cpu::helper::MMX_PUT, &[n, v]);
    }
    /// The effect on the x87 state of an MMX instruction that writes no MMX register.
    fn enter_mmx(&mut self) {
        self.cx.call(evm_cpu::helper::MMX_ENTER, &[]);
    }
    /// The part of it that comes before a store: a pending #MF is raised.
    fn wait_mmx(&mut self) {
        let store = self.iconst(8);
        self.cx.call(evm_cpu::helper::X87_TOP, &[store]);
    }
    /// Raise a pending #MF before anything is done.
    fn wait(&mut self) {
        let none = self.iconst(0);
        self.cx.call(evm_cpu::helper::X87_TOP, &[none]);
    }
    fn iconst(&mut self, v: u64) -> Value {
        self.cx.iconst(Type::I64, v as i64)
    }
}
