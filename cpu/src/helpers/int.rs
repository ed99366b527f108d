//! Helpers of the integer instructions: flags, wide division, strings, CPUID, time.
//!
//! # Safety
//! See the parent module.
#![allow(unsafe_code)]

use super::state;
use crate::{CpuState, cc, exc};
use evm_memory::{Fault, Mem};

helpers! { 0;
    CC_FLAGS "cc_flags" I4_R(cc_flags) Pure false;
    GET_SEG "get_seg" I1_R(get_seg) Private false;
    SET_SEG "set_seg" I2(set_seg) All true;
    SELECTOR "selector" I2_R(selector) Private false;
    BCD "bcd" I3_R(bcd) Pure false;
    DIV128 "div128" I1(div128) All true;
    IDIV128 "idiv128" I1(idiv128) All true;
    RC_VALUE "rc_value" I4_R(rc_value) Pure false;
    RC_CARRY "rc_carry" I4_R(rc_carry) Pure false;
    PDEP "pdep" I2_R(pdep) Pure false;
    PEXT "pext" I2_R(pext) Pure false;
    CRC32C "crc32c" I3_R(crc32c) Pure false;
    CPUID "cpuid" I0(cpuid) All false;
    RDTSC "rdtsc" I0_R(rdtsc) Private false;
    XGETBV "xgetbv" I1_R(xgetbv) Private true;
    REP_MOVS "rep_movs" I2(rep_movs) All true;
    REP_STOS "rep_stos" I1(rep_stos) All true;
    REP_LODS "rep_lods" I2(rep_lods) All true;
    REP_CMPS "rep_cmps" I2(rep_cmps) All true;
    REP_SCAS "rep_scas" I1(rep_scas) All true;
    ENTER "enter" I1(enter) All true;
}

/// The flags that a lazy thunk stands for.
unsafe extern "C" fn cc_flags(_st: *mut u8, op: u64, a: u64, b: u64, c: u64) -> u64 {
    cc::flags(op, a, b, c)
}

/// ENTER with a nesting level: `form` is the operand size | level << 8 | bytes to allocate << 16. If it faults, what it has pushed
/// stays, as on the CPU; so it must not be done again, as it may have written what it reads.
extern "C" fn enter(st: *mut u8, form: u64) {
    // SAFETY: the engine's pointer.
    let s = unsafe { state(st) };
    let (n, level, alloc) = (form & 15, form >> 8 & 31, form >> 16);
    let mask = if s.segs[1] == crate::segment::CODE32 { u64::from(u32::MAX) } else { u64::MAX };
    let below = |at: u64, k: u64| at.wrapping_sub(n * k) & mask;
    let (sp, bp, mem) = (s.gpr[4], s.gpr[5], s.mem());
    let (frame, top) = (below(sp, 1), below(sp, level + 1).wrapping_sub(alloc) & mask);
    let push = || {
        mem.store(frame, n, bp)?;
        for k in 1..level {
            mem.store(below(sp, k + 1), n, mem.load(below(bp, k), n)?)?;
        }
        mem.store(below(sp, level + 1), n, frame)?;
        // It asks whether the new top of the stack can be written.
        if alloc > 0 { mem.fetch_or(top, 1, 0).map(|_| ()) } else { Ok(()) }
    };
    if let Err(f) = push() {
        return s.raise_fault(f);
    }
    s.gpr[4] = top;
    s.gpr[5] = if n == 2 { bp & !0xffff | frame & 0xffff } else { frame };
}

/// Selector of segment register `n` (es cs ss ds fs gs).
unsafe extern "C" fn get_seg(st: *mut u8, n: u64) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    u64::from(st.segs.get(n as usize).copied().unwrap_or(0))
}

/// MOV to a segment register.
unsafe extern "C" fn set_seg(st: *mut u8, n: u64, sel: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let base = match crate::segment::load(st, n as usize, sel as u16) {
        Some(base) => base,
        None => return st.raise(exc::GP, sel & 0xfffc),
    };
    match n {
        4 => st.fs_base = base,
        5 => st.gs_base = base,
        _ => {}
    }
    if let Some(s) = st.segs.get_mut(n as usize) {
        *s = sel as u16;
    }
}

/// What LAR, LSL, VERR and VERW find: bit 32 says that they find something.
unsafe extern "C" fn selector(st: *mut u8, sel: u64, what: u64) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    crate::segment::inspect(st, sel as u16, what).map_or(0, |v| u64::from(v) | 1 << 32)
}

