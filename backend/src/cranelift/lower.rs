//! The frame of a function: entries, blocks, slots, polls, dispatch of instructions.

use super::flow::{self, Lane, Lanes};
use super::patch::Patches;
use super::{CompileOptions, CompilerSettings, Error, Stats};
use crate::abi::{Abi, TRAP_ACCESS};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    self as cl, AbiParam, AliasRegionData, BlockArg, InstBuilder, MemFlagsData, SigRef, Signature, SourceLoc, TrapCode,
    types,
};
use cranelift_codegen::isa::{CallConv, TargetFrontendConfig};
use cranelift_frontend::{FunctionBuilder, Variable};
use evm_ir::passes::Places;
use evm_ir::{Block, BlockData, Inst, Op, Region, Sig, Slot, SlotSet, Term, Type, Value, flags};
use std::collections::{HashMap, HashSet};

/// Guest instructions of a region from which on each block finds guest memory anew.
const LARGE: u32 = 60;
/// Entries of a region from which on a table chooses among them.
const MANY_ENTRIES: usize = 8;

/// A value of Cranelift, to tell it from one of the IR.
pub(super) type V = cl::Value;

/// Cranelift's type of an IR type. A `V128` is kept as `I8X16` where it has to have one type.
pub(super) fn cl_type(t: Type) -> cl::Type {
    match t {
        Type::I8 => types::I8,
        Type::I16 => types::I16,
        Type::I32 => types::I32,
        Type::I64 => types::I64,
        Type::F32 => types::F32,
        Type::F64 => types::F64,
        Type::V128 | Type::I8X16 => types::I8X16,
        Type::I16X8 => types::I16X8,
        Type::I32X4 => types::I32X4,
        Type::I64X2 => types::I64X2,
        Type::F32X4 => types::F32X4,
        Type::F64X2 => types::F64X2,
    }
}

/// The vector type whose lane 0 is a scalar of this type.
fn whole(lane: Type) -> cl::Type {
    if lane == Type::F32 { types::F32X4 } else { types::F64X2 }
}

/// Blocks that all exits of a function share, made when first needed.
#[derive(Default)]
pub(super) struct Shared {
    /// `(next)`: return.
    pub ret: Option<cl::Block>,
    /// `(code, pc)`: tail call, or return `pc` if `code` is 0.
    pub tail: Option<cl::Block>,
    /// `(pc)`: look `pc` up and tail call, or return.
    pub lookup: Option<cl::Block>,
    /// `(pc)`: store it as the guest pc and return `EXIT_PENDING`.
    pub pending: Option<cl::Block>,
}

