//! Every opcode on every type it takes, with operands from registers, memory and constants, against the
//! interpreter.

use super::*;
use crate::cranelift::HostFeatures;
use crate::interp;
use evm_ir::{Cond, FCond, Op, Sig, Value};

const INTS: [Type; 4] = [Type::I8, Type::I16, Type::I32, Type::I64];
const FLOATS: [Type; 2] = [Type::F32, Type::F64];
const SHAPES: [Type; 6] = [Type::I8X16, Type::I16X8, Type::I32X4, Type::I64X2, Type::F32X4, Type::F64X2];

/// Types that an opcode takes, as its documentation says.
fn types(op: Op) -> Vec<Type> {
    use Op::*;
    use Type::*;
    let narrow = &[I8X16, I16X8][..];
    match op {
        Bswap => vec![I16, I32, I64],
        Add | Sub | Mul | UMulHi | SMulHi | UDiv | URem | SDiv | SRem | And | Or | Xor | Shl | Shr | Sar | Rotl
        | Rotr | Neg | Not | Clz | Ctz | Popcnt | Icmp => INTS.to_vec(),
        AtomicAdd | AtomicAnd | AtomicOr | AtomicXor | AtomicXchg => INTS.to_vec(),
        AtomicCas => vec![I8, I16, I32, I64, V128],
        FAdd | FSub | FMul | FDiv | FSqrt | FMinX | FMaxX | FCmp | FComi => FLOATS.to_vec(),
        Select | Load | Store => vec![I8, I16, I32, I64, F32, F64, V128],
        VAdd | VSub => SHAPES.to_vec(),
        VMul => vec![I16X8, I32X4, F32X4, F64X2],
        VDiv | VSqrt | VFMinX | VFMaxX | VFCmp => vec![F32X4, F64X2],
        VAddSatS | VAddSatU | VSubSatS | VSubSatU | VAvgU => narrow.to_vec(),
        VMinS | VMinU | VMaxS | VMaxU | VAbs | VSar | VWidenLowS | VWidenLowU => {
            vec![I8X16, I16X8, I32X4]
        }
        VAnd | VOr | VXor | VAndNot | VSelect => vec![V128],
        VCmpEq | VCmpGtS | VShl | VShr | VMask => vec![I8X16, I16X8, I32X4, I64X2],
        Extract | Insert | Splat => SHAPES.to_vec(),
        Shuffle | VPshufb => vec![I8X16],
        VPackS | VPackU => vec![I16X8, I32X4],
        VCvtIF => vec![F32X4],
        _ => vec![],
    }
}

/// (from, to) of a conversion.
fn conversions(op: Op) -> Vec<(Type, Type)> {
    use Type::*;
    let pairs = INTS.iter().flat_map(|a| INTS.iter().map(move |b| (*a, *b)));
    match op {
        Op::Zext | Op::Sext => pairs.filter(|(a, b)| a < b).collect(),
        Op::Trunc => pairs.filter(|(a, b)| a > b).collect(),
        Op::Bitcast => vec![(I32, F32), (F32, I32), (I64, F64), (F64, I64)],
        Op::FPromote => vec![(F32, F64)],
        Op::FDemote => vec![(F64, F32)],
        Op::CvtIF => vec![(I32, F32), (I64, F32), (I32, F64), (I64, F64)],
        Op::CvtFI => vec![(F32, I32), (F32, I64), (F64, I32), (F64, I64)],
        _ => vec![],
    }
}

pub struct Rng(pub u64);
impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// A word that is interesting as integer, double, or pair of floats.
    pub fn word(&mut self) -> u64 {
        const W: [u64; 24] = [
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            i64::MAX as u64,
            1 << 63,
            u64::MAX,
            0x3ff0_0000_0000_0000,
            0xbff8_0000_0000_0000,
            0x7ff0_0000_0000_0000,
            0x7ff8_0000_0000_1234,
            0x7ff0_0000_0000_0077,
            0xfff8_0000_0000_4321,
            0x43e0_0000_0000_0000,
            0xc3e0_0000_0000_0001,
            0x41df_ffff_ffe0_0000,
            0x3f80_0000_7fc0_1234,
            0x7f80_0001_cf00_0000,
            0x4f00_0000_ffc0_4321,
        ];
        match self.next() % 4 {
            0 => self.next(),
            1 => self.next() >> (self.next() % 64),
            _ => W[self.next() as usize % W.len()],
        }
    }
    /// The 128 bits of two words, sometimes with equal halves.
    pub fn wide(&mut self) -> u128 {
        let lo = self.word();
        let hi = if self.next().is_multiple_of(4) { lo } else { self.word() };
        u128::from(hi) << 64 | u128::from(lo)
    }
}

/// Where an operand comes from.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum From {
    Slot,
    Memory,
    Constant(u64),
}

