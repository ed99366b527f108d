//! Where values are: registers, homes, cells.

use super::lower::Lower;
use crate::asm::{R8, R9, R10, R11, RAX, RCX, RDI, RDX, RSI, Reg, Rm};
use evm_ir::{Inst, Slot, Type, Value};

/// "No register".
pub(super) const NO_REG: Reg = 0xff;
/// Registers for integers, in order of preference: those with a special role last.
const GPRS: [Reg; 7] = [R8, R9, R10, R11, RSI, RDX, RCX];
/// Scratch vector register.
pub(super) const SCRATCH: Reg = 15;
/// "Used by the terminator".
pub(super) const END: u32 = u32::MAX - 1;
/// Bytes of a cell.
pub(super) const CELL: u32 = 16;
/// Cells of the scratch area.
pub const CELLS: u32 = 64;

/// Where a value can be had if it is in no register.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) enum Home {
    /// Nowhere.
    #[default]
    None,
    /// It is this constant (zero-extended bits).
    Imm(u64),
    /// It is this constant of the region's pool.
    Pool(u32),
    /// In the slot, at this offset of the state.
    State(u32, Slot),
    /// In this cell.
    Cell(u32),
    /// The outcome of the comparison at this index of the block, to be done by the branch.
    Compare(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Val {
    pub home: Home,
    pub reg: Reg,
    /// Index in the block of the last use.
    pub last: u32,
    pub uses: u32,
}

impl Default for Val {
    fn default() -> Val {
        Val { home: Home::None, reg: NO_REG, last: 0, uses: 0 }
    }
}

/// What is in the registers of the block at hand.
pub(super) struct Registers {
    gpr: [Value; 16],
    xmm: [Value; 16],
    /// Not to be given away during this instruction.
    locked_gpr: u16,
    locked_xmm: u16,
    /// Bit set: cell free.
    cells: u64,
    /// Values whose home was once a slot.
    homed: Vec<(Value, Slot)>,
}

impl Registers {
    pub fn new() -> Registers {
        Registers {
            gpr: [Value::NONE; 16],
            xmm: [Value::NONE; 16],
            locked_gpr: 0,
            locked_xmm: 0,
            cells: u64::MAX,
            homed: vec![],
        }
    }
    pub fn clear(&mut self) {
        self.gpr = [Value::NONE; 16];
        self.xmm = [Value::NONE; 16];
        self.locked_gpr = 0;
        self.locked_xmm = 0;
        self.cells = u64::MAX;
        self.homed.clear();
    }
}

/// Whether values of a type live in vector registers.
pub(super) fn is_vector(ty: Type) -> bool {
    matches!(ty, Type::F32 | Type::F64 | Type::V128)
}

impl Lower<'_> {
    pub(super) fn ty(&self, v: Value) -> Type {
        self.r.types[v.0 as usize]
    }
    pub(super) fn val(&mut self, v: Value) -> &mut Val {
        &mut self.vals[v.0 as usize]
    }
    pub(super) fn home(&self, v: Value) -> Home {
        self.vals[v.0 as usize].home
    }
    /// Whether the instruction at hand is the last to use `v`.
    pub(super) fn dies(&self, v: Value) -> bool {
        self.vals[v.0 as usize].last == self.at
    }
    /// The constant that an integer or scalar float is.
    pub(super) fn imm_of(&self, v: Value) -> Option<u64> {
        match self.home(v) {
            Home::Imm(x) => Some(x),
            _ => None,
        }
    }
    /// The constant as a sign-extended 32-bit immediate for an operation of `ty`.
    pub(super) fn imm32(&self, v: Value, ty: Type) -> Option<i32> {
        let x = self.imm_of(v)?;
        let s = 64 - ty.bits();
        i32::try_from((x << s) as i64 >> s).ok()
    }

    // ---- registers

    fn occupant(&mut self, vector: bool, r: Reg) -> &mut Value {
        if vector { &mut self.regs.xmm[r as usize] } else { &mut self.regs.gpr[r as usize] }
    }
    fn lock(&mut self, vector: bool, r: Reg) {
        if vector {
            self.regs.locked_xmm |= 1 << r;
        } else {
            self.regs.locked_gpr |= 1 << r;
        }
    }
    /// A free general register other than those in use by this instruction; locked.
    pub(super) fn alloc_gpr(&mut self) -> Reg {
        self.alloc(false)
    }
    /// A free vector register; locked.
    pub(super) fn alloc_xmm(&mut self) -> Reg {
        self.alloc(true)
    }
    fn alloc(&mut self, vector: bool) -> Reg {
        const XMMS: [Reg; 15] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14];
        let (order, locked): (&[Reg], u16) =
            if vector { (&XMMS, self.regs.locked_xmm) } else { (&GPRS, self.regs.locked_gpr) };
        let open = |r: &&Reg| locked >> **r & 1 == 0;
        let held = if vector { &self.regs.xmm } else { &self.regs.gpr };
        let free = order.iter().filter(open).find(|r| !held[**r as usize].is_some());
        let r = match free {
            Some(r) => *r,
            None => {
                // The one that costs nothing to lose, then the one that is needed last.
                let cost = |r: &&Reg| {
                    let v = &self.vals[held[**r as usize].0 as usize];
                    (v.home == Home::None, u32::MAX - v.last)
                };
                let victim = order.iter().filter(open).min_by_key(cost).copied();
                let Some(r) = victim else {
                    self.failed = true;
                    return order[0];
                };
                self.spill(vector, r);
                r
            }
        };
        self.lock(vector, r);
        r
    }
    /// Empty a register; its value goes to a cell if it is needed and has no home.
    fn spill(&mut self, vector: bool, r: Reg) {
        let v = std::mem::replace(self.occupant(vector, r), Value::NONE);
        if !v.is_some() {
            return;
        }
        self.val(v).reg = NO_REG;
        let val = *self.val(v);
        if val.home == Home::None && val.last >= self.at {
            let c = self.alloc_cell();
            self.store_cell(v, r, c);
            self.val(v).home = Home::Cell(c);
        }
    }
    fn alloc_cell(&mut self) -> u32 {
        let n = self.regs.cells.trailing_zeros();
        if n >= CELLS {
            self.failed = true;
            return 0;
        }
        self.regs.cells &= !(1 << n);
        n
    }
    fn store_cell(&mut self, v: Value, r: Reg, cell: u32) {
        let at = self.cell(cell);
        match self.ty(v) {
            Type::V128 => self.a.sse(0, 4, 0x0f11, r, at),
            Type::F64 => self.a.sse(0xf2, 4, 0x0f11, r, at),
            Type::F32 => self.a.sse(0xf3, 4, 0x0f11, r, at),
            _ => self.a.store(8, at, r),
        }
    }
    pub(super) fn cell(&self, n: u32) -> Rm {
        Rm::Mem(RDI, (self.abi.scratch + n * CELL) as i32)
    }
    /// A general register for a special use; its value moves away. Locked.
    pub(super) fn take_gpr(&mut self, r: Reg) {
        let v = *self.occupant(false, r);
        if v.is_some() {
            let free = GPRS
                .iter()
                .find(|f| self.regs.locked_gpr >> **f & 1 == 0 && **f != r && !self.regs.gpr[**f as usize].is_some());
            match free.copied() {
                Some(f) if self.val(v).home == Home::None => {
                    self.a.store(8, Rm::Reg(f), r);
                    self.regs.gpr[r as usize] = Value::NONE;
                    self.regs.gpr[f as usize] = v;
                    self.val(v).reg = f;
                }
                _ => self.spill(false, r),
            }
        }
        self.lock(false, r);
    }

    /// The same for a vector register; its value goes to one above `keep`.
    pub(super) fn take_xmm(&mut self, r: Reg, keep: Reg) {
        let v = *self.occupant(true, r);
        if v.is_some() {
            let free = (keep..SCRATCH)
                .rev()
                .find(|f| self.regs.locked_xmm >> *f & 1 == 0 && !self.regs.xmm[usize::from(*f)].is_some());
            match free {
                Some(f) if self.val(v).home == Home::None => {
                    self.a.sse(0, 4, 0x0f28, f, Rm::Reg(r));
                    self.regs.xmm[usize::from(r)] = Value::NONE;
                    self.regs.xmm[usize::from(f)] = v;
                    self.val(v).reg = f;
                }
                _ => self.spill(true, r),
            }
        }
        self.lock(true, r);
    }

    // ---- operands

    /// The register that holds `v`, of the class of its type; locked.
    pub(super) fn reg(&mut self, v: Value) -> Reg {
        if is_vector(self.ty(v)) { self.xmm(v) } else { self.gpr(v) }
    }
    /// The general register that holds an integer; locked.
    pub(super) fn gpr(&mut self, v: Value) -> Reg {
        let r = self.val(v).reg;
        if r != NO_REG {
            self.lock(false, r);
            return r;
        }
        let r = self.alloc_gpr();
        self.copy_gpr(v, r);
        *self.occupant(false, r) = v;
        self.val(v).reg = r;
        r
    }
    /// Copy an integer to a general register, which does not become its register.
    pub(super) fn copy_gpr(&mut self, v: Value, r: Reg) {
        let val = *self.val(v);
        let w = self.ty(v).bytes();
        if val.reg != NO_REG {
            if val.reg != r {
                // The upper bits are zero (invariant 1): 32 bits do for narrower values.
                self.a.load(w.max(4), r, Rm::Reg(val.reg));
            }
            return;
        }
        match val.home {
            Home::Imm(x) => self.a.imm_keeping_flags(r, x),
            Home::State(o, _) => self.a.load(w, r, Rm::Mem(RDI, o as i32)),
            Home::Cell(c) => {
                let at = self.cell(c);
                self.a.load(8, r, at);
            }
            Home::Compare(n) => self.compare_to(n, r),
            Home::None | Home::Pool(_) => self.failed = true,
        }
    }
    /// The vector register that holds a float or vector; locked.
    pub(super) fn xmm(&mut self, v: Value) -> Reg {
        let r = self.val(v).reg;
        if r != NO_REG {
            self.lock(true, r);
            return r;
        }
        let r = self.alloc_xmm();
        self.copy_xmm(v, r);
        *self.occupant(true, r) = v;
        self.val(v).reg = r;
        r
    }
    /// Copy a float or vector to a vector register, which does not become its register.
    pub(super) fn copy_xmm(&mut self, v: Value, r: Reg) {
        let val = *self.val(v);
        if val.reg != NO_REG {
            if val.reg != r {
                self.a.sse(0, 4, 0x0f28, r, Rm::Reg(val.reg));
            }
            return;
        }
        let ty = self.ty(v);
        let from = match val.home {
            Home::Imm(0) => return self.a.sse(0, 4, 0x0f57, r, Rm::Reg(r)),
            Home::Imm(x) => {
                self.a.imm_keeping_flags(RAX, x);
                return self.a.sse(0x66, if ty == Type::F64 { 8 } else { 4 }, 0x0f6e, r, Rm::Reg(RAX));
            }
            Home::Pool(n) => match self.r.pool[n as usize] {
                0 => return self.a.sse(0, 4, 0x0f57, r, Rm::Reg(r)),
                u128::MAX => return self.a.sse(0x66, 4, 0x0f76, r, Rm::Reg(r)),
                x => self.a.constant(x),
            },
            Home::State(o, _) => Rm::Mem(RDI, o as i32),
            Home::Cell(c) => self.cell(c),
            Home::None | Home::Compare(_) => {
                self.failed = true;
                return;
            }
        };
        match ty {
            Type::F64 => self.a.sse(0xf2, 4, 0x0f10, r, from),
            Type::F32 => self.a.sse(0xf3, 4, 0x0f10, r, from),
            _ => self.a.sse(0, 4, 0x0f10, r, from),
        }
    }
    /// A vector operand as register or, if it is a constant, the pool's place.
    pub(super) fn xmm_or_const(&mut self, v: Value) -> Rm {
        if self.val(v).reg == NO_REG
            && let Home::Pool(n) = self.home(v)
        {
            return self.a.constant(self.r.pool[n as usize]);
        }
        Rm::Reg(self.xmm(v))
    }
    /// An integer operand: its register, or the slot or cell it is in if this is its last use.
    pub(super) fn gpr_or_mem(&mut self, v: Value) -> Rm {
        let val = *self.val(v);
        if val.reg == NO_REG && self.dies(v) {
            match val.home {
                Home::State(o, _) => return Rm::Mem(RDI, o as i32),
                Home::Cell(c) => return self.cell(c),
                _ => {}
            }
        }
        Rm::Reg(self.gpr(v))
    }

    // ---- results

    /// Make `r` the register of the result `v`.
    pub(super) fn define(&mut self, v: Value, r: Reg) {
        let vector = is_vector(self.ty(v));
        *self.occupant(vector, r) = v;
        self.val(v).reg = r;
        self.val(v).home = Home::None;
    }
    /// A new register for the result.
    pub(super) fn dst(&mut self, v: Value) -> Reg {
        let r = self.alloc(is_vector(self.ty(v)));
        self.define(v, r);
        r
    }
    /// A register for the result that starts as a copy of `from`, of the same class: `from`'s own if it dies here.
    /// Not to be used if another operand is still to be fetched.
    pub(super) fn dst_from(&mut self, v: Value, from: Value) -> Reg {
        let vector = is_vector(self.ty(from));
        let r = self.val(from).reg;
        if r != NO_REG && self.dies(from) {
            self.val(from).reg = NO_REG;
            self.lock(vector, r);
            self.define(v, r);
            return r;
        }
        let d = self.alloc(vector);
        if vector {
            self.copy_xmm(from, d);
        } else {
            self.copy_gpr(from, d);
        }
        self.define(v, d);
        d
    }
    /// `v` is the same bits as `from`, of the same class.
    pub(super) fn alias(&mut self, v: Value, from: Value) {
        match self.home(from) {
            h @ (Home::Imm(_) | Home::Pool(_)) => self.val(v).home = h,
            _ => {
                self.reg(from);
                self.dst_from(v, from);
            }
        }
    }
    /// After an instruction: operands that are used no more give up what they have.
    pub(super) fn end_uses(&mut self, i: &Inst) {
        self.regs.locked_gpr = 0;
        self.regs.locked_xmm = 0;
        let r = self.r;
        r.for_each_operand(i, |v| {
            if self.dies(v) {
                self.release(v);
            }
        });
        if i.dst.is_some() && self.vals[i.dst.0 as usize].uses == 0 {
            self.release(i.dst);
        }
    }
    pub(super) fn unlock(&mut self) {
        self.regs.locked_gpr = 0;
        self.regs.locked_xmm = 0;
    }
    fn release(&mut self, v: Value) {
        let val = *self.val(v);
        if val.reg != NO_REG {
            let vector = is_vector(self.ty(v));
            let o = self.occupant(vector, val.reg);
            if *o == v {
                *o = Value::NONE;
            }
            self.val(v).reg = NO_REG;
        }
        if let Home::Cell(c) = val.home {
            self.regs.cells |= 1 << c;
            self.val(v).home = Home::None;
        }
    }

    // ---- slots

    /// A value is now what the slot holds.
    pub(super) fn set_home(&mut self, v: Value, offset: u32, slot: Slot) {
        self.val(v).home = Home::State(offset, slot);
        self.regs.homed.push((v, slot));
    }
    /// The slots that `hit` names are about to change: values that are at home there and still needed get another
    /// place, a register or (`to_cells`) a cell.
    pub(super) fn move_out(&mut self, to_cells: bool, hit: impl Fn(Slot) -> bool) {
        let mut n = 0;
        while n < self.regs.homed.len() {
            let (v, s) = self.regs.homed[n];
            let val = *self.val(v);
            if !matches!(val.home, Home::State(_, h) if h == s) || val.last <= self.at {
                self.regs.homed.swap_remove(n);
                continue;
            }
            if !hit(s) {
                n += 1;
                continue;
            }
            self.regs.homed.swap_remove(n);
            let r = if val.reg == NO_REG { self.reg(v) } else { val.reg };
            self.val(v).home = Home::None;
            if to_cells {
                self.unlock();
                self.spill(is_vector(self.ty(v)), r);
            }
        }
    }
    /// Before a call of host code: every value that is needed at or after it gets a home, no register is in use.
    pub(super) fn empty_registers(&mut self) {
        for r in GPRS {
            self.spill(false, r);
        }
        for r in 0..15 {
            self.spill(true, r);
        }
    }
    /// Give a value that may be in a register a home in memory; its offset in the state.
    pub(super) fn in_memory(&mut self, v: Value) -> u32 {
        match self.home(v) {
            Home::State(o, _) if self.ty(v).bytes() >= 8 => o,
            Home::Cell(c) => self.abi.scratch + c * CELL,
            _ => {
                let r = self.reg(v);
                let c = self.alloc_cell();
                self.store_cell(v, r, c);
                self.val(v).home = Home::Cell(c);
                self.abi.scratch + c * CELL
            }
        }
    }
    /// A cell for the result of host code; its offset in the state.
    pub(super) fn dst_in_memory(&mut self, v: Value) -> u32 {
        let c = self.alloc_cell();
        self.val(v).home = Home::Cell(c);
        self.abi.scratch + c * CELL
    }
}
