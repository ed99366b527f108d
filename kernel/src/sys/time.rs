//! System calls on time: clocks, sleeps, timers, futexes (which are waits with timeouts).

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::futex;
use crate::process::lock;
use crate::task::{Deadline, Task};
use crate::timers::{self, Notify, PosixTimer, Source};
use crate::wait::Blocking;
use evm_memory::Mem;
use std::time::Duration;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 35, name: "nanosleep", args: "pp", f: nanosleep },
    Syscall { nr: 36, name: "getitimer", args: "dp", f: getitimer },
    Syscall { nr: 37, name: "alarm", args: "U", f: alarm },
    Syscall { nr: 38, name: "setitimer", args: "dpp", f: setitimer },
    Syscall { nr: 96, name: "gettimeofday", args: "pp", f: gettimeofday },
    Syscall { nr: 159, name: "adjtimex", args: "p", f: |t, a| adjtimex(t, a[0]) },
    Syscall { nr: 164, name: "settimeofday", args: "pp", f: settimeofday },
    Syscall { nr: 201, name: "time", args: "p", f: time },
    Syscall { nr: 202, name: "futex", args: "pxxppx", f: futex_call },
    Syscall { nr: 222, name: "timer_create", args: "dpp", f: timer_create },
    Syscall { nr: 223, name: "timer_settime", args: "dxpp", f: timer_settime },
    Syscall { nr: 224, name: "timer_gettime", args: "dp", f: timer_gettime },
    Syscall { nr: 225, name: "timer_getoverrun", args: "d", f: timer_getoverrun },
    Syscall { nr: 226, name: "timer_delete", args: "d", f: timer_delete },
    Syscall { nr: 227, name: "clock_settime", args: "dp", f: clock_settime },
    Syscall { nr: 228, name: "clock_gettime", args: "dp", f: clock_gettime },
    Syscall { nr: 229, name: "clock_getres", args: "dp", f: clock_getres },
    Syscall { nr: 230, name: "clock_nanosleep", args: "dxpp", f: clock_nanosleep },
    Syscall { nr: 305, name: "clock_adjtime", args: "dp", f: clock_adjtime },
];

/// Read a struct timespec; EINVAL if it is negative or not normalized.
pub fn read_timespec(mem: Mem, addr: u64) -> Result<Duration> {
    let (s, n): (i64, i64) = (mem.read(addr)?, mem.read(addr.wrapping_add(8))?);
    if s < 0 || !(0..1_000_000_000).contains(&n) {
        return Err(Errno::EINVAL);
    }
    Ok(Duration::new(s as u64, n as u32))
}
/// Write a struct timespec.
pub fn write_timespec(mem: Mem, addr: u64, d: Duration) -> Result<()> {
    mem.write(addr, d.as_secs())?;
    mem.write(addr.wrapping_add(8), u64::from(d.subsec_nanos()))?;
    Ok(())
}
/// Read a struct timeval; EINVAL if it is negative or not normalized.
pub fn read_timeval(mem: Mem, addr: u64) -> Result<Duration> {
    let (s, u): (i64, i64) = (mem.read(addr)?, mem.read(addr.wrapping_add(8))?);
    if s < 0 || !(0..1_000_000).contains(&u) {
        return Err(Errno::EINVAL);
    }
    Ok(Duration::new(s as u64, u as u32 * 1000))
}
/// Write a struct timeval.
pub fn write_timeval(mem: Mem, addr: u64, d: Duration) -> Result<()> {
    mem.write(addr, d.as_secs())?;
    mem.write(addr.wrapping_add(8), u64::from(d.subsec_micros()))?;
    Ok(())
}

