//! Running a command line to its end or its time limit: natively in the guest root, or under `evm`.
//!
//! Native runs happen in their own mount and process namespaces (as an ordinary user: in a user namespace as well), with
//! the guest root as `/`, the case's folder at /work, the compiled programs at /programs, and user 1000. glibc is asked
//! not to use what the virtual CPU does not have, as results of its mathematical functions depend on it.

use crate::root::GuestRoot;
use anyhow::{Context, Result, bail};
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What a guest's environment holds, natively as well.
pub const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/home/user"),
    ("USER", "user"),
    ("LOGNAME", "user"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
];

/// Hides from glibc what x86-64-v3 lacks of the host.
const TUNABLES_V3: &str =
    "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ,-AVX512ER,-FMA4,-FMA4_Usable,-FSRM,-RTM";

/// Hides from glibc what x86-64-v2 lacks.
const TUNABLES_V2: &str = "glibc.cpu.hwcaps=-AVX,-AVX2,-AVX2_Usable,-AVX_Usable,-FMA,-FMA_Usable,-FMA4,-FMA4_Usable,-AVX512F,-AVX512VL,-AVX512BW,-AVX512CD,-AVX512DQ,-AVX512ER,-BMI1,-BMI2,-LZCNT,-MOVBE,-ERMS,-FSRM,-RTM,-XSAVEC";

/// The CPU model that `evm` has by default.
pub const DEFAULT_CPU: &str = evm_cpu::model::DEFAULT;

/// Output of a run beyond this is cut, so that an endless one cannot fill the memory.
const CAPTURE: usize = 256 << 20;

/// The user that guests are.
const USER: u32 = 1000;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Exit status as a shell shows it: 128+N for signal N.
    pub status: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Ended by our time limit.
    pub timed_out: bool,
    /// How long it took.
    pub wall: Duration,
    /// CPU time of it and its children (and of others that this process waited for meanwhile).
    pub cpu: Duration,
    /// The most memory it had, as seen every few milliseconds.
    pub resident: u64,
}

impl Outcome {
    /// For error messages.
    pub fn describe(&self) -> String {
        let tail = |b: &[u8]| {
            let s = String::from_utf8_lossy(b);
            let lines: Vec<&str> = s.lines().collect();
            lines[lines.len().saturating_sub(12)..].join("\n    ")
        };
        let end = if self.timed_out {
            format!("killed at the time limit after {:.1} s", self.wall.as_secs_f64())
        } else {
            format!("status {}", self.status)
        };
        format!("{end}\n  stdout: {}\n  stderr: {}", tail(&self.stdout), tail(&self.stderr))
    }
}

/// A command to run.
#[derive(Debug)]
pub struct Run {
    command: Command,
    stdin: Option<PathBuf>,
}

impl Run {
    /// Wrap a command.
    pub fn new(command: Command) -> Run {
        Run { command, stdin: None }
    }
    /// Standard input from a file instead of nothing.
    #[must_use]
    pub fn stdin(mut self, file: Option<PathBuf>) -> Run {
        self.stdin = file;
        self
    }
    /// The command, for those that start it by themselves.
    pub fn into_command(self) -> Command {
        self.command
    }
    /// Run it; past `limit` it is killed.
    pub fn run(mut self, limit: Duration) -> Result<Outcome> {
        let stdin = match &self.stdin {
            Some(f) => Stdio::from(fs::File::open(f).with_context(|| f.display().to_string())?),
            None => Stdio::null(),
        };
        let start = Instant::now();
        let cpu = crate::host::children_cpu();
        let mut child = self
            .command
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| self.command.get_program().to_string_lossy().into_owned())?;
        let pid = child.id();
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let mut timed_out = false;
        let mut resident = 0;
        let mut pause = Duration::from_micros(200);
        let status = loop {
            if let Some(s) = child.try_wait()? {
                break s;
            }
            if start.elapsed() > limit && !timed_out {
                timed_out = true;
                // The whole process group; `unshare --kill-child` takes a native guest's processes along.
                let _ = Command::new("kill").args(["-KILL", "--", &format!("-{pid}")]).stderr(Stdio::null()).status();
                let _ = child.kill();
            }
            resident = resident.max(crate::host::resident(pid));
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(5));
        };
        let wall = start.elapsed();
        let cpu = crate::host::children_cpu().saturating_sub(cpu);
        // A process that outlives its parent may hold the pipes.
        let patience = if timed_out { Duration::from_secs(2) } else { Duration::from_secs(10) };
        Ok(Outcome {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: stdout.recv_timeout(patience).unwrap_or_default(),
            stderr: stderr.recv_timeout(patience).unwrap_or_default(),
            timed_out,
            wall,
            cpu,
            resident,
        })
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (to, from) = mpsc::channel();
    std::thread::spawn(move || {
        let mut all = Vec::new();
        if let Some(mut pipe) = pipe {
            let mut buf = vec![0; 1 << 16];
            while let Ok(n) = pipe.read(&mut buf) {
                if n == 0 {
                    break;
                }
                if all.len() < CAPTURE {
                    all.extend_from_slice(&buf[..n]);
                }
            }
        }
        let _ = to.send(all);
    });
    from
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// A native run.
#[derive(Clone, Debug)]
pub struct Native<'a> {
    /// The guest root.
    pub guest: &'a GuestRoot,
    /// What is at /work.
    pub work: Option<&'a Path>,
    /// Run as the guest root's root and keep what it writes there (for set-up).
    pub writable_root: bool,
    /// Further variables.
    pub env: &'a [(String, String)],
    /// The CPU model that glibc is to see.
    pub cpu: &'a str,
}

