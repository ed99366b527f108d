//! Guest memory: the check, the address, loads, stores and atomics.

use super::Error;
use super::emit::{Ins, MemIns, Sym, at, ins, mem_ins};
use super::facts::{Access, Group, Range};
use super::intern::Intern;
use super::lower::{Bail, Lower, val_type};
use evm_ir::{Inst, Op, Slot, SlotSet, Type};
use evm_memory::perm;
use wasm_encoder::{MemArg, ValType};

const PAGE: i32 = evm_memory::PAGE as i32;

/// What an access's offset counts from.
#[derive(Clone, Copy)]
enum At {
    Local(u32),
    Zero,
    /// It is on the stack already, for one access.
    Stack,
}

/// Where an access is.
#[derive(Clone, Copy)]
struct Place {
    at: At,
    offset: u32,
}

/// A guest address.
#[derive(Clone, Copy)]
enum Ea {
    Local(u32),
    Fixed(u32),
}

/// Loads and stores by type.
fn plain(t: Type) -> (MemIns, MemIns) {
    match t {
        Type::I8 => (mem_ins!(i32_load8_u), mem_ins!(i32_store8)),
        Type::I16 => (mem_ins!(i32_load16_u), mem_ins!(i32_store16)),
        Type::I32 => (mem_ins!(i32_load), mem_ins!(i32_store)),
        Type::I64 => (mem_ins!(i64_load), mem_ins!(i64_store)),
        Type::F32 => (mem_ins!(f32_load), mem_ins!(f32_store)),
        Type::F64 => (mem_ins!(f64_load), mem_ins!(f64_store)),
        _ => (mem_ins!(v128_load), mem_ins!(v128_store)),
    }
}

/// The operation of a read-modify-write without atomics; `None`: exchange.
fn modify(op: Op, wide: bool) -> Option<Ins> {
    match (op, wide) {
        (Op::AtomicAdd, false) => Some(ins!(i32_add)),
        (Op::AtomicAdd, true) => Some(ins!(i64_add)),
        (Op::AtomicAnd, false) => Some(ins!(i32_and)),
        (Op::AtomicAnd, true) => Some(ins!(i64_and)),
        (Op::AtomicOr, false) => Some(ins!(i32_or)),
        (Op::AtomicOr, true) => Some(ins!(i64_or)),
        (Op::AtomicXor, false) => Some(ins!(i32_xor)),
        (Op::AtomicXor, true) => Some(ins!(i64_xor)),
        _ => None,
    }
}

/// Atomic instructions by opcode and type.
fn atomic(op: Op, t: Type) -> Option<MemIns> {
    macro_rules! row {
        ($b:ident $h:ident $w:ident $d:ident) => {
            match t {
                Type::I8 => mem_ins!($b),
                Type::I16 => mem_ins!($h),
                Type::I32 => mem_ins!($w),
                Type::I64 => mem_ins!($d),
                _ => return None,
            }
        };
    }
    Some(match op {
        Op::AtomicAdd => {
            row!(i32_atomic_rmw8_add_u i32_atomic_rmw16_add_u i32_atomic_rmw_add i64_atomic_rmw_add)
        }
        Op::AtomicAnd => {
            row!(i32_atomic_rmw8_and_u i32_atomic_rmw16_and_u i32_atomic_rmw_and i64_atomic_rmw_and)
        }
        Op::AtomicOr => row!(i32_atomic_rmw8_or_u i32_atomic_rmw16_or_u i32_atomic_rmw_or i64_atomic_rmw_or),
        Op::AtomicXor => {
            row!(i32_atomic_rmw8_xor_u i32_atomic_rmw16_xor_u i32_atomic_rmw_xor i64_atomic_rmw_xor)
        }
        Op::AtomicXchg => {
            row!(i32_atomic_rmw8_xchg_u i32_atomic_rmw16_xchg_u i32_atomic_rmw_xchg i64_atomic_rmw_xchg)
        }
        Op::AtomicCas => row!(
            i32_atomic_rmw8_cmpxchg_u
            i32_atomic_rmw16_cmpxchg_u
            i32_atomic_rmw_cmpxchg
            i64_atomic_rmw_cmpxchg
        ),
        _ => return None,
    })
}

