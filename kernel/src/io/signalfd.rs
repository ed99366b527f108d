//! signalfd(2): pending signals as messages.
//!
//! It shows the signals of the process that made it (Linux: of whoever reads), including those sent to one of its threads.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{File, Ready, Stat};
use crate::process::Process;
use crate::signal::{SigFields, SigInfo, SigSet};
use crate::wait::{Blocking, WaitQueue};
use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Size of `struct signalfd_siginfo`.
const SIZE: usize = 128;

/// A set of signals to read.
pub struct SignalFd {
    process: Arc<Process>,
    mask: AtomicU64,
    ino: u64,
}

impl SignalFd {
    /// Signals of `process` in `mask`.
    pub fn new(process: &Arc<Process>, mask: SigSet) -> SignalFd {
        SignalFd { process: process.clone(), mask: AtomicU64::new(mask), ino: new_ino() }
    }
    /// Change the set.
    pub fn set_mask(&self, mask: SigSet) {
        self.mask.store(mask, Ordering::Relaxed);
        self.process.signal_queue.wake_all();
    }
    fn take(&self) -> Option<SigInfo> {
        let mask = self.mask.load(Ordering::Relaxed);
        let own = self.process.threads().iter().find_map(|t| lock(&t.pending).take(mask));
        let found = own.or_else(|| lock(&self.process.pending).take(mask));
        found.map(|i| crate::timers::taken(&self.process, i))
    }
}

fn image(s: &SigInfo) -> [u8; SIZE] {
    let mut b = [0u8; SIZE];
    let mut put = |at: usize, v: &[u8]| b[at..at + v.len()].copy_from_slice(v);
    put(0, &s.signo.to_le_bytes());
    put(4, &s.errno.to_le_bytes());
    put(8, &s.code.to_le_bytes());
    let mut from = |pid: i32, uid: u32| {
        put(12, &pid.to_le_bytes());
        put(16, &uid.to_le_bytes());
    };
    match s.fields {
        SigFields::None => {}
        // As the kernel reads what sigqueue(3) gives: sender and value.
        SigFields::Raw(w) => {
            put(12, &(w[0] as u32).to_le_bytes());
            put(16, &((w[0] >> 32) as u32).to_le_bytes());
            put(44, &(w[1] as u32).to_le_bytes());
            put(48, &w[1].to_le_bytes());
        }
        SigFields::Kill { pid, uid } => from(pid, uid),
        SigFields::Queue { pid, uid, value } => {
            from(pid, uid);
            put(44, &(value as u32).to_le_bytes());
            put(48, &value.to_le_bytes());
        }
        SigFields::Child { pid, uid, status, utime, stime } => {
            from(pid, uid);
            put(40, &status.to_le_bytes());
            put(56, &utime.to_le_bytes());
            put(64, &stime.to_le_bytes());
        }
        SigFields::Fault { addr } => put(72, &addr.to_le_bytes()),
        SigFields::Timer { id, overrun, value } => {
            put(24, &id.to_le_bytes());
            put(32, &overrun.to_le_bytes());
            put(44, &(value as u32).to_le_bytes());
            put(48, &value.to_le_bytes());
        }
        SigFields::Poll { band, fd } => {
            put(20, &fd.to_le_bytes());
            put(28, &(band as u32).to_le_bytes());
        }
    }
    b
}

impl File for SignalFd {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        if buf.len() < SIZE {
            return Err(Errno::EINVAL);
        }
        let mut done = 0;
        for out in buf.chunks_exact_mut(SIZE) {
            let s = match self.take() {
                Some(s) => s,
                None if done > 0 => break,
                None if nonblock => return Err(Errno::EAGAIN),
                None => self.process.signal_queue.wait(who, None, || self.take())?,
            };
            out.copy_from_slice(&image(&s));
            done += SIZE;
        }
        Ok(done)
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        // One lock at a time.
        let own = lock(&self.process.pending).set;
        let all = self.process.threads().iter().fold(own, |s, t| s | lock(&t.pending).set);
        if all & self.mask.load(Ordering::Relaxed) != 0 { Ready::IN } else { Ready::empty() }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.process.signal_queue)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
