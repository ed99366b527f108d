//! The virtual x86 CPU: its architectural state, the layout of that state as IR slots, the lazy
//! condition codes, the CPU model that CPUID shows, and the helpers that IR programs call.
#![deny(unsafe_code)]

pub mod bcd;
pub mod cc;
pub mod helpers;
pub mod model;
pub mod segment;
mod state;
pub mod xsave;

pub use helpers::id as helper;
pub use state::*;
