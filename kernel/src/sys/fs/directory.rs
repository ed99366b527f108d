//! Listing directories, and a process's own: working directory and umask.

use super::{Args, CWD, path};
use crate::errno::{Errno, Result};
use crate::fs::node::{self, PATH_MAX, X};
use crate::fs::{Caller, Opened, Place, at};
use crate::task::Task;

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
pub(super) fn getdents(task: &mut Task, a: Args) -> Result<u64> {
    dirents(task, a, false)
}
pub(super) fn getdents64(task: &mut Task, a: Args) -> Result<u64> {
    dirents(task, a, true)
}

pub(super) fn chdir(task: &mut Task, a: Args) -> Result<u64> {
    task.fs().chdir(&Caller::of(task), &path(task, a[0])?)?;
    Ok(0)
}
/// An ordinary user may not, which is said of directories that are there.
pub(super) fn chroot(task: &mut Task, a: Args) -> Result<u64> {
    let who = Caller::of(task);
    let e = at(task, &who, CWD, &path(task, a[0])?, 0)?;
    if !node::is_dir(e.stat.mode) {
        return Err(Errno::ENOTDIR);
    }
    who.check(&e.stat, X)?;
    Err(Errno::EPERM)
}
pub(super) fn fchdir(task: &mut Task, a: Args) -> Result<u64> {
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
pub(super) fn getcwd(task: &mut Task, a: Args) -> Result<u64> {
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
pub(super) fn umask(task: &mut Task, a: Args) -> Result<u64> {
    Ok(task.fs().set_umask(a[0] as u32).into())
}
