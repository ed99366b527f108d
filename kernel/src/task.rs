//! A guest thread as the host thread that runs it owns it, and the entry of system calls.
//!
//! # Safety
//! The only unsafe code reads the host's CPU clock of a thread.
#![allow(unsafe_code)]

use crate::arch::trap::Trap;
use crate::errno::{Errno, Result};
use crate::exit::Latch;
use crate::fs::FsContext;
use crate::io::FdTable;
use crate::kernel::{Flow, Kernel};
use crate::mm::Mm;
use crate::process::{Process, Thread, lock};
use crate::signal::frame::AltStack;
use crate::signal::{SigInfo, SigSet, UNBLOCKABLE};
use crate::sys;
use crate::wait::{Blocking, Waker};
use evm_cpu::CpuState;
use evm_memory::Mem;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A guest thread.
pub struct Task {
    /// Registers. The address of the box stays the same for the life of the task.
    pub cpu: Box<CpuState>,
    /// Its process.
    pub process: Arc<Process>,
    /// What others see of it.
    pub thread: Arc<Thread>,
    pub(crate) mm: Arc<Mm>,
    pub(crate) fds: Arc<FdTable>,
    pub(crate) fs: Arc<FsContext>,
    /// Mask to restore after the system call that replaced it for its duration.
    pub(crate) saved_mask: Option<SigSet>,
    pub(crate) alt_stack: AltStack,
    /// Where to write 0 and wake a futex at the end (CLONE_CHILD_CLEARTID).
    pub(crate) clear_child_tid: u64,
    /// Where to write the thread id when it starts (CLONE_CHILD_SETTID).
    pub(crate) set_child_tid: u64,
    pub(crate) robust_list: u64,
    /// The last exception, for the signal frame.
    pub(crate) trap: Trap,
    /// Released at execve or the end (vfork).
    pub(crate) vfork: Option<Arc<Latch>>,
    /// What the current system call does next, if not simply go on.
    pub(crate) flow: Flow,
    /// The system call sets RAX itself (execve, rt_sigreturn).
    pub(crate) keep_rax: bool,
    /// The system call that just gave EINTR.
    pub(crate) interrupted_call: Option<Interrupted>,
    /// Number of the system call that starts again without a handler in between.
    pub(crate) restarting: Option<u32>,
    /// End of the relative timeout of the current or restarted call.
    pub(crate) call_deadline: Option<Duration>,
    /// The thread has done its last.
    pub(crate) gone: bool,
}

/// A system call that a signal interrupted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interrupted {
    /// Its number as the program gave it.
    pub nr: u32,
    /// The x86-64 number.
    pub native: u32,
}

