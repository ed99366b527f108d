//! Helpers for SSE…AVX2 instructions that have no IR operation: lanewise integer products and
//! horizontal sums (portable code on arrays), conversions and rounding under MXCSR (the host's
//! instruction), approximations (one definition for every host), and string comparison.
//!
//! While a helper runs, the host's MXCSR is the guest's, so a floating instruction executed here
//! rounds, and raises flags, as the guest asked. Hosts have SSE4.1 at least.
//!
//! # Safety
//! `transmute`s are between 16-byte plain-data types. Assembly blocks are single register-only
//! instructions of the baseline (x86-64-v2), or are guarded by feature detection.
#![allow(unsafe_code)]

use super::state;
pub(crate) use super::unit::*;
use crate::exc;
use evm_ir::Vector as __m128i;

type S = *mut u8;

helpers! { super::int::BASE + super::int::FNS.len();
    PMULHW "pmulhw" I0V2_V(pmulhw) Pure false;
    PMULHUW "pmulhuw" I0V2_V(pmulhuw) Pure false;
    PMULHRSW "pmulhrsw" I0V2_V(pmulhrsw) Pure false;
    PMADDWD "pmaddwd" I0V2_V(pmaddwd) Pure false;
    PMADDUBSW "pmaddubsw" I0V2_V(pmaddubsw) Pure false;
    PMULUDQ "pmuludq" I0V2_V(pmuludq) Pure false;
    PMULDQ "pmuldq" I0V2_V(pmuldq) Pure false;
    PSADBW "psadbw" I0V2_V(psadbw) Pure false;
    PHADDW "phaddw" I0V2_V(phaddw) Pure false;
    PHADDD "phaddd" I0V2_V(phaddd) Pure false;
    PHADDSW "phaddsw" I0V2_V(phaddsw) Pure false;
    PHSUBW "phsubw" I0V2_V(phsubw) Pure false;
    PHSUBD "phsubd" I0V2_V(phsubd) Pure false;
    PHSUBSW "phsubsw" I0V2_V(phsubsw) Pure false;
    PSIGNB "psignb" I0V2_V(psignb) Pure false;
    PSIGNW "psignw" I0V2_V(psignw) Pure false;
    PSIGND "psignd" I0V2_V(psignd) Pure false;
    PSLLVD "psllvd" I0V2_V(psllvd) Pure false;
    PSRLVD "psrlvd" I0V2_V(psrlvd) Pure false;
    PSRAVD "psravd" I0V2_V(psravd) Pure false;
    PSLLVQ "psllvq" I0V2_V(psllvq) Pure false;
    PSRLVQ "psrlvq" I0V2_V(psrlvq) Pure false;
    PERMILPS "permilps" I0V2_V(permilps) Pure false;
    PERMILPD "permilpd" I0V2_V(permilpd) Pure false;
    PHMINPOSUW "phminposuw" I0V1_V(phminposuw) Pure false;
    MPSADBW "mpsadbw" I1V2_V(mpsadbw) Pure false;
    PERMD "permd" I0V3_V(permd) Pure false;
    HADDPS "haddps" I0V2_V(haddps) Private false;
    HADDPD "haddpd" I0V2_V(haddpd) Private false;
    HSUBPS "hsubps" I0V2_V(hsubps) Private false;
    HSUBPD "hsubpd" I0V2_V(hsubpd) Private false;
    ADDSUBPS "addsubps" I0V2_V(addsubps) Private false;
    ADDSUBPD "addsubpd" I0V2_V(addsubpd) Private false;
    CVTPS2DQ "cvtps2dq" I0V1_V(cvtps2dq) Private false;
    CVTTPS2DQ "cvttps2dq" I0V1_V(cvttps2dq) Private false;
    CVTPD2DQ "cvtpd2dq" I0V1_V(cvtpd2dq) Private false;
    CVTTPD2DQ "cvttpd2dq" I0V1_V(cvttpd2dq) Private false;
    CVTPD2PS "cvtpd2ps" I0V1_V(cvtpd2ps) Private false;
    CVT_FLOAT_INT "cvt_float_int" I2_R(cvt_float_int) Private false;
    ROUNDPS "roundps" I1V2_V(roundps) Private false;
    ROUNDPD "roundpd" I1V2_V(roundpd) Private false;
    ROUNDSS "roundss" I1V2_V(roundss) Private false;
    ROUNDSD "roundsd" I1V2_V(roundsd) Private false;
    DPPS "dpps" I1V2_V(dpps) Private false;
    DPPD "dppd" I1V2_V(dppd) Private false;
    RCPPS "rcpps" I0V1_V(rcpps) Pure false;
    RSQRTPS "rsqrtps" I0V1_V(rsqrtps) Pure false;
    CVTPH2PS "cvtph2ps" I0V1_V(cvtph2ps) Private false;
    CVTPS2PH "cvtps2ph" I1V1_V(vcvtps2ph) Private true;
    FMA "fma" I1V3_V(fma) Private false;
    VCMP "vcmp" I1V2_V(vcmp) Private false;
    PCMPISTR "pcmpistr" I1V2_R(pcmpistr) Pure false;
    PCMPESTR "pcmpestr" I3V2_R(pcmpestr) Pure false;
    PCMPSTR_MASK "pcmpstr_mask" I2_V(pcmpstr_mask) Pure false;
    LDMXCSR "ldmxcsr" I1(ldmxcsr) All true;
    STMXCSR "stmxcsr" I0_R(stmxcsr) All false;
    MODE "mode" I1(mode) All true;
}

