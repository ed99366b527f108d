//! Calls, jumps and polls between regions.

use super::*;
use crate::cranelift::tests::{finish, r, start};
use evm_ir::{Builder, Cond, Term, Type};

/// `r0 += k`
fn add(b: &mut Builder, slot: u16, k: i64) {
    let x = b.get(r(slot));
    let k = b.iconst(Type::I64, k);
    let x = b.bin(Op::Add, Type::I64, x, k);
    b.put(r(slot), x);
}

/// Adds to r0, calls `target`, adds to r1, returns to 0x9000.
fn caller(pc: u64, target: u64, ret: u64) -> Region {
    let mut b = start(pc);
    add(&mut b, 0, 1);
    let t = b.iconst(Type::I64, target as i64);
    let cont = b.block(ret, true);
    b.term(Term::Call { target: t, ret, cont: Some(cont) });
    b.switch_to(cont);
    b.marker(ret);
    add(&mut b, 1, 1);
    finish(&mut b, 0x9000);
    b.region
}

/// Adds to r2 and returns to an address.
fn callee(pc: u64, to: u64) -> Region {
    let mut b = start(pc);
    add(&mut b, 2, 1);
    finish(&mut b, to);
    b.region
}

fn machines() -> impl Iterator<Item = Machine> {
    [true, false].into_iter().map(|tail_calls| {
        let mut m = Machine::new(Settings { tail_calls, ..Settings::new(ABI) });
        m.protect(DATA, 0x10000, RW);
        m
    })
}

#[test]
fn calls() {
    for mut m in machines() {
        // Known to be in the module (even addresses), and found by the table.
        for to in [0x3000, 0x3001] {
            let f = m.load(&[caller(0x1000, to, 0x1010), callee(to, 0x1010)]);
            let mut s = new_state();
            assert_eq!(m.run(&f, &mut s, 0x1000, 1 << 16), 0x9000);
            assert_eq!(s.r[..3], [1, 1, 1]);
            assert!(m.store.data().0.is_empty());
            // What calls took of the stack was given back.
            assert_eq!((s.scratch[1] >> 64) as u64, 1 << 16);
            // Who calls nobody needs no stack, if the way there takes none.
            if m.settings.tail_calls || to == 0x3000 {
                let mut s = new_state();
                assert_eq!(m.run(&f, &mut s, 0x1000, 0), 0x9000);
                assert_eq!(s.r[..3], [1, 1, 1]);
            }
            m.forget();
            // No stack left: the callee's address is what comes back.
            let f = m.load(&[caller(0x1000, to, 0x1010), caller(to, 0x5001, to + 0x10)]);
            let mut s = new_state();
            assert_eq!(m.run(&f, &mut s, 0x1000, 0), to);
            assert_eq!(s.r[..3], [1, 0, 0]);
            assert!(m.store.data().0.is_empty());
            assert_eq!((s.scratch[1] >> 64) as u64, 0);
            m.forget();
        }
        // It comes back elsewhere.
        let f = m.load(&[caller(0x1000, 0x3000, 0x1010), callee(0x3000, 0x4000)]);
        let mut s = new_state();
        assert_eq!(m.run(&f, &mut s, 0x1000, 1 << 16), 0x4000);
        assert_eq!(m.store.data().0, [("resume", [0x4000, 0x1010, 0])]);
        m.forget();
        // Nobody is there.
        let f = m.load(&[caller(0x1000, 0x5001, 0x1010)]);
        let mut s = new_state();
        assert_eq!(m.run(&f, &mut s, 0x1000, 1 << 16), 0x5001);
        assert_eq!(m.store.data().0, [("resume", [0x5001, 0x1010, 0])]);
        m.forget();
    }
}

