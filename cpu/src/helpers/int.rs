//! Helpers of the integer instructions: flags, wide division, strings, CPUID, time.
//!
//! # Safety
//! See the parent module.
#![allow(unsafe_code)]

use super::state;
use crate::cc;

helpers! { 0;
    CC_FLAGS "cc_flags" I4_R(cc_flags) Pure false;
}

/// The flags that a lazy thunk stands for.
unsafe extern "sysv64" fn cc_flags(_st: *mut u8, op: u64, a: u64, b: u64, c: u64) -> u64 {
    cc::flags(op, a, b, c)
}
