//! Guest memory: the check, the address, loads, stores and atomics.

use super::Unsupported;
use super::lower::{Cold, Lower};
use crate::abi::UNMAPPED;
use crate::asm::{Label, R15, RAX, RDI, Rm, alu, cc};
use evm_ir::{Inst, Op, Type, Value};

/// Displacements to the left are no larger, and those of sums that go unchecked.
const NEAR: i32 = 1 << 29;
const PAGE: i32 = evm_memory::PAGE as i32;

impl Lower<'_> {
    /// Check `a + disp` unless its base was checked in this block, and give the host address.
    fn place(&mut self, a: Value, disp: i64) -> Rm {
        let disp = disp as i32;
        if let Some(k) = self.imm_of(a)
            && let Ok(d) = i32::try_from((k as i64).wrapping_add(i64::from(disp)))
            && d >= 0
        {
            // Below 2 GiB: inside guest memory, or inside the guard that follows it.
            return Rm::Mem(R15, d);
        }
        let mut root = self.gpr(a);
        let mut disp = disp;
        let far = disp < -NEAR;
        if far {
            let sum = self.alloc_gpr();
            self.a.lea(8, sum, Rm::Mem(root, disp));
            (root, disp) = (sum, 0);
        }
        if far || !self.checked.contains(&a) {
            self.a.alu(8, alu::CMP, root, Rm::Mem(RDI, self.abi.mem_limit as i32));
            if disp.unsigned_abs() <= UNMAPPED {
                // A sum that wraps lies where nothing is mapped.
                let at = self.trap();
                self.a.jcc(cc::A, at);
            } else {
                let (at, back) = (self.a.label(), self.a.label());
                self.a.jcc(cc::A, at);
                self.a.bind(back);
                self.cold.push(Cold::Limit { at, back, root, disp, pc: self.pc });
            }
            // The cold path lets a root pass whose sum with `disp` is inside: then another sum lies no further off
            // than the two displacements. To the left that must not come near the word in front of guest memory.
            if !far && disp.abs() <= NEAR {
                self.checked.push(a);
            }
        }
        Rm::Index(R15, root, disp)
    }
    /// The next host instruction accesses guest memory.
    fn mark(&mut self) {
        self.pcs.push((self.a.pos(), self.pc));
    }
    /// The next host instruction may raise a floating-point exception.
    pub(super) fn mark_float(&mut self) {
        if self.traps {
            self.mark();
        }
    }

    pub(super) fn aligned(&mut self, i: &Inst) {
        let r = self.gpr(i.a);
        self.a.test_imm(r, i.imm as i32 - 1);
        let at = self.trap();
        self.a.jcc(cc::NE, at);
    }
    /// Where an access goes that is sure to fail: the host traps there, and the instruction at hand is left to the
    /// interpreter, which finds out how. The state is that before it.
    fn trap(&mut self) -> Label {
        match self.trap {
            Some((pc, at)) if pc == self.pc => at,
            _ => {
                let at = self.a.label();
                self.trap = Some((self.pc, at));
                self.cold.push(Cold::Trap { at, pc: self.pc });
                at
            }
        }
    }

    pub(super) fn whole(&mut self, i: &Inst) {
        let (a, n) = (self.gpr(i.a), i.imm as i32);
        let (at, back) = (self.a.label(), self.a.label());
        self.a.load(4, RAX, Rm::Reg(a));
        self.a.alu_imm(4, alu::AND, Rm::Reg(RAX), PAGE - 1);
        self.a.alu_imm(4, alu::CMP, Rm::Reg(RAX), PAGE - n);
        self.a.jcc(cc::A, at);
        self.a.bind(back);
        self.cold.push(Cold::Whole { at, back, a, n, pc: self.pc });
    }

    pub(super) fn load(&mut self, i: &Inst) {
        let p = self.place(i.a, i.imm);
        let d = self.dst(i.dst);
        self.mark();
        match i.ty {
            Type::V128 => self.a.sse(0, 4, 0x0f10, d, p),
            Type::F64 => self.a.sse(0xf2, 4, 0x0f10, d, p),
            Type::F32 => self.a.sse(0xf3, 4, 0x0f10, d, p),
            t => self.a.load(t.bytes(), d, p),
        }
    }
    pub(super) fn store(&mut self, i: &Inst) {
        let p = self.place(i.a, i.imm);
        if i.ty.is_int()
            && let Some(x) = self.imm_of(i.b)
            && (i.ty != Type::I64 || i64::from(x as i64 as i32) == x as i64)
        {
            self.mark();
            self.a.store_imm(i.ty.bytes(), p, x);
            return;
        }
        let v = self.reg(i.b);
        self.mark();
        match i.ty {
            Type::V128 => self.a.sse(0, 4, 0x0f11, v, p),
            Type::F64 => self.a.sse(0xf2, 4, 0x0f11, v, p),
            Type::F32 => self.a.sse(0xf3, 4, 0x0f11, v, p),
            t => self.a.store(t.bytes(), p, v),
        }
    }

    pub(super) fn rmw(&mut self, i: &Inst) -> Result<(), Unsupported> {
        if !i.ty.is_int() {
            return Err(Unsupported(i.op.name()));
        }
        let w = i.ty.bytes();
        let p = self.place(i.a, i.imm);
        let b = self.gpr(i.b);
        let logic = match i.op {
            Op::AtomicAnd => Some(alu::AND),
            Op::AtomicOr => Some(alu::OR),
            Op::AtomicXor => Some(alu::XOR),
            Op::AtomicAdd | Op::AtomicXchg => None,
            op => return Err(Unsupported(op.name())),
        };
        let Some(n) = logic else {
            let d = self.dst_from_locked(i.dst, i.b);
            self.mark();
            if i.op == Op::AtomicAdd {
                self.a.lock();
                self.a.exchange(w, 0x0fc1, p, d);
            } else {
                self.a.exchange(w, 0x87, p, d);
            }
            self.a.load(w, d, Rm::Reg(d));
            return Ok(());
        };
        if self.vals[i.dst.0 as usize].uses == 0 {
            self.mark();
            self.a.lock();
            self.a.alu_to(w, n, p, b);
            self.define_unused(i.dst);
            return Ok(());
        }
        let d = self.dst(i.dst);
        self.mark();
        self.a.load(w, RAX, p);
        let again = self.a.label();
        self.a.bind(again);
        self.a.load(w.max(4), d, Rm::Reg(RAX));
        self.a.alu(w.max(4), n, d, Rm::Reg(b));
        self.mark();
        self.a.lock();
        self.a.exchange(w, 0x0fb1, p, d);
        self.a.jcc(cc::NE, again);
        self.a.load(w, d, Rm::Reg(RAX));
        Ok(())
    }
    pub(super) fn cas(&mut self, i: &Inst) -> Result<(), Unsupported> {
        if !i.ty.is_int() {
            // CMPXCHG16B needs a register that is not ours.
            return Err(Unsupported(i.op.name()));
        }
        let w = i.ty.bytes();
        let p = self.place(i.a, i.imm);
        let new = self.gpr(i.c);
        let d = self.dst(i.dst);
        self.copy_gpr(i.b, RAX);
        self.mark();
        self.a.lock();
        self.a.exchange(w, 0x0fb1, p, new);
        self.a.load(w, d, Rm::Reg(RAX));
        Ok(())
    }
    /// A result register that starts as a copy of `from`; never `from`'s own.
    fn dst_from_locked(&mut self, v: Value, from: Value) -> u8 {
        let d = self.alloc_gpr();
        self.copy_gpr(from, d);
        self.define(v, d);
        d
    }
    fn define_unused(&mut self, v: Value) {
        self.val(v).home = super::place::Home::Imm(0);
    }
}
