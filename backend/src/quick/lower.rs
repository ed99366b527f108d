//! The walk over the region: integer operations, moves, slots. See [`super`].

use super::Unsupported;
use super::place::{END, Home, NO_REG, Registers, Val, is_vector};
use crate::abi::Abi;
use crate::asm::{Asm, Label, RAX, RCX, RDI, RDX, Reg, Rm, Width, alu, cc};
use crate::interp::{scalar, vector};
use evm_ir::{Cond, FCond, Inst, Op, Region, Sig, Slot, Term, Type, Value};

/// Code off the straight path, written after it.
pub(super) enum Cold {
    /// The root of `[root + disp]` is past the limit; the sum may be inside.
    Limit { at: Label, back: Label, root: Reg, disp: i32, pc: u64 },
    /// An access that is sure to fail: see [`Lower::trap`].
    Trap { at: Label, pc: u64 },
    /// A write of `n` bytes at `a` that may lie in two pages.
    Whole { at: Label, back: Label, a: Reg, n: i32, pc: u64 },
    /// A helper has raised.
    Pending { at: Label, pc: u64 },
    /// Leave for a known address.
    Leave { at: Label, pc: u64 },
    /// Leave for the address in RSI.
    LeaveRsi { at: Label },
    /// The entry counter has come around.
    Hot { at: Label, back: Label, pc: u64 },
    /// The callee in RSI has no code.
    Call { at: Label, back: Label, ret: u64 },
    /// A call came back to the address in RAX.
    Resume { at: Label, good: Label, ret: u64 },
}

pub(super) struct Lower<'a> {
    pub r: &'a Region,
    pub abi: &'a Abi,
    pub a: &'a mut Asm,
    pub vals: &'a mut Vec<Val>,
    pub links: &'a mut dyn FnMut(u64) -> u32,
    pub regs: Registers,
    /// Index in the block of the instruction at hand.
    pub at: u32,
    /// Address of the guest instruction at hand.
    pub pc: u64,
    pub pcs: Vec<(u32, u64)>,
    pub cold: Vec<Cold>,
    /// The trap of a guest instruction, and the way out for the address in RSI, if there is one already.
    pub trap: Option<(u64, Label)>,
    pub leave_rsi: Option<Label>,
    /// Start of each block.
    pub blocks: Vec<Label>,
    /// Addresses of this block that were checked.
    pub checked: Vec<Value>,
    /// All 32-bit addresses are inside guest memory or its guards.
    pub narrow_fits: bool,
    /// See [`super::Quick::traps`].
    pub traps: bool,
    /// Block being filled.
    pub block: usize,
    /// Out of registers or cells, or a region that is not valid.
    pub failed: bool,
}

