//! Processes (thread groups) and what other threads may see of a thread.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::Mm;
use crate::signal::{NSIG, Pending, SigAction, SigInfo, SigSet};
use crate::wait::{WaitQueue, Waker};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// User and group identity.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    pub groups: Vec<u32>,
}

impl Credentials {
    /// All ids the same.
    pub fn new(uid: u32, gid: u32) -> Credentials {
        Credentials { uid, euid: uid, suid: uid, fsuid: uid, gid, egid: gid, sgid: gid, fsgid: gid, groups: vec![gid] }
    }
}

/// A resource limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Rlimit {
    pub cur: u64,
    pub max: u64,
}

/// The resource limits of a process, by RLIMIT_* number.
pub type Rlimits = [Rlimit; 16];

/// What a process executes.
#[derive(Clone)]
pub struct Image {
    /// Address space.
    pub mm: Arc<Mm>,
    /// Absolute guest path of the program.
    pub exe: Vec<u8>,
    /// Keeps the program's file from being written.
    pub file: Option<Arc<crate::fs::executed::Executing>>,
    /// Range of the argument strings in guest memory.
    pub args: (u64, u64),
    /// Range of the environment strings in guest memory.
    pub env: (u64, u64),
    /// The auxiliary vector as bytes.
    pub auxv: Arc<[u8]>,
    /// Initial stack pointer.
    pub stack: u64,
}

/// Position in the tree of processes, groups and sessions.
#[derive(Clone, Debug)]
pub struct Relations {
    /// Parent's process id, 0 for the first process.
    pub ppid: i32,
    /// Process group.
    pub pgid: i32,
    /// Session.
    pub sid: i32,
    /// Called execve since fork (setpgid by the parent is over).
    pub execed: bool,
}

/// How far a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its threads run (or sleep).
    Running,
    /// Stopped by this signal.
    Stopped(i32),
    /// All threads are gone; the wait status is kept for the parent.
    Zombie(i32),
}

/// State that wait(2) looks at.
#[derive(Clone, Copy, Debug)]
pub struct Status {
    /// How far it is.
    pub life: Life,
    /// A stop that the parent has not waited for.
    pub stop_unseen: bool,
    /// A continuation that the parent has not waited for.
    pub cont_unseen: bool,
}

/// CPU use.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system time together are not told apart on the host side: all is user time.
    pub utime: Duration,
    /// Time in the virtual kernel.
    pub stime: Duration,
    /// Largest resident set, in pages.
    pub maxrss: u64,
}

impl Usage {
    /// Add another's.
    pub fn add(&mut self, o: &Usage) {
        self.utime += o.utime;
        self.stime += o.stime;
        self.maxrss = self.maxrss.max(o.maxrss);
    }
}

