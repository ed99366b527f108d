//! x87 operations on random and edge values under all control words, here and on the CPU.
//!
//! # Safety
//! The assembly works on locals, and leaves the unit as FNINIT does.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use evm_fpu::x87;
use std::arch::asm;
use std::collections::BTreeMap;

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn number(&mut self) -> u128 {
        let r = self.next();
        let sign = u128::from(r & 1) << 79;
        let cut = if r & 2 != 0 { u64::MAX } else { u64::MAX << (r >> 56 & 63) };
        let frac = u128::from((self.next() & cut) | 1 << 63);
        let exp = |e: u64| u128::from(e) << 64;
        sign | match r >> 8 & 31 {
            0 => 0,
            1 => exp(0x7fff) | 1 << 63,
            2 => exp(0x7fff) | 0xc000_0000_0000_0000 | frac >> 3,
            3 => exp(0x7fff) | 0x8000_0000_0000_1234,
            4 => frac >> 3 & !(1 << 63),
            5 => exp(0x7ffe) | frac,
            6 => exp(1 + r % 70) | frac,
            7 => exp(0x3fff) | 1 << 63,
            8 => exp(0x3ffe) | 1 << 63,
            9 => exp(0x4000) | 0xc000_0000_0000_0000,
            10..=14 => exp(0x3fff + r % 70) | frac,
            15..=18 => exp(0x3ffe - (r >> 20) % 70) | frac,
            19 => exp(0x3fff + 0x3ff) | frac,
            20 => exp(0x3fff - 0x3ff - r % 60) | frac,
            21 => exp(0x3fff + (r >> 20) % 14) | frac & 0xffff_0000_0000_0000,
            22 => exp(0x4003) | 0x1234_0000_0000_0000,
            23 => frac >> (r >> 20 & 63),
            24 => exp(0x3fff - 127 - r % 40) | frac,
            _ => exp(0x3ffd + (r >> 20) % 5) | frac,
        }
    }
}

#[derive(Default)]
struct Out {
    r: u128,
    q: u128,
    bits: u64,
}

const MASK80: u128 = (1 << 80) - 1;
const FLAGS: u16 = 0x3f | 0x200;

/// Load `b` and `a`, run, and look at the status word, ST(0), ST(1) and memory.
macro_rules! native {
    ($cw:expr, $a:expr, $b:expr, $bits:expr, $ins:literal) => {{
        let (a, b, cw): (u128, u128, u16) = ($a, $b, $cw);
        let mut o = Out { bits: $bits, ..Out::default() };
        let mut image = [0u64; 14];
        let sw: u16;
        // SAFETY: see the module.
        unsafe {
            asm!("fninit", "fldz", "fld tbyte ptr [{b}]", "fld tbyte ptr [{a}]", "fnclex", "fldcw word ptr [{cw}]", $ins, "fnstsw ax", "fnsave [{i}] # {o}",
                a = in(reg) &a, b = in(reg) &b, cw = in(reg) &cw, i = in(reg) &mut image, o = in(reg) &mut o.bits, out("ax") sw,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _, out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _);
        }
        let bytes: Vec<u8> = image.iter().flat_map(|w| w.to_le_bytes()).collect();
        let reg = |k: usize| u128::from_le_bytes(std::array::from_fn(|n| if n < 10 { bytes[28 + 10 * k + n] } else { 0 }));
        (o.r, o.q) = (reg(0), reg(1));
        (o, sw)
    }};
}

/// A function that CPUs do not promise exactly: how far apart two results may be.
fn near(a: u128, b: u128) -> bool {
    let key = |v: u128| if v >> 79 & 1 != 0 { -((v & (MASK80 >> 1)) as i128) } else { v as i128 };
    // A carry of the significand leaves a gap between the words.
    let d = (key(a) - key(b)).unsigned_abs();
    d <= 1 || d.abs_diff((1 << 64) - (1 << 63)) <= 1 || d.abs_diff(1 << 63) <= 1
}