/// 128 bits seen as an array of lanes.
pub(crate) trait Lanes: Sized {
    /// From the register form.
    fn of(v: __m128i) -> Self;
    /// To the register form.
    fn reg(self) -> __m128i;
}
macro_rules! lanes { ($($t:ty)*) => { $( impl Lanes for $t {
    #[inline(always)]
    fn of(v: __m128i) -> Self {
        // SAFETY: both are 16 bytes without invalid values.
        unsafe { std::mem::transmute::<__m128i, $t>(v) }
    }
    #[inline(always)]
    fn reg(self) -> __m128i {
        // SAFETY: as above.
        unsafe { std::mem::transmute::<$t, __m128i>(self) }
    }
} )* } }
lanes!([i8; 16] [u8; 16] [i16; 8] [u16; 8] [i32; 4] [u32; 4] [i64; 2] [u64; 2] u128);

pub(crate) fn each<T: Copy + Default, const N: usize>(f: impl Fn(usize) -> T) -> [T; N] {
    let mut r = [T::default(); N];
    for (i, x) in r.iter_mut().enumerate() {
        *x = f(i);
    }
    r
}

/// Two-operand helpers by lane arrays.
macro_rules! binary {
    ($( #[doc = $doc:literal] $name:ident($a:ident: $ta:ty, $b:ident: $tb:ty) -> $tr:ty $body:block )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, a: __m128i, b: __m128i) -> __m128i {
            let ($a, $b) = (<$ta>::of(a), <$tb>::of(b));
            let r: $tr = $body;
            r.reg()
        }
    )* };
}

fn sat16(v: i32) -> i16 {
    v.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16
}
/// Lane `i` of the concatenation of `a` (low) and `b`.
fn pair<T: Copy, const N: usize>(a: &[T; N], b: &[T; N], i: usize) -> T {
    if i < N { a[i] } else { b[i - N] }
}
fn sign_of<T: Copy + Default + PartialOrd>(a: T, neg: T, b: T) -> T {
    let zero = T::default();
    if b < zero {
        neg
    } else if b > zero {
        a
    } else {
        zero
    }
}

