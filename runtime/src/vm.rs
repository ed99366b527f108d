//! Jobs: [`Module`], [`Vm`], [`Outcome`], and the runtime's side of the kernel's `Host` trait.

use crate::cache::folder::Folder;
use crate::cache::images::Images;
use crate::cache::worker::Worker;
use crate::code::space::CodeSpace;
use crate::code::tables::Pool;
use crate::config::{Config, EngineKind};
use crate::engine::{self, Engine, lock};
use crate::host::confine::{Confinement, confine};
use crate::host::room;
use crate::lift::Surveyed;
use crate::profile::{ImageAt, Profile};
use crate::stats::Stats;
use crate::{cache, thread};
use anyhow::Context;
use evm_cpu::CpuState;
use evm_kernel::errno::Errno;
use evm_kernel::kernel::{EndReason, Host, Kernel};
use evm_kernel::mm::Mm;
use evm_kernel::task::Task;
use evm_memory::Mem;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

/// A program image: an ELF file or a script.
#[derive(Clone)]
pub struct Module {
    pub(crate) name: String,
    pub(crate) source: Source,
}

#[derive(Clone)]
pub(crate) enum Source {
    /// Bytes in memory, shown to the guest as an executable file.
    Bytes(Arc<[u8]>),
    /// A host file, shown to the guest as this one file.
    Host(std::path::PathBuf),
    /// A path in the guest's own file system.
    Guest,
}

impl Module {
    /// A program from memory; the guest sees it as `/work/.program/NAME`… by its name in `/usr/local/bin`.
    pub fn from_bytes(name: &str, bytes: impl Into<Arc<[u8]>>) -> Module {
        Module { name: format!("/usr/local/bin/{}", base_name(name)), source: Source::Bytes(bytes.into()) }
    }
    /// A host file; the guest sees this one file in `/usr/local/bin`, whatever its host path.
    pub fn from_host_file(path: &Path) -> Module {
        let name = path.file_name().map_or_else(|| "program".into(), |n| n.to_string_lossy().into_owned());
        Module { name: format!("/usr/local/bin/{name}"), source: Source::Host(path.into()) }
    }
    /// The same, seen by the guest at this path.
    pub fn at(mut self, path: &str) -> Module {
        self.name = path.into();
        self
    }
    /// A program of the guest's own file system.
    pub fn from_guest_path(path: &str) -> Module {
        Module { name: path.into(), source: Source::Guest }
    }
    /// Path of the program in the guest.
    pub fn guest_path(&self) -> &str {
        &self.name
    }
}

fn base_name(s: &str) -> &str {
    s.rsplit('/').find(|p| !p.is_empty()).unwrap_or("program")
}

/// How a job ended, and what it left.
#[derive(Debug)]
pub struct Outcome {
    /// Why it ended.
    pub reason: EndReason,
    /// Captured standard output.
    pub stdout: Vec<u8>,
    /// Captured standard error.
    pub stderr: Vec<u8>,
    /// Collected files that exist: guest path and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Counters.
    pub stats: Stats,
    /// Where CPU time went, if that was asked for.
    pub profile: Option<Profile>,
}

impl Outcome {
    /// Exit status as a shell shows it: the code, 128 + signal, 124 when a limit ended the job, or 125 when we failed.
    pub fn status(&self) -> i32 {
        exit_status(self.reason)
    }
}

/// See [`Outcome::status`].
pub fn exit_status(reason: EndReason) -> i32 {
    match reason {
        EndReason::Exit(c) => c,
        EndReason::Signal(s) => 128 + s,
        EndReason::Limit(_) => 124,
        EndReason::Cancelled => 130,
        EndReason::Failed => 125,
    }
}

/// What the threads of a job share on the runtime's side.
pub(crate) struct Shared {
    pub engine: Engine,
    pub kind: EngineKind,
    /// The CPU model has the instructions of x86-64-v3.
    v3: bool,
    threads: Mutex<HashMap<i32, usize>>,
    unlifted: Mutex<BTreeMap<String, u64>>,
    /// Images are to be found as they are mapped.
    survey: AtomicBool,
    /// Code spaces that may still be there.
    spaces: Mutex<Vec<Weak<CodeSpace>>>,
    /// Tables of processes that have ended.
    tables: Arc<Pool>,
    me: Weak<Shared>,
}

