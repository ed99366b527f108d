//! Engines that run the IR.
#![deny(unsafe_code)]

pub mod abi;
pub mod cranelift;
pub mod interp;
mod polls;
pub mod quick;
pub mod wasm;