binary! {
    /// PMULHW.
    pmulhw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { each(|i| ((i32::from(a[i]) * i32::from(b[i])) >> 16) as i16) }
    /// PMULHUW.
    pmulhuw(a: [u16; 8], b: [u16; 8]) -> [u16; 8] { each(|i| ((u32::from(a[i]) * u32::from(b[i])) >> 16) as u16) }
    /// PMULHRSW.
    pmulhrsw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        each(|i| ((((i32::from(a[i]) * i32::from(b[i])) >> 14) + 1) >> 1) as i16)
    }
    /// PMADDWD.
    pmaddwd(a: [i16; 8], b: [i16; 8]) -> [i32; 4] {
        each(|i| {
            let p = |k: usize| i32::from(a[k]) * i32::from(b[k]);
            p(2 * i).wrapping_add(p(2 * i + 1))
        })
    }
    /// PMADDUBSW.
    pmaddubsw(a: [u8; 16], b: [i8; 16]) -> [i16; 8] {
        each(|i| {
            let p = |k: usize| i32::from(a[k]) * i32::from(b[k]);
            sat16(p(2 * i) + p(2 * i + 1))
        })
    }
    /// PMULUDQ.
    pmuludq(a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
        each(|i| (a[i] & 0xffff_ffff) * (b[i] & 0xffff_ffff))
    }
    /// PMULDQ.
    pmuldq(a: [i64; 2], b: [i64; 2]) -> [i64; 2] {
        each(|i| i64::from(a[i] as i32) * i64::from(b[i] as i32))
    }
    /// PSADBW.
    psadbw(a: [u8; 16], b: [u8; 16]) -> [u64; 2] {
        each(|h| (8 * h..8 * h + 8).map(|i| u64::from(a[i].abs_diff(b[i]))).sum())
    }
    /// PHADDW.
    phaddw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        each(|i| pair(&a, &b, 2 * i).wrapping_add(pair(&a, &b, 2 * i + 1)))
    }
    /// PHADDD.
    phaddd(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        each(|i| pair(&a, &b, 2 * i).wrapping_add(pair(&a, &b, 2 * i + 1)))
    }
    /// PHADDSW.
    phaddsw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        each(|i| pair(&a, &b, 2 * i).saturating_add(pair(&a, &b, 2 * i + 1)))
    }
    /// PHSUBW.
    phsubw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        each(|i| pair(&a, &b, 2 * i).wrapping_sub(pair(&a, &b, 2 * i + 1)))
    }
    /// PHSUBD.
    phsubd(a: [i32; 4], b: [i32; 4]) -> [i32; 4] {
        each(|i| pair(&a, &b, 2 * i).wrapping_sub(pair(&a, &b, 2 * i + 1)))
    }
    /// PHSUBSW.
    phsubsw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] {
        each(|i| pair(&a, &b, 2 * i).saturating_sub(pair(&a, &b, 2 * i + 1)))
    }
    /// PSIGNB.
    psignb(a: [i8; 16], b: [i8; 16]) -> [i8; 16] { each(|i| sign_of(a[i], a[i].wrapping_neg(), b[i])) }
    /// PSIGNW.
    psignw(a: [i16; 8], b: [i16; 8]) -> [i16; 8] { each(|i| sign_of(a[i], a[i].wrapping_neg(), b[i])) }
    /// PSIGND.
    psignd(a: [i32; 4], b: [i32; 4]) -> [i32; 4] { each(|i| sign_of(a[i], a[i].wrapping_neg(), b[i])) }
    /// VPERMILPS with a vector of selectors.
    permilps(a: [u32; 4], b: [u32; 4]) -> [u32; 4] { each(|i| a[(b[i] & 3) as usize]) }
    /// VPERMILPD with a vector of selectors (bit 1).
    permilpd(a: [u64; 2], b: [u64; 2]) -> [u64; 2] { each(|i| a[(b[i] >> 1 & 1) as usize]) }
}

