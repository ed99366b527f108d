//! AVX, AVX2 and FMA instructions without a legacy form: those that cross the halves of YMM, load by mask
//! or by a vector of indices, or have three sources.

use super::{Done, Form, Vector, scalar, select};
use crate::ctx::Addr;
use evm_cpu::helper as h;
use evm_ir::{Op, Type, Type::*, Value};
use iced_x86::{Mnemonic as M, Register};

/// Translate an instruction that exists in AVX only.
pub(super) fn lift(v: &mut Vector) -> Done {
    use M::*;
    match v.i.mnemonic() {
        Vzeroupper | Vzeroall => {
            let z = v.zero();
            let all = v.i.mnemonic() == Vzeroall;
            for n in 0..if v.cx.bits == 32 { 8 } else { 16 } {
                v.cx.put(evm_cpu::ymm_hi(n), z);
                if all {
                    v.cx.set_xmm(n, z);
                }
            }
        }
        Vbroadcastss | Vpbroadcastd => broadcast(v, I32X4),
        Vbroadcastsd | Vpbroadcastq => broadcast(v, I64X2),
        Vpbroadcastb => broadcast(v, I8X16),
        Vpbroadcastw => broadcast(v, I16X8),
        Vbroadcastf128 | Vbroadcasti128 => {
            let x = v.load(V128, 0);
            v.set(&[x, x]);
        }
        Vinsertf128 | Vinserti128 => {
            let x = v.src(2, 0);
            let other = 1 - usize::from(v.imm() & 1);
            let keep = v.src(1, other);
            v.set(&if other == 0 { [keep, x] } else { [x, keep] });
        }
        Vextractf128 | Vextracti128 => {
            let x = v.src(1, usize::from(v.imm() & 1));
            if v.is_mem(0) {
                let a = v.addr();
                v.cx.store(V128, a, x);
            } else {
                v.set(&[x]);
            }
        }
        Vperm2f128 | Vperm2i128 => {
            let imm = v.imm();
            if v.is_mem(2) {
                // Read even if nothing of it is chosen.
                v.src(2, 0);
            }
            let halves = [imm & 15, imm >> 4].map(|c| match c {
                c if c & 8 != 0 => v.zero(),
                c => v.src(1 + u32::from(c >> 1 & 1), usize::from(c & 1)),
            });
            v.set(&halves);
        }
        Vpermq | Vpermpd => {
            let (lo, hi) = (v.src(1, 0), v.src(1, 1));
            let imm = v.imm();
            let sel = |at: u8| select::lanes(8, |k| usize::from(imm >> (at + 2 * k as u8) & 3));
            let r = [v.cx.b.shuffle(lo, hi, sel(0)), v.cx.b.shuffle(lo, hi, sel(4))];
            v.set(&r);
        }
        Vpermd | Vpermps => {
            let (lo, hi) = (v.src(2, 0), v.src(2, 1));
            let r = [0, 1].map(|half| {
                let idx = v.src(1, half);
                v.cx.call(h::PERMD, &[idx, lo, hi])
            });
            v.set(&r);
        }
        Vmaskmovps | Vpmaskmovd => maskmov(v, I32X4),
        Vmaskmovpd | Vpmaskmovq => maskmov(v, I64X2),
        Vpgatherdd | Vgatherdps => gather(v, 4, 4),
        Vpgatherdq | Vgatherdpd => gather(v, 4, 8),
        Vpgatherqd | Vgatherqps => gather(v, 8, 4),
        Vpgatherqq | Vgatherqpd => gather(v, 8, 8),
        m => match fma_form(m) {
            Some((order, form)) => fma(v, order, form),
            None => return Ok(false),
        },
    }
    Ok(true)
}

fn broadcast(v: &mut Vector, shape: Type) {
    let x = if v.is_mem(1) {
        v.load(shape.lane(), 0)
    } else {
        let x = v.src(1, 0);
        v.cx.b.extract(shape, x, 0)
    };
    let r = v.cx.b.un(Op::Splat, shape, x);
    v.set(&[r; 2][..v.halves()]);
}

