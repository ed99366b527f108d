//! Discovery and shape of what is made. What instructions compute is compared with the real CPU elsewhere.

use crate::{LiftError, Lifted, Mode, Options, lift};
use evm_ir::{Block, Op, Term, Type};

const AT: u64 = 0x1000;

fn code(bytes: &[u8], opts: &Options) -> Result<Lifted, LiftError> {
    let mut fetch = |a: u64, buf: &mut [u8]| {
        let Some(off) = a.checked_sub(AT).filter(|o| *o < bytes.len() as u64) else {
            return 0;
        };
        let rest = &bytes[off as usize..];
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    };
    lift(AT, &[], &mut fetch, opts)
}

fn region(bytes: &[u8]) -> Lifted {
    code(bytes, &Options::default()).expect("lifts")
}

/// Every value is defined in its block before its use, and operands of puts and binary operations have the right types.
fn check(l: &Lifted) {
    let r = &l.region;
    for b in &r.blocks {
        let mut seen = std::collections::HashSet::new();
        for i in &b.insts {
            let mut uses = vec![i.a, i.b, i.c];
            if i.op == Op::Call {
                uses = r.calls[i.imm as usize].args.clone();
            }
            for u in uses.into_iter().filter(|u| u.is_some()) {
                assert!(seen.contains(&u), "{:#x}: {i:?} uses {u:?} of another block", b.pc);
            }
            let ty = |v: evm_ir::Value| r.types[v.0 as usize];
            match i.op.sig() {
                evm_ir::Sig::Bin | evm_ir::Sig::Cmp if i.ty.is_int() => {
                    assert_eq!((ty(i.a), ty(i.b)), (i.ty, i.ty), "{i:?}");
                }
                evm_ir::Sig::Put | evm_ir::Sig::Un if !i.ty.is_shape() => {
                    assert_eq!(ty(i.a), i.ty, "{i:?}")
                }
                evm_ir::Sig::Store => assert_eq!((ty(i.a), ty(i.b)), (Type::I64, i.ty), "{i:?}"),
                evm_ir::Sig::Load => assert_eq!(ty(i.a), Type::I64, "{i:?}"),
                evm_ir::Sig::Select => {
                    assert_eq!((ty(i.a), ty(i.b), ty(i.c)), (Type::I8, i.ty, i.ty), "{i:?}")
                }
                evm_ir::Sig::Conv => assert_eq!(ty(i.a) as i64, i.imm, "{i:?}"),
                _ => {}
            }
            if i.dst.is_some() {
                seen.insert(i.dst);
            }
        }
        let end = match &b.term {
            Term::Br(v, ..) | Term::Switch(v, ..) | Term::Exit(v) | Term::Return(v) => Some(*v),
            Term::Call { target, .. } => Some(*target),
            Term::Raise { code, .. } => {
                assert_ne!(*code, u32::MAX, "{:#x}: block without end", b.pc);
                None
            }
            _ => None,
        };
        if let Some(v) = end {
            assert!(seen.contains(&v), "{:#x}: terminator", b.pc);
        }
    }
}

#[test]
fn loop_and_return() {
    // 1000: xor eax,eax; 1002: add rax,rdi; 1005: dec rdi; 1008: jne 1002; 100a: ret
    let l = region(&[0x31, 0xc0, 0x48, 0x01, 0xf8, 0x48, 0xff, 0xcf, 0x75, 0xf8, 0xc3]);
    check(&l);
    let r = &l.region;
    assert_eq!(r.source, [(AT, 11)]);
    assert_eq!(r.insns, 5);
    assert_eq!(r.blocks[0].pc, AT);
    assert!(matches!(r.blocks[0].term, Term::Jump(Block(1))));
    assert!(r.blocks[1].loop_header && r.blocks[1].pc == 0x1002);
    assert!(matches!(r.blocks[1].term, Term::Br(_, Block(1), Block(2))), "{:?}", r.blocks[1].term);
    assert!(matches!(r.blocks[2].term, Term::Return(_)));
    // The branch is a comparison, not a helper call.
    assert!(r.calls.iter().all(|_| { r.blocks[1].insts.iter().filter(|i| i.op == Op::Icmp).count() > 0 }));
}

#[test]
fn flags_known_across_blocks() {
    // cmp rdi,rsi; ja +2; jb +1; nop; ret; ret
    let l = region(&[0x48, 0x39, 0xf7, 0x77, 0x04, 0x72, 0x01, 0x90, 0xc3, 0xc3]);
    check(&l);
    assert!(l.region.calls.is_empty(), "{:?}", l.region.calls);
}

#[test]
fn dead_flags_are_not_written() {
    // add eax,ebx; sub ecx,edx; ret
    let l = region(&[0x01, 0xd8, 0x29, 0xd1, 0xc3]);
    check(&l);
    let puts =
        l.region.blocks[0].insts.iter().filter(|i| i.op == Op::Put && i.imm == i64::from(evm_cpu::slot::CC_OP.0));
    assert_eq!(puts.count(), 1);
}

