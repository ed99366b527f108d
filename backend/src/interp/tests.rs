#![allow(improper_ctypes_definitions)] // __m128i: both sides are this compiler

use super::*;
use crate::abi::Abi;
use evm_ir::*;
use evm_memory::{Arena, Prot};

const fn slot(name: &'static str, offset: u32, ty: Type) -> SlotInfo {
    SlotInfo { name, offset, ty, promote: true }
}
static LAYOUT: Layout = Layout {
    slots: &[
        slot("r0", 0, Type::I64),
        slot("r1", 8, Type::I64),
        slot("r2", 16, Type::I64),
        slot("x0", 32, Type::V128),
        slot("w", 48, Type::I16),
    ],
};
const R0: Slot = Slot(0);
const R1: Slot = Slot(1);
const R2: Slot = Slot(2);
const X0: Slot = Slot(3);
const W: Slot = Slot(4);
static HELPERS: &[HelperSig] = &[HelperSig {
    name: "swap",
    ints: 2,
    vecs: 1,
    ret: Some(Type::I64),
    effects: Effects::All,
    raises: true,
    leaf: None,
}];
/// Exchanges r0 and r1, asks for an exception if the second argument says so; gives the first plus the vector.
unsafe extern "C" fn helper(st: *mut u8, a: u64, b: u64, v: std::arch::x86_64::__m128i) -> u64 {
    // SAFETY: the state of these tests is an array of 16 words; vectors are plain bits.
    unsafe {
        let s = &mut *st.cast::<[u64; 16]>();
        s.swap(0, 1);
        s[10] = b;
        a + std::mem::transmute::<std::arch::x86_64::__m128i, [u64; 2]>(v)[1]
    }
}
const ABI: Abi = Abi {
    mem_base: 0,
    mem_limit: 0,
    poll: 72,
    stack_limit: 0,
    entries: 0,
    ibtc: 0,
    helpers: 0,
    pending: 80,
    fault_addr: 0,
    mxcsr: 0,
    counts: 0,
    targets: 0,
    scratch: 0,
    rip: 0,
};

#[repr(align(16))]
struct State([u64; 16]);

fn go(r: &Region, st: &mut State, mem: Mem) -> Exit {
    let code = prepare(r, &ABI);
    // SAFETY: the state is large enough for layout and words.
    unsafe { run(&code, 0, st.0.as_mut_ptr().cast(), mem, &[HelperFn::I2V1_R(helper)], &mut Frame::default()) }
}
fn region(f: impl FnOnce(&mut Builder)) -> Region {
    let mut b = Builder::new(&LAYOUT, HELPERS);
    let e = b.block(0x1000, true);
    b.switch_to(e);
    b.region.entries.push(e);
    f(&mut b);
    b.region
}

#[test]
fn values_survive_writes_of_their_slots() {
    // xchg r0, r1; r2 = old r0 + new r0; the result of the add goes straight to its slot.
    let r = region(|b| {
        let (x, y) = (b.get(R0), b.get(R1));
        b.put(R0, y);
        b.put(R1, x);
        let s = b.bin(Op::Add, Type::I64, x, y);
        b.put(R2, s);
        let k = b.iconst(Type::I16, -1);
        b.put(W, k);
        let w = b.get(W);
        let w = b.conv(Op::Sext, Type::I64, w);
        let t = b.bin(Op::Sub, Type::I64, w, s);
        b.term(Term::Exit(t));
    });
    let a = Arena::reserve(1 << 20).unwrap();
    let mut st = State([0; 16]);
    (st.0[0], st.0[1]) = (5, 7);
    assert_eq!(go(&r, &mut st, a.mem()), Exit::Jump { pc: (-13i64) as u64 });
    assert_eq!(st.0[..3], [7, 5, 12]);
    assert_eq!(st.0[6], 0xffff);
}