/// Decimal adjustment: see [`crate::bcd`].
unsafe extern "C" fn bcd(_st: *mut u8, what: u64, ax: u64, flags: u64) -> u64 {
    let (ax, flags) = crate::bcd::adjust(what, ax as u16, flags);
    u64::from(ax) | flags << 32
}

/// DIV r/m64: RDX:RAX by `d`.
unsafe extern "C" fn div128(st: *mut u8, d: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    if d <= st.gpr[RDX] {
        return st.raise(exc::DE, 0);
    }
    let n = u128::from(st.gpr[RDX]) << 64 | u128::from(st.gpr[RAX]);
    st.gpr[RAX] = (n / u128::from(d)) as u64;
    st.gpr[RDX] = (n % u128::from(d)) as u64;
}

/// IDIV r/m64.
unsafe extern "C" fn idiv128(st: *mut u8, d: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let n = (u128::from(st.gpr[RDX]) << 64 | u128::from(st.gpr[RAX])) as i128;
    let d = i128::from(d as i64);
    match n.checked_div(d) {
        Some(q) if i128::from(q as i64) == q => {
            st.gpr[RAX] = q as u64;
            st.gpr[RDX] = (n % d) as u64;
        }
        _ => st.raise(exc::DE, 0),
    }
}

/// RCL/RCR of `a` with carry `c` by `n`; `how` = width | left << 8. Gives value and carry.
fn rotate_carry(a: u64, c: u64, n: u64, how: u64) -> (u64, u64) {
    let bits = (how & 0xff).clamp(8, 64) as u32;
    let span = bits + 1;
    let n = n as u32 % span;
    let mask = (1u128 << span) - 1;
    let v = (u128::from(c & 1) << bits | u128::from(a)) & mask;
    let n = if how & 0x100 != 0 { n } else { (span - n) % span };
    let r = (v << n | v >> (span - n)) & mask;
    ((r & (mask >> 1)) as u64, (r >> bits) as u64)
}

unsafe extern "C" fn rc_value(_st: *mut u8, a: u64, c: u64, n: u64, how: u64) -> u64 {
    rotate_carry(a, c, n, how).0
}

unsafe extern "C" fn rc_carry(_st: *mut u8, a: u64, c: u64, n: u64, how: u64) -> u64 {
    rotate_carry(a, c, n, how).1
}

unsafe extern "C" fn pdep(_st: *mut u8, mut v: u64, mut mask: u64) -> u64 {
    let mut out = 0;
    while mask != 0 {
        let low = mask & mask.wrapping_neg();
        if v & 1 != 0 {
            out |= low;
        }
        v >>= 1;
        mask ^= low;
    }
    out
}

unsafe extern "C" fn pext(_st: *mut u8, v: u64, mut mask: u64) -> u64 {
    let (mut out, mut n) = (0, 0);
    while mask != 0 {
        let low = mask & mask.wrapping_neg();
        if v & low != 0 {
            out |= 1 << n;
        }
        n += 1;
        mask ^= low;
    }
    out
}

/// CRC32 of SSE4.2 (polynomial 11EDC6F41h, reflected), `n` bytes of `v`.
unsafe extern "C" fn crc32c(_st: *mut u8, crc: u64, v: u64, n: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        use std::arch::x86_64::*;
        // SAFETY: the feature is there.
        return unsafe {
            match n {
                1 => u64::from(_mm_crc32_u8(crc as u32, v as u8)),
                2 => u64::from(_mm_crc32_u16(crc as u32, v as u16)),
                4 => u64::from(_mm_crc32_u32(crc as u32, v as u32)),
                _ => _mm_crc32_u64(crc & 0xffff_ffff, v),
            }
        };
    }
    let mut c = crc as u32;
    for k in 0..n.min(8) {
        c ^= (v >> (8 * k)) as u32 & 0xff;
        for _ in 0..8 {
            c = c >> 1 ^ if c & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    u64::from(c)
}

unsafe extern "C" fn cpuid(st: *mut u8) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let r = crate::model::cpuid(st.model, st.cpus, st.gpr[RAX] as u32, st.gpr[RCX] as u32);
    st.gpr[RAX] = u64::from(r[0]);
    st.gpr[RBX] = u64::from(r[1]);
    st.gpr[RCX] = u64::from(r[2]);
    st.gpr[RDX] = u64::from(r[3]);
}

