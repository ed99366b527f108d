//! The signal frame: the ucontext, siginfo and FPU state that a handler gets on its stack, as x86-64 Linux lays
//! them out, and the way back.
//!
//! From the stack pointer up: return address, `struct ucontext` (flags, link, stack, sigcontext, mask), `siginfo`; above
//! it, 64-byte aligned, the FPU state; above that the red zone of the interrupted function.

use super::{SigAction, SigInfo, SigSet, UNBLOCKABLE};
use crate::arch::fpstate;
use crate::arch::trap::Trap;
use crate::errno::{Errno, Result};
use crate::kernel::Kernel;
use evm_cpu::CpuState;
use evm_memory::Mem;

/// Offset of the ucontext in the frame.
const UC: usize = 8;
/// Offset of the sigcontext in the ucontext.
pub(crate) const MCONTEXT: usize = 40;
/// Offset of the mask in the ucontext.
pub(crate) const SIGMASK: usize = 296;
/// Size of the kernel's struct ucontext.
const UC_SIZE: usize = 304;
/// Offset of the siginfo in the frame.
const INFO: usize = UC + UC_SIZE;
/// Size of the frame without FPU state.
const FRAME: usize = INFO + 128;
const RED_ZONE: u64 = 128;
/// SA_RESTORER: the action names its return trampoline.
const SA_RESTORER: u64 = 0x0400_0000;

/// General registers in the order of struct sigcontext, as indices into `CpuState::gpr`.
const ORDER: [usize; 16] = [8, 9, 10, 11, 12, 13, 14, 15, 7, 6, 5, 3, 2, 0, 1, 4];
/// RFLAGS bits that sigreturn may change.
pub(super) const USER_FLAGS: u64 = 0x0005_0dd5;

/// Alternate signal stack (sigaltstack).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AltStack {
    pub sp: u64,
    pub size: u64,
    /// SS_DISABLE, SS_AUTODISARM.
    pub flags: u32,
}

/// SS_AUTODISARM.
pub(crate) const AUTODISARM: u32 = 1 << 31;
/// Smallest alternate stack (MINSIGSTKSZ).
pub(crate) const MINSIGSTKSZ: u64 = 2048;

impl AltStack {
    pub const NONE: AltStack = AltStack { sp: 0, size: 0, flags: libc::SS_DISABLE as u32 };
    /// Whether a stack pointer is on it.
    pub fn contains(&self, sp: u64) -> bool {
        self.flags & AUTODISARM == 0 && self.size != 0 && sp > self.sp && sp - self.sp <= self.size
    }
    /// Flags as sigaltstack shows them.
    pub fn shown_flags(&self, sp: u64) -> u32 {
        if self.size == 0 {
            libc::SS_DISABLE as u32
        } else if self.contains(sp) {
            libc::SS_ONSTACK as u32 | (self.flags & AUTODISARM)
        } else {
            self.flags & AUTODISARM
        }
    }
}

/// Bytes that a frame needs at most (AT_MINSIGSTKSZ).
pub(crate) fn min_stack(kernel: &Kernel) -> usize {
    FRAME + fpstate::frame_size(kernel.config.xfeatures) + 64 + 16 + 8
}

/// Make a handler run: write the frame and set the registers. On an error (the stack cannot be written) nothing but
/// memory below the stack pointer has changed.
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
) -> Result<()> {
    let old_sp = cpu.gpr[4];
    let mut sp = old_sp.wrapping_sub(RED_ZONE);
    let on_alt = alt.contains(old_sp);
    let to_alt = action.flags & libc::SA_ONSTACK as u64 != 0 && !on_alt && alt.size != 0;
    if to_alt {
        sp = alt.sp.wrapping_add(alt.size);
    }
    let fp = fpstate::save_frame(cpu, xfeatures);
    let fp_at = sp.wrapping_sub(fp.len() as u64) & !63;
    let frame = (fp_at.wrapping_sub(FRAME as u64) & !15).wrapping_sub(8);
    if (to_alt || on_alt) && (frame < alt.sp || frame >= alt.sp.wrapping_add(alt.size)) {
        return Err(Errno::EFAULT); // the alternate stack is used up
    }
    if action.flags & SA_RESTORER == 0 {
        return Err(Errno::EFAULT); // x86-64 has no other way back
    }
    let mut b = [0u8; FRAME];
    let mut w = |at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_le_bytes());
    w(0, action.restorer);
    // UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS, UC_FP_XSTATE
    w(UC, if xfeatures != 0 { 7 } else { 6 });
    w(UC + 16, alt.sp);
    w(UC + 24, u64::from(alt.shown_flags(old_sp)));
    w(UC + 32, alt.size);
    let mc = UC + MCONTEXT;
    for (i, r) in ORDER.iter().enumerate() {
        w(mc + 8 * i, cpu.gpr[*r]);
    }
    w(mc + 128, cpu.rip);
    w(mc + 136, cpu.rflags());
    let [_, cs, ss, _, fs, gs] = cpu.segs.map(u64::from);
    w(mc + 144, cs | gs << 16 | fs << 32 | ss << 48);
    w(mc + 152, trap.error);
    w(mc + 160, trap.number);
    w(mc + 168, mask);
    w(mc + 176, trap.cr2);
    w(mc + 184, fp_at);
    w(UC + SIGMASK, mask);
    b[INFO..].copy_from_slice(&info.to_bytes());
    mem.copy_in(fp_at, &fp)?;
    mem.copy_in(frame, &b)?;
    if alt.flags & AUTODISARM != 0 && to_alt {
        *alt = AltStack::NONE;
    }
    fpstate::init(cpu);
    cpu.gpr[7] = info.signo as u64;
    cpu.gpr[6] = frame + INFO as u64;
    cpu.gpr[2] = frame + UC as u64;
    cpu.gpr[0] = 0;
    cpu.gpr[4] = frame;
    cpu.rip = action.handler;
    cpu.set_rflags(cpu.rflags() & !0x1_0500); // RF, DF, TF
    Ok(())
}

