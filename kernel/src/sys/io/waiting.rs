//! poll, select and epoll.

use super::control::insert_anon;
use crate::errno::{Errno, Result};
use crate::file::{Description, Ready};
use crate::io::epoll::{Epoll, Event};
use crate::io::poll::{self, Interest};
use crate::task::{Deadline, Task};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When a wait ends, and what to tell the clock then.
enum Until {
    Never,
    Now,
    At(Deadline),
}

impl Until {
    fn new(task: &mut Task, timeout: Option<Duration>) -> Until {
        match timeout {
            None => Until::Never,
            Some(Duration::ZERO) => Until::Now,
            Some(t) => Until::At(task.deadline(t)),
        }
    }
    fn host(&self) -> Option<Instant> {
        match self {
            Until::Never => None,
            Until::Now => Some(Instant::now()),
            Until::At(d) => d.host,
        }
    }
    /// The wait ended with nothing found.
    fn reached(&self, task: &Task) {
        if let Until::At(d) = self {
            task.kernel().clock.reached(d.at);
        }
    }
    fn left(&self, task: &Task) -> Option<Duration> {
        match self {
            Until::Never => None,
            Until::Now => Some(Duration::ZERO),
            Until::At(d) => Some(d.at.saturating_sub(task.kernel().clock.peek())),
        }
    }
}

fn milliseconds(t: i32) -> Option<Duration> {
    u64::try_from(t).ok().map(Duration::from_millis)
}

/// A timespec in guest memory (`unit` 1) or a timeval (`unit` 1000); 0 = none.
pub(super) fn time(task: &Task, addr: u64, unit: u64) -> Result<Option<Duration>> {
    if addr == 0 {
        return Ok(None);
    }
    let (s, n) = (task.mem().read::<i64>(addr)?, task.mem().read::<i64>(addr.wrapping_add(8))?);
    let per = 1_000_000_000 / unit;
    let (Ok(s), Ok(n)) = (u64::try_from(s), u64::try_from(n)) else {
        return Err(Errno::EINVAL);
    };
    // A timeval may hold more than a second of microseconds.
    if unit == 1 && n >= per {
        return Err(Errno::EINVAL);
    }
    Ok(Some(Duration::from_secs(s.saturating_add(n / per)).saturating_add(Duration::from_nanos(n % per * unit))))
}

fn put_left(task: &Task, addr: u64, unit: u64, until: &Until) {
    if addr == 0 {
        return;
    }
    if let Some(d) = until.left(task) {
        // The memory may be read-only: Linux ignores that too.
        let _ = task.mem().write(addr, d.as_secs());
        let _ = task.mem().write(addr + 8, u64::from(d.subsec_nanos()) / unit);
    }
}

fn poll_fds(task: &Task, fds: u64, n: u64, until: &Until) -> Result<u64> {
    let n = n as u32 as usize;
    if n > task.fds().limit() as usize {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0u8; n * 8];
    task.mem().copy_out(fds, &mut raw)?;
    let mut set = Vec::with_capacity(n);
    let mut index = Vec::with_capacity(n);
    for (i, e) in raw.chunks_exact(8).enumerate() {
        let fd = i32::from_le_bytes([e[0], e[1], e[2], e[3]]);
        if fd >= 0 {
            let events = Ready::from_bits_retain(u32::from(u16::from_le_bytes([e[4], e[5]])));
            set.push(Interest { desc: task.fds().get_io(fd).ok(), events, found: Ready::empty() });
            index.push(i);
        }
    }
    let r = poll::wait(task, &mut set, until.host())?;
    for e in raw.chunks_exact_mut(8) {
        e[6..8].fill(0);
    }
    for (i, x) in index.iter().zip(&set) {
        raw[i * 8 + 6..i * 8 + 8].copy_from_slice(&(x.found.bits() as u16).to_le_bytes());
    }
    for (i, e) in raw.chunks_exact(8).enumerate() {
        task.mem().write(fds + i as u64 * 8 + 6, u16::from_le_bytes([e[6], e[7]]))?;
    }
    if r == 0 {
        until.reached(task);
    }
    Ok(r as u64)
}

pub(super) fn poll(task: &mut Task, [fds, n, timeout, ..]: [u64; 6]) -> Result<u64> {
    let until = Until::new(task, milliseconds(timeout as i32));
    poll_fds(task, fds, n, &until)
}

pub(super) fn ppoll(task: &mut Task, [fds, n, timeout, mask, size, _]: [u64; 6]) -> Result<u64> {
    let t = time(task, timeout, 1)?;
    let until = Until::new(task, t);
    task.temporary_mask(mask, size)?;
    let r = poll_fds(task, fds, n, &until);
    put_left(task, timeout, 1, &until);
    r
}

/// The three sets of select: address, readiness that sets the bit, readiness asked for.
const IN_SET: u32 = Ready::IN.bits() | Ready::HUP.bits() | Ready::ERR.bits();
const OUT_SET: u32 = Ready::OUT.bits() | Ready::ERR.bits();
const EX_SET: u32 = Ready::PRI.bits();

