//! Random regions against a plain evaluator of the IR, with pages that may not be read or written.
//!
//! Code may leave for the interpreter earlier than at the access that fails, as one check stands for several. Then its state
//! has to be what the evaluator's was when it came to that instruction, and memory as well.

use super::ops::{set_mxcsr, small};
use super::*;
use crate::cranelift::tests::{LAYOUT, mix, r, raise_if};
use crate::interp::Exit;
use crate::interp::reference::{World, eval_until};
use evm_ir::HelperFn;
use evm_ir::random::{Rng, Shape, region};
use evm_memory::{Arena, Prot};

const SIZE: usize = 0x10000;

struct Oracle {
    arena: Arena,
    helpers: [HelperFn; 2],
}

impl Oracle {
    fn run(&self, region: &Region, s: &mut State, data: &[u8], stop: &mut dyn FnMut(u64, bool, &[u8]) -> bool) -> Exit {
        for (page, bytes) in data.chunks(4096).enumerate() {
            let at = DATA + 4096 * page as u64;
            self.arena.protect(at, 4096, Prot::RW).unwrap();
            self.arena.mem().copy_in(at, bytes).unwrap();
            let prot = match page {
                5 => Prot::R,
                9 => Prot::NONE,
                _ => Prot::RW,
            };
            self.arena.protect(at, 4096, prot).unwrap();
        }
        // SAFETY: a state is plain data.
        let state = unsafe { std::slice::from_raw_parts_mut((&raw mut *s).cast::<u8>(), size_of::<State>()) };
        let mut w = World { state, mem: self.arena.mem(), helpers: &self.helpers, pending: offset_of!(State, pending) };
        eval_until(region, 0, &mut w, stop)
    }
    fn memory(&self) -> Vec<u8> {
        self.arena.protect(DATA + 9 * 4096, 4096, Prot::R).unwrap();
        let mut b = vec![0; SIZE];
        self.arena.mem().copy_out(DATA, &mut b).unwrap();
        b
    }
}

fn registers(state: &[u8]) -> &[u8] {
    &state[..offset_of!(State, rip)]
}

/// Whether the instruction at `pc` accesses memory after it has written there.
fn writes_before_access(r: &Region, pc: u64) -> bool {
    use evm_ir::flags::{READ, WRITE};
    r.blocks.iter().any(|b| {
        let (mut here, mut wrote) = (b.pc == pc, false);
        b.insts.iter().any(|i| {
            if i.op == Op::Marker {
                (here, wrote) = (i.imm as u64 == pc, false);
            }
            let found = here && wrote && i.op.flags() & (READ | WRITE) != 0;
            wrote |= i.op.flags() & WRITE != 0;
            found
        })
    })
}

fn fuzz(settings: Settings, blocks: u64, seeds: std::ops::Range<u64>) {
    fuzz_under(0x1fa0, settings, blocks, seeds);
}

