//! Facts about slots at block starts, found before lowering.
//!
//! *Slack*: how far the slot's value may lie outside guest memory. An access that did not fault proves
//! where its address was, so a pointer that a loop steps through memory stays within its step of it, and
//! the guards catch what lies that near: no check is needed.
//!
//! *Lane*: whether the slot's low lane is kept as a scalar apart from the vector below it. Chains of
//! scalar floating point then run on scalars, without a merge after each operation.

use super::mem::WINDOW;
use evm_ir::{Block, Inst, Op, Region, Sig, Slot, Term, Type, Value};
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

/// What is known of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Fact {
    /// Distance in bytes from guest memory at most, if known.
    pub slack: Option<i64>,
    pub lane: Lane,
}

const ENTERED: Fact = Fact { slack: None, lane: Lane::Mixed };

/// Facts of all slots at a block's start; `None`: the block is not reached.
pub(super) type Facts = Option<Vec<Fact>>;

/// Successors of a block inside the region.
pub(super) fn successors(t: &Term) -> Vec<Block> {
    match t {
        Term::Jump(b) => vec![*b],
        Term::Br(_, a, b) => vec![*a, *b],
        Term::Switch(_, table, d) => {
            let mut all = table.clone();
            all.push(*d);
            all
        }
        Term::Call { cont, .. } | Term::Service { cont, .. } => cont.iter().copied().collect(),
        Term::Exit(_) | Term::Return(_) | Term::Raise { .. } => vec![],
    }
}

fn meet(into: &mut [Fact], from: &[Fact], widen: bool) -> bool {
    let mut changed = false;
    for (a, b) in into.iter_mut().zip(from) {
        let slack = match (a.slack, b.slack) {
            (Some(x), Some(y)) if y > x && widen => None,
            (Some(x), Some(y)) => Some(x.max(y)),
            _ => None,
        };
        let lane = match (a.lane, b.lane) {
            (x, y) if x == y => x,
            (Lane::Mixed, _) | (_, Lane::Mixed) => Lane::Mixed,
            (Lane::Whole, x) | (x, Lane::Whole) => x,
            _ => Lane::Mixed,
        };
        let new = Fact { slack, lane };
        changed |= new != *a;
        *a = new;
    }
    changed
}

/// Facts at every block's start.
pub(super) fn analyse(r: &Region) -> Vec<Facts> {
    let mut at: Vec<Facts> = vec![None; r.blocks.len()];
    let mut visits = vec![0u32; r.blocks.len()];
    let mut work: Vec<usize> = vec![];
    for e in &r.entries {
        let e = e.0 as usize;
        if e < at.len() && at[e].is_none() {
            // Entered from outside as well, where every slot is whole.
            at[e] = Some(vec![ENTERED; r.layout.slots.len()]);
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
                Some(f) => {
                    visits[s] += 1;
                    meet(f, &out, visits[s] > 8)
                }
            };
            if changed && !work.contains(&s) {
                work.push(s);
            }
        }
    }
    at
}

/// A value as far as addresses go: the value a slot had at the block's start, or any other, plus a constant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Root {
    Start(Slot),
    Value(Value),
    /// What a `fill` loaded.
    Filled(usize, Slot),
}

struct Walk<'a> {
    start: &'a [Fact],
    values: HashMap<Value, (Root, i64)>,
    constants: HashMap<Value, i64>,
    slack: HashMap<Root, i64>,
    now: HashMap<Slot, (Root, i64)>,
    lanes: HashMap<Value, Type>,
    slot_lanes: HashMap<Slot, Lane>,
}

impl Walk<'_> {
    fn value(&self, v: Value) -> (Root, i64) {
        self.values.get(&v).copied().unwrap_or((Root::Value(v), 0))
    }
    fn slot(&self, s: Slot) -> (Root, i64) {
        self.now.get(&s).copied().unwrap_or((Root::Start(s), 0))
    }
    fn slack_of(&self, root: Root) -> Option<i64> {
        self.slack.get(&root).copied().or(match root {
            Root::Start(s) => self.start[s.0 as usize].slack,
            _ => None,
        })
    }
    fn lane(&self, s: Slot) -> Lane {
        self.slot_lanes.get(&s).copied().unwrap_or(self.start[s.0 as usize].lane)
    }
    fn sum(&mut self, i: &Inst) {
        let k = |v: Value| self.constants.get(&v).copied();
        let sub = i.op == Op::Sub;
        let (base, k) = match (k(i.a), k(i.b)) {
            (None, Some(k)) => (i.a, if sub { k.wrapping_neg() } else { k }),
            (Some(k), None) if !sub => (i.b, k),
            _ => return,
        };
        let (root, k0) = self.value(base);
        let k = k.wrapping_add(k0);
        if i32::try_from(k).is_ok() {
            self.values.insert(i.dst, (root, k));
        }
    }
    fn access(&mut self, i: &Inst) {
        if self.constants.contains_key(&i.a) {
            return;
        }
        let (root, k) = self.value(i.a);
        let total = (k + i64::from(i.imm as i32)).abs();
        if total <= WINDOW {
            let old = self.slack_of(root).unwrap_or(i64::MAX);
            self.slack.insert(root, total.min(old));
        }
    }
}

/// Facts at the end of a block from those at its start.
fn through(r: &Region, index: usize, start: &[Fact]) -> Vec<Fact> {
    let mut w = Walk {
        start,
        values: HashMap::new(),
        constants: HashMap::new(),
        slack: HashMap::new(),
        now: HashMap::new(),
        lanes: HashMap::new(),
        slot_lanes: HashMap::new(),
    };
    for (at, i) in r.blocks[index].insts.iter().enumerate() {
        let slot = Slot(i.imm as u16);
        match i.op {
            Op::Const if i.ty == Type::I64 => {
                w.constants.insert(i.dst, i.imm);
            }
            Op::Get if i.ty == Type::I64 => {
                let x = w.slot(slot);
                w.values.insert(i.dst, x);
            }
            Op::Put if i.ty == Type::I64 => {
                let x = w.value(i.a);
                w.now.insert(slot, x);
            }
            Op::Get if i.ty == Type::V128 => {
                if let Lane::Apart(t) = w.lane(slot) {
                    w.lanes.insert(i.dst, t);
                }
            }
            Op::Put if i.ty == Type::V128 => {
                let lane = w.lanes.get(&i.a).map_or(Lane::Whole, |t| Lane::Apart(*t));
                w.slot_lanes.insert(slot, lane);
            }
            Op::Insert if i.imm == 0 && matches!(i.ty, Type::F32X4 | Type::F64X2) => {
                w.lanes.insert(i.dst, i.ty.lane());
            }
            Op::Add | Op::Sub if i.ty == Type::I64 => w.sum(i),
            Op::Fill => {
                for s in r.slot_sets.get(i.imm as usize).copied().unwrap_or_default().iter() {
                    w.now.insert(s, (Root::Filled(at, s), 0));
                    w.slot_lanes.insert(s, Lane::Whole);
                }
            }
            op if matches!(op.sig(), Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas) => w.access(i),
            _ => {}
        }
    }
    (0..start.len())
        .map(|n| {
            let s = Slot(n as u16);
            let (root, k) = w.slot(s);
            let slack = w.slack_of(root).map(|x| x + k.abs()).filter(|x| *x <= WINDOW);
            Fact { slack, lane: w.lane(s) }
        })
        .collect()
}