/// The host's time stamp counter, or a virtual one that only reading moves.
unsafe extern "C" fn rdtsc(st: *mut u8) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    if st.tsc_step != 0 {
        st.tsc = st.tsc.wrapping_add(st.tsc_step);
        return st.tsc;
    }
    #[cfg(target_arch = "x86_64")]
    // SAFETY: RDTSC is not privileged on the hosts we run on.
    return unsafe { std::arch::x86_64::_rdtsc() };
    // One that counts nanoseconds.
    #[cfg(not(target_arch = "x86_64"))]
    {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed().as_nanos() as u64
    }
}

unsafe extern "C" fn xgetbv(st: *mut u8, index: u64) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    match crate::model::xcr0(st.model) {
        0 => st.raise(exc::UD, 0),
        x if index == 0 => return x,
        _ => st.raise(exc::GP, 0),
    }
    0
}

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSI: usize = 6;
const RDI: usize = 7;

/// A repeated string instruction under way: register values, written back at the end or at a fault.
struct Rep {
    mem: Mem,
    size: u64,
    /// Address mask: 64, 32 or 16 bits.
    mask: u64,
    /// Mask of the sum of an address and a segment's base.
    linear: u64,
    count: u64,
    si: u64,
    di: u64,
    step: u64,
}

impl Rep {
    /// `how` = size | 32-bit addresses << 8 | 16-bit addresses << 10 | 32-bit code << 11.
    fn new(st: &CpuState, how: u64) -> Rep {
        let mask = match how & 0x500 {
            0 => u64::MAX,
            0x100 => 0xffff_ffff,
            _ => 0xffff,
        };
        let size = how & 15;
        Rep {
            mem: st.mem(),
            size,
            mask,
            linear: if how & 0x800 != 0 { 0xffff_ffff } else { u64::MAX },
            count: st.gpr[RCX] & mask,
            si: st.gpr[RSI] & mask,
            di: st.gpr[RDI] & mask,
            step: if st.df & 1 != 0 { size.wrapping_neg() } else { size },
        }
    }
    /// Address of the source, whose segment's base is `seg`.
    fn source(&self, seg: u64) -> u64 {
        seg.wrapping_add(self.si) & self.linear
    }
    fn forward(&self) -> bool {
        self.step == self.size
    }
    fn next(&mut self, si: bool, di: bool, n: u64) {
        let by = self.step.wrapping_mul(n);
        if si {
            self.si = self.si.wrapping_add(by) & self.mask;
        }
        if di {
            self.di = self.di.wrapping_add(by) & self.mask;
        }
        self.count -= n;
    }
    /// Elements from DI on that lie in its page.
    fn page_left(&self) -> u64 {
        (evm_memory::PAGE - self.di % evm_memory::PAGE) / self.size
    }
    /// Elements that a chunk from `at` of at most `max` bytes may have without wrapping.
    fn chunk(&self, max: u64) -> u64 {
        self.count.min(max / self.size)
    }
    fn finish(self, st: &mut CpuState, si: bool, di: bool, r: Result<(), Fault>) {
        // A 32-bit register is written, so its upper half is zero, only if there was anything to do.
        if st.gpr[RCX] & self.mask != 0 {
            // 16-bit registers keep what is above them.
            let keep = if self.mask == 0xffff { !0xffff } else { 0 };
            st.gpr[RCX] = st.gpr[RCX] & keep | self.count;
            if si {
                st.gpr[RSI] = st.gpr[RSI] & keep | self.si;
            }
            if di {
                st.gpr[RDI] = st.gpr[RDI] & keep | self.di;
            }
        }
        if let Err(f) = r {
            st.raise_fault(f);
        }
    }
}

/// Bytes moved at a time.
const CHUNK: usize = 4096;

unsafe extern "C" fn rep_movs(st: *mut u8, how: u64, seg: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let mut r = Rep::new(st, how);
    let res = movs(&mut r, seg);
    r.finish(st, true, true, res);
}

fn movs(r: &mut Rep, seg: u64) -> Result<(), Fault> {
    let mut small = [0u8; 256];
    let mut large;
    let buf: &mut [u8] = if r.count.saturating_mul(r.size) <= 256 {
        &mut small
    } else {
        large = [0u8; CHUNK];
        &mut large
    };
    while r.count > 0 {
        let src = r.source(seg);
        if r.forward() {
            let mut n = r.chunk(buf.len() as u64);
            // An element that was written may be read again: no chunk reaches across.
            let ahead = r.di.wrapping_sub(src);
            if ahead < n * r.size {
                n = ahead / r.size;
            }
            // Nor across the end of a page: an element that cannot be written whole is not written in part.
            n = n.min(r.page_left());
            let len = (n * r.size) as usize;
            let wraps = r.si.checked_add(len as u64).is_none_or(|e| e > r.mask)
                || r.di.checked_add(len as u64).is_none_or(|e| e > r.mask);
            if n > 1
                && !wraps
                && r.mem.copy_out(src, &mut buf[..len]).is_ok()
                && r.mem.copy_in(r.di, &buf[..len]).is_ok()
            {
                r.next(true, true, n);
                continue;
            }
        }
        // One at a time: a fault is at its element, and what a failed chunk wrote is written again.
        let v = r.mem.load(src, r.size)?;
        r.mem.store(r.di, r.size, v)?;
        r.next(true, true, 1);
    }
    Ok(())
}

