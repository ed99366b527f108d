//! Operations of the x87 unit: on 80-bit values in the low bits of a `u128`, under a control word, giving the flags, C1 and
//! condition codes of the status word. Which registers they come from, and what an unmasked exception does to the
//! stack, is the caller's business.

use crate::number::*;
use crate::sse::{product, quotient, root, sum};
use crate::transcend;
use std::cmp::Ordering;

const C0: u16 = 0x100;
const C1: u16 = 0x200;
const C2: u16 = 0x400;
const C3: u16 = 0x4000;
/// The default NaN.
const QNAN: u128 = 0xffff_c000_0000_0000_0000;

/// An operand.
#[derive(Clone, Copy)]
enum Value {
    Num(Num),
    /// An encoding that the unit does not take: not a number of any kind.
    Unsupported,
}
use Value::Unsupported;

fn unpack(v: u128) -> Value {
    let (neg, exp, sig) = (v >> 79 & 1 != 0, (v >> 64) as i32 & 0x7fff, v as u64);
    let num = |class, exp| Value::Num(Num { class, neg, exp, sig, denormal: false });
    match exp {
        0 if sig == 0 => Value::Num(Num::zero(neg)),
        0 => {
            let n = sig.leading_zeros();
            let exp = F80.min - n as i32;
            Value::Num(Num { class: Class::Finite, neg, exp, sig: sig << n, denormal: true })
        }
        _ if sig >> 63 == 0 => Unsupported,
        0x7fff if sig << 1 == 0 => Value::Num(Num::inf(neg)),
        0x7fff if sig >> 62 & 1 != 0 => num(Class::Quiet, 0),
        0x7fff => num(Class::Signaling, 0),
        _ => num(Class::Finite, exp - F80.max),
    }
}
fn pack(n: &Num) -> u128 {
    let word = |exp: u32, sig: u64| u128::from(exp) << 64 | u128::from(sig);
    u128::from(n.neg) << 79
        | match n.class {
            Class::Zero => 0,
            Class::Inf => word(0x7fff, 1 << 63),
            Class::Quiet | Class::Signaling => word(0x7fff, n.sig | 1 << 63),
            Class::Finite if n.exp >= F80.min => word((n.exp + F80.max) as u32, n.sig),
            Class::Finite => word(0, n.sig >> (F80.min - n.exp).min(63)),
        }
}
fn env(cw: u16) -> Env {
    Env { round: Round::from_bits(u32::from(cw) >> 10), masked: u32::from(cw & 0x3f), wrap: true, ..Env::DEFAULT }
}
/// The format that results of arithmetic are rounded to.
fn precision(cw: u16) -> Format {
    Format { bits: [24, 64, 53, 64][usize::from(cw >> 8 & 3)], ..F80 }
}
/// The status word of an operation.
fn status(e: &Env) -> u16 {
    let flags = if e.stopped() { e.pre } else { e.pre | e.post };
    flags as u16 | if e.up && !e.stopped() { C1 } else { 0 }
}
/// The operands as numbers, unless a NaN or an encoding that is none decides the result.
fn numbers(e: &mut Env, a: Value, b: Value) -> Result<(Num, Num), Num> {
    let (Value::Num(a), Value::Num(b)) = (a, b) else {
        e.pre |= IE;
        return Err(Num::INDEFINITE);
    };
    match nan(e, &a, &b) {
        Some(n) => Err(n),
        None => Ok((a, b)),
    }
}
/// The NaN that two operands give: the quiet one of a quiet and a signalling one, else the one with the larger
/// significand, of equal ones the positive one.
fn nan(e: &mut Env, a: &Num, b: &Num) -> Option<Num> {
    if a.class == Class::Signaling || b.class == Class::Signaling {
        e.pre |= IE;
    }
    let r = match (a.is_nan(), b.is_nan()) {
        (false, false) => return None,
        (true, false) => a,
        (false, true) => b,
        _ if a.class != b.class => {
            if a.class == Class::Quiet {
                a
            } else {
                b
            }
        }
        _ => match a.sig.cmp(&b.sig) {
            Ordering::Greater => a,
            Ordering::Less => b,
            Ordering::Equal if a.neg => b,
            Ordering::Equal => a,
        },
    };
    Some(r.quiet())
}
fn invalid(e: &mut Env) -> Num {
    e.pre |= IE;
    Num::INDEFINITE
}

