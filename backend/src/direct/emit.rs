//! One instruction.

use super::checks::{Fact, Sum, has_base_alone, reaches};
use super::regs::{GUEST_RSP, Place, is_high_byte, like, number, place};
use super::select::{self, Used};
use super::{DESTINATION, Direct, SHIFT, SOURCE, SPACE};
use crate::asm::{R9, R10, R11, R15, RCX, RDI, RSI, Reg, Rm};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register as R};

/// Distance from the base of GS to the last word of the one page of the guards that can be read.
const GUARD_WORD: i32 = evm_memory::LIMIT_AT + evm_memory::PAGE as i32 - 8;
const RBP: Reg = 5;
/// The register whose word in the state is free: RSP, which is in R11.
const FREE: u8 = 4;

/// What a run of stack instructions does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Runs {
    Push,
    /// A return may be the last.
    Pop,
}

/// Stack instructions one behind the other, for which the guest's RSP is moved once. A fault in one of them is one of the first: all of them can be
/// done again, as they store the same words or load the same registers.
#[derive(Default)]
pub(super) struct Run {
    kind: Option<Runs>,
    /// Address of the first, or of a stack instruction that is in no run.
    pc: u64,
    /// How much RSP is still to be moved.
    by: i32,
}

impl Runs {
    fn of(i: &Instruction) -> Option<Runs> {
        match i.code() {
            Code::Push_r64 | Code::Push_r32 if number(i.op0_register()) != 4 => Some(Runs::Push),
            Code::Pushq_imm8 | Code::Pushq_imm32 | Code::Pushd_imm8 | Code::Pushd_imm32 => Some(Runs::Push),
            Code::Pop_r64 | Code::Pop_r32 if number(i.op0_register()) != 4 => Some(Runs::Pop),
            Code::Retnq | Code::Retnq_imm16 | Code::Retnd | Code::Retnd_imm16 => Some(Runs::Pop),
            _ => None,
        }
    }
}

