//! The translation context: a builder plus what is known about the block being filled.
//!
//! What an instruction's translation uses:
//! * registers: [`Lifter::gpr`], [`Lifter::set_gpr`] (any general register, any width), [`Lifter::xmm`],
//!   [`Lifter::set_xmm`], or [`Lifter::get`] and [`Lifter::put`] for any slot;
//! * memory: [`Lifter::addr`] (address of the memory operand), [`Lifter::load`], [`Lifter::store`];
//! * operands of either kind: [`Lifter::read_op`], [`Lifter::write_op`] (integers);
//! * flags: [`Lifter::set_cc`], [`Lifter::cond`] (module `cond`);
//! * pure operations: the methods here, which fold; or `cx.b` directly for vector operations.
//!
//! Slots, memory and helpers must go through the context, never through `cx.b`: it keeps the known values
//! of slots (so a slot is read once a block) and puts off flag writes that may turn out dead.
//! Values do not outlive their block: after [`Lifter::start`] everything is read again.

use crate::cond::Cc;
use crate::hash::Map;
use crate::inline::{Inlines, pc_of, place};
use evm_cpu::{helpers, slot};
use evm_ir::{Block, Builder, Cond, Effects, Inst, Op, Slot, Term, Type, Value};
use iced_x86::{Instruction, OpKind, Register};

/// The instruction has no translation here.
#[derive(Debug)]
pub(crate) struct Unlifted;

/// A guest address: base plus displacement, as loads and stores take it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addr {
    /// Base, `I64`.
    pub base: Value,
    /// Displacement.
    pub disp: i32,
}

impl Addr {
    /// This many bytes further on. The displacement must have room (operand sizes do: see [`Lifter::addr`]).
    pub fn plus(self, n: i32) -> Addr {
        Addr { base: self.base, disp: self.disp + n }
    }
}

/// Translation context.
pub(crate) struct Lifter {
    /// The builder. Pure operations only; see the module.
    pub b: Builder,
    /// 64 or 32.
    pub bits: u32,
    /// See [`crate::Options`].
    pub v3: bool,
    /// Address of the instruction being translated.
    pub pc: u64,
    /// Address of the next one.
    pub next: u64,
    /// Condition code state.
    pub(crate) cc: Cc,
    /// Whether the current block got its terminator.
    pub(crate) ended: bool,
    /// Stubs that only jump through a pointer: where the pointer is, and what it held when the region was made.
    pub(crate) plt: Map<(u64, u64)>,
    /// Cases of indirect jumps through tables, by the jump's address.
    pub(crate) tables: Map<Vec<u64>>,
    /// Where other indirect jumps and calls went before, by their address.
    pub(crate) seen_targets: Map<Vec<u64>>,
    /// The switch that indirect jumps through a register share, by its number.
    pub(crate) dispatch: Map<Block>,
    /// Calls that are part of the region.
    pub(crate) inlines: Inlines,
    /// The one that the current block belongs to.
    pub(crate) call: u64,
    /// A condition of the current flags, which are those of a floating comparison, was computed.
    pub(crate) fcmp_used: bool,
    /// Floating comparisons raise their flags where they stand.
    pub(crate) strict: bool,
    /// Blocks of the region by place.
    pub(crate) targets: Map<Block>,
    known: [Option<Value>; 128],
    /// What general registers are modulo a power of two (modulus, residue), since an alignment check said so and the
    /// register has not been written. It holds across the blocks that one guest block is made of.
    pub(crate) residues: [Option<(u64, u64)>; 16],
    low: [Option<Value>; 16],
    consts: Vec<(Type, i64, Value)>,
    defs: Vec<Option<Inst>>,
    stubs: Map<Block>,
}

