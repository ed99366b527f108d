//! SSE and AVX arithmetic under a virtual MXCSR, one lane at a time, on bits in 64-bit cells.
//!
//! The register is the calling thread's: [`mxcsr`] and [`set_mxcsr`] are what STMXCSR and LDMXCSR are on a CPU. While
//! exceptions are unmasked, [`raised`] tells what the operations since the last look have raised.

use crate::number::*;
use std::cell::Cell;
use std::cmp::Ordering;

thread_local! {
    static MXCSR: Cell<u32> = const { Cell::new(0x1f80) };
    /// What was raised since the register was set: before results, by results.
    static RAISED: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
}

/// MXCSR with the flags raised so far.
pub fn mxcsr() -> u32 {
    MXCSR.get() | raised()
}
/// Set MXCSR.
pub fn set_mxcsr(v: u32) {
    MXCSR.set(v & 0xffff);
    RAISED.set((0, 0));
}
/// Flags raised since MXCSR was set; an unmasked exception of an operand hides those of results, as in an instruction that
/// does not finish.
pub fn raised() -> u32 {
    let (pre, post) = RAISED.get();
    if pre & !(MXCSR.get() >> 7) & 0x3f != 0 { pre } else { pre | post }
}
/// Put what was raised into the register's flags.
pub fn settle() {
    set_mxcsr(mxcsr());
}

/// Single or double precision.
pub trait Float {
    /// Its format.
    const F: Format;
    /// Bits of an exponent.
    const EXP: u32;
    /// Sum by the host's arithmetic (to nearest, ties to even).
    fn host(op: Host, a: u64, b: u64) -> u64;
}
/// Operations of the host's that are exact where no exception but PE is possible.
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub enum Host {
    Add,
    Sub,
    Mul,
    Div,
    Sqrt,
}
/// Single precision.
pub struct Single;
/// Double precision.
pub struct Double;
macro_rules! float {
    ($name:ident $format:ident $exp:literal $t:ty, $bits:ty) => {
        impl Float for $name {
            const F: Format = $format;
            const EXP: u32 = $exp;
            #[inline(always)]
            fn host(op: Host, a: u64, b: u64) -> u64 {
                let (a, b) = (<$t>::from_bits(a as $bits), <$t>::from_bits(b as $bits));
                let r = match op {
                    Host::Add => a + b,
                    Host::Sub => a - b,
                    Host::Mul => a * b,
                    Host::Div => a / b,
                    Host::Sqrt => a.sqrt(),
                };
                u64::from(r.to_bits())
            }
        }
    };
}
float!(Single F32 8 f32, u32);
float!(Double F64 11 f64, u64);

const fn frac_bits<T: Float>() -> u32 {
    T::F.bits - 1
}
const fn exp_mask<T: Float>() -> u64 {
    (1 << T::EXP) - 1
}

fn env() -> Env {
    let m = MXCSR.get();
    Env {
        round: Round::from_bits(m >> 13),
        daz: m & 0x40 != 0,
        ftz: m & 0x8000 != 0,
        masked: m >> 7 & 0x3f,
        ..Env::DEFAULT
    }
}
fn done(e: &Env) {
    let (pre, post) = RAISED.get();
    // An operation with an unmasked exception of its operands has no result.
    RAISED.set((pre | e.pre, if e.stopped() { post } else { post | e.post }));
}

