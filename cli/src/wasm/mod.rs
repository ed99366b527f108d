//! `evm lift PROGRAM -o X.wasm`: a program, its files, functions lifted from its code and that of its libraries, and the runtime in one
//! WebAssembly module.

mod collect;
#[cfg(feature = "wasm")]
pub mod host;
mod plan;

use crate::args::{CpuModel, Lift};
use crate::run;
use crate::units::Sysroot;
use anyhow::{Context, Result};
use collect::Files;
use evm_backend::wasm::link::{self, Blob};
use evm_backend::wasm::{Module, validate};
use evm_cpu::{helpers, model};
use evm_kernel::fs::archive;
use evm_runtime::Progress;
use evm_runtime::ahead::{self, SETTINGS, Summary};
use plan::Placed;
use serde_json::{Value, json};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// The runtime module: see wasm/build.sh.
const RUNTIME: &[u8] = include_bytes!("../../../wasm/evm-runtime.wasm");

/// Size of the guest's address space, unless it is said otherwise.
const MEMORY: u64 = 1 << 30;

/// The custom section that says what was lifted.
const REPORT: &str = "evm.lifted";

/// Make the module.
pub fn lift(o: &Lift) -> Result<()> {
    let started = Instant::now();
    let name = &o.program;
    let (root, program) = match &o.sysroot {
        Sysroot::Dir(d) => (d.clone(), PathBuf::from(name)),
        Sysroot::Host | Sysroot::None => {
            let found = run::find_host_program(name, std::env::var_os("PATH").as_deref())?;
            (PathBuf::from("/"), std::path::absolute(&found)?)
        }
    };
    let mut files = Files::new(&root);
    if !files.is_program(&program) {
        return Err(run::Failure::NotFound(program).into());
    }
    files.add_program(&program)?;
    for b in &o.bundle {
        files.add_bundle(&b.host, b.guest.as_deref())?;
    }
    let entries = files.entries();
    let (placed, left) = plan::plan(&entries, o.memory.unwrap_or(MEMORY));
    for name in left {
        eprintln!("evm: {name} is interpreted: the address space has no room for a place of its own");
    }
    let archive = archive::write(&entries);
    let blobs = [
        Blob { name: *b"config\0\0", bytes: config(o, &program) },
        Blob { name: *b"images\0\0", bytes: plan::describe(&placed, &entries, &archive) },
        Blob { name: *b"files\0\0\0", bytes: archive },
    ];
    let mut module = Module::new(SETTINGS, &helpers::SIGS);
    let rows: Vec<(String, Summary)> =
        placed.iter().map(|p| (p.image.label.clone(), lower(p, o, &mut module))).collect();
    drop((placed, entries));
    let mut bytes = link::link(RUNTIME, &module, &blobs)?;
    link::add_section(&mut bytes, REPORT, Value::from(rows.iter().map(row).collect::<Vec<_>>()).to_string().as_bytes());
    validate(&bytes, &SETTINGS).map_err(|e| anyhow::anyhow!("the module is not valid, which is a bug: {e}"))?;
    std::fs::write(&o.output, &bytes).with_context(|| o.output.display().to_string())?;
    let seconds = started.elapsed().as_secs_f64();
    if o.json {
        println!("{}", report(&rows, bytes.len(), seconds));
    } else {
        print!("{}", table(&rows, &o.output, bytes.len(), seconds));
    }
    Ok(())
}

/// Lift an image.
fn lower(p: &Placed, o: &Lift, module: &mut Module) -> Summary {
    let v3 = model::by_name(run::cpu(o.cpu.unwrap_or(CpuModel::X86_64V2))).is_some_and(model::has_v3);
    let threads = o.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let progress = Progress::default();
    crate::lift::showing(&p.image.label, &progress, || ahead::lower(&p.image, v3, threads, module, &progress))
}

fn row((label, s): &(String, Summary)) -> Value {
    json!({
        "image": label, "code_bytes": s.code, "found_bytes": s.found(), "pieces": s.covered.len(), "regions": s.regions,
        "loops": s.loops, "entries": s.entries, "without": s.without, "unresolved": s.unresolved, "wasm_bytes": s.wasm,
    })
}

/// What was lifted to a module: an array, an object for each image. `None`: `module` is none of ours.
pub fn contents(module: &[u8]) -> Option<Value> {
    serde_json::from_slice(link::section(module, REPORT)?).ok()
}

fn report(rows: &[(String, Summary)], size: usize, seconds: f64) -> Value {
    json!({"bytes": size, "seconds": seconds, "images": rows.iter().map(row).collect::<Vec<_>>()})
}

fn table(rows: &[(String, Summary)], output: &Path, size: usize, seconds: f64) -> String {
    use std::fmt::Write;
    let mut s = String::from("   code kB  found  regions    loops without unresolved  wasm kB  image\n");
    for (label, r) in rows {
        let share = 100.0 * r.found() as f64 / r.code.max(1) as f64;
        // Writing to a string does not fail.
        let _ = writeln!(
            s,
            "{:>10} {share:>5.1}% {:>8} {:>8} {:>7} {:>10} {:>8}  {label}",
            r.code.div_ceil(1000),
            r.regions,
            r.loops,
            r.without,
            r.unresolved,
            r.wasm.div_ceil(1000),
        );
    }
    let code: u64 = rows.iter().map(|r| r.1.found()).sum();
    let (size, code) = (size as f64 / 1e6, code as f64 / 1e6);
    let _ = writeln!(s, "{}: {size:.1} MB from {code:.1} MB of code in {seconds:.1} s", output.display());
    s
}

/// The settings that the runtime reads: lines of a word and a value.
fn config(o: &Lift, program: &Path) -> Vec<u8> {
    let mut out = Vec::new();
    let mut line = |word: &str, value: &[u8]| {
        out.extend_from_slice(word.as_bytes());
        out.push(b' ');
        out.extend_from_slice(value);
        out.push(b'\n');
    };
    line("program", program.as_os_str().as_bytes());
    line("arg0", o.program.as_bytes());
    for (n, v) in run::environment(&o.env, None) {
        line("env", &[n.as_bytes(), b"=", v.as_bytes()].concat());
    }
    line("cpu", run::cpu(o.cpu.unwrap_or(CpuModel::X86_64V2)).as_bytes());
    if let Some(m) = o.memory {
        line("memory", m.to_string().as_bytes());
    }
    out
}
