//! Code of 32-bit programs, which runs as 64-bit code.
//!
//! Most of its instructions are instructions of 64-bit mode as they are: those on 32-bit registers clear the upper halves, so that these are always
//! 0 here, and memory operands have 32-bit addresses, which are in guest memory whatever they are ([`SPACE_32`]): nothing is checked. All registers
//! of the guest have a host register. What is left is a few short forms that 64-bit mode has given up, and segments with a base.

use super::regs::{GUEST_RSP, like, number};
use super::{Direct, select};
use crate::asm::{R10, Rm};
use iced_x86::{Code, Instruction, OpKind, Register as R};

/// What a 32-bit address can reach; behind it are guards, or memory that is at least 1 MiB away.
pub const SPACE_32: u64 = 1 << 32;

/// An instruction of 32-bit code in the form that 64-bit mode has for it, if it needs another.
pub(super) fn in_long_mode(i: &Instruction) -> Instruction {
    use Code as C;
    let mut out = *i;
    let code = match i.code() {
        C::Inc_r32 => C::Inc_rm32,
        C::Dec_r32 => C::Dec_rm32,
        C::Inc_r16 => C::Inc_rm16,
        C::Dec_r16 => C::Dec_rm16,
        // These have an operand of eight bytes for the address.
        C::Mov_AL_moffs8 => C::Mov_r8_rm8,
        C::Mov_AX_moffs16 => C::Mov_r16_rm16,
        C::Mov_EAX_moffs32 => C::Mov_r32_rm32,
        C::Mov_moffs8_AL => C::Mov_rm8_r8,
        C::Mov_moffs16_AX => C::Mov_rm16_r16,
        C::Mov_moffs32_EAX => C::Mov_rm32_r32,
        c => c,
    };
    out.set_code(code);
    for k in 0..i.op_count() {
        // Addresses and counts have no upper halves.
        match i.op_kind(k) {
            OpKind::MemoryESEDI => out.set_op_kind(k, OpKind::MemoryESRDI),
            OpKind::MemorySegESI => out.set_op_kind(k, OpKind::MemorySegRSI),
            _ => {}
        }
    }
    out
}

impl Direct {
    /// Make the memory operand of an instruction of 32-bit code one of the host; whether it uses R10. `None`: it cannot be had.
    pub(super) fn address_32(&mut self, out: &mut Instruction) -> Option<bool> {
        let (base, index) = (out.memory_base(), out.memory_index());
        let host = |r: R| match r {
            R::None => r,
            r => like(r, if number(r) == 4 { GUEST_RSP } else { number(r) }),
        };
        let segment = match out.memory_segment() {
            R::FS => Some(self.words.fs),
            R::GS => Some(self.words.gs),
            _ => None,
        };
        out.set_segment_prefix(R::GS);
        let Some(word) = segment else {
            out.set_memory_base(host(base));
            out.set_memory_index(host(index));
            return Some(false);
        };
        let word = self.state(word);
        self.asm.load(4, R10, word);
        if base != R::None {
            self.asm.lea(4, R10, Rm::Index(R10, number(host(base)), 0));
        }
        if index != R::None {
            self.asm.lea(4, R10, Rm::Scaled(R10, number(host(index)), select::shift(out), 0));
        }
        out.set_memory_base(R::R10D);
        out.set_memory_index(R::None);
        out.set_memory_index_scale(1);
        Some(true)
    }
}
