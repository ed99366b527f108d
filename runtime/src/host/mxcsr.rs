//! The host's MXCSR: the guest's while guest code runs, the default in between.
//!
//! # Safety
//! The register is read and written by instructions that touch nothing else but a local. No reserved bit is set; what an unmasked exception
//! raises is served by the fault hook.
#![allow(unsafe_code)]

/// The register.
#[inline]
pub(crate) fn mxcsr() -> u32 {
    let mut v = 0u32;
    // SAFETY: stores the register to a local.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut v, options(nostack, preserves_flags)) };
    v
}

/// Set it.
#[inline]
pub(crate) fn set_mxcsr(v: u32) {
    let v = v & 0xffff;
    // SAFETY: only defined bits are set, so no #GP; unmasked exceptions are served by the fault hook.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const v, options(nostack, preserves_flags)) };
}
