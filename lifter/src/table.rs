//! Jump tables: an indirect jump through a bounded table of code addresses becomes a switch.
//!
//! Recognition is a guess from the instructions before the jump (bound check, table address, load), and only
//! decides what belongs to the region. What runs stays exact: the jump's real target is computed from
//! guest memory as always, and each case of the switch compares it with the address it stands for.

use crate::ctx::{Lifter, full};
use crate::hash::Map;
use evm_ir::{Block, Cond, Op, Term, Type, Value};
use iced_x86::{ConditionCode, Instruction, Mnemonic as M, OpKind, Register};

/// Instructions looked at before a jump.
const LOOK_BACK: usize = 48;
/// Largest table.
const MAX_ENTRIES: u64 = 1024;

/// A table: address, bytes an entry, whether entries are offsets from it, number of entries.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub at: u64,
    pub size: u32,
    pub relative: bool,
    pub count: u64,
}

/// What is known so far, walking back.
#[derive(Default)]
struct Search {
    /// Register that holds the target, until what made it is found.
    target: Option<usize>,
    /// Register that holds the address of the table.
    base: Option<usize>,
    /// Displacement of the load.
    disp: u64,
    size: u32,
    relative: bool,
    loaded: bool,
    at: Option<u64>,
    count: Option<u64>,
    /// A branch on "above" was seen: the next comparison has the bound.
    above: Option<bool>,
}

impl Search {
    fn load(&mut self, i: &Instruction, size: u32) -> Option<()> {
        if i.memory_index() == Register::None || i.memory_index_scale() != size || i.memory_base() == Register::RIP {
            return None;
        }
        self.loaded = true;
        self.size = size;
        self.disp = i.memory_displacement64();
        match i.memory_base() {
            Register::None => self.at = Some(self.disp),
            r => self.base = Some(full(r)),
        }
        Some(())
    }
}

/// The table that the indirect jump `jump` uses, from the instructions that come before it.
pub(crate) fn find(jump: &Instruction, before: impl Iterator<Item = Instruction>) -> Option<Table> {
    let mut s = Search::default();
    let word = if jump.code_size() == iced_x86::CodeSize::Code32 { 4 } else { 8 };
    match jump.op_kind(0) {
        OpKind::Register => s.target = Some(full(jump.op_register(0))),
        _ => s.load(jump, word)?,
    }
    for i in before.take(LOOK_BACK) {
        let dst = match i.op_kind(0) {
            _ if i.op_count() == 0 => None,
            OpKind::Register if i.op_register(0).is_gpr() => Some(full(i.op_register(0))),
            _ => None,
        };
        let memory = i.op_count() == 2 && i.op_kind(1) == OpKind::Memory;
        if s.target.is_some() && s.target == dst && !s.loaded {
            match i.mnemonic() {
                M::Add if i.op_kind(1) == OpKind::Register && !s.relative => {
                    // Offset plus address of the table, in either order: the offset is what was loaded.
                    s.relative = true;
                    s.base = Some(full(i.op_register(1)));
                    continue;
                }
                M::Movsxd if memory && s.relative => {
                    s.load(&i, 4)?;
                    continue;
                }
                M::Mov if memory && !s.relative => {
                    s.load(&i, word)?;
                    continue;
                }
                M::Lea if s.relative && i.is_ip_rel_memory_operand() => {
                    // The target register held the address: the other one is the offset.
                    s.at = Some(i.ip_rel_memory_address());
                    s.target = s.base;
                    continue;
                }
                _ => return None,
            }
        }
        // The other register of the addition may be the one that was loaded.
        if s.relative && !s.loaded && dst.is_some() && dst == s.base && i.mnemonic() == M::Movsxd && memory {
            s.base = None;
            s.load(&i, 4)?;
            continue;
        }
        if s.at.is_none() && s.base.is_some() && dst == s.base {
            match i.mnemonic() {
                M::Lea if i.is_ip_rel_memory_operand() => {
                    s.at = Some(i.ip_rel_memory_address().wrapping_add(s.disp));
                }
                M::Mov
                    if matches!(i.op_kind(1), OpKind::Immediate32 | OpKind::Immediate64 | OpKind::Immediate32to64) =>
                {
                    s.at = Some(i.immediate(1).wrapping_add(s.disp));
                }
                _ => return None,
            }
        }
        if s.count.is_none() {
            match i.mnemonic() {
                M::Cmp
                    if s.above.is_some()
                        && i.op_kind(1) >= OpKind::Immediate8
                        && i.op_kind(1) <= OpKind::Immediate32to64 =>
                {
                    let n = i.immediate(1) & 0xffff_ffff;
                    s.count = Some(n + u64::from(s.above == Some(true)));
                }
                M::And if s.loaded && i.op_kind(1) >= OpKind::Immediate8 && i.op_kind(1) <= OpKind::Immediate32to64 => {
                    s.count = Some((i.immediate(1) & 0xffff_ffff) + 1);
                }
                _ if i.is_jcc_short_or_near() => match i.condition_code() {
                    ConditionCode::a => s.above = Some(true),
                    ConditionCode::ae => s.above = Some(false),
                    _ => {}
                },
                _ => {}
            }
        }
        if let (true, Some(at), Some(count)) = (s.loaded, s.at, s.count) {
            if count == 0 || count > MAX_ENTRIES {
                return None;
            }
            return Some(Table { at, size: s.size, relative: s.relative, count });
        }
    }
    None
}

