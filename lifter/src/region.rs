//! Region discovery and the driver of translation.
//!
//! Discovery decodes from the entries along direct jumps, conditional branches and returns of calls,
//! up to a bound; edges past it, and code that cannot be fetched, leave the region. Blocks are split
//! where something jumps into them, and translated in reverse post-order, so that (but for loops) the
//! condition codes at the end of all predecessors are known when a block is translated.

use crate::ctx::{Lifter, Unlifted};
use crate::hash::{Map, Set};
use crate::{int, table};
use evm_cpu::exc;
use evm_ir::{Block, Region, Term, Type};
use iced_x86::{Decoder, DecoderError, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic};
use std::collections::{BTreeMap, VecDeque};

/// How much to translate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// One basic block, at most 64 instructions: quick, for code that runs rarely.
    Block,
    /// All that direct jumps reach.
    Region,
    /// One instruction, which raises the floating exception flags that it raises by itself.
    Strict,
}

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
}

impl<F: FnMut(u64, &mut [u8]) -> usize> Code for F {
    fn fetch(&mut self, addr: u64, buf: &mut [u8]) -> usize {
        self(addr, buf)
    }
}

/// What to translate and how much.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Extent.
    pub mode: Mode,
    /// Bound on instructions of a region.
    pub max_insns: usize,
    /// Bound on guest basic blocks of a region.
    pub max_blocks: usize,
    /// 64 or 32.
    pub bits: u32,
    /// The CPU has what x86-64-v3 adds (AVX to AVX2, FMA, F16C, BMI, MOVBE, ADX); else those instructions are #UD.
    /// (TZCNT and LZCNT are what they are on every model: without them their bytes would be BSF and BSR, which no CPU of
    /// the last ten years makes of them.)
    pub v3: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { mode: Mode::Region, max_insns: 500, max_blocks: 200, bits: 64, v3: true }
    }
}

/// Why there is no region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LiftError {
    /// The instruction at the entry cannot be fetched.
    #[error("no executable byte at {addr:#x}")]
    Fetch {
        /// First byte that cannot be fetched.
        addr: u64,
    },
    /// `bits` is neither 32 nor 64.
    #[error("no such mode: {0} bits")]
    Bits(u32),
}

/// An instruction that has no translation (it raises #UD when reached).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LiftNote {
    /// Its address.
    pub pc: u64,
    /// What it is.
    pub what: String,
}

/// The outcome.
#[derive(Clone, Debug)]
pub struct Lifted {
    /// The translation.
    pub region: Region,
    /// Instructions without translation.
    pub notes: Vec<LiftNote>,
    /// Blocks left out because they are not warm.
    pub cold: Vec<u64>,
}

/// Instructions of a block in [`Mode::Block`].
const BLOCK_INSNS: usize = 64;

/// A guest basic block: where it starts, its instructions, and where control goes.
struct Guest {
    insns: Vec<Instruction>,
    succs: Vec<u64>,
}

enum Fetched {
    Insn(Instruction),
    Fault(u64),
}

/// Reads code a window at a time.
struct Reader<'a> {
    code: &'a mut dyn Code,
    bits: u32,
    at: u64,
    len: usize,
    buf: [u8; WINDOW],
}

const WINDOW: usize = 128;
const MAX_INSN: usize = 15;

