//! Which accesses are checked together, and which need no check: found before lowering.
//!
//! An address is a *root* plus a constant: what a slot held at the block's start, another value, or a constant. A check of
//! `[root + lo, root + hi)` with `hi - lo` of at most a page covers all accesses of the block that lie in it; the first of them checks
//! for all. What is checked at a block's end of the values that slots hold there is known at the start of its successors;
//! it is forgotten where guest code or the kernel may have run.
//!
//! A check also covers what later blocks access around the same root (`ahead`), so that these need none.
//!
//! Where a region is entered in the middle, at a loop, nothing would be known of the loop from its other ways in: such an entry
//! has a block in front, which makes sure of what is known there, or leaves.

use super::ahead;
use super::shape::successors;
use evm_ir::{Inst, Op, Region, Slot, Term, Value, flags};
use std::collections::HashMap;

/// Widest range of one check.
pub const SPAN: i64 = 4096;

/// Bytes around a root that may be accessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub lo: i64,
    pub hi: i64,
    pub write: bool,
}

impl Range {
    fn holds(&self, o: &Range) -> bool {
        self.lo <= o.lo && o.hi <= self.hi && (self.write || !o.write)
    }
    pub(super) fn moved(self, by: i64) -> Option<Range> {
        Some(Range { lo: self.lo.checked_add(by)?, hi: self.hi.checked_add(by)?, ..self })
    }
    /// What both say.
    pub(super) fn meet(self, o: Range) -> Option<Range> {
        let r = Range { lo: self.lo.max(o.lo), hi: self.hi.min(o.hi), write: self.write && o.write };
        (r.lo < r.hi).then_some(r)
    }
}

impl Range {
    /// The range from the lower end of both to the upper one, if a check can cover it.
    pub(super) fn both(self, o: Range) -> Option<Range> {
        let r = Range { lo: self.lo.min(o.lo), hi: self.hi.max(o.hi), write: self.write || o.write };
        (r.hi - r.lo <= SPAN).then_some(r)
    }
    fn is_narrow(&self) -> bool {
        i32::try_from(self.lo).is_ok() && i32::try_from(self.hi).is_ok()
    }
}

/// Known of the values of slots at a block's start.
pub(super) type Facts = Vec<Option<Range>>;

/// One or more accesses of a block that share a check, or need none.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Range relative to the root; what is checked, unless it is known.
    pub range: Range,
    /// Whether its first access has to check.
    pub check: bool,
    /// The root is a constant.
    pub fixed: bool,
    /// How many they are.
    pub accesses: u32,
}

/// How an access is done.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// Index in [`Plan::groups`].
    pub group: usize,
    /// The access's address, relative to the root.
    pub disp: i64,
}