impl<'a> Lower<'a> {
    pub fn new(
        r: &'a Region,
        abi: &'a Abi,
        a: &'a mut Asm,
        vals: &'a mut Vec<Val>,
        links: &'a mut dyn FnMut(u64) -> u32,
    ) -> Lower<'a> {
        vals.clear();
        vals.resize(r.types.len(), Val::default());
        let blocks = r.blocks.iter().map(|_| a.label()).collect();
        Lower {
            r,
            abi,
            a,
            vals,
            links,
            regs: Registers::new(),
            at: 0,
            pc: 0,
            pcs: vec![],
            cold: vec![],
            trap: None,
            leave_rsi: None,
            blocks,
            checked: vec![],
            narrow_fits: false,
            traps: false,
            block: 0,
            failed: false,
        }
    }

    /// Fill the assembler; gives where accesses are.
    pub fn run(mut self, threshold: u32) -> Result<Vec<(u32, u64)>, Unsupported> {
        let [entry] = self.r.entries[..] else { return Err(Unsupported("several entries")) };
        self.prologue(self.r.blocks[entry.0 as usize].pc, threshold);
        if entry.0 != 0 {
            let l = self.blocks[entry.0 as usize];
            self.a.jmp(l);
        }
        for b in 0..self.r.blocks.len() {
            self.block(b)?;
        }
        self.cold_code();
        if self.failed || !self.a.finish(&mut self.pcs) {
            return Err(Unsupported("so many live values"));
        }
        self.pcs.sort_unstable();
        Ok(self.pcs)
    }

    fn block(&mut self, b: usize) -> Result<(), Unsupported> {
        let r = self.r;
        let data = &r.blocks[b];
        self.block = b;
        self.pc = data.pc;
        self.regs.clear();
        self.checked.clear();
        let l = self.blocks[b];
        self.a.bind(l);
        if data.loop_header {
            self.poll(data.pc);
        }
        for (n, i) in data.insts.iter().enumerate() {
            r.for_each_operand(i, |v| {
                let v = &mut self.vals[v.0 as usize];
                v.last = n as u32;
                v.uses += 1;
            });
        }
        let mut compared = None;
        if let Some(v) = data.term.operand() {
            let x = self.val(v);
            x.last = END;
            x.uses += 1;
            if x.uses == 1 && matches!(data.term, Term::Br(..)) {
                compared = Some(v);
            }
        }
        for (n, i) in data.insts.iter().enumerate() {
            self.at = n as u32;
            if i.op == Op::Icmp && Some(i.dst) == compared {
                // Done by the branch; its operands live until then.
                self.val(i.a).last = END;
                self.val(i.b).last = END;
                self.val(i.dst).home = Home::Compare(n as u32);
                continue;
            }
            let unused = i.dst.is_some() && self.vals[i.dst.0 as usize].uses == 0;
            if !(unused && i.op.flags() == 0 && !i.op.raises_flags(i.ty)) {
                self.inst(i)?;
            }
            self.end_uses(i);
        }
        self.at = END;
        self.term(&data.term)
    }

    fn inst(&mut self, i: &Inst) -> Result<(), Unsupported> {
        match i.op.sig() {
            Sig::Const => self.val(i.dst).home = Home::Imm(i.imm as u64 & scalar::mask(i.ty)),
            Sig::VConst => self.val(i.dst).home = Home::Pool(i.imm as u32),
            Sig::Get => self.get(i),
            Sig::Put => self.put(i),
            Sig::Cmp => {
                let d = self.alloc_gpr();
                let c = self.compare(i);
                self.set_bool(c, d);
                self.define(i.dst, d);
            }
            Sig::Bin if i.ty.is_int() => self.bin(i)?,
            Sig::Un if i.ty.is_int() => self.un(i)?,
            Sig::Bin => {
                if !self.simd_bin(i) {
                    if i.ty.is_shape() || i.ty == Type::V128 {
                        let f = vector::bin(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                        self.host_v2(i, f);
                    } else {
                        let f = scalar::bin(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                        self.host_s2(i, f);
                    }
                }
            }
            Sig::Un => {
                if !self.simd_un(i) {
                    if i.ty.is_shape() || i.ty == Type::V128 {
                        let f = vector::un(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                        self.host_v1(i, f);
                    } else {
                        let f = scalar::un(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                        self.host_s1(i, f);
                    }
                }
            }
            Sig::FCmp => {
                let f = if i.op == Op::FComi { scalar::fcomi } else { scalar::fcmp };
                let f = fcond(i).and_then(|c| f(c, i.ty)).ok_or(Unsupported(i.op.name()))?;
                self.host_s2(i, f);
            }
            Sig::VFCmp => self.vfcmp(i),
            Sig::Conv => self.conv(i)?,
            Sig::Select => self.select(i),
            Sig::Align if i.op == Op::Whole => self.whole(i),
            Sig::Align => self.aligned(i),
            Sig::Load => self.load(i),
            Sig::Store => self.store(i),
            Sig::Rmw => self.rmw(i)?,
            Sig::Cas => self.cas(i)?,
            Sig::Fence => self.a.mfence(),
            Sig::Extract => self.extract(i),
            Sig::Insert => self.insert(i),
            Sig::Splat => self.splat(i),
            Sig::VMask => self.vmask(i),
            Sig::VShift => {
                if !self.vshift(i) {
                    let f = vector::shift(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                    self.host_insert(i, f, 0);
                }
            }
            Sig::Shuffle => self.shuffle(i),
            Sig::VSelect => self.vselect(i),
            Sig::Call => self.helper(i)?,
            Sig::Marker => {
                self.pc = i.imm as u64;
                if self.traps {
                    self.keep_flags();
                }
            }
            // Slots are read and written where they are.
            Sig::Fill | Sig::Spill => {}
        }
        Ok(())
    }

    /// Before an instruction that may trap: its exception flags as they are, since a lane that does not trap may raise some
    /// before one does.
    fn keep_flags(&mut self) {
        let data = &self.r.blocks[self.block];
        let rest = &data.insts[self.at as usize + 1..];
        let end = rest.iter().position(|i| i.op == Op::Marker);
        // It may go on in another block.
        let open = end.is_none() && !data.term.leaves();
        if open || rest[..end.unwrap_or(rest.len())].iter().any(Inst::may_trap) {
            self.a.sse(0, 4, 0x0fae, 3, Rm::Mem(RDI, self.abi.mxcsr as i32));
        }
    }

    // ---- slots

    fn get(&mut self, i: &Inst) {
        let slot = Slot(i.imm as u16);
        let offset = self.r.layout.get(slot).offset;
        self.set_home(i.dst, offset, slot);
    }
    fn put(&mut self, i: &Inst) {
        let slot = Slot(i.imm as u16);
        let info = self.r.layout.get(slot);
        if matches!(self.home(i.a), Home::State(_, s) if s == slot) {
            return;
        }
        self.move_out(false, |s| s == slot);
        let at = Rm::Mem(RDI, info.offset as i32);
        let w = info.ty.bytes();
        if w == 16 {
            let x = self.xmm(i.a);
            self.a.sse(0, 4, 0x0f11, x, at);
        } else if let Some(x) = self.imm_of(i.a)
            && self.val(i.a).reg == NO_REG
            && self.a.store_imm(w, at, x)
        {
            return;
        } else {
            let g = self.gpr(i.a);
            self.a.store(w, at, g);
        }
        if self.home(i.a) == Home::None && !self.dies(i.a) {
            self.set_home(i.a, info.offset, slot);
        }
    }

    // ---- comparison

    /// Emit the comparison; gives the condition.
    pub(super) fn compare(&mut self, i: &Inst) -> u8 {
        let (mut x, mut y) = (i.a, i.b);
        let mut c = Cond::ALL[i.imm as usize];
        if self.imm_of(x).is_some() && self.imm_of(y).is_none() {
            (x, y, c) = (y, x, c.swap());
        }
        let w = i.ty.bytes();
        match self.imm32(y, i.ty) {
            Some(0) if matches!(c, Cond::Eq | Cond::Ne) && self.val(x).reg != NO_REG => {
                let a = self.gpr(x);
                self.a.test(w, a, a);
            }
            Some(k) => {
                let a = self.gpr_or_mem(x);
                self.a.alu_imm(w, alu::CMP, a, k);
            }
            None => {
                let a = self.gpr(x);
                let b = self.gpr_or_mem(y);
                self.a.alu(w, alu::CMP, a, b);
            }
        }
        match c {
            Cond::Eq => cc::E,
            Cond::Ne => cc::NE,
            Cond::Ult => cc::B,
            Cond::Ule => cc::BE,
            Cond::Ugt => cc::A,
            Cond::Uge => cc::AE,
            Cond::Slt => cc::L,
            Cond::Sle => cc::LE,
            Cond::Sgt => cc::G,
            Cond::Sge => cc::GE,
        }
    }
    pub(super) fn set_bool(&mut self, c: u8, d: Reg) {
        self.a.setcc(c, d);
        self.a.load(1, d, Rm::Reg(d));
    }
    /// A comparison that was put off for the branch and is wanted as a value.
    pub(super) fn compare_to(&mut self, n: u32, d: Reg) {
        let i = self.r.blocks[self.block].insts[n as usize];
        let c = self.compare(&i);
        self.set_bool(c, d);
    }

    // ---- integers

    /// Bring a register back to zero-extended form after an operation on `w` bytes.
    fn narrow(&mut self, w: Width, r: Reg) {
        if w < 4 {
            self.a.load(w, r, Rm::Reg(r));
        }
    }

    fn bin(&mut self, i: &Inst) -> Result<(), Unsupported> {
        let w = i.ty.bytes();
        // Narrow results of these come out of a 32-bit operation.
        let ow = w.max(4);
        match i.op {
            Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor => {
                let (mut x, mut y) = (i.a, i.b);
                if i.op != Op::Sub && (self.imm_of(x).is_some() || (self.dies(y) && !self.dies(x))) {
                    (x, y) = (y, x);
                }
                let n = match i.op {
                    Op::Add => alu::ADD,
                    Op::Sub => alu::SUB,
                    Op::And => alu::AND,
                    Op::Or => alu::OR,
                    _ => alu::XOR,
                };
                if let Some(k) = self.imm32(y, i.ty) {
                    if i.op == Op::Add && w >= 4 && !self.dies(x) {
                        let a = self.gpr(x);
                        let d = self.dst(i.dst);
                        self.a.lea(w, d, Rm::Mem(a, k));
                        return Ok(());
                    }
                    let d = self.dst_from(i.dst, x);
                    self.a.alu_imm(ow, n, Rm::Reg(d), k);
                    // A negative immediate is sign-extended to 32 bits.
                    self.narrow(w, d);
                    return Ok(());
                }
                if x == y {
                    let d = self.dst_from(i.dst, x);
                    self.a.alu(ow, n, d, Rm::Reg(d));
                } else {
                    // A slot of the same width may be read in place.
                    let b = if w >= 4 { self.gpr_or_mem(y) } else { Rm::Reg(self.gpr(y)) };
                    let d = self.dst_from(i.dst, x);
                    self.a.alu(ow, n, d, b);
                }
                if matches!(i.op, Op::Add | Op::Sub) {
                    let d = self.val(i.dst).reg;
                    self.narrow(w, d);
                }
            }
            Op::Mul => {
                let b = self.gpr(i.b);
                let d = self.dst_from(i.dst, i.a);
                let b = if i.a == i.b { d } else { b };
                self.a.op(ow, 0x0faf, d, Rm::Reg(b));
                self.narrow(w, d);
            }
            Op::Shl | Op::Shr | Op::Sar | Op::Rotl | Op::Rotr => self.shift(i),
            Op::UMulHi | Op::SMulHi => self.mul_hi(i),
            Op::UDiv | Op::URem | Op::SDiv | Op::SRem => self.div(i),
            _ => {
                let f = scalar::bin(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                self.host_s2(i, f);
            }
        }
        Ok(())
    }

    fn shift(&mut self, i: &Inst) {
        let w = i.ty.bytes();
        let n = match i.op {
            Op::Rotl => 0,
            Op::Rotr => 1,
            Op::Shl => 4,
            Op::Shr => 5,
            _ => 7,
        };
        let rotate = n < 2;
        // Rotates need the exact width, the others work on 32 bits (a right shift of what is extended).
        let sw = if rotate { w } else { w.max(4) };
        let by = self.imm_of(i.b);
        if by.is_none() {
            self.take_gpr(RCX);
            self.copy_gpr(i.b, RCX);
            if w < 4 {
                self.a.alu_imm(4, alu::AND, Rm::Reg(RCX), i.ty.bits() as i32 - 1);
            }
        }
        let d = self.dst_from(i.dst, i.a);
        if i.op == Op::Sar && w < 4 {
            self.a.load_signed(w, 4, d, Rm::Reg(d));
        }
        match by {
            Some(k) => {
                let k = k as u8 & (i.ty.bits() - 1) as u8;
                if k != 0 {
                    self.a.shift_imm(sw, n, d, k);
                }
            }
            None => self.a.shift_cl(sw, n, d),
        }
        if n != 5 && !rotate {
            self.narrow(w, d);
        }
    }

    fn mul_hi(&mut self, i: &Inst) {
        let w = i.ty.bytes();
        let signed = i.op == Op::SMulHi;
        if w == 8 {
            self.take_gpr(RDX);
            let b = self.gpr(i.b);
            self.copy_gpr(i.a, RAX);
            self.a.group3(8, if signed { 5 } else { 4 }, Rm::Reg(b));
            let d = self.dst(i.dst);
            self.a.load(8, d, Rm::Reg(RDX));
            return;
        }
        // The whole product fits in 64 bits.
        let (a, b) = (self.gpr(i.a), self.gpr(i.b));
        let d = self.dst(i.dst);
        if signed {
            self.a.load_signed(w, 8, d, Rm::Reg(a));
            self.a.load_signed(w, 8, RAX, Rm::Reg(b));
        } else {
            self.a.load(4, d, Rm::Reg(a));
            self.a.load(4, RAX, Rm::Reg(b));
        }
        self.a.op(8, 0x0faf, d, Rm::Reg(RAX));
        self.a.shift_imm(8, 5, d, i.ty.bits() as u8);
        self.a.load(w, d, Rm::Reg(d));
    }

    fn div(&mut self, i: &Inst) {
        let w = i.ty.bytes();
        let signed = matches!(i.op, Op::SDiv | Op::SRem);
        self.take_gpr(RDX);
        let dw = w.max(4);
        let b = self.gpr(i.b);
        self.copy_gpr(i.a, RAX);
        let mut by = b;
        if signed && w < 4 {
            self.a.load_signed(w, 4, RAX, Rm::Reg(RAX));
            by = self.alloc_gpr();
            self.a.load_signed(w, 4, by, Rm::Reg(b));
        }
        if signed {
            // CDQ, CQO: the sign of the dividend.
            self.a.load(dw, RDX, Rm::Reg(RAX));
            self.a.shift_imm(dw, 7, RDX, (dw * 8 - 1) as u8);
        } else {
            self.a.imm(RDX, 0);
        }
        self.a.group3(dw, if signed { 7 } else { 6 }, Rm::Reg(by));
        let from = if matches!(i.op, Op::UDiv | Op::SDiv) { RAX } else { RDX };
        let d = self.dst(i.dst);
        self.a.load(w, d, Rm::Reg(from));
    }

    fn un(&mut self, i: &Inst) -> Result<(), Unsupported> {
        let w = i.ty.bytes();
        match i.op {
            Op::Neg | Op::Not => {
                let d = self.dst_from(i.dst, i.a);
                self.a.group3(w.max(4), if i.op == Op::Neg { 3 } else { 2 }, Rm::Reg(d));
                self.narrow(w, d);
            }
            Op::Bswap if w == 2 => {
                let d = self.dst_from(i.dst, i.a);
                self.a.shift_imm(2, 0, d, 8);
            }
            Op::Bswap if w >= 4 => {
                let d = self.dst_from(i.dst, i.a);
                // BSWAP has its register in the opcode: 0F C8+r is the ModRM form 0F with a register byte.
                self.a.op(w, 0x0f, 1, Rm::Reg(d));
            }
            Op::Popcnt => {
                let a = self.gpr(i.a);
                let d = self.dst(i.dst);
                self.a.sse(0xf3, w.max(4), 0x0fb8, d, Rm::Reg(a));
            }
            Op::Ctz => {
                // BSF of the value with a bit set past its end. For 64 bits there is no such bit.
                let a = self.gpr(i.a);
                let d = self.dst(i.dst);
                if w == 8 {
                    self.a.imm(RAX, 64);
                    self.a.op(8, 0x0fbc, d, Rm::Reg(a));
                    self.a.cmov(cc::E, d, Rm::Reg(RAX));
                } else {
                    self.a.imm(RAX, 1 << i.ty.bits());
                    self.a.alu(8, alu::OR, RAX, Rm::Reg(a));
                    self.a.op(8, 0x0fbc, d, Rm::Reg(RAX));
                }
            }
            Op::Clz => {
                // bits - 1 - BSR, and BSR of zero counts as -1.
                let a = self.gpr(i.a);
                let d = self.dst(i.dst);
                self.a.imm(RAX, u64::MAX);
                self.a.op(8, 0x0fbd, d, Rm::Reg(a));
                self.a.cmov(cc::E, d, Rm::Reg(RAX));
                self.a.group3(8, 3, Rm::Reg(d));
                self.a.alu_imm(8, alu::ADD, Rm::Reg(d), i.ty.bits() as i32 - 1);
            }
            _ => {
                let f = scalar::un(i.op, i.ty).ok_or(Unsupported(i.op.name()))?;
                self.host_s1(i, f);
            }
        }
        Ok(())
    }

    fn conv(&mut self, i: &Inst) -> Result<(), Unsupported> {
        let from = Type::ALL[i.imm as usize];
        let w = i.ty.bytes();
        match i.op {
            Op::Zext => {
                self.alias(i.dst, i.a);
                if self.narrow_fits && i.ty == Type::I64 {
                    self.checked.push(i.dst);
                }
            }
            Op::Trunc => {
                if let Some(x) = self.imm_of(i.a) {
                    self.val(i.dst).home = Home::Imm(x & scalar::mask(i.ty));
                } else if let (Home::State(o, _), true) =
                    (self.home(i.a), self.val(i.a).reg == NO_REG && self.dies(i.a))
                {
                    let d = self.dst(i.dst);
                    self.a.load(w, d, Rm::Mem(RDI, o as i32));
                } else {
                    let d = self.dst_from(i.dst, i.a);
                    self.a.load(w, d, Rm::Reg(d));
                }
            }
            Op::Sext => {
                let a = self.gpr(i.a);
                let d = self.dst(i.dst);
                self.a.load_signed(from.bytes(), w.max(4), d, Rm::Reg(a));
                self.narrow(w, d);
            }
            Op::Bitcast => {
                let fw = from.bytes();
                match (is_vector(from), is_vector(i.ty)) {
                    (false, true) => {
                        let a = self.gpr(i.a);
                        let d = self.dst(i.dst);
                        self.a.sse(0x66, fw, 0x0f6e, d, Rm::Reg(a));
                    }
                    (true, false) => {
                        let a = self.xmm(i.a);
                        let d = self.dst(i.dst);
                        self.a.sse(0x66, fw, 0x0f7e, a, Rm::Reg(d));
                    }
                    _ => self.alias(i.dst, i.a),
                }
            }
            _ => {
                if !self.simd_conv(i, from) {
                    let f = scalar::conv(i.op, from, i.ty).ok_or(Unsupported(i.op.name()))?;
                    self.host_s1(i, f);
                }
            }
        }
        Ok(())
    }

    fn select(&mut self, i: &Inst) {
        let c = self.gpr(i.a);
        let b = self.reg(i.b);
        let vector = is_vector(i.ty);
        let d = if vector { self.alloc_xmm() } else { self.alloc_gpr() };
        if vector {
            let over = self.a.label();
            self.copy_xmm(i.c, d);
            self.a.test(1, c, c);
            self.a.jcc(cc::E, over);
            self.a.sse(0, 4, 0x0f28, d, Rm::Reg(b));
            self.a.bind(over);
        } else {
            self.copy_gpr(i.c, d);
            self.a.test(1, c, c);
            self.a.cmov(cc::NE, d, Rm::Reg(b));
        }
        self.define(i.dst, d);
    }
}

pub(super) fn fcond(i: &Inst) -> Option<FCond> {
    FCond::ALL.get(usize::try_from(i.imm).ok()?).copied()
}
