//! Application cases, one test a case and engine: all but the heavy ones as `evm run` does it by default, and the quick
//! groups on each engine alone. `evm-conformance apps` runs every case on every engine.

use evm_conformance::apps::{self, Place};
use evm_conformance::harness::{self, Trial};
use evm_conformance::{case, exec, report};
use std::process::ExitCode;

/// Groups whose cases end within seconds on the slowest engine.
const QUICK_GROUPS: &[&str] = &[
    "coreutils and friends",
    "system calls",
    "system calls of 32-bit programs",
    "memory order",
    "numerics",
    "numerics of 32-bit programs",
];

fn main() -> ExitCode {
    let cases = match case::all() {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for engine in exec::engines() {
        for c in cases
            .iter()
            .filter(|c| !c.heavy && c.runs_here() && (engine == "jit" || QUICK_GROUPS.contains(&c.group.as_str())))
        {
            let c = c.clone();
            trials.push(Trial::new(format!("{engine}::{}", c.name), move || {
                let v = apps::check(&Place::ready_for(c.arch)?, &c, engine)?;
                report::keep(&v)?;
                anyhow::ensure!(v.is_expected(), "{}: {}", v.word(), v.why);
                Ok(())
            }));
        }
    }
    harness::main(trials)
}