/// VMASKMOV*, VPMASKMOV*: lanes under the mask; the others are not accessed.
fn maskmov(v: &mut Vector, shape: Type) {
    let size = v.iconst(u64::from(shape.lane().bytes()));
    let a = v.addr();
    if v.is_mem(0) {
        // All or nothing.
        let mut form = size;
        for half in 0..v.halves() {
            let m = v.src(1, half);
            let bits = v.cx.b.un(Op::VMask, shape, m);
            let bits = v.cx.zext(I64, bits);
            let bits = v.cx.bini(Op::Shl, I64, bits, 8 + half as i64 * (16 / i64::from(shape.lane().bytes())));
            form = v.cx.bin(Op::Or, I64, form, bits);
        }
        let at = v.cx.flat(a);
        v.cx.call(h::MASK_PROBE, &[at, form]);
        for half in 0..v.halves() {
            let (m, x) = (v.src(1, half), v.src(2, half));
            let a = v.cx.flat(a.plus(16 * half as i32));
            v.cx.call(h::MASK_STORE, &[a, size, m, x]);
        }
        return;
    }
    let halves: Vec<Value> = (0..v.halves())
        .map(|half| {
            let m = v.src(1, half);
            let a = v.cx.flat(a.plus(16 * half as i32));
            v.cx.call(h::MASK_LOAD, &[a, size, m])
        })
        .collect();
    v.set(&halves);
}

/// VGATHER*, VPGATHER*: indices of `isize` bytes, elements of `esize` bytes. The mask register ends as zero.
fn gather(v: &mut Vector, isize: u32, esize: u32) {
    let base = match v.i.memory_base() {
        Register::None => v.iconst(0),
        r => v.cx.gpr64(r),
    };
    let disp = v.cx.iconst(I64, v.i.memory_displacement64() as i64);
    let base = v.cx.bin(Op::Add, I64, base, disp);
    let base = v.cx.with_segment(v.i, base);
    let base = v.cx.flat(Addr { base, disp: 0 });
    let index = v.i.memory_index();
    let scale = v.i.memory_index_scale();
    // Halves of the result; QD gathers have one, fed by both halves of the indices.
    let wide_index = index.is_ymm();
    let results = if v.i.op_register(0).is_ymm() { 2 } else { 1 };
    let call = |v: &mut Vector, half: usize, ihalf: usize, first_index: u32, lanes: u64, shift: bool| {
        let (dst, idx) = (v.half(v.i.op_register(0), half), v.half(index, ihalf));
        let mask = v.half(v.i.op_register(2), half);
        let (dst, mask) = if shift {
            let sel = select::lanes(8, |_| 1);
            (v.cx.b.shuffle(dst, dst, sel), v.cx.b.shuffle(mask, mask, sel))
        } else {
            (dst, mask)
        };
        let form = u64::from(scale)
            | u64::from(isize) << 8
            | u64::from(esize) << 16
            | u64::from(first_index) << 24
            | lanes << 32
            | u64::from(v.cx.bits == 32 || v.i.memory_base().size() == 4) << 40;
        let form = v.iconst(form);
        v.cx.call(h::GATHER, &[base, form, dst, idx, mask])
    };
    let halves: Vec<Value> = match (isize, esize) {
        (8, 4) => {
            let lo = call(v, 0, 0, 0, 2, false);
            let hi = if wide_index { call(v, 0, 1, 0, 2, true) } else { v.zero() };
            vec![v.cx.b.shuffle(lo, hi, select::lanes(8, |k| 2 * k))]
        }
        (4, 8) => (0..results).map(|k| call(v, k, 0, 2 * k as u32, 2, false)).collect(),
        _ => (0..results).map(|k| call(v, k, k, 0, u64::from(16 / esize), false)).collect(),
    };
    let mask = v.reg(2);
    let z = v.zero();
    v.form = if results == 2 { Form::Vex256 } else { Form::Vex128 };
    v.set(&halves);
    v.cx.set_xmm(mask, z);
    v.cx.put(evm_cpu::ymm_hi(mask), z);
}

