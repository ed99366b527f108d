//! Branches, calls, exits, services, faults.

use super::*;
use evm_ir::{Cond, Op, Term, Value};

fn each(mut f: impl FnMut(&mut Machine)) {
    for optimize in [false, true] {
        for precise in [false, true] {
            let mut m = Machine::new();
            m.options = CompileOptions { optimize, precise, disassemble: false };
            f(&mut m);
        }
    }
    let mut m = Machine::new();
    m.quick = true;
    // What the quick tier always is.
    m.options.precise = true;
    f(&mut m);
}

#[test]
fn loop_and_entries() {
    each(|m| {
        if m.quick {
            // One entry a piece.
            return;
        }
        // r1 = sum of 1..=r0; second entry: r1 = 5; third: r1 = 6.
        let mut b = start(0x1000);
        let head = b.block(0x1004, true);
        let body = b.block(0x1008, true);
        let done = b.block(0x100c, true);
        b.region.blocks[head.0 as usize].loop_header = true;
        b.term(Term::Jump(head));
        b.switch_to(head);
        let n = b.get(r(0));
        let z = b.iconst(Type::I64, 0);
        let c = b.icmp(Cond::Ne, Type::I64, n, z);
        b.term(Term::Br(c, body, done));
        b.switch_to(body);
        let (n, s) = (b.get(r(0)), b.get(r(1)));
        let s = b.bin(Op::Add, Type::I64, s, n);
        b.put(r(1), s);
        let one = b.iconst(Type::I64, 1);
        let n = b.bin(Op::Sub, Type::I64, n, one);
        b.put(r(0), n);
        b.term(Term::Jump(head));
        b.switch_to(done);
        finish(&mut b, 0x2000);
        for (pc, k) in [(0x3000, 5), (0x4000, 6)] {
            let e = b.block(pc, true);
            b.region.entries.push(e);
            b.switch_to(e);
            fill(&mut b);
            let k = b.iconst(Type::I64, k);
            b.put(r(1), k);
            b.term(Term::Jump(done));
        }
        let code = m.compile(&b.region);
        m.s.r[0] = 100;
        assert_eq!(m.run(&code, 0x1000), End::Next(0x2000));
        assert_eq!((m.s.r[0], m.s.r[1]), (0, 5050));
        assert_eq!(m.run(&code, 0x3000), End::Next(0x2000));
        assert_eq!(m.s.r[1], 5);
        assert_eq!(m.run(&code, 0x4000), End::Next(0x2000));
        assert_eq!(m.s.r[1], 6);
        m.s.stack_limit = u64::MAX;
        assert_eq!(m.run(&code, 0x3000), End::Next(0x3000));
    });
}

#[test]
fn polls() {
    each(|m| {
        let mut b = start(0x1000);
        let head = b.block(0x1004, true);
        b.region.blocks[head.0 as usize].loop_header = true;
        b.term(Term::Jump(head));
        b.switch_to(head);
        let n = b.get(r(0));
        let one = b.iconst(Type::I64, 1);
        let n = b.bin(Op::Add, Type::I64, n, one);
        b.put(r(0), n);
        b.put(r(6), n);
        b.region.blocks[head.0 as usize].poll_spill.insert(r(0));
        b.term(Term::Jump(head));
        let code = m.compile(&b.region);
        m.s.poll = 1;
        assert_eq!(m.run(&code, 0x1000), End::Next(0x1004));
        let poll = &raw mut m.s.poll as u64;
        m.s.poll = 0;
        std::thread::scope(|t| {
            t.spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(5));
                // SAFETY: the word outlives the scope; the other side is compiled code.
                unsafe {
                    (*(poll as *const std::sync::atomic::AtomicU64)).store(1, std::sync::atomic::Ordering::SeqCst)
                };
            });
            assert_eq!(m.run(&code, 0x1000), End::Next(0x1004));
        });
        assert!(m.s.r[0] > 0);
        assert_eq!(m.s.r[0], m.s.r[6]);
    });
}