/// Operand number `n` of type `ty`.
fn operand(b: &mut Builder, ty: Type, n: u16, from: From) -> Value {
    let ty = if ty.is_shape() { Type::V128 } else { ty };
    match from {
        From::Memory => {
            let p = b.get(r(5));
            b.load(ty, p, 16 * i32::from(n))
        }
        From::Constant(k) if ty == Type::V128 => b.vconst(u128::from(k) << 64 | u128::from(k.rotate_left(17))),
        From::Constant(k) => b.iconst(ty, k as i64),
        From::Slot => match ty {
            Type::V128 => b.get(v(n)),
            Type::I64 => b.get(r(n)),
            Type::F64 | Type::F32 => {
                let i = operand(b, Type::int(ty.bytes()), n, from);
                b.conv(Op::Bitcast, ty, i)
            }
            _ => {
                let x = b.get(r(n));
                b.conv(Op::Trunc, ty, x)
            }
        },
    }
}

fn result(b: &mut Builder, x: Value) {
    match b.ty(x) {
        Type::V128 => b.put(v(3), x),
        Type::I64 => b.put(r(3), x),
        t @ (Type::F32 | Type::F64) => {
            let i = b.conv(Op::Bitcast, Type::int(t.bytes()), x);
            result(b, i);
        }
        _ => {
            let w = b.conv(Op::Zext, Type::I64, x);
            b.put(r(3), w);
        }
    }
}

/// One case: opcode, type, immediate (source type for conversions).
pub(crate) type Case = (Op, Type, i64);

pub(crate) fn cases() -> Vec<Case> {
    let mut out = vec![];
    for op in Op::ALL {
        for ty in types(*op) {
            let imms: Vec<i64> = match op.sig() {
                Sig::Cmp => (0..Cond::ALL.len() as i64).collect(),
                Sig::FCmp | Sig::VFCmp => (0..FCond::ALL.len() as i64).collect(),
                Sig::Extract | Sig::Insert => (0..i64::from(16 / ty.lane().bytes())).collect(),
                _ => vec![0],
            };
            out.extend(imms.into_iter().map(|i| (*op, ty, i)));
        }
        out.extend(conversions(*op).into_iter().map(|(from, to)| (*op, to, from as i64)));
    }
    out
}

pub(crate) fn region(case: Case, from: [From; 3], sel: u128) -> Region {
    let (op, ty, imm) = case;
    let mut b = start(0x1000);
    let none = Value::NONE;
    let x = match op.sig() {
        Sig::Bin | Sig::Cmp | Sig::FCmp | Sig::VFCmp | Sig::Un | Sig::VMask | Sig::Shuffle => {
            let mut x = operand(&mut b, ty, 0, from[0]);
            let mut y = operand(&mut b, ty, 1, from[1]);
            if matches!(op, Op::UDiv | Op::URem | Op::SDiv | Op::SRem) {
                let one = b.iconst(ty, 1);
                x = b.bin(Op::Or, ty, x, one);
                y = b.bin(Op::Or, ty, y, one);
            }
            if matches!(op.sig(), Sig::Un | Sig::VMask) {
                y = none;
            }
            let imm = if op == Op::Shuffle { b.pool(sel) } else { imm };
            b.push(op, ty, x, y, none, imm)
        }
        Sig::Conv => {
            let x = operand(&mut b, Type::ALL[imm as usize], 0, from[0]);
            b.conv(op, ty, x)
        }
        Sig::Select => {
            let c = operand(&mut b, Type::I8, 2, from[2]);
            let one = b.iconst(Type::I8, 1);
            let c = b.bin(Op::And, Type::I8, c, one);
            let (x, y) = (operand(&mut b, ty, 0, from[0]), operand(&mut b, ty, 1, from[1]));
            b.select(ty, c, x, y)
        }
        Sig::VSelect => {
            let [x, y, z] = [0, 1, 2].map(|n| operand(&mut b, ty, n, from[n as usize]));
            b.push(op, ty, x, y, z, 0)
        }
        Sig::VShift => {
            let x = operand(&mut b, ty, 0, from[0]);
            let n = operand(&mut b, Type::I32, 1, from[1]);
            let m = b.iconst(Type::I32, i64::from(ty.lane().bits()) - 1);
            let n = b.bin(Op::And, Type::I32, n, m);
            b.bin(op, ty, x, n)
        }
        Sig::Extract => {
            let x = operand(&mut b, ty, 0, from[0]);
            b.extract(ty, x, imm as u8)
        }
        Sig::Insert => {
            let x = operand(&mut b, ty, 0, from[0]);
            let y = operand(&mut b, ty.lane(), 1, from[1]);
            let w = b.insert(ty, x, imm as u8, y);
            // Once more in the same lane, and what the lane holds then.
            let z = operand(&mut b, ty.lane(), 2, from[2]);
            let w2 = b.insert(ty, w, imm as u8, z);
            let e = b.extract(ty, w, imm as u8);
            let w3 = b.insert(ty, w2, 0, e);
            b.put(v(4), w3);
            w2
        }
        Sig::Splat => {
            let x = operand(&mut b, ty.lane(), 0, from[0]);
            b.un(op, ty, x)
        }
        Sig::Load => {
            let p = b.get(r(5));
            b.load(ty, p, 16)
        }
        Sig::Store => {
            let x = operand(&mut b, ty, 0, from[0]);
            let p = b.get(r(5));
            b.store(ty, p, 0x43, x);
            x
        }
        Sig::Rmw | Sig::Cas => {
            let p = b.get(r(5));
            let x = operand(&mut b, ty, 0, from[0]);
            let y = if op.sig() == Sig::Cas { operand(&mut b, ty, 1, from[1]) } else { none };
            b.push(op, ty, p, x, y, 0)
        }
        s => panic!("no case for {s:?}"),
    };
    result(&mut b, x);
    finish(&mut b, 0x2000);
    b.region
}

