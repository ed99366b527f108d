//! Finds the code of an image without running it: all that direct jumps, calls and jump tables reach from known starts.

use super::format::Key;
use super::maker::{Text, Warm};
use crate::code::translate::BLOCK_INSNS;
use evm_lifter::{Instruction, Options, PlanBlock};
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
    /// Blocks that end in these.
    open: BTreeSet<u32>,
    /// Where code was looked for behind gaps.
    tried: BTreeSet<u32>,
    /// Guest instructions.
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

/// The first instruction from `pc` on that does something, in front of `to`.
fn behind_padding(text: &Text, bits: u32, mut pc: u32, to: u32) -> Option<u32> {
    while pc < to {
        let mut bytes = text;
        let i = evm_lifter::block(text.lo + u64::from(pc), &mut bytes, bits, 1).ok()?.into_iter().next()?;
        let mut code = [0; 15];
        let len = i.len();
        code[..len].copy_from_slice(text.range(i.ip(), len).get(..len)?);
        let prefixes = code[..len].iter().take_while(|b| matches!(b, 0x66 | 0x2e)).count();
        match code[prefixes..len] {
            [0x90 | 0xcc, ..] | [0x0f, 0x1f, ..] => pc += len as u32,
            _ => return (!i.is_invalid()).then_some(pc),
        }
    }
    None
}

/// Instructions and blocks that are followed together. What is found already is not followed again.
const BOUNDS: Options =
    Options { max_insns: 5000, max_blocks: 2000, block_insns: BLOCK_INSNS, ..crate::code::translate::UNPROFILED };

/// Follow control flow from `starts`, which are told from the image's first address. `seen` is told of progress.
pub(crate) fn discover(key: &Key, text: &Text, starts: &[u32], seen: &dyn Fn(u64)) -> Found {
    let mut found = Found { functions: starts.iter().copied().collect(), ..Found::default() };
    let mut work: Vec<u32> = starts.to_vec();
    let opts = Options { bits: key.bits, v3: key.v3, ..BOUNDS };
    loop {
        let Some(pc) = work.pop() else {
            work = found.behind_gaps(text, key.bits);
            if work.is_empty() {
                break;
            }
            found.indirect.extend(&work);
            continue;
        };
        let at = text.lo + u64::from(pc);
        if text.near(at).is_none() || found.blocks.contains(&pc) {
            continue;
        }
        let is_found = |pc| found.blocks.contains(&pc);
        let mut code = Warm { taken: &is_found, ..Warm::all(text) };
        let Ok(plan) = evm_lifter::plan(at, &mut code, &opts) else { continue };
        // What does not decode was no code.
        if plan.blocks.first().and_then(|b| b.insns.first()).is_none_or(Instruction::is_invalid) {
            continue;
        }
        work.extend(plan.left.iter().filter_map(|pc| text.near(*pc)));
        let before = found.insns;
        for b in &plan.blocks {
            work.extend(found.add(text, b));
        }
        seen(found.insns - before);
    }
    found
}

impl Found {
    /// Where code goes on in functions whose jumps go where nothing says: behind code that was found, and padding. What is there is
    /// jumped to, or it would not be there. Functions that were looked at are not looked at again, unless they turn out to have more such
    /// jumps.
    fn behind_gaps(&mut self, text: &Text, bits: u32) -> Vec<u32> {
        let end = (text.hi - text.lo) as u32;
        let mut gaps = BTreeSet::new();
        for pc in std::mem::take(&mut self.open) {
            let from = self.functions.range(..=pc).next_back().copied().unwrap_or(pc);
            let to = self.functions.range(pc + 1..).next().copied().unwrap_or(end).min(end);
            let covered = self.covered.range(from..to).map(|(_, b)| *b).take_while(|b| *b < to);
            gaps.extend(covered.filter_map(|b| behind_padding(text, bits, b, to)));
        }
        gaps.retain(|pc| !self.blocks.contains(pc) && !self.is_covered(*pc) && self.tried.insert(*pc));
        // What is behind them may be followed by more.
        self.open.extend(&gaps);
        gaps.into_iter().collect()
    }
    fn is_covered(&self, pc: u32) -> bool {
        self.covered.range(..=pc).next_back().is_some_and(|(_, end)| *end > pc)
    }
    /// Add a block; gives what it calls.
    fn add(&mut self, text: &Text, b: &PlanBlock) -> Option<u32> {
        let start = text.near(b.pc)?;
        let end = b.insns.iter().rev().find(|i| !i.is_invalid())?.next_ip();
        self.blocks.insert(start);
        self.indirect.extend(b.indirect.then_some(start));
        self.cover(start, start + (end - b.pc) as u32);
        self.insns += b.insns.len() as u64;
        self.unresolved += usize::from(b.open);
        self.open.extend(b.open.then_some(start));
        let call = b.insns.last().filter(|i| i.is_call_near())?;
        let target = text.near(call.near_branch_target())?;
        self.functions.insert(target);
        Some(target)
    }
}
