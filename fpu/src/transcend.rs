//! x87's transcendental functions, computed with 128 bits and rounded once: within half a unit in the last place of the
//! true value, and a little. CPUs promise one unit, so a last bit may differ from theirs.
//!
//! FSIN, FCOS, FSINCOS and FPTAN reduce their argument by the value of pi with 66 bits that CPUs use.

use crate::number::*;

const C2: u16 = 0x400;

/// A number with 128 bits; `sig` 0 is zero, whatever the exponent.
#[derive(Clone, Copy, Debug)]
struct Big {
    neg: bool,
    /// Exponent of the top bit.
    exp: i32,
    sig: u128,
}

const LN2: Big = Big { neg: false, exp: -1, sig: 0xb172_17f7_d1cf_79ab_c9e3_b398_03f2_f6af };
const PI: Big = Big { neg: false, exp: 1, sig: 0xc90f_daa2_2168_c234_c4c6_628b_80dc_1cd1 };
const ONE: Big = Big { neg: false, exp: 0, sig: 1 << 127 };
const ZERO: Big = Big { neg: false, exp: 0, sig: 0 };

impl Big {
    fn of(n: &Num) -> Big {
        Big { neg: n.neg, exp: n.exp, sig: u128::from(n.sig) << 64 }
    }
    fn int(v: u64) -> Big {
        Big { neg: false, exp: 0, sig: u128::from(v) }.normal(127)
    }
    /// From a significand whose unit is `2^(exp - 127 + shift)`.
    fn normal(self, shift: i32) -> Big {
        if self.sig == 0 {
            return ZERO;
        }
        let n = self.sig.leading_zeros();
        Big { neg: self.neg, exp: self.exp + shift - n as i32, sig: self.sig << n }
    }
    fn neg(self) -> Big {
        Big { neg: !self.neg, ..self }
    }
    fn abs(self) -> Big {
        Big { neg: false, ..self }
    }
    fn times2(self, n: i32) -> Big {
        Big { exp: self.exp + n, ..self }
    }
    fn less(self, o: Big) -> bool {
        if self.sig == 0 || o.sig == 0 {
            return self.sig < o.sig;
        }
        (self.exp, self.sig) < (o.exp, o.sig)
    }
    fn add(self, o: Big) -> Big {
        if self.sig == 0 {
            return o;
        }
        if o.sig == 0 {
            return self;
        }
        let (a, b) = if self.less(o) { (o, self) } else { (self, o) };
        let d = (a.exp - b.exp) as u32;
        let (x, y) = (a.sig >> 1, if d < 127 { b.sig >> 1 >> d } else { 0 });
        let sig = if a.neg == b.neg { x + y } else { x - y };
        Big { neg: a.neg, exp: a.exp, sig }.normal(1)
    }
    fn sub(self, o: Big) -> Big {
        self.add(o.neg())
    }
    fn mul(self, o: Big) -> Big {
        let (a1, a0) = (self.sig >> 64, self.sig & u128::from(u64::MAX));
        let (b1, b0) = (o.sig >> 64, o.sig & u128::from(u64::MAX));
        let (m1, m2) = (a1 * b0, a0 * b1);
        let low = (a0 * b0 >> 64) + (m1 & u128::from(u64::MAX)) + (m2 & u128::from(u64::MAX));
        let sig = a1 * b1 + (m1 >> 64) + (m2 >> 64) + (low >> 64);
        Big { neg: self.neg != o.neg, exp: self.exp + o.exp, sig }.normal(1)
    }
    fn div(self, o: Big) -> Big {
        if self.sig == 0 {
            return ZERO;
        }
        // Newton's iteration for 1 / o from 63 bits.
        let m = Big { neg: false, exp: 0, sig: o.sig };
        let first = (u128::MAX / (o.sig >> 64)) >> 1;
        let mut r = Big { neg: false, exp: 0, sig: first }.normal(63);
        for _ in 0..2 {
            r = r.add(r.mul(ONE.sub(m.mul(r))));
        }
        let q = Big { neg: false, exp: 0, sig: self.sig }.mul(r);
        Big { neg: self.neg != o.neg, exp: q.exp + self.exp - o.exp, sig: q.sig }
    }
    /// Rounded to extended precision; never exact.
    fn round(self, e: &mut Env) -> Num {
        if self.sig == 0 {
            return Num::zero(self.neg);
        }
        Exact { neg: self.neg, exp: self.exp, sig: self.sig | 1 }.round(&F80, e)
    }
}

