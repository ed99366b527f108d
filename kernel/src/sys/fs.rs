//! System calls about files: thin wrappers of [`crate::fs`] that read and write the guest's structures.

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::file::{Description, Stat};
use crate::fs::node::{self, PATH_MAX, R, W, X};
use crate::fs::{Caller, Entry, Make, Opened, Place, Scope, SetTime, at, base, by_fd};
use crate::task::Task;
use std::sync::Arc;

type Args = [u64; 6];
const CWD: i32 = libc::AT_FDCWD;
const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const EMPTY: u32 = libc::AT_EMPTY_PATH as u32;
/// What stat-like calls accept besides: AT_NO_AUTOMOUNT and the AT_STATX_* hints.
const STAT_FLAGS: u32 = NOFOLLOW | EMPTY | 0x800 | 0x6000;

/// Read a path argument. EFAULT, ENAMETOOLONG.
pub(crate) fn path(task: &Task, addr: u64) -> Result<Vec<u8>> {
    task.mem().read_cstr(addr, PATH_MAX - 1)?.ok_or(Errno::ENAMETOOLONG)
}
fn known(flags: u32, all: u32) -> Result<()> {
    if flags & !all == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}
fn masked(task: &Task, mode: u64) -> u32 {
    mode as u32 & 0o7777 & !task.fs().umask()
}

fn do_open(task: &mut Task, dirfd: i32, p: &[u8], flags: u32, mode: u64) -> Result<u64> {
    let who = Caller::of(task);
    let at = base(task, dirfd, p)?;
    let mode = masked(task, mode);
    task.fds().check_room()?;
    let d = task.fs().ns().open(&who, &*task, &at, p, flags, mode)?;
    if flags & libc::O_NOCTTY as u32 == 0 {
        crate::io::tty::opened(task, &d);
    }
    Ok(task.fds().insert(d, flags & libc::O_CLOEXEC as u32 != 0)? as u64)
}
fn open(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[0])?;
    do_open(task, CWD, &p, a[1] as u32, a[2])
}
fn openat(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[1])?;
    do_open(task, a[0] as i32, &p, a[2] as u32, a[3])
}
fn creat(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[0])?;
    do_open(task, CWD, &p, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32, a[1])
}
fn openat2(task: &mut Task, a: Args) -> Result<u64> {
    if a[3] < 24 {
        return Err(Errno::EINVAL);
    }
    let m = task.mem();
    for i in 24..a[3].min(4096) {
        if m.read::<u8>(a[2] + i)? != 0 {
            return Err(Errno::E2BIG);
        }
    }
    let (flags, mode, resolve) = (m.read::<u64>(a[2])?, m.read::<u64>(a[2] + 8)?, m.read::<u64>(a[2] + 16)?);
    let all = 0o37777703u64 | libc::O_CLOEXEC as u64;
    let creates = flags & (libc::O_CREAT as u64 | 0o20000000) != 0;
    if flags & !all != 0 || mode & !0o7777 != 0 || (mode != 0 && !creates) || resolve & !0x3f != 0 {
        return Err(Errno::EINVAL);
    }
    if resolve & 0x18 == 0x18 {
        return Err(Errno::EINVAL); // RESOLVE_BENEATH and RESOLVE_IN_ROOT
    }
    let p = path(task, a[1])?;
    // RESOLVE_CACHED asks for an answer without waiting for a disk: all answers are such.
    if resolve & !0x20 != 0 {
        let base = if a[0] as i32 == CWD { task.fs().cwd() } else { base(task, a[0] as i32, b".")? };
        let scope = Scope { flags: resolve, base };
        let (flags, mode) = (flags as u32, masked(task, mode));
        task.fds().check_room()?;
        let d = task.fs().ns().open_scoped(&Caller::of(task), &*task, &p, flags, mode, &scope)?;
        return Ok(task.fds().insert(d, flags & libc::O_CLOEXEC as u32 != 0)? as u64);
    }
    do_open(task, a[0] as i32, &p, flags as u32, mode)
}

