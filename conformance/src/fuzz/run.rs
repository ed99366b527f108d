//! Running a batch: natively as a process, and under an engine in a process of this program.

use super::generate::Case;
use super::image::{self, CODE, output};
use super::state::{Features, Input, Output};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where cases run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum On {
    /// The CPU.
    Native,
    /// The engine of that name.
    Engine(&'static str),
    /// A WebAssembly module that `evm lift` makes of it, in Node.
    Node,
}

/// The name under which engines are asked for that stands for [`On::Node`].
pub const NODE: &str = "node";

impl On {
    /// That of an engine's name, or native.
    pub fn named(engine: Option<&'static str>) -> On {
        match engine {
            None => On::Native,
            Some(NODE) => On::Node,
            Some(e) => On::Engine(e),
        }
    }
}

/// What runs batches.
pub struct Runner {
    folder: PathBuf,
    program: PathBuf,
    features: Features,
    number: u32,
}

/// A batch: its program, and the cases' states with addresses filled in.
pub struct Batch {
    file: PathBuf,
    /// States before.
    pub inputs: Vec<Input>,
}

impl Drop for Batch {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// States after, one behind the other.
pub struct Outputs(Vec<u8>);

impl Outputs {
    /// That of a case.
    pub fn get(&self, n: usize) -> Option<Output<'_>> {
        let size = output::SIZE as usize;
        self.0.get(n * size..(n + 1) * size).map(Output)
    }
}

impl Runner {
    /// `program`: an `evm-conformance`, to run engines with.
    pub fn new(program: &Path, features: Features) -> Result<Runner> {
        static RUNNERS: AtomicU32 = AtomicU32::new(0);
        let own = RUNNERS.fetch_add(1, Ordering::Relaxed);
        let folder = crate::target().join("conformance").join(format!("fuzz-{}-{own}", std::process::id()));
        fs::create_dir_all(&folder)?;
        Ok(Runner { folder, program: program.into(), features, number: 0 })
    }
    /// The CPU model.
    pub fn features(&self) -> Features {
        self.features
    }
    /// The program of these cases. Cases that cannot be encoded are an error.
    pub fn batch(&mut self, cases: &[Case]) -> Result<Batch> {
        let exits = image::exits()?;
        let mut code = vec![];
        let mut inputs = vec![];
        for c in cases {
            let (bytes, state) = c.encode(CODE + code.len() as u64, exits).context("a case that does not encode")?;
            code.extend(bytes);
            inputs.push(state);
        }
        let file = self.folder.join(format!("batch-{}", self.number));
        self.number += 1;
        fs::write(&file, image::elf(&inputs, &code, self.features)?)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
        Ok(Batch { file, inputs })
    }
    /// Keep a batch's program; where.
    pub fn keep(&self, batch: &Batch) -> Result<PathBuf> {
        let folder = crate::target().join("conformance/kept");
        fs::create_dir_all(&folder)?;
        let file = folder.join(format!("fuzz-{}-{}", std::process::id(), self.number));
        fs::copy(&batch.file, &file)?;
        Ok(file)
    }
    /// Run a batch; `Err` says how it ended instead of giving all states.
    pub fn run(&self, batch: &Batch, on: On) -> Result<std::result::Result<Outputs, String>> {
        let mut command = match on {
            On::Native => Command::new(&batch.file),
            On::Engine(e) => {
                let mut c = Command::new(&self.program);
                c.args(["fuzz-run", "--engine", e, "--model", self.features.model()]).arg(&batch.file);
                c
            }
            On::Node => {
                let module = self.folder.join("batch.wasm");
                let out = Command::new(evm()?)
                    .args(["lift", "--sysroot", "none", "--memory", "3GiB", "--cpu", self.features.model(), "-o"])
                    .args([&module, &batch.file])
                    .output()?;
                ensure!(out.status.success(), "evm lift: {}", String::from_utf8_lossy(&out.stderr));
                let mut c = Command::new(NODE);
                c.args(["--no-warnings", "--no-incremental-marking"])
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("wasm/in_node.mjs"))
                    .args([&module, Path::new("--")]);
                c
            }
        };
        let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))?;
        let (mut out, mut err) = (child.stdout.take().context("stdout")?, child.stderr.take().context("stderr")?);
        let reader = std::thread::spawn(move || {
            let mut b = vec![];
            out.read_to_end(&mut b).map(|_| b)
        });
        let errors = std::thread::spawn(move || {
            let mut b = vec![];
            err.read_to_end(&mut b).map(|_| b)
        });
        let mut watch = Watch::new(child.id());
        let status = loop {
            if let Some(s) = child.try_wait()? {
                break Ok(s);
            }
            if let Some(why) = watch.look() {
                child.kill()?;
                child.wait()?;
                break Err(why);
            }
            std::thread::sleep(Duration::from_micros(500));
        };
        let all = reader.join().map_err(|_| anyhow::anyhow!("reader"))??;
        let errors = errors.join().map_err(|_| anyhow::anyhow!("reader"))??;
        if all.len() == batch.inputs.len() * output::SIZE as usize {
            return Ok(Ok(Outputs(all)));
        }
        let how = status.map_or_else(|why| why.to_string(), |s| s.to_string());
        let text = String::from_utf8_lossy(&errors);
        Ok(Err(format!("{how} {}", text.lines().next().unwrap_or_default())))
    }
}