/// The time a clock shows; EINVAL if there is no such clock.
pub fn clock_now(t: &Task, clock: i32) -> Result<Duration> {
    let k = t.kernel();
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE | libc::CLOCK_REALTIME_ALARM | libc::CLOCK_TAI => {
            Ok(k.clock.realtime())
        }
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_BOOTTIME
        | libc::CLOCK_BOOTTIME_ALARM => Ok(k.clock.monotonic()),
        libc::CLOCK_PROCESS_CPUTIME_ID => Ok(cpu_or_virtual(t, t.process.usage().0.utime)),
        libc::CLOCK_THREAD_CPUTIME_ID => Ok(cpu_or_virtual(t, t.thread.cpu_time())),
        c if c < 0 => {
            // The CPU clock of a process or thread: !id << 3 | per-thread << 2 | kind.
            let (id, thread) = (!(c >> 3), c & 4 != 0);
            if c & 3 == 3 {
                return Err(Errno::EINVAL); // a clock of a descriptor
            }
            if thread {
                let th = if id == 0 { t.thread.clone() } else { k.thread(id).ok_or(Errno::EINVAL)? };
                Ok(cpu_or_virtual(t, th.cpu_time()))
            } else {
                let p = if id == 0 { t.process.clone() } else { k.process(id).ok_or(Errno::EINVAL)? };
                Ok(cpu_or_virtual(t, p.usage().0.utime))
            }
        }
        _ => Err(Errno::EINVAL),
    }
}

/// With a virtual clock CPU time must not come from the host either: it is the virtual time since the start.
pub(crate) fn cpu_or_virtual(t: &Task, host: Duration) -> Duration {
    let c = &t.kernel().clock;
    if c.is_virtual() { c.since_start() } else { host }
}

fn clock_gettime(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let now = clock_now(t, a[0] as i32)?;
    write_timespec(t.mem(), a[1], now)?;
    Ok(0)
}

fn clock_getres(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    clock_now(t, a[0] as i32)?;
    let coarse = matches!(a[0] as i32, libc::CLOCK_REALTIME_COARSE | libc::CLOCK_MONOTONIC_COARSE);
    if a[1] != 0 {
        write_timespec(t.mem(), a[1], Duration::from_nanos(if coarse { 4_000_000 } else { 1 }))?;
    }
    Ok(0)
}

fn gettimeofday(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] != 0 {
        let now = t.kernel().clock.realtime();
        write_timeval(t.mem(), a[0], now)?;
    }
    if a[1] != 0 {
        t.mem().write(a[1], 0u64)?; // UTC
    }
    Ok(0)
}

fn time(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let s = t.kernel().clock.realtime().as_secs();
    if a[0] != 0 {
        t.mem().write(a[0], s)?;
    }
    Ok(s)
}

/// Reading only: mode 0.
/// An ordinary user may not set a clock; what is asked for is looked at first.
fn clock_settime(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] as i32 != libc::CLOCK_REALTIME {
        return Err(Errno::EINVAL);
    }
    read_timespec(t.mem(), a[1])?;
    Err(Errno::EPERM)
}

/// As [`clock_settime`]; the time zone is an ordinary user's no more.
fn settimeofday(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] != 0 {
        read_timeval(t.mem(), a[0])?;
    }
    if a[1] != 0 {
        t.mem().read::<u64>(a[1])?;
    }
    Err(Errno::EPERM)
}

fn clock_adjtime(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] as i32 == libc::CLOCK_REALTIME {
        return adjtimex(t, a[1]);
    }
    clock_now(t, a[0] as i32)?;
    t.mem().copy_out(a[1], &mut [0; 208])?;
    Err(Errno::EOPNOTSUPP)
}

fn adjtimex(t: &mut Task, addr: u64) -> Result<u64> {
    let mem = t.mem();
    if mem.read::<u32>(addr)? != 0 {
        return Err(Errno::EPERM);
    }
    mem.fill(addr, 208, 0)?;
    mem.write(addr.wrapping_add(24), 16_000_000u64)?; // maxerror
    mem.write(addr.wrapping_add(32), 16_000_000u64)?; // esterror
    mem.write(addr.wrapping_add(40), 0x40u32)?; // STA_UNSYNC
    mem.write(addr.wrapping_add(48), 2u64)?; // constant
    mem.write(addr.wrapping_add(56), 1u64)?; // precision
    mem.write(addr.wrapping_add(64), 32_768_000u64)?; // tolerance
    let now = t.kernel().clock.realtime();
    write_timeval(mem, addr.wrapping_add(72), now)?;
    mem.write(addr.wrapping_add(88), 10_000u64)?; // tick
    Ok(5) // TIME_ERROR: not synchronized
}