impl Task {
    pub(crate) fn new(
        cpu: Box<CpuState>,
        process: Arc<Process>,
        thread: Arc<Thread>,
        mm: Arc<Mm>,
        fds: Arc<FdTable>,
        fs: Arc<FsContext>,
    ) -> Task {
        let mut t = Task {
            cpu,
            process,
            thread,
            mm,
            fds,
            fs,
            saved_mask: None,
            alt_stack: AltStack::NONE,
            clear_child_tid: 0,
            set_child_tid: 0,
            robust_list: 0,
            trap: Trap::default(),
            vfork: None,
            flow: Flow::Run,
            keep_rax: false,
            interrupted_call: None,
            restarting: None,
            call_deadline: None,
            gone: false,
        };
        t.attach_memory();
        t
    }
    /// Point the CPU at the address space.
    pub(crate) fn attach_memory(&mut self) {
        self.cpu.mem_base = self.mm.arena().base();
        self.cpu.mem_limit = self.mm.arena().size();
    }
    /// Guest memory.
    pub fn mem(&self) -> Mem {
        self.mm.mem()
    }
    /// Address space.
    pub fn mm(&self) -> &Arc<Mm> {
        &self.mm
    }
    /// The job.
    pub fn kernel(&self) -> &Arc<Kernel> {
        &self.process.kernel
    }
    /// Descriptors.
    pub fn fds(&self) -> &Arc<FdTable> {
        &self.fds
    }
    /// Root, working directory, umask.
    pub fn fs(&self) -> &Arc<FsContext> {
        &self.fs
    }
    /// Use another descriptor table (unshare, close_range with CLOSE_RANGE_UNSHARE).
    pub fn set_fds(&mut self, fds: Arc<FdTable>) {
        if self.tid() == self.pid() {
            *self.process.fds.write().unwrap_or_else(PoisonError::into_inner) = fds.clone();
        }
        self.fds = fds;
    }
    /// Use another root and working directory record (unshare).
    pub fn set_fs(&mut self, fs: Arc<FsContext>) {
        if self.tid() == self.pid() {
            *self.process.fs.write().unwrap_or_else(PoisonError::into_inner) = fs.clone();
        }
        self.fs = fs;
    }
    /// Thread id.
    pub fn tid(&self) -> i32 {
        self.thread.tid()
    }
    /// Process id.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }
    /// Must be called first on the host thread that runs the task.
    pub fn enter(&mut self) {
        self.thread.cpu_clock.store(current_cpu_clock(), Ordering::Relaxed);
        if self.set_child_tid != 0 {
            let _ = self.mem().write(self.set_child_tid, self.tid());
        }
    }
    /// Replace the signal mask for the rest of the current system call (ppoll, pselect6, epoll_pwait): `addr` is the
    /// guest's sigset (0 = none), `size` must be 8 then.
    pub fn temporary_mask(&mut self, addr: u64, size: u64) -> Result<()> {
        if addr == 0 {
            return Ok(());
        }
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let mask: u64 = self.mem().read(addr)?;
        self.replace_mask(mask);
        Ok(())
    }
    pub(crate) fn replace_mask(&mut self, mask: SigSet) {
        let old = self.thread.mask();
        self.saved_mask.get_or_insert(old);
        self.set_mask(mask & !UNBLOCKABLE);
    }
    /// Send this thread a signal of the kernel's (SIGPIPE, SIGXFSZ, SIGTTOU).
    pub fn raise(&self, sig: i32) {
        let p = &self.process;
        let _ = crate::signal::send::to_thread(&self.thread, SigInfo::user(sig, p.pid, p.credentials().uid));
    }
    /// The end of a wait for `timeout` from now on. When a call is restarted after a signal without a handler, it is
    /// the end that the first call had.
    pub fn deadline(&mut self, timeout: Duration) -> Deadline {
        let clock = &self.process.kernel.clock;
        let at = match self.call_deadline {
            Some(at) => at,
            None => clock.peek().saturating_add(timeout),
        };
        self.call_deadline = Some(at);
        Deadline { at, host: clock.host_deadline(at) }
    }
    /// The end of a wait until an absolute time on the monotonic clock.
    pub fn deadline_at(&self, at: Duration) -> Deadline {
        Deadline { at, host: self.kernel().clock.host_deadline(at) }
    }

    /// Serve the SYSCALL instruction before `cpu.rip`.
    pub fn syscall(&mut self) -> Flow {
        let nr = self.cpu.gpr[0] as u32;
        let g = &self.cpu.gpr;
        let args = [g[7], g[6], g[2], g[10], g[8], g[9]];
        self.cpu.gpr[1] = self.cpu.rip;
        self.cpu.gpr[11] = self.cpu.rflags();
        self.serve(nr, nr, sys::lookup(nr), args)
    }
    /// Serve the INT 80h before `cpu.rip` of a 32-bit program.
    pub fn syscall32(&mut self) -> Flow {
        let g = &self.cpu.gpr;
        let nr = g[0] as u32;
        let args = [g[3], g[1], g[2], g[6], g[7], g[5]].map(|v| v as u32);
        let flow = match sys::compat::lookup(nr) {
            Some(c) => self.serve(nr, c.native, c.entry, c.arguments(args)),
            None => self.serve(nr, sys::MAX as u32, None, args.map(u64::from)),
        };
        if self.mm.bits == 32 {
            self.cpu.gpr[0] &= 0xffff_ffff;
        }
        flow
    }
    /// Whether a system call number is that of a call that changes signal actions, for the runtime.
    pub fn is_sigaction(&self, nr: u32) -> bool {
        self.native_number(nr) == Some(libc::SYS_rt_sigaction as u32)
    }
    /// Whether a system call number is that of a return from a signal handler.
    pub fn is_sigreturn(&self, nr: u32) -> bool {
        self.native_number(nr) == Some(libc::SYS_rt_sigreturn as u32)
    }
    /// The first argument of the system call that was just made.
    pub(crate) fn first_argument(&self, nr: u32) -> u64 {
        const SOCKETCALL: u32 = 102;
        match (self.mm.bits, nr) {
            // Its arguments are in memory.
            (32, SOCKETCALL) => self.mem().read::<u32>(self.cpu.gpr[1]).map_or(u64::MAX, u64::from),
            (32, _) => self.cpu.gpr[3],
            _ => self.cpu.gpr[7],
        }
    }
    fn native_number(&self, nr: u32) -> Option<u32> {
        if self.mm.bits == 32 { sys::compat::lookup(nr).map(|c| c.native) } else { Some(nr) }
    }
    /// Serve a call: its number as the program gave it, its x86-64 number, what does it.
    pub(crate) fn serve(&mut self, nr: u32, native: u32, entry: Option<&'static sys::Syscall>, args: [u64; 6]) -> Flow {
        self.kernel().counters.count(native);
        if self.restarting.take() != Some(nr) {
            self.call_deadline = None;
        }
        self.flow = Flow::Run;
        self.keep_rax = false;
        let traced = self.kernel().config.trace.is_some().then(|| sys::trace::call(self, entry, native, &args));
        let result = match entry {
            Some(s) if self.mm.bits == 64 => (s.f)(self, s.narrowed(args)),
            Some(s) => (s.f)(self, args),
            None => Err(Errno::ENOSYS),
        };
        if let (Some(sink), Some(line)) = (&self.kernel().config.trace, traced) {
            sink(&sys::trace::result(self, &line, result, self.flow));
        }
        if self.flow == Flow::Exit {
            return Flow::Exit;
        }
        if !self.keep_rax {
            self.cpu.gpr[0] = match result {
                Ok(v) => v,
                Err(e) => -i64::from(e.0) as u64,
            };
            if result == Err(Errno::EINTR) {
                self.interrupted_call = Some(Interrupted { nr, native });
                self.thread.attention.store(true, Ordering::Release);
            } else if let Some(m) = self.saved_mask.take() {
                self.set_mask(m);
            }
        }
        let flow = self.flow;
        if self.thread.attention.load(Ordering::Acquire) {
            let f = self.deliver_signals();
            if f == Flow::Exit {
                return f;
            }
        }
        flow
    }
    /// Whether this thread must end or is to stop.
    pub(crate) fn must_die(&self) -> bool {
        self.thread.killed.load(Ordering::Acquire)
    }
    /// Sleep until woken, as a thread that sleeps in a system call.
    pub(crate) fn sleep(&self, deadline: Option<Instant>) -> bool {
        self.thread.asleep.store(true, Ordering::Relaxed);
        let r = self.thread.waker.sleep(deadline);
        self.thread.asleep.store(false, Ordering::Relaxed);
        r
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if !self.gone {
            // The host could not run it any further: it must not stay in the tables.
            self.exit_thread(libc::SIGKILL);
        }
    }
}