/// Unpack the bits of a format with `exp` exponent bits.
pub(crate) fn unpack_bits(f: &Format, exp_bits: u32, v: u64, daz: bool) -> Num {
    let fb = f.bits - 1;
    let neg = v >> (fb + exp_bits) & 1 != 0;
    let e = (v >> fb & ((1 << exp_bits) - 1)) as i32;
    let frac = v & ((1 << fb) - 1);
    if e == (1 << exp_bits) - 1 {
        if frac == 0 {
            return Num::inf(neg);
        }
        let sig = 1 << 63 | frac << (63 - fb);
        let class = if frac >> (fb - 1) != 0 { Class::Quiet } else { Class::Signaling };
        return Num { class, neg, exp: 0, sig, denormal: false };
    }
    if e != 0 {
        return Num { class: Class::Finite, neg, exp: e - f.max, sig: 1 << 63 | frac << (63 - fb), denormal: false };
    }
    if frac == 0 || daz {
        return Num::zero(neg);
    }
    let n = frac.leading_zeros();
    Num { class: Class::Finite, neg, exp: f.min + (63 - n as i32) - fb as i32, sig: frac << n, denormal: true }
}
/// Pack a number that fits.
pub(crate) fn pack_bits(f: &Format, exp_bits: u32, n: &Num) -> u64 {
    let fb = f.bits - 1;
    let sign = u64::from(n.neg) << (fb + exp_bits);
    let all = ((1u64 << exp_bits) - 1) << fb;
    let frac = n.sig << 1 >> (64 - fb);
    sign | match n.class {
        Class::Zero => 0,
        Class::Inf => all,
        Class::Quiet | Class::Signaling => all | frac,
        Class::Finite if n.exp >= f.min => ((n.exp + f.max) as u64) << fb | frac,
        Class::Finite => n.sig >> (63 - fb as i32 + f.min - n.exp),
    }
}
fn unpack<T: Float>(v: u64, e: &Env) -> Num {
    unpack_bits(&T::F, T::EXP, v, e.daz)
}
fn pack<T: Float>(n: &Num) -> u64 {
    pack_bits(&T::F, T::EXP, n)
}

/// The NaN that two operands give, with IE for a signalling one; `None` if neither is one.
fn nan2(a: &Num, b: &Num, e: &mut Env) -> Option<Num> {
    if a.class == Class::Signaling || b.class == Class::Signaling {
        e.pre |= IE;
    }
    if a.is_nan() {
        Some(a.quiet())
    } else if b.is_nan() {
        Some(b.quiet())
    } else {
        None
    }
}
fn invalid(e: &mut Env) -> Num {
    e.pre |= IE;
    Num::INDEFINITE
}
fn denormals(e: &mut Env, of: &[&Num]) {
    if of.iter().any(|n| n.denormal) {
        e.pre |= DE;
    }
}
pub(crate) fn sum(a: &Num, b: &Num, f: &Format, e: &mut Env) -> Num {
    match (a.class, b.class) {
        (Class::Inf, Class::Inf) if a.neg != b.neg => invalid(e),
        (Class::Inf, _) => {
            denormals(e, &[b]);
            *a
        }
        (_, Class::Inf) => {
            denormals(e, &[a]);
            *b
        }
        (Class::Zero, Class::Zero) => Num::zero(if a.neg == b.neg { a.neg } else { e.round == Round::Down }),
        _ => {
            denormals(e, &[a, b]);
            let exact = match (a.class, b.class) {
                (Class::Zero, _) => Some(Exact { neg: b.neg, exp: b.exp, sig: u128::from(b.sig) << 64 }),
                (_, Class::Zero) => Some(Exact { neg: a.neg, exp: a.exp, sig: u128::from(a.sig) << 64 }),
                _ => add(a, b),
            };
            match exact {
                Some(x) => x.round(f, e),
                None => Num::zero(e.round == Round::Down),
            }
        }
    }
}
pub(crate) fn product(a: &Num, b: &Num, f: &Format, e: &mut Env) -> Num {
    let neg = a.neg != b.neg;
    match (a.class, b.class) {
        (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf) => invalid(e),
        (Class::Inf, _) | (_, Class::Inf) => {
            denormals(e, &[a, b]);
            Num::inf(neg)
        }
        (Class::Zero, _) | (_, Class::Zero) => {
            denormals(e, &[a, b]);
            Num::zero(neg)
        }
        _ => {
            denormals(e, &[a, b]);
            mul(a, b).round(f, e)
        }
    }
}
pub(crate) fn quotient(a: &Num, b: &Num, f: &Format, e: &mut Env) -> Num {
    let neg = a.neg != b.neg;
    match (a.class, b.class) {
        (Class::Inf, Class::Inf) | (Class::Zero, Class::Zero) => invalid(e),
        (Class::Inf, _) => {
            denormals(e, &[b]);
            Num::inf(neg)
        }
        (_, Class::Inf) => {
            denormals(e, &[a]);
            Num::zero(neg)
        }
        (_, Class::Zero) => {
            e.pre |= ZE;
            Num::inf(neg)
        }
        (Class::Zero, _) => {
            denormals(e, &[b]);
            Num::zero(neg)
        }
        _ => {
            denormals(e, &[a, b]);
            div(a, b).round(f, e)
        }
    }
}
pub(crate) fn root(a: &Num, f: &Format, e: &mut Env) -> Num {
    match a.class {
        Class::Zero => *a,
        _ if a.neg => invalid(e),
        Class::Inf => *a,
        _ => {
            denormals(e, &[a]);
            sqrt(a).round(f, e)
        }
    }
}

