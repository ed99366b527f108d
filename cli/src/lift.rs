//! `evm lift`: a program and its libraries, translated ahead of time; and how `evm run` finds them in the result.

use crate::args::{CpuModel, Lift};
use crate::units::Sysroot;
use crate::{run, starts};
use anyhow::{Context, Result};
use evm_runtime::cache::artifact::{self, Artifact, Part};
use evm_runtime::cache::folder::Folder;
use evm_runtime::{Config, Engine, LiftOptions, Lifted, Limits, Progress, Stream, Surveyed, Vm};
use serde_json::{Value, json};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What an artifact says of its program.
pub struct Program {
    /// The path: of this machine, or of the guest.
    pub path: PathBuf,
    /// It is a path of the guest.
    pub guest: bool,
    pub artifact: Arc<Artifact>,
}

/// The artifact in a file; `None` if it is something else.
pub fn open(path: &Path) -> Result<Option<Program>> {
    let Ok(file) = std::fs::File::open(path) else { return Ok(None) };
    let bad = |e: String| anyhow::anyhow!("{}: {e}", path.display());
    let Some(text) = artifact::text(&file).map_err(bad)? else { return Ok(None) };
    let text: Value = serde_json::from_str(&text).map_err(|e| bad(e.to_string()))?;
    let program = text["program"].as_str().ok_or_else(|| bad("it names no program".into()))?;
    let parts = text["images"].as_array().into_iter().flatten().filter_map(|p| {
        Some(Part { name: p["file"].as_str()?.into(), offset: p["offset"].as_u64()?, len: p["len"].as_u64()? })
    });
    let real = path.canonicalize()?;
    let artifact = Artifact::new(file, &real, parts.collect()).map_err(bad)?;
    Ok(Some(Program { path: program.into(), guest: text["guest"] == true, artifact: Arc::new(artifact) }))
}

/// Translations of one image, and what to say of it.
struct Done {
    label: String,
    lifted: Lifted,
    /// Bytes of its executable mapping.
    code: u64,
}

/// `evm lift`.
pub fn lift(o: &Lift) -> Result<ExitCode> {
    let started = Instant::now();
    let (program, module) = run::module(&o.sysroot, &o.program)?;
    let config = Config {
        args: vec![program.as_os_str().as_encoded_bytes().to_vec()],
        env: vec![b"LD_TRACE_LOADED_OBJECTS=1".to_vec(), b"PATH=/usr/bin:/bin".to_vec()],
        cwd: "/".into(),
        sysroot: run::sysroot(&o.sysroot),
        cpu: run::cpu(o.cpu.unwrap_or(CpuModel::X86_64V3)).into(),
        limits: Limits { wall: Some(Duration::from_secs(60)), ..Limits::default() },
        stdin: Stream::Null,
        stdout: Stream::Capture,
        stderr: Stream::Capture,
        cache: crate::cache::config(Some(crate::args::CacheMode::Off))?,
        ..Config::default()
    };
    let images = Vm::new(&Engine::new(), config, &module)?.survey().with_context(|| program.display().to_string())?;
    let profile = Folder::open(&crate::cache::path()).ok();
    let threads = o.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let options = LiftOptions { optimize: o.opt, threads };
    let mut done = vec![];
    for image in &images {
        done.extend(one(image, profile.as_ref(), options)?);
    }
    let guest = matches!(o.sysroot, Sysroot::Dir(_));
    let size = write(&o.output, &program, guest, &mut done)?;
    let seconds = started.elapsed().as_secs_f64();
    if o.json {
        println!("{}", report(&done, size, seconds));
    } else {
        print!("{}", table(&done, &o.output, size, seconds));
    }
    Ok(ExitCode::SUCCESS)
}

fn one(image: &Surveyed, profile: Option<&Folder>, options: LiftOptions) -> Result<Option<Done>> {
    let label = image.label();
    let mut data = vec![];
    let mut file = image.file()?;
    std::io::Seek::rewind(&mut file)?;
    file.read_to_end(&mut data).with_context(|| label.clone())?;
    let starts: Vec<u64> = starts::find(&data).starts.into_iter().collect();
    let progress = Progress::default();
    let lifted = showing(&label, &progress, || image.lift(&starts, profile, options, &progress));
    match lifted {
        Ok(lifted) => {
            let key = image.key();
            Ok(Some(Done { label, lifted, code: (key.hi - key.lo).min(key.size.saturating_sub(key.offset)) }))
        }
        Err(e) => {
            eprintln!("evm: {label} is left out: {e}");
            Ok(None)
        }
    }
}

/// Do something while the terminal shows how far it is.
pub fn showing<T>(label: &str, progress: &Progress, f: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| show(label, progress, &end));
        let r = f();
        end.store(true, Ordering::Relaxed);
        r
    })
}

