//! `evm run X.wasm`: a module in wasmtime, over its WASI host: folders, clocks, randomness and bounds are those of the options.
//!
//! It is a second wall, and has nothing of evm's own in it but what the module brings along.

use crate::args::{CpuModel, EngineKind, Run};
use crate::status;
use crate::units::{Clock, LimitArg, Limits, Seed, Sysroot};
use anyhow::{Context, Result, bail, ensure};
use rand_core::TryRng;
use rustix::time::{ClockId, clock_gettime};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wasmtime::{Config, Engine, Linker, Module, Store, StoreLimits, StoreLimitsBuilder, Trap, UpdateDeadline};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::{FsPerms, HostMonotonicClock, HostWallClock, I32Exit, WasiCtxBuilder};

/// How often limits of time are looked at.
const TICK: Duration = Duration::from_millis(10);
/// How much longer the process may take to end at a limit of time, as the engine may compile and its host functions may wait.
const GRACE: Duration = Duration::from_millis(200);
/// Stack of WebAssembly code: that of the guest's calls and of the runtime's.
const STACK: usize = 64 << 20;
/// Tables of a module, and what each may hold: more functions than any program has that was lifted.
const TABLES: usize = 8;
const TABLE_ELEMENTS: usize = 1 << 22;
/// What a reading of the virtual clock advances it by: as `evm run` does.
const STEP: u64 = 1000;

struct State {
    wasi: WasiP1Ctx,
    limits: StoreLimits,
}

/// The limit that was reached, for the error that unwinds the module.
#[derive(Debug)]
struct Reached(&'static str);

impl std::fmt::Display for Reached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the limit {:?} was reached", self.0)
    }
}

impl std::error::Error for Reached {}

/// Run the module in a file.
pub fn run(o: &Run, file: &Path) -> Result<ExitCode> {
    refuse_what_is_not_there(o)?;
    let limits = Limits::from_args(&o.limits);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .consume_fuel(limits.fuel.is_some())
        .max_wasm_stack(STACK)
        .async_stack_size(STACK + (1 << 20))
        .memory_init_cow(false)
        .wasm_tail_call(true);
    let engine = Engine::new(&config).map_err(failed("wasmtime"))?;
    let clocks = Clocks::start(&limits);
    clocks.watch(&engine)?;
    if std::io::stderr().is_terminal() {
        eprintln!("evm: compiling {}", file.display());
    }
    let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
    let module =
        Module::new(&engine, bytes).map_err(failed(&format!("{}: not a module that can be run", file.display())))?;
    let state = State {
        wasi: context(o, file)?,
        // The limit is one of a memory, and tables are memory too.
        limits: StoreLimitsBuilder::new()
            .memory_size(bytes_of(limits.memory))
            .memories(1)
            .tables(TABLES)
            .table_elements(TABLE_ELEMENTS)
            .instances(1)
            .build(),
    };
    let mut store = Store::new(&engine, state);
    store.limiter(|s| &mut s.limits);
    if let Some(n) = limits.fuel {
        store.set_fuel(n).map_err(failed("fuel"))?;
    }
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| match clocks.passed(Duration::ZERO) {
        Some(name) => Err(wasmtime::Error::new(Reached(name))),
        None => Ok(UpdateDeadline::Continue(1)),
    });
    let mut linker = Linker::new(&engine);
    p1::add_to_linker_sync(&mut linker, |s: &mut State| &mut s.wasi).map_err(failed("WASI"))?;
    // The thread has a stack for so deep calls.
    let run = move || -> wasmtime::Result<()> {
        let instance = linker.instantiate(&mut store, &module)?;
        instance.get_typed_func::<(), ()>(&mut store, "_start")?.call(&mut store, ())
    };
    let thread = std::thread::Builder::new().name("module".into()).stack_size(STACK + (4 << 20)).spawn(run)?;
    let end = thread.join().map_err(|_| anyhow::anyhow!("the thread of the module panicked"))?;
    Ok(ExitCode::from(end.map_or_else(|e| said(file, &e), |()| 0)))
}

/// An error of wasmtime's, which is a type of its own, with what was done.
fn failed(what: &str) -> impl FnOnce(wasmtime::Error) -> anyhow::Error {
    move |e| anyhow::anyhow!("{what}: {e:#}")
}

/// The exit status that an end is.
fn said(file: &Path, e: &wasmtime::Error) -> u8 {
    if let Some(exit) = e.downcast_ref::<I32Exit>() {
        return exit.0 as u8;
    }
    let limit = match (e.downcast_ref::<Reached>(), e.downcast_ref::<Trap>()) {
        (Some(r), _) => Some(r.0),
        (None, Some(Trap::OutOfFuel)) => Some("fuel"),
        _ => None,
    };
    match limit {
        Some(name) => {
            say_limit(name);
            status::LIMIT
        }
        None => {
            eprintln!("evm: {}: {e:?}", file.display());
            status::FAILED
        }
    }
}

