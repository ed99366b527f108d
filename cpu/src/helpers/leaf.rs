//! Leaves of helpers (see [`evm_ir::FindLeaf`]): one host instruction each, on the registers in which the helper's
//! arguments come and its result goes.
//!
//! Each row says for which helper it stands, what the host must have, which immediate it has built in, and the code.
//!
//! # Safety
//! The code touches nothing but the registers of the arguments (unchanged) and of the result, and the red zone below
//! the stack pointer. Compiled code calls a leaf with the helper's arguments in place; it is found only if the host has
//! its instruction.
#![allow(unsafe_code)]

use super::id::*;
use When::{Any, Imm, Third};
use std::arch::naked_asm;
use std::sync::OnceLock;

#[path = "leaf_x87.rs"]
mod on_x87;

/// For which constants a leaf is.
#[derive(Clone, Copy)]
enum When {
    /// The helper has no immediate.
    Any,
    /// The first `I64` argument under a mask is this.
    Imm(u64, u64),
    /// The third `I64` argument is this.
    Third(u64),
}

impl When {
    fn fits(self, ints: &[Option<u64>]) -> bool {
        let is = |n: usize, mask: u64, v: u64| ints.get(n).copied().flatten().is_some_and(|x| x & mask == v);
        match self {
            Any => true,
            Imm(mask, v) => is(0, mask, v),
            Third(v) => is(2, u64::MAX, v),
        }
    }
}

/// What the host must have beyond x86-64-v2.
#[derive(Clone, Copy)]
enum Needs {
    Base,
    Avx,
    Avx2,
    Fma,
    F16c,
    Bmi2,
    Aes,
    Pclmul,
}

impl Needs {
    fn met(self) -> bool {
        match self {
            Needs::Base => true,
            Needs::Avx => std::is_x86_feature_detected!("avx"),
            Needs::Avx2 => std::is_x86_feature_detected!("avx2"),
            Needs::Fma => std::is_x86_feature_detected!("fma"),
            Needs::F16c => std::is_x86_feature_detected!("f16c"),
            Needs::Bmi2 => std::is_x86_feature_detected!("bmi2"),
            Needs::Aes => std::is_x86_feature_detected!("aes"),
            Needs::Pclmul => std::is_x86_feature_detected!("pclmulqdq"),
        }
    }
}

struct Leaf {
    helper: u16,
    needs: Needs,
    when: When,
    code: unsafe extern "sysv64" fn(),
}

macro_rules! leaves {
    ($( $helper:ident $needs:ident $when:expr, $($text:literal)+; )*) => {
        static LEAVES: &[Leaf] = &[ $( Leaf { helper: $helper, needs: Needs::$needs, when: $when, code: {
            #[unsafe(naked)]
            unsafe extern "sysv64" fn code() {
                naked_asm!($($text,)+ "ret")
            }
            code
        } } ),* ];
    };
}

