//! Guest memory: the check, the address, loads, stores and atomics.

use super::Error;
use super::lower::{Lower, V, cl_type};
use super::patch::Patch;
use crate::abi::{MISALIGNED, TRAP_LIMIT, UNMAPPED};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{self as cl, AtomicRmwOp, InstBuilder, TrapCode, types};
use evm_ir::passes::WINDOW;
use evm_ir::{Inst, Op, Type, Value};
use evm_memory::LIMIT_AT;
use std::hash::{Hash, Hasher};

/// The largest displacement to the left. That is also how far off an access goes unchecked at most; the word at [`LIMIT_AT`] is
/// twice as far.
const LEFT: i64 = 2 * WINDOW;
const PAGE: i64 = evm_memory::PAGE as i64;

/// A host address: value and displacement.
struct Place {
    addr: V,
    disp: i32,
}

impl Lower<'_, '_> {
    /// Check `a + disp` where that is not proven yet, and form the host address.
    fn place(&mut self, a: Value, disp: i64) -> Result<Place, Error> {
        self.stats.accesses += 1;
        let disp = i64::from(disp as i32);
        if let Some(k) = self.constant(a) {
            return Ok(self.fixed(k.wrapping_add(disp)));
        }
        let a = self.val(a)?;
        let (root, k) = self.sums.get(&a).copied().unwrap_or((a, 0));
        let fits = |d: &i32| i64::from(*d) >= -LEFT;
        let (root, disp) = match i32::try_from(k + disp).ok().filter(fits) {
            Some(d) => (root, d),
            None if disp >= -LEFT => (a, disp as i32),
            None => (self.b.ins().iadd_imm_s(a, disp), 0),
        };
        if self.unproven.contains(&(self.here, self.place)) {
            self.check(root, disp);
        }
        Ok(Place { addr: self.b.ins().iadd(self.base, root), disp })
    }

    /// The address is known: below 2 GiB it is inside the guard at worst, and below the smallest
    /// limit it is inside.
    fn fixed(&mut self, at: i64) -> Place {
        if let Ok(disp) = i32::try_from(at)
            && disp >= 0
        {
            return Place { addr: self.base, disp };
        }
        // One value for all addresses of a neighbourhood.
        let chunk = at & !(WINDOW / 2 - 1);
        let disp = (at - chunk) as i32;
        let known = self.chunks.get(&chunk).copied();
        let (root, checked) = known.unwrap_or_else(|| (self.b.ins().iconst(types::I64, chunk), false));
        let check = at as u64 >= self.settings.min_limit && !checked;
        if check {
            self.check(root, disp);
        }
        self.chunks.insert(chunk, (root, checked || check));
        Place { addr: self.b.ins().iadd(self.base, root), disp }
    }

    /// `root <= limit`, or else `root + disp <= limit` (the sum may wrap, as it does on the CPU), or else
    /// trap.
    fn check(&mut self, root: V, disp: i32) {
        if self.settings.min_limit >> 32 != 0 && self.is_narrow(root) {
            return;
        }
        self.stats.checks += 1;
        let code = TrapCode::unwrap_user(TRAP_LIMIT);
        let limit = self.limit();
        let over = self.b.ins().icmp(IntCC::UnsignedGreaterThan, root, limit);
        if !self.opt.precise && disp.unsigned_abs() <= UNMAPPED {
            // A sum that wraps would lie where nothing is mapped.
            self.b.ins().trapnz(over, code);
            return;
        }
        let (cold, go) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(over, cold, &[], go, &[]);
        self.b.switch_to_block(cold);
        let ea = if disp == 0 { root } else { self.b.ins().iadd_imm_s(root, i64::from(disp)) };
        self.store_own(self.abi.fault_addr, ea);
        if disp == 0 {
            self.b.ins().trap(code);
        } else {
            let limit = self.limit();
            let over = self.b.ins().icmp(IntCC::UnsignedGreaterThan, ea, limit);
            self.b.ins().trapnz(over, code);
            self.b.ins().jump(go, &[]);
        }
        self.go(cold, go);
    }

    /// Size of the address space.
    fn limit(&mut self) -> V {
        self.b.ins().load(types::I64, self.tables, self.base, LIMIT_AT)
    }

