//! Random regions with loops, vectors with scalar lanes and wild pointers, against the interpreter: same
//! state, same memory, same fault.

use super::ops::Rng;
use super::*;
use crate::interp;
use evm_ir::{Block, Cond, Op, Term, Value};

struct Gen {
    rng: Rng,
    b: Builder,
    pc: u64,
}

impl Gen {
    fn pick(&mut self, n: u64) -> u64 {
        self.rng.next() % n
    }
    fn mark(&mut self) {
        self.pc += 4;
        self.b.marker(self.pc);
    }
    /// A data register; r4 counts, r5 is one of the pointers.
    fn reg(&mut self) -> Slot {
        r([0, 1, 2, 3, 6][self.pick(5) as usize])
    }
    fn vec(&mut self) -> Slot {
        v([0, 1, 2, 3, 6][self.pick(5) as usize])
    }
    fn small(&mut self) -> i64 {
        [8, -8, 16, 1, 64, -24, 0x1000, -0x3000_0000, 0x2000_0000][self.pick(9) as usize]
    }
    fn float(&mut self) -> (Type, Type) {
        [(Type::F64X2, Type::F64), (Type::F32X4, Type::F32)][usize::from(self.pick(4) == 0)]
    }
    /// A float from a lane, memory, or an integer.
    fn scalar(&mut self, shape: Type, ty: Type) -> Value {
        match self.pick(8) {
            0 => {
                let i = self.b.get(r(0));
                self.b.conv(Op::CvtIF, ty, i)
            }
            _ => {
                let s = self.vec();
                let x = self.b.get(s);
                let lane = if self.pick(6) == 0 { 1 } else { 0 };
                self.b.extract(shape, x, lane)
            }
        }
    }
    fn address(&mut self) -> (Value, i32) {
        let p = if self.pick(8) == 0 { self.reg() } else { r(5) };
        let mut a = self.b.get(p);
        if self.pick(3) == 0 {
            let k = self.small();
            let k = self.b.iconst(Type::I64, k);
            let op = if self.pick(2) == 0 { Op::Add } else { Op::Sub };
            a = self.b.bin(op, Type::I64, a, k);
        }
        let d = self.small();
        (a, if d.abs() > 0x1000 { 0 } else { d as i32 })
    }
    fn step(&mut self) {
        self.mark();
        match self.pick(12) {
            0 => {
                // Pointer arithmetic.
                let p = self.b.get(r(5));
                let k = self.small();
                let k = self.b.iconst(Type::I64, k);
                let q = self.b.bin(Op::Add, Type::I64, p, k);
                self.b.put(r(5), q);
            }
            1 => {
                // A pointer that is good again.
                let s = self.reg();
                let x = self.b.get(s);
                let (m, k) = (self.b.iconst(Type::I64, 0x7ff8), self.b.iconst(Type::I64, DATA as i64));
                let x = self.b.bin(Op::And, Type::I64, x, m);
                let x = self.b.bin(Op::Add, Type::I64, x, k);
                self.b.put(r(5), x);
            }
            2 => {
                let (s, t) = (self.reg(), self.reg());
                let (x, y) = (self.b.get(s), self.b.get(t));
                let op = [Op::Add, Op::Xor, Op::Mul, Op::UMulHi][self.pick(4) as usize];
                let z = self.b.bin(op, Type::I64, x, y);
                let d = self.reg();
                self.b.put(d, z);
                if self.pick(2) == 0 {
                    let w = self.b.bin(Op::Mul, Type::I64, x, y);
                    let h = self.b.bin(Op::UMulHi, Type::I64, x, y);
                    self.b.put(r(0), w);
                    self.b.put(r(1), h);
                }
            }
            3 => {
                let (s, t) = (self.reg(), self.reg());
                let (x, y) = (self.b.get(s), self.b.get(t));
                let one = self.b.iconst(Type::I64, 1);
                let x = self.b.bin(Op::Or, Type::I64, x, one);
                let y = self.b.bin(Op::Or, Type::I64, y, one);
                let (d, m) = if self.pick(2) == 0 { (Op::UDiv, Op::URem) } else { (Op::SDiv, Op::SRem) };
                let q = self.b.bin(d, Type::I64, x, y);
                let m = self.b.bin(m, Type::I64, x, y);
                self.b.put(r(2), q);
                self.b.put(r(3), m);
            }
            4 | 5 => {
                let (a, d) = self.address();
                spill(&mut self.b);
                let ty = [Type::I8, Type::I32, Type::I64, Type::F64, Type::V128][self.pick(5) as usize];
                let x = self.b.load(ty, a, d);
                match ty {
                    Type::V128 => {
                        let s = self.vec();
                        self.b.put(s, x);
                    }
                    Type::F64 => {
                        let z = self.b.vconst(0);
                        let x = self.b.insert(Type::F64X2, z, 0, x);
                        let s = self.vec();
                        self.b.put(s, x);
                    }
                    Type::I64 => {
                        let s = self.reg();
                        self.b.put(s, x);
                    }
                    _ => {
                        let op = if self.pick(2) == 0 { Op::Zext } else { Op::Sext };
                        let x = self.b.conv(op, Type::I64, x);
                        let s = self.reg();
                        self.b.put(s, x);
                    }
                }
            }
            6 => {
                let (a, d) = self.address();
                spill(&mut self.b);
                let (s, t) = (self.reg(), self.vec());
                match self.pick(3) {
                    0 => {
                        let x = self.b.get(s);
                        self.b.store(Type::I64, a, d, x);
                    }
                    1 => {
                        let x = self.b.get(t);
                        self.b.store(Type::V128, a, d, x);
                    }
                    _ => {
                        let x = self.b.get(t);
                        let x = self.b.extract(Type::F64X2, x, 0);
                        self.b.store(Type::F64, a, d, x);
                    }
                }
            }
            7 => {
                let (s, t) = (self.vec(), self.vec());
                let x = self.b.get(s);
                if self.pick(2) == 0 {
                    self.b.put(t, x);
                } else {
                    let y = self.b.get(t);
                    let ty = [Type::I32X4, Type::F64X2][self.pick(2) as usize];
                    let z = self.b.bin(Op::VAdd, ty, x, y);
                    self.b.put(t, z);
                }
            }
            8 => {
                // An integer lane over whatever is there.
                let (s, t) = (self.reg(), self.vec());
                let x = self.b.get(s);
                let y = self.b.get(t);
                let lane = self.pick(2) as u8;
                let z = if self.pick(2) == 0 {
                    self.b.insert(Type::I64X2, y, lane, x)
                } else {
                    let x = self.b.conv(Op::Trunc, Type::I32, x);
                    self.b.insert(Type::I32X4, y, lane, x)
                };
                self.b.put(t, z);
            }
            _ => {
                let (shape, ty) = self.float();
                let (x, y) = (self.scalar(shape, ty), self.scalar(shape, ty));
                let op = [Op::FAdd, Op::FSub, Op::FMul, Op::FDiv, Op::FMinX][self.pick(5) as usize];
                let z = self.b.bin(op, ty, x, y);
                let d = self.vec();
                let below = self.b.get(d);
                let lane = if self.pick(8) == 0 { 1 } else { 0 };
                let w = self.b.insert(shape, below, lane, z);
                self.b.put(d, w);
            }
        }
    }
    fn region(seed: u64) -> Region {
        let mut g = Gen { rng: Rng(seed), b: start(0x1000), pc: 0x1000 };
        let n = 1 + g.pick(5);
        let heads: Vec<Block> = (0..n)
            .map(|_| {
                let h = g.b.block(0x1000, true);
                let data = &mut g.b.region.blocks[h.0 as usize];
                data.loop_header = true;
                data.poll_spill = ALL;
                h
            })
            .collect();
        let done = g.b.block(0x9000, true);
        g.b.term(Term::Jump(heads[0]));
        for h in &heads {
            g.b.switch_to(*h);
            g.mark();
            let c = g.b.get(r(4));
            let one = g.b.iconst(Type::I64, 1);
            let c = g.b.bin(Op::Sub, Type::I64, c, one);
            g.b.put(r(4), c);
            let z = g.b.iconst(Type::I64, 0);
            let go = g.b.icmp(Cond::Sgt, Type::I64, c, z);
            let body = g.b.block(g.pc, false);
            g.b.term(Term::Br(go, body, done));
            g.b.switch_to(body);
            for _ in 0..g.pick(10) {
                g.step();
            }
            let to = [0, 1].map(|_| heads[g.pick(n) as usize]);
            let (s, t) = (g.reg(), g.reg());
            let (x, y) = (g.b.get(s), g.b.get(t));
            let c = g.b.icmp(Cond::Ult, Type::I64, x, y);
            g.b.term(Term::Br(c, to[0], to[1]));
        }
        g.b.switch_to(done);
        finish(&mut g.b, 0x2000);
        g.b.region
    }
}

