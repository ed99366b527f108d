//! From a [`Config`] to a kernel with its file systems, standard streams and first process.

use crate::config::{Config, Dir, Stream, Sysroot};
use crate::engine::lock;
use crate::vm::{Module, Shared, Source};
use anyhow::{Context, Result, bail};
use evm_cpu::model;
use evm_kernel::clone::Program;
use evm_kernel::file::Description;
use evm_kernel::fs::procfs::ProcFs;
use evm_kernel::fs::setup::{DirMount, Setup, Sysroot as FsSysroot};
use evm_kernel::fs::{FsContext, KernelWorld, Namespace, node};
use evm_kernel::io::FdTable;
use evm_kernel::io::stdio::{Capture, Charge, HostStream, Input, Terminal};
use evm_kernel::kernel::{Config as KernelConfig, EndReason, Kernel};
use evm_kernel::task::Task;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

/// The guest's world besides the kernel: what goes in at the start and comes out at the end.
pub(crate) struct World {
    program: Mutex<Option<Program>>,
    ns: Arc<Namespace>,
    stdout: Arc<Mutex<Vec<u8>>>,
    stderr: Arc<Mutex<Vec<u8>>>,
    collect: Vec<String>,
    terminal: Option<Arc<Terminal>>,
}

/// The number of a CPU model that this host can run.
pub(crate) fn cpu(name: &str) -> Result<u32> {
    let Some(cpu) = model::by_name(name) else {
        let names: Vec<_> = model::MODELS.iter().map(|m| m.name).collect();
        bail!("no CPU model {name:?}; there are: {}", names.join(", "));
    };
    let missing = model::missing(cpu);
    if !missing.is_empty() {
        let what = missing.join(", ");
        let other = model::MODELS.iter().filter(|m| m.name != name && model::by_name(m.name).is_some_and(model::runs));
        let other =
            other.map(|m| format!("; --cpu {} can be run, but results may differ from those of {name}", m.name));
        bail!(
            "this host cannot run CPU model {name}: its processor or operating system lacks {what}{}",
            other.collect::<String>()
        );
    }
    Ok(cpu)
}

/// Build the kernel and its world; nothing runs yet.
pub(crate) fn build(config: Config, module: &Module, shared: Arc<Shared>) -> Result<(Arc<Kernel>, World)> {
    let cpu = cpu(&config.cpu)?;
    let mut defaults = KernelConfig::default();
    #[cfg(feature = "wasm")]
    if config.engine == crate::EngineKind::Wasm {
        defaults.arena_size = crate::wasm::ARENA;
    }
    #[cfg(not(feature = "wasm"))]
    let _ = &mut defaults;
    let kernel = Kernel::new(
        KernelConfig {
            cpus: config.cpus.max(1),
            clock: config.clock,
            seed: config.seed,
            limits: config.limits,
            hwcap: (u64::from(model::cpuid(cpu, 1, 1, 0)[3]), 0),
            xfeatures: model::xcr0(cpu),
            cpu_model: cpu,
            trace: config.trace,
            ..defaults
        },
        shared,
    );
    let c = &kernel.config;
    let world = Arc::new(KernelWorld(Arc::downgrade(&kernel)));
    let ns = Setup {
        sysroot: match config.sysroot {
            Sysroot::Host => FsSysroot::Host,
            Sysroot::Dir(d) => FsSysroot::Dir(d),
            Sysroot::None => FsSysroot::None,
        },
        dirs: config
            .dirs
            .into_iter()
            .map(|Dir { host, guest, read_only }| DirMount { host, guest: guest.into_bytes(), read_only })
            .collect(),
        program: match &module.source {
            Source::Host(p) => Some((p.clone(), module.name.clone().into_bytes())),
            Source::Bytes(_) | Source::Guest => None,
        },
        uid: c.uid,
        gid: c.gid,
        user: c.user.clone(),
        hostname: c.hostname.clone(),
        ..Setup::default()
    }
    .build(
        world,
        Some([ProcFs::root(Arc::downgrade(&kernel), 0x16, cpu), ProcFs::sys_root(Arc::downgrade(&kernel), 0x17)]),
    )
    .context("the guest's file systems")?;
    for (path, bytes) in &config.files {
        put(&ns, path, bytes, 0o644)?;
    }
    if let Source::Bytes(b) = &module.source {
        put(&ns, &module.name, b, 0o755)?;
    }
    let fs = FsContext::new(ns.clone());
    fs.chdir(&node::Caller::default(), config.cwd.as_bytes())
        .with_context(|| format!("the guest's working directory {:?}", config.cwd))?;
    let (stdout, stderr) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
    let (fds, terminal) = streams([config.stdin, config.stdout, config.stderr], &kernel, &stdout, &stderr)?;
    let program = Program {
        bytes: None,
        path: module.name.clone().into_bytes(),
        argv: config.args,
        envp: config.env,
        fs: Arc::new(fs),
        fds,
    };
    let program = Mutex::new(Some(program));
    Ok((kernel, World { program, ns, stdout, stderr, collect: config.collect, terminal }))
}

