//! Instructions as text, for reports; and what they do to memory, for faults.

use iced_x86::{Decoder, DecoderOptions, FastFormatter, InstructionInfoFactory, OpAccess};
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

/// Whether the 64-bit instruction at `pc` changes the memory that it reads.
pub fn modifies_memory(pc: u64, bytes: &[u8]) -> bool {
    let insn = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE).decode();
    let mut info = InstructionInfoFactory::new();
    let all = info.info(&insn).used_memory();
    all.iter().any(|m| matches!(m.access(), OpAccess::ReadWrite | OpAccess::ReadCondWrite))
}