impl Shared {
    fn new(engine: Engine, kind: EngineKind, v3: bool) -> Arc<Shared> {
        Arc::new_cyclic(|me| Shared {
            engine,
            kind,
            v3,
            threads: Mutex::default(),
            unlifted: Mutex::default(),
            survey: AtomicBool::new(false),
            spaces: Mutex::default(),
            tables: Arc::default(),
            me: me.clone(),
        })
    }
    /// The code space of an address space.
    pub(crate) fn space_of(&self, mm: &Mm) -> Arc<CodeSpace> {
        attached(mm).expect("new_arena gives every address space its code space")
    }
    /// A thread begins: its state may be poked by `kick`.
    pub(crate) fn register(&self, tid: i32, cpu: *mut CpuState) {
        lock(&self.threads).insert(tid, cpu as usize);
    }
    /// Nobody pokes the mirror of a state any more.
    #[cfg(feature = "wasm")]
    pub(crate) fn without_mirror(&self, cpu: *mut CpuState) {
        let _guard = lock(&self.threads);
        thread::clear_mirror(cpu);
    }
    pub(crate) fn unregister(&self, tid: i32) {
        lock(&self.threads).remove(&tid);
    }
    /// The threads that share the address space of this state's thread shall leave their code soon.
    pub(crate) fn leave_code(&self, of: *mut CpuState) {
        for cpu in lock(&self.threads).values() {
            thread::request_poll_beside(*cpu as *mut CpuState, of);
        }
    }
    /// The bytes of the instruction at `pc`, and some behind it.
    pub(crate) fn code_at(&self, mem: Mem, pc: u64) -> Vec<u8> {
        let mut bytes = [0u8; 15];
        let n = (1..=15).rev().find(|n| mem.copy_out(pc, &mut bytes[..*n]).is_ok()).unwrap_or(0);
        bytes[..n].to_vec()
    }
    /// Keep the text of an instruction that raised #UD, for the report at the end.
    pub(crate) fn note_unlifted(&self, mem: Mem, bits: u32, pc: u64) {
        let code = self.code_at(mem, pc);
        if evm_lifter::is_undefined(bits, &code) {
            return;
        }
        let text = evm_lifter::describe(bits, pc, &code);
        let mut m = lock(&self.unlifted);
        if m.len() < 256 || m.contains_key(&text) {
            *m.entry(text).or_insert(0) += 1;
        }
    }
}

fn attached(mm: &Mm) -> Option<Arc<CodeSpace>> {
    mm.attachment.get()?.clone().downcast().ok()
}

impl Host for Shared {
    fn spawn(&self, task: Task) -> Result<(), Errno> {
        let Some(shared) = self.me.upgrade() else {
            return Err(Errno::EAGAIN);
        };
        if !room::for_thread() {
            return Err(Errno::EAGAIN);
        }
        std::thread::Builder::new()
            .name("evm-guest".into())
            .stack_size(thread::STACK)
            .spawn(move || thread::main(task, shared))
            .map(drop)
            .map_err(|_| Errno::EAGAIN)
    }
    fn code_changed(&self, mm: &Mm, addr: u64, len: u64) {
        if let Some(s) = attached(mm) {
            s.changed(addr, len);
        }
    }
    fn mapped(&self, mm: &Mm, addr: u64) {
        if self.survey.load(Ordering::Relaxed)
            && let Some(s) = attached(mm)
            && let Some(images) = self.engine.images()
        {
            images.find(mm, &s, addr);
        }
    }
    fn new_arena(&self, mm: &Mm) -> Result<(), Errno> {
        let space =
            CodeSpace::new(mm.arena().clone(), mm.bits, self.v3, self.kind, &self.tables).map_err(|_| Errno::ENOMEM)?;
        // It is new, so nothing is attached yet.
        let space = Arc::new(space);
        if self.engine.images().is_some() {
            let mut all = lock(&self.spaces);
            all.retain(|s| s.strong_count() > 0);
            all.push(Arc::downgrade(&space));
        }
        let _ = mm.attachment.set(space);
        Ok(())
    }
    fn code_generation(&self, mm: &Mm) -> u64 {
        attached(mm).map_or(0, |s| s.generation.load(Ordering::Acquire))
    }
    fn forked(&self, parent: &Mm, child: &Mm, generation: u64) {
        if let (Some(p), Some(c)) = (attached(parent), attached(child)) {
            c.inherit(&p, generation, self.engine.entries());
        }
    }
    fn kick(&self, tid: i32) {
        let m = lock(&self.threads);
        if let Some(cpu) = m.get(&tid) {
            thread::request_poll(*cpu as *mut CpuState);
        }
    }
}