impl Lifter {
    pub(crate) fn new(bits: u32) -> Self {
        Lifter {
            b: Builder::new(&evm_cpu::LAYOUT, &helpers::SIGS),
            bits,
            v3: true,
            pc: 0,
            next: 0,
            cc: Cc::default(),
            ended: false,
            plt: Map::default(),
            tables: Map::default(),
            seen_targets: Map::default(),
            dispatch: Map::default(),
            inlines: Inlines::default(),
            call: 0,
            strict: false,
            fcmp_used: false,
            targets: Map::default(),
            known: [None; 128],
            residues: [None; 16],
            low: [None; 16],
            consts: Vec::with_capacity(16),
            defs: Vec::with_capacity(128),
            stubs: Map::default(),
        }
    }

    // ---- blocks ----

    /// Fill this block from now on; nothing is known of values.
    pub fn start(&mut self, b: Block) {
        self.b.switch_to(b);
        self.ended = false;
        self.forget();
        self.consts.clear();
    }
    fn forget(&mut self) {
        self.known = [None; 128];
        self.low = [None; 16];
        self.cc.forget_values();
    }
    /// End the current block. Flags that were put off are written.
    pub fn end(&mut self, t: Term) {
        self.flush_cc();
        self.b.term(t);
        self.ended = true;
    }
    /// A new block inside the current instruction.
    pub fn inner(&mut self) -> Block {
        self.b.block(self.pc, false)
    }
    /// The block at a guest address, or one that leaves the region for it.
    pub fn edge(&mut self, pc: u64) -> Block {
        let pc = self.wrap_pc(pc);
        let at = place(self.call, pc);
        if let Some(b) = self.targets.get(&at) {
            return *b;
        }
        if let Some(b) = self.stubs.get(&at) {
            return *b;
        }
        let here = self.b.current();
        let stub = self.b.block(pc, false);
        self.b.switch_to(stub);
        let v = self.b.iconst(Type::I64, pc as i64);
        let t = self.way_out(v);
        self.b.term(t);
        self.b.switch_to(here);
        self.stubs.insert(at, stub);
        stub
    }
    /// The terminator that leaves the region for guest address `pc`.
    fn way_out(&self, pc: Value) -> Term {
        match self.inlines.way_back(place(self.call, 0)) {
            Some(back) => Term::Call { target: pc, ret: pc_of(back), cont: self.targets.get(&back).copied() },
            None => Term::Exit(pc),
        }
    }
    /// End the block by leaving the region for guest address `pc`.
    pub fn leave(&mut self, pc: Value) {
        let t = self.way_out(pc);
        self.end(t);
    }
    /// The block of the callee that the call at this instruction goes to inside the region, with its address.
    pub fn inlined(&self) -> Option<(u64, Block)> {
        let at = self.inlines.callee(place(self.call, self.pc))?;
        Some((pc_of(at), *self.targets.get(&at)?))
    }
    /// Where a return goes to inside the region.
    pub fn way_back(&self) -> Option<(u64, Block)> {
        let at = self.inlines.way_back(place(self.call, self.pc))?;
        Some((pc_of(at), *self.targets.get(&at)?))
    }
    /// The block at a guest address if it is part of the region.
    pub fn known_block(&self, pc: u64) -> Option<Block> {
        self.targets.get(&place(self.call, pc)).copied()
    }
    fn wrap_pc(&self, pc: u64) -> u64 {
        if self.bits == 32 { pc & 0xffff_ffff } else { pc }
    }
    /// A block that raises an exception at this instruction.
    pub fn raise_block(&mut self, code: u32, arg: u64) -> Block {
        let here = self.b.current();
        let b = self.inner();
        self.b.switch_to(b);
        self.b.term(Term::Raise { code, arg, pc: self.pc });
        self.b.switch_to(here);
        b
    }
    /// End the block by raising an exception.
    pub fn raise(&mut self, code: u32, arg: u64) {
        let pc = self.pc;
        self.end(Term::Raise { code, arg, pc });
    }
    /// If `cond` (I8), raise; then go on in a new block, where earlier values are gone.
    pub fn raise_if(&mut self, cond: Value, code: u32, arg: u64) {
        let bad = self.raise_block(code, arg);
        let go = self.inner();
        self.end(Term::Br(cond, bad, go));
        self.start(go);
    }

