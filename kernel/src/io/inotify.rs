//! inotify(7): an instance is a queue of events; [`crate::fs::notify`] has its watches and fills the queue.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};

/// Events that wait at most (fs.inotify.max_queued_events).
const MOST: usize = 16_384;
const OVERFLOW: u32 = 0x4000;
/// Size of `struct inotify_event` without the name.
const HEADER: usize = 16;

/// `struct inotify_event`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Number of the watch.
    pub wd: i32,
    /// IN_*.
    pub mask: u32,
    /// Joins the two halves of a rename.
    pub cookie: u32,
    /// Name in the watched directory, empty for the watched file itself.
    pub name: Vec<u8>,
}

impl Event {
    fn size(&self) -> usize {
        HEADER + if self.name.is_empty() { 0 } else { (self.name.len() + 1).next_multiple_of(HEADER) }
    }
    fn write(&self, to: &mut [u8]) {
        to.fill(0);
        let len = self.size() - HEADER;
        for (i, w) in [self.wd as u32, self.mask, self.cookie, len as u32].iter().enumerate() {
            to[4 * i..4 * i + 4].copy_from_slice(&w.to_le_bytes());
        }
        to[HEADER..HEADER + self.name.len()].copy_from_slice(&self.name);
    }
}

/// An instance.
pub struct Inotify {
    events: Mutex<VecDeque<Event>>,
    /// Number of the last watch, kept here so that numbers are not used again.
    pub(crate) last: Mutex<i32>,
    queue: WaitQueue,
    ino: u64,
    this: Weak<Inotify>,
}

impl Inotify {
    /// An instance without watches.
    pub fn new() -> Arc<Inotify> {
        Arc::new_cyclic(|this| Inotify {
            events: Mutex::default(),
            last: Mutex::new(0),
            queue: WaitQueue::default(),
            ino: new_ino(),
            this: this.clone(),
        })
    }
    /// Itself, for the watches.
    pub fn this(&self) -> Option<Arc<Inotify>> {
        self.this.upgrade()
    }
    /// Queue an event; the same as the last one is not queued again.
    pub fn push(&self, e: Event) {
        {
            let mut q = lock(&self.events);
            if q.back() == Some(&e) {
                return;
            }
            match q.len() {
                n if n < MOST => q.push_back(e),
                MOST => q.push_back(Event { wd: -1, mask: OVERFLOW, cookie: 0, name: Vec::new() }),
                _ => return,
            }
        }
        self.queue.wake_all();
    }
    /// As many events as fit.
    fn take(&self, buf: &mut [u8]) -> Option<Result<usize>> {
        let mut q = lock(&self.events);
        let mut done = 0;
        while let Some(e) = q.front() {
            let n = e.size();
            let Some(to) = buf.get_mut(done..done + n) else {
                return Some(if done == 0 { Err(Errno::EINVAL) } else { Ok(done) });
            };
            e.write(to);
            done += n;
            q.pop_front();
        }
        (done > 0).then_some(Ok(done))
    }
}

impl File for Inotify {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        match self.take(buf) {
            Some(r) => r,
            None if nonblock => Err(Errno::EAGAIN),
            None => self.queue.wait(who, None, || self.take(buf))?,
        }
    }
    fn write(&self, _: &dyn Blocking, _: u64, _: &[u8], _: bool) -> Result<usize> {
        Err(Errno::EBADF)
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        if lock(&self.events).is_empty() { Ready::empty() } else { Ready::IN.with_norm() }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
    fn ioctl(&self, _: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != linux_raw_sys::ioctl::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n: usize = lock(&self.events).iter().map(Event::size).sum();
        mem.write(arg, n as u32)?;
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