/// `sum of t^(2k+1) * sign^k / (2k+1)`: the inverse hyperbolic tangent, or (alternating) tangent, of a small number.
fn odd_series(t: Big, alternating: bool) -> Big {
    let t2 = t.mul(t);
    let (mut power, mut sum, mut k) = (t, t, 1u64);
    loop {
        power = power.mul(t2);
        let term = power.div(Big::int(2 * k + 1));
        if term.sig == 0 || term.exp < sum.exp - 130 {
            return sum;
        }
        sum = if alternating && k & 1 != 0 { sum.sub(term) } else { sum.add(term) };
        k += 1;
    }
}
/// Logarithm to base 2 of `1 + x`, for `1 + x` between half and double of 1.
fn log2_near_one(x: Big) -> Big {
    let t = x.div(x.add(Big::int(2)));
    odd_series(t, false).times2(1).div(LN2)
}
fn log2(x: &Num) -> Big {
    // The significand between 1/sqrt(2) and sqrt(2).
    let (mut m, mut n) = (Big { neg: false, exp: 0, ..Big::of(x) }, x.exp);
    if m.sig >> 64 > 0xb504_f333_f9de_6484 {
        (m, n) = (m.times2(-1), n + 1);
    }
    let whole = Big { neg: n < 0, ..Big::int(n.unsigned_abs().into()) };
    log2_near_one(m.sub(ONE)).add(whole)
}
/// `2^x - 1` for x between -1 and 1.
fn exp2m1(x: Big) -> Big {
    let y = x.mul(LN2);
    let (mut term, mut sum) = (y, y);
    for k in 2..60 {
        term = term.mul(y).div(Big::int(k));
        if term.sig == 0 || term.exp < sum.exp - 130 {
            break;
        }
        sum = sum.add(term);
    }
    sum
}
/// Arc tangent of a number from 0 to 1: `atan(z) = atan(c) + atan((z - c) / (1 + c z))` with c the nearest of 0, 1/4, 1/2, 3/4, 1.
fn atan(z: Big) -> Big {
    /// atan(1/4), atan(1/2), atan(3/4).
    fn known(k: u64) -> Big {
        let by = |n: u64, d: u64| odd_series(Big::int(n).div(Big::int(d)), true);
        match k {
            0 => ZERO,
            1 => by(1, 4),
            // atan(1/2) = pi/4 - atan(1/3); atan(3/4) = pi/4 - atan(1/7)
            2 => PI.times2(-2).sub(by(1, 3)),
            3 => PI.times2(-2).sub(by(1, 7)),
            _ => PI.times2(-2),
        }
    }
    if z.sig == 0 {
        return ZERO;
    }
    let eighths = if z.exp < -3 { 0 } else { (z.sig >> (124 - z.exp)) as u64 };
    let k = eighths.div_ceil(2).min(4);
    let c = Big::int(k).times2(-2);
    let d = z.sub(c).div(ONE.add(c.mul(z)));
    let rest = if d.sig == 0 { ZERO } else { odd_series(d, true) };
    known(k).add(rest)
}
/// Sine and cosine of a number of at most pi/4.
fn sin_cos(r: Big) -> (Big, Big) {
    let r2 = r.mul(r);
    let (mut s, mut c) = (r, ONE);
    let (mut st, mut ct) = (r, ONE);
    for k in 1..40u64 {
        ct = ct.mul(r2).div(Big::int((2 * k - 1) * (2 * k))).neg();
        st = st.mul(r2).div(Big::int((2 * k) * (2 * k + 1))).neg();
        if ct.sig == 0 || ct.exp < -132 {
            break;
        }
        (s, c) = (s.add(st), c.add(ct));
    }
    (s, c)
}
/// The remainder of x by pi/2 between -pi/4 and pi/4, and the quotient modulo 4.
fn reduce(x: Big) -> (Big, u32) {
    /// Pi with 66 bits.
    const PI66: u128 = 0x3_243f_6a88_85a3_08d3;
    // In units of 2^(-65): pi/2 is PI66, and x has its unit above or below.
    let (mut q, mut r, mut unit) = (0u32, 0u128, 0i32);
    let m = x.sig >> 64; // unit 2^(exp - 63)
    let shift = x.exp - 63 + 65;
    if shift >= 0 {
        r = m % PI66;
        q = (m / PI66) as u32;
        for _ in 0..shift {
            r <<= 1;
            q <<= 1;
            if r >= PI66 {
                r -= PI66;
                q |= 1;
            }
        }
        unit = -65;
    } else if -shift <= 58 {
        // Bits below the unit: scale pi instead.
        let p = PI66 << -shift;
        q = (m / p) as u32;
        r = m % p;
        unit = x.exp - 63;
    }
    if shift < -58 {
        return (x, 0);
    }
    let half = if shift >= 0 { PI66 } else { PI66 << -shift };
    let mut rest = Big { neg: false, exp: unit, sig: r }.normal(127);
    if 2 * r > half {
        rest = Big { neg: true, exp: unit, sig: half - r }.normal(127);
        q += 1;
    }
    if x.neg { (rest.neg(), q.wrapping_neg() & 3) } else { (rest, q & 3) }
}