fn bytes_of(limit: Option<u64>) -> usize {
    limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Options that a module cannot be given are errors.
fn refuse_what_is_not_there(o: &Run) -> Result<()> {
    let given = [
        ("--sysroot", o.sysroot != Sysroot::Host),
        ("--cpu", o.cpu != CpuModel::X86_64V3),
        ("--cpus", o.cpus != 1),
        ("--cwd", o.cwd.is_some()),
        ("--engine", !matches!(o.engine, EngineKind::Auto | EngineKind::Wasm)),
        ("--trace", o.trace.is_some()),
        ("--dump", o.dump.is_some()),
        ("--profile", o.profile.is_some()),
        ("--stats", o.stats.is_some()),
    ];
    if let Some((name, _)) = given.iter().find(|g| g.1) {
        bail!("{name} is not there for a WebAssembly module: 'evm lift' decides that, or nothing does");
    }
    for l in &o.limits {
        let name = match l {
            LimitArg::Procs(_) => "procs",
            LimitArg::Files(_) => "files",
            LimitArg::Disk(_) => "disk",
            LimitArg::Output(_) => "output",
            LimitArg::Memory(_) | LimitArg::Cpu(_) | LimitArg::Wall(_) | LimitArg::Fuel(_) => continue,
        };
        bail!("the limit {name:?} is not there for a WebAssembly module; those there are: memory, cpu, wall, fuel");
    }
    Ok(())
}

fn context(o: &Run, file: &Path) -> Result<WasiP1Ctx> {
    let text = |s: &OsStr| -> Result<String> {
        s.to_str().map(String::from).with_context(|| format!("{s:?}: a module takes text in UTF-8 only"))
    };
    let mut b = WasiCtxBuilder::new();
    b.inherit_stdio().allow_blocking_current_thread(true).arg(text(file.as_os_str())?);
    for a in &o.command[1..] {
        b.arg(text(a)?);
    }
    for e in &o.env {
        if let Some(v) = e.value.clone().or_else(|| std::env::var_os(&e.name)) {
            b.env(text(&e.name)?, text(&v)?);
        }
    }
    for d in &o.dirs {
        ensure!(d.host.is_dir(), "{}: a module can be given folders only", d.host.display());
        let perms = if d.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        let name = d.host.display().to_string();
        b.preopened_dir(&d.host, text(d.guest.as_os_str())?, perms).map_err(failed(&name))?;
    }
    if let Seed::Fixed(n) = o.seed {
        b.secure_random(Seeded(n)).insecure_random(Seeded(!n)).insecure_random_seed(n.into());
    }
    if let Clock::Start(start) = o.clock {
        let clock = Virtual(Arc::new(AtomicU64::new(0)), start);
        b.wall_clock(clock.clone()).monotonic_clock(clock);
    }
    Ok(b.build_p1())
}

/// The limits of time, from the start of the process's work on: compiling counts.
#[derive(Clone, Copy)]
struct Clocks {
    wall: Option<Duration>,
    cpu: Option<Duration>,
    start: Instant,
    start_cpu: Duration,
}

impl Clocks {
    fn start(limits: &Limits) -> Clocks {
        Clocks { wall: limits.wall, cpu: limits.cpu, start: Instant::now(), start_cpu: process_cpu() }
    }
    /// The limit that was passed by more than `by`.
    fn passed(&self, by: Duration) -> Option<&'static str> {
        if self.wall.is_some_and(|w| self.start.elapsed() >= w + by) {
            return Some("wall");
        }
        self.cpu.is_some_and(|c| process_cpu().saturating_sub(self.start_cpu) >= c + by).then_some("cpu")
    }
    /// Watch them. The module's code looks at the engine's epoch; what is compiled or waits in a host function past a limit takes
    /// the process with it.
    fn watch(self, engine: &Engine) -> Result<()> {
        if self.wall.is_none() && self.cpu.is_none() {
            // Nobody moves the epoch.
            return Ok(());
        }
        let engine = engine.clone();
        std::thread::Builder::new().name("limits".into()).spawn(move || {
            loop {
                std::thread::sleep(TICK);
                engine.increment_epoch();
                if let Some(name) = self.passed(GRACE) {
                    say_limit(name);
                    std::process::exit(status::LIMIT.into());
                }
            }
        })?;
        Ok(())
    }
}

fn say_limit(name: &str) {
    eprintln!("evm: the limit {name:?} ended the job; raise it with --limit {name}=VALUE");
}

fn process_cpu() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// The random numbers of a seed (splitmix64).
struct Seeded(u64);

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.try_next_u64().map(|v| v as u32)
    }
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Ok(z ^ z >> 31)
    }
    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for part in dst.chunks_mut(8) {
            let word = self.try_next_u64()?.to_le_bytes();
            part.copy_from_slice(&word[..part.len()]);
        }
        Ok(())
    }
}

/// A clock that its readings advance: nanoseconds so far, and the time it began at.
#[derive(Clone)]
struct Virtual(Arc<AtomicU64>, Duration);

impl Virtual {
    fn read(&self) -> u64 {
        self.0.fetch_add(STEP, Ordering::Relaxed)
    }
}

impl HostWallClock for Virtual {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }
    fn now(&self) -> Duration {
        self.1 + Duration::from_nanos(self.read())
    }
}

impl HostMonotonicClock for Virtual {
    fn resolution(&self) -> u64 {
        1
    }
    fn now(&self) -> u64 {
        self.read()
    }
}
