//! Save and restore of the floating-point state in guest memory: FXSAVE, XSAVE and the x87
//! environment. The images are made by [`crate::xsave`]; here are the memory accesses and faults.
//!
//! # Safety
//! See the parent module. MXCSR is live in the host's register, which is read and set by `sse`.
#![allow(unsafe_code)]

use super::sse::{Lanes, guest_mxcsr, set_host_mxcsr};
use super::state;
use crate::xsave::{self, Component};
use crate::{CpuState, exc};
use evm_ir::Vector as __m128i;
use evm_memory::Fault;

type S = *mut u8;

helpers! { super::crypto::BASE + super::crypto::FNS.len();
    FXSAVE "fxsave" I2(fxsave) All true;
    FXRSTOR "fxrstor" I2(fxrstor) All true;
    XSAVE "xsave" I3(xsave_) All true;
    XSAVEC "xsavec" I3(xsavec) All true;
    XRSTOR "xrstor" I3(xrstor) All true;
    FNSAVE "fnsave" I2(fnsave) All true;
    FRSTOR "frstor" I2(frstor) All true;
    FNSTENV "fnstenv" I2(fnstenv) All true;
    FLDENV "fldenv" I2(fldenv) All true;
    MASKMOV "maskmov" I2V2(maskmov) All true;
    MASK_LOAD "mask_load" I2V1_V(mask_load) All true;
    MASK_STORE "mask_store" I2V2(mask_store) All true;
    MASK_PROBE "mask_probe" I2(mask_probe) All true;
    GATHER "gather" I2V3_V(gather) All true;
}

/// Copy an image to the guest, whole, or raise.
fn write(s: &mut CpuState, addr: u64, image: &[u8]) -> bool {
    let m = s.mem();
    match m.whole(addr, image.len() as u64).and_then(|()| m.copy_in(addr, image)) {
        Ok(()) => true,
        Err(f) => {
            s.raise_fault(f);
            false
        }
    }
}
/// Copy an image from the guest, or raise.
fn read<const N: usize>(s: &mut CpuState, addr: u64) -> Option<[u8; N]> {
    let mut image = [0; N];
    match s.mem().copy_out(addr, &mut image) {
        Ok(()) => Some(image),
        Err(f) => {
            s.raise_fault(f);
            None
        }
    }
}

/// Whether the area of FXSAVE and FXRSTOR is aligned, or else raise. That an address is not canonical counts for more: if it is
/// in the stack segment that is #SS.
fn aligned(s: &mut CpuState, addr: u64, write: bool) -> bool {
    if addr & 15 == 0 {
        return true;
    }
    if matches!(addr as i64 >> 47, 0 | -1) {
        s.raise(exc::GP, 0);
    } else {
        s.raise_fault(Fault { addr, write });
    }
    false
}

/// FXSAVE, FXSAVE64.
extern "C" fn fxsave(st: S, addr: u64, wide: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    if !aligned(s, addr, true) {
        return;
    }
    s.x87_settle();
    s.mxcsr = guest_mxcsr(s);
    let mut image = [0; xsave::LEGACY];
    xsave::put_x87(s, &mut image, wide != 0);
    xsave::put_mxcsr(s, &mut image);
    xsave::put_sse(s, &mut image);
    // The CPU asks for the end first.
    if let Err(f) = s.mem().fetch_or(addr.wrapping_add(xsave::LEGACY as u64 - 1), 1, 0) {
        return s.raise_fault(f);
    }
    // Bytes 416-511 are left alone, as are those of registers that the mode does not have.
    write(s, addr, &image[..160 + 16 * s.vectors()]);
}

/// FXRSTOR, FXRSTOR64.
extern "C" fn fxrstor(st: S, addr: u64, wide: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    if !aligned(s, addr, false) {
        return;
    }
    s.x87_settle();
    let Some(image) = read::<{ xsave::LEGACY }>(s, addr) else {
        return;
    };
    if !xsave::mxcsr_ok(&image) {
        return s.raise(exc::GP, 0);
    }
    xsave::get_x87(s, &image, wide != 0);
    s.settle_flags();
    xsave::get_mxcsr(s, &image);
    xsave::get_sse(s, &image);
    set_host_mxcsr(s.mxcsr);
}

