//! SSE helpers against the host's instructions.

use super::*;
use crate::helpers::testing::Rng;
use std::arch::asm;

fn inputs() -> Vec<(__m128i, __m128i)> {
    let mut rng = Rng(3);
    (0..400).map(|_| (rng.vec().reg(), rng.vec().reg())).collect()
}

#[test]
fn integer_helpers_match_the_hardware() {
    for (a, b) in inputs() {
        macro_rules! same { ($($f:ident $ins:literal)*) => { $( {
            let mut want = a;
            // SAFETY: one register-only instruction of the baseline.
            unsafe { asm!(concat!($ins, " {a}, {b}"), a = inout(xmm_reg) want, b = in(xmm_reg) b) };
            assert_eq!(u128::of($f(std::ptr::null_mut(), a, b)), u128::of(want), $ins);
        } )* } }
        same! {
            pmulhw "pmulhw" pmulhuw "pmulhuw" pmulhrsw "pmulhrsw" pmaddwd "pmaddwd" pmaddubsw "pmaddubsw"
            pmuludq "pmuludq" pmuldq "pmuldq" psadbw "psadbw" phaddw "phaddw" phaddd "phaddd" phaddsw "phaddsw"
            phsubw "phsubw" phsubd "phsubd" phsubsw "phsubsw" psignb "psignb" psignw "psignw" psignd "psignd"
        }
        let s = std::ptr::null_mut();
        let min: __m128i;
        // SAFETY: one register-only instruction of the baseline.
        unsafe { asm!("phminposuw {r}, {a}", r = out(xmm_reg) min, a = in(xmm_reg) a) };
        assert_eq!(u128::of(phminposuw(s, a)), u128::of(min));
        macro_rules! imm { ($f:ident $ins:literal [$($n:literal)*]) => { $( {
            let mut want = a;
            // SAFETY: one register-only instruction of the baseline.
            unsafe { asm!(concat!($ins, " {a}, {b}, ", $n), a = inout(xmm_reg) want, b = in(xmm_reg) b) };
            assert_eq!(u128::of($f(s, $n, a, b)), u128::of(want), concat!($ins, " ", $n));
        } )* } }
        imm!(mpsadbw "mpsadbw" [0 1 2 3 4 5 6 7]);
        imm!(dpps "dpps" [0 0x31 0x7f 0xf1 0xa5]);
        imm!(dppd "dppd" [0 0x31 0x12 0x23]);
    }
}

#[test]
fn avx_helpers_match_the_hardware() {
    if !std::is_x86_feature_detected!("avx2") {
        return;
    }
    let s = std::ptr::null_mut();
    for (a, b) in inputs() {
        let small: [u32; 4] = each(|i| <[u32; 4]>::of(b)[i] & 63);
        for b in [b, small.reg()] {
            macro_rules! same { ($($f:ident $ins:literal)*) => { $( {
                let mut want = a;
                // SAFETY: one register-only instruction that the host has.
                unsafe { asm!(concat!($ins, " {a}, {a}, {b}"), a = inout(xmm_reg) want, b = in(xmm_reg) b) };
                assert_eq!(u128::of($f(s, a, b)), u128::of(want), $ins);
            } )* } }
            same! {
                psllvd "vpsllvd" psrlvd "vpsrlvd" psravd "vpsravd" psllvq "vpsllvq" psrlvq "vpsrlvq"
                permilps "vpermilps" permilpd "vpermilpd"
            }
        }
    }
}

