//! Copied code: guest instructions run as they are, on a host of the same kind.
//!
//! Most instructions of an x86-64 program mean the same in this process. They are copied, with three changes: registers that
//! this code needs for itself are renamed, memory operands are checked and moved to where guest memory is, and what leaves a
//! block is replaced. Nothing is computed that the guest does not compute: flags are the host's own, and exact at every instruction.
//! Copying costs a tenth of what compiling does.
//!
//! Terms. A *unit* is what is copied together: one or more basic blocks, with labels for those that can be entered. The guest
//! registers of the *state* are those that have no host register. A *way* is a piece of the runtime that copied code jumps to.
//!
//! Registers (`regs`): guest registers are in the host registers of the same name but for RSP, which is in R11, and R10,
//! R11, R15 and R9, which are in the state. R9 holds the state's address plus [`SHIFT`]; R10 and R15 are scratch; the base of GS is
//! the host address of guest memory. Vector registers and flags are the guest's, all the time.
//!
//! Addresses (`checks`): an operand is accessed as `gs:[address]`. Guest memory has [`SPACE`] bytes and is followed and preceded by
//! guards of 4 GiB. Before an access, the registers that make the address are known to be near guest memory, or this is tested without
//! touching flags: `shrx r10, address, r9` shifts by the low six bits of R9, that is by [`SHIFT`]; the result is 0 or the
//! number of a word behind the only one of its page that can be read.
//!
//! The x87 unit: its instructions, and those of MMX, find the guest's state in the host's unit; a block looks whether it is there before the first
//! of them, if that is not known ([`Words::x87_live`]). All exceptions are masked then, so that none of them traps.
//!
//! Programs of 32 bits (`narrow`) are copied as well, to 64-bit code. Nothing has to be checked there.
//!
//! Control (`exits`): code of another unit is reached through the table of *records*, one for each entry index: its code, and
//! the guest address negated. A direct jump knows the index. An indirect one takes its code from the table of *targets*, which has a word for each
//! guest address: often that is the way [`Words::dispatch`], which finds the record by a hash of the address and compares. A call is
//! a host call, so that the host's prediction of returns works: but what the host's stack holds is a guess, and the way back is
//! compared with the address that the guest's RET took from the guest's stack. Any part of that stack may be dropped at
//! any time.
//!
//! Invariants:
//! 1. No instruction is copied that is not allowed by `select`; none of them writes R10, R11, R15, R9 or RSP but through the renaming.
//! 2. Guest memory is accessed through GS only, at an address that was checked or is near one that was.
//! 3. At every host instruction that may fault, the registers and flags are those before the guest instruction, but for R10 and
//!    R15; its guest address is in [`Code::pcs`].
//! 4. At every entry of a block, the guest's RSP is near guest memory.
//! 5. Every cycle goes through a place that is in [`Code::pcs`]: each direct jump to the same or a lower guest address has one in front, and calls and
//!    indirect jumps access memory. By invariant 3 a thread can be stopped at any of them, so that nothing looks whether it is asked to be: who asks
//!    interrupts it, and it goes on by single steps to the next place.

mod checks;
mod emit;
mod exits;
mod loops;
mod narrow;
mod regs;
mod select;
#[cfg(test)]
mod tests;

use crate::asm::{Asm, Label};
use checks::Checks;
pub use exits::{Way, ways};
use iced_x86::{Encoder, Instruction, InstructionInfoFactory};
pub use narrow::SPACE_32;
use std::collections::HashMap;

/// Bytes of guest memory that copied code is for.
pub const SPACE: u64 = 1 << SHIFT;
/// Low six bits of R9: the state is aligned to 64.
pub const SHIFT: u32 = 36;
/// Marks in [`Code::pcs`] a place that cannot fault, where the guest has come to that address.
pub const BOUNDARY: u64 = 1 << 63;
/// The same of a count that has come to its end: the block there has run often.
pub const HOT: u64 = 1 << 62;
/// The same of a string instruction, while RDI is a host address.
pub const DESTINATION: u64 = 1 << 61;
/// The same of RSI.
pub const SOURCE: u64 = 1 << 60;
/// Bytes of a record: the address of the code, and the guest address negated.
pub const RECORD: u32 = 16;
/// Entries of a counted block that make it hot, if it is alone; in a unit there have to be 16 times as many.
pub const ENTRIES: u32 = 1024;
/// The same of an indirect jump or call to the address in R15, which is not one of guest memory, or of which the table of targets has no
/// memory. It has done all else.
pub const LOOKUP: u64 = BOUNDARY | HOT;
/// Guest addresses in [`Code::pcs`] without marks.
pub const ADDRESS: u64 = SOURCE - 1;
/// How far behind the table of records the word [`Words::records`] points.
pub const BIAS: u64 = 1 << 31;
/// Entries of the table that is found by a hash of a guest address.
pub const HASHES: usize = 1 << 16;

