//! Opening and creating files, by name and without.

use super::{Args, CWD, known, masked, path};
use crate::errno::{Errno, Result};
use crate::fs::{Caller, Scope, base};
use crate::task::Task;

fn do_open(task: &mut Task, dirfd: i32, p: &[u8], flags: u32, mode: u64) -> Result<u64> {
    const TMPFILE: u32 = (libc::O_TMPFILE & !libc::O_DIRECTORY) as u32;
    if flags & TMPFILE != 0
        && (flags & libc::O_TMPFILE as u32 != libc::O_TMPFILE as u32
            || flags as i32 & libc::O_ACCMODE == libc::O_RDONLY)
    {
        return Err(Errno::EINVAL);
    }
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
pub(super) fn open(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[0])?;
    do_open(task, CWD, &p, a[1] as u32, a[2])
}
pub(super) fn openat(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[1])?;
    do_open(task, a[0] as i32, &p, a[2] as u32, a[3])
}
pub(super) fn creat(task: &mut Task, a: Args) -> Result<u64> {
    let p = path(task, a[0])?;
    do_open(task, CWD, &p, (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC) as u32, a[1])
}
pub(super) fn openat2(task: &mut Task, a: Args) -> Result<u64> {
    if a[3] < 24 {
        return Err(Errno::EINVAL);
    }
    if a[3] > 4096 {
        return Err(Errno::E2BIG);
    }
    let m = task.mem();
    for i in 24..a[3] {
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
pub(super) fn memfd_create(task: &mut Task, a: Args) -> Result<u64> {
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
