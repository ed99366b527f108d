//! Where compiled code looks whether it is to leave.

use evm_ir::{Region, Term};

/// Loop headers that have to poll: with them, every cycle of the region has a poll in it, a service, or, if `calls` says that callees
/// look at their entry, a call. Outer headers are spared first.
pub(crate) fn polls(r: &Region, calls: bool) -> Vec<bool> {
    let header = |b: usize| r.blocks[b].loop_header && r.blocks[b].insn_start;
    let mut polls: Vec<bool> = (0..r.blocks.len()).map(header).collect();
    let looks = |b: usize| match r.blocks[b].term {
        Term::Call { .. } => calls,
        Term::Service { .. } => true,
        _ => false,
    };
    let headers: Vec<usize> = (0..r.blocks.len()).filter(|b| polls[*b]).collect();
    if headers.len() > 64 {
        return polls;
    }
    for h in headers {
        // Is there a way from `h` to itself without another look?
        let mut seen = vec![false; r.blocks.len()];
        let mut work = vec![h];
        let mut free = true;
        while let Some(b) = work.pop() {
            if looks(b) {
                continue;
            }
            r.blocks[b].term.for_each_target(|s| {
                let s = s.0 as usize;
                if s == h {
                    free = false;
                } else if s < seen.len() && !seen[s] && !polls[s] {
                    seen[s] = true;
                    work.push(s);
                }
            });
        }
        polls[h] = !free;
    }
    polls
}
