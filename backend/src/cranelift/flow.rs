//! Lanes of vector slots at block starts, found before lowering: whether the slot's low lane is kept as a scalar apart from the
//! vector below it. Chains of scalar floating point then run on scalars, without a merge after each operation.

use evm_ir::{Block, Op, Region, Slot, Term, Type, Value};
use std::collections::HashMap;

/// Low lane of a vector slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// The slot is one vector.
    Whole,
    /// The low lane is this scalar (`F32` or `F64`), the rest a vector.
    Apart(Type),
    /// Ways with different scalars meet: one vector.
    Mixed,
}

/// Lanes of all slots at a block's start; `None`: the block is not reached.
pub(super) type Lanes = Option<Vec<Lane>>;

/// Successors of a block inside the region.
pub(super) fn successors(t: &Term) -> Vec<Block> {
    let mut all: Vec<Block> = t.cont().into_iter().collect();
    t.for_each_target(|b| all.push(b));
    all
}

fn meet(into: &mut [Lane], from: &[Lane]) -> bool {
    let mut changed = false;
    for (a, b) in into.iter_mut().zip(from) {
        let new = match (*a, *b) {
            (x, y) if x == y => x,
            (Lane::Mixed, _) | (_, Lane::Mixed) => Lane::Mixed,
            (Lane::Whole, x) | (x, Lane::Whole) => x,
            _ => Lane::Mixed,
        };
        changed |= new != *a;
        *a = new;
    }
    changed
}

/// Lanes at every block's start.
pub(super) fn analyse(r: &Region) -> Vec<Lanes> {
    let mut at: Vec<Lanes> = vec![None; r.blocks.len()];
    let mut work: Vec<usize> = vec![];
    for e in &r.entries {
        let e = e.0 as usize;
        if e < at.len() && at[e].is_none() {
            // Entered from outside as well, where every slot is whole.
            at[e] = Some(vec![Lane::Mixed; r.layout.slots.len()]);
            work.push(e);
        }
    }
    while let Some(i) = work.pop() {
        let Some(start) = &at[i] else { continue };
        let out = through(r, i, start);
        for s in successors(&r.blocks[i].term) {
            let s = s.0 as usize;
            let Some(to) = at.get_mut(s) else { continue };
            let changed = match to {
                None => {
                    *to = Some(out.clone());
                    true
                }
                Some(f) => meet(f, &out),
            };
            if changed && !work.contains(&s) {
                work.push(s);
            }
        }
    }
    at
}

/// Lanes at the end of a block from those at its start.
fn through(r: &Region, index: usize, start: &[Lane]) -> Vec<Lane> {
    let mut lanes: HashMap<Value, Type> = HashMap::new();
    let mut slots = start.to_vec();
    for i in &r.blocks[index].insts {
        match i.op {
            Op::Get if i.ty == Type::V128 => {
                if let Some(Lane::Apart(t)) = slots.get(i.imm as usize) {
                    lanes.insert(i.dst, *t);
                }
            }
            Op::Put if i.ty == Type::V128 => {
                if let Some(s) = slots.get_mut(i.imm as usize) {
                    *s = lanes.get(&i.a).map_or(Lane::Whole, |t| Lane::Apart(*t));
                }
            }
            Op::Insert if i.imm == 0 && matches!(i.ty, Type::F32X4 | Type::F64X2) => {
                lanes.insert(i.dst, i.ty.lane());
            }
            Op::Fill => {
                for Slot(s) in r.slot_sets.get(i.imm as usize).copied().unwrap_or_default().iter() {
                    if let Some(s) = slots.get_mut(usize::from(s)) {
                        *s = Lane::Whole;
                    }
                }
            }
            _ => {}
        }
    }
    slots
}
