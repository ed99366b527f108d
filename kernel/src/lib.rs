//! The virtual Linux: serves the system calls of a tree of guest processes, in process.
//!
//! Terms. A [`Task`](task::Task) is a guest thread as its host thread owns it; what other threads may look at or change
//! is its [`Thread`](process::Thread). A [`Process`](process::Process) is a thread group. The [`Kernel`](kernel::Kernel) is
//! one job: the process table, clocks, limits and counters. The runtime is behind the trait [`Host`](kernel::Host).
//!
//! Invariants:
//! 1. Nothing a guest does reaches the host except through the file systems, descriptors and clocks it was given.
//! 2. No lock of the kernel is held while a thread sleeps or touches guest memory that may block.
//! 3. Lock order: process table, then a process's relations, then its signal state, then a thread's pending signals.
#![deny(unsafe_code)]

// Where no Linux is underneath, the guest's constants come from a crate of ours under these names: see there.
#[cfg(target_family = "wasm")]
extern crate evm_abi as libc;
#[cfg(target_family = "wasm")]
extern crate evm_abi as linux_raw_sys;
#[cfg(target_family = "wasm")]
extern crate evm_abi as rustix;

pub mod arch;
pub mod clock;
pub mod clone;
pub mod errno;
mod exec;
mod exit;
pub mod file;
pub mod fs;
mod futex;
pub mod io;
pub mod ipc;
pub mod kernel;
pub mod limits;
pub mod mm;
pub mod process;
mod random;
pub mod signal;
pub mod sys;
pub mod task;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod timers;
pub mod wait;
mod watchdog;

pub use clone::Program;
