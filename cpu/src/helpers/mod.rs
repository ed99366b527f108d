//! Helpers: functions that IR programs call by index for what the IR has no opcode for.
//!
//! One table per file ([`int`], [`sse`], [`x87`], [`crypto`]), concatenated here into [`SIGS`] (what the
//! IR may know) and [`FNS`] (where they are). A helper's index is a constant in [`id`]; all tables
//! are compile-time constants, so index, signature and address cannot disagree.
//!
//! To add one: write `unsafe extern "C" fn name(st: *mut u8, …)` and a row in the file's
//! `helpers!` table: `NAME "text" Variant(name) Effects raises;`. `Variant` is the [`HelperFn`]
//! shape: `I2` takes two `u64`; `I1V2_V` takes one `u64`, two vectors and gives a vector; `_R`
//! gives a `u64`.
//!
//! # Safety
//! A helper is called with a pointer to the running thread's `CpuState`, which nothing else
//! borrows during the call; other threads touch its `poll` word only, atomically.
#![allow(unsafe_code)]
#![allow(improper_ctypes_definitions)] // __m128i: both sides are this compiler

use crate::CpuState;
pub use evm_ir::HelperFn;
use evm_ir::HelperSig;
use evm_memory::{Fault, Mem};
pub use x87::PC as X87_PC;

/// A file's table: `NAME "text" Variant(function) Effects raises;`. `BASE` is the index of the first.
macro_rules! helpers {
    ($base:expr; $( $name:ident $text:literal $shape:ident($f:expr) $effects:ident $raises:literal; )*) => {
        /// Index of this file's first helper.
        pub(super) const BASE: usize = $base;
        /// Indices.
        #[allow(missing_docs)]
        pub mod id {
            #[allow(dead_code, non_camel_case_types, clippy::upper_case_acronyms)]
            enum N { $( $name ),* }
            $( pub const $name: u16 = (super::BASE + N::$name as usize) as u16; )*
        }
        /// This file's functions.
        pub(super) const FNS: &[$crate::helpers::HelperFn] = &[ $( $crate::helpers::HelperFn::$shape($f) ),* ];
        /// This file's signatures.
        pub(super) const SIGS: &[evm_ir::HelperSig] = &[ $( {
            let (ints, vecs, ret) = $crate::helpers::HelperFn::$shape($f).shape();
            evm_ir::HelperSig { name: $text, ints, vecs, ret, effects: evm_ir::Effects::$effects, raises: $raises, leaf: Some(super::leaf::find) }
        } ),* ];
    };
}

mod crypto;
mod fpstate;
mod int;
#[cfg_attr(not(target_arch = "x86_64"), path = "leaf_none.rs")]
mod leaf;
mod sse;
#[cfg(test)]
mod testing;
mod unit;
mod x87;
mod x87_live;

/// Helper indices.
pub mod id {
    pub use super::crypto::id::*;
    pub use super::fpstate::id::*;
    pub use super::int::id::*;
    pub use super::sse::id::*;
    pub use super::x87::id::*;
}

const N: usize = fpstate::BASE + fpstate::FNS.len();
const PARTS_S: [&[HelperSig]; 5] = [int::SIGS, sse::SIGS, x87::SIGS, crypto::SIGS, fpstate::SIGS];
const PARTS_F: [&[HelperFn]; 5] = [int::FNS, sse::FNS, x87::FNS, crypto::FNS, fpstate::FNS];

macro_rules! concat_tables {
    ($t:ty, $parts:ident) => {{
        let mut out: [$t; N] = [$parts[0][0]; N];
        let (mut p, mut n) = (0, 0);
        while p < $parts.len() {
            let mut i = 0;
            while i < $parts[p].len() {
                out[n] = $parts[p][i];
                n += 1;
                i += 1;
            }
            p += 1;
        }
        assert!(n == N);
        out
    }};
}

/// Signatures of all helpers, by index.
pub static SIGS: [HelperSig; N] = concat_tables!(HelperSig, PARTS_S);
/// Functions of all helpers, by index.
pub static FNS: [HelperFn; N] = concat_tables!(HelperFn, PARTS_F);

/// Addresses of all helpers, and behind them of their leaves (see [`evm_ir::FindLeaf`]), for a table that compiled code
/// calls through.
pub fn addresses() -> impl Iterator<Item = u64> {
    FNS.iter().map(HelperFn::addr).chain(leaf::addresses())
}

/// The state behind a helper's first argument.
///
/// # Safety
/// `st` is what an engine passes to a helper (see the module), and the result is not used after the call.
pub(crate) unsafe fn state<'a>(st: *mut u8) -> &'a mut CpuState {
    // SAFETY: by the contract.
    unsafe { &mut *st.cast::<CpuState>() }
}

impl CpuState {
    /// The guest memory this state's thread sees.
    pub fn mem(&self) -> Mem {
        // SAFETY: the runtime sets base and limit to those of the arena that the thread holds.
        unsafe { Mem::new(self.mem_base, self.mem_limit) }
    }
    /// Ask the engine to raise an exception ([`crate::exc`]) at the current instruction.
    pub fn raise(&mut self, code: u32, arg: u64) {
        self.pending = u64::from(code) + 1;
        self.pending_arg = arg;
    }
    /// Ask the engine to raise a memory fault.
    pub fn raise_fault(&mut self, f: Fault) {
        self.raise(if f.write { crate::exc::PF_WRITE } else { crate::exc::PF }, f.addr);
    }
}