#[test]
fn as_the_cpu() {
    let mut rng = Rng(0xabcd_ef01_2345_6789);
    let mut bad = BTreeMap::<&str, (u32, String)>::new();
    for i in 0..30_000u64 {
        let mut cw = 0x37f;
        let n = rng.next();
        if i & 1 != 0 {
            cw = 0x7f | (n & 0xf00) as u16;
            if cw & 0x300 == 0x100 {
                cw |= 0x300;
            }
        }
        let (a, b) = (rng.number(), rng.number());
        let bits = match n >> 20 & 7 {
            0 => [0, 1, 0x7fc0_0001, 0x7f80_0001, 0x7f80_0000, 1 << 63, 0x7ff0_0000_0000_0001, 0x8000]
                [(n >> 24 & 7) as usize],
            1 => (1.5f64 * (n >> 40) as f64).to_bits(),
            2 => u64::from((0.7f32 * (n >> 40) as f32).to_bits()),
            _ => rng.next(),
        };
        macro_rules! case {
            ($ins:literal |$o:ident, $sw:ident| $want:tt == $have:tt) => {{
                let ($o, $sw) = native!(cw, a, b, bits, $ins);
                let (want, have) = ($want, $have);
                if want != have {
                    let e = bad.entry($ins).or_default();
                    e.0 += 1;
                    if e.0 <= 2 {
                        e.1 += &format!("\n  cw {cw:x} a {a:x} b {b:x} bits {bits:x} want {want:x?} have {have:x?}");
                    }
                }
            }};
        }
        macro_rules! ar { ($($op:literal $ins:literal $form:literal $mem:literal)*) => { $(
            case!($ins |o, sw| (o.r, sw & FLAGS) == (x87::arith(cw, $op, a, b)));
            case!($mem |o, sw| (o.r, sw & FLAGS) == (x87::arith_mem(cw, $form, a, bits)));
        )* } }
        ar! {
            0 "fadd st(0), st(1)" 0 "fadd dword ptr [{o}]"
            1 "fmul st(0), st(1)" 9 "fmul qword ptr [{o}]"
            4 "fsub st(0), st(1)" 20 "fisub word ptr [{o}]"
            5 "fsubr st(0), st(1)" 29 "fisubr dword ptr [{o}]"
            6 "fdiv st(0), st(1)" 14 "fdiv qword ptr [{o}]"
            7 "fdivr st(0), st(1)" 7 "fdivr dword ptr [{o}]"
        }
        macro_rules! st { ($($kind:literal $ins:literal $mask:expr,)*) => { $(
            case!($ins |o, sw| (o.bits & $mask, sw & FLAGS) == ({ let (r, s) = x87::store(cw, $kind, a); (r, s) }));
        )* } }
        st! {
            0 "fst dword ptr [{o}]" 0xffff_ffff, 1 "fst qword ptr [{o}]" u64::MAX, 2 "fist word ptr [{o}]" 0xffff,
            3 "fist dword ptr [{o}]" 0xffff_ffff, 4 "fistp qword ptr [{o}]" u64::MAX, 12 "fisttp qword ptr [{o}]" u64::MAX,
            10 "fisttp word ptr [{o}]" 0xffff,
        }
        macro_rules! ld { ($($kind:literal $ins:literal)*) => { $(
            case!($ins |o, sw| (o.r, sw & 0x3f) == (x87::load(cw, $kind, bits)));
        )* } }
        ld! { 0 "fld dword ptr [{o}]" 1 "fld qword ptr [{o}]" 2 "fild word ptr [{o}]" 3 "fild dword ptr [{o}]" 4 "fild qword ptr [{o}]" }
        macro_rules! constant { ($($n:literal $ins:literal)*) => { $(
            case!($ins |o, sw| (o.r, sw & 0) == (x87::constant(cw, $n), 0));
        )* } }
        constant! { 0 "fld1" 1 "fldl2t" 2 "fldl2e" 3 "fldpi" 4 "fldlg2" 5 "fldln2" 6 "fldz" }
        const CODES: u16 = 0x4700 | 0x3f;
        case!("fcom st(1)" | _o, sw | (sw & CODES) == (x87::compare(cw, false, a, b)));
        case!("fucom st(1)" | _o, sw | (sw & CODES) == (x87::compare(cw, true, a, b)));
        case!("fcom qword ptr [{o}]" | _o, sw | (sw & CODES) == (x87::compare_mem(cw, 1, a, bits)));
        case!("ficom word ptr [{o}]" | _o, sw | (sw & CODES) == (x87::compare_mem(cw, 2, a, bits)));
        macro_rules! un { ($($code:literal $ins:literal $mask:expr,)*) => { $(
            case!($ins |o, sw| (o.r, sw & $mask) == ({ let (r, _, s) = x87::unary(cw, $code, a, b); (r, s & $mask) }));
        )* } }
        un! {
            0xe0 "fchs" FLAGS, 0xe1 "fabs" FLAGS, 0xe4 "ftst" CODES, 0xe5 "fxam" CODES,
            0xfa "fsqrt" FLAGS, 0xfc "frndint" FLAGS, 0xfd "fscale" FLAGS,
        }
        macro_rules! prem { ($($code:literal $ins:literal)*) => { $(
            case!($ins |o, sw| (o.r, if o.r >> 64 & 0x7fff == 0x7fff { sw & 0x3f } else { sw & CODES }) == ({
                let (r, _, s) = x87::unary(cw, $code, a, b);
                (r, if r >> 64 & 0x7fff == 0x7fff { s & 0x3f } else { s & CODES })
            }));
        )* } }
        prem! { 0xf5 "fprem1" 0xf8 "fprem" }
        case!(
            "fxtract" | o,
            sw | (o.r, o.q, sw & 0x3f)
                == ({
                    let (r, q, s) = x87::unary(cw, 0xf4, a, b);
                    (r, q, s & 0x3f)
                })
        );
        // PE, UE and C1 depend on the last bit.
        macro_rules! tr { ($($code:literal $ins:literal)*) => { $( {
            let (r, q, s) = x87::unary(cw, $code, a, b);
            let pushes = matches!($code, 0xf2 | 0xfb) && s & 0x400 == 0;
            case!($ins |o, sw| (
                if near(o.r, r) { r } else { o.r }, if !pushes || near(o.q, q) { q } else { o.q }, sw & 0x40d
            ) == (r, q, s & 0x40d));
        } )* } }
        if cw & 0x300 == 0x300 {
            tr! { 0xf0 "f2xm1" 0xf1 "fyl2x" 0xf2 "fptan" 0xf3 "fpatan" 0xfb "fsincos" 0xfe "fsin" 0xff "fcos" }
            if (a >> 64 & 0x7fff) < 0x3ffd {
                tr! { 0xf9 "fyl2xp1" }
            }
        }
    }
    for (ins, (n, first)) in &bad {
        println!("{ins}: {n} differ, first {first}");
    }
    assert!(bad.is_empty(), "{:?}", bad.iter().map(|(k, v)| (*k, v.0)).collect::<Vec<_>>());
}
