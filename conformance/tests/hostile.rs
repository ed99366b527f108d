//! Hostile program files, hostile code, wild system calls: a clear error or the guest's own end, no panic, no hang.

use anyhow::{Context, Result, bail, ensure};
use evm_conformance::apps::Place;
use evm_conformance::exec::{Evm, Outcome, WorkDir, engines};
use evm_conformance::harness::{self, Trial};
use evm_conformance::hostile;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;
use std::time::Duration;

fn check(part: usize, parts: usize) -> Result<()> {
    let place = Place::ready()?;
    let fixed = fs::read(place.guest.programs.join("hello_static"))?;
    let dynamic = fs::read(place.guest.programs.join("segv"))?;
    let mut wrong = Vec::new();
    for h in hostile::corpus(&fixed, &dynamic, 160).iter().skip(part).step_by(parts) {
        let work = WorkDir::new("hostile")?;
        let file = work.path.join("hostile");
        fs::write(&file, &h.bytes)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        fs::write(work.path.join("loop.sh"), "#!/work/loop.sh\n")?;
        work.give_to_guest()?;
        let options = ["--limit", "wall=5s,memory=500MiB,output=1MiB"].map(String::from);
        let out = Evm { work: Some(&work.path), options: &options, ..Evm::new(&place.evm, &place.guest, "jit") }
            .command(&["/work/hostile"])
            .run(Duration::from_secs(20))?;
        let bad = if let Some(bad) = broken(&out) {
            Some(bad)
        } else if out.status == 0 && !h.name.starts_with("random") {
            Some("status 0")
        } else if out.status == 126 && out.stderr.is_empty() {
            Some("no message")
        } else if h.status.is_some_and(|s| s != out.status) {
            Some("another status expected")
        } else {
            None
        };
        if let Some(bad) = bad {
            if let Some(keep) = std::env::var_os("KEEP_HOSTILE") {
                fs::write(std::path::Path::new(&keep).join(h.name.replace([' ', '/'], "-")), &h.bytes)?;
            }
            wrong.push(format!("{}: {bad}: {}", h.name, out.describe()));
        }
    }
    ensure!(wrong.is_empty(), "{} files:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// What must never happen, whatever the guest does.
fn broken(out: &Outcome) -> Option<&'static str> {
    let stderr = String::from_utf8_lossy(&out.stderr);
    if out.timed_out {
        Some("a hang")
    } else if stderr.contains("panic") || stderr.contains("internal error") {
        Some("a panic or an internal error")
    } else if [101, 125, 128 + 6].contains(&out.status) {
        Some("evm's own failure")
    } else {
        None
    }
}

/// Seeds of one run. `WILD_SEEDS=100..400` tries others, for longer.
fn seeds() -> Result<std::ops::Range<u64>> {
    let Ok(text) = std::env::var("WILD_SEEDS") else {
        return Ok(1..5);
    };
    let (from, to) = text.split_once("..").context("WILD_SEEDS=FROM..TO")?;
    Ok(from.parse()?..to.parse()?)
}

/// A program that does its worst in children and goes on: it must come to its end.
fn wild(program: &str, rounds: &str, engine: &str) -> Result<()> {
    let place = Place::ready()?;
    for seed in seeds()? {
        let work = WorkDir::new("wild")?;
        work.give_to_guest()?;
        let options = ["--limit", "wall=200s,memory=1GiB,procs=60,disk=200MiB"].map(String::from);
        let out = Evm { work: Some(&work.path), options: &options, ..Evm::new(&place.evm, &place.guest, engine) }
            .command(&[program, &seed.to_string(), rounds])
            .run(Duration::from_secs(300))?;
        let at = format!("{program} {seed} {rounds} on {engine}");
        if let Some(bad) = broken(&out) {
            bail!("{at}: {bad}: {}", out.describe());
        }
        ensure!(out.status == 0, "{at}: {}", out.describe());
        ensure!(String::from_utf8_lossy(&out.stdout).contains("end of the rounds"), "{at}: {}", out.describe());
    }
    Ok(())
}

fn main() -> ExitCode {
    const PARTS: usize = 4;
    let mut trials: Vec<Trial> =
        (0..PARTS).map(|p| Trial::new(format!("corpus::{p}"), move || check(p, PARTS))).collect();
    for engine in engines() {
        for (name, program, rounds) in [("calls", "/programs/wild_calls", "8"), ("code", "/programs/wild_code", "3")] {
            trials.push(Trial::new(format!("{engine}::wild-{name}"), move || wild(program, rounds, engine)));
        }
    }
    harness::main(trials)
}