    // ---- slots ----

    /// Read a slot.
    pub fn get(&mut self, s: Slot) -> Value {
        if let Some(v) = self.known[s.0 as usize] {
            return v;
        }
        let v = self.b.get(s);
        self.known[s.0 as usize] = Some(v);
        v
    }
    /// Write a slot.
    pub fn put(&mut self, s: Slot, v: Value) {
        self.b.put(s, v);
        self.known[s.0 as usize] = Some(v);
        if (s.0 as usize) < 16 {
            self.low[s.0 as usize] = None;
            self.residues[s.0 as usize] = None;
        }
    }
    /// Call a helper; gives its result or `Value::NONE`.
    pub fn call(&mut self, helper: u16, args: &[Value]) -> Value {
        let sig = &helpers::SIGS[helper as usize];
        if sig.effects == Effects::All {
            self.flush_cc();
        }
        let v = self.b.call(helper, args);
        match sig.effects {
            Effects::Pure => {}
            Effects::Private => {
                for (k, s) in self.known.iter_mut().zip(evm_cpu::LAYOUT.slots) {
                    if !s.promote {
                        *k = None;
                    }
                }
            }
            Effects::All => {
                self.forget();
                self.residues = [None; 16];
            }
        }
        v
    }
    /// XMM register by number.
    pub fn xmm(&mut self, n: usize) -> Value {
        self.get(evm_cpu::xmm(n))
    }
    /// Write an XMM register.
    pub fn set_xmm(&mut self, n: usize, v: Value) {
        self.put(evm_cpu::xmm(n), v);
    }

    // ---- general registers ----

    /// Read a general register (any width) as an integer of its width.
    pub fn gpr(&mut self, r: Register) -> Value {
        let n = full(r);
        let ty = Type::int(r.size() as u32);
        if is_high(r) {
            let v = self.get(evm_cpu::gpr(n));
            let c = self.iconst(Type::I64, 8);
            let v = self.bin(Op::Shr, Type::I64, v, c);
            return self.trunc(Type::I8, v);
        }
        if let Some(v) = self.low[n]
            && self.b.ty(v).bytes() >= ty.bytes()
        {
            return self.trunc(ty, v);
        }
        let v = self.get(evm_cpu::gpr(n));
        self.trunc(ty, v)
    }
    /// Read the 64-bit register that contains `r`.
    pub fn gpr64(&mut self, r: Register) -> Value {
        self.get(evm_cpu::gpr(full(r)))
    }
    /// Write a general register with an integer of its width: 32-bit writes zero the upper half,
    /// narrower ones keep the rest.
    pub fn set_gpr(&mut self, r: Register, v: Value) {
        let n = full(r);
        let s = evm_cpu::gpr(n);
        if is_high(r) {
            let old = self.get(s);
            let m = self.iconst(Type::I64, !0xff00);
            let old = self.bin(Op::And, Type::I64, old, m);
            let v = self.zext(Type::I64, v);
            let c = self.iconst(Type::I64, 8);
            let v = self.bin(Op::Shl, Type::I64, v, c);
            let v = self.bin(Op::Or, Type::I64, old, v);
            self.put(s, v);
            return;
        }
        match r.size() {
            8 => self.put(s, v),
            4 => {
                let z = self.zext(Type::I64, v);
                self.put(s, z);
                self.low[n] = Some(v);
            }
            size => {
                let old = self.get(s);
                let m = self.iconst(Type::I64, if size == 1 { !0xff } else { !0xffff });
                let old = self.bin(Op::And, Type::I64, old, m);
                let z = self.zext(Type::I64, v);
                let z = self.bin(Op::Or, Type::I64, old, z);
                self.put(s, z);
                self.low[n] = Some(v);
            }
        }
    }

    // ---- operands ----

