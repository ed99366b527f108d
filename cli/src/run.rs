//! `evm run`: options to a job, and the job's end to an exit status.

use crate::args::{self, Run};
use crate::units::{Clock, EnvVar, Limits, Mount, Seed, Stats, Sysroot};
use crate::{lift, profile, stats, status};
use anyhow::{Context, Result};
use evm_runtime::cache;
use evm_runtime::{
    ClockMode, Config, Dir, EndReason, Engine, EngineKind, Errno, Handle, Module, TraceSink, Vm, exit_status,
};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};
use signal_hook::iterator::Signals;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The search path of the guest's environment.
const GUEST_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Why a program did not start.
#[derive(Debug)]
pub enum Failure {
    /// No such program.
    NotFound(PathBuf),
    /// It is there and cannot be run, for this reason.
    NotRunnable(PathBuf, String),
}

impl Failure {
    /// What `evm` exits with.
    pub fn status(&self) -> u8 {
        match self {
            Failure::NotFound(_) => status::NOT_FOUND,
            Failure::NotRunnable(..) => status::NOT_RUNNABLE,
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::NotFound(p) => write!(f, "{}: not found", p.display()),
            Failure::NotRunnable(p, why) => write!(f, "{}: cannot be run: {why}", p.display()),
        }
    }
}

impl std::error::Error for Failure {}

/// The file of a program of this machine.
pub(crate) fn find_host_program(name: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let check = |file: &Path| -> Result<(), Failure> {
        let meta = std::fs::metadata(file).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Failure::NotFound(file.into()),
            _ => Failure::NotRunnable(file.into(), e.to_string()),
        })?;
        if meta.is_dir() {
            return Err(Failure::NotRunnable(file.into(), "it is a folder".into()));
        }
        if is_wasm(file) {
            let why = "it is a WebAssembly module, and this evm is built without (cargo build --release -p evm-cli \
                       --features wasm): run it with wasmtime, Node's WASI or the like, or give evm the program itself";
            return Err(Failure::NotRunnable(file.into(), why.into()));
        }
        if meta.permissions().mode() & 0o111 == 0 {
            return Err(Failure::NotRunnable(file.into(), "it is not marked executable (chmod +x)".into()));
        }
        Ok(())
    };
    if name.as_bytes().contains(&b'/') {
        check(Path::new(name))?;
        return Ok(name.into());
    }
    let mut found = Err(Failure::NotFound(name.into()));
    for dir in path.map(std::env::split_paths).into_iter().flatten() {
        let file = dir.join(name);
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(e @ Failure::NotRunnable(..)) if found.is_err() && file.is_file() => found = Err(e),
            Err(_) => {}
        }
    }
    found
}

/// Whether a file is a WebAssembly module.
fn is_wasm(file: &Path) -> bool {
    let mut start = [0; 4];
    let read = std::fs::File::open(file).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut start));
    read.is_ok() && start == *b"\0asm"
}

/// The guest's environment: the defaults, changed by `--env`.
pub(crate) fn environment(changes: &[EnvVar], term: Option<OsString>) -> Vec<(OsString, OsString)> {
    let mut env: Vec<(OsString, OsString)> = [
        ("PATH", GUEST_PATH),
        ("HOME", "/home/user"),
        ("USER", "user"),
        ("LOGNAME", "user"),
        ("SHELL", "/bin/sh"),
        ("LANG", "C.UTF-8"),
    ]
    .map(|(n, v)| (n.into(), v.into()))
    .to_vec();
    env.extend(term.map(|t| ("TERM".into(), t)));
    for c in changes {
        env.retain(|(n, _)| *n != c.name);
        let value = c.value.clone().or_else(|| std::env::var_os(&c.name));
        env.extend(value.map(|v| (c.name.clone(), v)));
    }
    env
}

/// The program that a user names, as a path and as a module.
pub fn module(sysroot: &Sysroot, name: &OsStr) -> Result<(PathBuf, Module)> {
    Ok(match sysroot {
        Sysroot::Dir(_) => {
            let path = PathBuf::from(name);
            let module = Module::from_guest_path(&path.to_string_lossy());
            (path, module)
        }
        Sysroot::Host | Sysroot::None => {
            let path = find_host_program(name, std::env::var_os("PATH").as_deref())?;
            let module = Module::from_host_file(&path.canonicalize().unwrap_or(path.clone()));
            (path, module)
        }
    })
}

