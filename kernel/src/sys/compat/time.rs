//! Clocks, sleeping, timers: 32-bit and 64-bit time.

use super::layout::{
    Area, Layout, SIGEVENT, TIMESPEC, TIMESPEC64, TIMESPECS, TIMESPECS64, TIMEVAL, TIMEX, TMS, UTIMBUF,
};
use super::native;
use crate::errno::{Errno, Result};
use crate::task::Task;

type Args = [u64; 6];

/// A call with structures of one layout going in at some arguments and coming out at others.
fn convert(t: &mut Task, nr: i64, mut a: Args, l: &Layout, ins: &[usize], outs: &[usize]) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a;
    for n in ins {
        a[*n] = area.widen(guest[*n], l)?;
    }
    for n in outs {
        a[*n] = area.out(guest[*n], l)?;
    }
    let r = native(t, nr, &a)?;
    for n in outs {
        area.narrow(a[*n], guest[*n], l)?;
    }
    Ok(r)
}

macro_rules! converted {
    ($($name:ident $nr:ident $layout:ident $ins:expr, $outs:expr;)*) => {
        $( pub(super) fn $name(t: &mut Task, a: Args) -> Result<u64> {
            convert(t, libc::$nr, a, &$layout, &$ins, &$outs)
        } )*
    };
}
converted! {
    clock_gettime SYS_clock_gettime TIMESPEC [], [1];
    clock_getres SYS_clock_getres TIMESPEC [], [1];
    sched_rr_get_interval SYS_sched_rr_get_interval TIMESPEC [], [1];
    gettimeofday SYS_gettimeofday TIMEVAL [], [0];
    getitimer SYS_getitimer TIMESPECS [], [1];
    setitimer SYS_setitimer TIMESPECS [1], [2];
    timer_settime SYS_timer_settime TIMESPECS [2], [3];
    timer_settime64 SYS_timer_settime TIMESPECS64 [2], [3];
    timer_gettime SYS_timer_gettime TIMESPECS [], [1];
    timerfd_settime SYS_timerfd_settime TIMESPECS [2], [3];
    timerfd_settime64 SYS_timerfd_settime TIMESPECS64 [2], [3];
    timerfd_gettime SYS_timerfd_gettime TIMESPECS [], [1];
    times SYS_times TMS [], [0];
    utime SYS_utime UTIMBUF [1], [];
    utimes SYS_utimes TIMESPECS [1], [];
    futimesat SYS_futimesat TIMESPECS [2], [];
    utimensat SYS_utimensat TIMESPECS [2], [];
    utimensat64 SYS_utimensat TIMESPECS64 [2], [];
}

/// A sleep: the rest of the time is told when it is interrupted.
fn sleep(t: &mut Task, nr: i64, mut a: Args, at: usize, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let rest = a[at + 1];
    a[at] = area.widen(a[at], l)?;
    a[at + 1] = area.out(rest, l)?;
    if a[at] == 0 {
        return Err(Errno::EFAULT);
    }
    let r = native(t, nr, &a);
    // With TIMER_ABSTIME there is no rest.
    if r == Err(Errno::EINTR) && (at == 0 || a[1] & 1 == 0) {
        area.narrow(a[at + 1], rest, l)?;
    }
    r
}
pub(super) fn nanosleep(t: &mut Task, a: Args) -> Result<u64> {
    sleep(t, libc::SYS_nanosleep, a, 0, &TIMESPEC)
}
pub(super) fn clock_nanosleep(t: &mut Task, a: Args) -> Result<u64> {
    sleep(t, libc::SYS_clock_nanosleep, a, 2, &TIMESPEC)
}
pub(super) fn clock_nanosleep64(t: &mut Task, a: Args) -> Result<u64> {
    sleep(t, libc::SYS_clock_nanosleep, a, 2, &TIMESPEC64)
}

pub(super) fn time(t: &mut Task, a: Args) -> Result<u64> {
    let now = native(t, libc::SYS_time, &[0])?;
    if a[0] != 0 {
        t.mem().write(a[0], now as u32)?;
    }
    Ok(now)
}

/// The fourth argument of futex is a time for those operations that wait.
fn futex_with(t: &mut Task, mut a: Args, l: &Layout) -> Result<u64> {
    const COMMAND: u64 = 0x7f;
    // WAIT, LOCK_PI, WAIT_BITSET, WAIT_REQUEUE_PI, LOCK_PI2
    if !matches!(a[1] & COMMAND, 0 | 6 | 9 | 11 | 13) {
        return native(t, libc::SYS_futex, &a);
    }
    if a[3] == 0 {
        return native(t, libc::SYS_futex, &a);
    }
    let mut area = Area::new(t)?;
    a[3] = area.widen(a[3], l)?;
    native(t, libc::SYS_futex, &a)
}
pub(super) fn futex(t: &mut Task, a: Args) -> Result<u64> {
    futex_with(t, a, &TIMESPEC)
}
pub(super) fn futex64(t: &mut Task, a: Args) -> Result<u64> {
    futex_with(t, a, &TIMESPEC64)
}

pub(super) fn timer_create(t: &mut Task, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    a[1] = area.widen(a[1], &SIGEVENT)?;
    native(t, libc::SYS_timer_create, &a)
}

fn adjust(t: &mut Task, nr: i64, mut a: Args, n: usize) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a[n];
    if guest == 0 {
        return Err(Errno::EFAULT);
    }
    a[n] = area.widen(guest, &TIMEX)?;
    let r = native(t, nr, &a)?;
    area.narrow(a[n], guest, &TIMEX)?;
    Ok(r)
}
pub(super) fn adjtimex(t: &mut Task, a: Args) -> Result<u64> {
    adjust(t, libc::SYS_adjtimex, a, 0)
}
pub(super) fn clock_adjtime(t: &mut Task, a: Args) -> Result<u64> {
    adjust(t, libc::SYS_clock_adjtime, a, 1)
}
