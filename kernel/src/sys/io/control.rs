//! Making, copying, closing and controlling descriptors.

use super::{locks, readable, writable};
use crate::errno::{Errno, Result};
use crate::file::{Description, File};
use crate::fs::Opened;
use crate::io::eventfd::EventFd;
use crate::io::pipe::{self, PipeEnd};
use crate::io::pty::Master;
use crate::io::{lock, tty};
use crate::task::Task;
use linux_raw_sys::ioctl as c;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const O_CLOEXEC: u64 = libc::O_CLOEXEC as u64;
const O_NONBLOCK: u64 = libc::O_NONBLOCK as u64;
/// Flags that F_SETFL changes.
const SETFL: u32 = (libc::O_APPEND | libc::O_ASYNC | libc::O_DIRECT | libc::O_NOATIME | libc::O_NONBLOCK) as u32;
/// Flags of open(2) that do not stay.
const PASSING: u32 = (libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_TRUNC | libc::O_CLOEXEC) as u32;

/// What closing a descriptor means beyond taking it out of the table.
fn closed(task: &Task, d: Arc<Description>) {
    crate::fs::closed(task, &d);
}

pub(super) fn close(task: &mut Task, [fd, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().close(fd as i32)?;
    closed(task, d);
    Ok(0)
}

pub(super) fn close_range(task: &mut Task, [first, last, flags, ..]: [u64; 6]) -> Result<u64> {
    let (first, last) = (first as u32, last as u32);
    const UNSHARE: u64 = libc::CLOSE_RANGE_UNSHARE as u64;
    const CLOEXEC: u64 = libc::CLOSE_RANGE_CLOEXEC as u64;
    if first > last || flags & !(UNSHARE | CLOEXEC) != 0 {
        return Err(Errno::EINVAL);
    }
    if flags & UNSHARE != 0 && Arc::strong_count(&task.fds) > 1 {
        task.set_fds(Arc::new(task.fds.fork()));
    }
    if flags & CLOEXEC != 0 {
        task.fds().cloexec_range(first, last);
    } else {
        for d in task.fds().close_range(first, last) {
            closed(task, d);
        }
    }
    Ok(0)
}

pub(super) fn dup(task: &mut Task, [fd, ..]: [u64; 6]) -> Result<u64> {
    task.fds().dup(fd as i32).map(|n| n as u64)
}

pub(super) fn dup2(task: &mut Task, [old, new, ..]: [u64; 6]) -> Result<u64> {
    let (n, gone) = task.fds().dup2(old as i32, new as i32)?;
    if let Some(d) = gone {
        closed(task, d);
    }
    Ok(n as u64)
}

pub(super) fn dup3(task: &mut Task, [old, new, flags, ..]: [u64; 6]) -> Result<u64> {
    let (n, gone) = task.fds().dup3(old as i32, new as i32, flags as i32)?;
    if let Some(d) = gone {
        closed(task, d);
    }
    Ok(n as u64)
}

pub(super) fn pipe(task: &mut Task, [out, ..]: [u64; 6]) -> Result<u64> {
    pipe2(task, [out, 0, 0, 0, 0, 0])
}

pub(super) fn pipe2(task: &mut Task, [out, flags, ..]: [u64; 6]) -> Result<u64> {
    // O_DIRECT (packets) is refused, as by a kernel without it.
    if flags & !(O_CLOEXEC | O_NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let c = task.process.credentials();
    let (r, w) = pipe::pipe(flags as u32, (c.fsuid, c.fsgid));
    insert_pair(task, out, r, w, flags)
}

/// Insert two descriptions and write their numbers.
pub(super) fn insert_pair(task: &Task, out: u64, a: Arc<Description>, b: Arc<Description>, flags: u64) -> Result<u64> {
    let (x, y) = task.fds().insert_pair(a, b, flags & O_CLOEXEC != 0)?;
    let both = u64::from(x as u32) | u64::from(y as u32) << 32;
    if let Err(e) = task.mem().write(out, both) {
        let _ = (task.fds().close(x), task.fds().close(y));
        return Err(e.into());
    }
    Ok(0)
}

/// Insert a file without a name; O_CLOEXEC and O_NONBLOCK come from `flags`.
pub(super) fn insert_anon(task: &Task, file: Arc<dyn File>, flags: u64, name: &str) -> Result<u64> {
    let d = Description::new(file, libc::O_RDWR as u32 | (flags & O_NONBLOCK) as u32, name);
    task.fds().insert(d, flags & O_CLOEXEC != 0).map(|n| n as u64)
}

pub(super) fn eventfd(task: &mut Task, [count, ..]: [u64; 6]) -> Result<u64> {
    eventfd2(task, [count, 0, 0, 0, 0, 0])
}

pub(super) fn eventfd2(task: &mut Task, [count, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(O_CLOEXEC | O_NONBLOCK | libc::EFD_SEMAPHORE as u64) != 0 {
        return Err(Errno::EINVAL);
    }
    let e = EventFd::new(u64::from(count as u32), flags & libc::EFD_SEMAPHORE as u64 != 0);
    insert_anon(task, Arc::new(e), flags, "anon_inode:[eventfd]")
}

const F_GETOWN_EX: i32 = 16;
const F_SETOWN_EX: i32 = 15;
const F_GETSIG: i32 = 11;
const F_SETSIG: i32 = 10;
const DN_MULTISHOT: u32 = 0x8000_0000;
const RW_HINTS: std::ops::RangeInclusive<i32> = 1035..=1038;

pub(super) fn fcntl(task: &mut Task, [fd, cmd, arg, ..]: [u64; 6]) -> Result<u64> {
    let (fd, cmd) = (fd as i32, cmd as i32);
    let fds = task.fds().clone();
    match cmd {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => {
            let d = fds.get(fd)?;
            return fds.insert_from(arg as i32, d, cmd == libc::F_DUPFD_CLOEXEC).map(|n| n as u64);
        }
        libc::F_GETFD => return fds.entry(fd).map(|e| u64::from(e.cloexec)),
        libc::F_SETFD => {
            return fds.set_cloexec(fd, arg & libc::FD_CLOEXEC as u64 != 0).map(|()| 0);
        }
        libc::F_GETFL => return fds.get(fd).map(|d| u64::from(d.flags() & !PASSING)),
        _ => {}
    }
    let d = fds.get_io(fd)?;
    match cmd {
        libc::F_SETFL => {
            set_flags(&d, arg as u32);
            Ok(0)
        }
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => {
            locks::fcntl(task, &d, cmd, arg)
        }
        // No SIGIO is ever sent: nobody owns a descriptor.
        libc::F_GETOWN | F_GETSIG => Ok(0),
        F_GETOWN_EX => task.mem().write(arg, 0u64).map(|()| 0).map_err(Errno::from),
        libc::F_SETOWN | F_SETOWN_EX | F_SETSIG => Ok(0),
        // No notification is ever sent; to ask for none is fine.
        libc::F_NOTIFY if arg as u32 & !DN_MULTISHOT == 0 => Ok(0),
        libc::F_GETLEASE => Ok(libc::F_UNLCK as u64),
        libc::F_SETLEASE => Err(Errno::EAGAIN),
        libc::F_SETPIPE_SZ => match d.file.as_any().downcast_ref::<PipeEnd>() {
            Some(p) => p.pipe().set_capacity(arg as u32 as usize).map(|n| n as u64),
            None => Err(Errno::EBADF),
        },
        libc::F_GETPIPE_SZ => match d.file.as_any().downcast_ref::<PipeEnd>() {
            Some(p) => Ok(p.pipe().capacity() as u64),
            None => Err(Errno::EBADF),
        },
        libc::F_ADD_SEALS => {
            writable(&d).map_err(|_| Errno::EPERM)?;
            let f = Opened::of(&d).and_then(Opened::memory).ok_or(Errno::EINVAL)?;
            let sealed = f.seals()? & libc::F_SEAL_SEAL as u32 != 0;
            if arg & libc::F_SEAL_WRITE as u64 != 0 && !sealed && mapped_writable(task, f) {
                return Err(Errno::EBUSY);
            }
            f.add_seals(arg as u32).map(|()| 0)
        }
        libc::F_GET_SEALS => {
            let f = Opened::of(&d).and_then(Opened::memory).ok_or(Errno::EINVAL)?;
            f.seals().map(u64::from)
        }
        c if RW_HINTS.contains(&c) => {
            // Hints about the lifetime of written data: none is kept.
            if c % 2 == 1 {
                task.mem().write(arg, 0u64)?
            }
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

/// Whether any process of the job has a shared mapping of the file that it may write to.
fn mapped_writable(task: &Task, f: &crate::fs::memfs::MemNode) -> bool {
    task.kernel().processes().iter().filter_map(|p| p.mm()).any(|mm| {
        mm.shared_writable_files()
            .iter()
            .any(|d| Opened::of(d).and_then(Opened::memory).is_some_and(|m| std::ptr::eq(m, f)))
    })
}

fn set_flags(d: &Description, flags: u32) {
    let old = d.flags();
    let new = old & !SETFL | flags & SETFL;
    d.flags.store(new, Ordering::Relaxed);
    d.file.set_flags(new);
}

pub(super) fn ioctl(task: &mut Task, [fd, cmd, arg, ..]: [u64; 6]) -> Result<u64> {
    let (fd, cmd) = (fd as i32, cmd as u32);
    let d = task.fds().get_io(fd)?;
    match cmd {
        c::FIOCLEX => return task.fds().set_cloexec(fd, true).map(|()| 0),
        c::FIONCLEX => return task.fds().set_cloexec(fd, false).map(|()| 0),
        c::FIONBIO => {
            let on = task.mem().read::<u32>(arg)? != 0;
            let nb = libc::O_NONBLOCK as u32;
            set_flags(&d, if on { d.flags() | nb } else { d.flags() & !nb });
            return Ok(0);
        }
        c::FIOASYNC => return task.mem().read::<u32>(arg).map(|_| 0).map_err(Errno::from),
        _ => {}
    }
    if cmd == c::TIOCGPTPEER {
        let m = d.file.as_any().downcast_ref::<Master>().ok_or(Errno::ENOTTY)?;
        let peer = Description::new(m.peer()?, arg as u32 & !PASSING, m.pty().path());
        return task.fds().insert(peer, arg & O_CLOEXEC != 0).map(|n| n as u64);
    }
    if let Some(t) = tty::control(&*d.file)
        && let Some(r) = t.ioctl(task, cmd, arg)
    {
        return r;
    }
    let r = d.file.ioctl(task, task.mem(), cmd, arg);
    // Regular files answer this one too: what is left to read.
    if r == Err(Errno::ENOTTY) && cmd == c::FIONREAD && readable(&d).is_ok() {
        let st = d.file.stat()?;
        if st.mode & libc::S_IFMT == libc::S_IFREG {
            let left = st.size.saturating_sub(*lock(&d.pos));
            return task.mem().write(arg, left.min(i32::MAX as u64) as u32).map(|()| 0).map_err(Errno::from);
        }
    }
    r
}
