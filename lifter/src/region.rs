//! Region discovery and the driver of translation.
//!
//! Discovery decodes from the entries along direct jumps, conditional branches and returns of calls,
//! up to a bound; edges past it, and code that cannot be fetched, leave the region. Blocks are split
//! where something jumps into them, and translated in reverse post-order, so that (but for loops) the
//! condition codes at the end of all predecessors are known when a block is translated.
//!
//! Small callees become part of the region: see [`crate::inline`]. A block is named by a *place*, its address and the
//! call that it was inlined for.

use crate::ctx::{Lifter, Unlifted};
use crate::hash::{Map, Set};
use crate::inline::{self, Inlines};
use crate::{int, table};
use evm_cpu::exc;
use evm_ir::{Block, Region, Term, Type};
use iced_x86::{Decoder, DecoderError, DecoderOptions, EncodingKind, FlowControl, Instruction, Mnemonic, OpKind};
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

/// What to translate and how much.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Extent.
    pub mode: Mode,
    /// Bound on instructions of a region.
    pub max_insns: usize,
    /// Bound on guest basic blocks of a region.
    pub max_blocks: usize,
    /// If not 0: straight code is cut into blocks of so many instructions, as [`block`] cuts it, and a block is there as a whole or not at all:
    /// so that regions meet where others begin.
    pub block_insns: usize,
    /// Bound on the instructions of callees that become part of a region.
    pub max_inlined: usize,
    /// 64 or 32.
    pub bits: u32,
    /// The CPU has what x86-64-v3 adds (AVX to AVX2, FMA, F16C, BMI, MOVBE, ADX); else those instructions are #UD.
    /// (TZCNT and LZCNT are what they are on every model: without them their bytes would be BSF and BSR, which no CPU of
    /// the last ten years makes of them.)
    pub v3: bool,
    /// Each instruction raises the floating exception flags that it raises by itself, as in [`Mode::Strict`].
    pub traps: bool,
}

impl Options {
    /// The defaults.
    pub const REGION: Options = Options {
        mode: Mode::Region,
        max_insns: 500,
        max_blocks: 200,
        block_insns: 0,
        max_inlined: 0,
        bits: 64,
        v3: true,
        traps: false,
    };
}

impl Default for Options {
    fn default() -> Self {
        Options::REGION
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
    /// Blocks that the region holds by themselves, not as part of a callee.
    pub blocks: Vec<u64>,
}

/// Instructions of a block in [`Mode::Block`].
const BLOCK_INSNS: usize = 64;

/// A guest basic block: where it starts, its instructions, and where control goes.
struct Guest {
    insns: Vec<Instruction>,
    succs: Vec<u64>,
}

pub(crate) enum Fetched {
    Insn(Instruction),
    Fault(u64),
}

/// Reads code a window at a time.
pub(crate) struct Reader<'a> {
    pub code: &'a mut dyn Code,
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
    pub fn decode(&mut self, pc: u64) -> Fetched {
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
    let mut known = Found::default();
    let mut guest = match opts.mode {
        Mode::Block => one_block(entry, code, BLOCK_INSNS),
        Mode::Strict => one_block(entry, code, 1),
        Mode::Region => {
            entries.extend(extra.iter().copied().filter(|e| *e != entry));
            discover(&entries, opts, code, &mut cold, &mut known)
        }
    };
    entries.retain(|e| guest.contains_key(e));
    if opts.mode == Mode::Region {
        stubs(&guest, code, &mut known);
        // An interpreter is entered wherever it goes on.
        for t in share_switches(&mut guest, &mut known).into_iter().take(MAX_SWITCH_ENTRIES) {
            if !entries.contains(&t) {
                entries.push(t);
            }
        }
    }
    let mut lifted = translate(&guest, &entries, known, opts);
    lifted.cold = cold.into_iter().collect();
    lifted.blocks = guest.into_keys().filter(|k| inline::call_of(*k) == 0).collect();
    Ok(lifted)
}

/// The instructions of the basic block at `entry`, at most `most`; what cannot be fetched or decoded ends it.
pub fn block(entry: u64, code: &mut dyn Code, bits: u32, most: usize) -> Result<Vec<Instruction>, LiftError> {
    let code = &mut Reader::new(code, bits);
    if let Fetched::Fault(addr) = code.decode(entry) {
        return Err(LiftError::Fetch { addr });
    }
    Ok(one_block(entry, code, most).remove(&entry).map(|g| g.insns).unwrap_or_default())
}

/// A basic block of what [`plan`] finds.
#[derive(Clone, Debug)]
pub struct PlanBlock {
    /// Guest address.
    pub pc: u64,
    /// Its instructions.
    pub insns: Vec<Instruction>,
    /// An indirect jump goes there.
    pub indirect: bool,
    /// It ends in an indirect jump of which nothing says where it goes.
    pub open: bool,
}

/// What [`plan`] finds.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Blocks, the entry's first.
    pub blocks: Vec<PlanBlock>,
    /// Where they go besides: to what is cold, or is left out because of a bound.
    pub left: Vec<u64>,
}