/// A thread group.
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// The job it is in.
    pub kernel: Arc<Kernel>,
    /// Tree position. Changed only with the kernel's table locked.
    pub(crate) rel: Mutex<Relations>,
    /// `None` once the process has ended.
    pub(crate) image: RwLock<Option<Image>>,
    pub(crate) comm_: Mutex<Vec<u8>>,
    pub(crate) cred: RwLock<Credentials>,
    pub(crate) rlimits: Mutex<Rlimits>,
    /// Live threads.
    pub(crate) threads: Mutex<Vec<Arc<Thread>>>,
    /// Signal actions; shared by CLONE_SIGHAND.
    pub(crate) actions: RwLock<Arc<Mutex<[SigAction; NSIG]>>>,
    /// Signals sent to the process as a whole.
    pub(crate) pending: Mutex<Pending>,
    /// Woken when a signal is sent (signalfd).
    pub signal_queue: WaitQueue,
    pub(crate) status: Mutex<Status>,
    /// Exit status of the group once exit_group or a fatal signal decided it.
    pub(crate) group_exit: Mutex<Option<i32>>,
    /// Thread id of the thread that executes execve and waits for the others to be gone, 0 = none.
    pub(crate) exec_by: AtomicI32,
    /// Woken when a child changes state, a thread ends, or the process is continued.
    pub(crate) events: WaitQueue,
    /// Signal sent to the parent at the end.
    pub(crate) exit_signal: AtomicI32,
    pub(crate) pdeath_signal: AtomicI32,
    /// /proc/pid/oom_score_adj.
    pub(crate) oom_adjust: AtomicI32,
    pub(crate) no_new_privs: AtomicBool,
    pub(crate) dumpable: AtomicU32,
    pub(crate) subreaper: AtomicBool,
    pub(crate) keepcaps: AtomicBool,
    pub(crate) nice: AtomicI32,
    /// As ioprio_set(2) has it: class and level.
    pub(crate) io_priority: AtomicU32,
    pub(crate) personality: AtomicU32,
    /// Use of threads that ended, and of children that were waited for.
    pub(crate) usage: Mutex<(Usage, Usage)>,
    pub(crate) resident_seen: Mutex<(Option<std::time::Instant>, u64)>,
    /// On the clock of the kernel.
    pub(crate) start_time: Duration,
    /// POSIX timers by id.
    pub(crate) timers: Mutex<BTreeMap<i32, crate::timers::PosixTimer>>,
    /// setitimer: real, virtual, profiling.
    pub(crate) itimers: Mutex<[crate::timers::IntervalTimer; 3]>,
    pub(crate) fs: RwLock<Arc<crate::fs::FsContext>>,
    pub(crate) fds: RwLock<Arc<crate::io::FdTable>>,
}

