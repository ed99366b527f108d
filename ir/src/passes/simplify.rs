//! One forward walk per block: values of slots that are known are not read again, constants are folded,
//! operations simplified, equal ones merged, and additions of constants moved into displacements.
//! What becomes unused stays for [`super::dead_code`].

use super::fold;
use crate::{Cond, Effects, Inst, Op, Region, Sig, Term, Type, Value};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// Simplify every block. Not for promoted regions.
pub fn simplify(r: &mut Region) {
    // The table's memory is used again by the next region of this thread.
    thread_local! { static SEEN: std::cell::Cell<Seen> = std::cell::Cell::default(); }
    let n = r.types.len();
    let mut s = Simplify {
        map: (0..n as u32).map(Value).collect(),
        def: vec![u32::MAX; n],
        out: Vec::new(),
        known: vec![None; r.layout.slots.len()],
        touched: Vec::new(),
        seen: SEEN.take(),
        r,
    };
    for b in 0..s.r.blocks.len() {
        s.block(b);
    }
    if s.seen.capacity() < 1 << 12 {
        SEEN.set(s.seen);
    }
}

type Seen = HashMap<Key, Value, BuildHasherDefault<Mix>>;

/// Multiplicative hash of words; the keys are small integers.
#[derive(Default)]
struct Mix(u64);
impl Hasher for Mix {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.write_u64(u64::from(*b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.0 = (self.0.rotate_left(5) ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    fn write_u32(&mut self, v: u32) {
        self.write_u64(u64::from(v));
    }
    fn write_i64(&mut self, v: i64) {
        self.write_u64(v as u64);
    }
    fn write_u8(&mut self, v: u8) {
        self.write_u64(u64::from(v));
    }
}

type Key = (u32, u32, u32, u32, i64);

struct Simplify<'a> {
    r: &'a mut Region,
    /// What a value is replaced by.
    map: Vec<Value>,
    /// Index in `out` of the instruction that defines a value of this block.
    def: Vec<u32>,
    out: Vec<Inst>,
    /// Value that a slot holds.
    known: Vec<Option<Value>>,
    touched: Vec<usize>,
    seen: Seen,
}

/// What an operation comes down to.
enum To {
    Value(Value),
    Const(u64),
    Inst(Inst),
}

fn key(i: &Inst) -> Key {
    (i.op as u32 | (i.ty as u32) << 8, i.a.0, i.b.0, i.c.0, i.imm)
}
fn commutes(op: Op) -> bool {
    use Op::*;
    matches!(op, Add | Mul | UMulHi | SMulHi | And | Or | Xor | VAnd | VOr | VXor | VCmpEq)
}
fn cond(i: &Inst) -> Option<Cond> {
    usize::try_from(i.imm).ok().and_then(|n| Cond::ALL.get(n)).copied()
}
fn from_type(i: &Inst) -> Type {
    usize::try_from(i.imm).ok().and_then(|n| Type::ALL.get(n)).copied().unwrap_or(Type::I8)
}

impl Simplify<'_> {
    fn block(&mut self, b: usize) {
        let insts = std::mem::take(&mut self.r.blocks[b].insts);
        self.out = Vec::with_capacity(insts.len());
        self.forget(|_| true);
        self.seen.clear();
        for i in &insts {
            self.inst(*i);
        }
        let mut term = std::mem::replace(&mut self.r.blocks[b].term, Term::Jump(crate::Block(0)));
        if let Some(v) = term.operand_mut() {
            *v = self.resolve(*v);
        }
        self.r.blocks[b].term = self.term(term);
        self.r.blocks[b].insts = std::mem::take(&mut self.out);
    }

    fn resolve(&self, v: Value) -> Value {
        self.map.get(v.0 as usize).copied().unwrap_or(v)
    }
    fn forget(&mut self, hit: impl Fn(usize) -> bool) {
        let known = &mut self.known;
        self.touched.retain(|s| {
            let h = hit(*s);
            if h {
                known[*s] = None;
            }
            !h
        });
    }
    fn def(&self, v: Value) -> Option<&Inst> {
        self.out.get(*self.def.get(v.0 as usize)? as usize).filter(|i| i.dst == v)
    }
    /// The definition of a value if it is by this opcode.
    fn def_op(&self, v: Value, op: Op) -> Option<&Inst> {
        self.def(v).filter(|i| i.op == op)
    }
    fn konst(&self, v: Value) -> Option<u64> {
        self.def_op(v, Op::Const).map(|i| i.imm as u64 & fold::mask(i.ty))
    }
    fn push(&mut self, i: Inst) {
        if let Some(d) = self.def.get_mut(i.dst.0 as usize) {
            *d = self.out.len() as u32;
        }
        self.out.push(i);
    }
    /// A constant as an instruction before the one at hand.
    fn iconst(&mut self, ty: Type, v: u64) -> Value {
        let none = Value::NONE;
        let mut i = Inst { op: Op::Const, ty, dst: none, a: none, b: none, c: none, imm: (v & fold::mask(ty)) as i64 };
        if let Some(v) = self.seen.get(&key(&i)) {
            return *v;
        }
        self.r.types.push(ty);
        i.dst = Value(self.r.types.len() as u32 - 1);
        self.map.push(i.dst);
        self.def.push(u32::MAX);
        self.seen.insert(key(&i), i.dst);
        self.push(i);
        i.dst
    }

    fn inst(&mut self, mut i: Inst) {
        (i.a, i.b, i.c) = (self.resolve(i.a), self.resolve(i.b), self.resolve(i.c));
        match i.op.sig() {
            Sig::Get => {
                let s = i.imm as usize;
                match self.known.get(s).copied().flatten() {
                    Some(v) => self.replace(i.dst, v),
                    None => {
                        self.know(s, i.dst);
                        self.push(i);
                    }
                }
            }
            Sig::Put => {
                let s = i.imm as usize;
                if self.known.get(s).copied().flatten() != Some(i.a) {
                    self.know(s, i.a);
                    self.push(i);
                }
            }
            Sig::Call => {
                let n = usize::try_from(i.imm).unwrap_or(usize::MAX);
                if let Some(mut args) = self.r.calls.get_mut(n).map(|c| std::mem::take(&mut c.args)) {
                    for v in &mut args {
                        *v = self.resolve(*v);
                    }
                    self.r.calls[n].args = args;
                }
                let slots = self.r.layout.slots;
                match self.r.call_effects(&i).0 {
                    Effects::Pure => {}
                    // It may change the rounding mode as well.
                    Effects::Private => {
                        self.forget(|s| !slots[s].promote);
                        self.seen.clear();
                    }
                    Effects::All => {
                        self.forget(|_| true);
                        self.seen.clear();
                    }
                }
                self.push(i);
            }
            Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas => {
                self.address(&mut i);
                self.push(i);
            }
            _ if i.op.flags() != 0 => self.push(i),
            _ => self.pure(i),
        }
    }

    fn know(&mut self, s: usize, v: Value) {
        if let Some(k) = self.known.get_mut(s) {
            if k.is_none() {
                self.touched.push(s);
            }
            *k = Some(v);
        }
    }
    fn replace(&mut self, dst: Value, v: Value) {
        if let Some(m) = self.map.get_mut(dst.0 as usize) {
            *m = v;
        }
    }

    /// Move an added constant into the displacement.
    fn address(&mut self, i: &mut Inst) {
        while let Some(d) = self.def_op(i.a, Op::Add)
            && let Some(c) = self.konst(d.b)
            && let Ok(disp) = i32::try_from(i.imm.wrapping_add(c as i64))
        {
            (i.a, i.imm) = (d.a, i64::from(disp));
        }
    }

    fn pure(&mut self, mut i: Inst) {
        // Each step makes the instruction simpler; the bound is for safety only.
        for _ in 0..8 {
            if (commutes(i.op) && self.after(i.a, i.b)) || (i.op == Op::Icmp && self.after(i.a, i.b)) {
                (i.a, i.b) = (i.b, i.a);
                if i.op == Op::Icmp {
                    i.imm = cond(&i).map_or(i.imm, |c| c.swap() as i64);
                }
            }
            match self.step(&i) {
                None => break,
                Some(To::Value(v)) => {
                    self.replace(i.dst, v);
                    return;
                }
                Some(To::Const(c)) => {
                    let ty = i.op.result(i.ty).unwrap_or(i.ty);
                    let none = Value::NONE;
                    let imm = (c & fold::mask(ty)) as i64;
                    i = Inst { op: Op::Const, ty, dst: i.dst, a: none, b: none, c: none, imm };
                }
                Some(To::Inst(j)) => i = Inst { dst: i.dst, ..j },
            }
        }
        if i.op == Op::Const && i.ty.is_int() {
            i.imm = (i.imm as u64 & fold::mask(i.ty)) as i64;
        }
        match self.seen.get(&key(&i)) {
            Some(v) => {
                let v = *v;
                self.replace(i.dst, v);
            }
            None => {
                self.seen.insert(key(&i), i.dst);
                self.push(i);
            }
        }
    }
    /// Whether `a` belongs after `b` in an operation whose operands may be exchanged: constants come last.
    fn after(&self, a: Value, b: Value) -> bool {
        match (self.konst(a).is_some(), self.konst(b).is_some()) {
            (true, false) => true,
            (false, false) => a > b,
            _ => false,
        }
    }

    fn step(&mut self, i: &Inst) -> Option<To> {
        match i.op.sig() {
            Sig::Bin if i.ty.is_int() => self.bin(i),
            Sig::Bin => match i.op {
                Op::VAnd | Op::VOr if i.a == i.b => Some(To::Value(i.a)),
                _ => None,
            },
            Sig::Un if i.ty.is_int() => {
                if let Some(a) = self.konst(i.a) {
                    return fold::un(i.op, i.ty, a).map(To::Const);
                }
                match i.op {
                    Op::Neg | Op::Not | Op::Bswap => {
                        self.def_op(i.a, i.op).filter(|d| d.ty == i.ty).map(|d| To::Value(d.a))
                    }
                    _ => None,
                }
            }
            Sig::Cmp => self.icmp(i),
            Sig::Select => {
                if let Some(c) = self.konst(i.a) {
                    return Some(To::Value(if c != 0 { i.b } else { i.c }));
                }
                (i.b == i.c).then_some(To::Value(i.b))
            }
            Sig::Conv => self.conv(i),
            Sig::Extract => match self.def(i.a) {
                Some(d) if d.op == Op::Insert && d.ty == i.ty && d.imm == i.imm => Some(To::Value(d.b)),
                Some(d) if d.op == Op::Insert && d.ty == i.ty => Some(To::Inst(Inst { a: d.a, ..*i })),
                Some(d) if d.op == Op::Splat && d.ty == i.ty => Some(To::Value(d.a)),
                _ => None,
            },
            Sig::Shuffle => {
                let sel = *self.r.pool.get(usize::try_from(i.imm).ok()?)?;
                match sel {
                    0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100 => Some(To::Value(i.a)),
                    0x1f1e_1d1c_1b1a_1918_1716_1514_1312_1110 => Some(To::Value(i.b)),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn with_const(&mut self, i: &Inst, a: Value, c: u64) -> To {
        let b = self.iconst(i.ty, c);
        To::Inst(Inst { a, b, ..*i })
    }

    fn bin(&mut self, i: &Inst) -> Option<To> {
        let (m, bits) = (fold::mask(i.ty), u64::from(i.ty.bits()));
        let (ca, cb) = (self.konst(i.a), self.konst(i.b));
        if let (Some(a), Some(b)) = (ca, cb) {
            return fold::bin(i.op, i.ty, a, b).map(To::Const);
        }
        if i.a == i.b {
            match i.op {
                Op::And | Op::Or => return Some(To::Value(i.a)),
                Op::Xor | Op::Sub => return Some(To::Const(0)),
                _ => {}
            }
        }
        let shift = matches!(i.op, Op::Shl | Op::Shr | Op::Sar | Op::Rotl | Op::Rotr);
        if ca == Some(0) && shift {
            return Some(To::Const(0));
        }
        let b = cb?;
        // An operation of the same kind with a constant, below this one.
        let below = self.def_op(i.a, i.op).filter(|d| d.ty == i.ty).and_then(|d| Some((d.a, self.konst(d.b)?)));
        match (i.op, b) {
            (Op::Add | Op::Or | Op::Xor | Op::Sub, 0) => return Some(To::Value(i.a)),
            (Op::And | Op::Mul, 0) => return Some(To::Const(0)),
            (Op::Mul | Op::UDiv, 1) => return Some(To::Value(i.a)),
            (Op::And, b) if b == m => return Some(To::Value(i.a)),
            (Op::Or, b) if b == m => return Some(To::Const(m)),
            _ if shift && b % bits == 0 => return Some(To::Value(i.a)),
            _ => {}
        }
        match i.op {
            Op::Sub => {
                let b = self.iconst(i.ty, b.wrapping_neg());
                Some(To::Inst(Inst { op: Op::Add, b, ..*i }))
            }
            Op::Add | Op::And | Op::Or | Op::Xor if below.is_some() => {
                let (x, c) = below?;
                let c = fold::bin(i.op, i.ty, b, c)?;
                Some(self.with_const(i, x, c))
            }
            Op::And => {
                // The operand has no other bits.
                let d = self.def_op(i.a, Op::Zext)?;
                let from = fold::mask(from_type(d));
                (from & !b == 0).then_some(To::Value(i.a))
            }
            Op::Shl | Op::Shr if below.is_some_and(|(_, c)| c % bits + b % bits < bits) => {
                let (x, c) = below?;
                Some(self.with_const(i, x, c % bits + b % bits))
            }
            Op::Mul | Op::UDiv if b.is_power_of_two() => {
                let op = if i.op == Op::Mul { Op::Shl } else { Op::Shr };
                let n = self.iconst(i.ty, u64::from(b.trailing_zeros()));
                Some(To::Inst(Inst { op, b: n, ..*i }))
            }
            Op::URem if b.is_power_of_two() => {
                let n = self.iconst(i.ty, b - 1);
                Some(To::Inst(Inst { op: Op::And, b: n, ..*i }))
            }
            _ if shift && b >= bits => Some(self.with_const(i, i.a, b % bits)),
            _ => None,
        }
    }

    fn conv(&mut self, i: &Inst) -> Option<To> {
        let from = from_type(i);
        if let Some(c) = self.konst(i.a) {
            return fold::conv(i.op, from, i.ty, c).map(To::Const);
        }
        let d = *self.def(i.a)?;
        let inner = from_type(&d);
        let conv = |op, a, from: Type| Some(To::Inst(Inst { op, a, imm: from as i64, ..*i }));
        match (i.op, d.op) {
            (Op::Zext, Op::Zext) => conv(Op::Zext, d.a, inner),
            (Op::Sext, Op::Sext) => conv(Op::Sext, d.a, inner),
            (Op::Sext, Op::Zext) => conv(Op::Zext, d.a, inner),
            (Op::Zext, Op::Trunc) if inner == i.ty => {
                let b = self.iconst(i.ty, fold::mask(from));
                Some(To::Inst(Inst { op: Op::And, a: d.a, b, imm: 0, ..*i }))
            }
            (Op::Trunc, Op::Trunc) => conv(Op::Trunc, d.a, inner),
            (Op::Trunc, Op::Zext | Op::Sext) if inner == i.ty => Some(To::Value(d.a)),
            (Op::Trunc, Op::Zext | Op::Sext) if inner.bits() > i.ty.bits() => conv(Op::Trunc, d.a, inner),
            (Op::Trunc, Op::Zext | Op::Sext) => conv(d.op, d.a, inner),
            (Op::Trunc, Op::And) => {
                let m = fold::mask(i.ty);
                (self.konst(d.b)? & m == m).then_some(())?;
                conv(Op::Trunc, d.a, from)
            }
            // The other operand has none of the bits that are kept.
            (Op::Trunc, Op::Or | Op::Xor | Op::Add) => {
                let m = fold::mask(i.ty);
                if self.no_bits(d.a, m) {
                    conv(Op::Trunc, d.b, from)
                } else if self.no_bits(d.b, m) {
                    conv(Op::Trunc, d.a, from)
                } else {
                    None
                }
            }
            (Op::Bitcast, Op::Bitcast) if inner == i.ty => Some(To::Value(d.a)),
            _ => None,
        }
    }
    /// Whether a value is known to have none of these bits.
    fn no_bits(&self, v: Value, bits: u64) -> bool {
        let Some(d) = self.def(v) else { return false };
        match d.op {
            Op::Const => d.imm as u64 & bits == 0,
            Op::And => self.konst(d.b).is_some_and(|c| c & bits == 0),
            Op::Shl => self.konst(d.b).is_some_and(|c| c < u64::from(d.ty.bits()) && (u64::MAX << c) & bits == 0),
            Op::Zext => fold::mask(from_type(d)) & bits == 0,
            _ => false,
        }
    }
    /// Whether a value is 0 or 1.
    fn is_bool(&self, v: Value) -> bool {
        match self.def(v) {
            Some(d) => match d.op {
                Op::Icmp | Op::FCmp => true,
                Op::And | Op::Or | Op::Xor => [d.a, d.b].iter().all(|v| {
                    self.konst(*v).is_some_and(|c| c <= 1)
                        || self.def(*v).is_some_and(|d| matches!(d.op, Op::Icmp | Op::FCmp))
                }),
                _ => false,
            },
            None => false,
        }
    }

    fn icmp(&mut self, i: &Inst) -> Option<To> {
        let c = cond(i)?;
        if i.a == i.b {
            return Some(To::Const(u64::from(fold::icmp(c, i.ty, 0, 0))));
        }
        let b = self.konst(i.b)?;
        if let Some(a) = self.konst(i.a) {
            return Some(To::Const(u64::from(fold::icmp(c, i.ty, a, b))));
        }
        match (c, b) {
            (Cond::Ult, 0) => return Some(To::Const(0)),
            (Cond::Uge, 0) => return Some(To::Const(1)),
            (Cond::Ult, 1) | (Cond::Ule, 0) => {
                let b = self.iconst(i.ty, 0);
                return Some(To::Inst(Inst { b, imm: Cond::Eq as i64, ..*i }));
            }
            (Cond::Uge, 1) | (Cond::Ugt, 0) => {
                let b = self.iconst(i.ty, 0);
                return Some(To::Inst(Inst { b, imm: Cond::Ne as i64, ..*i }));
            }
            _ => {}
        }
        let equality = matches!(c, Cond::Eq | Cond::Ne);
        let d = *self.def(i.a)?;
        match d.op {
            // A comparison of a comparison's result.
            Op::Icmp if equality && b <= 1 => {
                let keep = (c == Cond::Ne) == (b == 0);
                if keep {
                    Some(To::Value(i.a))
                } else {
                    let inner = cond(&d)?;
                    Some(To::Inst(Inst { imm: inner.not() as i64, ..d }))
                }
            }
            _ if equality && b <= 1 && i.ty == Type::I8 && (c == Cond::Ne) == (b == 0) => {
                self.is_bool(i.a).then_some(To::Value(i.a))
            }
            Op::Sub | Op::Xor if equality && b == 0 && d.ty == i.ty => Some(To::Inst(Inst { a: d.a, b: d.b, ..*i })),
            Op::Zext => {
                let from = from_type(&d);
                if b & !fold::mask(from) != 0 {
                    return None;
                }
                let c = match c {
                    Cond::Slt => Cond::Ult,
                    Cond::Sle => Cond::Ule,
                    Cond::Sgt => Cond::Ugt,
                    Cond::Sge => Cond::Uge,
                    c => c,
                };
                // As signed values of the wide type both are not negative.
                let k = self.iconst(from, b);
                Some(To::Inst(Inst { ty: from, a: d.a, b: k, imm: c as i64, ..*i }))
            }
            _ => None,
        }
    }

    fn term(&mut self, t: Term) -> Term {
        match t {
            Term::Br(v, a, b) => {
                if let Some(c) = self.konst(v) {
                    return Term::Jump(if c != 0 { a } else { b });
                }
                if a == b {
                    return Term::Jump(a);
                }
                if let Some(d) = self.def_op(v, Op::Icmp).copied()
                    && d.ty == Type::I8
                    && self.konst(d.b) == Some(0)
                {
                    match cond(&d) {
                        Some(Cond::Ne) => return Term::Br(d.a, a, b),
                        Some(Cond::Eq) => return Term::Br(d.a, b, a),
                        _ => {}
                    }
                }
                Term::Br(v, a, b)
            }
            Term::Switch(v, table, default) => match self.konst(v) {
                Some(c) => Term::Jump(usize::try_from(c).ok().and_then(|c| table.get(c)).copied().unwrap_or(default)),
                None => Term::Switch(v, table, default),
            },
            t => t,
        }
    }
}
