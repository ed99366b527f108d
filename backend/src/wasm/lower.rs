//! The frame of a function: entries, blocks, values, slots.
//!
//! A promoted slot is a local. A value is a constant, the local of a slot that still holds it, a local of its own, or, if it
//! has one use and no effect, an instruction that is written where its result is used. Before a slot's local changes, values
//! that stand for its old content get locals of their own.
//!
//! Integers of 8 and 16 bits are in an `i32` whose upper bits may be anything where the value is marked as *dirty*.

use super::abi::Import;
use super::emit::{Body, Label, Sym, at};
use super::facts::{self, Plan};
use super::normal;
use super::shape::Shape;
use super::{Error, Link, Settings};
use evm_ir::{Inst, Op, Region, Sig, Slot, SlotSet, Type, Value};
use std::collections::{HashMap, HashSet};
use wasm_encoder::{Ieee32, Ieee64, ValType};

/// WebAssembly's type of a value type.
pub fn val_type(t: Type) -> ValType {
    match t {
        Type::I8 | Type::I16 | Type::I32 => ValType::I32,
        Type::I64 => ValType::I64,
        Type::F32 => ValType::F32,
        Type::F64 => ValType::F64,
        _ => ValType::V128,
    }
}

/// The lowest address of the region's instructions.
fn first_pc(r: &Region) -> u64 {
    let markers = r.blocks.iter().flat_map(|b| &b.insts).filter(|i| i.op == Op::Marker).map(|i| i.imm as u64);
    r.blocks.iter().map(|b| b.pc).chain(markers).min().unwrap_or(0)
}

/// Most instructions that are written inside one another.
const DEEPEST: u32 = 24;

/// Where a value is.
#[derive(Clone, Copy, Debug)]
enum Val {
    Unset,
    /// A constant's bits.
    Int(i64),
    Vec(u128),
    /// What a slot's local holds.
    Slot(Slot),
    /// A local of its own.
    Local(u32),
    /// To be written at its use.
    Inst(Inst),
}

/// Why the code is left in the middle.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(super) enum Bail {
    /// For the address in `rel`.
    Poll,
    /// The instruction there is to be interpreted.
    Step,
}

pub(super) struct Lower<'a> {
    pub r: &'a Region,
    pub s: &'a Settings,
    pub links: &'a dyn Fn(u64) -> Link,
    pub b: Body,
    pub shape: Shape,
    /// By IR value.
    vals: Vec<Val>,
    uses: Vec<u32>,
    /// Slots that a value not yet written reads.
    reads: Vec<u128>,
    /// Instructions in it.
    depth: Vec<u32>,
    dirty: Vec<bool>,
    /// Values that read slots.
    pending: Vec<Value>,
    slots: Vec<Option<u32>>,
    free: HashMap<ValType, Vec<u32>>,
    in_use: Vec<u32>,
    /// The last instruction was `local.set` of this local: (end of code, start of it).
    last_set: Option<(usize, usize, u32)>,
    pub plans: Vec<Plan>,
    /// Local with the address of a group's range in this block, by group.
    pub groups: HashMap<usize, u32>,
    /// Index of the block being written.
    pub here: usize,
    /// Slots to be stored if the code is left at the next instruction.
    pub keep: SlotSet,
    pub pc: u64,
    /// Guest address that `rel` counts from: below all of the region's, so that it is not 0.
    pub pc0: u64,
    /// Locals: address to leave for less `pc0`; base of guest memory, its size, the table of permissions.
    pub rel: u32,
    pub base: u32,
    pub limit: u32,
    pub perms: u32,
    /// Where there are calls: locals with the stack that was left at the entry, and that is left for callees; where the guest goes
    /// on if it is not here, and the label to leave for that.
    pub stack: Option<(u32, u32)>,
    pub gone: Option<(Label, u32)>,
    pub bails: HashMap<(Bail, SlotSet), Label>,
    pub block_labels: HashMap<usize, Label>,
    pub loop_labels: HashMap<usize, Label>,
    /// In a graph that is not reducible: the loop around everything, and the local with the number of the block.
    pub dispatch: Option<(Label, u32)>,
    polls: Vec<bool>,
    /// Which floats are not denormal: at blocks' starts, and here.
    known: normal::Known,
    pub normal: normal::Walk,
    /// Locals with what counts of operands of floating-point operations, by value and shape.
    pub counted: HashMap<(Value, Type), u32>,
    /// Markers behind which `fp_exact` is looked at.
    floats: HashSet<(usize, usize)>,
}

