//! Watching the `evm` process itself: its memory, its time, its end at a signal.
//!
//! # Safety
//! One system call with a buffer of our own.
#![allow(unsafe_code)]

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Resident memory of a process and all below it, in bytes.
pub fn resident(pid: u32) -> u64 {
    let own = fs::read_to_string(format!("/proc/{pid}/statm"))
        .ok()
        .and_then(|s| s.split_whitespace().nth(1)?.parse::<u64>().ok())
        .unwrap_or(0)
        * 4096;
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children = tasks
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|s| s.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<u32>>());
    own + children.map(resident).sum::<u64>()
}

/// CPU time (user and system) of all children of this process that have ended and were waited for.
pub fn children_cpu() -> Duration {
    // SAFETY: all-zero is a value of this structure of integers, and getrusage fills it in.
    let u = unsafe {
        let mut u: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut u);
        u
    };
    let of = |t: libc::timeval| Duration::new(t.tv_sec as u64, t.tv_usec as u32 * 1000);
    of(u.ru_utime) + of(u.ru_stime)
}

/// Processes below this one, in their depth.
pub fn descendants(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let children: Vec<u32> = tasks
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
        .flat_map(|s| s.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<u32>>())
        .collect();
    children.iter().flat_map(|c| std::iter::once(*c).chain(descendants(*c))).collect()
}

/// Send a signal with kill(1).
pub fn signal(child: &Child, name: &str) {
    let _ = Command::new("kill").arg(format!("-{name}")).arg(child.id().to_string()).status();
}

/// Wait so long for the end.
pub fn ends_within(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Ok(Some(s)) = child.try_wait() {
            return Some(s);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    None
}
