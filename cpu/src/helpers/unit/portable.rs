//! Floating-point helpers in portable code, under the virtual MXCSR of `evm_fpu`.

use crate::helpers::sse::{Lanes, each};
use evm_fpu::sse::{self, Double, Single};
use evm_ir::Vector as __m128i;

type S = *mut u8;
type Singles = [u32; 4];
type Doubles = [u64; 2];

/// The virtual MXCSR.
pub(crate) fn host_mxcsr() -> u32 {
    sse::mxcsr()
}
/// MXCSR as the guest sees it. Compiled WebAssembly notes the flags that it raises in the state.
#[cfg_attr(target_arch = "x86_64", allow(dead_code))]
pub(crate) fn guest_mxcsr(s: &crate::CpuState) -> u32 {
    sse::mxcsr() | s.mxcsr & 0x3f
}
/// Set the virtual MXCSR.
pub(crate) fn set_host_mxcsr(v: u32) {
    sse::set_mxcsr(v);
}

fn add4(a: u32, b: u32) -> u32 {
    sse::add_::<Single>(a.into(), b.into()) as u32
}
fn sub4(a: u32, b: u32) -> u32 {
    sse::sub_::<Single>(a.into(), b.into()) as u32
}
fn mul4(a: u32, b: u32) -> u32 {
    sse::mul_::<Single>(a.into(), b.into()) as u32
}
fn add8(a: u64, b: u64) -> u64 {
    sse::add_::<Double>(a, b)
}
fn sub8(a: u64, b: u64) -> u64 {
    sse::sub_::<Double>(a, b)
}
fn mul8(a: u64, b: u64) -> u64 {
    sse::mul_::<Double>(a, b)
}

/// Helpers on lanes.
macro_rules! lanes {
    ($( #[doc = $doc:literal] $name:ident($($a:ident: $t:ty),*) $body:expr; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, $($a: __m128i),*) -> __m128i {
            $( let $a = <$t>::of($a); )*
            Lanes::reg($body)
        }
    )* };
}
lanes! {
    /// HADDPS.
    haddps(a: Singles, b: Singles) [add4(a[0], a[1]), add4(a[2], a[3]), add4(b[0], b[1]), add4(b[2], b[3])];
    /// HADDPD.
    haddpd(a: Doubles, b: Doubles) [add8(a[0], a[1]), add8(b[0], b[1])];
    /// HSUBPS.
    hsubps(a: Singles, b: Singles) [sub4(a[0], a[1]), sub4(a[2], a[3]), sub4(b[0], b[1]), sub4(b[2], b[3])];
    /// HSUBPD.
    hsubpd(a: Doubles, b: Doubles) [sub8(a[0], a[1]), sub8(b[0], b[1])];
    /// ADDSUBPS.
    addsubps(a: Singles, b: Singles) each::<u32, 4>(|i| if i & 1 == 0 { sub4(a[i], b[i]) } else { add4(a[i], b[i]) });
    /// ADDSUBPD.
    addsubpd(a: Doubles, b: Doubles) [sub8(a[0], b[0]), add8(a[1], b[1])];
    /// CVTPS2DQ.
    cvtps2dq(a: Singles) a.map(|x| sse::to_int::<Single>(x.into(), 32, false) as u32);
    /// CVTTPS2DQ.
    cvttps2dq(a: Singles) a.map(|x| sse::to_int::<Single>(x.into(), 32, true) as u32);
    /// CVTPD2DQ.
    cvtpd2dq(a: Doubles) each::<u32, 4>(|i| if i < 2 { sse::to_int::<Double>(a[i], 32, false) as u32 } else { 0 });
    /// CVTTPD2DQ.
    cvttpd2dq(a: Doubles) each::<u32, 4>(|i| if i < 2 { sse::to_int::<Double>(a[i], 32, true) as u32 } else { 0 });
    /// CVTPD2PS.
    cvtpd2ps(a: Doubles) each::<u32, 4>(|i| if i < 2 { sse::convert::<Double, Single>(a[i]) as u32 } else { 0 });
    /// VCVTPH2PS of the low four halves.
    cvtph2ps(a: [u16; 8]) each::<u32, 4>(|i| sse::from_half(a[i].into()) as u32);
}

/// CVTSS2SI / CVTSD2SI, rounded by MXCSR. `form`: bit 0 the source is a double, bit 1 the result
/// has 64 bits (else it is zero-extended from 32).
pub(crate) extern "C" fn cvt_float_int(_: S, form: u64, bits: u64) -> u64 {
    let wide = if form & 2 != 0 { 64 } else { 32 };
    if form & 1 != 0 {
        sse::to_int::<Double>(bits, wide, false)
    } else {
        sse::to_int::<Single>(bits & 0xffff_ffff, wide, false)
    }
}

