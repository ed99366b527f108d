//! The job: configuration, process table, limits, and the host behind a trait.

use crate::clock::{Clock, ClockMode};
use crate::errno::{Errno, Result};
use crate::futex::FutexTable;
use crate::limits::{LimitConfig, Limits};
use crate::mm::Mm;
use crate::process::{Process, Thread, lock};
use crate::random::Stream;
use crate::signal::SigInfo;
use crate::sys;
use crate::task::Task;
use crate::timers::Timers;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// What the runtime does for the kernel.
pub trait Host: Send + Sync {
    /// Run a new guest thread on a new host thread. On that thread the runtime calls [`Task::enter`] first, then
    /// [`Task::deliver_signals`], then runs guest code, until a [`Flow::Exit`]. EAGAIN if there is no thread to be had.
    fn spawn(&self, task: Task) -> Result<()>;
    /// Guest code in the range may have changed or gone: drop translations. Called after the change, with the address space
    /// locked: nothing of it may be asked.
    fn code_changed(&self, mm: &Mm, addr: u64, len: u64);
    /// What is at an address may be executed now.
    fn mapped(&self, _mm: &Mm, _addr: u64) {}
    /// A new address space exists (nothing runs in it yet); the runtime sets its attachment. ENOMEM if the host has no
    /// room for that.
    fn new_arena(&self, mm: &Mm) -> Result<()>;
    /// A number that changes whenever translations of an address space are dropped. Asked before its memory is copied
    /// for a forked process.
    fn code_generation(&self, _mm: &Mm) -> u64 {
        0
    }
    /// `child` is a copy of `parent`, whose mappings cannot change during the call: where the number of
    /// [`Host::code_generation`] is still `generation`, translations of one are good for the other.
    fn forked(&self, _parent: &Mm, _child: &Mm, _generation: u64) {}
    /// A thread has something to do in the kernel: make it leave guest code and call [`Task::deliver_signals`] soon. May be
    /// called for threads that are in the kernel or that the runtime does not know (yet, or any more).
    fn kick(&self, tid: i32);
}

/// What a guest thread does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on at `cpu.rip`.
    Run,
    /// The address space was replaced (execve): fetch [`Task::mm`] anew, then go on at `cpu.rip`.
    ExecDone,
    /// The thread has ended: drop the task and end the host thread.
    Exit,
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The first process exited with this code.
    Exit(i32),
    /// The first process was killed by this signal.
    Signal(i32),
    /// A limit of the job was exceeded: `wall`, `cpu`, `output`, `memory`.
    Limit(&'static str),
    /// The embedder ended it.
    Cancelled,
    /// A bug of ours: a thread panicked, and nothing more can be promised.
    Failed,
}

/// Receives trace lines.
pub type TraceSink = Box<dyn Fn(&str) + Send + Sync>;

/// Configuration of a job.
pub struct Config {
    /// Node name (uname, sethostname is refused).
    pub hostname: String,
    /// Kernel release.
    pub release: String,
    /// Kernel version.
    pub version: String,
    /// Logical CPUs shown.
    pub cpus: u32,
    /// Size of a guest address space in bytes.
    pub arena_size: u64,
    /// Where time comes from.
    pub clock: ClockMode,
    /// Seed of getrandom and AT_RANDOM; `None` = the host's randomness.
    pub seed: Option<u64>,
    /// Limits.
    pub limits: LimitConfig,
    /// Identity of the first process.
    pub uid: u32,
    /// Group of the first process.
    pub gid: u32,
    /// User name.
    pub user: String,
    /// Soft RLIMIT_STACK, the size of the main stack.
    pub stack_size: u64,
    /// Physical memory shown by sysinfo and /proc/meminfo when there is no memory limit.
    pub shown_memory: u64,
    /// AT_HWCAP (CPUID leaf 1 EDX) and AT_HWCAP2.
    pub hwcap: (u64, u64),
    /// XCR0 of the CPU model: 3 = x87 and SSE, 7 = with AVX; 0 = no XSAVE (signal frames hold a plain FXSAVE image).
    pub xfeatures: u64,
    /// The CPU model that programs see (index in `evm_cpu::model::MODELS`).
    pub cpu_model: u32,
    /// When the first process ends, end those that are left (else the job lasts until all have ended).
    pub kill_orphans: bool,
    /// Trace system calls and signals to this.
    pub trace: Option<TraceSink>,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hostname: "evm".into(),
            release: "6.1.0".into(),
            version: "#1 SMP EVM".into(),
            cpus: 1,
            arena_size: 64 << 30,
            clock: ClockMode::Host,
            seed: None,
            limits: LimitConfig::default(),
            uid: 1000,
            gid: 1000,
            user: "user".into(),
            stack_size: 8 << 20,
            shown_memory: 4 << 30,
            hwcap: (0x0789_fbff, 0),
            xfeatures: 3,
            cpu_model: 0,
            kill_orphans: false,
            trace: None,
        }
    }
}

