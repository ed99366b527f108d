//! Where the word `fp_exact` is looked at: behind the marker of the first instruction of each block that has floating-point
//! arithmetic, and again after a helper that may have changed it.
//!
//! An instruction may be several blocks (one that checks the alignment of its operand); the marker is in the first.

use evm_ir::passes::Places;
use evm_ir::{Effects, Op, Region};
use std::collections::HashSet;

/// Block and place of those markers.
pub fn marks(r: &Region) -> Places {
    let is_float = |op: Op, ty| op.raises_flags(ty) || matches!(op, Op::FCmp | Op::FComi);
    let mut found = Places::new();
    // Addresses of instructions whose arithmetic is not in the block of their marker.
    let mut elsewhere = HashSet::new();
    for (b, data) in r.blocks.iter().enumerate() {
        let mut marker = None;
        for (n, i) in data.insts.iter().enumerate() {
            if i.op == Op::Marker {
                marker = Some(n);
            } else if is_float(i.op, i.ty) {
                match marker {
                    Some(n) => drop(found.insert((b, n))),
                    None => drop(elsewhere.insert(data.pc)),
                }
            }
        }
    }
    for (b, data) in r.blocks.iter().enumerate() {
        let mut looked = false;
        for (n, i) in data.insts.iter().enumerate() {
            let is = i.op == Op::Marker && (found.contains(&(b, n)) || elsewhere.contains(&(i.imm as u64)));
            if i.op == Op::Call && r.call_effects(i).0 != Effects::Pure {
                looked = false;
            } else if is && looked {
                found.remove(&(b, n));
            } else if is {
                found.insert((b, n));
                looked = true;
            }
        }
    }
    found
}
