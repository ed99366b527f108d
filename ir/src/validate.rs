//! The validator: the trust boundary between what makes regions and what runs them.
//!
//! An engine may rely on everything checked here, and on nothing else. The rules on types are
//! [`shapes`] and `inst`; those on variables in promoted regions are in `promotion`.

use crate::passes::cfg::{Cfg, Look, look};
use crate::{Block, Cond, FCond, Inst, Op, Region, Sig, Slot, SlotSet, Term, Type, Value, flags};
use std::fmt;

/// What is wrong with a region, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Invalid {
    /// Block, if it is in one.
    pub block: Option<u32>,
    /// Index of the instruction in the block, if it is in one; the terminator's is the number of instructions.
    pub inst: Option<usize>,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid IR")?;
        if let Some(b) = self.block {
            write!(f, ", block{b}")?;
        }
        if let Some(i) = self.inst {
            write!(f, ", instruction {i}")?;
        }
        write!(f, ": {}", self.what)
    }
}
impl std::error::Error for Invalid {}

use Type::{F32, F32X4, F64, F64X2, I8, I8X16, I16, I16X8, I32, I32X4, I64, I64X2, V128};

const INTS: &[Type] = &[I8, I16, I32, I64];
const FLOATS: &[Type] = &[F32, F64];
const INT_SHAPES: &[Type] = &[I8X16, I16X8, I32X4, I64X2];
const FLOAT_SHAPES: &[Type] = &[F32X4, F64X2];
const ANY_SHAPE: &[Type] = &[I8X16, I16X8, I32X4, I64X2, F32X4, F64X2];

/// The types or shapes that an opcode is defined for; empty if it has none (`ty` is not looked at).
pub fn shapes(op: Op) -> &'static [Type] {
    use Op::*;
    match op {
        Const => &[I8, I16, I32, I64, F32, F64],
        Get | Put | Select | Load | Store => &[I8, I16, I32, I64, F32, F64, V128],
        Add | Sub | Mul | UMulHi | SMulHi | UDiv | URem | SDiv | SRem | And | Or | Xor | Shl | Shr | Sar | Rotl
        | Rotr | Neg | Not | Clz | Ctz | Popcnt | Icmp => INTS,
        AtomicAdd | AtomicAnd | AtomicOr | AtomicXor | AtomicXchg => INTS,
        AtomicCas => &[I8, I16, I32, I64, V128],
        Bswap | Zext | Sext => &[I16, I32, I64],
        Trunc => &[I8, I16, I32],
        Bitcast => &[I32, I64, F32, F64],
        FAdd | FSub | FMul | FDiv | FSqrt | FMinX | FMaxX | FCmp | FComi | CvtIF => FLOATS,
        FPromote => &[F64],
        FDemote => &[F32],
        CvtFI => &[I32, I64],
        VConst | VAnd | VOr | VXor | VAndNot | VSelect => &[V128],
        VAdd | VSub => ANY_SHAPE,
        VMul => &[I16X8, I32X4, F32X4, F64X2],
        VDiv | VSqrt | VFMinX | VFMaxX | VFCmp => FLOAT_SHAPES,
        VAddSatS | VAddSatU | VSubSatS | VSubSatU | VAvgU => &[I8X16, I16X8],
        VMinS | VMinU | VMaxS | VMaxU | VAbs | VSar => &[I8X16, I16X8, I32X4],
        VCmpEq | VCmpGtS | VShl | VShr | VMask => INT_SHAPES,
        Extract | Insert | Splat => ANY_SHAPE,
        Shuffle | VPshufb => &[I8X16],
        VPackS | VPackU => &[I16X8, I32X4],
        VWidenLowS | VWidenLowU => &[I8X16, I16X8, I32X4],
        VCvtIF => &[F32X4],
        Aligned | Whole => &[I64],
        Fence | Call | Marker | Fill | Spill | Keep => &[],
    }
}

/// Check a region.
pub fn validate(r: &Region) -> Result<(), Invalid> {
    let whole = |what: String| Err(Invalid { block: None, inst: None, what });
    if r.layout.slots.len() > 128 {
        return whole(format!("{} slots", r.layout.slots.len()));
    }
    if r.entries.is_empty() {
        return whole("no entry".into());
    }
    for e in &r.entries {
        if e.0 as usize >= r.blocks.len() {
            return whole(format!("entry block{} does not exist", e.0));
        }
    }
    let promotable = r.promotable().0;
    if let Some(n) = r.slot_sets.iter().position(|s| s.0 & !promotable != 0) {
        return whole(format!("slot set {n} has slots that are not promotable"));
    }
    let mut v = Check { r, defined: vec![u32::MAX; r.types.len()], block: 0, at: 0, put: false };
    for b in 0..r.blocks.len() {
        v.block = b as u32;
        v.put = false;
        let data = &r.blocks[b];
        for (n, i) in data.insts.iter().enumerate() {
            v.at = n;
            v.inst(i)?;
        }
        v.at = data.insts.len();
        v.term(&data.term)?;
        if data.poll_spill.0 & !promotable != 0 {
            return v.bad("poll_spill has slots that are not promotable".into());
        }
    }
    loops(r)?;
    promotion(r)
}

