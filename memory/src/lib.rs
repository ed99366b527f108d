//! Guest memory: one reserved range of host address space per guest process (the [`Arena`]), with
//! inaccessible guards, and the only code of the project that touches it.
//!
//! Terms: a *guest address* is a `u64` below [`Arena::size`]; its host address is `base + addr`.
//! Pages that the guest has not mapped are `PROT_NONE`. Guest pages are never executable on the
//! host.
//!
//! Invariants:
//! 1. Every access checks `addr + len <= size` before it forms a host address.
//! 2. An access to an unmapped or protected page faults on the host; the instruction that did it is
//!    in the table `evm_extable`, and the handler in [`fault`] resumes it at its landing, so the
//!    caller gets `Err(Fault)` and the process lives.
//! 3. Nothing here hands out a Rust reference to guest memory: other guest threads may write it.
#![deny(unsafe_code)]

mod access;
mod arena;
pub mod fault;
pub mod perm;

pub use access::{Mem, Scalar};
pub use arena::{Arena, PAGE, Prot, pagemap};

/// A guest memory access that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("guest memory fault at {addr:#x} ({})", if *.write { "write" } else { "read" })]
pub struct Fault {
    /// Guest address of the access, or where it crosses into the page that failed.
    pub addr: u64,
    /// Whether it was a write.
    pub write: bool,
}