    /// Address of the instruction's memory operand. Its displacement has room for [`Addr::plus`] of
    /// operand sizes.
    pub fn addr(&mut self, insn: &Instruction) -> Addr {
        self.addr_of(insn, true)
    }
    /// Address with or without the segment base (LEA ignores it).
    pub fn addr_of(&mut self, insn: &Instruction, segment: bool) -> Addr {
        let mut a = self.addr_flat(insn);
        if segment {
            if self.bits == 32 && a.disp != 0 {
                a = self.narrow_addr(a);
            }
            a.base = self.with_segment(insn, a.base);
        }
        a
    }
    /// Add the base of the instruction's segment (FS and GS have one).
    pub fn with_segment(&mut self, insn: &Instruction, v: Value) -> Value {
        let base = match insn.memory_segment() {
            Register::FS => slot::FS_BASE,
            Register::GS => slot::GS_BASE,
            _ => return v,
        };
        let s = self.get(base);
        let v = self.bin(Op::Add, Type::I64, v, s);
        if self.bits == 32 {
            let v = self.trunc(Type::I32, v);
            return self.zext(Type::I64, v);
        }
        v
    }
    /// An address modulo 2^32.
    pub fn narrow_addr(&mut self, a: Addr) -> Addr {
        let v = self.flat(a);
        let v = self.trunc(Type::I32, v);
        Addr { base: self.zext(Type::I64, v), disp: 0 }
    }
    fn addr_flat(&mut self, insn: &Instruction) -> Addr {
        let (base, index) = (insn.memory_base(), insn.memory_index());
        let disp = insn.memory_displacement64();
        if insn.is_ip_rel_memory_operand() {
            return Addr { base: self.iconst(Type::I64, disp as i64), disp: 0 };
        }
        if base.size() == 2 || index.size() == 2 {
            return self.addr_16(base, index, disp);
        }
        let narrow = match (base, index) {
            (Register::None, Register::None) => {
                let disp = if self.bits == 32 { disp & 0xffff_ffff } else { disp };
                return Addr { base: self.iconst(Type::I64, disp as i64), disp: 0 };
            }
            (Register::None, r) | (r, _) => r.size() == 4,
        };
        let mut v = match base {
            Register::None => None,
            r => Some(self.gpr64(r)),
        };
        if index != Register::None {
            let mut i = self.gpr64(index);
            let scale = insn.memory_index_scale().trailing_zeros();
            if scale != 0 {
                let c = self.iconst(Type::I64, i64::from(scale));
                i = self.bin(Op::Shl, Type::I64, i, c);
            }
            v = Some(match v {
                Some(b) => self.bin(Op::Add, Type::I64, b, i),
                None => i,
            });
        }
        let d = disp as i64 as i32;
        let v = v.expect("base or index");
        if narrow {
            return self.narrow_addr(Addr { base: v, disp: d });
        }
        if d > i32::MAX - 4096 {
            let c = self.iconst(Type::I64, i64::from(d));
            return Addr { base: self.bin(Op::Add, Type::I64, v, c), disp: 0 };
        }
        Addr { base: v, disp: d }
    }
    /// A 16-bit address: BX or BP, SI or DI, and a displacement, modulo 2^16.
    fn addr_16(&mut self, base: Register, index: Register, disp: u64) -> Addr {
        let mut v = self.iconst(Type::I16, disp as i64);
        for r in [base, index] {
            if r != Register::None {
                let x = self.gpr(r);
                v = self.bin(Op::Add, Type::I16, x, v);
            }
        }
        Addr { base: self.zext(Type::I64, v), disp: 0 }
    }
    /// An address as one value.
    pub fn flat(&mut self, a: Addr) -> Value {
        if a.disp == 0 {
            return a.base;
        }
        let c = self.iconst(Type::I64, i64::from(a.disp));
        self.bin(Op::Add, Type::I64, a.base, c)
    }
    /// Guest load (any value type).
    pub fn load(&mut self, ty: Type, a: Addr) -> Value {
        let v = self.b.load(ty, a.base, a.disp);
        self.note(Op::Load, ty, v, a.base, Value::NONE, i64::from(a.disp))
    }
    /// Before several stores that are one of `bytes` on the CPU.
    pub fn whole(&mut self, a: Addr, bytes: i64) {
        let at = self.flat(a);
        self.b.whole(at, bytes);
    }
    /// Guest store.
    pub fn store(&mut self, ty: Type, a: Addr, v: Value) {
        self.b.store(ty, a.base, a.disp, v);
    }
    /// Width of operand `i` as an integer type.
    pub fn op_type(&self, insn: &Instruction, i: u32) -> Type {
        match insn.op_kind(i) {
            OpKind::Register => Type::int(insn.op_register(i).size() as u32),
            OpKind::Memory => Type::int(insn.memory_size().size() as u32),
            _ => match insn.op_kind(0) {
                OpKind::Register => Type::int(insn.op_register(0).size() as u32),
                _ => Type::int(insn.memory_size().size() as u32),
            },
        }
    }
    /// Read an integer operand: register, memory or immediate. An immediate has operand 0's width.
    pub fn read_op(&mut self, insn: &Instruction, i: u32) -> Value {
        match insn.op_kind(i) {
            OpKind::Register => self.gpr(insn.op_register(i)),
            OpKind::Memory => {
                let a = self.addr(insn);
                let ty = self.op_type(insn, i);
                self.load(ty, a)
            }
            _ => {
                let ty = self.op_type(insn, i);
                self.iconst(ty, insn.immediate(i) as i64)
            }
        }
    }
    /// Write an integer operand: register or memory.
    pub fn write_op(&mut self, insn: &Instruction, i: u32, v: Value) {
        match insn.op_kind(i) {
            OpKind::Register => self.set_gpr(insn.op_register(i), v),
            _ => {
                let a = self.addr(insn);
                let ty = self.op_type(insn, i);
                self.store(ty, a, v);
            }
        }
    }