struct Check<'a> {
    r: &'a Region,
    /// Block that defines a value.
    defined: Vec<u32>,
    block: u32,
    at: usize,
    /// Whether a slot was written since the guest instruction began.
    put: bool,
}

impl Check<'_> {
    fn bad<T>(&self, what: String) -> Result<T, Invalid> {
        Err(Invalid { block: Some(self.block), inst: Some(self.at), what })
    }
    fn used(&self, v: Value, ty: Type) -> Result<(), Invalid> {
        let Some(t) = self.r.types.get(v.0 as usize) else {
            return self.bad(if v.is_some() {
                format!("v{} does not exist", v.0)
            } else {
                format!("an operand of type {} is missing", ty.name())
            });
        };
        if self.defined[v.0 as usize] != self.block {
            return self.bad(format!("v{} is used but not defined before in its block", v.0));
        }
        if *t != ty {
            return self.bad(format!("v{} is {}, not {}", v.0, t.name(), ty.name()));
        }
        Ok(())
    }
    fn operands(&self, i: &Inst, types: &[Type]) -> Result<(), Invalid> {
        for (n, v) in [i.a, i.b, i.c].into_iter().enumerate() {
            match types.get(n) {
                Some(t) => self.used(v, *t)?,
                None if v.is_some() => {
                    return self.bad(format!("v{} is one operand too many", v.0));
                }
                None => {}
            }
        }
        Ok(())
    }
    fn index(&self, imm: i64, len: usize, what: &str) -> Result<usize, Invalid> {
        match usize::try_from(imm) {
            Ok(n) if n < len => Ok(n),
            _ => self.bad(format!("{what} {imm} does not exist")),
        }
    }

    fn inst(&mut self, i: &Inst) -> Result<(), Invalid> {
        let allowed = shapes(i.op);
        if !allowed.is_empty() && !allowed.contains(&i.ty) {
            return self.bad(format!("{} is not defined for {}", i.op.name(), i.ty.name()));
        }
        let (t, r) = (i.ty, self.r);
        let mut result = i.op.result(t);
        match i.op.sig() {
            Sig::Const | Sig::Fence | Sig::Marker => self.operands(i, &[])?,
            Sig::VConst => {
                self.operands(i, &[])?;
                self.index(i.imm, r.pool.len(), "constant")?;
            }
            Sig::Get | Sig::Put => {
                let n = self.index(i.imm, r.layout.slots.len(), "slot")?;
                let info = r.layout.get(Slot(n as u16));
                if info.ty != t {
                    return self.bad(format!("slot {} is {}", info.name, info.ty.name()));
                }
                let put = i.op == Op::Put;
                self.operands(i, if put { std::slice::from_ref(&i.ty) } else { &[] })?;
            }
            Sig::Un if t.is_shape() => self.operands(i, &[V128])?,
            Sig::Un => self.operands(i, &[t])?,
            Sig::Bin if t.is_shape() => self.operands(i, &[V128, V128])?,
            Sig::Bin => self.operands(i, &[t, t])?,
            Sig::Cmp => {
                self.operands(i, &[t, t])?;
                self.index(i.imm, Cond::ALL.len(), "condition")?;
            }
            Sig::FCmp => {
                self.operands(i, &[t, t])?;
                self.index(i.imm, FCond::ALL.len(), "condition")?;
            }
            Sig::VFCmp => {
                self.operands(i, &[V128, V128])?;
                self.index(i.imm, FCond::ALL.len(), "condition")?;
            }
            Sig::Select => self.operands(i, &[I8, t, t])?,
            Sig::Conv => {
                let n = self.index(i.imm, Type::ALL.len(), "type")?;
                let from = Type::ALL[n];
                self.operands(i, &[from])?;
                let fits = match i.op {
                    Op::Zext | Op::Sext => from.is_int() && from.bits() < t.bits(),
                    Op::Trunc => from.is_int() && from.bits() > t.bits(),
                    Op::Bitcast => from != t && from.bits() == t.bits() && from.is_int() != t.is_int(),
                    Op::FPromote => from == F32,
                    Op::FDemote => from == F64,
                    Op::CvtIF => matches!(from, I32 | I64),
                    _ => matches!(from, F32 | F64),
                };
                if !fits {
                    return self.bad(format!("{} from {} to {}", i.op.name(), from.name(), t.name()));
                }
            }
            Sig::Load => self.operands(i, &[I64])?,
            Sig::Align => {
                self.operands(i, &[I64])?;
                let fits = i.op == Op::Whole || (i.imm as u64).is_power_of_two();
                if !(1..=4096).contains(&i.imm) || !fits {
                    return self.bad(format!("{} is no size for {}", i.imm, i.op.name()));
                }
            }
            Sig::Store | Sig::Rmw => self.operands(i, &[I64, t])?,
            Sig::Cas => self.operands(i, &[I64, t, t])?,
            Sig::Extract => {
                self.operands(i, &[V128])?;
                self.index(i.imm, (16 / t.lane().bytes()) as usize, "lane")?;
            }
            Sig::Insert => {
                self.operands(i, &[V128, t.lane()])?;
                self.index(i.imm, (16 / t.lane().bytes()) as usize, "lane")?;
            }
            Sig::Splat => self.operands(i, &[t.lane()])?,
            Sig::VShift => self.operands(i, &[V128, I32])?,
            Sig::Shuffle => {
                self.operands(i, &[V128, V128])?;
                self.index(i.imm, r.pool.len(), "constant")?;
            }
            Sig::VSelect => self.operands(i, &[V128, V128, V128])?,
            Sig::VMask => self.operands(i, &[V128])?,
            Sig::Call => {
                self.operands(i, &[])?;
                let n = self.index(i.imm, r.calls.len(), "call")?;
                let c = &r.calls[n];
                let n = self.index(i64::from(c.helper), r.helpers.len(), "helper")?;
                let h = &r.helpers[n];
                result = h.ret;
                let (ni, nv) = (usize::from(h.ints), usize::from(h.vecs));
                if c.args.len() != ni + nv {
                    return self.bad(format!("{} arguments for {}", c.args.len(), h.name));
                }
                for (n, v) in c.args.iter().enumerate() {
                    self.used(*v, if n < ni { I64 } else { V128 })?;
                }
            }
            Sig::Fill | Sig::Spill => {
                self.operands(i, &[])?;
                self.index(i.imm, r.slot_sets.len(), "slot set")?;
            }
        }
        if i.op.flags() & (flags::READ | flags::WRITE) != 0 {
            if i32::try_from(i.imm).is_err() {
                return self.bad(format!("displacement {:#x} is too large", i.imm));
            }
            if self.put {
                return self.bad("an access that may fault after a put of its instruction".into());
            }
        }
        match i.op {
            Op::Marker => self.put = false,
            Op::Put => self.put = true,
            _ => {}
        }
        self.result(i, result)
    }

    fn result(&mut self, i: &Inst, ty: Option<Type>) -> Result<(), Invalid> {
        let Some(ty) = ty else {
            return if i.dst.is_some() { self.bad(format!("{} has no result", i.op.name())) } else { Ok(()) };
        };
        let n = i.dst.0 as usize;
        match self.r.types.get(n) {
            None => self.bad(format!("result of {} is missing", i.op.name())),
            Some(t) if *t != ty => self.bad(format!("v{n} is {}, its definition {}", t.name(), ty.name())),
            Some(_) if self.defined[n] != u32::MAX => self.bad(format!("v{n} is defined twice")),
            Some(_) => {
                self.defined[n] = self.block;
                Ok(())
            }
        }
    }

    fn target(&self, b: Block) -> Result<(), Invalid> {
        if b.0 as usize >= self.r.blocks.len() {
            return self.bad(format!("block{} does not exist", b.0));
        }
        Ok(())
    }
    fn term(&self, t: &Term) -> Result<(), Invalid> {
        match t {
            Term::Br(v, ..) => self.used(*v, I8)?,
            Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) => self.used(*v, I64)?,
            Term::Call { target, .. } => self.used(*target, I64)?,
            Term::Jump(_) | Term::Service { .. } | Term::Raise { .. } => {}
        }
        let mut all = Ok(());
        t.for_each_target(|b| {
            if all.is_ok() {
                all = self.target(b);
            }
        });
        all?;
        t.cont().map_or(Ok(()), |b| self.target(b))
    }
}

