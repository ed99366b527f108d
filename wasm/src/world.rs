//! From the module's files and what WASI gives to a job, and to its end.

use crate::bundle::blob;
use crate::lifted;
use crate::thread::{self, Shared};
use evm_cpu::model;
use evm_kernel::clone::Program;
use evm_kernel::errno::Errno;
use evm_kernel::fs::procfs::ProcFs;
use evm_kernel::fs::{DirMount, FsContext, KernelWorld, Setup, Sysroot, Tree, archive, hostfs, node};
use evm_kernel::io::{FdTable, stdio};
use evm_kernel::kernel::{Config, EndReason, Kernel};
use std::collections::HashMap;
use std::sync::Arc;

/// The guest's address space, unless the module says otherwise.
const MEMORY: u64 = 1 << 30;

/// What the blob `config` says: lines of a word and a value.
struct Settings {
    program: String,
    arg0: String,
    cpu: String,
    memory: u64,
    env: Vec<Vec<u8>>,
}

fn settings() -> Result<Settings, String> {
    let text = blob(b"config\0\0").ok_or("this module has no program: it is the bare runtime")?;
    let text = std::str::from_utf8(text).map_err(|_| "the module's settings are no text")?;
    let mut s = Settings {
        program: String::new(),
        arg0: String::new(),
        cpu: "x86-64-v2".into(),
        memory: MEMORY,
        env: Vec::new(),
    };
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("program", v)) => s.program = v.into(),
            Some(("arg0", v)) => s.arg0 = v.into(),
            Some(("cpu", v)) => s.cpu = v.into(),
            Some(("memory", v)) => s.memory = v.parse().map_err(|_| format!("the module's settings: {line}"))?,
            Some(("env", v)) => s.env.push(v.into()),
            _ => return Err(format!("the module's settings: {line}")),
        }
    }
    Ok(s)
}

/// The guest's environment: the module's, changed by the one given to it.
fn environment(mut env: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    for (name, value) in std::env::vars_os() {
        let name = [name.as_encoded_bytes(), b"="].concat();
        env.retain(|v| !v.starts_with(&name));
        env.push([&name, value.as_encoded_bytes()].concat());
    }
    env
}

/// Where a preopened folder is in the guest: absolute names as they are, others below /work; the host's root is /mnt.
fn guest_path(name: &str) -> String {
    let clean = name.trim_start_matches("./").trim_end_matches('/');
    match (name, clean) {
        ("/", _) => "/mnt".into(),
        (_, "" | ".") => "/work".into(),
        (_, p) if p.starts_with('/') => p.into(),
        (_, p) => format!("/work/{p}"),
    }
}

/// Run the module's program; its exit status as a shell shows it.
pub fn run() -> Result<i32, String> {
    let s = settings()?;
    let cpu = model::by_name(&s.cpu).ok_or_else(|| format!("no CPU model {:?}", s.cpu))?;
    let shared = Arc::new(Shared::default());
    let kernel = Kernel::new(
        Config {
            arena_size: room(s.memory),
            hwcap: (u64::from(model::cpuid(cpu, 1, 1, 0)[3]), 0),
            xfeatures: model::xcr0(cpu),
            cpu_model: cpu,
            shown_memory: s.memory,
            ..Config::default()
        },
        shared.clone(),
    );
    let failed = |what: &str| {
        let what = what.to_string();
        move |e: Errno| format!("{what}: {e}")
    };
    let fs = file_systems(&kernel, cpu).map_err(failed("the guest's file systems"))?;
    let (streams, terminal) = stdio::host_stdio(None).map_err(failed("the standard streams"))?;
    let fds = FdTable::new(1024);
    for d in streams {
        fds.insert(d, false).map_err(failed("the standard streams"))?;
    }
    let mut argv = vec![s.arg0.clone().into_bytes()];
    argv.extend(std::env::args_os().skip(1).map(|a| a.as_encoded_bytes().to_vec()));
    let program = Program {
        bytes: None,
        path: s.program.clone().into_bytes(),
        argv,
        envp: environment(s.env),
        fs: Arc::new(fs),
        fds: Arc::new(fds),
    };
    let task = kernel.start(program).map_err(failed(&s.program))?;
    if let Some(t) = terminal {
        t.control().attach(task.pid(), task.pid());
    }
    thread::run(task, shared);
    Ok(match kernel.wait_end() {
        EndReason::Exit(c) => c,
        EndReason::Signal(n) => 128 + n,
        EndReason::Limit(_) | EndReason::Cancelled | EndReason::Failed => crate::FAILED,
    })
}

/// As much of the wished size as there is, down to an eighth: two address spaces exist during execve.
fn room(wish: u64) -> u64 {
    let fits = |size: &u64| evm_memory::Arena::reserve(*size).is_ok();
    [wish, wish / 2, wish / 4].into_iter().find(fits).unwrap_or(wish / 8)
}

fn file_systems(kernel: &Arc<Kernel>, cpu: u32) -> Result<FsContext, Errno> {
    let world: Arc<dyn node::World> = Arc::new(KernelWorld(Arc::downgrade(kernel)));
    let files = blob(b"files\0\0\0").ok_or(Errno::ENOENT)?;
    let dirs = hostfs::preopened()
        .into_iter()
        .map(|(name, _)| DirMount { guest: guest_path(&name).into_bytes(), host: name.into(), read_only: false })
        .collect();
    let c = &kernel.config;
    let ns = Setup {
        sysroot: Sysroot::Tree(Tree(archive::mount(files, 0x20, world.clone())?)),
        dirs,
        uid: c.uid,
        gid: c.gid,
        user: c.user.clone(),
        hostname: c.hostname.clone(),
        ..Setup::default()
    }
    .build(
        world,
        Some([ProcFs::root(Arc::downgrade(kernel), 0x16, cpu), ProcFs::sys_root(Arc::downgrade(kernel), 0x17)]),
    )?;
    let mut images = HashMap::new();
    for w in lifted::wanted() {
        // Something may be mounted over it.
        if let Ok(e) = ns.resolve(&node::Caller::default(), &ns.root(), w.path.as_bytes(), true) {
            images.insert((e.stat.dev, e.stat.ino), w.at);
        }
    }
    // It is set once.
    let _ = kernel.images.set(images);
    let fs = FsContext::new(ns);
    fs.chdir(&node::Caller::default(), b"/work")?;
    Ok(fs)
}
