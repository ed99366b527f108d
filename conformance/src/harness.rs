//! Test binaries that list one test a case: what libtest prints and takes, as far as `cargo test` and `cargo nextest` use it.
//!
//! Cases are whole programs, some with timers and signals, and run beside each other. One that fails is run again
//! alone, after the others, and fails the run only if it does so then as well; both outcomes are printed.

use anyhow::Result;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One test.
pub struct Trial {
    /// Its name.
    pub name: String,
    /// It passes or says why not.
    pub test: Box<dyn Fn() -> Result<()> + Send + Sync>,
}

impl Trial {
    /// A named test.
    pub fn new(name: impl Into<String>, test: impl Fn() -> Result<()> + Send + Sync + 'static) -> Trial {
        Trial { name: name.into(), test: Box::new(test) }
    }
}

/// `main` of a test binary.
pub fn main(trials: Vec<Trial>) -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let has = |f: &str| args.iter().any(|a| a == f);
    let mut filters = Vec::new();
    let mut skips = Vec::new();
    let mut threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut it = args.iter();
    while let Some(a) = it.next() {
        match a.as_str() {
            "--skip" => skips.extend(it.next().cloned()),
            "--test-threads" => threads = it.next().and_then(|n| n.parse().ok()).unwrap_or(threads),
            "--format" | "--color" | "--logfile" | "-Z" => {
                it.next();
            }
            a if a.starts_with('-') => {}
            a => filters.push(a.to_string()),
        }
    }
    let exact = has("--exact");
    let matches = |n: &str, f: &String| {
        if exact { n == f } else { n.contains(f.as_str()) }
    };
    // None is marked to be ignored.
    let chosen: Vec<&Trial> = if has("--ignored") {
        Vec::new()
    } else {
        let keep = |t: &&Trial| {
            (filters.is_empty() || filters.iter().any(|f| matches(&t.name, f)))
                && !skips.iter().any(|f| matches(&t.name, f))
        };
        trials.iter().filter(keep).collect()
    };
    if has("--list") {
        for t in &chosen {
            println!("{}: test", t.name);
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..threads.clamp(1, chosen.len().max(1)) {
            s.spawn(|| {
                while let Some(t) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match (t.test)() {
                        Ok(()) => println!("test {} ... ok", t.name),
                        Err(e) => {
                            println!("test {} ... failed beside others\n{e:#}", t.name);
                            if let Ok(mut f) = failures.lock() {
                                f.push(*t);
                            }
                        }
                    }
                }
            });
        }
    });
    let suspects = failures.into_inner().unwrap_or_default();
    let mut failed = Vec::new();
    for t in suspects {
        match (t.test)() {
            Ok(()) => println!("test {} ... ok alone", t.name),
            Err(e) => {
                println!("test {} ... FAILED\n{e:#}", t.name);
                failed.push(t.name.clone());
            }
        }
    }
    println!("\ntest result: {} passed; {} failed", chosen.len() - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}