#[test]
fn switches() {
    each(|m| {
        let mut b = start(0x1000);
        let targets: Vec<_> = (0..4).map(|i| b.block(0x1100 + i, true)).collect();
        let v = b.get(r(0));
        b.term(Term::Switch(v, targets[..3].to_vec(), targets[3]));
        for (i, t) in targets.iter().enumerate() {
            b.switch_to(*t);
            finish(&mut b, 0x2000 + i as u64);
        }
        let code = m.compile(&b.region);
        for (n, want) in [(0, 0), (1, 1), (2, 2), (3, 3), (1 << 32, 3), (u64::MAX, 3)] {
            m.s.r[0] = n;
            assert_eq!(m.run(&code, 0x1000), End::Next(0x2000 + want));
        }
    });
}

fn call_region(target: impl Fn(&mut Builder) -> Value) -> Region {
    let mut b = start(0x1000);
    spill(&mut b);
    let t = target(&mut b);
    let cont = b.block(0x1010, true);
    b.term(Term::Call { target: t, ret: 0x1010, cont: Some(cont) });
    b.switch_to(cont);
    fill(&mut b);
    let n = b.get(r(0));
    let n = b.bin(Op::Add, Type::I64, n, n);
    b.put(r(0), n);
    finish(&mut b, 0x1111);
    b.region
}

#[test]
fn calls_and_exits() {
    each(|m| {
        for dynamic in [false, true] {
            let target = |b: &mut Builder| {
                if dynamic { b.get(r(1)) } else { b.iconst(Type::I64, 0x5000) }
            };
            m.s.r[1] = 0x5000;
            m.entries.fill(0);
            m.ibtc.fill(0);
            let caller = m.compile(&call_region(target));
            // Not compiled: the runtime runs it.
            m.s.r[0] = 7;
            assert_eq!(m.run(&caller, 0x1000), End::Next(0x1111));
            assert_eq!(LOG.get(), [1, 0x5000, 0x1010, 0]);
            assert_eq!(m.s.r[0], 14);
            // Compiled: adds one and exits to the address in r2 through another region.
            let mut b = start(0x5000);
            let n = b.get(r(0));
            let one = b.iconst(Type::I64, 1);
            let n = b.bin(Op::Add, Type::I64, n, one);
            b.put(r(0), n);
            spill(&mut b);
            let to = if dynamic { b.get(r(3)) } else { b.iconst(Type::I64, 0x6000) };
            b.term(Term::Exit(to));
            let callee = m.compile(&b.region);
            m.link(0x5000, &callee);
            m.s.r[3] = 0x6000;
            // 0x6000 is not compiled yet: comes back there, and is resumed in vain.
            assert_eq!(m.run(&caller, 0x1000), End::Next(0x6000));
            assert_eq!(LOG.get(), [2, 0x6000, 0x1010, 0]);
            let mut b = start(0x6000);
            spill(&mut b);
            let to = b.get(r(2));
            b.term(Term::Return(to));
            let last = m.compile(&b.region);
            m.link(0x6000, &last);
            m.s.r[0] = 7;
            m.s.r[2] = 0x1010;
            assert_eq!(m.run(&caller, 0x1000), End::Next(0x1111));
            assert_eq!(m.s.r[0], 16);
            m.s.r[2] = 0x7777; // resumed with success
            assert_eq!(m.run(&caller, 0x1000), End::Next(0x1111));
            assert_eq!(LOG.get(), [2, 0x7777, 0x1010, 0]);
        }
    });
}