/// One job.
pub struct Vm {
    kernel: Arc<Kernel>,
    shared: Arc<Shared>,
    world: crate::world::World,
    started: Instant,
    confinement: Confinement,
    keeping: Keeping,
    /// Samples are taken.
    profiles: bool,
}

/// The job's part of keeping translations.
#[derive(Default)]
struct Keeping {
    /// The folder to read from.
    folder: Option<std::path::PathBuf>,
    /// What to write to it with.
    size: u64,
    writes: bool,
    worker: Option<Worker>,
    /// Why something is not as it was asked for.
    notes: Vec<String>,
    /// There is an artifact.
    artifact: bool,
}

impl Vm {
    /// Prepare a job.
    pub fn new(engine: &Engine, config: Config, module: &Module) -> anyhow::Result<Vm> {
        anyhow::ensure!(
            config.engine != EngineKind::Wasm || cfg!(feature = "wasm"),
            "the WebAssembly engine is not part of this build (cargo feature wasm)"
        );
        anyhow::ensure!(
            config.engine != EngineKind::Direct || crate::host::direct::supported(),
            "engine direct copies code for CPUs with AVX2, FMA and BMI2 and kernels that let programs set GS (Linux 5.9), which this host is not"
        );
        #[cfg(feature = "wasm")]
        if config.engine == EngineKind::Wasm {
            engine.wasm().map_err(|e| anyhow::anyhow!("wasmtime: {e}"))?;
        }
        let started = Instant::now();
        let cpu = crate::world::cpu(&config.cpu)?;
        let shared = Shared::new(engine.clone(), config.engine, evm_cpu::model::has_v3(cpu));
        if let Some(folder) = &config.dump {
            engine.dump_to(folder);
        }
        let (cache, profiles) = (config.cache.clone(), config.profile);
        let (kernel, world) = crate::world::build(config, module, shared.clone())?;
        for (mount, read_only) in lock(&kernel.host_mounts).iter() {
            // Who may write all that the user may needs no translations to have code executed.
            let all = mount.canonicalize().is_ok_and(|m| m == std::path::Path::new("/"));
            if !all && !read_only && Folder::is_inside(&cache.folder, mount) {
                anyhow::bail!(
                    "{} would be the program's to write, and with it EVM's translations in {}: give it something \
                     smaller, or `:ro`, or set EVM_CACHE_DIR",
                    mount.display(),
                    cache.folder.display()
                );
            }
        }
        if let Some(a) = &cache.artifact
            && let Some((mount, _)) =
                lock(&kernel.host_mounts).iter().find(|(m, ro)| !ro && Folder::is_inside(&a.path, m))
        {
            anyhow::bail!(
                "{} would be the program's to write, and {} is in it: its code would be executed by later runs",
                mount.display(),
                a.path.display()
            );
        }
        let keeping = keeping(&cache, engine, shared.kind, kernel.config.cpu_model);
        if profiles {
            // They tell whose code it is.
            let (model, kind) = (kernel.config.cpu_model, shared.kind);
            engine.keep(|| Images::new(None, None, model, engine::quick_threshold(kind), kind == EngineKind::Direct));
        }
        Ok(Vm { kernel, shared, world, started, confinement: Confinement::default(), keeping, profiles })
    }
    /// Start the process that writes what this run adds to the kept translations, if that is wanted. To be called before
    /// any other thread is started and before [`Vm::confine`].
    pub fn start_translator(&mut self) {
        let k = &mut self.keeping;
        let Some(images) = self.shared.engine.images().filter(|_| k.writes) else { return };
        match Worker::start(images, k.size) {
            Ok(w) => k.worker = Some(w),
            Err(e) => k.notes.push(format!("nothing is added: {e}")),
        }
    }
    /// Take from the calling thread, for good, what the job does not need of the host, as far as the host offers to: see
    /// [`Confinement`]. For processes that do nothing but run this job; before any other thread is started.
    pub fn confine(&mut self) -> anyhow::Result<Confinement> {
        let mut mounts = lock(&self.kernel.host_mounts).clone();
        mounts.extend(self.keeping.folder.iter().map(|f| (f.clone(), true)));
        self.confinement = confine(&mounts).context("confining the process (--no-confine leaves that out)")?;
        Ok(self.confinement)
    }
    /// A handle that can end the job from another thread.
    pub fn handle(&self) -> Handle {
        Handle { kernel: self.kernel.clone(), terminal: self.world.terminal().cloned() }
    }
    /// Run the job to its end.
    pub fn run(self) -> anyhow::Result<Outcome> {
        if self.profiles {
            crate::profile::start();
        }
        let started = self.world.start(&self.kernel)?;
        if let Some(t) = self.world.terminal() {
            t.control().attach(started.pid(), started.pid());
        }
        self.shared.spawn(started).map_err(|e| anyhow::anyhow!("no host thread for the guest: {e}"))?;
        let reason = self.kernel.wait_end();
        self.shared.engine.clear_queue();
        let mut stats = Stats {
            engine: self.shared.engine.counters().table(),
            wall_us: self.started.elapsed().as_micros() as u64,
            peak_rss: peak_rss(),
            confinement: self.confinement,
            ..Stats::default()
        };
        for (name, n, known) in self.kernel.counters.syscalls() {
            if !known {
                stats.unknown_syscalls.insert(name.clone(), n);
            }
            stats.syscalls.insert(name, n);
        }
        stats.unlifted = lock(&self.shared.unlifted).iter().map(|(t, n)| format!("{t} ({n} times)")).collect();
        stats.cache = self.keep();
        stats.artifact_unused = self.keeping.artifact && self.shared.engine.images().is_none_or(|i| i.used().0 == 0);
        let profile = self.profiles.then(|| self.profile());
        let (stdout, stderr, files) = self.world.finish();
        Ok(Outcome { reason, stdout, stderr, files, stats, profile })
    }
}

