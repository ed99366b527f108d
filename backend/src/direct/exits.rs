//! How copied code goes from block to block.

use super::regs::number;
use super::{BIAS, BOUNDARY, Block, Direct, HOT, LOOKUP, RECORD, select};
use crate::asm::{Label, R10, R15, RCX, Rm};
use iced_x86::{Code, FlowControl, Instruction, OpKind};

/// A way out of the unit, off the straight path.
pub(super) struct Exit {
    label: Label,
    pc: u64,
    index: u32,
    back: bool,
}

/// JRCXZ, with its displacement to be filled in.
const JRCXZ: u8 = 0xe3;

/// How control leaves a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the next instruction: it is not the end of a basic block.
    Next(u64),
    /// In copied code, to a block of the unit if it has that: by a jump, or from a call that returns.
    Jump(u64),
    /// To a block that is entered: by a call, a record, or the runtime.
    Outside(u64),
}

/// Where copied code goes from a block with this last instruction, as far as the instruction says so.
pub fn ways(last: &Instruction) -> impl Iterator<Item = Way> {
    let (next, target) = (last.next_ip(), last.near_branch_target());
    let all = match last.flow_control() {
        FlowControl::Next if !select::is_control(last) => [Some(Way::Next(next)), None],
        FlowControl::ConditionalBranch if last.is_jcc_short_or_near() => {
            [Some(Way::Jump(next)), Some(Way::Jump(target))]
        }
        FlowControl::UnconditionalBranch if last.is_jmp_short_or_near() => [Some(Way::Jump(target)), None],
        FlowControl::Call if is_call(last) => [Some(Way::Jump(next)), Some(Way::Outside(target))],
        FlowControl::IndirectCall if is_indirect_call(last) => [Some(Way::Jump(next)), None],
        FlowControl::Return | FlowControl::IndirectBranch => [None, None],
        _ => [Some(Way::Outside(next)), Some(Way::Outside(target))],
    };
    all.into_iter().flatten()
}

fn is_call(i: &Instruction) -> bool {
    matches!(i.code(), Code::Call_rel32_64 | Code::Call_rel32_32)
}

fn is_indirect_call(i: &Instruction) -> bool {
    matches!(i.code(), Code::Call_rm64 | Code::Call_rm32)
}

fn is_return(i: &Instruction) -> bool {
    matches!(i.code(), Code::Retnq | Code::Retnq_imm16 | Code::Retnd | Code::Retnd_imm16)
}

/// Whether an instruction is the system call of its mode.
fn is_service(i: &Instruction, bits: u32) -> bool {
    match bits {
        32 => i.code() == Code::Int_imm8 && i.immediate8() == 0x80,
        _ => i.code() == Code::Syscall,
    }
}

type Links<'a> = &'a mut dyn FnMut(u64) -> u32;

impl Direct {
    /// Go to one of the runtime's ways, with a guest address.
    pub(super) fn way(&mut self, word: u32, pc: u64) {
        self.asm.imm_keeping_flags(R15, pc);
        let way = self.state(word);
        self.asm.jmp_rm(way);
    }
    /// The guest has come to `pc`: a thread that is asked to leave does so here at the latest.
    pub(super) fn boundary(&mut self, pc: u64) {
        self.pcs.push((self.asm.pos(), pc | BOUNDARY));
    }

    /// Count an entry of the block at `pc`.
    pub(super) fn count(&mut self, index: u32, pc: u64) {
        let (counts, hot) = (self.state(self.words.counts), self.state(self.words.hot));
        let count = Rm::Mem(R10, (index * 4) as i32);
        self.copies = Default::default();
        self.asm.load(8, R10, counts);
        self.asm.load(4, R15, count);
        self.asm.lea(4, R15, Rm::Mem(R15, 1));
        self.asm.store(4, count, R15);
        if self.alone.is_none() {
            // A unit is good already: one in 16 counts.
            self.asm.rorx(R15, R15, 4);
        }
        self.asm.pext(R15, R15, hot);
        let before = std::mem::replace(&mut self.pc, pc | HOT);
        self.guard(R15);
        self.pc = before;
    }

