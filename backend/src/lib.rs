//! Engines that run the IR.
#![deny(unsafe_code)]

pub mod abi;
#[cfg(feature = "native")]
mod asm;
#[cfg(feature = "native")]
pub mod cranelift;
#[cfg(feature = "native")]
pub mod direct;
pub mod interp;
#[cfg(feature = "native")]
mod polls;
#[cfg(feature = "native")]
pub mod quick;
#[cfg(feature = "native")]
pub mod wasm;
