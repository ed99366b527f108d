//! System calls on signals.

use super::Syscall;
use super::time::read_timespec;
use crate::errno::{Errno, Result};
use crate::kernel::Kernel;
use crate::process::{Process, Thread, lock};
use crate::signal::frame::AltStack;
use crate::signal::{
    CORES, IGNORED, NSIG, SIG_DFL, STOPS, SigAction, SigFields, SigInfo, SigSet, UNBLOCKABLE, bit, send,
};
use crate::task::Task;
use crate::wait::Blocking;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 13, name: "rt_sigaction", args: "Sppu", f: rt_sigaction },
    Syscall { nr: 14, name: "rt_sigprocmask", args: "dppu", f: rt_sigprocmask },
    Syscall { nr: 15, name: "rt_sigreturn", args: "", f: rt_sigreturn },
    Syscall { nr: 34, name: "pause", args: "", f: pause },
    Syscall { nr: 62, name: "kill", args: "dS", f: kill },
    Syscall { nr: 127, name: "rt_sigpending", args: "pu", f: rt_sigpending },
    Syscall { nr: 128, name: "rt_sigtimedwait", args: "pppu", f: rt_sigtimedwait },
    Syscall { nr: 129, name: "rt_sigqueueinfo", args: "dSp", f: rt_sigqueueinfo },
    Syscall { nr: 130, name: "rt_sigsuspend", args: "pu", f: rt_sigsuspend },
    Syscall { nr: 131, name: "sigaltstack", args: "pp", f: sigaltstack },
    Syscall { nr: 200, name: "tkill", args: "dS", f: |t, a| tgkill_to(t, None, a[0] as i32, a[1] as i32) },
    Syscall { nr: 234, name: "tgkill", args: "ddS", f: |t, a| tgkill_to(t, Some(a[0] as i32), a[1] as i32, a[2] as i32) },
    Syscall { nr: 297, name: "rt_tgsigqueueinfo", args: "ddSp", f: rt_tgsigqueueinfo },
];

fn check_signal(sig: i32) -> Result<()> {
    if (0..=NSIG as i32).contains(&sig) { Ok(()) } else { Err(Errno::EINVAL) }
}

fn rt_sigaction(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (sig, new, old) = (a[0] as i32, a[1], a[2]);
    if a[3] != 8 || !(1..=NSIG as i32).contains(&sig) {
        return Err(Errno::EINVAL);
    }
    let mem = t.mem();
    let new = if new == 0 {
        None
    } else {
        if bit(sig) & UNBLOCKABLE != 0 {
            return Err(Errno::EINVAL);
        }
        Some(SigAction {
            handler: mem.read(new)?,
            flags: mem.read(new.wrapping_add(8))?,
            restorer: mem.read(new.wrapping_add(16))?,
            mask: mem.read::<u64>(new.wrapping_add(24))? & !UNBLOCKABLE,
        })
    };
    let table = t.process.actions();
    let before = {
        let mut table = lock(&table);
        let slot = table.get_mut((sig - 1) as usize).ok_or(Errno::EINVAL)?;
        let before = *slot;
        if let Some(n) = new {
            *slot = n;
        }
        before
    };
    if let Some(n) = new
        && n.ignores(sig)
    {
        // Ignoring a signal drops those that wait.
        lock(&t.process.pending).discard(bit(sig));
        for th in t.process.threads() {
            lock(&th.pending).discard(bit(sig));
        }
    }
    if old != 0 {
        for (i, v) in [before.handler, before.flags, before.restorer, before.mask].into_iter().enumerate() {
            mem.write(old.wrapping_add(8 * i as u64), v)?;
        }
    }
    Ok(0)
}

fn rt_sigprocmask(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [how, new, old, size, ..] = a;
    if size != 8 {
        return Err(Errno::EINVAL);
    }
    let before = t.thread.mask();
    if new != 0 {
        let set: u64 = t.mem().read(new)?;
        let mask = match how as i32 {
            libc::SIG_BLOCK => before | set,
            libc::SIG_UNBLOCK => before & !set,
            libc::SIG_SETMASK => set,
            _ => return Err(Errno::EINVAL),
        };
        t.set_mask(mask);
    }
    if old != 0 {
        t.mem().write(old, before)?;
    }
    Ok(0)
}

