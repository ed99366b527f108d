//! Conformance tests of the whole: the same programs run natively and under `evm`, on each engine, and their results
//! are compared byte by byte.
//!
//! * [`root`] makes the guest root: Debian packages unpacked below `target/`, without touching the host.
//! * [`exec`] runs a command line natively in that root, or under `evm` with it as `--sysroot`.
//! * [`case`](mod@case) reads the table of cases (`apps/*.toml`), [`inputs`] makes their input files from a seed.
//! * [`apps`] runs a case and compares; [`report`] writes the table for the book.
//! * [`insn`] writes programs that execute each instruction with random operands and print what they did.
//! * [`fuzz`] compares random instructions on random states with the CPU.
//! * [`coverage`] reports how much of the instruction set agrees with the CPU.
//! * [`mod@bench`] times programs and kernels natively, under `evm` and under qemu-user; [`bench_report`] writes it for the book.
//! * [`harness`] shows cases to `cargo test` and `cargo nextest` as single tests.
//!
//! What is known to fail stands in `known-failures.txt` with a reason; an unexpected pass fails, too.
#![deny(unsafe_code)]

pub mod apps;
pub mod bench;
pub mod bench_report;
pub mod case;
pub mod coverage;
pub mod exec;
pub mod fuzz;
pub mod harness;
pub mod host;
pub mod hostile;
pub mod inputs;
pub mod insn;
pub mod report;
pub mod root;

use std::path::{Path, PathBuf};

/// The workspace's folder.
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// Where the translations of conformance runs are kept.
pub fn translations() -> PathBuf {
    target().join("translations")
}

/// Cargo's target folder.
pub fn target() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(t) => workspace().join(t),
        None => workspace().join("target"),
    }
}
