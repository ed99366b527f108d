//! Streams of the host's as standard input and output.
//!
//! A guest that waits for a host stream sleeps on the stream's queue like on any other, so signals and the end of the
//! job interrupt it. When somebody finds the stream not ready, it arms a watcher thread, which polls the host's
//! descriptor once and wakes the queue. The stream itself is never read or written in a way that blocks: pipes and
//! terminals are reopened with O_NONBLOCK (which leaves the host's own description as it is); where that fails, transfers
//! are preceded by a poll and kept small.

use super::stdio::Charge;
use super::tty::Control;
use super::{anon_stat, host, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use linux_raw_sys::ioctl as c;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use std::any::Any;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A file with positions.
    Regular,
    /// A device that never blocks, as /dev/null.
    Device,
    Tty,
    Pipe,
    Socket,
}

/// What the watcher thread shares with the stream.
struct Watched {
    fd: OwnedFd,
    queue: WaitQueue,
    watch: Mutex<Watch>,
    /// Tells the watcher to look at `watch` again.
    bell: OwnedFd,
}

#[derive(Default)]
struct Watch {
    wanted: PollFlagsDefault,
    started: bool,
    quit: bool,
}

#[derive(Clone, Copy)]
struct PollFlagsDefault(PollFlags);
impl Default for PollFlagsDefault {
    fn default() -> Self {
        PollFlagsDefault(PollFlags::empty())
    }
}

impl Watched {
    fn run(&self) {
        loop {
            let wanted = {
                let w = lock(&self.watch);
                if w.quit {
                    return;
                }
                w.wanted.0
            };
            let mut fds = [PollFd::new(&self.bell, PollFlags::IN), PollFd::new(&self.fd, wanted)];
            let n = if wanted.is_empty() { 1 } else { 2 };
            if rustix::event::poll(&mut fds[..n], None).is_err() {
                continue; // EINTR
            }
            if !fds[0].revents().is_empty() {
                let _ = rustix::io::read(&self.bell, &mut [0u8; 8]);
            }
            if n == 2 && !fds[1].revents().is_empty() {
                lock(&self.watch).wanted.0 = PollFlags::empty();
                self.queue.wake_all();
            }
        }
    }
    fn ring(&self) {
        let _ = rustix::io::write(&self.bell, &1u64.to_le_bytes());
    }
    /// Wake the queue when one of `flags` comes.
    fn arm(self: &Arc<Self>, flags: PollFlags) {
        let mut w = lock(&self.watch);
        if w.wanted.0.contains(flags) {
            return;
        }
        w.wanted.0 |= flags;
        if !w.started {
            let me = self.clone();
            w.started =
                std::thread::Builder::new().name("stdio".into()).stack_size(64 * 1024).spawn(move || me.run()).is_ok();
        }
        drop(w);
        self.ring();
    }
    fn poll(&self) -> Ready {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN | PollFlags::OUT | PollFlags::PRI)];
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(_) => Ready::from_bits_truncate(u32::from(fds[0].revents().bits())).with_norm(),
            Err(_) => Ready::empty(),
        }
    }
}

/// A file of the host's as standard input or output.
pub struct HostStream {
    watched: Arc<Watched>,
    kind: Kind,
    /// The descriptor does not block.
    nonblocking: bool,
    charge: Option<Charge>,
    terminal: Option<Arc<Terminal>>,
    ino: u64,
    /// Regular: offset that the host's description has.
    offset: AtomicU64,
}

/// The host's terminal: job control of the guest, and the settings to restore at the end.
#[derive(Debug)]
pub struct Terminal {
    control: Arc<Control>,
    fd: OwnedFd,
    /// termios before the guest changed it.
    saved: Mutex<Option<[u8; 36]>>,
}

