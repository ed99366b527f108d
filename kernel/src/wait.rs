//! Blocking: wakers (one per guest thread) and wait queues (one per thing that can be waited for).
//!
//! Rule: a waiter registers its waker, then tests its condition, then sleeps; whoever changes the
//! condition wakes the queue after the change. A signal or the end of the job wakes the waker
//! directly, and the wait ends with EINTR.

use crate::errno::{Errno, Result};
#[cfg(not(target_family = "wasm"))]
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
#[cfg(not(target_family = "wasm"))]
use std::time::Duration;
use std::time::Instant;

/// What a sleeping thread sleeps on. One thread at a time does.
#[derive(Default, Debug)]
pub struct Waker {
    /// [`AWAKE`], [`WOKEN`] or [`ASLEEP`].
    state: AtomicU32,
}

/// Nothing was noted.
const AWAKE: u32 = 0;
/// It was woken, and has not noticed yet.
const WOKEN: u32 = 1;
/// It sleeps, or is about to.
const ASLEEP: u32 = 2;

impl Waker {
    /// Wake the thread; remembered if it does not sleep yet. What was written before is seen by who was woken.
    pub fn wake(&self) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == ASLEEP {
            #[cfg(not(target_family = "wasm"))]
            // (It is a word of this process: the call cannot fail.)
            let _ = futex::wake(&self.state, futex::Flags::PRIVATE, 1);
        }
    }
    /// Whether it was woken. Clears the mark.
    fn noticed(&self) -> bool {
        self.state.compare_exchange(WOKEN, AWAKE, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
    /// Sleep until woken or until the deadline; false at the deadline. Clears the mark.
    ///
    /// There is one thread: nobody but a timer can wake it, and timers run here.
    #[cfg(target_family = "wasm")]
    pub fn sleep(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.noticed() {
                return true;
            }
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return false;
            }
            crate::timers::idle(deadline);
        }
    }
    /// Sleep until woken or until the deadline; false at the deadline. Clears the mark.
    #[cfg(not(target_family = "wasm"))]
    pub fn sleep(&self, deadline: Option<Instant>) -> bool {
        loop {
            if self.noticed() {
                return true;
            }
            let left = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return false,
                // Longer than what the host's clock can count is for ever.
                left => left.and_then(|d| rustix::time::Timespec::try_from(d).ok()),
            };
            // If it was woken meanwhile, it is seen above.
            if self.state.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                // Whatever ends it, the state tells what happened.
                let _ = futex::wait(&self.state, futex::Flags::PRIVATE, ASLEEP, left.as_ref());
                let _ = self.state.compare_exchange(ASLEEP, AWAKE, Ordering::AcqRel, Ordering::Acquire);
            }
        }
    }
}

/// The thread that blocks, as the files see it.
pub trait Blocking {
    /// Its waker.
    fn waker(&self) -> &Arc<Waker>;
    /// Whether an unblocked signal is pending or the thread must die: a wait ends with EINTR.
    fn interrupted(&self) -> bool;
}

/// Who reads and writes files that never block, where there is no thread of the guest.
pub struct Nobody(Arc<Waker>);

impl Nobody {
    /// One.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Nobody {
        Nobody(Arc::default())
    }
}

impl Blocking for Nobody {
    fn waker(&self) -> &Arc<Waker> {
        &self.0
    }
    fn interrupted(&self) -> bool {
        true
    }
}

/// Something that is told about each wake of a queue but does not sleep itself (epoll). `notify` must not
/// call back into the file that owns the queue.
pub trait Listener: Send + Sync {
    /// The queue was woken.
    fn notify(&self);
}

#[derive(Default)]
struct Waiters {
    wakers: Vec<Arc<Waker>>,
    listeners: Vec<Weak<dyn Listener>>,
}

/// Threads waiting for one thing.
#[derive(Default)]
pub struct WaitQueue {
    waiters: Mutex<Waiters>,
}