/// The program where the guest has it already, in a folder that was given or among the host's libraries (`system`): it may look for its
/// files beside itself. One that is not in the folder that is the guest's root is shown in memory, as nothing of the job's making
/// belongs into that.
fn place(module: Module, program: &Path, dirs: &[Mount], system: bool) -> Module {
    let real = |p: &Path| p.canonicalize().ok();
    let inside = |d: &Mount| {
        let (host, path) = (real(&d.host)?, std::path::absolute(program).ok()?);
        let (folder, name) = (real(path.parent()?)?, path.file_name()?);
        // A link stays one, if it leads to what is in the folder too.
        real(&path)?.starts_with(&host).then_some(())?;
        Some(d.guest.join(folder.strip_prefix(&host).ok()?).join(name))
    };
    // The mount that comes last covers those before.
    let folders = dirs.iter().filter(|d| d.host.is_dir());
    if let Some(path) = folders.clone().rev().find_map(inside).as_ref().and_then(|p| p.to_str()) {
        return Module::from_guest_path(path);
    }
    if folders.clone().any(|d| d.guest == Path::new("/")) {
        let name = module.guest_path().rsplit('/').next().unwrap_or("program").to_owned();
        return module.at(&format!("/dev/program/{name}"));
    }
    let among = |p: &PathBuf| ["/usr/lib", "/usr/libexec", "/usr/share"].iter().any(|d| p.starts_with(d));
    let public = |p: &PathBuf| std::fs::metadata(p).is_ok_and(|m| m.permissions().mode() & 0o5 == 0o5);
    match real(program).filter(|p| system && among(p) && public(p)).as_ref().and_then(|p| p.to_str()) {
        Some(path) => Module::from_guest_path(path),
        None => module,
    }
}

/// Where the program starts: where we are if the guest's root is the host's.
fn cwd(o: &args::Run) -> String {
    let root = o.dirs.iter().find(|d| d.guest == Path::new("/"));
    let here = || std::env::current_dir().ok().filter(|_| root.is_some_and(|d| d.host == Path::new("/")));
    let default = || here().unwrap_or_else(|| if root.is_some() { "/".into() } else { "/work".into() });
    o.cwd.clone().unwrap_or_else(default).to_string_lossy().into_owned()
}

/// Where system files come from.
pub fn sysroot(s: &Sysroot) -> evm_runtime::Sysroot {
    match s {
        Sysroot::Host => evm_runtime::Sysroot::Host,
        Sysroot::Dir(d) => evm_runtime::Sysroot::Dir(d.clone()),
        Sysroot::None => evm_runtime::Sysroot::None,
    }
}

/// Name of a CPU model.
pub fn cpu(m: args::CpuModel) -> &'static str {
    match m {
        args::CpuModel::X86_64V2 => "x86-64-v2",
        args::CpuModel::X86_64V3 => "x86-64-v3",
    }
}

