//! The signal frames of 32-bit programs, as a 64-bit kernel lays them out: the plain one, and the one with siginfo and
//! ucontext (SA_SIGINFO); and the way back.
//!
//! From the stack pointer up, plain: return address, signal, `struct sigcontext`, an unused FPU state, the upper half of the
//! mask, a trampoline. With siginfo: return address, signal, pointers, `siginfo`, `ucontext`, a trampoline. Above both
//! is the FPU state: the 112 bytes of FSAVE, then, 64-byte aligned, the FXSAVE or XSAVE image.

use super::frame::{AUTODISARM, AltStack, USER_FLAGS};
use super::{SigAction, SigInfo, SigSet, UNBLOCKABLE};
use crate::arch::fpstate;
use crate::arch::trap::Trap;
use crate::errno::{Errno, Result};
use crate::kernel::Kernel;
use crate::sys::compat::info32;
use evm_cpu::{CpuState, segment};
use evm_memory::Mem;

/// Offsets in the plain frame: sigcontext, upper half of the mask, trampoline; and its size.
const SC: usize = 8;
const EXTRA_MASK: usize = 720;
const CODE: usize = 724;
const FRAME: usize = 732;

/// Offsets in the frame with siginfo: siginfo, ucontext, trampoline; and its size.
const INFO: usize = 16;
const UC: usize = 144;
const RT_CODE: usize = 260;
const RT_FRAME: usize = 268;

/// Offsets in the ucontext: sigcontext and mask; and its size.
const UC_SC: usize = 20;
const UC_MASK: usize = 108;
const UC_SIZE: usize = 116;

/// Size of struct sigcontext.
const SC_SIZE: usize = 88;
/// Size of what FSAVE stores, with two words of Linux's.
const FSAVE: usize = 112;

const SA_RESTORER: u64 = 0x0400_0000;

/// pop eax; mov eax, SYS_sigreturn; int 0x80
const RETURN: [u8; 8] = [0x58, 0xb8, 0x77, 0, 0, 0, 0xcd, 0x80];
/// mov eax, SYS_rt_sigreturn; int 0x80
const RT_RETURN: [u8; 8] = [0xb8, 0xad, 0, 0, 0, 0xcd, 0x80, 0];

/// What handlers return to that name no trampoline of their own: a page of code.
pub(crate) const TRAMPOLINES: [u8; 16] = {
    let mut b = [0; 16];
    let mut i = 0;
    while i < 8 {
        b[i] = RETURN[i];
        b[8 + i] = RT_RETURN[i];
        i += 1;
    }
    b
};

/// General registers of struct sigcontext by offset, as indices into `CpuState::gpr`.
const REGISTERS: [(usize, usize); 8] = [(16, 7), (20, 6), (24, 5), (28, 4), (32, 3), (36, 2), (40, 1), (44, 0)];
/// Segment registers by offset, as indices into `CpuState::segs`; CS and SS are apart.
const SEGMENTS: [(usize, usize); 4] = [(0, 5), (4, 4), (8, 0), (12, 3)];

fn put(b: &mut [u8], at: usize, v: u32) {
    b[at..at + 4].copy_from_slice(&v.to_le_bytes());
}
fn get(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| b[at + i]))
}

/// Bytes that a frame needs at most (AT_MINSIGSTKSZ).
pub(crate) fn min_stack(kernel: &Kernel) -> usize {
    FRAME + FSAVE + fpstate::frame_size(kernel.config.xfeatures) + 64 + 16
}

