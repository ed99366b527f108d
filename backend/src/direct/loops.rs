//! What is known of addresses at the heads of loops.
//!
//! Blocks are copied in their order. Of a *head*, to which a later block goes back, it has to be known before the loop is copied
//! what will be known at its end. So it is assumed: all that is known in front of the loop. When the unit is copied, the assumptions are
//! compared with what came of them at the ends; where they were too good they are made worse, and the unit is copied again, until
//! they are right. ([`LAST`] bounds it: then nothing is assumed.)
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
        let known = if n > 0 && !b.entered {
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
            let ends: Vec<&Checks> =
                self.from[n].iter().filter(|f| **f >= n).filter_map(|f| Some(&self.after[*f].as_ref()?.0)).collect();
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
    /// Compare with what is known at the ends of the loop.
    fn settle(&mut self, n: usize, ends: &[&Checks], pass: usize) -> bool {
        if pass < HOISTING
            && let Some((first, more)) = ends.split_first()
        {
            let everywhere = |f: &&Fact| first.holds(f) && more.iter().all(|e| e.done(n).contains(f) && e.holds(f));
            let new = |f: &&Fact| !self.assumed.holds(f) && !self.hoisted.contains(f);
            let mut found: Vec<Fact> = vec![];
            for f in first.done(n).iter().filter(everywhere).filter(new) {
                if !found.contains(f) {
                    found.push(*f);
                }
            }
            if !found.is_empty() {
                if let Some(limit) = &mut self.limit {
                    found.iter().for_each(|f| limit.allow(f, ends));
                }
                self.hoisted.append(&mut found);
                return false;
            }
        }
        if ends.iter().all(|e| e.is_as_good(&self.assumed)) {
            return true;
        }
        let mut now = self.assumed.clone();
        ends.iter().for_each(|e| now.meet(e, n));
        if pass >= GROWING {
            now.without_growth(&self.assumed);
        }
        self.hoisted.retain(|f| now.holds(f));
        self.limit = Some(now);
        false
    }
}
