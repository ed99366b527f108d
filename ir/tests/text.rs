//! Printing and parsing are inverse; the validator takes any region without a panic.

mod common;

use evm_ir::passes::{OptLevel, optimize};
use evm_ir::random::{Rng, Shape, region};
use evm_ir::{Block, Op, Region, Term, Type, Value, parse, validate};

const SHAPE: Shape = Shape {
    layout: &common::LAYOUT,
    helpers: common::HELPERS,
    fuel: evm_ir::Slot(3),
    base: 0x1000,
    mask: 0xfff,
    blocks: 8,
    faults: true,
    floats: true,
};

fn round_trip(r: &Region) {
    let text = r.to_string();
    let again = parse(&text, &common::LAYOUT, common::HELPERS).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(again.to_string(), text);
    assert_eq!(validate(&again).map_err(|e| e.to_string()), Ok(()), "\n{text}");
}

#[test]
fn print_parse_print() {
    for seed in 0..400 {
        let r = region(&SHAPE, seed);
        validate(&r).unwrap_or_else(|e| panic!("seed {seed}: {e}\n{r}"));
        round_trip(&r);
        for level in [OptLevel::Interp, OptLevel::Full, OptLevel::Precise] {
            let mut x = r.clone();
            optimize(&mut x, level);
            validate(&x).unwrap_or_else(|e| panic!("seed {seed} {level:?}: {e}\n{r}\n{x}"));
            round_trip(&x);
        }
    }
}

#[test]
fn errors_have_a_line() {
    let cases = [
        ("region\nblock0 @0x0:\n  jump block0\nblock2 @0x0:", "line 4: expected block1"),
        ("block0 @0x0:\n v0:i64 = frob.i64 v1", "line 2: `frob` is not an instruction"),
        ("block0 @0x0:\n v0:i64 = get.i64 rax", "line 2: `rax` is not a slot"),
        ("block0 @0x0:\n v0:i65 = get.i64 r0", "line 2: `i65` is not a type"),
        ("block0 @0x0:\n jump block0 block1", "line 2: `block1` is too much"),
        ("jump block0", "line 1: an instruction outside a block"),
        ("block0 @0x0:", "line 1: the last block has no terminator"),
        ("block0 @0x0:\n v99999999999:i64 = fence", "line 2: `v99999999999` is not a value"),
    ];
    for (text, want) in cases {
        let e = parse(text, &common::LAYOUT, common::HELPERS).map(|_| ()).expect_err(text);
        assert_eq!(e.to_string(), want);
    }
}

/// One random change.
fn mutate(r: &mut Region, rng: &mut Rng) {
    let blocks = r.blocks.len() as u64;
    let b = rng.below(blocks) as usize;
    let n = r.blocks[b].insts.len() as u64;
    let v = Value(rng.below(r.types.len() as u64 + 2) as u32);
    let block = Block(rng.below(blocks + 1) as u32);
    if n == 0 || rng.chance(6) {
        r.blocks[b].term = match rng.below(6) {
            0 => Term::Jump(block),
            1 => Term::Br(v, block, Block(0)),
            2 => Term::Exit(v),
            3 => Term::Call { target: v, ret: 0, cont: Some(block) },
            4 => Term::Switch(v, vec![block; 3], Block(0)),
            _ => Term::Return(Value::NONE),
        };
        return;
    }
    let k = rng.below(n) as usize;
    let i = &mut r.blocks[b].insts[k];
    match rng.below(9) {
        0 => i.op = rng.pick(Op::ALL),
        1 => i.ty = rng.pick(&Type::ALL),
        2 => i.a = v,
        3 => i.b = v,
        4 => i.c = v,
        5 => i.dst = v,
        6 => i.imm = if rng.chance(2) { rng.below(20) as i64 } else { rng.bits() as i64 },
        7 => {
            r.blocks[b].insts.swap_remove(k);
        }
        _ => r.blocks[b].loop_header ^= true,
    }
}

#[test]
fn validator_takes_anything() {
    let mut valid = 0;
    for seed in 0..3000 {
        let mut r = region(&SHAPE, seed);
        let mut rng = Rng::new(seed + 1_000_000);
        if rng.chance(2) {
            optimize(&mut r, OptLevel::Full);
        }
        for _ in 0..=rng.below(3) {
            mutate(&mut r, &mut rng);
        }
        let _ = r.to_string();
        if validate(&r).is_ok() {
            valid += 1;
            if !r.blocks.iter().any(|b| b.insts.iter().any(|i| matches!(i.op, Op::Fill | Op::Spill))) {
                optimize(&mut r, OptLevel::Full);
                assert_eq!(validate(&r), Ok(()), "seed {seed}\n{r}");
            }
        }
    }
    assert!(valid > 100, "{valid}");
}
