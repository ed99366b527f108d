//! The end of threads and processes, stop and continue, and what parents learn of it.

use crate::errno::{Errno, Result};
use crate::io::FdTable;
use crate::kernel::{EndReason, Flow, Kernel, Table};
use crate::process::{Life, Process, Usage, lock};
use crate::signal::{SIG_IGN, SigFields, SigInfo};
use crate::task::Task;
use crate::wait::{Blocking, WaitQueue};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// Process id that orphans get as their parent. No process of the job has it; its children are reaped at once.
pub(crate) const INIT: i32 = 1;
/// The id that a job's first process sees as its parent: whoever started it, outside of the job. Not [`INIT`], since some
/// programs take a parent of 1 to mean that they are daemons.
pub(crate) const LAUNCHER: i32 = 2;

/// Something that happens once and that a thread waits for (vfork).
#[derive(Default)]
pub(crate) struct Latch {
    done: AtomicBool,
    queue: WaitQueue,
}

impl Latch {
    pub fn release(&self) {
        self.done.store(true, Ordering::Release);
        self.queue.wake_all();
    }
    /// Wait for it; also ends when the thread must die.
    pub fn wait(&self, t: &Task) {
        self.queue.register(t.waker());
        while !self.done.load(Ordering::Acquire) && !t.must_die() {
            t.sleep(None);
        }
        self.queue.unregister(t.waker());
    }
}

impl Task {
    /// exit_group(2).
    pub(crate) fn exit_group(&mut self, status: i32) -> Flow {
        crate::signal::send::kill_group(&self.process, status);
        let status = lock(&self.process.group_exit).unwrap_or(status);
        self.exit_thread(status)
    }

    /// Let go of the old address space or of the thread: robust futexes, the cleared thread id, the vfork parent.
    pub(crate) fn release_user_state(&mut self) {
        if self.robust_list != 0 {
            crate::futex::exit_robust(self);
            self.robust_list = 0;
        }
        if self.clear_child_tid != 0 {
            let at = std::mem::take(&mut self.clear_child_tid);
            if self.mem().write(at, 0u32).is_ok() {
                let _ = crate::futex::wake(self, at, false, 1, u32::MAX);
            }
        }
        if let Some(l) = self.vfork.take() {
            l.release();
        }
    }

    /// End this thread; the last one ends the process with `status`.
    pub(crate) fn exit_thread(&mut self, status: i32) -> Flow {
        self.flow = Flow::Exit;
        if self.gone {
            return Flow::Exit;
        }
        self.gone = true;
        self.release_user_state();
        let p = self.process.clone();
        let kernel = p.kernel.clone();
        let time = self.settle_cpu_time();
        let last = {
            let mut table = lock(&kernel.table);
            table.threads.remove(&self.tid());
            let mut threads = lock(&p.threads);
            threads.retain(|t| !Arc::ptr_eq(t, &self.thread));
            lock(&p.usage).0.utime += time;
            // With the list: who sees that the thread is gone may start one in its place.
            kernel.limits.procs.release(1);
            threads.is_empty()
        };
        // Closed before anyone learns of the end; record locks go with the process.
        if last {
            self.fs.ns().locks.release_process(p.pid);
            kernel.io.ipc.sem.end(p.pid);
        }
        drop(std::mem::replace(&mut self.fds, Arc::new(FdTable::new(0))));
        if last {
            let status = lock(&p.group_exit).unwrap_or(status);
            end_process(&p, status);
        }
        p.events.wake_all();
        if lock(&kernel.table).threads.is_empty() {
            kernel.ended.notify_all();
        }
        Flow::Exit
    }
}

