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
//!    On WebAssembly the check is made before the access, in a table of the pages (`wasm`).
//! 3. Nothing here hands out a Rust reference to guest memory: other guest threads may write it.
#![deny(unsafe_code)]

#[cfg(not(target_family = "wasm"))]
mod access;
#[cfg(not(target_family = "wasm"))]
mod arena;
#[cfg(not(target_family = "wasm"))]
pub mod fault;
pub mod perm;
mod values;
#[cfg(target_family = "wasm")]
mod wasm;

#[cfg(not(target_family = "wasm"))]
pub use access::Mem;
#[cfg(not(target_family = "wasm"))]
pub use arena::{Arena, LIMIT_AT, pagemap};
pub use values::Scalar;
#[cfg(target_family = "wasm")]
pub use wasm::{Arena, Mem, READ, WRITE, set_write_hook};

/// Page size of guest and host.
pub const PAGE: u64 = 4096;

/// Host protection of guest pages. Execution is the translator's matter: executable guest pages are
/// readable on the host, nothing more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Prot {
    /// Readable (or executable).
    pub read: bool,
    /// Writable.
    pub write: bool,
}

impl Prot {
    /// No access.
    pub const NONE: Prot = Prot { read: false, write: false };
    /// Read only.
    pub const R: Prot = Prot { read: true, write: false };
    /// Read and write.
    pub const RW: Prot = Prot { read: true, write: true };
    /// As bits of [`perm`].
    pub fn perm(self) -> u8 {
        if self.write { perm::READ | perm::WRITE } else { u8::from(self.read) * perm::READ }
    }
}

/// A guest memory access that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("guest memory fault at {addr:#x} ({})", if *.write { "write" } else { "read" })]
pub struct Fault {
    /// Guest address of the access, or where it crosses into the page that failed.
    pub addr: u64,
    /// Whether it was a write.
    pub write: bool,
}
