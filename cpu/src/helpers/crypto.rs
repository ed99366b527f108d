//! AES, carry-less multiplication, SHA and CRC32: the host's instructions where it has them, else software.
//!
//! # Safety
//! Functions with `#[target_feature]` are called after `is_x86_feature_detected!` said yes; lane
//! `transmute`s are in [`super::sse::Lanes`].
#![allow(unsafe_code)]

use super::sse::Lanes;
use evm_ir::Vector as __m128i;
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

type S = *mut u8;

helpers! { super::x87::BASE + super::x87::FNS.len();
    AESENC "aesenc" I0V2_V(aesenc) Pure false;
    AESENCLAST "aesenclast" I0V2_V(aesenclast) Pure false;
    AESDEC "aesdec" I0V2_V(aesdec) Pure false;
    AESDECLAST "aesdeclast" I0V2_V(aesdeclast) Pure false;
    SHA1NEXTE "sha1nexte" I0V2_V(sha1nexte) Pure false;
    SHA1MSG1 "sha1msg1" I0V2_V(sha1msg1) Pure false;
    SHA1MSG2 "sha1msg2" I0V2_V(sha1msg2) Pure false;
    SHA256MSG1 "sha256msg1" I0V2_V(sha256msg1) Pure false;
    SHA256MSG2 "sha256msg2" I0V2_V(sha256msg2) Pure false;
    AESIMC "aesimc" I0V1_V(aesimc) Pure false;
    SHA256RNDS2 "sha256rnds2" I0V3_V(sha256rnds2) Pure false;
    AESKEYGENASSIST "aeskeygenassist" I1V1_V(aeskeygenassist) Pure false;
    PCLMULQDQ "pclmulqdq" I1V2_V(pclmulqdq) Pure false;
    SHA1RNDS4 "sha1rnds4" I1V2_V(sha1rnds4) Pure false;
}

/// Product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1.
const fn gmul(a: u8, b: u8) -> u8 {
    let (mut a, mut b, mut r) = (a, b, 0);
    while b != 0 {
        if b & 1 != 0 {
            r ^= a;
        }
        a = (a << 1) ^ if a & 0x80 != 0 { 0x1b } else { 0 };
        b >>= 1;
    }
    r
}
const fn sbox() -> [u8; 256] {
    let mut t = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        // The inverse is the 254th power.
        let (mut inv, mut k) = (1u8, 0);
        while k < 254 {
            inv = gmul(inv, i as u8);
            k += 1;
        }
        if i == 0 {
            inv = 0;
        }
        t[i] = inv ^ inv.rotate_left(1) ^ inv.rotate_left(2) ^ inv.rotate_left(3) ^ inv.rotate_left(4) ^ 0x63;
        i += 1;
    }
    t
}
const fn inverse(t: &[u8; 256]) -> [u8; 256] {
    let mut r = [0u8; 256];
    let mut i = 0;
    while i < 256 {
        r[t[i] as usize] = i as u8;
        i += 1;
    }
    r
}
static SBOX: [u8; 256] = sbox();
static INV_SBOX: [u8; 256] = inverse(&sbox());

/// SubBytes and ShiftRows (`step` 5), or their inverses (`step` 13).
fn sub_shift(a: [u8; 16], table: &[u8; 256], step: usize) -> [u8; 16] {
    let mut r = [0; 16];
    for (i, x) in r.iter_mut().enumerate() {
        // Byte i is row i % 4 of column i / 4.
        let col = (i / 4 + (step / 4) * (i % 4)) % 4;
        *x = table[usize::from(a[4 * col + i % 4])];
    }
    r
}
fn mix(a: [u8; 16], m: [u8; 4]) -> [u8; 16] {
    let mut r = [0; 16];
    for (i, x) in r.iter_mut().enumerate() {
        for k in 0..4 {
            *x ^= gmul(a[i / 4 * 4 + k], m[(k + 4 - i % 4) % 4]);
        }
    }
    r
}
fn xor(a: [u8; 16], k: __m128i) -> __m128i {
    (u128::from_le_bytes(a) ^ u128::of(k)).reg()
}
const MIX: [u8; 4] = [2, 3, 1, 1];
const INV_MIX: [u8; 4] = [14, 11, 13, 9];