/// The components asked for of those that the model has: #UD if it has none, #GP if the area is not aligned.
fn asked(s: &mut CpuState, addr: u64, mask: u64) -> Option<u64> {
    let xcr0 = crate::model::xcr0(s.model) & xsave::XCR0;
    if xcr0 == 0 {
        s.raise(exc::UD, 0);
        return None;
    }
    if addr & 63 != 0 {
        s.raise(exc::GP, 0);
        return None;
    }
    Some(mask & xcr0)
}

/// XSAVE, XSAVEOPT: the standard form. Components not asked for are left alone in memory.
extern "C" fn xsave_(st: S, addr: u64, mask: u64, wide: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    let Some(asked) = asked(s, addr, mask) else {
        return;
    };
    s.mxcsr = guest_mxcsr(s);
    let Some(mut image) = read::<{ xsave::SIZE }>(s, addr) else {
        return;
    };
    if asked & Component::X87 != 0 {
        xsave::put_x87(s, &mut image, wide != 0);
    }
    if asked & (Component::SSE | Component::AVX) != 0 {
        xsave::put_mxcsr(s, &mut image);
    }
    if asked & Component::SSE != 0 {
        xsave::put_sse(s, &mut image);
    }
    if asked & Component::AVX != 0 {
        xsave::put_avx(s, &mut image[xsave::AVX_OFFSET..]);
    }
    let old = xsave::word(&image, xsave::LEGACY);
    let bv = old & !asked | xsave::in_use(s) & asked;
    image[xsave::LEGACY..][..8].copy_from_slice(&bv.to_le_bytes());
    // Parts that were not asked for are not written.
    let ok = write(s, addr + xsave::LEGACY as u64, &image[xsave::LEGACY..][..8]);
    if ok && asked & Component::X87 != 0 {
        write(s, addr, &image[..24]);
        write(s, addr + 32, &image[32..160]);
    }
    if ok && asked & (Component::SSE | Component::AVX) != 0 {
        write(s, addr + 24, &image[24..32]);
    }
    if ok && asked & Component::SSE != 0 {
        write(s, addr + 160, &image[160..160 + 16 * s.vectors()]);
    }
    if ok && asked & Component::AVX != 0 {
        write(s, addr + xsave::AVX_OFFSET as u64, &image[xsave::AVX_OFFSET..][..16 * s.vectors()]);
    }
}

/// XSAVEC: the compacted form; components in their initial state are not written.
extern "C" fn xsavec(st: S, addr: u64, mask: u64, wide: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    let Some(asked) = asked(s, addr, mask) else {
        return;
    };
    s.mxcsr = guest_mxcsr(s);
    let bv = asked & xsave::in_use(s);
    let mut image = [0; xsave::SIZE];
    image[xsave::LEGACY..][..8].copy_from_slice(&bv.to_le_bytes());
    let comp = asked | 1 << 63;
    image[xsave::LEGACY + 8..][..8].copy_from_slice(&comp.to_le_bytes());
    if !write(s, addr + xsave::LEGACY as u64, &image[xsave::LEGACY..][..64]) {
        return;
    }
    xsave::put_x87(s, &mut image, wide != 0);
    xsave::put_mxcsr(s, &mut image);
    xsave::put_sse(s, &mut image);
    xsave::put_avx(s, &mut image[xsave::AVX_OFFSET..]);
    let vectors = 16 * s.vectors();
    let mut part = |on: bool, from: usize, to: usize| {
        if on && s.pending == 0 {
            write(s, addr + from as u64, &image[from..to]);
        }
    };
    part(bv & Component::X87 != 0, 0, 24);
    part(bv & Component::X87 != 0, 32, 160);
    part(bv & (Component::SSE | Component::AVX) != 0, 24, 32);
    part(bv & Component::SSE != 0, 160, 160 + vectors);
    // AVX is the only extended component, so its compacted place is its standard one.
    part(bv & Component::AVX != 0, xsave::AVX_OFFSET, xsave::AVX_OFFSET + vectors);
}

