//! Images of the floating-point state: the 512-byte FXSAVE area, and the XSAVE area that extends it. Used
//! by the instructions and by signal frames.
//!
//! ```text
//!   0  x87: control, status, abridged tags, opcode, pointers; 24 MXCSR; 32 ST0-7; 160 XMM0-15
//! 512  XSTATE_BV, XCOMP_BV, zero
//! 576  upper halves of YMM0-15 (also in compacted form, being the only extended component)
//! ```

use crate::CpuState;

/// Size of the legacy (FXSAVE) area.
pub const LEGACY: usize = 512;
/// Where the upper halves of YMM are.
pub const AVX_OFFSET: usize = 576;
/// Size of the area for [`XCR0`].
pub const SIZE: usize = AVX_OFFSET + 256;
/// What XGETBV gives: x87, SSE, AVX.
pub const XCR0: u64 = Component::X87 | Component::SSE | Component::AVX;
/// Bits of MXCSR that may be set.
pub const MXCSR_MASK: u32 = 0xffff;

/// Bits of XCR0 and XSTATE_BV.
#[allow(non_snake_case)]
pub mod Component {
    /// x87 state.
    pub const X87: u64 = 1;
    /// XMM registers and MXCSR.
    pub const SSE: u64 = 2;
    /// Upper halves of YMM.
    pub const AVX: u64 = 4;
}

/// The little-endian quadword at `at`.
pub fn word(image: &[u8], at: usize) -> u64 {
    image.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or([0; 8])))
}

fn put(image: &mut [u8], at: usize, bytes: &[u8]) {
    image[at..][..bytes.len()].copy_from_slice(bytes);
}
fn vector(image: &[u8], at: usize, len: usize) -> u128 {
    let mut v = [0; 16];
    v[..len].copy_from_slice(&image[at..][..len]);
    u128::from_le_bytes(v)
}

