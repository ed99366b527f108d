//! What every terminal has in common: the session it controls and the foreground process group. Both are those of the
//! job; the host's are never touched.

use super::pty::Slave;
use super::stdio::HostStream;
use crate::errno::{Errno, Result};
use crate::file::{Description, File};
use crate::kernel::Kernel;
use crate::process::Process;
use crate::signal::SigInfo;
use crate::task::Task;
use linux_raw_sys::ioctl as c;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

/// The requests that change a terminal.
const CHANGES: [u32; 14] = [
    c::TIOCSPGRP,
    c::TCSETS,
    c::TCSETSW,
    c::TCSETSF,
    c::TCSETS2,
    c::TCSETSW2,
    c::TCSETSF2,
    c::TCSETA,
    c::TCSETAW,
    c::TCSETAF,
    c::TCSBRK,
    c::TCSBRKP,
    c::TCXONC,
    c::TCFLSH,
];

/// Session and foreground group of a terminal; 0 = none.
#[derive(Debug, Default)]
pub struct Control {
    sid: AtomicI32,
    pgrp: AtomicI32,
}

impl Control {
    /// The foreground process group.
    pub fn foreground(&self) -> i32 {
        self.pgrp.load(Ordering::Relaxed)
    }
    /// The session.
    pub fn session(&self) -> i32 {
        self.sid.load(Ordering::Relaxed)
    }
    /// Make it the controlling terminal of a session.
    pub fn attach(&self, sid: i32, pgrp: i32) {
        self.sid.store(sid, Ordering::Relaxed);
        self.pgrp.store(pgrp, Ordering::Relaxed);
    }
    /// A signal of the terminal's for the foreground group (SIGINT, SIGQUIT, SIGTSTP, SIGWINCH, SIGHUP).
    pub fn signal(&self, kernel: &Kernel, sig: i32) {
        let pgrp = self.foreground();
        if pgrp > 0 {
            let _ = kernel.signal_group(pgrp, SigInfo::kernel(sig));
        }
    }
    /// The ioctls of job control; `None` if `cmd` is none of them.
    pub fn ioctl(&self, task: &Task, cmd: u32, arg: u64) -> Option<Result<u64>> {
        let p = &task.process;
        let own = self.session() == p.sid();
        if CHANGES.contains(&cmd)
            && let Err(e) = self.check_change(task)
        {
            return Some(Err(e));
        }
        Some(match cmd {
            c::TIOCGPGRP if !own => Err(Errno::ENOTTY),
            c::TIOCGPGRP => task.mem().write(arg, self.foreground()).map(|()| 0).map_err(Errno::from),
            c::TIOCGSID if !own => Err(Errno::ENOTTY),
            c::TIOCGSID => task.mem().write(arg, self.session()).map(|()| 0).map_err(Errno::from),
            c::TIOCSPGRP => self.set_foreground(task, arg, own),
            c::TIOCSCTTY if own => Ok(0),
            c::TIOCSCTTY if p.sid() != p.pid || self.session() != 0 => Err(Errno::EPERM),
            c::TIOCSCTTY => {
                self.attach(p.sid(), p.pgid());
                Ok(0)
            }
            c::TIOCNOTTY if !own => Err(Errno::ENOTTY),
            c::TIOCNOTTY => {
                if p.sid() == p.pid {
                    self.signal(task.kernel(), libc::SIGHUP);
                    self.signal(task.kernel(), libc::SIGCONT);
                    self.attach(0, 0);
                }
                Ok(0)
            }
            _ => return None,
        })
    }
    fn set_foreground(&self, task: &Task, arg: u64, own: bool) -> Result<u64> {
        if !own {
            return Err(Errno::ENOTTY);
        }
        let pgrp = task.mem().read::<i32>(arg)?;
        if pgrp < 0 {
            return Err(Errno::EINVAL);
        }
        let mut members = task.kernel().processes().into_iter().filter(|p| p.pgid() == pgrp).peekable();
        if members.peek().is_none() {
            return Err(Errno::ESRCH);
        }
        if !members.any(|p| p.sid() == task.process.sid()) {
            return Err(Errno::EPERM);
        }
        self.pgrp.store(pgrp, Ordering::Relaxed);
        Ok(0)
    }
    /// Whether a process in the background may not change the terminal: it gets SIGTTOU, unless it blocks or ignores that.
    fn check_change(&self, task: &Task) -> Result<()> {
        let (p, fg) = (&task.process, self.foreground());
        let blocked = task.thread.mask() & crate::signal::bit(libc::SIGTTOU) != 0;
        if fg == 0
            || self.session() != p.sid()
            || p.pgid() == fg
            || blocked
            || p.action(libc::SIGTTOU).handler == crate::signal::SIG_IGN
        {
            return Ok(());
        }
        task.kernel().signal_group(p.pgid(), SigInfo::kernel(libc::SIGTTOU))?;
        Err(Errno::EINTR)
    }
    /// Whether a process in the background may not read (it gets SIGTTIN and this EINTR, or EIO if it ignores that).
    pub fn check_read(&self, task: &Task) -> Result<()> {
        let (p, fg) = (&task.process, self.foreground());
        if fg == 0 || self.session() != p.sid() || p.pgid() == fg {
            return Ok(());
        }
        let blocked = task.thread.mask() & crate::signal::bit(libc::SIGTTIN) != 0;
        if blocked || p.action(libc::SIGTTIN).handler == crate::signal::SIG_IGN {
            return Err(Errno::EIO);
        }
        task.kernel().signal_group(p.pgid(), SigInfo::kernel(libc::SIGTTIN))?;
        Err(Errno::EINTR)
    }
}