#[test]
fn edges() {
    // A call goes on behind itself; unfetchable code leaves the region; bad code raises.
    let l = region(&[0xe8, 0x00, 0x10, 0x00, 0x00, 0x74, 0x7f, 0x06, 0x90]);
    check(&l);
    let r = &l.region;
    assert!(matches!(r.blocks[0].term, Term::Call { ret: 0x1005, cont: Some(Block(1)), .. }));
    let Term::Br(_, t, f) = &r.blocks[1].term else { panic!("{:?}", r.blocks[1].term) };
    assert!(matches!(r.blocks[t.0 as usize].term, Term::Exit(_)));
    let bad = &r.blocks[f.0 as usize].term;
    assert!(matches!(bad, Term::Raise { code: evm_cpu::exc::UD, pc: 0x1007, .. }), "{bad:?}");
    assert_eq!(l.notes.len(), 1);
    assert_eq!(code(&[], &Options::default()).unwrap_err(), LiftError::Fetch { addr: AT });
    assert_eq!(code(&[0x48], &Options::default()).unwrap_err(), LiftError::Fetch { addr: AT + 1 });
    let l = code(&[0x90, 0x90, 0x75, 0xfc], &Options { mode: Mode::Block, ..Options::default() }).unwrap();
    check(&l);
    assert_eq!(l.region.entries, [Block(0)]);
    let Term::Br(_, t, _) = &l.region.blocks[0].term else { panic!() };
    assert!(matches!(l.region.blocks[t.0 as usize].term, Term::Exit(_)));
}

#[test]
fn linkage_stub() {
    // call 1010; ret; 1010: endbr64; jmp [rip+0x10]
    let mut b = vec![0x90u8; 0x20];
    b[..6].copy_from_slice(&[0xe8, 0x0b, 0, 0, 0, 0xc3]);
    b[0x10..0x1a].copy_from_slice(&[0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0x10, 0, 0, 0]);
    let l = region(&b);
    check(&l);
    let r = &l.region;
    assert_eq!(r.source, [(AT, 6), (AT + 0x10, 10)]);
    let Term::Call { target, .. } = r.blocks[0].term else { panic!() };
    assert!(r.blocks[0].insts.iter().any(|i| i.op == Op::Load && i.dst == target));
}

/// Random bytes never panic, and what comes out is well formed.
#[test]
fn random_bytes() {
    let mut x = 0x2545_f491_4f6c_dd1du64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x
    };
    for round in 0..4000 {
        let mut b: Vec<u8> = (0..48).map(|_| next() as u8).collect();
        // Bias to two-byte opcodes and prefixes.
        if round % 3 == 0 {
            b[0] = 0x0f;
        } else if round % 3 == 1 {
            b[0] = [0xf0, 0x66, 0xf2, 0xf3, 0x48, 0x67, 0x64][(next() % 7) as usize];
        }
        for bits in [64, 32] {
            for mode in [Mode::Block, Mode::Region] {
                if let Ok(l) = code(&b, &Options { bits, mode, ..Options::default() }) {
                    check(&l);
                }
            }
        }
    }
}

/// Code with data that can be read but not run.
struct Image(Vec<u8>, usize);

impl crate::Code for Image {
    fn fetch(&mut self, a: u64, buf: &mut [u8]) -> usize {
        let end = AT + self.1 as u64;
        if !(AT..end).contains(&a) {
            return 0;
        }
        let n = ((end - a) as usize).min(buf.len());
        self.read(a, &mut buf[..n])
    }
    fn read(&mut self, a: u64, buf: &mut [u8]) -> usize {
        let Some(rest) = a.checked_sub(AT).and_then(|o| self.0.get(o as usize..)) else {
            return 0;
        };
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        n
    }
}

#[test]
fn jump_table() {
    // cmp edi,2; ja 101b; lea rdx,[rip+0x30] (1040); movsxd rax,[rdx+rdi*4]; add rax,rdx; notrack jmp rax;
    // 1016: inc eax; ret; 1019: nop; nop; 101b: ret
    let mut b = vec![
        0x83, 0xff, 0x02, 0x77, 0x16, 0x48, 0x8d, 0x15, 0x34, 0, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0x3e,
        0xff, 0xe0, 0xff, 0xc0, 0xc3, 0x90, 0x90, 0xc3,
    ];
    let code = b.len();
    b.resize(0x40, 0);
    for to in [0x1016u32, 0x1019, 0x1016] {
        b.extend_from_slice(&to.wrapping_sub(0x1040).to_le_bytes());
    }
    let l = lift(AT, &[], &mut Image(b, code), &Options::default()).expect("lifts");
    check(&l);
    let r = &l.region;
    let cases = r.blocks.iter().find_map(|b| match &b.term {
        Term::Switch(_, cases, _) => Some(cases),
        _ => None,
    });
    let cases = cases.expect("a switch");
    assert_eq!(cases.len(), 3);
    assert_eq!(cases[0], cases[2]);
    let goes: Vec<u64> = cases[..2]
        .iter()
        .map(|c| match r.blocks[c.0 as usize].term {
            Term::Br(_, to, _) => r.blocks[to.0 as usize].pc,
            _ => 0,
        })
        .collect();
    assert_eq!(goes, [0x1016, 0x1019]);
    // Nothing of the table is part of the source: its content is checked when it runs.
    assert_eq!(r.source, [(AT, code as u32)]);
}