/// F2XM1, FPTAN, FSINCOS, FSIN, FCOS of a number that is not a NaN: what becomes of ST(0) and, of the second and third, the value below.
pub(crate) fn one(code: u64, x: &Num, e: &mut Env, codes: &mut u16) -> (Num, Num) {
    if code == 0xf0 {
        return (f2xm1(x, e), Num::zero(false));
    }
    let none = Num::zero(false);
    let one = Num::integer(1);
    match x.class {
        Class::Inf => {
            e.pre |= IE;
            return (Num::INDEFINITE, Num::INDEFINITE);
        }
        Class::Zero => {
            return match code {
                0xfe => (*x, none),
                0xff => (one, none),
                0xfb => (one, *x),
                _ => (one, *x),
            };
        }
        _ => {}
    }
    if x.exp >= 63 {
        *codes = C2;
        return (*x, none);
    }
    let (r, q) = reduce(Big::of(x));
    let (s, c) = if r.sig == 0 { (ZERO, ONE) } else { sin_cos(r) };
    let (s, c) = match q {
        0 => (s, c),
        1 => (c, s.neg()),
        2 => (s.neg(), c.neg()),
        _ => (c.neg(), s),
    };
    match code {
        0xfe => (s.round(e), none),
        0xff => (c.round(e), none),
        0xfb => {
            let sine = s.round(e);
            (c.round(e), sine)
        }
        _ => (one, s.div(c).round(e)),
    }
}
fn f2xm1(x: &Num, e: &mut Env) -> Num {
    match x.class {
        Class::Zero => *x,
        Class::Inf => {
            if x.neg {
                Num::integer(-1)
            } else {
                *x
            }
        }
        _ if x.exp > 0 || x.exp == 0 && x.sig << 1 != 0 => *x,
        _ if x.exp == 0 => Num { exp: if x.neg { -1 } else { 0 }, ..*x },
        _ => exp2m1(Big::of(x)).round(e),
    }
}

