//! Unpacked floating-point numbers: what goes into an operation, and the one place where results are rounded.
//!
//! A finite number is `sig * 2^(exp - 63)` with the top bit of `sig` set. An exact result has 128 bits, the top one set,
//! and a last bit that stands for everything below it ("sticky"): enough to round any format here correctly.

/// Invalid operation.
pub const IE: u32 = 1;
/// Denormal operand.
pub const DE: u32 = 2;
/// Division by zero.
pub const ZE: u32 = 4;
/// Overflow.
pub const OE: u32 = 8;
/// Underflow.
pub const UE: u32 = 16;
/// Inexact result.
pub const PE: u32 = 32;

/// Rounding control, as in MXCSR and the x87 control word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Round {
    /// To the nearest, ties to even.
    Nearest,
    /// Toward minus infinity.
    Down,
    /// Toward plus infinity.
    Up,
    /// Toward zero.
    Zero,
}

impl Round {
    /// From the two bits of a control register.
    pub fn from_bits(v: u32) -> Round {
        [Round::Nearest, Round::Down, Round::Up, Round::Zero][v as usize & 3]
    }
    /// Whether a magnitude with these properties is rounded up.
    pub fn up(self, neg: bool, odd: bool, half: bool, rest: bool) -> bool {
        match self {
            Round::Nearest => half && (rest || odd),
            Round::Down => neg && (half || rest),
            Round::Up => !neg && (half || rest),
            Round::Zero => false,
        }
    }
}

/// How an operation is done, and what it has raised.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Rounding.
    pub round: Round,
    /// Denormal operands count as zero.
    pub daz: bool,
    /// Tiny results become zero.
    pub ftz: bool,
    /// Exceptions that are masked.
    pub masked: u32,
    /// Raised before a result is computed: IE, DE, ZE.
    pub pre: u32,
    /// Raised by the result: OE, UE, PE.
    pub post: u32,
    /// The result was rounded up in magnitude.
    pub up: bool,
    /// x87: what unmasked overflow and underflow do to the exponent of a result for a register.
    pub wrap: bool,
}

impl Env {
    /// To the nearest, all exceptions masked.
    pub const DEFAULT: Env =
        Env { round: Round::Nearest, daz: false, ftz: false, masked: 0x3f, pre: 0, post: 0, up: false, wrap: false };
    /// Whether something unmasked keeps the result from being written.
    pub fn stopped(&self) -> bool {
        self.pre & !self.masked != 0
    }
}

/// Kind of a number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Class {
    Zero,
    Finite,
    Inf,
    Quiet,
    Signaling,
}

/// An unpacked number.
#[derive(Clone, Copy, Debug)]
pub struct Num {
    /// Kind.
    pub class: Class,
    /// Sign.
    pub neg: bool,
    /// Exponent of the top bit.
    pub exp: i32,
    /// Significand; of a NaN the payload, the quiet bit at 62.
    pub sig: u64,
    /// It was a denormal.
    pub denormal: bool,
}

impl Num {
    /// Zero.
    pub const fn zero(neg: bool) -> Num {
        Num { class: Class::Zero, neg, exp: 0, sig: 0, denormal: false }
    }
    /// Infinity.
    pub const fn inf(neg: bool) -> Num {
        Num { class: Class::Inf, neg, exp: 0, sig: 1 << 63, denormal: false }
    }
    /// The default NaN.
    pub const INDEFINITE: Num = Num { class: Class::Quiet, neg: true, exp: 0, sig: 3 << 62, denormal: false };
    /// Whether it is a NaN.
    pub fn is_nan(&self) -> bool {
        matches!(self.class, Class::Quiet | Class::Signaling)
    }
    /// A NaN made quiet.
    pub fn quiet(mut self) -> Num {
        self.class = Class::Quiet;
        self.sig |= 1 << 62;
        self
    }
    /// With this sign.
    pub fn signed(mut self, neg: bool) -> Num {
        self.neg = neg;
        self
    }
    /// An integer.
    pub fn integer(v: i64) -> Num {
        if v == 0 {
            return Num::zero(false);
        }
        let m = v.unsigned_abs();
        let n = m.leading_zeros();
        Num { class: Class::Finite, neg: v < 0, exp: 63 - n as i32, sig: m << n, denormal: false }
    }
}

/// A format to round to.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// Bits of the significand, the hidden one included.
    pub bits: u32,
    /// Least exponent of a normal number.
    pub min: i32,
    /// Largest exponent.
    pub max: i32,
    /// What unmasked overflow takes from the exponent.
    pub wrap: i32,
}

