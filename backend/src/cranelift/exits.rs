//! Terminators: branches, and every way out of a function.

use super::Error;
use super::lower::{Lower, V, cl_type};
use crate::abi::{EXIT_PENDING, FIRST_HELPER, IBTC, IBTC_FOLD, RuntimeFn, TARGETS, target_salt};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{self as cl, InstBuilder, JumpTableData, types};
use cranelift_codegen::isa::CallConv;
use evm_ir::{Block, BlockData, Inst, Term, Type, Value};

/// Values that a terminator uses.
pub(super) fn uses(t: &Term) -> Vec<Value> {
    match t {
        Term::Br(v, ..) | Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) => vec![*v],
        Term::Call { target, .. } => vec![*target],
        Term::Jump(_) | Term::Service { .. } | Term::Raise { .. } => vec![],
    }
}

impl Lower<'_, '_> {
    pub(super) fn terminator(&mut self, data: &BlockData) -> Result<(), Error> {
        match &data.term {
            Term::Jump(b) => {
                let to = self.target(*b)?;
                self.b.ins().jump(to, &[]);
            }
            Term::Br(c, x, y) => {
                let (mut c, mut to) = (self.val(*c)?, [*x, *y]);
                // Cranelift lays the second successor out behind the block: better the way back of a loop than the way out of it.
                if self.goes_back(to[0]) && !self.goes_back(to[1]) {
                    c = self.opposite(c);
                    to.swap(0, 1);
                }
                let [x, y] = [self.edge(to[0])?, self.edge(to[1])?];
                self.b.ins().brif(c, x.0, &[], y.0, &[]);
                for (from, to) in [x, y].into_iter().filter(|e| e.0 != e.1) {
                    self.b.switch_to_block(from);
                    self.b.seal_block(from);
                    self.b.ins().jump(to, &[]);
                }
            }
            Term::Switch(v, table, default) => self.switch(*v, table, *default)?,
            Term::Exit(pc) => match self.constant(*pc) {
                Some(k) => self.exit_to(k as u64),
                None => {
                    let pc = self.val(*pc)?;
                    self.record(pc);
                    let to = self.shared_lookup();
                    self.jump(to, &[pc]);
                }
            },
            Term::Return(pc) => {
                let pc = self.val(*pc)?;
                self.leave(pc);
            }
            Term::Call { target, ret, cont } => self.call(*target, *ret, *cont)?,
            Term::Service { code, pc, next, cont } => {
                let [code, pc, next_v] = [u64::from(*code), *pc, *next].map(|k| self.word(k));
                let r = self.runtime(RuntimeFn::Service, &[code, pc, next_v]);
                self.go_on(r, *next, *cont, false)?;
            }
            Term::Raise { code, arg, pc } => {
                let args = [u64::from(*code), *arg, *pc].map(|k| self.word(k));
                let r = self.runtime(RuntimeFn::Raise, &args);
                self.leave(r);
            }
        }
        Ok(())
    }

    /// Where a branch goes on its way to a block, and that block. A way to where others lead as well gets a block of its own:
    /// constants that variables have on it, most of them condition codes, would be made before the branch, in a loop for each round
    /// what only its end needs.
    fn edge(&mut self, b: Block) -> Result<(cl::Block, cl::Block), Error> {
        let to = self.target(b)?;
        let shared = self.preds.get(b.0 as usize).is_some_and(|n| *n > 1);
        Ok((if shared { self.b.create_block() } else { to }, to))
    }
    /// Whether a block is only there to go back in a loop.
    fn goes_back(&self, b: Block) -> bool {
        self.r.blocks.get(b.0 as usize).is_some_and(|b| b.loop_header && b.insts.is_empty())
    }
    /// The opposite of a condition.
    fn opposite(&mut self, c: V) -> V {
        let dfg = &self.b.func.dfg;
        if let cl::ValueDef::Result(i, 0) = dfg.value_def(c) {
            match dfg.insts[i] {
                cl::InstructionData::IntCompare { cond, args: [a, b], .. } => {
                    return self.b.ins().icmp(cond.complement(), a, b);
                }
                cl::InstructionData::FloatCompare { cond, args: [a, b], .. } => {
                    return self.b.ins().fcmp(cond.complement(), a, b);
                }
                _ => {}
            }
        }
        self.b.ins().icmp_imm_u(IntCC::Equal, c, 0)
    }