/// Byte offsets in the guest state of what copied code uses.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    /// RAX; the other general registers follow.
    pub gpr: u32,
    /// u64: the direction flag.
    pub df: u32,
    /// u32: MXCSR as it was last loaded or looked at. While copied code runs, the host's is the guest's.
    pub mxcsr: u32,
    /// u64: host address of guest address 0.
    pub base: u32,
    /// u64: address of the table of records, plus [`BIAS`].
    pub records: u32,
    /// u64: address of the table of counts (u32), by entry index.
    pub counts: u32,
    /// u64: the bits of a count that are set from [`ENTRIES`] on.
    pub hot: u32,
    /// u64: address of the table of targets: for each guest address the address of its code, or that of the way [`Words::dispatch`].
    pub targets: u32,
    /// u64: base of the guest's FS if it is in guest memory, or an address that is not.
    pub fs: u32,
    /// u32: base of the guest's GS, of 32-bit programs.
    pub gs: u32,
    /// u64: address of the way out. R15 is the guest address to go on at. The record of entry index 0 has it for its code.
    pub out: u32,
    /// u64: address of the way to the code of the guest address in R15.
    pub dispatch: u32,
    /// u64: address of the way to a system call; R15 is the address behind it.
    pub service: u32,
    /// u64: address of the way to an instruction that is not copied, at R15.
    pub step: u32,
    /// u64: 1 while the guest's x87 state is in the host's x87 unit, else 0.
    pub x87_live: u32,
    /// u64: address of the last x87 instruction that is not one of control.
    pub fip: u32,
    /// u64: address of the way that has the x87 state put there, to go on at R15.
    pub x87: u32,
}

/// CRC-32C of each byte, followed by so many zeros.
const CRC: [[u32; 256]; 8] = {
    let mut tables = [[0; 256]; 8];
    let mut n = 0;
    while n < 256 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 64 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
            bit += 1;
            if bit % 8 == 0 {
                tables[bit / 8 - 1][n] = crc;
            }
        }
        n += 1;
    }
    tables
};

/// Place of a guest address in the table that is found by a hash. (CRC32 is an instruction that leaves the flags alone.)
pub fn hash(pc: u64) -> usize {
    let bytes = pc.to_le_bytes().into_iter().rev();
    let crc = CRC.iter().zip(bytes).fold(0, |crc, (table, b)| crc ^ table[usize::from(b)]);
    crc as usize % HASHES
}

/// A basic block to be copied.
#[derive(Clone, Debug)]
pub struct Block {
    /// Guest address.
    pub pc: u64,
    /// Its instructions.
    pub insns: Vec<Instruction>,
    /// Count its entries from outside of the unit, with this entry index.
    pub counted: Option<u32>,
    /// It can be entered from outside of the unit.
    pub entered: bool,
}

impl Block {
    /// The address of its last instruction.
    fn last(&self) -> u64 {
        self.insns.last().map_or(self.pc, Instruction::ip)
    }
}

/// A unit's code, in the compiler's buffers.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// Position independent.
    pub code: &'a [u8],
    /// (offset of a host instruction that can fault, or of another where the guest's state is exact, guest address), ascending.
    pub pcs: &'a [(u32, u64)],
    /// Offset of the code of each block, for who comes from outside.
    pub starts: &'a [u32],
    /// Guest addresses behind instructions that were not copied.
    pub left_out: &'a [u64],
}

/// Copies units: buffers that are used again.
pub struct Direct {
    words: Words,
    asm: Asm,
    encoder: Encoder,
    info: InstructionInfoFactory,
    pcs: Vec<(u32, u64)>,
    starts: Vec<u32>,
    checks: Checks,
    copies: regs::Copies,
    /// What is known at the end of each block that goes on in the unit.
    after: Vec<Option<(Checks, regs::Copies)>>,
    /// The block at hand does.
    goes_on: bool,
    /// The blocks that may go to each block.
    from: Vec<Vec<usize>>,
    /// Blocks that later ones go back to.
    heads: Vec<Option<loops::Head>>,
    /// Where they are come to from later ones.
    labels: Vec<Label>,
    /// The same from others.
    fronts: Vec<Label>,
    /// Where blocks are entered from outside.
    entries: Vec<Label>,
    /// Which are.
    entered: Vec<bool>,
    /// The number of the block at an address.
    numbers: HashMap<u64, usize>,
    /// The address of the only block, most often.
    alone: Option<u64>,
    cold: Vec<exits::Exit>,
    left_out: Vec<u64>,
    run: emit::Run,
    /// The last x87 instruction of the block at hand, if its address is still to be left in the state.
    fip: Option<u64>,
    v3: bool,
    /// Of the guest's code: 32 or 64.
    bits: u32,
    /// Guest address of the instruction at hand.
    pc: u64,
}

/// Whether a block is better compiled: it has gathers.
pub fn is_for_compiler(insns: &[Instruction]) -> bool {
    select::is_for_compiler(insns)
}

/// Whether this host has the instructions that copied code uses and may copy. (The kernel must let programs set the base of GS, too.)
pub fn supported() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        has!("sse4.2") && has!("avx2") && has!("fma") && has!("bmi1") && has!("bmi2") && has!("lzcnt")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

