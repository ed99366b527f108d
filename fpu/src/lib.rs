//! Floating-point arithmetic of x86 in portable code: results, NaNs and exception flags as the CPU has them, for hosts that
//! have no such unit (WebAssembly). On x86-64 it is compiled for the tests alone, which compare it with the CPU.
//!
//! [`number`] has unpacked numbers and the rounding, [`sse`] the operations of SSE and AVX under a virtual MXCSR,
//! [`x87`] those of the x87 unit.
#![forbid(unsafe_code)]

pub mod number;
pub mod sse;
mod transcend;
pub mod x87;