    fn word(&mut self, k: u64) -> V {
        self.b.ins().iconst(types::I64, k as i64)
    }

    fn switch(&mut self, v: Value, table: &[Block], default: Block) -> Result<(), Error> {
        let (v, default) = (self.val(v)?, self.target(default)?);
        let targets = table.iter().map(|b| self.target(*b)).collect::<Result<Vec<_>, _>>()?;
        let index = if self.is_narrow(v) {
            v
        } else {
            let n = self.word(targets.len() as u64);
            let inside = self.b.ins().icmp(IntCC::UnsignedLessThan, v, n);
            self.b.ins().select(inside, v, n)
        };
        self.jump_table(index, &targets, default);
        Ok(())
    }
    /// Go where a table says; `index` has 32 bits.
    pub(super) fn jump_table(&mut self, index: V, targets: &[cl::Block], default: cl::Block) {
        let index = self.b.ins().ireduce(types::I32, index);
        let pool = &mut self.b.func.dfg.value_lists;
        let default = cl::BlockCall::new(default, [], pool);
        let targets: Vec<_> = targets.iter().map(|t| cl::BlockCall::new(*t, [], pool)).collect();
        let jt = self.b.create_jump_table(JumpTableData::new(default, &targets));
        self.b.ins().br_table(index, jt);
    }

    // ---- ways out -----------------------------------------------------------------------------

    /// Return `next` to the caller.
    pub(super) fn leave(&mut self, next: V) {
        let to = match self.shared.ret {
            Some(b) => b,
            None => {
                let b = self.shared_block(1);
                self.shared.ret = Some(b);
                b
            }
        };
        self.jump(to, &[next]);
    }

    /// Go to a known guest address outside the region.
    fn exit_to(&mut self, pc: u64) {
        let code = self.linked(pc);
        let pc = self.word(pc);
        let to = self.shared_tail();
        self.jump(to, &[code, pc]);
    }

    fn shared_block(&mut self, params: usize) -> cl::Block {
        let b = self.b.create_block();
        for _ in 0..params {
            self.b.append_block_param(b, types::I64);
        }
        b
    }
    fn shared_tail(&mut self) -> cl::Block {
        if let Some(b) = self.shared.tail {
            return b;
        }
        let b = self.shared_block(2);
        self.shared.tail = Some(b);
        b
    }
    fn shared_lookup(&mut self) -> cl::Block {
        if let Some(b) = self.shared.lookup {
            return b;
        }
        let b = self.shared_block(1);
        self.shared.lookup = Some(b);
        b
    }

    /// Write the shared blocks that are used.
    pub(super) fn finish_shared(&mut self) {
        if let Some(b) = self.shared.pending {
            self.b.switch_to_block(b);
            let pc = self.b.block_params(b)[0];
            self.store_own(self.abi.rip, pc);
            let r = self.word(EXIT_PENDING);
            self.leave(r);
        }
        if let Some(b) = self.shared.lookup {
            self.b.switch_to_block(b);
            let pc = self.b.block_params(b)[0];
            let miss = self.cold_block();
            let code = self.looked_up(pc, miss);
            let to = self.shared_tail();
            self.jump(to, &[code, pc]);
            self.b.switch_to_block(miss);
            self.leave(pc);
        }
        if let Some(b) = self.shared.tail {
            self.b.switch_to_block(b);
            let (code, pc) = (self.b.block_params(b)[0], self.b.block_params(b)[1]);
            let (go, out) = (self.b.create_block(), self.cold_block());
            self.b.ins().brif(code, go, &[], out, &[]);
            self.b.switch_to_block(out);
            self.leave(pc);
            self.b.switch_to_block(go);
            let sig = self.sig(CallConv::Tail, 2, 0, Some(Type::I64));
            let args = [self.state, pc];
            self.b.ins().return_call_indirect(sig, code, &args);
        }
        if let Some(b) = self.shared.ret {
            self.b.switch_to_block(b);
            let next = self.b.block_params(b)[0];
            self.b.ins().return_(&[next]);
        }
    }

