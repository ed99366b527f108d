//! From a region to prepared code.
//!
//! One forward walk per block keeps for every value where it is. A `get` costs nothing: its value stays in
//! the state until the slot is written, and is copied to the frame just before that if it is used
//! later. A constant stays in the instructions that use it. A result that is `put` soon is computed
//! straight into the slot. A comparison used only by the block's branch becomes part of it.
//!
//! Nothing here trusts the region for safety: a value that is not defined reads as 0, a wide use of a narrow
//! value too, a block that does not exist is an exit.

use super::exec::{self, Apply1, Apply2, Arg, At, AtI, CallRec, Handler, Insn};
use super::{Code, Exit, scalar, vector};
use crate::abi::Abi;
use evm_ir::{Block, Cond, Effects, FCond, Inst, Op, Region, Sig, Slot, Term, Type, Value};

/// Where a value is.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Loc {
    Undefined,
    Frame(u32),
    State(u32, Slot),
    Imm(u64),
    Pool(u32),
    /// Result of the comparison with this index in the block, to be done by the branch.
    Compare(u32),
}

/// Value at the end of the block, for last uses.
const END: u32 = u32::MAX - 1;
/// How far ahead a `put` of a result is looked for.
const AHEAD: usize = 8;

struct Lower<'a> {
    r: &'a Region,
    abi: &'a Abi,
    code: Code,
    loc: Vec<Loc>,
    last: Vec<u32>,
    uses: Vec<u32>,
    /// Values that are in the state and still needed, with their slots.
    in_state: Vec<(Value, Slot)>,
    /// Frame cells: number of values in each, by offset / 8.
    refs: Vec<u32>,
    free: Vec<u32>,
    free_wide: Vec<u32>,
    top: u32,
    /// Index in the block of the instruction at hand.
    at: u32,
    /// Index of the first instruction of each block.
    starts: Vec<u32>,
    /// Jumps to be resolved: instruction, whether field `d` rather than `c`, block.
    fixups: Vec<(u32, bool, Block)>,
    table_fixups: Vec<(u32, Block)>,
    /// Puts already done by the instruction that made the value, by index in the block.
    done: Vec<u32>,
}

/// Prepare a region (validated, not promoted) for [`super::run`].
pub fn prepare(region: &Region, abi: &Abi) -> Code {
    let n = region.types.len();
    let mut l = Lower {
        r: region,
        abi,
        code: Code {
            insns: Vec::with_capacity(region.blocks.iter().map(|b| b.insts.len() + 2).sum()),
            entries: vec![],
            marks: vec![],
            pool: region.pool.clone(),
            calls: vec![],
            exits: vec![],
            tables: vec![],
            frame: 0,
        },
        loc: vec![Loc::Undefined; n],
        last: vec![0; n],
        uses: vec![0; n],
        in_state: vec![],
        refs: vec![],
        free: vec![],
        free_wide: vec![],
        top: 0,
        at: 0,
        starts: vec![0; region.blocks.len()],
        fixups: vec![],
        table_fixups: vec![],
        done: vec![],
    };
    for b in 0..region.blocks.len() {
        l.block(b);
    }
    l.finish()
}