/// The last thread of a process is gone.
fn end_process(p: &Arc<Process>, status: i32) {
    let kernel = &p.kernel;
    let old = std::mem::replace(&mut *p.fds.write().unwrap_or_else(PoisonError::into_inner), Arc::new(FdTable::new(0)));
    drop(old);
    {
        let resident = p.image.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, |i| i.mm.resident());
        let mut u = lock(&p.usage);
        u.0.maxrss = u.0.maxrss.max(resident >> 12);
    }
    if let Some(i) = p.image.write().unwrap_or_else(PoisonError::into_inner).take() {
        i.mm.leave();
    }
    crate::timers::delete_all(p);
    if p.sid() == p.pid {
        crate::io::tty::leader_gone(kernel, p.pid);
    }
    let mut hang_up = Vec::new();
    let mut deaths = Vec::new();
    {
        let mut table = lock(&kernel.table);
        let heir = heir(&table, p);
        let children: Vec<Arc<Process>> = table.procs.values().filter(|c| c.ppid() == p.pid).cloned().collect();
        for c in children {
            lock(&c.rel).ppid = heir;
            let s = c.pdeath_signal.load(Ordering::Relaxed);
            if s != 0 {
                deaths.push((c.clone(), s));
            }
            if matches!(c.status().life, Life::Zombie(_)) && heir == INIT {
                let (own, children) = c.usage();
                *lock(&kernel.lost_time) += own.utime + children.utime;
                table.procs.remove(&c.pid);
            }
            if table.orphaned(c.pgid()) {
                hang_up.push(c.pgid());
            }
        }
        lock(&p.status).life = Life::Zombie(status);
        if table.orphaned(p.pgid()) {
            hang_up.push(p.pgid());
        }
    }
    for (c, s) in deaths {
        let _ = c.signal(SigInfo::user(s, p.pid, 0));
    }
    hang_up.sort_unstable();
    hang_up.dedup();
    for g in hang_up {
        let members: Vec<_> = kernel.processes().into_iter().filter(|q| q.pgid() == g).collect();
        if members.iter().any(|q| matches!(q.status().life, Life::Stopped(_))) {
            for q in members {
                let _ = q.signal(SigInfo::kernel(libc::SIGHUP));
                let _ = q.signal(SigInfo::kernel(libc::SIGCONT));
            }
        }
    }
    if p.pid == kernel.first_pid.load(Ordering::Relaxed) {
        let mut end = lock(&kernel.end);
        if end.is_none() {
            *end = Some(if status & 0x7f == 0 {
                EndReason::Exit(status >> 8 & 0xff)
            } else {
                EndReason::Signal(status & 0x7f)
            });
        }
        drop(end);
        if kernel.config.kill_orphans {
            kernel.kill_job(EndReason::Exit(0)); // the reason stays the first one
        }
    }
    report_exit(p, status);
}

/// Who inherits the children of a process: the nearest ancestor that asked for it, or init.
fn heir(table: &Table, p: &Process) -> i32 {
    let mut at = p.ppid();
    while let Some(a) = table.procs.get(&at) {
        if a.subreaper.load(Ordering::Relaxed) && !matches!(a.status().life, Life::Zombie(_)) {
            return at;
        }
        at = a.ppid();
    }
    INIT
}

/// Tell the parent that a child ended; without a parent that cares the child is gone at once.
fn report_exit(p: &Arc<Process>, status: i32) {
    let kernel = &p.kernel;
    let parent = kernel.process(p.ppid());
    let signal = p.exit_signal.load(Ordering::Relaxed);
    let Some(parent) = parent else {
        let (own, children) = p.usage();
        *lock(&kernel.lost_time) += own.utime + children.utime;
        lock(&kernel.table).procs.remove(&p.pid);
        return;
    };
    let action = parent.action(libc::SIGCHLD);
    let unwanted =
        signal == libc::SIGCHLD && (action.handler == SIG_IGN || action.flags & libc::SA_NOCLDWAIT as u64 != 0);
    if unwanted {
        reap(&parent, p);
    }
    if signal != 0 && !(unwanted && action.handler == SIG_IGN) {
        let (code, value) = match status & 0x7f {
            0 => (libc::CLD_EXITED, status >> 8 & 0xff),
            s if status & 0x80 != 0 => (libc::CLD_DUMPED, s),
            s => (libc::CLD_KILLED, s),
        };
        let _ = parent.signal(child_info(p, signal, code, value));
    }
    parent.events.wake_all();
}

fn child_info(p: &Process, signo: i32, code: i32, status: i32) -> SigInfo {
    let (own, _) = p.usage();
    let ticks = |d: std::time::Duration| (d.as_millis() / 10) as i64;
    SigInfo {
        signo,
        errno: 0,
        code,
        fields: SigFields::Child {
            pid: p.pid,
            uid: p.credentials().uid,
            status,
            utime: ticks(own.utime),
            stime: ticks(own.stime),
        },
    }
}

/// Take a zombie out of the table; its use goes to the parent.
fn reap(parent: &Process, child: &Process) {
    let (own, children) = *lock(&child.usage);
    {
        let mut u = lock(&parent.usage);
        u.1.add(&own);
        u.1.add(&children);
    }
    lock(&child.kernel.table).procs.remove(&child.pid);
}

/// Stop a process because of a signal.
pub(crate) fn stop_process(p: &Process, sig: i32) {
    {
        let mut s = lock(&p.status);
        if s.life != Life::Running || lock(&p.group_exit).is_some() {
            return;
        }
        s.life = Life::Stopped(sig);
        s.stop_unseen = true;
        s.cont_unseen = false;
    }
    for t in p.threads() {
        crate::signal::send::attend(&*p.kernel.host, &t);
    }
    report_change(p, libc::CLD_STOPPED, sig);
}