impl std::fmt::Debug for WaitQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WaitQueue")
    }
}

impl WaitQueue {
    /// Add a waker (done once per wait).
    pub fn register(&self, w: &Arc<Waker>) {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).wakers.push(w.clone());
    }
    /// Take one registration of the waker out.
    pub fn unregister(&self, w: &Arc<Waker>) {
        let v = &mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner).wakers;
        if let Some(i) = v.iter().position(|x| Arc::ptr_eq(x, w)) {
            v.remove(i);
        }
    }
    /// Tell a listener about each wake from now on, until [`unlisten`](Self::unlisten) or its end.
    pub fn listen(&self, l: Weak<dyn Listener>) {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner).listeners.push(l);
    }
    /// Take a listener out.
    pub fn unlisten(&self, l: &Weak<dyn Listener>) {
        let v = &mut self.waiters.lock().unwrap_or_else(PoisonError::into_inner).listeners;
        v.retain(|x| !x.ptr_eq(l) && x.strong_count() > 0);
    }
    /// Wake every waiter.
    pub fn wake_all(&self) {
        let (first, others, listeners) = {
            let v = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            let Waiters { wakers, listeners } = &*v;
            // (One is the usual case, and needs no memory.)
            (wakers.first().cloned(), wakers.iter().skip(1).cloned().collect::<Vec<_>>(), listeners.clone())
        };
        // Who wakes up wants the queue: it is free by now.
        first.iter().chain(&others).for_each(|w| w.wake());
        for l in listeners.iter().filter_map(Weak::upgrade) {
            l.notify();
        }
    }
    /// Wait until `ready` gives a value. ETIMEDOUT at the deadline, EINTR when interrupted.
    pub fn wait<T>(
        &self,
        who: &dyn Blocking,
        deadline: Option<Instant>,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        if let Some(v) = ready() {
            return Ok(v);
        }
        self.register(who.waker());
        let r = loop {
            if let Some(v) = ready() {
                break Ok(v);
            }
            if who.interrupted() {
                break Err(Errno::EINTR);
            }
            if !who.waker().sleep(deadline) {
                break ready().ok_or(Errno::ETIMEDOUT);
            }
        };
        self.unregister(who.waker());
        r
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn woken_before_and_while_asleep_and_not_at_all() {
        let w = Arc::new(Waker::default());
        w.wake();
        w.wake();
        assert!(w.sleep(None));
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        assert!(!w.sleep(soon()));
        assert!(!w.sleep(Some(Instant::now())));
        let other = w.clone();
        let t = std::thread::spawn(move || (0..10_000).filter(|_| other.sleep(None)).count());
        while !t.is_finished() {
            w.wake();
        }
        assert_eq!(t.join().unwrap(), 10_000);
    }

    #[test]
    fn everybody_in_a_queue_is_woken() {
        struct Me(Arc<Waker>);
        impl Blocking for Me {
            fn waker(&self) -> &Arc<Waker> {
                &self.0
            }
            fn interrupted(&self) -> bool {
                false
            }
        }
        let (q, value) = (Arc::new(WaitQueue::default()), Arc::new(AtomicU32::new(0)));
        let waits = |n: u32| {
            let (q, value) = (q.clone(), value.clone());
            std::thread::spawn(move || {
                q.wait(&Me(Arc::default()), None, || (value.load(Ordering::SeqCst) > n).then_some(n))
            })
        };
        let all: Vec<_> = (0..4).map(waits).collect();
        for n in 1..=4 {
            value.store(n, Ordering::SeqCst);
            q.wake_all();
        }
        for (n, t) in all.into_iter().enumerate() {
            assert_eq!(t.join().unwrap(), Ok(n as u32));
        }
        let late = q.wait(&Me(Arc::default()), Some(Instant::now() + Duration::from_millis(5)), || None::<()>);
        assert_eq!(late, Err(Errno::ETIMEDOUT));
    }
}