/// Sleep until a time; gives what was left if a signal came.
fn sleep_until(t: &mut Task, d: Deadline) -> std::result::Result<(), Duration> {
    let kernel = t.kernel().clone();
    if kernel.clock.is_virtual() && jump_is_safe(t, d) {
        kernel.clock.reached(d.at);
        if t.interrupted() {
            return Err(Duration::ZERO);
        }
        return Ok(());
    }
    loop {
        if t.interrupted() {
            return Err(d.at.saturating_sub(kernel.clock.peek()));
        }
        if !t.sleep(d.host) {
            kernel.clock.reached(d.at);
            return Ok(());
        }
    }
}

/// With a virtual clock a sleep takes no host time if nothing else can happen meanwhile.
fn jump_is_safe(t: &Task, d: Deadline) -> bool {
    let k = t.kernel();
    lock(&k.table).threads.len() == 1 && k.timers.next().is_none_or(|n| n > d.at)
}

fn nanosleep(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let d = read_timespec(t.mem(), a[0])?;
    let d = t.deadline(d);
    sleep_and_report(t, d, a[1])
}

fn sleep_and_report(t: &mut Task, d: Deadline, remaining: u64) -> Result<u64> {
    match sleep_until(t, d) {
        Ok(()) => Ok(0),
        Err(left) => {
            if remaining != 0 {
                write_timespec(t.mem(), remaining, left)?;
            }
            Err(Errno::EINTR)
        }
    }
}

/// A time on a clock as a time on the monotonic clock.
fn to_monotonic(t: &Task, clock: i32, at: Duration) -> Duration {
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_TAI | libc::CLOCK_REALTIME_ALARM => {
            at.saturating_sub(t.kernel().clock.real_offset())
        }
        _ => at,
    }
}

fn clock_nanosleep(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (clock, flags) = (a[0] as i32, a[1] as i32);
    match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME | libc::CLOCK_TAI => {}
        libc::CLOCK_PROCESS_CPUTIME_ID => {
            let d = read_timespec(t.mem(), a[2])?;
            return sleep_cpu(t, d, flags & libc::TIMER_ABSTIME != 0);
        }
        libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        libc::CLOCK_MONOTONIC_RAW | libc::CLOCK_MONOTONIC_COARSE | libc::CLOCK_REALTIME_COARSE => {
            return Err(Errno::EOPNOTSUPP);
        }
        _ => return Err(Errno::EINVAL),
    }
    let d = read_timespec(t.mem(), a[2])?;
    if flags & libc::TIMER_ABSTIME != 0 {
        let d = t.deadline_at(to_monotonic(t, clock, d));
        return sleep_and_report(t, d, 0);
    }
    let d = t.deadline(d);
    sleep_and_report(t, d, a[3])
}

/// Sleep until the process has used CPU time: other threads use it.
fn sleep_cpu(t: &mut Task, d: Duration, absolute: bool) -> Result<u64> {
    let used = |t: &Task| t.process.usage().0.utime;
    let until = if absolute { d } else { used(t) + d };
    while used(t) < until {
        if t.interrupted() {
            return Err(Errno::EINTR);
        }
        let left = (until - used(t)).max(Duration::from_millis(1));
        t.sleep(std::time::Instant::now().checked_add(left));
    }
    Ok(0)
}

fn getitimer(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] > 2 {
        return Err(Errno::EINVAL);
    }
    let (interval, left) = timers::get_itimer(&t.process, a[0] as usize);
    write_timeval(t.mem(), a[1], interval)?;
    write_timeval(t.mem(), a[1].wrapping_add(16), left)?;
    Ok(0)
}