impl Direct {
    /// A word of the state.
    pub(super) fn state(&self, offset: u32) -> Rm {
        Rm::Mem(R9, offset as i32 - SHIFT as i32)
    }
    fn slot(&self, guest: u8) -> Rm {
        self.state(self.words.gpr + 8 * u32::from(guest))
    }
    /// The host instruction that comes next can fault.
    pub(super) fn mark(&mut self) {
        self.pcs.push((self.asm.pos(), self.pc));
    }
    /// The host register that holds a guest register, which is loaded to `scratch` if it is in the state.
    pub(super) fn register(&mut self, guest: u8, scratch: Reg) -> Reg {
        match place(guest) {
            Place::Host(h) => h,
            Place::State => {
                if self.copies.holds(scratch) != Some(guest) {
                    let from = self.copies.of(guest).map_or(self.slot(guest), Rm::Reg);
                    self.asm.load(8, scratch, from);
                    self.copies.set(scratch, guest);
                }
                scratch
            }
        }
    }
    /// A guest register of the state has a new value, which is in `scratch`.
    fn put(&mut self, guest: u8, scratch: Reg) {
        let slot = self.slot(guest);
        self.asm.store(8, slot, scratch);
        self.copies.changed(guest);
        self.copies.set(scratch, guest);
    }
    /// Bytes of a word of the stack.
    pub(super) fn word(&self) -> u32 {
        self.bits / 8
    }
    /// Fault unless the address in `r` is one of guest memory, as one of 32 bits is. `scratch` may be `r`.
    pub(super) fn check(&mut self, r: Reg, scratch: Reg) {
        if self.bits == 32 {
            return;
        }
        self.copies.lose(scratch);
        self.asm.shrx(scratch, r, R9);
        self.guard(scratch);
    }
    /// Fault unless that is so; it is known then. Changes R10 and R15.
    pub(super) fn check_fact(&mut self, f: &Fact) {
        match *f {
            Fact::Near(n) => {
                let r = self.register(n, R10);
                self.check(r, if r == R10 { R15 } else { R10 });
                self.checks.checked(n);
            }
            Fact::Sum(s) => {
                self.sum(s, 0, 8);
                self.check(R10, R10);
                self.checks.checked_sum(s);
            }
            Fact::X87 => self.check_x87(),
        }
    }
    /// Leave unless the guest's x87 state is in the host's unit: the runtime puts it there.
    fn check_x87(&mut self) {
        let live = self.state(self.words.x87_live);
        self.copies.lose(R10);
        self.asm.load(8, R10, Rm::Reg(RCX));
        self.asm.load(8, RCX, live);
        self.asm.lea(8, RCX, Rm::Mem(RCX, -1));
        let good = self.jrcxz();
        self.asm.load(8, RCX, Rm::Reg(R10));
        self.way(self.words.x87, self.pc);
        self.land(good);
        self.asm.load(8, RCX, Rm::Reg(R10));
        self.checks.checked_x87();
    }
    /// The instruction that comes next works on the x87 unit.
    fn need_x87(&mut self) {
        if !self.checks.holds(&Fact::X87) {
            self.check_x87();
        }
    }
    /// Leave the address of the last x87 instruction, FIP, where the block ends. (In front of a fault in the block it is that of the host's unit.)
    pub(super) fn leave_fip(&mut self) {
        let Some(pc) = self.fip.take() else { return };
        let fip = self.state(self.words.fip);
        if !self.asm.store_imm(8, fip, pc) {
            self.copies.lose(R10);
            self.asm.imm_keeping_flags(R10, pc);
            self.asm.store(8, fip, R10);
        }
    }
    /// Fault unless `r` is 0; it must be less than 2^28.
    pub(super) fn guard(&mut self, r: Reg) {
        self.copies.lose(r);
        self.mark();
        self.asm.gs();
        self.asm.load(8, r, Rm::Table(r, 3, GUARD_WORD));
    }
    /// Know that the guest's RSP is near, and has not been moved since: what is known at every entry.
    pub(super) fn settle_rsp(&mut self) {
        if !self.checks.rsp_is_proved() {
            self.check(R11, R10);
            self.checks.proved_rsp();
        }
    }
    /// Know that the guest's RSP is near.
    pub(super) fn near_rsp(&mut self) {
        if !self.checks.is_near(4) {
            self.check(R11, R10);
            self.checks.checked(4);
        }
    }
    fn encode(&mut self, i: &Instruction) -> bool {
        let at = self.asm.code.len();
        self.encoder.set_buffer(std::mem::take(&mut self.asm.code));
        let done = self.encoder.encode(i, 0).is_ok();
        self.asm.code = self.encoder.take_buffer();
        if !done {
            self.asm.code.truncate(at);
        }
        done
    }

    /// Copy an instruction that is not of control. False: it is not copied, and nothing was changed.
    pub(super) fn instruction(&mut self, i: &Instruction) -> bool {
        if select::is_nothing(i) {
            return true;
        }
        match i.mnemonic() {
            _ if select::is_prefetch(i) => self.prefetch(i),
            M::Push => self.push(i),
            M::Pop => self.pop(i),
            M::Leave => self.leave(i),
            M::Cld | M::Std => {
                let df = self.state(self.words.df);
                self.asm.store_imm(8, df, u64::from(i.mnemonic() == M::Std))
            }
            M::Ldmxcsr | M::Vldmxcsr => self.load_mxcsr(i),
            M::Fldcw => self.load_control(i),
            _ if select::is_string(i) => self.string(i),
            _ if !select::is_copied(i, self.v3) => false,
            M::Lea => self.lea(i),
            _ => self.copied(i),
        }
    }