impl<'a> Native<'a> {
    /// In this guest root.
    pub fn new(guest: &'a GuestRoot) -> Native<'a> {
        Native { guest, work: None, writable_root: false, env: &[], cpu: DEFAULT_CPU }
    }

    /// The command.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Run {
        let root_user = is_root();
        let mut c = Command::new("/usr/bin/unshare");
        if !root_user {
            c.arg("-r");
        }
        c.args(["-m", "--pid", "--fork", "--kill-child", "/bin/bash", "-e", "-c"]);
        // What the tests were started with must not show: descriptors, their limit (this is the guest's) and ignored signals.
        let mut script = String::from(
            "R=$1 W=$2 P=$3; shift 3\n\
             for f in /proc/self/fd/*; do\n\
             n=${f##*/}; case $n in 0|1|2|255) ;; *) eval \"exec $n>&-\" ;; esac\n\
             done\n\
             ulimit -n 1024\n\
             mount --rbind /dev \"$R/dev\"\n\
             mount -t proc proc \"$R/proc\"\n\
             mount --rbind /sys \"$R/sys\"\n",
        );
        if !self.writable_root {
            script.push_str(
                "mount -t tmpfs -o mode=1777 tmpfs \"$R/tmp\"\n\
                 mount -t tmpfs -o mode=1777 tmpfs \"$R/home\"\n\
                 mkdir -m 1777 \"$R/home/user\"\n\
                 mkdir -p \"$P\"\n\
                 mount --bind \"$P\" \"$R/programs\"\n",
            );
        }
        if self.work.is_some() {
            script.push_str("mount --bind \"$W\" \"$R/work\"\n");
        }
        let enter = match (root_user, self.writable_root) {
            (_, true) => "/usr/sbin/chroot \"$R\"".to_string(),
            (true, false) => format!("/usr/sbin/chroot --userspec={USER}:{USER} --groups= \"$R\""),
            (false, false) => {
                format!("unshare -U --map-user={USER} --map-group={USER} --root \"$R\"")
            }
        };
        script.push_str(&format!("exec env --default-signal=INT,QUIT {enter} /bin/sh -c 'cd /work; unset PWD OLDPWD SHLVL; exec \"$@\"' sh \"$@\"\n"));
        c.arg(script).arg("sh").arg(&self.guest.root).arg(self.work.unwrap_or(Path::new(""))).arg(&self.guest.programs);
        for a in args {
            c.arg(a.as_ref());
        }
        c.env_clear().envs(ENVIRONMENT.iter().copied());
        if !self.writable_root {
            c.env("GLIBC_TUNABLES", if self.cpu == "x86-64-v3" { TUNABLES_V3 } else { TUNABLES_V2 });
        }
        c.envs(self.env.iter().map(|(k, v)| (k, v)));
        Run::new(c)
    }
}

/// The engines that tests run.
pub const ENGINES: &[&str] = if cfg!(feature = "wasm") {
    &["jit", "interp", "quick", "cranelift", "wasm"]
} else {
    &["jit", "interp", "quick", "cranelift"]
};

/// Those, and the one that copies code, if this host is one for it.
pub fn engines() -> Vec<&'static str> {
    with_direct(ENGINES)
}

