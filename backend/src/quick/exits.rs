//! Entry, polls, terminators, helper calls, and the code off the straight path.

use super::Unsupported;
use super::lower::{Cold, Lower};
use super::place::{Home, is_vector};
use crate::abi::{EXIT_PENDING, FIRST_HELPER, IBTC_FOLD, RuntimeFn, TARGETS, target_salt};
use crate::asm::{Label, R8, R15, RAX, RCX, RDI, RDX, RSI, RSP, Reg, Rm, alu, cc};
use evm_ir::{Block, Effects, Inst, Term, Type, Value};

/// Where a helper's integer arguments go.
const INTS: [Reg; 4] = [RSI, RDX, RCX, R8];

impl Lower<'_> {
    fn own(&self, offset: u32) -> Rm {
        Rm::Mem(RDI, offset as i32)
    }

    /// What happens at each entry: room on the host stack (a request to leave sets the limit so that there is
    /// none), and the count.
    pub(super) fn prologue(&mut self, pc: u64, threshold: u32) {
        let out = self.a.label();
        let limit = self.own(self.abi.stack_limit);
        self.a.alu(8, alu::CMP, RSP, limit);
        self.a.jcc(cc::B, out);
        self.cold.push(Cold::Leave { at: out, pc });
        // The carry out of the count comes once in `threshold` times.
        let index = (self.links)(pc);
        let counts = self.own(self.abi.counts);
        self.a.load(8, RAX, counts);
        let step = (1u64 << 32) / u64::from(threshold.next_power_of_two().max(2));
        self.a.alu_imm(4, alu::ADD, Rm::Mem(RAX, (index * 4) as i32), step as u32 as i32);
        let (at, back) = (self.a.label(), self.a.label());
        self.a.jcc(cc::B, at);
        self.a.bind(back);
        self.cold.push(Cold::Hot { at, back, pc });
    }

    pub(super) fn poll(&mut self, pc: u64) {
        let at = self.a.label();
        let poll = self.own(self.abi.poll);
        self.a.alu_imm(8, alu::CMP, poll, 0);
        self.a.jcc(cc::NE, at);
        self.cold.push(Cold::Leave { at, pc });
    }

    pub(super) fn term(&mut self, t: &Term) -> Result<(), Unsupported> {
        match t {
            Term::Jump(b) => self.jump(*b),
            Term::Br(v, yes, no) => {
                let c = match self.home(*v) {
                    Home::Imm(x) => {
                        self.jump(if x != 0 { *yes } else { *no });
                        return Ok(());
                    }
                    Home::Compare(n) => {
                        let i = self.r.blocks[self.block].insts[n as usize];
                        self.compare(&i)
                    }
                    _ => {
                        let r = self.gpr(*v);
                        self.a.test(1, r, r);
                        cc::NE
                    }
                };
                if yes.0 as usize == self.block + 1 {
                    let l = self.blocks[no.0 as usize];
                    self.a.jcc(c ^ 1, l);
                } else {
                    let l = self.blocks[yes.0 as usize];
                    self.a.jcc(c, l);
                    self.jump(*no);
                }
            }
            Term::Switch(v, table, default) => {
                let r = self.gpr(*v);
                for (n, b) in table.iter().enumerate() {
                    self.a.alu_imm(8, alu::CMP, Rm::Reg(r), n as i32);
                    let l = self.blocks[b.0 as usize];
                    self.a.jcc(cc::E, l);
                }
                self.jump(*default);
            }
            Term::Exit(v) => match self.imm_of(*v) {
                Some(pc) => self.exit_to(pc),
                None => {
                    self.to_rsi(*v);
                    self.record();
                    let miss = self.leave_rsi();
                    self.look_up(miss);
                    self.a.jmp_rm(Rm::Reg(RAX));
                }
            },
            Term::Return(v) => {
                self.copy_gpr(*v, RAX);
                self.a.ret();
            }
            Term::Call { target, ret, cont } => self.call(*target, *ret, *cont),
            Term::Service { code, pc, next, cont } => {
                self.runtime(RuntimeFn::Service, &[(RSI, u64::from(*code)), (RDX, *pc), (RCX, *next)]);
                let go = self.a.label();
                self.a.imm_keeping_flags(RCX, *next);
                self.a.alu(8, alu::CMP, RAX, Rm::Reg(RCX));
                self.a.jcc(cc::E, go);
                self.a.ret();
                self.a.bind(go);
                self.go_on(*next, *cont);
            }
            Term::Raise { code, arg, pc } => {
                self.runtime(RuntimeFn::Raise, &[(RSI, u64::from(*code)), (RDX, *arg), (RCX, *pc)]);
                self.a.ret();
            }
        }
        Ok(())
    }

    fn jump(&mut self, b: Block) {
        if b.0 as usize != self.block + 1 {
            let l = self.blocks[b.0 as usize];
            self.a.jmp(l);
        }
    }
    fn to_rsi(&mut self, v: Value) {
        self.copy_gpr(v, RSI);
    }
    /// Call a function of the runtime with the state and these arguments. Alignment: at a piece's entry `rsp` is 8
    /// off a multiple of 16, as at any function's.
    fn runtime(&mut self, f: RuntimeFn, args: &[(Reg, u64)]) {
        for (r, x) in args {
            self.a.imm_keeping_flags(*r, *x);
        }
        let table = self.own(self.abi.helpers);
        self.a.load(8, RAX, table);
        self.a.push(RDI);
        self.a.call(Rm::Mem(RAX, f as u32 as i32 * 8));
        self.a.pop(RDI);
    }
    /// Code for a known guest address to RAX, 0 if there is none; RSI = the address.
    fn linked(&mut self, pc: u64) {
        let index = (self.links)(pc);
        self.a.imm_keeping_flags(RSI, pc);
        let table = self.own(self.abi.entries);
        self.a.load(8, RAX, table);
        self.a.load(8, RAX, Rm::Mem(RAX, (index * 8) as i32));
        self.a.test(8, RAX, RAX);
    }
    /// Note that the jump or call at hand goes to the address in RSI. Changes RCX and RDX.
    fn record(&mut self) {
        let table = self.own(self.abi.targets);
        self.a.load(4, RDX, Rm::Reg(RSI));
        self.a.alu_imm(4, alu::XOR, Rm::Reg(RDX), target_salt(self.pc) as i32);
        self.a.alu_imm(4, alu::AND, Rm::Reg(RDX), TARGETS as i32 - 1);
        self.a.shift_imm(4, 4, RDX, 4);
        self.a.alu(8, alu::ADD, RDX, table);
        self.a.store(8, Rm::Mem(RDX, 0), RSI);
        self.a.imm(RCX, u64::from(self.pc as u32));
        self.a.store(8, Rm::Mem(RDX, 8), RCX);
    }
    /// Code for the guest address in RSI to RAX, or jump to `miss`. Changes RCX and RDX.
    fn look_up(&mut self, miss: Label) {
        let (ibtc, entries) = (self.own(self.abi.ibtc), self.own(self.abi.entries));
        self.a.load(8, RAX, ibtc);
        self.a.load(4, RCX, Rm::Reg(RSI));
        self.a.shift_imm(4, 5, RCX, IBTC_FOLD);
        self.a.alu(4, alu::XOR, RCX, Rm::Reg(RSI));
        self.a.load(2, RCX, Rm::Reg(RCX));
        self.a.shift_imm(4, 4, RCX, 3);
        self.a.load(8, RAX, Rm::Index(RAX, RCX, 0));
        self.a.load(8, RCX, Rm::Reg(RAX));
        self.a.shift_imm(8, 5, RCX, 32);
        self.a.load(8, RDX, Rm::Reg(RSI));
        self.a.shift_imm(8, 5, RDX, 16);
        self.a.alu(8, alu::CMP, RCX, Rm::Reg(RDX));
        self.a.jcc(cc::NE, miss);
        self.a.load(4, RAX, Rm::Reg(RAX));
        self.a.shift_imm(8, 4, RAX, 3);
        self.a.alu(8, alu::ADD, RAX, entries);
        self.a.load(8, RAX, Rm::Mem(RAX, 0));
        self.a.test(8, RAX, RAX);
        self.a.jcc(cc::E, miss);
    }
    /// Go to a known guest address outside the region.
    fn exit_to(&mut self, pc: u64) {
        self.linked(pc);
        let miss = self.leave_rsi();
        self.a.jcc(cc::E, miss);
        self.a.jmp_rm(Rm::Reg(RAX));
    }
    /// Where the region is left for the address in RSI.
    fn leave_rsi(&mut self) -> Label {
        *self.leave_rsi.get_or_insert_with(|| {
            let at = self.a.label();
            self.cold.push(Cold::LeaveRsi { at });
            at
        })
    }
    fn go_on(&mut self, next: u64, cont: Option<Block>) {
        match cont {
            Some(b) => self.jump(b),
            None => self.exit_to(next),
        }
    }
    fn call(&mut self, target: Value, ret: u64, cont: Option<Block>) {
        let (slow, join, bad, good) = (self.a.label(), self.a.label(), self.a.label(), self.a.label());
        match self.imm_of(target) {
            Some(pc) => {
                self.linked(pc);
                self.a.jcc(cc::E, slow);
            }
            None => {
                self.to_rsi(target);
                self.record();
                self.look_up(slow);
            }
        }
        self.a.push(RDI);
        self.a.call(Rm::Reg(RAX));
        self.a.pop(RDI);
        self.a.bind(join);
        self.a.imm_keeping_flags(RCX, ret);
        self.a.alu(8, alu::CMP, RAX, Rm::Reg(RCX));
        self.a.jcc(cc::NE, bad);
        self.a.bind(good);
        self.go_on(ret, cont);
        self.cold.push(Cold::Call { at: slow, back: join, ret });
        self.cold.push(Cold::Resume { at: bad, good, ret });
    }

    pub(super) fn cold_code(&mut self) {
        for c in std::mem::take(&mut self.cold) {
            match c {
                Cold::Limit { at, back, root, disp, pc } => {
                    self.a.bind(at);
                    let limit = self.own(self.abi.mem_limit);
                    self.a.lea(8, RAX, Rm::Mem(root, disp));
                    self.a.alu(8, alu::CMP, RAX, limit);
                    self.a.jcc(cc::BE, back);
                    self.pcs.push((self.a.pos(), pc));
                    self.a.int3();
                }
                Cold::Trap { at, pc } => {
                    self.a.bind(at);
                    self.pcs.push((self.a.pos(), pc));
                    self.a.int3();
                }
                Cold::Whole { at, back, a, n, pc } => {
                    self.a.bind(at);
                    // The second page's first byte comes second.
                    for end in [None, Some(n - 1)] {
                        let limit = self.own(self.abi.mem_limit);
                        self.a.lea(8, RAX, Rm::Mem(a, end.unwrap_or(0)));
                        if end.is_some() {
                            self.a.alu_imm(8, alu::AND, Rm::Reg(RAX), -(evm_memory::PAGE as i32));
                        }
                        let inside = self.a.label();
                        self.a.alu(8, alu::CMP, RAX, limit);
                        self.a.jcc(cc::BE, inside);
                        self.pcs.push((self.a.pos(), pc));
                        self.a.int3();
                        self.a.bind(inside);
                        self.pcs.push((self.a.pos(), pc));
                        self.a.lock();
                        self.a.alu_imm(1, alu::OR, Rm::Index(R15, RAX, 0), 0);
                    }
                    self.a.jmp(back);
                }
                Cold::Pending { at, pc } => {
                    self.a.bind(at);
                    let rip = self.own(self.abi.rip);
                    self.a.imm(RAX, pc);
                    self.a.store(8, rip, RAX);
                    self.a.imm(RAX, EXIT_PENDING);
                    self.a.ret();
                }
                Cold::Leave { at, pc } => {
                    self.a.bind(at);
                    self.a.imm(RAX, pc);
                    self.a.ret();
                }
                Cold::LeaveRsi { at } => {
                    self.a.bind(at);
                    self.a.load(8, RAX, Rm::Reg(RSI));
                    self.a.ret();
                }
                Cold::Hot { at, back, pc } => {
                    self.a.bind(at);
                    self.runtime(RuntimeFn::Hot, &[(RSI, pc)]);
                    self.a.jmp(back);
                }
                Cold::Call { at, back, ret } => {
                    self.a.bind(at);
                    self.runtime(RuntimeFn::Call, &[(RDX, ret)]);
                    self.a.jmp(back);
                }
                Cold::Resume { at, good, ret } => {
                    self.a.bind(at);
                    self.a.load(8, RSI, Rm::Reg(RAX));
                    self.runtime(RuntimeFn::Resume, &[(RDX, ret)]);
                    self.a.imm_keeping_flags(RCX, ret);
                    self.a.alu(8, alu::CMP, RAX, Rm::Reg(RCX));
                    self.a.jcc(cc::E, good);
                    self.a.ret();
                }
            }
        }
    }

    /// After a call that may have raised an exception: leave if it has.
    pub(super) fn pending(&mut self, raises: bool) {
        if raises {
            let at = self.a.label();
            let pending = self.own(self.abi.pending);
            self.a.alu_imm(8, alu::CMP, pending, 0);
            self.a.jcc(cc::NE, at);
            self.cold.push(Cold::Pending { at, pc: self.pc });
        }
    }

    /// Call a leaf: it changes the register of its result only.
    fn leaf(&mut self, i: &Inst, leaf: u16) {
        let r = self.r;
        let call = &r.calls[i.imm as usize];
        let h = &r.helpers[usize::from(call.helper)];
        let (ints, vecs) = call.args.split_at(usize::from(h.ints));
        // What the state has of a value may be changed; a register is not.
        match h.effects {
            Effects::Pure => {}
            Effects::Private => self.move_out(false, |s| !r.layout.get(s).promote),
            Effects::All => self.move_out(false, |_| true),
        }
        // All places first: what one argument leaves may be where another is.
        for (_, reg) in ints.iter().zip(INTS) {
            self.take_gpr(reg);
        }
        let keep = vecs.len().max(1) as Reg;
        for reg in 0..keep {
            self.take_xmm(reg, keep);
        }
        for (v, reg) in ints.iter().zip(INTS) {
            self.copy_gpr(*v, reg);
        }
        for (v, reg) in vecs.iter().zip(0..) {
            self.copy_xmm(*v, reg);
        }
        let table = self.own(self.abi.helpers);
        self.a.load(8, RAX, table);
        self.a.call(Rm::Mem(RAX, ((FIRST_HELPER + u32::from(leaf)) * 8) as i32));
        self.pending(h.raises || self.traps);
        if let Some(t) = h.ret
            && i.dst.is_some()
        {
            if is_vector(t) {
                self.define(i.dst, 0);
            } else {
                let d = self.dst(i.dst);
                self.a.load(8, d, Rm::Reg(RAX));
            }
        }
    }

    pub(super) fn helper(&mut self, i: &Inst) -> Result<(), Unsupported> {
        let r = self.r;
        let call = &r.calls[i.imm as usize];
        let h = &r.helpers[usize::from(call.helper)];
        let n = usize::from(h.ints);
        if let Some(find) = h.leaf {
            let ints: Vec<Option<u64>> = call.args[..n].iter().map(|v| self.imm_of(*v)).collect();
            if let Some(leaf) = find(call.helper, &ints) {
                self.leaf(i, leaf);
                return Ok(());
            }
        }
        // Constants that a comparison was put off for cannot be arguments: the branch alone uses those.
        self.empty_registers();
        match h.effects {
            Effects::Pure => {}
            Effects::Private => self.move_out(true, |s| !r.layout.get(s).promote),
            Effects::All => self.move_out(true, |_| true),
        }
        for (v, reg) in call.args[..n].iter().zip(INTS) {
            self.copy_gpr(*v, reg);
        }
        for (v, reg) in call.args[n..].iter().zip(0..) {
            self.copy_xmm(*v, reg);
        }
        let table = self.own(self.abi.helpers);
        self.a.load(8, RAX, table);
        self.a.push(RDI);
        self.a.call(Rm::Mem(RAX, ((FIRST_HELPER + u32::from(call.helper)) * 8) as i32));
        self.a.pop(RDI);
        self.unlock();
        self.pending(h.raises || self.traps);
        if let Some(t) = h.ret
            && i.dst.is_some()
        {
            let d = self.dst(i.dst);
            if is_vector(t) {
                debug_assert_eq!(t, Type::V128);
                self.a.sse(0, 4, 0x0f28, d, Rm::Reg(0));
            } else {
                self.a.load(8, d, Rm::Reg(RAX));
            }
        }
        Ok(())
    }
}