    fn copied(&mut self, i: &Instruction) -> bool {
        let Used { reads, writes, accesses } = select::used(&mut self.info, i);
        let mut out = *i;
        let mut held: [Option<(u8, Reg)>; 2] = [None; 2];
        let memory = (0..i.op_count()).any(|k| i.op_kind(k) == OpKind::Memory);
        if !memory && self.with_slot(i, writes) {
            return true;
        }
        if select::is_x87(i) {
            self.need_x87();
        }
        // An address may take R10.
        let mut free = if memory { [Some(R15), Some(R10)] } else { self.copies.oldest().map(Some) };
        for k in (0..i.op_count()).filter(|k| i.op_kind(*k) == OpKind::Register && i.op_register(*k).is_gpr()) {
            let n = number(i.op_register(k));
            if place(n) == Place::State && held.iter().flatten().all(|h| h.0 != n) {
                let same = free.iter().position(|r| !memory && r.is_some() && self.copies.of(n) == *r);
                let Some(at) = same.or_else(|| free.iter().position(Option::is_some)) else { return false };
                let Some(host) = free[at].take() else { return false };
                held[usize::from(held[0].is_some())] = Some((n, host));
            }
        }
        if memory {
            let Some(base) = self.address(&mut out) else { return false };
            if base && held.iter().flatten().any(|h| h.1 == R10) {
                return false;
            }
        }
        let mut high = false;
        for k in (0..i.op_count()).filter(|k| i.op_kind(*k) == OpKind::Register && i.op_register(*k).is_gpr()) {
            let r = i.op_register(k);
            if is_high_byte(r) {
                high = true;
                continue;
            }
            let n = number(r);
            let host = match place(n) {
                Place::Host(h) => h,
                Place::State => held.iter().flatten().find(|h| h.0 == n).map_or(R15, |h| h.1),
            };
            out.set_op_register(k, like(r, host));
        }
        // With a prefix REX there is no AH.
        if high && needs_rex(&out) {
            return false;
        }
        for (n, host) in held.iter().flatten() {
            if reads >> n & 1 != 0 {
                self.register(*n, *host);
            } else {
                self.copies.lose(*host);
            }
        }
        let unit = select::leaves_fip(i);
        if memory || faults(i) || unit {
            self.mark();
        }
        if !self.encode(&out) {
            return false;
        }
        for (n, host) in held.iter().flatten().filter(|h| writes >> h.0 & 1 != 0) {
            self.put(*n, *host);
        }
        if unit {
            self.fip = Some(i.ip());
        }
        if memory && accesses {
            self.checks.accessed(i);
        }
        self.checks.executed(i, writes);
        true
    }

    /// Copy an instruction without memory operand that reads a register of the state and does not write it: with the state's word as its
    /// operand. False: it is none, or that register is at hand.
    fn with_slot(&mut self, i: &Instruction, writes: u16) -> bool {
        let state = |k: u32| {
            let r = if k < i.op_count() && i.op_kind(k) == OpKind::Register { i.op_register(k) } else { R::None };
            let there = r.is_gpr32() || r.is_gpr64();
            Some(number(r)).filter(|n| there && place(*n) == Place::State)
        };
        let mut out = *i;
        let (k, n) = match (state(0), state(1)) {
            (None, Some(n)) if i.op_count() == 2 && i.op0_register().is_gpr() => {
                let Some(code) = select::reads_memory(i.code()) else { return false };
                out.set_code(code);
                (1, n)
            }
            (Some(n), None) if matches!(i.mnemonic(), M::Cmp | M::Test) && select::may_be_memory(i.code()) => (0, n),
            _ => return false,
        };
        if self.copies.of(n).is_some() {
            return false;
        }
        let Rm::Mem(base, disp) = self.slot(n) else { return false };
        for other in (0..2).filter(|o| *o != k && i.op_kind(*o) == OpKind::Register) {
            let r = i.op_register(other);
            let Place::Host(h) = place(number(r)) else { return false };
            out.set_op_register(other, like(r, h));
        }
        out.set_op_kind(k, OpKind::Memory);
        out.set_memory_base(R::RAX + u32::from(base));
        out.set_memory_index(R::None);
        out.set_memory_index_scale(1);
        out.set_memory_displacement64(disp as i64 as u64);
        out.set_memory_displ_size(1);
        if !self.encode(&out) {
            return false;
        }
        self.checks.executed(i, writes);
        true
    }

