//! Dead puts by backward liveness of slots over the region, and dead code.
//!
//! Every slot is live where the region is left and where a helper may read all state. With `precise`, it is also
//! live before each access that may fault (a put after the access cannot make an earlier one
//! dead).

use crate::{Effects, Op, Region, SlotSet, Term, flags};

const ALL: u128 = u128::MAX;

/// Successor blocks inside the region.
pub(super) fn successors(t: &Term, mut f: impl FnMut(usize)) {
    match t {
        Term::Jump(b) => f(b.0 as usize),
        Term::Br(_, a, b) => {
            f(a.0 as usize);
            f(b.0 as usize);
        }
        Term::Switch(_, v, d) => {
            v.iter().for_each(|b| f(b.0 as usize));
            f(d.0 as usize);
        }
        Term::Call { cont: Some(b), .. } | Term::Service { cont: Some(b), .. } => f(b.0 as usize),
        Term::Exit(_) | Term::Return(_) | Term::Raise { .. } | Term::Call { .. } | Term::Service { .. } => {}
    }
}

/// Whether the terminator needs all state (and gives control to others).
pub(super) fn leaves(t: &Term) -> bool {
    !matches!(t, Term::Jump(_) | Term::Br(..) | Term::Switch(..))
}

/// Slots live before the instructions of a block, given those live at its end; calls `dead` with the index
/// of each dead put.
fn backward(r: &Region, b: usize, mut live: u128, precise: bool, mut dead: impl FnMut(usize)) -> u128 {
    for (i, inst) in r.blocks[b].insts.iter().enumerate().rev() {
        match inst.op {
            Op::Put => {
                let bit = 1u128 << inst.imm;
                if live & bit == 0 {
                    dead(i);
                }
                live &= !bit;
            }
            Op::Get => live |= 1 << inst.imm,
            Op::Call => {
                let h = &r.helpers[r.calls[inst.imm as usize].helper as usize];
                if h.effects == Effects::All || h.raises {
                    live = ALL;
                } else if h.effects == Effects::Private {
                    live |= private(r);
                }
            }
            op if precise && op.flags() & (flags::READ | flags::WRITE) != 0 => live = ALL,
            _ => {}
        }
    }
    live
}

/// Slots that helpers may touch behind the IR's back.
fn private(r: &Region) -> u128 {
    r.layout.slots.iter().enumerate().filter(|(_, s)| !s.promote).fold(0, |m, (i, _)| m | 1 << i)
}

/// Remove puts whose value no one can see.
pub(super) fn dead_puts(r: &mut Region, precise: bool) {
    let n = r.blocks.len();
    let mut live_in = vec![0u128; n];
    let at_end = |r: &Region, live_in: &[u128], b: usize| {
        let t = &r.blocks[b].term;
        let mut live = if leaves(t) { ALL } else { 0 };
        // A poll may leave at a loop header: what is dead there is dead to whoever goes on from there too.
        successors(t, |s| live |= live_in[s]);
        live
    };
    loop {
        let mut changed = false;
        for b in (0..n).rev() {
            let live = backward(r, b, at_end(r, &live_in, b), precise, |_| {});
            if live != live_in[b] {
                live_in[b] = live;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    for b in 0..n {
        let mut dead = SlotSet::default();
        let mut at = vec![];
        backward(r, b, at_end(r, &live_in, b), precise, |i| at.push(i));
        dead.0 = at.len() as u128;
        if dead.0 != 0 {
            let mut i = 0;
            r.blocks[b].insts.retain(|_| {
                i += 1;
                !at.contains(&(i - 1))
            });
        }
    }
}

/// Remove instructions without effect whose result is unused.
pub(super) fn dead_code(r: &mut Region) {
    let mut used = vec![false; r.types.len()];
    for b in &mut r.blocks {
        let mut mark = |v: crate::Value| {
            if v.is_some() {
                used[v.0 as usize] = true;
            }
        };
        match &b.term {
            Term::Br(v, ..) | Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) | Term::Call { target: v, .. } => {
                mark(*v);
            }
            Term::Jump(_) | Term::Service { .. } | Term::Raise { .. } => {}
        }
        let mut keep = vec![true; b.insts.len()];
        for (i, inst) in b.insts.iter().enumerate().rev() {
            let effect = match inst.op {
                Op::Call => {
                    let h = &r.helpers[r.calls[inst.imm as usize].helper as usize];
                    h.effects != Effects::Pure || h.raises
                }
                // A load may fault, and a fault is an effect.
                op => op.flags() & (flags::EFFECT | flags::READ) != 0,
            };
            if !effect && !(inst.dst.is_some() && used[inst.dst.0 as usize]) {
                keep[i] = false;
                continue;
            }
            for v in [inst.a, inst.b, inst.c] {
                if v.is_some() {
                    used[v.0 as usize] = true;
                }
            }
            if inst.op == Op::Call {
                for v in &r.calls[inst.imm as usize].args {
                    used[v.0 as usize] = true;
                }
            }
        }
        let mut i = 0;
        b.insts.retain(|_| {
            i += 1;
            keep[i - 1]
        });
    }
}