#[test]
fn services_helpers_raises() {
    each(|m| {
        for (code, want) in [(5, 0x1002), (99, 0x9999)] {
            let mut b = start(0x1000);
            spill(&mut b);
            b.term(Term::Service { code, pc: 0x1000, next: 0x1002, cont: None });
            let c = m.compile(&b.region);
            assert_eq!(m.run(&c, 0x1000), End::Next(want));
            assert_eq!(LOG.get(), [3, u64::from(code), 0x1000, 0x1002]);
        }
        let mut b = start(0x1000);
        spill(&mut b);
        b.term(Term::Raise { code: 6, arg: 8, pc: 0x1000 });
        let c = m.compile(&b.region);
        assert_eq!(m.run(&c, 0x1000), End::Next(0x4444));
        assert_eq!(LOG.get(), [4, 6, 8, 0x1000]);

        let mut b = start(0x1000);
        let (x, y, p, q) = (b.get(r(0)), b.get(r(1)), b.get(v(0)), b.get(v(7)));
        let w = b.call(0, &[x, y, p, q]);
        b.put(v(1), w);
        b.marker(0x1003);
        spill(&mut b);
        let k = b.call(1, &[x]);
        b.put(r(2), k);
        finish(&mut b, 0x2000);
        let c = m.compile(&b.region);
        m.s.r[..2].copy_from_slice(&[5, 6]);
        m.s.v[0] = 1 | 2 << 64;
        m.s.v[7] = 10 | 20 << 64;
        assert_eq!(m.run(&c, 0x1000), End::Next(0x2000));
        assert_eq!((m.s.v[1], m.s.r[2]), (16 | 28 << 64, 6));
        m.s.r[0] = 13;
        assert_eq!(m.run(&c, 0x1000), End::Next(crate::abi::EXIT_PENDING));
        assert_eq!(m.s.rip, 0x1003);
        assert_eq!(m.s.r[2], 6);
        m.s.pending = 0;
    });
}

#[test]
fn memory_and_faults() {
    let faults = |end: End, at: u64, addr: u64| {
        assert!(end == End::Fault(at, addr) || end == End::Fault(at, UNKNOWN), "{end:x?}, not {addr:#x}");
    };
    each(|m| {
        // r1 = load64 [r0 + disp]; then store8 [r2 - 8] of r1.
        let region = |disp: i32| {
            let mut b = start(0x1000);
            let a = b.get(r(0));
            let x = b.load(Type::I64, a, disp);
            b.put(r(1), x);
            b.marker(0x1004);
            let (a, x) = (b.get(r(2)), b.get(r(1)));
            let x = b.conv(Op::Trunc, Type::I8, x);
            b.store(Type::I8, a, -8, x);
            finish(&mut b, 0x2000);
            b.region
        };
        m.arena.mem().write(DATA + 0x20, 0x1122_3344_5566_7788u64).unwrap();
        let code = m.compile(&region(0x20));
        m.s.r[2] = DATA + 8;
        m.s.r[0] = DATA;
        assert_eq!(m.run(&code, 0x1000), End::Next(0x2000));
        assert_eq!(m.s.r[1], 0x1122_3344_5566_7788);
        assert_eq!(m.arena.mem().read::<u8>(DATA), Ok(0x88));
        for (at, fault) in [
            (0, 0x20),
            (LIMIT - 0x20, LIMIT),
            (LIMIT - 0x10, LIMIT + 0x10),
            (LIMIT + 8, LIMIT + 0x28),
            (u64::MAX - 0x1f, 0),
            (u64::MAX - 0x3f, u64::MAX - 0x1f),
            (1 << 60, (1 << 60) + 0x20),
        ] {
            m.s.r[0] = at;
            m.s.fault_addr = if m.options.precise { 0 } else { fault };
            faults(m.run(&code, 0x1000), 0x1000, fault);
        }
        m.s.r[0] = DATA;
        for (at, fault) in [(0x50, 0x48), (4, 4u64.wrapping_sub(8)), (1 << 50, (1 << 50) - 8)] {
            m.s.r[2] = at;
            m.s.fault_addr = if m.options.precise { 0 } else { fault };
            faults(m.run(&code, 0x1000), 0x1004, fault);
        }
        // An address that wraps into memory: array[-n .. 0] with a large displacement.
        let code = m.compile(&region((DATA + 0x40) as i32));
        m.s.r[0] = 0x20u64.wrapping_neg();
        m.s.r[2] = DATA + 8;
        m.s.r[1] = 0;
        assert_eq!(m.run(&code, 0x1000), End::Next(0x2000));
        assert_eq!(m.s.r[1], 0x1122_3344_5566_7788);
    });
}

