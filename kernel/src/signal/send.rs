//! Sending signals: what is ignored, stop and continue, whom to wake.

use super::{CORES, SIGRTMIN, STOPS, SigAction, SigInfo, SigSet, bit};
use crate::errno::{Errno, Result};
use crate::kernel::Host;
use crate::process::{Life, Process, Thread, lock};
use std::sync::atomic::Ordering;

/// Make a thread look at what it has to do.
pub(crate) fn attend(host: &dyn Host, t: &Thread) {
    t.attention.store(true, Ordering::Release);
    t.waker.wake();
    host.kick(t.tid());
}

/// Wait status of a process that a signal kills. No file is written; the status says whether one would have been, which the limit that
/// processes begin with does not let be.
pub(crate) fn death_status(p: &Process, sig: i32) -> i32 {
    let allowed = p.rlimit(libc::RLIMIT_CORE as usize).cur >= 4096 && p.dumpable.load(Ordering::Relaxed) == 1;
    sig | if allowed && CORES & bit(sig) != 0 { 0x80 } else { 0 }
}

fn queue_limit(p: &Process) -> usize {
    p.rlimit(libc::RLIMIT_SIGPENDING as usize).cur.min(1 << 20) as usize
}

/// What a signal does at once, before it is queued. False if that was all.
fn prepare(p: &Process, info: &SigInfo, blocked: SigSet, action: &SigAction) -> bool {
    let b = bit(info.signo);
    if info.signo == libc::SIGKILL {
        kill_group(p, libc::SIGKILL);
        return false;
    }
    if b & STOPS != 0 {
        discard(p, bit(libc::SIGCONT));
    } else if info.signo == libc::SIGCONT {
        discard(p, STOPS);
        crate::exit::continue_process(p);
    }
    blocked & b != 0 || !action.ignores(info.signo)
}

fn discard(p: &Process, set: SigSet) {
    lock(&p.pending).discard(set);
    for t in p.threads() {
        lock(&t.pending).discard(set);
    }
}

/// End all threads of a process with a wait status (the first one given counts).
pub(crate) fn kill_group(p: &Process, status: i32) {
    lock(&p.group_exit).get_or_insert(status);
    for t in p.threads() {
        t.killed.store(true, Ordering::Release);
        attend(&*p.kernel.host, &t);
    }
    p.events.wake_all();
}

/// Send to a process as a whole: any thread that does not block it takes it.
pub(crate) fn to_process(p: &Process, info: SigInfo) -> Result<()> {
    if info.signo == 0 || matches!(p.status().life, Life::Zombie(_)) {
        return Ok(());
    }
    let threads = p.threads();
    let blocked = threads.first().map_or(0, |t| t.mask());
    let action = p.action(info.signo);
    let waits = |t: &Thread| t.sigwait.load(Ordering::Acquire) & bit(info.signo) != 0;
    let wanted = threads.iter().any(|t| waits(t));
    if !prepare(p, &info, if wanted { u64::MAX } else { blocked }, &action) {
        return Ok(());
    }
    if !lock(&p.pending).push(info, queue_limit(p)) && !kernel_made(&info) {
        return Err(Errno::EAGAIN);
    }
    let free = |t: &&std::sync::Arc<Thread>| t.mask() & bit(info.signo) == 0;
    let target = threads.iter().find(|t| waits(t)).or_else(|| threads.iter().find(free));
    match target {
        Some(t) => attend(&*p.kernel.host, t),
        None => {
            // signalfd readers look at pending signals that are blocked.
            for t in &threads {
                t.waker.wake();
            }
        }
    }
    p.signal_queue.wake_all();
    Ok(())
}

/// Send to one thread.
pub(crate) fn to_thread(t: &Thread, info: SigInfo) -> Result<()> {
    let Some(p) = t.process() else {
        return Err(Errno::ESRCH);
    };
    if info.signo == 0 {
        return Ok(());
    }
    let mut blocked = t.mask();
    if t.sigwait.load(Ordering::Acquire) & bit(info.signo) != 0 {
        blocked = u64::MAX;
    }
    if !prepare(&p, &info, blocked, &p.action(info.signo)) {
        return Ok(());
    }
    if !lock(&t.pending).push(info, queue_limit(&p)) && !kernel_made(&info) {
        return Err(Errno::EAGAIN);
    }
    attend(&*p.kernel.host, t);
    p.signal_queue.wake_all();
    Ok(())
}

/// Whether a full queue loses the information instead of refusing the signal.
fn kernel_made(info: &SigInfo) -> bool {
    info.signo < SIGRTMIN || info.code >= 0
}
