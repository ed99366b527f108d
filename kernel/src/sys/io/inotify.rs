//! inotify: making instances, adding and removing watches.

use super::control::insert_anon;
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::inotify::Inotify;
use crate::task::Task;
use std::sync::Arc;

const CLOEXEC: u64 = libc::O_CLOEXEC as u64;
const NONBLOCK: u64 = libc::O_NONBLOCK as u64;

pub(super) fn inotify_init(task: &mut Task, _: [u64; 6]) -> Result<u64> {
    inotify_init1(task, [0; 6])
}

pub(super) fn inotify_init1(task: &mut Task, [flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(CLOEXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    insert_anon(task, Inotify::new(), flags, "anon_inode:inotify")
}

fn inotify(d: &Description) -> Result<Arc<Inotify>> {
    d.file.as_any().downcast_ref::<Inotify>().and_then(Inotify::this).ok_or(Errno::EINVAL)
}

pub(super) fn inotify_add_watch(task: &mut Task, [fd, path, mask, ..]: [u64; 6]) -> Result<u64> {
    let mask = mask as u32;
    let known = libc::IN_ALL_EVENTS
        | libc::IN_ONLYDIR
        | libc::IN_DONT_FOLLOW
        | libc::IN_EXCL_UNLINK
        | libc::IN_MASK_ADD
        | libc::IN_MASK_CREATE
        | libc::IN_ONESHOT;
    let both = libc::IN_MASK_ADD | libc::IN_MASK_CREATE;
    // At least one of the bits that the kernel knows must be there.
    if mask & (known | libc::IN_UNMOUNT | libc::IN_Q_OVERFLOW | libc::IN_IGNORED | libc::IN_ISDIR) == 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    if mask & both == both {
        return Err(Errno::EINVAL);
    }
    let i = inotify(&d)?;
    let p = crate::sys::fs::path(task, path)?;
    let who = crate::fs::Caller::of(task);
    let flags = if mask & libc::IN_DONT_FOLLOW != 0 { libc::AT_SYMLINK_NOFOLLOW as u32 } else { 0 };
    let e = crate::fs::at(task, &who, libc::AT_FDCWD, &p, flags)?;
    if mask & libc::IN_ONLYDIR != 0 && !crate::fs::node::is_dir(e.stat.mode) {
        return Err(Errno::ENOTDIR);
    }
    who.check(&e.stat, crate::fs::node::R)?;
    task.fs().ns().watches.add(&i, &e.place.node, &e.stat, mask).map(|wd| wd as u64)
}

pub(super) fn inotify_rm_watch(task: &mut Task, [fd, wd, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let i = inotify(&d)?;
    task.fs().ns().watches.remove(&i, wd as i32).map(|()| 0)
}
