//! System calls on scheduling: nice values, policies, affinity (sched(7)). The host decides where and when threads run; what a
//! guest asks for is checked as Linux would for an ordinary user, remembered, and shown.

use super::Syscall;
use super::process::find;
use crate::errno::{Errno, Result};
use crate::process::{Process, lock};
use crate::task::Task;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 24, name: "sched_yield", args: "", f: |_, _| { std::thread::yield_now(); Ok(0) } },
    Syscall { nr: 140, name: "getpriority", args: "dd", f: getpriority },
    Syscall { nr: 141, name: "setpriority", args: "ddd", f: setpriority },
    Syscall { nr: 142, name: "sched_setparam", args: "dp", f: sched_setparam },
    Syscall { nr: 143, name: "sched_getparam", args: "dp", f: sched_getparam },
    Syscall { nr: 144, name: "sched_setscheduler", args: "ddp", f: sched_setscheduler },
    Syscall { nr: 145, name: "sched_getscheduler", args: "d", f: sched_getscheduler },
    Syscall { nr: 146, name: "sched_get_priority_max", args: "d", f: |_, a| priority_bound(a[0], 99) },
    Syscall { nr: 147, name: "sched_get_priority_min", args: "d", f: |_, a| priority_bound(a[0], 1) },
    Syscall { nr: 148, name: "sched_rr_get_interval", args: "dp", f: sched_rr_get_interval },
    Syscall { nr: 203, name: "sched_setaffinity", args: "dUp", f: sched_setaffinity },
    Syscall { nr: 204, name: "sched_getaffinity", args: "dUp", f: sched_getaffinity },
    Syscall { nr: 251, name: "ioprio_set", args: "ddx", f: super::ioprio::set },
    Syscall { nr: 252, name: "ioprio_get", args: "dd", f: super::ioprio::get },
    Syscall { nr: 309, name: "getcpu", args: "pp", f: getcpu },
    Syscall { nr: 314, name: "sched_setattr", args: "dpx", f: sched_setattr },
    Syscall { nr: 315, name: "sched_getattr", args: "dpUx", f: sched_getattr },
];

const SCHED_OTHER: u32 = libc::SCHED_OTHER as u32;
const SCHED_FIFO: u32 = libc::SCHED_FIFO as u32;
const SCHED_RR: u32 = libc::SCHED_RR as u32;
const SCHED_BATCH: u32 = libc::SCHED_BATCH as u32;
const SCHED_IDLE: u32 = libc::SCHED_IDLE as u32;
const SCHED_DEADLINE: u32 = libc::SCHED_DEADLINE as u32;
const SCHED_RESET_ON_FORK: u32 = libc::SCHED_RESET_ON_FORK as u32;

/// What a thread has asked for.
#[derive(Clone, Default, Debug)]
pub(crate) struct Sched {
    /// SCHED_OTHER, SCHED_BATCH or SCHED_IDLE.
    policy: u32,
    reset_on_fork: bool,
    /// A bit for each CPU it may run on; none: all.
    allowed: Vec<u8>,
}

impl Sched {
    /// That of a child.
    pub(crate) fn inherit(&self) -> Sched {
        let policy = if self.reset_on_fork { SCHED_OTHER } else { self.policy };
        Sched { policy, reset_on_fork: false, allowed: self.allowed.clone() }
    }
    /// The CPUs it may run on, of `cpus`: a bit mask in whole 64-bit words.
    pub(crate) fn mask(&self, cpus: u32) -> Vec<u8> {
        let mut mask = vec![0u8; cpus.div_ceil(64) as usize * 8];
        for c in 0..cpus as usize {
            if self.allowed.is_empty() || self.allowed[c / 8] >> (c % 8) & 1 != 0 {
                mask[c / 8] |= 1 << (c % 8);
            }
        }
        mask
    }
}

/// A mask as /proc shows it: 32-bit words in hexadecimal, the highest first, and a list of ranges.
pub(crate) fn show_mask(mask: &[u8], cpus: u32) -> (String, String) {
    let words: Vec<u32> = mask.chunks_exact(4).map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
    let words = &words[..cpus.div_ceil(32) as usize];
    let (last, digits) = (words.len() - 1, (cpus as usize - 1) % 32 / 4 + 1);
    let hex: Vec<String> = words
        .iter()
        .enumerate()
        .rev()
        .map(|(i, w)| format!("{w:0width$x}", width = if i == last { digits } else { 8 }))
        .collect();
    let set = |c: u32| c < cpus && mask[c as usize / 8] >> (c % 8) & 1 != 0;
    let mut ranges = Vec::new();
    let mut c = 0;
    while c < cpus {
        let first = c;
        while set(c) {
            c += 1;
        }
        match c - first {
            0 => c += 1,
            1 => ranges.push(first.to_string()),
            _ => ranges.push(format!("{first}-{}", c - 1)),
        }
    }
    (hex.join(","), ranges.join(","))
}

