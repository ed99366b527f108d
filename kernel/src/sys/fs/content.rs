//! What a file holds: its length, copying within the kernel, what is said of the host's cache, and the lock on all of it.

use super::{Args, CWD, path};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::fs::{Caller, Opened, at, node};
use crate::task::Task;
use std::sync::Arc;

/// Negative lengths, and RLIMIT_FSIZE with its signal.
fn length(task: &Task, len: u64) -> Result<u64> {
    if len > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    if len > task.process.rlimit(libc::RLIMIT_FSIZE as usize).cur {
        task.raise(libc::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(len)
}
pub(super) fn truncate(task: &mut Task, a: Args) -> Result<u64> {
    if (a[1] as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    let who = Caller::of(task);
    let e = at(task, &who, CWD, &path(task, a[0])?, 0)?;
    let len = if e.stat.size < a[1] { length(task, a[1])? } else { a[1] };
    task.fs().ns().truncate(&who, &e, len)?;
    Ok(0)
}
fn writable(d: &Description) -> bool {
    d.flags() as i32 & libc::O_ACCMODE != libc::O_RDONLY
}
pub(super) fn ftruncate(task: &mut Task, a: Args) -> Result<u64> {
    if (a[1] as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(a[0] as i32)?;
    let s = d.file.stat()?;
    if node::kind_of(s.mode) != libc::S_IFREG || !writable(&d) {
        return Err(Errno::EINVAL);
    }
    let len = if s.size < a[1] { length(task, a[1])? } else { a[1] };
    d.file.truncate(len)?;
    Ok(0)
}
pub(super) fn fallocate(task: &mut Task, a: Args) -> Result<u64> {
    let (mode, off, len) = (a[1] as i32, a[2], a[3]);
    task.fds().get(a[0] as i32)?;
    if (off as i64) < 0 || (len as i64) <= 0 {
        return Err(Errno::EINVAL);
    }
    let all = libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE;
    let (keep, punch, zero) = (
        mode & libc::FALLOC_FL_KEEP_SIZE != 0,
        mode & libc::FALLOC_FL_PUNCH_HOLE != 0,
        mode & libc::FALLOC_FL_ZERO_RANGE != 0,
    );
    if mode & !all != 0 || (punch && (!keep || zero)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let d = task.fds().get_io(a[0] as i32)?;
    if !writable(&d) {
        return Err(Errno::EBADF);
    }
    let s = d.file.stat()?;
    match node::kind_of(s.mode) {
        libc::S_IFREG => {}
        libc::S_IFIFO => return Err(Errno::ESPIPE),
        _ => return Err(Errno::ENODEV),
    }
    let end = off.checked_add(len).filter(|e| *e <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
    if end > s.size && !keep {
        length(task, end)?;
    }
    let o = Opened::of(&d).ok_or(Errno::EOPNOTSUPP)?;
    if let Some(m) = o.memory() {
        m.allocate(off, len, keep, zero, punch)?;
        return Ok(0);
    }
    let fd = d.file.host_fd().ok_or(Errno::EOPNOTSUPP)?;
    if keep && !punch && end > s.size {
        // Space beyond the end is accounted for as if the file had grown.
        d.file.direct(Some(end))?;
    }
    if end > s.size && !keep {
        d.file.truncate(end)?;
    }
    rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::from_bits_retain(mode as u32), off, len)?;
    Ok(0)
}
/// Copy up to `len` bytes; gives how many. An error is one only if nothing was copied before it.
fn copy(task: &Task, (src, from): (&Description, u64), (dst, to): (&Description, u64), len: u64) -> Result<u64> {
    let mut buf = vec![0; len.clamp(1, 1 << 18) as usize];
    let mut done = 0;
    while done < len {
        let want = (len - done).min(buf.len() as u64) as usize;
        let n = match src.file.read(task, from + done, &mut buf[..want], true) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done != 0 => break,
            Err(e) => return Err(e),
        };
        match dst.file.write(task, to + done, &buf[..n], true) {
            Ok(n) => done += n as u64,
            Err(_) if done != 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}
pub(super) fn copy_file_range(task: &mut Task, a: Args) -> Result<u64> {
    if a[5] != 0 {
        return Err(Errno::EINVAL);
    }
    let (src, dst): (Arc<Description>, Arc<Description>) =
        (task.fds().get_io(a[0] as i32)?, task.fds().get_io(a[2] as i32)?);
    if src.flags() as i32 & libc::O_ACCMODE == libc::O_WRONLY
        || !writable(&dst)
        || dst.flags() & libc::O_APPEND as u32 != 0
    {
        return Err(Errno::EBADF);
    }
    let (s, t) = (src.file.stat()?, dst.file.stat()?);
    for k in [node::kind_of(s.mode), node::kind_of(t.mode)] {
        match k {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
    }
    let offset = |task: &Task, p: u64, d: &Description| -> Result<u64> {
        Ok(if p == 0 { *node::lock(&d.pos) } else { task.mem().read::<u64>(p)? })
    };
    let (from, to) = (offset(task, a[1], &src)?, offset(task, a[3], &dst)?);
    let len = a[4].min(1 << 30);
    if (from as i64) < 0 || (to as i64) < 0 || from.checked_add(len).is_none_or(|e| e > i64::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    if (s.dev, s.ino) == (t.dev, t.ino) && from < to.saturating_add(len) && to < from.saturating_add(len) {
        return Err(Errno::EINVAL);
    }
    if to.saturating_add(len) > task.process.rlimit(libc::RLIMIT_FSIZE as usize).cur {
        return Err(Errno::EFBIG);
    }
    let done = copy(task, (&src, from), (&dst, to), len)?;
    for (p, d, at) in [(a[1], &src, from + done), (a[3], &dst, to + done)] {
        if p == 0 {
            *node::lock(&d.pos) = at;
        } else {
            task.mem().write::<u64>(p, at)?;
        }
    }
    Ok(done)
}

pub(super) fn sync(_: &mut Task, _: Args) -> Result<u64> {
    // What the job wrote is in the host's cache; a guest cannot make the host write everyone's data.
    Ok(0)
}
pub(super) fn fsync(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?.file.sync(false)?;
    Ok(0)
}
pub(super) fn fdatasync(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?.file.sync(true)?;
    Ok(0)
}
pub(super) fn syncfs(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?;
    Ok(0)
}
pub(super) fn sync_file_range(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if a[3] & !7 != 0 || (a[1] as i64) < 0 || (a[2] as i64) < 0 {
        return Err(Errno::EINVAL);
    }
    if !d.file.seekable() {
        return Err(Errno::ESPIPE);
    }
    if a[3] & 4 != 0 {
        d.file.sync(true)?;
    }
    Ok(0)
}
pub(super) fn fadvise64(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if node::kind_of(d.file.stat()?.mode) == libc::S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    // Advice only; the values are checked.
    if a[3] > 5 || (a[2] as i64) < 0 { Err(Errno::EINVAL) } else { Ok(0) }
}
pub(super) fn readahead(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if d.flags() as i32 & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(Errno::EBADF);
    }
    if node::kind_of(d.file.stat()?.mode) == libc::S_IFREG { Ok(0) } else { Err(Errno::EINVAL) }
}

pub(super) fn flock(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    let op = a[1] as i32;
    if op & 32 != 0 {
        return Ok(0); // LOCK_MAND: taken, without effect
    }
    let exclusive = match op & !libc::LOCK_NB {
        libc::LOCK_SH => Some(false),
        libc::LOCK_EX => Some(true),
        libc::LOCK_UN => None,
        _ => return Err(Errno::EINVAL),
    };
    let ns = task.fs().ns().clone();
    ns.locks.flock(task, crate::fs::lock_key(&d)?, crate::fs::lock_owner(&d), exclusive, op & libc::LOCK_NB == 0)?;
    Ok(0)
}
