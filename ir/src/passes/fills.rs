//! Where variables are loaded from the state: as late as can be.
//!
//! Where all state is in its slots (at an entry, after a call) a variable that is needed later may stay there until it is
//! read: what is needed behind three more calls is loaded once, what only one of two ways needs is loaded there, and
//! none of them takes a register meanwhile. A variable *waits* at a place if it waits on all ways there; where one that waits
//! meets one that has a value it is loaded at the end of the way on which it waits. So a loop that reads a variable finds it loaded.
//!
//! A variable that waits was not written since its slot was, so it is never spilled.

use super::cfg::Cfg;
use super::promote::{ALL, LATER, Sets, bit};
use crate::{Inst, Op, Region, SlotSet, Type};

/// Give each fill that [`super::promote`] left open its variables. `late`: integers are loaded when they are needed.
pub(super) fn fills(r: &mut Region, cfg: &Cfg, all: u128, late: bool, sets: &mut Sets) {
    let live = live(r, cfg, all, &sets.sets);
    let lazy = if late { integers(r) & all } else { 0 };
    let waits = waits(r, cfg, &live, lazy, all, &sets.sets);
    for b in 0..r.blocks.len() {
        let needed = needed(r, b, &live, all, &sets.sets);
        let mut needed = needed.into_iter();
        let mut wait = waits[b];
        let data = &mut r.blocks[b];
        data.poll_spill.0 &= !wait;
        let old = std::mem::take(&mut data.insts);
        let mut out = Vec::with_capacity(old.len() + 4);
        for i in old {
            if i.op == Op::Fill {
                let needed = if i.imm == LATER { needed.next().unwrap_or(0) } else { set(&i, &sets.sets) };
                wait = needed & lazy;
                if needed & !lazy != 0 {
                    out.push(sets.inst(Op::Fill, needed & !lazy));
                }
                continue;
            }
            let now = reads(&i, all, &sets.sets) & wait;
            if now != 0 {
                out.push(sets.inst(Op::Fill, now));
            }
            wait &= !(now | writes(&i, all));
            out.push(i);
        }
        let mut at_end = 0;
        r.blocks[b].term.for_each_target(|t| at_end |= wanted(t.0, &live, &waits));
        if wait & at_end != 0 {
            out.push(sets.inst(Op::Fill, wait & at_end));
        }
        r.blocks[b].insts = out;
    }
}

/// Slots that are no vectors: the parts of those are followed through the blocks from the fill on.
fn integers(r: &Region) -> u128 {
    let slots = r.layout.slots.iter().enumerate().take(128);
    slots.filter(|(_, s)| s.ty != Type::V128).fold(0, |set, (n, _)| set | 1 << n)
}

/// What a block wants loaded where it starts.
fn wanted(b: u32, live: &[u128], waits: &[u128]) -> u128 {
    let b = b as usize;
    live.get(b).copied().unwrap_or(0) & !waits.get(b).copied().unwrap_or(0)
}

/// Variables that wait at the start of each block: the most that are consistent.
fn waits(r: &Region, cfg: &Cfg, live: &[u128], lazy: u128, all: u128, sets: &[SlotSet]) -> Vec<u128> {
    let n = r.blocks.len();
    let (mut made, mut keeps) = (vec![0; n], vec![ALL; n]);
    for b in 0..n {
        for i in &r.blocks[b].insts {
            if i.op == Op::Fill {
                (made[b], keeps[b]) = (lazy, 0);
            } else {
                let end = !(reads(i, all, sets) | writes(i, all));
                (made[b], keeps[b]) = (made[b] & end, keeps[b] & end);
            }
        }
    }
    let mut waits = vec![0; n];
    for b in &cfg.rpo {
        let b = *b as usize;
        waits[b] = if cfg.fresh[b] { 0 } else { lazy };
    }
    loop {
        let mut changed = false;
        for b in &cfg.rpo {
            let b = *b as usize;
            let mut out = made[b] | (waits[b] & keeps[b]);
            r.blocks[b].term.for_each_target(|t| out &= !wanted(t.0, live, &waits));
            r.blocks[b].term.for_each_target(|t| {
                if let Some(w) = waits.get_mut(t.0 as usize)
                    && *w & !out != 0
                {
                    *w &= out;
                    changed = true;
                }
            });
        }
        if !changed {
            return waits;
        }
    }
}

/// Variables that are needed at the start of each block, if it is not entered with all of them in their slots.
fn live(r: &Region, cfg: &Cfg, all: u128, sets: &[SlotSet]) -> Vec<u128> {
    let n = r.blocks.len();
    let (mut gen_, mut kill) = (vec![0u128; n], vec![0u128; n]);
    for b in 0..n {
        let (live, killed) = (&mut gen_[b], &mut kill[b]);
        let data = &r.blocks[b];
        for i in data.insts.iter().rev() {
            step(i, all, sets, live, killed);
        }
        *live |= data.poll_spill.0;
        *killed &= !data.poll_spill.0;
    }
    let mut live_in = gen_.clone();
    loop {
        let mut changed = false;
        for b in cfg.rpo.iter().rev() {
            let b = *b as usize;
            let new = gen_[b] | (live_out(r, b, &live_in) & !kill[b]);
            changed |= new != live_in[b];
            live_in[b] = new;
        }
        if !changed {
            return live_in;
        }
    }
}

fn live_out(r: &Region, b: usize, live_in: &[u128]) -> u128 {
    let mut out = 0;
    r.blocks[b].term.for_each_target(|t| out |= live_in.get(t.0 as usize).unwrap_or(&0));
    out
}

/// What is needed behind each open fill of a block, in their order.
fn needed(r: &Region, b: usize, live_in: &[u128], all: u128, sets: &[SlotSet]) -> Vec<u128> {
    let mut live = live_out(r, b, live_in);
    let mut found = vec![];
    for i in r.blocks[b].insts.iter().rev() {
        if i.op == Op::Fill && i.imm == LATER {
            found.push(live);
        }
        step(i, all, sets, &mut live, &mut 0);
    }
    found.reverse();
    found
}

fn set(i: &Inst, sets: &[SlotSet]) -> u128 {
    usize::try_from(i.imm).ok().and_then(|n| sets.get(n)).map_or(0, |s| s.0)
}

/// Variables that an instruction reads.
fn reads(i: &Inst, all: u128, sets: &[SlotSet]) -> u128 {
    match i.op {
        Op::Get => bit(i, all),
        Op::Spill | Op::Keep => set(i, sets),
        _ => 0,
    }
}

/// Variables that it writes, but for a fill.
fn writes(i: &Inst, all: u128) -> u128 {
    if i.op == Op::Put { bit(i, all) } else { 0 }
}

/// Liveness of variables before an instruction, from that after it.
fn step(i: &Inst, all: u128, sets: &[SlotSet], live: &mut u128, killed: &mut u128) {
    match i.op {
        Op::Put => {
            *live &= !bit(i, all);
            *killed |= bit(i, all);
        }
        Op::Fill => (*live, *killed) = (0, ALL),
        _ => *live |= reads(i, all, sets),
    }
}