fn rt_sigreturn(t: &mut Task, _a: [u64; 6]) -> Result<u64> {
    t.keep_rax = true;
    t.sigreturn();
    Ok(t.cpu.gpr[0])
}

fn pause(t: &mut Task, _a: [u64; 6]) -> Result<u64> {
    while !t.interrupted() {
        t.sleep(None);
    }
    Err(Errno::EINTR)
}

fn rt_sigsuspend(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[1] != 8 {
        return Err(Errno::EINVAL);
    }
    let mask: u64 = t.mem().read(a[0])?;
    t.replace_mask(mask);
    while !t.interrupted() {
        t.sleep(None);
    }
    Err(Errno::EINTR)
}

fn rt_sigpending(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[1] > 8 {
        return Err(Errno::EINVAL);
    }
    let set = t.pending_set() & t.thread.mask();
    t.mem().copy_in(a[0], &set.to_le_bytes()[..a[1] as usize])?;
    Ok(0)
}

impl Task {
    /// Wait for a signal of the set at `set`, until the time at `timeout` (0: for ever) is over.
    pub(super) fn wait_signal(&mut self, set: u64, timeout: u64, size: u64) -> Result<SigInfo> {
        let t = self;
        if size != 8 {
            return Err(Errno::EINVAL);
        }
        let set: SigSet = t.mem().read::<u64>(set)? & !UNBLOCKABLE;
        let deadline = match timeout {
            0 => None,
            p => Some(t.deadline(read_timespec(t.mem(), p)?)),
        };
        t.thread.sigwait.store(set, Ordering::Release);
        let found = loop {
            if let Some(i) = t.take_signal(set & !t.fatal()) {
                break Ok(i);
            }
            if t.interrupted() {
                break Err(Errno::EINTR);
            }
            if !t.sleep(deadline.and_then(|d| d.host)) {
                if let Some(d) = deadline {
                    t.kernel().clock.reached(d.at);
                }
                break t.take_signal(set & !t.fatal()).ok_or(Errno::EAGAIN);
            }
        };
        t.thread.sigwait.store(0, Ordering::Release);
        found
    }
    /// Signals that end the process when they are sent, whoever waits for them: not blocked, and with that default. What dumps
    /// core is looked at later by Linux, and can be waited for.
    fn fatal(&self) -> SigSet {
        let open = !self.thread.mask() & !(IGNORED | STOPS | CORES);
        let actions = self.process.actions();
        let actions = lock(&actions);
        let dies = |sig: &i32| actions.get((*sig - 1) as usize).is_some_and(|a| a.handler == SIG_DFL);
        (1..=NSIG as i32).filter(|sig| open & bit(*sig) != 0).filter(dies).map(bit).fold(0, |all, b| all | b)
    }
}

fn rt_sigtimedwait(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [set, info, timeout, size, ..] = a;
    let found = t.wait_signal(set, timeout, size)?;
    if info != 0 {
        t.mem().copy_in(info, &found.to_bytes())?;
    }
    Ok(found.signo as u64)
}

fn sigaltstack(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let mem = t.mem();
    let sp = t.cpu.gpr[4];
    let old = t.alt_stack;
    let shown = old.shown_flags(sp);
    if a[0] != 0 {
        let new = AltStack {
            sp: mem.read(a[0])?,
            flags: mem.read(a[0].wrapping_add(8))?,
            size: mem.read(a[0].wrapping_add(16))?,
        };
        t.set_alt_stack(new, sp)?;
    }
    if a[1] != 0 {
        mem.write(a[1], old.sp)?;
        mem.write(a[1].wrapping_add(8), u64::from(shown))?;
        mem.write(a[1].wrapping_add(16), old.size)?;
    }
    Ok(0)
}

/// Whether a process may send signals to another.
fn may_signal(t: &Task, p: &Process, sig: i32) -> bool {
    let (a, b) = (t.process.credentials(), p.credentials());
    a.euid == 0
        || a.euid == b.suid
        || a.euid == b.uid
        || a.uid == b.suid
        || a.uid == b.uid
        || (sig == libc::SIGCONT && t.process.sid() == p.sid())
}

/// What sending a signal to a process that is not the job's gives, if there is one: its user may ask whether it is there.
fn to_outsider(t: &Task, pid: i32, sig: i32) -> Option<Result<u64>> {
    let kernel = t.kernel();
    if kernel.process(pid).is_some() || kernel.thread(pid).is_some() {
        return None;
    }
    let outside = kernel.known(pid)?;
    Some(if sig == 0 && may_signal(t, &outside, sig) { Ok(0) } else { Err(Errno::EPERM) })
}

