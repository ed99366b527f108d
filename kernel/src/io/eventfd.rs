//! eventfd(2): a counter that can be waited for.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use std::any::Any;
use std::sync::Mutex;

/// The counter.
pub struct EventFd {
    count: Mutex<u64>,
    semaphore: bool,
    queue: WaitQueue,
    ino: u64,
}

impl EventFd {
    /// A counter with a first value; `semaphore`: each read takes one.
    pub fn new(first: u64, semaphore: bool) -> EventFd {
        EventFd { count: Mutex::new(first), semaphore, queue: WaitQueue::default(), ino: new_ino() }
    }
    fn take(&self) -> Option<u64> {
        let mut c = lock(&self.count);
        let v = if self.semaphore { (*c).min(1) } else { *c };
        *c -= v;
        (v != 0).then_some(v)
    }
    fn add(&self, v: u64) -> Option<()> {
        let mut c = lock(&self.count);
        *c = c.checked_add(v).filter(|n| *n < u64::MAX)?;
        Some(())
    }
}

impl File for EventFd {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        let out = buf.get_mut(..8).ok_or(Errno::EINVAL)?;
        let v =
            if nonblock { self.take().ok_or(Errno::EAGAIN)? } else { self.queue.wait(who, None, || self.take())? };
        self.queue.wake_all();
        out.copy_from_slice(&v.to_le_bytes());
        Ok(8)
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        let v = buf.first_chunk().map(|b| u64::from_le_bytes(*b)).filter(|v| *v != u64::MAX).ok_or(Errno::EINVAL)?;
        if nonblock {
            self.add(v).ok_or(Errno::EAGAIN)?;
        } else {
            self.queue.wait(who, None, || self.add(v))?;
        }
        self.queue.wake_all();
        Ok(8)
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        let c = *lock(&self.count);
        let mut r = Ready::empty();
        r.set(Ready::IN, c > 0);
        r.set(Ready::OUT, c < u64::MAX - 1);
        r
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::poll::tests::Me;

    #[test]
    fn counts() {
        let me = Me::default();
        let mut b = [0u8; 8];
        for (semaphore, reads) in [(false, [Ok(5), Err(Errno::EAGAIN)]), (true, [Ok(1), Ok(1)])] {
            let e = EventFd::new(2, semaphore);
            e.write(&me, 0, &3u64.to_le_bytes(), true).unwrap();
            for r in reads {
                let got = e.read(&me, 0, &mut b, true).map(|_| u64::from_le_bytes(b));
                assert_eq!(got, r);
            }
        }
        let e = EventFd::new(0, false);
        assert_eq!(e.write(&me, 0, &[0xff; 8], true), Err(Errno::EINVAL));
        assert_eq!(e.write(&me, 0, &(u64::MAX - 1).to_le_bytes(), true), Ok(8));
        assert_eq!(e.poll(), Ready::IN);
        assert_eq!(e.write(&me, 0, &1u64.to_le_bytes(), true), Err(Errno::EAGAIN));
        assert_eq!(e.read(&me, 0, &mut b[..4], true), Err(Errno::EINVAL));
    }
}