pub(super) struct Lower<'a, 'f> {
    pub b: FunctionBuilder<'f>,
    pub r: &'a Region,
    pub abi: &'a Abi,
    pub settings: &'a CompilerSettings,
    pub opt: CompileOptions,
    pub links: &'a mut dyn FnMut(u64) -> u32,
    /// By IR value.
    vals: Vec<Option<V>>,
    /// Constants among them.
    konst: Vec<Option<i64>>,
    /// Loads to be emitted with an extension: type and whether signed, by IR value of the load.
    pub extended: HashMap<Value, (Type, bool)>,
    vars: Vec<Option<Variable>>,
    /// Values of slots in this block, and whether the variable has to be set to it at its end.
    now: Vec<Option<V>>,
    written: SlotSet,
    /// Variables of vector slots whose low lane is apart: the vector below, and the lane.
    parts: HashMap<(Slot, cl::Type), Variable>,
    lanes: Vec<Lanes>,
    polls: Vec<bool>,
    /// Number of ways to each block.
    pub preds: Vec<u32>,
    /// Block and instruction at hand.
    pub here: usize,
    pub place: usize,
    blocks: Vec<cl::Block>,
    pub state: V,
    pub base: V,
    /// Flags of accesses to guest memory, the state, and the runtime's tables.
    pub guest: MemFlagsData,
    pub own: MemFlagsData,
    pub tables: MemFlagsData,
    pub shared: Shared,
    sigs: HashMap<(CallConv, u8, u8, Option<Type>), SigRef>,
    pub pcs: Vec<u64>,
    pub pc: u64,
    /// A guest access since the last marker that a later instruction must not swallow.
    pub access_open: bool,
    /// `root + constant` for integer values that are such a sum.
    pub sums: HashMap<V, (V, i64)>,
    /// Accesses whose address is to be checked.
    pub unproven: Places,
    /// Roots that are multiples of a number.
    pub aligned: HashSet<(V, i64)>,
    /// The access that finds out by itself whether its address is a multiple of 16.
    pub aligning: Option<usize>,
    /// Constants near which this block accesses memory, and whether they were checked.
    pub chunks: HashMap<i64, (V, bool)>,
    /// Addresses loaded from in this block (mid-end only).
    pub loaded: HashSet<u64>,
    pub hashes: HashMap<V, u64>,
    /// Lane 0 scalars of vectors made by `insertlane`: vector -> (scalar, vector below).
    pub low: HashMap<V, (V, V)>,
    /// Low lanes that may be results of floating operations which nothing has used yet in this block.
    pub unread: HashSet<V>,
    /// High products and remainders of this block beside which the low product or the quotient is wanted, and
    /// their values once made: (low, high) or (quotient, remainder).
    pub paired: HashSet<(Op, Value, Value)>,
    pub pairs: HashMap<(Op, V, V), (V, V)>,
    pub stats: Stats,
    /// Where results go that only exist for the flags they raise.
    pub sink_slot: Option<cl::StackSlot>,
    /// Number of uses, by IR value.
    pub uses: Vec<u32>,
    /// The code may have FMA instructions.
    pub has_fma: bool,
    /// Stand-ins, by the number of their source location.
    pub patches: Patches,
}