#[test]
fn jumps() {
    for mut m in machines() {
        for to in [0x3000u64, 0x3001] {
            let mut b = start(0x1000);
            add(&mut b, 0, 1);
            let k = b.iconst(Type::I64, to as i64);
            b.term(Term::Exit(k));
            let f = m.load(&[b.region, callee(to, 0x7000)]);
            let mut s = new_state();
            assert_eq!(m.run(&f, &mut s, 0x1000, 1 << 16), 0x7000);
            assert_eq!(s.r[..3], [1, 0, 1]);
            m.forget();
        }
        // An address of which only the low bits are known to the table.
        let mut b = start(0x1000);
        let x = b.get(r(5));
        b.term(Term::Exit(x));
        let f = m.load(&[b.region, callee(0x3000, 0x7000)]);
        for to in [0x1_0000_3000u64, 0xffff_0000_0000_3000, 0x3001] {
            let mut s = new_state();
            s.r[5] = to;
            assert_eq!(m.run(&f, &mut s, 0x1000, 1 << 16), to);
        }
        m.forget();
    }
}

/// A loop of which both blocks are entries, so that it cannot be written as one.
#[test]
fn irreducible() {
    let mut b = start(0x1000);
    add(&mut b, 0, 1);
    let other = b.block(0x1010, true);
    b.region.entries.push(other);
    b.term(Term::Jump(other));
    b.switch_to(other);
    b.marker(0x1010);
    add(&mut b, 1, 1);
    let x = b.get(r(1));
    let k = b.iconst(Type::I64, 5);
    let c = b.icmp(Cond::Slt, Type::I64, x, k);
    let done = b.block(0x1020, true);
    b.region.blocks[0].loop_header = true;
    b.term(Term::Br(c, evm_ir::Block(0), done));
    b.switch_to(done);
    finish(&mut b, 0x9000);
    for mut m in machines() {
        let f = m.load(std::slice::from_ref(&b.region));
        for (pc, want) in [(0x1000, [5, 5]), (0x1010, [4, 5])] {
            let mut s = new_state();
            assert_eq!(m.run(&f, &mut s, pc, 0), 0x9000);
            assert_eq!(s.r[..2], want);
        }
        // The poll is at the loop's head.
        let mut s = new_state();
        s.poll = 1;
        assert_eq!(m.run(&f, &mut s, 0x1010, 0), 0x1000);
        assert_eq!(s.r[..2], [0, 1]);
    }
}

/// A loop that is entered in its middle finds out what its checks of other ways in have found.
#[test]
fn entered_at_a_loop() {
    let mut b = start(0x1000);
    let at = b.get(r(1));
    let x = b.get(r(0));
    b.store(Type::I64, at, 0, x);
    let again = b.block(0x1010, true);
    b.region.entries.push(again);
    b.region.blocks[again.0 as usize].loop_header = true;
    b.term(Term::Jump(again));
    b.switch_to(again);
    b.marker(0x1010);
    let at = b.get(r(1));
    let old = b.load(Type::I64, at, 0);
    let new = b.bin(Op::Add, Type::I64, old, at);
    b.store(Type::I64, at, 0, new);
    add(&mut b, 2, 1);
    let x = b.get(r(2));
    let k = b.iconst(Type::I64, 3);
    let c = b.icmp(Cond::Slt, Type::I64, x, k);
    let done = b.block(0x1020, true);
    b.term(Term::Br(c, again, done));
    b.switch_to(done);
    finish(&mut b, 0x9000);
    for mut m in machines() {
        m.protect(DATA + 0x4000, 0x1000, perm::READ);
        let f = m.load(std::slice::from_ref(&b.region));
        for pc in [0x1000, 0x1010] {
            let mut s = new_state();
            s.r[1] = DATA + 8;
            assert_eq!(m.run(&f, &mut s, pc, 0), 0x9000);
            assert_eq!(s.r[2], 3);
            // What may not be written, and what is not there.
            for wrong in [DATA + 0x4000, LIMIT - 4, u64::MAX - 2, 1 << 44] {
                let mut s = new_state();
                s.r[1] = wrong;
                assert_eq!(m.run(&f, &mut s, pc, 0), u64::MAX);
                assert_eq!((s.pending, s.rip, s.r[2]), (STEP, pc, 0));
            }
        }
    }
}