    /// Make the memory operand of `out` one of the host; whether it uses R10. Changes R10 and R15. `None`: it cannot be had.
    fn address(&mut self, out: &mut Instruction) -> Option<bool> {
        if self.bits == 32 {
            return self.address_32(out);
        }
        let i = *out;
        let (base, index) = (i.memory_base(), i.memory_index());
        let disp = i.memory_displacement64();
        let fs = i.memory_segment() == R::FS;
        out.set_segment_prefix(R::GS);
        if !fs && (base == R::RIP || base == R::None && index == R::None) {
            return self.constant(out, if base == R::RIP { i.ip_rel_memory_address() } else { disp });
        }
        if fs {
            let word = self.state(self.words.fs);
            self.copies.lose(R10);
            self.asm.load(8, R10, word);
            if base == R::None && index == R::None && reaches(disp) {
                return self.operand(out, R10, disp);
            }
            if base.is_gpr32() || index.is_gpr32() || base == R::RIP {
                return None;
            }
            if base != R::None {
                let b = self.register(number(base), R15);
                self.asm.lea(8, R10, Rm::Index(R10, b, 0));
            }
            if index != R::None {
                let x = self.register(number(index), R15);
                self.asm.lea(8, R10, Rm::Scaled(R10, x, select::shift(&i), 0));
            }
            self.asm.lea(8, R10, Rm::Mem(R10, disp as i32));
            self.check(R10, R15);
            return self.operand(out, R10, 0);
        }
        if base.is_gpr32() || index.is_gpr32() {
            // The sum has 32 bits: it is in guest memory.
            self.sum(Sum::of(&i), i.memory_displacement64() as i32, 4);
            return self.operand(out, R10, 0);
        }
        if has_base_alone(&i) && reaches(disp) {
            let n = number(base);
            if !self.checks.is_near(n) {
                self.check_fact(&Fact::Near(n));
            }
            let b = self.register(n, R10);
            return self.operand(out, b, disp);
        }
        if !reaches(disp) || index == R::None {
            self.sum(Sum::of(&i), disp as i32, 8);
            self.check(R10, R15);
            return self.operand(out, R10, 0);
        }
        if !self.checks.is_near_sum(&i) {
            self.check_fact(&Fact::Sum(Sum::of(&i)));
        }
        let here = |r: R| r == R::None || place(number(r)) != Place::State;
        if !here(base) || !here(index) {
            self.sum(Sum::of(&i), disp as i32, 8);
            return self.operand(out, R10, 0);
        }
        if base != R::None {
            out.set_memory_base(R::RAX + u32::from(self.register(number(base), R10)));
        }
        out.set_memory_index(R::RAX + u32::from(self.register(number(index), R10)));
        out.set_memory_displ_size(if base == R::None { 4 } else { 1 });
        Some(false)
    }
    /// The operand at a known address.
    fn constant(&mut self, out: &mut Instruction, at: u64) -> Option<bool> {
        if at >= SPACE {
            return None;
        }
        if out.memory_displ_size() == 8 && out.memory_base() == R::None {
            // The form of MOV with a 64-bit address.
            return Some(false);
        }
        if at < 1 << 31 {
            out.set_memory_base(R::None);
            out.set_memory_displacement64(at);
            out.set_memory_displ_size(4);
            return Some(false);
        }
        self.copies.lose(R10);
        self.asm.imm_keeping_flags(R10, at);
        self.operand(out, R10, 0)
    }
    /// The operand `[base + disp]`.
    fn operand(&mut self, out: &mut Instruction, base: Reg, disp: u64) -> Option<bool> {
        out.set_memory_base(R::RAX + u32::from(base));
        out.set_memory_index(R::None);
        out.set_memory_index_scale(1);
        out.set_memory_displacement64(disp);
        out.set_memory_displ_size(u32::from(disp != 0));
        Some(base == R10)
    }
    /// Base plus scaled index plus displacement, of so many bytes, to R10. Changes R15.
    fn sum(&mut self, s: Sum, disp: i32, width: u32) {
        let Sum { base, index, scale } = s;
        let scale = scale.trailing_zeros() as u8;
        let b = (base != R::None).then(|| self.register(number(base), R10));
        let x = (index != R::None).then(|| self.register(number(index), R15));
        let rm = match (b, x) {
            (Some(b), Some(x)) => Rm::Scaled(b, x, scale, disp),
            (Some(b), None) => Rm::Mem(b, disp),
            (None, Some(x)) => Rm::Table(x, scale, disp),
            (None, None) => {
                self.copies.lose(R10);
                return self.asm.imm_keeping_flags(R10, disp as i64 as u64);
            }
        };
        self.copies.lose(R10);
        self.asm.lea(width, R10, rm);
    }