/// x87 part: bytes 0-23 and 32-159. Pointers have 64 bits if `wide` (FXSAVE64, XSAVE64), else 32 and a selector, which is 0.
pub fn put_x87(s: &CpuState, image: &mut [u8], wide: bool) {
    let mask = if wide { u64::MAX } else { u64::from(u32::MAX) };
    put(image, 0, &s.fcw.to_le_bytes());
    put(image, 2, &s.fsw.to_le_bytes());
    let mut tags = 0u8;
    for p in 0..8 {
        tags |= u8::from(s.ftw >> (2 * p) & 3 != 3) << p;
    }
    put(image, 4, &[tags, 0]);
    put(image, 6, &s.fop.to_le_bytes());
    put(image, 8, &(s.fip & mask).to_le_bytes());
    put(image, 16, &(s.fdp & mask).to_le_bytes());
    let top = usize::from(s.fsw >> 11 & 7);
    for i in 0..8 {
        let v = s.fpr[(top + i) & 7] & ((1 << 80) - 1);
        put(image, 32 + 16 * i, &v.to_le_bytes());
    }
}
/// Read what [`put_x87`] writes.
pub fn get_x87(s: &mut CpuState, image: &[u8], wide: bool) {
    let mask = if wide { u64::MAX } else { u64::from(u32::MAX) };
    let half = |k: usize| u16::from_le_bytes([image[k], image[k + 1]]);
    s.fsw = half(2);
    s.fop = half(6) & 0x7ff;
    s.fip = word(image, 8) & mask;
    s.fdp = word(image, 16) & mask;
    s.ftw = 0;
    for p in 0..8 {
        if image[4] >> p & 1 == 0 {
            s.ftw |= 3 << (2 * p);
        }
    }
    s.set_fcw(half(0));
    let top = usize::from(s.fsw >> 11 & 7);
    for i in 0..8 {
        s.fpr[(top + i) & 7] = vector(image, 32 + 16 * i, 10);
    }
}
/// MXCSR and its mask: bytes 24-31.
pub fn put_mxcsr(s: &CpuState, image: &mut [u8]) {
    put(image, 24, &s.mxcsr.to_le_bytes());
    put(image, 28, &MXCSR_MASK.to_le_bytes());
}
/// Whether the image's MXCSR has no reserved bit set.
pub fn mxcsr_ok(image: &[u8]) -> bool {
    word(image, 24) as u32 & !MXCSR_MASK == 0
}
/// Take MXCSR from the image (into the state only; the live one is the host's register).
pub fn get_mxcsr(s: &mut CpuState, image: &[u8]) {
    s.mxcsr = word(image, 24) as u32 & MXCSR_MASK;
    s.loaded_mxcsr();
}
/// XMM registers, as many as the mode has: bytes 160-415.
pub fn put_sse(s: &CpuState, image: &mut [u8]) {
    let n = s.vectors();
    for (i, v) in s.xmm.iter().enumerate().take(n) {
        put(image, 160 + 16 * i, &v.to_le_bytes());
    }
}
/// Read what [`put_sse`] writes.
pub fn get_sse(s: &mut CpuState, image: &[u8]) {
    let n = s.vectors();
    for (i, v) in s.xmm.iter_mut().enumerate().take(n) {
        *v = vector(image, 160 + 16 * i, 16);
    }
}
/// Upper halves of YMM: 256 bytes.
pub fn put_avx(s: &CpuState, part: &mut [u8]) {
    let n = s.vectors();
    for (i, v) in s.ymm_hi.iter().enumerate().take(n) {
        put(part, 16 * i, &v.to_le_bytes());
    }
}
/// Read what [`put_avx`] writes.
pub fn get_avx(s: &mut CpuState, part: &[u8]) {
    let n = s.vectors();
    for (i, v) in s.ymm_hi.iter_mut().enumerate().take(n) {
        *v = vector(part, 16 * i, 16);
    }
}
/// Components that are not in their initial state.
pub fn in_use(s: &CpuState) -> u64 {
    let x87 = s.fcw != 0x37f
        || s.fsw != 0
        || s.ftw != 0xffff
        || s.fop != 0
        || s.fip != 0
        || s.fdp != 0
        || s.fpr.iter().any(|v| *v != 0);
    let sse = s.xmm.iter().any(|v| *v != 0) || s.mxcsr != 0x1f80;
    let avx = s.ymm_hi.iter().any(|v| *v != 0);
    u64::from(x87) | u64::from(sse) << 1 | u64::from(avx) << 2
}

impl CpuState {
    /// The whole state in the standard form, as a signal frame holds it. `mxcsr` must be current.
    pub fn xsave_image(&self) -> [u8; SIZE] {
        let mut image = [0; SIZE];
        put_x87(self, &mut image, true);
        put_mxcsr(self, &mut image);
        put_sse(self, &mut image);
        put_avx(self, &mut image[AVX_OFFSET..]);
        put(&mut image, LEGACY, &XCR0.to_le_bytes());
        image
    }
    /// Restore from a signal frame's image: the legacy area, and what follows if there is any (a shorter image
    /// leaves YMM's upper halves zero). Reserved bits of MXCSR are dropped.
    pub fn set_xsave_image(&mut self, image: &[u8]) {
        if image.len() < LEGACY {
            return;
        }
        let bv = if image.len() >= AVX_OFFSET { word(image, LEGACY) } else { Component::X87 | Component::SSE };
        if bv & Component::X87 != 0 {
            get_x87(self, image, true);
        } else {
            self.x87_reset();
        }
        get_mxcsr(self, image);
        if bv & Component::SSE != 0 {
            get_sse(self, image);
        } else {
            self.xmm = [0; 16];
        }
        if bv & Component::AVX != 0 && image.len() >= SIZE {
            get_avx(self, &image[AVX_OFFSET..]);
        } else {
            self.ymm_hi = [0; 16];
        }
    }
}
