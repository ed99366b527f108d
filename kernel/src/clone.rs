//! New threads and processes: fork, vfork, clone, clone3; and the first process of a job.

use crate::errno::{Errno, Result};
use crate::exec;
use crate::exit::{INIT, LAUNCHER, Latch};
use crate::file::Description;
use crate::fs::FsContext;
use crate::io::FdTable;
use crate::kernel::{Kernel, Table};
use crate::mm::Mm;
use crate::process::{Credentials, Image, Life, Process, Relations, Rlimit, Rlimits, Status, Thread, lock};
use crate::signal::{NSIG, SIG_IGN, SigAction, frame};
use crate::task::Task;
use crate::wait::WaitQueue;
use evm_cpu::{CpuState, segment};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Arguments of clone3(2), as far as they mean something here.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CloneArgs {
    pub flags: u64,
    pub child_tid: u64,
    pub parent_tid: u64,
    pub exit_signal: i32,
    /// Stack pointer of the child; 0 = that of the parent.
    pub stack: u64,
    pub tls: u64,
    /// Where CLONE_PIDFD puts the descriptor.
    pub pidfd: u64,
}

const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

fn has(flags: u64, f: i32) -> bool {
    flags & f as u32 as u64 != 0
}

/// Default resource limits of a job's first process.
pub(crate) fn default_rlimits(k: &Kernel) -> Rlimits {
    const INF: u64 = u64::MAX;
    let same = |v| Rlimit { cur: v, max: v };
    let mut r = [same(INF); 16];
    r[libc::RLIMIT_STACK as usize] = Rlimit { cur: k.config.stack_size, max: INF };
    r[libc::RLIMIT_CORE as usize] = Rlimit { cur: 0, max: INF };
    r[libc::RLIMIT_NPROC as usize] = same(k.limits.procs.max().min(31_000));
    r[libc::RLIMIT_NOFILE as usize] = match k.config.limits.files {
        Some(n) => same(n),
        None => Rlimit { cur: 1024, max: 1 << 20 },
    };
    r[libc::RLIMIT_MEMLOCK as usize] = same(8 << 20);
    r[libc::RLIMIT_SIGPENDING as usize] = same(31_000);
    r[libc::RLIMIT_MSGQUEUE as usize] = same(819_200);
    r[libc::RLIMIT_NICE as usize] = same(0);
    r[libc::RLIMIT_RTPRIO as usize] = same(0);
    r
}

struct NewProcess {
    pid: i32,
    rel: Relations,
    /// None: nobody's business.
    image: Option<Image>,
    comm: Vec<u8>,
    cred: Credentials,
    rlimits: Rlimits,
    actions: Arc<Mutex<[SigAction; NSIG]>>,
    exit_signal: i32,
    fs: Arc<FsContext>,
    fds: Arc<FdTable>,
}

fn new_process(kernel: &Arc<Kernel>, n: NewProcess) -> Process {
    Process {
        pid: n.pid,
        kernel: kernel.clone(),
        rel: Mutex::new(n.rel),
        image: RwLock::new(n.image),
        comm_: Mutex::new(n.comm),
        cred: RwLock::new(n.cred),
        rlimits: Mutex::new(n.rlimits),
        threads: Mutex::default(),
        actions: RwLock::new(n.actions),
        pending: Mutex::default(),
        signal_queue: WaitQueue::default(),
        status: Mutex::new(Status { life: Life::Running, stop_unseen: false, cont_unseen: false }),
        group_exit: Mutex::new(None),
        exec_by: AtomicI32::new(0),
        events: WaitQueue::default(),
        exit_signal: AtomicI32::new(n.exit_signal),
        pdeath_signal: AtomicI32::new(0),
        no_new_privs: AtomicBool::new(false),
        oom_adjust: AtomicI32::new(0),
        dumpable: AtomicU32::new(1),
        subreaper: AtomicBool::new(false),
        keepcaps: AtomicBool::new(false),
        nice: AtomicI32::new(0),
        io_priority: AtomicU32::new(0),
        personality: AtomicU32::new(0),
        usage: Mutex::default(),
        resident_seen: Mutex::default(),
        start_time: kernel.clock.peek(),
        timers: Mutex::new(BTreeMap::new()),
        itimers: Mutex::default(),
        fs: RwLock::new(n.fs),
        fds: RwLock::new(n.fds),
    }
}