/// The blocks that direct jumps reach, in reverse post-order, for those that translate machine code themselves.
pub fn plan(entry: u64, code: &mut dyn Code, opts: &Options) -> Result<Plan, LiftError> {
    let code = &mut Reader::new(code, opts.bits);
    if let Fetched::Fault(addr) = code.decode(entry) {
        return Err(LiftError::Fetch { addr });
    }
    let opts = Options { max_inlined: 0, ..*opts };
    let (mut cold, mut known) = (Set::default(), Found::default());
    let mut guest = discover(&[entry], &opts, code, &mut cold, &mut known);
    let (rpo, _) = order(&guest, &[entry]);
    let mut indirect: Set = Set::default();
    for g in guest.values().filter(|g| g.insns.last().is_some_and(|i| i.is_jmp_near_indirect())) {
        indirect.extend(&g.succs);
    }
    let block = |pc: &u64| {
        let g = guest.remove(pc)?;
        let last = g.insns.last();
        let open = last.is_some_and(|i| i.is_jmp_near_indirect() && !known.tables.contains_key(&i.ip()));
        Some(PlanBlock { pc: *pc, insns: g.insns, indirect: indirect.contains(pc), open })
    };
    Ok(Plan { blocks: rpo.iter().filter_map(block).collect(), left: cold.into_iter().collect() })
}

/// What discovery knows beside the blocks.
#[derive(Default)]
struct Found {
    /// Cases of indirect jumps through tables.
    tables: Map<Vec<u64>>,
    /// Where other indirect jumps and calls went.
    targets: Map<Vec<u64>>,
    inlines: Inlines,
    /// A jump of those that share a switch, by the switch's place.
    switches: Map<Instruction>,
    stubs: Map<Option<Stub>>,
}