/// A memory operand: single, double, or an integer of 16, 32 or 64 bits (kinds 0 to 4).
fn memory(kind: u64, bits: u64) -> Num {
    match kind {
        0 => crate::sse::unpack_bits(&F32, 8, bits & 0xffff_ffff, false),
        1 => crate::sse::unpack_bits(&F64, 11, bits, false),
        2 => Num::integer(i64::from(bits as i16)),
        3 => Num::integer(i64::from(bits as i32)),
        _ => Num::integer(bits as i64),
    }
}

/// FLD m32/m64, FILD m16/m32/m64.
pub fn load(cw: u16, kind: u64, bits: u64) -> (u128, u16) {
    let mut e = env(cw);
    let mut n = memory(kind, bits);
    if n.denormal {
        e.pre |= DE;
    }
    if n.class == Class::Signaling {
        e.pre |= IE;
        n = n.quiet();
    }
    (pack(&n), status(&e))
}
/// FBLD.
pub fn load_decimal(m: u128) -> u128 {
    let digits = (0..18).rev().fold(0u64, |v, i| v.wrapping_mul(10).wrapping_add((m >> (4 * i)) as u64 & 15));
    pack(&Num::integer(digits as i64).signed(m >> 79 & 1 != 0))
}
/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (0-6).
pub fn constant(cw: u16, which: u64) -> u128 {
    // Sign and exponent, significand rounded down, whether the next one is nearer.
    const T: [(u128, u64, bool); 7] = [
        (0x3fff, 1 << 63, false),
        (0x4000, 0xd49a_784b_cd1b_8afe, false),
        (0x3fff, 0xb8aa_3b29_5c17_f0bb, true),
        (0x4000, 0xc90f_daa2_2168_c234, true),
        (0x3ffd, 0x9a20_9a84_fbcf_f798, true),
        (0x3ffe, 0xb172_17f7_d1cf_79ab, true),
        (0, 0, false),
    ];
    let (exp, sig, nearer) = T[which.min(6) as usize];
    let exact = which == 0 || which >= 6;
    let up = match env(cw).round {
        Round::Nearest => nearer,
        Round::Up => !exact,
        Round::Down | Round::Zero => false,
    };
    exp << 64 | u128::from(sig + u64::from(up))
}