fn setitimer(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if a[0] > 2 {
        return Err(Errno::EINVAL);
    }
    let (interval, value) = match a[1] {
        0 => (Duration::ZERO, Duration::ZERO), // as Linux (deprecated)
        p => (read_timeval(t.mem(), p)?, read_timeval(t.mem(), p.wrapping_add(16))?),
    };
    let (old_interval, left) = timers::set_itimer(&t.process, a[0] as usize, value, interval);
    if a[2] != 0 {
        write_timeval(t.mem(), a[2], old_interval)?;
        write_timeval(t.mem(), a[2].wrapping_add(16), left)?;
    }
    Ok(0)
}

fn alarm(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (_, left) = timers::set_itimer(&t.process, 0, Duration::from_secs(u64::from(a[0] as u32)), Duration::ZERO);
    // Rounded, but never to 0 while one is set.
    let s = left.as_secs() + u64::from(left.subsec_nanos() >= 500_000_000 || (left.as_secs() == 0 && !left.is_zero()));
    Ok(s)
}

fn timer_create(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (clock, event, out) = (a[0] as i32, a[1], a[2]);
    let (source, realtime) = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_TAI => (Source::Wall, true),
        libc::CLOCK_MONOTONIC | libc::CLOCK_BOOTTIME => (Source::Wall, false),
        libc::CLOCK_PROCESS_CPUTIME_ID | libc::CLOCK_THREAD_CPUTIME_ID => (Source::Cpu, false),
        libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM => return Err(Errno::EPERM),
        c if c < 0 => (Source::Cpu, false),
        _ => return Err(Errno::EINVAL),
    };
    let mem = t.mem();
    let (signo, notify, value) = if event == 0 {
        (libc::SIGALRM, Notify::Process, None)
    } else {
        // All of a struct sigevent is read.
        mem.copy_out(event, &mut [0; 64])?;
        let value: u64 = mem.read(event)?;
        let signo: i32 = mem.read(event.wrapping_add(8))?;
        let notify: i32 = mem.read(event.wrapping_add(12))?;
        let notify = match notify {
            libc::SIGEV_NONE => Notify::None,
            libc::SIGEV_SIGNAL | libc::SIGEV_THREAD => Notify::Process,
            libc::SIGEV_THREAD_ID => {
                let tid: i32 = mem.read(event.wrapping_add(16))?;
                if !t.process.threads().iter().any(|th| th.tid() == tid) {
                    return Err(Errno::EINVAL);
                }
                Notify::Thread(tid)
            }
            _ => return Err(Errno::EINVAL),
        };
        if !matches!(notify, Notify::None) && !(1..=64).contains(&signo) {
            return Err(Errno::EINVAL);
        }
        (signo, notify, Some(value))
    };
    let mut timers = lock(&t.process.timers);
    let after = timers.last_key_value().map_or(Some(0), |(k, _)| k.checked_add(1));
    let id = after.or_else(|| (0..).find(|i| !timers.contains_key(i))).unwrap_or(0);
    if timers.len() as u64 >= t.process.rlimit(libc::RLIMIT_SIGPENDING as usize).cur {
        return Err(Errno::EAGAIN);
    }
    mem.write(out, id)?;
    let value = value.unwrap_or(id as u64);
    timers.insert(
        id,
        PosixTimer {
            source,
            realtime,
            notify,
            signo,
            value,
            interval: Duration::ZERO,
            at: None,
            id: None,
            overrun: 0,
            missed: 0,
        },
    );
    Ok(0)
}

fn posix_timer(t: &Task, id: u64) -> Result<PosixTimer> {
    lock(&t.process.timers).get(&(id as i32)).copied().ok_or(Errno::EINVAL)
}

fn timer_gettime(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let p = posix_timer(t, a[0])?;
    let left =
        p.at.map_or(Duration::ZERO, |at| at.saturating_sub(p.source.now(&t.process)).max(Duration::from_nanos(1)));
    write_timespec(t.mem(), a[1], p.interval)?;
    write_timespec(t.mem(), a[1].wrapping_add(16), left)?;
    Ok(0)
}