/// Half precision.
pub const F16: Format = Format { bits: 11, min: -14, max: 15, wrap: 0 };
/// Single precision.
pub const F32: Format = Format { bits: 24, min: -126, max: 127, wrap: 192 };
/// Double precision.
pub const F64: Format = Format { bits: 53, min: -1022, max: 1023, wrap: 1536 };
/// Extended precision.
pub const F80: Format = Format { bits: 64, min: -16382, max: 16383, wrap: 24576 };

/// A finite, not zero, exact result: `sig * 2^(exp - 127)`, the top bit of `sig` set, its last bit sticky.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Exact {
    pub neg: bool,
    pub exp: i32,
    pub sig: u128,
}

/// Shift right; bits that fall out leave the last one set.
pub fn jam(v: u128, n: u32) -> u128 {
    match n {
        0 => v,
        1..128 => v >> n | u128::from(v << (128 - n) != 0),
        _ => u128::from(v != 0),
    }
}

impl Exact {
    /// From any significand that is not zero.
    pub fn normal(neg: bool, exp: i32, sig: u128) -> Exact {
        let n = sig.leading_zeros();
        Exact { neg, exp: exp - n as i32, sig: sig << n }
    }
    /// The first `bits` bits after rounding, whether that was up, and whether it was inexact.
    fn cut(sig: u128, bits: u32, neg: bool, round: Round) -> (u128, bool, bool) {
        let drop = 128 - bits;
        let (keep, rest) = (sig >> drop, sig << bits);
        let up = round.up(neg, keep & 1 != 0, rest >> 127 != 0, rest << 1 != 0);
        (keep + u128::from(up), up, rest != 0)
    }
    /// Rounded to a format, with the flags that gives.
    pub fn round(self, f: &Format, env: &mut Env) -> Num {
        let Exact { neg, exp, sig } = self;
        let (keep, up, inexact) = Self::cut(sig, f.bits, neg, env.round);
        let carry = keep >> f.bits != 0;
        let rounded = exp + i32::from(carry);
        if rounded < f.min {
            return self.tiny(f, env, (keep, up, inexact));
        }
        if rounded > f.max {
            return self.huge(f, env, (keep, up, inexact));
        }
        if inexact {
            env.post |= PE;
            env.up = up;
        }
        if exp < f.min {
            // Not tiny after rounding, but rounded as a denormal is.
            return self.denormal(f, env);
        }
        Num { class: Class::Finite, neg, exp: rounded, sig: top(keep, f.bits), denormal: false }
    }
    fn denormal(self, f: &Format, env: &mut Env) -> Num {
        let sig = jam(self.sig, (f.min - self.exp) as u32);
        let (keep, up, inexact) = Self::cut(sig, f.bits, self.neg, env.round);
        if inexact {
            env.post |= PE;
        }
        env.up = up;
        if keep == 0 {
            return Num::zero(self.neg);
        }
        let n = keep.leading_zeros();
        // `keep` has its unit at `f.min - f.bits + 1`.
        Num {
            class: Class::Finite,
            neg: self.neg,
            exp: f.min - f.bits as i32 + 1 + (127 - n as i32),
            sig: ((keep << n) >> 64) as u64,
            denormal: false,
        }
    }
    fn tiny(self, f: &Format, env: &mut Env, (keep, up, inexact): (u128, bool, bool)) -> Num {
        if env.masked & UE == 0 {
            env.post |= UE;
            if inexact {
                env.post |= PE;
                env.up = up;
            }
            if env.wrap {
                let exp = self.exp + f.wrap + i32::from(keep >> f.bits != 0);
                return Num { class: Class::Finite, neg: self.neg, exp, sig: top(keep, f.bits), denormal: false };
            }
            return self.denormal(f, env);
        }
        if env.ftz {
            env.post |= UE | PE;
            return Num::zero(self.neg);
        }
        let before = env.post & PE;
        env.post &= !PE;
        let r = self.denormal(f, env);
        if env.post & PE != 0 {
            env.post |= UE;
        }
        env.post |= before;
        r
    }
    fn huge(self, f: &Format, env: &mut Env, (keep, up, inexact): (u128, bool, bool)) -> Num {
        env.post |= OE;
        if env.masked & OE == 0 && env.wrap {
            if inexact {
                env.post |= PE;
                env.up = up;
            }
            let exp = self.exp - f.wrap + i32::from(keep >> f.bits != 0);
            return Num { class: Class::Finite, neg: self.neg, exp, sig: top(keep, f.bits), denormal: false };
        }
        if env.masked & OE != 0 || inexact {
            env.post |= PE;
        }
        let inf = match env.round {
            Round::Nearest => true,
            Round::Down => self.neg,
            Round::Up => !self.neg,
            Round::Zero => false,
        };
        env.up = inf;
        if inf {
            return Num::inf(self.neg);
        }
        Num { class: Class::Finite, neg: self.neg, exp: f.max, sig: u64::MAX << (64 - f.bits), denormal: false }
    }
}