/// ROUNDPS of `b` (`a` is overwritten).
pub(crate) extern "C" fn roundps(_: S, imm: u64, _: __m128i, b: __m128i) -> __m128i {
    Singles::of(b).map(|x| sse::round::<Single>(x.into(), imm as u32) as u32).reg()
}
/// ROUNDPD of `b`.
pub(crate) extern "C" fn roundpd(_: S, imm: u64, _: __m128i, b: __m128i) -> __m128i {
    Doubles::of(b).map(|x| sse::round::<Double>(x, imm as u32)).reg()
}
/// ROUNDSS of `b` into lane 0 of `a`.
pub(crate) extern "C" fn roundss(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let mut a = Singles::of(a);
    a[0] = sse::round::<Single>(Singles::of(b)[0].into(), imm as u32) as u32;
    a.reg()
}
/// ROUNDSD of `b` into lane 0 of `a`.
pub(crate) extern "C" fn roundsd(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let mut a = Doubles::of(a);
    a[0] = sse::round::<Double>(Doubles::of(b)[0], imm as u32);
    a.reg()
}

/// DPPS: the products of the lanes chosen by the high half of `imm`, summed into the lanes chosen by its low half.
pub(crate) extern "C" fn dpps(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let (a, b) = (Singles::of(a), Singles::of(b));
    let p: Singles = each(|i| if imm >> (4 + i) & 1 != 0 { mul4(a[i], b[i]) } else { 0 });
    // Sums of neighbours, then of these, in an order that depends on the lane, and with it which of two NaNs it gives.
    let pairs: Singles = each(|i| add4(p[i ^ 1], p[i]));
    let sums: Singles = each(|i| add4(pairs[i], pairs[i ^ 2]));
    each::<u32, 4>(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 }).reg()
}
/// DPPD, as [`dpps`].
pub(crate) extern "C" fn dppd(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let (a, b) = (Doubles::of(a), Doubles::of(b));
    let p: Doubles = each(|i| if imm >> (4 + i) & 1 != 0 { mul8(a[i], b[i]) } else { 0 });
    let sums: Doubles = each(|i| add8(p[i], p[i ^ 1]));
    each::<u64, 2>(|i| if imm >> i & 1 != 0 { sums[i] } else { 0 }).reg()
}

/// VCVTPS2PH; `imm` bit 2: round by MXCSR, else by bits 0-1.
pub(crate) extern "C" fn cvtps2ph(_: S, imm: u64, a: __m128i) -> __m128i {
    let a = Singles::of(a);
    each::<u16, 8>(|i| if i < 4 { sse::to_half(a[i].into(), imm as u32) as u16 } else { 0 }).reg()
}

/// FMA: `x * y + z` with one rounding. `form`: bit 0 doubles; bits 1-3 the operation: 0 FMADD,
/// 1 FMSUB, 2 FNMADD, 3 FNMSUB, 4 FMADDSUB, 5 FMSUBADD; bit 4 scalar (the other lanes are `x`'s).
/// Operand order is that of the 213 form.
pub(crate) extern "C" fn fma(_: S, form: u64, x: __m128i, y: __m128i, z: __m128i) -> __m128i {
    // Whether the product and the addend of lane i change sign.
    let signs = |i: usize| match form >> 1 & 7 {
        0 => (false, false),
        1 => (false, true),
        2 => (true, false),
        3 => (true, true),
        4 => (false, i & 1 == 0),
        _ => (false, i & 1 != 0),
    };
    let kept = |i: usize| form & 16 != 0 && i > 0;
    if form & 1 != 0 {
        let (x, y, z) = (Doubles::of(x), Doubles::of(y), Doubles::of(z));
        each::<u64, 2>(|i| if kept(i) { x[i] } else { sse::fma::<Double>(x[i], y[i], z[i], signs(i)) }).reg()
    } else {
        let (x, y, z) = (Singles::of(x), Singles::of(y), Singles::of(z));
        let one = |i: usize| sse::fma::<Single>(x[i].into(), y[i].into(), z[i].into(), signs(i)) as u32;
        each::<u32, 4>(|i| if kept(i) { x[i] } else { one(i) }).reg()
    }
}

/// VCMPPS, VCMPPD: predicate, | 32 for doubles.
pub(crate) extern "C" fn vcmp(_: S, form: u64, a: __m128i, b: __m128i) -> __m128i {
    let p = form as u32 & 31;
    if form & 32 != 0 {
        let (a, b) = (Doubles::of(a), Doubles::of(b));
        each::<u64, 2>(|i| if sse::cmp::<Double>(a[i], b[i], p) { u64::MAX } else { 0 }).reg()
    } else {
        let (a, b) = (Singles::of(a), Singles::of(b));
        each::<u32, 4>(|i| if sse::cmp::<Single>(a[i].into(), b[i].into(), p) { u32::MAX } else { 0 }).reg()
    }
}