mod soft {
    use super::*;
    pub fn aesenc(a: __m128i, k: __m128i) -> __m128i {
        xor(mix(sub_shift(Lanes::of(a), &SBOX, 5), MIX), k)
    }
    pub fn aesenclast(a: __m128i, k: __m128i) -> __m128i {
        xor(sub_shift(Lanes::of(a), &SBOX, 5), k)
    }
    pub fn aesdec(a: __m128i, k: __m128i) -> __m128i {
        xor(mix(sub_shift(Lanes::of(a), &INV_SBOX, 13), INV_MIX), k)
    }
    pub fn aesdeclast(a: __m128i, k: __m128i) -> __m128i {
        xor(sub_shift(Lanes::of(a), &INV_SBOX, 13), k)
    }
    pub fn aesimc(a: __m128i) -> __m128i {
        mix(Lanes::of(a), INV_MIX).reg()
    }
    pub fn pclmul(a: u64, b: u64) -> u128 {
        (0..64).filter(|i| b >> i & 1 != 0).fold(0, |r, i| r ^ u128::from(a) << i)
    }
    pub fn sha1rnds4(imm: u64, a: __m128i, b: __m128i) -> __m128i {
        let ([mut d, mut c, mut bb, mut aa], w) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        let k = [0x5a82_7999u32, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6][imm as usize & 3];
        let mut e = 0u32;
        for i in 0..4 {
            let f = match imm & 3 {
                0 => (bb & c) ^ (!bb & d),
                2 => (bb & c) ^ (bb & d) ^ (c & d),
                _ => bb ^ c ^ d,
            };
            let t = f.wrapping_add(aa.rotate_left(5)).wrapping_add(w[3 - i]).wrapping_add(e).wrapping_add(k);
            (e, d, c, bb, aa) = (d, c, bb.rotate_left(30), aa, t);
        }
        [d, c, bb, aa].reg()
    }
    pub fn sha1nexte(a: __m128i, b: __m128i) -> __m128i {
        let (a, mut b) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        b[3] = b[3].wrapping_add(a[3].rotate_left(30));
        b.reg()
    }
    pub fn sha1msg1(a: __m128i, b: __m128i) -> __m128i {
        let (a, b) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        [a[0] ^ b[2], a[1] ^ b[3], a[2] ^ a[0], a[3] ^ a[1]].reg()
    }
    pub fn sha1msg2(a: __m128i, b: __m128i) -> __m128i {
        let (a, b) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        let w16 = (a[3] ^ b[2]).rotate_left(1);
        let w17 = (a[2] ^ b[1]).rotate_left(1);
        let w18 = (a[1] ^ b[0]).rotate_left(1);
        let w19 = (a[0] ^ w16).rotate_left(1);
        [w19, w18, w17, w16].reg()
    }
    pub fn sha256rnds2(a: __m128i, b: __m128i, wk: __m128i) -> __m128i {
        // a = C D G H, b = A B E F (high to low).
        let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut bb, mut aa]) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        let wk = <[u32; 4]>::of(wk);
        for w in &wk[..2] {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let ch = (e & f) ^ (!e & g);
            let t = h.wrapping_add(s1).wrapping_add(ch).wrapping_add(*w);
            let s0 = aa.rotate_right(2) ^ aa.rotate_right(13) ^ aa.rotate_right(22);
            let maj = (aa & bb) ^ (aa & c) ^ (bb & c);
            (h, g, f, e) = (g, f, e, d.wrapping_add(t));
            (d, c, bb, aa) = (c, bb, aa, t.wrapping_add(s0).wrapping_add(maj));
        }
        [f, e, bb, aa].reg()
    }
    fn sig0(x: u32) -> u32 {
        x.rotate_right(7) ^ x.rotate_right(18) ^ (x >> 3)
    }
    fn sig1(x: u32) -> u32 {
        x.rotate_right(17) ^ x.rotate_right(19) ^ (x >> 10)
    }
    pub fn sha256msg1(a: __m128i, b: __m128i) -> __m128i {
        let (a, b) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        let w = [a[0], a[1], a[2], a[3], b[0]];
        let r: [u32; 4] = std::array::from_fn(|i| w[i].wrapping_add(sig0(w[i + 1])));
        r.reg()
    }
    pub fn sha256msg2(a: __m128i, b: __m128i) -> __m128i {
        let (a, b) = (<[u32; 4]>::of(a), <[u32; 4]>::of(b));
        let w16 = a[0].wrapping_add(sig1(b[2]));
        let w17 = a[1].wrapping_add(sig1(b[3]));
        let w18 = a[2].wrapping_add(sig1(w16));
        let w19 = a[3].wrapping_add(sig1(w17));
        [w16, w17, w18, w19].reg()
    }
}

