//! Extended attributes.

use super::{Args, CWD, NOFOLLOW, path};
use crate::errno::{Errno, Result};
use crate::fs::xattr::{NAME_MAX, SIZE_MAX};
use crate::fs::{Caller, Entry, at, by_fd};
use crate::task::Task;

/// What the first argument is.
#[derive(Clone, Copy)]
enum Of {
    Path,
    /// A path whose last component is not followed.
    Link,
    Fd,
}

/// The file; `None`: one that belongs to no file system.
fn file(task: &Task, a: &Args, of: Of) -> Result<Option<Entry>> {
    let flags = match of {
        Of::Path => 0,
        Of::Link => NOFOLLOW,
        Of::Fd => {
            return match by_fd(&*task.fds().get_io(a[0] as i32)?) {
                Err(Errno::EINVAL) => Ok(None),
                r => r.map(Some),
            };
        }
    };
    at(task, &Caller::of(task), CWD, &path(task, a[0])?, flags).map(Some)
}

fn name(task: &Task, addr: u64) -> Result<Vec<u8>> {
    let name = task.mem().read_cstr(addr, NAME_MAX)?;
    name.filter(|n| !n.is_empty()).ok_or(Errno::ERANGE)
}

/// Give out a value or a list; without room only its length is wanted.
fn put(task: &Task, out: &[u8], addr: u64, size: u64) -> Result<u64> {
    if size != 0 {
        if (out.len() as u64) > size {
            return Err(Errno::ERANGE);
        }
        task.mem().copy_in(addr, out)?;
    }
    Ok(out.len() as u64)
}

fn set(task: &Task, a: &Args, of: Of) -> Result<u64> {
    let (size, flags) = (a[3] as usize, a[4] as i32);
    if flags & !(libc::XATTR_CREATE | libc::XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL);
    }
    let name = name(task, a[1])?;
    if size > SIZE_MAX {
        return Err(Errno::E2BIG);
    }
    let mut value = vec![0; size];
    task.mem().copy_out(a[2], &mut value)?;
    let e = file(task, a, of)?.ok_or(Errno::EPERM)?;
    task.fs().ns().set_xattr(&Caller::of(task), &e, &name, Some(&value), flags)?;
    Ok(0)
}

fn get(task: &Task, a: &Args, of: Of) -> Result<u64> {
    let name = name(task, a[1])?;
    let e = file(task, a, of)?.ok_or(Errno::ENODATA)?;
    let value = task.fs().ns().xattr(&Caller::of(task), &e, &name)?;
    put(task, &value, a[2], a[3])
}

fn list(task: &Task, a: &Args, of: Of) -> Result<u64> {
    let names = match file(task, a, of)? {
        Some(e) => task.fs().ns().xattrs(&e)?,
        None => Vec::new(),
    };
    put(task, &names, a[1], a[2])
}

fn remove(task: &Task, a: &Args, of: Of) -> Result<u64> {
    let name = name(task, a[1])?;
    let e = file(task, a, of)?.ok_or(Errno::EPERM)?;
    task.fs().ns().set_xattr(&Caller::of(task), &e, &name, None, 0)?;
    Ok(0)
}

macro_rules! calls {
    ($($set:ident $get:ident $list:ident $remove:ident $of:expr;)*) => { $(
        pub(super) fn $set(task: &mut Task, a: Args) -> Result<u64> {
            set(task, &a, $of)
        }
        pub(super) fn $get(task: &mut Task, a: Args) -> Result<u64> {
            get(task, &a, $of)
        }
        pub(super) fn $list(task: &mut Task, a: Args) -> Result<u64> {
            list(task, &a, $of)
        }
        pub(super) fn $remove(task: &mut Task, a: Args) -> Result<u64> {
            remove(task, &a, $of)
        }
    )* };
}
calls! {
    setxattr getxattr listxattr removexattr Of::Path;
    lsetxattr lgetxattr llistxattr lremovexattr Of::Link;
    fsetxattr fgetxattr flistxattr fremovexattr Of::Fd;
}
