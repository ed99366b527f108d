//! Promotion: slots become variables of the region.
//!
//! A `fill` loads the variables that are needed where the region is entered with all state in its slots:
//! at entries, after calls and services, and after helpers that touch everything (see [`super::fills`]). A `spill` stores
//! the *dirty* variables (written since the state last agreed) before everything that may look at
//! the state. Dirty is forward dataflow with union at joins: a spill may store a variable that was
//! not written on the path taken, therefore a spill counts as a use in the liveness that decides the
//! fills, and the variable is defined on every path.
//!
//! A region that is compiled to WebAssembly finds out before an access whether it may do it, so its state at a fault is exact
//! without spills on the way: a `keep` names what is dirty there, to be stored only if the code is left. It is a use, as a spill is.
//!
//! A block that is both entered and jumped to gets a block in front of it for the fill.

use super::cfg::{Cfg, Look, look};
use super::dead::Places;
use super::fills::fills;
use crate::{Block, BlockData, Inst, Op, Region, SlotSet, Term, Type, Value, flags};
use std::collections::HashMap;

/// How exact state is at an access that may fault.
#[derive(Clone, Copy, Debug)]
pub enum AtFaults {
    /// Not.
    Lost,
    /// A spill before it.
    Spilled,
    /// A keep before it, and behind each marker that the function names (by block and place): there it may be left as well.
    Kept(fn(&Region) -> Places),
}

/// Place fills and spills. State is exact where the region is left (polls included), and before helpers that touch all
/// or may raise; at accesses that may fault as `faults` says.
pub fn promote(r: &mut Region, faults: AtFaults) {
    let all = r.promotable().0;
    let places = match faults {
        AtFaults::Kept(f) => f(r),
        AtFaults::Lost | AtFaults::Spilled => Places::new(),
    };
    let cfg = entry_blocks(r);
    let dirty = dirty_in(r, &cfg, all, matches!(faults, AtFaults::Spilled));
    let mut sets = Sets { index: HashMap::new(), sets: std::mem::take(&mut r.slot_sets) };
    spills(r, &cfg, &dirty, all, faults, &places, &mut sets);
    // WebAssembly's checks keep what they know of a variable from fill to fill.
    let late = !matches!(faults, AtFaults::Kept(_));
    fills(r, &cfg, all, late, &mut sets);
    r.slot_sets = sets.sets;
}

pub(super) struct Sets {
    index: HashMap<u128, i64>,
    pub sets: Vec<SlotSet>,
}
impl Sets {
    pub fn inst(&mut self, op: Op, set: u128) -> Inst {
        let n = *self.index.entry(set).or_insert_with(|| {
            self.sets.push(SlotSet(set));
            self.sets.len() as i64 - 1
        });
        inst(op, n)
    }
}
fn inst(op: Op, imm: i64) -> Inst {
    let none = Value::NONE;
    Inst { op, ty: Type::I64, dst: none, a: none, b: none, c: none, imm }
}

pub(super) fn bit(i: &Inst, all: u128) -> u128 {
    u32::try_from(i.imm).ok().and_then(|s| 1u128.checked_shl(s)).unwrap_or(0) & all
}

/// Give every block that is entered with fresh state, and jumped to as well, a block in front of it.
fn entry_blocks(r: &mut Region) -> Cfg {
    let cfg = Cfg::new(r);
    let n = r.blocks.len();
    let mut front: Vec<Option<Block>> = vec![None; n];
    for b in 0..n {
        if cfg.fresh[b] && cfg.inner[b] {
            let data = &r.blocks[b];
            let new = BlockData {
                pc: data.pc,
                insn_start: data.insn_start,
                loop_header: false,
                poll_spill: SlotSet::default(),
                insts: vec![],
                term: Term::Jump(Block(b as u32)),
            };
            front[b] = Some(Block(r.blocks.len() as u32));
            r.blocks.push(new);
        }
    }
    if r.blocks.len() == n {
        return cfg;
    }
    let moved = |b: Block| front.get(b.0 as usize).copied().flatten().unwrap_or(b);
    for e in &mut r.entries {
        *e = moved(*e);
    }
    for data in &mut r.blocks {
        if let Term::Call { cont: Some(c), .. } | Term::Service { cont: Some(c), .. } = &mut data.term {
            *c = moved(*c);
        }
    }
    Cfg::new(r)
}

/// Dirty variables at the start of each block.
fn dirty_in(r: &Region, cfg: &Cfg, all: u128, precise: bool) -> Vec<u128> {
    let n = r.blocks.len();
    // Written in the block and dirty at its end; whether what was dirty before it still is.
    let (mut made, mut passes) = (vec![0u128; n], vec![ALL; n]);
    for b in 0..n {
        for i in &r.blocks[b].insts {
            match i.op {
                Op::Put => made[b] |= bit(i, all),
                _ => {
                    if matches!(look(r, i, precise), Look::Read | Look::ReadWrite) {
                        (made[b], passes[b]) = (0, 0);
                    }
                }
            }
        }
    }
    let mut dirty = vec![0u128; n];
    loop {
        let mut changed = false;
        for b in &cfg.rpo {
            let b = *b as usize;
            let out = made[b] | (dirty[b] & passes[b]);
            r.blocks[b].term.for_each_target(|t| {
                if let Some(d) = dirty.get_mut(t.0 as usize)
                    && out & !*d != 0
                {
                    *d |= out;
                    changed = true;
                }
            });
        }
        if !changed {
            return dirty;
        }
    }
}

pub(super) const ALL: u128 = u128::MAX;
/// `imm` of a fill whose set is still to be found.
pub(super) const LATER: i64 = -1;

fn spills(r: &mut Region, cfg: &Cfg, dirty: &[u128], all: u128, faults: AtFaults, places: &Places, sets: &mut Sets) {
    let mut out: Vec<Inst> = Vec::new();
    for b in 0..r.blocks.len() {
        let mut d = dirty[b];
        out.clear();
        if cfg.fresh[b] {
            out.push(inst(Op::Fill, LATER));
        }
        let data = &r.blocks[b];
        let poll_spill = if data.loop_header { d } else { 0 };
        for (n, i) in data.insts.iter().enumerate() {
            if i.op == Op::Put {
                d |= bit(i, all);
                out.push(*i);
                continue;
            }
            if places.contains(&(b, n)) {
                out.extend([*i, sets.inst(Op::Keep, d)]);
                continue;
            }
            let l = look(r, i, matches!(faults, AtFaults::Spilled));
            if matches!(faults, AtFaults::Kept(_)) && i.op.flags() & (flags::READ | flags::WRITE) != 0 {
                out.push(sets.inst(Op::Keep, d));
            }
            if matches!(l, Look::Read | Look::ReadWrite) && d != 0 {
                out.push(sets.inst(Op::Spill, d));
                d = 0;
            }
            out.push(*i);
            if l == Look::ReadWrite {
                out.push(inst(Op::Fill, LATER));
            }
        }
        if data.term.leaves() && d != 0 {
            out.push(sets.inst(Op::Spill, d));
        }
        let data = &mut r.blocks[b];
        data.poll_spill = SlotSet(poll_spill);
        std::mem::swap(&mut data.insts, &mut out);
    }
}
