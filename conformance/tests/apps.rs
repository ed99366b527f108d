//! Application cases, one test a case and engine.

use evm_conformance::apps::{self, Place};
use evm_conformance::harness::{self, Trial};
use evm_conformance::{case, exec, report};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cases = match case::all() {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e:#}");
            return ExitCode::FAILURE;
        }
    };
    let mut trials = Vec::new();
    for engine in exec::ENGINES {
        for c in &cases {
            let c = c.clone();
            trials.push(Trial::new(format!("{engine}::{}", c.name), move || {
                let v = apps::check(&Place::ready()?, &c, engine)?;
                report::keep(&v)?;
                anyhow::ensure!(v.is_expected(), "{}: {}", v.word(), v.why);
                Ok(())
            }));
        }
    }
    harness::main(trials)
}