impl Lower<'_> {
    pub(super) fn memory(&mut self, n: usize, i: &Inst) -> Result<(), Error> {
        if i.op == Op::Fence {
            if self.s.atomics {
                self.b.ins().atomic_fence();
            }
            return Ok(());
        }
        let place = self.place(n, i)?;
        match i.op {
            Op::Load => {
                self.address(place);
                plain(i.ty).0(&mut self.b.ins(), at(place.offset));
                self.define(i.dst, false)
            }
            Op::Store => {
                self.address(place);
                self.push(i.b)?;
                plain(i.ty).1(&mut self.b.ins(), at(place.offset));
                Ok(())
            }
            _ if self.s.atomics => self.atomic(i, place),
            Op::AtomicCas => self.cas(i, place),
            _ => self.rmw(i, place),
        }
    }

    /// What is not aligned is left to the interpreter, which finds out how it faults.
    pub(super) fn aligned(&mut self, i: &Inst) -> Result<(), Error> {
        let keep = self.keep;
        self.push(i.a)?;
        self.b.ins().i32_wrap_i64().i32_const(i.imm as i32 - 1).i32_and();
        self.at_pc(self.pc);
        self.bail_if(Bail::Step, keep)
    }

    /// A write to two pages is left to the interpreter as well.
    pub(super) fn whole(&mut self, i: &Inst) -> Result<(), Error> {
        let keep = self.keep;
        self.push(i.a)?;
        self.b.ins().i32_wrap_i64().i32_const(PAGE - 1).i32_and().i32_const(PAGE - i.imm as i32).i32_gt_u();
        self.at_pc(self.pc);
        self.bail_if(Bail::Step, keep)
    }

    fn address(&mut self, p: Place) {
        match p.at {
            At::Local(l) => drop(self.b.ins().local_get(l)),
            At::Zero => drop(self.b.ins().i32_const(0)),
            At::Stack => {}
        }
    }

    /// Find where the access is, after the check if it is the first of its group.
    fn place(&mut self, n: usize, i: &Inst) -> Result<Place, Error> {
        let plan = &self.plans[self.here];
        let Some(Access { group: g, disp }) = plan.accesses.get(&n).copied() else {
            return Err(Error::Invalid("an access that is not planned"));
        };
        let group = plan.groups[g];
        let behind = (disp - group.range.lo) as u32;
        // Where the base is known it is part of the offset.
        let offset = behind + self.s.fixed.map_or(0, |f| f.base);
        if let Some(local) = self.groups.get(&g).copied().filter(|_| !group.fixed) {
            self.lose(i.a);
            return Ok(Place { at: At::Local(local), offset });
        }
        if group.fixed {
            return self.fixed(g, i, behind);
        }
        let add = i.imm - i64::from(behind);
        let ready = self.in_local(i.a).filter(|_| add == 0 && group.check);
        if let Some(ea) = ready {
            self.check(&group, Ea::Local(ea))?;
            self.push(i.a)?;
        } else {
            self.push(i.a)?;
            if add != 0 {
                self.b.ins().i64_const(add).i64_add();
            }
            if group.check {
                let ea = self.temp(ValType::I64);
                self.set_local(ea);
                self.check(&group, Ea::Local(ea))?;
                self.b.ins().local_get(ea);
                self.free(ea);
            }
        }
        self.b.ins().i32_wrap_i64();
        if self.s.fixed.is_none() {
            let base = self.base;
            self.b.ins().local_get(base).i32_add();
        }
        if group.accesses == 1 && matches!(i.op, Op::Load | Op::Store) {
            return Ok(Place { at: At::Stack, offset });
        }
        let local = self.temp(ValType::I32);
        self.set_local(local);
        self.groups.insert(g, local);
        Ok(Place { at: At::Local(local), offset })
    }

    /// The address is a constant.
    fn fixed(&mut self, g: usize, i: &Inst, behind: u32) -> Result<Place, Error> {
        let group = self.plans[self.here].groups[g];
        let Some(k) = self.constant(i.a) else {
            return Err(Error::Invalid("a constant address that is none"));
        };
        self.lose(i.a);
        let to = k.wrapping_add(i.imm);
        let start = to.wrapping_sub(i64::from(behind));
        let local = self.base;
        let base = self.s.fixed.map_or(0, |f| f.base);
        // Whatever is above is nowhere.
        let inside = u32::try_from(start).is_ok_and(|s| s < 0xffff_0000 - 2 * facts_span() - base);
        if !self.groups.contains_key(&g) {
            if !inside {
                let keep = self.keep;
                self.at_pc(self.pc);
                self.bail(Bail::Step, keep)?;
            } else if group.check {
                self.check(&group, Ea::Fixed(start as u32))?;
            }
            self.groups.insert(g, local);
        }
        let at = if self.s.fixed.is_none() { At::Local(local) } else { At::Zero };
        Ok(Place { at, offset: if inside { to as u32 + base } else { 0 } })
    }

    /// Go on only if the group's range, which starts at `ea`, may be accessed.
    ///
    /// Beyond the size of guest memory nothing is in the table: there the byte of page 0 is looked at, which never allows anything.
    fn check(&mut self, group: &Group, ea: Ea) -> Result<(), Error> {
        let (limit, perms, known) = (self.limit, self.perms, self.s.fixed);
        let near = if group.range.write { perm::WRITE_NEAR } else { perm::READ_NEAR };
        let below_limit = |me: &mut Self| {
            me.ea(ea);
            match known {
                Some(f) => me.b.ins().i64_const(f.limit as i64).i64_lt_u(),
                None => me.b.ins().local_get(limit).i64_lt_u(),
            };
        };
        match ea {
            _ if self.s.trust_pages => {
                self.ea(ea);
                self.b.ins().i64_const(i64::from(PAGE)).i64_ge_u();
                below_limit(self);
                self.b.ins().i32_and();
            }
            Ea::Fixed(start) => {
                self.b.ins().i32_const((start >> 12) as i32);
                below_limit(self);
                self.b.ins().i32_mul();
            }
            Ea::Local(_) => {
                self.ea(ea);
                self.b.ins().i64_const(12).i64_shr_u().i32_wrap_i64().i32_const(0);
                below_limit(self);
                self.b.ins().select();
            }
        }
        if !self.s.trust_pages {
            match known {
                Some(f) => self.b.ins().i32_load8_u(at(f.perms)),
                None => self.b.ins().local_get(perms).i32_add().i32_load8_u(at(0)),
            };
            self.b.ins().i32_const(i32::from(near)).i32_and();
        }
        self.b.ins().i32_eqz();
        self.b.if_();
        self.b.ins().local_get(0);
        self.ea(ea);
        let keep = self.keep;
        self.refuse(&group.range, self.pc, keep)?;
        self.b.end();
        Ok(())
    }
    fn ea(&mut self, ea: Ea) {
        match ea {
            Ea::Local(l) => self.get_local(l, false),
            Ea::Fixed(k) => drop(self.b.ins().i64_const(k.into())),
        }
    }
    /// Leave for the interpreter at `pc` if the range that starts at the address on the stack may not be accessed; the state's
    /// address is below it.
    fn refuse(&mut self, range: &Range, pc: u64, keep: SlotSet) -> Result<(), Error> {
        let (place, rel) = (self.from_start(pc), self.rel);
        let what = 2 * (range.hi - range.lo) as i32 + i32::from(range.write);
        self.b.ins().i32_const(place).i32_const(what);
        self.b.call(Sym::Intern(Intern::Refused));
        self.b.ins().local_tee(rel);
        self.bail_if(Bail::Step, keep)
    }

    /// Where the region is entered at a place of which something is known: find out whether it is true.
    pub(super) fn ensure(&mut self, known: &[(Slot, Range)], pc: u64) -> Result<(), Error> {
        for (s, range) in known {
            let l = self.slot_local(*s);
            self.b.ins().local_get(0).local_get(l);
            if range.lo != 0 {
                self.b.ins().i64_const(range.lo).i64_add();
            }
            self.refuse(range, pc, SlotSet::default())?;
        }
        Ok(())
    }

    fn rmw(&mut self, i: &Inst, p: Place) -> Result<(), Error> {
        let (load, store) = plain(i.ty);
        let m = at(p.offset);
        let old = self.temp(val_type(i.ty));
        self.address(p);
        self.address(p);
        load(&mut self.b.ins(), m);
        self.b.ins().local_set(old);
        match modify(i.op, i.ty == Type::I64) {
            Some(f) => {
                self.b.ins().local_get(old);
                self.push(i.b)?;
                self.b.op(f);
            }
            None => {
                self.push(i.b)?;
            }
        }
        store(&mut self.b.ins(), m);
        self.b.ins().local_get(old);
        self.free(old);
        self.define(i.dst, false)
    }

    fn cas(&mut self, i: &Inst, p: Place) -> Result<(), Error> {
        let (load, store) = plain(i.ty);
        let m = at(p.offset);
        let old = self.temp(val_type(i.ty));
        let new = self.temp(val_type(i.ty));
        self.push(i.c)?;
        self.b.ins().local_set(new);
        self.address(p);
        load(&mut self.b.ins(), m);
        self.b.ins().local_tee(old);
        self.push_clean(i.b)?;
        match val_type(i.ty) {
            ValType::I32 => self.b.op(ins!(i32_eq)),
            ValType::I64 => self.b.op(ins!(i64_eq)),
            _ => {
                self.b.ins().i8x16_eq().i8x16_all_true();
            }
        }
        self.b.if_();
        self.address(p);
        self.b.ins().local_get(new);
        store(&mut self.b.ins(), m);
        self.b.end();
        self.b.ins().local_get(old);
        self.free(old);
        self.free(new);
        self.define(i.dst, false)
    }

    /// With the engine's atomics, which want their natural alignment. What they do not do is left to the interpreter.
    fn atomic(&mut self, i: &Inst, p: Place) -> Result<(), Error> {
        let size = i.ty.bytes();
        let keep = self.keep;
        let f = atomic(i.op, i.ty);
        self.at_pc(self.pc);
        if f.is_none() {
            self.bail(Bail::Step, keep)?;
        } else if size > 1 {
            self.address(p);
            self.b.ins().i32_const(p.offset as i32).i32_add();
            self.b.ins().i32_const(size as i32 - 1).i32_and();
            self.bail_if(Bail::Step, keep)?;
        }
        self.address(p);
        self.push_clean(i.b)?;
        if i.op == Op::AtomicCas {
            self.push_clean(i.c)?;
        }
        match f {
            Some(f) => {
                let m = MemArg { offset: p.offset.into(), align: size.trailing_zeros(), memory_index: 0 };
                f(&mut self.b.ins(), m);
            }
            // Never reached.
            None => {
                self.b.ins().unreachable();
            }
        }
        self.define(i.dst, false)
    }
}

const fn facts_span() -> u32 {
    super::facts::SPAN as u32
}