/// The significand of `bits` bits (or one more, after a carry) with its top bit at 63.
fn top(keep: u128, bits: u32) -> u64 {
    let keep = if keep >> bits != 0 { keep >> 1 } else { keep };
    (keep as u64) << (64 - bits)
}

/// Sum of two finite numbers that are not zero.
pub fn add(a: &Num, b: &Num) -> Option<Exact> {
    let (a, b) = if (a.exp, a.sig) >= (b.exp, b.sig) { (a, b) } else { (b, a) };
    let d = (a.exp - b.exp) as u32;
    let (x, y) = (u128::from(a.sig) << 63, jam(u128::from(b.sig) << 63, d.min(128)));
    let sum = if a.neg == b.neg { x + y } else { x - y };
    (sum != 0).then(|| Exact::normal(a.neg, a.exp + 1, sum))
}

/// Product of two finite numbers.
pub fn mul(a: &Num, b: &Num) -> Exact {
    Exact::normal(a.neg != b.neg, a.exp + b.exp + 1, u128::from(a.sig) * u128::from(b.sig))
}

/// Quotient of two finite numbers.
pub fn div(a: &Num, b: &Num) -> Exact {
    let (n, d) = (u128::from(a.sig) << 63, u128::from(b.sig));
    let (q, r) = (n / d, n % d);
    // Three bits more, and whether there are any after them.
    let (q2, r) = ((r << 3) / d, (r << 3) % d);
    let sig = q << 4 | q2 << 1 | u128::from(r != 0);
    // The unit of `q` is 2^(a.exp - b.exp - 63).
    Exact::normal(a.neg != b.neg, a.exp - b.exp - 67 + 127, sig)
}

/// Root of a finite positive number.
pub fn sqrt(a: &Num) -> Exact {
    let odd = a.exp & 1;
    // a = m * 2^(e - 63), e even; the root of m << 63 has 64 bits.
    let x = u128::from(a.sig) << (63 + odd);
    let e = (a.exp - odd) / 2;
    let r = x.isqrt();
    let rest = x - r * r;
    let (bit, rest) = if rest > r { (1, true) } else { (0, rest != 0) };
    Exact::normal(false, e - 65 + 127, r << 2 | bit << 1 | u128::from(rest))
}

/// A finite number to an integer: magnitude (saturated), rounded up, inexact.
pub fn to_integer(a: &Num, round: Round) -> (u128, bool, bool) {
    if a.class == Class::Zero {
        return (0, false, false);
    }
    if a.exp >= 126 {
        return (u128::MAX, false, false);
    }
    let v = u128::from(a.sig) << 63; // unit 2^(exp - 126)
    let drop = (126 - a.exp) as u32;
    let (keep, rest) = if drop >= 128 { (0, jam(v, (drop - 127).min(128))) } else { (v >> drop, v << (128 - drop)) };
    let up = round.up(a.neg, keep & 1 != 0, rest >> 127 != 0, rest << 1 != 0);
    (keep + u128::from(up), up, rest != 0)
}

/// A finite number rounded to an integral one.
pub fn integral(a: &Num, round: Round) -> (Num, bool, bool) {
    if a.class != Class::Finite || a.exp >= 63 {
        return (*a, false, false);
    }
    let (m, up, inexact) = to_integer(a, round);
    if m == 0 {
        return (Num::zero(a.neg), up, inexact);
    }
    let n = (m as u64).leading_zeros();
    let r = Num { class: Class::Finite, neg: a.neg, exp: 63 - n as i32, sig: (m as u64) << n, denormal: false };
    (r, up, inexact)
}

/// Compare two numbers that are not NaNs.
pub fn compare(a: &Num, b: &Num) -> std::cmp::Ordering {
    let key = |n: &Num| -> (i32, i32, u64) {
        match n.class {
            Class::Zero => (0, 0, 0),
            Class::Inf => (2, 0, 0),
            _ => (1, n.exp, n.sig),
        }
    };
    let (x, y) = (key(a), key(b));
    match (a.neg && x.0 != 0, b.neg && y.0 != 0) {
        (false, false) => x.cmp(&y),
        (true, true) => y.cmp(&x),
        (true, false) => std::cmp::Ordering::Less,
        (false, true) => std::cmp::Ordering::Greater,
    }
}