/// For one block.
#[derive(Debug, Default)]
pub struct Plan {
    pub groups: Vec<Group>,
    /// By index of the instruction.
    pub accesses: HashMap<usize, Access>,
    /// What the block has to make sure of at its end, of the values of slots.
    pub ensure: Vec<(Slot, Range)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Root {
    Start(Slot),
    Value(Value),
    Filled(usize, Slot),
    /// Constants of one neighbourhood.
    Fixed(i64),
}

/// Whether the slots' ranges survive the block's end: no guest code and no kernel runs there.
pub(super) fn keeps(t: &Term) -> bool {
    matches!(t, Term::Jump(_) | Term::Br(..) | Term::Switch(..))
}

/// Plans for all blocks.
pub fn plan(r: &Region) -> Vec<Plan> {
    let ahead = ahead::of(r);
    let late = late_entries(r);
    let at = solve(r, &ahead, &late);
    let mut plans: Vec<Plan> = (0..r.blocks.len())
        .map(|b| {
            let start = at[b].clone().unwrap_or_else(|| vec![None; r.layout.slots.len()]);
            let mut w = Walk::new(r, &start);
            w.block(b, ahead.get(b));
            w.plan
        })
        .collect();
    for (front, to) in late {
        let Some(known) = &at[to] else { continue };
        let filled = r.blocks[front].insts.iter().filter_map(|i| r.slot_sets.get(i.imm as usize));
        let slots = filled.flat_map(|s| s.iter());
        plans[front].ensure = slots.filter_map(|s| known[s.0 as usize].map(|range| (s, range))).collect();
    }
    plans
}

/// Entries in the middle, as far as nothing but the entry goes there and they only fill variables: their block, and where it goes.
pub(super) fn late_entries(r: &Region) -> Vec<(usize, usize)> {
    let mut reached = vec![false; r.blocks.len()];
    for b in &r.blocks {
        for t in successors(&b.term) {
            if let Some(r) = reached.get_mut(t) {
                *r = true;
            }
        }
    }
    let late = r.entries.iter().skip(1).filter_map(|e| {
        let b = e.0 as usize;
        match r.blocks.get(b)? {
            data if reached[b] || data.insts.iter().any(|i| i.op != Op::Fill) => None,
            data => match data.term {
                Term::Jump(to) => Some((b, to.0 as usize)),
                _ => None,
            },
        }
    });
    late.collect()
}

fn solve(r: &Region, ahead: &[Facts], late: &[(usize, usize)]) -> Vec<Option<Facts>> {
    let nothing = || vec![None; r.layout.slots.len()];
    let mut at: Vec<Option<Facts>> = vec![None; r.blocks.len()];
    let mut visits = vec![0u32; r.blocks.len()];
    let mut work = vec![];
    for e in &r.entries {
        if let Some(f) = at.get_mut(e.0 as usize)
            && late.iter().all(|l| l.0 != e.0 as usize)
        {
            *f = Some(nothing());
            work.push(e.0 as usize);
        }
    }
    let mut late = late.iter();
    loop {
        while let Some(b) = work.pop() {
            let Some(start) = at[b].clone() else { continue };
            let mut w = Walk::new(r, &start);
            w.block(b, ahead.get(b));
            let out = if keeps(&r.blocks[b].term) { w.end() } else { nothing() };
            for t in successors(&r.blocks[b].term) {
                let Some(to) = at.get_mut(t) else { continue };
                let changed = match to {
                    None => {
                        *to = Some(out.clone());
                        true
                    }
                    Some(f) => {
                        visits[t] += 1;
                        // Ranges that shrink round after round are given up.
                        meet(f, &out, visits[t] > 3)
                    }
                };
                if changed && !work.contains(&t) {
                    work.push(t);
                }
            }
        }
        // What is only reached from a late entry.
        let Some((_, start)) = late.next() else { return at };
        let Some(facts @ None) = at.get_mut(*start) else { continue };
        *facts = Some(nothing());
        work.push(*start);
    }
}

fn meet(into: &mut Facts, from: &Facts, widen: bool) -> bool {
    let mut changed = false;
    for (a, b) in into.iter_mut().zip(from) {
        let mut new = match (*a, *b) {
            (Some(x), Some(y)) => x.meet(y),
            _ => None,
        };
        if new != *a {
            if widen {
                new = None;
            }
            *a = new;
            changed = true;
        }
    }
    changed
}

pub(super) struct Walk<'a> {
    r: &'a Region,
    start: &'a Facts,
    values: HashMap<Value, (Root, i64)>,
    constants: HashMap<Value, i64>,
    now: HashMap<Slot, (Root, i64)>,
    /// Known of roots, as far as this block found out.
    known: HashMap<Root, Range>,
    /// The group that later accesses to a root may join.
    open: HashMap<Root, usize>,
    roots: Vec<Root>,
    plan: Plan,
}

