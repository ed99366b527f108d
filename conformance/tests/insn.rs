//! Instructions compared with the CPU, one test a table and engine.

use evm_conformance::apps::Place;
use evm_conformance::harness::{self, Trial};
use evm_conformance::{exec, insn};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for engine in exec::ENGINES {
        for g in insn::groups() {
            trials.push(Trial::new(format!("{engine}::{}", g.name), move || {
                let wrong = insn::compare(&Place::ready_for(g.arch)?, g, engine)?;
                anyhow::ensure!(wrong.is_empty(), "{} instructions differ:\n{}", wrong.len(), wrong.join("\n"));
                Ok(())
            }));
        }
    }
    harness::main(trials)
}
