//! Region discovery: which basic blocks a region has, and in which order.
//!
//! It decodes from the entries along direct jumps, conditional branches and returns of calls, up to a bound; edges past the bound, to code
//! that is cold, and to code that cannot be fetched leave the region. Streams of instructions are followed first; then
//! they are cut into blocks at the *leaders*, the places where something jumps to.
//!
//! Blocks are named by *places*: see [`crate::inline`]. What is known of indirect jumps and stubs is by address, as it is the same
//! wherever the code stands.

use crate::decode::{Fetched, Flow, Reader, flow};
use crate::hash::{Map, Set};
use crate::indirect::Stub;
use crate::inline::{self, Inlines};
use crate::region::Options;
use crate::table;
use iced_x86::{Instruction, Mnemonic, OpKind};
use std::collections::{BTreeMap, VecDeque};

/// A guest basic block: where it starts, its instructions, and where control goes.
pub(crate) struct Guest {
    pub insns: Vec<Instruction>,
    pub succs: Vec<u64>,
}

/// Blocks by place.
pub(crate) type Guests = BTreeMap<u64, Guest>;

/// What discovery knows beside the blocks.
#[derive(Default)]
pub(crate) struct Found {
    /// Cases of indirect jumps through tables.
    pub tables: Map<Vec<u64>>,
    /// Where other indirect jumps and calls went.
    pub targets: Map<Vec<u64>>,
    pub inlines: Inlines,
    /// A jump of those that share a switch, by the switch's place.
    pub switches: Map<Instruction>,
    pub stubs: Map<Option<Stub>>,
}

/// The basic block at `entry`, at most `most` instructions of it.
pub(crate) fn one_block(entry: u64, code: &mut Reader, most: usize) -> Guests {
    let mut g = Guest { insns: Vec::with_capacity(most.min(8)), succs: vec![] };
    let mut pc = entry;
    while g.insns.len() < most {
        let Fetched::Insn(i) = code.decode(pc) else {
            break;
        };
        g.insns.push(i);
        if i.is_invalid() || matches!(flow(&i), Flow::End(_)) {
            break;
        }
        pc = i.next_ip();
    }
    BTreeMap::from([(entry, g)])
}

/// Discovery at work.
pub(crate) struct Discovery<'a, 'c> {
    pub opts: &'a Options,
    pub code: &'a mut Reader<'c>,
    pub known: &'a mut Found,
    pub seen: Map<Instruction>,
    /// The instruction that falls through to a place.
    pub before: Map<u64>,
    leaders: Set,
    work: VecDeque<u64>,
    /// Where the instruction that ends a block goes.
    ends: Map<Vec<u64>>,
    cold: Set,
    taken: Set,
    /// What may have been left out because of a bound.
    missed: Set,
}

/// The blocks that direct jumps reach from the entries, and the addresses that are left out because they are cold or past a bound.
pub(crate) fn discover(entries: &[u64], opts: &Options, code: &mut Reader, known: &mut Found) -> (Guests, Set) {
    let mut d = Discovery {
        opts,
        code,
        known,
        seen: Map::default(),
        before: Map::default(),
        leaders: Set::default(),
        work: VecDeque::new(),
        ends: Map::default(),
        cold: Set::default(),
        taken: Set::default(),
        missed: Set::default(),
    };
    for e in entries {
        if d.leaders.insert(*e) {
            d.work.push_back(*e);
        }
    }
    while let Some(start) = d.work.pop_front() {
        d.follow(start);
    }
    let guest = d.blocks();
    let Discovery { seen, mut cold, taken, missed, .. } = d;
    cold.retain(|p| !taken.contains(p));
    cold.extend(missed.into_iter().filter(|p| !seen.contains_key(p) && inline::call_of(*p) == 0));
    (guest, cold)
}

