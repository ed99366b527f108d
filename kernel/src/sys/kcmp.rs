//! kcmp(2): whether two processes share something, and an order of what they do not.

use super::process::find;
use crate::errno::{Errno, Result};
use crate::process::Process;
use crate::task::Task;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, OnceLock};

const FILE: i32 = 0;
const VM: i32 = 1;
const FILES: i32 = 2;
const FS: i32 = 3;
const SIGHAND: i32 = 4;
const IO: i32 = 5;
const SYSVSEM: i32 = 6;
const EPOLL_TFD: i32 = 7;

/// What is compared, as a number that only equal things share.
fn identity(p: &Process, kind: i32, index: u64) -> Result<usize> {
    Ok(match kind {
        FILE => Arc::as_ptr(&p.fds().get(index as i32)?) as usize,
        VM => p.mm().map_or(0, |m| Arc::as_ptr(&m) as usize),
        FILES => Arc::as_ptr(&p.fds()) as usize,
        FS => Arc::as_ptr(&p.fs()) as usize,
        SIGHAND => Arc::as_ptr(&p.actions()) as usize,
        // Nobody has a context of input and output of its own.
        IO => 0,
        SYSVSEM => p.pid as usize,
        _ => return Err(Errno::EINVAL),
    })
}

pub(super) fn kcmp(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let (one, other, kind) = (a[0] as i32, a[1] as i32, a[2] as i32);
    if one <= 0 || other <= 0 {
        return Err(Errno::ESRCH);
    }
    let (p, q) = (find(t, one)?, find(t, other)?);
    let me = t.process.credentials();
    if me.euid != 0 && [&p, &q].iter().any(|p| p.credentials().uid != me.uid) {
        return Err(Errno::EPERM);
    }
    if kind == EPOLL_TFD {
        // As a kernel without it answers.
        return Err(Errno::EOPNOTSUPP);
    }
    // Addresses of the host are none of the guest's business, not even their order.
    static KEY: OnceLock<RandomState> = OnceLock::new();
    let hide = |v: usize| KEY.get_or_init(RandomState::new).hash_one(v);
    let (x, y) = (hide(identity(&p, kind, a[3])?), hide(identity(&q, kind, a[4])?));
    Ok(match x.cmp(&y) {
        std::cmp::Ordering::Equal => 0,
        std::cmp::Ordering::Less => 1,
        std::cmp::Ordering::Greater => 2,
    })
}
