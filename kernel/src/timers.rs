//! Timers: one host thread per job waits for the earliest and runs what was scheduled. On it are built alarm(2), setitimer(2),
//! timer_create(2), and what files schedule (timerfd).

use crate::kernel::Kernel;
use crate::process::{Process, lock};
use crate::signal::{SigFields, SigInfo};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// Run when a timer expires, on the timer thread.
pub type Callback = Box<dyn FnOnce(&Arc<Kernel>) + Send>;

/// A scheduled timer: its time on the monotonic clock, and a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct TimerId(Duration, u64);

#[derive(Default)]
struct Heap {
    entries: BTreeMap<TimerId, (Instant, Callback)>,
    last: u64,
    running: bool,
}

#[derive(Default)]
struct Inner {
    heap: Mutex<Heap>,
    changed: Condvar,
}

/// The timers of a job.
#[derive(Default)]
pub struct Timers {
    inner: Arc<Inner>,
}

impl Timers {
    /// Run `f` when the monotonic clock shows `at` (at once if it does already).
    pub fn schedule(&self, kernel: &Arc<Kernel>, at: Duration, f: Callback) -> Option<TimerId> {
        let host = kernel.clock.host_deadline(at)?; // never, if it is too far away
        let mut h = lock(&self.inner.heap);
        h.last += 1;
        let id = TimerId(at, h.last);
        h.entries.insert(id, (host, f));
        #[cfg(target_family = "wasm")]
        KERNEL.with_borrow_mut(|k| *k = Arc::downgrade(kernel));
        #[cfg(not(target_family = "wasm"))]
        if !h.running {
            let (inner, kernel) = (self.inner.clone(), Arc::downgrade(kernel));
            h.running =
                std::thread::Builder::new().name("evm-timers".into()).spawn(move || run(&inner, &kernel)).is_ok();
        }
        drop(h);
        self.inner.changed.notify_one();
        Some(id)
    }
    /// Forget a timer. False if it has run, or runs just now.
    pub fn cancel(&self, id: TimerId) -> bool {
        lock(&self.inner.heap).entries.remove(&id).is_some()
    }
    /// When the next timer expires.
    pub fn next(&self) -> Option<Duration> {
        lock(&self.inner.heap).entries.keys().next().map(|k| k.0)
    }
}

#[cfg(target_family = "wasm")]
thread_local! {
    /// The kernel that has timers.
    static KERNEL: std::cell::RefCell<Weak<Kernel>> = const { std::cell::RefCell::new(Weak::new()) };
}

/// Without threads: run the timers that are due. Gives the time to the next.
#[cfg(target_family = "wasm")]
pub fn run_due() -> Option<Duration> {
    let k = KERNEL.with_borrow(Weak::upgrade)?;
    loop {
        let mut h = lock(&k.timers.inner.heap);
        let (id, (host, _)) = h.entries.iter().next()?;
        let (id, left) = (*id, host.saturating_duration_since(Instant::now()));
        if !left.is_zero() && k.clock.peek() < id.0 {
            return Some(left);
        }
        let f = h.entries.remove(&id);
        drop(h);
        k.clock.reached(id.0);
        if let Some((_, f)) = f {
            f(&k);
        }
    }
}
/// Without threads: whether a timer will expire.
#[cfg(target_family = "wasm")]
pub fn armed() -> bool {
    KERNEL.with_borrow(Weak::upgrade).is_some_and(|k| !lock(&k.timers.inner.heap).entries.is_empty())
}
/// Without threads: nothing can be done until a timer is due, or until the deadline.
#[cfg(target_family = "wasm")]
pub(crate) fn idle(deadline: Option<Instant>) {
    /// Who waits for what cannot come waits for ever.
    const LONG: Duration = Duration::from_secs(3600);
    let before = KERNEL.with_borrow(Weak::upgrade).map_or(0, |k| lock(&k.timers.inner.heap).entries.len());
    let timer = run_due().unwrap_or(LONG);
    let after = KERNEL.with_borrow(Weak::upgrade).map_or(0, |k| lock(&k.timers.inner.heap).entries.len());
    if before != after {
        return; // something happened: look first
    }
    let left = deadline.map_or(LONG, |d| d.saturating_duration_since(Instant::now()));
    std::thread::sleep(timer.min(left));
}

/// How long the thread sleeps at most, so that it notices the end of the job and jumps of a virtual clock.
#[cfg(not(target_family = "wasm"))]
const NAP: Duration = Duration::from_millis(200);
#[cfg(not(target_family = "wasm"))]
const VIRTUAL_NAP: Duration = Duration::from_millis(5);