/// XRSTOR, of both forms.
extern "C" fn xrstor(st: S, addr: u64, mask: u64, wide: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    let Some(asked) = asked(s, addr, mask) else {
        return;
    };
    let Some(head) = read::<576>(s, addr) else {
        return;
    };
    let (bv, comp) = (xsave::word(&head, 512), xsave::word(&head, 520));
    let compact = comp >> 63 != 0;
    let form = comp & !(1 << 63);
    // The standard form looks at bytes 8 to 23 of the header, the compacted one at all.
    let zero = |words: usize| (0..words).all(|k| xsave::word(&head, 528 + 8 * k) == 0);
    let bad = if compact {
        form & !xsave::XCR0 != 0 || bv & !form != 0 || !zero(6)
    } else {
        comp != 0 || bv & !xsave::XCR0 != 0 || !zero(1)
    };
    let loads_mxcsr =
        if compact { bv & asked & Component::SSE != 0 } else { asked & (Component::SSE | Component::AVX) != 0 };
    if bad || (loads_mxcsr && !xsave::mxcsr_ok(&head)) {
        return s.raise(exc::GP, 0);
    }
    let avx = if asked & bv & Component::AVX != 0 {
        let Some(avx) = read::<256>(s, addr + xsave::AVX_OFFSET as u64) else {
            return;
        };
        avx
    } else {
        [0; 256]
    };
    if asked & Component::X87 != 0 {
        if bv & Component::X87 != 0 {
            xsave::get_x87(s, &head, wide != 0);
        } else {
            s.x87_reset();
            s.fpr = [0; 8];
        }
    }
    if asked & Component::SSE != 0 {
        if bv & Component::SSE != 0 {
            xsave::get_sse(s, &head);
        } else {
            s.xmm = [0; 16];
        }
    }
    if asked & Component::AVX != 0 {
        xsave::get_avx(s, &avx);
    }
    if loads_mxcsr {
        s.settle_flags();
        xsave::get_mxcsr(s, &head);
        set_host_mxcsr(s.mxcsr);
    } else if compact && asked & Component::SSE != 0 {
        s.mxcsr = 0x1f80;
        set_host_mxcsr(s.mxcsr);
    }
}

/// The 28-byte (or 14-byte) environment.
fn environment(s: &CpuState, short: bool) -> ([u8; 28], usize) {
    let mut e = [0xffu8; 28];
    let tags = s.full_tags();
    if short {
        // The selectors are 0.
        let words = [s.fcw, s.fsw, tags, s.fip as u16, 0, s.fdp as u16, 0];
        for (k, w) in words.iter().enumerate() {
            e[2 * k..][..2].copy_from_slice(&w.to_le_bytes());
        }
        return (e, 14);
    }
    let words = [
        0xffff_0000 | u32::from(s.fcw),
        0xffff_0000 | u32::from(s.fsw),
        0xffff_0000 | u32::from(tags),
        s.fip as u32,
        u32::from(s.fop & 0x7ff) << 16,
        s.fdp as u32,
        0xffff_0000,
    ];
    for (k, w) in words.iter().enumerate() {
        e[4 * k..][..4].copy_from_slice(&w.to_le_bytes());
    }
    (e, 28)
}
fn set_environment(s: &mut CpuState, e: &[u8], short: bool) {
    let half = |k: usize| u16::from_le_bytes([e[k], e[k + 1]]);
    let step = if short { 2 } else { 4 };
    let (cw, sw, tw) = (half(0), half(step), half(2 * step));
    if short {
        (s.fop, s.fip, s.fdp) = (0, u64::from(half(6)), u64::from(half(10)));
    } else {
        s.fip = u64::from(half(12)) | u64::from(half(14)) << 16;
        s.fop = half(18) & 0x7ff;
        s.fdp = u64::from(half(20)) | u64::from(half(22)) << 16;
    }
    s.fsw = sw;
    s.set_tags(tw);
    s.set_fcw(cw);
}

/// FNSTENV: stores the environment, then masks all exceptions.
extern "C" fn fnstenv(st: S, addr: u64, short: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    let (e, n) = environment(s, short != 0);
    if write(s, addr, &e[..n]) {
        s.set_fcw(s.fcw | 0x3f);
    }
}

/// FLDENV.
extern "C" fn fldenv(st: S, addr: u64, short: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    if s.fsw & 0x80 != 0 {
        return s.raise(exc::MF, 0);
    }
    let e = if short != 0 { read::<14>(s, addr).map(|e| e.to_vec()) } else { read::<28>(s, addr).map(|e| e.to_vec()) };
    if let Some(e) = e {
        set_environment(s, &e, short != 0);
    }
}

/// FNSAVE: environment and registers in stack order, then FNINIT.
extern "C" fn fnsave(st: S, addr: u64, short: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    let (e, n) = environment(s, short != 0);
    let mut image = e[..n].to_vec();
    let top = usize::from(s.fsw >> 11 & 7);
    for i in 0..8 {
        image.extend_from_slice(&s.fpr[(top + i) & 7].to_le_bytes()[..10]);
    }
    if write(s, addr, &image) {
        s.x87_reset();
    }
}