/// rt_sigreturn: what the frame at the stack pointer says. Gives the mask and the alternate stack.
pub(crate) fn leave(cpu: &mut CpuState, mem: Mem, xfeatures: u64) -> Result<(SigSet, AltStack)> {
    let uc = cpu.gpr[4]; // the handler's return popped the address before it
    let mut b = [0u8; UC_SIZE];
    mem.copy_out(uc, &mut b)?;
    let r = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| b[at + i]));
    let fp_at = r(MCONTEXT + 184);
    if fp_at != 0 {
        let mut fp = vec![0u8; fpstate::frame_size(xfeatures)];
        if mem.copy_out(fp_at, &mut fp).is_err() {
            fp.fill(0);
            mem.copy_out(fp_at, &mut fp[..fpstate::FXSAVE])?;
        }
        fpstate::load_frame(cpu, &fp, xfeatures);
    } else {
        fpstate::init(cpu);
    }
    for (i, g) in ORDER.iter().enumerate() {
        cpu.gpr[*g] = r(MCONTEXT + 8 * i);
    }
    cpu.rip = r(MCONTEXT + 128);
    let flags = (cpu.rflags() & !USER_FLAGS) | (r(MCONTEXT + 136) & USER_FLAGS);
    cpu.set_rflags(flags);
    let alt = AltStack { sp: r(16), size: r(32), flags: r(24) as u32 };
    Ok((r(SIGMASK) & !UNBLOCKABLE, alt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::SigFields;
    use evm_memory::{Arena, Prot};
    use std::mem::offset_of;

    #[test]
    fn layout_is_that_of_libc() {
        assert_eq!(MCONTEXT, offset_of!(libc::ucontext_t, uc_mcontext));
        assert_eq!(SIGMASK, offset_of!(libc::ucontext_t, uc_sigmask));
        let regs = [
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
            libc::REG_RDI,
            libc::REG_RSI,
            libc::REG_RBP,
            libc::REG_RBX,
            libc::REG_RDX,
            libc::REG_RAX,
            libc::REG_RCX,
            libc::REG_RSP,
        ];
        assert_eq!(regs.map(|r| r as usize), std::array::from_fn(|i| i));
        assert_eq!(
            (libc::REG_RIP, libc::REG_EFL, libc::REG_ERR, libc::REG_TRAPNO, libc::REG_CR2),
            (16, 17, 19, 20, 22)
        );
        assert_eq!(offset_of!(libc::mcontext_t, fpregs), 184);
    }

    #[test]
    fn there_and_back() {
        let a = Arena::reserve(1 << 24).unwrap();
        a.map_anon(0x10_0000, 0x10000, Prot::RW).unwrap();
        let action = SigAction { handler: 0x4000, flags: SA_RESTORER, restorer: 0x5000, mask: 0 };
        let info = SigInfo { signo: 11, errno: 0, code: 1, fields: SigFields::Fault { addr: 0x1234 } };
        for x in [0, 3, 7] {
            let mut c = CpuState { rip: 0x1111, ..CpuState::default() };
            for i in 0..16 {
                c.gpr[i] = 100 + i as u64;
                c.xmm[i] = i as u128;
            }
            c.gpr[4] = 0x10_ff00;
            c.set_rflags(0x8d5);
            let before = c.clone();
            let mut alt = AltStack::NONE;
            enter(&mut c, a.mem(), x, &action, &info, 0x55, &mut alt, &Trap::default()).unwrap();
            assert_eq!((c.rip, c.gpr[7], c.gpr[4] % 16), (0x4000, 11, 8));
            assert_eq!(a.mem().read::<u64>(c.gpr[4]), Ok(0x5000));
            assert_eq!(a.mem().read::<u64>(c.gpr[6] + 16), Ok(0x1234));
            assert_eq!(a.mem().read::<u64>(c.gpr[2] + MCONTEXT as u64 + 128), Ok(0x1111));
            c.gpr[4] += 8;
            let (mask, _) = leave(&mut c, a.mem(), x).unwrap();
            assert_eq!(mask, 0x55);
            assert_eq!((c.gpr, c.rip, c.rflags(), c.xmm), (before.gpr, before.rip, before.rflags(), before.xmm));
        }
    }
}
