//! The conformance runner; see the library's documentation.
#![deny(unsafe_code)]

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};
use evm_conformance::apps::{self, Place};
use evm_conformance::{bench, bench_report, case, coverage, exec, fuzz, insn, report, root};
use std::process::ExitCode;

/// Conformance tests of EVM: the same programs natively and under evm.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make the guest root below target/
    Setup,
    /// Run application cases and show the table
    Apps(Apps),
    /// Time programs natively, under evm and under qemu-user
    Bench(Bench),
    /// Run a command line natively in the guest root
    Native {
        /// What to run
        #[arg(required = true, trailing_var_arg = true)]
        command: Vec<String>,
    },
    /// Show what cases do natively
    Show {
        /// Names of cases
        names: Vec<String>,
    },
    /// Compare random instructions on random states with the CPU
    Fuzz(Fuzz),
    /// Run the cases of conformance/insn/cases on the CPU and the engines
    Cases(Cases),
    /// Run a program of cases in an engine
    #[command(hide = true)]
    FuzzRun {
        #[arg(long)]
        engine: String,
        #[arg(long)]
        model: String,
        file: std::path::PathBuf,
    },
    /// Report, by groups of instructions, how many forms are lifted and agreed with the CPU
    Report(Coverage),
    /// Compare instructions with the CPU
    Insn {
        /// One engine only
        #[arg(long)]
        engine: Option<String>,
        /// Groups, all if none
        groups: Vec<String>,
    },
}

#[derive(Args)]
struct Fuzz {
    /// How long
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seed; a new one if not given
    #[arg(long)]
    seed: Option<u64>,
    /// One engine only
    #[arg(long)]
    engine: Option<String>,
    /// CPU model: v2 or v3
    #[arg(long, default_value = "v3")]
    features: String,
    /// Cases with unmasked floating exceptions, of a hundred
    #[arg(long, default_value_t = 5)]
    unmask: u64,
    /// Stop at this many differences
    #[arg(long, default_value_t = 40)]
    most: usize,
    /// Append what is found to conformance/insn/cases/found.txt
    #[arg(long)]
    add: bool,
    /// Only instructions with one of these in their names
    only: Vec<String>,
}

#[derive(Args)]
struct Cases {
    /// One engine only
    #[arg(long)]
    engine: Option<String>,
    /// Write the states that the CPU gives into the files
    #[arg(long)]
    bless: bool,
    /// Make the files of the opcode maps anew, with so many cases of each form
    #[arg(long, conflicts_with_all = ["bless", "engine", "files"])]
    make: Option<usize>,
    /// Seed of new cases; another one each time if not given
    #[arg(long, requires = "make")]
    seed: Option<u64>,
    /// Files, without `.txt`; all if none
    files: Vec<String>,
}

#[derive(Args)]
struct Coverage {
    /// How long to run random cases
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Seed; a new one if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Write book/src/coverage.md
    #[arg(long)]
    write_book: bool,
}

#[derive(Args)]
struct Bench {
    /// Runs of each
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Kernels instead of programs
    #[arg(long)]
    kernels: bool,
    /// Under qemu-user as well
    #[arg(long)]
    qemu: bool,
    /// Print JSON instead of lines
    #[arg(long)]
    json: bool,
    /// An option of `evm run` (may be repeated)
    #[arg(long = "evm", allow_hyphen_values = true)]
    evm: Vec<String>,
    /// Write the table, the plot and their JSON to book/src/performance/
    #[arg(long)]
    write_book: bool,
    /// Names of programs or kernels, or their beginnings; all if none
    names: Vec<String>,
}

#[derive(Args)]
struct Apps {
    /// One engine only
    #[arg(long)]
    engine: Option<String>,
    /// Write book/src/applications.md from the results
    #[arg(long)]
    write_book: bool,
    /// List the cases
    #[arg(long)]
    list: bool,
    /// Stop a case after this many seconds instead of its own limit
    #[arg(long)]
    timeout: Option<u64>,
    /// Names of cases, or parts of them; all if none
    names: Vec<String>,
}