/// All processes and threads.
#[derive(Default)]
pub(crate) struct Table {
    pub procs: BTreeMap<i32, Arc<Process>>,
    pub threads: BTreeMap<i32, Arc<Thread>>,
    pub last_id: i32,
    /// The job is being ended: nothing new starts.
    pub closed: bool,
}

/// Largest process id.
pub const PID_MAX: i32 = 4_194_304;

impl Table {
    /// A number that is no process, thread, group or session id.
    pub fn new_id(&mut self) -> Result<i32> {
        for _ in 0..PID_MAX {
            self.last_id = if self.last_id >= PID_MAX - 1 { 300 } else { self.last_id + 1 };
            let id = self.last_id;
            let used = self.threads.contains_key(&id)
                || self.procs.contains_key(&id)
                || self.procs.values().any(|p| {
                    let r = lock(&p.rel);
                    r.pgid == id || r.sid == id
                });
            if !used {
                return Ok(id);
            }
        }
        Err(Errno::EAGAIN)
    }
}

/// Counts of system calls.
#[derive(Debug)]
pub struct Counters {
    /// By number; those beyond the table are counted in the last element.
    calls: Vec<AtomicU64>,
}

impl Counters {
    pub(crate) fn count(&self, nr: u32) {
        self.calls[(nr as usize).min(sys::MAX)].fetch_add(1, Ordering::Relaxed);
    }
    /// Name, count and whether the kernel has it, of all system calls that were made.
    pub fn syscalls(&self) -> Vec<(String, u64, bool)> {
        let mut v = Vec::new();
        for (nr, n) in self.calls.iter().enumerate() {
            let n = n.load(Ordering::Relaxed);
            if n != 0 {
                let name = sys::names::name(nr as u32).map_or_else(|| format!("syscall_{nr}"), str::to_string);
                v.push((name, n, sys::lookup(nr as u32).is_some()));
            }
        }
        v
    }
}

/// One job.
pub struct Kernel {
    /// Where position-independent images are wanted: device and inode of the file, and the address of its first page. Set
    /// by an embedder that has code for them.
    pub images: OnceLock<std::collections::HashMap<(u64, u64), u64>>,
    /// Configuration.
    pub config: Config,
    /// Limits and their accounts.
    pub limits: Limits,
    /// What forked processes share.
    pub(crate) snapshots: crate::mm::Snapshots,
    /// Clocks.
    pub clock: Clock,
    /// System calls made.
    pub counters: Counters,
    /// Timers; also for files that wake at a time (timerfd).
    pub timers: Timers,
    pub(crate) futexes: FutexTable,
    /// Host paths that the guest's file systems are made from; the flag says read-only.
    pub host_mounts: Mutex<Vec<(std::path::PathBuf, bool)>>,
    /// Sockets and the like.
    pub io: crate::io::JobIo,
    pub(crate) host: Arc<dyn Host>,
    pub(crate) first_pid: AtomicI32,
    /// CPU time of processes that ended without a parent to count it.
    pub(crate) lost_time: Mutex<Duration>,
    pub(crate) rng: Mutex<Option<Stream>>,
    pub(crate) table: Mutex<Table>,
    pub(crate) end: Mutex<Option<EndReason>>,
    pub(crate) ended: Condvar,
}

