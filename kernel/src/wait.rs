//! Blocking: wakers (one per guest thread) and wait queues (one per thing that can be waited for).
//!
//! Rule: a waiter registers its waker, then tests its condition, then sleeps; whoever changes the
//! condition wakes the queue after the change. A signal or the end of the job wakes the waker
//! directly, and the wait ends with EINTR.

use crate::errno::{Errno, Result};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Instant;

/// What a sleeping thread sleeps on.
#[derive(Default, Debug)]
pub struct Waker {
    woken: Mutex<bool>,
    cond: Condvar,
}

impl Waker {
    /// Wake the thread; remembered if it does not sleep yet.
    pub fn wake(&self) {
        *self.woken.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.cond.notify_all();
    }
    /// Sleep until woken or until the deadline; false at the deadline. Clears the mark.
    ///
    /// There is one thread: nobody but a timer can wake it, and timers run here.
    #[cfg(target_family = "wasm")]
    pub fn sleep(&self, deadline: Option<Instant>) -> bool {
        loop {
            if std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner)) {
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
        let mut w = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        while !*w {
            match deadline {
                None => w = self.cond.wait(w).unwrap_or_else(PoisonError::into_inner),
                Some(d) => {
                    let now = Instant::now();
                    if now >= d {
                        return false;
                    }
                    w = self.cond.wait_timeout(w, d - now).unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
        *w = false;
        true
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
        let listeners = {
            let v = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
            for w in &v.wakers {
                w.wake();
            }
            if v.listeners.is_empty() {
                return;
            }
            v.listeners.clone()
        };
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