impl<'a> Reader<'a> {
    fn new(code: &'a mut dyn Code, bits: u32) -> Self {
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
    fn decode(&mut self, pc: u64) -> Fetched {
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
enum Flow {
    Next,
    /// Ends the block; direct successors that may be part of the region.
    End(Vec<u64>),
}

fn flow(i: &Instruction) -> Flow {
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
            iced_x86::OpKind::NearBranch16 | iced_x86::OpKind::NearBranch32 | iced_x86::OpKind::NearBranch64 => {
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

/// Translate the code at `entry`. `extra` addresses become entries too when they turn out to be reached or can be
/// fetched.
pub fn lift(entry: u64, extra: &[u64], code: &mut dyn Code, opts: &Options) -> Result<Lifted, LiftError> {
    if opts.bits != 64 && opts.bits != 32 {
        return Err(LiftError::Bits(opts.bits));
    }
    let code = &mut Reader::new(code, opts.bits);
    if let Fetched::Fault(addr) = code.decode(entry) {
        return Err(LiftError::Fetch { addr });
    }
    let mut entries = vec![entry];
    let mut cold = Set::default();
    let (guest, tables) = match opts.mode {
        Mode::Block => (one_block(entry, code, BLOCK_INSNS), Map::default()),
        Mode::Strict => (one_block(entry, code, 1), Map::default()),
        Mode::Region => {
            entries.extend(extra.iter().copied().filter(|e| *e != entry));
            discover(&entries, opts, code, &mut cold)
        }
    };
    entries.retain(|e| guest.contains_key(e));
    let stubs = match opts.mode {
        Mode::Block | Mode::Strict => vec![],
        Mode::Region => stubs(&guest, code),
    };
    let mut lifted = translate(&guest, &entries, &stubs, tables, opts);
    lifted.cold = cold.into_iter().collect();
    Ok(lifted)
}

fn one_block(entry: u64, code: &mut Reader, most: usize) -> BTreeMap<u64, Guest> {
    let mut g = Guest { insns: vec![], succs: vec![] };
    let mut pc = entry;
    while g.insns.len() < most {
        let Fetched::Insn(i) = code.decode(pc) else {
            break;
        };
        g.insns.push(i);
        if i.is_invalid() || matches!(flow(&i), Flow::End(_)) {
            break;
        }
        pc = i.next_ip();
    }
    BTreeMap::from([(entry, g)])
}

fn discover(
    entries: &[u64],
    opts: &Options,
    code: &mut Reader,
    cold: &mut Set,
) -> (BTreeMap<u64, Guest>, Map<Vec<u64>>) {
    let mut seen: Map<Instruction> = Map::default();
    let mut leaders: Set = Set::default();
    let mut work: VecDeque<u64> = VecDeque::new();
    // The instruction that falls through to an address.
    let mut before: Map<u64> = Map::default();
    let mut tables: Map<Vec<u64>> = Map::default();
    for e in entries {
        if leaders.insert(*e) {
            work.push_back(*e);
        }
    }
    while let Some(start) = work.pop_front() {
        let mut pc = start;
        loop {
            if seen.contains_key(&pc) {
                // Two streams meet: what follows is shared.
                if pc != start {
                    leaders.insert(pc);
                }
                break;
            }
            if seen.len() >= opts.max_insns {
                break;
            }
            let Fetched::Insn(i) = code.decode(pc) else {
                break;
            };
            seen.insert(pc, i);
            before.entry(i.next_ip()).or_insert(pc);
            if i.is_invalid() {
                break;
            }
            if let Flow::End(mut to) = flow(&i) {
                if i.is_jmp_near_indirect() {
                    let cases = cases(&i, &seen, &before, opts, code);
                    to.extend(cases.iter().copied());
                    to.sort_unstable();
                    to.dedup();
                    tables.insert(pc, cases);
                }
                for t in to {
                    if !leaders.contains(&t) && !code.code.is_warm(t) {
                        cold.insert(t);
                        continue;
                    }
                    if leaders.len() < opts.max_blocks && leaders.insert(t) {
                        work.push_back(t);
                    }
                }
                break;
            }
            pc = i.next_ip();
        }
    }
    let mut guest = BTreeMap::new();
    for l in leaders.iter().copied().filter(|l| seen.contains_key(l)) {
        let mut g = Guest { insns: vec![], succs: vec![] };
        let mut pc = l;
        while let Some(i) = seen.get(&pc) {
            if pc != l && leaders.contains(&pc) {
                g.succs.push(pc);
                break;
            }
            g.insns.push(*i);
            if i.is_invalid() {
                break;
            }
            if let Flow::End(mut to) = flow(i) {
                if let Some(cases) = tables.get(&pc) {
                    to.extend(cases);
                    to.sort_unstable();
                    to.dedup();
                }
                g.succs = to;
                break;
            }
            pc = i.next_ip();
        }
        g.succs.retain(|s| leaders.contains(s) && seen.contains_key(s));
        guest.insert(l, g);
    }
    (guest, tables)
}

/// Where an indirect jump through a table goes, if it looks like one.
fn cases(
    jump: &Instruction,
    seen: &Map<Instruction>,
    before: &Map<u64>,
    opts: &Options,
    code: &mut Reader,
) -> Vec<u64> {
    let mut at = jump.ip();
    let back = std::iter::from_fn(|| {
        at = *before.get(&at)?;
        seen.get(&at).copied()
    });
    let Some(t) = table::find(jump, back) else {
        return vec![];
    };
    let near = |pc: u64| pc.abs_diff(jump.ip()) < 1 << 24;
    let mut read = |addr: u64, buf: &mut [u8]| code.code.read(addr, buf);
    table::targets(&t, opts.bits, &mut read, near)
}

/// A procedure linkage stub: `[endbr64;] [bnd] jmp [rip + d]`.
struct Stub {
    pc: u64,
    len: u32,
    pointer: u64,
    /// What the pointer holds now: a guess for later.
    target: u64,
}

/// Callees that only jump through a pointer.
fn stubs(guest: &BTreeMap<u64, Guest>, code: &mut Reader) -> Vec<Stub> {
    let callees: Set = guest
        .values()
        .filter_map(|g| g.insns.last())
        .filter(|i| i.is_call_near())
        .map(|i| i.near_branch_target())
        .collect();
    let mut out = vec![];
    for pc in callees {
        let mut at = pc;
        for _ in 0..2 {
            let Fetched::Insn(i) = code.decode(at) else {
                break;
            };
            at = i.next_ip();
            if i.mnemonic() == Mnemonic::Endbr64 {
                continue;
            }
            if i.is_jmp_near_indirect() && i.is_ip_rel_memory_operand() {
                let pointer = i.ip_rel_memory_address();
                let mut now = [0; 8];
                code.code.read(pointer, &mut now);
                out.push(Stub { pc, len: (at - pc) as u32, pointer, target: u64::from_le_bytes(now) });
            }
            break;
        }
    }
    out
}

/// Reverse post-order from the entries, and the targets of back edges.
fn order(guest: &BTreeMap<u64, Guest>, entries: &[u64]) -> (Vec<u64>, Set) {
    let mut post = vec![];
    let mut headers = Set::default();
    let mut done: Set = Set::default();
    let mut open: Set = Set::default();
    for e in entries.iter().rev() {
        if !done.insert(*e) {
            continue;
        }
        open.insert(*e);
        let mut stack = vec![(*e, 0usize)];
        while let Some((pc, next)) = stack.last_mut() {
            // Later successors first: then the fall-through is laid out right behind its block.
            let succs = &guest[pc].succs;
            if *next < succs.len() {
                let s = succs[succs.len() - 1 - *next];
                *next += 1;
                if open.contains(&s) {
                    headers.insert(s);
                } else if done.insert(s) {
                    open.insert(s);
                    stack.push((s, 0));
                }
            } else {
                open.remove(pc);
                post.push(*pc);
                stack.pop();
            }
        }
    }
    post.reverse();
    (post, headers)
}

fn translate(
    guest: &BTreeMap<u64, Guest>,
    entries: &[u64],
    stubs: &[Stub],
    tables: Map<Vec<u64>>,
    opts: &Options,
) -> Lifted {
    let (rpo, headers) =
        if opts.mode != Mode::Region { (entries.to_vec(), Set::default()) } else { order(guest, entries) };
    let mut cx = Lifter::new(opts.bits);
    cx.tables = tables;
    cx.strict = opts.mode == Mode::Strict;
    cx.v3 = opts.v3;
    cx.plt = stubs.iter().map(|s| (s.pc, (s.pointer, s.target))).collect();
    let mut notes = vec![];
    let mut preds: Map<Vec<u64>> = Map::default();
    for pc in &rpo {
        let b = cx.b.block(*pc, true);
        cx.b.region.blocks[b.0 as usize].loop_header = headers.contains(pc);
        // A block that ends a one-block region must not loop inside it unless it is the whole loop:
        // both modes use the same map, the entry is in it.
        cx.targets.insert(*pc, b);
        for s in &guest[pc].succs {
            preds.entry(*s).or_default().push(*pc);
        }
    }
    if opts.mode != Mode::Region {
        cx.targets.clear();
    }
    cx.b.region.entries = entries.iter().map(|e| Block(rpo.iter().position(|p| p == e).unwrap_or(0) as u32)).collect();
    let mut out_kind: Map<Option<u64>> = Map::default();
    for (n, pc) in rpo.iter().enumerate() {
        cx.cc_unknown();
        if !entries.contains(pc)
            && let Some(ps) = preds.get(pc)
        {
            let mut kinds = ps.iter().map(|p| out_kind.get(p).copied().flatten());
            if let Some(Some(k)) = kinds.next()
                && kinds.all(|x| x == Some(k))
            {
                cx.cc.kind = Some(k);
            }
        }
        cx.start(Block(n as u32));
        cx.residues = [None; 16];
        let g = &guest[pc];
        for i in &g.insns {
            cx.pc = i.ip();
            cx.next = i.next_ip();
            if i.is_invalid() || one(&mut cx, i).is_err() {
                notes.push(LiftNote { pc: i.ip(), what: describe(i) });
                cx.raise(exc::UD, 0);
            }
            if cx.ended {
                break;
            }
        }
        if !cx.ended {
            // Falls into another block, or past a bound.
            let to = g.insns.last().map_or(*pc, |i| i.next_ip());
            let kind = cx.cc.kind;
            match cx.known_block(to) {
                Some(b) => cx.end(Term::Jump(b)),
                None => {
                    let v = cx.iconst(Type::I64, to as i64);
                    cx.end(Term::Exit(v));
                }
            }
            out_kind.insert(*pc, kind);
        } else {
            // A callee may leave any flags.
            let last = g.insns.last().map(|i| i.flow_control());
            let call = matches!(last, Some(FlowControl::Call | FlowControl::IndirectCall | FlowControl::Interrupt));
            out_kind.insert(*pc, if call { None } else { cx.cc.kind });
        }
    }
    let mut source: Vec<(u64, u32)> = vec![];
    let mut ranges: Vec<(u64, u64)> = guest
        .values()
        .flat_map(|g| g.insns.iter().map(|i| (i.ip(), i.ip().saturating_add(i.len().max(1) as u64))))
        .chain(stubs.iter().map(|s| (s.pc, s.pc.saturating_add(u64::from(s.len)))))
        .collect();
    ranges.sort_unstable();
    for (from, to) in ranges {
        match source.last_mut() {
            Some(s) if from <= s.0 + u64::from(s.1) => {
                s.1 = s.1.max((to - s.0) as u32);
            }
            _ => source.push((from, (to - from) as u32)),
        }
    }
    cx.b.region.source = source;
    Lifted { region: cx.b.region, notes, cold: vec![] }
}

/// Marker and translation of one instruction.
fn one(cx: &mut Lifter, i: &Instruction) -> Result<(), Unlifted> {
    if !int::is_quiet(i) {
        cx.flush_cc();
    }
    cx.b.marker(cx.pc);
    if !cx.v3 && is_v3(i) {
        return Err(Unlifted);
    }
    int::lift(cx, i)
}

/// Whether an instruction is one that x86-64-v3 adds.
fn is_v3(i: &Instruction) -> bool {
    i.code().encoding() == EncodingKind::VEX
        || matches!(i.mnemonic(), Mnemonic::Movbe | Mnemonic::Adcx | Mnemonic::Adox)
}

fn describe(i: &Instruction) -> String {
    if i.is_invalid() {
        return "invalid encoding".into();
    }
    format!("{:?} ({:?})", i.mnemonic(), i.code())
}