/// Whether a host's result needs no look at flags or NaNs: everything is masked, rounding is to nearest, PE was raised
/// before, and operands and result are normal numbers.
#[inline(always)]
fn plain<T: Float>(v: u64) -> bool {
    // Exponents 1 to max - 1.
    (v >> frac_bits::<T>() & exp_mask::<T>()).wrapping_sub(1) < exp_mask::<T>() - 1
}
#[inline(always)]
fn quick() -> bool {
    MXCSR.get() & 0xffc0 == 0x1f80 && (MXCSR.get() | RAISED.get().1) & PE != 0
}

macro_rules! binary {
    ($( #[doc = $doc:literal] $name:ident $host:ident $f:ident $flip:literal; )*) => { $(
        #[doc = $doc]
        #[inline]
        pub fn $name<T: Float>(a: u64, b: u64) -> u64 {
            if plain::<T>(a) && plain::<T>(b) && quick() {
                let r = T::host(Host::$host, a, b);
                // The least exponent may be that of a tiny number that was rounded up.
                if plain::<T>(r) && r >> frac_bits::<T>() & exp_mask::<T>() != 1 {
                    return r;
                }
            }
            let mut e = env();
            let (x, y) = (unpack::<T>(a, &e), unpack::<T>(b, &e));
            let r = match nan2(&x, &y, &mut e) {
                Some(n) => n,
                None => $f(&x, &if $flip { y.signed(!y.neg) } else { y }, &T::F, &mut e),
            };
            done(&e);
            pack::<T>(&r)
        }
    )* };
}
binary! {
    /// ADDSS, ADDSD.
    add_ Add sum false;
    /// SUBSS, SUBSD.
    sub_ Sub sum true;
    /// MULSS, MULSD.
    mul_ Mul product false;
    /// DIVSS, DIVSD.
    div_ Div quotient false;
}
/// SQRTSS, SQRTSD.
pub fn sqrt_<T: Float>(a: u64) -> u64 {
    if plain::<T>(a) && a >> (frac_bits::<T>() + T::EXP) == 0 && quick() {
        return T::host(Host::Sqrt, a, a);
    }
    let mut e = env();
    let x = unpack::<T>(a, &e);
    let r = nan2(&x, &Num::zero(false), &mut e).unwrap_or_else(|| root(&x, &T::F, &mut e));
    done(&e);
    pack::<T>(&r)
}

/// The operand as it counts: under DAZ a denormal is zero.
fn counted<T: Float>(bits: u64, e: &Env) -> u64 {
    let frac = (1u64 << frac_bits::<T>()) - 1;
    if e.daz && bits & exp_mask::<T>() << frac_bits::<T>() == 0 { bits & !frac } else { bits }
}
fn extreme<T: Float>(a: u64, b: u64, want: Ordering) -> u64 {
    let mut e = env();
    let (x, y) = (unpack::<T>(a, &e), unpack::<T>(b, &e));
    let first = if x.is_nan() || y.is_nan() {
        e.pre |= IE;
        false
    } else {
        denormals(&mut e, &[&x, &y]);
        compare(&x, &y) == want
    };
    done(&e);
    // A NaN is given as it is.
    counted::<T>(if first { a } else { b }, &e)
}
/// MINSS, MINSD.
pub fn min<T: Float>(a: u64, b: u64) -> u64 {
    extreme::<T>(a, b, Ordering::Less)
}
/// MAXSS, MAXSD.
pub fn max<T: Float>(a: u64, b: u64) -> u64 {
    extreme::<T>(a, b, Ordering::Greater)
}

