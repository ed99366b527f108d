//! ioprio_get(2), ioprio_set(2). All that is read and written waits for one host, so a priority is kept and shown, nothing more.

use super::process::find;
use crate::errno::{Errno, Result};
use crate::process::Process;
use crate::task::Task;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const CLASS_SHIFT: u32 = 13;
const LEVELS: u32 = 8;
const NONE: u32 = 0;
const REAL_TIME: u32 = 1;
const BEST_EFFORT: u32 = 2;
const IDLE: u32 = 3;

/// The processes that are meant: one, a group, or all of a user.
fn targets(t: &Task, which: i32, who: i32) -> Result<Vec<Arc<Process>>> {
    let all = t.kernel().processes().into_iter();
    let v: Vec<_> = match which {
        1 => return Ok(vec![find(t, who)?]),
        2 => {
            let group = if who == 0 { t.process.pgid() } else { who };
            all.filter(|p| p.pgid() == group).collect()
        }
        3 => {
            let uid = if who == 0 { t.process.credentials().uid } else { who as u32 };
            all.filter(|p| p.credentials().uid == uid).collect()
        }
        _ => return Err(Errno::EINVAL),
    };
    if v.is_empty() { Err(Errno::ESRCH) } else { Ok(v) }
}

pub(super) fn get(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    // The best of all; without a class is best effort.
    let rank = |p: u32| if p >> CLASS_SHIFT == NONE { BEST_EFFORT << CLASS_SHIFT | 4 } else { p };
    let all = targets(t, a[0] as i32, a[1] as i32)?;
    let best = all.iter().map(|p| p.io_priority.load(Ordering::Relaxed)).min_by_key(|p| rank(*p));
    Ok(u64::from(best.unwrap_or(0)))
}

pub(super) fn set(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let priority = a[2] as u32;
    let (class, level) = (priority >> CLASS_SHIFT, priority & ((1 << CLASS_SHIFT) - 1));
    match class {
        REAL_TIME if t.process.credentials().euid != 0 => return Err(Errno::EPERM),
        REAL_TIME | BEST_EFFORT if level < LEVELS => {}
        IDLE => {}
        NONE if level == 0 => {}
        _ => return Err(Errno::EINVAL),
    }
    let me = t.process.credentials();
    for p in targets(t, a[0] as i32, a[1] as i32)? {
        if me.euid != 0 && ![me.euid, me.uid].contains(&p.credentials().uid) {
            return Err(Errno::EPERM);
        }
        p.io_priority.store(priority, Ordering::Relaxed);
    }
    Ok(0)
}