fn fuzz_under(mxcsr: u32, settings: Settings, blocks: u64, seeds: std::ops::Range<u64>) {
    let flushing = mxcsr & 0x8040 != 0;
    let mut m = Machine::new(settings);
    m.mxcsr = mxcsr.into();
    for page in 0..16 {
        let bits = match page {
            5 => perm::READ,
            9 => 0,
            _ => RW,
        };
        m.protect(DATA + 4096 * page, 4096, bits);
    }
    PermTable::new(&m.perms).set_code((DATA >> 12) as usize + 12, true);
    m.protect(0, 4096, 0);
    // SAFETY: the two have these types, and take this module's state.
    let helpers = unsafe {
        [
            HelperFn::I2V2_V(std::mem::transmute(mix as *const ())),
            HelperFn::I1_R(std::mem::transmute(raise_if as *const ())),
        ]
    };
    let arena = Arena::reserve(LIMIT).unwrap();
    arena.map_anon(DATA, SIZE as u64, Prot::RW).unwrap();
    let oracle = Oracle { arena, helpers };
    let (mut stepped, total) = (0, seeds.end - seeds.start);
    for seed in seeds {
        let shape = Shape {
            layout: &LAYOUT,
            helpers: &HELPERS,
            fuel: r(4),
            base: DATA,
            mask: 0xffff,
            blocks,
            faults: true,
            floats: true,
        };
        let region = region(&shape, seed);
        let f = m.load(std::slice::from_ref(&region));
        m.forget();
        let mut rng = Rng::new(seed + 77);
        let mut start = new_state();
        for x in &mut start.r {
            *x = rng.bits();
        }
        for x in &mut start.v {
            *x = u128::from(rng.bits()) << 64 | u128::from(rng.bits());
        }
        start.r[4] = 20;
        let mut data: Vec<u8> = (0..SIZE / 8).flat_map(|_| rng.bits().to_le_bytes()).collect();
        if flushing {
            let mut rng = super::ops::Rng(seed + 99);
            start.v.iter_mut().for_each(|v| *v = small(&mut rng));
            data = (0..SIZE / 16).flat_map(|_| small(&mut rng).to_le_bytes()).collect();
        }
        let copy = |s: &State| {
            let mut t = new_state();
            (t.r, t.v) = (s.r, s.v);
            t
        };
        let mut got = copy(&start);
        m.memory.write(&mut m.store, GUEST + DATA as usize, &data).unwrap();
        let next = m.run(&f, &mut got, 0x1000, 0);
        let mut memory = vec![0; SIZE];
        m.memory.read(&m.store, GUEST + DATA as usize, &mut memory).unwrap();
        let log = m.store.data().0.clone();
        // What the interpreter computes with, here and below.
        set_mxcsr(mxcsr);
        let what = || format!("seed {seed}, next {next:#x}, {log:x?}\n{region}");
        if next == u64::MAX && got.pending == STEP {
            stepped += 1;
            // At which of its visits to that instruction?
            let mut visits = 0;
            let mut same = vec![];
            let mut want = copy(&start);
            let got_registers = {
                // SAFETY: a state is plain data.
                let b = unsafe { std::slice::from_raw_parts((&raw const *got).cast::<u8>(), size_of::<State>()) };
                registers(b).to_vec()
            };
            oracle.run(&region, &mut want, &data, &mut |pc, _, state| {
                if pc == got.rip {
                    if registers(state) == got_registers {
                        same.push(visits);
                    }
                    visits += 1;
                }
                false
            });
            let equal = same.iter().any(|n| {
                let mut visits = 0;
                let mut want = copy(&start);
                oracle.run(&region, &mut want, &data, &mut |pc, _, _| {
                    visits += u32::from(pc == got.rip);
                    pc == got.rip && visits == n + 1
                });
                oracle.memory() == memory
            });
            // An instruction that writes and then accesses memory once more is left in its middle.
            let equal = equal || !same.is_empty() && writes_before_access(&region, got.rip);
            assert!(equal, "left at {:#x} ({visits} visits, {same:?} alike) {}", got.rip, what());
            continue;
        }
        let mut want = copy(&start);
        let exit = oracle.run(&region, &mut want, &data, &mut |_, _, _| false);
        let last = log.last().copied();
        match exit {
            Exit::Jump { pc } | Exit::Return { pc } | Exit::Call { target: pc, .. } => {
                assert_eq!(next, pc, "{exit:x?} {}", what());
            }
            Exit::Service { code, pc, next: n } => {
                assert_eq!((next, last), (0x9999, Some(("service", [code.into(), pc, n]))), "{}", what());
            }
            Exit::Raise { code, arg, pc } => {
                assert_eq!((next, last), (0x4444, Some(("raise", [code.into(), arg, pc]))), "{}", what());
            }
            Exit::Pending { pc } => {
                assert_eq!((next, got.rip, got.pending), (u64::MAX, pc, 1), "{}", what());
                want.rip = got.rip;
            }
            e => panic!("{e:x?} {}", what()),
        }
        assert!(
            (want.r, want.v, want.rip) == (got.r, got.v, got.rip) && oracle.memory() == memory,
            "{exit:x?}\nwant {:x?} {:x?} {:x}\ngot  {:x?} {:x?} {:x}\n{}",
            want.r,
            want.v,
            want.rip,
            got.r,
            got.v,
            got.rip,
            what()
        );
    }
    set_mxcsr(0x1f80);
    assert!(stepped > total / 50 && stepped < total * 9 / 10, "{stepped} of {total}");
}

#[test]
fn plain() {
    fuzz(Settings::new(ABI), 8, 0..200);
}

#[test]
fn large() {
    fuzz(Settings::new(ABI), 40, 600..640);
}

#[test]
fn variants() {
    fuzz(Settings { atomics: true, tail_calls: false, fixed: Some(FIXED), ..Settings::new(ABI) }, 8, 800..900);
}

#[test]
fn flushing() {
    fuzz_under(0x9fa0, Settings::new(ABI), 8, 1000..1200);
    fuzz_under(0x9fe0, Settings::new(ABI), 8, 1200..1600);
    fuzz_under(0x9fe0, Settings::new(ABI), 40, 1600..1640);
}