/// The relation of two numbers: 8 less, 4 equal, 2 greater, 1 unordered. IE for signalling NaNs, or for all if `signal`.
pub fn relation<T: Float>(a: u64, b: u64, signal: bool) -> u32 {
    let mut e = env();
    let (x, y) = (unpack::<T>(a, &e), unpack::<T>(b, &e));
    let r = if x.is_nan() || y.is_nan() {
        if signal || x.class == Class::Signaling || y.class == Class::Signaling {
            e.pre |= IE;
        }
        1
    } else {
        denormals(&mut e, &[&x, &y]);
        match compare(&x, &y) {
            Ordering::Less => 8,
            Ordering::Equal => 4,
            Ordering::Greater => 2,
        }
    };
    done(&e);
    r
}
/// The relation alone; no flags.
pub fn quiet_relation<T: Float>(a: u64, b: u64) -> u32 {
    let saved = RAISED.get();
    let r = relation::<T>(a, b, false);
    RAISED.set(saved);
    r
}
/// For each of the 16 predicates the relations that it is true for.
const PREDICATES: [u32; 16] = [4, 8, 12, 1, 11, 7, 3, 14, 5, 9, 13, 0, 10, 6, 2, 15];
/// CMPSS, CMPSD with one of the 32 predicates of AVX.
pub fn cmp<T: Float>(a: u64, b: u64, predicate: u32) -> bool {
    let signal = matches!(predicate & 3, 1 | 2) != (predicate & 16 != 0);
    relation::<T>(a, b, signal) & PREDICATES[predicate as usize & 15] != 0
}
/// Whether a relation is one of those of a predicate.
pub fn holds(relation: u32, predicate: u32) -> bool {
    relation & PREDICATES[predicate as usize & 15] != 0
}

