//! Polls where loops go back instead of where they begin.
//!
//! A loop's poll may leave, so it reads all state. At the loop's header that would be the state of all ways into
//! the loop: condition codes that were set before it, and those of the last round, would have to meet in variables, although
//! the loop sets new ones before anything looks. On the way back a block of its own holds the poll, and
//! reads what that way has.

use crate::{Block, BlockData, Region, SlotSet, Term};

/// Move polls from headers to new blocks on the edges that go back to them.
pub fn latches(r: &mut Region) {
    if r.blocks.iter().all(|b| !b.loop_header) {
        return;
    }
    let part = components(r);
    let n = r.blocks.len();
    let header: Vec<bool> = r.blocks.iter().map(|b| b.loop_header).collect();
    for b in 0..n {
        let mut term = std::mem::replace(&mut r.blocks[b].term, Term::Jump(Block(0)));
        // A switch may go to one header in several cases.
        let mut made: Vec<(Block, Block)> = vec![];
        term.for_each_target_mut(|t| {
            let at = t.0 as usize;
            if !header.get(at).copied().unwrap_or(false) || part[at] != part[b] {
                return;
            }
            if let Some(m) = made.iter().find(|m| m.0 == *t) {
                *t = m.1;
                return;
            }
            let (pc, insn_start) = (r.blocks[at].pc, r.blocks[at].insn_start);
            let new = Block(r.blocks.len() as u32);
            r.blocks.push(BlockData {
                pc,
                insn_start,
                loop_header: true,
                poll_spill: SlotSet::default(),
                insts: vec![],
                term: Term::Jump(*t),
            });
            made.push((*t, new));
            *t = new;
        });
        r.blocks[b].term = term;
    }
    for data in &mut r.blocks[..n] {
        data.loop_header = false;
    }
}

/// Number of the strongly connected component of each block, by jumps inside the region.
fn components(r: &Region) -> Vec<u32> {
    const NONE: u32 = u32::MAX;
    let n = r.blocks.len();
    let succ: Vec<Vec<u32>> = r
        .blocks
        .iter()
        .map(|b| {
            let mut s = vec![];
            b.term.for_each_target(|t| s.extend(((t.0 as usize) < n).then_some(t.0)));
            s
        })
        .collect();
    let (mut index, mut low, mut part) = (vec![NONE; n], vec![0u32; n], vec![NONE; n]);
    let (mut count, mut parts) = (0, 0);
    let mut open: Vec<u32> = vec![];
    let mut walk: Vec<(u32, usize)> = vec![];
    for start in 0..n as u32 {
        if index[start as usize] != NONE {
            continue;
        }
        walk.push((start, 0));
        while let Some((b, next)) = walk.last_mut() {
            let at = *b as usize;
            if *next == 0 {
                (index[at], low[at]) = (count, count);
                count += 1;
                open.push(*b);
            }
            if let Some(t) = succ[at].get(*next) {
                *next += 1;
                let t = *t as usize;
                if index[t] == NONE {
                    walk.push((t as u32, 0));
                } else if part[t] == NONE {
                    low[at] = low[at].min(index[t]);
                }
                continue;
            }
            walk.pop();
            if let Some((up, _)) = walk.last() {
                let up = *up as usize;
                low[up] = low[up].min(low[at]);
            }
            if low[at] == index[at] {
                while let Some(x) = open.pop() {
                    part[x as usize] = parts;
                    if x as usize == at {
                        break;
                    }
                }
                parts += 1;
            }
        }
    }
    part
}
