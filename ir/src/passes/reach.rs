//! Which accesses may lie far outside guest memory, so that their addresses have to be checked.
//!
//! An access that did not fault proves where its address was. What follows from that is kept as *slack*: how far a value may lie
//! outside guest memory. A value is a slot's, or the sum of two (the second shifted), plus a constant: a pointer that a
//! loop steps through memory stays within its step of it, and `[base + index]` as well. Guards on both sides of
//! guest memory catch what lies within [`WINDOW`] of it.

use super::Places;
use crate::{Effects, Inst, Op, Region, Sig, Slot, Term, Type};
use std::collections::HashMap;

/// How far a value may lie outside guest memory and still count as near. Twice that is the largest distance
/// at which an access goes unchecked.
pub const WINDOW: i64 = 1 << 29;

/// Accesses whose address nothing proves.
pub fn unproven(r: &Region) -> Places {
    let walks = walks(r);
    let graph = Graph::plain(r);
    let start = facts(r, &walks, &graph);
    let mut places = Places::new();
    for (b, w) in walks.iter().enumerate() {
        let none = Facts::none(r);
        w.unproven(start[b].as_ref().unwrap_or(&none), |n| {
            places.insert((b, n));
        });
    }
    places
}

// ---- values ---------------------------------------------------------------------------------

/// What a value is made of: 0, what a slot held at the block's start (the slot's number), or anything else (higher numbers).
type Root = u32;
const ZERO: Root = u32::MAX;

/// `a + (b << shift)`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
struct Key {
    a: Root,
    b: Root,
    shift: u8,
}

impl Key {
    const fn one(a: Root) -> Key {
        Key { a, b: ZERO, shift: 0 }
    }
    fn single(self) -> Option<Root> {
        (self.b == ZERO).then_some(self.a)
    }
}

/// A key plus a constant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Form {
    key: Key,
    k: i64,
}

fn sum(x: Form, y: Form) -> Option<Form> {
    let k = x.k.wrapping_add(y.k);
    let key = match (x.key, y.key) {
        (key, Key { a: ZERO, b: ZERO, .. }) | (Key { a: ZERO, b: ZERO, .. }, key) => key,
        (Key { a, b: ZERO, .. }, Key { a: ZERO, b, shift }) | (Key { a: ZERO, b, shift }, Key { a, b: ZERO, .. }) => {
            Key { a, b, shift }
        }
        (Key { a, b: ZERO, .. }, Key { a: b, b: ZERO, .. }) => Key { a: a.min(b), b: a.max(b), shift: 0 },
        _ => return None,
    };
    Some(Form { key, k })
}

/// What a block does to addresses: its accesses, and its slots at the end where they are not what they were.
struct Walk {
    /// Place, address, and whether it is one that a check may be needed for.
    accesses: Vec<(usize, Form)>,
    slots: Vec<(Slot, Form)>,
}

struct Maker<'a> {
    r: &'a Region,
    /// By value; those of other blocks are not looked at.
    forms: Vec<Form>,
    now: Vec<Form>,
    fresh: Root,
}

fn walks(r: &Region) -> Vec<Walk> {
    let none = Form { key: Key::one(ZERO), k: 0 };
    let mut m = Maker { r, forms: vec![none; r.types.len()], now: vec![], fresh: 0 };
    (0..r.blocks.len()).map(|b| m.block(b)).collect()
}

