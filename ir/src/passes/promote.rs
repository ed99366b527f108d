//! Promotion: slots become variables of the region.
//!
//! After it, `get` and `put` of a promotable slot act on the variable. `fill` loads variables at
//! entries, after calls and services, and after helpers that may write all state; `spill` stores the
//! *dirty* ones (written since the last spill on some path) wherever someone else may look at
//! the state: before the region is left, calls, services, raises, helpers that read all or may raise, at
//! polls (the block's `poll_spill`), and, if `precise`, before each access that may fault.

use super::dead::{leaves, successors};
use crate::{Block, BlockData, Effects, Inst, Op, Region, SlotSet, Term, Type, Value, flags};

fn list_op(op: Op, index: i64) -> Inst {
    Inst { op, ty: Type::I64, dst: Value::NONE, a: Value::NONE, b: Value::NONE, c: Value::NONE, imm: index }
}

/// What an instruction asks for.
enum Event {
    Get(u128),
    Put(u128),
    /// State must be in its slots before.
    Spill,
    /// … and is read back after.
    SpillFill,
    None,
}

struct Pass<'a> {
    r: &'a Region,
    promotable: u128,
    precise: bool,
}

impl Pass<'_> {
    fn event(&self, inst: &Inst) -> Event {
        match inst.op {
            Op::Get => Event::Get((1u128 << inst.imm) & self.promotable),
            Op::Put => Event::Put((1u128 << inst.imm) & self.promotable),
            Op::Call => {
                let h = &self.r.helpers[self.r.calls[inst.imm as usize].helper as usize];
                match (h.effects, h.raises) {
                    (Effects::All, _) => Event::SpillFill,
                    (_, true) => Event::Spill,
                    _ => Event::None,
                }
            }
            op if self.precise && op.flags() & (flags::READ | flags::WRITE) != 0 => Event::Spill,
            _ => Event::None,
        }
    }
    /// Dirty set after a block.
    fn dirty_out(&self, b: usize, mut dirty: u128) -> u128 {
        for inst in &self.r.blocks[b].insts {
            match self.event(inst) {
                Event::Put(s) => dirty |= s,
                Event::Spill | Event::SpillFill => dirty = 0,
                Event::Get(_) | Event::None => {}
            }
        }
        dirty
    }
    /// Variables live before a block, given those live at its end and the dirty set at its start.
    fn live_in(&self, b: usize, mut live: u128, dirty_in: u128) -> u128 {
        let insts = &self.r.blocks[b].insts;
        let mut dirty = Vec::with_capacity(insts.len());
        let mut d = dirty_in;
        for inst in insts {
            dirty.push(d);
            match self.event(inst) {
                Event::Put(s) => d |= s,
                Event::Spill | Event::SpillFill => d = 0,
                Event::Get(_) | Event::None => {}
            }
        }
        for (i, inst) in insts.iter().enumerate().rev() {
            match self.event(inst) {
                Event::Get(s) => live |= s,
                Event::Put(s) => live &= !s,
                Event::Spill => live |= dirty[i],
                Event::SpillFill => live = dirty[i],
                Event::None => {}
            }
        }
        live
    }
}

