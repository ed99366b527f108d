//! The limits on time, and the second line of the memory limit: a host thread that ends the job when it has used too much.

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
        if c.wall.is_none() && c.cpu.is_none() && c.memory.is_none() {
            return;
        }
        let kernel = Arc::downgrade(self);
        // Opened before the guest can use up the host's descriptors.
        let started = HostMemory::open()
            .and_then(|m| std::thread::Builder::new().name("evm-watchdog".into()).spawn(move || watch(&kernel, &m)));
        if started.is_err() {
            self.kill_job(EndReason::Failed); // a job without its limits must not run
        }
    }
}

/// What the engine itself may need beside the guest's memory.
const ENGINE: u64 = 512 << 20;

/// Reads the host process's own memory use.
struct HostMemory(std::fs::File);

impl HostMemory {
    fn open() -> std::io::Result<HostMemory> {
        std::fs::File::open("/proc/self/status").map(HostMemory)
    }
    /// Bytes that no file backs; of snapshots at least what they have, whether or not it is mapped anywhere.
    fn bytes(&self, snapshots: u64) -> std::io::Result<u64> {
        let mut text = [0u8; 4096];
        let n = rustix::io::pread(&self.0, &mut text, 0)
            .map_err(|e| std::io::Error::from_raw_os_error(e.raw_os_error()))?;
        let text = String::from_utf8_lossy(&text[..n]);
        let kib = |name: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix(name));
            line.and_then(|l| l.trim().trim_end_matches(" kB").parse::<u64>().ok())
        };
        match (kib("RssAnon:"), kib("RssShmem:")) {
            (Some(a), Some(b)) => Ok((a << 10) + (b << 10).max(snapshots)),
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

fn watch(kernel: &Weak<Kernel>, host: &HostMemory) {
    let start = Instant::now();
    let base = host.bytes(0);
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
        if let Some(memory) = c.memory {
            // Some mappings are not accounted until they are resident (see `limits`).
            let over = match (host.bytes(k.snapshots.bytes()), &base) {
                (Ok(now), Ok(base)) => now.saturating_sub(*base) > memory.saturating_add(memory / 4 + ENGINE),
                _ => {
                    k.kill_job(EndReason::Failed); // a limit that cannot be watched is none
                    return;
                }
            };
            if over {
                k.kill_job(EndReason::Limit("memory"));
                return;
            }
            nap = nap.min(Duration::from_millis(100));
        }
        drop(k);
        std::thread::sleep(nap);
    }
}