fn fuzz(quick: bool, optimize: bool, seeds: std::ops::Range<u64>) {
    let mut m = Machine::new();
    m.quick = quick;
    m.options = CompileOptions { optimize, precise: true, disassemble: false };
    let mem = m.arena.mem();
    let mut frame = interp::Frame::default();
    let mut faults = 0;
    let total = seeds.end - seeds.start;
    for seed in seeds {
        let region = Gen::region((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let prepared = interp::prepare(&region, &m.abi);
        let code = m.compile(&region);
        let mut rng = Rng(seed + 77);
        for x in &mut m.s.r {
            *x = rng.word();
        }
        for x in &mut m.s.v {
            *x = rng.wide();
        }
        m.s.r[4] = 30;
        m.s.r[5] = DATA + 0x4000;
        let (r0, v0) = (m.s.r, m.s.v);
        let put = || {
            let mut rng = Rng(seed + 99);
            for i in 0..0x1000 {
                mem.store128(DATA + 16 * i, rng.wide()).unwrap();
            }
        };
        let mut bytes = [vec![0; 0x10000], vec![0; 0x10000]];
        put();
        // SAFETY: the state and memory are this machine's; the region calls no helper.
        let exit = unsafe {
            let s = (&raw mut *m.s).cast::<u8>();
            interp::run(&prepared, 0, s, mem, &[], &mut frame)
        };
        let want_end = match exit {
            interp::Exit::Return { pc } => End::Next(pc),
            interp::Exit::Fault { pc, fault } => End::Fault(pc, fault.addr),
            e => panic!("{e:?}"),
        };
        mem.copy_out(DATA, &mut bytes[0]).unwrap();
        let want = (m.s.r, m.s.v);
        (m.s.r, m.s.v) = (r0, v0);
        put();
        let mut end = m.run(&code, 0x1000);
        mem.copy_out(DATA, &mut bytes[1]).unwrap();
        if let (End::Fault(p, a), End::Fault(q, b)) = (want_end, end) {
            faults += 1;
            // The host gives no address of a fault outside its address space, nor of the first byte
            // of an access that crosses into a missing page.
            if p == q && (b.wrapping_sub(a) < 16 || a >> 46 != 0 || b == UNKNOWN) {
                end = want_end;
            }
        }
        assert_eq!(end, want_end, "seed {seed} optimize {optimize}");
        assert!(
            (m.s.r, m.s.v) == want && bytes[0] == bytes[1],
            "seed {seed} optimize {optimize} {end:?}\nwant {:x?}\n     {:x?}\ngot  {:x?}\n     {:x?}",
            want.0,
            want.1,
            m.s.r,
            m.s.v
        );
    }
    assert!(faults > total / 50 && faults < total * 9 / 10, "{faults} of {total} fault");
}

#[test]
fn plain() {
    fuzz(false, false, 0..400);
}

#[test]
fn optimized() {
    fuzz(false, true, 400..700);
}

#[test]
fn quick() {
    let hot = Machine::hot();
    fuzz(true, false, 0..2000);
    assert!(Machine::hot() > hot);
}