/// What FST (kinds 0, 1), FIST (2 to 4) and FISTTP (8 + kind) store.
pub fn store(cw: u16, kind: u64, a: u128) -> (u64, u16) {
    let mut e = env(cw);
    e.wrap = false;
    let v = unpack(a);
    let r = match kind {
        0 => store_float(&mut e, &F32, 8, v),
        1 => store_float(&mut e, &F64, 11, v),
        _ => {
            let bits = [16, 32, 64][(kind & 7) as usize - 2];
            let round = if kind & 8 != 0 { Round::Zero } else { e.round };
            store_integer(&mut e, bits, round, v)
        }
    };
    (r, status(&e))
}
fn store_float(e: &mut Env, f: &Format, exp_bits: u32, v: Value) -> u64 {
    let n = match v {
        Unsupported => invalid(e),
        Value::Num(n) => match n.class {
            Class::Finite => Exact { neg: n.neg, exp: n.exp, sig: u128::from(n.sig) << 64 }.round(f, e),
            _ => nan(e, &n, &Num::zero(false)).unwrap_or(n),
        },
    };
    if e.post & (OE | UE) & !e.masked != 0 {
        // Nothing is stored, so nothing was rounded.
        e.post &= !PE;
        e.up = false;
    }
    crate::sse::pack_bits(f, exp_bits, &n)
}
fn store_integer(e: &mut Env, bits: u32, round: Round, v: Value) -> u64 {
    let indefinite = 1u64 << (bits - 1);
    let n = match v {
        Value::Num(n) if matches!(n.class, Class::Zero | Class::Finite) => n,
        _ => {
            e.pre |= IE;
            return indefinite;
        }
    };
    let (m, up, inexact) = to_integer(&n, round);
    if m > u128::from(indefinite) - u128::from(!n.neg) {
        e.pre |= IE;
        return indefinite;
    }
    if inexact {
        e.post |= PE;
        e.up = up;
    }
    let r = if n.neg { (m as u64).wrapping_neg() } else { m as u64 };
    r & (u64::MAX >> (64 - bits))
}
/// What FBSTP stores.
pub fn store_decimal(cw: u16, a: u128) -> (u128, u16) {
    let mut e = env(cw);
    let n = match unpack(a) {
        Value::Num(n) if matches!(n.class, Class::Zero | Class::Finite) => n,
        _ => {
            e.pre |= IE;
            return (QNAN, status(&e));
        }
    };
    let (m, up, inexact) = to_integer(&n, e.round);
    if m > 999_999_999_999_999_999 {
        e.pre |= IE;
        return (QNAN, status(&e));
    }
    if inexact {
        e.post |= PE;
        e.up = up;
    }
    let (mut m, mut r) = (m as u64, u128::from(n.neg) << 79);
    for i in 0..18 {
        r |= u128::from(m % 10) << (4 * i);
        m /= 10;
    }
    (r, status(&e))
}

/// `d op b`; `op` is the reg field of opcode D8 (0 add, 1 mul, 4 sub, 5 subr, 6 div, 7 divr).
pub fn arith(cw: u16, op: u64, d: u128, b: u128) -> (u128, u16) {
    operate(cw, op, unpack(d), unpack(b))
}
/// `a op memory`: `form` is op | kind << 3.
pub fn arith_mem(cw: u16, form: u64, a: u128, bits: u64) -> (u128, u16) {
    operate(cw, form & 7, unpack(a), Value::Num(memory(form >> 3 & 3, bits)))
}
fn operate(cw: u16, op: u64, d: Value, b: Value) -> (u128, u16) {
    let mut e = env(cw);
    let f = precision(cw);
    let r = match numbers(&mut e, d, b) {
        Err(n) => n,
        Ok((d, b)) => match op {
            0 => sum(&d, &b, &f, &mut e),
            1 => product(&d, &b, &f, &mut e),
            4 => sum(&d, &b.signed(!b.neg), &f, &mut e),
            5 => sum(&b, &d.signed(!d.neg), &f, &mut e),
            6 => quotient(&d, &b, &f, &mut e),
            _ => quotient(&b, &d, &f, &mut e),
        },
    };
    (pack(&r), status(&e))
}

fn codes(e: &mut Env, unordered: bool, a: Value, b: Value) -> u16 {
    let none = C0 | C2 | C3;
    let (Value::Num(a), Value::Num(b)) = (a, b) else {
        e.pre |= IE;
        return none;
    };
    if a.is_nan() || b.is_nan() {
        if !unordered || a.class == Class::Signaling || b.class == Class::Signaling {
            e.pre |= IE;
        }
        return none;
    }
    if a.denormal || b.denormal {
        e.pre |= DE;
    }
    match compare_numbers(&a, &b) {
        Ordering::Less => C0,
        Ordering::Equal => C3,
        Ordering::Greater => 0,
    }
}
use crate::number::compare as compare_numbers;
/// FCOM, or FUCOM if `unordered`: the status word.
pub fn compare(cw: u16, unordered: bool, a: u128, b: u128) -> u16 {
    let mut e = env(cw);
    let c = codes(&mut e, unordered, unpack(a), unpack(b));
    c | status(&e)
}
/// FCOM m, FICOM m.
pub fn compare_mem(cw: u16, kind: u64, a: u128, bits: u64) -> u16 {
    let mut e = env(cw);
    let c = codes(&mut e, false, unpack(a), Value::Num(memory(kind, bits)));
    c | status(&e)
}