/// Lanes shifted by lanes. Not written as a loop over lanes: without AVX2 the compiler makes multiplications by floating
/// powers of two of it, which change MXCSR.
macro_rules! variable_shift {
    ($( #[doc = $doc:literal] $name:ident $ins:literal $lane:ty, $signed:ty, |$a:ident, $n:ident| $e:expr; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, a: __m128i, b: __m128i) -> __m128i {
            #[cfg(target_arch = "x86_64")]
            if std::is_x86_feature_detected!("avx2") {
                let r: __m128i;
                // SAFETY: one register-only instruction that the host has (checked above).
                unsafe { std::arch::asm!(concat!($ins, " {r}, {a}, {b}"), r = out(xmm_reg) r, a = in(xmm_reg) a, b = in(xmm_reg) b, options(nomem, nostack, preserves_flags, pure)) };
                return r;
            }
            const N: usize = 16 / size_of::<$lane>();
            let (a, b) = (<[$signed; N]>::of(a), <[$lane; N]>::of(b));
            let mut r = [0 as $signed; N];
            for i in 0..N {
                let ($a, $n) = (a[i], std::hint::black_box(b[i]));
                r[i] = $e;
            }
            r.reg()
        }
    )* };
}
variable_shift! {
    /// VPSLLVD.
    psllvd "vpsllvd" u32, u32, |a, n| if n < 32 { a << n } else { 0 };
    /// VPSRLVD.
    psrlvd "vpsrlvd" u32, u32, |a, n| if n < 32 { a >> n } else { 0 };
    /// VPSRAVD.
    psravd "vpsravd" u32, i32, |a, n| a >> n.min(31);
    /// VPSLLVQ.
    psllvq "vpsllvq" u64, u64, |a, n| if n < 64 { a << n } else { 0 };
    /// VPSRLVQ.
    psrlvq "vpsrlvq" u64, u64, |a, n| if n < 64 { a >> n } else { 0 };
}

/// PHMINPOSUW: the least word and its index.
pub(crate) extern "C" fn phminposuw(_: S, a: __m128i) -> __m128i {
    let a = <[u16; 8]>::of(a);
    let (mut at, mut min) = (0, a[0]);
    for (i, x) in a.iter().enumerate() {
        if *x < min {
            (at, min) = (i, *x);
        }
    }
    [min, at as u16, 0, 0, 0, 0, 0, 0].reg()
}

/// MPSADBW: eight sums of four absolute differences; offsets in `imm` bits 0-2.
pub(crate) extern "C" fn mpsadbw(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let (a, b) = (<[u8; 16]>::of(a), <[u8; 16]>::of(b));
    let (ao, bo) = ((imm >> 2 & 1) as usize * 4, (imm & 3) as usize * 4);
    let r: [u16; 8] = each(|i| (0..4).map(|k| u16::from(a[ao + i + k].abs_diff(b[bo + k]))).sum());
    r.reg()
}

/// VPERMD / VPERMPS: four of the eight dwords of `hi:lo`, chosen by the lanes of `idx`.
pub(crate) extern "C" fn permd(_: S, idx: __m128i, lo: __m128i, hi: __m128i) -> __m128i {
    let (idx, lo, hi) = (<[u32; 4]>::of(idx), <[u32; 4]>::of(lo), <[u32; 4]>::of(hi));
    let r: [u32; 4] = each(|i| pair(&lo, &hi, (idx[i] & 7) as usize));
    r.reg()
}

/// RCPPS for one lane. Hosts differ; here the result is 1/x truncated to 12 fraction bits (well
/// inside the architecture's 1.5 * 2^-12). Subnormal operands count as zero, subnormal results are zero.
fn rcp(x: u32) -> u32 {
    let sign = x & 0x8000_0000;
    let exp = (x >> 23 & 255) as i32;
    let frac = x & 0x7f_ffff;
    match exp {
        0 => sign | 0x7f80_0000,
        255 if frac != 0 => x | 0x40_0000,
        255 => sign,
        _ => {
            let q = (1u64 << 47) / u64::from(frac | 0x80_0000);
            // q is in (2^23, 2^24]; 2^24 only for a power of two.
            let (e, f) = if q == 1 << 24 { (254 - exp, 0) } else { (253 - exp, q as u32 & 0x7f_f800) };
            if e <= 0 { sign } else { sign | (e as u32) << 23 | f }
        }
    }
}