fn one_block(entry: u64, code: &mut Reader, most: usize) -> BTreeMap<u64, Guest> {
    let mut g = Guest { insns: Vec::with_capacity(most.min(8)), succs: vec![] };
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
    known: &mut Found,
) -> BTreeMap<u64, Guest> {
    // By place; what is said of tables, targets and stubs is by address.
    let mut seen: Map<Instruction> = Map::default();
    let mut leaders: Set = Set::default();
    let mut work: VecDeque<u64> = VecDeque::new();
    // The instruction that falls through to a place.
    let mut before: Map<u64> = Map::default();
    let mut ends: Map<Vec<u64>> = Map::default();
    let mut taken: Set = Set::default();
    // What may have been left out because of a bound.
    let mut missed: Set = Set::default();
    for e in entries {
        if leaders.insert(*e) {
            work.push_back(*e);
        }
    }
    while let Some(start) = work.pop_front() {
        let call = inline::call_of(start);
        let mut at = start;
        let mut first = start;
        let mut insns = 0;
        loop {
            if seen.contains_key(&at) {
                // Two streams meet: what follows is shared.
                if at != start {
                    leaders.insert(at);
                }
                break;
            }
            if seen.len() >= opts.max_insns && (opts.block_insns == 0 || at == first) {
                break;
            }
            if opts.block_insns > 0 {
                if leaders.contains(&at) {
                    (first, insns) = (at, 0);
                } else if insns == opts.block_insns {
                    let pc = inline::pc_of(at);
                    if call == 0 && !code.code.is_taken(pc) {
                        missed.insert(at);
                    }
                    if leaders.len() >= opts.max_blocks || code.code.is_taken(pc) || !code.code.is_warm(pc) {
                        break;
                    }
                    leaders.insert(at);
                    (first, insns) = (at, 0);
                    continue;
                }
                insns += 1;
            }
            let pc = inline::pc_of(at);
            let Fetched::Insn(i) = code.decode(pc) else {
                break;
            };
            seen.insert(at, i);
            let next = inline::place(call, i.next_ip());
            before.entry(next).or_insert(at);
            if i.is_invalid() {
                break;
            }
            if let Flow::End(mut to) = flow(&i) {
                if i.is_jmp_near_indirect() {
                    to.extend(indirect(&i, at, &seen, &before, opts, code, known));
                    to.sort_unstable();
                    to.dedup();
                }
                to.retain(|t| {
                    if leaders.contains(&inline::place(call, *t)) {
                        return true;
                    }
                    if code.code.is_taken(*t) {
                        taken.insert(*t);
                        return false;
                    }
                    let warm = code.code.is_warm(*t);
                    if !warm && call == 0 {
                        cold.insert(*t);
                    }
                    warm
                });
                let mut to: Vec<u64> = to.into_iter().map(|t| inline::place(call, t)).collect();
                if let Some(callee) = callee(&i, at, &to, opts, code, known) {
                    to.push(callee);
                }
                for t in &to {
                    if leaders.len() < opts.max_blocks && leaders.insert(*t) {
                        work.push_back(*t);
                    }
                }
                if call == 0 {
                    missed.extend(to.iter().copied());
                }
                ends.insert(at, to);
                break;
            }
            at = next;
        }
    }
    cold.retain(|p| !taken.contains(p));
    cold.extend(missed.into_iter().filter(|p| !seen.contains_key(p) && inline::call_of(*p) == 0));
    let mut guest = BTreeMap::new();
    for l in leaders.iter().copied().filter(|l| seen.contains_key(l)) {
        let mut g = Guest { insns: vec![], succs: vec![] };
        let mut at = l;
        while let Some(i) = seen.get(&at) {
            if at != l && leaders.contains(&at) {
                g.succs.push(at);
                break;
            }
            g.insns.push(*i);
            if i.is_invalid() {
                break;
            }
            if matches!(flow(i), Flow::End(_)) {
                g.succs = ends.get(&at).cloned().unwrap_or_default();
                if i.mnemonic() == Mnemonic::Ret {
                    g.succs.extend(known.inlines.way_back(at));
                }
                break;
            }
            at = inline::place(inline::call_of(l), i.next_ip());
        }
        g.succs.retain(|s| leaders.contains(s) && seen.contains_key(s));
        guest.insert(l, g);
    }
    guest
}

/// Entries that a region gets because a shared switch goes there, at most.
const MAX_SWITCH_ENTRIES: usize = 200;
/// Jumps through one register that share a switch, at least.
const SHARED: usize = 4;