impl<'a> Lower<'a> {
    pub fn new(r: &'a Region, s: &'a Settings, links: &'a dyn Fn(u64) -> Link) -> Result<Lower<'a>, Error> {
        let shape = Shape::new(r)?;
        let mut l = Lower {
            r,
            s,
            links,
            b: Body::default(),
            pc0: first_pc(r).wrapping_sub(1),
            shape,
            vals: vec![Val::Unset; r.types.len()],
            uses: vec![0; r.types.len()],
            reads: vec![0; r.types.len()],
            depth: vec![0; r.types.len()],
            dirty: vec![false; r.types.len()],
            pending: vec![],
            slots: vec![None; r.layout.slots.len()],
            free: HashMap::new(),
            in_use: vec![],
            last_set: None,
            plans: facts::plan(r),
            groups: HashMap::new(),
            here: 0,
            keep: SlotSet::default(),
            pc: 0,
            rel: 0,
            base: 0,
            limit: 0,
            perms: 0,
            stack: None,
            gone: None,
            bails: HashMap::new(),
            block_labels: HashMap::new(),
            loop_labels: HashMap::new(),
            dispatch: None,
            // Calls do not look.
            polls: crate::polls::polls(r, false),
            known: normal::known(r),
            normal: normal::Walk::default(),
            counted: HashMap::new(),
            floats: super::floats::marks(r),
        };
        l.count_uses();
        Ok(l)
    }

    /// Write the function.
    pub fn run(mut self) -> Result<Body, Error> {
        self.rel = self.local(ValType::I32);
        if self.s.fixed.is_none() && self.plans.iter().any(|p| !p.groups.is_empty()) {
            self.base = self.local(ValType::I32);
            self.perms = self.local(ValType::I32);
            self.limit = self.local(ValType::I64);
            self.b.load32(self.s.abi.mem_base);
            self.b.ins().local_set(self.base);
            self.b.load32(self.s.abi.perms);
            self.b.ins().local_set(self.perms);
            self.b.load64(self.s.abi.mem_limit);
            self.b.ins().local_set(self.limit);
        }
        let frame = self.open_calls();
        let bails = self.open_bails();
        if self.shape.reducible {
            self.nested()?;
        } else {
            self.dispatched()?;
        }
        self.close_bails(&bails)?;
        self.close_calls(frame);
        self.b.ins().end();
        Ok(self.b)
    }

    fn count_uses(&mut self) {
        let r = self.r;
        for b in &r.blocks {
            for i in &b.insts {
                r.for_each_operand(i, |v| {
                    if let Some(n) = self.uses.get_mut(v.0 as usize) {
                        *n += 1;
                    }
                });
            }
            if let Some(v) = b.term.operand()
                && let Some(n) = self.uses.get_mut(v.0 as usize)
            {
                *n += 1;
            }
        }
    }

    // ---- locals ---------------------------------------------------------------------------------

    /// A new local for the whole function.
    pub fn local(&mut self, t: ValType) -> u32 {
        self.b.locals.push(t);
        // The parameters are locals 0 and 1.
        self.b.locals.len() as u32 + 1
    }
    /// A local until the end of the block, or until it is freed.
    pub fn temp(&mut self, t: ValType) -> u32 {
        let l = match self.free.get_mut(&t).and_then(Vec::pop) {
            Some(l) => l,
            None => self.local(t),
        };
        self.in_use.push(l);
        l
    }
    pub fn free(&mut self, l: u32) {
        if let Some(n) = self.in_use.iter().rposition(|x| *x == l) {
            self.in_use.swap_remove(n);
            let t = self.b.locals[l as usize - 2];
            self.free.entry(t).or_default().push(l);
        }
    }
    pub fn set_local(&mut self, l: u32) {
        let start = self.b.code.len();
        self.b.ins().local_set(l);
        self.last_set = Some((self.b.code.len(), start, l));
    }
    /// `local.get`; `last`: the local is not read again.
    pub fn get_local(&mut self, l: u32, last: bool) {
        if let Some((end, start, set)) = self.last_set
            && end == self.b.code.len()
            && set == l
        {
            self.b.code.truncate(start);
            if !last {
                self.b.ins().local_tee(l);
            }
            self.last_set = None;
            return;
        }
        self.b.ins().local_get(l);
    }
    pub fn slot_local(&mut self, s: Slot) -> u32 {
        if let Some(l) = self.slots[s.0 as usize] {
            return l;
        }
        let l = self.local(val_type(self.r.layout.get(s).ty));
        self.slots[s.0 as usize] = Some(l);
        l
    }

    // ---- values ---------------------------------------------------------------------------------

    pub fn ty(&self, v: Value) -> Result<Type, Error> {
        self.r.types.get(v.0 as usize).copied().ok_or(Error::Invalid("no such value"))
    }
    /// The constant that a value is.
    pub fn constant(&self, v: Value) -> Option<i64> {
        match self.vals.get(v.0 as usize) {
            Some(Val::Int(k)) => Some(*k),
            _ => None,
        }
    }
    /// The local that a value is in as it stands.
    pub fn in_local(&mut self, v: Value) -> Option<u32> {
        match self.vals.get(v.0 as usize) {
            Some(Val::Slot(s)) => Some(self.slot_local(*s)),
            Some(Val::Local(l)) => Some(*l),
            _ => None,
        }
    }
    fn push_const(&mut self, ty: Type, k: i64) {
        let mut n = self.b.ins();
        match ty {
            Type::I8 => n.i32_const(i32::from(k as u8)),
            Type::I16 => n.i32_const(i32::from(k as u16)),
            Type::I32 => n.i32_const(k as i32),
            Type::F32 => n.f32_const(Ieee32::new(k as u32)),
            Type::F64 => n.f64_const(Ieee64::new(k as u64)),
            _ => n.i64_const(k),
        };
    }
    /// Leave a value on the stack: one of its uses. True if it is dirty.
    pub fn push(&mut self, v: Value) -> Result<bool, Error> {
        let n = v.0 as usize;
        let ty = self.ty(v)?;
        self.uses[n] = self.uses[n].saturating_sub(1);
        let last = self.uses[n] == 0;
        match self.vals[n] {
            Val::Unset => return Err(Error::Invalid("value used before its definition")),
            Val::Int(k) => self.push_const(ty, k),
            Val::Vec(k) => {
                self.b.ins().v128_const(k as i128);
            }
            Val::Slot(s) => {
                let l = self.slot_local(s);
                self.b.ins().local_get(l);
            }
            Val::Local(l) => {
                self.get_local(l, last);
                if last {
                    self.free(l);
                }
            }
            Val::Inst(i) => {
                self.vals[n] = Val::Unset;
                self.dirty[n] = self.write(&i)?;
            }
        }
        if last {
            self.pending.retain(|p| *p != v);
        }
        Ok(self.dirty[n])
    }
    /// The same with upper bits of zero.
    pub fn push_clean(&mut self, v: Value) -> Result<(), Error> {
        if self.push(v)? {
            let mask = if self.ty(v)? == Type::I8 { 0xff } else { 0xffff };
            self.b.ins().i32_const(mask).i32_and();
        }
        Ok(())
    }
    /// The same with the sign in the upper bits.
    pub fn push_signed(&mut self, v: Value) -> Result<(), Error> {
        self.push(v)?;
        match self.ty(v)? {
            Type::I8 => self.b.ins().i32_extend8_s(),
            Type::I16 => self.b.ins().i32_extend16_s(),
            _ => return Ok(()),
        };
        Ok(())
    }
    /// A value that is in a local has one use less. True if it was the last one, and the local is a temporary one; it is not free yet.
    pub fn used(&mut self, v: Value) -> bool {
        let n = v.0 as usize;
        self.uses[n] = self.uses[n].saturating_sub(1);
        let last = self.uses[n] == 0;
        if last {
            self.pending.retain(|p| *p != v);
        }
        last && matches!(self.vals[n], Val::Local(_))
    }
    /// Give a value that is on the stack a local, or drop it if nobody wants it.
    pub fn define(&mut self, v: Value, dirty: bool) -> Result<(), Error> {
        let n = v.0 as usize;
        if self.uses.get(n).copied().unwrap_or(0) == 0 {
            self.b.ins().drop();
            return Ok(());
        }
        let l = self.temp(val_type(self.ty(v)?));
        self.set_local(l);
        self.vals[n] = Val::Local(l);
        self.dirty[n] = dirty;
        self.reads[n] = 0;
        Ok(())
    }
    /// Values that stand for what these slots hold now get locals.
    fn settle(&mut self, slots: u128) -> Result<(), Error> {
        if self.pending.iter().all(|v| self.reads[v.0 as usize] & slots == 0) {
            return Ok(());
        }
        let (hit, rest): (Vec<_>, Vec<_>) =
            self.pending.iter().copied().partition(|v| self.reads[v.0 as usize] & slots != 0);
        self.pending = rest;
        for v in hit {
            let n = v.0 as usize;
            // Another one's writing may have used it.
            if self.uses[n] == 0 || matches!(self.vals[n], Val::Local(_) | Val::Unset) {
                continue;
            }
            let uses = self.uses[n];
            let dirty = self.push(v)?;
            self.uses[n] = uses;
            self.define(v, dirty)?;
        }
        Ok(())
    }

    // ---- blocks ---------------------------------------------------------------------------------

    pub fn block(&mut self, index: usize) -> Result<(), Error> {
        let r = self.r;
        let data = &r.blocks[index];
        self.here = index;
        self.pc = data.pc;
        self.groups.clear();
        self.pending.clear();
        self.counted.clear();
        self.normal = normal::Walk::new(self.known.starts.get(index).cloned().unwrap_or_default());
        for l in std::mem::take(&mut self.in_use) {
            let t = self.b.locals[l as usize - 2];
            self.free.entry(t).or_default().push(l);
        }
        if self.polls[index] {
            self.at_pc(data.pc);
            self.b.load32(self.s.abi.poll);
            self.bail_if(Bail::Poll, data.poll_spill)?;
        }
        for (n, i) in data.insts.iter().enumerate() {
            self.inst(n, i)?;
            self.normal.step(r, i);
            if i.op == Op::Call {
                self.counted.clear();
            }
            // The marker's `keep` comes behind it.
            if n > 0 && self.floats.contains(&(index, n - 1)) {
                if i.op != Op::Keep {
                    return Err(Error::Invalid("nothing says what to store before floating-point arithmetic"));
                }
                self.at_pc(self.pc);
                self.b.load32(self.s.abi.fp_exact);
                self.bail_if(Bail::Step, self.keep)?;
            }
        }
        let known = std::mem::take(&mut self.plans[index].ensure);
        self.ensure(&known, data.pc)?;
        let known = self.known.ensure.remove(&index).unwrap_or_default();
        self.ensure_normal(&known, data.pc)?;
        self.terminator(data)
    }

    fn inst(&mut self, n: usize, i: &Inst) -> Result<(), Error> {
        match i.op {
            Op::Marker => self.pc = i.imm as u64,
            Op::Keep => self.keep = self.set(i)?,
            Op::Fill => {
                let set = self.set(i)?;
                self.settle(set.0)?;
                for s in set.iter() {
                    let (l, info) = (self.slot_local(s), self.r.layout.get(s));
                    self.load_state(info.ty, info.offset);
                    self.b.ins().local_set(l);
                }
            }
            Op::Spill => {
                let set = self.set(i)?;
                self.spill(set);
            }
            Op::Const => self.vals[i.dst.0 as usize] = Val::Int(i.imm),
            Op::VConst => {
                let k = self.r.pool.get(i.imm as usize).ok_or(Error::Invalid("no such vector constant"))?;
                self.vals[i.dst.0 as usize] = Val::Vec(*k);
            }
            Op::Get => self.get(i)?,
            Op::Put => self.put(i)?,
            Op::Call => self.helper(i)?,
            op => match op.sig() {
                Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas | Sig::Fence => self.memory(n, i)?,
                Sig::Align if i.op == Op::Whole => self.whole(i)?,
                Sig::Align => self.aligned(i)?,
                _ => self.value(i)?,
            },
        }
        Ok(())
    }

    fn set(&self, i: &Inst) -> Result<SlotSet, Error> {
        self.r.slot_sets.get(i.imm as usize).copied().ok_or(Error::Invalid("no such slot set"))
    }
    fn slot(&self, i: &Inst) -> Result<Slot, Error> {
        if (i.imm as usize) < self.r.layout.slots.len() {
            Ok(Slot(i.imm as u16))
        } else {
            Err(Error::Invalid("no such slot"))
        }
    }

    fn get(&mut self, i: &Inst) -> Result<(), Error> {
        let s = self.slot(i)?;
        let info = self.r.layout.get(s);
        if self.uses[i.dst.0 as usize] == 0 {
            return Ok(());
        }
        if info.promote {
            self.vals[i.dst.0 as usize] = Val::Slot(s);
            self.reads[i.dst.0 as usize] = 1 << s.0;
            self.pending.push(i.dst);
            return Ok(());
        }
        self.load_state(info.ty, info.offset);
        self.define(i.dst, false)
    }
    fn put(&mut self, i: &Inst) -> Result<(), Error> {
        let s = self.slot(i)?;
        let info = self.r.layout.get(s);
        if !info.promote {
            self.b.ins().local_get(0);
            self.push_clean(i.a)?;
            self.store_state(info.ty, info.offset);
            return Ok(());
        }
        self.push_clean(i.a)?;
        self.settle(1 << s.0)?;
        let l = self.slot_local(s);
        self.b.ins().local_set(l);
        Ok(())
    }

    /// An operation on values.
    fn value(&mut self, i: &Inst) -> Result<(), Error> {
        let n = i.dst.0 as usize;
        let effect = i.op.raises_flags(i.ty) || i.op == Op::FComi;
        if self.uses[n] == 0 && !effect {
            // Its operands lose a use without being written.
            let mut lost = vec![];
            self.r.for_each_operand(i, |v| lost.push(v));
            lost.into_iter().for_each(|v| self.lose(v));
            return Ok(());
        }
        let (mut reads, mut depth) = (0, 1);
        self.r.for_each_operand(i, |v| {
            if matches!(self.vals[v.0 as usize], Val::Slot(_) | Val::Inst(_)) {
                reads |= self.reads[v.0 as usize];
                depth += self.depth[v.0 as usize];
            }
        });
        // (A comparison looks at MXCSR, which may change before its use.)
        let stays = effect || i.op == Op::FCmp;
        if self.uses[n] == 1 && !stays && depth <= DEEPEST && !super::scalar::may_trap(i.op) {
            self.vals[n] = Val::Inst(*i);
            self.reads[n] = reads;
            self.depth[n] = depth;
            self.pending.push(i.dst);
            return Ok(());
        }
        let dirty = self.write(i)?;
        self.define(i.dst, dirty)
    }
    /// A use that is not written.
    pub fn lose(&mut self, v: Value) {
        let n = v.0 as usize;
        self.uses[n] = self.uses[n].saturating_sub(1);
        if self.uses[n] > 0 {
            return;
        }
        self.pending.retain(|p| *p != v);
        match self.vals[n] {
            Val::Local(l) => self.free(l),
            Val::Inst(i) => {
                self.vals[n] = Val::Unset;
                let mut lost = vec![];
                self.r.for_each_operand(&i, |v| lost.push(v));
                lost.into_iter().for_each(|v| self.lose(v));
            }
            _ => {}
        }
    }
    /// Write an operation; its result is on the stack. True if it is dirty.
    fn write(&mut self, i: &Inst) -> Result<bool, Error> {
        let vector = i.ty.is_shape() || (i.ty == Type::V128 && i.op != Op::Select);
        if vector {
            self.vector(i)?;
            return Ok(false);
        }
        self.scalar(i)
    }

    // ---- state ----------------------------------------------------------------------------------

    pub fn load_state(&mut self, ty: Type, offset: u32) {
        let (m, mut n) = (at(offset), self.b.ins());
        n.local_get(0);
        match ty {
            Type::I8 => n.i32_load8_u(m),
            Type::I16 => n.i32_load16_u(m),
            Type::I32 => n.i32_load(m),
            Type::I64 => n.i64_load(m),
            Type::F32 => n.f32_load(m),
            Type::F64 => n.f64_load(m),
            _ => n.v128_load(m),
        };
    }
    /// Store the value on the stack; the state's address is below it.
    pub fn store_state(&mut self, ty: Type, offset: u32) {
        let (m, mut n) = (at(offset), self.b.ins());
        match ty {
            Type::I8 => n.i32_store8(m),
            Type::I16 => n.i32_store16(m),
            Type::I32 => n.i32_store(m),
            Type::I64 => n.i64_store(m),
            Type::F32 => n.f32_store(m),
            Type::F64 => n.f64_store(m),
            _ => n.v128_store(m),
        };
    }
    pub fn spill(&mut self, set: SlotSet) {
        for s in set.iter() {
            let (l, info) = (self.slot_local(s), self.r.layout.get(s));
            self.b.ins().local_get(0).local_get(l);
            self.store_state(info.ty, info.offset);
        }
    }

    // ---- leaving in the middle ------------------------------------------------------------------

    /// Note an address to leave for.
    pub fn at_pc(&mut self, pc: u64) {
        let rel = self.from_start(pc);
        self.b.ins().i32_const(rel).local_set(self.rel);
    }
    /// What `rel` is for an address; not 0.
    pub fn from_start(&self, pc: u64) -> i32 {
        pc.wrapping_sub(self.pc0) as i32
    }
    fn bail_label(&self, why: Bail, set: SlotSet) -> Result<Label, Error> {
        self.bails.get(&(why, set)).copied().ok_or(Error::Invalid("nothing says what to store here"))
    }
    /// Leave if the top of the stack is not zero.
    pub fn bail_if(&mut self, why: Bail, set: SlotSet) -> Result<(), Error> {
        let l = self.bail_label(why, set)?;
        self.b.br_if(l);
        Ok(())
    }
    pub fn bail(&mut self, why: Bail, set: SlotSet) -> Result<(), Error> {
        let l = self.bail_label(why, set)?;
        self.b.br(l);
        Ok(())
    }

    /// Open a label for each set of slots that may have to be stored, small sets outside: the code of a set stores what is not in
    /// one of these, and goes on there.
    fn open_bails(&mut self) -> Vec<(Bail, SlotSet)> {
        let mut all: Vec<(Bail, SlotSet)> = vec![];
        let mut has = [false; 2];
        for (n, b) in self.r.blocks.iter().enumerate() {
            if self.shape.place[n] == usize::MAX {
                continue;
            }
            if self.polls[n] {
                all.push((Bail::Poll, b.poll_spill));
                has[0] = true;
            }
            for i in b.insts.iter().filter(|i| i.op == Op::Keep) {
                all.extend(self.r.slot_sets.get(i.imm as usize).map(|s| (Bail::Step, *s)));
                has[1] = true;
            }
            has[1] |= !self.plans[n].ensure.is_empty() || self.known.ensure.contains_key(&n);
        }
        // The empty sets are the ends of the chains.
        for (why, has) in [(Bail::Poll, has[0]), (Bail::Step, has[1])] {
            if has {
                all.push((why, SlotSet::default()));
            }
        }
        all.sort_by_key(|(why, s)| (*why, s.0.count_ones(), s.0));
        all.dedup();
        for key in &all {
            let l = self.b.block();
            self.bails.insert(*key, l);
        }
        all
    }
    fn close_bails(&mut self, all: &[(Bail, SlotSet)]) -> Result<(), Error> {
        for (n, (why, set)) in all.iter().enumerate().rev() {
            self.b.end();
            let smaller = all[..n].iter().rev().find(|(w, s)| w == why && s.0 & !set.0 == 0);
            if let Some((w, s)) = smaller {
                self.spill(SlotSet(set.0 & !s.0));
                self.bail(*w, *s)?;
                continue;
            }
            self.spill(*set);
            let pc0 = self.pc0 as i64;
            let rel = self.rel;
            if *why == Bail::Step {
                let abi = &self.s.abi;
                self.b.ins().local_get(0).i64_const(super::abi::STEP as i64).i64_store(at(abi.pending));
                self.b.ins().local_get(0);
                self.b.ins().i64_const(pc0).local_get(rel).i64_extend_i32_s().i64_add().i64_store(at(abi.rip));
                self.b.ins().i64_const(crate::abi::EXIT_PENDING as i64).return_();
            } else {
                self.b.ins().i64_const(pc0).local_get(rel).i64_extend_i32_s().i64_add().return_();
            }
        }
        Ok(())
    }

    /// A call of a function of the runtime, whose arguments are on the stack.
    pub fn import(&mut self, i: Import) {
        self.b.call(Sym::Import(i));
    }
}
