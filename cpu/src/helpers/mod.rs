//! Helpers: functions that IR programs call by index for what the IR has no opcode for.
//!
//! One table per file ([`int`], [`sse`], [`x87`], [`crypto`]), concatenated here into [`SIGS`] (what the
//! IR may know) and [`FNS`] (where they are). A helper's index is a constant in [`id`]; all tables
//! are compile-time constants, so index, signature and address cannot disagree.
//!
//! To add one: write `unsafe extern "sysv64" fn name(st: *mut u8, …)` and a row in the file's
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
use evm_ir::{HelperSig, Type};
use evm_memory::{Fault, Mem};
use std::arch::x86_64::__m128i as V;

macro_rules! shapes {
    ($( $name:ident ($i:literal, $v:literal, $ret:expr) ($($arg:ty),*) -> $r:ty; )*) => {
        /// A helper's address with its type: how many `u64`, how many vectors, which result.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs, non_camel_case_types)]
        pub enum HelperFn { $( $name(unsafe extern "sysv64" fn(*mut u8 $(, $arg)*) -> $r), )* }
        impl HelperFn {
            /// Numbers of integer and vector parameters, and the result.
            pub const fn shape(&self) -> (u8, u8, Option<Type>) {
                match self { $( HelperFn::$name(_) => ($i, $v, $ret), )* }
            }
            /// Host address.
            pub fn addr(&self) -> u64 {
                match self { $( HelperFn::$name(f) => *f as usize as u64, )* }
            }
        }
    };
}

shapes! {
    I0 (0, 0, None) () -> ();
    I0_R (0, 0, Some(Type::I64)) () -> u64;
    I0_V (0, 0, Some(Type::V128)) () -> V;
    I0V1 (0, 1, None) (V) -> ();
    I0V1_R (0, 1, Some(Type::I64)) (V) -> u64;
    I0V1_V (0, 1, Some(Type::V128)) (V) -> V;
    I0V2 (0, 2, None) (V, V) -> ();
    I0V2_R (0, 2, Some(Type::I64)) (V, V) -> u64;
    I0V2_V (0, 2, Some(Type::V128)) (V, V) -> V;
    I0V3 (0, 3, None) (V, V, V) -> ();
    I0V3_R (0, 3, Some(Type::I64)) (V, V, V) -> u64;
    I0V3_V (0, 3, Some(Type::V128)) (V, V, V) -> V;
    I1 (1, 0, None) (u64) -> ();
    I1_R (1, 0, Some(Type::I64)) (u64) -> u64;
    I1_V (1, 0, Some(Type::V128)) (u64) -> V;
    I1V1 (1, 1, None) (u64, V) -> ();
    I1V1_R (1, 1, Some(Type::I64)) (u64, V) -> u64;
    I1V1_V (1, 1, Some(Type::V128)) (u64, V) -> V;
    I1V2 (1, 2, None) (u64, V, V) -> ();
    I1V2_R (1, 2, Some(Type::I64)) (u64, V, V) -> u64;
    I1V2_V (1, 2, Some(Type::V128)) (u64, V, V) -> V;
    I1V3 (1, 3, None) (u64, V, V, V) -> ();
    I1V3_R (1, 3, Some(Type::I64)) (u64, V, V, V) -> u64;
    I1V3_V (1, 3, Some(Type::V128)) (u64, V, V, V) -> V;
    I2 (2, 0, None) (u64, u64) -> ();
    I2_R (2, 0, Some(Type::I64)) (u64, u64) -> u64;
    I2V1 (2, 1, None) (u64, u64, V) -> ();
    I2V1_R (2, 1, Some(Type::I64)) (u64, u64, V) -> u64;
    I2V1_V (2, 1, Some(Type::V128)) (u64, u64, V) -> V;
    I2V2 (2, 2, None) (u64, u64, V, V) -> ();
    I2V2_R (2, 2, Some(Type::I64)) (u64, u64, V, V) -> u64;
    I2V2_V (2, 2, Some(Type::V128)) (u64, u64, V, V) -> V;
    I2V3 (2, 3, None) (u64, u64, V, V, V) -> ();
    I2V3_R (2, 3, Some(Type::I64)) (u64, u64, V, V, V) -> u64;
    I2V3_V (2, 3, Some(Type::V128)) (u64, u64, V, V, V) -> V;
    I3 (3, 0, None) (u64, u64, u64) -> ();
    I3_R (3, 0, Some(Type::I64)) (u64, u64, u64) -> u64;
    I3V1 (3, 1, None) (u64, u64, u64, V) -> ();
    I3V1_R (3, 1, Some(Type::I64)) (u64, u64, u64, V) -> u64;
    I3V1_V (3, 1, Some(Type::V128)) (u64, u64, u64, V) -> V;
    I3V2 (3, 2, None) (u64, u64, u64, V, V) -> ();
    I3V2_R (3, 2, Some(Type::I64)) (u64, u64, u64, V, V) -> u64;
    I3V2_V (3, 2, Some(Type::V128)) (u64, u64, u64, V, V) -> V;
    I3V3 (3, 3, None) (u64, u64, u64, V, V, V) -> ();
    I3V3_R (3, 3, Some(Type::I64)) (u64, u64, u64, V, V, V) -> u64;
    I3V3_V (3, 3, Some(Type::V128)) (u64, u64, u64, V, V, V) -> V;
    I4 (4, 0, None) (u64, u64, u64, u64) -> ();
    I4_R (4, 0, Some(Type::I64)) (u64, u64, u64, u64) -> u64;
    I4V1 (4, 1, None) (u64, u64, u64, u64, V) -> ();
    I4V1_R (4, 1, Some(Type::I64)) (u64, u64, u64, u64, V) -> u64;
    I4V1_V (4, 1, Some(Type::V128)) (u64, u64, u64, u64, V) -> V;
    I4V2 (4, 2, None) (u64, u64, u64, u64, V, V) -> ();
    I4V2_R (4, 2, Some(Type::I64)) (u64, u64, u64, u64, V, V) -> u64;
    I4V2_V (4, 2, Some(Type::V128)) (u64, u64, u64, u64, V, V) -> V;
    I4V3 (4, 3, None) (u64, u64, u64, u64, V, V, V) -> ();
    I4V3_R (4, 3, Some(Type::I64)) (u64, u64, u64, u64, V, V, V) -> u64;
    I4V3_V (4, 3, Some(Type::V128)) (u64, u64, u64, u64, V, V, V) -> V;
}

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
            evm_ir::HelperSig { name: $text, ints, vecs, ret, effects: evm_ir::Effects::$effects, raises: $raises }
        } ),* ];
    };
}

mod crypto;
mod int;
mod sse;
mod x87;

/// Helper indices.
pub mod id {
    pub use super::crypto::id::*;
    pub use super::int::id::*;
    pub use super::sse::id::*;
    pub use super::x87::id::*;
}

const N: usize = crypto::BASE + crypto::FNS.len();
const PARTS_S: [&[HelperSig]; 4] = [int::SIGS, sse::SIGS, x87::SIGS, crypto::SIGS];
const PARTS_F: [&[HelperFn]; 4] = [int::FNS, sse::FNS, x87::FNS, crypto::FNS];

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