unsafe extern "C" fn rep_stos(st: *mut u8, how: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let mut r = Rep::new(st, how);
    let res = stos(&mut r, st.gpr[RAX]);
    r.finish(st, false, true, res);
}

fn stos(r: &mut Rep, v: u64) -> Result<(), Fault> {
    let bytes = v.to_le_bytes();
    let size = r.size as usize;
    let uniform = bytes[..size.min(8)].iter().all(|b| *b == bytes[0]);
    while r.count > 0 {
        if r.forward() && uniform && r.count > 1 && (r.di.is_multiple_of(r.size) || r.page_left() > 0) {
            let n = if r.di.is_multiple_of(r.size) { r.chunk(1 << 20) } else { r.chunk(1 << 20).min(r.page_left()) };
            let len = n * r.size;
            let wraps = r.di.checked_add(len).is_none_or(|e| e > r.mask);
            if !wraps {
                match r.mem.fill(r.di, len, bytes[0]) {
                    Ok(()) => {
                        r.next(false, true, n);
                        continue;
                    }
                    Err(f) => {
                        let done = f.addr.wrapping_sub(r.di).min(len) / r.size;
                        r.next(false, true, done.min(r.count));
                        if r.count == 0 {
                            break;
                        }
                    }
                }
            }
        }
        r.mem.store(r.di, r.size, v)?;
        r.next(false, true, 1);
    }
    Ok(())
}

unsafe extern "C" fn rep_lods(st: *mut u8, how: u64, seg: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let mut r = Rep::new(st, how);
    let mut rax = st.gpr[RAX];
    let res = loop {
        if r.count == 0 {
            break Ok(());
        }
        match r.mem.load(r.source(seg), r.size) {
            Ok(v) => {
                rax = match r.size {
                    1 => rax & !0xff | v,
                    2 => rax & !0xffff | v,
                    _ => v,
                }
            }
            Err(f) => break Err(f),
        }
        r.next(true, false, 1);
    };
    st.gpr[RAX] = rax;
    r.finish(st, true, false, res);
}

/// After a comparison: flags as SUB of the operands.
fn compared(st: &mut CpuState, size: u64, last: Option<(u64, u64)>) {
    if let Some((a, b)) = last {
        st.cc_op = cc::SUB | u64::from(size.trailing_zeros());
        st.cc_a = a;
        st.cc_b = b;
    }
}

/// REPE (bit 9 of `how` clear) or REPNE: whether to go on after comparing.
fn goes_on(how: u64, a: u64, b: u64) -> bool {
    (a == b) == (how & 0x200 == 0)
}

unsafe extern "C" fn rep_cmps(st: *mut u8, how: u64, seg: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let mut r = Rep::new(st, how);
    let mut last = None;
    let res = loop {
        if r.count == 0 {
            break Ok(());
        }
        let b = match r.mem.load(r.di, r.size) {
            Ok(v) => v,
            Err(f) => break Err(f),
        };
        let a = match r.mem.load(r.source(seg), r.size) {
            Ok(v) => v,
            Err(f) => break Err(f),
        };
        r.next(true, true, 1);
        last = Some((a, b));
        if !goes_on(how, a, b) {
            break Ok(());
        }
    };
    compared(st, r.size, last);
    r.finish(st, true, true, res);
}

unsafe extern "C" fn rep_scas(st: *mut u8, how: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let mut r = Rep::new(st, how);
    let a = st.gpr[RAX] & (u64::MAX >> (64 - 8 * r.size.clamp(1, 8)));
    let mut last = None;
    let res = loop {
        if r.count == 0 {
            break Ok(());
        }
        let b = match r.mem.load(r.di, r.size) {
            Ok(v) => v,
            Err(f) => break Err(f),
        };
        r.next(false, true, 1);
        last = Some((a, b));
        if !goes_on(how, a, b) {
            break Ok(());
        }
    };
    compared(st, r.size, last);
    r.finish(st, false, true, res);
}