/// The program that a job starts with.
pub struct Program {
    /// Contents of the program; `None` = the file at `path` in the guest's file system.
    pub bytes: Option<Vec<u8>>,
    /// Guest path (with `bytes`, what the program is told its path is).
    pub path: Vec<u8>,
    /// Arguments, the first one the program's name.
    pub argv: Vec<Vec<u8>>,
    /// Environment, `NAME=value`.
    pub envp: Vec<Vec<u8>>,
    /// Root and working directory.
    pub fs: Arc<FsContext>,
    /// Descriptors.
    pub fds: Arc<FdTable>,
}

impl Kernel {
    /// Make the first process. The caller runs the task on a host thread as [`Host::spawn`](crate::kernel::Host::spawn) says.
    pub fn start(self: &Arc<Kernel>, p: Program) -> Result<Task> {
        let kernel = self;
        let rlimits = default_rlimits(kernel);
        p.fds.set_limit(rlimits[libc::RLIMIT_NOFILE as usize].cur.min(u64::from(u32::MAX)) as u32);
        let mm = Mm::empty(kernel)?;
        if !kernel.limits.procs.charge(1) {
            return Err(Errno::EAGAIN);
        }
        let mut table = lock(&kernel.table);
        table.last_id = table.last_id.max(LAUNCHER);
        let pid = table.new_id()?;
        let image = Image {
            mm: mm.clone(),
            exe: Vec::new(),
            file: None,
            args: (0, 0),
            env: (0, 0),
            auxv: Arc::new([]),
            stack: 0,
        };
        let process = Arc::new(new_process(
            kernel,
            NewProcess {
                pid,
                rel: Relations { ppid: LAUNCHER, pgid: pid, sid: pid, execed: false },
                image: Some(image),
                comm: Vec::new(),
                cred: Credentials::new(kernel.config.uid, kernel.config.gid),
                rlimits,
                actions: Arc::new(Mutex::new([SigAction::default(); NSIG])),
                exit_signal: libc::SIGCHLD,
                fs: p.fs.clone(),
                fds: p.fds.clone(),
            },
        ));
        kernel.first_pid.store(pid, Ordering::Relaxed);
        let thread = Thread::new(pid, Arc::downgrade(&process), 0, Vec::new());
        table.enter(&process, &thread);
        drop(table);
        let cpu =
            Box::new(CpuState { cpus: kernel.config.cpus, model: kernel.config.cpu_model, ..CpuState::default() });
        let mut task = Task::new(cpu, process, thread, mm, p.fds, p.fs);
        // An empty process that executes the program; if that fails the task is dropped and with it the process.
        let file = match &p.bytes {
            Some(b) => exec::bytes::description(b, &p.path)?,
            None => crate::fs::open_exec(&task, libc::AT_FDCWD, &p.path, 0)?,
        };
        task.exec(file, p.path, p.argv, p.envp)?;
        kernel.watch_limits();
        Ok(task)
    }
}

impl Kernel {
    /// A process by its id, or what stands for the one that started the job ([`LAUNCHER`]) or for init: these are outside,
    /// but a guest may ask about them as about any other.
    pub(crate) fn known(self: &Arc<Self>, pid: i32) -> Option<Arc<Process>> {
        self.process(pid).or_else(|| self.outsider(pid))
    }
    /// The ids of all that [`Kernel::known`] knows.
    pub(crate) fn known_pids(&self) -> Vec<i32> {
        [INIT, LAUNCHER].into_iter().chain(self.processes().iter().map(|p| p.pid)).collect()
    }
    fn outsider(self: &Arc<Self>, pid: i32) -> Option<Arc<Process>> {
        let (comm, ppid, uid, gid) = match pid {
            INIT => ("init", 0, 0, 0),
            LAUNCHER => ("evm", INIT, self.config.uid, self.config.gid),
            _ => return None,
        };
        let p = new_process(
            self,
            NewProcess {
                pid,
                rel: Relations { ppid, pgid: pid, sid: pid, execed: true },
                image: None,
                comm: comm.into(),
                cred: Credentials::new(uid, gid),
                rlimits: default_rlimits(self),
                actions: Arc::new(Mutex::new([SigAction::default(); NSIG])),
                exit_signal: libc::SIGCHLD,
                fs: Arc::new(self.processes().first()?.fs().fork()),
                fds: Arc::new(FdTable::new(0)),
            },
        );
        Some(Arc::new(p))
    }
}

