//! Where indirect jumps and calls go: through tables, where they went before, through procedure linkage stubs.
//!
//! All of it is a guess that decides what belongs to a region; what runs goes where the guest's memory says.

use crate::decode::{Fetched, Reader};
use crate::discover::{Discovery, Found, Guests};
use crate::{inline, table};
use iced_x86::{Instruction, Mnemonic};

/// Most places that an indirect jump is followed to.
const MAX_TARGETS: usize = 256;

impl Discovery<'_, '_> {
    /// The place of a callee that becomes part of the region, of the call at `at` if it is one.
    pub fn callee(&mut self, i: &Instruction, at: u64, to: &[u64]) -> Option<u64> {
        if !i.is_call_near() && !i.is_call_near_indirect() || self.opts.bits != 64 {
            return None;
        }
        let target = if i.is_call_near_indirect() {
            let targets = self.code.code.targets(i.ip());
            self.known.targets.insert(i.ip(), targets.clone());
            match targets[..] {
                [t] => t,
                _ => return None,
            }
        } else {
            let target = i.near_branch_target();
            let stub = self.known.stubs.entry(target).or_insert_with(|| stub(target, self.code));
            stub.as_ref().map_or(target, |s| s.target)
        };
        // It pays only where the way back is in the region.
        let back = inline::place(inline::call_of(at), i.next_ip());
        if !to.contains(&back) {
            return None;
        }
        self.known.inlines.add(at, target, back, self.opts, self.code)
    }
    /// Where an indirect jump may go.
    pub fn indirect(&mut self, i: &Instruction, at: u64) -> Vec<u64> {
        let cases = self.cases(i, at);
        if cases.len() > 1 {
            self.known.tables.insert(i.ip(), cases.clone());
            return cases;
        }
        let mut targets = self.code.code.targets(i.ip());
        targets.retain(|t| self.code.code.is_warm(*t));
        // A jump that goes anywhere is that of a procedure linkage table or of a tail call.
        targets.truncate(MAX_TARGETS);
        self.known.targets.insert(i.ip(), targets.clone());
        targets
    }
    /// Where an indirect jump through a table goes, if it looks like one.
    fn cases(&mut self, jump: &Instruction, mut at: u64) -> Vec<u64> {
        let back = std::iter::from_fn(|| {
            at = *self.before.get(&at)?;
            self.seen.get(&at).copied()
        });
        let Some(t) = table::find(jump, back) else {
            return vec![];
        };
        let near = |pc: u64| pc.abs_diff(jump.ip()) < 1 << 24;
        let mut read = |addr: u64, buf: &mut [u8]| self.code.code.read(addr, buf);
        table::targets(&t, self.opts.bits, &mut read, near)
    }
}

/// A procedure linkage stub: `[endbr64;] [bnd] jmp [rip + d]`.
#[derive(Clone, Copy)]
pub(crate) struct Stub {
    pub pc: u64,
    pub len: u32,
    pub pointer: u64,
    /// Where it went, or what the pointer holds now: a guess for later. 0: none.
    pub target: u64,
}

/// The stub at an address, if it is one.
fn stub(pc: u64, code: &mut Reader) -> Option<Stub> {
    let mut at = pc;
    for _ in 0..2 {
        let Fetched::Insn(i) = code.decode(at) else {
            return None;
        };
        at = i.next_ip();
        if i.mnemonic() == Mnemonic::Endbr64 {
            continue;
        }
        if !i.is_jmp_near_indirect() || !i.is_ip_rel_memory_operand() {
            return None;
        }
        let pointer = i.ip_rel_memory_address();
        let target = match code.code.targets(i.ip())[..] {
            [t] => t,
            _ => pointee(pointer, pc, code),
        };
        return Some(Stub { pc, len: (at - pc) as u32, pointer, target });
    }
    None
}

/// What the pointer of the stub at `pc` holds; 0 if that is no code, or the stub's own for the first call.
fn pointee(pointer: u64, pc: u64, code: &mut Reader) -> u64 {
    let mut now = [0; 8];
    code.code.read(pointer, &mut now);
    let now = u64::from_le_bytes(now);
    let is_code = matches!(code.decode(now), Fetched::Insn(_)) && now.wrapping_sub(pc) >= 16;
    if is_code { now } else { 0 }
}

/// Note which callees of a region only jump through a pointer.
pub(crate) fn stubs(guest: &Guests, code: &mut Reader, known: &mut Found) {
    let last = guest.values().filter_map(|g| g.insns.last());
    for i in last.filter(|i| i.is_call_near()) {
        let pc = i.near_branch_target();
        known.stubs.entry(pc).or_insert_with(|| stub(pc, code));
    }
}
