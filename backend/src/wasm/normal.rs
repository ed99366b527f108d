//! Floats that are known not to be denormal while MXCSR's DAZ is set, so that what counts of them as operands are they themselves.
//!
//! DAZ without FTZ is not done by compiled code (the state's word `fp_exact` says so), so arithmetic never gives a denormal
//! result then. What is known is kept by lane, of the values of a block and of what slots hold between blocks. It is forgotten
//! where MXCSR may change. Where a region is entered in the middle, the entry makes sure of what is known there, or leaves
//! ([`facts`](super::facts) has the same for ranges).

use super::facts::{keeps, late_entries};
use super::shape::successors;
use evm_ir::{Inst, Op, Region, Slot, Type, Value};
use std::collections::HashMap;

/// Lanes: as four floats in bits 0 to 3, as two doubles in bits 4 and 5. (A scalar is lane 0.)
pub type Lanes = u8;
/// All lanes as floats.
pub const SINGLES: Lanes = 0x0f;
/// All lanes as doubles.
pub const DOUBLES: Lanes = 0x30;

/// The lanes that an operand of this type has.
pub fn lanes(t: Type) -> Lanes {
    match t {
        Type::F32 | Type::I32 => 1,
        Type::F64 | Type::I64 => 0x10,
        Type::F32X4 | Type::I32X4 => SINGLES,
        Type::F64X2 | Type::I64X2 => DOUBLES,
        _ => 0,
    }
}

/// Known at the start of blocks, and what entries in the middle have to make sure of.
#[derive(Default)]
pub struct Known {
    /// By block and slot.
    pub starts: Vec<Vec<Lanes>>,
    /// By block.
    pub ensure: HashMap<usize, Vec<(Slot, Lanes)>>,
}

/// Find it for a region.
pub fn known(r: &Region) -> Known {
    if !r.blocks.iter().flat_map(|b| &b.insts).any(|i| i.op.raises_flags(i.ty)) {
        return Known::default();
    }
    let late = late_entries(r);
    let at = solve(r, &late);
    let mut ensure = HashMap::new();
    for (front, to) in late {
        let Some(known) = &at[to] else { continue };
        // (What the entry does not fill, nobody reads.)
        let filled = r.blocks[front].insts.iter().filter_map(|i| r.slot_sets.get(i.imm as usize));
        let slots = filled.flat_map(|s| s.iter()).map(|s| (s, known[s.0 as usize]));
        ensure.insert(front, slots.filter(|(_, lanes)| *lanes != 0).collect());
    }
    let starts = at.into_iter().map(|f| f.unwrap_or_else(|| vec![0; r.layout.slots.len()])).collect();
    Known { starts, ensure }
}

fn solve(r: &Region, late: &[(usize, usize)]) -> Vec<Option<Vec<Lanes>>> {
    let nothing = || vec![0; r.layout.slots.len()];
    let mut at: Vec<Option<Vec<Lanes>>> = vec![None; r.blocks.len()];
    let mut work: Vec<usize> = r.entries.iter().map(|e| e.0 as usize).collect();
    work.retain(|e| late.iter().all(|l| l.0 != *e));
    for e in &work {
        at[*e] = Some(nothing());
    }
    // What is only reached from a late entry comes last.
    let mut late = late.iter();
    loop {
        while let Some(b) = work.pop() {
            let Some(start) = at[b].clone() else { continue };
            let mut w = Walk::new(start);
            r.blocks[b].insts.iter().for_each(|i| w.step(r, i));
            let out = if keeps(&r.blocks[b].term) { w.slots } else { nothing() };
            for t in successors(&r.blocks[b].term) {
                let Some(to) = at.get_mut(t) else { continue };
                let new = match to {
                    None => out.clone(),
                    Some(f) => f.iter().zip(&out).map(|(a, b)| a & b).collect(),
                };
                if to.as_ref() != Some(&new) {
                    *to = Some(new);
                    work.push(t);
                }
            }
        }
        let Some((_, start)) = late.next() else { return at };
        if at[*start].is_none() {
            at[*start] = Some(nothing());
            work.push(*start);
        }
    }
}

/// A way through a block.
#[derive(Default)]
pub struct Walk {
    slots: Vec<Lanes>,
    values: HashMap<Value, Lanes>,
}

