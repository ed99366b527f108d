//! What there is to know of a file: stat, statx, access, and the file system it is on.

use super::{Args, CWD, EMPTY, NOFOLLOW, known, path};
use crate::errno::{Errno, Result};
use crate::file::Stat;
use crate::fs::node::{self, R, W, X};
use crate::fs::{Caller, Opened, Place, at};
use crate::task::Task;

/// What stat-like calls accept besides: AT_NO_AUTOMOUNT and the AT_STATX_* hints.
const STAT_FLAGS: u32 = NOFOLLOW | EMPTY | 0x800 | 0x6000;

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
pub(super) fn stat(task: &mut Task, a: Args) -> Result<u64> {
    let s = stat_at(task, CWD, &path(task, a[0])?, 0)?.0;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
pub(super) fn lstat(task: &mut Task, a: Args) -> Result<u64> {
    let s = stat_at(task, CWD, &path(task, a[0])?, NOFOLLOW)?.0;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
pub(super) fn fstat(task: &mut Task, a: Args) -> Result<u64> {
    let s = task.fds().get(a[0] as i32)?.file.stat()?;
    task.mem().copy_in(a[1], &stat_bytes(&s))?;
    Ok(0)
}
pub(super) fn newfstatat(task: &mut Task, a: Args) -> Result<u64> {
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
pub(super) fn statx(task: &mut Task, a: Args) -> Result<u64> {
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

/// Looked at before all else.
fn access_mode(mode: u64) -> Result<()> {
    known(mode as u32, R | W | X)
}
fn do_access(task: &Task, dirfd: i32, p: &[u8], mode: u64, flags: u32) -> Result<u64> {
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
pub(super) fn access(task: &mut Task, a: Args) -> Result<u64> {
    access_mode(a[1])?;
    do_access(task, CWD, &path(task, a[0])?, a[1], 0)
}
pub(super) fn faccessat(task: &mut Task, a: Args) -> Result<u64> {
    access_mode(a[2])?;
    do_access(task, a[0] as i32, &path(task, a[1])?, a[2], 0)
}
pub(super) fn faccessat2(task: &mut Task, a: Args) -> Result<u64> {
    access_mode(a[2])?;
    do_access(task, a[0] as i32, &optional_path(task, a[1], a[3] as u32)?, a[2], a[3] as u32)
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
pub(super) fn statfs(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    put_statfs(task, a[1], Some(&e.place))
}
pub(super) fn fstatfs(task: &mut Task, a: Args) -> Result<u64> {
    let d = task.fds().get(a[0] as i32)?;
    put_statfs(task, a[1], Opened::of(&d).map(|o| &o.place))
}
