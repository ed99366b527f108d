//! The first round of a small loop as blocks of its own.
//!
//! In the first round the loop's accesses check their addresses; what they have proven then holds in all rounds that follow, so
//! that those check nothing (see [`super::reach`]). Only loops are peeled in which that is so.

use super::reach::{self, Graph};
use crate::{Block, Op, Region, Term, Value};
use std::collections::HashMap;

/// Instructions of the IR in a loop that is peeled, and in all of a region.
const LARGEST: usize = 250;
const MOST: usize = 2000;

struct Loop {
    header: usize,
    /// The blocks but for those that only go back.
    body: Vec<usize>,
    /// Those that only go back.
    back: Vec<usize>,
}

/// Peel loops. Their ways back are blocks of their own ([`super::latches`]).
pub fn peel(r: &mut Region) {
    let loops = loops(r);
    if loops.is_empty() {
        return;
    }
    let plain = Graph::plain(r);
    let peeled = peeled(&plain, &loops);
    let [before, after] = &reach::count(r, &[&plain, &peeled])[..] else { return };
    let mut left = MOST;
    for l in &loops {
        let sum = |c: &[u32]| l.body.iter().map(|b| c[*b]).sum::<u32>();
        let size = l.body.iter().map(|b| r.blocks[*b].insts.len()).sum::<usize>();
        if sum(after) < sum(before) && size <= left {
            left -= size;
            copy(r, l);
        }
    }
}

/// The graph with a second copy of each loop, which is entered first. The loop itself keeps its numbers.
fn peeled(plain: &Graph, loops: &[Loop]) -> Graph {
    let mut g = Graph { block: plain.block.clone(), succ: plain.succ.clone(), entered: plain.entered.clone() };
    for l in loops {
        let first = g.block.len();
        let copied = |b: usize| l.body.iter().position(|x| *x == b).map_or(b, |n| first + n);
        let header = copied(l.header);
        // What came in from outside goes to the copy.
        for n in (0..first).filter(|n| !l.back.contains(n)) {
            g.succ[n].iter_mut().filter(|s| **s == l.header).for_each(|s| *s = header);
        }
        g.entered.iter_mut().filter(|e| **e == l.header).for_each(|e| *e = header);
        for b in &l.body {
            g.block.push(*b);
            let to = |s: usize| if l.back.contains(&s) { l.header } else { copied(s) };
            g.succ.push(g.succ[*b].iter().map(|s| to(*s)).collect());
        }
    }
    g
}

/// Innermost loops that are small, have one entry and no calls.
fn loops(r: &Region) -> Vec<Loop> {
    let n = r.blocks.len();
    let mut preds: Vec<Vec<usize>> = vec![vec![]; n];
    let mut fresh = vec![false; n];
    for (b, data) in r.blocks.iter().enumerate() {
        data.term.for_each_target(|t| {
            if let Some(p) = preds.get_mut(t.0 as usize) {
                p.push(b);
            }
        });
        if let Some(c) = data.term.cont() {
            fresh[c.0 as usize] = true;
        }
    }
    r.entries.iter().for_each(|e| fresh[e.0 as usize] = true);
    let mut latches: HashMap<usize, Vec<usize>> = HashMap::new();
    for (b, data) in r.blocks.iter().enumerate() {
        if let (true, true, Term::Jump(h)) = (data.loop_header, data.insts.is_empty(), &data.term) {
            latches.entry(h.0 as usize).or_default().push(b);
        }
    }
    let mut all: Vec<Loop> = latches.iter().filter_map(|(h, back)| body(r, *h, back, &preds, &fresh)).collect();
    all.sort_unstable_by_key(|l| l.header);
    all
}

/// The blocks between a header and its ways back, if the loop is one that may be peeled.
fn body(r: &Region, header: usize, back: &[usize], preds: &[Vec<usize>], fresh: &[bool]) -> Option<Loop> {
    let mut body = vec![header];
    let mut work: Vec<usize> = back.iter().flat_map(|b| preds[*b].iter().copied()).collect();
    let mut size = r.blocks[header].insts.len();
    while let Some(b) = work.pop() {
        if body.contains(&b) {
            continue;
        }
        // Another way in, a call, or a loop inside.
        if fresh[b] || r.blocks[b].loop_header || body.len() >= 32 || preds[b].is_empty() {
            return None;
        }
        size += r.blocks[b].insts.len();
        body.push(b);
        work.extend(preds[b].iter().copied());
    }
    let accesses = body.iter().any(|b| r.blocks[*b].insts.iter().any(reach::accesses));
    (size <= LARGEST && accesses).then(|| Loop { header, body, back: back.to_vec() })
}

/// Copy the blocks of a loop, so that the copy is entered first and goes on to the loop itself.
fn copy(r: &mut Region, l: &Loop) {
    let first = r.blocks.len();
    let header = Block(l.header as u32);
    let new = |b: Block| match l.body.iter().position(|x| *x == b.0 as usize) {
        Some(n) => Block((first + n) as u32),
        // There is no poll after one round: what it stores need not meet with what the loop has then.
        None if l.back.contains(&(b.0 as usize)) => header,
        None => b,
    };
    for b in &l.body {
        let mut data = r.blocks[*b].clone();
        data.insn_start &= *b == l.header;
        let mut values: HashMap<Value, Value> = HashMap::new();
        for i in &mut data.insts {
            let of = |v: Value| values.get(&v).copied().unwrap_or(v);
            (i.a, i.b, i.c) = (of(i.a), of(i.b), of(i.c));
            if i.op == Op::Call {
                let mut call = r.calls[i.imm as usize].clone();
                call.args.iter_mut().for_each(|v| *v = of(*v));
                r.calls.push(call);
                i.imm = r.calls.len() as i64 - 1;
            }
            if i.dst.is_some() {
                r.types.push(r.types[i.dst.0 as usize]);
                let v = Value(r.types.len() as u32 - 1);
                values.insert(i.dst, v);
                i.dst = v;
            }
        }
        if let Some(v) = data.term.operand_mut() {
            *v = values.get(v).copied().unwrap_or(*v);
        }
        data.term.for_each_target_mut(|t| *t = new(*t));
        r.blocks.push(data);
    }
    for (b, data) in r.blocks[..first].iter_mut().enumerate() {
        if !l.back.contains(&b) {
            data.term.for_each_target_mut(|t| {
                if *t == header {
                    *t = new(*t);
                }
            });
        }
    }
    r.entries.iter_mut().filter(|e| **e == header).for_each(|e| *e = new(*e));
    for data in &mut r.blocks {
        if let Term::Call { cont: Some(c), .. } | Term::Service { cont: Some(c), .. } = &mut data.term
            && *c == header
        {
            *c = new(*c);
        }
    }
}
