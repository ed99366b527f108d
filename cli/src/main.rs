//! The `evm` command: what a person types, turned into calls of `evm-runtime`.
//!
//! It knows no more of a job than its options; see the book's chapter "The command" for what they promise.
#![deny(unsafe_code)]

mod args;
mod cache;
mod inspect;
mod lift;
mod profile;
mod run;
mod starts;
mod stats;
mod units;
mod wasm;

use args::{Cli, Command, Completions};
use clap::{CommandFactory, Parser};
use std::process::ExitCode;

/// Exit statuses of `evm` itself; everything else is the guest's.
pub mod status {
    /// A limit ended the job, as in timeout(1).
    pub const LIMIT: u8 = 124;
    /// `evm` itself failed: wrong options, a mount that cannot be opened, a bug.
    pub const FAILED: u8 = 125;
    /// The program was found and cannot be run.
    pub const NOT_RUNNABLE: u8 = 126;
    /// The program was not found.
    pub const NOT_FOUND: u8 = 127;
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let failed = e.use_stderr();
            // Nothing can be said if the terminal is gone.
            let _ = e.print();
            return if failed { status::FAILED.into() } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Run(o) => run::run(&o),
        Command::Inspect(o) => inspect::inspect(&o),
        Command::Cache(o) => cache::cache(&o),
        Command::Lift(o) => lift(&o),
        Command::Completions(o) => completions(&o),
    };
    result.unwrap_or_else(|e| {
        eprintln!("evm: {e:#}");
        match e.downcast_ref::<run::Failure>() {
            Some(f) => f.status().into(),
            None => status::FAILED.into(),
        }
    })
}

/// `evm lift`: the kind of file follows from its name.
fn lift(o: &args::Lift) -> anyhow::Result<ExitCode> {
    match o.output.extension().and_then(|e| e.to_str()) {
        Some("wasm") => wasm::lift(o).map(|()| ExitCode::SUCCESS),
        _ => lift::lift(o),
    }
}

fn completions(o: &Completions) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(o.shell, &mut Cli::command(), "evm", &mut script);
    std::io::Write::write_all(&mut std::io::stdout(), &script)?;
    Ok(ExitCode::SUCCESS)
}