impl Kernel {
    /// A job with no process yet.
    pub fn new(config: Config, host: Arc<dyn Host>) -> Arc<Kernel> {
        Arc::new(Kernel {
            limits: Limits::new(config.limits),
            snapshots: Default::default(),
            host_mounts: Mutex::default(),
            io: crate::io::JobIo::default(),
            clock: Clock::new(config.clock),
            counters: Counters { calls: (0..=sys::MAX).map(|_| AtomicU64::new(0)).collect() },
            timers: Timers::default(),
            futexes: FutexTable::default(),
            host,
            first_pid: AtomicI32::new(0),
            lost_time: Mutex::default(),
            rng: Mutex::new(config.seed.map(Stream::new)),
            table: Mutex::default(),
            end: Mutex::new(None),
            ended: Condvar::new(),
            images: OnceLock::new(),
            config,
        })
    }
    /// All processes, by process id.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        lock(&self.table).procs.values().cloned().collect()
    }
    /// A process.
    pub fn process(&self, pid: i32) -> Option<Arc<Process>> {
        lock(&self.table).procs.get(&pid).cloned()
    }
    /// A thread.
    pub fn thread(&self, tid: i32) -> Option<Arc<Thread>> {
        lock(&self.table).threads.get(&tid).cloned()
    }
    /// Send a signal to every process of a group; ESRCH if there is none.
    pub fn signal_group(&self, pgid: i32, info: SigInfo) -> Result<()> {
        let members: Vec<_> = self.processes().into_iter().filter(|p| p.pgid() == pgid).collect();
        if members.is_empty() {
            return Err(Errno::ESRCH);
        }
        for p in members {
            p.signal(info)?;
        }
        Ok(())
    }
    /// End all threads of the job at once. The first reason given counts.
    pub fn kill_job(&self, reason: EndReason) {
        let mut end = lock(&self.end);
        if end.is_none() {
            *end = Some(reason);
        }
        drop(end);
        let threads: Vec<_> = {
            let mut table = lock(&self.table);
            table.closed = true;
            table.threads.values().cloned().collect()
        };
        self.ended.notify_all();
        for t in threads {
            t.killed.store(true, Ordering::Release);
            crate::signal::send::attend(&*self.host, &t);
        }
    }
    /// Wait until [`Kernel::kill_job`] is called; the reason.
    pub fn wait_killed(&self) -> EndReason {
        let mut t = lock(&self.table);
        loop {
            if t.closed
                && let Some(end) = *lock(&self.end)
            {
                return end;
            }
            t = self.ended.wait(t).unwrap_or_else(PoisonError::into_inner);
        }
    }
    /// Wait until no thread is left; how the job ended. The last thread leaves the table before it has said how.
    pub fn wait_end(&self) -> EndReason {
        let mut t = lock(&self.table);
        loop {
            if t.threads.is_empty()
                && let Some(end) = *lock(&self.end)
            {
                return end;
            }
            t = self.ended.wait(t).unwrap_or_else(PoisonError::into_inner);
        }
    }
    /// Bytes of memory the guest is shown to have.
    pub fn shown_memory(&self) -> u64 {
        self.config.limits.memory.unwrap_or(self.config.shown_memory)
    }
    /// Fill with random bytes: the seeded stream, or the host's randomness.
    pub fn random(&self, buf: &mut [u8]) {
        match &mut *lock(&self.rng) {
            Some(s) => s.fill(buf),
            None => {
                let mut at = 0;
                while at < buf.len() {
                    match rustix::rand::getrandom(&mut buf[at..], rustix::rand::GetRandomFlags::empty()) {
                        Ok(n) => at += n,
                        Err(rustix::io::Errno::INTR) => {}
                        // The host has no randomness to give: impossible since Linux 3.17 without a filter.
                        Err(e) => panic!("getrandom on the host: {e}"),
                    }
                }
            }
        }
    }
}