/// Many indirect jumps of one region through one register, as in an interpreter, share a switch: with one of its own for
/// each there would be as many edges as the product of their numbers. The switch is a block that is no code of the guest.
///
/// Gives where the switches go.
fn share_switches(guest: &mut BTreeMap<u64, Guest>, known: &mut Found) -> Vec<u64> {
    let mut sites: Map<Vec<u64>> = Map::default();
    for (at, g) in guest.iter().filter(|g| inline::call_of(*g.0) == 0) {
        let Some(i) = g.insns.last().filter(|i| i.is_jmp_near_indirect() && i.op_kind(0) == OpKind::Register) else {
            continue;
        };
        if !known.tables.contains_key(&i.ip()) && g.succs.len() > table::FEW {
            let register = i.op_register(0).full_register().number();
            sites.entry(register as u64).or_default().push(*at);
        }
    }
    let mut all: Vec<u64> = known.targets.values().flatten().copied().filter(|t| guest.contains_key(t)).collect();
    all.sort_unstable();
    all.dedup();
    sites.retain(|_, s| s.len() >= SHARED);
    if sites.is_empty() {
        return vec![];
    }
    for (register, sites) in sites {
        let place = inline::switch_place(register);
        for at in sites {
            let Some(g) = guest.get_mut(&at) else { continue };
            g.succs = vec![place];
            if let Some(i) = g.insns.last() {
                known.switches.entry(place).or_insert(*i);
            }
        }
        guest.insert(place, Guest { insns: vec![], succs: all.clone() });
    }
    all
}

/// The place of a callee that becomes part of the region, of the call at `at` if it is one.
fn callee(i: &Instruction, at: u64, to: &[u64], opts: &Options, code: &mut Reader, known: &mut Found) -> Option<u64> {
    if !i.is_call_near() && !i.is_call_near_indirect() || opts.bits != 64 {
        return None;
    }
    let target = if i.is_call_near_indirect() {
        let targets = code.code.targets(i.ip());
        known.targets.insert(i.ip(), targets.clone());
        match targets[..] {
            [t] => t,
            _ => return None,
        }
    } else {
        let target = i.near_branch_target();
        let stub = known.stubs.entry(target).or_insert_with(|| stub(target, code));
        stub.as_ref().map_or(target, |s| s.target)
    };
    // It pays only where the way back is in the region.
    let back = inline::place(inline::call_of(at), i.next_ip());
    (to.contains(&back)).then(|| known.inlines.add(at, target, back, opts, code)).flatten()
}

/// Where an indirect jump may go.
fn indirect(
    i: &Instruction,
    at: u64,
    seen: &Map<Instruction>,
    before: &Map<u64>,
    opts: &Options,
    code: &mut Reader,
    known: &mut Found,
) -> Vec<u64> {
    let cases = cases(i, at, seen, before, opts, code);
    if cases.len() > 1 {
        known.tables.insert(i.ip(), cases.clone());
        return cases;
    }
    let mut targets = code.code.targets(i.ip());
    targets.retain(|t| code.code.is_warm(*t));
    // A jump that goes anywhere is that of a procedure linkage table or of a tail call.
    targets.truncate(MAX_TARGETS);
    known.targets.insert(i.ip(), targets.clone());
    targets
}

/// Most places that an indirect jump is followed to.
const MAX_TARGETS: usize = 256;