/// What FSAVE stores.
fn fsave(c: &CpuState) -> [u8; FSAVE] {
    let mut b = [0; FSAVE];
    put(&mut b, 0, u32::from(c.fcw) | 0xffff_0000);
    put(&mut b, 4, u32::from(c.fsw) | 0xffff_0000);
    put(&mut b, 8, u32::from(c.full_tags()) | 0xffff_0000);
    put(&mut b, 12, c.fip as u32);
    put(&mut b, 16, u32::from(c.segs[1]));
    put(&mut b, 20, c.fdp as u32);
    put(&mut b, 24, 0xffff_0000 | u32::from(c.segs[3]));
    let top = usize::from(c.fsw >> 11 & 7);
    for i in 0..8 {
        b[28 + 10 * i..38 + 10 * i].copy_from_slice(&c.fpr[(top + i) & 7].to_le_bytes()[..10]);
    }
    put(&mut b, 108, u32::from(c.fsw)); // and the magic number 0: an FXSAVE image follows
    b
}

/// Load the x87 state of what FSAVE stored.
fn frstor(c: &mut CpuState, b: &[u8; FSAVE]) {
    c.fsw = get(b, 4) as u16;
    c.set_tags(get(b, 8) as u16);
    c.set_fcw(get(b, 0) as u16);
    c.fip = u64::from(get(b, 12));
    c.fop = (get(b, 16) >> 16) as u16;
    c.fdp = u64::from(get(b, 20));
    let top = usize::from(c.fsw >> 11 & 7);
    for i in 0..8 {
        let mut v = [0; 16];
        v[..10].copy_from_slice(&b[28 + 10 * i..38 + 10 * i]);
        c.fpr[(top + i) & 7] = u128::from_le_bytes(v);
    }
}

/// Write the sigcontext.
fn save_context(b: &mut [u8], cpu: &CpuState, trap: &Trap, mask: SigSet, fp_at: u64) {
    for (at, r) in REGISTERS {
        put(b, at, cpu.gpr[r] as u32);
    }
    for (at, s) in SEGMENTS {
        put(b, at, u32::from(cpu.segs[s]));
    }
    put(b, 48, trap.number as u32);
    put(b, 52, trap.error as u32);
    put(b, 56, cpu.rip as u32);
    put(b, 60, u32::from(cpu.segs[1]));
    put(b, 64, cpu.rflags() as u32);
    put(b, 68, cpu.gpr[4] as u32);
    put(b, 72, u32::from(cpu.segs[2]));
    put(b, 76, fp_at as u32);
    put(b, 80, mask as u32);
    put(b, 84, trap.cr2 as u32);
}

