//! Instructions as text, for reports; and what they do to memory, for faults.

use iced_x86::{Decoder, DecoderOptions, FastFormatter, InstructionInfoFactory, OpAccess, Register};
use std::fmt::Write;

/// The 64-bit instruction at `pc` with its bytes and address, in Intel's syntax.
pub fn describe(pc: u64, bytes: &[u8]) -> String {
    let mut d = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE);
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

/// What an instruction that faulted in memory does there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// It changes the memory that it reads, at this address: the CPU asks for write access first.
    pub modified: Option<u64>,
    /// It uses the stack segment.
    pub stack: bool,
}

/// What the 64-bit instruction at `pc` does to memory; `register` gives 64-bit general registers by number, and
/// bases of FS (16) and GS (17).
pub fn access(pc: u64, bytes: &[u8], register: impl Fn(usize) -> u64) -> Access {
    let insn = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE).decode();
    let mut info = InstructionInfoFactory::new();
    let all = info.info(&insn).used_memory();
    let modified =
        all.iter().find(|m| matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite)).and_then(|m| {
            m.virtual_address(0, |r, _, _| {
                Some(match r {
                    Register::FS => register(16),
                    Register::GS => register(17),
                    r if r.is_gpr64() => register(r.number()),
                    r if r.is_gpr32() => register(r.number()) & 0xffff_ffff,
                    _ => 0,
                })
            })
        });
    let stack = all.iter().any(|m| {
        let base = m.base().full_register();
        matches!(base, Register::RSP | Register::RBP) && !matches!(m.segment(), Register::FS | Register::GS)
    });
    Access { modified, stack }
}