#[test]
fn loop_memory_fault_poll() {
    // r0 counts down from 10; r1 += [r2]; r2 += 4096: faults on the third page.
    let r = region(|b| {
        let (top, out) = (b.block(0x1004, true), b.block(0x1010, true));
        b.region.blocks[top.0 as usize].loop_header = true;
        b.term(Term::Jump(top));
        b.switch_to(top);
        b.marker(0x1004);
        let p = b.get(R2);
        let v = b.load(Type::I32, p, -4);
        let v = b.conv(Op::Zext, Type::I64, v);
        let s = b.get(R1);
        let s = b.bin(Op::Add, Type::I64, v, s);
        b.put(R1, s);
        b.marker(0x1008);
        let k = b.iconst(Type::I64, 4096);
        let p = b.get(R2);
        let q = b.bin(Op::Add, Type::I64, k, p);
        b.put(R2, q);
        b.marker(0x100c);
        let n = b.get(R0);
        let one = b.iconst(Type::I64, 1);
        let m = b.bin(Op::Sub, Type::I64, n, one);
        b.put(R0, m);
        let c = b.icmp(Cond::Sgt, Type::I64, n, one);
        b.term(Term::Br(c, top, out));
        b.switch_to(out);
        let t = b.get(R1);
        b.term(Term::Return(t));
    });
    let a = Arena::reserve(1 << 20).unwrap();
    a.map_anon(0x1000, 0x2000, Prot::RW).unwrap();
    let m = a.mem();
    m.write(0x1ffc, 0xffff_fff0u32).unwrap();
    m.write(0x2ffc, 3u32).unwrap();
    let mut st = State([0; 16]);
    (st.0[0], st.0[2]) = (2, 0x2000);
    assert_eq!(go(&r, &mut st, m), Exit::Return { pc: 0xffff_fff3 });
    assert_eq!(st.0[..3], [0, 0xffff_fff3, 0x4000]);
    (st.0[0], st.0[1], st.0[2]) = (10, 0, 0x2000);
    let fault = Fault { addr: 0x3ffc, write: false };
    assert_eq!(go(&r, &mut st, m), Exit::Fault { pc: 0x1004, fault });
    assert_eq!(st.0[..3], [8, 0xffff_fff3, 0x4000]);
    st.0[9] = 1;
    assert_eq!(go(&r, &mut st, m), Exit::Poll { pc: 0x1004 });
}

#[test]
fn helper_sees_and_changes_state() {
    let r = region(|b| {
        b.marker(0x1000);
        let (x, y) = (b.get(R0), b.get(R1));
        let v = b.vconst(100 << 64 | 1);
        b.put(X0, v);
        let v = b.get(X0);
        let s = b.call(0, &[x, y, v]);
        b.marker(0x1003);
        let n = b.get(R0);
        let d = b.bin(Op::Sub, Type::I64, x, n);
        let s = b.bin(Op::Add, Type::I64, s, d);
        b.term(Term::Call { target: s, ret: 0x1008, cont: None });
    });
    let a = Arena::reserve(1 << 20).unwrap();
    let mut st = State([0; 16]);
    (st.0[0], st.0[1]) = (50, 0);
    assert_eq!(go(&r, &mut st, a.mem()), Exit::Call { target: 200, ret: 0x1008 });
    assert_eq!(st.0[..2], [0, 50]);
    assert_eq!(go(&r, &mut st, a.mem()), Exit::Pending { pc: 0x1000 });
}

