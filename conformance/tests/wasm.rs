//! Programs lifted to stand-alone WebAssembly modules, in wasmtime and in Node: output and status are those of the native run.
//!
//! The engines are stock ones: `pip install wasmtime`, and `node` 20 or later.

use anyhow::{Context, Result, bail, ensure};
use evm_conformance::apps::Place;
use evm_conformance::exec::{Native, Run, WorkDir};
use evm_conformance::harness::{self, Trial};
use evm_conformance::inputs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::OnceLock;
use std::time::Duration;

/// What a native run may take.
const TIME: Duration = Duration::from_secs(60);

/// An engine: its name, the command that runs a module, what installs it.
const ENGINES: [(&str, &[&str], &str, &str); 3] = [
    // Version 20 frees objects that are in use when it marks them while a module runs.
    ("node", &["node", "--no-warnings", "--no-incremental-marking"], "wasm/in_node.mjs", "apt-get install nodejs"),
    ("wasmtime", &["python3"], "wasm/in_wasmtime.py", "pip install wasmtime"),
    // The WASI of the book's page.
    ("page", &["node", "--no-warnings", "--no-incremental-marking"], "wasm/in_page.mjs", "apt-get install nodejs"),
];

/// A program, what is bundled with it, and command lines for it.
struct Case {
    name: &'static str,
    program: &'static str,
    bundle: &'static [&'static str],
    /// Files of its folder besides `text`: names and what generates them.
    make: &'static [(&'static str, &'static str)],
    /// Command that is run in the folder before, natively.
    before: &'static [&'static str],
    runs: &'static [&'static [&'static str]],
    /// In all engines; else in the first one alone. (Compiling takes wasmtime half a minute of CPU time a module.)
    everywhere: bool,
}

/// What most cases do not need.
const NOTHING: Case = Case { name: "", program: "", bundle: &[], make: &[], before: &[], runs: &[], everywhere: false };

const CASES: &[Case] = &[
    Case {
        name: "busybox",
        everywhere: true,
        program: "/bin/busybox",
        runs: &[
            &["echo", "hello"],
            &["sh", "-c", "i=0; while [ $i -lt 50 ]; do i=$((i+1)); done; echo $i; exit 3"],
            &["sh", "-c", "trap 'echo caught' USR1; kill -USR1 $$; echo after"],
            &["sha256sum", "text"],
            &["sort", "-r", "text"],
            &["sh", "-c", "echo one > made; read x < made; echo $x; cd /; cd -"],
            &["awk", "BEGIN { for (i = 1; i < 20; i++) printf \"%.6f %d\\n\", log(i) / 3, 2 ^ i }"],
        ],
        ..NOTHING
    },
    Case {
        name: "lua",
        everywhere: true,
        program: "/usr/bin/lua5.4",
        runs: &[
            &["-e", "print(6*7, 1/3, math.sin(1), 2^0.5, string.format('%.17g', 0.1), math.maxinteger)"],
            &["-e", "local t={} for i=1,2000 do t[i]=(i*7919)%1009 end table.sort(t) print(t[1], t[1000], #t)"],
            &["-e", "local f=io.open('text') for l in f:lines() do io.write(#l, ' ') end print() os.exit(7)"],
        ],
        ..NOTHING
    },
    Case {
        name: "sqlite3",
        program: "/usr/bin/sqlite3",
        runs: &[
            &[
                ":memory:",
                "create table t(a,b); insert into t values(1,'x'),(2,'y'); select sum(a), group_concat(b), 3.14159*2 from t",
            ],
            &[
                "data.db",
                "create table t(a); with recursive c(x) as (select 1 union all select x+1 from c where x<300) insert into t select x*x from c; select count(*), sum(a) from t",
            ],
        ],
        ..NOTHING
    },
    Case {
        name: "perl",
        program: "/usr/bin/perl",
        bundle: &["usr/lib/locale/C.utf8"],
        runs: &[
            &[
                "-e",
                "my %h=(a=>1,b=>2); print join(',', map {\"$_=$h{$_}\"} sort keys %h), ' ', 2**0.5, \"\\n\"; printf('%.3f', atan2(1,1)*4)",
            ],
            &["-ne", "print scalar reverse $_ if /o/", "text"],
        ],
        ..NOTHING
    },
    Case {
        name: "python",
        program: "/usr/bin/python3",
        bundle: &["usr/lib/python3.11"],
        runs: &[&[
            "-c",
            "import sys, math, json; print(sys.version_info[:2], math.pi, json.dumps({'a': [1, 2.5]}), 2**100)",
        ]],
        ..NOTHING
    },
    Case {
        name: "bzip2",
        everywhere: true,
        program: "/bin/bzip2",
        make: &[("big", "text 300000")],
        runs: &[&["-kc9", "big"], &["-k", "big"], &["-t", "text"]],
        ..NOTHING
    },
    Case {
        name: "hmmsearch",
        everywhere: true,
        program: "/usr/bin/hmmsearch",
        make: &[("family.sto", "family 20"), ("proteins.fa", "proteins 300")],
        before: &["/usr/bin/hmmbuild", "-o", "/dev/null", "model.hmm", "family.sto"],
        runs: &[&["--cpu", "0", "model.hmm", "proteins.fa"]],
        ..NOTHING
    },
    Case {
        name: "phmmer",
        program: "/usr/bin/phmmer",
        make: &[("query.fa", "query 1"), ("proteins.fa", "proteins 200")],
        runs: &[&["--cpu", "0", "query.fa", "proteins.fa"]],
        ..NOTHING
    },
    Case {
        name: "blastp",
        program: "/usr/bin/blastp",
        make: &[("query.fa", "query 2"), ("proteins.fa", "proteins 100")],
        runs: &[&["-query", "query.fa", "-subject", "proteins.fa", "-outfmt", "6"]],
        ..NOTHING
    },
];