/// Blocks with floating-point arithmetic are left to the interpreter while the word says so.
#[test]
fn floats_are_left() {
    let mut b = start(0x1000);
    add(&mut b, 0, 1);
    let next = b.block(0x1010, true);
    b.term(Term::Jump(next));
    b.switch_to(next);
    b.marker(0x1010);
    add(&mut b, 1, 1);
    let x = b.get(crate::cranelift::tests::v(0));
    let y = b.bin(Op::VAdd, Type::F32X4, x, x);
    b.put(crate::cranelift::tests::v(1), y);
    finish(&mut b, 0x9000);
    let mut m = Machine::new(Settings::new(ABI));
    let f = m.load(&[b.region]);
    let mut s = new_state();
    assert_eq!(m.run(&f, &mut s, 0x1000, 0), 0x9000);
    m.exact = 1;
    let mut s = new_state();
    assert_eq!(m.run(&f, &mut s, 0x1000, 0), u64::MAX);
    assert_eq!((s.r[0], s.r[1], s.pending, s.rip), (1, 0, STEP, 0x1010));
}

/// Also in the block that a region is entered at, where slots' variables are filled first.
#[test]
fn arithmetic_is_left_to_the_interpreter() {
    let mut m = Machine::new(Settings::new(ABI));
    m.exact = 1;
    let mut b = start(0x1000);
    let [x, y] = [0, 1].map(|n| b.get(crate::cranelift::tests::v(n)));
    let z = b.bin(Op::VAdd, Type::F32X4, x, y);
    b.put(crate::cranelift::tests::v(2), z);
    finish(&mut b, 0x9000);
    let f = m.load(&[b.region]);
    let mut s = new_state();
    assert_eq!(m.run(&f, &mut s, 0x1000, 0), u64::MAX);
    assert_eq!((s.pending, s.rip), (STEP, 0x1000));
}

/// Arithmetic whose results are not finite raises the flags that it should.
#[test]
fn flags() {
    use Op::{VAdd, VDiv, VMul, VSqrt};
    let (inf, max, nan, snan) = (0x7f80_0000u32, 0x7f7f_ffff, 0x7fc0_0001, 0x7f80_0001);
    let one = 0x3f80_0000;
    let mut m = Machine::new(Settings::new(ABI));
    for (op, x, y, want) in [
        (VAdd, one, one, 0),
        (VAdd, max, max, 0x28),
        (VMul, inf, max, 0),
        (VDiv, one, 0, 4),
        (VDiv, inf, 0, 0),
        (VDiv, 0, 0, 1),
        (VDiv, max, 1, 0x28),
        (VAdd, nan, one, 0),
        (VAdd, one, snan, 1),
        (VAdd, inf, inf | 1 << 31, 1),
        (VSqrt, one | 1 << 31, 0, 1),
        (VSqrt, inf, 0, 0),
    ] {
        let mut b = start(0x1000);
        let [a, c] = [0, 1].map(|n| b.get(crate::cranelift::tests::v(n)));
        let z = if op == VSqrt { b.un(op, Type::F32X4, a) } else { b.bin(op, Type::F32X4, a, c) };
        b.put(crate::cranelift::tests::v(2), z);
        finish(&mut b, 0x9000);
        let f = m.load(&[b.region]);
        let mut s = new_state();
        // The other lanes are ones.
        let ones = u128::from(one) * (1 << 32 | 1 << 64 | 1 << 96);
        (s.v[0], s.v[1]) = (ones | u128::from(x), ones | u128::from(y));
        assert_eq!(m.run(&f, &mut s, 0x1000, 0), 0x9000);
        assert_eq!(s.scratch[3] as u32, 0x1fa0 | want, "{op:?} {x:x} {y:x}");
    }
}