fn put(buf: &mut [u8], off: usize, v: u64, size: usize) {
    buf[off..off + size].copy_from_slice(&v.to_le_bytes()[..size]);
}
/// struct stat of x86-64.
fn stat_bytes(s: &Stat) -> [u8; 144] {
    let mut b = [0; 144];
    for (off, v, size) in [
        (0, s.dev, 8),
        (8, s.ino, 8),
        (16, s.nlink.into(), 8),
        (24, s.mode.into(), 4),
        (28, s.uid.into(), 4),
        (32, s.gid.into(), 4),
        (40, s.rdev, 8),
        (48, s.size, 8),
        (56, s.blksize.into(), 8),
        (64, s.blocks, 8),
        (72, s.atime.0 as u64, 8),
        (80, s.atime.1.into(), 8),
        (88, s.mtime.0 as u64, 8),
        (96, s.mtime.1.into(), 8),
        (104, s.ctime.0 as u64, 8),
        (112, s.ctime.1.into(), 8),
    ] {
        put(&mut b, off, v, size);
    }
    b
}
fn stat_at(task: &Task, dirfd: i32, p: &[u8], flags: u32) -> Result<(Stat, u32)> {
    if p.is_empty() && flags & EMPTY != 0 && dirfd != CWD {
        let d = task.fds().get(dirfd)?;
        return Ok((d.file.stat()?, Opened::of(&d).map_or(0, |o| o.place.mount.id)));
    }
    let e = at(task, &Caller::of(task), dirfd, p, flags)?;
    Ok((e.stat, e.place.mount.id))
}
fn stat(task: &mut Task, a: Args) -> Result<u64> {
    let s = stat_at(task, CWD, &path(task, a[0])?, 0)?.0;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
fn lstat(task: &mut Task, a: Args) -> Result<u64> {
    let s = stat_at(task, CWD, &path(task, a[0])?, NOFOLLOW)?.0;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
fn fstat(task: &mut Task, a: Args) -> Result<u64> {
    let s = task.fds().get(a[0] as i32)?.file.stat()?;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
fn newfstatat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[3] as u32, NOFOLLOW | EMPTY | 0x800)?;
    let p = optional_path(task, a[1], a[3] as u32)?;
    let s = stat_at(task, a[0] as i32, &p, a[3] as u32)?.0;
    task.mem().copy_in(a[2], &stat_bytes(&s))?;
    Ok(0)
}
/// A path that may be NULL with AT_EMPTY_PATH.
fn optional_path(task: &Task, addr: u64, flags: u32) -> Result<Vec<u8>> {
    if addr == 0 && flags & EMPTY != 0 { Ok(Vec::new()) } else { path(task, addr) }
}
fn statx(task: &mut Task, a: Args) -> Result<u64> {
    let flags = a[2] as u32;
    known(flags, STAT_FLAGS)?;
    if flags & 0x6000 == 0x6000 || a[3] & 0x8000_0000 != 0 {
        return Err(Errno::EINVAL);
    }
    let p = optional_path(task, a[1], flags)?;
    let (s, mount) = stat_at(task, a[0] as i32, &p, flags)?;
    let mut b = [0u8; 256];
    let has_btime = s.btime != (0, 0);
    let mask = 0x7ff | if has_btime { 0x800 } else { 0 } | 0x1000;
    let (major, minor) =
        (|d: u64| (d >> 8 & 0xfff) | (d >> 32 & !0xfff), |d: u64| (d & 0xff) | (d >> 12 & 0xffff_ff00));
    for (off, v, size) in [
        (0, mask, 4),
        (4, s.blksize.into(), 4),
        (16, s.nlink.into(), 4),
        (20, s.uid.into(), 4),
        (24, s.gid.into(), 4),
        (28, s.mode.into(), 2),
        (32, s.ino, 8),
        (40, s.size, 8),
        (48, s.blocks, 8),
        (64, s.atime.0 as u64, 8),
        (72, s.atime.1.into(), 4),
        (80, s.btime.0 as u64, 8),
        (88, s.btime.1.into(), 4),
        (96, s.ctime.0 as u64, 8),
        (104, s.ctime.1.into(), 4),
        (112, s.mtime.0 as u64, 8),
        (120, s.mtime.1.into(), 4),
        (128, major(s.rdev), 4),
        (132, minor(s.rdev), 4),
        (136, major(s.dev), 4),
        (140, minor(s.dev), 4),
        (144, mount.into(), 8),
    ] {
        put(&mut b, off, v, size);
    }
    task.mem().copy_in(a[4], &b)?;
    Ok(0)
}

fn do_access(task: &Task, dirfd: i32, p: &[u8], mode: u64, flags: u32) -> Result<u64> {
    known(mode as u32, R | W | X)?;
    known(flags, libc::AT_EACCESS as u32 | NOFOLLOW | EMPTY)?;
    let who = if flags & libc::AT_EACCESS as u32 != 0 { Caller::of(task) } else { Caller::real(task) };
    if p.is_empty() && flags & EMPTY != 0 && dirfd != CWD {
        let d = task.fds().get(dirfd)?;
        who.check(&d.file.stat()?, mode as u32)?;
        return Ok(0);
    }
    let e = at(task, &who, dirfd, p, flags & !(libc::AT_EACCESS as u32))?;
    task.fs().ns().access(&who, &e, mode as u32)?;
    Ok(0)
}
fn access(task: &mut Task, a: Args) -> Result<u64> {
    do_access(task, CWD, &path(task, a[0])?, a[1], 0)
}
fn faccessat(task: &mut Task, a: Args) -> Result<u64> {
    do_access(task, a[0] as i32, &path(task, a[1])?, a[2], 0)
}
fn faccessat2(task: &mut Task, a: Args) -> Result<u64> {
    do_access(task, a[0] as i32, &optional_path(task, a[1], a[3] as u32)?, a[2], a[3] as u32)
}

fn make(task: &Task, dirfd: i32, p: &[u8], what: Make<'_>, mode: u32) -> Result<u64> {
    task.fs().ns().make(&Caller::of(task), &base(task, dirfd, p)?, p, what, mode)?;
    Ok(0)
}
fn mkdir(task: &mut Task, a: Args) -> Result<u64> {
    make(task, CWD, &path(task, a[0])?, Make::Dir, masked(task, a[1] & 0o1777))
}
fn mkdirat(task: &mut Task, a: Args) -> Result<u64> {
    make(task, a[0] as i32, &path(task, a[1])?, Make::Dir, masked(task, a[2] & 0o1777))
}
fn do_mknod(task: &Task, dirfd: i32, p: u64, mode: u64) -> Result<u64> {
    let what = match node::kind_of(mode as u32) {
        0 | libc::S_IFREG => Make::File,
        libc::S_IFIFO => Make::Fifo,
        libc::S_IFSOCK => Make::Socket,
        libc::S_IFCHR | libc::S_IFBLK => return Err(Errno::EPERM),
        libc::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(task, dirfd, &path(task, p)?, what, masked(task, mode))
}
fn mknod(task: &mut Task, a: Args) -> Result<u64> {
    do_mknod(task, CWD, a[0], a[1])
}
fn mknodat(task: &mut Task, a: Args) -> Result<u64> {
    do_mknod(task, a[0] as i32, a[1], a[2])
}
fn do_symlink(task: &Task, to: u64, dirfd: i32, p: u64) -> Result<u64> {
    let to = path(task, to)?;
    make(task, dirfd, &path(task, p)?, Make::Symlink(&to), 0o777)
}
fn symlink(task: &mut Task, a: Args) -> Result<u64> {
    do_symlink(task, a[0], CWD, a[1])
}
fn symlinkat(task: &mut Task, a: Args) -> Result<u64> {
    do_symlink(task, a[0], a[1] as i32, a[2])
}
fn remove(task: &Task, dirfd: i32, p: u64, dir: bool) -> Result<u64> {
    let p = path(task, p)?;
    task.fs().ns().remove(&Caller::of(task), &base(task, dirfd, &p)?, &p, dir)?;
    Ok(0)
}
fn rmdir(task: &mut Task, a: Args) -> Result<u64> {
    remove(task, CWD, a[0], true)
}
fn unlink(task: &mut Task, a: Args) -> Result<u64> {
    remove(task, CWD, a[0], false)
}
fn unlinkat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[2] as u32, libc::AT_REMOVEDIR as u32)?;
    remove(task, a[0] as i32, a[1], a[2] != 0)
}
fn do_rename(task: &Task, from: (i32, u64), to: (i32, u64), flags: u32) -> Result<u64> {
    let (p, q) = (path(task, from.1)?, path(task, to.1)?);
    let (pd, qd) = (base(task, from.0, &p)?, base(task, to.0, &q)?);
    task.fs().ns().rename(&Caller::of(task), &pd, &p, &qd, &q, flags)?;
    Ok(0)
}
fn rename(task: &mut Task, a: Args) -> Result<u64> {
    do_rename(task, (CWD, a[0]), (CWD, a[1]), 0)
}
fn renameat(task: &mut Task, a: Args) -> Result<u64> {
    do_rename(task, (a[0] as i32, a[1]), (a[2] as i32, a[3]), 0)
}
fn renameat2(task: &mut Task, a: Args) -> Result<u64> {
    do_rename(task, (a[0] as i32, a[1]), (a[2] as i32, a[3]), a[4] as u32)
}
fn do_link(task: &Task, from: (i32, u64), to: (i32, u64), flags: u32) -> Result<u64> {
    known(flags, libc::AT_SYMLINK_FOLLOW as u32 | EMPTY)?;
    let (p, q) = (path(task, from.1)?, path(task, to.1)?);
    let who = Caller::of(task);
    let nofollow = if flags & libc::AT_SYMLINK_FOLLOW as u32 != 0 { 0 } else { NOFOLLOW };
    let target = at(task, &who, from.0, &p, nofollow | (flags & EMPTY))?;
    task.fs().ns().link(&who, &target, &base(task, to.0, &q)?, &q)?;
    Ok(0)
}
fn link(task: &mut Task, a: Args) -> Result<u64> {
    do_link(task, (CWD, a[0]), (CWD, a[1]), 0)
}
fn linkat(task: &mut Task, a: Args) -> Result<u64> {
    do_link(task, (a[0] as i32, a[1]), (a[2] as i32, a[3]), a[4] as u32)
}
fn do_readlink(task: &Task, dirfd: i32, p: u64, buf: u64, size: u64) -> Result<u64> {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let p = path(task, p)?;
    let who = Caller::of(task);
    let e = at(task, &who, dirfd, &p, NOFOLLOW | EMPTY).map_err(|e| {
        // Without a path only a link opened with O_PATH will do.
        if p.is_empty() && e == Errno::EINVAL { Errno::ENOENT } else { e }
    })?;
    if p.is_empty() && node::kind_of(e.stat.mode) != libc::S_IFLNK {
        return Err(Errno::ENOENT);
    }
    let t = task.fs().ns().readlink(&who, &e)?;
    let n = t.len().min(size as usize);
    task.mem().copy_in(buf, &t[..n])?;
    Ok(n as u64)
}
fn readlink(task: &mut Task, a: Args) -> Result<u64> {
    do_readlink(task, CWD, a[0], a[1], a[2])
}
fn readlinkat(task: &mut Task, a: Args) -> Result<u64> {
    do_readlink(task, a[0] as i32, a[1], a[2], a[3])
}