/// Where an indirect jump through a table goes, if it looks like one.
fn cases(
    jump: &Instruction,
    at: u64,
    seen: &Map<Instruction>,
    before: &Map<u64>,
    opts: &Options,
    code: &mut Reader,
) -> Vec<u64> {
    let mut at = at;
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
#[derive(Clone, Copy)]
struct Stub {
    pc: u64,
    len: u32,
    pointer: u64,
    /// Where it went, or what the pointer holds now: a guess for later. 0: none.
    target: u64,
}

/// The stub at an address, if it is one.
fn stub(pc: u64, code: &mut Reader) -> Option<Stub> {
    let mut at = pc;
    for _ in 0..2 {
        let Fetched::Insn(i) = code.decode(at) else {
            return None;
        };
        at = i.next_ip();
        if i.mnemonic() == Mnemonic::Endbr64 {
            continue;
        }
        if !i.is_jmp_near_indirect() || !i.is_ip_rel_memory_operand() {
            return None;
        }
        let pointer = i.ip_rel_memory_address();
        let target = match code.code.targets(i.ip())[..] {
            [t] => t,
            _ => pointee(pointer, pc, code),
        };
        return Some(Stub { pc, len: (at - pc) as u32, pointer, target });
    }
    None
}

/// What the pointer of the stub at `pc` holds; 0 if that is no code, or the stub's own for the first call.
fn pointee(pointer: u64, pc: u64, code: &mut Reader) -> u64 {
    let mut now = [0; 8];
    code.code.read(pointer, &mut now);
    let now = u64::from_le_bytes(now);
    let is_code = matches!(code.decode(now), Fetched::Insn(_)) && now.wrapping_sub(pc) >= 16;
    if is_code { now } else { 0 }
}

/// Callees that only jump through a pointer.
fn stubs(guest: &BTreeMap<u64, Guest>, code: &mut Reader, known: &mut Found) {
    let last = guest.values().filter_map(|g| g.insns.last());
    for i in last.filter(|i| i.is_call_near()) {
        let pc = i.near_branch_target();
        known.stubs.entry(pc).or_insert_with(|| stub(pc, code));
    }
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

fn translate(guest: &BTreeMap<u64, Guest>, entries: &[u64], known: Found, opts: &Options) -> Lifted {
    // The interpreter and the quick tier want one block at a time, thousands of them: that they have no edges is not found out.
    let edges = opts.mode == Mode::Region;
    let (rpo, headers) = if edges { order(guest, entries) } else { (entries.to_vec(), Set::default()) };
    let stubs: Vec<Stub> = known.stubs.values().flatten().copied().collect();
    let mut cx = Lifter::new(opts.bits);
    let Found { tables, targets, inlines, switches, .. } = known;
    (cx.tables, cx.seen_targets, cx.inlines) = (tables, targets, inlines);
    cx.strict = opts.mode == Mode::Strict || opts.traps;
    cx.v3 = opts.v3;
    cx.plt = stubs.iter().map(|s| (s.pc, (s.pointer, s.target))).collect();
    let mut notes = vec![];
    let mut preds: Map<Vec<u64>> = Map::default();
    for at in &rpo {
        let shared = switches.get(at);
        // The jumps do the same wherever they stand, so that any of them may stand for all.
        let b = cx.b.block(shared.map_or(inline::pc_of(*at), |i| i.ip()), true);
        if let Some(i) = shared {
            cx.dispatch.insert(i.op_register(0).full_register().number() as u64, b);
        }
        cx.b.region.blocks[b.0 as usize].loop_header = headers.contains(at);
        if edges {
            cx.targets.insert(*at, b);
            for s in &guest[at].succs {
                preds.entry(*s).or_default().push(*at);
            }
        }
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
        cx.call = inline::call_of(*pc);
        cx.start(Block(n as u32));
        cx.residues = [None; 16];
        if let Some(i) = switches.get(pc) {
            (cx.call, cx.pc, cx.next) = (0, i.ip(), i.next_ip());
            cx.shared_switch(i);
            continue;
        }
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
            let to = g.insns.last().map_or(inline::pc_of(*pc), |i| i.next_ip());
            let kind = cx.cc.pure_kind();
            match cx.known_block(to) {
                Some(b) => cx.end(Term::Jump(b)),
                None => {
                    let v = cx.iconst(Type::I64, to as i64);
                    cx.leave(v);
                }
            }
            if edges {
                out_kind.insert(*pc, kind);
            }
        } else if edges {
            // A callee may leave any flags, also one in the region (it may be left for a while).
            use FlowControl::{Call, IndirectCall, Interrupt, Return};
            let last = g.insns.last().map(|i| i.flow_control());
            let call = matches!(last, Some(Call | IndirectCall | Interrupt | Return));
            out_kind.insert(*pc, if call { None } else { cx.cc.pure_kind() });
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
    Lifted { region: cx.b.region, notes, cold: vec![], blocks: vec![] }
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