impl Table {
    fn enter(&mut self, p: &Arc<Process>, t: &Arc<Thread>) {
        self.procs.insert(p.pid, p.clone());
        self.threads.insert(t.tid(), t.clone());
        lock(&p.threads).push(t.clone());
    }
}

impl Task {
    /// clone(2): gives the child's id.
    pub(crate) fn clone_task(&mut self, a: CloneArgs) -> Result<i32> {
        let f = a.flags;
        let thread = has(f, libc::CLONE_THREAD);
        if (thread && !has(f, libc::CLONE_SIGHAND))
            || (has(f, libc::CLONE_SIGHAND) && !has(f, libc::CLONE_VM))
            || (f & CLEAR_SIGHAND != 0 && has(f, libc::CLONE_SIGHAND))
            || (has(f, libc::CLONE_FS) && f & NAMESPACES != 0)
        {
            return Err(Errno::EINVAL);
        }
        if f & NAMESPACES != 0 {
            return Err(Errno::EPERM);
        }
        if has(f, libc::CLONE_PTRACE) || has(f, libc::CLONE_PIDFD) && (thread || has(f, libc::CLONE_DETACHED)) {
            return Err(Errno::EINVAL); // nobody is traced; a pidfd is of a process
        }
        let kernel = self.kernel().clone();
        let nproc = self.process.rlimit(libc::RLIMIT_NPROC as usize).cur;
        if kernel.limits.procs.used() >= nproc || !kernel.limits.procs.charge(1) {
            return Err(Errno::EAGAIN);
        }
        // From here on a failure gives the charge back.
        let made = self.make_child(&kernel, &a);
        let mut child = match made {
            Ok(c) => c,
            Err(e) => {
                kernel.limits.procs.release(1);
                return Err(e);
            }
        };
        let tid = child.tid();
        if has(f, libc::CLONE_PIDFD) {
            let fd = self.fds().insert(crate::io::pidfd::PidFd::describe(&child.process, 0), true)?;
            if let Err(e) = self.mem().write(a.pidfd, fd) {
                let _ = self.fds().close(fd); // it was there a moment ago, or another thread has closed it
                return Err(e.into());
            }
        }
        if has(f, libc::CLONE_PARENT_SETTID) {
            let _ = self.mem().write(a.parent_tid, tid);
        }
        if has(f, libc::CLONE_CHILD_SETTID) {
            child.set_child_tid = a.child_tid;
        }
        if has(f, libc::CLONE_CHILD_CLEARTID) {
            child.clear_child_tid = a.child_tid;
        }
        if has(f, libc::CLONE_SETTLS) {
            child.set_tls(a.tls)?;
        }
        child.cpu.gpr[0] = 0;
        if a.stack != 0 {
            child.cpu.gpr[4] = if self.mm.bits == 32 { a.stack & 0xffff_ffff } else { a.stack };
        }
        // A stopped or dying process's new thread must not miss that.
        child.thread.attention.store(true, Ordering::Release);
        let latch = has(f, libc::CLONE_VFORK).then(Arc::<Latch>::default);
        child.vfork.clone_from(&latch);
        kernel.host.spawn(child)?; // a task that is dropped instead leaves the tables by itself
        if let Some(l) = latch {
            l.wait(self);
        }
        Ok(tid)
    }