impl Walk {
    /// From a block's start.
    pub fn new(slots: Vec<Lanes>) -> Walk {
        Walk { slots, values: HashMap::new() }
    }
    /// Known of a value.
    pub fn of(&self, v: Value) -> Lanes {
        self.values.get(&v).copied().unwrap_or(0)
    }
    /// Behind an instruction.
    pub fn step(&mut self, r: &Region, i: &Inst) {
        match i.op {
            Op::Put => {
                if let Some(s) = self.slots.get_mut(i.imm as usize) {
                    *s = self.values.get(&i.a).copied().unwrap_or(0);
                }
            }
            Op::Fill => {
                for s in r.slot_sets.get(i.imm as usize).into_iter().flat_map(|s| s.iter()) {
                    if let Some(s) = self.slots.get_mut(s.0 as usize) {
                        *s = 0;
                    }
                }
            }
            // It may load MXCSR.
            Op::Call => {
                self.slots.fill(0);
                self.values.clear();
            }
            _ if i.dst.is_some() => match self.result(r, i) {
                0 => {}
                lanes => drop(self.values.insert(i.dst, lanes)),
            },
            _ => {}
        }
    }

    /// Known of an instruction's result.
    fn result(&self, r: &Region, i: &Inst) -> Lanes {
        let t = lanes(i.ty);
        match i.op {
            Op::Const => constant(i.imm as u32 as u128) & 1 | constant(i.imm as u64 as u128) & 0x10,
            Op::VConst => r.pool.get(i.imm as usize).map_or(0, |k| constant(*k)),
            // Slots that helpers may change are not followed.
            Op::Get if r.layout.get(Slot(i.imm as u16)).promote => self.slots.get(i.imm as usize).copied().unwrap_or(0),
            Op::VFCmp | Op::CvtFI => 0,
            op if op.raises_flags(i.ty) => t,
            Op::Bitcast => match self.of(i.a) & 0x11 {
                known if t & known != 0 => t,
                _ => 0,
            },
            Op::Select => self.of(i.b) & self.of(i.c),
            Op::Extract if t & SINGLES != 0 => self.of(i.a) >> i.imm & 1,
            Op::Extract if t & DOUBLES != 0 => self.of(i.a) >> i.imm & 0x10,
            Op::Insert if t & SINGLES != 0 => {
                let (lane, half) = (1 << i.imm, 0x10 << (i.imm / 2));
                self.of(i.a) & !(lane | half) | (self.of(i.b) & 1) << i.imm
            }
            Op::Insert if t & DOUBLES != 0 => {
                let (lane, halves) = (0x10 << i.imm, 3 << (2 * i.imm));
                self.of(i.a) & !(lane | halves) | (self.of(i.b) & 0x10) << i.imm
            }
            Op::Splat if self.of(i.a) & t & 0x11 != 0 => t,
            Op::Shuffle => r.pool.get(i.imm as usize).map_or(0, |sel| self.shuffled(sel.to_le_bytes(), i)),
            _ => 0,
        }
    }

    /// Lanes that are moved as wholes stay what they are.
    fn shuffled(&self, sel: [u8; 16], i: &Inst) -> Lanes {
        let both = [self.of(i.a), self.of(i.b)];
        let mut known = 0;
        for (width, first, count) in [(4, 0, 4), (8, 4, 2)] {
            for (n, s) in sel.chunks_exact(width).enumerate() {
                let from = usize::from(s[0] & 31);
                let whole = from % width == 0 && s.iter().enumerate().all(|(k, b)| usize::from(b & 31) == from + k);
                let lane = from / width;
                if whole && both[lane / count] >> (first + lane % count) & 1 != 0 {
                    known |= 1 << (first + n);
                }
            }
        }
        known
    }
}

/// Lanes of a constant that are not denormal.
fn constant(k: u128) -> Lanes {
    let single = |n: u32| !f32::from_bits((k >> (32 * n)) as u32).is_subnormal();
    let double = |n: u32| !f64::from_bits((k >> (64 * n)) as u64).is_subnormal();
    let singles = (0..4).fold(0, |l, n| l | u8::from(single(n)) << n);
    (0..2).fold(singles, |l, n| l | u8::from(double(n)) << (4 + n))
}

/// The bits of lanes.
pub fn mask(lanes: Lanes) -> i128 {
    let singles = (0..4).filter(|n| lanes >> n & 1 != 0).fold(0u128, |m, n| m | 0xffff_ffff << (32 * n));
    let doubles = (0..2).filter(|n| lanes >> (4 + n) & 1 != 0).fold(0u128, |m, n| m | u128::from(u64::MAX) << (64 * n));
    (singles | doubles) as i128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants() {
        assert_eq!(constant(0), SINGLES | DOUBLES);
        assert_eq!(constant(1), SINGLES & !1 | 0x20);
        assert_eq!(constant(1 << 52), SINGLES & !2 | DOUBLES);
        assert_eq!(constant(1 << 64), SINGLES & !4 | 0x10);
    }
}
