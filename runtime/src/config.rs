//! Configuration of a job: what the guest sees and may use.

pub use evm_kernel::clock::ClockMode;
pub use evm_kernel::limits::LimitConfig as Limits;
use std::path::PathBuf;

/// Which engine runs guest code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EngineKind {
    /// Compile what runs with the quick tier, and what is hot with Cranelift in the background.
    Jit,
    /// Interpret everything.
    Interp,
    /// The quick tier alone.
    Quick,
    /// Copy what the host runs as it is; the rest as [`EngineKind::Jit`]. For some hosts: [`crate::copies`].
    Direct,
    /// Compile every region with Cranelift before it first runs.
    Cranelift,
    /// Compile every region to WebAssembly before it first runs, and run it in wasmtime. Programs of 32 bits are
    /// interpreted.
    Wasm,
}

/// [`EngineKind::Direct`] on hosts that it is for, else [`EngineKind::Jit`].
impl Default for EngineKind {
    fn default() -> EngineKind {
        if crate::copies() { EngineKind::Direct } else { EngineKind::Jit }
    }
}

/// Where the read-only system files of the guest come from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Sysroot {
    /// The host's libraries and their data, nothing else of it.
    #[default]
    Host,
    /// This folder is the guest's root (writes go to memory).
    Dir(PathBuf),
    /// Nothing.
    None,
}

/// A host folder given to the guest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dir {
    /// Folder on the host.
    pub host: PathBuf,
    /// Absolute guest path.
    pub guest: String,
    /// Read only.
    pub read_only: bool,
}

/// Where a standard stream goes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Stream {
    /// The host process's own stream.
    #[default]
    Inherit,
    /// Nothing: end of file, or dropped.
    Null,
    /// Output: kept in memory and given back in the outcome.
    Capture,
    /// Input: these bytes.
    Bytes(Vec<u8>),
}

/// Configuration of a [`crate::Vm`]. Fields are public; `Config::default()` is a closed box: no host
/// folder, no environment, streams inherited.
pub struct Config {
    /// Engine.
    pub engine: EngineKind,
    /// Arguments, the program's name first.
    pub args: Vec<Vec<u8>>,
    /// Environment as NAME=VALUE.
    pub env: Vec<Vec<u8>>,
    /// Initial working directory in the guest.
    pub cwd: String,
    /// System files.
    pub sysroot: Sysroot,
    /// Host folders.
    pub dirs: Vec<Dir>,
    /// Files that exist in the guest at the start, in memory: guest path and contents.
    pub files: Vec<(String, Vec<u8>)>,
    /// Files to give back in the outcome: guest paths.
    pub collect: Vec<String>,
    /// Clock.
    pub clock: ClockMode,
    /// Seed of the guest's randomness; `None` takes the host's.
    pub seed: Option<u64>,
    /// CPU model by name: what CPUID, XGETBV, /proc/cpuinfo and the auxiliary vector show and which instructions there are.
    /// One of `evm_cpu::model::MODELS`, [`evm_cpu::model::DEFAULT`] by default. A host that cannot run it is an error, never another model: what programs compute
    /// depends on the model (libm has other code for CPUs with FMA), and a job is to give the same on every host.
    pub cpu: String,
    /// Logical CPUs shown.
    pub cpus: u32,
    /// Limits.
    pub limits: Limits,
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
    /// Translations that are kept between runs.
    pub cache: crate::cache::Config,
    /// Receives a line for each system call and signal.
    pub trace: Option<evm_kernel::kernel::TraceSink>,
    /// Folder for what compiled regions look like, one file each.
    pub dump: Option<PathBuf>,
    /// Sample where CPU time goes: [`crate::Outcome::profile`].
    pub profile: bool,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            engine: EngineKind::default(),
            args: vec![],
            env: vec![],
            cwd: "/work".into(),
            sysroot: Sysroot::Host,
            dirs: vec![],
            files: vec![],
            collect: vec![],
            clock: ClockMode::Host,
            seed: None,
            cpu: evm_cpu::model::DEFAULT.into(),
            cpus: 1,
            limits: Limits::default(),
            stdin: Stream::Inherit,
            stdout: Stream::Inherit,
            stderr: Stream::Inherit,
            cache: crate::cache::Config::default(),
            trace: None,
            dump: None,
            profile: false,
        }
    }
}