    // ---- pure operations, with folding ----

    /// The constant a value is, sign-extended from its width.
    pub fn const_of(&self, v: Value) -> Option<i64> {
        match self.def(v) {
            Some(i) if i.op == Op::Const && i.ty.is_int() => Some(sext(i.ty, i.imm)),
            _ => None,
        }
    }
    /// The instruction that made a value, if the context made it.
    pub fn def(&self, v: Value) -> Option<Inst> {
        self.defs.get(v.0 as usize).copied().flatten()
    }
    fn note(&mut self, op: Op, ty: Type, dst: Value, a: Value, b: Value, imm: i64) -> Value {
        let n = dst.0 as usize;
        if self.defs.len() <= n {
            self.defs.resize(n + 1, None);
        }
        self.defs[n] = Some(Inst { op, ty, dst, a, b, c: Value::NONE, imm });
        dst
    }
    /// Integer constant.
    pub fn iconst(&mut self, ty: Type, imm: i64) -> Value {
        let imm = sext(ty, imm);
        if let Some(c) = self.consts.iter().find(|c| c.0 == ty && c.1 == imm) {
            return c.2;
        }
        let v = self.b.iconst(ty, imm);
        self.consts.push((ty, imm, v));
        self.note(Op::Const, ty, v, Value::NONE, Value::NONE, imm)
    }
    /// Two-operand integer instruction.
    pub fn bin(&mut self, op: Op, ty: Type, a: Value, b: Value) -> Value {
        if ty.is_int() {
            let (ca, cb) = (self.const_of(a), self.const_of(b));
            if let (Some(x), Some(y)) = (ca, cb)
                && let Some(r) = fold(op, ty, x, y)
            {
                return self.iconst(ty, r);
            }
            match (op, ca, cb) {
                (
                    Op::Add | Op::Sub | Op::Or | Op::Xor | Op::Shl | Op::Shr | Op::Sar | Op::Rotl | Op::Rotr,
                    _,
                    Some(0),
                )
                | (Op::And, _, Some(-1)) => return a,
                (Op::Add | Op::Or | Op::Xor, Some(0), _) | (Op::And, Some(-1), _) => return b,
                (Op::And | Op::Mul, _, Some(0)) => return b,
                (Op::And | Op::Or, _, _) if a == b => return a,
                (Op::Xor | Op::Sub, _, _) if a == b => return self.iconst(ty, 0),
                (Op::Sub, _, Some(y)) => return self.bini(Op::Add, ty, a, y.wrapping_neg()),
                (Op::Add, _, Some(y)) => {
                    // (x + c) + y = x + (c + y)
                    if let Some((x, c)) = self.sum_of(a) {
                        return self.bini(Op::Add, ty, x, c.wrapping_add(y));
                    }
                }
                _ => {}
            }
        }
        let v = self.b.bin(op, ty, a, b);
        self.note(op, ty, v, a, b, 0)
    }
    /// The value and the constant that a value is the sum of.
    fn sum_of(&self, v: Value) -> Option<(Value, i64)> {
        let d = self.def(v).filter(|d| d.op == Op::Add)?;
        Some((d.a, self.const_of(d.b)?))
    }
    /// Two-operand instruction with a constant.
    pub fn bini(&mut self, op: Op, ty: Type, a: Value, imm: i64) -> Value {
        let c = self.iconst(ty, imm);
        self.bin(op, ty, a, c)
    }
    /// One-operand integer instruction.
    pub fn un(&mut self, op: Op, ty: Type, a: Value) -> Value {
        if let Some(x) = self.const_of(a) {
            match op {
                Op::Neg => return self.iconst(ty, x.wrapping_neg()),
                Op::Not => return self.iconst(ty, !x),
                _ => {}
            }
        }
        let v = self.b.un(op, ty, a);
        self.note(op, ty, v, a, Value::NONE, 0)
    }
    /// Comparison, I8 0 or 1.
    pub fn icmp(&mut self, c: Cond, a: Value, b: Value) -> Value {
        let ty = self.b.ty(a);
        if let (Some(x), Some(y)) = (self.const_of(a), self.const_of(b)) {
            return self.iconst(Type::I8, i64::from(compare(c, x, y)));
        }
        let v = self.b.icmp(c, ty, a, b);
        self.note(Op::Icmp, ty, v, a, b, c as i64)
    }
    /// Comparison with a constant.
    pub fn icmpi(&mut self, c: Cond, a: Value, imm: i64) -> Value {
        let ty = self.b.ty(a);
        let k = self.iconst(ty, imm);
        self.icmp(c, a, k)
    }
    /// Boolean negation.
    pub fn not_bool(&mut self, v: Value) -> Value {
        if let Some(i) = self.def(v)
            && i.op == Op::Icmp
        {
            let c = Cond::ALL[i.imm as usize];
            return self.icmp(negate(c), i.a, i.b);
        }
        self.bini(Op::Xor, Type::I8, v, 1)
    }
    /// `cond ? a : b`.
    pub fn select(&mut self, cond: Value, a: Value, b: Value) -> Value {
        match self.const_of(cond) {
            _ if a == b => a,
            Some(0) => b,
            Some(_) => a,
            None => {
                let ty = self.b.ty(a);
                self.b.select(ty, cond, a, b)
            }
        }
    }
    /// Low bits; the value itself if it has that type.
    pub fn trunc(&mut self, to: Type, v: Value) -> Value {
        let from = self.b.ty(v);
        if from == to {
            return v;
        }
        if let Some(i) = self.def(v) {
            match i.op {
                Op::Const => return self.iconst(to, i.imm),
                Op::Zext | Op::Sext => {
                    let inner = self.b.ty(i.a);
                    return if inner.bytes() >= to.bytes() { self.trunc(to, i.a) } else { self.extend(i.op, to, i.a) };
                }
                Op::Trunc => return self.trunc(to, i.a),
                _ => {}
            }
        }
        let r = self.b.conv(Op::Trunc, to, v);
        self.note(Op::Trunc, to, r, v, Value::NONE, from as i64)
    }
    /// Zero extension; the value itself if it has that type.
    pub fn zext(&mut self, to: Type, v: Value) -> Value {
        self.extend(Op::Zext, to, v)
    }
    /// Sign extension.
    pub fn sext(&mut self, to: Type, v: Value) -> Value {
        self.extend(Op::Sext, to, v)
    }
    /// Sign or zero extension.
    pub fn extend(&mut self, op: Op, to: Type, v: Value) -> Value {
        let from = self.b.ty(v);
        if from == to {
            return v;
        }
        if let Some(i) = self.def(v) {
            match i.op {
                Op::Const if op == Op::Sext => return self.iconst(to, sext(i.ty, i.imm)),
                Op::Const => return self.iconst(to, zext(i.ty, i.imm)),
                Op::Zext => return self.extend(Op::Zext, to, i.a),
                Op::Sext if op == Op::Sext => return self.extend(op, to, i.a),
                _ => {}
            }
        }
        let r = self.b.conv(op, to, v);
        self.note(op, to, r, v, Value::NONE, from as i64)
    }
    /// Bit cast between an integer and a float of the same size.
    pub fn bitcast(&mut self, to: Type, v: Value) -> Value {
        self.b.conv(Op::Bitcast, to, v)
    }
}

