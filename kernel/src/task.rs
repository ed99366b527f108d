//! A guest thread as the host thread that runs it owns it.

use crate::errno::Result;
use crate::fs::FsContext;
use crate::io::FdTable;
use crate::kernel::{Flow, Kernel};
use crate::mm::Mm;
use crate::process::{Process, Thread};
use crate::signal::SigSet;
use crate::wait::{Blocking, Waker};
use evm_cpu::CpuState;
use evm_memory::Mem;
use std::sync::Arc;
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
    pub(crate) clear_child_tid: u64,
    pub(crate) robust_list: u64,
}

impl Task {
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
    /// Thread id.
    pub fn tid(&self) -> i32 {
        self.thread.tid()
    }
    /// Process id.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }
    /// Replace the signal mask for the rest of the current system call (ppoll, pselect6, epoll_pwait): `addr` is the
    /// guest's sigset (0 = none), `size` must be 8 then.
    pub fn temporary_mask(&mut self, addr: u64, size: u64) -> Result<()> {
        let _ = (addr, size);
        Ok(())
    }
    /// Send this thread a signal of the kernel's (SIGPIPE, SIGXFSZ, SIGTTOU).
    pub fn raise(&self, sig: i32) {
        let _ = sig;
    }
    /// The end of a wait for `timeout` from now on. When a call is restarted after a signal without a handler, it is
    /// the end that the first call had.
    pub fn deadline(&mut self, timeout: Duration) -> Deadline {
        let clock = &self.process.kernel.clock;
        let at = clock.peek().saturating_add(timeout);
        Deadline { at, host: clock.host_deadline(at) }
    }
    /// Serve the SYSCALL instruction before `cpu.rip`.
    pub fn syscall(&mut self) -> Flow {
        Flow::Run
    }
    /// Turn a CPU exception (an `evm_cpu::exc` code) of the instruction at `cpu.rip` into a signal.
    pub fn exception(&mut self, exc: u32, arg: u64) -> Flow {
        let _ = (exc, arg);
        Flow::Run
    }
    /// Do what others asked this thread to do: handlers, stop, end.
    pub fn deliver_signals(&mut self) -> Flow {
        Flow::Run
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
        self.thread.attention.load(Ordering::Acquire)
    }
}

/// CPU time of a host thread's clock; zero for clock 0 (none).
pub(crate) fn host_cpu_time(_clock: i32) -> Duration {
    Duration::ZERO
}