leaves! {
    PMULHW Base Any, "pmulhw xmm0, xmm1";
    PMULHUW Base Any, "pmulhuw xmm0, xmm1";
    PMULHRSW Base Any, "pmulhrsw xmm0, xmm1";
    PMADDWD Base Any, "pmaddwd xmm0, xmm1";
    PMADDUBSW Base Any, "pmaddubsw xmm0, xmm1";
    PMULUDQ Base Any, "pmuludq xmm0, xmm1";
    PMULDQ Base Any, "pmuldq xmm0, xmm1";
    PSADBW Base Any, "psadbw xmm0, xmm1";
    PHADDW Base Any, "phaddw xmm0, xmm1";
    PHADDD Base Any, "phaddd xmm0, xmm1";
    PHADDSW Base Any, "phaddsw xmm0, xmm1";
    PHSUBW Base Any, "phsubw xmm0, xmm1";
    PHSUBD Base Any, "phsubd xmm0, xmm1";
    PHSUBSW Base Any, "phsubsw xmm0, xmm1";
    PSIGNB Base Any, "psignb xmm0, xmm1";
    PSIGNW Base Any, "psignw xmm0, xmm1";
    PSIGND Base Any, "psignd xmm0, xmm1";
    HADDPS Base Any, "haddps xmm0, xmm1";
    HADDPD Base Any, "haddpd xmm0, xmm1";
    HSUBPS Base Any, "hsubps xmm0, xmm1";
    HSUBPD Base Any, "hsubpd xmm0, xmm1";
    ADDSUBPS Base Any, "addsubps xmm0, xmm1";
    ADDSUBPD Base Any, "addsubpd xmm0, xmm1";
    PHMINPOSUW Base Any, "phminposuw xmm0, xmm0";
    CVTPS2DQ Base Any, "cvtps2dq xmm0, xmm0";
    CVTTPS2DQ Base Any, "cvttps2dq xmm0, xmm0";
    CVTPD2DQ Base Any, "cvtpd2dq xmm0, xmm0";
    CVTTPD2DQ Base Any, "cvttpd2dq xmm0, xmm0";
    CVTPD2PS Base Any, "cvtpd2ps xmm0, xmm0";
    PSLLVD Avx2 Any, "vpsllvd xmm0, xmm0, xmm1";
    PSRLVD Avx2 Any, "vpsrlvd xmm0, xmm0, xmm1";
    PSRAVD Avx2 Any, "vpsravd xmm0, xmm0, xmm1";
    PSLLVQ Avx2 Any, "vpsllvq xmm0, xmm0, xmm1";
    PSRLVQ Avx2 Any, "vpsrlvq xmm0, xmm0, xmm1";
    PERMILPS Avx Any, "vpermilps xmm0, xmm0, xmm1";
    PERMILPD Avx Any, "vpermilpd xmm0, xmm0, xmm1";
    PERMD Avx2 Any, "vinserti128 ymm1, ymm1, xmm2, 1" "vpermd ymm0, ymm0, ymm1" "vzeroupper";
    CVT_FLOAT_INT Base Imm(3, 0), "mov qword ptr [rsp - 8], rdx" "cvtss2si eax, dword ptr [rsp - 8]";
    CVT_FLOAT_INT Base Imm(3, 1), "mov qword ptr [rsp - 8], rdx" "cvtsd2si eax, qword ptr [rsp - 8]";
    CVT_FLOAT_INT Base Imm(3, 2), "mov qword ptr [rsp - 8], rdx" "cvtss2si rax, dword ptr [rsp - 8]";
    CVT_FLOAT_INT Base Imm(3, 3), "mov qword ptr [rsp - 8], rdx" "cvtsd2si rax, qword ptr [rsp - 8]";
    ROUNDPS Base Imm(15, 0), "roundps xmm0, xmm1, 0";
    ROUNDPS Base Imm(15, 1), "roundps xmm0, xmm1, 1";
    ROUNDPS Base Imm(15, 2), "roundps xmm0, xmm1, 2";
    ROUNDPS Base Imm(15, 3), "roundps xmm0, xmm1, 3";
    ROUNDPS Base Imm(15, 4), "roundps xmm0, xmm1, 4";
    ROUNDPS Base Imm(15, 5), "roundps xmm0, xmm1, 5";
    ROUNDPS Base Imm(15, 6), "roundps xmm0, xmm1, 6";
    ROUNDPS Base Imm(15, 7), "roundps xmm0, xmm1, 7";
    ROUNDPS Base Imm(15, 8), "roundps xmm0, xmm1, 8";
    ROUNDPS Base Imm(15, 9), "roundps xmm0, xmm1, 9";
    ROUNDPS Base Imm(15, 10), "roundps xmm0, xmm1, 10";
    ROUNDPS Base Imm(15, 11), "roundps xmm0, xmm1, 11";
    ROUNDPS Base Imm(15, 12), "roundps xmm0, xmm1, 12";
    ROUNDPS Base Imm(15, 13), "roundps xmm0, xmm1, 13";
    ROUNDPS Base Imm(15, 14), "roundps xmm0, xmm1, 14";
    ROUNDPS Base Imm(15, 15), "roundps xmm0, xmm1, 15";
    ROUNDPD Base Imm(15, 0), "roundpd xmm0, xmm1, 0";
    ROUNDPD Base Imm(15, 1), "roundpd xmm0, xmm1, 1";
    ROUNDPD Base Imm(15, 2), "roundpd xmm0, xmm1, 2";
    ROUNDPD Base Imm(15, 3), "roundpd xmm0, xmm1, 3";
    ROUNDPD Base Imm(15, 4), "roundpd xmm0, xmm1, 4";
    ROUNDPD Base Imm(15, 5), "roundpd xmm0, xmm1, 5";
    ROUNDPD Base Imm(15, 6), "roundpd xmm0, xmm1, 6";
    ROUNDPD Base Imm(15, 7), "roundpd xmm0, xmm1, 7";
    ROUNDPD Base Imm(15, 8), "roundpd xmm0, xmm1, 8";
    ROUNDPD Base Imm(15, 9), "roundpd xmm0, xmm1, 9";
    ROUNDPD Base Imm(15, 10), "roundpd xmm0, xmm1, 10";
    ROUNDPD Base Imm(15, 11), "roundpd xmm0, xmm1, 11";
    ROUNDPD Base Imm(15, 12), "roundpd xmm0, xmm1, 12";
    ROUNDPD Base Imm(15, 13), "roundpd xmm0, xmm1, 13";
    ROUNDPD Base Imm(15, 14), "roundpd xmm0, xmm1, 14";
    ROUNDPD Base Imm(15, 15), "roundpd xmm0, xmm1, 15";
    ROUNDSS Base Imm(15, 0), "roundss xmm0, xmm1, 0";
    ROUNDSS Base Imm(15, 1), "roundss xmm0, xmm1, 1";
    ROUNDSS Base Imm(15, 2), "roundss xmm0, xmm1, 2";
    ROUNDSS Base Imm(15, 3), "roundss xmm0, xmm1, 3";
    ROUNDSS Base Imm(15, 4), "roundss xmm0, xmm1, 4";
    ROUNDSS Base Imm(15, 5), "roundss xmm0, xmm1, 5";
    ROUNDSS Base Imm(15, 6), "roundss xmm0, xmm1, 6";
    ROUNDSS Base Imm(15, 7), "roundss xmm0, xmm1, 7";
    ROUNDSS Base Imm(15, 8), "roundss xmm0, xmm1, 8";
    ROUNDSS Base Imm(15, 9), "roundss xmm0, xmm1, 9";
    ROUNDSS Base Imm(15, 10), "roundss xmm0, xmm1, 10";
    ROUNDSS Base Imm(15, 11), "roundss xmm0, xmm1, 11";
    ROUNDSS Base Imm(15, 12), "roundss xmm0, xmm1, 12";
    ROUNDSS Base Imm(15, 13), "roundss xmm0, xmm1, 13";
    ROUNDSS Base Imm(15, 14), "roundss xmm0, xmm1, 14";
    ROUNDSS Base Imm(15, 15), "roundss xmm0, xmm1, 15";
    ROUNDSD Base Imm(15, 0), "roundsd xmm0, xmm1, 0";
    ROUNDSD Base Imm(15, 1), "roundsd xmm0, xmm1, 1";
    ROUNDSD Base Imm(15, 2), "roundsd xmm0, xmm1, 2";
    ROUNDSD Base Imm(15, 3), "roundsd xmm0, xmm1, 3";
    ROUNDSD Base Imm(15, 4), "roundsd xmm0, xmm1, 4";
    ROUNDSD Base Imm(15, 5), "roundsd xmm0, xmm1, 5";
    ROUNDSD Base Imm(15, 6), "roundsd xmm0, xmm1, 6";
    ROUNDSD Base Imm(15, 7), "roundsd xmm0, xmm1, 7";
    ROUNDSD Base Imm(15, 8), "roundsd xmm0, xmm1, 8";
    ROUNDSD Base Imm(15, 9), "roundsd xmm0, xmm1, 9";
    ROUNDSD Base Imm(15, 10), "roundsd xmm0, xmm1, 10";
    ROUNDSD Base Imm(15, 11), "roundsd xmm0, xmm1, 11";
    ROUNDSD Base Imm(15, 12), "roundsd xmm0, xmm1, 12";
    ROUNDSD Base Imm(15, 13), "roundsd xmm0, xmm1, 13";
    ROUNDSD Base Imm(15, 14), "roundsd xmm0, xmm1, 14";
    ROUNDSD Base Imm(15, 15), "roundsd xmm0, xmm1, 15";
    MPSADBW Base Imm(7, 0), "mpsadbw xmm0, xmm1, 0";
    MPSADBW Base Imm(7, 1), "mpsadbw xmm0, xmm1, 1";
    MPSADBW Base Imm(7, 2), "mpsadbw xmm0, xmm1, 2";
    MPSADBW Base Imm(7, 3), "mpsadbw xmm0, xmm1, 3";
    MPSADBW Base Imm(7, 4), "mpsadbw xmm0, xmm1, 4";
    MPSADBW Base Imm(7, 5), "mpsadbw xmm0, xmm1, 5";
    MPSADBW Base Imm(7, 6), "mpsadbw xmm0, xmm1, 6";
    MPSADBW Base Imm(7, 7), "mpsadbw xmm0, xmm1, 7";
    CVTPH2PS F16c Any, "vcvtph2ps xmm0, xmm0";
    CVTPS2PH F16c Imm(7, 0), "vcvtps2ph xmm0, xmm0, 0";
    CVTPS2PH F16c Imm(7, 1), "vcvtps2ph xmm0, xmm0, 1";
    CVTPS2PH F16c Imm(7, 2), "vcvtps2ph xmm0, xmm0, 2";
    CVTPS2PH F16c Imm(7, 3), "vcvtps2ph xmm0, xmm0, 3";
    CVTPS2PH F16c Imm(7, 4), "vcvtps2ph xmm0, xmm0, 4";
    CVTPS2PH F16c Imm(7, 5), "vcvtps2ph xmm0, xmm0, 5";
    CVTPS2PH F16c Imm(7, 6), "vcvtps2ph xmm0, xmm0, 6";
    CVTPS2PH F16c Imm(7, 7), "vcvtps2ph xmm0, xmm0, 7";
    FMA Fma Imm(31, 0), "vfmadd213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 1), "vfmadd213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 2), "vfmsub213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 3), "vfmsub213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 4), "vfnmadd213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 5), "vfnmadd213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 6), "vfnmsub213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 7), "vfnmsub213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 8), "vfmaddsub213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 9), "vfmaddsub213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 10), "vfmsubadd213ps xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 11), "vfmsubadd213pd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 16), "vfmadd213ss xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 17), "vfmadd213sd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 18), "vfmsub213ss xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 19), "vfmsub213sd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 20), "vfnmadd213ss xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 21), "vfnmadd213sd xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 22), "vfnmsub213ss xmm0, xmm1, xmm2";
    FMA Fma Imm(31, 23), "vfnmsub213sd xmm0, xmm1, xmm2";
    VCMP Avx Imm(63, 11), "vcmpps xmm0, xmm0, xmm1, 11";
    VCMP Avx Imm(63, 15), "vcmpps xmm0, xmm0, xmm1, 15";
    VCMP Avx Imm(63, 16), "vcmpps xmm0, xmm0, xmm1, 16";
    VCMP Avx Imm(63, 17), "vcmpps xmm0, xmm0, xmm1, 17";
    VCMP Avx Imm(63, 18), "vcmpps xmm0, xmm0, xmm1, 18";
    VCMP Avx Imm(63, 19), "vcmpps xmm0, xmm0, xmm1, 19";
    VCMP Avx Imm(63, 20), "vcmpps xmm0, xmm0, xmm1, 20";
    VCMP Avx Imm(63, 21), "vcmpps xmm0, xmm0, xmm1, 21";
    VCMP Avx Imm(63, 22), "vcmpps xmm0, xmm0, xmm1, 22";
    VCMP Avx Imm(63, 23), "vcmpps xmm0, xmm0, xmm1, 23";
    VCMP Avx Imm(63, 24), "vcmpps xmm0, xmm0, xmm1, 24";
    VCMP Avx Imm(63, 25), "vcmpps xmm0, xmm0, xmm1, 25";
    VCMP Avx Imm(63, 26), "vcmpps xmm0, xmm0, xmm1, 26";
    VCMP Avx Imm(63, 27), "vcmpps xmm0, xmm0, xmm1, 27";
    VCMP Avx Imm(63, 28), "vcmpps xmm0, xmm0, xmm1, 28";
    VCMP Avx Imm(63, 29), "vcmpps xmm0, xmm0, xmm1, 29";
    VCMP Avx Imm(63, 30), "vcmpps xmm0, xmm0, xmm1, 30";
    VCMP Avx Imm(63, 31), "vcmpps xmm0, xmm0, xmm1, 31";
    VCMP Avx Imm(63, 43), "vcmppd xmm0, xmm0, xmm1, 11";
    VCMP Avx Imm(63, 47), "vcmppd xmm0, xmm0, xmm1, 15";
    VCMP Avx Imm(63, 48), "vcmppd xmm0, xmm0, xmm1, 16";
    VCMP Avx Imm(63, 49), "vcmppd xmm0, xmm0, xmm1, 17";
    VCMP Avx Imm(63, 50), "vcmppd xmm0, xmm0, xmm1, 18";
    VCMP Avx Imm(63, 51), "vcmppd xmm0, xmm0, xmm1, 19";
    VCMP Avx Imm(63, 52), "vcmppd xmm0, xmm0, xmm1, 20";
    VCMP Avx Imm(63, 53), "vcmppd xmm0, xmm0, xmm1, 21";
    VCMP Avx Imm(63, 54), "vcmppd xmm0, xmm0, xmm1, 22";
    VCMP Avx Imm(63, 55), "vcmppd xmm0, xmm0, xmm1, 23";
    VCMP Avx Imm(63, 56), "vcmppd xmm0, xmm0, xmm1, 24";
    VCMP Avx Imm(63, 57), "vcmppd xmm0, xmm0, xmm1, 25";
    VCMP Avx Imm(63, 58), "vcmppd xmm0, xmm0, xmm1, 26";
    VCMP Avx Imm(63, 59), "vcmppd xmm0, xmm0, xmm1, 27";
    VCMP Avx Imm(63, 60), "vcmppd xmm0, xmm0, xmm1, 28";
    VCMP Avx Imm(63, 61), "vcmppd xmm0, xmm0, xmm1, 29";
    VCMP Avx Imm(63, 62), "vcmppd xmm0, xmm0, xmm1, 30";
    VCMP Avx Imm(63, 63), "vcmppd xmm0, xmm0, xmm1, 31";
    AESENC Aes Any, "aesenc xmm0, xmm1";
    AESENCLAST Aes Any, "aesenclast xmm0, xmm1";
    AESDEC Aes Any, "aesdec xmm0, xmm1";
    AESDECLAST Aes Any, "aesdeclast xmm0, xmm1";
    AESIMC Aes Any, "aesimc xmm0, xmm0";
    PCLMULQDQ Pclmul Imm(17, 0), "pclmulqdq xmm0, xmm1, 0";
    PCLMULQDQ Pclmul Imm(17, 1), "pclmulqdq xmm0, xmm1, 1";
    PCLMULQDQ Pclmul Imm(17, 16), "pclmulqdq xmm0, xmm1, 16";
    PCLMULQDQ Pclmul Imm(17, 17), "pclmulqdq xmm0, xmm1, 17";
    CRC32C Base Third(1), "mov eax, esi" "crc32 eax, dl";
    CRC32C Base Third(2), "mov eax, esi" "crc32 eax, dx";
    CRC32C Base Third(4), "mov eax, esi" "crc32 eax, edx";
    CRC32C Base Third(8), "mov eax, esi" "crc32 rax, rdx";
    PDEP Bmi2 Any, "pdep rax, rsi, rdx";
    PEXT Bmi2 Any, "pext rax, rsi, rdx";
}

fn all() -> impl Iterator<Item = &'static Leaf> {
    LEAVES.iter().chain(on_x87::leaves())
}

/// Code addresses, in the order of the tables.
pub(super) fn addresses() -> impl Iterator<Item = u64> {
    all().map(|l| l.code as usize as u64)
}

/// See [`evm_ir::FindLeaf`].
pub(super) fn find(helper: u16, ints: &[Option<u64>]) -> Option<u16> {
    /// By helper: the leaves that this host can run.
    static BY_HELPER: OnceLock<Vec<Vec<(u16, When)>>> = OnceLock::new();
    let by_helper = BY_HELPER.get_or_init(|| {
        let mut t = vec![vec![]; super::N];
        for (n, l) in all().enumerate().filter(|(_, l)| l.needs.met()) {
            t[usize::from(l.helper)].push((n as u16, l.when));
        }
        t
    });
    let (n, _) = by_helper.get(usize::from(helper))?.iter().find(|(_, when)| when.fits(ints))?;
    Some(super::N as u16 + n)
}
