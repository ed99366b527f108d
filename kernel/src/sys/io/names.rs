//! Sockets in the file system: the inode is the name.

use crate::errno::{Errno, Result};
use crate::fs::node::{W, kind_of};
use crate::fs::{Caller, Make, base};
use crate::io::socket::Key;
use crate::task::Task;

/// Make the socket inode for bind(2); EADDRINUSE if the path exists.
pub(super) fn make_socket(task: &Task, path: &[u8]) -> Result<Key> {
    let at = base(task, libc::AT_FDCWD, path)?;
    let mode = 0o777 & !task.fs().umask();
    let e = task.fs().ns().make(&Caller::of(task), &at, path, Make::Socket, mode);
    let e = e.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
    Ok(Key::Inode(e.stat.dev, e.stat.ino))
}

/// The socket inode for connect(2); ECONNREFUSED if it is none, EACCES without write permission.
pub(super) fn find_socket(task: &Task, path: &[u8]) -> Result<Key> {
    let at = base(task, libc::AT_FDCWD, path)?;
    let who = Caller::of(task);
    let e = task.fs().ns().resolve(&who, &at, path, true)?;
    who.check(&e.stat, W)?;
    if kind_of(e.stat.mode) != libc::S_IFSOCK {
        return Err(Errno::ECONNREFUSED);
    }
    Ok(Key::Inode(e.stat.dev, e.stat.ino))
}