    fn make_child(&mut self, kernel: &Arc<Kernel>, a: &CloneArgs) -> Result<Task> {
        let f = a.flags;
        let mut cpu = self.cpu.clone();
        cpu.poll = 0;
        cpu.pending = 0;
        let fds = if has(f, libc::CLONE_FILES) { self.fds.clone() } else { Arc::new(self.fds.fork()) };
        let fs = if has(f, libc::CLONE_FS) { self.fs.clone() } else { Arc::new(self.fs.fork()) };
        let mask = self.saved_mask.unwrap_or_else(|| self.thread.mask());
        let comm = self.thread.comm();
        if has(f, libc::CLONE_THREAD) {
            let mut table = lock(&kernel.table);
            if table.closed
                || lock(&self.process.group_exit).is_some()
                || self.process.exec_by.load(Ordering::Acquire) != 0
            {
                return Err(Errno::EAGAIN); // the caller is about to end as well
            }
            let tid = table.new_id()?;
            let thread = Thread::new(tid, Arc::downgrade(&self.process), mask, comm);
            *lock(&thread.sched) = lock(&self.thread.sched).inherit();
            table.enter(&self.process, &thread);
            // Who ended the group between the look above and the entry did not see this thread.
            if lock(&self.process.group_exit).is_some() || self.process.exec_by.load(Ordering::Acquire) != 0 {
                thread.killed.store(true, Ordering::Release);
            }
            return Ok(Task::new(cpu, self.process.clone(), thread, self.mm.clone(), fds, fs));
        }
        let shared = has(f, libc::CLONE_VM);
        let mm = if shared { self.mm.clone() } else { self.mm.fork(self.process.threads().len() == 1)? };
        let p = &self.process;
        let mut image = p.image().ok_or(Errno::EAGAIN)?;
        image.mm = mm.clone();
        let actions = if has(f, libc::CLONE_SIGHAND) {
            p.actions()
        } else {
            let mut table = *lock(&p.actions());
            if f & CLEAR_SIGHAND != 0 {
                for s in table.iter_mut().filter(|s| s.handler != SIG_IGN) {
                    *s = SigAction::default();
                }
            }
            Arc::new(Mutex::new(table))
        };
        let mut rel = lock(&p.rel).clone();
        rel.execed = false;
        let mut exit_signal = a.exit_signal;
        if has(f, libc::CLONE_PARENT) {
            exit_signal = p.exit_signal.load(Ordering::Relaxed);
        } else {
            rel.ppid = p.pid;
        }
        let mut table = lock(&kernel.table);
        if table.closed {
            return Err(Errno::EAGAIN);
        }
        let pid = table.new_id()?;
        let process = Arc::new(new_process(
            kernel,
            NewProcess {
                pid,
                rel,
                image: Some(image),
                comm: comm.clone(),
                cred: p.credentials(),
                rlimits: *lock(&p.rlimits),
                actions,
                exit_signal,
                fs: fs.clone(),
                fds: fds.clone(),
            },
        ));
        process.nice.store(p.nice(), Ordering::Relaxed);
        process.oom_adjust.store(p.oom_adjust(), Ordering::Relaxed);
        process.no_new_privs.store(p.no_new_privs.load(Ordering::Relaxed), Ordering::Relaxed);
        process.dumpable.store(p.dumpable.load(Ordering::Relaxed), Ordering::Relaxed);
        process.personality.store(p.personality.load(Ordering::Relaxed), Ordering::Relaxed);
        let thread = Thread::new(pid, Arc::downgrade(&process), mask, comm);
        *lock(&thread.sched) = lock(&self.thread.sched).inherit();
        table.enter(&process, &thread);
        if shared {
            mm.join();
        }
        drop(table);
        crate::timers::watch_cpu(&process);
        let mut t = Task::new(cpu, process, thread, mm, fds, fs);
        // The alternate stack is inherited, except by a child that shares the memory without vfork.
        if !has(f, libc::CLONE_VM) || has(f, libc::CLONE_VFORK) {
            t.alt_stack = self.alt_stack;
        } else {
            t.alt_stack = frame::AltStack::NONE;
        }
        Ok(t)
    }