/// FRSTOR.
extern "C" fn frstor(st: S, addr: u64, short: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    s.x87_settle();
    if s.fsw & 0x80 != 0 {
        return s.raise(exc::MF, 0);
    }
    let n = if short != 0 { 14 } else { 28 };
    let Some(e) = read::<28>(s, addr) else { return };
    let Some(regs) = read::<80>(s, addr + n) else {
        return;
    };
    set_environment(s, &e, short != 0);
    let top = usize::from(s.fsw >> 11 & 7);
    for i in 0..8 {
        let mut v = [0; 16];
        v[..10].copy_from_slice(&regs[10 * i..][..10]);
        s.fpr[(top + i) & 7] = u128::from_le_bytes(v);
    }
}

/// MASKMOVDQU, MASKMOVQ (`size` 16, 8): bytes of `x` whose mask byte has its top bit set.
extern "C" fn maskmov(st: S, addr: u64, size: u64, x: __m128i, mask: __m128i) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    // Unlike VMASKMOV*, it faults at pages that the mask leaves out.
    if let Err(f) = s.mem().probe_write(addr, size) {
        return s.raise_fault(f);
    }
    mask_store(st, addr, 1, mask, x);
}

/// Lanes of `size` bytes under the mask from `addr`; zero elsewhere.
extern "C" fn mask_load(st: S, addr: u64, size: u64, mask: __m128i) -> __m128i {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    let (mask, bits) = (u128::of(mask), 8 * size as u32);
    let mut r = 0u128;
    for k in 0..16 / size {
        let at = bits * k as u32;
        if mask >> (at + bits - 1) & 1 != 0 {
            match s.mem().load(addr.wrapping_add(k * size), size) {
                Ok(v) => r |= u128::from(v) << at,
                Err(f) => {
                    s.raise_fault(f);
                    break;
                }
            }
        }
    }
    r.reg()
}

/// Before a store under a mask, which writes all or nothing: where it lies in two pages, both are asked for. `form`: size of a lane
/// | lanes to be written, a bit each << 8.
extern "C" fn mask_probe(st: S, addr: u64, form: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    let (size, lanes) = (form & 0xff, form >> 8);
    if lanes == 0 {
        return;
    }
    let (first, last) = (u64::from(lanes.trailing_zeros()), u64::from(lanes.ilog2()));
    let at = addr.wrapping_add(first * size);
    if let Err(f) = s.mem().whole(at, (last - first + 1) * size) {
        s.raise_fault(f);
    }
}

/// Lanes of `size` bytes under the mask to `addr`.
extern "C" fn mask_store(st: S, addr: u64, size: u64, mask: __m128i, x: __m128i) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    let (mask, x, bits) = (u128::of(mask), u128::of(x), 8 * size as u32);
    for k in 0..16 / size {
        let at = bits * k as u32;
        if mask >> (at + bits - 1) & 1 != 0
            && let Err(f) = s.mem().store(addr.wrapping_add(k * size), size, (x >> at) as u64)
        {
            return s.raise_fault(f);
        }
    }
}

/// VGATHER*: `form` is scale | index bytes << 8 | element bytes << 16 | first index lane << 24 |
/// lanes << 32 | 32-bit addresses << 40. Elements not under the mask are those of `dst`; lanes past the
/// last are zero.
extern "C" fn gather(st: S, base: u64, form: u64, dst: __m128i, idx: __m128i, mask: __m128i) -> __m128i {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    let byte = |n: u32| form >> n & 255;
    let (scale, isize, esize) = (byte(0), byte(8) as u32, byte(16));
    let (dst, idx, mask) = (u128::of(dst), u128::of(idx), u128::of(mask));
    let bits = 8 * esize as u32;
    let mut r = 0u128;
    for k in 0..byte(32) as u32 {
        let at = bits * k;
        let lane = (dst >> at) & ((1 << bits) - 1);
        let v = if mask >> (at + bits - 1) & 1 != 0 {
            let raw = idx >> (8 * isize * (k + byte(24) as u32));
            let i = if isize == 4 { raw as i32 as i64 } else { raw as i64 };
            let mut addr = base.wrapping_add((i as u64).wrapping_mul(scale));
            if byte(40) != 0 {
                addr &= 0xffff_ffff;
            }
            match s.mem().load(addr, esize) {
                Ok(v) => u128::from(v),
                Err(f) => {
                    s.raise_fault(f);
                    return dst.reg();
                }
            }
        } else {
            lane
        };
        r |= v << at;
    }
    r.reg()
}
