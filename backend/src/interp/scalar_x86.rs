//! Scalar floating-point instructions on the CPU.
//!
//! # Safety
//! The assembly blocks work on registers only.
#![allow(unsafe_code)]

use std::arch::asm;

macro_rules! fp2 {
    ($ins:literal, $t:ty, $b:ty) => {
        |a, b| {
            let mut x = <$t>::from_bits(a as $b);
            let y = <$t>::from_bits(b as $b);
            // SAFETY: registers only.
            unsafe { asm!(concat!($ins, " {x}, {y}"), x = inout(xmm_reg) x, y = in(xmm_reg) y, options(nomem, nostack, preserves_flags)) };
            u64::from(x.to_bits())
        }
    };
}
macro_rules! cvt {
    ($ins:literal, $x:expr => $rc:ident, $init:expr) => {{
        let mut r = $init;
        // SAFETY: registers only.
        unsafe { asm!(concat!($ins, " {r}, {x}"), x = in($rc) $x, r = inout(xmm_reg) r, options(nomem, nostack, preserves_flags)) };
        u64::from(r.to_bits())
    }};
    ($ins:literal, $x:expr, $mod:literal, $r:ty) => {{
        let r: $r;
        // SAFETY: registers only.
        unsafe { asm!(concat!($ins, " {r", $mod, "}, {x}"), x = in(xmm_reg) $x, r = lateout(reg) r, options(nomem, nostack, preserves_flags)) };
        u64::from(r)
    }};
}

macro_rules! compare {
    ($quiet:ident $signal:ident $t:ty, |$x:ident| $of:expr, $ins:literal) => {
        /// As UCOMISx compares: only signalling NaNs are invalid.
        pub(super) fn $quiet<const P: u8>(a: u64, b: u64) -> u64 {
            let of = |$x: u64| -> $t { $of };
            let (x, y) = (of(a), of(b));
            let unordered = || x.partial_cmp(&y).is_none();
            u64::from(match P {
                0 => x == y,
                1 => x < y,
                2 => x <= y,
                3 => unordered(),
                4 => x != y,
                5 => unordered() || x >= y,
                6 => unordered() || x > y,
                _ => !unordered(),
            })
        }
        /// As COMISx compares: every NaN is invalid.
        pub(super) fn $signal<const P: u8>(a: u64, b: u64) -> u64 {
            let of = |$x: u64| -> $t { $of };
            // SAFETY: registers only.
            unsafe {
                asm!(concat!($ins, " {x}, {y}"), x = in(xmm_reg) of(a), y = in(xmm_reg) of(b), options(nomem, nostack));
            }
            $quiet::<P>(a, b)
        }
    };
}
compare!(cmp32 signal32 f32, |x| f32::from_bits(x as u32), "comiss");
compare!(cmp64 signal64 f64, |x| f64::from_bits(x), "comisd");