/// When a wait ends. A wait that ends by it calls `kernel.clock.reached(deadline.at)`.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// On the job's monotonic clock.
    pub at: Duration,
    /// On the host; `None` = never.
    pub host: Option<Instant>,
}

impl Blocking for Task {
    fn waker(&self) -> &Arc<Waker> {
        &self.thread.waker
    }
    fn interrupted(&self) -> bool {
        if !self.thread.attention.load(Ordering::Acquire) {
            return false;
        }
        self.must_die()
            || matches!(self.process.status().life, crate::process::Life::Stopped(_))
            || self.deliverable() != 0
    }
}

/// The host's clock id for the CPU time of the calling thread.
#[cfg(target_family = "wasm")]
fn current_cpu_clock() -> i32 {
    host_cpu_time(1);
    1
}
/// WASI has no clock of CPU time: it is the time since the one thread began.
#[cfg(target_family = "wasm")]
pub(crate) fn host_cpu_time(clock: i32) -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    if clock == 0 { Duration::ZERO } else { START.get_or_init(Instant::now).elapsed() }
}

/// The host's clock id for the CPU time of the calling thread.
#[cfg(not(target_family = "wasm"))]
fn current_cpu_clock() -> i32 {
    let tid = rustix::thread::gettid().as_raw_nonzero().get();
    !tid << 3 | 6 // CPUCLOCK_SCHED | CPUCLOCK_PERTHREAD_MASK
}

/// CPU time of a host thread's clock; zero for clock 0 (none) and for threads that are gone.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn host_cpu_time(clock: i32) -> Duration {
    if clock == 0 {
        return Duration::ZERO;
    }
    let mut ts = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `ts` is a valid timespec to write to; an unknown clock is an error.
    if unsafe { libc::clock_gettime(clock, &mut ts) } != 0 {
        return Duration::ZERO;
    }
    Duration::new(ts.tv_sec as u64, ts.tv_nsec as u32)
}

impl Task {
    /// The thread's CPU time so far becomes a constant.
    pub(crate) fn settle_cpu_time(&self) -> Duration {
        let t = self.thread.cpu_time();
        self.thread.cpu_clock.store(0, Ordering::Relaxed);
        self.thread.cpu_base.store(t.as_nanos() as u64, Ordering::Relaxed);
        t
    }
    /// Signals that are pending for the thread or its process.
    pub(crate) fn pending_set(&self) -> SigSet {
        // One lock at a time.
        let own = lock(&self.thread.pending).set;
        own | lock(&self.process.pending).set
    }
}
