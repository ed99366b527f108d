//! The portable helpers against those on the CPU, under every rounding mode, FTZ and DAZ: result and MXCSR. (The arithmetic of a lane is
//! tested in `evm-fpu`.)

use super::{portable, x86};
use crate::helpers::sse::Lanes;
use crate::helpers::testing::Rng;

#[test]
fn portable_helpers_are_as_the_cpu() {
    let s = std::ptr::null_mut();
    let mut rng = Rng(99);
    for round in 0..20_000u32 {
        let mxcsr = 0x1f80 | (round & 3) << 13 | (round >> 2 & 1) << 6 | (round >> 3 & 1) << 15;
        let mut vec = || {
            let v = rng.vec();
            // Numbers near one another, so that sums round.
            if rng.next() & 1 == 0 {
                v
            } else {
                v & 0x81ff_ffff_81ff_ffff_81ff_ffff_81ff_ffff | 0x3e00_0000_3e00_0000_3e00_0000_3e00_0000
            }
        };
        let (a, b, c) = (vec().reg(), vec().reg(), vec().reg());
        let imm = rng.next() & 0xff;
        macro_rules! same { ($($f:ident($($p:expr),*))*) => { $( {
            x86::set_host_mxcsr(mxcsr);
            let want = (x86::$f(s, $($p),*), x86::host_mxcsr());
            x86::set_host_mxcsr(0x1f80);
            portable::set_host_mxcsr(mxcsr);
            let have = (portable::$f(s, $($p),*), portable::host_mxcsr());
            assert_eq!((bits(want.0), want.1), (bits(have.0), have.1), "{} {:x?} mxcsr {mxcsr:x} imm {imm}",
                stringify!($f), [u128::of(a), u128::of(b), u128::of(c)]);
        } )* } }
        same! {
            haddps(a, b) haddpd(a, b) hsubps(a, b) hsubpd(a, b) addsubps(a, b) addsubpd(a, b)
            cvtps2dq(a) cvttps2dq(a) cvtpd2dq(a) cvttpd2dq(a) cvtpd2ps(a)
            cvt_float_int(imm, u128::of(a) as u64)
            roundps(imm & 15, a, b) roundpd(imm & 15, a, b) roundss(imm & 15, a, b) roundsd(imm & 15, a, b)
            dpps(imm, a, b) dppd(imm, a, b)
        }
        if std::is_x86_feature_detected!("f16c") {
            same! { cvtph2ps(a) cvtps2ph(imm & 7, a) }
        }
        if std::is_x86_feature_detected!("fma") {
            let form = if imm & 16 != 0 { 16 | imm & 7 } else { imm & 15 };
            if form & 14 < 12 {
                same! { fma(form, a, b, c) }
            }
        }
        if std::is_x86_feature_detected!("avx") {
            same! { vcmp(11 | imm & 32, a, b) vcmp(15 | imm & 32, a, b) vcmp(16 | imm & 47, a, b) }
        }
    }
}

trait Bits {
    fn bits(self) -> u128;
}
impl Bits for evm_ir::Vector {
    fn bits(self) -> u128 {
        u128::of(self)
    }
}
impl Bits for u64 {
    fn bits(self) -> u128 {
        self.into()
    }
}
fn bits(v: impl Bits) -> u128 {
    v.bits()
}
