//! pidfd_open(2): a process as a file; readable when it has ended.

use super::{anon_stat, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::process::{Life, Process};
use crate::wait::WaitQueue;
use std::any::Any;
use std::sync::Arc;

/// A process.
pub struct PidFd {
    process: Arc<Process>,
    ino: u64,
}

impl PidFd {
    /// As an open file description; `flags`: O_NONBLOCK (for waitid).
    pub fn describe(process: &Arc<Process>, flags: u32) -> Arc<Description> {
        let f = PidFd { process: process.clone(), ino: new_ino() };
        let keep = libc::O_RDWR as u32 | flags & libc::O_NONBLOCK as u32;
        Description::new(Arc::new(f), keep, "anon_inode:[pidfd]")
    }
    /// The process of a description; EBADF if it is no pidfd.
    pub fn of(d: &Description) -> Result<&Arc<Process>> {
        d.file.as_any().downcast_ref::<PidFd>().map(|p| &p.process).ok_or(Errno::EBADF)
    }
}

impl File for PidFd {
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(0o600, self.ino))
    }
    fn poll(&self) -> Ready {
        if matches!(self.process.status().life, Life::Zombie(_)) { Ready::IN.with_norm() } else { Ready::empty() }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.process.events)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
