//! Random valid regions, for tests of passes and engines.
//!
//! Every region ends: back edges are taken only while a counter in the slot [`Shape::fuel`] lasts. Accesses go
//! mostly to a window of memory and sometimes elsewhere.

use crate::{Block, Builder, Cond, FCond, HelperSig, Layout, Op, Region, Sig, Slot, Term, Type, Value, shapes};

/// What the regions look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// State.
    pub layout: &'static Layout,
    /// Helpers.
    pub helpers: &'static [HelperSig],
    /// An `I64` slot that nothing else uses, not zero at the start: bounds loops.
    pub fuel: Slot,
    /// Start of the memory window.
    pub base: u64,
    /// Its size less one; a power of two less one.
    pub mask: u64,
    /// Number of blocks at most.
    pub blocks: u64,
    /// Whether accesses may fault.
    pub faults: bool,
    /// Whether operations on floating-point values are made.
    pub floats: bool,
}

/// A generator of pseudo-random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// From a seed; equal seeds give equal sequences.
    pub fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    /// A number below `n` (0 if `n` is 0).
    pub fn below(&mut self, n: u64) -> u64 {
        (u128::from(self.next()) * u128::from(n) >> 64) as u64
    }
    /// One of a list that is not empty.
    pub fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }
    /// Whether something of chance 1 / `n` happens.
    pub fn chance(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    /// A number with interesting bit patterns.
    pub fn bits(&mut self) -> u64 {
        let v = self.next();
        match self.below(6) {
            0 => v & 0xff,
            1 => 0,
            2 => u64::MAX,
            3 => 1 << (v & 63),
            4 => (1 << (v & 63)) - 1,
            _ => v,
        }
    }
}

/// A random region.
pub fn region(shape: &Shape, seed: u64) -> Region {
    let mut g = Gen { s: shape, rng: Rng::new(seed), b: Builder::new(shape.layout, shape.helpers), values: vec![] };
    let n = 1 + g.rng.below(shape.blocks);
    for k in 0..n {
        g.b.block(0x1000 + 16 * k, true);
    }
    g.b.region.entries.push(Block(0));
    for k in 1..n {
        if g.rng.chance(6) {
            g.b.region.entries.push(Block(k as u32));
        }
    }
    for k in 0..n {
        g.block(k as u32, n as u32);
    }
    g.b.region.source.push((0x1000, 16 * n as u32));
    g.b.region
}

struct Gen<'a> {
    s: &'a Shape,
    rng: Rng,
    b: Builder,
    /// Values of the current block.
    values: Vec<Value>,
}