/// Write a file into the guest's file system before anything runs.
fn put(ns: &Arc<Namespace>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    let who = node::Caller::default();
    let root = ns.root();
    let what = || format!("the guest file {path:?}");
    let mut at = 0;
    while let Some(n) = path[at + 1..].find('/') {
        at += n + 1;
        match ns.make(&who, &root, &path.as_bytes()[..at], node::Make::Dir, 0o755) {
            Ok(_) | Err(evm_kernel::errno::Errno::EEXIST) => {}
            Err(e) => return Err(e).with_context(what),
        }
    }
    let e = ns.make(&who, &root, path.as_bytes(), node::Make::File, mode).with_context(what)?;
    let f = e.place.node.open(&who, libc::O_WRONLY as u32).with_context(what)?;
    let mut done = 0;
    while done < bytes.len() {
        done += f.write(&evm_kernel::wait::Nobody::new(), done as u64, &bytes[done..], true).with_context(what)?;
    }
    Ok(())
}

fn streams(
    which: [Stream; 3],
    kernel: &Arc<Kernel>,
    stdout: &Arc<Mutex<Vec<u8>>>,
    stderr: &Arc<Mutex<Vec<u8>>>,
) -> Result<(Arc<FdTable>, Option<Arc<Terminal>>)> {
    let weak = Arc::downgrade(kernel);
    let charge: Charge = Arc::new(move |n| {
        let Some(k) = weak.upgrade() else {
            return false;
        };
        if k.limits.charge_output(n) {
            return true;
        }
        k.kill_job(EndReason::Limit("output"));
        false
    });
    let mut terminal: Option<Arc<Terminal>> = None;
    let mut open = |i: usize, s: Stream| -> Result<Arc<Description>> {
        let charge = (i > 0).then(|| charge.clone());
        Ok(match s {
            Stream::Inherit => {
                let fd: BorrowedFd<'static> = match i {
                    0 => rustix::stdio::stdin(),
                    1 => rustix::stdio::stdout(),
                    _ => rustix::stdio::stderr(),
                };
                let s = HostStream::with_terminal(fd, charge, terminal.as_ref())?;
                if terminal.is_none() {
                    terminal = s.terminal().cloned();
                }
                s.describe()?
            }
            Stream::Bytes(b) => Input::new(b).describe(),
            Stream::Null if i == 0 => Input::new(Vec::new()).describe(),
            Stream::Null => Capture::new(Arc::default(), charge).describe(),
            Stream::Capture => Capture::new(if i == 2 { stderr.clone() } else { stdout.clone() }, charge).describe(),
        })
    };
    let fds = FdTable::new(1024);
    for (i, s) in which.into_iter().enumerate() {
        let d = open(i, s).with_context(|| format!("standard stream {i}"))?;
        fds.insert(d, false).with_context(|| format!("standard stream {i}"))?;
    }
    Ok((Arc::new(fds), terminal))
}

impl World {
    /// The first process.
    pub(crate) fn start(&self, kernel: &Arc<Kernel>) -> Result<Task, evm_kernel::errno::Errno> {
        let Some(p) = lock(&self.program).take() else {
            return Err(evm_kernel::errno::Errno::EBUSY);
        };
        let task = kernel.start(p)?;
        // The first process leads the session that the terminal belongs to.
        if let Some(t) = &self.terminal {
            t.control().attach(task.pid(), task.pid());
        }
        Ok(task)
    }
    /// The job's terminal.
    pub(crate) fn terminal(&self) -> Option<&Arc<Terminal>> {
        self.terminal.as_ref()
    }
    /// What came out: standard output, standard error, collected files.
    #[allow(clippy::type_complexity)]
    pub(crate) fn finish(&self) -> (Vec<u8>, Vec<u8>, Vec<(String, Vec<u8>)>) {
        if let Some(t) = &self.terminal {
            t.restore();
        }
        let files = self.collect.iter().filter_map(|p| Some((p.clone(), self.read(p)?))).collect();
        (std::mem::take(&mut lock(&self.stdout)), std::mem::take(&mut lock(&self.stderr)), files)
    }
    fn read(&self, path: &str) -> Option<Vec<u8>> {
        let who = node::Caller::default();
        let e = self.ns.resolve(&who, &self.ns.root(), path.as_bytes(), true).ok()?;
        let f = e.place.node.open(&who, libc::O_RDONLY as u32).ok()?;
        let mut out = vec![];
        let mut buf = vec![0; 64 << 10];
        loop {
            match f.read(&evm_kernel::wait::Nobody::new(), out.len() as u64, &mut buf, true) {
                Ok(0) => return Some(out),
                Ok(n) => out.extend_from_slice(&buf[..n]),
                Err(_) => return None,
            }
        }
    }
}
