//! What the trap flag and the alignment check flag ask of one instruction, for engines that run a program with one of them set
//! an instruction at a time (Intel SDM volume 3, 18.3.1.4 and 7.15).
//!
//! The CPU looks at alignments before it looks at pages, and after it looked whether addresses are canonical. Operands of 2,
//! 4 and 8 bytes are to be aligned to their size, those of ten to eight, images of the x87 unit to the size of their words;
//! wider ones are not looked at. All of it as measured: `conformance/programs/alignment.c`.

use evm_cpu::{CpuState, cc};
use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, MemorySize, Mnemonic as M, OpAccess, Register,
    UsedMemory,
};

/// TF in RFLAGS.
pub const TF: u64 = 1 << 8;
/// AC in RFLAGS.
pub const AC: u64 = 1 << 18;

/// An instruction that is executed alone.
pub struct Step {
    pc: u64,
    /// A trap follows it.
    traps: bool,
    repeat: Option<Repeat>,
}

/// A repeated string instruction of which one round is done.
struct Repeat {
    /// RCX before it, and the bits of it that count.
    count: u64,
    mask: u64,
    /// The zero flag that ends it early.
    until: Option<bool>,
}

fn canonical(a: u64) -> bool {
    matches!(a as i64 >> 47, 0 | -1)
}

/// An operand is not aligned and the flag is set: #AC.
pub struct Misaligned;

impl Step {
    /// Before the instruction at `pc` is executed, of which `bytes` are the bytes. If it repeats, and each round is to trap, the
    /// count is one until [`Step::end`] or [`Step::undo`].
    pub fn begin(bits: u32, pc: u64, bytes: &[u8], cpu: &mut CpuState) -> Result<Step, Misaligned> {
        let insn = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE).decode();
        if cpu.rflags_sys & AC != 0 && misaligned(&insn, cpu) {
            return Err(Misaligned);
        }
        let segment = insn.op_count() > 0 && insn.op0_register() == Register::SS;
        let traps = cpu.rflags_sys & TF != 0 && !(segment && matches!(insn.mnemonic(), M::Mov | M::Pop));
        let repeat = if traps { Repeat::of(&insn, cpu) } else { None };
        if let Some(r) = &repeat {
            cpu.gpr[1] = cpu.gpr[1] & !r.mask | 1;
        }
        Ok(Step { pc, traps, repeat })
    }
    /// It was executed and goes on at `next`: gives where the program goes on, and whether a trap comes first.
    pub fn end(self, cpu: &mut CpuState, next: u64) -> (u64, bool) {
        // A branch to what is no address faults, and does not trap.
        let Some(r) = self.repeat else { return (next, self.traps && canonical(next)) };
        let left = r.count - 1;
        r.set(cpu, left);
        let zero = cpu.rflags() & cc::ZF != 0;
        let over = left == 0 || r.until == Some(zero);
        (if over { next } else { self.pc }, self.traps)
    }
    /// It was not executed.
    pub fn undo(self, cpu: &mut CpuState) {
        if let Some(r) = self.repeat {
            r.set(cpu, r.count);
        }
    }
}

impl Repeat {
    fn of(insn: &Instruction, cpu: &CpuState) -> Option<Repeat> {
        let mask = counter(insn)?;
        let compares = matches!(
            insn.mnemonic(),
            M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq | M::Scasb | M::Scasw | M::Scasd | M::Scasq
        );
        let count = cpu.gpr[1] & mask;
        (count > 1).then(|| Repeat { count, mask, until: compares.then(|| insn.has_repne_prefix()) })
    }
    fn set(&self, cpu: &mut CpuState, to: u64) {
        // A write of ECX clears the upper half.
        let kept = if self.mask == u64::from(u32::MAX) { 0 } else { cpu.gpr[1] & !self.mask };
        cpu.gpr[1] = kept | to;
    }
}

/// The bits of RCX that count the rounds of a repeated string instruction.
fn counter(insn: &Instruction) -> Option<u64> {
    if !insn.is_string_instruction() || !(insn.has_rep_prefix() || insn.has_repne_prefix()) {
        return None;
    }
    let mut info = InstructionInfoFactory::new();
    let counts = |r: &Register| r.full_register() == Register::RCX;
    let register = info.info(insn).used_registers().iter().map(|r| r.register()).find(counts)?;
    Some(u64::MAX >> (64 - 8 * register.size()))
}

/// Whether a memory operand of an instruction is not aligned as the flag asks.
fn misaligned(insn: &Instruction, cpu: &CpuState) -> bool {
    // Gathers look at no alignment (SDM: "will never deliver an AC fault").
    if matches!(insn.mnemonic(), M::Sidt | M::Sgdt | M::Lidt | M::Lgdt) || insn.is_vsib() {
        return false;
    }
    let register = |r: Register| match r {
        Register::FS => cpu.fs_base,
        Register::GS => cpu.gs_base,
        r if r.is_gpr64() => cpu.gpr[r.number()],
        r if r.is_gpr32() => cpu.gpr[r.number()] & 0xffff_ffff,
        r if r.is_gpr16() => cpu.gpr[r.number()] & 0xffff,
        _ => 0,
    };
    if counter(insn).is_some_and(|mask| cpu.gpr[1] & mask == 0) {
        return false;
    }
    let mut info = InstructionInfoFactory::new();
    info.info(insn).used_memory().iter().any(|m| {
        let at = m.virtual_address(0, |r, _, _| Some(register(r)));
        at.is_some_and(|at| canonical(at) && at & (alignment(insn, m) - 1) != 0)
    })
}

fn alignment(insn: &Instruction, m: &UsedMemory) -> u64 {
    if matches!(m.access(), OpAccess::None | OpAccess::NoMemAccess) {
        return 1;
    }
    match (insn.mnemonic(), m.memory_size()) {
        (M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu, _) => 8,
        (_, MemorySize::FpuEnv14 | MemorySize::FpuState94) => 2,
        (
            _,
            MemorySize::FpuEnv28 | MemorySize::FpuState108 | MemorySize::Fxsave_512Byte | MemorySize::Fxsave64_512Byte,
        ) => 4,
        (_, MemorySize::Xsave | MemorySize::Xsave64) => 4,
        (_, MemorySize::Float80 | MemorySize::Bcd) => 8,
        // Of repeated string instructions the operand has the size of all rounds.
        (_, size) => match if insn.is_string_instruction() { insn.memory_size() } else { size }.size() as u64 {
            n @ (2 | 4 | 8) => n,
            _ => 1,
        },
    }
}
