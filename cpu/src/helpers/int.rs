//! Helpers of the integer instructions: flags, wide division, strings, CPUID, time.
//!
//! # Safety
//! See the parent module.
#![allow(unsafe_code)]

use super::state;
use crate::{cc, exc};

helpers! { 0;
    CC_FLAGS "cc_flags" I4_R(cc_flags) Pure false;
    GET_SEG "get_seg" I1_R(get_seg) Private false;
    SET_SEG "set_seg" I2(set_seg) All true;
}

/// The flags that a lazy thunk stands for.
unsafe extern "sysv64" fn cc_flags(_st: *mut u8, op: u64, a: u64, b: u64, c: u64) -> u64 {
    cc::flags(op, a, b, c)
}

/// Selector of segment register `n` (es cs ss ds fs gs).
unsafe extern "sysv64" fn get_seg(st: *mut u8, n: u64) -> u64 {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    u64::from(st.segs.get(n as usize).copied().unwrap_or(0))
}

/// MOV to a segment register: null and the flat user selectors are accepted, others are #GP.
unsafe extern "sysv64" fn set_seg(st: *mut u8, n: u64, sel: u64) {
    // SAFETY: the engine's pointer.
    let st = unsafe { state(st) };
    let null_ok = n != 2;
    match sel {
        0..=3 if null_ok => {}
        0x2b => {}
        _ => return st.raise(exc::GP, sel & 0xfffc),
    }
    match n {
        4 => st.fs_base = 0,
        5 => st.gs_base = 0,
        _ => {}
    }
    if let Some(s) = st.segs.get_mut(n as usize) {
        *s = sel as u16;
    }
}
