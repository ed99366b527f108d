//! Removal of what nobody sees: writes of slots that are written again first, and unused results.

use super::cfg::{Cfg, Look, look};
use crate::{Op, Region, SlotSet, Value, flags};
use std::collections::HashSet;

const ALL: u128 = u128::MAX;

/// Remove `put`s of slots that are written again before anything can read them. Everything that leaves the
/// region reads all slots, a loop's poll and a helper that may raise too; in `precise` mode so does an access.
/// Not for promoted regions.
pub fn dead_puts(r: &mut Region, precise: bool) {
    let none = Places::new();
    let live_in = live_at_starts(r, precise, &none);
    remove_dead_puts(r, precise, Some(&live_in), &none);
}

/// Instructions by block and place.
pub type Places = HashSet<(usize, usize)>;

/// Precise [`dead_puts`], where these places read all slots too.
pub fn dead_puts_but_at(r: &mut Region, places: &Places) {
    let live_in = live_at_starts(r, true, places);
    remove_dead_puts(r, true, Some(&live_in), places);
}

/// [`dead_puts`] with a block's own instructions alone: what follows a block reads everything.
pub fn dead_puts_in_blocks(r: &mut Region) {
    remove_dead_puts(r, true, None, &Places::new());
}

/// [`dead_puts_in_blocks`], where all that may raise a floating-point exception reads all slots.
pub fn dead_puts_but_at_traps(r: &mut Region) {
    let mut places = Places::new();
    for (b, data) in r.blocks.iter().enumerate() {
        places.extend(data.insts.iter().enumerate().filter(|i| i.1.may_trap()).map(|(n, _)| (b, n)));
    }
    remove_dead_puts(r, true, None, &places);
}

/// Slots that may be read before they are written, by block.
fn live_at_starts(r: &Region, precise: bool, places: &Places) -> Vec<u128> {
    let cfg = Cfg::new(r);
    let private = !r.promotable().0;
    let n = r.blocks.len();
    // Slots read before they are written in a block, and slots written before they are read.
    let (mut gen_, mut kill) = (vec![0u128; n], vec![0u128; n]);
    for b in 0..n {
        let data = &r.blocks[b];
        let mut live_kill = (0u128, 0u128);
        if data.term.leaves() {
            live_kill = (ALL, ALL);
        }
        let (live, killed) = &mut live_kill;
        for (n, i) in data.insts.iter().enumerate().rev() {
            match i.op {
                _ if !places.is_empty() && places.contains(&(b, n)) => *live = ALL,
                Op::Put => {
                    *live &= !bit(i.imm);
                    *killed |= bit(i.imm);
                }
                Op::Get => *live |= bit(i.imm),
                _ => match look(r, i, precise) {
                    Look::No => {}
                    Look::Read | Look::ReadWrite => *live = ALL,
                    Look::Private => *live |= private,
                },
            }
        }
        if data.loop_header {
            *live = ALL;
        }
        (gen_[b], kill[b]) = live_kill;
    }
    let mut live_in = gen_.clone();
    loop {
        let mut changed = false;
        for b in cfg.rpo.iter().rev() {
            let b = *b as usize;
            let mut out = 0;
            r.blocks[b].term.for_each_target(|t| {
                out |= live_in.get(t.0 as usize).copied().unwrap_or(ALL);
            });
            let new = gen_[b] | (out & !kill[b]);
            if new != live_in[b] {
                live_in[b] = new;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    live_in
}

fn remove_dead_puts(r: &mut Region, precise: bool, live_in: Option<&[u128]>, places: &Places) {
    let private = !r.promotable().0;
    let mut keep = Vec::new();
    for b in 0..r.blocks.len() {
        let mut live = ALL;
        if let Some(live_in) = live_in
            && !r.blocks[b].term.leaves()
        {
            live = 0;
            r.blocks[b].term.for_each_target(|t| {
                live |= live_in.get(t.0 as usize).copied().unwrap_or(ALL);
            });
        }
        let data = &r.blocks[b];
        keep.clear();
        keep.resize(data.insts.len(), true);
        let mut dropped = false;
        for (n, i) in data.insts.iter().enumerate().rev() {
            match i.op {
                _ if !places.is_empty() && places.contains(&(b, n)) => live = ALL,
                Op::Put => {
                    if live & bit(i.imm) == 0 {
                        keep[n] = false;
                        dropped = true;
                    }
                    live &= !bit(i.imm);
                }
                Op::Get => live |= bit(i.imm),
                _ => match look(r, i, precise) {
                    Look::No => {}
                    Look::Read | Look::ReadWrite => live = ALL,
                    Look::Private => live |= private,
                },
            }
        }
        if dropped {
            let mut k = keep.iter();
            r.blocks[b].insts.retain(|_| k.next() != Some(&false));
        }
    }
}

fn bit(slot: i64) -> u128 {
    SlotSet(u32::try_from(slot).ok().and_then(|s| 1u128.checked_shl(s)).unwrap_or(0)).0
}

/// Remove instructions without effect whose result nobody uses. Loads stay: they may fault; so does floating arithmetic,
/// which raises flags.
pub fn dead_code(r: &mut Region) {
    let mut used = Used::new(r.types.len());
    let mut keep = Vec::new();
    for b in 0..r.blocks.len() {
        let data = &r.blocks[b];
        keep.clear();
        keep.resize(data.insts.len(), true);
        if let Some(v) = data.term.operand() {
            used.mark(v);
        }
        let mut dropped = false;
        for (n, i) in data.insts.iter().enumerate().rev() {
            let free = match i.op {
                Op::Call => r.call_effects(i) == (crate::Effects::Pure, false),
                op => op.flags() & (flags::EFFECT | flags::READ | flags::WRITE) == 0 && !op.raises_flags(i.ty),
            };
            if free && !used.has(i.dst) {
                keep[n] = false;
                dropped = true;
            } else {
                r.for_each_operand(i, |v| used.mark(v));
            }
        }
        if dropped {
            let mut k = keep.iter();
            r.blocks[b].insts.retain(|_| k.next() != Some(&false));
        }
    }
}

/// A set of values. That of a basic block needs no memory.
struct Used {
    few: [u64; 16],
    more: Vec<u64>,
}

impl Used {
    fn new(values: usize) -> Used {
        let few = [0; 16];
        Used { few, more: vec![0; values.div_ceil(64).saturating_sub(few.len())] }
    }
    fn word(&mut self, v: Value) -> Option<&mut u64> {
        let at = v.0 as usize / 64;
        match at.checked_sub(self.few.len()) {
            None => Some(&mut self.few[at]),
            Some(at) => self.more.get_mut(at),
        }
    }
    /// Add a value; none, and one that the region does not have, are left out.
    fn mark(&mut self, v: Value) {
        if let Some(w) = self.word(v) {
            *w |= 1 << (v.0 % 64);
        }
    }
    fn has(&mut self, v: Value) -> bool {
        self.word(v).is_some_and(|w| *w >> (v.0 % 64) & 1 != 0)
    }
}