#[test]
fn string_compares_match_the_hardware() {
    let mut rng = Rng(11);
    for _ in 0..300 {
        // A small alphabet with zeros makes hits.
        let mut text = || (rng.vec() & 0x0302_0103_0201_0302_0103_0201_0302_0103).reg();
        let (a, b) = (text(), text());
        let (la, lb) = ((rng.next() % 40) as i64 - 20, (rng.next() % 40) as i64 - 20);
        macro_rules! same { ($($n:literal)*) => { $( {
            let (idx, f1, mask, idx2, f2): (u64, u64, __m128i, u64, u64);
            // SAFETY: register-only instructions of the baseline.
            unsafe {
                asm!(concat!("pcmpistri {a}, {b}, ", $n), "pushfq", "pop {f}", concat!("pcmpistrm {a}, {b}, ", $n), "movdqa {m}, xmm0",
                    a = in(xmm_reg) a, b = in(xmm_reg) b, out("ecx") idx, f = out(reg) f1, m = out(xmm_reg) mask, out("xmm0") _);
                asm!(concat!("pcmpestri {a}, {b}, ", $n), "pushfq", "pop {f}",
                    a = in(xmm_reg) a, b = in(xmm_reg) b, in("rax") la, in("rdx") lb, out("ecx") idx2, f = out(reg) f2);
            }
            let s = std::ptr::null_mut();
            let r = pcmpistr(s, $n, a, b);
            assert_eq!((r >> 16 & 255, r >> 32), (idx & 255, f1 & 0x8d5), "imm {}", $n);
            assert_eq!(u128::of(pcmpstr_mask(s, $n, r)), u128::of(mask), "imm {}", $n);
            let r = pcmpestr(s, $n, la as i32 as i64 as u64, lb as i32 as i64 as u64, a, b);
            assert_eq!((r >> 16 & 255, r >> 32), (idx2 & 255, f2 & 0x8d5), "imm {} {la} {lb}", $n);
        } )* } }
        same!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 0x10 0x11 0x18 0x19 0x1c 0x30 0x31 0x34 0x38 0x39 0x3a 0x3b 0x3c 0x3d
            0x40 0x41 0x44 0x45 0x48 0x49 0x4c 0x4d 0x58 0x70 0x78 0x7d);
    }
}

#[test]
fn conversions_and_rounding() {
    let s = std::ptr::null_mut();
    for (v, rc, want) in
        [(2.5f64, 0, 2i64), (2.5, 1, 2), (2.5, 2, 3), (-2.5, 1, -3), (-2.5, 3, -2), (1e30, 0, i64::MIN)]
    {
        let old = host_mxcsr();
        set_host_mxcsr(old & !0x6000 | rc << 13);
        let r = cvt_float_int(s, 3, v.to_bits());
        let r32 = cvt_float_int(s, 2, (v as f32).to_bits().into());
        let d = roundsd(s, 4, 0u128.reg(), u128::from(v.to_bits()).reg());
        set_host_mxcsr(old);
        assert_eq!(r as i64, want);
        assert_eq!(r32 as i64, want);
        if v < 1e9 {
            assert_eq!(f64::from_bits(u128::of(d) as u64), want as f64);
        }
    }
    assert_eq!(cvt_float_int(s, 1, 1e30f64.to_bits()), 0x8000_0000);
}

#[test]
fn approximations_are_close() {
    let mut rng = Rng(5);
    for _ in 0..2000 {
        let bits = rng.next() as u32;
        let x = f32::from_bits(bits & 0x7fff_ffff);
        if !x.is_normal() || x > 1e37 {
            continue;
        }
        let r = f32::from_bits(rcp(bits & 0x7fff_ffff));
        assert!((f64::from(r) * f64::from(x) - 1.0).abs() < 1.0 / 2730.0, "{x:e} {r:e}");
        let r = f64::from(f32::from_bits(rsqrt(bits & 0x7fff_ffff)));
        assert!((r * r * f64::from(x) - 1.0).abs() < 1.0 / 1365.0, "{x:e} {r:e}");
    }
    for (x, want) in [
        (1.0f32, 1.0f32),
        (4.0, 0.25),
        (-2.0, -0.5),
        (0.0, f32::INFINITY),
        (f32::INFINITY, 0.0),
        (-0.0, f32::NEG_INFINITY),
    ] {
        assert_eq!(rcp(x.to_bits()), want.to_bits());
    }
    for (x, want) in [(1.0f32, 1.0f32), (4.0, 0.5), (0.25, 2.0), (0.0, f32::INFINITY), (f32::INFINITY, 0.0)] {
        assert_eq!(rsqrt(x.to_bits()), want.to_bits());
    }
}