/// Start a program that was just written. A child that another thread starts at that moment may have the file open for writing, until
/// it becomes another program (ETXTBSY).
fn start(command: &mut Command) -> std::io::Result<Child> {
    let mut tries = 0;
    loop {
        match command.spawn() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy && tries < 1000 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            done => return done,
        }
    }
}

/// The `evm` that lifts, found once.
fn evm() -> Result<PathBuf> {
    static EVM: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    if let Some(p) = EVM.get() {
        return Ok(p.clone());
    }
    let found = crate::exec::evm_binary()?;
    Ok(EVM.get_or_init(|| found).clone())
}

/// CPU time after which a batch is given up: a hundred times what the slowest engine needs.
const CPU: Duration = Duration::from_secs(60);
/// How long all of its threads may sleep.
const ASLEEP: Duration = Duration::from_secs(20);

/// Whether a process still gets on: by its CPU time, so that a busy machine is no reason to give it up.
///
/// A LOCK access across cache lines takes 0.1 s of CPU time and four times that by the clock on a virtual machine whose host punishes
/// them; cases avoid them as far as addresses are known beforehand.
struct Watch {
    pid: u32,
    /// CPU time at the last look, and since when it has been that and every thread asleep.
    cpu: u64,
    since: Instant,
    next: Instant,
}

impl Watch {
    fn new(pid: u32) -> Watch {
        let now = Instant::now();
        Watch { pid, cpu: 0, since: now, next: now + Duration::from_secs(1) }
    }
    /// Why it is to be given up. Looks once a second.
    fn look(&mut self) -> Option<&'static str> {
        let now = Instant::now();
        if now < self.next {
            return None;
        }
        self.next = now + Duration::from_secs(1);
        let (mut ticks, mut runs) = (0, false);
        for t in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()?.flatten() {
            let stat = fs::read_to_string(t.path().join("stat")).unwrap_or_default();
            // Behind the name, which may hold anything: state, then, eleven fields later, ticks as user and in the kernel.
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            runs |= fields.first().is_some_and(|s| *s != "S");
            ticks += fields.iter().skip(11).take(2).filter_map(|f| f.parse::<u64>().ok()).sum::<u64>();
        }
        if ticks != self.cpu || runs {
            (self.cpu, self.since) = (ticks, now);
        }
        // 100 ticks are a second in every Linux's /proc.
        if Duration::from_millis(10 * ticks) > CPU {
            return Some("did not end");
        }
        (now - self.since > ASLEEP).then_some("slept for good")
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// The engine's side: run a program of cases in this process, and pass its output on.
pub fn run_image(file: &Path, engine: &str, model: &str) -> Result<bool> {
    use evm_runtime::{Config, Engine, EngineKind, Module, Stream, Sysroot, Vm};
    let kind = match engine {
        "interp" => EngineKind::Interp,
        "cranelift" => EngineKind::Cranelift,
        "jit" => EngineKind::Jit,
        "quick" => EngineKind::Quick,
        "direct" => EngineKind::Direct,
        "wasm" => EngineKind::Wasm,
        e => anyhow::bail!("no engine {e}"),
    };
    let config = Config {
        engine: kind,
        cpu: model.into(),
        args: vec![b"cases".to_vec()],
        sysroot: Sysroot::None,
        stdin: Stream::Null,
        stdout: Stream::Capture,
        stderr: Stream::Null,
        ..Config::default()
    };
    let vm = Vm::new(&Engine::new(), config, &Module::from_bytes("cases", fs::read(file)?))?;
    let end = vm.run()?;
    use std::io::Write;
    std::io::stdout().write_all(&end.stdout)?;
    ensure!(end.status() == 0, "ended with {:?}", end.reason);
    Ok(true)
}
