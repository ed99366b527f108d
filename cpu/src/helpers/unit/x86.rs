//! Floating-point helpers on the CPU's own SSE unit.
//!
//! # Safety
//! Assembly blocks are single register-only instructions of the baseline (x86-64-v2), or are guarded by feature
//! detection.
#![allow(unsafe_code)]

use super::portable;
use crate::helpers::sse::{Lanes, each};
use evm_ir::Vector as __m128i;
use std::arch::asm;

type S = *mut u8;

// One host instruction on registers. `volatile` (no `pure`): it reads and writes MXCSR.
macro_rules! host_binary {
    ($( #[doc = $doc:literal] $name:ident $ins:literal; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, a: __m128i, b: __m128i) -> __m128i {
            let mut a = a;
            // SAFETY: one register-only instruction of the baseline.
            unsafe { asm!(concat!($ins, " {a}, {b}"), a = inout(xmm_reg) a, b = in(xmm_reg) b, options(nomem, nostack, preserves_flags)) };
            a
        }
    )* };
}
host_binary! {
    /// HADDPS.
    haddps "haddps";
    /// HADDPD.
    haddpd "haddpd";
    /// HSUBPS.
    hsubps "hsubps";
    /// HSUBPD.
    hsubpd "hsubpd";
    /// ADDSUBPS.
    addsubps "addsubps";
    /// ADDSUBPD.
    addsubpd "addsubpd";
}
macro_rules! host_unary {
    ($( #[doc = $doc:literal] $name:ident $ins:literal; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, a: __m128i) -> __m128i {
            let r: __m128i;
            // SAFETY: one register-only instruction of the baseline.
            unsafe { asm!(concat!($ins, " {r}, {a}"), r = out(xmm_reg) r, a = in(xmm_reg) a, options(nomem, nostack, preserves_flags)) };
            r
        }
    )* };
}
host_unary! {
    /// CVTPS2DQ.
    cvtps2dq "cvtps2dq";
    /// CVTTPS2DQ.
    cvttps2dq "cvttps2dq";
    /// CVTPD2DQ.
    cvtpd2dq "cvtpd2dq";
    /// CVTTPD2DQ.
    cvttpd2dq "cvttpd2dq";
    /// CVTPD2PS.
    cvtpd2ps "cvtpd2ps";
}

/// CVTSS2SI / CVTSD2SI, rounded by MXCSR. `form`: bit 0 the source is a double, bit 1 the result
/// has 64 bits (else it is zero-extended from 32).
pub(crate) extern "C" fn cvt_float_int(_: S, form: u64, bits: u64) -> u64 {
    let r: u64;
    // SAFETY: register-only instructions of the baseline.
    unsafe {
        match form & 3 {
            0 => {
                asm!("movd {x}, {b:e}", "cvtss2si {r:e}, {x}", x = out(xmm_reg) _, b = in(reg) bits, r = out(reg) r, options(nomem, nostack, preserves_flags))
            }
            1 => {
                asm!("movq {x}, {b}", "cvtsd2si {r:e}, {x}", x = out(xmm_reg) _, b = in(reg) bits, r = out(reg) r, options(nomem, nostack, preserves_flags))
            }
            2 => {
                asm!("movd {x}, {b:e}", "cvtss2si {r}, {x}", x = out(xmm_reg) _, b = in(reg) bits, r = out(reg) r, options(nomem, nostack, preserves_flags))
            }
            _ => {
                asm!("movq {x}, {b}", "cvtsd2si {r}, {x}", x = out(xmm_reg) _, b = in(reg) bits, r = out(reg) r, options(nomem, nostack, preserves_flags))
            }
        }
    }
    r
}

/// The instruction `$ins a, b, imm` for each of the immediates listed.
macro_rules! by_imm {
    ($ins:literal, $imm:expr, $a:ident, $b:ident, [$($n:literal)*]) => {
        match $imm { $(
            // SAFETY: one register-only instruction of the baseline.
            $n => unsafe { asm!(concat!($ins, " {a}, {b}, ", $n), a = inout(xmm_reg) $a, b = in(xmm_reg) $b, options(nomem, nostack, preserves_flags)) },
        )* _ => {} }
    };
}
macro_rules! round {
    ($( #[doc = $doc:literal] $name:ident $ins:literal; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
            let mut a = a;
            by_imm!($ins, imm & 15, a, b, [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]);
            a
        }
    )* };
}
round! {
    /// ROUNDPS of `b` (`a` is overwritten).
    roundps "roundps";
    /// ROUNDPD of `b`.
    roundpd "roundpd";
    /// ROUNDSS of `b` into lane 0 of `a`.
    roundss "roundss";
    /// ROUNDSD of `b` into lane 0 of `a`.
    roundsd "roundsd";
}

/// DPPS: the products of the lanes chosen by the high half of `imm`, summed into the lanes chosen by its low half.
pub(crate) extern "C" fn dpps(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let mut r = a;
    // The instruction with every lane selected for output, for each choice of products.
    by_imm!("dpps", imm & 0xf0 | 15, r, b,
        [15 31 47 63 79 95 111 127 143 159 175 191 207 223 239 255]);
    let r = <[u32; 4]>::of(r);
    let out: [u32; 4] = each(|i| if imm >> i & 1 != 0 { r[i] } else { 0 });
    out.reg()
}

/// DPPD, as [`dpps`].
pub(crate) extern "C" fn dppd(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let mut r = a;
    by_imm!("dppd", imm & 0x30 | 3, r, b, [3 19 35 51]);
    let r = <[u64; 2]>::of(r);
    let out: [u64; 2] = each(|i| if imm >> i & 1 != 0 { r[i] } else { 0 });
    out.reg()
}

