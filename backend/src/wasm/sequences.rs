//! Helpers for which WebAssembly has instructions: short sequences in place of a call, by the helper's name. All are functions
//! of two vectors to a vector without effects.

use super::emit::{Body, Ins, ins};

/// A sequence on two locals, which leaves the result on the stack. The third local is free.
type Sequence = fn(&mut Body, u32, u32, u32);

/// The table.
const TABLE: &[(&str, Sequence)] = &[
    ("pmaddwd", |b, x, y, _| {
        b.ins().local_get(x).local_get(y).i32x4_dot_i16x8_s();
    }),
    ("pmulhw", |b, x, y, _| {
        high_words(b, x, y, ins!(i32x4_extmul_low_i16x8_s), ins!(i32x4_extmul_high_i16x8_s));
    }),
    ("pmulhuw", |b, x, y, _| {
        high_words(b, x, y, ins!(i32x4_extmul_low_i16x8_u), ins!(i32x4_extmul_high_i16x8_u));
    }),
    ("pmulhrsw", |b, x, y, _| {
        // -1 times -1 is 1 there, -1 here.
        b.ins().local_get(x).local_get(y).i16x8_q15mulr_sat_s();
        for v in [x, y] {
            b.ins().local_get(v).v128_const(MIN_WORDS).i16x8_eq();
        }
        b.ins().v128_and().v128_xor();
    }),
    ("pmuludq", |b, x, y, _| even(b, x, y, ins!(i64x2_extmul_low_i32x4_u))),
    ("pmuldq", |b, x, y, _| even(b, x, y, ins!(i64x2_extmul_low_i32x4_s))),
    ("pmaddubsw", |b, x, y, _| {
        b.ins().local_get(x).v128_const(LOW_BYTES).v128_and();
        b.ins().local_get(y).i32_const(8).i16x8_shl().i32_const(8).i16x8_shr_s().i16x8_mul();
        b.ins().local_get(x).i32_const(8).i16x8_shr_u();
        b.ins().local_get(y).i32_const(8).i16x8_shr_s().i16x8_mul().i16x8_add_sat_s();
    }),
    ("psadbw", |b, x, y, t| {
        b.ins().local_get(x).local_get(y).i8x16_sub_sat_u().local_get(y).local_get(x).i8x16_sub_sat_u().v128_or();
        b.ins().i16x8_extadd_pairwise_i8x16_u().i32x4_extadd_pairwise_i16x8_u().local_tee(t);
        b.ins().i32_const(32).i64x2_shr_u().local_get(t).v128_const(LOW_DWORDS).v128_and().i64x2_add();
    }),
    ("phaddw", |b, x, y, _| pairs(b, x, y, 2, ins!(i16x8_add))),
    ("phaddd", |b, x, y, _| pairs(b, x, y, 4, ins!(i32x4_add))),
    ("phaddsw", |b, x, y, _| pairs(b, x, y, 2, ins!(i16x8_add_sat_s))),
    ("phsubw", |b, x, y, _| pairs(b, x, y, 2, ins!(i16x8_sub))),
    ("phsubd", |b, x, y, _| pairs(b, x, y, 4, ins!(i32x4_sub))),
    ("phsubsw", |b, x, y, _| pairs(b, x, y, 2, ins!(i16x8_sub_sat_s))),
    ("psignb", |b, x, y, _| sign(b, x, y, [ins!(i8x16_neg), ins!(i8x16_lt_s), ins!(i8x16_ne)])),
    ("psignw", |b, x, y, _| sign(b, x, y, [ins!(i16x8_neg), ins!(i16x8_lt_s), ins!(i16x8_ne)])),
    ("psignd", |b, x, y, _| sign(b, x, y, [ins!(i32x4_neg), ins!(i32x4_lt_s), ins!(i32x4_ne)])),
];

const MIN_WORDS: i128 = i128::from_le_bytes([0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80, 0, 0x80]);
const LOW_BYTES: i128 = i128::from_le_bytes([255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0, 255, 0]);
const LOW_DWORDS: i128 = i128::from_le_bytes([255, 255, 255, 255, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0]);

/// That of a helper.
pub fn of(name: &str) -> Option<Sequence> {
    TABLE.iter().find(|s| s.0 == name).map(|s| s.1)
}

/// High halves of the products of words.
fn high_words(b: &mut Body, x: u32, y: u32, low: Ins, high: Ins) {
    for f in [low, high] {
        b.ins().local_get(x).local_get(y);
        b.op(f);
    }
    b.ins().i8x16_shuffle([2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31]);
}

/// Products of the even double words.
fn even(b: &mut Body, x: u32, y: u32, f: Ins) {
    for v in [x, y] {
        b.ins().local_get(v).local_get(v).i8x16_shuffle([0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]);
    }
    b.op(f);
}

/// An operation on neighbours: first on those of `x`, then on those of `y`.
fn pairs(b: &mut Body, x: u32, y: u32, size: u8, f: Ins) {
    for odd in [0, 1] {
        let lane = |n: u8| {
            let (element, byte) = (n / size, n % size);
            (2 * element + odd) * size + byte
        };
        b.ins().local_get(x).local_get(y).i8x16_shuffle(std::array::from_fn(|n| lane(n as u8)));
    }
    b.op(f);
}

/// `y < 0 ? -x : y == 0 ? 0 : x`, lane by lane.
fn sign(b: &mut Body, x: u32, y: u32, [neg, less, differs]: [Ins; 3]) {
    b.ins().local_get(x);
    b.op(neg);
    b.ins().local_get(x).local_get(y).v128_const(0);
    b.op(less);
    b.ins().v128_bitselect().local_get(y).v128_const(0);
    b.op(differs);
    b.ins().v128_and();
}