/// Every cycle of jumps goes through a loop header, so that a poll ends it.
fn loops(r: &Region) -> Result<(), Invalid> {
    let n = r.blocks.len();
    // Most small regions only jump forward, or to headers.
    let mut forward = true;
    for (b, data) in r.blocks.iter().enumerate() {
        data.term.for_each_target(|t| forward &= t.0 as usize > b || r.blocks[t.0 as usize].loop_header);
    }
    if forward {
        return Ok(());
    }
    // 0 not seen, 1 being visited, 2 done
    let mut state = vec![0u8; n];
    let mut succ: Vec<Vec<u32>> = vec![vec![]; n];
    for (b, data) in r.blocks.iter().enumerate() {
        data.term.for_each_target(|t| {
            if !r.blocks[t.0 as usize].loop_header {
                succ[b].push(t.0);
            }
        });
    }
    let mut stack: Vec<(usize, usize)> = vec![];
    for start in 0..n {
        if state[start] != 0 {
            continue;
        }
        state[start] = 1;
        stack.push((start, 0));
        while let Some((b, next)) = stack.last_mut() {
            match succ[*b].get(*next) {
                Some(t) => {
                    *next += 1;
                    let t = *t as usize;
                    if state[t] == 1 {
                        let what = "a loop without a header".into();
                        return Err(Invalid { block: Some(t as u32), inst: None, what });
                    }
                    if state[t] == 0 {
                        state[t] = 1;
                        stack.push((t, 0));
                    }
                }
                None => {
                    state[*b] = 2;
                    stack.pop();
                }
            }
        }
    }
    Ok(())
}