/// Encoding number of the 64-bit register that contains `r`.
pub(crate) fn full(r: Register) -> usize {
    r.full_register().number()
}

fn is_high(r: Register) -> bool {
    matches!(r, Register::AH | Register::BH | Register::CH | Register::DH)
}

/// The opposite condition.
pub(crate) fn negate(c: Cond) -> Cond {
    match c {
        Cond::Eq => Cond::Ne,
        Cond::Ne => Cond::Eq,
        Cond::Ult => Cond::Uge,
        Cond::Ule => Cond::Ugt,
        Cond::Ugt => Cond::Ule,
        Cond::Uge => Cond::Ult,
        Cond::Slt => Cond::Sge,
        Cond::Sle => Cond::Sgt,
        Cond::Sgt => Cond::Sle,
        Cond::Sge => Cond::Slt,
    }
}

/// Comparison of sign-extended constants of one width (sign extension keeps the unsigned order too).
fn compare(c: Cond, x: i64, y: i64) -> bool {
    let (ux, uy) = (x as u64, y as u64);
    match c {
        Cond::Eq => x == y,
        Cond::Ne => x != y,
        Cond::Ult => ux < uy,
        Cond::Ule => ux <= uy,
        Cond::Ugt => ux > uy,
        Cond::Uge => ux >= uy,
        Cond::Slt => x < y,
        Cond::Sle => x <= y,
        Cond::Sgt => x > y,
        Cond::Sge => x >= y,
    }
}

fn sext(ty: Type, v: i64) -> i64 {
    let s = 64 - ty.bits();
    v << s >> s
}

fn zext(ty: Type, v: i64) -> i64 {
    let s = 64 - ty.bits();
    ((v as u64) << s >> s) as i64
}

fn fold(op: Op, ty: Type, x: i64, y: i64) -> Option<i64> {
    let n = (y as u64 & u64::from(ty.bits() - 1)) as u32;
    Some(match op {
        Op::Add => x.wrapping_add(y),
        Op::Sub => x.wrapping_sub(y),
        Op::Mul => x.wrapping_mul(y),
        Op::And => x & y,
        Op::Or => x | y,
        Op::Xor => x ^ y,
        Op::Shl => x << n,
        Op::Shr => ((zext(ty, x) as u64) >> n) as i64,
        Op::Sar => x >> n,
        _ => return None,
    })
}
