//! Every operation with random and edge operands under every rounding mode, FTZ and DAZ, here and on the CPU: result and flags.
//!
//! # Safety
//! The assembly works on registers and locals; MXCSR is set back to its default.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)]

use evm_fpu::sse::{self, Double, Float, Single};
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
    fn single(&mut self) -> u64 {
        const EDGES: [u32; 20] = [
            0,
            1,
            2,
            0x7f_ffff,
            0x80_0000,
            0x80_0001,
            0x3f80_0000,
            0x3f80_0001,
            0x3f7f_ffff,
            0x7f7f_ffff,
            0x7f80_0000,
            0x7f80_0001,
            0x7fc0_0000,
            0x7fc1_2345,
            0x4f00_0000,
            0x4eff_ffff,
            0x5f00_0000,
            0x3f00_0000,
            0x3fc0_0000,
            0x3300_0000,
        ];
        let r = self.next();
        let v = match r & 7 {
            0 | 1 => EDGES[(r >> 8) as usize % EDGES.len()],
            2 => 0x3f80_0000 + ((r >> 8) as u32 % 0x200_0000) - 0x100_0000,
            3 => (r >> 8) as u32 & 0x1ff_ffff,
            4 => ((r >> 8) as u32 & 0x7fff) as f32 as f64 as f32 as u32 | (((r >> 40) as u16 as f32).to_bits() & !1),
            _ => (r >> 8) as u32,
        };
        u64::from(v ^ (r >> 63 << 31) as u32)
    }
    fn double(&mut self) -> u64 {
        let r = self.next();
        let s = self.single() as u32;
        let wide = self.next();
        match r & 7 {
            0 | 1 => f64::from(f32::from_bits(s)).to_bits(),
            2 => 0x3ff0_0000_0000_0000u64.wrapping_add((wide as i64 >> 11) as u64),
            3 => wide & 0x1f_ffff_ffff_ffff | wide << 63,
            4 => {
                [
                    1,
                    0xf_ffff_ffff_ffff,
                    0x10_0000_0000_0000,
                    0x7fef_ffff_ffff_ffff,
                    0x7ff0_0000_0000_0001,
                    0x7ff8_0000_0000_0007,
                    0x43e0_0000_0000_0000,
                    0x41e0_0000_0000_0000,
                    0x41df_ffff_ffe0_0000,
                    0xc1e0_0000_0010_0000,
                ][(r >> 8) as usize % 10]
                    | r >> 63 << 63
            }
            5 => (wide as i32 as f64).to_bits(),
            6 => 0x3800_0000_0000_0000u64.wrapping_add(wide & 0x1ff_ffff_ffff_ffff) | wide >> 63 << 63,
            _ => wide,
        }
    }
}

/// Run `f` under an MXCSR on the CPU; the register afterwards.
fn under(mxcsr: u32, f: impl FnOnce()) -> u32 {
    let (mut out, default) = (0u32, 0x1f80u32);
    // SAFETY: locals; all exceptions stay masked.
    unsafe {
        asm!("ldmxcsr [{}]", in(reg) &mxcsr, options(nostack));
        f();
        asm!("stmxcsr [{o}]", "ldmxcsr [{d}]", o = in(reg) &mut out, d = in(reg) &default, options(nostack));
    }
    out
}

macro_rules! native {
    ($ins:literal, $t:ty, $b:ty, $x:expr, $y:expr) => {{
        let (mut x, y) = (<$t>::from_bits($x as $b), <$t>::from_bits($y as $b));
        // SAFETY: registers only.
        unsafe { asm!(concat!($ins, " {x}, {y}"), x = inout(xmm_reg) x, y = in(xmm_reg) y, options(nomem, nostack)) };
        u64::from(x.to_bits())
    }};
}
macro_rules! to_int {
    ($ins:literal, $m:literal, $t:ty, $b:ty, $x:expr) => {{
        let (r, x): (u64, _) = (0, <$t>::from_bits($x as $b));
        let mut r = r;
        // SAFETY: registers only.
        unsafe { asm!(concat!($ins, " {r", $m, "}, {x}"), x = in(xmm_reg) x, r = inout(reg) r, options(nomem, nostack)) };
        r
    }};
}
macro_rules! of_int {
    ($ins:literal, $t:ty, $x:expr) => {{
        let mut r: $t = 0.0;
        // SAFETY: registers only.
        unsafe { asm!(concat!($ins, " {r}, {x}"), x = in(reg) $x, r = inout(xmm_reg) r, options(nomem, nostack)) };
        u64::from(r.to_bits())
    }};
}
macro_rules! imm {
    ($ins:literal, $n:expr, [$($k:literal)*], $t:ty, $b:ty, $x:expr, $y:expr) => {{
        let (mut x, y) = (<$t>::from_bits($x as $b), <$t>::from_bits($y as $b));
        match $n {
            // SAFETY: registers only.
            $( $k => unsafe { asm!(concat!($ins, " {x}, {y}, ", $k), x = inout(xmm_reg) x, y = in(xmm_reg) y, options(nomem, nostack)) }, )*
            _ => {}
        }
        u64::from(x.to_bits())
    }};
}