impl Vm {
    /// The samples, with the images that they are of.
    fn profile(&self) -> Profile {
        let mut p = crate::profile::finish();
        let images = self.shared.engine.images().map(|i| i.all()).unwrap_or_default();
        p.images.extend(images.iter().filter_map(|i| {
            let label = String::from_utf8_lossy(i.label()).into_owned();
            let file = std::fs::File::from(i.file.try_clone().ok()?);
            Some(ImageAt { label, lo: i.key.lo, hi: i.key.hi, offset: i.key.offset, file })
        }));
        p
    }
    /// Tell the translator what there is to keep; gives notes for the statistics.
    fn keep(&self) -> Vec<String> {
        let mut notes = self.keeping.notes.clone();
        let Some(images) = self.shared.engine.images() else { return notes };
        for s in lock(&self.shared.spaces).drain(..).filter_map(|s| s.upgrade()) {
            s.harvest();
        }
        if let Some(w) = &self.keeping.worker
            && let Err(e) = w.send(&images.all())
        {
            notes.push(format!("nothing is added: {e}"));
        }
        let (files, blocks) = images.used();
        let folder = images.folder().map_or_else(|| "the artifact".into(), |f| f.path().display().to_string());
        notes.push(format!("{folder}: {blocks} blocks of {files} images used"));
        notes.extend(images.refused());
        notes
    }
}

