//! What is translated, and the driver of translation.
//!
//! The blocks that [`crate::discover`] finds are translated in reverse post-order, so that (but for loops) the condition
//! codes at the end of all predecessors are known when a block is translated.
//!
//! Small callees become part of the region: see [`crate::inline`]. A block is named by a *place*, its address and the
//! call that it was inlined for.

use crate::ctx::{Lifter, Unlifted};
use crate::decode::{Code, Fetched, Reader};
use crate::discover::{Found, Guest, Guests, discover, one_block, order, share_switches};
use crate::hash::{Map, Set};
use crate::indirect::{Stub, stubs};
use crate::{inline, int};
use evm_cpu::exc;
use evm_ir::{Block, Region, Term, Type};
use iced_x86::{EncodingKind, FlowControl, Instruction, Mnemonic};

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
/// Entries that a region gets because a shared switch goes there, at most.
const MAX_SWITCH_ENTRIES: usize = 200;

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
    let mut known = Found::default();
    let (mut guest, cold) = match opts.mode {
        Mode::Block => (one_block(entry, code, BLOCK_INSNS), Set::default()),
        Mode::Strict => (one_block(entry, code, 1), Set::default()),
        Mode::Region => {
            entries.extend(extra.iter().copied().filter(|e| *e != entry));
            discover(&entries, opts, code, &mut known)
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
    let mut known = Found::default();
    let (mut guest, cold) = discover(&[entry], &opts, code, &mut known);
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

fn translate(guest: &Guests, entries: &[u64], known: Found, opts: &Options) -> Lifted {
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
        let kind = body(&mut cx, *pc, g, &mut notes);
        if edges {
            out_kind.insert(*pc, kind);
        }
    }
    cx.b.region.source = sources(guest, &stubs);
    Lifted { region: cx.b.region, notes, cold: vec![], blocks: vec![] }
}

/// Translate the instructions of the block at a place. Gives the kind of the condition codes at its end, as far as it is sure.
fn body(cx: &mut Lifter, place: u64, g: &Guest, notes: &mut Vec<LiftNote>) -> Option<u64> {
    for i in &g.insns {
        cx.pc = i.ip();
        cx.next = i.next_ip();
        if i.is_invalid() || one(cx, i).is_err() {
            notes.push(LiftNote { pc: i.ip(), what: describe(i) });
            cx.raise(exc::UD, 0);
        }
        if cx.ended {
            break;
        }
    }
    let last = g.insns.last();
    if cx.ended {
        // A callee may leave any flags, also one in the region (it may be left for a while).
        use FlowControl::{Call, IndirectCall, Interrupt, Return};
        let call = matches!(last.map(|i| i.flow_control()), Some(Call | IndirectCall | Interrupt | Return));
        return if call { None } else { cx.cc.pure_kind() };
    }
    // Falls into another block, or past a bound.
    let to = last.map_or(inline::pc_of(place), |i| i.next_ip());
    let kind = cx.cc.pure_kind();
    match cx.known_block(to) {
        Some(b) => cx.end(Term::Jump(b)),
        None => {
            let v = cx.iconst(Type::I64, to as i64);
            cx.leave(v);
        }
    }
    kind
}

/// The bytes that a region was made from: address and length of each run.
fn sources(guest: &Guests, stubs: &[Stub]) -> Vec<(u64, u32)> {
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
    source
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