    /// The check of an alignment. Exact state is the business of precise regions, as at an access.
    pub(super) fn aligned(&mut self, i: &Inst) -> Result<(), Error> {
        let a = self.val(i.a)?;
        // The constant of a sum does not matter if it is a multiple.
        let root = match self.sums.get(&a) {
            Some((root, k)) if k & (i.imm - 1) == 0 => *root,
            _ => a,
        };
        if !self.aligned.insert((root, i.imm)) {
            return Ok(());
        }
        self.aligning = self.access_that_checks(i, a);
        if self.aligning.is_some() {
            return Ok(());
        }
        self.access_open = true;
        let low = self.b.ins().band_imm_u(root, i.imm - 1);
        let (cold, go) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(low, cold, &[], go, &[]);
        self.b.switch_to_block(cold);
        let what = self.b.ins().iconst(types::I64, MISALIGNED as i64);
        self.store_own(self.abi.fault_addr, what);
        self.b.ins().trap(TrapCode::unwrap_user(TRAP_LIMIT));
        self.go(cold, go);
        Ok(())
    }

    /// The check of a write that is made up of several: where it crosses a page, both pages are written first, with nothing.
    pub(super) fn whole(&mut self, i: &Inst) -> Result<(), Error> {
        let a = self.val(i.a)?;
        self.access_open = true;
        let offset = self.b.ins().band_imm_u(a, PAGE - 1);
        let crosses = self.b.ins().icmp_imm_u(IntCC::UnsignedGreaterThan, offset, PAGE - i.imm);
        let (cold, go) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(crosses, cold, &[], go, &[]);
        self.b.switch_to_block(cold);
        self.b.seal_block(cold);
        let end = self.b.ins().iadd_imm_s(a, i.imm - 1);
        let second = self.b.ins().band_imm_s(end, -PAGE);
        let none = self.b.ins().iconst(types::I8, 0);
        for at in [a, second] {
            self.check(at, 0);
            let addr = self.b.ins().iadd(self.base, at);
            self.b.ins().atomic_rmw(types::I8, self.guest, AtomicRmwOp::Or, addr, none);
        }
        self.b.ins().jump(go, &[]);
        self.b.seal_block(go);
        self.b.switch_to_block(go);
        Ok(())
    }

    /// The host's MOVDQA finds out whether its address is a multiple of 16, and host and guest addresses differ by a multiple of
    /// pages. Gives the place of the access behind the check `i` of `a` if it can be that.
    fn access_that_checks(&self, i: &Inst, a: V) -> Option<usize> {
        if i.imm != 16 || self.opt.precise || self.opt.optimize || !self.settings.features.has_avx() {
            return None;
        }
        let sum = |v: V, k: i64| {
            let (root, k0) = self.sums.get(&v).copied().unwrap_or((v, 0));
            (root, k0.wrapping_add(k))
        };
        let mut rest = self.r.blocks[self.here].insts.iter().enumerate().skip(self.place + 1);
        let (n, next) = rest.find(|(_, i)| i.op.flags() != 0)?;
        let at = self.val(next.a).ok()?;
        let same = sum(at, i64::from(next.imm as i32)) == sum(a, 0);
        (matches!(next.op, Op::Load | Op::Store) && next.ty == Type::V128 && same).then_some(n)
    }

    /// Whether a value is the zero extension of one of at most 32 bits.
    pub(super) fn is_narrow(&self, v: V) -> bool {
        let dfg = &self.b.func.dfg;
        let def = |v: V| match dfg.value_def(dfg.resolve_aliases(v)) {
            cl::ValueDef::Result(i, _) => Some(i),
            _ => None,
        };
        let Some(i) = def(v) else {
            return false;
        };
        if dfg.insts[i].opcode() == cl::Opcode::Band {
            let mask = def(dfg.inst_args(i)[1]).map(|m| dfg.insts[m]);
            return matches!(mask, Some(cl::InstructionData::UnaryImm { imm, .. }) if imm.bits() as u64 >> 32 == 0);
        }
        match dfg.insts[i].opcode() {
            // Those of less than 64 bits are not roots.
            cl::Opcode::Uextend => true,
            op => matches!(op, cl::Opcode::Uload8 | cl::Opcode::Uload16 | cl::Opcode::Uload32),
        }
    }

