//! Control flow as the passes need it, and what an instruction does to state as a whole.

use crate::{Block, Effects, Inst, Op, Region, SlotSet, Term, Value, flags};

impl Term {
    /// Blocks this may go to inside the region with variables as they are (not the `cont` of calls and services, which
    /// is entered with all state in its slots).
    pub fn for_each_target(&self, mut f: impl FnMut(Block)) {
        match self {
            Term::Jump(b) => f(*b),
            Term::Br(_, a, b) => {
                f(*a);
                f(*b);
            }
            Term::Switch(_, table, default) => {
                table.iter().copied().for_each(&mut f);
                f(*default);
            }
            Term::Exit(_) | Term::Return(_) | Term::Call { .. } | Term::Service { .. } | Term::Raise { .. } => {}
        }
    }
    /// The same, to be changed.
    pub fn for_each_target_mut(&mut self, mut f: impl FnMut(&mut Block)) {
        match self {
            Term::Jump(b) => f(b),
            Term::Br(_, a, b) => {
                f(a);
                f(b);
            }
            Term::Switch(_, table, default) => {
                table.iter_mut().for_each(&mut f);
                f(default);
            }
            Term::Exit(_) | Term::Return(_) | Term::Call { .. } | Term::Service { .. } | Term::Raise { .. } => {}
        }
    }
    /// Where a call or service goes on.
    pub fn cont(&self) -> Option<Block> {
        match self {
            Term::Call { cont, .. } | Term::Service { cont, .. } => *cont,
            _ => None,
        }
    }
    /// The value it uses.
    pub fn operand(&self) -> Option<Value> {
        match self {
            Term::Br(v, ..) | Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) => Some(*v),
            Term::Call { target, .. } => Some(*target),
            Term::Jump(_) | Term::Service { .. } | Term::Raise { .. } => None,
        }
    }
    /// The value it uses, to be changed.
    pub fn operand_mut(&mut self) -> Option<&mut Value> {
        match self {
            Term::Br(v, ..) | Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) => Some(v),
            Term::Call { target, .. } => Some(target),
            Term::Jump(_) | Term::Service { .. } | Term::Raise { .. } => None,
        }
    }
    /// Whether it hands state over to the engine or the runtime.
    pub fn leaves(&self) -> bool {
        !matches!(self, Term::Jump(_) | Term::Br(..) | Term::Switch(..))
    }
}

impl Region {
    /// The values an instruction uses.
    pub fn for_each_operand(&self, i: &Inst, mut f: impl FnMut(Value)) {
        if i.op == Op::Call {
            if let Some(c) = usize::try_from(i.imm).ok().and_then(|n| self.calls.get(n)) {
                c.args.iter().copied().for_each(f);
            }
        } else {
            for v in [i.a, i.b, i.c] {
                if v.is_some() {
                    f(v);
                }
            }
        }
    }
    /// What the helper of a call touches, and whether it may raise. A call that is not valid touches all.
    pub fn call_effects(&self, i: &Inst) -> (Effects, bool) {
        usize::try_from(i.imm)
            .ok()
            .and_then(|n| self.calls.get(n))
            .and_then(|c| self.helpers.get(usize::from(c.helper)))
            .map_or((Effects::All, true), |h| (h.effects, h.raises))
    }
    /// The slots that may be kept in variables.
    pub(crate) fn promotable(&self) -> SlotSet {
        let mut s = SlotSet::default();
        for (n, _) in self.layout.slots.iter().enumerate().filter(|(_, i)| i.promote).take(128) {
            s.insert(crate::Slot(n as u16));
        }
        s
    }
}

/// How an instruction looks at state as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Look {
    /// Not at all, except for the slot of a `get` or `put`.
    No,
    /// It may read all slots (an exit is possible).
    Read,
    /// It may read and write all slots.
    ReadWrite,
    /// It may read and write slots that are never promoted.
    Private,
}

/// See [`Look`]; in precise regions an access that may fault reads all.
pub(crate) fn look(r: &Region, i: &Inst, precise: bool) -> Look {
    if i.op == Op::Call {
        match r.call_effects(i) {
            (Effects::All, _) => Look::ReadWrite,
            (_, true) => Look::Read,
            (Effects::Private, _) => Look::Private,
            (Effects::Pure, _) => Look::No,
        }
    } else if precise && i.op.flags() & (flags::READ | flags::WRITE) != 0 {
        Look::Read
    } else {
        Look::No
    }
}

/// Predecessors by block, and an order of blocks.
pub(crate) struct Cfg {
    /// Blocks in reverse postorder; those that cannot be reached are not in it.
    pub rpo: Vec<u32>,
    /// Whether a block is entered with all state in its slots: an entry or the `cont` of a call.
    pub fresh: Vec<bool>,
    /// Whether a block is the target of a jump inside the region.
    pub inner: Vec<bool>,
}

impl Cfg {
    /// Of a region (targets outside it are ignored).
    pub fn new(r: &Region) -> Cfg {
        let n = r.blocks.len();
        let mut c = Cfg { rpo: Vec::with_capacity(n), fresh: vec![false; n], inner: vec![false; n] };
        let mut succ: Vec<Vec<u32>> = vec![vec![]; n];
        for (b, data) in r.blocks.iter().enumerate() {
            data.term.for_each_target(|t| {
                if (t.0 as usize) < n {
                    succ[b].push(t.0);
                    c.inner[t.0 as usize] = true;
                }
            });
            if let Some(t) = data.term.cont()
                && (t.0 as usize) < n
            {
                succ[b].push(t.0);
                c.fresh[t.0 as usize] = true;
            }
        }
        let mut seen = vec![false; n];
        let mut stack: Vec<(u32, usize)> = vec![];
        for e in &r.entries {
            let e = e.0 as usize;
            if e >= n {
                continue;
            }
            c.fresh[e] = true;
            if std::mem::replace(&mut seen[e], true) {
                continue;
            }
            stack.push((e as u32, 0));
            while let Some((b, next)) = stack.last_mut() {
                if let Some(t) = succ[*b as usize].get(*next) {
                    *next += 1;
                    if !std::mem::replace(&mut seen[*t as usize], true) {
                        stack.push((*t, 0));
                    }
                } else {
                    c.rpo.push(*b);
                    stack.pop();
                }
            }
        }
        c.rpo.reverse();
        c
    }
}