    /// The counts of blocks but the first.
    pub(super) fn counts(&mut self, blocks: &[Block]) {
        for (n, b) in blocks.iter().enumerate().skip(1) {
            if let Some(index) = b.counted {
                self.asm.bind(self.entries[n]);
                self.count(index, b.pc);
                self.asm.jmp(self.fronts[n]);
            }
        }
    }

    /// An instruction that ends its block. False: it is not copied.
    pub(super) fn control(&mut self, i: &Instruction, n: usize, links: Links) -> bool {
        match i.flow_control() {
            FlowControl::ConditionalBranch if i.is_jcc_short_or_near() => {
                self.settle_rsp();
                let (mut target, mut next, mut condition) =
                    (i.near_branch_target(), i.next_ip(), i.condition_code() as u8 - 1);
                // The block behind this one needs no jump.
                if self.number(target) == Some(n + 1) {
                    std::mem::swap(&mut target, &mut next);
                    condition ^= 1;
                }
                let l = self.target(target, n, links);
                self.asm.jcc(condition, l);
                self.go(next, n, links);
            }
            FlowControl::UnconditionalBranch if i.is_jmp_short_or_near() => {
                self.settle_rsp();
                self.go(i.near_branch_target(), n, links);
            }
            _ if is_service(i, self.bits) => self.way(self.words.service, i.next_ip()),
            FlowControl::Call if is_call(i) => {
                let target = i.near_branch_target();
                let callee = self.callee(target);
                let index = if callee.is_none() { links(target) } else { 0 };
                self.push_return(i.next_ip());
                // Where to go on if the stack of calls is full.
                self.asm.imm_keeping_flags(R15, target);
                match callee {
                    Some(l) => self.asm.call_label(l),
                    None => {
                        let record = self.record(index);
                        self.asm.call(record);
                    }
                }
                self.back(i.next_ip());
                self.go(i.next_ip(), n, links);
            }
            FlowControl::IndirectCall if is_indirect_call(i) => {
                if !self.indirect_target(i) {
                    return false;
                }
                self.push_return(i.next_ip());
                let code = self.look_up();
                self.asm.call(code);
                self.back(i.next_ip());
                self.go(i.next_ip(), n, links);
            }
            FlowControl::IndirectBranch if matches!(i.code(), Code::Jmp_rm64 | Code::Jmp_rm32) => {
                if !self.indirect_target(i) {
                    return false;
                }
                self.settle_rsp();
                let code = self.look_up();
                self.asm.jmp_rm(code);
            }
            FlowControl::Return if is_return(i) => {
                self.near_rsp();
                let word = self.word();
                let from = self.stack(0);
                self.asm.load(word, R15, from);
                let more = if i.op_count() == 0 { 0 } else { i32::from(i.immediate16()) };
                self.move_rsp(word as i32 + more);
                self.end_run();
                self.asm.ret();
            }
            _ => return false,
        }
        true
    }
    /// The block of the unit that is called at this address: one that may be entered by anyone.
    fn callee(&self, pc: u64) -> Option<Label> {
        self.number(pc).filter(|b| self.entered[*b]).map(|b| self.fronts[b])
    }
    /// Go to a guest address that the guest code at hand names.
    pub(super) fn go(&mut self, pc: u64, n: usize, links: Links) {
        match self.number(pc) {
            Some(b) if b == n + 1 => self.goes_on = true,
            Some(b) => {
                let l = self.inside(b, n);
                self.asm.jmp(l);
            }
            None => self.exit(pc, links(pc), pc <= self.pc),
        }
    }
    /// Where block `n` goes to block `b`.
    fn inside(&mut self, b: usize, n: usize) -> Label {
        self.goes_on = true;
        if b > n || !self.is_end(n, b) { self.fronts[b] } else { self.labels[b] }
    }
    /// Where a branch to a guest address goes.
    fn target(&mut self, pc: u64, n: usize, links: Links) -> Label {
        if let Some(b) = self.number(pc) {
            return self.inside(b, n);
        }
        let label = self.asm.label();
        self.cold.push(Exit { label, pc, index: links(pc), back: pc <= self.pc });
        label
    }
    fn exit(&mut self, pc: u64, index: u32, back: bool) {
        if back {
            self.boundary(pc);
        }
        self.asm.imm_keeping_flags(R15, pc);
        let record = self.record(index);
        self.asm.jmp_rm(record);
    }
    /// The operand that is the code of an entry index. Changes R10.
    fn record(&mut self, index: u32) -> Rm {
        let word = self.state(self.words.records);
        self.asm.load(8, R10, word);
        Rm::Mem(R10, (i64::from(index) * i64::from(RECORD) - BIAS as i64) as i32)
    }
    pub(super) fn cold_code(&mut self) {
        for e in std::mem::take(&mut self.cold) {
            self.asm.bind(e.label);
            self.exit(e.pc, e.index, e.back);
        }
    }