    pub(super) fn memory(&mut self, i: &Inst) -> Result<(), Error> {
        if i.op == Op::Fence {
            self.b.ins().fence();
            return Ok(());
        }
        let p = self.place(i.a, i.imm)?;
        self.access_open = true;
        let (flags, ty) = (self.guest, cl_type(i.ty));
        let dst = match i.op {
            Op::Load => {
                self.separate_loads(&p, ty);
                let Place { addr, disp } = p;
                match (self.extended.get(&i.dst), i.ty) {
                    (Some((to, signed)), from) => {
                        let to = cl_type(*to);
                        let n = self.b.ins();
                        match (from, signed) {
                            (Type::I8, false) => n.uload8(to, flags, addr, disp),
                            (Type::I8, true) => n.sload8(to, flags, addr, disp),
                            (Type::I16, false) => n.uload16(to, flags, addr, disp),
                            (Type::I16, true) => n.sload16(to, flags, addr, disp),
                            (_, false) => n.uload32(flags, addr, disp),
                            (_, true) => n.sload32(flags, addr, disp),
                        }
                    }
                    // No operation has this type, so that none takes the load in as its operand.
                    (None, _) if self.aligning == Some(self.place) => {
                        let v = self.patched_access(|me| me.b.ins().load(types::F16X8, flags, addr, disp));
                        self.cast(v, ty)
                    }
                    (None, _) => self.b.ins().load(ty, flags, addr, disp),
                }
            }
            Op::Store => {
                let mut v = self.val(i.b)?;
                if i.ty == Type::V128 {
                    v = self.cast(v, types::I8X16);
                }
                let store = |me: &mut Self| me.b.ins().store(flags, v, p.addr, p.disp);
                if self.aligning == Some(self.place) {
                    self.patched_access(store);
                } else {
                    store(self);
                }
                return Ok(());
            }
            Op::AtomicCas => {
                let addr = self.b.ins().iadd_imm_s(p.addr, i64::from(p.disp));
                let (e, n) = (self.val(i.b)?, self.val(i.c)?);
                if i.ty == Type::V128 {
                    let (e, n) = (self.cast(e, types::I128), self.cast(n, types::I128));
                    let old = self.b.ins().atomic_cas(flags, addr, e, n);
                    self.cast(old, types::I8X16)
                } else {
                    self.b.ins().atomic_cas(flags, addr, e, n)
                }
            }
            op => {
                let op = match op {
                    Op::AtomicAdd => AtomicRmwOp::Add,
                    Op::AtomicAnd => AtomicRmwOp::And,
                    Op::AtomicOr => AtomicRmwOp::Or,
                    Op::AtomicXor => AtomicRmwOp::Xor,
                    Op::AtomicXchg => AtomicRmwOp::Xchg,
                    _ => return Err(Error::Unsupported(op.name(), i.ty.name())),
                };
                if !i.ty.is_int() {
                    return Err(Error::Unsupported(i.op.name(), i.ty.name()));
                }
                let addr = self.b.ins().iadd_imm_s(p.addr, i64::from(p.disp));
                let v = self.val(i.b)?;
                self.b.ins().atomic_rmw(ty, flags, op, addr, v)
            }
        };
        self.set(i.dst, dst);
        Ok(())
    }

    /// An access of a vector that becomes one that checks its alignment.
    fn patched_access<T>(&mut self, access: impl FnOnce(&mut Self) -> T) -> T {
        self.aligning = None;
        self.pcs.push(self.pc);
        let n = self.pcs.len() as u32 - 1;
        self.patches.insert(n, Patch::Aligned);
        self.b.set_srcloc(cl::SourceLoc::new(n));
        let r = access(self);
        self.pcs.push(self.pc);
        self.b.set_srcloc(cl::SourceLoc::new(n + 1));
        r
    }

    /// Cranelift's mid-end would replace a second load of an address by the first one's result. Another thread may
    /// have written, and a load in between may have shown it (a seqlock reads its counter
    /// twice): such pairs are kept apart. Loads of different blocks are separated at block starts.
    fn separate_loads(&mut self, p: &Place, ty: cl::Type) {
        if !self.opt.optimize {
            return;
        }
        let mut h = std::hash::DefaultHasher::new();
        self.structure(p.addr).hash(&mut h);
        (p.disp, ty).hash(&mut h);
        if !self.loaded.insert(h.finish()) {
            self.b.ins().sequence_point();
        }
    }

    /// A hash that is equal for values computed the same way.
    fn structure(&mut self, v: V) -> u64 {
        let v = self.b.func.dfg.resolve_aliases(v);
        if let Some(h) = self.hashes.get(&v) {
            return *h;
        }
        let mut h = std::hash::DefaultHasher::new();
        match self.b.func.dfg.value_def(v) {
            cl::ValueDef::Result(i, _) => {
                let op = self.b.func.dfg.insts[i].opcode();
                let impure = op.can_load() || op.can_store() || op.is_call();
                if let cl::InstructionData::UnaryImm { imm, .. } = self.b.func.dfg.insts[i] {
                    imm.bits().hash(&mut h);
                } else if impure || self.b.func.dfg.inst_args(i).is_empty() {
                    v.hash(&mut h);
                } else {
                    op.hash(&mut h);
                    self.b.func.dfg.value_type(v).hash(&mut h);
                    for a in self.b.func.dfg.inst_args(i).to_vec() {
                        self.structure(a).hash(&mut h);
                    }
                }
            }
            _ => v.hash(&mut h),
        }
        let h = h.finish();
        self.hashes.insert(v, h);
        h
    }
}