    /// Code for a known guest address, or 0.
    fn linked(&mut self, pc: u64) -> V {
        let index = (self.links)(pc);
        let table = self.load_own(types::I64, self.abi.entries);
        match i32::try_from(u64::from(index) * 8) {
            Ok(off) => self.b.ins().load(types::I64, self.tables, table, off),
            Err(_) => {
                let at = self.b.ins().iadd_imm_s(table, i64::from(index) * 8);
                self.b.ins().load(types::I64, self.tables, at, 0)
            }
        }
    }

    /// Note that the jump at hand goes to `target`.
    fn record(&mut self, target: V) {
        let table = self.load_own(types::I64, self.abi.targets);
        let salt = self.word(u64::from(target_salt(self.pc)));
        let slot = self.b.ins().bxor(target, salt);
        let slot = self.b.ins().band_imm_u(slot, TARGETS as i64 - 1);
        let slot = self.b.ins().ishl_imm_u(slot, 4);
        let at = self.b.ins().iadd(table, slot);
        self.b.ins().store(self.tables, target, at, 0);
        let jump = self.word(u64::from(self.pc as u32));
        self.b.ins().store(self.tables, jump, at, 8);
    }

    /// Code for a guest address found in the table, or 0. Goes to `miss` if the address is not there.
    fn looked_up(&mut self, pc: V, miss: cl::Block) -> V {
        let table = self.load_own(types::I64, self.abi.ibtc);
        let high = self.b.ins().ushr_imm_u(pc, i64::from(IBTC_FOLD));
        let slot = self.b.ins().bxor(pc, high);
        let slot = self.b.ins().band_imm_u(slot, IBTC as i64 - 1);
        let slot = self.b.ins().ishl_imm_u(slot, 3);
        let at = self.b.ins().iadd(table, slot);
        let word = self.b.ins().load(types::I64, self.tables, at, 0);
        let (tag, want) = (self.b.ins().ushr_imm_u(word, 32), self.b.ins().ushr_imm_u(pc, 16));
        let hit = self.b.ins().icmp(IntCC::Equal, tag, want);
        let found = self.b.create_block();
        self.b.ins().brif(hit, found, &[], miss, &[]);
        self.b.switch_to_block(found);
        let index = self.b.ins().ireduce(types::I32, word);
        let index = self.b.ins().uextend(types::I64, index);
        let entries = self.load_own(types::I64, self.abi.entries);
        let off = self.b.ins().ishl_imm_u(index, 3);
        let at = self.b.ins().iadd(entries, off);
        self.b.ins().load(types::I64, self.tables, at, 0)
    }

    // ---- calls --------------------------------------------------------------------------------

    /// Call a leaf: it keeps all registers.
    fn leaf(&mut self, leaf: u16, ints: &[V], vecs: &[V], ret: Option<Type>) -> Option<V> {
        self.call_entry(CallConv::PreserveAll, FIRST_HELPER + u32::from(leaf), ints, vecs, ret)
    }

    /// Call an entry of the helper table.
    fn call_table(&mut self, index: u32, ints: &[V], vecs: &[V], ret: Option<Type>) -> Option<V> {
        self.call_entry(CallConv::SystemV, index, ints, vecs, ret)
    }

    fn call_entry(&mut self, cc: CallConv, index: u32, ints: &[V], vecs: &[V], ret: Option<Type>) -> Option<V> {
        let sig = self.sig(cc, ints.len() as u8 + 1, vecs.len() as u8, ret);
        let table = self.load_own(types::I64, self.abi.helpers);
        let f = self.b.ins().load(types::I64, self.tables, table, (index * 8) as i32);
        let mut args = vec![self.state];
        args.extend(ints);
        args.extend(vecs);
        let call = self.b.ins().call_indirect(sig, f, &args);
        self.b.inst_results(call).first().copied()
    }

    fn runtime(&mut self, f: RuntimeFn, args: &[V]) -> V {
        let r = self.call_table(f as u32, args, &[], Some(Type::I64));
        r.unwrap_or(self.state)
    }

