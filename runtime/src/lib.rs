//! The JIT runtime: runs a guest program in a virtual Linux on translated code.
//!
//! Terms. A [`Vm`] is one job: a tree of guest processes with its own kernel. Each guest process has
//! an arena (its memory) and a *code space* (its translations); each guest thread is a host thread
//! that executes the *run loop*. The run loop looks a guest pc up in the code space: compiled code is
//! entered through the trampoline, anything else is interpreted a basic block at a time and counted;
//! a count that reaches the threshold asks the [`Engine`] for a compiled region.
//!
//! Signals. From the first job on the host process's handlers of SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP and SIGURG are this library's: faults of guest code are
//! found out there, and SIGURG interrupts guest threads (others ignore it). A program that needs one of them for itself must not run jobs.
//!
//! Invariants:
//! 1. Outside compiled code a thread's `CpuState` is exact. Inside a region only what the region
//!    has spilled is; a region spills everything before it leaves.
//! 2. Compiled code is never written where it is executed: code memory has two mappings.
//! 3. A guest page that translations were made from is either not writable on the host or its
//!    write fault drops those translations before the write happens.
//! 4. Host stack frames between a trampoline and a fault belong to compiled code alone, so that
//!    leaving by the trampoline's landing skips no Rust frame.
#![deny(unsafe_code)]

pub mod ahead;
pub mod cache;
mod code;
mod config;
mod copied;
mod dump;
mod engine;
mod guard;
mod host;
mod lift;
mod profile;
mod stats;
mod thread;
mod vm;
#[cfg(feature = "wasm")]
mod wasm;
mod world;

pub use config::{ClockMode, Config, Dir, EngineKind, Limits, Stream, Sysroot};
pub use engine::Engine;
pub use evm_kernel::errno::Errno;
pub use evm_kernel::kernel::{EndReason, TraceSink};
pub use guard::panic_is_caught;
pub use host::confine::Confinement;
pub use host::direct::supported as copies;
pub use host::flags::host_flags;
pub use lift::{LiftOptions, Lifted, Progress, Surveyed, coverage};
pub use profile::{ImageAt, Profile, Sample, Tier};
pub use stats::Stats;
pub use thread::ABI;
pub use vm::{Handle, Module, Outcome, Vm, exit_status};