/// Run the job and return what `evm` shall exit with.
pub fn run(o: &Run) -> Result<ExitCode> {
    use std::io::IsTerminal;
    let Some(name) = o.command.first() else { anyhow::bail!("no program") };
    #[cfg(feature = "wasm")]
    if is_wasm(Path::new(name)) {
        return crate::wasm::host::run(o, Path::new(name));
    }
    let limits = Limits::from_args(&o.limits);
    anyhow::ensure!(limits.fuel.is_none(), "the limit \"fuel\" is for WebAssembly modules; cpu bounds CPU time");
    let term =
        if std::io::stdin().is_terminal() || std::io::stdout().is_terminal() { std::env::var_os("TERM") } else { None };
    let env = environment(&o.env, term);
    let lifted = lift::open(Path::new(name))?;
    if let Some(l) = &lifted {
        anyhow::ensure!(
            l.guest == matches!(o.sysroot, Sysroot::Dir(_)),
            "{} was lifted {} --sysroot DIR, and is to be run so",
            Path::new(name).display(),
            if l.guest { "with" } else { "without" }
        );
    }
    let name = lifted.as_ref().map_or(name.as_os_str(), |l| l.path.as_os_str());
    let (program, module) = module(&o.sysroot, name)?;
    let module = match o.sysroot {
        Sysroot::Dir(_) => module,
        Sysroot::Host | Sysroot::None => place(module, &program, &o.dirs, matches!(o.sysroot, Sysroot::Host)),
    };
    let config = Config {
        engine: match o.engine {
            // A dump shows what is compiled.
            args::EngineKind::Auto if o.dump.is_some() => EngineKind::Jit,
            args::EngineKind::Auto => EngineKind::default(),
            args::EngineKind::Jit => EngineKind::Jit,
            args::EngineKind::Interp => EngineKind::Interp,
            args::EngineKind::Quick => EngineKind::Quick,
            args::EngineKind::Direct => EngineKind::Direct,
            args::EngineKind::Cranelift => EngineKind::Cranelift,
            args::EngineKind::Wasm => EngineKind::Wasm,
        },
        args: std::iter::once(name).chain(o.command[1..].iter().map(|a| &**a)).map(|a| a.as_bytes().to_vec()).collect(),
        env: env.iter().map(|(n, v)| [n.as_bytes(), b"=", v.as_bytes()].concat()).collect(),
        cwd: cwd(o),
        sysroot: sysroot(&o.sysroot),
        dirs: o
            .dirs
            .iter()
            .map(|d| Dir {
                host: d.host.clone(),
                guest: d.guest.to_string_lossy().into_owned(),
                read_only: d.read_only,
            })
            .collect(),
        clock: match &o.clock {
            Clock::Host => ClockMode::Host,
            Clock::Start(start) => ClockMode::Virtual { start: *start },
        },
        seed: match &o.seed {
            Seed::Random => None,
            Seed::Fixed(n) => Some(*n),
        },
        cpu: cpu(o.cpu).into(),
        cpus: o.cpus,
        limits: evm_runtime::Limits {
            memory: limits.memory,
            cpu: limits.cpu,
            wall: limits.wall,
            procs: limits.procs,
            files: limits.files,
            disk: limits.disk,
            output: limits.output,
        },
        dump: o.dump.clone(),
        profile: o.profile.is_some(),
        cache: cache::Config { artifact: lifted.map(|l| l.artifact), ..crate::cache::config(o.cache)? },
        trace: o.trace.as_deref().map(trace_sink).transpose()?,
        ..Config::default()
    };
    let graph = o.profile.as_deref().map(profile::Output::new).transpose()?;
    let mut vm = Vm::new(&Engine::new(), config, &module)?;
    vm.start_translator();
    // Dumps are written while the job runs.
    if !o.no_confine && o.dump.is_none() {
        vm.confine()?;
    }
    end_on_signals(vm.handle())?;
    end_on_panics(vm.handle());
    end_overdue(vm.handle())?;
    let outcome = match vm.run() {
        Ok(outcome) => outcome,
        Err(e) => {
            if let Some(errno) = e.downcast_ref::<Errno>() {
                return Err(match *errno {
                    Errno::ENOENT if matches!(o.sysroot, Sysroot::Dir(_)) => Failure::NotFound(program),
                    errno => Failure::NotRunnable(program, why(errno)),
                }
                .into());
            }
            return Err(e);
        }
    };
    say_why_ended(outcome.reason);
    for u in &outcome.stats.unlifted {
        eprintln!("evm: not lifted: {u}; please report this line with the program's name");
    }
    if let (Some(graph), Some(p)) = (graph, &outcome.profile) {
        graph.write(p)?;
    }
    match &o.stats {
        Some(Stats::Json) => eprintln!("{}", stats::json(&outcome)),
        Some(Stats::Text) => eprint!("{}", stats::text(&outcome)),
        None if outcome.stats.artifact_unused => eprintln!(
            "evm: nothing of {} was used: it is for another engine, CPU model, version of evm or program; 'evm lift' makes it anew",
            Path::new(&o.command[0]).display()
        ),
        None => {}
    }
    Ok(ExitCode::from(outcome.status() as u8))
}

/// What the user is told of an end that the guest did not choose.
fn say_why_ended(reason: EndReason) {
    match reason {
        EndReason::Limit(name) => {
            eprintln!("evm: the limit {name:?} ended the job; raise it with --limit {name}=VALUE");
        }
        EndReason::Failed => eprintln!("evm: the job's limits could not be watched any longer, so it was ended"),
        EndReason::Exit(_) | EndReason::Signal(_) | EndReason::Cancelled => {}
    }
}

/// What an error of execve means for a person.
fn why(e: Errno) -> String {
    let text = match e {
        Errno::ENOEXEC => "it is no x86-64 Linux program (or it is damaged)",
        Errno::ENOENT => {
            "its loader or script interpreter does not exist in the guest; give one with --sysroot or --dir"
        }
        Errno::EACCES => "it may not be executed",
        Errno::ENOMEM => "it does not fit into the guest's memory",
        _ => return format!("execve: {e}"),
    };
    text.into()
}

fn trace_sink(path: &Path) -> Result<TraceSink> {
    let out: Box<dyn Write + Send> = if path == Path::new("-") {
        Box::new(std::io::stderr())
    } else {
        Box::new(std::fs::File::create(path).with_context(|| format!("the trace file {}", path.display()))?)
    };
    let out = Mutex::new(out);
    Ok(Box::new(move |line| {
        if let Ok(mut o) = out.lock() {
            // A trace that cannot be written must not stop the guest.
            let _ = writeln!(o, "{line}");
        }
    }))
}