impl Discovery<'_, '_> {
    /// Follow the stream of instructions at `start` to where it ends or joins another.
    fn follow(&mut self, start: u64) {
        let call = inline::call_of(start);
        let most = self.opts.block_insns;
        let mut at = start;
        let mut first = start;
        let mut insns = 0;
        loop {
            if self.seen.contains_key(&at) {
                // Two streams meet: what follows is shared.
                if at != start {
                    self.leaders.insert(at);
                }
                break;
            }
            if self.seen.len() >= self.opts.max_insns && (most == 0 || at == first) {
                break;
            }
            if most > 0 {
                if self.leaders.contains(&at) {
                    (first, insns) = (at, 0);
                } else if insns == most {
                    if !self.cut(at) {
                        break;
                    }
                    (first, insns) = (at, 0);
                    continue;
                }
                insns += 1;
            }
            let Fetched::Insn(i) = self.code.decode(inline::pc_of(at)) else {
                break;
            };
            self.seen.insert(at, i);
            let next = inline::place(call, i.next_ip());
            self.before.entry(next).or_insert(at);
            if i.is_invalid() {
                break;
            }
            if let Flow::End(to) = flow(&i) {
                self.end(&i, at, to);
                break;
            }
            at = next;
        }
    }
    /// A block of straight code has as many instructions as it may have: whether another begins at `at`.
    fn cut(&mut self, at: u64) -> bool {
        let pc = inline::pc_of(at);
        if inline::call_of(at) == 0 && !self.code.code.is_taken(pc) {
            self.missed.insert(at);
        }
        let goes_on =
            self.leaders.len() < self.opts.max_blocks && !self.code.code.is_taken(pc) && self.code.code.is_warm(pc);
        if goes_on {
            self.leaders.insert(at);
        }
        goes_on
    }
    /// The instruction at a place ends its block; `to`: addresses that it goes to directly.
    fn end(&mut self, i: &Instruction, at: u64, mut to: Vec<u64>) {
        let call = inline::call_of(at);
        if i.is_jmp_near_indirect() {
            to.extend(self.indirect(i, at));
            to.sort_unstable();
            to.dedup();
        }
        to.retain(|t| {
            if self.leaders.contains(&inline::place(call, *t)) {
                return true;
            }
            if self.code.code.is_taken(*t) {
                self.taken.insert(*t);
                return false;
            }
            let warm = self.code.code.is_warm(*t);
            if !warm && call == 0 {
                self.cold.insert(*t);
            }
            warm
        });
        let mut to: Vec<u64> = to.into_iter().map(|t| inline::place(call, t)).collect();
        if let Some(callee) = self.callee(i, at, &to) {
            to.push(callee);
        }
        for t in &to {
            if self.leaders.len() < self.opts.max_blocks && self.leaders.insert(*t) {
                self.work.push_back(*t);
            }
        }
        if call == 0 {
            self.missed.extend(to.iter().copied());
        }
        self.ends.insert(at, to);
    }
    /// Cut the streams into blocks.
    fn blocks(&self) -> Guests {
        let mut guest = BTreeMap::new();
        for l in self.leaders.iter().copied().filter(|l| self.seen.contains_key(l)) {
            let mut g = Guest { insns: vec![], succs: vec![] };
            let mut at = l;
            while let Some(i) = self.seen.get(&at) {
                if at != l && self.leaders.contains(&at) {
                    g.succs.push(at);
                    break;
                }
                g.insns.push(*i);
                if i.is_invalid() {
                    break;
                }
                if matches!(flow(i), Flow::End(_)) {
                    g.succs = self.ends.get(&at).cloned().unwrap_or_default();
                    if i.mnemonic() == Mnemonic::Ret {
                        g.succs.extend(self.known.inlines.way_back(at));
                    }
                    break;
                }
                at = inline::place(inline::call_of(l), i.next_ip());
            }
            g.succs.retain(|s| self.leaders.contains(s) && self.seen.contains_key(s));
            guest.insert(l, g);
        }
        guest
    }
}

/// Jumps through one register that share a switch, at least.
const SHARED: usize = 4;

/// Many indirect jumps of one region through one register, as in an interpreter, share a switch: with one of its own for
/// each there would be as many edges as the product of their numbers. The switch is a block that is no code of the guest.
///
/// Gives where the switches go.
pub(crate) fn share_switches(guest: &mut Guests, known: &mut Found) -> Vec<u64> {
    let mut sites: Map<Vec<u64>> = Map::default();
    for (at, g) in guest.iter().filter(|g| inline::call_of(*g.0) == 0) {
        let Some(i) = g.insns.last().filter(|i| i.is_jmp_near_indirect() && i.op_kind(0) == OpKind::Register) else {
            continue;
        };
        if !known.tables.contains_key(&i.ip()) && g.succs.len() > table::FEW {
            let register = i.op_register(0).full_register().number();
            sites.entry(register as u64).or_default().push(*at);
        }
    }
    let mut all: Vec<u64> = known.targets.values().flatten().copied().filter(|t| guest.contains_key(t)).collect();
    all.sort_unstable();
    all.dedup();
    sites.retain(|_, s| s.len() >= SHARED);
    if sites.is_empty() {
        return vec![];
    }
    for (register, sites) in sites {
        let place = inline::switch_place(register);
        for at in sites {
            let Some(g) = guest.get_mut(&at) else { continue };
            g.succs = vec![place];
            if let Some(i) = g.insns.last() {
                known.switches.entry(place).or_insert(*i);
            }
        }
        guest.insert(place, Guest { insns: vec![], succs: all.clone() });
    }
    all
}

/// Reverse post-order from the entries, and the targets of back edges.
pub(crate) fn order(guest: &Guests, entries: &[u64]) -> (Vec<u64>, Set) {
    let mut post = vec![];
    let mut headers = Set::default();
    let mut done: Set = Set::default();
    let mut open: Set = Set::default();
    for e in entries.iter().rev() {
        if !done.insert(*e) {
            continue;
        }
        open.insert(*e);
        let mut stack = vec![(*e, 0usize)];
        while let Some((pc, next)) = stack.last_mut() {
            // Later successors first: then the fall-through is laid out right behind its block.
            let succs = &guest[pc].succs;
            if *next < succs.len() {
                let s = succs[succs.len() - 1 - *next];
                *next += 1;
                if open.contains(&s) {
                    headers.insert(s);
                } else if done.insert(s) {
                    open.insert(s);
                    stack.push((s, 0));
                }
            } else {
                open.remove(pc);
                post.push(*pc);
                stack.pop();
            }
        }
    }
    post.reverse();
    (post, headers)
}