/// The instructions D9 E0 … D9 FF that work on ST(0) = `a` (and ST(1) = `b`), by their second byte: what becomes of ST(0), the
/// second result, the status word.
pub fn unary(cw: u16, code: u64, a: u128, b: u128) -> (u128, u128, u16) {
    let mut e = env(cw);
    let sign = 1u128 << 79;
    match code {
        0xe0 => return (a ^ sign, 0, 0),
        0xe1 => return (a & !sign, 0, 0),
        0xe4 => {
            let c = codes(&mut e, false, unpack(a), Value::Num(Num::zero(false)));
            return (a, 0, c | status(&e));
        }
        0xe5 => return (a, 0, examine(a)),
        0xf1 | 0xf3 | 0xf5 | 0xf8 | 0xf9 | 0xfd => {}
        _ => return one(cw, code, a),
    }
    let (x, y) = match numbers(&mut e, unpack(a), unpack(b)) {
        Ok(v) => v,
        Err(n) => return (pack(&n), 0, status(&e)),
    };
    let mut c = 0;
    let r = match code {
        0xf5 => remainder(&mut e, &x, &y, true, &mut c),
        0xf8 => remainder(&mut e, &x, &y, false, &mut c),
        0xfd => scale(&mut e, &x, &y),
        _ => transcend::two(code, &x, &y, &mut e),
    };
    (pack(&r), 0, c | status(&e))
}
fn one(cw: u16, code: u64, a: u128) -> (u128, u128, u16) {
    let mut e = env(cw);
    let x = match unpack(a) {
        Unsupported => Err(invalid(&mut e)),
        Value::Num(n) => nan(&mut e, &n, &Num::zero(false)).map_or(Ok(n), Err),
    };
    let x = match x {
        Ok(x) => x,
        // Both results are the NaN.
        Err(n) => return (pack(&n), pack(&n), status(&e)),
    };
    if x.denormal && !(code == 0xfa && x.neg) {
        e.pre |= DE;
    }
    match code {
        0xfa => {
            let r = root(&x, &precision(cw), &mut e);
            (pack(&r), 0, status(&e))
        }
        0xfc => {
            let (r, up, inexact) = integral(&x, e.round);
            if inexact {
                e.post |= PE;
                e.up = up;
            }
            (pack(&r), 0, status(&e))
        }
        0xf4 => {
            let (m, n) = extract(&mut e, &x);
            (pack(&m), pack(&n), status(&e))
        }
        _ => {
            let mut c = 0;
            let (r, q) = transcend::one(code, &x, &mut e, &mut c);
            (pack(&r), pack(&q), c | status(&e))
        }
    }
}
/// FXAM.
fn examine(a: u128) -> u16 {
    let sign = if a >> 79 & 1 != 0 { C1 } else { 0 };
    sign | match unpack(a) {
        Unsupported => 0,
        Value::Num(n) => match n.class {
            Class::Zero => C3,
            Class::Inf => C2 | C0,
            Class::Quiet | Class::Signaling => C0,
            Class::Finite if n.denormal => C3 | C2,
            Class::Finite => C2,
        },
    }
}
/// FXTRACT: significand and exponent.
fn extract(e: &mut Env, x: &Num) -> (Num, Num) {
    match x.class {
        Class::Zero => {
            e.pre |= ZE;
            (*x, Num::inf(true))
        }
        Class::Inf => (*x, Num::inf(false)),
        _ => (Num { exp: 0, denormal: false, ..*x }, Num::integer(x.exp.into())),
    }
}
/// FSCALE: `x * 2^trunc(y)`.
fn scale(e: &mut Env, x: &Num, y: &Num) -> Num {
    match (x.class, y.class) {
        (Class::Zero, Class::Inf) if !y.neg => return invalid(e),
        (Class::Inf, Class::Inf) if y.neg => return invalid(e),
        _ => {}
    }
    if x.denormal || y.denormal {
        e.pre |= DE;
    }
    match (x.class, y.class) {
        (Class::Zero | Class::Inf, _) => *x,
        (_, Class::Inf) => {
            if y.neg {
                Num::zero(x.neg)
            } else {
                Num::inf(x.neg)
            }
        }
        _ => {
            let (m, _, _) = to_integer(y, Round::Zero);
            let n = m.min(1 << 17) as i32;
            let exp = x.exp + if y.neg { -n } else { n };
            Exact { neg: x.neg, exp, sig: u128::from(x.sig) << 64 }.round(&F80, e)
        }
    }
}
/// FPREM, or FPREM1 if `nearest`: sets C0, C1, C3 to the low bits of the quotient, C2 if the reduction is not complete.
fn remainder(e: &mut Env, x: &Num, y: &Num, nearest: bool, codes: &mut u16) -> Num {
    if x.class == Class::Inf || y.class == Class::Zero {
        return invalid(e);
    }
    if x.denormal || y.denormal {
        e.pre |= DE;
    }
    if x.class == Class::Zero || y.class == Class::Inf {
        return *x;
    }
    let d = x.exp - y.exp;
    let quotient = |q: u64| {
        (if q & 1 != 0 { C1 } else { 0 }) | (if q & 2 != 0 { C3 } else { 0 }) | (if q & 4 != 0 { C0 } else { 0 })
    };
    if d < -1 || (d < 0 && !nearest) {
        return exact(x.neg, x.exp, x.sig.into(), e);
    }
    if d >= 64 {
        // A part of the reduction, by a multiple of 32.
        *codes = C2;
        let n = 32 + (d & 31);
        let (_, r) = divide(x.sig, y.sig, n as u32);
        return exact(x.neg, y.exp + d - n, r, e);
    }
    if d == -1 {
        // x is less than y and more than a quarter of it: subtract y if it is more than half.
        let (a, b) = (u128::from(x.sig), u128::from(y.sig) << 1);
        if 2 * a <= b {
            return exact(x.neg, x.exp, a, e);
        }
        *codes = quotient(1);
        return exact(!x.neg, x.exp, b - a, e);
    }
    let (mut q, mut r) = divide(x.sig, y.sig, d as u32);
    let (mut neg, b) = (x.neg, u128::from(y.sig));
    if nearest && (2 * r > b || 2 * r == b && q & 1 != 0) {
        q = q.wrapping_add(1);
        r = b - r;
        neg = !neg;
    }
    *codes = quotient(q);
    if r == 0 {
        return Num::zero(x.neg);
    }
    exact(neg, y.exp, r, e)
}
/// Quotient (its low bits) and remainder of `a << n` by `b`.
fn divide(a: u64, b: u64, n: u32) -> (u64, u128) {
    let b = u128::from(b);
    let (mut q, mut r) = (u64::from(u128::from(a) >= b), u128::from(a) % b);
    for _ in 0..n {
        r <<= 1;
        q <<= 1;
        if r >= b {
            r -= b;
            q |= 1;
        }
    }
    (q, r)
}
/// `sig * 2^(exp - 63)`, which has at most 64 bits.
fn exact(neg: bool, exp: i32, sig: u128, e: &mut Env) -> Num {
    if sig == 0 {
        return Num::zero(neg);
    }
    Exact::normal(neg, exp + 64, sig).round(&F80, e)
}
