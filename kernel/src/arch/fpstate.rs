//! The FXSAVE and XSAVE images of the FPU state, as signal frames hold them.

use evm_cpu::CpuState;

/// Bytes of an FXSAVE image.
pub const FXSAVE: usize = 512;
/// Bytes of an XSAVE image with x87, SSE and AVX (standard format).
pub const XSAVE_AVX: usize = FXSAVE + 64 + 256;
/// Bytes of an XSAVE image with x87 and SSE.
pub const XSAVE_SSE: usize = FXSAVE + 64;

fn put<const N: usize>(b: &mut [u8], at: usize, v: [u8; N]) {
    b[at..at + N].copy_from_slice(&v);
}
fn get<const N: usize>(b: &[u8], at: usize) -> [u8; N] {
    b.get(at..at + N)
        .and_then(|s| s.try_into().ok())
        .unwrap_or([0; N])
}

/// The image that FXSAVE64 stores.
pub fn fxsave(c: &CpuState) -> [u8; FXSAVE] {
    let mut b = [0u8; FXSAVE];
    put(&mut b, 0, c.fcw.to_le_bytes());
    put(&mut b, 2, c.fsw.to_le_bytes());
    b[4] = (0..8)
        .filter(|i| c.ftw >> (2 * i) & 3 != 3)
        .fold(0, |m, i| m | 1 << i);
    put(&mut b, 6, c.fop.to_le_bytes());
    put(&mut b, 8, c.fip.to_le_bytes());
    put(&mut b, 16, c.fdp.to_le_bytes());
    put(&mut b, 24, c.mxcsr.to_le_bytes());
    put(&mut b, 28, 0xffffu32.to_le_bytes());
    let top = usize::from(c.fsw >> 11 & 7);
    for i in 0..8 {
        let v = c.fpr[(top + i) & 7] & ((1 << 80) - 1);
        put(&mut b, 32 + 16 * i, v.to_le_bytes());
    }
    for (i, x) in c.xmm.iter().enumerate() {
        put(&mut b, 160 + 16 * i, x.to_le_bytes());
    }
    b
}

/// Load the image as FXRSTOR64 does; reserved bits of MXCSR are cleared rather than faulting.
pub fn fxrstor(c: &mut CpuState, b: &[u8; FXSAVE]) {
    c.fcw = u16::from_le_bytes(get(b, 0));
    c.fsw = u16::from_le_bytes(get(b, 2));
    c.fop = u16::from_le_bytes(get(b, 6));
    c.fip = u64::from_le_bytes(get(b, 8));
    c.fdp = u64::from_le_bytes(get(b, 16));
    c.mxcsr = u32::from_le_bytes(get(b, 24)) & 0xffff;
    let top = usize::from(c.fsw >> 11 & 7);
    for i in 0..8 {
        c.fpr[(top + i) & 7] = u128::from_le_bytes(get(b, 32 + 16 * i)) & ((1 << 80) - 1);
    }
    c.ftw = 0;
    for i in 0..8 {
        let tag = if b[4] >> i & 1 == 0 { 3 } else { tag(c.fpr[i]) };
        c.ftw |= tag << (2 * i);
    }
    for (i, x) in c.xmm.iter_mut().enumerate() {
        *x = u128::from_le_bytes(get(b, 160 + 16 * i));
    }
}

/// The full tag of a register that is not empty.
fn tag(v: u128) -> u16 {
    let (exp, frac) = ((v >> 64) as u16 & 0x7fff, v as u64);
    match exp {
        0 if frac == 0 => 1,
        0 | 0x7fff => 2,
        _ if frac >> 63 == 0 => 2,
        _ => 0,
    }
}

/// FPU state as after FNINIT, with zero vector registers.
pub fn init(c: &mut CpuState) {
    c.fcw = 0x37f;
    c.fsw = 0;
    c.ftw = 0xffff;
    c.fop = 0;
    c.fip = 0;
    c.fdp = 0;
    c.fpr = [0; 8];
    c.mxcsr = 0x1f80;
    c.xmm = [0; 16];
    c.ymm_hi = [0; 16];
}