fn timer_settime(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let id = a[0] as i32;
    let p = posix_timer(t, a[0])?;
    let mem = t.mem();
    let interval = read_timespec(mem, a[2])?;
    let value = read_timespec(mem, a[2].wrapping_add(16))?;
    if a[3] != 0 {
        timer_gettime(t, [a[0], a[3], 0, 0, 0, 0])?;
    }
    {
        let mut timers = lock(&t.process.timers);
        let e = timers.get_mut(&id).ok_or(Errno::EINVAL)?;
        if let Some(old) = e.id.take() {
            t.process.kernel.timers.cancel(old);
        }
        e.at = None;
        e.overrun = 0;
        e.missed = 0;
        e.interval = interval;
    }
    if !value.is_zero() {
        let at = if a[1] as i32 & libc::TIMER_ABSTIME == 0 {
            p.source.now(&t.process).saturating_add(value)
        } else if p.realtime {
            to_monotonic(t, libc::CLOCK_REALTIME, value)
        } else {
            value
        };
        timers::arm_posix(&t.process, id, at);
    }
    Ok(0)
}

fn timer_getoverrun(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    posix_timer(t, a[0]).map(|p| p.overrun as u64)
}

fn timer_delete(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let p = lock(&t.process.timers).remove(&(a[0] as i32)).ok_or(Errno::EINVAL)?;
    if let Some(id) = p.id {
        t.kernel().timers.cancel(id);
    }
    Ok(0)
}

fn futex_call(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let [addr, op, value, timeout, addr2, value3] = a;
    let value = value as u32;
    let private = op as i32 & libc::FUTEX_PRIVATE_FLAG != 0;
    let realtime = op as i32 & libc::FUTEX_CLOCK_REALTIME != 0;
    let command = op as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    const LOCK_PI2: i32 = 13;
    if realtime && !matches!(command, libc::FUTEX_WAIT_BITSET | libc::FUTEX_WAIT_REQUEUE_PI | LOCK_PI2) {
        return Err(Errno::ENOSYS);
    }
    let clock = if realtime { libc::CLOCK_REALTIME } else { libc::CLOCK_MONOTONIC };
    let absolute = |t: &Task, clock: i32| -> Result<Option<Deadline>> {
        if timeout == 0 {
            return Ok(None);
        }
        let at = read_timespec(t.mem(), timeout)?;
        Ok(Some(t.deadline_at(to_monotonic(t, clock, at))))
    };
    match command {
        libc::FUTEX_WAIT => {
            let d = if timeout == 0 {
                None
            } else {
                let d = read_timespec(t.mem(), timeout)?;
                Some(t.deadline(d))
            };
            futex::wait(t, addr, private, value, u32::MAX, d)
        }
        libc::FUTEX_WAIT_BITSET => {
            let d = absolute(t, clock)?;
            futex::wait(t, addr, private, value, value3 as u32, d)
        }
        libc::FUTEX_WAKE => futex::wake(t, addr, private, value, u32::MAX),
        libc::FUTEX_WAKE_BITSET => futex::wake(t, addr, private, value, value3 as u32),
        libc::FUTEX_REQUEUE => futex::requeue(t, addr, addr2, private, value, timeout as u32, None),
        libc::FUTEX_CMP_REQUEUE => futex::requeue(t, addr, addr2, private, value, timeout as u32, Some(value3 as u32)),
        libc::FUTEX_WAKE_OP => futex::wake_op(t, addr, addr2, private, value, timeout as u32, value3 as u32),
        libc::FUTEX_LOCK_PI => {
            let d = absolute(t, libc::CLOCK_REALTIME)?;
            futex::lock_pi(t, addr, private, false, d)
        }
        LOCK_PI2 => {
            let d = absolute(t, clock)?;
            futex::lock_pi(t, addr, private, false, d)
        }
        libc::FUTEX_TRYLOCK_PI => futex::lock_pi(t, addr, private, true, None),
        libc::FUTEX_UNLOCK_PI => futex::unlock_pi(t, addr, private),
        _ => Err(Errno::ENOSYS), // WAIT_REQUEUE_PI, CMP_REQUEUE_PI, FUTEX_FD
    }
}