fn main() -> ExitCode {
    match go() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("evm-conformance: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn engines(one: Option<&str>) -> Vec<&str> {
    one.map_or_else(|| exec::ENGINES.to_vec(), |e| vec![e])
}

fn go() -> Result<bool> {
    match Cli::parse().command {
        Command::Setup => {
            for arch in [root::Arch::Amd64, root::Arch::I386] {
                println!("{}", root::setup(arch)?.root.display());
            }
            Ok(true)
        }
        Command::Native { command } => {
            let guest = root::setup(root::Arch::Amd64)?;
            let here = std::env::current_dir()?;
            let out = exec::Native { work: Some(&here), ..exec::Native::new(&guest) }
                .command(&command)
                .run(std::time::Duration::from_secs(3600))?;
            println!("{}", out.describe());
            Ok(out.status == 0)
        }
        Command::Show { names } => {
            for c in case::all()?.iter().filter(|c| names.contains(&c.name)) {
                let guest = root::setup(c.arch)?;
                let e = apps::native_in(&guest, c)?;
                println!("{}: {}", c.name, e.show());
            }
            Ok(true)
        }
        Command::Apps(o) => run_apps(&o),
        Command::Bench(o) => run_bench(&o),
        Command::Fuzz(o) => run_fuzz(&o),
        Command::Cases(o) => run_cases(&o),
        Command::Report(o) => run_coverage(&o),
        Command::FuzzRun { engine, model, file } => fuzz::run::run_image(&file, &engine, &model),
        Command::Insn { engine, groups } => {
            let mut good = true;
            for engine in engines(engine.as_deref()) {
                for g in insn::groups().iter().filter(|g| groups.is_empty() || groups.iter().any(|n| n == g.name)) {
                    let wrong = insn::compare(&Place::ready_for(g.arch)?, g, engine)?;
                    println!("{:6} {:12} {}", engine, g.name, if wrong.is_empty() { "equal" } else { "DIFFERS" });
                    for w in &wrong {
                        println!("    {w}");
                    }
                    good &= wrong.is_empty();
                }
            }
            Ok(good)
        }
    }
}

fn run_apps(o: &Apps) -> Result<bool> {
    let mut cases = case::all()?;
    cases.retain(case::Case::runs_here);
    cases.retain(|c| o.names.is_empty() || o.names.iter().any(|n| c.name == *n || c.group == *n));
    ensure!(!cases.is_empty(), "no case of that name; --list shows them");
    if o.list {
        for c in &cases {
            println!("{:24} {:16} {}", c.name, c.group, c.line().lines().next().unwrap_or_default());
        }
        return Ok(true);
    }
    let mut good = true;
    let mut passed = 0;
    let mut total = 0;
    for c in &mut cases {
        if let Some(t) = o.timeout {
            c.timeout = t;
        }
        let place = Place::ready_for(c.arch)?;
        let want = apps::native(&place, c)?;
        for engine in engines(o.engine.as_deref()) {
            let v = apps::on_engine(&place, c, engine, &want)?;
            println!("{:24} {engine:6} {:8.2} s native {:8.2} s  {}", v.case, v.seconds, v.native_seconds, v.word());
            if !v.pass {
                for l in v.why.lines() {
                    println!("    {l}");
                }
            }
            total += 1;
            passed += usize::from(v.pass);
            good &= v.is_expected();
            report::keep(&v)?;
        }
    }
    println!("{passed} of {total} equal to native");
    if o.write_book {
        let file = evm_conformance::workspace().join("book/src/applications.md");
        std::fs::write(&file, report::markdown(&report::kept()?))?;
        println!("wrote {}", file.display());
    }
    Ok(good)
}

fn run_bench(o: &Bench) -> Result<bool> {
    let options = bench::Options { rounds: o.rounds, qemu: o.qemu, names: o.names.clone(), evm: o.evm.clone() };
    let place = Place::ready()?;
    let mut each = |t: &bench::Times| {
        if !o.json {
            println!("{}", bench_report::line(t));
        }
    };
    let (name, title, report) = if o.kernels {
        ("kernels", "Kernels compiled by gcc -O2", bench::kernels(&place, &options, &mut each)?)
    } else {
        ("applications", "Programs of Debian 12", bench::applications(&place, &options, &mut each)?)
    };
    let json = serde_json::to_string_pretty(&report)?;
    if o.json {
        println!("{json}");
    } else if let Some(m) = bench_report::mean(&report, |t| t.evm) {
        println!("geometric mean: {m:.3} times native");
    }
    if o.write_book {
        let folder = evm_conformance::workspace().join("book/src/performance");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name).with_extension("json"), json + "\n")?;
        std::fs::write(folder.join(name).with_extension("md"), bench_report::markdown(&report))?;
        std::fs::write(folder.join(name).with_extension("svg"), bench_report::svg(&report, title))?;
    }
    report.left_out.iter().for_each(|why| eprintln!("left out: {why}"));
    let good = report.cases.iter().all(|t| t.evm.is_some() && t.errors.is_empty());
    Ok(good && report.left_out.is_empty())
}