#[test]
fn float_and_vector() {
    let nan = |x: u64| 0x7ff0_0000_0000_0000 | x;
    let cases: &[(Op, u64, u64, u64)] = &[
        (Op::FAdd, nan(1), nan(2), nan(1 | 1 << 51)),
        (Op::FAdd, nan(2), nan(1), nan(2 | 1 << 51)),
        (Op::FMinX, nan(1), 1.0f64.to_bits(), 1.0f64.to_bits()),
        (Op::FMaxX, 0, (-0.0f64).to_bits(), (-0.0f64).to_bits()),
        (Op::FDiv, 1.0f64.to_bits(), 3.0f64.to_bits(), (1.0f64 / 3.0).to_bits()),
    ];
    for (op, x, y, want) in cases {
        assert_eq!(scalar::bin(*op, Type::F64).unwrap()(*x, *y), *want, "{op:?}");
    }
    let f = scalar::conv(Op::CvtFI, Type::F64, Type::I32).unwrap();
    assert_eq!(f(1e10f64.to_bits()), 0x8000_0000);
    assert_eq!(f((-1.9f64).to_bits()), u64::from(-1i32 as u32));
    let f = scalar::conv(Op::CvtIF, Type::I32, Type::F64).unwrap();
    assert_eq!(f(0xffff_fffe), (-2.0f64).to_bits());
    assert_eq!(scalar::un(Op::FSqrt, Type::F32).unwrap()(u64::from(9.0f32.to_bits())), u64::from(3.0f32.to_bits()));
    let v = |op, t, x, y| vector::bin(op, t).unwrap()(x, y);
    assert_eq!(v(Op::VPackS, Type::I16X8, 0x7fff_8000_0001, 0x0080), 0x7f << 64 | 0x7f_8001);
    assert_eq!(v(Op::VCmpGtS, Type::I8X16, 0x01ff, 0), 0xff00);
    assert_eq!(vector::un(Op::VWidenLowS, Type::I8X16).unwrap()(0x80), 0xff80);
    assert_eq!(vector::mask(Type::I32X4)(1 << 127 | 1 << 31, 0), 9);
    assert_eq!(vector::shuffle(0x0706_0504_0302_0100, 0x55, 0x1003), 0x5503);
}

// ---- random regions

const fn fixed(name: &'static str, offset: u32, ty: Type) -> SlotInfo {
    SlotInfo { name, offset, ty, promote: false }
}
static RANDOM_LAYOUT: Layout = Layout {
    slots: &[
        slot("r0", 0, Type::I64),
        slot("r1", 8, Type::I64),
        slot("r2", 16, Type::I64),
        slot("fuel", 24, Type::I64),
        slot("x0", 32, Type::V128),
        slot("x1", 48, Type::V128),
        fixed("p0", 64, Type::I64),
        fixed("w0", 88, Type::I16),
    ],
};
type V = std::arch::x86_64::__m128i;
unsafe extern "C" fn pure(_: *mut u8, a: u64, b: u64) -> u64 {
    a.rotate_left(7) ^ b
}
unsafe extern "C" fn mix(_: *mut u8, a: u64, v: V) -> V {
    // SAFETY: plain bits.
    unsafe { std::mem::transmute(std::mem::transmute::<V, [u64; 2]>(v).map(|x| x.wrapping_mul(a | 1))) }
}
unsafe extern "C" fn private(st: *mut u8, a: u64) {
    // SAFETY: the state of these tests is an array of 16 words.
    let s = unsafe { &mut *st.cast::<[u64; 16]>() };
    s[8] = s[8].wrapping_add(a);
    s[10] = u64::from(a & 7 == 3);
}
unsafe extern "C" fn all(st: *mut u8, v: V) -> u64 {
    // SAFETY: as above.
    unsafe {
        let s = &mut *st.cast::<[u64; 16]>();
        let [x, y] = std::mem::transmute::<V, [u64; 2]>(v);
        s[0] ^= x;
        s[6] = s[1].wrapping_sub(y);
        s[10] = u64::from(s[2] & 15 == 1);
        s[4] | s[8]
    }
}
const fn sig(name: &'static str, ints: u8, vecs: u8, ret: Option<Type>, effects: Effects, raises: bool) -> HelperSig {
    HelperSig { name, ints, vecs, ret, effects, raises, leaf: None }
}
static RANDOM_HELPERS: &[HelperSig] = &[
    sig("pure", 2, 0, Some(Type::I64), Effects::Pure, false),
    sig("mix", 1, 1, Some(Type::V128), Effects::Pure, false),
    sig("private", 1, 0, None, Effects::Private, true),
    sig("all", 0, 1, Some(Type::I64), Effects::All, true),
];
static RANDOM_FNS: &[HelperFn] =
    &[HelperFn::I2_R(pure), HelperFn::I1V1_V(mix), HelperFn::I1(private), HelperFn::I0V1_R(all)];