/// Make a handler run: as [`super::frame::enter`].
#[allow(clippy::too_many_arguments)]
pub(crate) fn enter(
    cpu: &mut CpuState,
    mem: Mem,
    xfeatures: u64,
    action: &SigAction,
    info: &SigInfo,
    mask: SigSet,
    alt: &mut AltStack,
    trap: &Trap,
    trampolines: u64,
) -> Result<()> {
    let old_sp = cpu.gpr[4];
    let on_alt = alt.contains(old_sp);
    let to_alt = action.flags & libc::SA_ONSTACK as u64 != 0 && !on_alt && alt.size != 0;
    let sp = if to_alt { alt.sp.wrapping_add(alt.size) } else { old_sp };
    let rt = action.flags & libc::SA_SIGINFO as u64 != 0;
    let size = if rt { RT_FRAME } else { FRAME };
    let mut image = fpstate::save_frame(cpu, xfeatures);
    if xfeatures != 0 {
        // The size that the image says it has counts what is before it.
        let n = get(&image, 468) + FSAVE as u32;
        put(&mut image, 468, n);
    }
    let image_at = sp.wrapping_sub(image.len() as u64) & !63;
    let fp_at = image_at.wrapping_sub(FSAVE as u64);
    let frame = ((fp_at.wrapping_sub(size as u64).wrapping_add(4) & !15).wrapping_sub(4)) & 0xffff_ffff;
    if (to_alt || on_alt) && (frame < alt.sp || frame >= alt.sp.wrapping_add(alt.size)) {
        return Err(Errno::EFAULT); // the alternate stack is used up
    }
    let mut b = vec![0u8; size];
    let back = match (action.flags & SA_RESTORER != 0, rt) {
        (true, _) => action.restorer,
        (_, false) => trampolines,
        (_, true) => trampolines + 8,
    };
    put(&mut b, 0, back as u32);
    put(&mut b, 4, info.signo as u32);
    if rt {
        put(&mut b, 8, (frame + INFO as u64) as u32);
        put(&mut b, 12, (frame + UC as u64) as u32);
        b[INFO..INFO + 128].copy_from_slice(&info32(info));
        put(&mut b, UC, u32::from(xfeatures != 0)); // UC_FP_XSTATE
        put(&mut b, UC + 8, alt.sp as u32);
        put(&mut b, UC + 12, alt.shown_flags(old_sp));
        put(&mut b, UC + 16, alt.size as u32);
        save_context(&mut b[UC + UC_SC..], cpu, trap, mask, fp_at);
        b[UC + UC_MASK..UC + UC_MASK + 8].copy_from_slice(&mask.to_le_bytes());
        b[RT_CODE..].copy_from_slice(&RT_RETURN);
    } else {
        save_context(&mut b[SC..], cpu, trap, mask, fp_at);
        put(&mut b, EXTRA_MASK, (mask >> 32) as u32);
        b[CODE..].copy_from_slice(&RETURN);
    }
    mem.copy_in(fp_at, &fsave(cpu))?;
    mem.copy_in(image_at, &image)?;
    mem.copy_in(frame, &b)?;
    if alt.flags & AUTODISARM != 0 && to_alt {
        *alt = AltStack::NONE;
    }
    fpstate::init(cpu);
    cpu.gpr[0] = info.signo as u64;
    cpu.gpr[2] = if rt { frame + INFO as u64 } else { 0 };
    cpu.gpr[1] = if rt { frame + UC as u64 } else { 0 };
    cpu.gpr[4] = frame;
    cpu.rip = action.handler;
    for s in [0, 2, 3] {
        cpu.segs[s] = segment::DATA;
    }
    cpu.segs[1] = segment::CODE32;
    cpu.set_rflags(cpu.rflags() & !0x1_0500); // RF, DF, TF
    Ok(())
}

/// What a sigcontext says.
fn load_context(cpu: &mut CpuState, mem: Mem, xfeatures: u64, sc: &[u8]) -> Result<()> {
    let fp_at = u64::from(get(sc, 76));
    if fp_at == 0 {
        fpstate::init(cpu);
    } else {
        let mut x87 = [0; FSAVE];
        mem.copy_out(fp_at, &mut x87)?;
        let image_at = fp_at + FSAVE as u64;
        let mut image = vec![0u8; fpstate::frame_size(xfeatures)];
        if mem.copy_out(image_at, &mut image).is_err() {
            image.fill(0);
            mem.copy_out(image_at, &mut image[..fpstate::FXSAVE])?;
        }
        fpstate::load_frame(cpu, &image, xfeatures);
        frstor(cpu, &x87);
    }
    for (at, r) in REGISTERS {
        cpu.gpr[r] = u64::from(get(sc, at));
    }
    for (at, s) in SEGMENTS {
        let sel = get(sc, at) as u16;
        // A selector that cannot be loaded becomes none.
        let base = segment::load(cpu, s, sel);
        cpu.segs[s] = if base.is_some() { sel } else { 0 };
        match s {
            4 => cpu.fs_base = base.unwrap_or(0),
            5 => cpu.gs_base = base.unwrap_or(0),
            _ => {}
        }
    }
    cpu.rip = u64::from(get(sc, 56));
    let flags = (cpu.rflags() & !USER_FLAGS) | (u64::from(get(sc, 64)) & USER_FLAGS);
    cpu.set_rflags(flags);
    Ok(())
}

