//! The guest's x87 state in the host's x87 unit.
//!
//! A thread's x87 state is in one of two places:
//!
//! * *at rest*, in [`CpuState`], where helpers, the interpreter and the kernel work on it;
//! * *live*, in the host's x87 unit. Then an x87 instruction of the guest is that very instruction of the host, in a leaf
//!   ([`super::leaf`]): stack faults, tags, rounding, condition codes and flags need no thought.
//!
//! Rules:
//!
//! 1. It is live only while all exceptions are masked and none is pending, so no host instruction raises #MF.
//! 2. Leaves make it live, and the run loop for copied code ([`CpuState::x87_load`]). Whoever else wants to see the state (helpers, a
//!    runtime function called by compiled code, the run loop for all that is not copied) calls [`CpuState::x87_settle`] first. Rust code has no x87
//!    instruction of its own on x86-64, so what has nothing to do with it may run meanwhile.
//! 3. A live state belongs to the host thread that runs the guest thread.
//!
//! # Safety
//! FNSAVE writes the 108 bytes of a local and leaves the unit as the ABI promises it to functions; FRSTOR reads as many.
#![allow(unsafe_code)]

use super::x87::UNDO;
use crate::CpuState;

/// What FNSAVE stores: the environment in its 32-bit form, and the registers in stack order.
#[cfg(target_arch = "x86_64")]
#[repr(C)]
struct Image {
    words: [u32; 7],
    regs: [[u8; 10]; 8],
}

impl CpuState {
    /// Make the x87 state at rest, and take back a store that did not come to its end (it faulted in memory).
    #[inline]
    pub fn x87_settle(&mut self) {
        if self.x87_live | self.x87_undo >> UNDO != 0 {
            self.settle();
        }
    }

    #[cold]
    fn settle(&mut self) {
        #[cfg(target_arch = "x86_64")]
        if self.x87_live != 0 {
            self.unload();
        }
        let undo = std::mem::take(&mut self.x87_undo);
        let tags = (undo >> 16) as u16;
        match undo >> UNDO {
            0 => {}
            1 => {
                (self.fsw, self.ftw) = (undo as u16, tags);
                (self.fop, self.fdp) = (self.x87_before[0] as u16, self.x87_before[1]);
            }
            // By a leaf, which knows no tags: the register that it has popped was in use, but for a new stack fault.
            _ => {
                if self.fsw & !(undo as u16) & super::x87::SF == 0 {
                    self.ftw &= !(3 << (2 * (undo >> 11 & 7)));
                }
                self.fsw = undo as u16;
            }
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn unload(&mut self) {
        let mut image = Image { words: [0; 7], regs: [[0; 10]; 8] };
        // SAFETY: see the module.
        unsafe { std::arch::asm!("fnsave [{}]", in(reg) &raw mut image, options(nostack)) };
        self.x87_live = 0;
        (self.fcw, self.fsw) = (image.words[0] as u16, image.words[1] as u16);
        self.set_tags(image.words[2] as u16);
        for (i, bytes) in image.regs.iter().enumerate() {
            let mut v = [0; 16];
            v[..10].copy_from_slice(bytes);
            self.fpr[usize::from(self.fsw >> 11) + i & 7] = u128::from_le_bytes(v);
        }
    }

    /// Make it live; false: it may not be, as exceptions are unmasked or one is pending.
    #[cfg(target_arch = "x86_64")]
    pub fn x87_load(&mut self) -> bool {
        if self.x87_live == 0 {
            self.x87_settle();
            self.load();
        }
        self.x87_live != 0
    }

    /// Make it live, if it may be.
    #[cfg(target_arch = "x86_64")]
    fn load(&mut self) {
        if self.fcw & 0x3f != 0x3f || self.fsw & 0x80 != 0 {
            return;
        }
        let words = [u32::from(self.fcw), u32::from(self.fsw), u32::from(self.ftw), 0, 0, 0, 0];
        let mut image = Image { words, regs: [[0; 10]; 8] };
        for (i, bytes) in image.regs.iter_mut().enumerate() {
            bytes.copy_from_slice(&self.fpr[usize::from(self.fsw >> 11) + i & 7].to_le_bytes()[..10]);
        }
        // SAFETY: see the module.
        unsafe { std::arch::asm!("frstor [{}]", in(reg) &raw const image, options(nostack)) };
        self.x87_live = 1;
    }
}

/// [`CpuState::load`] for leaves.
#[cfg(target_arch = "x86_64")]
pub(super) unsafe extern "sysv64" fn load(st: *mut u8) {
    // SAFETY: a leaf passes the state of the thread that runs it.
    unsafe { super::state(st) }.load();
}