#[cfg(not(target_family = "wasm"))]
fn run(inner: &Inner, kernel: &Weak<Kernel>) {
    let mut idle = 0;
    let mut h = lock(&inner.heap);
    loop {
        let Some(k) = kernel.upgrade() else { return };
        let mut nap = NAP;
        if let Some((id, (host, _))) = h.entries.iter().next() {
            idle = 0;
            let id = *id;
            let left = host.saturating_duration_since(Instant::now());
            if left.is_zero() || k.clock.peek() >= id.0 {
                let f = h.entries.remove(&id);
                drop(h);
                k.clock.reached(id.0);
                if let Some((_, f)) = f {
                    f(&k);
                }
                h = lock(&inner.heap);
                continue;
            }
            nap = left.min(if k.clock.is_virtual() { VIRTUAL_NAP } else { NAP });
        } else {
            idle += 1;
            if idle > 10 {
                h.running = false;
                return;
            }
        }
        drop(k);
        h = inner.changed.wait_timeout(h, nap).unwrap_or_else(std::sync::PoisonError::into_inner).0;
    }
}

/// What a timer counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Source {
    /// The monotonic clock (wall times are converted when it is set).
    #[default]
    Wall,
    /// CPU time of the process.
    Cpu,
}

impl Source {
    pub fn now(self, p: &Process) -> Duration {
        match self {
            Source::Wall => p.kernel.clock.peek(),
            Source::Cpu => p.usage().0.utime,
        }
    }
}

/// State of setitimer(2).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IntervalTimer {
    pub interval: Duration,
    pub at: Option<Duration>,
    pub id: Option<TimerId>,
}

/// Whom a POSIX timer tells.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Notify {
    None,
    Process,
    Thread(i32),
}

/// A timer of timer_create(2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PosixTimer {
    pub source: Source,
    /// CLOCK_REALTIME: absolute times are wall times.
    pub realtime: bool,
    pub notify: Notify,
    pub signo: i32,
    pub value: u64,
    pub interval: Duration,
    pub at: Option<Duration>,
    pub id: Option<TimerId>,
    /// What timer_getoverrun(2) gives: expirations beside the one of the last signal that was taken.
    pub overrun: i32,
    /// The same of the signal that waits.
    pub missed: i32,
}

/// When to look next at a timer that expires at `at`.
fn look_at(p: &Process, source: Source, at: Duration) -> Duration {
    match source {
        Source::Wall => at,
        Source::Cpu => {
            let left = at.saturating_sub(source.now(p)) / p.threads().len().max(1) as u32;
            p.kernel.clock.peek() + left.max(Duration::from_millis(1))
        }
    }
}

/// Sources and signals of ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF.
const ITIMERS: [(Source, i32); 3] =
    [(Source::Wall, libc::SIGALRM), (Source::Cpu, libc::SIGVTALRM), (Source::Cpu, libc::SIGPROF)];

/// Arm or disarm (`value` zero) an interval timer; gives the old interval and time left.
pub(crate) fn set_itimer(p: &Arc<Process>, which: usize, value: Duration, interval: Duration) -> (Duration, Duration) {
    let old = get_itimer(p, which);
    let (source, _) = ITIMERS[which];
    let mut t = lock(&p.itimers);
    if let Some(id) = t[which].id.take() {
        p.kernel.timers.cancel(id);
    }
    t[which] = IntervalTimer { interval, at: None, id: None };
    drop(t);
    if !value.is_zero() {
        arm_itimer(p, which, source.now(p).saturating_add(value));
    }
    old
}

/// Interval and time left.
pub(crate) fn get_itimer(p: &Process, which: usize) -> (Duration, Duration) {
    let t = lock(&p.itimers)[which];
    let now = ITIMERS[which].0.now(p);
    (t.interval, t.at.map_or(Duration::ZERO, |at| at.saturating_sub(now).max(Duration::from_micros(1))))
}

fn arm_itimer(p: &Arc<Process>, which: usize, at: Duration) {
    let (source, _) = ITIMERS[which];
    let when = look_at(p, source, at);
    let weak = Arc::downgrade(p);
    let mut t = lock(&p.itimers);
    t[which].at = Some(at);
    let f = move |_: &Arc<Kernel>| {
        if let Some(p) = weak.upgrade() {
            itimer_due(&p, which, at);
        }
    };
    t[which].id = p.kernel.timers.schedule(&p.kernel, when, Box::new(f));
}

fn itimer_due(p: &Arc<Process>, which: usize, at: Duration) {
    let (source, sig) = ITIMERS[which];
    let now = source.now(p);
    let mut t = lock(&p.itimers);
    if t[which].at != Some(at) {
        return; // set anew meanwhile
    }
    let interval = t[which].interval;
    if now < at {
        drop(t);
        arm_itimer(p, which, at);
        return;
    }
    t[which].at = None;
    t[which].id = None;
    drop(t);
    let _ = p.signal(SigInfo::kernel(sig));
    if !interval.is_zero() {
        let missed = (now - at).as_nanos() / interval.as_nanos();
        let next = at + interval * (missed.min(u128::from(u32::MAX - 1)) as u32 + 1);
        arm_itimer(p, which, next);
    }
}

