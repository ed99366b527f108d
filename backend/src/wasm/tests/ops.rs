//! Every opcode on every type it takes, with operands from registers, memory and constants, against the interpreter.

use super::*;
use crate::cranelift::tests::Machine as Native;
pub(super) use crate::cranelift::tests::ops::Rng;
use crate::cranelift::tests::ops::{From, cases, region};
use crate::interp;

/// Set the host's MXCSR, which the interpreter computes with.
pub(super) fn set_mxcsr(v: u32) {
    // SAFETY: a valid value, and the one of this thread alone.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack, readonly)) };
}

/// Floats, or doubles, near the least normal number, their factors, and others.
pub(super) fn small(rng: &mut Rng) -> u128 {
    let mut pick = |n: usize| rng.next() as usize % n;
    let mut lane = |wide: bool| {
        let (bits, bias) = if wide { (52, 1023) } else { (23, 127) };
        let half = bias / 2;
        let exponent = [0, 0, 1, 2, half, half + 1, half + 2, bias, bias, bias + 1, 24, 54][pick(12)] as u64;
        let fraction = [0u64, 1, (1 << bits) - 1, (1 << bits) - 2, 1 << (bits - 1)][pick(5)];
        (pick(2) as u64) << (bits + if wide { 11 } else { 8 }) | exponent << bits | fraction
    };
    if lane(false) & 1 == 0 {
        u128::from(lane(true)) << 64 | u128::from(lane(true))
    } else {
        (0..4).fold(0, |v, _| v << 32 | u128::from(lane(false)))
    }
}

fn check(settings: Settings, sources: &[[From; 3]], mxcsr: u32) {
    let mut m = Machine::new(settings);
    m.mxcsr = mxcsr.into();
    let flushing = mxcsr & 0x8040 != 0;
    m.protect(DATA, 0x10000, RW);
    let mut oracle = Native::new();
    let mut frame = interp::Frame::default();
    let mem = oracle.arena.mem();
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    let float = |c: &(Op, evm_ir::Type, i64)| c.0.raises_flags(c.1) || matches!(c.0, Op::FCmp | Op::FComi);
    for case in cases().into_iter().filter(|c| !flushing || float(c)) {
        for from in sources {
            let mut from = *from;
            for f in &mut from {
                if let From::Constant(k) = f {
                    *k = rng.word();
                }
            }
            let sel = rng.wide() & (u128::MAX / 255 * 31);
            let region = region(case, from, sel);
            let prepared = interp::prepare(&region, &oracle.abi);
            let code = m.load(std::slice::from_ref(&region));
            for _ in 0..40 {
                let mut s = new_state();
                for x in &mut s.r[..5] {
                    *x = rng.word();
                }
                for x in &mut s.v {
                    *x = rng.wide();
                }
                s.r[5] = DATA + 0x100;
                let mut data: Vec<u128> = (0..16).map(|_| rng.wide()).collect();
                if flushing {
                    data.iter_mut().for_each(|d| *d = small(&mut rng));
                    s.v.iter_mut().for_each(|v| *v = small(&mut rng));
                    s.r[..5].iter_mut().for_each(|r| *r = small(&mut rng) as u64);
                }
                if rng.next() & 1 == 0 {
                    // An expected value that is there.
                    s.r[0] = data[0] as u64;
                    s.v[0] = data[0];
                }
                let (r0, v0) = (s.r, s.v);
                (oracle.s.r, oracle.s.v) = (s.r, s.v);
                for (i, d) in data.iter().enumerate() {
                    mem.store128(DATA + 0x100 + 16 * i as u64, *d).unwrap();
                    let at = GUEST + DATA as usize + 0x100 + 16 * i;
                    m.memory.write(&mut m.store, at, &d.to_le_bytes()).unwrap();
                }
                set_mxcsr(mxcsr);
                // SAFETY: the state and memory are this machine's; the region calls no helper.
                let exit = unsafe {
                    let s = (&raw mut *oracle.s).cast::<u8>();
                    interp::run(&prepared, 0, s, mem, &[], &mut frame)
                };
                set_mxcsr(0x1f80);
                assert_eq!(exit, interp::Exit::Return { pc: 0x2000 });
                let next = m.run(&code, &mut s, 0x1000, 1 << 16);
                let stepped = settings.atomics && next == u64::MAX && s.pending == STEP;
                if stepped && case.0 == Op::AtomicCas && case.1 == evm_ir::Type::V128 {
                    continue;
                }
                assert_eq!(next, 0x2000, "{case:?} {from:?}");
                let mut got = vec![0; 256];
                let mut want = vec![0; 256];
                m.memory.read(&m.store, GUEST + DATA as usize + 0x100, &mut got).unwrap();
                mem.copy_out(DATA + 0x100, &mut want).unwrap();
                assert!(
                    (s.r, s.v) == (oracle.s.r, oracle.s.v) && got == want,
                    "{case:?} {from:?}\nin   {r0:x?} {v0:x?}\nwant {:x?} {:x?}\ngot  {:x?} {:x?}",
                    oracle.s.r,
                    oracle.s.v,
                    s.r,
                    s.v
                );
            }
        }
    }
}

#[test]
fn all() {
    let k = From::Constant(0);
    let mixes = [
        [From::Slot; 3],
        [From::Memory, From::Slot, From::Memory],
        [From::Slot, k, k],
        [k, From::Slot, From::Memory],
        [k, k, k],
    ];
    check(Settings::new(ABI), &mixes, 0x1fa0);
}

#[test]
fn flushing() {
    for bits in [0x8000, 0x40, 0x8040] {
        check(Settings::new(ABI), &[[From::Slot; 3], [From::Memory; 3]], 0x1fa0 | bits);
    }
}

#[test]
fn atomics() {
    check(Settings { atomics: true, fixed: Some(FIXED), ..Settings::new(ABI) }, &[[From::Slot; 3]], 0x1fa0);
}