impl<'a, 'f> Lower<'a, 'f> {
    pub fn new(
        b: FunctionBuilder<'f>,
        r: &'a Region,
        abi: &'a Abi,
        settings: &'a CompilerSettings,
        opt: CompileOptions,
        links: &'a mut dyn FnMut(u64) -> u32,
    ) -> Self {
        let mut region = |user_id, name: &'static str| {
            let data = AliasRegionData { user_id, description: name.into() };
            Some(b.func.dfg.alias_regions.insert(data))
        };
        let little = MemFlagsData::new().with_endianness(cl::Endianness::Little);
        let guest =
            little.with_trap_code(Some(TrapCode::unwrap_user(TRAP_ACCESS))).with_alias_region(region(0, "guest"));
        let own = little.with_notrap().with_aligned().with_alias_region(region(1, "state"));
        let tables = little.with_notrap().with_aligned().with_alias_region(region(2, "tables"));
        let dummy = V::from_u32(0);
        Lower {
            b,
            r,
            abi,
            settings,
            opt,
            links,
            vals: vec![None; r.types.len()],
            konst: vec![None; r.types.len()],
            extended: HashMap::new(),
            vars: vec![None; r.layout.slots.len()],
            now: vec![None; r.layout.slots.len()],
            written: SlotSet::default(),
            parts: HashMap::new(),
            lanes: vec![],
            polls: vec![],
            preds: vec![],
            here: 0,
            place: 0,
            blocks: vec![],
            state: dummy,
            base: dummy,
            guest,
            own,
            tables,
            shared: Shared::default(),
            sigs: HashMap::new(),
            pcs: vec![],
            pc: 0,
            access_open: false,
            sums: HashMap::new(),
            unproven: Places::new(),
            aligned: HashSet::new(),
            aligning: None,
            chunks: HashMap::new(),
            loaded: HashSet::new(),
            hashes: HashMap::new(),
            low: HashMap::new(),
            unread: HashSet::new(),
            paired: HashSet::new(),
            pairs: HashMap::new(),
            stats: Stats::default(),
            sink_slot: None,
            uses: vec![],
            has_fma: settings.features.has_fma(),
            patches: Patches::new(),
        }
    }

    /// Build the function. Gives the guest pcs that source locations stand for, and the stand-ins among them.
    pub fn run(mut self, config: TargetFrontendConfig) -> Result<(Vec<u64>, Patches, Stats), Error> {
        self.find_extended_loads();
        self.lanes = flow::analyse(self.r);
        self.unproven = evm_ir::passes::unproven(self.r);
        self.polls = crate::polls::polls(self.r, true);
        self.preds = vec![0; self.r.blocks.len()];
        for t in self.r.blocks.iter().flat_map(|b| flow::successors(&b.term)) {
            if let Some(n) = self.preds.get_mut(t.0 as usize) {
                *n += 1;
            }
        }
        for (i, s) in self.r.layout.slots.iter().enumerate() {
            if s.promote {
                self.vars[i] = Some(self.b.declare_var(cl_type(s.ty)));
            }
        }
        self.blocks = (0..self.r.blocks.len()).map(|_| self.b.create_block()).collect();
        self.entry()?;
        for i in 0..self.r.blocks.len() {
            self.block(i)?;
        }
        self.finish_shared();
        self.b.seal_all_blocks();
        self.b.finalize(config);
        Ok((self.pcs, self.patches, self.stats))
    }

    /// Loads of narrow integers whose only use is an extension become extending loads.
    fn find_extended_loads(&mut self) {
        let mut uses = vec![0u32; self.r.types.len()];
        let mut count = |v: Value| {
            if let Some(n) = uses.get_mut(v.0 as usize) {
                *n += 1;
            }
        };
        for blk in &self.r.blocks {
            for i in &blk.insts {
                [i.a, i.b, i.c].into_iter().for_each(&mut count);
                if i.op == Op::Call {
                    self.r.calls[i.imm as usize].args.iter().copied().for_each(&mut count);
                }
            }
            super::exits::uses(&blk.term).into_iter().for_each(&mut count);
        }
        self.uses.clone_from(&uses);
        for blk in &self.r.blocks {
            let loads: HashSet<Value> = blk
                .insts
                .iter()
                .filter(|i| i.op == Op::Load && i.ty.is_int() && i.ty != Type::I64)
                .map(|i| i.dst)
                .collect();
            for i in &blk.insts {
                if matches!(i.op, Op::Zext | Op::Sext) && loads.contains(&i.a) && uses[i.a.0 as usize] == 1 {
                    self.extended.insert(i.a, (i.ty, i.op == Op::Sext));
                }
            }
        }
    }

    /// Function entry: the stack check, and the way to the block asked for.
    fn entry(&mut self) -> Result<(), Error> {
        let entry = self.b.create_block();
        self.b.append_block_params_for_function_params(entry);
        self.b.switch_to_block(entry);
        self.state = self.b.block_params(entry)[0];
        let pc = self.b.block_params(entry)[1];
        self.base = self.b.ins().get_pinned_reg(types::I64);
        let sp = self.b.ins().get_stack_pointer(types::I64);
        let limit = self.load_own(types::I64, self.abi.stack_limit);
        let low = self.b.ins().icmp(IntCC::UnsignedLessThan, sp, limit);
        let (out, go) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(low, out, &[], go, &[]);
        self.b.switch_to_block(out);
        self.leave(pc);
        self.go(out, go);
        let mut entries: Vec<(u64, Block)> = vec![];
        for e in &self.r.entries {
            let at = self.r.blocks.get(e.0 as usize).ok_or(Error::Invalid("no such entry"))?.pc;
            if entries.iter().all(|x| x.0 != at) {
                entries.push((at, *e));
            }
        }
        let first = *entries.first().ok_or(Error::Invalid("no entry"))?;
        if entries.len() > MANY_ENTRIES {
            entries.sort_unstable();
            return self.choose_by_bits(pc, &entries);
        }
        // The first entry is the most likely one.
        if entries.len() > 2 {
            let is = self.icmp_const(IntCC::Equal, pc, first.0 as i64);
            let other = self.b.create_block();
            let to = self.blocks[first.1.0 as usize];
            self.b.ins().brif(is, to, &[], other, &[]);
            self.b.switch_to_block(other);
            entries.remove(0);
        }
        entries.sort_unstable();
        self.choose(pc, &entries);
        Ok(())
    }

    /// Binary decision among sorted entries; the last one is not compared.
    fn choose(&mut self, pc: V, entries: &[(u64, Block)]) {
        if let [(_, b)] = entries {
            let to = self.blocks[b.0 as usize];
            self.b.ins().jump(to, &[]);
            return;
        }
        let mid = entries.len() / 2;
        let below = self.icmp_const(IntCC::UnsignedLessThan, pc, entries[mid].0 as i64);
        let (l, h) = (self.b.create_block(), self.b.create_block());
        self.b.ins().brif(below, l, &[], h, &[]);
        self.b.switch_to_block(l);
        self.choose(pc, &entries[..mid]);
        self.b.switch_to_block(h);
        self.choose(pc, &entries[mid..]);
    }

    /// Decision among many sorted entries, as of an interpreter that goes from one to the next: a jump through a table, by the
    /// bits that tell most of them apart.
    fn choose_by_bits(&mut self, pc: V, entries: &[(u64, Block)]) -> Result<(), Error> {
        let pcs: Vec<u64> = entries.iter().map(|e| e.0).collect();
        let (shift, mask) = evm_ir::spread(&pcs);
        let slot = |pc: u64| (pc >> shift & mask) as usize;
        let mut slots = vec![vec![]; mask as usize + 1];
        entries.iter().for_each(|e| slots[slot(e.0)].push(*e));
        let made: Vec<Option<cl::Block>> =
            slots.iter().map(|s| (!s.is_empty()).then(|| self.b.create_block())).collect();
        // Nothing comes to a slot without entries.
        let default = made.iter().flatten().next().copied().ok_or(Error::Invalid("no entry"))?;
        let table: Vec<cl::Block> = made.iter().map(|b| b.unwrap_or(default)).collect();
        let index = self.b.ins().ushr_imm_u(pc, i64::from(shift));
        let index = self.b.ins().band_imm_u(index, mask as i64);
        self.jump_table(index, &table, default);
        for (at, entries) in made.into_iter().zip(&slots) {
            if let Some(at) = at {
                self.b.switch_to_block(at);
                self.choose(pc, entries);
            }
        }
        Ok(())
    }

    /// Whether a block only leaves for code that the region does not have: such ways are out of the way of what stays.
    fn is_way_out(&self, index: usize) -> bool {
        let data = &self.r.blocks[index];
        let quiet = |i: &Inst| i.op != Op::Call && i.op.flags() & (flags::READ | flags::WRITE) == 0;
        matches!(data.term, Term::Exit(_))
            && !data.insn_start
            && data.insts.iter().all(quiet)
            && self.r.entries.iter().all(|e| e.0 as usize != index)
    }

    fn block(&mut self, index: usize) -> Result<(), Error> {
        let data = &self.r.blocks[index];
        self.b.switch_to_block(self.blocks[index]);
        if self.is_way_out(index) {
            self.b.set_cold_block(self.blocks[index]);
        }
        self.here = index;
        self.now.fill(None);
        self.aligned.clear();
        self.chunks.clear();
        self.loaded.clear();
        self.low.clear();
        self.unread.clear();
        self.find_pairs(data);
        self.at(data.pc);
        self.find_base(data);
        if self.opt.optimize {
            // Another thread may write between two loads: none may be merged with one of another block.
            self.b.ins().sequence_point();
        }
        if self.polls[index] {
            self.poll(index);
        }
        for (n, i) in data.insts.iter().enumerate() {
            self.place = n;
            self.inst(i)?;
        }
        self.hand_over(&flow::successors(&data.term));
        self.terminator(data)
    }

    /// Where guest memory is. In a large region a register for it across all blocks would be one that others need, and be on
    /// the stack in the end; it is but a move from the one where it always is.
    fn find_base(&mut self, data: &BlockData) {
        let accesses = |i: &Inst| i.op.flags() & (flags::READ | flags::WRITE) != 0;
        if self.r.insns > LARGE && data.insts.iter().any(accesses) {
            self.base = self.b.ins().get_pinned_reg(types::I64);
        }
    }

    fn find_pairs(&mut self, data: &BlockData) {
        self.paired.clear();
        self.pairs.clear();
        let of = |op: Op| data.insts.iter().filter(move |i| i.op == op);
        for i in &data.insts {
            let first = match i.op {
                Op::UMulHi | Op::SMulHi if i.ty == Type::I64 => Op::Mul,
                Op::URem => Op::UDiv,
                Op::SRem => Op::SDiv,
                _ => continue,
            };
            if of(first).any(|j| (j.ty, j.a, j.b) == (i.ty, i.a, i.b)) {
                self.paired.insert((i.op, i.a, i.b));
            }
        }
    }

    /// Source location of what follows.
    pub fn at(&mut self, pc: u64) {
        self.pc = pc;
        if self.pcs.last() != Some(&pc) {
            self.pcs.push(pc);
        }
        self.b.set_srcloc(SourceLoc::new(self.pcs.len() as u32 - 1));
    }

    fn poll(&mut self, index: usize) {
        let data = &self.r.blocks[index];
        let addr = self.b.ins().iadd_imm_s(self.state, i64::from(self.abi.poll));
        let word = self.b.ins().atomic_load(types::I64, self.own, addr);
        let (out, go) = (self.cold_block(), self.b.create_block());
        self.b.ins().brif(word, out, &[], go, &[]);
        self.b.switch_to_block(out);
        self.b.seal_block(out);
        self.spill(data.poll_spill);
        // What was read in the cold block is not available after it.
        self.now.fill(None);
        let pc = self.b.ins().iconst(types::I64, data.pc as i64);
        self.leave(pc);
        self.b.seal_block(go);
        self.b.switch_to_block(go);
    }

    // ---- values -------------------------------------------------------------------------------

    /// A value that is not a vector, or a vector of any shape.
    pub fn val(&self, v: Value) -> Result<V, Error> {
        self.vals.get(v.0 as usize).copied().flatten().ok_or(Error::Invalid("value used before its definition"))
    }
    /// A vector in the given shape.
    pub fn vec(&mut self, v: Value, shape: Type) -> Result<V, Error> {
        let x = self.val(v)?;
        Ok(self.cast(x, cl_type(shape)))
    }
    pub fn set(&mut self, v: Value, x: V) {
        if let Some(slot) = self.vals.get_mut(v.0 as usize) {
            *slot = Some(x);
        }
    }
    /// The constant that a value is, if it is one.
    pub fn constant(&self, v: Value) -> Option<i64> {
        self.konst.get(v.0 as usize).copied().flatten()
    }
    /// A vector seen as another type of 128 bits.
    pub fn cast(&mut self, x: V, to: cl::Type) -> V {
        let from = self.b.func.dfg.value_type(x);
        if from == to {
            return x;
        }
        if let cl::ValueDef::Result(i, 0) = self.b.func.dfg.value_def(x)
            && self.b.func.dfg.insts[i].opcode() == cl::Opcode::Bitcast
        {
            let y = self.b.func.dfg.inst_args(i)[0];
            if self.b.func.dfg.value_type(y) == to {
                return y;
            }
        }
        let little = MemFlagsData::new().with_endianness(cl::Endianness::Little);
        self.b.ins().bitcast(to, little, x)
    }
    pub fn iconst(&mut self, ty: Type, imm: i64) -> V {
        let t = cl_type(ty);
        let imm = if t.bits() == 64 { imm } else { imm & ((1i64 << t.bits()) - 1) };
        self.b.ins().iconst(t, imm)
    }
    pub fn icmp_const(&mut self, cc: IntCC, x: V, c: i64) -> V {
        let c = self.b.ins().iconst(types::I64, c);
        self.b.ins().icmp(cc, x, c)
    }

    // ---- blocks and state ---------------------------------------------------------------------

    pub fn target(&self, b: Block) -> Result<cl::Block, Error> {
        self.blocks.get(b.0 as usize).copied().ok_or(Error::Invalid("no such block"))
    }
    /// Continue in `go`, all ways to which (one of them `cold`) exist.
    pub fn go(&mut self, cold: cl::Block, go: cl::Block) {
        self.b.seal_block(cold);
        self.b.seal_block(go);
        self.b.switch_to_block(go);
    }
    pub fn cold_block(&mut self) -> cl::Block {
        let b = self.b.create_block();
        self.b.set_cold_block(b);
        b
    }
    pub fn jump(&mut self, to: cl::Block, args: &[V]) {
        let args: Vec<BlockArg> = args.iter().map(|v| BlockArg::Value(*v)).collect();
        self.b.ins().jump(to, &args);
    }
    pub fn load_own(&mut self, ty: cl::Type, offset: u32) -> V {
        self.b.ins().load(ty, self.own, self.state, offset as i32)
    }
    pub fn store_own(&mut self, offset: u32, v: V) {
        self.b.ins().store(self.own, v, self.state, offset as i32);
    }
    fn slot(&self, s: i64) -> Result<Slot, Error> {
        if (s as usize) < self.r.layout.slots.len() { Ok(Slot(s as u16)) } else { Err(Error::Invalid("no such slot")) }
    }
    /// The value of a promoted slot.
    fn read(&mut self, s: Slot) -> Option<V> {
        let var = self.vars.get(s.0 as usize).copied().flatten()?;
        if let Some(v) = self.now[s.0 as usize] {
            return Some(v);
        }
        let v = match self.lanes[self.here].as_ref().map(|l| l[s.0 as usize]) {
            Some(Lane::Apart(lane)) => {
                let (x, below) = (self.part(s, cl_type(lane)), self.part(s, types::I8X16));
                let (x, below) = (self.b.use_var(x), self.b.use_var(below));
                let v = self.cast(below, whole(lane));
                let v = self.b.ins().insertlane(v, x, 0);
                self.low.insert(v, (x, below));
                self.unread.insert(x);
                v
            }
            _ => self.b.use_var(var),
        };
        self.now[s.0 as usize] = Some(v);
        Some(v)
    }
    /// Variable of a part of a vector slot.
    fn part(&mut self, s: Slot, ty: cl::Type) -> Variable {
        if let Some(v) = self.parts.get(&(s, ty)) {
            return *v;
        }
        let v = self.b.declare_var(ty);
        self.parts.insert((s, ty), v);
        v
    }
    /// Define the variables of slots as the block's successors expect them.
    fn hand_over(&mut self, successors: &[Block]) {
        let written = std::mem::take(&mut self.written);
        if successors.is_empty() {
            return;
        }
        let lane_at =
            |me: &Self, b: usize, s: usize| me.lanes.get(b).and_then(|l| l.as_ref()).map_or(Lane::Whole, |l| l[s]);
        for n in 0..self.vars.len() {
            let (s, Some(var)) = (Slot(n as u16), self.vars[n]) else {
                continue;
            };
            if self.r.layout.get(s).ty != Type::V128 {
                if let (true, Some(v)) = (written.contains(s), self.now[n]) {
                    self.b.def_var(var, v);
                }
                continue;
            }
            let start = lane_at(self, self.here, n);
            let mut wants = [None; 3];
            for b in successors {
                let want = lane_at(self, b.0 as usize, n);
                let at = match want {
                    Lane::Apart(Type::F32) => 1,
                    Lane::Apart(_) => 2,
                    _ => 0,
                };
                wants[at] = Some(want);
            }
            for want in wants.into_iter().flatten() {
                let Lane::Apart(lane) = want else {
                    if (written.contains(s) || matches!(start, Lane::Apart(_)))
                        && let Some(v) = self.read(s)
                    {
                        let v = self.cast(v, types::I8X16);
                        self.b.def_var(var, v);
                    }
                    continue;
                };
                if (written.contains(s) || start != want)
                    && let Some(v) = self.read(s)
                {
                    let ty = cl_type(lane);
                    let (x, below) = match self.low.get(&v) {
                        Some((x, below)) if self.b.func.dfg.value_type(*x) == ty => (*x, *below),
                        _ => {
                            let w = self.cast(v, whole(lane));
                            (self.b.ins().extractlane(w, 0), v)
                        }
                    };
                    let below = self.cast(below, types::I8X16);
                    let (xv, bv) = (self.part(s, ty), self.part(s, types::I8X16));
                    self.b.def_var(xv, x);
                    self.b.def_var(bv, below);
                }
            }
        }
    }
    fn write(&mut self, s: Slot, v: V) {
        self.now[s.0 as usize] = Some(v);
        self.written.insert(s);
    }
    pub fn spill(&mut self, set: SlotSet) {
        for s in set.iter() {
            if let Some(v) = self.read(s) {
                self.store_own(self.r.layout.get(s).offset, v);
            }
        }
    }
    fn fill(&mut self, set: SlotSet) {
        for s in set.iter() {
            if self.vars.get(s.0 as usize).is_some_and(|v| v.is_some()) {
                let info = self.r.layout.get(s);
                let v = self.load_own(cl_type(info.ty), info.offset);
                self.write(s, v);
            }
        }
    }

    /// Signature of a helper (System V) or of compiled code (tail).
    pub fn sig(&mut self, cc: CallConv, ints: u8, vecs: u8, ret: Option<Type>) -> SigRef {
        if let Some(s) = self.sigs.get(&(cc, ints, vecs, ret)) {
            return *s;
        }
        let mut s = Signature::new(cc);
        s.params.extend((0..ints).map(|_| AbiParam::new(types::I64)));
        s.params.extend((0..vecs).map(|_| AbiParam::new(types::I8X16)));
        s.returns.extend(ret.map(|t| AbiParam::new(cl_type(t))));
        let r = self.b.import_signature(s);
        self.sigs.insert((cc, ints, vecs, ret), r);
        r
    }

    // ---- instructions -------------------------------------------------------------------------

    fn inst(&mut self, i: &Inst) -> Result<(), Error> {
        if !self.unread.is_empty() && !matches!(i.op.sig(), Sig::Insert | Sig::Extract | Sig::Put | Sig::Shuffle) {
            let (unread, vals) = (&mut self.unread, &self.vals);
            self.r.for_each_operand(i, |v| {
                if let Some(x) = vals.get(v.0 as usize).copied().flatten() {
                    unread.remove(&x);
                }
            });
        }
        let dst = match i.op {
            Op::Marker => {
                if self.opt.precise && self.access_open {
                    self.b.ins().sequence_point();
                }
                self.access_open = false;
                self.at(i.imm as u64);
                return Ok(());
            }
            Op::Keep => return Ok(()),
            Op::Fill | Op::Spill => {
                let set = *self.r.slot_sets.get(i.imm as usize).ok_or(Error::Invalid("no such slot set"))?;
                if i.op == Op::Fill {
                    self.fill(set);
                } else {
                    self.spill(set);
                }
                return Ok(());
            }
            Op::Const => {
                if let Some(k) = self.konst.get_mut(i.dst.0 as usize)
                    && i.ty == Type::I64
                {
                    *k = Some(i.imm);
                }
                match i.ty {
                    Type::F32 => self.b.ins().f32const(cl::immediates::Ieee32::with_bits(i.imm as u32)),
                    Type::F64 => self.b.ins().f64const(cl::immediates::Ieee64::with_bits(i.imm as u64)),
                    _ => self.iconst(i.ty, i.imm),
                }
            }
            Op::Get => {
                let s = self.slot(i.imm)?;
                match self.read(s) {
                    Some(v) => v,
                    None => self.load_own(cl_type(i.ty), self.r.layout.get(s).offset),
                }
            }
            Op::Put => {
                let s = self.slot(i.imm)?;
                let v = self.val(i.a)?;
                match self.vars[s.0 as usize] {
                    Some(_) => self.write(s, v),
                    None => self.store_own(self.r.layout.get(s).offset, v),
                }
                return Ok(());
            }
            Op::Call => return self.helper(i),
            op => match op.sig() {
                Sig::Align if op == Op::Whole => return self.whole(i),
                Sig::Align => return self.aligned(i),
                Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas | Sig::Fence => return self.memory(i),
                _ if i.ty.is_shape()
                    || (i.ty == Type::V128 && !matches!(op, Op::Select))
                    || matches!(op.sig(), Sig::VConst) =>
                {
                    self.vector(i)?
                }
                _ => self.scalar(i)?,
            },
        };
        if i.op.raises_flags(i.ty) {
            if self.uses.get(i.dst.0 as usize) == Some(&0) {
                self.sink(dst);
            } else {
                // It may be merged with a register whose low lane is replaced.
                self.unread.insert(dst);
            }
        }
        self.set(i.dst, dst);
        Ok(())
    }
}
