//! The files of cases, and a short run of the instruction fuzzer, on all engines. `EVM_FUZZ_SEED` chooses other cases, and
//! `EVM_FUZZ_SECONDS` more of them.

use evm_conformance::fuzz::{self, Options, state::Features};
use std::path::Path;
use std::time::Duration;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_evm-conformance");

/// Each line of `conformance/insn/cases` is what the CPU makes of it, and every engine.
#[test]
fn cases_of_the_files() {
    let files = fuzz::files::all().expect("files of cases");
    assert!(files.iter().map(|f| f.lines.len()).sum::<usize>() > 3000);
    let mut wrong = vec![];
    for engine in std::iter::once(None).chain(fuzz::engines().into_iter().map(Some)) {
        for f in &files {
            let found = f.wrong(engine, Path::new(PROGRAM)).expect("run");
            wrong.extend(found.into_iter().map(|w| format!("{}: {w}", engine.unwrap_or("CPU"))));
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn random_instructions_are_those_of_the_cpu() {
    for (features, unmask) in [(Features::V2, 2), (Features::V3, 5)] {
        if !fuzz::host_has(features) {
            println!("skipped: this host lacks instructions of {}", features.model());
            continue;
        }
        let seed = number("EVM_FUZZ_SEED", 1);
        println!("{} seed {seed}", features.model());
        let options = Options {
            time: Duration::from_secs(number("EVM_FUZZ_SECONDS", 20) / 2),
            seed,
            engines: fuzz::engines(),
            features,
            only: vec![],
            unmask,
            most: 10,
        };
        let out = fuzz::run(&options, Path::new(PROGRAM)).expect("fuzz");
        assert!(out.is_clean(), "of {} cases differ:\n{}", out.cases, out.show());
        assert!(out.not_made.len() < 20, "no case was made for {:?}", out.not_made);
    }
}