/// Continue a stopped process (SIGCONT).
pub(crate) fn continue_process(p: &Process) {
    {
        let mut s = lock(&p.status);
        if !matches!(s.life, Life::Stopped(_)) {
            return;
        }
        s.life = Life::Running;
        s.stop_unseen = false;
        s.cont_unseen = true;
    }
    p.events.wake_all();
    report_change(p, libc::CLD_CONTINUED, libc::SIGCONT);
}

fn report_change(p: &Process, code: i32, value: i32) {
    let Some(parent) = p.kernel.process(p.ppid()) else {
        return;
    };
    if parent.action(libc::SIGCHLD).flags & libc::SA_NOCLDSTOP as u64 == 0 {
        let _ = parent.signal(child_info(p, libc::SIGCHLD, code, value));
    }
    parent.events.wake_all();
}

impl Table {
    /// Whether a process group has no member whose parent is in the same session but another group.
    pub(crate) fn orphaned(&self, pgid: i32) -> bool {
        !self.procs.values().any(|p| {
            let r = lock(&p.rel).clone();
            r.pgid == pgid
                && !matches!(p.status().life, Life::Zombie(_))
                && self.procs.get(&r.ppid).is_some_and(|q| {
                    let q = lock(&q.rel);
                    q.sid == r.sid && q.pgid != pgid
                })
        })
    }
}

impl Kernel {
    /// Whether a process group is orphaned (it cannot be stopped from the terminal).
    pub fn is_orphaned(&self, pgid: i32) -> bool {
        lock(&self.table).orphaned(pgid)
    }
}

/// Which children wait(2) is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    Any,
    Pid(i32),
    Group(i32),
}

/// What wait(2) found.
pub(crate) struct Found {
    pub pid: i32,
    pub uid: u32,
    /// CLD_*.
    pub code: i32,
    /// Wait status.
    pub status: i32,
    pub usage: Usage,
}

/// Look for a child with news; `Ok(None)` if there are children, but no news.
fn look(p: &Process, which: Which, options: i32) -> Result<Option<Found>> {
    const WCLONE: i32 = i32::MIN; // __WCLONE
    const WALL: i32 = 0x4000_0000;
    let mut any = false;
    let children: Vec<Arc<Process>> =
        lock(&p.kernel.table).procs.values().filter(|c| c.ppid() == p.pid).cloned().collect();
    for c in children {
        let matches = match which {
            Which::Any => true,
            Which::Pid(n) => c.pid == n,
            Which::Group(g) => c.pgid() == g,
        };
        let clone = c.exit_signal.load(Ordering::Relaxed) != libc::SIGCHLD;
        if !matches || (options & WALL == 0 && clone != (options & WCLONE != 0)) {
            continue;
        }
        any = true;
        let mut s = lock(&c.status);
        let keep = options & libc::WNOWAIT != 0;
        let found = match s.life {
            Life::Zombie(st) if options & libc::WEXITED != 0 => {
                let code = match st & 0x7f {
                    0 => libc::CLD_EXITED,
                    _ if st & 0x80 != 0 => libc::CLD_DUMPED,
                    _ => libc::CLD_KILLED,
                };
                Some((code, st))
            }
            Life::Stopped(sig) if s.stop_unseen && options & libc::WSTOPPED != 0 => {
                s.stop_unseen = keep;
                Some((libc::CLD_STOPPED, sig << 8 | 0x7f))
            }
            Life::Running if s.cont_unseen && options & libc::WCONTINUED != 0 => {
                s.cont_unseen = keep;
                Some((libc::CLD_CONTINUED, 0xffff))
            }
            _ => None,
        };
        drop(s);
        if let Some((code, status)) = found {
            let (mut usage, children) = c.usage();
            usage.add(&children);
            let uid = c.credentials().uid;
            if matches!(code, libc::CLD_EXITED | libc::CLD_KILLED | libc::CLD_DUMPED) && !keep {
                if !lock(&p.kernel.table).procs.contains_key(&c.pid) {
                    continue; // another thread was faster
                }
                reap(p, &c);
            }
            return Ok(Some(Found { pid: c.pid, uid, code, status, usage }));
        }
    }
    if any { Ok(None) } else { Err(Errno::ECHILD) }
}

/// wait4(2), waitid(2): wait for news of a child. `Ok(None)` with WNOHANG and no news.
pub(crate) fn wait_child(t: &Task, which: Which, options: i32) -> Result<Option<Found>> {
    if options & libc::WNOHANG != 0 {
        return look(&t.process, which, options);
    }
    t.thread.asleep.store(true, Ordering::Relaxed);
    let r = t.process.events.wait(t, None, || match look(&t.process, which, options) {
        Ok(None) => None,
        other => Some(other),
    });
    t.thread.asleep.store(false, Ordering::Relaxed);
    r?
}
