//! What is known of addresses at the heads of loops.
//!
//! Blocks are copied in their order. Of a *head*, to which a later block goes back, it has to be known before the loop is copied
//! what will be known at its end. So it is assumed: all that is known in front of the loop. When the unit is copied, the assumptions are
//! compared with what came of them at the ends; where they were too good they are made worse, and the unit is copied again, until
//! they are right. ([`LAST`] bounds it: then nothing is assumed.)
//!
//! Loops may have their head in common: the region of an inner loop begins with it, and all of the outer one comes behind. If nothing can be
//! hoisted out of both, ends of which values are not told from the head any more, as they came through another one, are those of the outer loop, and
//! count as ways from outside on which nothing is known.
//!
//! What is checked in each turn of the loop of a value from before it is checked in front of it instead: *hoisted*. Such a check may fail where
//! the loop's would not have been come to: then the instruction at the head is the interpreter's, as after any check.

use super::checks::{Checks, Fact};
use super::{Block, Direct, Way, ways};

/// A head of a loop.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    /// What was assumed.
    assumed: Checks,
    /// No more than that is to be assumed.
    limit: Option<Checks>,
    hoisted: Vec<Fact>,
    /// The pass in which it was first assumed what was hoisted last: that moves once more in the loop than was known.
    fresh: usize,
    /// Ends of the loop, if it is the inner one of two with the same head: those of the outer one go to where checks are hoisted.
    inner: Option<Vec<usize>>,
}

/// Passes in which checks are hoisted.
const HOISTING: usize = 4;
/// From this pass on what became less certain twice is not assumed: it would do so in each.
const GROWING: usize = 2;
/// From this pass on nothing is assumed of heads of which too much was.
const DOUBTING: usize = 6;
/// The last pass with assumptions.
pub(super) const LAST: usize = 9;

impl Direct {
    /// Find out, for each block of a unit, which blocks may go there without leaving the unit, but by a call. And which are heads.
    pub(super) fn find_ways(&mut self, blocks: &[Block]) {
        self.from.iter_mut().for_each(Vec::clear);
        self.from.resize(blocks.len().max(self.from.len()), vec![]);
        for (n, b) in blocks.iter().enumerate() {
            let Some(last) = b.insns.last() else { continue };
            for way in ways(last) {
                if let Way::Next(pc) | Way::Jump(pc) = way
                    && let Some(to) = self.number(pc)
                {
                    self.from[to].push(n);
                }
            }
        }
        let is_head = |n: usize| self.from[n].iter().any(|f| *f >= n);
        let heads = (0..blocks.len()).map(|n| is_head(n).then(Head::default));
        let mut all = std::mem::take(&mut self.heads);
        all.clear();
        all.extend(heads);
        self.heads = all;
    }

    /// What is known in front of block `n`: what is known on all ways to it from blocks before it. To one that is entered
    /// from outside one comes knowing nothing.
    pub(super) fn before(&self, n: usize, b: &Block) -> (Checks, super::regs::Copies) {
        let ways = self.from[n].iter().filter(|f| **f < n).filter_map(|f| self.after[*f].as_ref());
        let mixed = self.heads[n].as_ref().is_some_and(|h| h.inner.is_some());
        let known = if n > 0 && !b.entered && !mixed {
            ways.cloned().reduce(|mut known, other| {
                known.0.meet(&other.0, n);
                known.1.meet(&other.1);
                known
            })
        } else {
            None
        };
        known.unwrap_or_else(|| {
            let mut nothing = Checks::default();
            nothing.begin(n);
            (nothing, Default::default())
        })
    }

    /// Whether a later block, or this one, that goes to block `n` is an end of its loop.
    pub(super) fn is_end(&self, from: usize, n: usize) -> bool {
        self.heads[n].as_ref().is_none_or(|h| h.has_end(from))
    }

    /// Where block `n` begins and is a head: check what is hoisted, and assume what may be.
    pub(super) fn assume(&mut self, n: usize, pc: u64) {
        let Some(mut head) = self.heads[n].take() else { return };
        self.pc = pc;
        for f in &head.hoisted {
            if !self.checks.holds(f) {
                self.check_fact(f);
            }
        }
        // Who comes back has other values in the scratch registers.
        self.copies = Default::default();
        if let Some(limit) = &head.limit {
            self.checks.meet(limit, n);
        }
        self.checks.begin(n);
        head.assumed = self.checks.clone();
        self.heads[n] = Some(head);
    }

    /// Whether the assumptions of pass `pass` were right; if not, they are other ones now.
    pub(super) fn is_settled(&mut self, pass: usize) -> bool {
        let mut settled = true;
        for n in 0..self.heads.len() {
            let Some(mut head) = self.heads[n].take() else { continue };
            let ends: Vec<(usize, &Checks)> = self.from[n]
                .iter()
                .filter(|f| **f >= n && head.has_end(**f))
                .filter_map(|f| Some((*f, &self.after[*f].as_ref()?.0)))
                .collect();
            let good = head.settle(n, &ends, pass);
            if !good && pass >= DOUBTING {
                head.give_up();
            }
            settled &= good;
            self.heads[n] = Some(head);
        }
        if !settled && pass >= LAST {
            self.heads.iter_mut().flatten().for_each(Head::give_up);
        }
        settled
    }
}

impl Head {
    /// Assume nothing.
    fn give_up(&mut self) {
        (self.limit, self.hoisted) = (Some(Checks::default()), vec![]);
    }
    fn has_end(&self, from: usize) -> bool {
        self.inner.as_ref().is_none_or(|all| all.contains(&from))
    }
    /// What else is checked in each turn.
    fn hoistable(&self, n: usize, ends: &[&Checks]) -> Vec<Fact> {
        let Some((first, more)) = ends.split_first() else { return vec![] };
        let everywhere = |f: &&Fact| first.holds(f) && more.iter().all(|e| e.done(n).contains(f) && e.holds(f));
        let new = |f: &&Fact| !self.assumed.holds(f) && !self.hoisted.contains(f);
        let mut found: Vec<Fact> = vec![];
        for f in first.done(n).iter().filter(everywhere).filter(new) {
            if !found.contains(f) {
                found.push(*f);
            }
        }
        found
    }
    /// Compare with what is known at the ends of the loop: blocks, and what is known behind each.
    fn settle(&mut self, n: usize, all: &[(usize, &Checks)], pass: usize) -> bool {
        let ends: Vec<&Checks> = all.iter().map(|e| e.1).collect();
        let ends = &ends[..];
        if pass < HOISTING {
            let mut found = self.hoistable(n, ends);
            if !found.is_empty() {
                if let Some(limit) = &mut self.limit {
                    found.iter().for_each(|f| limit.allow(f, ends));
                }
                self.hoisted.append(&mut found);
                self.fresh = pass + 1;
                return false;
            }
            let (inner, near): (Vec<usize>, Vec<&Checks>) = all.iter().filter(|e| e.1.is_since(n)).copied().unzip();
            found = self.hoistable(n, &near);
            if inner.len() < all.len() && !found.is_empty() {
                self.inner = Some(inner);
                self.limit = None;
                self.hoisted.append(&mut found);
                self.fresh = pass + 1;
                return false;
            }
        }
        if ends.iter().all(|e| e.is_as_good(&self.assumed)) {
            return true;
        }
        let mut now = self.assumed.clone();
        ends.iter().for_each(|e| now.meet(e, n));
        if pass >= GROWING && pass > self.fresh {
            now.without_growth(&self.assumed);
        }
        self.hoisted.retain(|f| now.holds(f));
        self.limit = Some(now);
        false
    }
}
