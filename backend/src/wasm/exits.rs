//! Control flow: nested blocks and loops, and every way out of a function.

use super::abi::Import;
use super::emit::{Label, Sym, at};
use super::intern::Intern;
use super::lower::Lower;
use super::{Error, Link};
use evm_ir::{Block, BlockData, Effects, Inst, Term, Type, Value};
use wasm_encoder::ValType;

/// Bytes of stack that a call in place of a jump is taken for.
pub const JUMP_FRAME: i32 = 64;

/// What is still to be written.
enum Todo {
    /// A node with all that it dominates.
    Tree(usize),
    /// The node itself.
    Body(usize),
    /// The end of a label.
    End,
}

/// How control gets to a block from where it is.
enum Way {
    /// By a branch.
    To(Label),
    /// It is written here.
    Here(usize),
}

impl Lower<'_> {
    /// A reducible graph.
    pub(super) fn nested(&mut self) -> Result<(), Error> {
        let mut work = vec![Todo::Tree(self.shape.root)];
        while let Some(t) = work.pop() {
            match t {
                Todo::Tree(n) => {
                    if self.shape.header[n] {
                        let l = self.b.loop_();
                        self.loop_labels.insert(n, l);
                        work.push(Todo::End);
                    }
                    let merges: Vec<usize> =
                        self.shape.children[n].iter().copied().filter(|c| self.shape.merge[*c]).collect();
                    // The last in order is outermost: its label encloses all that can go to it.
                    for m in merges.iter().rev() {
                        let l = self.b.block();
                        self.block_labels.insert(*m, l);
                        work.push(Todo::Tree(*m));
                        work.push(Todo::End);
                    }
                    work.push(Todo::Body(n));
                }
                Todo::End => self.b.end(),
                Todo::Body(n) if n == self.shape.root => {
                    let rest = self.enter()?;
                    work.extend(rest.map(Todo::Tree));
                }
                Todo::Body(n) => {
                    self.block(n)?;
                    self.branches(n, &mut work)?;
                }
            }
        }
        Ok(())
    }

    /// From the function's entry to that of the region; gives the block to be written here.
    fn enter(&mut self) -> Result<Option<usize>, Error> {
        let entries = self.shape.entries.clone();
        for (pc, b) in &entries[1..] {
            self.b.ins().local_get(1).i64_const(*pc as i64).i64_eq();
            match self.way(self.shape.root, *b)? {
                Way::To(l) => self.b.br_if(l),
                Way::Here(_) => return Err(Error::Invalid("an entry without a label")),
            }
        }
        match self.way(self.shape.root, entries[0].1)? {
            Way::To(l) => {
                self.b.br(l);
                Ok(None)
            }
            Way::Here(n) => Ok(Some(n)),
        }
    }

    fn way(&self, from: usize, to: usize) -> Result<Way, Error> {
        let label = if self.shape.place[to] <= self.shape.place[from] {
            self.loop_labels.get(&to)
        } else if self.shape.merge[to] {
            self.block_labels.get(&to)
        } else {
            return Ok(Way::Here(to));
        };
        label.map(|l| Way::To(*l)).ok_or(Error::Invalid("a branch without a label"))
    }

    /// The branches at the end of a block whose instructions are written.
    fn branches(&mut self, n: usize, work: &mut Vec<Todo>) -> Result<(), Error> {
        let r = self.r;
        match &r.blocks[n].term {
            Term::Br(c, x, y) => {
                let (x, y) = (self.way(n, x.0 as usize)?, self.way(n, y.0 as usize)?);
                self.push_clean(*c)?;
                match (x, y) {
                    (Way::To(x), Way::To(y)) => {
                        self.b.br_if(x);
                        self.b.br(y);
                    }
                    (Way::To(x), Way::Here(y)) => {
                        self.b.br_if(x);
                        work.push(Todo::Tree(y));
                    }
                    (Way::Here(x), Way::To(y)) => {
                        self.b.ins().i32_eqz();
                        self.b.br_if(y);
                        work.push(Todo::Tree(x));
                    }
                    (Way::Here(x), Way::Here(y)) => {
                        // The smaller one stands inside, so that nothing gets deep.
                        let (inside, behind) = if self.shape.size[x] <= self.shape.size[y] {
                            (x, y)
                        } else {
                            self.b.ins().i32_eqz();
                            (y, x)
                        };
                        self.b.if_();
                        work.extend([Todo::Tree(behind), Todo::End, Todo::Tree(inside)]);
                    }
                }
            }
            Term::Switch(v, table, default) => {
                let label = |me: &Self, b: &Block| match me.way(n, b.0 as usize)? {
                    Way::To(l) => Ok(l),
                    Way::Here(_) => Err(Error::Invalid("a target of a table without a label")),
                };
                let labels = table.iter().map(|b| label(self, b)).collect::<Result<Vec<_>, _>>()?;
                let default = label(self, default)?;
                self.index(*v, labels.len())?;
                self.b.br_table(&labels, default);
            }
            t => {
                let to = match t {
                    Term::Jump(b) => Some(*b),
                    t => t.cont(),
                };
                if let Some(b) = to {
                    match self.way(n, b.0 as usize)? {
                        Way::To(l) => self.b.br(l),
                        Way::Here(b) => work.push(Todo::Tree(b)),
                    }
                }
            }
        }
        Ok(())
    }

    /// Leave a table's index on the stack: `len` for what is beyond.
    fn index(&mut self, v: Value, len: usize) -> Result<(), Error> {
        let l = self.temp(ValType::I64);
        self.push(v)?;
        self.b.ins().local_tee(l).i32_wrap_i64().i32_const(len as i32);
        self.b.ins().local_get(l).i64_const(len as i64).i64_lt_u().select();
        self.free(l);
        Ok(())
    }

    /// A graph that is not reducible: all blocks in a row inside a loop that goes to the one asked for. What goes forward
    /// needs no detour.
    pub(super) fn dispatched(&mut self) -> Result<(), Error> {
        let to = self.local(ValType::I32);
        let order: Vec<usize> = self.shape.order[1..].to_vec();
        let number = |b: usize| order.iter().position(|x| *x == b).unwrap_or(0);
        let entries = self.shape.entries.clone();
        for (pc, b) in &entries {
            self.b.ins().i32_const(number(*b) as i32);
            if *pc != entries[0].0 {
                self.b.ins().local_get(to).local_get(1).i64_const(*pc as i64).i64_eq().select();
            }
            self.b.ins().local_set(to);
        }
        let around = self.b.loop_();
        self.dispatch = Some((around, to));
        for b in order.iter().rev() {
            let l = self.b.block();
            self.block_labels.insert(*b, l);
        }
        self.b.ins().local_get(to);
        let labels: Vec<Label> = order.iter().map(|b| self.block_labels[b]).collect();
        let last = labels[labels.len() - 1];
        self.b.br_table(&labels, last);
        for (n, b) in order.iter().enumerate() {
            self.b.end();
            self.block(*b)?;
            self.far_branches(*b, n, &number)?;
        }
        self.b.end();
        Ok(())
    }

    fn far_branches(&mut self, b: usize, n: usize, number: &dyn Fn(usize) -> usize) -> Result<(), Error> {
        let r = self.r;
        let Some((around, to)) = self.dispatch else {
            return Err(Error::Invalid("no dispatch"));
        };
        let go = |me: &mut Self, t: &Block| {
            let t = t.0 as usize;
            if number(t) > n {
                let l = me.block_labels[&t];
                me.b.br(l);
            } else {
                me.b.ins().i32_const(number(t) as i32).local_set(to);
                me.b.br(around);
            }
        };
        match &r.blocks[b].term {
            Term::Br(c, x, y) => {
                self.push_clean(*c)?;
                self.b.if_();
                go(self, x);
                self.b.end();
                go(self, y);
            }
            Term::Switch(v, table, default) => {
                // A block for each target, whose end goes there.
                self.index(*v, table.len())?;
                let l = self.temp(ValType::I32);
                self.b.ins().local_set(l);
                let labels: Vec<Label> = (0..=table.len()).map(|_| self.b.block()).collect();
                self.b.ins().local_get(l);
                let inner: Vec<Label> = labels.iter().rev().copied().collect();
                self.b.br_table(&inner[..table.len()], inner[table.len()]);
                for t in table.iter().chain([default]) {
                    self.b.end();
                    go(self, t);
                }
                self.free(l);
            }
            Term::Jump(t) => go(self, t),
            t => {
                if let Some(t) = t.cont() {
                    go(self, &t);
                }
            }
        }
        Ok(())
    }

    // ---- ways out -------------------------------------------------------------------------------

    /// What a terminator does before control goes on inside the function, or all of it if it does not.
    pub(super) fn terminator(&mut self, data: &BlockData) -> Result<(), Error> {
        match &data.term {
            Term::Jump(_) | Term::Br(..) | Term::Switch(..) => {}
            Term::Exit(pc) => match self.constant(*pc) {
                Some(k) => {
                    self.lose(*pc);
                    self.jump_to(k as u64);
                }
                None => {
                    self.b.ins().local_get(0);
                    self.push(*pc)?;
                    self.b.return_call_or(self.s.tail_calls, Sym::Intern(Intern::Jump));
                }
            },
            Term::Return(pc) => {
                self.push(*pc)?;
                self.b.ins().return_();
            }
            Term::Call { target, ret, cont } => self.call(*target, *ret, *cont)?,
            Term::Service { code, pc, next, cont } => {
                self.b.ins().local_get(0).i64_const(i64::from(*code)).i64_const(*pc as i64).i64_const(*next as i64);
                self.import(Import::Service);
                self.go_on(*next, *cont, false)?;
            }
            Term::Raise { code, arg, pc } => {
                self.b.ins().local_get(0).i64_const(i64::from(*code)).i64_const(*arg as i64).i64_const(*pc as i64);
                self.import(Import::Raise);
                self.b.ins().return_();
            }
        }
        Ok(())
    }

    /// Leave for a known guest address.
    fn jump_to(&mut self, pc: u64) {
        let to = match (self.links)(pc) {
            Link::Direct => Sym::Region(pc),
            Link::Table => Sym::Intern(Intern::Jump),
            Link::Nowhere => {
                self.b.ins().i64_const(pc as i64).return_();
                return;
            }
        };
        self.b.ins().local_get(0).i64_const(pc as i64);
        // Without tail calls only `Jump` counts stack.
        let to = if self.s.tail_calls { to } else { Sym::Intern(Intern::Jump) };
        self.b.return_call_or(self.s.tail_calls, to);
    }

    /// About what this function takes of the stack.
    fn frame(&self) -> i32 {
        let wide = self.b.locals.iter().filter(|t| **t == ValType::V128).count();
        (96 + 8 * self.b.locals.len() + 8 * wide) as i32
    }

    fn call(&mut self, target: Value, ret: u64, cont: Option<Block>) -> Result<(), Error> {
        let link = self.constant(target).map(|k| (k as u64, (self.links)(k as u64)));
        if let Some((pc, Link::Nowhere)) = link {
            self.lose(target);
            self.b.ins().local_get(0).i64_const(pc as i64).i64_const(ret as i64);
            self.import(Import::Call);
            return self.go_on(ret, cont, false);
        }
        let Some((before, left)) = self.stack else {
            return Err(Error::Invalid("a call in a function without calls"));
        };
        let depth = at(self.s.abi.depth);
        self.b.ins().local_get(0).local_get(left).i32_store(depth);
        self.b.ins().local_get(0);
        self.push(target)?;
        self.b.call(match link {
            Some((pc, Link::Direct)) => Sym::Region(pc),
            _ => Sym::Intern(Intern::Jump),
        });
        self.b.ins().local_get(0).local_get(before).i32_store(depth);
        self.go_on(ret, cont, true)
    }

    /// Go on behind a call or service if what is on the stack is `next`; else return it, after a try to resume if it came
    /// from compiled code.
    fn go_on(&mut self, next: u64, cont: Option<Block>, resume: bool) -> Result<(), Error> {
        let Some((gone, r)) = self.gone else {
            return Err(Error::Invalid("a call in a function without calls"));
        };
        self.b.ins().local_tee(r).i64_const(next as i64);
        if let Some((_, left)) = self.stack.filter(|_| resume) {
            let n = self.temp(ValType::I64);
            self.b.ins().local_tee(n).i64_ne();
            self.b.if_();
            self.b.ins().local_get(0).local_get(r).local_get(n).local_get(left);
            self.b.call(Sym::Intern(Intern::Back));
            self.b.ins().local_tee(r).local_get(n).i64_ne();
            self.b.br_if(gone);
            self.b.end();
            self.free(n);
        } else {
            self.b.ins().i64_ne();
            self.b.br_if(gone);
        }
        if cont.is_none() {
            self.jump_to(next);
        }
        Ok(())
    }

    /// What a function with calls does first: it goes back to where it was asked for if its caller has no stack left for it.
    /// Gives the place in the code of its own need of stack.
    pub(super) fn open_calls(&mut self) -> Option<usize> {
        let reached = |b: &usize| self.shape.place[*b] != usize::MAX;
        let calls = |b: usize| matches!(self.r.blocks[b].term, Term::Call { .. });
        let leaves = |b: usize| matches!(self.r.blocks[b].term, Term::Call { .. } | Term::Service { .. });
        let reached: Vec<usize> = (0..self.r.blocks.len()).filter(reached).collect();
        let (calls, leaves) = (reached.iter().any(|b| calls(*b)), reached.iter().any(|b| leaves(*b)));
        let mut place = None;
        if calls {
            let (before, left) = (self.local(ValType::I32), self.local(ValType::I32));
            self.stack = Some((before, left));
            self.b.load32(self.s.abi.depth);
            self.b.ins().local_tee(before).i32_const(0).i32_lt_s();
            self.b.if_();
            self.b.ins().local_get(1).return_();
            self.b.end();
            self.b.ins().local_get(before);
            place = Some(self.b.wide_const());
            self.b.ins().i32_sub().local_set(left);
        }
        if leaves {
            let r = self.local(ValType::I64);
            self.gone = Some((self.b.block(), r));
        }
        place
    }
    /// The function's end.
    pub(super) fn close_calls(&mut self, frame: Option<usize>) {
        if let Some(place) = frame {
            let frame = self.frame();
            self.b.set_wide_const(place, frame);
        }
        match self.gone {
            Some((_, r)) => {
                self.b.end();
                self.b.ins().local_get(r);
            }
            None => drop(self.b.ins().unreachable()),
        }
    }

    pub(super) fn helper(&mut self, i: &Inst) -> Result<(), Error> {
        let r = self.r;
        let call = r.calls.get(i.imm as usize).ok_or(Error::Invalid("no such call"))?;
        let h = r.helpers.get(call.helper as usize).ok_or(Error::Invalid("no such helper"))?;
        if call.args.len() != usize::from(h.ints) + usize::from(h.vecs) {
            return Err(Error::Invalid("wrong number of helper arguments"));
        }
        if let (Effects::Pure, [x, y]) = (h.effects, call.args.as_slice())
            && (h.ints, h.vecs, h.ret) == (0, 2, Some(Type::V128))
            && let Some(f) = super::sequences::of(h.name)
        {
            let [a, b, t] = [(); 3].map(|()| self.temp(ValType::V128));
            for (v, l) in [(x, a), (y, b)] {
                self.push(*v)?;
                self.b.ins().local_set(l);
            }
            f(&mut self.b, a, b, t);
            [a, b, t].into_iter().for_each(|l| self.free(l));
            return self.define(i.dst, false);
        }
        self.b.ins().local_get(0);
        for a in &call.args {
            self.push(*a)?;
        }
        self.b.call(Sym::Helper(call.helper));
        if h.ret.is_some() {
            self.define(i.dst, false)?;
        }
        if h.raises {
            self.b.load32(self.s.abi.pending);
            self.b.if_();
            let (rip, pc) = (at(self.s.abi.rip), self.pc);
            self.b.ins().local_get(0).i64_const(pc as i64).i64_store(rip);
            self.b.ins().i64_const(crate::abi::EXIT_PENDING as i64).return_();
            self.b.end();
        }
        debug_assert!(h.ret.is_none_or(|t| matches!(t, Type::I64 | Type::V128)));
        Ok(())
    }
}