/// VCVTPH2PS of the low four halves.
pub(crate) extern "C" fn cvtph2ps(st: S, a: __m128i) -> __m128i {
    if std::is_x86_feature_detected!("f16c") {
        let r: __m128i;
        // SAFETY: one register-only instruction that the host has (checked above).
        unsafe {
            asm!("vcvtph2ps {r}, {a}", r = out(xmm_reg) r, a = in(xmm_reg) a, options(nomem, nostack, preserves_flags))
        };
        return r;
    }
    portably(|| portable::cvtph2ps(st, a))
}
/// The host's MXCSR.
pub(crate) fn host_mxcsr() -> u32 {
    let mut v: u32 = 0;
    // SAFETY: stores four bytes to `v`.
    unsafe { asm!("stmxcsr [{}]", in(reg) &mut v, options(nostack, preserves_flags)) };
    v
}
/// MXCSR as the guest sees it: the host's.
pub(crate) fn guest_mxcsr(_: &crate::CpuState) -> u32 {
    host_mxcsr()
}
/// Set the host's MXCSR; `v` has no reserved bits.
pub(crate) fn set_host_mxcsr(v: u32) {
    let v = v & 0xffff;
    // SAFETY: loads four bytes from `v`, whose reserved bits are zero.
    unsafe { asm!("ldmxcsr [{}]", in(reg) &v, options(nostack, preserves_flags, readonly)) };
}

/// VCVTPS2PH; `imm` bit 2: round by MXCSR, else by bits 0-1.
pub(crate) extern "C" fn cvtps2ph(st: S, imm: u64, a: __m128i) -> __m128i {
    if !std::is_x86_feature_detected!("f16c") {
        return portably(|| portable::cvtps2ph(st, imm, a));
    }
    let mut r = a;
    macro_rules! run { ($($n:literal)*) => { match imm & 7 {
        // SAFETY: one register-only instruction that the host has (checked above).
        $( $n => unsafe { asm!(concat!("vcvtps2ph {r}, {a}, ", $n), r = out(xmm_reg) r, a = in(xmm_reg) a, options(nomem, nostack, preserves_flags)) }, )*
        _ => {}
    } } }
    run!(0 1 2 3 4 5 6 7);
    r
}
/// FMA: `x * y + z` with one rounding. `form`: bit 0 doubles; bits 1-3 the operation: 0 FMADD,
/// 1 FMSUB, 2 FNMADD, 3 FNMSUB, 4 FMADDSUB, 5 FMSUBADD; bit 4 scalar (the other lanes are `x`'s).
/// Operand order is that of the 213 form.
pub(crate) extern "C" fn fma(st: S, form: u64, x: __m128i, y: __m128i, z: __m128i) -> __m128i {
    if !std::is_x86_feature_detected!("fma") {
        return portably(|| portable::fma(st, form, x, y, z));
    }
    let mut r = x;
    macro_rules! run { ($($n:literal $ins:literal)*) => { match form & 31 {
        // SAFETY: one register-only FMA instruction; the host has them (checked above).
        $( $n => unsafe { asm!(concat!($ins, " {x}, {y}, {z}"), x = inout(xmm_reg) r, y = in(xmm_reg) y, z = in(xmm_reg) z, options(nomem, nostack, preserves_flags)) }, )*
        _ => {}
    } } }
    run! {
        0 "vfmadd213ps" 1 "vfmadd213pd" 2 "vfmsub213ps" 3 "vfmsub213pd"
        4 "vfnmadd213ps" 5 "vfnmadd213pd" 6 "vfnmsub213ps" 7 "vfnmsub213pd"
        8 "vfmaddsub213ps" 9 "vfmaddsub213pd" 10 "vfmsubadd213ps" 11 "vfmsubadd213pd"
        16 "vfmadd213ss" 17 "vfmadd213sd" 18 "vfmsub213ss" 19 "vfmsub213sd"
        20 "vfnmadd213ss" 21 "vfnmadd213sd" 22 "vfnmsub213ss" 23 "vfnmsub213sd"
    }
    r
}

/// VCMPPS, VCMPPD: predicate, | 32 for doubles. Only where AVX is shown, so the host has it.
pub(crate) extern "C" fn vcmp(_: S, form: u64, a: __m128i, b: __m128i) -> __m128i {
    let mut r = a;
    if !std::is_x86_feature_detected!("avx") {
        return r;
    }
    macro_rules! run { ($($n:literal)*) => { match form & 63 {
        // SAFETY: one register-only instruction; the host has AVX (checked above).
        $( $n => unsafe { asm!(concat!("vcmpps {r}, {a}, {b}, ", $n), r = out(xmm_reg) r, a = in(xmm_reg) a, b = in(xmm_reg) b, options(nomem, nostack, preserves_flags)) }, )*
        // SAFETY: as above.
        $( n if n == $n + 32 => unsafe { asm!(concat!("vcmppd {r}, {a}, {b}, ", $n), r = out(xmm_reg) r, a = in(xmm_reg) a, b = in(xmm_reg) b, options(nomem, nostack, preserves_flags)) }, )*
        _ => {}
    } } }
    run!(11 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31);
    r
}

/// What the CPU does not have, in portable code under the same MXCSR.
#[cold]
fn portably<R>(f: impl FnOnce() -> R) -> R {
    portable::set_host_mxcsr(host_mxcsr());
    let r = f();
    set_host_mxcsr(portable::host_mxcsr());
    r
}