    /// execve(2), when the program has been found.
    pub(crate) fn exec(
        &mut self,
        file: Arc<Description>,
        path: Vec<u8>,
        argv: Vec<Vec<u8>>,
        envp: Vec<Vec<u8>>,
    ) -> Result<()> {
        let kernel = self.kernel().clone();
        let cred = self.process.credentials();
        let stack_limit = self.process.rlimit(libc::RLIMIT_STACK as usize).cur;
        let prepared = {
            let this = &*self;
            let open = |path: &[u8]| crate::fs::open_exec(this, libc::AT_FDCWD, path, 0);
            let personality = this.process.personality.load(Ordering::Relaxed);
            let r =
                exec::Request { file, path, argv, envp, stack_limit, personality, cred: &cred, open: &open, who: this };
            exec::prepare(&kernel, r)?
        };
        self.be_alone()?;
        let p = self.process.clone();
        self.release_user_state();
        // Tables that other processes use too are left to them.
        if Arc::strong_count(&self.fds) > 2 {
            let own = Arc::new(self.fds.fork());
            self.set_fds(own);
        }
        if Arc::strong_count(&self.fs) > 2 {
            let own = Arc::new(self.fs.fork());
            self.set_fs(own);
        }
        for d in self.fds.close_on_exec() {
            crate::fs::closed(self, &d);
        }
        let mut actions = *lock(&p.actions());
        for a in &mut actions {
            *a = SigAction { handler: if a.handler == SIG_IGN { SIG_IGN } else { 0 }, ..SigAction::default() };
        }
        *p.actions.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Mutex::new(actions));
        crate::timers::delete_posix(&p);
        self.alt_stack = frame::AltStack::NONE;
        *lock(&p.comm_) = prepared.comm.clone();
        *lock(&self.thread.comm) = prepared.comm;
        lock(&p.rel).execed = true;
        p.exit_signal.store(libc::SIGCHLD, Ordering::Relaxed);
        p.dumpable.store(1, Ordering::Relaxed);
        p.keepcaps.store(false, Ordering::Relaxed);
        self.mm = prepared.image.mm.clone();
        let sp = prepared.image.stack;
        if let Some(old) = p.image.write().unwrap_or_else(PoisonError::into_inner).replace(prepared.image) {
            old.mm.leave();
        }
        let c = &mut self.cpu;
        c.gpr = [0; 16];
        c.gpr[4] = sp;
        c.rip = prepared.entry;
        c.fs_base = 0;
        c.gs_base = 0;
        c.segs = match self.mm.bits {
            32 => [segment::DATA, segment::CODE32, segment::DATA, segment::DATA, 0, 0],
            _ => CpuState::default().segs,
        };
        c.tls = [0; 3];
        c.rflags_sys = 0;
        c.set_rflags(0x202);
        crate::arch::fpstate::init(c);
        self.attach_memory();
        self.keep_rax = true;
        self.flow = crate::kernel::Flow::ExecDone;
        Ok(())
    }

    /// End the other threads of the process and become its leader.
    fn be_alone(&mut self) -> Result<()> {
        let p = self.process.clone();
        if p.exec_by.compare_exchange(0, self.tid(), Ordering::AcqRel, Ordering::Acquire).is_err() {
            return Err(Errno::EAGAIN);
        }
        let others: Vec<_> = p.threads().into_iter().filter(|t| !Arc::ptr_eq(t, &self.thread)).collect();
        for t in &others {
            t.killed.store(true, Ordering::Release);
            crate::signal::send::attend(&*p.kernel.host, t);
        }
        p.events.register(&self.thread.waker);
        while p.threads().len() > 1 && !self.must_die() {
            self.sleep(None);
        }
        p.events.unregister(&self.thread.waker);
        p.exec_by.store(0, Ordering::Release);
        if self.must_die() {
            return Err(Errno::EINTR);
        }
        let tid = self.tid();
        if tid != p.pid {
            let mut table = lock(&p.kernel.table);
            table.threads.remove(&tid);
            self.thread.tid.store(p.pid, Ordering::Release);
            table.threads.insert(p.pid, self.thread.clone());
            drop(table);
            *p.fds.write().unwrap_or_else(PoisonError::into_inner) = self.fds.clone();
            *p.fs.write().unwrap_or_else(PoisonError::into_inner) = self.fs.clone();
        }
        Ok(())
    }
}