fn chmod_entry(task: &Task, e: &Entry, mode: u64) -> Result<u64> {
    task.fs().ns().chmod(&Caller::of(task), e, mode as u32)?;
    Ok(0)
}
fn chmod(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    chmod_entry(task, &e, a[1])
}
fn fchmod(task: &mut Task, a: Args) -> Result<u64> {
    let e = by_fd(&*task.fds().get_io(a[0] as i32)?)?;
    chmod_entry(task, &e, a[1])
}
fn fchmodat(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, 0)?;
    chmod_entry(task, &e, a[2])
}
fn fchmodat2(task: &mut Task, a: Args) -> Result<u64> {
    known(a[3] as u32, NOFOLLOW | EMPTY)?;
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[3] as u32)?;
    chmod_entry(task, &e, a[2])
}
fn chown_entry(task: &Task, e: &Entry, uid: u64, gid: u64) -> Result<u64> {
    task.fs().ns().chown(&Caller::of(task), e, uid as u32, gid as u32)?;
    Ok(0)
}
fn chown(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    chown_entry(task, &e, a[1], a[2])
}
fn lchown(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, NOFOLLOW)?;
    chown_entry(task, &e, a[1], a[2])
}
fn fchown(task: &mut Task, a: Args) -> Result<u64> {
    let e = by_fd(&*task.fds().get_io(a[0] as i32)?)?;
    chown_entry(task, &e, a[1], a[2])
}
fn fchownat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[4] as u32, NOFOLLOW | EMPTY)?;
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[4] as u32)?;
    chown_entry(task, &e, a[2], a[3])
}