    pub(super) fn helper(&mut self, i: &Inst) -> Result<(), Error> {
        let call = self.r.calls.get(i.imm as usize).ok_or(Error::Invalid("no such call"))?;
        let h = self.r.helpers.get(call.helper as usize).ok_or(Error::Invalid("no such helper"))?;
        let n = usize::from(h.ints);
        if call.args.len() != n + usize::from(h.vecs) {
            return Err(Error::Invalid("wrong number of helper arguments"));
        }
        if let Some(r) = self.inline(h.name, &call.args)? {
            if self.uses.get(i.dst.0 as usize) == Some(&0) {
                self.sink(r);
            }
            self.set(i.dst, r);
            return Ok(());
        }
        let ints = call.args[..n].iter().map(|v| self.val(*v)).collect::<Result<Vec<_>, _>>()?;
        let vecs = call.args[n..].iter().map(|v| self.vec(*v, Type::V128)).collect::<Result<Vec<_>, _>>()?;
        let constants = || call.args[..n].iter().map(|v| self.constant(*v).map(|k| k as u64)).collect::<Vec<_>>();
        let r = match h.leaf.and_then(|find| find(call.helper, &constants())) {
            Some(leaf) => self.leaf(leaf, &ints, &vecs, h.ret),
            None => self.call_table(FIRST_HELPER + u32::from(call.helper), &ints, &vecs, h.ret),
        };
        if let Some(r) = r {
            debug_assert_eq!(self.b.func.dfg.value_type(r), cl_type(h.ret.unwrap_or(Type::I64)));
            self.set(i.dst, r);
        }
        if h.raises {
            let pending = self.load_own(types::I64, self.abi.pending);
            let (out, go) = (self.cold_block(), self.b.create_block());
            self.b.ins().brif(pending, out, &[], go, &[]);
            self.b.switch_to_block(out);
            let pc = self.word(self.pc);
            let to = match self.shared.pending {
                Some(b) => b,
                None => {
                    let b = self.shared_block(1);
                    self.b.set_cold_block(b);
                    self.shared.pending = Some(b);
                    b
                }
            };
            self.jump(to, &[pc]);
            self.go(out, go);
        }
        Ok(())
    }

    /// Go on at `cont` (or leave for `next`) if `r` is `next`; else return `r`, after a try to resume if
    /// it came from compiled code.
    fn go_on(&mut self, r: V, next: u64, cont: Option<Block>, resume: bool) -> Result<(), Error> {
        let next_v = self.word(next);
        let is = self.b.ins().icmp(IntCC::Equal, r, next_v);
        let (good, bad) = (self.b.create_block(), self.cold_block());
        self.b.ins().brif(is, good, &[], bad, &[]);
        self.b.switch_to_block(bad);
        if resume {
            let next_v = self.word(next);
            let r = self.runtime(RuntimeFn::Resume, &[r, next_v]);
            let is = self.b.ins().icmp(IntCC::Equal, r, next_v);
            let out = self.cold_block();
            self.b.ins().brif(is, good, &[], out, &[]);
            self.b.switch_to_block(out);
            self.leave(r);
        } else {
            self.leave(r);
        }
        self.b.switch_to_block(good);
        match cont {
            Some(c) => {
                let to = self.target(c)?;
                self.b.ins().jump(to, &[]);
            }
            None => self.exit_to(next),
        }
        Ok(())
    }

    fn call(&mut self, target: Value, ret: u64, cont: Option<Block>) -> Result<(), Error> {
        let pc = self.val(target)?;
        let (direct, slow) = (self.b.create_block(), self.cold_block());
        let code = match self.constant(target) {
            Some(k) => self.linked(k as u64),
            None => self.looked_up(pc, slow),
        };
        let join = self.shared_block(1);
        self.b.ins().brif(code, direct, &[], slow, &[]);
        self.b.switch_to_block(slow);
        let ret_v = self.word(ret);
        let r = self.runtime(RuntimeFn::Call, &[pc, ret_v]);
        self.jump(join, &[r]);
        self.b.switch_to_block(direct);
        let sig = self.sig(CallConv::Tail, 2, 0, Some(Type::I64));
        let args = [self.state, pc];
        let call = self.b.ins().call_indirect(sig, code, &args);
        let r = self.b.inst_results(call)[0];
        self.jump(join, &[r]);
        self.b.switch_to_block(join);
        let r = self.b.block_params(join)[0];
        self.go_on(r, ret, cont, true)
    }
}