/// A panic that the runtime does not catch ends the process: without the thread that panicked the job might never end.
fn end_on_panics(handle: Handle) {
    let show = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        show(info);
        if !evm_runtime::panic_is_caught() {
            handle.restore_terminal();
            eprintln!("evm: this is a bug of evm; please report the lines above with the program's name");
            std::process::exit(status::FAILED.into());
        }
    }));
}

/// How long the threads of a job that has been told to end may take to do so.
const GRACE: Duration = Duration::from_secs(5);

/// Threads leave at their next poll, which is a matter of microseconds, but not always: the host's kernel puts a thread to
/// sleep for each locked access across cache lines, for one. Then the process ends without them.
fn end_overdue(handle: Handle) -> Result<()> {
    std::thread::Builder::new().name("evm-overdue".into()).spawn(move || {
        let reason = handle.wait_told_to_end();
        std::thread::sleep(GRACE);
        handle.restore_terminal();
        say_why_ended(reason);
        eprintln!(
            "evm: a thread of the job did not stop within {} s, so the process ended without it",
            GRACE.as_secs()
        );
        std::process::exit(exit_status(reason));
    })?;
    Ok(())
}

/// SIGTERM, SIGHUP and SIGQUIT end the job at once. SIGINT does too, unless the guest handles it: then the guest gets it,
/// and a second one within a second ends the job.
fn end_on_signals(handle: Handle) -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGWINCH, SIGTSTP, SIGCONT])?;
    std::thread::Builder::new().name("evm-signals".into()).spawn(move || {
        let mut last: Option<Instant> = None;
        for s in &mut signals {
            match s {
                SIGINT => {
                    let twice = last.is_some_and(|t| t.elapsed() < Duration::from_secs(1));
                    last = Some(Instant::now());
                    if twice || !handle.tty_signal(SIGINT) {
                        handle.cancel();
                    }
                }
                SIGWINCH => {
                    handle.tty_signal(SIGWINCH);
                }
                SIGTSTP => {
                    // Stop the whole host process: the guest's threads stand still with it.
                    let _ = signal_hook::low_level::emulate_default_handler(SIGTSTP);
                }
                SIGCONT => {}
                _ => handle.cancel(),
            }
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs() {
        let path = Some(OsStr::new("/nonexistent:/bin"));
        assert_eq!(find_host_program(OsStr::new("true"), path).unwrap(), Path::new("/bin/true"));
        for (name, status) in [("no-such", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/etc", 126), ("./", 126)] {
            let e = find_host_program(OsStr::new(name), path).unwrap_err();
            assert_eq!(e.status(), status, "{name}: {e}");
        }
    }

    #[test]
    fn where_programs_are() {
        let folder = std::env::temp_dir().join(format!("evm-place-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("bin")).unwrap();
        std::fs::write(folder.join("bin/real"), "").unwrap();
        let link = |to: &str, name: &str| _ = std::os::unix::fs::symlink(to, folder.join(name));
        link("bin/real", "inner");
        link("/bin/true", "outer");
        let dir = |host: &Path, guest: &str| Mount { host: host.into(), guest: guest.into(), read_only: false };
        let at = |program: &str, dirs: &[Mount]| {
            let program = folder.join(program);
            place(Module::from_host_file(&program), &program, dirs, true).guest_path().to_owned()
        };
        let here = dir(&folder, "/data");
        assert_eq!(at("bin/real", std::slice::from_ref(&here)), "/data/bin/real");
        assert_eq!(at("inner", std::slice::from_ref(&here)), "/data/inner");
        assert_eq!(at("outer", std::slice::from_ref(&here)), "/usr/local/bin/outer");
        assert_eq!(at("bin/real", &[]), "/usr/local/bin/real");
        assert_eq!(at("bin/real", &[dir(Path::new("/"), "/")]), folder.join("bin/real").to_str().unwrap());
        assert_eq!(at("/bin/true", &[dir(&folder, "/")]), "/dev/program/true");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn clean_environment() {
        let changes = ["LANG=C", "PATH", "NO_SUCH_VARIABLE"].map(|s| crate::units::env_var(OsStr::new(s)).unwrap());
        let env = environment(&changes, Some("vt100".into()));
        let get = |n: &str| env.iter().filter(|(k, _)| k == n).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        assert_eq!(get("LANG"), ["C"]);
        assert_eq!(get("TERM"), ["vt100"]);
        assert_eq!(get("PATH"), [std::env::var_os("PATH").unwrap()]);
        assert!(get("NO_SUCH_VARIABLE").is_empty());
        assert_eq!(env.len(), 7);
    }
}