fn select_fds(task: &Task, n: u64, sets: [u64; 3], until: &Until) -> Result<u64> {
    let n = n as i32;
    if n < 0 {
        return Err(Errno::EINVAL);
    }
    // Numbers past the end of the table are not looked at, open or not.
    let n = (n as usize).min(task.fds().table_len());
    let words = n.div_ceil(64);
    let mut bits = [const { Vec::new() }; 3];
    for (v, addr) in bits.iter_mut().zip(sets) {
        *v = vec![0u64; words];
        if addr != 0 {
            for (i, w) in v.iter_mut().enumerate() {
                *w = task.mem().read(addr.wrapping_add(i as u64 * 8))?;
            }
        }
    }
    let mut set = Vec::new();
    let mut fds = Vec::new();
    for fd in 0..n {
        let mut events = Ready::empty();
        for (v, e) in bits.iter().zip([Ready::IN, Ready::OUT, Ready::PRI]) {
            events.set(e, v[fd / 64] >> (fd % 64) & 1 != 0);
        }
        if !events.is_empty() {
            set.push(Interest { desc: Some(task.fds().get_io(fd as i32)?), events, found: Ready::empty() });
            fds.push(fd);
        }
    }
    // ERR and HUP are found without being asked for, but count only where they set a bit.
    let hit = |set: &[Interest]| {
        let mut out = [const { Vec::new() }; 3];
        let mut count = 0;
        for (k, o) in out.iter_mut().enumerate() {
            *o = vec![0u64; words];
            for (fd, i) in fds.iter().zip(set) {
                let (asked, sets) = [(Ready::IN, IN_SET), (Ready::OUT, OUT_SET), (Ready::PRI, EX_SET)][k];
                if i.events.contains(asked) && i.found.bits() & sets != 0 {
                    o[fd / 64] |= 1 << (fd % 64);
                    count += 1;
                }
            }
        }
        (out, count)
    };
    let r = poll::wait(task, &mut set, until.host())?;
    let (out, count) = hit(&set);
    for (v, addr) in out.iter().zip(sets) {
        if addr != 0 {
            for (i, w) in v.iter().enumerate() {
                task.mem().write(addr.wrapping_add(i as u64 * 8), *w)?;
            }
        }
    }
    if r == 0 {
        until.reached(task);
    }
    Ok(count)
}

pub(super) fn select(task: &mut Task, [n, r, w, e, timeout, _]: [u64; 6]) -> Result<u64> {
    let t = time(task, timeout, 1000)?;
    let until = Until::new(task, t);
    let res = select_fds(task, n, [r, w, e], &until);
    put_left(task, timeout, 1000, &until);
    res
}

pub(super) fn pselect6(task: &mut Task, [n, r, w, e, timeout, sig]: [u64; 6]) -> Result<u64> {
    let t = time(task, timeout, 1)?;
    let until = Until::new(task, t);
    if sig != 0 {
        let (mask, size) = (task.mem().read(sig)?, task.mem().read(sig.wrapping_add(8))?);
        task.temporary_mask(mask, size)?;
    }
    let res = select_fds(task, n, [r, w, e], &until);
    put_left(task, timeout, 1, &until);
    res
}

pub(super) fn epoll_create(task: &mut Task, [size, ..]: [u64; 6]) -> Result<u64> {
    if size as i32 <= 0 {
        return Err(Errno::EINVAL);
    }
    epoll_create1(task, [0; 6])
}

pub(super) fn epoll_create1(task: &mut Task, [flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !(libc::EPOLL_CLOEXEC as u64) != 0 {
        return Err(Errno::EINVAL);
    }
    insert_anon(task, Arc::new(Epoll::default()), flags, "anon_inode:[eventpoll]")
}

fn epoll_of(d: &Description) -> Result<&Epoll> {
    d.file.as_any().downcast_ref().ok_or(Errno::EINVAL)
}

pub(super) fn epoll_ctl(task: &mut Task, [ep, op, fd, event, ..]: [u64; 6]) -> Result<u64> {
    let op = op as i32;
    let event = match op {
        libc::EPOLL_CTL_DEL => None,
        _ => {
            let (e, d) = (task.mem().read(event)?, task.mem().read(event.wrapping_add(4))?);
            Some(Event { events: e, data: d })
        }
    };
    let this = task.fds().get_io(ep as i32)?;
    let target = task.fds().get_io(fd as i32)?;
    if target.file.queue().is_none() {
        return Err(Errno::EPERM);
    }
    epoll_of(&this)?.ctl(&this, op, fd as i32, &target, event).map(|()| 0)
}

fn epoll_get(task: &Task, ep: u64, events: u64, max: u64, until: &Until) -> Result<u64> {
    let max = max as i32;
    if max <= 0 || max > i32::MAX / 12 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(ep as i32)?;
    let found = epoll_of(&d)?.wait(task, max as usize, until.host())?;
    for (i, e) in found.iter().enumerate() {
        let at = events.wrapping_add(i as u64 * 12);
        task.mem().write(at, e.events)?;
        task.mem().write(at.wrapping_add(4), e.data)?;
    }
    if found.is_empty() {
        until.reached(task);
    }
    Ok(found.len() as u64)
}

pub(super) fn epoll_wait(task: &mut Task, [ep, events, max, timeout, ..]: [u64; 6]) -> Result<u64> {
    let until = Until::new(task, milliseconds(timeout as i32));
    epoll_get(task, ep, events, max, &until)
}

pub(super) fn epoll_pwait(task: &mut Task, [ep, events, max, timeout, mask, size]: [u64; 6]) -> Result<u64> {
    let until = Until::new(task, milliseconds(timeout as i32));
    task.temporary_mask(mask, size)?;
    epoll_get(task, ep, events, max, &until)
}

pub(super) fn epoll_pwait2(task: &mut Task, [ep, events, max, timeout, mask, size]: [u64; 6]) -> Result<u64> {
    let t = time(task, timeout, 1)?;
    let until = Until::new(task, t);
    task.temporary_mask(mask, size)?;
    epoll_get(task, ep, events, max, &until)
}
