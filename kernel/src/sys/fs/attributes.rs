//! What is set on a file: permissions, owners and times.

use super::{Args, CWD, EMPTY, NOFOLLOW, known, path};
use crate::errno::{Errno, Result};
use crate::fs::{Caller, Entry, SetTime, at, by_fd};
use crate::task::Task;

fn chmod_entry(task: &Task, e: &Entry, mode: u64) -> Result<u64> {
    task.fs().ns().chmod(&Caller::of(task), e, mode as u32)?;
    Ok(0)
}
pub(super) fn chmod(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    chmod_entry(task, &e, a[1])
}
pub(super) fn fchmod(task: &mut Task, a: Args) -> Result<u64> {
    let e = by_fd(&*task.fds().get_io(a[0] as i32)?)?;
    chmod_entry(task, &e, a[1])
}
pub(super) fn fchmodat(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, 0)?;
    chmod_entry(task, &e, a[2])
}
pub(super) fn fchmodat2(task: &mut Task, a: Args) -> Result<u64> {
    known(a[3] as u32, NOFOLLOW | EMPTY)?;
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[3] as u32)?;
    chmod_entry(task, &e, a[2])
}
fn chown_entry(task: &Task, e: &Entry, uid: u64, gid: u64) -> Result<u64> {
    task.fs().ns().chown(&Caller::of(task), e, uid as u32, gid as u32)?;
    Ok(0)
}
pub(super) fn chown(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    chown_entry(task, &e, a[1], a[2])
}
pub(super) fn lchown(task: &mut Task, a: Args) -> Result<u64> {
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, NOFOLLOW)?;
    chown_entry(task, &e, a[1], a[2])
}
pub(super) fn fchown(task: &mut Task, a: Args) -> Result<u64> {
    let e = by_fd(&*task.fds().get_io(a[0] as i32)?)?;
    chown_entry(task, &e, a[1], a[2])
}
pub(super) fn fchownat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[4] as u32, NOFOLLOW | EMPTY)?;
    let e = at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[4] as u32)?;
    chown_entry(task, &e, a[2], a[3])
}

/// A pair of times as the guest has it in memory; none at 0.
fn raw_times(task: &Task, addr: u64) -> Result<Option<[(i64, i64); 2]>> {
    if addr == 0 {
        return Ok(None);
    }
    let word = |i: u64| task.mem().read::<i64>(addr.wrapping_add(8 * i));
    Ok(Some([(word(0)?, word(1)?), (word(2)?, word(3)?)]))
}
/// What a pair of times says: `scale` is the number of nanoseconds in the second member's unit.
fn times(raw: Option<[(i64, i64); 2]>, scale: i64) -> Result<[Option<SetTime>; 2]> {
    let Some(raw) = raw else {
        return Ok([Some(SetTime::Now); 2]);
    };
    let mut out = [None; 2];
    for (t, (s, n)) in out.iter_mut().zip(raw) {
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
pub(super) fn utime(task: &mut Task, a: Args) -> Result<u64> {
    let t = match a[1] {
        0 => [Some(SetTime::Now); 2],
        p => [Some(SetTime::At(task.mem().read::<i64>(p)?, 0)), Some(SetTime::At(task.mem().read::<i64>(p + 8)?, 0))],
    };
    let e = at(task, &Caller::of(task), CWD, &path(task, a[0])?, 0)?;
    set_times(task, &e, t)
}
pub(super) fn utimes(task: &mut Task, a: Args) -> Result<u64> {
    futimesat(task, [CWD as u64, a[0], a[1], 0, 0, 0])
}
pub(super) fn futimesat(task: &mut Task, a: Args) -> Result<u64> {
    let t = times(raw_times(task, a[2])?, 1000)?;
    // No path, and a descriptor: its file.
    let e = if a[1] == 0 && a[0] as i32 != CWD {
        by_fd(&*task.fds().get_io(a[0] as i32)?)?
    } else {
        at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, 0)?
    };
    set_times(task, &e, t)
}
pub(super) fn utimensat(task: &mut Task, a: Args) -> Result<u64> {
    known(a[3] as u32, NOFOLLOW | EMPTY)?;
    let raw = raw_times(task, a[2])?;
    if raw.is_some_and(|r| r.iter().all(|(_, n)| *n == libc::UTIME_OMIT)) {
        return Ok(0);
    }
    let e = if a[1] == 0 && a[0] as i32 != CWD {
        by_fd(&*task.fds().get_io(a[0] as i32)?)?
    } else {
        at(task, &Caller::of(task), a[0] as i32, &path(task, a[1])?, a[3] as u32)?
    };
    // What the times say is looked at after the name.
    set_times(task, &e, times(raw, 1)?)
}