/// FYL2X, FPATAN, FYL2XP1 of ST(0) = `x` and ST(1) = `y`, which are no NaNs.
pub(crate) fn two(code: u64, x: &Num, y: &Num, e: &mut Env) -> Num {
    match code {
        0xf1 => yl2x(x, y, e),
        0xf3 => patan(x, y, e),
        _ => yl2xp1(x, y, e),
    }
}
fn invalid(e: &mut Env) -> Num {
    e.pre |= IE;
    Num::INDEFINITE
}
fn denormals(e: &mut Env, x: &Num, y: &Num) {
    if x.denormal || y.denormal {
        e.pre |= DE;
    }
}
fn yl2x(x: &Num, y: &Num, e: &mut Env) -> Num {
    if x.class == Class::Zero {
        return match y.class {
            Class::Zero => invalid(e),
            Class::Inf => y.signed(!y.neg),
            _ => {
                e.pre |= ZE;
                Num::inf(!y.neg)
            }
        };
    }
    if x.neg {
        return invalid(e);
    }
    let is_one = x.class == Class::Finite && x.exp == 0 && x.sig << 1 == 0;
    match (x.class, y.class) {
        (Class::Inf, Class::Zero) => return invalid(e),
        (_, Class::Inf) if is_one => return invalid(e),
        _ => {}
    }
    denormals(e, x, y);
    let below = x.class == Class::Finite && x.exp < 0;
    match (x.class, y.class) {
        (Class::Inf, _) => Num::inf(y.neg),
        (_, Class::Inf) => Num::inf(y.neg != below),
        (_, Class::Zero) => Num::zero(y.neg != below),
        _ if is_one => Num::zero(y.neg),
        _ if x.sig << 1 == 0 => product_exact(x.exp, y, e),
        _ => log2(x).mul(Big::of(y)).round(e),
    }
}
/// `y * n`, rounded.
fn product_exact(n: i32, y: &Num, e: &mut Env) -> Num {
    mul(&Num::integer(n.into()), y).round(&F80, e)
}
fn yl2xp1(x: &Num, y: &Num, e: &mut Env) -> Num {
    match (x.class, y.class) {
        (Class::Zero, Class::Inf) => return invalid(e),
        (Class::Inf, Class::Zero) => return invalid(e),
        (Class::Inf, _) if x.neg => return invalid(e),
        _ => {}
    }
    denormals(e, x, y);
    let neg = x.neg != y.neg;
    match (x.class, y.class) {
        (Class::Zero, _) | (_, Class::Zero) => Num::zero(neg),
        (Class::Inf, _) | (_, Class::Inf) => Num::inf(neg),
        // The architecture defines nothing for |x| above 1 - sqrt(2)/2.
        _ if x.exp >= 0 => *x,
        _ => log2_near_one(Big::of(x)).mul(Big::of(y)).round(e),
    }
}
/// arctan(y / x) in the right quadrant.
fn patan(x: &Num, y: &Num, e: &mut Env) -> Num {
    let quarters = |n: u64| Big { neg: y.neg, ..PI.times2(-2).mul(Big::int(n)) };
    denormals(e, x, y);
    match (y.class, x.class) {
        (Class::Zero, _) if !x.neg => return *y,
        (Class::Zero, _) => return quarters(4).round(e),
        (Class::Inf, Class::Inf) => return quarters(if x.neg { 3 } else { 1 }).round(e),
        (Class::Inf, _) | (_, Class::Zero) => return quarters(2).round(e),
        (_, Class::Inf) if !x.neg => return Num::zero(y.neg),
        (_, Class::Inf) => return quarters(4).round(e),
        _ => {}
    }
    let (a, b) = (Big::of(y).abs(), Big::of(x).abs());
    let small = if b.less(a) { PI.times2(-1).sub(atan(b.div(a))) } else { atan(a.div(b)) };
    let r = if x.neg { PI.sub(small) } else { small };
    Big { neg: y.neg, ..r }.round(e)
}
