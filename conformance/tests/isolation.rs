//! Nothing of the host is seen: a program tries every way, and finds the virtual world only.

use anyhow::{Result, ensure};
use evm_conformance::apps::Place;
use evm_conformance::exec::{Evm, WorkDir, engines};
use evm_conformance::harness::{self, Trial};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// What must not be found in anything that the guest can read.
fn host_names() -> Vec<(&'static str, String)> {
    let read = |f: &str| fs::read_to_string(f).unwrap_or_default().trim().to_string();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")).unwrap_or_default();
    let names = [
        ("host name", read("/proc/sys/kernel/hostname")),
        ("kernel release", read("/proc/sys/kernel/osrelease")),
        ("kernel version", read("/proc/version").split('#').nth(1).unwrap_or_default().to_string()),
        ("boot id", read("/proc/sys/kernel/random/boot_id")),
        ("machine id", read("/etc/machine-id")),
        ("CPU model", model.trim_start_matches([' ', '\t', ':']).to_string()),
        ("kernel command line", read("/proc/cmdline")),
        ("workspace", evm_conformance::workspace().display().to_string()),
        ("variable", "host-variable-value".into()),
        ("secret", "TOP-SECRET".into()),
    ];
    // Short ones ("evm", "6.1") may stand anywhere.
    names.into_iter().filter(|(_, n)| n.len() > 5).collect()
}

fn probe(place: &Place, engine: &str) -> Result<()> {
    let outside = WorkDir::new("isolation")?;
    let secret = outside.path.join("secret");
    fs::write(&secret, "TOP-SECRET\n")?;
    let work = outside.path.join("work");
    fs::create_dir(&work)?;
    symlink(&secret, work.join("planted-absolute"))?;
    symlink("../secret", work.join("planted-relative"))?;
    symlink("..", work.join("planted-parent"))?;
    symlink("/proc/self/root/etc/shadow", work.join("planted-proc"))?;
    symlink("/proc/self/fd/9", work.join("planted-fd"))?;
    let _socket = std::os::unix::net::UnixListener::bind("/tmp/evm-conformance.sock").ok();
    let _ = fs::remove_file("/tmp/evm-conformance.sock");
    let abstract_name = {
        use std::os::linux::net::SocketAddrExt;
        std::os::unix::net::SocketAddr::from_abstract_name("evm-conformance-abstract")?
    };
    let _abstract = std::os::unix::net::UnixListener::bind_addr(&abstract_name);
    let planted = std::os::unix::net::UnixListener::bind(outside.path.join("socket"))?;
    symlink("../socket", work.join("planted-socket"))?;
    outside.give_to_guest()?;

    // A process of the host with a descriptor of the secret, and evm itself inherits one, too.
    let mut victim = Command::new("sleep").arg("600").spawn()?;
    let inner = Evm { work: Some(&work), ..Evm::new(&place.evm, &place.guest, engine) }
        .command(&["/programs/probe", &victim.id().to_string(), &secret.display().to_string()])
        .into_command();
    let mut c = Command::new("/bin/sh");
    c.args(["-c", "exec 9<\"$SECRET_FILE\"; shift 0; exec \"$@\"", "sh"])
        .arg(inner.get_program())
        .args(inner.get_args());
    c.env("SECRET_FILE", &secret).env("HOST_VARIABLE", "host-variable-value");
    let out = evm_conformance::exec::Run::new(c).run(Duration::from_secs(300))?;
    let alive = victim.try_wait()?.is_none();
    let _ = victim.kill();
    let _ = victim.wait();
    drop(planted);
    ensure!(out.status == 0, "the probe: {}", out.describe());
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(text.contains("end of the list"), "the probe did not come to its end: {}", out.describe());
    let tried = text
        .lines()
        .filter(|l| ["denied", "BREACH", "read ", "cannot read", "---"].iter().any(|p| l.starts_with(p)))
        .count();
    println!("{engine}: {tried} ways tried");
    for l in text.lines().filter(|l| l.starts_with("denied") || l.starts_with("BREACH")) {
        println!("    {l}");
    }
    let mut wrong: Vec<String> = text.lines().filter(|l| l.contains("BREACH")).map(String::from).collect();
    for (what, name) in host_names() {
        // The secret's own path is an argument and thus no find.
        let found = text.lines().filter(|l| l.contains(&name) && !l.contains("/secret")).take(3);
        wrong.extend(found.map(|l| format!("the host's {what} is seen: {l}")));
    }
    for must in ["cpus 1 1", "affinity 1"] {
        if !text.contains(must) {
            let line = text.lines().find(|l| l.starts_with(must.split(' ').next().unwrap_or_default()));
            wrong.push(format!("{must} expected: {}", line.unwrap_or_default()));
        }
    }
    ensure!(alive, "the host's process was killed");
    ensure!(!outside.path.join("new-file").exists(), "a file was made outside");
    ensure!(tried > 150, "only {tried} ways tried");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

fn main() -> ExitCode {
    let trial = |e: &'static str| Trial::new(format!("{e}::probe"), move || probe(&Place::ready()?, e));
    harness::main(engines().into_iter().map(trial).collect())
}