/// In a region with fills or spills, variables are stored before anything that reads all state, and read
/// only where they have a value.
fn promotion(r: &Region) -> Result<(), Invalid> {
    // Every fill and spill names one of the region's slot sets.
    let promoted = !r.slot_sets.is_empty() || r.blocks.iter().any(|b| b.poll_spill.0 != 0);
    if !promoted {
        return Ok(());
    }
    let cfg = &Cfg::new(r);
    let all = r.promotable().0;
    let n = r.blocks.len();
    // (dirty, has a value) at the start of blocks; what is unreached has every value.
    let mut at: Vec<(u128, u128)> = vec![(0, all); n];
    for b in 0..n {
        if cfg.fresh[b] {
            at[b].1 = 0;
        }
    }
    loop {
        let mut changed = false;
        for b in &cfg.rpo {
            let b = *b as usize;
            let mut s = at[b];
            for i in &r.blocks[b].insts {
                flow(r, i, all, &mut s);
            }
            r.blocks[b].term.for_each_target(|t| {
                let t = &mut at[t.0 as usize];
                let new = (t.0 | s.0, t.1 & s.1);
                changed |= new != *t;
                *t = new;
            });
        }
        if !changed {
            break;
        }
    }
    for b in &cfg.rpo {
        let b = *b as usize;
        let data = &r.blocks[b];
        let mut s = at[b];
        let bad = |n: Option<usize>, slots: u128, what: &str| {
            let names: Vec<_> = SlotSet(slots).iter().map(|s| r.layout.get(s).name).collect();
            let what = format!("{what}: {}", names.join(" "));
            Err(Invalid { block: Some(b as u32), inst: n, what })
        };
        const UNKNOWN: &str = "variables without a value are read";
        const DIRTY: &str = "variables are not spilled";
        if data.loop_header && s.0 & !data.poll_spill.0 != 0 {
            return bad(None, s.0 & !data.poll_spill.0, DIRTY);
        }
        if data.poll_spill.0 & !s.1 != 0 {
            return bad(None, data.poll_spill.0 & !s.1, UNKNOWN);
        }
        for (n, i) in data.insts.iter().enumerate() {
            let read = match i.op {
                Op::Get => bit(i, all),
                Op::Spill | Op::Keep => r.slot_sets[i.imm as usize].0,
                _ => 0,
            };
            if read & !s.1 != 0 {
                return bad(Some(n), read & !s.1, UNKNOWN);
            }
            if i.op == Op::Fill && r.slot_sets[i.imm as usize].0 & s.0 != 0 {
                return bad(Some(n), r.slot_sets[i.imm as usize].0 & s.0, "written variables are filled");
            }
            if matches!(look(r, i, false), Look::Read | Look::ReadWrite) && s.0 != 0 {
                return bad(Some(n), s.0, DIRTY);
            }
            flow(r, i, all, &mut s);
        }
        if data.term.leaves() && s.0 != 0 {
            return bad(Some(data.insts.len()), s.0, DIRTY);
        }
    }
    Ok(())
}

fn bit(i: &Inst, all: u128) -> u128 {
    u32::try_from(i.imm).ok().and_then(|s| 1u128.checked_shl(s)).unwrap_or(0) & all
}

/// (dirty, has a value) after an instruction.
fn flow(r: &Region, i: &Inst, all: u128, (dirty, value): &mut (u128, u128)) {
    match i.op {
        Op::Put => {
            *dirty |= bit(i, all);
            *value |= bit(i, all);
        }
        Op::Fill => {
            let s = r.slot_sets[i.imm as usize].0;
            *dirty &= !s;
            *value |= s;
        }
        Op::Spill => *dirty &= !r.slot_sets[i.imm as usize].0,
        // What was not filled again is no longer what the state holds.
        _ if look(r, i, false) == Look::ReadWrite => *value = 0,
        _ => {}
    }
}
