//! What a block's successors access around the values that slots hold at its end, before guest code or the kernel may run.
//!
//! Of most slots that is what is accessed on all ways: who checks for it early leaves for the interpreter early, but
//! no more often. Of the stack pointer it is what is accessed on any way: the stack does not end in the middle of a frame, and if it
//! does, blocks are interpreted that need not be.

use super::facts::{Facts, Range, Root, Walk, keeps};
use super::shape::successors;
use evm_ir::{Region, Slot};

/// Rounds through all blocks; what was found until then is right.
const ROUNDS: usize = 6;

/// Of a block: by slot, what is accessed around its value at the start; where its value at the end comes from.
struct Block {
    own: Facts,
    ends: Vec<Option<(Slot, i64)>>,
    next: Vec<usize>,
}

/// For the end of each block.
pub fn of(r: &Region) -> Vec<Facts> {
    let slots = r.layout.slots.len();
    let nothing: Facts = vec![None; slots];
    let blocks: Vec<Block> = (0..r.blocks.len())
        .map(|b| {
            let mut w = Walk::new(r, &nothing);
            w.block(b, None);
            let all = || (0..slots).map(|n| Slot(n as u16));
            let end = |s| match w.slot(s) {
                (Root::Start(s), k) => Some((s, k)),
                _ => None,
            };
            let term = &r.blocks[b].term;
            Block {
                own: all().map(|s| w.accessed(Root::Start(s))).collect(),
                ends: all().map(end).collect(),
                next: if keeps(term) { successors(term) } else { vec![] },
            }
        })
        .collect();
    let stack: Vec<bool> = r.layout.slots.iter().map(|s| s.name == "rsp").collect();
    let mut starts: Vec<Facts> = blocks.iter().map(|b| b.own.clone()).collect();
    let mut ends = vec![nothing; blocks.len()];
    for _ in 0..ROUNDS {
        let mut changed = false;
        for (n, b) in blocks.iter().enumerate().rev() {
            ends[n] = (0..slots).map(|s| at_end(b, &starts, s, stack[s])).collect();
            let mut start = b.own.clone();
            for (out, end) in ends[n].iter().zip(&b.ends) {
                let (Some(out), Some((s, k))) = (out, end) else { continue };
                let Some(out) = out.moved(*k) else { continue };
                let have = &mut start[s.0 as usize];
                *have = have.map_or(Some(out), |h| Some(h.both(out).unwrap_or(h)));
            }
            changed |= start != starts[n];
            starts[n] = start;
        }
        if !changed {
            break;
        }
    }
    ends
}

fn at_end(b: &Block, starts: &[Facts], slot: usize, any: bool) -> Option<Range> {
    let mut all = b.next.iter().map(|t| starts.get(*t).and_then(|s| s[slot]));
    if any {
        return all.flatten().reduce(|a, b| a.both(b).unwrap_or(a));
    }
    let first = all.next()??;
    all.try_fold(first, |a, b| a.meet(b?))
}