fn check(features: HostFeatures, optimize: bool, sources: &[[From; 3]]) {
    check_on(Machine::with(features), optimize, sources);
}

fn check_on(mut m: Machine, optimize: bool, sources: &[[From; 3]]) {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    m.options.optimize = optimize;
    let mut frame = interp::Frame::default();
    let mem = m.arena.mem();
    let cases = cases();
    assert!(cases.len() > 300, "{}", cases.len());
    for case in cases {
        if m.quick && case.0 == Op::AtomicCas && case.1 == Type::V128 {
            // Refused: see `quick::Unsupported`.
            continue;
        }
        for from in sources {
            let mut from = *from;
            for f in &mut from {
                if let From::Constant(k) = f {
                    *k = rng.word();
                }
            }
            let sel = rng.wide() & (u128::MAX / 255 * 31);
            let region = region(case, from, sel);
            let prepared = interp::prepare(&region, &m.abi);
            let code = m.compile(&region);
            for _ in 0..40 {
                for x in &mut m.s.r[..5] {
                    *x = rng.word();
                }
                for x in &mut m.s.v {
                    *x = rng.wide();
                }
                m.s.r[5] = DATA + 0x100;
                let data: Vec<u128> = (0..16).map(|_| rng.wide()).collect();
                if rng.next() & 1 == 0 {
                    // An expected value that is there.
                    m.s.r[0] = data[0] as u64;
                    m.s.v[0] = data[0];
                }
                let (r0, v0) = (m.s.r, m.s.v);
                let put = || {
                    for (i, d) in data.iter().enumerate() {
                        mem.store128(DATA + 0x100 + 16 * i as u64, *d).unwrap();
                    }
                };
                let get = || (0..16).map(|i| mem.load128(DATA + 0x100 + 16 * i)).collect::<Vec<_>>();
                put();
                // SAFETY: the state and memory are this machine's; the region calls no helper.
                let exit = unsafe {
                    let s = (&raw mut *m.s).cast::<u8>();
                    interp::run(&prepared, 0, s, mem, &[], &mut frame)
                };
                assert_eq!(exit, interp::Exit::Return { pc: 0x2000 });
                let want = (m.s.r, m.s.v, get());
                (m.s.r, m.s.v) = (r0, v0);
                put();
                assert_eq!(m.run(&code, 0x1000), End::Next(0x2000));
                let got = (m.s.r, m.s.v, get());
                assert!(
                    got == want,
                    "{case:?} {from:?} optimize {optimize}\nin   {r0:x?} {v0:x?}\nwant {:x?} {:x?}\ngot  {:x?} {:x?}",
                    want.0,
                    want.1,
                    got.0,
                    got.1
                );
            }
        }
    }
}

const SLOTS_ONLY: [From; 3] = [From::Slot; 3];

#[test]
fn native() {
    let k = From::Constant(0);
    let mixes = [
        SLOTS_ONLY,
        [From::Memory, From::Slot, From::Memory],
        [From::Slot, From::Memory, From::Slot],
        [From::Slot, k, k],
        [k, From::Slot, From::Memory],
    ];
    check(HostFeatures::Native, false, &mixes);
}

#[test]
fn quick() {
    let k = From::Constant(0);
    let mixes = [
        SLOTS_ONLY,
        [From::Memory, From::Slot, From::Memory],
        [From::Slot, From::Memory, From::Slot],
        [From::Slot, k, k],
        [k, From::Slot, From::Memory],
        [k, k, k],
    ];
    let mut m = Machine::new();
    m.quick = true;
    check_on(m, false, &mixes);
}

#[test]
fn optimized() {
    check(HostFeatures::Native, true, &[SLOTS_ONLY, [From::Memory, From::Slot, From::Slot]]);
}

#[test]
fn baseline() {
    check(HostFeatures::V2, false, &[SLOTS_ONLY, [From::Memory, From::Memory, From::Slot]]);
}