impl Maker<'_> {
    fn block(&mut self, b: usize) -> Walk {
        let slots = self.r.layout.slots.len() as Root;
        let start = |s: Root| Form { key: Key::one(s), k: 0 };
        self.now = (0..slots).map(start).collect();
        self.fresh = slots;
        let mut accesses = vec![];
        for (n, i) in self.r.blocks[b].insts.iter().enumerate() {
            if matches!(i.op.sig(), Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas) {
                let a = self.form(i.a);
                accesses.push((n, Form { k: a.k.wrapping_add(i64::from(i.imm as i32)), ..a }));
            }
            self.inst(i);
        }
        let changed = |(s, f): (usize, &Form)| (*f != start(s as Root)).then_some((Slot(s as u16), *f));
        Walk { accesses, slots: self.now.iter().enumerate().filter_map(changed).collect() }
    }
    fn form(&self, v: crate::Value) -> Form {
        self.forms.get(v.0 as usize).copied().unwrap_or(Form { key: Key::one(ZERO), k: 0 })
    }
    fn unknown(&mut self) -> Form {
        self.fresh += 1;
        Form { key: Key::one(self.fresh), k: 0 }
    }
    fn forget(&mut self, hit: impl Fn(usize) -> bool) {
        for s in (0..self.now.len()).filter(|s| hit(*s)) {
            self.now[s] = self.unknown();
        }
    }
    fn inst(&mut self, i: &Inst) {
        let slots = self.r.layout.slots;
        match i.op {
            Op::Put => {
                let f = if i.ty == Type::I64 { self.form(i.a) } else { self.unknown() };
                if let Some(s) = self.now.get_mut(i.imm as usize) {
                    *s = f;
                }
            }
            Op::Fill => {
                let set = self.r.slot_sets.get(i.imm as usize).copied().unwrap_or_default();
                self.forget(|s| set.contains(Slot(s as u16)));
            }
            Op::Call => match self.r.call_effects(i).0 {
                Effects::Pure => {}
                Effects::Private => self.forget(|s| !slots[s].promote),
                Effects::All => self.forget(|_| true),
            },
            _ => {}
        }
        if i.dst.is_some() {
            let f = self.value(i).unwrap_or_else(|| self.unknown());
            if let Some(v) = self.forms.get_mut(i.dst.0 as usize) {
                *v = f;
            }
        }
    }
    fn value(&self, i: &Inst) -> Option<Form> {
        if i.ty != Type::I64 {
            return None;
        }
        let constant = |f: Form| (f.key == Key::one(ZERO)).then_some(f.k);
        match i.op {
            Op::Const => Some(Form { key: Key::one(ZERO), k: i.imm }),
            Op::Get => self.now.get(i.imm as usize).copied(),
            Op::Add => sum(self.form(i.a), self.form(i.b)),
            Op::Sub => {
                let k = constant(self.form(i.b))?;
                sum(self.form(i.a), Form { key: Key::one(ZERO), k: k.wrapping_neg() })
            }
            Op::Shl => {
                let (x, n) = (self.form(i.a), constant(self.form(i.b))?);
                let b = x.key.single().filter(|b| *b != ZERO && (0..=3).contains(&n))?;
                Some(Form { key: Key { a: ZERO, b, shift: n as u8 }, k: x.k.wrapping_shl(n as u32) })
            }
            _ => None,
        }
    }
}

// ---- facts ----------------------------------------------------------------------------------

/// What is known where a block starts; keys are of slots.
#[derive(Clone, PartialEq)]
struct Facts {
    slots: Vec<Option<i64>>,
    sums: Vec<(Key, i64)>,
}

impl Facts {
    fn none(r: &Region) -> Facts {
        Facts { slots: vec![None; r.layout.slots.len()], sums: vec![] }
    }
    fn get(&self, key: Key) -> Option<i64> {
        match key.single() {
            Some(s) => self.slots.get(s as usize).copied().flatten(),
            None => self.sums.iter().find(|s| s.0 == key).map(|s| s.1),
        }
    }
    /// What is known here and there. With `widen` nothing may grow any more.
    fn meet(&mut self, other: &Facts, widen: bool) -> bool {
        let join = |x: i64, y: i64| if y > x && widen { None } else { Some(x.max(y)) };
        let mut changed = false;
        for (x, y) in self.slots.iter_mut().zip(&other.slots) {
            let new = x.and_then(|x| join(x, (*y)?));
            changed |= new != *x;
            *x = new;
        }
        self.sums.retain_mut(|(key, x)| {
            let new = other.get(*key).and_then(|y| join(*x, y));
            changed |= new != Some(*x);
            *x = new.unwrap_or(0);
            new.is_some()
        });
        changed
    }
}

/// What is known inside a block, of values of its start and others.
struct Known<'a> {
    start: &'a Facts,
    slack: HashMap<Key, i64>,
}

impl Known<'_> {
    fn get(&self, key: Key) -> Option<i64> {
        self.slack.get(&key).copied().or_else(|| self.start.get(key))
    }
    fn access(&mut self, f: &Form) -> bool {
        if f.key == Key::one(ZERO) {
            // The engine knows what to do about a constant address.
            return true;
        }
        let far = f.k.saturating_abs();
        let slack = self.get(f.key).unwrap_or(i64::MAX);
        if far <= WINDOW && far < slack {
            self.slack.insert(f.key, far);
        }
        slack.saturating_add(far) <= 2 * WINDOW
    }
}