/// The terminal that a file is, if it is one.
pub fn control(file: &dyn File) -> Option<&Arc<Control>> {
    // A slave that was found by its name is an opened file around the terminal.
    let f = crate::fs::Opened::of_file(file).map_or(file.as_any(), |o| o.inner().as_any());
    if let Some(h) = f.downcast_ref::<HostStream>() {
        return h.control();
    }
    if let Some(s) = f.downcast_ref::<Slave>() {
        return Some(s.pty().control());
    }
    None
}

/// The controlling terminal of a process's session.
pub fn of_session(kernel: &Kernel, p: &Arc<Process>) -> Option<Arc<dyn File>> {
    let sid = p.sid();
    if let Some(pty) = kernel.io.ptys.of_session(sid) {
        return pty.open_slave(false).ok().map(|s| s as Arc<dyn File>);
    }
    // The embedder's terminal: a standard stream of the process or of one of its ancestors.
    let mut at = Some(p.clone());
    for _ in 0..64 {
        let p = at?;
        let mine = |d: &Description| control(&*d.file).is_some_and(|c| c.session() == sid);
        if let Some((_, e)) = p.fds().list().into_iter().find(|(_, e)| mine(&e.desc)) {
            return Some(e.desc.file.clone());
        }
        at = kernel.process(p.ppid());
    }
    None
}

/// A terminal was opened without O_NOCTTY: a session leader that has none yet gets it.
pub fn opened(task: &Task, d: &Description) {
    let p = &task.process;
    if let Some(c) = control(&*d.file)
        && p.sid() == p.pid
        && c.session() == 0
        && of_session(task.kernel(), p).is_none()
    {
        c.attach(p.sid(), p.pgid());
    }
}

/// A session leader ended: its terminal hangs up for the foreground group and is free again.
pub(crate) fn leader_gone(kernel: &Kernel, sid: i32) {
    if let Some(pty) = kernel.io.ptys.of_session(sid) {
        let c = pty.control();
        c.signal(kernel, libc::SIGHUP);
        c.signal(kernel, libc::SIGCONT);
        c.attach(0, 0);
    }
}