    fn lea(&mut self, i: &Instruction) -> bool {
        let to = number(i.op0_register());
        let host = match place(to) {
            Place::Host(h) => h,
            Place::State => R15,
        };
        let width = i.op0_register().size() as u32;
        if i.is_ip_rel_memory_operand() {
            let at = i.ip_rel_memory_address();
            if width < 4 {
                return false;
            }
            self.copies.lose(host);
            self.asm.imm_keeping_flags(host, if width == 4 { at & 0xffff_ffff } else { at });
        } else {
            let mut out = *i;
            let of =
                |d: &mut Direct, r: R, scratch| if r == R::None { r } else { like(r, d.register(number(r), scratch)) };
            out.set_memory_base(of(self, i.memory_base(), R10));
            out.set_memory_index(of(self, i.memory_index(), R15));
            out.set_segment_prefix(R::None);
            if width < 4 && place(to) == Place::State {
                return false;
            }
            out.set_op0_register(like(i.op0_register(), host));
            self.copies.lose(host);
            if !self.encode(&out) {
                return false;
            }
        }
        if place(to) == Place::State {
            self.put(to, R15);
        }
        self.checks.executed(i, 1 << to);
        true
    }

    /// Load the memory operand of an instruction, a word of the stack, to R15.
    pub(super) fn load_operand(&mut self, i: &Instruction) -> bool {
        match self.bits {
            32 => self.load_by(Code::Mov_r32_rm32, R::R15D, i),
            _ => self.load_by(Code::Mov_r64_rm64, R::R15, i),
        }
    }
    /// The same by an instruction that loads to this form of R15.
    fn load_by(&mut self, load: Code, r15: R, i: &Instruction) -> bool {
        let mut out = *i;
        out.set_code(load);
        out.set_op0_kind(OpKind::Register);
        out.set_op0_register(r15);
        out.set_op1_kind(OpKind::Memory);
        if !select::is_copied(&out, self.v3) || self.address(&mut out).is_none() {
            return false;
        }
        self.mark();
        self.copies.lose(R15);
        self.encode(&out)
    }