/// From one precision to the other.
pub fn convert<A: Float, B: Float>(a: u64) -> u64 {
    let mut e = env();
    let x = unpack::<A>(a, &e);
    let r = match x.class {
        Class::Finite => {
            denormals(&mut e, &[&x]);
            Exact { neg: x.neg, exp: x.exp, sig: u128::from(x.sig) << 64 }.round(&B::F, &mut e)
        }
        _ => nan2(&x, &Num::zero(false), &mut e).unwrap_or(x),
    };
    done(&e);
    pack::<B>(&r)
}
/// CVTSI2SS, CVTSI2SD.
pub fn from_integer<T: Float>(v: i64) -> u64 {
    let mut e = env();
    let x = Num::integer(v);
    let r = match x.class {
        Class::Finite => Exact { neg: x.neg, exp: x.exp, sig: u128::from(x.sig) << 64 }.round(&T::F, &mut e),
        _ => x,
    };
    done(&e);
    pack::<T>(&r)
}
/// CVTSS2SI and the like: to an integer of `bits` bits, rounded by MXCSR or cut off.
pub fn to_int<T: Float>(a: u64, bits: u32, cut: bool) -> u64 {
    let mut e = env();
    let x = unpack::<T>(a, &e);
    let indefinite = 1u64 << (bits - 1);
    let r = if x.is_nan() || x.class == Class::Inf {
        e.pre |= IE;
        indefinite
    } else {
        let (m, _, inexact) = to_integer(&x, if cut { Round::Zero } else { e.round });
        let limit = u128::from(indefinite) - u128::from(!x.neg);
        if m > limit {
            e.pre |= IE;
            indefinite
        } else {
            if inexact {
                e.post |= PE;
            }
            if x.neg { (m as u64).wrapping_neg() } else { m as u64 }
        }
    };
    done(&e);
    if bits == 32 { r & 0xffff_ffff } else { r }
}
/// ROUNDSS, ROUNDSD.
pub fn round<T: Float>(a: u64, imm: u32) -> u64 {
    let mut e = env();
    let x = unpack::<T>(a, &e);
    let how = if imm & 4 != 0 { e.round } else { Round::from_bits(imm) };
    let r = match nan2(&x, &Num::zero(false), &mut e) {
        Some(n) => n,
        None => {
            let (r, _, inexact) = integral(&x, how);
            if inexact && imm & 8 == 0 {
                e.post |= PE;
            }
            r
        }
    };
    done(&e);
    pack::<T>(&r)
}
/// `x * y + z` with one rounding; `negate` the product, the addend. Operands are those of the 213 form: of two NaNs `y` counts.
pub fn fma<T: Float>(x: u64, y: u64, z: u64, negate: (bool, bool)) -> u64 {
    let mut e = env();
    let (x, y, z) = (unpack::<T>(x, &e), unpack::<T>(y, &e), unpack::<T>(z, &e));
    let signaling = [x, y, z].iter().any(|n| n.class == Class::Signaling);
    let neg = (x.neg != y.neg) != negate.0;
    let z_neg = z.neg != negate.1;
    let bad = matches!((x.class, y.class), (Class::Inf, Class::Zero) | (Class::Zero, Class::Inf));
    let nan = [y, x, z].into_iter().find(Num::is_nan);
    let r = if let Some(n) = nan {
        if signaling {
            e.pre |= IE;
        }
        n.quiet()
    } else if bad || (x.class == Class::Inf || y.class == Class::Inf) && z.class == Class::Inf && neg != z_neg {
        invalid(&mut e)
    } else {
        denormals(&mut e, &[&x, &y, &z]);
        if x.class == Class::Inf || y.class == Class::Inf {
            Num::inf(neg)
        } else if z.class == Class::Inf {
            Num::inf(z_neg)
        } else {
            let zero = x.class == Class::Zero || y.class == Class::Zero;
            fused(&x, &y, zero, neg, &z.signed(z_neg), &T::F, &mut e)
        }
    };
    done(&e);
    pack::<T>(&r)
}
fn fused(x: &Num, y: &Num, zero: bool, neg: bool, z: &Num, f: &Format, e: &mut Env) -> Num {
    if zero && z.class == Class::Zero {
        return Num::zero(if neg == z.neg { neg } else { e.round == Round::Down });
    }
    if zero {
        return Exact { neg: z.neg, exp: z.exp, sig: u128::from(z.sig) << 64 }.round(f, e);
    }
    let p = Exact { neg, ..mul(x, y) };
    if z.class == Class::Zero {
        return p.round(f, e);
    }
    // At most 106 bits of the product and 53 of the addend are used, so the bits below are room to shift into.
    let (a, b) = (Exact { sig: p.sig >> 1, ..p }, Exact { neg: z.neg, exp: z.exp, sig: u128::from(z.sig) << 63 });
    let (a, b) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let y = jam(b.sig, ((a.exp - b.exp) as u32).min(128));
    let sum = if a.neg == b.neg { a.sig + y } else { a.sig - y };
    if sum == 0 {
        return Num::zero(e.round == Round::Down);
    }
    Exact::normal(a.neg, a.exp + 1, sum).round(f, e)
}
/// VCVTPH2PS of one lane: denormals count, whatever DAZ says, and raise nothing.
pub fn from_half(h: u64) -> u64 {
    let mut e = env();
    let x = unpack_bits(&F16, 5, h & 0xffff, false);
    let r = nan2(&x, &Num::zero(false), &mut e).unwrap_or(x);
    done(&e);
    pack::<Single>(&r)
}
/// VCVTPS2PH of one lane.
pub fn to_half(a: u64, imm: u32) -> u64 {
    let mut e = env();
    let x = unpack::<Single>(a, &e);
    if imm & 4 == 0 {
        e.round = Round::from_bits(imm);
    }
    e.ftz = false;
    let r = match x.class {
        Class::Finite => {
            denormals(&mut e, &[&x]);
            Exact { neg: x.neg, exp: x.exp, sig: u128::from(x.sig) << 64 }.round(&F16, &mut e)
        }
        _ => nan2(&x, &Num::zero(false), &mut e).unwrap_or(x),
    };
    done(&e);
    pack_bits(&F16, 5, &r)
}