    /// The target of an indirect jump or call to R15.
    fn indirect_target(&mut self, i: &Instruction) -> bool {
        if i.op0_kind() == OpKind::Memory {
            return self.load_operand(i);
        }
        let r = self.register(number(i.op0_register()), R15);
        if r != R15 {
            self.copies.lose(R15);
            self.asm.load(8, R15, Rm::Reg(r));
        }
        true
    }
    /// Push a return address on the guest's stack. Keeps R15.
    fn push_return(&mut self, ret: u64) {
        self.near_rsp();
        let word = self.word();
        let by = -(word as i32);
        if word == 4 || i32::try_from(ret).is_ok() {
            let to = self.stack(by);
            self.asm.store_imm(word, to, ret);
        } else {
            self.copies.lose(R10);
            self.asm.imm_keeping_flags(R10, ret);
            let to = self.stack(by);
            self.asm.store(word, to, R10);
        }
        self.move_rsp(by);
    }
    /// The operand that is the code of the guest address in R15, or the way that looks further, for the jump or call that comes next.
    /// Changes R10.
    fn look_up(&mut self) -> Rm {
        let targets = self.state(self.words.targets);
        let at = self.pc;
        self.pc |= LOOKUP;
        self.check(R15, R10);
        self.asm.load(8, R10, targets);
        self.mark();
        self.pc = at;
        Rm::Scaled(R10, R15, 3, 0)
    }
    /// Behind a call that returns to `ret`: the guest address that it came back to is in R15.
    fn back(&mut self, ret: u64) {
        self.checks.forget();
        self.copies = Default::default();
        self.asm.load(8, R10, Rm::Reg(RCX));
        match i32::try_from(ret) {
            Ok(near) => self.asm.lea(8, RCX, Rm::Mem(R15, -near)),
            Err(_) => {
                self.asm.imm_keeping_flags(RCX, ret.wrapping_neg());
                self.asm.lea(8, RCX, Rm::Index(RCX, R15, 0));
            }
        }
        let good = self.jrcxz();
        self.asm.load(8, RCX, Rm::Reg(R10));
        // Where it did come back to is looked up.
        let dispatch = self.state(self.words.dispatch);
        self.asm.jmp_rm(dispatch);
        self.land(good);
        self.asm.load(8, RCX, Rm::Reg(R10));
    }
    /// Jump if RCX is 0, over a few bytes in which there is no other jump. Flags are left alone.
    pub(super) fn jrcxz(&mut self) -> u32 {
        self.asm.byte(JRCXZ);
        self.asm.byte(0);
        self.asm.pos()
    }
    pub(super) fn land(&mut self, from: u32) {
        let by = (self.asm.pos() - from) as u8;
        self.asm.code[from as usize - 1] = by;
    }
}
