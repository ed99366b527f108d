//! Record locks of fcntl(2).

use super::{readable, writable};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::fs::locks::{Owner, Record};
use crate::io::lock;
use crate::task::Task;

pub(super) fn fcntl(task: &Task, d: &Description, cmd: i32, arg: u64) -> Result<u64> {
    let ofd = matches!(cmd, libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW);
    let mut b = [0u8; 32];
    task.mem().copy_out(arg, &mut b)?;
    let short = |i: usize| i16::from_le_bytes([b[i], b[i + 1]]);
    let long = |i: usize| b[i..].first_chunk().map_or(0, |w| i64::from_le_bytes(*w));
    let (kind, whence, start, len) = (i32::from(short(0)), i32::from(short(2)), long(8), long(16));
    if ofd && long(24) as i32 != 0 {
        return Err(Errno::EINVAL);
    }
    let origin = match whence {
        libc::SEEK_SET => 0,
        libc::SEEK_CUR => *lock(&d.pos) as i64,
        libc::SEEK_END => d.file.stat()?.size as i64,
        _ => return Err(Errno::EINVAL),
    };
    let first = origin.checked_add(start).ok_or(Errno::EOVERFLOW)?;
    // A negative length is the bytes before; 0 is to the end.
    let (first, last) = match len {
        0 => (first, i64::MAX),
        l if l > 0 => (first, first.checked_add(l - 1).ok_or(Errno::EOVERFLOW)?),
        l => (first.checked_add(l).ok_or(Errno::EINVAL)?, first - 1),
    };
    if first < 0 || last < 0 {
        return Err(Errno::EINVAL);
    }
    let range = (first as u64, if last == i64::MAX { u64::MAX } else { last as u64 });
    let owner = if ofd { crate::fs::lock_owner(d) } else { Owner::Process(task.pid()) };
    let key = crate::fs::lock_key(d)?;
    let locks = &task.fs().ns().locks;
    let want = |write: bool| Record { owner, write, start: range.0, end: range.1 };
    if matches!(cmd, libc::F_GETLK | libc::F_OFD_GETLK) {
        let write = match kind {
            libc::F_RDLCK => false,
            libc::F_WRLCK => true,
            _ => return Err(Errno::EINVAL),
        };
        match locks.test(key, &want(write)) {
            None => b[0..2].copy_from_slice(&(libc::F_UNLCK as i16).to_le_bytes()),
            Some(r) => {
                let kind = if r.write { libc::F_WRLCK } else { libc::F_RDLCK };
                b[0..2].copy_from_slice(&(kind as i16).to_le_bytes());
                b[2..4].fill(0);
                b[8..16].copy_from_slice(&r.start.to_le_bytes());
                let n = if r.end == u64::MAX { 0 } else { r.end - r.start + 1 };
                b[16..24].copy_from_slice(&n.to_le_bytes());
                let pid = match r.owner {
                    Owner::Process(p) => p,
                    Owner::Description(_) => -1,
                };
                b[24..28].copy_from_slice(&pid.to_le_bytes());
            }
        }
        task.mem().copy_in(arg, &b)?;
        return Ok(0);
    }
    let wait = matches!(cmd, libc::F_SETLKW | libc::F_OFD_SETLKW);
    match kind {
        libc::F_UNLCK => {
            locks.unlock(key, owner, range.0, range.1);
            return Ok(0);
        }
        libc::F_RDLCK => readable(d)?,
        libc::F_WRLCK => writable(d)?,
        _ => return Err(Errno::EINVAL),
    }
    locks.set(task, key, want(kind == libc::F_WRLCK), wait).map(|()| 0)
}
