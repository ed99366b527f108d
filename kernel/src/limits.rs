//! What a job may use, and the accounting of it.
//!
//! Memory, processes, files and disk give the guest the errno that Linux gives (ENOMEM, EAGAIN, EMFILE, ENOSPC);
//! CPU time, wall time and output end the job (see [`EndReason`](crate::kernel::EndReason)).
//! Memory is what may become resident and is the guest's own: private writable mappings, shared anonymous memory and files of
//! memory file systems. Mappings made with MAP_NORESERVE or MAP_STACK and what a forked process has from its parent are
//! large and mostly never touched: these count when they are resident (see [`watchdog`](crate::watchdog)).

use crate::errno::{Errno, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Limits of a job; `None` is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct LimitConfig {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// CPU time of all guest threads together.
    pub cpu: Option<Duration>,
    /// Wall time.
    pub wall: Option<Duration>,
    /// Processes and threads.
    pub procs: Option<u64>,
    /// Open files of one process (RLIMIT_NOFILE, hard and soft).
    pub files: Option<u64>,
    /// Bytes in files that the job wrote.
    pub disk: Option<u64>,
    /// Bytes written to standard output and error.
    pub output: Option<u64>,
}

/// One accounted quantity.
#[derive(Debug)]
pub struct Account {
    used: AtomicU64,
    peak: AtomicU64,
    max: u64,
}

impl Account {
    fn new(max: Option<u64>) -> Account {
        Account { used: AtomicU64::new(0), peak: AtomicU64::new(0), max: max.unwrap_or(u64::MAX) }
    }
    /// Take `n` if that stays within the limit.
    #[must_use]
    pub fn charge(&self, n: u64) -> bool {
        let r = self
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| u.checked_add(n).filter(|v| *v <= self.max));
        match r {
            Ok(old) => {
                self.peak.fetch_max(old + n, Ordering::Relaxed);
                true
            }
            Err(_) => false,
        }
    }
    /// Give `n` back.
    pub fn release(&self, n: u64) {
        let _ = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |u| Some(u.saturating_sub(n)));
    }
    /// In use now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
    /// Most ever in use.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }
    /// The limit (`u64::MAX` = none).
    pub fn max(&self) -> u64 {
        self.max
    }
}

/// The accounts of a job.
#[derive(Debug)]
pub struct Limits {
    /// As configured.
    pub config: LimitConfig,
    /// Bytes of memory.
    pub memory: Account,
    /// Processes and threads.
    pub procs: Account,
    /// Bytes on disk.
    pub disk: Account,
    /// Bytes of output.
    pub output: Account,
}

impl Limits {
    /// Nothing used yet.
    pub fn new(config: LimitConfig) -> Limits {
        Limits {
            memory: Account::new(config.memory),
            procs: Account::new(config.procs),
            disk: Account::new(config.disk),
            output: Account::new(config.output),
            config,
        }
    }
    /// Take memory; ENOMEM.
    pub fn charge_memory(&self, bytes: u64) -> Result<()> {
        if self.memory.charge(bytes) { Ok(()) } else { Err(Errno::ENOMEM) }
    }
    /// Give memory back.
    pub fn release_memory(&self, bytes: u64) {
        self.memory.release(bytes);
    }
    /// Take disk space (a file grows); ENOSPC.
    pub fn charge_disk(&self, bytes: u64) -> Result<()> {
        if self.disk.charge(bytes) { Ok(()) } else { Err(Errno::ENOSPC) }
    }
    /// Give disk space back (a file shrank or went).
    pub fn release_disk(&self, bytes: u64) {
        self.disk.release(bytes);
    }
    /// Take space of a file system in memory; ENOSPC.
    pub fn charge_tmpfs(&self, bytes: u64) -> Result<()> {
        self.charge_disk(bytes)?;
        if self.memory.charge(bytes) {
            return Ok(());
        }
        self.release_disk(bytes);
        Err(Errno::ENOSPC)
    }
    /// Give space of a file system in memory back.
    pub fn release_tmpfs(&self, bytes: u64) {
        self.release_disk(bytes);
        self.release_memory(bytes);
    }
    /// Size and use of the file systems in memory, as far as the limits leave room.
    pub fn tmpfs(&self) -> (u64, u64) {
        let room = |a: &Account| a.max().saturating_sub(a.used());
        let used = self.disk.used();
        match (self.disk.max(), self.memory.max()) {
            (u64::MAX, u64::MAX) => (u64::MAX, used),
            _ => (used.saturating_add(room(&self.disk).min(room(&self.memory))), used),
        }
    }
    /// Count output. False when the limit is exceeded: the caller writes nothing more and ends the job with
    /// `kernel.kill_job(EndReason::Limit("output"))`.
    #[must_use]
    pub fn charge_output(&self, bytes: u64) -> bool {
        self.output.charge(bytes)
    }
}