fn own_info(t: &Task, sig: i32, code: i32) -> SigInfo {
    let fields = SigFields::Kill { pid: t.pid(), uid: t.process.credentials().uid };
    SigInfo { signo: sig, errno: 0, code, fields }
}

fn kill(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (pid, sig) = (a[0] as i32, a[1] as i32);
    let info = own_info(t, sig, libc::SI_USER);
    let kernel = t.kernel().clone();
    let targets: Vec<Arc<Process>> = match pid {
        p if p > 0 => {
            // As on Linux the id of any thread names its process.
            let one = kernel.process(p).or_else(|| kernel.thread(p).and_then(|t| t.process()));
            if let Some(answer) = to_outsider(t, p, sig) {
                return check_signal(sig).and(answer);
            }
            vec![one.ok_or(Errno::ESRCH)?]
        }
        i32::MIN => return Err(Errno::ESRCH),
        -1 => kernel.processes().into_iter().filter(|p| p.pid != t.pid()).collect(),
        p => {
            let group = if p == 0 { t.process.pgid() } else { -p };
            kernel.processes().into_iter().filter(|p| p.pgid() == group).collect()
        }
    };
    if targets.is_empty() {
        return Err(Errno::ESRCH);
    }
    check_signal(sig)?;
    let mut result = Err(Errno::EPERM);
    for p in targets {
        if may_signal(t, &p, sig) {
            let r = p.signal(info);
            if result.is_err() {
                result = r;
            }
        }
    }
    result.map(|()| 0)
}

fn find_thread(kernel: &Kernel, group: Option<i32>, tid: i32) -> Result<(Arc<Thread>, Arc<Process>)> {
    let th = kernel.thread(tid).ok_or(Errno::ESRCH)?;
    let p = th.process().ok_or(Errno::ESRCH)?;
    if group.is_some_and(|g| g != p.pid) { Err(Errno::ESRCH) } else { Ok((th, p)) }
}

fn tgkill_to(t: &mut Task, group: Option<i32>, tid: i32, sig: i32) -> Result<u64> {
    if tid <= 0 || group.is_some_and(|g| g <= 0) {
        return Err(Errno::EINVAL);
    }
    check_signal(sig)?;
    if group.is_none_or(|g| g == tid)
        && let Some(answer) = to_outsider(t, tid, sig)
    {
        return answer;
    }
    let (th, p) = find_thread(t.kernel(), group, tid)?;
    if !may_signal(t, &p, sig) {
        return Err(Errno::EPERM);
    }
    send::to_thread(&th, own_info(t, sig, libc::SI_TKILL))?;
    Ok(0)
}

fn queued_info(t: &Task, sig: i32, addr: u64, target: i32) -> Result<SigInfo> {
    let mut b = [0u8; 128];
    t.mem().copy_out(addr, &mut b)?;
    let info = SigInfo::from_bytes(sig, &b);
    // Only the kernel makes those that look as if they came from it.
    if (info.code >= 0 || info.code == libc::SI_TKILL) && target != t.pid() {
        return Err(Errno::EPERM);
    }
    check_signal(sig)?;
    Ok(info)
}

fn rt_sigqueueinfo(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (pid, sig) = (a[0] as i32, a[1] as i32);
    let info = queued_info(t, sig, a[2], pid)?;
    if let Some(answer) = to_outsider(t, pid, sig) {
        return answer;
    }
    let p = t.kernel().process(pid).ok_or(Errno::ESRCH)?;
    if !may_signal(t, &p, sig) {
        return Err(Errno::EPERM);
    }
    p.signal(info)?;
    Ok(0)
}

fn rt_tgsigqueueinfo(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (group, tid, sig) = (a[0] as i32, a[1] as i32, a[2] as i32);
    if tid <= 0 || group <= 0 {
        return Err(Errno::EINVAL);
    }
    let info = queued_info(t, sig, a[3], group)?;
    if group == tid
        && let Some(answer) = to_outsider(t, tid, sig)
    {
        return answer;
    }
    let (th, p) = find_thread(t.kernel(), Some(group), tid)?;
    if !may_signal(t, &p, sig) {
        return Err(Errno::EPERM);
    }
    send::to_thread(&th, info)?;
    Ok(0)
}