fn cpus(t: &Task) -> u32 {
    t.kernel().config.cpus.max(1)
}

/// What the thread with an id, 0 the caller, has asked for. A thread outside of the job has asked for nothing.
fn of_thread<R>(t: &Task, tid: i32, f: impl FnOnce(&mut Sched) -> R) -> Result<R> {
    let thread = match tid {
        0 => t.thread.clone(),
        _ => match t.kernel().thread(tid) {
            Some(thread) => thread,
            None if tid > 0 && t.kernel().known(tid).is_some() => return Ok(f(&mut Sched::default())),
            None => return Err(if tid < 0 { Errno::EINVAL } else { Errno::ESRCH }),
        },
    };
    let mut s = lock(&thread.sched);
    Ok(f(&mut s))
}

/// As [`of_thread`], to change it: EPERM if it is not the caller's user's.
fn change(t: &Task, tid: i32, f: impl FnOnce(&mut Sched)) -> Result<u64> {
    of_thread(t, tid, |_| ())?;
    let p = find(t, tid)?;
    if t.process.credentials().euid != 0 && p.credentials().uid != t.process.credentials().euid {
        return Err(Errno::EPERM);
    }
    of_thread(t, tid, f).map(|()| 0)
}

fn priority_targets(t: &Task, which: u64, who: i32) -> Result<Vec<Arc<Process>>> {
    let all = t.kernel().processes();
    let v: Vec<_> = match which {
        0 => vec![find(t, who)?],
        1 => {
            let g = if who == 0 { t.process.pgid() } else { who };
            all.into_iter().filter(|p| p.pgid() == g).collect()
        }
        2 => {
            let uid = if who == 0 { t.process.credentials().uid } else { who as u32 };
            all.into_iter().filter(|p| p.credentials().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if v.is_empty() { Err(Errno::ESRCH) } else { Ok(v) }
}

fn getpriority(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let v = priority_targets(t, a[0], a[1] as i32)?;
    let nice = v.iter().map(|p| p.nice()).min().unwrap_or(0);
    Ok((20 - nice) as u64)
}

fn setpriority(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let nice = (a[2] as i32).clamp(-20, 19);
    for p in priority_targets(t, a[0], a[1] as i32)? {
        let limit = p.rlimit(libc::RLIMIT_NICE as usize).cur.min(40) as i32;
        if nice < p.nice() && nice < 20 - limit {
            return Err(Errno::EACCES);
        }
        p.nice.store(nice, Ordering::Relaxed);
    }
    Ok(0)
}

/// SCHED_OTHER, SCHED_BATCH and SCHED_IDLE have no priorities; an ordinary user may not have the others.
fn priority_bound(policy: u64, bound: u64) -> Result<u64> {
    match policy as u32 {
        SCHED_FIFO | SCHED_RR => Ok(bound),
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE | SCHED_DEADLINE => Ok(0),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_setscheduler(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    if (a[1] as i32) < 0 || a[2] == 0 {
        return Err(Errno::EINVAL);
    }
    let priority: i32 = t.mem().read(a[2])?;
    of_thread(t, a[0] as i32, |_| ())?;
    let asked = a[1] as u32;
    match asked & !SCHED_RESET_ON_FORK {
        policy @ (SCHED_OTHER | SCHED_BATCH | SCHED_IDLE) if priority == 0 => change(t, a[0] as i32, |s| {
            s.policy = policy;
            s.reset_on_fork = asked & SCHED_RESET_ON_FORK != 0;
        }),
        SCHED_FIFO | SCHED_RR if (1..=99).contains(&priority) => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_getscheduler(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let s = of_thread(t, a[0] as i32, |s| s.clone())?;
    Ok(u64::from(s.policy | if s.reset_on_fork { SCHED_RESET_ON_FORK } else { 0 }))
}

fn sched_setparam(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    of_thread(t, a[0] as i32, |_| ())?;
    // None of the policies that there are has another priority.
    if t.mem().read::<i32>(a[1])? == 0 { change(t, a[0] as i32, |_| ()) } else { Err(Errno::EINVAL) }
}

fn sched_getparam(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    of_thread(t, a[0] as i32, |_| ())?;
    t.mem().write(a[1], 0i32)?;
    Ok(0)
}

fn sched_rr_get_interval(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    of_thread(t, a[0] as i32, |_| ())?;
    super::time::write_timespec(t.mem(), a[1], std::time::Duration::from_millis(4))?;
    Ok(0)
}

/// struct sched_attr: u32 size, u32 policy, u64 flags, i32 nice, u32 priority, u64 runtime, deadline, period.
fn sched_setattr(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    of_thread(t, a[0] as i32, |_| ())?;
    if a[1] == 0 || a[2] != 0 {
        return Err(Errno::EINVAL);
    }
    let mem = t.mem();
    let at = |offset: u64| a[1].wrapping_add(offset);
    let (policy, flags, nice): (u32, u64, i32) = (mem.read(at(4))?, mem.read(at(8))?, mem.read(at(16))?);
    match policy {
        SCHED_OTHER | SCHED_BATCH | SCHED_IDLE => {
            setpriority(t, [0, a[0], nice as u64, 0, 0, 0])?;
            change(t, a[0] as i32, |s| {
                s.policy = policy;
                s.reset_on_fork = flags & 1 != 0;
            })
        }
        SCHED_FIFO | SCHED_RR | SCHED_DEADLINE => Err(Errno::EPERM),
        _ => Err(Errno::EINVAL),
    }
}

fn sched_getattr(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let s = of_thread(t, a[0] as i32, |s| s.clone())?;
    if a[2] < 48 || a[2] > 4096 || a[3] != 0 {
        return Err(Errno::EINVAL);
    }
    let nice = find(t, a[0] as i32)?.nice();
    let mem = t.mem();
    // Longer ones also have the utilization clamps, which are not set.
    let size = a[2].min(56);
    mem.fill(a[1], size, 0)?;
    mem.write(a[1], size as u32)?;
    mem.write(a[1].wrapping_add(4), s.policy)?;
    mem.write(a[1].wrapping_add(8), u64::from(s.reset_on_fork))?;
    mem.write(a[1].wrapping_add(16), nice)?;
    Ok(0)
}

/// A mask that is longer than the kernel's is cut, a shorter one ends in zeros.
fn sched_setaffinity(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    of_thread(t, a[0] as i32, |_| ()).map_err(|_| Errno::ESRCH)?;
    let mut mask = vec![0u8; cpus(t).div_ceil(64) as usize * 8];
    let given = mask.len().min(a[1] as usize);
    t.mem().copy_out(a[2], &mut mask[..given])?;
    let there = Sched::default().mask(cpus(t));
    for (m, there) in mask.iter_mut().zip(there) {
        *m &= there;
    }
    if mask.iter().all(|m| *m == 0) {
        return Err(Errno::EINVAL);
    }
    change(t, a[0] as i32, |s| s.allowed = mask)
}

fn sched_getaffinity(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let mask = of_thread(t, a[0] as i32, |s| s.mask(cpus(t))).map_err(|_| Errno::ESRCH)?;
    if a[1].saturating_mul(8) < u64::from(cpus(t)) || !a[1].is_multiple_of(8) {
        return Err(Errno::EINVAL);
    }
    // As much as the kernel's own mask: at least one word.
    t.mem().copy_in(a[2], &mask)?;
    Ok(mask.len() as u64)
}

/// The first CPU that the thread may run on, on node 0.
fn getcpu(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let mask = lock(&t.thread.sched).mask(cpus(t));
    let cpu = mask.iter().position(|b| *b != 0).map_or(0, |i| i as u32 * 8 + mask[i].trailing_zeros());
    for (at, value) in [(a[0], cpu), (a[1], 0)] {
        if at != 0 {
            t.mem().write(at, value)?;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_shown_as_proc_does() {
        let show = |mask: &[u8], cpus| show_mask(mask, cpus);
        assert_eq!(show(&[1, 0, 0, 0, 0, 0, 0, 0], 1), ("1".into(), "0".into()));
        assert_eq!(show(&[0b1011_0110, 1, 0, 0, 0, 0, 0, 0], 10), ("1b6".into(), "1-2,4-5,7-8".into()));
        assert_eq!(show(&Sched::default().mask(40), 40), ("ff,ffffffff".into(), "0-39".into()));
    }
    #[test]
    fn a_child_inherits_the_mask_and_the_policy_unless_reset() {
        let s = Sched { policy: SCHED_BATCH, reset_on_fork: true, allowed: vec![2, 0, 0, 0, 0, 0, 0, 0] };
        let c = s.inherit();
        assert_eq!((c.policy, c.reset_on_fork, c.mask(2)), (SCHED_OTHER, false, s.mask(2)));
        assert_eq!(Sched::default().mask(3), [7, 0, 0, 0, 0, 0, 0, 0]);
    }
}
