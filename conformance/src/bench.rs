//! Times of whole programs: natively, under `evm`, under qemu-user, in turn in one run.
//!
//! Native runs use the guest root's own loader and libraries, without a namespace, so that nothing but the program is timed;
//! glibc may use all that the CPU has. qemu-user comes from Debian's package, unpacked below `target/`.

use crate::apps::Place;
use crate::exec::{Native, Run, WorkDir};
use crate::{inputs, root};
use anyhow::{Result, ensure};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// Input files by generator.
    make: &'static [(&'static str, &'static str)],
    /// A line for the guest root's shell that prepares more of them.
    prepare: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    stdin: Option<&'static str>,
}

const LUA: &str = "local function fib(n) if n < 2 then return n end return fib(n-1) + fib(n-2) end print(fib(30)) local t = {} for i = 1, 300000 do t[i] = (i * 7919) % 1000003 end table.sort(t) print(t[1000])";

const CASES: &[Case] = &[
    Case { name: "true (start)", make: &[], prepare: "", program: "/bin/true", args: &[], stdin: None },
    Case {
        name: "python3 -c pass (start)",
        make: &[],
        prepare: "",
        program: "/usr/bin/python3.11",
        args: &["-c", "pass"],
        stdin: None,
    },
    Case {
        name: "hmmsearch",
        make: &[("family.sto", "family 20"), ("proteins.fa", "proteins 4000")],
        prepare: "hmmbuild model.hmm family.sto > /dev/null",
        program: "/usr/bin/hmmsearch",
        args: &["--cpu", "0", "model.hmm", "proteins.fa"],
        stdin: None,
    },
    Case {
        name: "blastp",
        make: &[("query.fa", "query 4"), ("proteins.fa", "proteins 3000")],
        prepare: "makeblastdb -in proteins.fa -dbtype prot -out db > /dev/null",
        program: "/usr/bin/blastp",
        args: &["-query", "query.fa", "-db", "db", "-outfmt", "6"],
        stdin: None,
    },
    Case {
        name: "sqlite3",
        make: &[("in.sql", "sql 60000")],
        prepare: "",
        program: "/usr/bin/sqlite3",
        args: &[":memory:"],
        stdin: Some("in.sql"),
    },
    Case { name: "lua", make: &[], prepare: "", program: "/usr/bin/lua5.4", args: &["-e", LUA], stdin: None },
];

/// Seconds of one case.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Times {
    /// The case.
    pub name: String,
    /// Native.
    pub native: f64,
    /// Under `evm run`.
    pub evm: Option<f64>,
    /// Under qemu-user.
    pub qemu: Option<f64>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// qemu-user as a static program, unpacked from Debian's package.
fn qemu() -> Result<PathBuf> {
    let folder = crate::target().join("peers");
    let file = folder.join("usr/bin/qemu-x86_64-static");
    if !file.exists() {
        fs::create_dir_all(&folder)?;
        root::fetch_into("qemu-user-static", &folder)?;
    }
    Ok(file)
}

/// All cases, the fastest of `rounds` runs each.
pub fn run(place: &Place, rounds: u32, names: &[String]) -> Result<Vec<Times>> {
    let qemu = qemu();
    let root = &place.guest.root;
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib/ncbi-blast+"]
        .map(|d| root.join(d).display().to_string())
        .join(":");
    let mut all = Vec::new();
    for case in CASES.iter().filter(|c| names.is_empty() || names.iter().any(|n| c.name.starts_with(n.as_str()))) {
        let work = WorkDir::new("bench")?;
        for (file, line) in case.make {
            fs::write(work.path.join(file), inputs::generate(line)?)?;
        }
        work.give_to_guest()?;
        if !case.prepare.is_empty() {
            let out = Native { work: Some(&work.path), ..Native::new(&place.guest) }
                .command(&["/bin/sh", "-c", case.prepare])
                .run(Duration::from_secs(300))?;
            ensure!(out.status == 0, "{}: {}", case.name, out.describe());
        }
        let program = fs::canonicalize(root.join(&case.program[1..])).unwrap_or_else(|_| root.join(&case.program[1..]));
        let finish = |mut c: Command| -> Run {
            c.args(case.args).current_dir(&work.path).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
            c.env("PYTHONHOME", root.join("usr"));
            Run::new(c).stdin(case.stdin.map(|s| work.path.join(s)))
        };
        let native = || {
            let mut c = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
            c.args(["--library-path", &libraries]).arg(&program);
            finish(c)
        };
        let evm = || {
            let mut c = Command::new(&place.evm);
            c.arg("run")
                .arg("--sysroot")
                .arg(root)
                .arg("--dir")
                .arg(format!("{}::/work", work.path.display()))
                .arg(case.program);
            finish(c)
        };
        let peer = |qemu: &Path| {
            let mut c = Command::new(qemu);
            c.arg("-L").arg(root).arg(&program);
            finish(c)
        };
        let mut t = Times { name: case.name.into(), native: f64::MAX, evm: None, qemu: None, errors: Vec::new() };
        let limit = Duration::from_secs(600);
        let mut expected: Option<Vec<u8>> = None;
        for _ in 0..rounds {
            let out = native().run(limit)?;
            ensure!(out.status == 0, "{} natively: {}", case.name, out.describe());
            t.native = t.native.min(out.wall.as_secs_f64());
            let lines =
                |b: &[u8]| b.split(|c| *c == b'\n').filter(|l| !l.starts_with(b"#")).collect::<Vec<_>>().join(&b'\n');
            let want = expected.get_or_insert_with(|| lines(&out.stdout)).clone();
            let timed = |who: &str, run: Run, best: &mut Option<f64>, errors: &mut Vec<String>| -> Result<()> {
                let out = run.run(limit)?;
                if out.status != 0 || lines(&out.stdout) != want {
                    errors.push(format!(
                        "{who}: {}",
                        if out.status == 0 { "another output".into() } else { out.describe() }
                    ));
                } else {
                    *best = Some(best.unwrap_or(f64::MAX).min(out.wall.as_secs_f64()));
                }
                Ok(())
            };
            timed("evm", evm(), &mut t.evm, &mut t.errors)?;
            match &qemu {
                Ok(q) => timed("qemu", peer(q), &mut t.qemu, &mut t.errors)?,
                Err(e) => t.errors.push(format!("qemu: {e:#}")),
            }
        }
        t.errors.dedup();
        all.push(t);
    }
    Ok(all)
}

/// The table for the book.
pub fn markdown(times: &[Times], rounds: u32) -> String {
    let mut s = format!(
        "# Performance\n\n\
         Wall time of whole programs of Debian 12, start and end of the job included; the fastest of {rounds} runs each, native, `evm run` and\n\
         qemu-user 7.2 in turn. In brackets: multiples of native. A dash: it did not give native's output. Made by\n\n\
         ```sh\ncargo run --release -p evm-conformance -- bench --write-book\n```\n\n\
         on {}.\n\n| program | native | evm | qemu-user |\n|---|---|---|---|\n",
        machine()
    );
    let show = |v: Option<f64>, native: f64| v.map_or("–".into(), |v| format!("{v:.3} s ({:.1})", v / native));
    for t in times {
        let _ =
            writeln!(s, "| {} | {:.3} s | {} | {} |", t.name, t.native, show(t.evm, t.native), show(t.qemu, t.native));
    }
    s
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|x| x.1))
        .unwrap_or("an unknown CPU");
    format!("{model}, {} CPUs", std::thread::available_parallelism().map_or(1, usize::from))
}