/// A pair of times: `scale` is the number of nanoseconds in the second member's unit.
fn times(task: &Task, addr: u64, scale: i64) -> Result<[Option<SetTime>; 2]> {
    if addr == 0 {
        return Ok([Some(SetTime::Now); 2]);
    }
    let mut out = [None; 2];
    for (i, t) in out.iter_mut().enumerate() {
        let (s, n) = (task.mem().read::<i64>(addr + 16 * i as u64)?, task.mem().read::<i64>(addr + 16 * i as u64 + 8)?);
        *t = match n {
            libc::UTIME_NOW if scale == 1 => Some(SetTime::Now),
            libc::UTIME_OMIT if scale == 1 => None,
            n if (0..1_000_000_000 / scale).contains(&n) => Some(SetTime::At(s, (n * scale) as u32)),
            _ => return Err(Errno::EINVAL),
        };
    }
    Ok(out)
}
fn set_times(task: &Task, e: &Entry, t: [Option<SetTime>; 2]) -> Result<u64> {
    task.fs().ns().set_times(&Caller::of(task), e, t[0], t[1])?;
    Ok(0)
}
fn utime(task: &mut Task, a: Args) -> Result<u64> {
    let t = match a[1] {
        0 => [Some(SetTime::Now); 2],
        p => [Some(SetTime::At(task.mem().read::<i64>(p)?, 0)), Some(SetTime::At(task.mem().read::<i64>(p + 8)?, 0))],
    };
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    set_times(task, &e, t)
}
fn utimes(task: &mut Task, a: Args) -> Result<u64> {
    futimesat(task, [CWD as u64, a[0], a[1], 0, 0, 0])
}
fn futimesat(task: &mut Task, a: Args) -> Result<u64> {
    let t = times(task, a[2], 1000)?;
    let e = if a[1] == 0 {
        by_fd(&*task.fds().get_io(a[0] as i32)?)?
    } else {
        at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, 0)?
    };
    set_times(task, &e, t)
}
fn utimensat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[3] as u32, NOFOLLOW | EMPTY)?;
    let t = times(task, a[2], 1)?;
    if t[0].is_none() && t[1].is_none() {
        return Ok(0);
    }
    let e = if a[1] == 0 && a[0] as i32 != CWD {
        by_fd(&*task.fds().get_io(a[0] as i32)?)?
    } else {
        at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[3] as u32)?
    };
    set_times(task, &e, t)
}

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
fn truncate(task: &mut Task, a: Args) -> Result<u64> {
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
fn ftruncate(task: &mut Task, a: Args) -> Result<u64> {
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
fn fallocate(task: &mut Task, a: Args) -> Result<u64> {
    let (mode, off, len) = (a[1] as i32, a[2], a[3]);
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

fn dirents(task: &mut Task, a: Args, wide: bool) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if node::kind_of(d.file.stat()?.mode) != libc::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    let size = a[2] as u32 as usize;
    let mut pos = node::lock(&d.pos);
    let mut out = Vec::new();
    let (mut at, mut full) = (*pos, false);
    while !full {
        let batch = d.file.entries(at)?;
        if batch.is_empty() {
            break;
        }
        for (e, next) in batch {
            // Both forms take 19 bytes and the name and its NUL: the type comes before the name or at the very end.
            let n = (19 + e.name.len() + 1).next_multiple_of(8);
            if out.len() + n > size {
                full = true;
                break;
            }
            let start = out.len();
            out.extend_from_slice(&e.ino.to_le_bytes());
            out.extend_from_slice(&next.to_le_bytes());
            out.extend_from_slice(&(n as u16).to_le_bytes());
            if wide {
                out.push(e.kind);
            }
            out.extend_from_slice(&e.name);
            out.resize(start + n, 0);
            if !wide {
                out[start + n - 1] = e.kind;
            }
            at = next;
        }
    }
    if full && out.is_empty() {
        return Err(Errno::EINVAL);
    }
    task.mem().copy_in(a[1], &out)?;
    *pos = at;
    Ok(out.len() as u64)
}
fn getdents(task: &mut Task, a: Args) -> Result<u64> {
    dirents(task, a, false)
}
fn getdents64(task: &mut Task, a: Args) -> Result<u64> {
    dirents(task, a, true)
}

fn chdir(task: &mut Task, a: Args) -> Result<u64> {
    task.fs().chdir(&Caller::of(task), &path(task, a[0])?)?;
    Ok(0)
}
fn fchdir(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get(a[0] as i32)?;
    let o = Opened::of(&d).ok_or(Errno::ENOTDIR)?;
    let s = o.place.node.stat()?;
    if !node::is_dir(s.mode) {
        return Err(Errno::ENOTDIR);
    }
    Caller::of(task).check(&s, X)?;
    task.fs().set_cwd(o.place.clone());
    Ok(0)
}
fn getcwd(task: &mut Task, a: Args) -> Result<u64> {
    let cwd: Place = task.fs().cwd();
    if cwd.node.stat()?.nlink == 0 {
        return Err(Errno::ENOENT);
    }
    let mut p = cwd.absolute();
    p.push(0);
    if p.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if p.len() as u64 > a[1] {
        return Err(Errno::ERANGE);
    }
    task.mem().copy_in(a[0], &p)?;
    Ok(p.len() as u64)
}
fn umask(task: &mut Task, a: Args) -> Result<u64> {
    Ok(task.fs().set_umask(a[0] as u32).into())
}

fn put_statfs(task: &Task, addr: u64, place: Option<&Place>) -> Result<u64> {
    let (s, dev, ro) = match place {
        Some(p) => (p.node.statfs(), p.node.stat()?.dev, p.mount.read_only),
        None => (node::StatFs { kind: 0x5049_5045, ..Default::default() }, 0, false),
    };
    let mut b = [0u8; 120];
    let words = [s.kind, 4096, s.blocks, s.free, s.free, s.files, s.files, dev, 255, 4096, 0x20 | u64::from(ro)];
    for (i, w) in words.iter().enumerate() {
        put(&mut b, 8 * i, *w, 8);
    }
    task.mem().copy_in(addr, &b)?;
    Ok(0)
}
fn statfs(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    put_statfs(task, a[1], Some(&e.place))
}
fn fstatfs(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get(a[0] as i32)?;
    put_statfs(task, a[1], Opened::of(&d).map(|o| &o.place))
}

fn sync(_: &mut Task, _: Args) -> Result<u64> {
    // What the job wrote is in the host's cache; a guest cannot make the host write everyone's data.
    Ok(0)
}
fn fsync(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?.file.sync(false)?;
    Ok(0)
}
fn fdatasync(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?.file.sync(true)?;
    Ok(0)
}
fn syncfs(task: &mut Task, a: Args) -> Result<u64> {
    task.fds().get_io(a[0] as i32)?;
    Ok(0)
}
fn sync_file_range(task: &mut Task, a: Args) -> Result<u64> {
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
fn fadvise64(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if node::kind_of(d.file.stat()?.mode) == libc::S_IFIFO {
        return Err(Errno::ESPIPE);
    }
    // Advice only; the values are checked.
    if a[3] > 5 || (a[2] as i64) < 0 { Err(Errno::EINVAL) } else { Ok(0) }
}
fn readahead(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get_io(a[0] as i32)?;
    if d.flags() as i32 & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(Errno::EBADF);
    }
    if node::kind_of(d.file.stat()?.mode) == libc::S_IFREG { Ok(0) } else { Err(Errno::EINVAL) }
}
fn flock(task: &mut Task, a: Args) -> Result<u64> {
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

fn xattr_entry(task: &Task, a: &Args, kind: Xattr) -> Result<()> {
    match kind {
        Xattr::Path => at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0).map(drop),
        Xattr::Link => at(task, &Caller::of(task), CWD, &path(task, a[0])?, NOFOLLOW).map(drop),
        Xattr::Fd => task.fds().get_io(a[0] as i32).map(drop),
    }
}
#[derive(Clone, Copy)]
enum Xattr {
    Path,
    Link,
    Fd,
}
/// There are no extended attributes: getting gives ENODATA, setting EOPNOTSUPP, the list is empty.
macro_rules! xattr {
    ($($set:ident $get:ident $list:ident $remove:ident $kind:expr;)*) => { $(
        fn $set(task: &mut Task, a: Args) -> Result<u64> {
            xattr_entry(task, &a, $kind)?;
            Err(Errno::EOPNOTSUPP)
        }
        fn $get(task: &mut Task, a: Args) -> Result<u64> {
            xattr_entry(task, &a, $kind)?;
            path(task, a[1])?;
            Err(Errno::ENODATA)
        }
        fn $list(task: &mut Task, a: Args) -> Result<u64> {
            xattr_entry(task, &a, $kind)?;
            Ok(0)
        }
        fn $remove(task: &mut Task, a: Args) -> Result<u64> {
            xattr_entry(task, &a, $kind)?;
            Err(Errno::EOPNOTSUPP)
        }
    )* };
}
xattr! {
    setxattr getxattr listxattr removexattr Xattr::Path;
    lsetxattr lgetxattr llistxattr lremovexattr Xattr::Link;
    fsetxattr fgetxattr flistxattr fremovexattr Xattr::Fd;
}

fn unsupported(_: &mut Task, _: Args) -> Result<u64> {
    Err(Errno::EOPNOTSUPP)
}
fn forbidden(_: &mut Task, _: Args) -> Result<u64> {
    Err(Errno::EPERM)
}

fn memfd_create(task: &mut Task, a: Args) -> Result<u64> {
    let flags = a[1] as u32;
    // MFD_HUGETLB is not there.
    known(flags, libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_NOEXEC_SEAL | libc::MFD_EXEC)?;
    if flags & (libc::MFD_NOEXEC_SEAL | libc::MFD_EXEC) == libc::MFD_NOEXEC_SEAL | libc::MFD_EXEC {
        return Err(Errno::EINVAL);
    }
    let name = task.mem().read_cstr(a[0], 249)?.ok_or(Errno::EINVAL)?;
    let noexec = flags & libc::MFD_NOEXEC_SEAL != 0;
    let seals = if flags & libc::MFD_ALLOW_SEALING != 0 || noexec { 0 } else { libc::F_SEAL_SEAL as u32 };
    let d = task.fs().ns().memfd(&Caller::of(task), &name, seals, !noexec)?;
    Ok(task.fds().insert(d, flags & libc::MFD_CLOEXEC != 0)? as u64)
}

fn copy_file_range(task: &mut Task, a: Args) -> Result<u64> {
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
    let (mut from, mut to) = (offset(task, a[1], &src)?, offset(task, a[3], &dst)?);
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
    let mut buf = vec![0; len.clamp(1, 1 << 18) as usize];
    let mut done = 0;
    while done < len {
        let want = (len - done).min(buf.len() as u64) as usize;
        let r = src.file.read(&*task, from, &mut buf[..want], true);
        let n = match r {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done != 0 => break,
            Err(e) => return Err(e),
        };
        match dst.file.write(&*task, to, &buf[..n], true) {
            Ok(n) => {
                done += n as u64;
                from += n as u64;
                to += n as u64;
            }
            Err(_) if done != 0 => break,
            Err(e) => return Err(e),
        }
    }
    for (p, d, at) in [(a[1], &src, from), (a[3], &dst, to)] {
        if p == 0 {
            *node::lock(&d.pos) = at;
        } else {
            task.mem().write::<u64>(p, at)?;
        }
    }
    Ok(done)
}

macro_rules! table {
    ($($nr:ident $name:ident $args:literal $f:expr;)*) => {
        /// The system calls of this module.
        pub static TABLE: &[Syscall] = &[
            $( Syscall { nr: libc::$nr as u32, name: stringify!($name), args: $args, f: $f }, )*
        ];
    };
}
table! {
    SYS_open open "sxo" open;
    SYS_openat openat "dsxo" openat;
    SYS_openat2 openat2 "dspu" openat2;
    SYS_creat creat "so" creat;
    SYS_stat stat "sp" stat;
    SYS_lstat lstat "sp" lstat;
    SYS_fstat fstat "fp" fstat;
    SYS_newfstatat newfstatat "dspx" newfstatat;
    SYS_statx statx "dsxxp" statx;
    SYS_access access "so" access;
    SYS_faccessat faccessat "dso" faccessat;
    SYS_faccessat2 faccessat2 "dsox" faccessat2;
    SYS_mkdir mkdir "so" mkdir;
    SYS_mkdirat mkdirat "dso" mkdirat;
    SYS_mknod mknod "sox" mknod;
    SYS_mknodat mknodat "dsox" mknodat;
    SYS_symlink symlink "ss" symlink;
    SYS_symlinkat symlinkat "sds" symlinkat;
    SYS_rmdir rmdir "s" rmdir;
    SYS_unlink unlink "s" unlink;
    SYS_unlinkat unlinkat "dsx" unlinkat;
    SYS_rename rename "ss" rename;
    SYS_renameat renameat "dsds" renameat;
    SYS_renameat2 renameat2 "dsdsx" renameat2;
    SYS_link link "ss" link;
    SYS_linkat linkat "dsdsx" linkat;
    SYS_readlink readlink "spu" readlink;
    SYS_readlinkat readlinkat "dspu" readlinkat;
    SYS_chmod chmod "so" chmod;
    SYS_fchmod fchmod "fo" fchmod;
    SYS_fchmodat fchmodat "dso" fchmodat;
    SYS_fchmodat2 fchmodat2 "dsox" fchmodat2;
    SYS_chown chown "sdd" chown;
    SYS_lchown lchown "sdd" lchown;
    SYS_fchown fchown "fdd" fchown;
    SYS_fchownat fchownat "dsddx" fchownat;
    SYS_utime utime "sp" utime;
    SYS_utimes utimes "sp" utimes;
    SYS_futimesat futimesat "dsp" futimesat;
    SYS_utimensat utimensat "dspx" utimensat;
    SYS_truncate truncate "sl" truncate;
    SYS_ftruncate ftruncate "fl" ftruncate;
    SYS_fallocate fallocate "fxll" fallocate;
    SYS_getdents getdents "fpu" getdents;
    SYS_getdents64 getdents64 "fpu" getdents64;
    SYS_chdir chdir "s" chdir;
    SYS_fchdir fchdir "f" fchdir;
    SYS_getcwd getcwd "pu" getcwd;
    SYS_umask umask "o" umask;
    SYS_statfs statfs "sp" statfs;
    SYS_fstatfs fstatfs "fp" fstatfs;
    SYS_sync sync "" sync;
    SYS_fsync fsync "f" fsync;
    SYS_fdatasync fdatasync "f" fdatasync;
    SYS_syncfs syncfs "f" syncfs;
    SYS_sync_file_range sync_file_range "fllx" sync_file_range;
    SYS_fadvise64 fadvise64 "flld" fadvise64;
    SYS_readahead readahead "flu" readahead;
    SYS_flock flock "fx" flock;
    SYS_setxattr setxattr "sspux" setxattr;
    SYS_lsetxattr lsetxattr "sspux" lsetxattr;
    SYS_fsetxattr fsetxattr "fspux" fsetxattr;
    SYS_getxattr getxattr "sspu" getxattr;
    SYS_lgetxattr lgetxattr "sspu" lgetxattr;
    SYS_fgetxattr fgetxattr "fspu" fgetxattr;
    SYS_listxattr listxattr "spu" listxattr;
    SYS_llistxattr llistxattr "spu" llistxattr;
    SYS_flistxattr flistxattr "fpu" flistxattr;
    SYS_removexattr removexattr "ss" removexattr;
    SYS_lremovexattr lremovexattr "ss" lremovexattr;
    SYS_fremovexattr fremovexattr "fs" fremovexattr;
    SYS_name_to_handle_at name_to_handle_at "dsppx" unsupported;
    SYS_open_by_handle_at open_by_handle_at "dpx" forbidden;
    SYS_mount mount "sssxp" forbidden;
    SYS_umount2 umount2 "sx" forbidden;
    SYS_pivot_root pivot_root "ss" forbidden;
    SYS_chroot chroot "s" forbidden;
    SYS_memfd_create memfd_create "sx" memfd_create;
    SYS_copy_file_range copy_file_range "fpfpux" copy_file_range;
}