impl Process {
    /// Parent's process id.
    pub fn ppid(&self) -> i32 {
        lock(&self.rel).ppid
    }
    /// Process group.
    pub fn pgid(&self) -> i32 {
        lock(&self.rel).pgid
    }
    /// Session.
    pub fn sid(&self) -> i32 {
        lock(&self.rel).sid
    }
    /// Program, address space, arguments; `None` once the process has ended.
    pub fn image(&self) -> Option<Image> {
        self.image.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Address space.
    pub fn mm(&self) -> Option<Arc<Mm>> {
        self.image.read().unwrap_or_else(PoisonError::into_inner).as_ref().map(|i| i.mm.clone())
    }
    pub(crate) fn actions(&self) -> Arc<Mutex<[SigAction; NSIG]>> {
        self.actions.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Identity.
    pub fn credentials(&self) -> Credentials {
        self.cred.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Name of the main thread.
    pub fn comm(&self) -> Vec<u8> {
        lock(&self.comm_).clone()
    }
    /// A resource limit (RLIMIT_*).
    pub fn rlimit(&self, which: usize) -> Rlimit {
        lock(&self.rlimits).get(which).copied().unwrap_or(Rlimit { cur: u64::MAX, max: u64::MAX })
    }
    /// State for wait(2) and /proc.
    pub fn status(&self) -> Status {
        *lock(&self.status)
    }
    /// Live threads.
    pub fn threads(&self) -> Vec<Arc<Thread>> {
        lock(&self.threads).clone()
    }
    /// Action of a signal.
    pub fn action(&self, sig: i32) -> SigAction {
        let a = self.actions();
        let a = lock(&a);
        a.get((sig - 1) as usize).copied().unwrap_or_default()
    }
    /// Descriptor table of the main thread (for /proc).
    pub fn fds(&self) -> Arc<crate::io::FdTable> {
        self.fds.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Root and working directory of the main thread (for /proc).
    pub fn fs(&self) -> Arc<crate::fs::FsContext> {
        self.fs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// What the process set as its /proc/pid/oom_score_adj.
    pub fn oom_adjust(&self) -> i32 {
        self.oom_adjust.load(Ordering::Relaxed)
    }
    /// Nice value.
    pub fn nice(&self) -> i32 {
        self.nice.load(Ordering::Relaxed)
    }
    /// When it started, on the monotonic clock.
    pub fn start_time(&self) -> Duration {
        self.start_time
    }
    /// CPU use of the process's threads, live and ended, and that of its waited-for children.
    pub fn usage(&self) -> (Usage, Usage) {
        let (mut own, children) = *lock(&self.usage);
        for t in lock(&self.threads).iter() {
            own.utime += t.cpu_time();
        }
        (own, children)
    }
    /// Most pages that were resident when someone looked. Looking costs a walk over the page tables, so it is done at most
    /// ten times a second.
    pub fn peak_pages(&self) -> u64 {
        let now = std::time::Instant::now();
        let mut seen = lock(&self.resident_seen);
        if seen.0.is_none_or(|t| now - t > Duration::from_millis(100)) {
            let pages = self.mm().map_or(0, |m| m.resident() >> 12);
            *seen = (Some(now), seen.1.max(pages));
        }
        seen.1
    }
    /// Send a signal to the process.
    pub fn signal(&self, info: SigInfo) -> Result<(), Errno> {
        crate::signal::send::to_process(self, info)
    }
}

/// What other threads may look at or change of a thread.
pub struct Thread {
    /// Thread id (changes only when a thread that is not the leader executes a program).
    pub(crate) tid: AtomicI32,
    pub(crate) process: Weak<Process>,
    /// What it sleeps on.
    pub waker: Arc<Waker>,
    /// Blocked signals.
    pub(crate) mask: AtomicU64,
    /// Signals sent to this thread.
    pub(crate) pending: Mutex<Pending>,
    /// Something is to be done before the thread goes on in the guest.
    pub(crate) attention: AtomicBool,
    /// The thread must end.
    pub(crate) killed: AtomicBool,
    /// The thread sleeps in the kernel.
    pub(crate) asleep: AtomicBool,
    pub(crate) comm: Mutex<Vec<u8>>,
    /// Host clock of the thread's CPU time, once it runs, and the value at its end.
    pub(crate) cpu_clock: AtomicI32,
    /// CPU time before this thread image (nanoseconds).
    pub(crate) cpu_base: AtomicU64,
    /// Signals that sigtimedwait waits for.
    pub(crate) sigwait: AtomicU64,
    /// How it wants to be scheduled.
    pub(crate) sched: Mutex<crate::sys::sched::Sched>,
}

impl Thread {
    pub(crate) fn new(tid: i32, process: Weak<Process>, mask: SigSet, comm: Vec<u8>) -> Arc<Thread> {
        Arc::new(Thread {
            tid: AtomicI32::new(tid),
            process,
            waker: Arc::default(),
            mask: AtomicU64::new(mask),
            pending: Mutex::default(),
            attention: AtomicBool::new(false),
            killed: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            comm: Mutex::new(comm),
            cpu_clock: AtomicI32::new(0),
            cpu_base: AtomicU64::new(0),
            sigwait: AtomicU64::new(0),
            sched: Mutex::default(),
        })
    }
    /// Thread id.
    pub fn tid(&self) -> i32 {
        self.tid.load(Ordering::Relaxed)
    }
    /// The process, while it exists.
    pub fn process(&self) -> Option<Arc<Process>> {
        self.process.upgrade()
    }
    /// Name (PR_SET_NAME).
    pub fn comm(&self) -> Vec<u8> {
        lock(&self.comm).clone()
    }
    /// Blocked signals.
    pub fn mask(&self) -> SigSet {
        self.mask.load(Ordering::Relaxed)
    }
    /// Whether it sleeps in a system call.
    pub fn asleep(&self) -> bool {
        self.asleep.load(Ordering::Relaxed)
    }
    /// CPU time used so far.
    pub fn cpu_time(&self) -> Duration {
        Duration::from_nanos(self.cpu_base.load(Ordering::Relaxed))
            + crate::task::host_cpu_time(self.cpu_clock.load(Ordering::Relaxed))
    }
}