/// The targets of a table, as far as `plausible` says, read by `read`.
pub(crate) fn targets(
    t: &Table,
    bits: u32,
    read: &mut dyn FnMut(u64, &mut [u8]) -> usize,
    mut plausible: impl FnMut(u64) -> bool,
) -> Vec<u64> {
    let mut out = vec![];
    for k in 0..t.count {
        let mut buf = [0u8; 8];
        let entry = &mut buf[..t.size as usize];
        if read(t.at.wrapping_add(k * u64::from(t.size)), entry) < t.size as usize {
            break;
        }
        let v = u64::from_le_bytes(buf);
        let v = match (t.relative, bits) {
            (true, _) => t.at.wrapping_add(v as u32 as i32 as u64),
            (false, 32) => v & 0xffff_ffff,
            _ => v,
        };
        if !plausible(v) {
            break;
        }
        out.push(v);
    }
    out
}

/// Targets of a jump that are compared one by one.
pub(crate) const FEW: usize = 3;

impl Lifter {
    /// End the block with the indirect jump `i`, whose target is `target`: a switch over the table's cases if
    /// they are part of the region and the index is at hand.
    pub(crate) fn indirect_jump(&mut self, i: &Instruction, target: Value) {
        let cases = self.tables.get(&self.pc).cloned().unwrap_or_default();
        let Some(index) = self.table_index(target).filter(|_| cases.len() > 1) else {
            return self.jump_to_known(i, target);
        };
        let leave = self.inner();
        let mut made: Map<Block> = Map::default();
        let mut list = Vec::with_capacity(cases.len());
        for pc in &cases {
            let b = match made.get(pc) {
                Some(b) => *b,
                None => {
                    let b = match self.known_block(*pc) {
                        Some(_) => self.inner(),
                        None => leave,
                    };
                    made.insert(*pc, b);
                    b
                }
            };
            list.push(b);
        }
        self.end(Term::Switch(index, list, leave));
        self.start(leave);
        let v = self.jump_target(i);
        self.leave(v);
        let mut made: Vec<_> = made.into_iter().filter(|m| m.1 != leave).collect();
        made.sort_unstable();
        for (pc, b) in made {
            let Some(to) = self.known_block(pc) else {
                continue;
            };
            self.start(b);
            let v = self.jump_target(i);
            let same = self.icmpi(Cond::Eq, v, pc as i64);
            self.end(Term::Br(same, to, leave));
        }
    }
    /// An indirect jump that is no use of a table, or of one that was not recognised: to the blocks that it went to
    /// before. Few are compared one by one; of many, some bits of the address choose.
    fn jump_to_known(&mut self, i: &Instruction, target: Value) {
        let seen = self.seen_targets.get(&self.pc).cloned().unwrap_or_default();
        let mut known: Vec<(u64, Block)> = seen.iter().filter_map(|t| Some((*t, self.known_block(*t)?))).collect();
        known.sort_unstable();
        known.dedup();
        if known.is_empty() {
            return self.leave(target);
        }
        if known.len() <= FEW {
            self.compare_targets(i, &known, None);
            return;
        }
        if i.op_kind(0) == OpKind::Register
            && let Some(b) = self.dispatch.get(&(full(i.op_register(0)) as u64))
        {
            return self.end(Term::Jump(*b));
        }
        self.switch_targets(i, &known, target);
    }
    /// The block of a switch that jumps through the register of `i` share.
    pub(crate) fn shared_switch(&mut self, i: &Instruction) {
        let mut all: Vec<u64> = self.seen_targets.values().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        let known: Vec<(u64, Block)> = all.into_iter().filter_map(|t| Some((t, self.known_block(t)?))).collect();
        let target = self.jump_target(i);
        self.switch_targets(i, &known, target);
    }
    fn switch_targets(&mut self, i: &Instruction, known: &[(u64, Block)], target: Value) {
        let addresses: Vec<u64> = known.iter().map(|k| k.0).collect();
        let (shift, mask) = evm_ir::spread(&addresses);
        let index = self.bini(Op::Shr, Type::I64, target, i64::from(shift));
        let index = self.bini(Op::And, Type::I64, index, mask as i64);
        let leave = self.inner();
        let mut buckets = vec![vec![]; mask as usize + 1];
        for k in known {
            buckets[(k.0 >> shift & mask) as usize].push(*k);
        }
        let made: Vec<Block> = buckets.iter().map(|b| if b.is_empty() { leave } else { self.inner() }).collect();
        self.end(Term::Switch(index, made.clone(), leave));
        self.start(leave);
        let v = self.jump_target(i);
        self.leave(v);
        for (b, bucket) in made.into_iter().zip(buckets).filter(|b| !b.1.is_empty()) {
            self.start(b);
            self.compare_targets(i, &bucket, Some(leave));
        }
    }
    /// Compare the target with addresses; if it is none of them leave, at a block that does if there is one.
    fn compare_targets(&mut self, i: &Instruction, known: &[(u64, Block)], leave: Option<Block>) {
        for (n, (pc, to)) in known.iter().enumerate() {
            let v = self.jump_target(i);
            let same = self.icmpi(Cond::Eq, v, *pc as i64);
            let other = match leave {
                Some(l) if n + 1 == known.len() => l,
                _ => self.inner(),
            };
            self.end(Term::Br(same, *to, other));
            if Some(other) == leave {
                return;
            }
            self.start(other);
        }
        let v = self.jump_target(i);
        self.leave(v);
    }
    /// The target of an indirect jump or call.
    pub(crate) fn jump_target(&mut self, i: &Instruction) -> Value {
        let v = self.read_op(i, 0);
        self.zext(Type::I64, v)
    }
    /// The index of the table entry that a target was made from.
    fn table_index(&self, target: Value) -> Option<Value> {
        let mut d = self.def(target)?;
        if d.op == Op::Add {
            // Table address plus offset, in either order.
            d = [d.a, d.b].into_iter().filter_map(|v| self.def(v)).find(|d| d.op == Op::Sext)?;
        }
        if matches!(d.op, Op::Sext | Op::Zext) {
            d = self.def(d.a)?;
        }
        if d.op != Op::Load {
            return None;
        }
        let size = i64::from(d.ty.bytes().trailing_zeros());
        let mut address = self.def(d.a)?;
        if address.op == Op::Add {
            address = [address.b, address.a].into_iter().filter_map(|v| self.def(v)).find(|d| d.op == Op::Shl)?;
        }
        (address.op == Op::Shl && self.const_of(address.b) == Some(size)).then_some(address.a)
    }
}