impl Walk {
    fn known<'a>(&self, start: &'a Facts, mut unproven: impl FnMut(usize)) -> Known<'a> {
        let mut known = Known { start, slack: HashMap::new() };
        for (n, f) in &self.accesses {
            if !known.access(f) {
                unproven(*n);
            }
        }
        known
    }
    fn unproven(&self, start: &Facts, unproven: impl FnMut(usize)) {
        self.known(start, unproven);
    }
    /// Facts at the end from those at the start.
    fn through(&self, start: &Facts) -> Facts {
        let known = self.known(start, |_| {});
        let mut out = Facts { slots: start.slots.clone(), sums: vec![] };
        let near =
            |slack: Option<i64>, k: i64| slack.map(|x| x.saturating_add(k.saturating_abs())).filter(|x| *x <= WINDOW);
        for (s, slack) in known.slack.iter().filter_map(|(key, x)| Some((key.single()?, x))) {
            if let Some(o) = out.slots.get_mut(s as usize) {
                *o = Some(*slack);
            }
        }
        for (s, f) in &self.slots {
            out.slots[s.0 as usize] = near(known.get(f.key), f.k);
        }
        let sums = start.sums.iter().map(|s| s.0).chain(known.slack.keys().copied()).filter(|k| k.single().is_none());
        for key in sums {
            for (a, ka) in self.holders(key.a, start) {
                for (b, kb) in self.holders(key.b, start) {
                    let shift = key.shift;
                    let key2 = if shift == 0 && a != ZERO {
                        Key { a: a.min(b), b: a.max(b), shift }
                    } else {
                        Key { a, b, shift }
                    };
                    let slack = near(known.get(key), ka.wrapping_add(kb.wrapping_shl(shift.into())));
                    if let Some(x) = slack
                        && out.sums.len() < MOST_SUMS
                        && out.get(key2).is_none()
                    {
                        out.sums.push((key2, x));
                    }
                }
            }
        }
        out
    }
    /// Slots that hold a root and a constant at the end.
    fn holders(&self, root: Root, start: &Facts) -> Vec<(Root, i64)> {
        if root == ZERO {
            return vec![(ZERO, 0)];
        }
        let mut all: Vec<(Root, i64)> = self
            .slots
            .iter()
            .filter(|(_, f)| f.key.single() == Some(root))
            .map(|(s, f)| (Root::from(s.0), f.k))
            .take(3)
            .collect();
        if (root as usize) < start.slots.len() && self.slots.iter().all(|(s, _)| Root::from(s.0) != root) {
            all.push((root, 0));
        }
        all
    }
}

/// Sums that are kept for a block.
const MOST_SUMS: usize = 24;

/// Blocks and where they go. A node may be another copy of a block.
pub(super) struct Graph {
    pub block: Vec<usize>,
    /// Successors that get what is known.
    pub succ: Vec<Vec<usize>>,
    /// Nodes where nothing is known.
    pub entered: Vec<usize>,
}

impl Graph {
    pub fn plain(r: &Region) -> Graph {
        let n = r.blocks.len();
        let mut g = Graph { block: (0..n).collect(), succ: vec![vec![]; n], entered: vec![] };
        g.entered.extend(r.entries.iter().map(|e| e.0 as usize).filter(|e| *e < n));
        for (b, data) in r.blocks.iter().enumerate() {
            data.term.for_each_target(|t| g.succ[b].extend(Some(t.0 as usize).filter(|t| *t < n)));
            if let Term::Call { cont: Some(c), .. } | Term::Service { cont: Some(c), .. } = data.term {
                g.entered.extend(Some(c.0 as usize).filter(|c| *c < n));
            }
        }
        g
    }
}

/// Facts at the start of every node that is reached.
fn facts(r: &Region, walks: &[Walk], g: &Graph) -> Vec<Option<Facts>> {
    let n = g.block.len();
    let mut at: Vec<Option<Facts>> = vec![None; n];
    let (mut visits, mut queued) = (vec![0u32; n], vec![false; n]);
    let mut work: Vec<usize> = vec![];
    for e in &g.entered {
        if at[*e].replace(Facts::none(r)).is_none() {
            work.push(*e);
            queued[*e] = true;
        }
    }
    while let Some(i) = work.pop() {
        queued[i] = false;
        let Some(start) = &at[i] else { continue };
        let out = walks[g.block[i]].through(start);
        for s in &g.succ[i] {
            let changed = match &mut at[*s] {
                None => {
                    at[*s] = Some(out.clone());
                    true
                }
                Some(f) => {
                    visits[*s] += 1;
                    f.meet(&out, visits[*s] > 8)
                }
            };
            if changed && !std::mem::replace(&mut queued[*s], true) {
                work.push(*s);
            }
        }
    }
    at
}

/// Number of unproven accesses of each node of a graph.
pub(super) fn count(r: &Region, g: &[&Graph]) -> Vec<Vec<u32>> {
    let walks = walks(r);
    let none = Facts::none(r);
    let one = |g: &Graph| {
        let start = facts(r, &walks, g);
        let count = |(n, b): (usize, &usize)| {
            let mut count = 0;
            walks[*b].unproven(start[n].as_ref().unwrap_or(&none), |_| count += 1);
            count
        };
        g.block.iter().enumerate().map(count).collect()
    };
    g.iter().map(|g| one(g)).collect()
}

/// Whether an instruction accesses guest memory.
pub(super) fn accesses(i: &Inst) -> bool {
    i.op.accesses()
}