/// Open the folder of kept translations.
fn keeping(c: &cache::Config, engine: &Engine, kind: EngineKind, model: u32) -> Keeping {
    let mut k = Keeping { size: c.size, artifact: c.artifact.is_some(), ..Keeping::default() };
    let on = c.mode != cache::Mode::Off;
    if !matches!(kind, EngineKind::Jit | EngineKind::Quick | EngineKind::Direct) || !on && c.artifact.is_none() {
        return k;
    }
    if engine.dump().is_some() {
        k.notes.push("no translations are kept: a dump shows those that are made".into());
        return k;
    }
    let folder = match on.then(|| Folder::open(&c.folder)).transpose() {
        Ok(f) => f.map(Arc::new),
        Err(e) => {
            k.notes.push(format!("no translations are kept: {e}"));
            None
        }
    };
    if folder.is_none() && c.artifact.is_none() {
        return k;
    }
    let images = engine.keep(|| {
        Images::new(folder, c.artifact.clone(), model, engine::quick_threshold(kind), kind == EngineKind::Direct)
    });
    k.folder = images.folder().map(|f| f.path().to_owned());
    k.writes = c.mode == cache::Mode::On && k.folder.is_some();
    k
}

impl Vm {
    /// Find the images that a program maps before it runs code of its own: itself, its loader and, if that is the GNU C
    /// library's, which lists libraries when `LD_TRACE_LOADED_OBJECTS` is set, these too. Nothing of the job is left.
    pub fn survey(self) -> anyhow::Result<Vec<Surveyed>> {
        let kind = self.shared.kind;
        let images = self.shared.engine.keep(|| {
            Images::new(
                None,
                None,
                self.kernel.config.cpu_model,
                engine::quick_threshold(kind),
                kind == EngineKind::Direct,
            )
        });
        self.shared.survey.store(true, Ordering::Relaxed);
        let started = self.world.start(&self.kernel)?;
        let lists = |label: &[u8]| label.rsplit(|b| *b == b'/').next().is_some_and(|n| n.starts_with(b"ld-linux"));
        if images.all().iter().any(|i| lists(i.label())) {
            self.shared.spawn(started).map_err(|e| anyhow::anyhow!("no host thread for the guest: {e}"))?;
            self.kernel.wait_end();
        }
        let all = images.all();
        Ok(all.into_iter().map(Surveyed::new).collect())
    }
}

/// Ends a job from outside.
#[derive(Clone)]
pub struct Handle {
    kernel: Arc<Kernel>,
    terminal: Option<Arc<evm_kernel::io::stdio::Terminal>>,
}

impl Handle {
    /// End all processes of the job at once.
    pub fn cancel(&self) {
        self.kernel.kill_job(EndReason::Cancelled);
    }
    /// Wait until the job is told to end, by a limit or [`Handle::cancel`]; why. Its threads may still be on their way out;
    /// a job that ends by itself does not wake the caller.
    pub fn wait_told_to_end(&self) -> EndReason {
        self.kernel.wait_killed()
    }
    /// Give the terminal the settings back that it had, for ends that skip the ordinary one.
    pub fn restore_terminal(&self) {
        if let Some(t) = &self.terminal {
            t.restore();
        }
    }
    /// Send a signal of the terminal (SIGINT, SIGWINCH …) to the guest's foreground group. False if there is no such
    /// group or, for SIGINT, if nobody in it handles the signal.
    pub fn tty_signal(&self, sig: i32) -> bool {
        let group = self.terminal.as_ref().map_or(0, |t| t.control().foreground());
        let members: Vec<_> = self.kernel.processes().into_iter().filter(|p| group == 0 || p.pgid() == group).collect();
        let handled = members.iter().any(|p| p.action(sig).handler > 1);
        for p in &members {
            // A process that has ended meanwhile needs no signal.
            let _ = p.signal(evm_kernel::signal::SigInfo::kernel(sig));
        }
        handled
    }
}

fn peak_rss() -> u64 {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| {
            let line = s.lines().find(|l| l.starts_with("VmHWM:"))?;
            line.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .map_or(0, |k| k * 1024)
}
