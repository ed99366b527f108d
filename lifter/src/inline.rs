//! Callees that become part of a region.
//!
//! A small function whose caller is hot is translated once more for each call, in the place of the call: the call is a
//! push of the return address and a jump, the return a comparison of the address that it takes from the stack with the
//! one behind the call. What the guest's memory holds is the same as ever.
//!
//! The way out of the region from within a callee, to code that the region does not have, is a call of that code which
//! is expected to come back where the callee would have.
//!
//! The same block stands in the region several times, so that blocks are named by *places*: the address, and the number
//! of the call above the bits that addresses have.

use crate::decode::{Fetched, Flow, Reader, flow};
use crate::hash::{Map, Set};
use crate::region::Options;
use iced_x86::Mnemonic;

/// Bits of an address.
const BITS: u32 = 48;
/// Most calls that are taken in; addresses with higher numbers above them are not canonical or not fetched.
const MAX_CALLS: u64 = 1 << 12;
/// Numbers that are kept for blocks that are no code of the guest.
const KEPT: u64 = 16;
/// Instructions of a callee that calls others, and of one that does not.
const SMALL: [usize; 2] = [48, 80];
/// How deep callees of callees are taken in.
const MAX_DEPTH: u32 = 3;

/// The place of an address in a call; call 0 is the region itself.
pub(crate) fn place(call: u64, pc: u64) -> u64 {
    if call == 0 { pc } else { call << BITS | pc }
}
/// The place of the switch that jumps through a register share.
pub(crate) fn switch_place(register: u64) -> u64 {
    (MAX_CALLS - register % KEPT) << BITS
}
/// The call that a place belongs to.
pub(crate) fn call_of(place: u64) -> u64 {
    let n = place >> BITS;
    if n <= MAX_CALLS { n } else { 0 }
}
/// The address of a place.
pub(crate) fn pc_of(place: u64) -> u64 {
    if call_of(place) == 0 { place } else { place & ((1 << BITS) - 1) }
}

struct Inlined {
    /// Place where it returns to.
    back: u64,
    depth: u32,
}

/// The calls of a region that were taken in.
#[derive(Default)]
pub(crate) struct Inlines {
    calls: Vec<Inlined>,
    /// Place of the callee by place of the call.
    by_place: Map<u64>,
    insns: usize,
}

impl Inlines {
    /// Take in the callee at `target` of the call at a place, if it is worth it: gives its place.
    pub(crate) fn add(&mut self, at: u64, target: u64, back: u64, opts: &Options, code: &mut Reader) -> Option<u64> {
        let depth = 1 + self.get(call_of(at)).map_or(0, |c| c.depth);
        let left = opts.max_inlined.saturating_sub(self.insns);
        if depth > MAX_DEPTH
            || target >> BITS != 0
            || back >> BITS > MAX_CALLS
            || self.calls.len() as u64 >= MAX_CALLS - KEPT
        {
            return None;
        }
        self.insns += size(target, code).filter(|n| *n <= left)?;
        self.calls.push(Inlined { back, depth });
        let callee = place(self.calls.len() as u64, target);
        self.by_place.insert(at, callee);
        Some(callee)
    }
    fn get(&self, call: u64) -> Option<&Inlined> {
        self.calls.get(usize::try_from(call).ok()?.checked_sub(1)?)
    }
    /// Where what stands at a place returns to, if that is in the region.
    pub(crate) fn way_back(&self, at: u64) -> Option<u64> {
        self.get(call_of(at)).map(|c| c.back)
    }
    /// The callee of the call at a place.
    pub(crate) fn callee(&self, at: u64) -> Option<u64> {
        self.by_place.get(&at).copied()
    }
}

/// Warm instructions of the function at `start` if they are few and jump to known places only.
fn size(start: u64, code: &mut Reader) -> Option<usize> {
    if !code.code.is_warm(start) {
        return None;
    }
    let mut seen = Set::default();
    let mut work = vec![start];
    let (mut calls, mut returns) = (false, false);
    while let Some(mut pc) = work.pop() {
        while seen.insert(pc) {
            let Fetched::Insn(i) = code.decode(pc) else {
                return None;
            };
            calls |= i.is_call_near() || i.is_call_near_indirect();
            returns |= i.mnemonic() == Mnemonic::Ret;
            if seen.len() > SMALL[usize::from(!calls)] || i.is_jmp_near_indirect() || i.mnemonic() == Mnemonic::Syscall
            {
                return None;
            }
            match flow(&i) {
                Flow::Next => pc = i.next_ip(),
                Flow::End(to) => {
                    work.extend(to.into_iter().filter(|t| code.code.is_warm(*t)));
                    break;
                }
            }
        }
    }
    returns.then_some(seen.len())
}
