//! Where the word `fp_exact` is looked at: behind the first marker of each block from which floating-point arithmetic is
//! reached in the block, and behind the first one after a helper that may have changed it.
//!
//! Nowhere else, even if the arithmetic is much later: flags that instructions have put off are in their slots at these places
//! only, and the interpreter, which goes on there, wants them. An instruction may be several blocks (one that checks the
//! alignment of its operand): its marker is in the first of them, which answers for the others.

use evm_ir::passes::Places;
use evm_ir::{BlockData, Inst, Op, Region};
use std::collections::HashSet;
use std::ops::Range;

/// Block and place of those markers.
pub fn marks(r: &Region) -> Places {
    // Addresses of instructions whose arithmetic, or that of what follows, is in a block that does not start one.
    let mut elsewhere = HashSet::new();
    loop {
        let mut found = Places::new();
        let before = elsewhere.len();
        for (b, data) in r.blocks.iter().enumerate() {
            for s in stretches(r, data) {
                let insts = &data.insts[s.clone()];
                if !insts.iter().any(|i| is_float(i) || i.op == Op::Marker && elsewhere.contains(&(i.imm as u64))) {
                    continue;
                }
                // Where the region is entered, slots' variables are filled first.
                let first = insts.iter().find(|i| i.op != Op::Fill);
                let starts = s.start > 0 || first.is_some_and(|i| i.op == Op::Marker);
                match insts.iter().position(|i| i.op == Op::Marker) {
                    Some(n) if starts => drop(found.insert((b, s.start + n))),
                    _ => drop(elsewhere.insert(data.pc)),
                }
            }
        }
        if elsewhere.len() == before {
            return found;
        }
    }
}

fn is_float(i: &Inst) -> bool {
    i.op.raises_flags(i.ty) || matches!(i.op, Op::FCmp | Op::FComi)
}

/// The instructions of a block, divided behind those that may change the word.
fn stretches(r: &Region, data: &BlockData) -> Vec<Range<usize>> {
    let changes = |i: &Inst| {
        let helper = r.calls.get(i.imm as usize).and_then(|c| r.helpers.get(usize::from(c.helper)));
        i.op == Op::Call && helper.is_some_and(|h| h.name == "stmxcsr")
    };
    let mut all = Vec::new();
    let mut start = 0;
    for (n, _) in data.insts.iter().enumerate().filter(|(_, i)| changes(i)) {
        all.push(start..n + 1);
        start = n + 1;
    }
    all.push(start..data.insts.len());
    all
}
