//! Names: making, removing, renaming and linking.

use super::{Args, CWD, EMPTY, NOFOLLOW, known, masked, path};
use crate::errno::{Errno, Result};
use crate::fs::node;
use crate::fs::{Caller, Make, at, base};
use crate::task::Task;

fn make(task: &Task, dirfd: i32, p: &[u8], what: Make<'_>, mode: u32) -> Result<u64> {
    task.fs().ns().make(&Caller::of(task), &base(task, dirfd, p)?, p, what, mode)?;
    Ok(0)
}
pub(super) fn mkdir(task: &mut Task, a: Args) -> Result<u64> {
    make(task, CWD, &path(task, a[0])?, Make::Dir, masked(task, a[1] & 0o1777))
}
pub(super) fn mkdirat(task: &mut Task, a: Args) -> Result<u64> {
    make(task, a[0] as i32, &path(task, a[1])?, Make::Dir, masked(task, a[2] & 0o1777))
}
/// Nobody makes devices here; that is known after the name has been looked at.
fn no_device(task: &Task, dirfd: i32, p: &[u8]) -> Result<u64> {
    match at(task, &Caller::of(task), dirfd, p, NOFOLLOW) {
        Ok(_) => Err(Errno::EEXIST),
        Err(Errno::ENOENT) => Err(Errno::EPERM),
        Err(e) => Err(e),
    }
}
fn do_mknod(task: &Task, dirfd: i32, p: u64, mode: u64) -> Result<u64> {
    let what = match node::kind_of(mode as u32) {
        0 | libc::S_IFREG => Make::File,
        libc::S_IFIFO => Make::Fifo,
        libc::S_IFSOCK => Make::Socket,
        libc::S_IFCHR | libc::S_IFBLK => return no_device(task, dirfd, &path(task, p)?),
        libc::S_IFDIR => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    make(task, dirfd, &path(task, p)?, what, masked(task, mode))
}
pub(super) fn mknod(task: &mut Task, a: Args) -> Result<u64> {
    do_mknod(task, CWD, a[0], a[1])
}
pub(super) fn mknodat(task: &mut Task, a: Args) -> Result<u64> {
    do_mknod(task, a[0] as i32, a[1], a[2])
}
fn do_symlink(task: &Task, to: u64, dirfd: i32, p: u64) -> Result<u64> {
    let to = path(task, to)?;
    make(task, dirfd, &path(task, p)?, Make::Symlink(&to), 0o777)
}
pub(super) fn symlink(task: &mut Task, a: Args) -> Result<u64> {
    do_symlink(task, a[0], CWD, a[1])
}
pub(super) fn symlinkat(task: &mut Task, a: Args) -> Result<u64> {
    do_symlink(task, a[0], a[1] as i32, a[2])
}
fn remove(task: &Task, dirfd: i32, p: u64, dir: bool) -> Result<u64> {
    let p = path(task, p)?;
    task.fs().ns().remove(&Caller::of(task), &base(task, dirfd, &p)?, &p, dir)?;
    Ok(0)
}
pub(super) fn rmdir(task: &mut Task, a: Args) -> Result<u64> {
    remove(task, CWD, a[0], true)
}
pub(super) fn unlink(task: &mut Task, a: Args) -> Result<u64> {
    remove(task, CWD, a[0], false)
}
pub(super) fn unlinkat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[2] as u32, libc::AT_REMOVEDIR as u32)?;
    remove(task, a[0] as i32, a[1], a[2] != 0)
}
fn do_rename(task: &Task, from: (i32, u64), to: (i32, u64), flags: u32) -> Result<u64> {
    let (p, q) = (path(task, from.1)?, path(task, to.1)?);
    let (pd, qd) = (base(task, from.0, &p)?, base(task, to.0, &q)?);
    task.fs().ns().rename(&Caller::of(task), &pd, &p, &qd, &q, flags)?;
    Ok(0)
}
pub(super) fn rename(task: &mut Task, a: Args) -> Result<u64> {
    do_rename(task, (CWD, a[0]), (CWD, a[1]), 0)
}
pub(super) fn renameat(task: &mut Task, a: Args) -> Result<u64> {
    do_rename(task, (a[0] as i32, a[1]), (a[2] as i32, a[3]), 0)
}
pub(super) fn renameat2(task: &mut Task, a: Args) -> Result<u64> {
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
pub(super) fn link(task: &mut Task, a: Args) -> Result<u64> {
    do_link(task, (CWD, a[0]), (CWD, a[1]), 0)
}
pub(super) fn linkat(task: &mut Task, a: Args) -> Result<u64> {
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
pub(super) fn readlink(task: &mut Task, a: Args) -> Result<u64> {
    do_readlink(task, CWD, a[0], a[1], a[2])
}
pub(super) fn readlinkat(task: &mut Task, a: Args) -> Result<u64> {
    do_readlink(task, a[0] as i32, a[1], a[2], a[3])
}
