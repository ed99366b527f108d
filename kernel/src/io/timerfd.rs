//! timerfd_create(2).
//!
//! Expirations are counted when somebody looks; the job's timer thread looks at each, so that waiters wake.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{File, Ready, Stat};
use crate::kernel::Kernel;
use crate::timers::TimerId;
use crate::wait::{Blocking, WaitQueue};
use std::any::Any;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

#[derive(Default)]
struct State {
    /// Next expiration on the monotonic clock.
    at: Option<Duration>,
    interval: Duration,
    /// Expirations that were not read.
    ticks: u64,
    scheduled: Option<TimerId>,
}

/// Time to the next expiration and interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    /// Zero = disarmed.
    pub value: Duration,
    /// Zero = once.
    pub interval: Duration,
}

/// A timer.
pub struct TimerFd {
    me: Weak<TimerFd>,
    kernel: Arc<Kernel>,
    realtime: bool,
    state: Mutex<State>,
    queue: WaitQueue,
    ino: u64,
}

impl TimerFd {
    /// A disarmed timer; `realtime`: absolute times are of CLOCK_REALTIME.
    pub fn new(kernel: &Arc<Kernel>, realtime: bool) -> Arc<TimerFd> {
        Arc::new_cyclic(|me| TimerFd {
            me: me.clone(),
            kernel: kernel.clone(),
            realtime,
            state: Mutex::default(),
            queue: WaitQueue::default(),
            ino: new_ino(),
        })
    }
    /// Count what has expired and schedule the next look. True if there is something to read.
    fn update(&self, s: &mut State) -> bool {
        let Some(at) = s.at else { return s.ticks > 0 };
        let now = self.kernel.clock.peek();
        let mut next = at;
        if now >= at {
            if s.interval.is_zero() {
                s.ticks = s.ticks.saturating_add(1);
                s.at = None;
                return true;
            }
            let missed = (now - at).as_nanos() / s.interval.as_nanos();
            let n = u64::try_from(missed).unwrap_or(u64::MAX).saturating_add(1);
            s.ticks = s.ticks.saturating_add(n);
            let step = (missed + 1) * s.interval.as_nanos();
            let step = Duration::new((step / 1_000_000_000) as u64, (step % 1_000_000_000) as u32);
            next = at.saturating_add(step);
            s.at = Some(next);
        }
        if next != at || s.scheduled.is_none() {
            if let Some(id) = s.scheduled.take() {
                self.kernel.timers.cancel(id);
            }
            let me = self.me.clone();
            let look = move |_: &Arc<Kernel>| {
                if let Some(t) = me.upgrade() {
                    let ready = {
                        let mut s = lock(&t.state);
                        s.scheduled = None;
                        t.update(&mut s)
                    };
                    if ready {
                        t.queue.wake_all();
                    }
                }
            };
            s.scheduled = self.kernel.timers.schedule(&self.kernel, next, Box::new(look));
        }
        s.ticks > 0
    }
    fn left(&self, s: &State) -> Setting {
        let now = self.kernel.clock.peek();
        // Armed but due shows as the shortest time, since zero means disarmed.
        let value = s.at.map_or(Duration::ZERO, |at| at.saturating_sub(now).max(Duration::from_nanos(1)));
        Setting { value, interval: s.interval }
    }
    /// timerfd_gettime(2).
    pub fn get(&self) -> Setting {
        let mut s = lock(&self.state);
        self.update(&mut s);
        self.left(&s)
    }
    /// timerfd_settime(2); gives the old setting.
    pub fn set(&self, new: Setting, absolute: bool) -> Setting {
        let old = {
            let mut s = lock(&self.state);
            self.update(&mut s);
            let old = self.left(&s);
            if let Some(id) = s.scheduled.take() {
                self.kernel.timers.cancel(id);
            }
            s.ticks = 0;
            s.interval = new.interval;
            let clock = &self.kernel.clock;
            s.at = (!new.value.is_zero()).then(|| match (absolute, self.realtime) {
                (false, _) => clock.peek().saturating_add(new.value),
                (true, false) => new.value,
                (true, true) => new.value.saturating_sub(clock.real_offset()),
            });
            self.update(&mut s);
            old
        };
        self.queue.wake_all();
        old
    }
    fn take(&self) -> Option<u64> {
        let mut s = lock(&self.state);
        self.update(&mut s).then(|| std::mem::take(&mut s.ticks))
    }
}

impl File for TimerFd {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let n =
            if nonblock { self.take().ok_or(Errno::EAGAIN)? } else { self.queue.wait(who, None, || self.take())? };
        out.copy_from_slice(&n.to_le_bytes());
        Ok(8)
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        if self.update(&mut lock(&self.state)) { Ready::IN } else { Ready::empty() }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
    fn release(&self) {
        let mut s = lock(&self.state);
        s.at = None;
        if let Some(id) = s.scheduled.take() {
            self.kernel.timers.cancel(id);
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
