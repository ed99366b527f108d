//! Instructions as text, for reports; and what they do to memory, for faults.

use iced_x86::{
    CodeSize, CpuidFeature, Decoder, DecoderOptions, FastFormatter, InstructionInfoFactory, OpAccess, OpKind, Register,
};
use std::fmt::Write;

/// The instruction (of 64-bit or 32-bit code) at `pc` with its bytes and address, in Intel's syntax.
pub fn describe(bits: u32, pc: u64, bytes: &[u8]) -> String {
    let mut d = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE);
    let insn = d.decode();
    let mut text = String::new();
    if insn.is_invalid() {
        text.push_str("(no valid instruction)");
    } else {
        FastFormatter::new().format(&insn, &mut text);
    }
    text.push_str(" [");
    let n = if insn.is_invalid() { bytes.len() } else { insn.len() };
    for b in bytes.iter().take(n) {
        let _ = write!(text, "{b:02x}");
    }
    let _ = write!(text, "] at {pc:#x}");
    text
}

/// Whether the instruction is one that raises #UD on every CPU: it is defined to, or the bytes are no instruction.
pub fn is_undefined(bits: u32, bytes: &[u8]) -> bool {
    use iced_x86::Mnemonic::{Ud0, Ud1, Ud2};
    let i = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    if !i.is_invalid() {
        return matches!(i.mnemonic(), Ud0 | Ud1 | Ud2);
    }
    // The decoder is built without EVEX, XOP and 3DNow!, which some CPUs have.
    let prefix = |b: &&u8| matches!(**b, 0x26 | 0x2e | 0x36 | 0x3e | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3);
    let rest = &bytes[bytes.iter().take_while(prefix).count()..];
    !matches!(rest, [0x62 | 0x8f, ..] | [0x0f, 0x0f, ..] | [0x40..=0x4f, 0x0f, 0x0f, ..])
}

/// Whether the instruction is ENTER with a nesting level, which copies frame pointers.
pub fn is_nested_enter(bits: u32, bytes: &[u8]) -> bool {
    let i = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    i.mnemonic() == iced_x86::Mnemonic::Enter && i.immediate8_2nd() & 31 != 0
}

/// The instruction at `pc` in Intel's syntax, and its length; at least one byte.
pub fn disassemble(bits: u32, pc: u64, bytes: &[u8]) -> (String, usize) {
    let insn = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE).decode();
    let mut text = String::new();
    if insn.is_invalid() {
        return ("(no valid instruction)".into(), 1);
    }
    FastFormatter::new().format(&insn, &mut text);
    (text, insn.len())
}

/// What an instruction that faulted in memory does there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// It changes the memory that it reads: the CPU asks for write access first.
    pub modifies: bool,
    /// The address of what it writes, where it is known.
    pub start: Option<u64>,
    /// How much that is; 0 where a mask has a say.
    pub len: u64,
    /// The access uses the stack segment.
    pub stack: bool,
    /// A waiting x87 or MMX instruction: a pending #MF comes first.
    pub waits: bool,
}

impl Access {
    /// Where a write faults that was found to at `at`: at its first byte that cannot be written, as `fails` says of one: stores
    /// may be lifted in parts.
    pub fn first_missing(&self, at: u64, fails: impl Fn(u64) -> bool) -> u64 {
        const PAGE: u64 = 4096;
        let Some(start) = self.start else {
            return at;
        };
        let (first, this) = (start / PAGE, at / PAGE);
        let gone = at.wrapping_sub(start);
        // The last page of the address space is before the first.
        let next = this.wrapping_sub(first) & (u64::MAX / PAGE) == 1;
        let near = next || first == this && gone > 0 && gone < 64;
        if near && fails(start) {
            return start;
        }
        if first != this && gone < self.len { this * PAGE } else { at }
    }
}

/// What the instruction at `pc`, which faulted at `at`, does to memory; `register` gives 64-bit general
/// registers by number, and the bases of FS (16) and GS (17).
pub fn access(bits: u32, pc: u64, bytes: &[u8], at: u64, register: impl Fn(usize) -> u64) -> Access {
    use iced_x86::Mnemonic as M;
    let insn = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE).decode();
    let mut info = InstructionInfoFactory::new();
    let mut out = Access { modifies: false, start: None, len: 0, stack: false, waits: false };
    let mm = |k| insn.op_kind(k) == OpKind::Register && insn.op_register(k).is_mm();
    let control = matches!(
        insn.mnemonic(),
        M::Fnstcw | M::Fnstsw | M::Fnstenv | M::Fnsave | M::Fninit | M::Fnclex | M::Fxsave | M::Fxsave64
    );
    let x87 = insn.mnemonic() == M::Fisttp
        || insn
            .code()
            .cpuid_features()
            .iter()
            .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387));
    out.waits = x87 && !control || (0..insn.op_count()).any(mm);
    let single = info.info(&insn).used_memory().len() == 1;
    // The register's bits above the operand's width are part of the address.
    let far = matches!(insn.mnemonic(), M::Bts | M::Btr | M::Btc) && insn.op1_kind() == OpKind::Register;
    for m in info.info(&insn).used_memory() {
        let start = m.virtual_address(0, |r, _, _| {
            Some(match r {
                Register::FS => register(16),
                Register::GS => register(17),
                r if r.is_gpr64() => register(r.number()),
                r if r.is_gpr32() => register(r.number()) & 0xffff_ffff,
                r if r.is_gpr16() => register(r.number()) & 0xffff,
                _ => 0,
            })
        });
        out.modifies |= matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite);
        let start = if far {
            let segment = match m.segment() {
                Register::FS => register(16),
                Register::GS => register(17),
                _ => 0,
            };
            let wrap = |v: u64, to: bool| if to { v & 0xffff_ffff } else { v };
            start.map(|s| {
                let flat = s.wrapping_sub(segment).wrapping_add(bit_offset(&insn, &register));
                wrap(wrap(flat, m.address_size() == CodeSize::Code32).wrapping_add(segment), bits == 32)
            })
        } else {
            start
        };
        if !matches!(m.access(), OpAccess::Read | OpAccess::CondRead) {
            // FXSAVE asks for its end first.
            out.start = start.filter(|_| !matches!(insn.mnemonic(), M::Fxsave | M::Fxsave64));
            let plain = matches!(m.access(), OpAccess::Write | OpAccess::ReadWrite);
            out.len = if plain { m.memory_size().size() as u64 } else { 0 };
        }
        let near = single || start.is_none_or(|s| at.wrapping_sub(s) < 4096);
        let base = m.base().full_register();
        let other = matches!(m.segment(), Register::FS | Register::GS);
        out.stack |= near && !other && matches!(base, Register::RSP | Register::RBP);
    }
    out
}

/// How far the operand that a bit test with a register works on is from its address.
fn bit_offset(insn: &iced_x86::Instruction, register: &impl Fn(usize) -> u64) -> u64 {
    let r = insn.op_register(1);
    let v = register(r.full_register().number());
    let (bit, bytes): (i64, i64) = match r.size() {
        2 => (i64::from(v as i16), 2),
        4 => (i64::from(v as i32), 4),
        _ => (v as i64, 8),
    };
    ((bit >> (3 + bytes.trailing_zeros())) * bytes) as u64
}