    /// LDMXCSR of a value that masks all exceptions and has no reserved bits; others are left to the interpreter.
    fn load_mxcsr(&mut self, i: &Instruction) -> bool {
        const MASKS: u64 = 0x1f80;
        const RESERVED: u64 = !0xffff;
        let vex = i.code().encoding() == iced_x86::EncodingKind::VEX;
        if vex && !self.v3 || !self.load_by(Code::Mov_r32_rm32, R::R15D, i) {
            return false;
        }
        self.guard_bits(MASKS, true);
        self.guard_bits(RESERVED, false);
        // Of a copy: another thread may have changed the operand.
        let mxcsr = self.state(self.words.mxcsr);
        self.asm.store(4, mxcsr, R15);
        self.asm.op(4, 0x0fae, 2, mxcsr);
        true
    }
    /// FLDCW of a value that masks all exceptions; others are left to the interpreter.
    fn load_control(&mut self, i: &Instruction) -> bool {
        const MASKS: u64 = 0x3f;
        self.need_x87();
        if !self.load_by(Code::Movzx_r32_rm16, R::R15D, i) {
            return false;
        }
        self.guard_bits(MASKS, true);
        let word = self.slot(FREE);
        self.asm.store(8, word, R15);
        self.asm.op(4, 0xd9, 5, word);
        true
    }
    /// Fault unless R15 has none of these bits, or all of them. Changes R10.
    fn guard_bits(&mut self, bits: u64, all: bool) {
        let word = self.slot(FREE);
        self.asm.store_imm(8, word, bits);
        self.copies.lose(R10);
        self.asm.load(4, R10, Rm::Reg(R15));
        if all {
            // (NOT changes no flags.)
            self.asm.group3(4, 2, Rm::Reg(R10));
        }
        self.asm.pext(R10, R10, word);
        self.guard(R10);
    }

    /// A string instruction, perhaps repeated. Its destination is in ES, which has no base: it gets host addresses. The guards are
    /// larger than what it touches at a time, so that it is enough to know where it starts.
    fn string(&mut self, i: &Instruction) -> bool {
        // Upwards only.
        let df = self.state(self.words.df);
        self.copies.lose(R10);
        self.copies.lose(R15);
        self.asm.load(8, R10, df);
        self.guard(R10);
        let registers: &[(Reg, u64)] =
            if select::has_source(i) { &[(RDI, DESTINATION), (RSI, SOURCE)] } else { &[(RDI, DESTINATION)] };
        let mut marks = self.pc;
        for (r, mark) in registers {
            if !self.checks.is_near(*r) {
                self.check(*r, R10);
            }
            marks |= mark;
        }
        let base = self.state(self.words.base);
        self.asm.load(8, R15, base);
        for (r, _) in registers {
            self.asm.lea(8, *r, Rm::Index(*r, R15, 0));
        }
        self.pcs.push((self.asm.pos(), marks));
        let done = self.encode(i);
        // Back: minus the base is its complement plus one.
        self.asm.group3(8, 2, Rm::Reg(R15));
        for (r, _) in registers {
            self.asm.lea(8, *r, Rm::Index(*r, R15, 1));
        }
        for n in [RCX, RSI, RDI] {
            self.checks.lost(n);
        }
        done
    }

