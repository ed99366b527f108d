//! Timers, signals and processes as descriptors.

use super::control::insert_anon;
use super::waiting;
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::pidfd::PidFd;
use crate::io::signalfd::SignalFd;
use crate::io::timerfd::{Setting, TimerFd};
use crate::signal::{SigInfo, UNBLOCKABLE};
use crate::task::Task;
use std::sync::Arc;
use std::time::Duration;

const CLOEXEC: u64 = libc::O_CLOEXEC as u64;
const NONBLOCK: u64 = libc::O_NONBLOCK as u64;

pub(super) fn timerfd_create(task: &mut Task, [clock, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(CLOEXEC | NONBLOCK) != 0 {
        return Err(Errno::EINVAL);
    }
    let realtime = match clock as i32 {
        libc::CLOCK_REALTIME => true,
        libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => false,
        libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        _ => return Err(Errno::EINVAL),
    };
    insert_anon(task, TimerFd::new(task.kernel(), realtime), flags, "anon_inode:[timerfd]")
}

fn timer(d: &Description) -> Result<&TimerFd> {
    d.file.as_any().downcast_ref().ok_or(Errno::EINVAL)
}

fn put_setting(task: &Task, addr: u64, s: Setting) -> Result<()> {
    for (i, d) in [s.interval, s.value].into_iter().enumerate() {
        let at = addr.wrapping_add(i as u64 * 16);
        task.mem().write(at, d.as_secs())?;
        task.mem().write(at.wrapping_add(8), u64::from(d.subsec_nanos()))?;
    }
    Ok(())
}

pub(super) fn timerfd_settime(task: &mut Task, [fd, flags, new, old, ..]: [u64; 6]) -> Result<u64> {
    const ABSTIME: u64 = libc::TFD_TIMER_ABSTIME as u64;
    const CANCEL_ON_SET: u64 = libc::TFD_TIMER_CANCEL_ON_SET as u64; // the clock is never set
    let get = |at: u64| -> Result<Duration> { waiting::time(task, at, 1)?.ok_or(Errno::EFAULT) };
    let setting = Setting { interval: get(new)?, value: get(new.wrapping_add(16))? };
    if flags & !(ABSTIME | CANCEL_ON_SET) != 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    let was = timer(&d)?.set(setting, flags & ABSTIME != 0);
    if old != 0 {
        put_setting(task, old, was)?;
    }
    Ok(0)
}

pub(super) fn timerfd_gettime(task: &mut Task, [fd, out, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    put_setting(task, out, timer(&d)?.get()).map(|()| 0)
}

pub(super) fn signalfd(task: &mut Task, [fd, mask, size, ..]: [u64; 6]) -> Result<u64> {
    signalfd4(task, [fd, mask, size, 0, 0, 0])
}

pub(super) fn signalfd4(task: &mut Task, [fd, mask, size, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(CLOEXEC | NONBLOCK) != 0 || size != 8 {
        return Err(Errno::EINVAL);
    }
    let mask = task.mem().read::<u64>(mask)? & !UNBLOCKABLE;
    if fd as i32 == -1 {
        return insert_anon(task, Arc::new(SignalFd::new(&task.process, mask)), flags, "anon_inode:[signalfd]");
    }
    let d = task.fds().get_io(fd as i32)?;
    d.file.as_any().downcast_ref::<SignalFd>().ok_or(Errno::EINVAL)?.set_mask(mask);
    Ok(fd)
}

pub(super) fn pidfd_open(task: &mut Task, [pid, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !NONBLOCK != 0 || pid as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel();
    let p = match kernel.process(pid as i32) {
        Some(p) => p,
        // A thread that is no leader is not a process.
        None if kernel.thread(pid as i32).is_some() => return Err(Errno::EINVAL),
        None => return Err(Errno::ESRCH),
    };
    task.fds().insert(PidFd::describe(&p, flags as u32), true).map(|n| n as u64)
}

pub(super) fn pidfd_send_signal(task: &mut Task, [fd, sig, info, flags, ..]: [u64; 6]) -> Result<u64> {
    let sig = sig as i32;
    if flags != 0 || !(0..=64).contains(&sig) {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    // Before there were pidfds, directories of /proc were.
    let in_proc = crate::fs::procfs::process_of(&d);
    let p = in_proc.as_ref().map_or_else(|| PidFd::of(&d), Ok)?;
    if task.kernel().process(p.pid).is_none_or(|q| !Arc::ptr_eq(p, &q)) {
        return Err(Errno::ESRCH);
    }
    let own = task.process.credentials();
    let other = p.credentials();
    if own.euid != 0 && ![own.euid, own.uid].iter().any(|u| [other.uid, other.suid].contains(u)) {
        return Err(Errno::EPERM);
    }
    let info = match info {
        0 => SigInfo::user(sig, task.pid(), own.uid),
        at => {
            let mut b = [0u8; 128];
            task.mem().copy_out(at, &mut b)?;
            let i = SigInfo::from_bytes(sig, &b);
            if b.first_chunk().is_none_or(|s| i32::from_le_bytes(*s) != sig) {
                return Err(Errno::EINVAL);
            }
            if (i.code >= 0 || i.code == libc::SI_TKILL) && p.pid != task.pid() {
                return Err(Errno::EPERM);
            }
            i
        }
    };
    p.signal(info).map(|()| 0)
}

pub(super) fn pidfd_getfd(task: &mut Task, [fd, target, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    let p = PidFd::of(&d)?;
    let (a, b) = (task.process.credentials(), p.credentials());
    if a.euid != 0 && (a.fsuid != b.uid || a.fsuid != b.euid) {
        return Err(Errno::EPERM);
    }
    let got = p.fds().get(target as i32)?;
    task.fds().insert(got, true).map(|n| n as u64)
}
