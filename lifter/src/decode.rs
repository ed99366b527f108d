//! Reading code: instructions from bytes, and how control leaves them.

use iced_x86::{Decoder, DecoderError, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind};

/// Where code is read from. A closure `FnMut(addr, buf) -> usize` is one without `read`.
pub trait Code {
    /// Copy up to `buf.len()` executable bytes from `addr`; gives how many there are.
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize;
    /// Copy readable bytes; gives how many. Used for jump tables, whose content is only a hint.
    fn read(&mut self, _addr: u64, _buf: &mut [u8]) -> usize {
        0
    }
    /// Whether the block at a guest address is worth translating. If not, the region is left where something jumps
    /// to it.
    fn is_warm(&mut self, _pc: u64) -> bool {
        true
    }
    /// Whether another translation has the block at a guest address already, so that it is better left for that one.
    fn is_taken(&mut self, _pc: u64) -> bool {
        false
    }
    /// Where the indirect jump or call at a guest address went before, as far as known. A hint.
    fn targets(&mut self, _pc: u64) -> Vec<u64> {
        vec![]
    }
}

impl<F: FnMut(u64, &mut [u8]) -> usize> Code for F {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self(addr, buf)
    }
}

pub(crate) enum Fetched {
    Insn(Instruction),
    Fault(u64),
}

const WINDOW: usize = 128;
const MAX_INSN: usize = 15;

/// Reads code a window at a time.
pub(crate) struct Reader<'a> {
    pub code: &'a mut dyn Code,
    bits: u32,
    at: u64,
    len: usize,
    buf: [u8; WINDOW],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(code: &'a mut dyn Code, bits: u32) -> Self {
        Reader { code, bits, at: 0, len: 0, buf: [0; WINDOW] }
    }
    /// The bytes at `pc`: at least 15 unless fewer can be fetched.
    fn bytes(&mut self, pc: u64) -> &[u8] {
        let off = pc.wrapping_sub(self.at);
        let left = (self.len as u64).saturating_sub(off);
        if left < MAX_INSN as u64 {
            self.at = pc;
            self.len = self.code.fetch(pc, &mut self.buf).min(WINDOW);
            return &self.buf[..self.len];
        }
        &self.buf[off as usize..self.len]
    }
    pub(crate) fn decode(&mut self, pc: u64) -> Fetched {
        let bits = self.bits;
        let bytes = self.bytes(pc);
        let mut d = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE);
        let insn = d.decode();
        if insn.is_invalid() && bytes.len() < MAX_INSN && d.last_error() == DecoderError::NoMoreBytes {
            return Fetched::Fault(pc.wrapping_add(bytes.len() as u64));
        }
        Fetched::Insn(insn)
    }
}

/// How control leaves an instruction.
pub(crate) enum Flow {
    Next,
    /// Ends the block; direct successors that may be part of the region.
    End(Vec<u64>),
}

pub(crate) fn flow(i: &Instruction) -> Flow {
    let target = || i.near_branch_target();
    match i.flow_control() {
        FlowControl::Next => match i.mnemonic() {
            // Raise without a translation, or may end the block.
            Mnemonic::Hlt => Flow::End(vec![]),
            // What loads MXCSR ends its region: see `simd::system`.
            Mnemonic::Ldmxcsr | Mnemonic::Vldmxcsr => Flow::End(vec![]),
            Mnemonic::Fxrstor | Mnemonic::Fxrstor64 | Mnemonic::Xrstor | Mnemonic::Xrstor64 => Flow::End(vec![]),
            Mnemonic::Syscall => Flow::End(vec![i.next_ip()]),
            _ => Flow::Next,
        },
        FlowControl::ConditionalBranch | FlowControl::XbeginXabortXend => match i.op0_kind() {
            OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64 => {
                Flow::End(vec![i.next_ip(), target()])
            }
            _ => Flow::End(vec![]),
        },
        FlowControl::UnconditionalBranch if i.is_jmp_short_or_near() => Flow::End(vec![target()]),
        FlowControl::Call if i.mnemonic() == Mnemonic::Syscall => Flow::End(vec![i.next_ip()]),
        FlowControl::Call | FlowControl::IndirectCall => Flow::End(vec![i.next_ip()]),
        FlowControl::Interrupt if i.mnemonic() == Mnemonic::Int => Flow::End(vec![i.next_ip()]),
        _ => Flow::End(vec![]),
    }
}