/// Promote every slot whose layout allows it.
pub fn promote(r: &mut Region, precise: bool) {
    let n = r.blocks.len();
    let promotable = r.layout.slots.iter().enumerate().filter(|(_, s)| s.promote).fold(0u128, |m, (i, _)| m | 1 << i);
    let pass = Pass { r, promotable, precise };
    // Forward: dirty at block starts. After a call or service nothing is dirty.
    let mut dirty_in = vec![0u128; n];
    let mut work: Vec<usize> = (0..n).rev().collect();
    let mut seen = vec![false; n];
    while let Some(b) = work.pop() {
        seen[b] = true;
        let t = &pass.r.blocks[b].term;
        let out = if leaves(t) { 0 } else { pass.dirty_out(b, dirty_in[b]) };
        successors(t, |s| {
            if dirty_in[s] | out != dirty_in[s] {
                dirty_in[s] |= out;
                if seen[s] {
                    seen[s] = false;
                    work.push(s);
                }
            }
        });
    }
    let dirty_end: Vec<u128> = (0..n).map(|b| pass.dirty_out(b, dirty_in[b])).collect();
    // Backward: live variables at block starts.
    let mut live_in = vec![0u128; n];
    loop {
        let mut changed = false;
        for b in (0..n).rev() {
            let block = &pass.r.blocks[b];
            let mut live = 0;
            if leaves(&block.term) {
                live = dirty_end[b];
            } else {
                successors(&block.term, |s| live |= live_in[s]);
            }
            live = pass.live_in(b, live, dirty_in[b]);
            if block.loop_header {
                live |= dirty_in[b];
            }
            if live != live_in[b] {
                live_in[b] = live;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    // Rewrite.
    let mut sets = vec![];
    let mut new_blocks: Vec<BlockData> = vec![];
    let mut set = |s: u128| {
        sets.push(SlotSet(s));
        sets.len() as i64 - 1
    };
    let mut rewritten = Vec::with_capacity(n);
    for b in 0..n {
        let block = &pass.r.blocks[b];
        let mut live_end = 0;
        if leaves(&block.term) {
            live_end = dirty_end[b];
        } else {
            successors(&block.term, |s| live_end |= live_in[s]);
        }
        // Live after each instruction, for the fills.
        let mut live_after = vec![0; block.insts.len()];
        let mut d = dirty_in[b];
        let mut dirty = Vec::with_capacity(block.insts.len());
        for inst in &block.insts {
            dirty.push(d);
            match pass.event(inst) {
                Event::Put(s) => d |= s,
                Event::Spill | Event::SpillFill => d = 0,
                Event::Get(_) | Event::None => {}
            }
        }
        let mut live = live_end;
        for (i, inst) in block.insts.iter().enumerate().rev() {
            live_after[i] = live;
            match pass.event(inst) {
                Event::Get(s) => live |= s,
                Event::Put(s) => live &= !s,
                Event::Spill => live |= dirty[i],
                Event::SpillFill => live = dirty[i],
                Event::None => {}
            }
        }
        let mut out = Vec::with_capacity(block.insts.len() + 4);
        for (i, inst) in block.insts.iter().enumerate() {
            let e = pass.event(inst);
            if matches!(e, Event::Spill | Event::SpillFill) && dirty[i] != 0 {
                out.push(list_op(Op::Spill, set(dirty[i])));
            }
            out.push(*inst);
            if matches!(e, Event::SpillFill) && live_after[i] != 0 {
                out.push(list_op(Op::Fill, set(live_after[i])));
            }
        }
        if leaves(&block.term) && dirty_end[b] != 0 {
            out.push(list_op(Op::Spill, set(dirty_end[b])));
        }
        let poll = SlotSet(if block.loop_header { dirty_in[b] } else { 0 });
        rewritten.push((out, poll));
    }
    let mut fill_block = |target: Block, live: u128, pc: u64, loop_header: bool| {
        let _ = loop_header;
        let insts = if live == 0 { vec![] } else { vec![list_op(Op::Fill, set(live))] };
        new_blocks.push(BlockData {
            pc,
            insn_start: false,
            loop_header: false,
            poll_spill: crate::SlotSet::default(),
            insts,
            term: Term::Jump(target),
        });
        Block((n + new_blocks.len() - 1) as u32)
    };
    let entries: Vec<Block> = pass
        .r
        .entries
        .iter()
        .map(|e| fill_block(*e, live_in[e.0 as usize], pass.r.blocks[e.0 as usize].pc, false))
        .collect();
    let mut conts = vec![None; n];
    for (b, block) in pass.r.blocks.iter().enumerate() {
        if let Term::Call { ret: pc, cont: Some(c), .. } | Term::Service { next: pc, cont: Some(c), .. } = &block.term {
            conts[b] = Some(fill_block(*c, live_in[c.0 as usize], *pc, false));
        }
    }
    let base = r.slot_sets.len() as i64;
    for (b, (mut insts, poll)) in rewritten.into_iter().enumerate() {
        for i in &mut insts {
            if matches!(i.op, Op::Fill | Op::Spill) {
                i.imm += base;
            }
        }
        let block = &mut r.blocks[b];
        block.insts = insts;
        block.poll_spill = poll;
        if let Term::Call { cont, .. } | Term::Service { cont, .. } = &mut block.term
            && cont.is_some()
        {
            *cont = conts[b];
        }
    }
    for mut b in new_blocks {
        for i in &mut b.insts {
            i.imm += base;
        }
        r.blocks.push(b);
    }
    r.slot_sets.extend(sets);
    r.entries = entries;
}