impl Terminal {
    /// Session and foreground group.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }
    /// Give the host's terminal the settings it had before the guest changed them.
    pub fn restore(&self) {
        if let Some(mut t) = lock(&self.saved).take() {
            let _ = host::tty_ioctl(self.fd.as_fd(), c::TCSETSW, &mut t);
        }
    }
    fn save(&self) {
        let mut saved = lock(&self.saved);
        if saved.is_none() {
            let mut t = [0; 36];
            if host::tty_ioctl(self.fd.as_fd(), c::TCGETS, &mut t).is_ok() {
                *saved = Some(t);
            }
        }
    }
    fn ioctl(&self, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        if let Some((n, out)) = host::tty_arg(cmd) {
            let mut buf = [0u8; 64];
            let buf = &mut buf[..n];
            if !out {
                mem.copy_out(arg, buf)?;
                if cmd != c::TIOCSWINSZ {
                    self.save();
                }
            }
            host::tty_ioctl(self.fd.as_fd(), cmd, buf)?;
            if out {
                mem.copy_in(arg, buf)?;
            }
            return Ok(0);
        }
        match cmd {
            c::TCSBRK | c::TCSBRKP | c::TCXONC | c::TCFLSH => host::tty_control(self.fd.as_fd(), cmd, arg).map(|()| 0),
            c::TIOCGETD => Ok(mem.write(arg, 0u32).map(|()| 0)?),
            // Would type into the user's shell, take the console or the terminal away from others.
            c::TIOCSTI | c::TIOCLINUX | c::TIOCCONS | c::TIOCEXCL | c::TIOCSETD | c::TIOCVHANGUP => Err(Errno::EPERM),
            _ => Err(Errno::ENOTTY),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.restore();
    }
}

/// Numbers for host files, in the order in which they come, the same for the same file.
fn virtual_ino(dev: u64, ino: u64) -> u64 {
    static SEEN: Mutex<Vec<(u64, u64, u64)>> = Mutex::new(Vec::new());
    let mut seen = lock(&SEEN);
    match seen.iter().find(|x| (x.0, x.1) == (dev, ino)) {
        Some(x) => x.2,
        None => {
            let v = new_ino();
            seen.push((dev, ino, v));
            v
        }
    }
}

impl HostStream {
    /// A stream over a host descriptor (duplicated); `charge` is asked before each write.
    pub fn new(fd: BorrowedFd<'_>, charge: Option<Charge>) -> Result<HostStream> {
        Self::with_terminal(fd, charge, None)
    }
    /// The same; a descriptor of the terminal that another stream of the job has already shares its state.
    pub fn with_terminal(
        fd: BorrowedFd<'_>,
        charge: Option<Charge>,
        terminal: Option<&Arc<Terminal>>,
    ) -> Result<HostStream> {
        let st = rustix::fs::fstat(fd)?;
        let tty = rustix::termios::isatty(fd);
        let kind = match st.st_mode & libc::S_IFMT {
            libc::S_IFREG => Kind::Regular,
            libc::S_IFCHR if tty => Kind::Tty,
            libc::S_IFIFO => Kind::Pipe,
            libc::S_IFSOCK => Kind::Socket,
            _ => Kind::Device,
        };
        let access = rustix::fs::fcntl_getfl(fd)? & OFlags::RWMODE;
        let reopened = match kind {
            Kind::Tty | Kind::Pipe => {
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                rustix::fs::open(path, flags, Mode::empty()).ok()
            }
            _ => None,
        };
        let nonblocking = reopened.is_some();
        let own = match reopened {
            Some(fd) => fd,
            None => rustix::io::fcntl_dupfd_cloexec(fd, 3)?,
        };
        let offset = if kind == Kind::Regular { rustix::fs::tell(fd)? } else { 0 };
        let terminal = match terminal {
            _ if kind != Kind::Tty => None,
            Some(t) => Some(t.clone()),
            None => Some(Arc::new(Terminal {
                control: Arc::default(),
                fd: rustix::io::fcntl_dupfd_cloexec(fd, 3)?,
                saved: Mutex::default(),
            })),
        };
        let bell = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?;
        Ok(HostStream {
            watched: Arc::new(Watched { fd: own, queue: WaitQueue::default(), watch: Mutex::default(), bell }),
            kind,
            nonblocking,
            charge,
            terminal,
            ino: virtual_ino(st.st_dev, st.st_ino),
            offset: AtomicU64::new(offset),
        })
    }
    /// As an open file description with the access mode and position of the host's.
    pub fn describe(self) -> Result<Arc<Description>> {
        let host = rustix::fs::fcntl_getfl(&self.watched.fd)?;
        let flags = host & (OFlags::RWMODE | OFlags::APPEND);
        let name = match self.kind {
            Kind::Tty => "/dev/tty".to_string(),
            Kind::Device => "/dev/null".to_string(),
            Kind::Socket => format!("socket:[{}]", self.ino),
            Kind::Regular | Kind::Pipe => format!("pipe:[{}]", self.ino),
        };
        let pos = self.offset.load(Ordering::Relaxed);
        let d = Description::new(Arc::new(self), flags.bits(), name);
        *lock(&d.pos) = pos;
        Ok(d)
    }
    /// The terminal, if it is one.
    pub fn terminal(&self) -> Option<&Arc<Terminal>> {
        self.terminal.as_ref()
    }
    pub(crate) fn control(&self) -> Option<&Arc<Control>> {
        self.terminal.as_ref().map(|t| &t.control)
    }
    fn fd(&self) -> BorrowedFd<'_> {
        self.watched.fd.as_fd()
    }
    /// One transfer without waiting; `None` if nothing can be moved now (the watcher is armed then).
    fn attempt(&self, flag: PollFlags, op: &mut dyn FnMut() -> Result<usize>) -> Option<Result<usize>> {
        if !self.nonblocking && self.kind != Kind::Socket && !self.ready(flag) {
            self.watched.arm(flag);
            return None;
        }
        match op() {
            Err(Errno::EAGAIN) => {
                self.watched.arm(flag);
                None
            }
            r => Some(r),
        }
    }
    fn ready(&self, flag: PollFlags) -> bool {
        let r = self.watched.poll();
        r.intersects(Ready::from_bits_truncate(u32::from(flag.bits())) | Ready::HUP | Ready::ERR)
    }
    /// The host's offset follows the guest's, for what shares the description on the host.
    fn seek_host(&self, pos: u64) -> Result<()> {
        if self.kind == Kind::Regular && self.offset.load(Ordering::Relaxed) != pos {
            rustix::fs::seek(self.fd(), rustix::fs::SeekFrom::Start(pos))?;
            self.offset.store(pos, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for HostStream {
    fn drop(&mut self) {
        lock(&self.watched.watch).quit = true;
        self.watched.ring();
    }
}

impl File for HostStream {
    fn read(&self, who: &dyn Blocking, pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        if matches!(self.kind, Kind::Regular | Kind::Device) {
            self.seek_host(pos)?;
            let n = rustix::io::read(self.fd(), buf)?;
            self.offset.fetch_add(n as u64, Ordering::Relaxed);
            return Ok(n);
        }
        let mut op = || match self.kind {
            Kind::Socket => host::recv(self.fd(), buf),
            _ => rustix::io::read(self.fd(), &mut *buf).map_err(Errno::from),
        };
        let mut go = || self.attempt(PollFlags::IN, &mut op);
        if nonblock { go().unwrap_or(Err(Errno::EAGAIN)) } else { self.watched.queue.wait(who, None, go)? }
    }
    fn write(&self, who: &dyn Blocking, pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        if let Some(c) = &self.charge
            && !c(buf.len() as u64)
        {
            return Err(Errno::ENOSPC);
        }
        if matches!(self.kind, Kind::Regular | Kind::Device) {
            if pos != u64::MAX {
                self.seek_host(pos)?;
            }
            let n = rustix::io::write(self.fd(), buf)?;
            if pos != u64::MAX {
                self.offset.fetch_add(n as u64, Ordering::Relaxed);
            }
            return Ok(n);
        }
        let mut done = 0;
        while done < buf.len() {
            let left = &buf[done..];
            // A host pipe that is ready has room for a page.
            let left = if self.nonblocking { left } else { &left[..left.len().min(4096)] };
            let mut op = || match self.kind {
                Kind::Socket => host::send(self.fd(), left),
                _ => rustix::io::write(self.fd(), left).map_err(Errno::from),
            };
            let mut go = || self.attempt(PollFlags::OUT, &mut op);
            let r = match go() {
                Some(r) => r,
                None if nonblock => Err(Errno::EAGAIN),
                None => self.watched.queue.wait(who, None, go).and_then(|r| r),
            };
            match r {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn seekable(&self) -> bool {
        matches!(self.kind, Kind::Regular | Kind::Device)
    }
    fn stat(&self) -> Result<Stat> {
        let st = rustix::fs::fstat(self.fd())?;
        let mut s = anon_stat(st.st_mode, self.ino);
        match self.kind {
            Kind::Regular => {
                s.mode = libc::S_IFREG | 0o666;
                s.size = st.st_size as u64;
                s.blocks = st.st_blocks as u64;
                s.mtime = (st.st_mtime, st.st_mtime_nsec as u32);
                (s.atime, s.ctime) = (s.mtime, s.mtime);
            }
            Kind::Tty => {
                s.mode = libc::S_IFCHR | 0o666;
                s.rdev = libc::makedev(136, 0);
            }
            Kind::Device => s.rdev = st.st_rdev,
            Kind::Pipe => s.mode = libc::S_IFIFO | 0o666,
            Kind::Socket => s.mode = libc::S_IFSOCK | 0o777,
        }
        Ok(s)
    }
    fn truncate(&self, len: u64) -> Result<()> {
        if self.kind != Kind::Regular {
            return Err(Errno::EINVAL);
        }
        Ok(rustix::fs::ftruncate(self.fd(), len)?)
    }
    fn sync(&self, data: bool) -> Result<()> {
        match self.kind {
            Kind::Regular if data => Ok(rustix::fs::fdatasync(self.fd())?),
            Kind::Regular => Ok(rustix::fs::fsync(self.fd())?),
            _ => Err(Errno::EINVAL),
        }
    }
    fn poll(&self) -> Ready {
        if matches!(self.kind, Kind::Regular | Kind::Device) {
            return (Ready::IN | Ready::OUT).with_norm();
        }
        let r = self.watched.poll();
        let mut missing = PollFlags::empty();
        missing.set(PollFlags::IN, !r.intersects(Ready::IN | Ready::HUP | Ready::ERR));
        missing.set(PollFlags::OUT, !r.intersects(Ready::OUT | Ready::HUP | Ready::ERR));
        if !missing.is_empty() {
            self.watched.arm(missing);
        }
        r
    }
    fn queue(&self) -> Option<&WaitQueue> {
        (!matches!(self.kind, Kind::Regular | Kind::Device)).then_some(&self.watched.queue)
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match (&self.terminal, cmd) {
            (Some(t), _) => t.ioctl(mem, cmd, arg),
            (None, c::FIONREAD) if self.kind != Kind::Device => {
                mem.write(arg, rustix::io::ioctl_fionread(self.fd())? as u32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.kind == Kind::Regular).then(|| self.fd())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The host's standard input, output and error; the terminal, if one of them is one. `charge` is for output.
pub fn host_stdio(charge: Option<Charge>) -> Result<([Arc<Description>; 3], Option<Arc<Terminal>>)> {
    let mut terminal: Option<Arc<Terminal>> = None;
    let mut open = |fd: BorrowedFd<'_>, charge: Option<Charge>| {
        let s = HostStream::with_terminal(fd, charge, terminal.as_ref())?;
        if terminal.is_none() {
            terminal = s.terminal.clone();
        }
        s.describe()
    };
    let all = [
        open(rustix::stdio::stdin(), charge.clone())?,
        open(rustix::stdio::stdout(), charge.clone())?,
        open(rustix::stdio::stderr(), charge)?,
    ];
    Ok((all, terminal))
}