#[test]
fn as_the_cpu() {
    let mut rng = Rng(0x1234_5678_9abc_def1);
    let mut bad = BTreeMap::<&str, (u32, String)>::new();
    let fma = std::is_x86_feature_detected!("fma");
    let avx = std::is_x86_feature_detected!("avx");
    let f16c = std::is_x86_feature_detected!("f16c");
    for i in 0..120_000u64 {
        let m = 0x1f80
            | (i as u32 & 3) << 13
            | (i as u32 >> 2 & 1) << 6
            | (i as u32 >> 3 & 1) << 15
            | (i as u32 >> 4 & 1) << 5;
        let (s, t, u) = (rng.single(), rng.single(), rng.single());
        let (a, b, c) = (rng.double(), rng.double(), rng.double());
        let n = (rng.next() >> 8) as u32;
        let int = rng.next() as i64 >> (rng.next() & 63);
        macro_rules! case { ($name:expr, $native:expr, $mine:expr) => {{
            let mut want = 0;
            let wm = under(m, || want = $native);
            sse::set_mxcsr(m);
            let have = $mine;
            let hm = sse::mxcsr();
            if (want, wm) != (have, hm) {
                let e = bad.entry($name).or_default();
                e.0 += 1;
                if e.0 == 1 {
                    e.1 = format!("mxcsr {m:x} n {n} single {s:x} {t:x} {u:x} double {a:x} {b:x} {c:x} int {int:x}: want {want:x} {wm:x} have {have:x} {hm:x}");
                }
            }
        }}; }
        macro_rules! both {
            ($f:ident $s:literal $d:literal) => {
                case!($s, native!($s, f32, u32, s, t), sse::$f::<Single>(s, t));
                case!($d, native!($d, f64, u64, a, b), sse::$f::<Double>(a, b));
            };
        }
        both!(add_ "addss" "addsd");
        both!(sub_ "subss" "subsd");
        both!(mul_ "mulss" "mulsd");
        both!(div_ "divss" "divsd");
        both!(min "minss" "minsd");
        both!(max "maxss" "maxsd");
        case!("sqrtss", native!("sqrtss", f32, u32, s, t), sse::sqrt_::<Single>(t));
        case!("sqrtsd", native!("sqrtsd", f64, u64, a, b), sse::sqrt_::<Double>(b));
        case!("cvtss2sd", native!("cvtss2sd", f64, u64, 0u64, s), sse::convert::<Single, Double>(s));
        case!("cvtsd2ss", native!("cvtsd2ss", f64, u64, 0u64, a) & 0xffff_ffff, sse::convert::<Double, Single>(a));
        case!("cvtss2si", to_int!("cvtss2si", ":e", f32, u32, s), sse::to_int::<Single>(s, 32, false));
        case!("cvtsd2si", to_int!("cvtsd2si", ":e", f64, u64, a), sse::to_int::<Double>(a, 32, false));
        case!("cvttss2si", to_int!("cvttss2si", ":r", f32, u32, s), sse::to_int::<Single>(s, 64, true));
        case!("cvttsd2si", to_int!("cvttsd2si", ":r", f64, u64, a), sse::to_int::<Double>(a, 64, true));
        case!("cvtsi2ss", of_int!("cvtsi2ss", f32, int), sse::from_integer::<Single>(int));
        case!("cvtsi2sd", of_int!("cvtsi2sd", f64, int), sse::from_integer::<Double>(int));
        case!(
            "roundss",
            imm!("roundss", n & 15, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], f32, u32, s, t),
            sse::round::<Single>(t, n & 15)
        );
        case!(
            "roundsd",
            imm!("roundsd", n & 15, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15], f64, u64, a, b),
            sse::round::<Double>(b, n & 15)
        );
        let ones = |w: u64, c: bool| if c { w } else { 0 };
        case!(
            "cmpss",
            imm!("cmpss", n & 7, [0 1 2 3 4 5 6 7], f32, u32, s, t),
            ones(0xffff_ffff, sse::cmp::<Single>(s, t, n & 7))
        );
        case!(
            "cmpsd",
            imm!("cmpsd", n & 7, [0 1 2 3 4 5 6 7], f64, u64, a, b),
            ones(u64::MAX, sse::cmp::<Double>(a, b, n & 7))
        );
        if avx {
            case!(
                "vcmpsd",
                imm!("vcmpsd {x}, ", n & 31, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31],
                f64, u64, a, b),
                ones(u64::MAX, sse::cmp::<Double>(a, b, n & 31))
            );
        }
        macro_rules! fused { ($name:literal $t:ident $f:ty, $b:ty, $x:ident $y:ident $z:ident $signs:expr) => {
            case!($name, {
                let (mut x, y, z) = (<$f>::from_bits($x as $b), <$f>::from_bits($y as $b), <$f>::from_bits($z as $b));
                // SAFETY: registers only; the CPU has it.
                unsafe { asm!(concat!($name, " {x}, {y}, {z}"), x = inout(xmm_reg) x, y = in(xmm_reg) y, z = in(xmm_reg) z, options(nomem, nostack)) };
                u64::from(x.to_bits())
            }, sse::fma::<$t>($x, $y, $z, $signs));
        } }
        if fma {
            fused!("vfmadd213ss" Single f32, u32, s t u (false, false));
            fused!("vfmsub213sd" Double f64, u64, a b c (false, true));
            fused!("vfnmadd213sd" Double f64, u64, a b c (true, false));
            fused!("vfnmsub213ss" Single f32, u32, s t u (true, true));
        }
        if f16c {
            case!("vcvtph2ps", native!("vcvtph2ps", f32, u32, 0u32, s >> 3 & 0xffff), sse::from_half(s >> 3));
            case!(
                "vcvtps2ph",
                imm!("vcvtps2ph", n & 7, [0 1 2 3 4 5 6 7], f32, u32, 0u32, t) & 0xffff,
                sse::to_half(t, n & 7)
            );
        }
    }
    for (ins, (n, first)) in &bad {
        println!("{ins}: {n} differ, first {first}");
    }
    assert!(bad.is_empty(), "{:?}", bad.iter().map(|(k, v)| (*k, v.0)).collect::<Vec<_>>());
    let _ = <Single as Float>::F;
}