/// Lift once for all engines.
fn module(case: &'static Case) -> Result<&'static Path> {
    static MADE: [OnceLock<Result<PathBuf, String>>; CASES.len()] = [const { OnceLock::new() }; CASES.len()];
    let index = CASES.iter().position(|c| c.name == case.name).context("no such case")?;
    let make = || -> Result<PathBuf> {
        let place = Place::ready()?;
        let file = evm_conformance::target().join(format!("lifted-{}.wasm", case.name));
        let mut c = Command::new(&place.evm);
        c.arg("lift").arg("--sysroot").arg(&place.guest.root).arg(case.program).arg("-o").arg(&file);
        for b in case.bundle {
            c.arg("--bundle").arg(place.guest.root.join(b));
        }
        let out = c.output()?;
        ensure!(out.status.success(), "evm lift: {}", String::from_utf8_lossy(&out.stderr));
        Ok(file)
    };
    match MADE[index].get_or_init(|| make().map_err(|e| format!("{e:#}"))) {
        Ok(p) => Ok(p),
        Err(e) => bail!("{e}"),
    }
}

fn work(case: &Case, name: &str, place: &Place) -> Result<WorkDir> {
    let w = WorkDir::new(name)?;
    std::fs::write(w.path.join("text"), "one\ntwo\nthree\nfour\n".repeat(20))?;
    for (name, what) in case.make {
        std::fs::write(w.path.join(name), inputs::generate(what)?)?;
    }
    w.give_to_guest()?;
    if !case.before.is_empty() {
        let r = Native { work: Some(&w.path), ..Native::new(&place.guest) }.command(case.before).run(TIME)?;
        ensure!(r.status == 0, "{:?}: {}", case.before, r.describe());
    }
    Ok(w)
}

/// The output without what is different in each run.
fn lasting(output: &[u8]) -> Vec<&[u8]> {
    let passing: [&[u8]; 2] = [b"# CPU time", b"# Mc/sec"];
    output.split(|b| *b == b'\n').filter(|l| !passing.iter().any(|p| l.starts_with(p))).collect()
}

/// What is in a folder, but for what is different in each run.
fn contents(dir: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut all = Vec::new();
    for e in std::fs::read_dir(dir)? {
        let e = e?;
        all.push((e.file_name().to_string_lossy().into_owned(), std::fs::read(e.path())?));
    }
    all.sort();
    Ok(all)
}

fn check(case: &'static Case, engine: usize) -> Result<()> {
    let (name, program, script, install) = ENGINES[engine];
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let place = Place::ready()?;
    let module = module(case)?;
    for run in case.runs {
        let native = work(case, &format!("wasm-native-{}", case.name), &place)?;
        let lifted = WorkDir::new(&format!("wasm-{name}-{}", case.name))?;
        for (name, bytes) in contents(&native.path)? {
            std::fs::write(lifted.path.join(name), bytes)?;
        }
        lifted.give_to_guest()?;
        let mut command = vec![case.program];
        command.extend_from_slice(run);
        let want = Native { work: Some(&native.path), ..Native::new(&place.guest) }.command(&command).run(TIME)?;
        let mut c = Command::new(program[0]);
        c.args(&program[1..])
            .arg(here.join(script))
            .arg(module)
            .arg(format!("/work::{}", lifted.path.display()))
            .arg("--")
            .args(*run);
        let have = Run::new(c).run(Duration::from_secs(600)).with_context(|| format!("{name}: {install}"))?;
        let missing = String::from_utf8_lossy(&have.stderr).contains("No module named 'wasmtime'");
        ensure!(!missing, "wasmtime is missing: {install}");
        ensure!(
            want.status == have.status && lasting(&want.stdout) == lasting(&have.stdout),
            "{command:?}\n native: {}\n {name}: {}",
            want.describe(),
            have.describe()
        );
        ensure!(contents(&native.path)? == contents(&lifted.path)?, "{command:?}: other files than native");
    }
    Ok(())
}

/// The files of instruction cases, in modules.
fn cases() -> Result<()> {
    Place::ready()?;
    let mut wrong = vec![];
    for f in evm_conformance::fuzz::files::all()? {
        wrong
            .extend(f.wrong(Some(evm_conformance::fuzz::run::NODE), Path::new(env!("CARGO_BIN_EXE_evm-conformance")))?);
    }
    ensure!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

/// The committed runtime is made of the sources as they are.
fn fresh() -> Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wasm/build.sh");
    let out = Command::new("sh").arg(script).arg("--check").output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

fn main() -> ExitCode {
    let mut trials = vec![Trial::new("runtime-is-fresh", fresh), Trial::new("node::cases", cases)];
    for case in CASES {
        for (i, e) in ENGINES.iter().enumerate().filter(|e| e.0 == 0 || case.everywhere) {
            trials.push(Trial::new(format!("{}::{}", e.0, case.name), move || check(case, i)));
        }
    }
    harness::main(trials)
}