/// Helpers with a host form (`$feat`, `$host`) and a software form.
macro_rules! accelerated {
    ($( #[doc = $doc:literal] $name:ident($($p:ident),*) $feat:tt $host:ident; )*) => { $(
        #[doc = $doc]
        pub(crate) extern "C" fn $name(_: S, $($p: __m128i),*) -> __m128i {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = $feat)]
                fn host($($p: __m128i),*) -> __m128i {
                    $host($($p),*)
                }
                if std::is_x86_feature_detected!($feat) {
                    // SAFETY: the feature was detected.
                    return unsafe { host($($p),*) };
                }
            }
            soft::$name($($p),*)
        }
    )* };
}
accelerated! {
    /// AESENC.
    aesenc(a, k) "aes" _mm_aesenc_si128;
    /// AESENCLAST.
    aesenclast(a, k) "aes" _mm_aesenclast_si128;
    /// AESDEC.
    aesdec(a, k) "aes" _mm_aesdec_si128;
    /// AESDECLAST.
    aesdeclast(a, k) "aes" _mm_aesdeclast_si128;
    /// AESIMC.
    aesimc(a) "aes" _mm_aesimc_si128;
    /// SHA1NEXTE.
    sha1nexte(a, b) "sha" _mm_sha1nexte_epu32;
    /// SHA1MSG1.
    sha1msg1(a, b) "sha" _mm_sha1msg1_epu32;
    /// SHA1MSG2.
    sha1msg2(a, b) "sha" _mm_sha1msg2_epu32;
    /// SHA256RNDS2; the third operand is XMM0.
    sha256rnds2(a, b, wk) "sha" _mm_sha256rnds2_epu32;
    /// SHA256MSG1.
    sha256msg1(a, b) "sha" _mm_sha256msg1_epu32;
    /// SHA256MSG2.
    sha256msg2(a, b) "sha" _mm_sha256msg2_epu32;
}

/// AESKEYGENASSIST.
pub(crate) extern "C" fn aeskeygenassist(_: S, imm: u64, a: __m128i) -> __m128i {
    let a = <[u32; 4]>::of(a);
    let sub = |x: u32| u32::from_le_bytes(x.to_le_bytes().map(|b| SBOX[usize::from(b)]));
    let rot = |x: u32| sub(x).rotate_right(8) ^ (imm as u32 & 255);
    [sub(a[1]), rot(a[1]), sub(a[3]), rot(a[3])].reg()
}

/// PCLMULQDQ: bits 0 and 4 of `imm` choose the halves.
pub(crate) extern "C" fn pclmulqdq(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    let x = <[u64; 2]>::of(a)[imm as usize & 1];
    let y = <[u64; 2]>::of(b)[imm as usize >> 4 & 1];
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "pclmulqdq")]
        fn host(a: __m128i, b: __m128i) -> __m128i {
            _mm_clmulepi64_si128::<0>(a, b)
        }
        if std::is_x86_feature_detected!("pclmulqdq") {
            // SAFETY: the feature was detected.
            return unsafe { host(u128::from(x).reg(), u128::from(y).reg()) };
        }
    }
    soft::pclmul(x, y).reg()
}

/// SHA1RNDS4.
pub(crate) extern "C" fn sha1rnds4(_: S, imm: u64, a: __m128i, b: __m128i) -> __m128i {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "sha")]
        fn host(imm: u64, a: __m128i, b: __m128i) -> __m128i {
            match imm & 3 {
                0 => _mm_sha1rnds4_epu32::<0>(a, b),
                1 => _mm_sha1rnds4_epu32::<1>(a, b),
                2 => _mm_sha1rnds4_epu32::<2>(a, b),
                _ => _mm_sha1rnds4_epu32::<3>(a, b),
            }
        }
        if std::is_x86_feature_detected!("sha") {
            // SAFETY: the feature was detected.
            return unsafe { host(imm, a, b) };
        }
    }
    soft::sha1rnds4(imm, a, b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helpers::testing::Rng;

    #[test]
    fn software_forms_match_the_hardware() {
        let s = std::ptr::null_mut();
        let mut rng = Rng(7);
        for _ in 0..300 {
            let (a, b, c) = (rng.vec().reg(), rng.vec().reg(), rng.vec().reg());
            macro_rules! same { ($($f:ident($($p:expr),*))*) => { $(
                assert_eq!(u128::of($f(s, $($p),*)), u128::of(soft::$f($($p),*)), stringify!($f));
            )* } }
            same! {
                aesenc(a, b) aesenclast(a, b) aesdec(a, b) aesdeclast(a, b) aesimc(a)
                sha1nexte(a, b) sha1msg1(a, b) sha1msg2(a, b) sha256rnds2(a, b, c) sha256msg1(a, b) sha256msg2(a, b)
                sha1rnds4(0, a, b) sha1rnds4(1, a, b) sha1rnds4(2, a, b) sha1rnds4(3, a, b)
            }
            let (x, y) = (u128::of(a) as u64, u128::of(b) as u64);
            assert_eq!(u128::of(pclmulqdq(s, 0, a, b)), soft::pclmul(x, y));
            if std::is_x86_feature_detected!("aes") {
                #[target_feature(enable = "aes")]
                fn host(a: __m128i) -> __m128i {
                    _mm_aeskeygenassist_si128::<0x5b>(a)
                }
                // SAFETY: the feature was detected.
                let want = unsafe { host(a) };
                assert_eq!(u128::of(aeskeygenassist(s, 0x5b, a)), u128::of(want));
            }
        }
    }
}