/// RSQRTPS for one lane: 1/sqrt(x) truncated to 12 fraction bits; see [`rcp`].
fn rsqrt(x: u32) -> u32 {
    let sign = x & 0x8000_0000;
    let exp = (x >> 23 & 255) as i32;
    let frac = x & 0x7f_ffff;
    match exp {
        255 if frac != 0 => x | 0x40_0000,
        0 => sign | 0x7f80_0000,
        _ if sign != 0 => 0xffc0_0000,
        255 => 0,
        _ => {
            // x = m * 2^(e - 23) with e even; 1/sqrt(x) = sqrt(2^23 / m) * 2^(-e/2).
            let e = exp - 127;
            let m = u64::from(frac | 0x80_0000) << (e & 1);
            let e = e - (e & 1);
            // q = floor(2^16 * sqrt(2^23 / m)), in (2^15, 2^16].
            let q = ((1u64 << 55) / m).isqrt();
            let (e, f) = if q == 1 << 16 { (127 - e / 2, 0) } else { (126 - e / 2, (q as u32) << 8 & 0x7f_f800) };
            (e as u32) << 23 | f
        }
    }
}

/// RCPPS.
pub(crate) extern "C" fn rcpps(_: S, a: __m128i) -> __m128i {
    <[u32; 4]>::of(a).map(rcp).reg()
}
/// RSQRTPS.
pub(crate) extern "C" fn rsqrtps(_: S, a: __m128i) -> __m128i {
    <[u32; 4]>::of(a).map(rsqrt).reg()
}

/// CF, ZF, SF, OF in their RFLAGS positions.
const STR_CF: u64 = 1;
const STR_ZF: u64 = 0x40;
const STR_SF: u64 = 0x80;
const STR_OF: u64 = 0x800;

/// The comparison of PCMPxSTRx: bits 0-15 the result mask, 16-23 the index, 32-47 the flags.
fn pcmpstr(imm: u64, a: __m128i, b: __m128i, la: usize, lb: usize) -> u64 {
    let n = if imm & 1 != 0 { 8 } else { 16 };
    let lane = |v: __m128i| -> [i32; 16] {
        match imm & 3 {
            0 => <[u8; 16]>::of(v).map(i32::from),
            2 => <[i8; 16]>::of(v).map(i32::from),
            1 => {
                let w = <[u16; 8]>::of(v);
                each(|i| i32::from(w[i & 7]))
            }
            _ => {
                let w = <[i16; 8]>::of(v);
                each(|i| i32::from(w[i & 7]))
            }
        }
    };
    let (a, b) = (lane(a), lane(b));
    let mut r1 = 0u64;
    for j in 0..n {
        let hit = match imm >> 2 & 3 {
            0 => j < lb && a[..la].contains(&b[j]),
            1 => j < lb && a[..la].chunks_exact(2).any(|r| r[0] <= b[j] && b[j] <= r[1]),
            2 => (j < la && j < lb && a[j] == b[j]) || (j >= la && j >= lb),
            _ => (0..la.min(n - j)).all(|i| i + j < lb && a[i] == b[i + j]),
        };
        r1 |= u64::from(hit) << j;
    }
    let all = (1u64 << n) - 1;
    let r2 = match imm >> 4 & 3 {
        1 => r1 ^ all,
        3 => r1 ^ ((1 << lb) - 1),
        _ => r1,
    };
    let index = if r2 == 0 {
        n as u64
    } else if imm & 0x40 != 0 {
        63 - u64::from(r2.leading_zeros())
    } else {
        u64::from(r2.trailing_zeros())
    };
    let bit = |c: bool, f: u64| if c { f } else { 0 };
    let flags = bit(r2 != 0, STR_CF) | bit(lb < n, STR_ZF) | bit(la < n, STR_SF) | bit(r2 & 1 != 0, STR_OF);
    r2 | index << 16 | flags << 32
}

