//! Hostile program files: a clear error, no panic, no hang.

use anyhow::{Result, ensure};
use evm_conformance::apps::Place;
use evm_conformance::exec::{Evm, WorkDir};
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
        let out = Evm { work: Some(&work.path), options: &options, ..Evm::new(&place.evm, &place.guest, "auto") }
            .command(&["/work/hostile"])
            .run(Duration::from_secs(20))?;
        let stderr = String::from_utf8_lossy(&out.stderr);
        let bad = if out.timed_out {
            Some("a hang")
        } else if stderr.contains("panicked") || out.status == 101 {
            Some("a panic")
        } else if out.status == 125 {
            Some("evm's own failure")
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

fn main() -> ExitCode {
    const PARTS: usize = 4;
    harness::main((0..PARTS).map(|p| Trial::new(format!("corpus::{p}"), move || check(p, PARTS))).collect())
}