/// Arm a POSIX timer for a time of its source.
pub(crate) fn arm_posix(p: &Arc<Process>, id: i32, at: Duration) {
    let mut timers = lock(&p.timers);
    let Some(t) = timers.get_mut(&id) else { return };
    let when = look_at(p, t.source, at);
    t.at = Some(at);
    let weak = Arc::downgrade(p);
    let f = move |_: &Arc<Kernel>| {
        if let Some(p) = weak.upgrade() {
            posix_due(&p, id, at);
        }
    };
    t.id = p.kernel.timers.schedule(&p.kernel, when, Box::new(f));
}

/// A signal was taken: one of a timer tells how often the timer expired since it was sent.
pub(crate) fn taken(p: &Process, mut info: SigInfo) -> SigInfo {
    if let SigFields::Timer { id, overrun, .. } = &mut info.fields
        && let Some(t) = lock(&p.timers).get_mut(id)
    {
        t.overrun = std::mem::take(&mut t.missed);
        *overrun = t.overrun;
    }
    info
}

fn posix_due(p: &Arc<Process>, id: i32, at: Duration) {
    let mut timers = lock(&p.timers);
    let Some(t) = timers.get_mut(&id) else { return };
    if t.at != Some(at) {
        return;
    }
    let now = t.source.now(p);
    if now < at {
        drop(timers);
        arm_posix(p, id, at);
        return;
    }
    let missed = if t.interval.is_zero() { 0 } else { ((now - at).as_nanos() / t.interval.as_nanos()) as u32 };
    t.at = None;
    t.id = None;
    let copy = *t;
    // A signal of this timer that still waits is not queued again, it counts.
    let waits = match copy.notify {
        Notify::Thread(tid) => p.kernel.thread(tid).is_some_and(|th| lock(&th.pending).has_timer(id)),
        _ => lock(&p.pending).has_timer(id),
    };
    t.missed = if waits { t.missed.saturating_add(1).saturating_add(missed as i32) } else { missed as i32 };
    drop(timers);
    if !waits {
        let fields = SigFields::Timer { id, overrun: 0, value: copy.value };
        let info = SigInfo { signo: copy.signo, errno: 0, code: libc::SI_TIMER, fields };
        match copy.notify {
            Notify::None => {}
            Notify::Process => {
                let _ = p.signal(info);
            }
            Notify::Thread(tid) => {
                if let Some(th) = p.kernel.thread(tid) {
                    let _ = crate::signal::send::to_thread(&th, info);
                }
            }
        }
    }
    if !copy.interval.is_zero() {
        arm_posix(p, id, at + copy.interval * (missed + 1));
    }
}

/// Delete the POSIX timers (execve).
pub(crate) fn delete_posix(p: &Process) {
    for (_, t) in std::mem::take(&mut *lock(&p.timers)) {
        if let Some(id) = t.id {
            p.kernel.timers.cancel(id);
        }
    }
}

/// Delete all timers (exit).
pub(crate) fn delete_all(p: &Process) {
    delete_posix(p);
    for t in &mut *lock(&p.itimers) {
        if let Some(id) = t.id.take() {
            p.kernel.timers.cancel(id);
        }
        t.at = None;
    }
}

/// Watch RLIMIT_CPU: SIGXCPU each second from the soft limit on, SIGKILL at the hard limit.
pub(crate) fn watch_cpu(p: &Arc<Process>) {
    let limit = p.rlimit(libc::RLIMIT_CPU as usize);
    if limit.cur == u64::MAX {
        return;
    }
    let used = p.usage().0.utime;
    let next =
        Duration::from_secs(if used.as_secs() < limit.cur { limit.cur } else { used.as_secs() + 1 }.min(limit.max));
    let weak = Arc::downgrade(p);
    let f = move |_: &Arc<Kernel>| {
        let Some(p) = weak.upgrade() else { return };
        let (now, limit) = (p.usage().0.utime, p.rlimit(libc::RLIMIT_CPU as usize));
        if matches!(p.status().life, crate::process::Life::Zombie(_)) {
            return;
        }
        if limit.max != u64::MAX && now.as_secs() >= limit.max {
            let _ = p.signal(SigInfo::kernel(libc::SIGKILL));
            return;
        }
        if limit.cur != u64::MAX && now.as_secs() >= limit.cur {
            let _ = p.signal(SigInfo::kernel(libc::SIGXCPU));
        }
        watch_cpu(&p);
    };
    let when = look_at(p, Source::Cpu, next);
    p.kernel.timers.schedule(&p.kernel, when, Box::new(f));
}