impl Gen<'_> {
    fn push(&mut self, op: Op, ty: Type, v: [Value; 3], imm: i64) -> Value {
        let r = self.b.push(op, ty, v[0], v[1], v[2], imm);
        if r.is_some() {
            self.values.push(r);
        }
        r
    }
    fn konst(&mut self, ty: Type, v: u64) -> Value {
        let v = v & (u64::MAX >> (64 - ty.bits()));
        self.push(Op::Const, ty, [Value::NONE; 3], v as i64)
    }
    /// A slot of this type, other than the fuel.
    fn slot(&mut self, ty: Option<Type>) -> Option<Slot> {
        let fit: Vec<_> = (0..self.s.layout.slots.len() as u16)
            .map(Slot)
            .filter(|s| *s != self.s.fuel && ty.is_none_or(|t| self.s.layout.get(*s).ty == t))
            .collect();
        if fit.is_empty() { None } else { Some(self.rng.pick(&fit)) }
    }
    /// A value of this type, new or old.
    fn value(&mut self, ty: Type) -> Value {
        if !self.rng.chance(4) {
            let fit: Vec<_> = self.values.iter().rev().copied().filter(|v| self.b.ty(*v) == ty).take(12).collect();
            if !fit.is_empty() {
                return self.rng.pick(&fit);
            }
        }
        if !self.rng.chance(4)
            && let Some(s) = self.slot(Some(ty))
        {
            let v = self.b.get(s);
            self.values.push(v);
            return v;
        }
        match ty {
            Type::V128 => {
                let c = u128::from(self.rng.bits()) << 64 | u128::from(self.rng.bits());
                let v = self.b.vconst(c);
                self.values.push(v);
                v
            }
            Type::I8 | Type::I16 | Type::I32 if self.rng.chance(2) => {
                let v = self.value(Type::I64);
                self.push(Op::Trunc, ty, [v, Value::NONE, Value::NONE], Type::I64 as i64)
            }
            _ => {
                let c = self.rng.bits();
                self.konst(ty, c)
            }
        }
    }
    fn address(&mut self) -> Value {
        let v = self.value(Type::I64);
        if self.s.faults && self.rng.chance(40) {
            return v;
        }
        let m = self.konst(Type::I64, self.s.mask);
        let v = self.push(Op::And, Type::I64, [v, m, Value::NONE], 0);
        let c = self.konst(Type::I64, self.s.base);
        self.push(Op::Add, Type::I64, [v, c, Value::NONE], 0)
    }
    /// Something without effect on slots; accesses only where `access` allows them.
    fn op(&mut self, access: bool) {
        let op = self.rng.pick(Op::ALL);
        let sh = shapes(op);
        if sh.is_empty() || matches!(op, Op::Put) {
            return;
        }
        let ty = self.rng.pick(sh);
        let float = matches!(ty.lane(), Type::F32 | Type::F64);
        if !self.s.floats && float && !matches!(op.sig(), Sig::Extract | Sig::Insert | Sig::Splat) {
            return;
        }
        let none = Value::NONE;
        let t = if ty.is_shape() { Type::V128 } else { ty };
        match op.sig() {
            Sig::Const => {
                self.value(ty);
            }
            Sig::VConst | Sig::Get => {
                self.value(t);
            }
            Sig::Un => {
                let a = self.value(t);
                self.push(op, ty, [a, none, none], 0);
            }
            Sig::Bin => {
                let (a, mut b) = (self.value(t), self.value(t));
                if matches!(op, Op::UDiv | Op::URem | Op::SDiv | Op::SRem) {
                    // Neither 0 nor -1.
                    let m = self.konst(ty, u64::MAX >> (65 - ty.bits()));
                    b = self.push(Op::And, ty, [b, m, none], 0);
                    let one = self.konst(ty, 1);
                    b = self.push(Op::Or, ty, [b, one, none], 0);
                }
                self.push(op, ty, [a, b, none], 0);
            }
            Sig::Cmp | Sig::FCmp | Sig::VFCmp => {
                let (a, b) = (self.value(t), self.value(t));
                let n = if op == Op::Icmp { Cond::ALL.len() } else { FCond::ALL.len() };
                let c = self.rng.below(n as u64) as i64;
                self.push(op, ty, [a, b, none], c);
            }
            Sig::Select => {
                let v = [self.value(Type::I8), self.value(t), self.value(t)];
                self.push(op, ty, v, 0);
            }
            Sig::VSelect => {
                let v = [self.value(t), self.value(t), self.value(t)];
                self.push(op, ty, v, 0);
            }
            Sig::Conv => {
                let from: Vec<Type> = Type::ALL
                    .into_iter()
                    .filter(|f| match op {
                        Op::Zext | Op::Sext => f.is_int() && f.bits() < ty.bits(),
                        Op::Trunc => f.is_int() && f.bits() > ty.bits(),
                        Op::Bitcast => {
                            !f.is_shape() && *f != Type::V128 && f.bits() == ty.bits() && f.is_int() != ty.is_int()
                        }
                        Op::FPromote => *f == Type::F32,
                        Op::FDemote => *f == Type::F64,
                        Op::CvtIF => matches!(f, Type::I32 | Type::I64),
                        _ => matches!(f, Type::F32 | Type::F64),
                    })
                    .filter(|f| self.s.floats || f.is_int())
                    .collect();
                if !from.is_empty() {
                    let f = self.rng.pick(&from);
                    let a = self.value(f);
                    self.push(op, ty, [a, none, none], f as i64);
                }
            }
            Sig::Load | Sig::Store | Sig::Rmw | Sig::Cas => {
                if access {
                    self.access(op, ty);
                }
            }
            Sig::Align => {
                // Mostly addresses that are.
                if access {
                    let (a, m) = (self.address(), self.konst(Type::I64, !15));
                    let down = self.push(Op::And, Type::I64, [a, m, none], 0);
                    let a = if self.s.faults && self.rng.chance(4) { a } else { down };
                    let n = if op == Op::Whole { 32 } else { 1 << self.rng.below(5) };
                    self.push(op, ty, [a, none, none], n);
                }
            }
            Sig::Extract => {
                let a = self.value(t);
                let n = self.rng.below(u64::from(16 / ty.lane().bytes()));
                self.push(op, ty, [a, none, none], n as i64);
            }
            Sig::Insert => {
                let (a, b) = (self.value(t), self.value(ty.lane()));
                let n = self.rng.below(u64::from(16 / ty.lane().bytes()));
                self.push(op, ty, [a, b, none], n as i64);
            }
            Sig::Splat => {
                let a = self.value(ty.lane());
                self.push(op, ty, [a, none, none], 0);
            }
            Sig::VShift => {
                let (a, n) = (self.value(t), self.value(Type::I32));
                let m = self.konst(Type::I32, u64::from(ty.lane().bits() - 1));
                let n = self.push(Op::And, Type::I32, [n, m, none], 0);
                self.push(op, ty, [a, n, none], 0);
            }
            Sig::Shuffle => {
                let (a, b) = (self.value(t), self.value(t));
                let sel: [u8; 16] = std::array::from_fn(|_| self.rng.below(32) as u8);
                let v = self.b.shuffle(a, b, sel);
                self.values.push(v);
            }
            Sig::VMask => {
                let a = self.value(t);
                self.push(op, ty, [a, none, none], 0);
            }
            Sig::Put | Sig::Fence | Sig::Call | Sig::Marker | Sig::Fill | Sig::Spill => {}
        }
    }
    fn access(&mut self, op: Op, ty: Type) {
        let a = self.address();
        let mut disp = self.rng.below(64) as i64 - 8;
        let none = Value::NONE;
        if op == Op::AtomicCas && ty == Type::V128 {
            // Only aligned ones are defined.
            let m = self.konst(Type::I64, !15);
            let a = self.push(Op::And, Type::I64, [a, m, none], 0);
            let (b, c) = (self.value(ty), self.value(ty));
            self.push(op, ty, [a, b, c], 0);
            return;
        }
        if !self.s.faults {
            disp = disp.max(0);
        }
        let b = if op == Op::Load { none } else { self.value(ty) };
        let c = if op == Op::AtomicCas { self.value(ty) } else { none };
        self.push(op, ty, [a, b, c], disp);
    }
    fn call(&mut self) {
        if self.s.helpers.is_empty() {
            return;
        }
        let h = self.rng.below(self.s.helpers.len() as u64) as u16;
        let sig = self.s.helpers[usize::from(h)];
        let mut args = vec![];
        for _ in 0..sig.ints {
            args.push(self.value(Type::I64));
        }
        for _ in 0..sig.vecs {
            args.push(self.value(Type::V128));
        }
        let r = self.b.call(h, &args);
        if r.is_some() {
            self.values.push(r);
        }
    }

    fn block(&mut self, k: u32, n: u32) {
        self.b.switch_to(Block(k));
        self.values.clear();
        let pc = self.b.region.blocks[k as usize].pc;
        for i in 0..self.rng.below(5) {
            self.b.marker(pc + i);
            for _ in 0..self.rng.below(6) {
                self.op(true);
            }
            if self.rng.chance(8) {
                self.call();
            }
            for _ in 0..self.rng.below(4) {
                if self.rng.chance(3) {
                    self.op(false);
                }
                if let Some(s) = self.slot(None) {
                    let v = self.value(self.s.layout.get(s).ty);
                    self.b.put(s, v);
                }
            }
        }
        let t = self.term(k, n);
        self.b.term(t);
    }
    fn forward(&mut self, k: u32, n: u32) -> Block {
        Block(k + 1 + self.rng.below(u64::from(n - k - 1)) as u32)
    }
    fn term(&mut self, k: u32, n: u32) -> Term {
        let none = Value::NONE;
        let pc = self.b.region.blocks[k as usize].pc;
        let last = k + 1 == n;
        let cont = (!last && self.rng.chance(2)).then(|| self.forward(k, n));
        match self.rng.below(12) {
            0 => return Term::Return(self.value(Type::I64)),
            1 => {
                let target = self.value(Type::I64);
                return Term::Call { target, ret: pc + 15, cont };
            }
            2 => {
                return Term::Service { code: 1, pc, next: pc + 2, cont };
            }
            3 => {
                return Term::Raise { code: 3, arg: self.rng.next(), pc };
            }
            _ if last => return Term::Exit(self.value(Type::I64)),
            4..6 => {
                // Back, while the fuel lasts.
                let to = self.rng.below(u64::from(k) + 1) as u32;
                self.b.region.blocks[to as usize].loop_header = true;
                let f = self.b.get(self.s.fuel);
                let one = self.konst(Type::I64, 1);
                let f = self.push(Op::Sub, Type::I64, [f, one, none], 0);
                self.b.put(self.s.fuel, f);
                let zero = self.konst(Type::I64, 0);
                let c = self.b.icmp(Cond::Sgt, Type::I64, f, zero);
                return Term::Br(c, Block(to), self.forward(k, n));
            }
            6 => {
                let v = self.value(Type::I64);
                let m = self.konst(Type::I64, 3);
                let v = self.push(Op::And, Type::I64, [v, m, none], 0);
                let table = (0..3).map(|_| self.forward(k, n)).collect();
                return Term::Switch(v, table, self.forward(k, n));
            }
            7 => return Term::Jump(self.forward(k, n)),
            _ => {}
        }
        let ty = self.rng.pick(shapes(Op::Icmp));
        let (a, b) = (self.value(ty), self.value(ty));
        let c = self.b.icmp(self.rng.pick(&Cond::ALL), ty, a, b);
        Term::Br(c, self.forward(k, n), self.forward(k, n))
    }
}
