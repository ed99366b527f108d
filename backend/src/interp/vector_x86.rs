//! Packed floating-point instructions on the CPU.
//!
//! # Safety
//! The assembly blocks work on registers only.
#![allow(unsafe_code)]

use super::cast;
use std::arch::asm;
use std::arch::x86_64::__m128i;

macro_rules! fp {
    ($ins:literal) => {
        |a, b| {
            let (mut x, y): (std::arch::x86_64::__m128i, std::arch::x86_64::__m128i) = (cast(a), cast(b));
            // SAFETY: registers only.
            unsafe { std::arch::asm!(concat!($ins, " {x}, {y}"), x = inout(xmm_reg) x, y = in(xmm_reg) y, options(nomem, nostack, preserves_flags)) };
            cast(x)
        }
    };
}
pub(super) fn cmps<const P: u8>(a: u128, b: u128) -> u128 {
    let (mut x, y): (__m128i, __m128i) = (cast(a), cast(b));
    // SAFETY: registers only.
    unsafe {
        asm!("cmpps {x}, {y}, {p}", x = inout(xmm_reg) x, y = in(xmm_reg) y, p = const P,
            options(nomem, nostack, preserves_flags));
    }
    cast(x)
}
pub(super) fn cmpd<const P: u8>(a: u128, b: u128) -> u128 {
    let (mut x, y): (__m128i, __m128i) = (cast(a), cast(b));
    // SAFETY: registers only.
    unsafe {
        asm!("cmppd {x}, {y}, {p}", x = inout(xmm_reg) x, y = in(xmm_reg) y, p = const P,
            options(nomem, nostack, preserves_flags));
    }
    cast(x)
}