fn seed(given: Option<u64>) -> Result<u64> {
    Ok(match given {
        Some(s) => s,
        None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(),
    })
}

fn run_coverage(o: &Coverage) -> Result<bool> {
    let seed = seed(o.seed)?;
    println!("seed {seed}");
    let r = coverage::make(std::time::Duration::from_secs(o.seconds), seed, &std::env::current_exe()?)?;
    let page = r.markdown();
    print!("{page}");
    for w in r.wrong() {
        println!("{w}");
    }
    if o.write_book {
        std::fs::write(evm_conformance::workspace().join("book/src/coverage.md"), page)?;
    }
    Ok(r.is_good())
}

/// An engine of the fuzzer's, or the modules that `evm lift` makes in Node.
fn fuzz_engine(name: &str) -> Result<&'static str> {
    let all = [&fuzz::engines()[..], &[fuzz::run::NODE]].concat();
    all.iter().copied().find(|e| *e == name).with_context(|| format!("no engine {name}: {}", all.join(", ")))
}

fn run_cases(o: &Cases) -> Result<bool> {
    let program = std::env::current_exe()?;
    if let Some(each) = o.make {
        let seed = seed(o.seed)?;
        println!("{} cases, seed {seed}", fuzz::files::make(each, seed, &program)?);
        return Ok(true);
    }
    let mut files = fuzz::files::all()?;
    files.retain(|f| o.files.is_empty() || o.files.contains(&f.name));
    ensure!(!files.is_empty(), "no file of that name in {}", fuzz::files::folder().display());
    if o.bless {
        for f in &mut files {
            let changed = f.bless(&program)?;
            println!("{:12} {changed} lines changed", f.name);
        }
        return Ok(true);
    }
    // The CPU first.
    let on: Vec<Option<&'static str>> = match &o.engine {
        Some(e) => vec![Some(fuzz_engine(e)?)],
        None => std::iter::once(None).chain(fuzz::engines().into_iter().map(Some)).collect(),
    };
    let mut good = true;
    for engine in on {
        for f in &files {
            let wrong = f.wrong(engine, &program)?;
            println!(
                "{:10} {:12} {} of {}",
                engine.unwrap_or("CPU"),
                f.name,
                f.lines.len() - wrong.len(),
                f.lines.len()
            );
            wrong.iter().for_each(|w| println!("    {w}"));
            good &= wrong.is_empty();
        }
    }
    Ok(good)
}

fn run_fuzz(o: &Fuzz) -> Result<bool> {
    let seed = seed(o.seed)?;
    let features = match o.features.as_str() {
        "v2" => fuzz::state::Features::V2,
        "v3" => fuzz::state::Features::V3,
        f => anyhow::bail!("no CPU model {f}: v2 or v3"),
    };
    let engines = match &o.engine {
        Some(e) => vec![fuzz_engine(e)?],
        None => fuzz::engines(),
    };
    let options = fuzz::Options {
        time: std::time::Duration::from_secs(o.seconds),
        seed,
        engines: engines.clone(),
        features,
        only: o.only.clone(),
        unmask: o.unmask,
        most: o.most,
    };
    println!("seed {seed}, {}", features.model());
    let out = fuzz::run(&options, &std::env::current_exe()?)?;
    print!("{}", out.show());
    if o.add && !out.findings.is_empty() {
        let lines: Vec<_> = out.findings.iter().map(|f| &f.line).collect();
        println!("added to {}", fuzz::files::add(&lines)?.display());
    }
    println!(
        "{} cases, {} forms; {} kinds of differences; {} cases left out",
        out.cases,
        out.counts.len(),
        out.findings.len() + out.unexplained.len(),
        out.left_out
    );
    for (name, s) in ["native"].iter().chain(&engines).zip(&out.seconds) {
        println!("    {name}: {:.0} cases/s", out.cases as f64 / s.max(1e-9));
    }
    Ok(out.is_clean())
}