/// A list of engines, with the one that copies code, if this host is one for it.
pub(crate) fn with_direct(engines: &[&'static str]) -> Vec<&'static str> {
    let direct = evm_runtime::copies().then_some("direct");
    engines.iter().copied().chain(direct).collect()
}

/// A run under `evm`.
#[derive(Clone, Debug)]
pub struct Evm<'a> {
    /// The command.
    pub binary: &'a Path,
    /// The guest root.
    pub guest: &'a GuestRoot,
    /// The engine.
    pub engine: &'a str,
    /// What is at /work.
    pub work: Option<&'a Path>,
    /// Further variables.
    pub env: &'a [(String, String)],
    /// Further options.
    pub options: &'a [String],
}

impl<'a> Evm<'a> {
    /// With this binary, root and engine.
    pub fn new(binary: &'a Path, guest: &'a GuestRoot, engine: &'a str) -> Evm<'a> {
        Evm { binary, guest, engine, work: None, env: &[], options: &[] }
    }

    /// The command.
    pub fn command<S: AsRef<str>>(&self, args: &[S]) -> Run {
        let with = |p: &Path, rest: &str| {
            let mut s = OsString::from(p);
            s.push(rest);
            s
        };
        let mut c = Command::new(self.binary);
        // Kept translations of their own; `EVM_CACHE=off` does without.
        c.env("EVM_CACHE_DIR", crate::translations());
        c.arg("run").arg("--engine").arg(self.engine).arg("--seed").arg("1").arg("--sysroot").arg(&self.guest.root);
        c.arg("--dir").arg(with(&self.guest.programs, "::/programs:ro"));
        if let Some(w) = self.work {
            c.arg("--dir").arg(with(w, "::/work"));
        }
        for (k, v) in self.env {
            c.arg("--env").arg(format!("{k}={v}"));
        }
        c.args(self.options);
        for a in args {
            c.arg(a.as_ref());
        }
        Run::new(c)
    }
}

/// The `evm` binary: `$EVM`, or built by cargo in this binary's profile.
pub fn evm_binary() -> Result<PathBuf> {
    if let Some(p) = std::env::var_os("EVM") {
        return Ok(p.into());
    }
    let release = !cfg!(debug_assertions);
    let file = crate::target().join(if release { "release/evm" } else { "debug/evm" });
    // nextest runs each test in a process of its own; the first of a test run builds for all.
    let run_id = std::env::var("NEXTEST_RUN_ID").ok();
    let folder = crate::target().join("conformance");
    fs::create_dir_all(&folder)?;
    let lock = fs::File::create(folder.join("evm.lock"))?;
    lock.lock()?;
    let stamp = folder.join("evm.built");
    if run_id.is_some() && fs::read_to_string(&stamp).ok() == run_id && file.exists() {
        return Ok(file);
    }
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut c = Command::new(cargo);
    c.args(["build", "-q", "-p", "evm-cli"]).current_dir(crate::workspace());
    if release {
        c.arg("--release");
    }
    if cfg!(feature = "wasm") {
        c.args(["--features", "wasm"]);
    }
    if !c.status().context("cargo")?.success() {
        bail!("building evm failed");
    }
    if let Some(id) = run_id {
        fs::write(stamp, id)?;
    }
    Ok(file)
}

/// A folder for one run, removed at its end.
#[derive(Debug)]
pub struct WorkDir {
    /// Where.
    pub path: PathBuf,
}

impl WorkDir {
    /// A new empty one.
    pub fn new(name: &str) -> Result<WorkDir> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = crate::target().join("conformance").join(format!("{name}.{}.{n}", std::process::id()));
        fs::create_dir_all(&path)?;
        Ok(WorkDir { path })
    }

    /// The guest's user owns it, if we may say so, and all times in it are the same.
    pub fn give_to_guest(&self) -> Result<()> {
        fn walk(p: &Path, chown: bool) -> Result<()> {
            if fs::symlink_metadata(p)?.is_dir() {
                for e in fs::read_dir(p)? {
                    walk(&e?.path(), chown)?;
                }
            }
            if chown {
                std::os::unix::fs::lchown(p, Some(USER), Some(USER))?;
            }
            let kind = fs::symlink_metadata(p)?.file_type();
            if kind.is_file() || kind.is_dir() {
                let time = std::time::UNIX_EPOCH + Duration::from_secs(1_704_067_200);
                fs::File::open(p)?.set_modified(time)?;
            }
            Ok(())
        }
        walk(&self.path, is_root())
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_some() {
            eprintln!("kept {}", self.path.display());
            return;
        }
        let _ = fs::remove_dir_all(&self.path);
    }
}