const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// Bytes of the FPU part of a signal frame for a CPU with these XCR0 bits.
pub fn frame_size(xfeatures: u64) -> usize {
    match xfeatures {
        0 => FXSAVE,
        x if x & 4 != 0 => XSAVE_AVX + 4,
        _ => XSAVE_SSE + 4,
    }
}

/// The FPU part of a signal frame.
pub fn save_frame(c: &CpuState, xfeatures: u64) -> Vec<u8> {
    let mut b = vec![0u8; frame_size(xfeatures)];
    b[..FXSAVE].copy_from_slice(&fxsave(c));
    if xfeatures == 0 {
        return b;
    }
    let size = b.len() - 4;
    put(&mut b, 464, MAGIC1.to_le_bytes());
    put(&mut b, 468, (size as u32 + 4).to_le_bytes());
    put(&mut b, 472, xfeatures.to_le_bytes());
    put(&mut b, 480, (size as u32).to_le_bytes());
    put(&mut b, FXSAVE, xfeatures.to_le_bytes()); // XSTATE_BV
    if xfeatures & 4 != 0 {
        for (i, y) in c.ymm_hi.iter().enumerate() {
            put(&mut b, FXSAVE + 64 + 16 * i, y.to_le_bytes());
        }
    }
    put(&mut b, size, MAGIC2.to_le_bytes());
    b
}

/// Load the FPU part of a signal frame. `b` is as long as [`frame_size`] says; a frame without the magic words
/// has only the FXSAVE part.
pub fn load_frame(c: &mut CpuState, b: &[u8], xfeatures: u64) {
    let fx: [u8; FXSAVE] = get(b, 0);
    let size = frame_size(xfeatures).saturating_sub(4);
    let extended = xfeatures != 0
        && u32::from_le_bytes(get(b, 464)) == MAGIC1
        && u32::from_le_bytes(get(b, 480)) as usize == size
        && u32::from_le_bytes(get(b, size)) == MAGIC2;
    if !extended {
        fxrstor(c, &fx);
        c.ymm_hi = [0; 16];
        return;
    }
    let bv = u64::from_le_bytes(get(b, FXSAVE)) & u64::from_le_bytes(get(b, 472));
    let mut fresh = CpuState::default();
    fxrstor(&mut fresh, &fx);
    let mxcsr = fresh.mxcsr;
    if bv & 1 != 0 {
        (c.fcw, c.fsw, c.ftw, c.fop) = (fresh.fcw, fresh.fsw, fresh.ftw, fresh.fop);
        (c.fip, c.fdp, c.fpr) = (fresh.fip, fresh.fdp, fresh.fpr);
    } else {
        (c.fcw, c.fsw, c.ftw, c.fop, c.fip, c.fdp, c.fpr) = (0x37f, 0, 0xffff, 0, 0, 0, [0; 8]);
    }
    c.xmm = if bv & 2 != 0 { fresh.xmm } else { [0; 16] };
    c.mxcsr = if bv & 6 != 0 { mxcsr } else { 0x1f80 };
    c.ymm_hi = [0; 16];
    if xfeatures & 4 != 0 && bv & 4 != 0 {
        for (i, y) in c.ymm_hi.iter_mut().enumerate() {
            *y = u128::from_le_bytes(get(b, FXSAVE + 64 + 16 * i));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let mut c = CpuState {
            fsw: 5 << 11,
            fcw: 0x27f,
            ftw: 0x3fff,
            mxcsr: 0x1fa0,
            ..CpuState::default()
        };
        c.fpr[7] = 0x3fff << 64 | 1 << 63;
        for i in 0..16 {
            c.xmm[i] = i as u128 * 77;
            c.ymm_hi[i] = i as u128 * 99;
        }
        for x in [0, 3, 7] {
            let b = save_frame(&c, x);
            assert_eq!(b.len(), frame_size(x));
            let mut d = CpuState::default();
            load_frame(&mut d, &b, x);
            assert_eq!(
                (d.fcw, d.fsw, d.ftw, d.mxcsr),
                (c.fcw, c.fsw, c.ftw, c.mxcsr)
            );
            assert_eq!((d.fpr, d.xmm), (c.fpr, c.xmm));
            assert_eq!(d.ymm_hi == c.ymm_hi, x == 7);
        }
    }
}