/// PCMPISTRI / PCMPISTRM: strings end at a zero lane; the result as [`pcmpstr`] packs it.
pub(crate) extern "C" fn pcmpistr(_: S, imm: u64, a: __m128i, b: __m128i) -> u64 {
    let len = |v: __m128i| {
        if imm & 1 != 0 {
            <[u16; 8]>::of(v).iter().position(|x| *x == 0).unwrap_or(8)
        } else {
            <[u8; 16]>::of(v).iter().position(|x| *x == 0).unwrap_or(16)
        }
    };
    pcmpstr(imm, a, b, len(a), len(b))
}

/// PCMPESTRI / PCMPESTRM: lengths (sign-extended) are given; their absolute values saturate.
pub(crate) extern "C" fn pcmpestr(_: S, imm: u64, la: u64, lb: u64, a: __m128i, b: __m128i) -> u64 {
    let n = if imm & 1 != 0 { 8 } else { 16 };
    let len = |l: u64| (l as i64).unsigned_abs().min(n) as usize;
    pcmpstr(imm, a, b, len(la), len(lb))
}

/// The mask of PCMPxSTRM from the packed result: bits, or (imm bit 6) lanes of ones.
pub(crate) extern "C" fn pcmpstr_mask(_: S, imm: u64, packed: u64) -> __m128i {
    let bit = |i: usize| packed >> i & 1 != 0;
    if imm & 0x40 == 0 {
        u128::from(packed & 0xffff).reg()
    } else if imm & 1 != 0 {
        each::<u16, 8>(|i| if bit(i) { u16::MAX } else { 0 }).reg()
    } else {
        each::<u8, 16>(|i| if bit(i) { u8::MAX } else { 0 }).reg()
    }
}

/// VCVTPS2PH, whose result may go to memory: an unmasked exception is found before it does. The host's unit traps by itself.
pub(crate) extern "C" fn vcvtps2ph(st: S, imm: u64, a: __m128i) -> __m128i {
    let r = cvtps2ph(st, imm, a);
    #[cfg(not(target_arch = "x86_64"))]
    {
        let raised = evm_fpu::sse::raised();
        if raised & !(evm_fpu::sse::mxcsr() >> 7) & 0x3f != 0 {
            // SAFETY: the engine's pointer.
            unsafe { state(st) }.raise(exc::XM, raised.into());
        }
    }
    r
}

/// LDMXCSR: reserved bits are #GP. The host's register is the live one.
pub(crate) extern "C" fn ldmxcsr(st: S, v: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    if v & 0xffff_0000 != 0 {
        return st.raise(exc::GP, 0);
    }
    st.settle_flags();
    st.mxcsr = v as u32;
    st.fp_seen = crate::state::FP_LOOKED;
    st.loaded_mxcsr();
    set_host_mxcsr(v as u32);
}

/// After MXCSR or RFLAGS was loaded: if they ask for it, have the engine run on with care from `next`.
pub(crate) extern "C" fn mode(st: S, next: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    if st.careful() {
        st.raise(exc::MODE, next);
    }
}
impl crate::CpuState {
    /// Whether SSE exceptions are unmasked.
    pub fn unmasked(&self) -> bool {
        self.mxcsr & 0x1f80 != 0x1f80
    }
    /// Whether instructions are to be run one by one: SSE exceptions are unmasked, or TF or AC is set.
    pub fn careful(&self) -> bool {
        self.unmasked() || self.steps()
    }
    /// Whether TF or AC is set.
    pub fn steps(&self) -> bool {
        self.rflags_sys & 0x4_0100 != 0
    }
}

/// STMXCSR.
pub(crate) extern "C" fn stmxcsr(st: S) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    st.mxcsr = guest_mxcsr(st);
    st.look_at_flags();
    set_host_mxcsr(st.mxcsr);
    u64::from(st.mxcsr)
}

#[cfg(test)]
#[path = "sse_tests.rs"]
mod tests;