/// Operand order and the form of helper `fma` (or of the IR operation) for an FMA mnemonic.
fn fma_form(m: M) -> Option<(u32, u64)> {
    use M::*;
    Some(match m {
        Vfmadd132ps => (132, 0),
        Vfmadd213ps => (213, 0),
        Vfmadd231ps => (231, 0),
        Vfmadd132pd => (132, 1),
        Vfmadd213pd => (213, 1),
        Vfmadd231pd => (231, 1),
        Vfmadd132ss => (132, 16),
        Vfmadd213ss => (213, 16),
        Vfmadd231ss => (231, 16),
        Vfmadd132sd => (132, 17),
        Vfmadd213sd => (213, 17),
        Vfmadd231sd => (231, 17),
        Vfmsub132ps => (132, 2),
        Vfmsub213ps => (213, 2),
        Vfmsub231ps => (231, 2),
        Vfmsub132pd => (132, 3),
        Vfmsub213pd => (213, 3),
        Vfmsub231pd => (231, 3),
        Vfmsub132ss => (132, 18),
        Vfmsub213ss => (213, 18),
        Vfmsub231ss => (231, 18),
        Vfmsub132sd => (132, 19),
        Vfmsub213sd => (213, 19),
        Vfmsub231sd => (231, 19),
        Vfnmadd132ps => (132, 4),
        Vfnmadd213ps => (213, 4),
        Vfnmadd231ps => (231, 4),
        Vfnmadd132pd => (132, 5),
        Vfnmadd213pd => (213, 5),
        Vfnmadd231pd => (231, 5),
        Vfnmadd132ss => (132, 20),
        Vfnmadd213ss => (213, 20),
        Vfnmadd231ss => (231, 20),
        Vfnmadd132sd => (132, 21),
        Vfnmadd213sd => (213, 21),
        Vfnmadd231sd => (231, 21),
        Vfnmsub132ps => (132, 6),
        Vfnmsub213ps => (213, 6),
        Vfnmsub231ps => (231, 6),
        Vfnmsub132pd => (132, 7),
        Vfnmsub213pd => (213, 7),
        Vfnmsub231pd => (231, 7),
        Vfnmsub132ss => (132, 22),
        Vfnmsub213ss => (213, 22),
        Vfnmsub231ss => (231, 22),
        Vfnmsub132sd => (132, 23),
        Vfnmsub213sd => (213, 23),
        Vfnmsub231sd => (231, 23),
        Vfmaddsub132ps => (132, 8),
        Vfmaddsub213ps => (213, 8),
        Vfmaddsub231ps => (231, 8),
        Vfmaddsub132pd => (132, 9),
        Vfmaddsub213pd => (213, 9),
        Vfmaddsub231pd => (231, 9),
        Vfmsubadd132ps => (132, 10),
        Vfmsubadd213ps => (213, 10),
        Vfmsubadd231ps => (231, 10),
        Vfmsubadd132pd => (132, 11),
        Vfmsubadd213pd => (213, 11),
        Vfmsubadd231pd => (231, 11),
        _ => return None,
    })
}

/// 132: `0 * 2 + 1`; 213: `1 * 0 + 2`; 231: `1 * 2 + 0` of the operands. The helper runs the 213 form, whose first
/// factor (for the choice among NaNs) is `y`.
fn fma(v: &mut Vector, order: u32, form: u64) {
    let f = v.iconst(form);
    if form & 16 != 0 {
        return fma_scalar(v, order, f, if form & 1 != 0 { F64 } else { F32 });
    }
    let halves: Vec<Value> = (0..v.halves())
        .map(|half| {
            let (a, b, c) = (v.src(0, half), v.src(1, half), v.src(2, half));
            let (x, y, z) = factors(order, a, b, c);
            v.cx.call(h::FMA, &[f, x, y, z])
        })
        .collect();
    v.set(&halves);
}

fn factors(order: u32, a: Value, b: Value, c: Value) -> (Value, Value, Value) {
    match order {
        132 => (c, a, b),
        213 => (a, b, c),
        _ => (c, b, a),
    }
}

/// The low lane; the upper ones are operand 0's.
fn fma_scalar(v: &mut Vector, order: u32, form: Value, ty: Type) {
    let shape = scalar::shape(ty);
    let c = if v.is_mem(2) {
        let c = v.load(ty, 0);
        let z = v.zero();
        v.cx.b.insert(shape, z, 0, c)
    } else {
        v.src(2, 0)
    };
    let (a, b) = (v.src(0, 0), v.src(1, 0));
    let (x, y, z) = factors(order, a, b, c);
    let r = v.cx.call(h::FMA, &[form, x, y, z]);
    let r = v.cx.b.extract(shape, r, 0);
    let r = v.cx.b.insert(shape, a, 0, r);
    v.set(&[r]);
}
