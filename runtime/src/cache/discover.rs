//! Finds the code of an image without running it: all that direct jumps, calls and jump tables reach from known starts.

use super::format::Key;
use super::maker::{Text, Warm};
use evm_ir::{Op, Region, Term, Value};
use evm_lifter::{Mode, Options};
use std::collections::{BTreeMap, BTreeSet};

/// What was found in an image.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Starts of basic blocks, told from the image's first address.
    pub blocks: BTreeSet<u32>,
    /// Those of them that are called.
    pub functions: BTreeSet<u32>,
    /// Those that the cases of a switch go to.
    pub indirect: BTreeSet<u32>,
    /// Ranges of code that was decoded: start and end, disjoint.
    pub covered: BTreeMap<u32, u32>,
    /// Indirect jumps whose targets are not known.
    pub unresolved: usize,
    /// Guest instructions, those in overlapping regions more than once.
    pub insns: u64,
}

impl Found {
    /// Bytes of code that was decoded.
    pub fn bytes(&self) -> u64 {
        self.covered.iter().map(|(a, b)| u64::from(b - a)).sum()
    }
    fn cover(&mut self, mut start: u32, mut end: u32) {
        while let Some((a, b)) = self.covered.range(..=end).next_back().map(|r| (*r.0, *r.1)).filter(|r| r.1 >= start) {
            self.covered.remove(&a);
            (start, end) = (start.min(a), end.max(b));
        }
        self.covered.insert(start, end);
    }
}

/// Follow control flow from `starts`, which are told from the image's first address. `seen` is told of progress.
pub(crate) fn discover(key: &Key, text: &Text, starts: &[u32], seen: &dyn Fn(u64)) -> Found {
    let mut found = Found { functions: starts.iter().copied().collect(), ..Found::default() };
    let mut work: Vec<u32> = starts.to_vec();
    let near = |pc: u64| (text.lo..text.hi).contains(&pc).then(|| (pc - text.lo) as u32);
    let opts = Options { mode: Mode::Region, bits: key.bits, v3: key.v3, ..Options::default() };
    while let Some(pc) = work.pop() {
        if near(text.lo + u64::from(pc)).is_none() || found.blocks.contains(&pc) {
            continue;
        }
        let mut code = Warm::all(text);
        let Ok(lifted) = evm_lifter::lift(text.lo + u64::from(pc), &[], &mut code, &opts) else { continue };
        // What does not decode was no code.
        if lifted.notes.iter().any(|n| n.pc == text.lo + u64::from(pc)) {
            continue;
        }
        let r = lifted.region;
        found.blocks.insert(pc);
        found.blocks.extend(r.blocks.iter().filter(|b| b.insn_start).filter_map(|b| near(b.pc)));
        let cases = r.blocks.iter().filter_map(|b| if let Term::Switch(_, to, ..) = &b.term { Some(to) } else { None });
        let cases = cases.flatten().filter_map(|b| near(r.blocks[b.0 as usize].pc));
        found.indirect.extend(cases);
        found.insns += u64::from(r.insns);
        for (a, n) in &r.source {
            if let (Some(a), Some(b)) = (near(*a), near(*a + u64::from(*n) - 1)) {
                found.cover(a, b + 1);
            }
        }
        for t in targets(&r, &mut found.unresolved) {
            let Some(at) = near(t.pc) else { continue };
            if t.call {
                found.functions.insert(at);
            }
            work.push(at);
        }
        seen(u64::from(r.insns));
    }
    found
}

struct Target {
    pc: u64,
    call: bool,
}

/// Where a region goes at known addresses.
fn targets(r: &Region, unresolved: &mut usize) -> Vec<Target> {
    let mut out = vec![];
    for b in &r.blocks {
        let constant = |v: Value| b.insts.iter().find(|i| i.dst == v && i.op == Op::Const).map(|i| i.imm as u64);
        match &b.term {
            Term::Exit(v) => match constant(*v) {
                Some(pc) => out.push(Target { pc, call: false }),
                None => *unresolved += 1,
            },
            Term::Call { target, ret, .. } => {
                out.extend(constant(*target).map(|pc| Target { pc, call: true }));
                out.push(Target { pc: *ret, call: false });
            }
            Term::Service { next, .. } => out.push(Target { pc: *next, call: false }),
            Term::Jump(_) | Term::Br(..) | Term::Switch(..) | Term::Return(_) | Term::Raise { .. } => {}
        }
    }
    out
}