    /// Without a check: a program may ask for lines of addresses that it must not load, and gets no fault and no data. One that has no host
    /// address by a base and an index is left out.
    fn prefetch(&mut self, i: &Instruction) -> bool {
        let wide = |r: R| r == R::None || r.is_gpr64();
        let (base, index, disp) = (i.memory_base(), i.memory_index(), i.memory_displacement64());
        if base == R::None
            || !wide(base)
            || !wide(index)
            || i.memory_segment() == R::FS
            || i32::try_from(disp as i64).is_err()
        {
            return true;
        }
        self.sum(Sum::of(i), disp as i32, 8);
        let mut out = *i;
        out.set_segment_prefix(R::GS);
        self.operand(&mut out, R10, 0).is_some() && self.encode(&out)
    }
    fn push(&mut self, i: &Instruction) -> bool {
        let value = match i.code() {
            Code::Push_r64 | Code::Push_r32 => Some(self.register(number(i.op0_register()), R15)),
            Code::Push_rm64 | Code::Push_rm32 if i.op0_kind() == OpKind::Memory => {
                if !self.load_operand(i) {
                    return false;
                }
                Some(R15)
            }
            Code::Push_rm64 | Code::Push_rm32 => Some(self.register(number(i.op0_register()), R15)),
            Code::Pushq_imm8 | Code::Pushq_imm32 | Code::Pushd_imm8 | Code::Pushd_imm32 => None,
            _ => return false,
        };
        self.near_rsp();
        let word = self.word();
        let to = self.stack(-(word as i32));
        match value {
            Some(r) => self.asm.store(word, to, r),
            None => {
                self.asm.store_imm(word, to, i.immediate(0));
            }
        }
        self.move_rsp(-(word as i32));
        true
    }
    /// The word at this distance from the guest's RSP, for the access that comes next.
    pub(super) fn stack(&mut self, at: i32) -> Rm {
        self.pcs.push((self.asm.pos(), self.run.pc));
        self.asm.gs();
        Rm::Mem(R11, self.run.by + at)
    }
    /// `i` comes next: it goes on with the run, or one begins.
    pub(super) fn runs(&mut self, i: &Instruction) {
        let kind = Runs::of(i);
        if kind.is_none() || kind != self.run.kind {
            self.end_run();
            (self.run.kind, self.run.pc) = (kind, i.ip());
        }
    }
    /// RSP is what it has to be.
    pub(super) fn end_run(&mut self) {
        let by = std::mem::take(&mut self.run.by);
        if by != 0 {
            self.asm.lea(self.word(), R11, Rm::Mem(R11, by));
        }
        self.run.kind = None;
    }
    pub(super) fn move_rsp(&mut self, by: i32) {
        self.run.by += by;
        if self.run.kind.is_none() {
            self.end_run();
        }
        self.checks.moved(4, by.into());
        // It is moved where memory is accessed, at the old address or the new one.
        self.checks.proved_rsp();
    }
    fn pop(&mut self, i: &Instruction) -> bool {
        let pops = matches!(i.code(), Code::Pop_r64 | Code::Pop_rm64 | Code::Pop_r32 | Code::Pop_rm32);
        if !pops || i.op0_kind() != OpKind::Register {
            return false;
        }
        let word = self.word();
        let n = number(i.op0_register());
        let to = match place(n) {
            Place::Host(h) if h != GUEST_RSP => h,
            _ => R15,
        };
        self.near_rsp();
        self.copies.lose(to);
        let from = self.stack(0);
        self.asm.load(word, to, from);
        self.move_rsp(word as i32);
        match place(n) {
            Place::Host(GUEST_RSP) => self.asm.load(word, R11, Rm::Reg(R15)),
            Place::Host(_) => {}
            Place::State => self.put(n, R15),
        }
        self.checks.lost(n);
        true
    }
    fn leave(&mut self, i: &Instruction) -> bool {
        if !matches!(i.code(), Code::Leaveq | Code::Leaved) {
            return false;
        }
        let word = self.word();
        if !self.checks.is_near(RBP) {
            self.check(RBP, R10);
            self.checks.checked(RBP);
        }
        self.mark();
        self.asm.gs();
        self.copies.lose(R15);
        self.asm.load(word, R15, Rm::Mem(RBP, 0));
        self.asm.lea(word, R11, Rm::Mem(RBP, word as i32));
        self.asm.load(word, RBP, Rm::Reg(R15));
        self.checks.copied(RBP, 4);
        self.checks.moved(4, word.into());
        self.checks.proved_rsp();
        self.checks.lost(RBP);
        true
    }
}

/// Whether an instruction without memory operand may fault: it divides, or this host may not have it.
fn faults(i: &Instruction) -> bool {
    use iced_x86::CpuidFeature as F;
    let rare = [F::AES, F::PCLMULQDQ, F::SHA, F::VAES, F::VPCLMULQDQ, F::F16C, F::ADX, F::MOVBE];
    matches!(i.mnemonic(), M::Div | M::Idiv) || i.cpuid_features().iter().any(|f| rare.contains(f))
}

/// Whether the encoding has a prefix REX: for registers from the eighth on, and for SPL to DIL.
fn needs_rex(i: &Instruction) -> bool {
    let high = |r: R| r.is_gpr() && !is_high_byte(r) && (number(r) > 7 || r.is_gpr8() && number(r) > 3);
    let operand = (0..i.op_count()).any(|k| i.op_kind(k) == OpKind::Register && high(i.op_register(k)));
    operand || high(i.memory_base()) || high(i.memory_index())
}
