//! The limits on time: a host thread that ends the job when it has used too much of it.

use crate::kernel::{EndReason, Kernel};
use crate::process::lock;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often CPU time is looked at.
const TICK: Duration = Duration::from_millis(20);

impl Kernel {
    /// CPU time of the job so far: live and ended threads of all processes.
    pub fn cpu_time(&self) -> Duration {
        let used = |p: &Arc<crate::process::Process>| {
            let (own, children) = p.usage();
            own.utime + children.utime
        };
        self.processes().iter().map(used).sum::<Duration>() + *lock(&self.lost_time)
    }
    /// Start the watchdog if there is something to watch.
    pub(crate) fn watch_limits(self: &Arc<Kernel>) {
        let c = &self.limits.config;
        if c.wall.is_none() && c.cpu.is_none() {
            return;
        }
        let kernel = Arc::downgrade(self);
        let started = std::thread::Builder::new().name("evm-watchdog".into()).spawn(move || watch(&kernel));
        if started.is_err() {
            self.kill_job(EndReason::Cancelled); // a job without its limits must not run
        }
    }
}

fn watch(kernel: &Weak<Kernel>) {
    let start = Instant::now();
    loop {
        let Some(k) = kernel.upgrade() else { return };
        let c = &k.limits.config;
        if lock(&k.table).threads.is_empty() {
            return;
        }
        let mut nap = Duration::from_millis(500);
        if let Some(wall) = c.wall {
            let used = start.elapsed();
            if used >= wall {
                k.kill_job(EndReason::Limit("wall"));
                return;
            }
            nap = nap.min(wall - used);
        }
        if let Some(cpu) = c.cpu {
            let used = k.cpu_time();
            if used >= cpu {
                k.kill_job(EndReason::Limit("cpu"));
                return;
            }
            // All threads together may use several seconds a second.
            let threads = lock(&k.table).threads.len().max(1) as u32;
            nap = nap.min(((cpu - used) / threads).max(TICK));
        }
        drop(k);
        std::thread::sleep(nap);
    }
}