/// An operand that has to be aligned and is not, in each kind of access that can find out by itself.
#[test]
fn alignment() {
    each(|m| {
        for (disp, store) in [(0, false), (0x20, false), (0, true), (-0x10, true)] {
            let mut b = start(0x1000);
            b.marker(0x1004);
            let a = b.get(r(0));
            let k = b.iconst(Type::I64, i64::from(disp));
            let at = b.bin(Op::Add, Type::I64, a, k);
            b.aligned(at, 16);
            if store {
                let x = b.get(v(0));
                b.store(Type::V128, a, disp, x);
            } else {
                let x = b.load(Type::V128, a, disp);
                // An operation that could take the load in as its operand.
                let y = b.get(v(1));
                let x = b.bin(Op::VAnd, Type::V128, y, x);
                b.put(v(0), x);
            }
            finish(&mut b, 0x2000);
            let code = m.compile(&b.region);
            m.s.r[0] = DATA + 0x40;
            assert_eq!(m.run(&code, 0x1000), End::Next(0x2000));
            m.s.r[0] = DATA + 0x48;
            assert!(matches!(m.run(&code, 0x1000), End::Fault(0x1004, _)), "{disp:#x} {store}");
        }
    });
}

/// The pc of a load that is used by a later instruction is the load's own.
#[test]
fn precise_pc() {
    each(|m| {
        let mut b = start(0x1000);
        let a = b.get(r(0));
        let x = b.load(Type::I64, a, 0);
        b.put(r(1), x);
        b.marker(0x1004);
        let (x, y) = (b.get(r(1)), b.get(r(2)));
        let s = b.bin(Op::Add, Type::I64, y, x);
        b.put(r(2), s);
        let z = b.iconst(Type::I64, 0);
        b.put(r(1), z);
        finish(&mut b, 0x2000);
        let code = m.compile(&b.region);
        m.s.r[0] = 0x40;
        let got = m.run(&code, 0x1000);
        if m.options.precise {
            assert_eq!(got, End::Fault(0x1000, 0x40));
        } else {
            assert!(matches!(got, End::Fault(0x1000 | 0x1004, 0x40)));
        }
    });
}

/// Two loads of one address stay two loads in every mode (another thread may write in between).
#[test]
fn loads_are_not_merged() {
    each(|m| {
        if m.quick {
            return;
        }
        let mut b = start(0x1000);
        let two = b.iconst(Type::I64, 2);
        let mut sum = b.iconst(Type::I64, 0);
        for _ in 0..4 {
            let (p, q) = (b.get(r(0)), b.get(r(1)));
            let q = b.bin(Op::Shl, Type::I64, q, two);
            let a = b.bin(Op::Add, Type::I64, p, q);
            let x = b.load(Type::I64, a, 8);
            sum = b.bin(Op::Add, Type::I64, sum, x);
        }
        b.put(r(2), sum);
        finish(&mut b, 0x2000);
        m.options.disassemble = true;
        let code = m.compile(&b.region);
        let text = code.compiled.text.as_deref().unwrap();
        let loads = text.lines().filter(|l| l.contains("8(") && l.contains(',')).count();
        assert!(loads >= 4, "{text}");
    });
}

#[test]
fn spare_checks() {
    let mut m = Machine::new();
    let mut b = start(0x1000);
    let p = b.get(r(0));
    let k = b.iconst(Type::I64, 64);
    let q = b.bin(Op::Sub, Type::I64, p, k);
    b.put(r(0), q);
    for d in 0..5 {
        let a = b.get(r(0));
        let x = b.load(Type::I64, a, 8 * d);
        b.store(Type::I64, p, -8 * d, x);
    }
    let fixed = b.iconst(Type::I64, DATA as i64);
    let x = b.load(Type::I64, fixed, 8);
    b.put(r(1), x);
    finish(&mut b, 0x2000);
    let code = m.compile(&b.region);
    assert_eq!(code.compiled.stats.accesses, 11);
    assert_eq!(code.compiled.stats.checks, 1);
}