const SHAPE: random::Shape = random::Shape {
    layout: &RANDOM_LAYOUT,
    helpers: RANDOM_HELPERS,
    fuel: Slot(3),
    base: 0x1000,
    mask: 0xff8,
    blocks: 8,
    faults: true,
    floats: true,
};

/// Everything a run can be told apart by.
#[derive(PartialEq, Debug)]
struct Outcome {
    exit: Exit,
    state: [u64; 16],
    memory: Vec<u8>,
}

fn observe(seed: u64, mem: Mem, f: impl FnOnce(&mut State) -> Exit) -> Outcome {
    let mut rng = random::Rng::new(seed ^ 0xabcdef);
    let mut st = State([0; 16]);
    for w in &mut st.0[..9] {
        *w = rng.bits();
    }
    st.0[3] = 1 + rng.below(6);
    let mut memory: Vec<u8> = (0..0x2000).map(|_| rng.bits() as u8).collect();
    mem.copy_in(0x1000, &memory).unwrap();
    let exit = f(&mut st);
    mem.copy_out(0x1000, &mut memory).unwrap();
    Outcome { exit, state: st.0, memory }
}

/// Prepared code does what the definition says, before and after the passes; promoted regions do so with variables.
#[test]
fn random_regions() {
    use evm_ir::passes::{OptLevel, optimize};
    let arena = Arena::reserve(1 << 20).unwrap();
    arena.map_anon(0x1000, 0x2000, Prot::RW).unwrap();
    let mem = arena.mem();
    let first = std::env::var("EVM_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let count = std::env::var("EVM_COUNT").ok().and_then(|s| s.parse().ok()).unwrap_or(1500);
    let mut kinds = std::collections::BTreeMap::new();
    for seed in first..first + count {
        let r = random::region(&SHAPE, seed);
        validate(&r).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{r}"));
        for entry in 0..r.entries.len() {
            let reference = |r: &Region| {
                observe(seed, mem, |st| {
                    // SAFETY: words as bytes.
                    let state = unsafe { std::slice::from_raw_parts_mut(st.0.as_mut_ptr().cast(), 128) };
                    let mut w = reference::World { state, mem, helpers: RANDOM_FNS, pending: 80 };
                    reference::eval(r, entry, &mut w)
                })
            };
            let want = reference(&r);
            *kinds.entry(format!("{:?}", want.exit).split(' ').next().unwrap().to_string()).or_insert(0) += 1;
            let check = |what: &str, r: &Region, got: Outcome, exact: bool| {
                let lost = !exact && matches!(want.exit, Exit::Fault { .. });
                let same = if lost { (got.exit, &got.memory) == (want.exit, &want.memory) } else { got == want };
                assert!(
                    same,
                    "seed {seed} entry {entry} {what}: {:x?}\n{:x?}\n{:x?}\n{:x?}\n{r}",
                    got.exit, want.exit, got.state, want.state
                );
            };
            let prepared = |r: &Region| {
                let code = prepare(r, &ABI);
                observe(seed, mem, |st| {
                    let mut frame = Frame::default();
                    // SAFETY: the state is that of the layout.
                    unsafe { run(&code, entry, st.0.as_mut_ptr().cast(), mem, RANDOM_FNS, &mut frame) }
                })
            };
            check("raw", &r, prepared(&r), true);
            for (level, exact) in [(OptLevel::Interp, true), (OptLevel::Precise, true), (OptLevel::Full, false)] {
                let mut x = r.clone();
                optimize(&mut x, level);
                check(&format!("{level:?} by definition"), &x, reference(&x), exact);
                if level == OptLevel::Interp {
                    check("prepared", &x, prepared(&x), exact);
                }
            }
        }
    }
    // The generator reaches every kind of exit.
    assert!(kinds.len() >= 7, "{kinds:?}");
}