/// sigreturn: what the plain frame says, whose return address and signal number are popped. Gives the mask.
pub(crate) fn leave(cpu: &mut CpuState, mem: Mem, xfeatures: u64) -> Result<SigSet> {
    let frame = cpu.gpr[4].wrapping_sub(8) & 0xffff_ffff;
    let mut b = [0; SC_SIZE];
    mem.copy_out(frame + SC as u64, &mut b)?;
    let upper: u32 = mem.read(frame + EXTRA_MASK as u64)?;
    load_context(cpu, mem, xfeatures, &b)?;
    Ok((u64::from(get(&b, 80)) | u64::from(upper) << 32) & !UNBLOCKABLE)
}

/// rt_sigreturn: what the frame with siginfo says. Gives the mask and the alternate stack.
pub(crate) fn leave_rt(cpu: &mut CpuState, mem: Mem, xfeatures: u64) -> Result<(SigSet, AltStack)> {
    let frame = cpu.gpr[4].wrapping_sub(4) & 0xffff_ffff;
    let mut b = [0; UC_SIZE];
    mem.copy_out(frame + UC as u64, &mut b)?;
    load_context(cpu, mem, xfeatures, &b[UC_SC..])?;
    let mask = u64::from(get(&b, UC_MASK)) | u64::from(get(&b, UC_MASK + 4)) << 32;
    let alt = AltStack { sp: u64::from(get(&b, 8)), size: u64::from(get(&b, 16)), flags: get(&b, 12) };
    Ok((mask & !UNBLOCKABLE, alt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::SigFields;
    use evm_memory::{Arena, Prot};

    #[test]
    fn there_and_back() {
        let a = Arena::reserve(1 << 24).unwrap();
        a.map_anon(0x10_0000, 0x10000, Prot::RW).unwrap();
        let info = SigInfo { signo: 11, errno: 0, code: 1, fields: SigFields::Fault { addr: 0x1234 } };
        for (x, rt) in [(0, false), (3, true), (7, false), (7, true)] {
            let flags = if rt { libc::SA_SIGINFO as u64 } else { 0 };
            let action = SigAction { handler: 0x4000, flags, restorer: 0, mask: 0 };
            let mut c = CpuState { rip: 0x1111, fsw: 3 << 11, ftw: 0x3fff, ..CpuState::default() };
            c.segs = [segment::DATA, segment::CODE32, segment::DATA, segment::DATA, 0, 0];
            for i in 0..8 {
                c.gpr[i] = 100 + i as u64;
                c.xmm[i] = i as u128;
                c.fpr[i] = i as u128 | 0x3fff << 64;
            }
            c.gpr[4] = 0x10_ff00;
            c.set_rflags(0x8d5);
            let before = c.clone();
            let mut alt = AltStack::NONE;
            enter(&mut c, a.mem(), x, &action, &info, 0x55_0000_0055, &mut alt, &Trap::default(), 0x8000).unwrap();
            assert_eq!((c.rip, c.gpr[0], c.gpr[4] % 16), (0x4000, 11, 12));
            assert_eq!(a.mem().read::<u32>(c.gpr[4]), Ok(if rt { 0x8008 } else { 0x8000 }));
            assert_eq!(a.mem().read::<u32>(c.gpr[4] + 4), Ok(11));
            let mask = if rt {
                assert_eq!(a.mem().read::<u32>(c.gpr[2] + 12), Ok(0x1234));
                c.gpr[4] += 4;
                leave_rt(&mut c, a.mem(), x).unwrap().0
            } else {
                c.gpr[4] += 8;
                leave(&mut c, a.mem(), x).unwrap()
            };
            assert_eq!(mask, 0x55_0000_0055);
            assert_eq!((c.gpr, c.rip, c.rflags(), c.xmm), (before.gpr, before.rip, before.rflags(), before.xmm));
            assert_eq!((c.fpr, c.fsw, c.ftw, c.segs), (before.fpr, before.fsw, before.ftw, before.segs));
        }
    }
}