impl<'a> Walk<'a> {
    pub(super) fn new(r: &'a Region, start: &'a Facts) -> Walk<'a> {
        Walk {
            r,
            start,
            values: HashMap::new(),
            constants: HashMap::new(),
            now: HashMap::new(),
            known: HashMap::new(),
            open: HashMap::new(),
            roots: vec![],
            plan: Plan::default(),
        }
    }
    /// What a slot holds.
    pub(super) fn slot(&self, s: Slot) -> (Root, i64) {
        self.now.get(&s).copied().unwrap_or((Root::Start(s), 0))
    }
    fn value(&self, v: Value) -> (Root, i64) {
        self.values.get(&v).copied().unwrap_or((Root::Value(v), 0))
    }
    fn known(&self, root: Root) -> Option<Range> {
        self.known.get(&root).copied().or(match root {
            Root::Start(s) => self.start[s.0 as usize],
            _ => None,
        })
    }

    /// The range around a root that the block accesses.
    pub(super) fn accessed(&self, root: Root) -> Option<Range> {
        let groups = self.plan.groups.iter().zip(&self.roots);
        groups.filter(|g| *g.1 == root).map(|g| g.0.range).reduce(|a, b| a.both(b).unwrap_or(a))
    }

    /// Go through a block. `ahead`: what is accessed behind it.
    pub(super) fn block(&mut self, b: usize, ahead: Option<&Facts>) {
        for (n, i) in self.r.blocks[b].insts.iter().enumerate() {
            match i.op {
                Op::Const => {
                    self.constants.insert(i.dst, i.imm);
                }
                Op::Get => {
                    let v = self.slot(Slot(i.imm as u16));
                    // Slots that helpers may change are not followed.
                    if self.r.layout.get(Slot(i.imm as u16)).promote {
                        self.values.insert(i.dst, v);
                    }
                }
                Op::Put => {
                    let v = self.value(i.a);
                    self.now.insert(Slot(i.imm as u16), v);
                }
                Op::Fill => {
                    for s in self.r.slot_sets[i.imm as usize].iter() {
                        self.now.insert(s, (Root::Filled(n, s), 0));
                    }
                }
                Op::Add | Op::Sub if i.ty == evm_ir::Type::I64 => self.sum(i),
                op if op.accesses() => self.access(n, i),
                _ => {}
            }
        }
        if let Some(ahead) = ahead {
            self.reach(ahead);
        }
        // Those that were planned wider than what they found known of, check.
        for (g, root) in self.plan.groups.iter_mut().zip(&self.roots) {
            let before = match root {
                Root::Start(s) => self.start[s.0 as usize],
                _ => None,
            };
            g.check = !before.is_some_and(|k| k.holds(&g.range));
        }
    }

    /// Have the groups that check check for what comes behind the block as well.
    fn reach(&mut self, ahead: &Facts) {
        for (n, want) in ahead.iter().enumerate() {
            let Some(want) = want else { continue };
            let (root, k) = self.slot(Slot(n as u16));
            let Some(g) = self.open.get(&root).copied() else { continue };
            let have = self.plan.groups[g].range;
            let before = match root {
                Root::Start(s) => self.start[s.0 as usize],
                _ => None,
            };
            if before.is_some_and(|k| k.holds(&have)) {
                continue;
            }
            let both = want.moved(k).and_then(|w| have.both(w)).filter(Range::is_narrow);
            if let Some(both) = both {
                self.plan.groups[g].range = both;
                self.remember(root, both);
            }
        }
    }
    /// Of two ranges of a root the wider one is remembered.
    fn remember(&mut self, root: Root, range: Range) {
        if self.known(root).is_none_or(|k| !k.holds(&range) && range.hi - range.lo >= k.hi - k.lo) {
            self.known.insert(root, range);
        }
    }

    fn sum(&mut self, i: &Inst) {
        let k = |v: Value| self.constants.get(&v).copied();
        let (base, k) = match (k(i.a), k(i.b)) {
            (None, Some(k)) => (i.a, if i.op == Op::Sub { k.wrapping_neg() } else { k }),
            (Some(k), None) if i.op == Op::Add => (i.b, k),
            _ => return,
        };
        let (root, k0) = self.value(base);
        let sum = k0.wrapping_add(k);
        if i32::try_from(sum).is_ok() {
            self.values.insert(i.dst, (root, sum));
        }
    }

    fn access(&mut self, n: usize, i: &Inst) {
        let (root, disp) = match self.constants.get(&i.a) {
            Some(k) => {
                let at = k.wrapping_add(i.imm);
                let chunk = at & !(SPAN / 2 - 1);
                (Root::Fixed(chunk), at - chunk)
            }
            None => {
                let (root, k) = self.value(i.a);
                (root, k + i.imm)
            }
        };
        let want = Range { lo: disp, hi: disp + i64::from(i.ty.bytes()), write: i.op.flags() & flags::WRITE != 0 };
        let group = match self.open.get(&root).copied() {
            Some(g) => self.join(g, want),
            None => None,
        };
        let group = group.unwrap_or_else(|| {
            // A range that is known is a group that does not check.
            let range = match self.known(root) {
                Some(k) if k.holds(&want) && k.hi - k.lo <= SPAN => k,
                _ => want,
            };
            let fixed = matches!(root, Root::Fixed(_));
            self.plan.groups.push(Group { range, check: true, fixed, accesses: 0 });
            self.roots.push(root);
            self.open.insert(root, self.plan.groups.len() - 1);
            self.plan.groups.len() - 1
        });
        let range = self.plan.groups[group].range;
        self.remember(root, range);
        self.plan.groups[group].accesses += 1;
        self.plan.accesses.insert(n, Access { group, disp });
    }

    /// Widen a group to hold a range, if that is not too wide.
    fn join(&mut self, g: usize, want: Range) -> Option<usize> {
        let have = &mut self.plan.groups[g].range;
        *have = have.both(want)?;
        Some(g)
    }

    /// Known of the slots' values at the end.
    fn end(&self) -> Facts {
        (0..self.start.len())
            .map(|n| {
                let (root, k) = self.slot(Slot(n as u16));
                // The value is root + k: a range around the root lies k lower around the value.
                self.known(root).and_then(|r| r.moved(-k)).filter(Range::is_narrow)
            })
            .collect()
    }
}