/// A line on the terminal that says how far it is.
fn show(label: &str, p: &Progress, end: &AtomicBool) {
    let mut err = std::io::stderr();
    if !err.is_terminal() {
        return;
    }
    while !end.load(Ordering::Relaxed) {
        let n = |a: &std::sync::atomic::AtomicU64| a.load(Ordering::Relaxed);
        let (done, all) = (n(&p.done), n(&p.blocks));
        let bar: String = (0..20).map(|i| if all > 0 && i * all < 20 * done { '#' } else { '.' }).collect();
        // What cannot be shown is not worth an error.
        let _ = write!(err, "\r\x1b[K[{bar}] {label}: {} instructions, {done}/{all} blocks", n(&p.found));
        let _ = err.flush();
        std::thread::sleep(Duration::from_millis(100));
    }
    let _ = write!(err, "\r\x1b[K");
}

/// Write the artifact, whole or not at all.
fn write(output: &Path, program: &Path, guest: bool, done: &mut [Done]) -> Result<u64> {
    let files: Vec<_> = done.iter_mut().map(|d| (d.lifted.name.clone(), std::mem::take(&mut d.lifted.bytes))).collect();
    let labels: Vec<_> = done.iter().map(|d| d.label.clone()).collect();
    let text = |parts: &[Part]| {
        let images = parts
            .iter()
            .zip(&labels)
            .map(|(p, label)| json!({"file": p.name, "offset": p.offset, "len": p.len, "image": label}));
        json!({"program": program.to_string_lossy(), "guest": guest, "images": images.collect::<Vec<_>>()}).to_string()
    };
    let tmp = output.with_extension(format!("{}.tmp", std::process::id()));
    let place = || output.display().to_string();
    let made = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&tmp)
        .and_then(|f| {
            let mut f = std::io::BufWriter::new(f);
            let n = artifact::write(&mut f, &files, text)?;
            f.flush()?;
            Ok(n)
        })
        .and_then(|n| std::fs::rename(&tmp, output).map(|()| n));
    if made.is_err() {
        let _ = std::fs::remove_file(&tmp);
    }
    made.with_context(place)
}

fn row(d: &Done) -> Value {
    let f = &d.lifted.found;
    json!({
        "image": d.label, "code_bytes": d.code, "found_bytes": f.bytes(), "gaps": f.covered.len(), "blocks": d.lifted.blocks,
        "without": d.lifted.without, "functions": f.functions.len(), "regions": d.lifted.regions, "unresolved": f.unresolved,
    })
}

fn report(done: &[Done], size: u64, seconds: f64) -> Value {
    json!({"bytes": size, "seconds": seconds, "images": done.iter().map(row).collect::<Vec<_>>()})
}

fn table(done: &[Done], output: &Path, size: u64, seconds: f64) -> String {
    use std::fmt::Write;
    let mut s = String::from("   code kB  found   blocks without regions unresolved  image\n");
    for d in done {
        let f = &d.lifted.found;
        let share = 100.0 * f.bytes() as f64 / d.code.max(1) as f64;
        // Writing to a string does not fail.
        let _ = writeln!(
            s,
            "{:>10} {share:>5.1}% {:>8} {:>7} {:>7} {:>10}  {}",
            d.code.div_ceil(1000),
            d.lifted.blocks,
            d.lifted.without,
            d.lifted.regions,
            f.unresolved,
            d.label
        );
    }
    let code: u64 = done.iter().map(|d| d.lifted.found.bytes()).sum();
    let _ = writeln!(
        s,
        "{}: {:.1} MB from {:.1} MB of code in {seconds:.1} s",
        output.display(),
        size as f64 / 1e6,
        code as f64 / 1e6
    );
    s
}

/// What can be found of an executable segment, for `evm inspect --coverage`.
#[derive(Debug, Default, serde::Serialize)]
pub struct Coverage {
    /// Where it is in the file.
    pub offset: u64,
    pub code_bytes: u64,
    pub found_bytes: u64,
    /// Pieces that the found code is in: between them are gaps.
    pub ranges: usize,
    pub blocks: usize,
    pub functions: usize,
    /// Indirect jumps whose targets are not known.
    pub unresolved: usize,
}

/// The coverage of a file.
pub fn coverage(path: &Path) -> Result<Vec<Coverage>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let data = std::fs::read(path)?;
    let s = starts::find(&data);
    let all: Vec<u64> = s.starts.iter().copied().collect();
    s.code
        .iter()
        .map(|(offset, size)| {
            let f = evm_runtime::coverage(&file, *offset, *size, s.bits, &all)?;
            Ok(Coverage {
                offset: *offset,
                code_bytes: *size,
                found_bytes: f.bytes(),
                ranges: f.covered.len(),
                blocks: f.blocks.len(),
                functions: f.functions.len(),
                unresolved: f.unresolved,
            })
        })
        .collect()
}