impl Lower<'_> {
    fn finish(mut self) -> Code {
        // Where jumps to blocks that do not exist go; also what follows the last instruction.
        let lost = self.code.insns.len() as u32;
        self.code.exits.push(Exit::Raise { code: u32::MAX, arg: 0, pc: 0 });
        let c = self.code.exits.len() as u32 - 1;
        self.emit(exec::h_exit, 0, 0, c, 0, 0);
        let start = |b: &Block| self.starts.get(b.0 as usize).copied().unwrap_or(lost);
        for (at, in_d, b) in &self.fixups {
            let delta = start(b).wrapping_sub(*at);
            let i = &mut self.code.insns[*at as usize];
            *(if *in_d { &mut i.d } else { &mut i.c }) = delta;
        }
        for (at, b) in &self.table_fixups {
            self.code.tables[*at as usize] = start(b);
        }
        self.code.entries = self.r.entries.iter().map(start).collect();
        // A use as the wrong width may read past its cell.
        self.code.frame += 16;
        self.code
    }

    #[inline]
    fn emit(&mut self, f: Handler, a: u32, b: u32, c: u32, d: u32, imm: u64) {
        self.code.insns.push(Insn { f, a, b, c, d, imm });
    }

    // ---- the frame

    fn alloc(&mut self, wide: bool) -> u32 {
        let off = if wide {
            self.free_wide.pop().unwrap_or_else(|| {
                let o = self.top.next_multiple_of(16);
                if o != self.top {
                    self.free.push(self.top);
                }
                self.top = o + 16;
                o
            })
        } else {
            self.free.pop().unwrap_or_else(|| {
                let o = self.top;
                self.top += 8;
                o
            })
        };
        self.code.frame = self.code.frame.max(self.top as usize);
        let n = off as usize / 8;
        if self.refs.len() <= n {
            self.refs.resize(n + 1, 0);
        }
        self.refs[n] = 1;
        off
    }
    fn wide(&self, v: Value) -> bool {
        self.r.types.get(v.0 as usize) == Some(&Type::V128)
    }
    fn loc(&self, v: Value) -> Loc {
        self.loc.get(v.0 as usize).copied().unwrap_or(Loc::Undefined)
    }
    fn last(&self, v: Value) -> u32 {
        self.last.get(v.0 as usize).copied().unwrap_or(0)
    }
    fn set_loc(&mut self, v: Value, l: Loc) {
        if let Some(x) = self.loc.get_mut(v.0 as usize) {
            *x = l;
        }
    }
    /// Give the cell of a value back if this is its last use.
    fn end_use(&mut self, v: Value) {
        if self.last(v) == self.at
            && let Loc::Frame(o) = self.loc(v)
        {
            self.set_loc(v, Loc::Undefined);
            let n = o as usize / 8;
            self.refs[n] -= 1;
            if self.refs[n] == 0 {
                if self.wide(v) { self.free_wide.push(o) } else { self.free.push(o) }
            }
        }
    }
    /// Put a value into the frame wherever it is now.
    fn to_frame(&mut self, v: Value) -> u32 {
        let wide = self.wide(v);
        let l = self.loc(v);
        if let Loc::Frame(o) = l {
            return o;
        }
        let o = self.alloc(wide);
        match l {
            Loc::State(s, _) if wide => self.emit(exec::movv(At::State, At::Frame), s, 0, 0, o, 0),
            Loc::State(s, _) => self.emit(exec::mov(AtI::State, At::Frame), s, 0, 0, o, 0),
            Loc::Imm(x) => self.emit(exec::mov(AtI::Imm, At::Frame), 0, 0, 0, o, x),
            Loc::Pool(n) => self.emit(exec::vconst(At::Frame), 0, 0, n, o, 0),
            Loc::Compare(n) => self.compare(n, o),
            Loc::Frame(_) => {}
            Loc::Undefined if wide => self.emit(exec::vconst(At::Frame), 0, 0, u32::MAX, o, 0),
            Loc::Undefined => self.emit(exec::mov(AtI::Imm, At::Frame), 0, 0, 0, o, 0),
        }
        if (v.0 as usize) < self.loc.len() {
            self.set_loc(v, Loc::Frame(o));
        }
        o
    }
    /// A comparison that was put off and is wanted as a value after all.
    fn compare(&mut self, _n: u32, o: u32) {
        self.emit(exec::mov(AtI::Imm, At::Frame), 0, 0, 0, o, 0);
    }
    /// Cell operand in frame or state.
    fn cell(&mut self, v: Value) -> (At, u32) {
        if let Loc::State(o, _) = self.loc(v) { (At::State, o) } else { (At::Frame, self.to_frame(v)) }
    }
    /// Cell operand anywhere.
    fn cell_imm(&mut self, v: Value) -> (AtI, u32, u64) {
        match self.loc(v) {
            Loc::State(o, _) => (AtI::State, o, 0),
            Loc::Imm(x) => (AtI::Imm, 0, x),
            Loc::Undefined => (AtI::Imm, 0, 0),
            _ => (AtI::Frame, self.to_frame(v), 0),
        }
    }
    /// Vector operand; a narrow value is not one.
    fn vec(&mut self, v: Value) -> (At, u32) {
        if self.wide(v) {
            return self.cell(v);
        }
        let o = self.alloc(true);
        self.emit(exec::vconst(At::Frame), 0, 0, u32::MAX, o, 0);
        self.free_wide.push(o);
        (At::Frame, o)
    }
    fn end_uses(&mut self, i: &Inst) {
        for v in [i.a, i.b, i.c] {
            if v.is_some() {
                self.end_use(v);
            }
        }
    }
    /// Place for the result: the slot it is put to next if that may be done here, else the frame. Call after the
    /// operands' last uses.
    fn dst(&mut self, v: Value, insts: &[Inst]) -> (At, u32) {
        let Some(&ty) = self.r.types.get(v.0 as usize) else {
            let o = self.alloc(true);
            self.free_wide.push(o);
            return (At::Frame, o);
        };
        let wide = ty == Type::V128;
        if self.uses[v.0 as usize] == 0 {
            let o = self.alloc(wide);
            if wide {
                self.free_wide.push(o)
            } else {
                self.free.push(o)
            }
            return (At::Frame, o);
        }
        if ty.bytes() >= 8
            && let Some((q, slot)) = self.put_ahead(v, insts)
        {
            let off = self.r.layout.get(slot).offset;
            self.done.push(q);
            self.set_loc(v, Loc::State(off, slot));
            self.in_state.push((v, slot));
            return (At::State, off);
        }
        let o = self.alloc(wide);
        self.set_loc(v, Loc::Frame(o));
        (At::Frame, o)
    }
    /// The `put` of `v` shortly after this instruction, if nothing between them can tell when it happens.
    fn put_ahead(&self, v: Value, insts: &[Inst]) -> Option<(u32, Slot)> {
        let from = self.at as usize + 1;
        let rest = insts.get(from..)?;
        for (n, i) in rest.iter().take(AHEAD).enumerate() {
            match i.op {
                Op::Put if i.a == v => {
                    let slot = Slot(i.imm as u16);
                    let info = self.r.layout.slots.get(usize::from(slot.0))?;
                    if info.ty != i.ty || self.r.types.get(v.0 as usize) != Some(&info.ty) {
                        return None;
                    }
                    let seen = rest[..n].iter().any(|j| matches!(j.op, Op::Get | Op::Put) && j.imm == i.imm);
                    let needed = self.in_state.iter().any(|(x, s)| *s == slot && self.last(*x) > self.at);
                    return (!seen && !needed).then_some(((from + n) as u32, slot));
                }
                Op::Put => {}
                _ if i.op.flags() != 0 => return None,
                _ => {}
            }
        }
        None
    }
    /// Copy values that are in a slot of this kind, and needed later, to the frame: the slot is about to change.
    fn evict(&mut self, hit: impl Fn(Slot) -> bool) {
        let mut n = 0;
        while n < self.in_state.len() {
            let (v, s) = self.in_state[n];
            if self.last(v) <= self.at || !matches!(self.loc(v), Loc::State(..)) {
                self.in_state.swap_remove(n);
            } else if hit(s) {
                self.in_state.swap_remove(n);
                self.to_frame(v);
            } else {
                n += 1;
            }
        }
    }

    // ---- blocks

    fn block(&mut self, b: usize) {
        let data = &self.r.blocks[b];
        self.starts[b] = self.code.insns.len() as u32;
        self.mark(data.pc);
        self.in_state.clear();
        self.done.clear();
        self.free.clear();
        self.free_wide.clear();
        self.refs.clear();
        self.top = 0;
        if data.loop_header {
            self.emit(exec::h_poll, 0, 0, self.abi.poll, 0, data.pc);
        }
        for (n, i) in data.insts.iter().enumerate() {
            self.r.for_each_operand(i, |v| {
                if let (Some(l), Some(u)) = (self.last.get_mut(v.0 as usize), self.uses.get_mut(v.0 as usize)) {
                    *l = n as u32;
                    *u += 1;
                }
            });
        }
        let compared = data.term.operand().and_then(|v| {
            let (l, u) = (self.last.get_mut(v.0 as usize)?, self.uses.get_mut(v.0 as usize)?);
            *l = END;
            *u += 1;
            (*u == 1 && matches!(data.term, Term::Br(..))).then_some(v)
        });
        for (n, i) in data.insts.iter().enumerate() {
            self.at = n as u32;
            if i.op == Op::Icmp && Some(i.dst) == compared && cond(i).is_some() {
                // Done by the branch; its operands live until then.
                for v in [i.a, i.b] {
                    if let Some(l) = self.last.get_mut(v.0 as usize) {
                        *l = END;
                    }
                }
                self.set_loc(i.dst, Loc::Compare(n as u32));
                continue;
            }
            self.inst(i, &data.insts);
        }
        self.at = END;
        self.term(&data.term, &data.insts, b);
    }

    fn mark(&mut self, pc: u64) {
        let at = self.code.insns.len() as u32;
        match self.code.marks.last_mut() {
            Some(m) if m.0 == at => m.1 = pc,
            Some(m) if m.1 == pc => {}
            _ => self.code.marks.push((at, pc)),
        }
    }

    fn jump(&mut self, b: Block, in_d: bool) {
        let at = self.code.insns.len() as u32 - 1;
        self.fixups.push((at, in_d, b));
    }

    fn exit(&mut self, at: Option<Value>, e: Exit) {
        let a = match at {
            Some(v) => self.to_frame(v),
            None => 0,
        };
        self.code.exits.push(e);
        let c = self.code.exits.len() as u32 - 1;
        self.emit(exec::h_exit, a, 0, c, 0, 0);
    }

    fn term(&mut self, t: &Term, insts: &[Inst], b: usize) {
        match t {
            Term::Jump(to) => {
                if to.0 as usize != b + 1 || to.0 as usize >= self.r.blocks.len() {
                    self.emit(exec::h_jump, 0, 0, 0, 0, 0);
                    self.jump(*to, false);
                }
            }
            Term::Br(v, yes, no) => {
                match self.loc(*v) {
                    Loc::Compare(n) => {
                        let i = insts[n as usize];
                        let Some(mut c) = cond(&i) else { return };
                        let (mut x, mut y) = (i.a, i.b);
                        if matches!(self.loc(x), Loc::Imm(_)) && !matches!(self.loc(y), Loc::Imm(_)) {
                            (x, y, c) = (y, x, c.swap());
                        }
                        let (a, ao) = self.cell(x);
                        let (bk, bo, imm) = self.cell_imm(y);
                        self.emit(exec::icmp_br(c, i.ty, a, bk), ao, bo, 0, 0, imm);
                    }
                    Loc::Imm(x) => {
                        self.emit(exec::h_jump, 0, 0, 0, 0, 0);
                        self.jump(if x != 0 { *yes } else { *no }, false);
                        return;
                    }
                    _ => {
                        let a = self.to_frame(*v);
                        self.emit(exec::h_br, a, 0, 0, 0, 0);
                    }
                }
                self.jump(*yes, false);
                self.jump(*no, true);
            }
            Term::Switch(v, table, default) => {
                let a = self.to_frame(*v);
                let c = self.code.tables.len() as u32;
                for (n, b) in table.iter().chain([default]).enumerate() {
                    self.table_fixups.push((c + n as u32, *b));
                    self.code.tables.push(0);
                }
                self.emit(exec::h_switch, a, table.len() as u32, c, 0, 0);
            }
            Term::Exit(v) => self.exit(Some(*v), Exit::Jump { pc: 0 }),
            Term::Return(v) => self.exit(Some(*v), Exit::Return { pc: 0 }),
            Term::Call { target, ret, .. } => {
                self.exit(Some(*target), Exit::Call { target: 0, ret: *ret });
            }
            Term::Service { code, pc, next, .. } => {
                self.exit(None, Exit::Service { code: *code, pc: *pc, next: *next });
            }
            Term::Raise { code, arg, pc } => {
                self.exit(None, Exit::Raise { code: *code, arg: *arg, pc: *pc });
            }
        }
    }

    /// A value that is another name of `v`.
    fn alias(&mut self, dst: Value, v: Value) {
        let l = self.loc(v);
        match l {
            Loc::Frame(o) => self.refs[o as usize / 8] += 1,
            Loc::State(_, s) => self.in_state.push((dst, s)),
            Loc::Compare(_) | Loc::Undefined | Loc::Imm(_) | Loc::Pool(_) => {}
        }
        self.end_use(v);
        self.set_loc(dst, l);
        if self.uses.get(dst.0 as usize) == Some(&0)
            && let Loc::Frame(o) = l
        {
            self.refs[o as usize / 8] -= 1;
        }
    }

    fn apply1(&mut self, f: Option<Apply1>, i: &Inst, insts: &[Inst], c: u32) {
        let Some(f) = f else { return };
        let (a, ao) = match f {
            Apply1::V1(_) | Apply1::Ext(_) => self.vec(i.a),
            Apply1::F1(_) | Apply1::Splat(_) => self.cell(i.a),
        };
        self.end_uses(i);
        let (d, doff) = self.dst(i.dst, insts);
        let (h, imm) = exec::apply1(f, a, d);
        self.emit(h, ao, 0, c, doff, imm);
    }
    fn apply2(&mut self, f: Option<Apply2>, i: &Inst, insts: &[Inst], c: u32) {
        let Some(f) = f else { return };
        let ((a, ao), (b, bo)) = match f {
            Apply2::V2(_) => (self.vec(i.a), self.vec(i.b)),
            Apply2::Ins(_) => (self.vec(i.a), self.cell(i.b)),
            Apply2::F2(_) => (self.cell(i.a), self.cell(i.b)),
        };
        self.end_uses(i);
        let (d, doff) = self.dst(i.dst, insts);
        let (h, imm) = exec::apply2(f, a, b, d);
        self.emit(h, ao, bo, c, doff, imm);
    }

    fn inst(&mut self, i: &Inst, insts: &[Inst]) {
        // Results that nobody uses are not computed, except where that may fault or raises flags.
        let unused = i.dst.is_some() && self.uses.get(i.dst.0 as usize) == Some(&0);
        if unused && i.op.flags() == 0 && !i.op.raises_flags(i.ty) {
            self.end_uses(i);
            return;
        }
        let disp = i.imm as i32 as u32;
        match i.op.sig() {
            Sig::Const => self.set_loc(i.dst, Loc::Imm(exec::cell(i.ty, i.imm))),
            Sig::VConst => self.set_loc(i.dst, Loc::Pool(u32::try_from(i.imm).unwrap_or(u32::MAX))),
            Sig::Get => self.get(i, insts),
            Sig::Put => self.put(i),
            Sig::Cmp => self.icmp(i, insts),
            Sig::Bin if i.ty.is_shape() || i.ty == Type::V128 => {
                self.apply2(vector::bin(i.op, i.ty).map(Apply2::V2), i, insts, 0);
            }
            Sig::Bin => self.bin(i, insts),
            Sig::Un if i.ty.is_shape() => {
                self.apply1(vector::un(i.op, i.ty).map(Apply1::V1), i, insts, 0);
            }
            Sig::Un => self.apply1(scalar::un(i.op, i.ty).map(Apply1::F1), i, insts, 0),
            Sig::FCmp => {
                let f = if i.op == Op::FComi { scalar::fcomi } else { scalar::fcmp };
                let f = fcond(i).and_then(|c| f(c, i.ty));
                self.apply2(f.map(Apply2::F2), i, insts, 0);
            }
            Sig::VFCmp => {
                let f = fcond(i).and_then(|c| vector::fcmp(c, i.ty));
                self.apply2(f.map(Apply2::V2), i, insts, 0);
            }
            Sig::Conv => match i.op {
                Op::Zext | Op::Bitcast => self.alias(i.dst, i.a),
                Op::Trunc => {
                    let (a, ao, x) = self.cell_imm(i.a);
                    if a == AtI::Imm {
                        self.set_loc(i.dst, Loc::Imm(x & scalar::mask(i.ty)));
                        return;
                    }
                    let a = if a == AtI::State { At::State } else { At::Frame };
                    self.end_uses(i);
                    let (d, doff) = self.dst(i.dst, insts);
                    if let Some(h) = exec::bin(Op::And, i.ty, a, AtI::Imm, d) {
                        self.emit(h, ao, 0, 0, doff, scalar::mask(i.ty));
                    }
                }
                _ => {
                    let from = Type::ALL.get(i.imm as usize).copied().unwrap_or(Type::I8);
                    self.apply1(scalar::conv(i.op, from, i.ty).map(Apply1::F1), i, insts, 0);
                }
            },
            Sig::Select => {
                if let Loc::Imm(x) = self.loc(i.a) {
                    let v = if x != 0 { i.b } else { i.c };
                    self.alias(i.dst, v);
                    self.end_uses(i);
                    return;
                }
                let wide = i.ty == Type::V128;
                let c = self.to_frame(i.a);
                let ((x, xo), (y, yo)) =
                    if wide { (self.vec(i.b), self.vec(i.c)) } else { (self.cell(i.b), self.cell(i.c)) };
                self.end_uses(i);
                let (d, doff) = self.dst(i.dst, insts);
                self.emit(exec::select(wide, x, y, d), xo, yo, c, doff, 0);
            }
            Sig::Load => {
                let (a, ao, imm) = self.cell_imm(i.a);
                self.end_uses(i);
                let (d, doff) = self.dst(i.dst, insts);
                let h = if i.ty == Type::V128 { exec::loadv(a, d) } else { exec::load(i.ty.bytes(), a, d) };
                self.emit(h, ao, 0, disp, doff, imm);
            }
            Sig::Align => {
                let (a, ao) = self.cell(i.a);
                self.end_uses(i);
                let (h, c) = if i.op == Op::Whole { (exec::whole(a), 0) } else { (exec::aligned(a), 1) };
                self.emit(h, ao, 0, i.imm as u32 - c, 0, 0);
            }
            Sig::Store => self.store(i, disp),
            Sig::Rmw => {
                let (a, b) = (self.to_frame(i.a), self.to_frame(i.b));
                self.end_uses(i);
                let d = self.frame_dst(i.dst);
                let imm = i.op as u64 | u64::from(i.ty.bytes().min(8)) << 8;
                self.emit(exec::h_rmw, a, b, disp, d, imm);
            }
            Sig::Cas => {
                let a = self.to_frame(i.a);
                let wide = i.ty == Type::V128;
                let (b, c) = if wide {
                    (self.vec_in_frame(i.b), self.vec_in_frame(i.c))
                } else {
                    (self.to_frame(i.b), self.to_frame(i.c))
                };
                self.end_uses(i);
                let d = self.frame_dst(i.dst);
                self.emit(exec::h_cas, a, b, disp, d, u64::from(c) | u64::from(i.ty.bytes()) << 32);
            }
            Sig::Fence => self.emit(exec::fence(), 0, 0, 0, 0, 0),
            Sig::Extract => {
                self.apply1(Some(Apply1::Ext(vector::extract(i.ty))), i, insts, i.imm as u32);
            }
            Sig::VMask => self.apply1(Some(Apply1::Ext(vector::mask(i.ty))), i, insts, 0),
            Sig::Splat => self.apply1(Some(Apply1::Splat(vector::splat(i.ty))), i, insts, 0),
            Sig::Insert => {
                self.apply2(Some(Apply2::Ins(vector::insert(i.ty))), i, insts, i.imm as u32);
            }
            Sig::VShift => self.apply2(vector::shift(i.op, i.ty).map(Apply2::Ins), i, insts, 0),
            Sig::Shuffle => {
                let ((a, ao), (b, bo)) = (self.vec(i.a), self.vec(i.b));
                self.end_uses(i);
                let (d, doff) = self.dst(i.dst, insts);
                self.emit(exec::shuffle(a, b, d), ao, bo, i.imm as u32, doff, 0);
            }
            Sig::VSelect => {
                let m = self.vec_in_frame(i.a);
                let ((b, bo), (c, co)) = (self.vec(i.b), self.vec(i.c));
                self.end_uses(i);
                let (d, doff) = self.dst(i.dst, insts);
                self.emit(exec::vselect(b, c, d), bo, co, 0, doff, u64::from(m));
            }
            Sig::Call => self.call(i),
            Sig::Marker => self.mark(i.imm as u64),
            Sig::Fill | Sig::Spill => {}
        }
    }

    /// Vector operand that has to be in the frame.
    fn vec_in_frame(&mut self, v: Value) -> u32 {
        if self.wide(v) { self.to_frame(v) } else { self.vec(v).1 }
    }
    /// Place for a result that has to be in the frame.
    fn frame_dst(&mut self, v: Value) -> u32 {
        let wide = self.wide(v);
        let o = self.alloc(wide);
        if self.uses.get(v.0 as usize).is_none_or(|n| *n == 0) {
            if wide { self.free_wide.push(o) } else { self.free.push(o) }
        } else {
            self.set_loc(v, Loc::Frame(o));
        }
        o
    }

    fn get(&mut self, i: &Inst, insts: &[Inst]) {
        let slot = Slot(i.imm as u16);
        let Some(info) = self.r.layout.slots.get(usize::from(slot.0)) else {
            return;
        };
        if info.ty != i.ty {
            return;
        }
        if i.ty.bytes() >= 8 {
            self.set_loc(i.dst, Loc::State(info.offset, slot));
            self.in_state.push((i.dst, slot));
        } else {
            let (_, d) = self.dst(i.dst, insts);
            self.emit(exec::get_narrow(i.ty.bytes()), info.offset, 0, 0, d, 0);
        }
    }

    fn put(&mut self, i: &Inst) {
        if self.done.contains(&self.at) {
            self.end_uses(i);
            return;
        }
        let slot = Slot(i.imm as u16);
        let Some(info) = self.r.layout.slots.get(usize::from(slot.0)) else {
            return;
        };
        if matches!(self.loc(i.a), Loc::State(_, s) if s == slot) {
            return;
        }
        self.evict(|s| s == slot);
        match info.ty.bytes() {
            16 => {
                if let (true, Loc::Pool(n)) = (self.wide(i.a), self.loc(i.a)) {
                    self.emit(exec::vconst(At::State), 0, 0, n, info.offset, 0);
                } else {
                    let (a, ao) = self.vec(i.a);
                    self.emit(exec::movv(a, At::State), ao, 0, 0, info.offset, 0);
                }
            }
            8 => {
                let (a, ao, imm) = self.cell_imm(i.a);
                self.emit(exec::mov(a, At::State), ao, 0, 0, info.offset, imm);
            }
            n => {
                let (a, ao, imm) = self.cell_imm(i.a);
                self.emit(exec::put_narrow(n, a), ao, 0, 0, info.offset, imm);
            }
        }
        self.end_uses(i);
    }

    fn icmp(&mut self, i: &Inst, insts: &[Inst]) {
        let Some(mut c) = cond(i) else { return };
        let (mut x, mut y) = (i.a, i.b);
        if matches!(self.loc(x), Loc::Imm(_)) && !matches!(self.loc(y), Loc::Imm(_)) {
            (x, y, c) = (y, x, c.swap());
        }
        let (a, ao) = self.cell(x);
        let (b, bo, imm) = self.cell_imm(y);
        self.end_uses(i);
        let (d, doff) = self.dst(i.dst, insts);
        self.emit(exec::icmp(c, i.ty, a, b, d), ao, bo, 0, doff, imm);
    }

    fn bin(&mut self, i: &Inst, insts: &[Inst]) {
        if exec::bin(i.op, i.ty, At::Frame, AtI::Frame, At::Frame).is_none() {
            self.apply2(scalar::bin(i.op, i.ty).map(Apply2::F2), i, insts, 0);
            return;
        }
        let (mut x, mut y) = (i.a, i.b);
        if matches!(i.op, Op::Add | Op::And | Op::Or | Op::Xor | Op::Mul) && matches!(self.loc(x), Loc::Imm(_)) {
            (x, y) = (y, x);
        }
        let (a, ao) = self.cell(x);
        let (b, bo, imm) = self.cell_imm(y);
        self.end_uses(i);
        let (d, doff) = self.dst(i.dst, insts);
        if let Some(h) = exec::bin(i.op, i.ty, a, b, d) {
            self.emit(h, ao, bo, 0, doff, imm);
        }
    }

    fn store(&mut self, i: &Inst, disp: u32) {
        let n = i.ty.bytes();
        if n == 16 {
            let (a, ao, imm) = self.cell_imm(i.a);
            let (b, bo) = self.vec(i.b);
            self.emit(exec::storev(a, b), ao, bo, disp, 0, imm);
        } else if let Loc::Imm(at) = self.loc(i.a) {
            let (b, bo) = self.cell(i.b);
            self.emit(exec::store_at(n, b), 0, bo, disp, 0, at);
        } else {
            let (a, ao) = self.cell(i.a);
            let (b, bo, imm) = self.cell_imm(i.b);
            self.emit(exec::store(n, a, b), ao, bo, disp, 0, imm);
        }
        self.end_uses(i);
    }

    fn call(&mut self, i: &Inst) {
        let r = self.r;
        let Some(c) = r.calls.get(i.imm as usize) else {
            return;
        };
        let Some(sig) = r.helpers.get(usize::from(c.helper)) else {
            return;
        };
        let (mut ints, mut vecs) = ([Arg::Imm(0); 4], [Arg::Imm(0); 3]);
        let (ni, nv) = (usize::from(sig.ints), usize::from(sig.vecs));
        for (n, v) in c.args.iter().enumerate() {
            if n < ni && n < 4 {
                let (k, o, x) = self.cell_imm(*v);
                ints[n] = match k {
                    AtI::Frame => Arg::Frame(o),
                    AtI::State => Arg::State(o),
                    AtI::Imm => Arg::Imm(x),
                };
            } else if n >= ni && n - ni < nv.min(3) {
                let (k, o) = self.vec(*v);
                vecs[n - ni] = if k == At::State { Arg::State(o) } else { Arg::Frame(o) };
            }
        }
        match sig.effects {
            Effects::Pure => {}
            Effects::Private => self.evict(|s| !r.layout.get(s).promote),
            Effects::All => self.evict(|_| true),
        }
        for v in &c.args {
            self.end_use(*v);
        }
        let d = if i.dst.is_some() && sig.ret.is_some() { self.frame_dst(i.dst) } else { u32::MAX };
        self.code.calls.push(CallRec {
            helper: c.helper,
            ints,
            vecs,
            wide: sig.ret == Some(Type::V128),
            pending: sig.raises.then_some(self.abi.pending),
        });
        let c = self.code.calls.len() as u32 - 1;
        self.emit(exec::h_call, 0, 0, c, d, 0);
    }
}

fn cond(i: &Inst) -> Option<Cond> {
    Cond::ALL.get(usize::try_from(i.imm).ok()?).copied()
}
fn fcond(i: &Inst) -> Option<FCond> {
    FCond::ALL.get(usize::try_from(i.imm).ok()?).copied()
}