impl Direct {
    /// For states of this layout.
    pub fn new(words: Words) -> Direct {
        Direct {
            words,
            asm: Asm::default(),
            encoder: Encoder::new(64),
            info: InstructionInfoFactory::new(),
            pcs: vec![],
            starts: vec![],
            checks: Checks::default(),
            copies: regs::Copies::default(),
            after: vec![],
            goes_on: false,
            from: vec![],
            heads: vec![],
            labels: vec![],
            fronts: vec![],
            entries: vec![],
            entered: vec![],
            numbers: HashMap::new(),
            alone: None,
            cold: vec![],
            left_out: vec![],
            run: emit::Run::default(),
            fip: None,
            v3: true,
            bits: 64,
            pc: 0,
        }
    }

    /// Copy a unit. `links` gives the entry index of a guest address; `bits`: of its code; `v3`: the guest's CPU has the instructions of
    /// x86-64-v3. `None` if nothing of it can be copied.
    pub fn copy(
        &mut self,
        blocks: &[Block],
        bits: u32,
        v3: bool,
        links: &mut dyn FnMut(u64) -> u32,
    ) -> Option<Code<'_>> {
        (self.bits, self.v3) = (bits, v3);
        self.numbers.clear();
        self.alone = if let [b] = blocks { Some(b.pc) } else { None };
        if self.alone.is_none() {
            blocks.iter().enumerate().for_each(|(n, b)| _ = self.numbers.entry(b.pc).or_insert(n));
        }
        self.entered.clear();
        self.entered.extend(blocks.iter().map(|b| b.entered));
        self.find_ways(blocks);
        let mut pass = 0;
        loop {
            self.attempt(blocks, links);
            if self.is_settled(pass) {
                break;
            }
            pass += 1;
            // Without assumptions none is wrong; if one is, nothing is copied.
            if pass > loops::LAST + 1 {
                return None;
            }
        }
        self.pcs.sort_unstable();
        if !self.asm.finish(&mut self.pcs) {
            return None;
        }
        // What can fault there comes first, and will do for the other.
        self.pcs.dedup_by_key(|p| p.0);
        self.starts.extend(self.entries.iter().map(|l| self.asm.at(*l)));
        let (code, pcs, starts) = (&self.asm.code[..], &self.pcs[..], &self.starts[..]);
        Some(Code { code, pcs, starts, left_out: &self.left_out })
    }

    /// The number of the block at an address.
    fn number(&self, pc: u64) -> Option<usize> {
        match self.alone {
            Some(at) => (at == pc).then_some(0),
            None => self.numbers.get(&pc).copied(),
        }
    }

    fn attempt(&mut self, blocks: &[Block], links: &mut dyn FnMut(u64) -> u32) {
        self.asm.clear();
        self.pcs.clear();
        self.starts.clear();
        self.after.clear();
        self.cold.clear();
        self.left_out.clear();
        self.labels.clear();
        self.fronts.clear();
        self.entries.clear();
        for _ in blocks {
            self.labels.push(self.asm.label());
            self.fronts.push(self.asm.label());
            self.entries.push(self.asm.label());
        }
        for (n, b) in blocks.iter().enumerate() {
            // In the order of the unit it may go forward, and come back by way of another unit.
            let back = self.from[n].iter().any(|f| blocks[*f].last() >= b.pc);
            self.block(n, b, back, links);
        }
        self.counts(blocks);
        self.cold_code();
    }

    /// `back`: the guest goes back to it.
    fn block(&mut self, n: usize, b: &Block, back: bool, links: &mut dyn FnMut(u64) -> u32) {
        (self.checks, self.copies) = self.before(n, b);
        match b.counted {
            // The block before may go on here.
            Some(_) if n > 0 => {}
            Some(index) => {
                self.asm.bind(self.entries[n]);
                self.count(index, b.pc);
            }
            None => self.asm.bind(self.entries[n]),
        }
        self.asm.bind(self.fronts[n]);
        self.goes_on = false;
        self.assume(n, b.pc);
        self.asm.bind(self.labels[n]);
        if back {
            self.boundary(b.pc);
        }
        let mut ended = false;
        let mut next = b.pc;
        for i in &b.insns {
            let i = &if self.bits == 32 { narrow::in_long_mode(i) } else { *i };
            self.pc = i.ip();
            next = i.next_ip();
            self.runs(i);
            if select::is_control(i) {
                self.leave_fip();
                ended = self.control(i, n, links);
                if !ended {
                    self.leave_out(i);
                    ended = true;
                }
                break;
            }
            if !self.instruction(i) {
                self.leave_out(i);
                ended = true;
                break;
            }
        }
        self.end_run();
        if !ended {
            self.leave_fip();
            let last = std::mem::replace(&mut self.pc, next);
            self.settle_rsp();
            self.pc = last;
            self.go(next, n, links);
        }
        self.after.push(self.goes_on.then(|| (self.checks.clone(), self.copies)));
    }

    /// This instruction is for the interpreter.
    fn leave_out(&mut self, i: &Instruction) {
        self.end_run();
        self.leave_fip();
        self.left_out.push(i.next_ip());
        self.way(self.words.step, i.ip());
    }
}
