//! Futexes: wait queues keyed by a word of guest memory.
//!
//! The lock of a bucket is held from the comparison of the word to the entry in the queue, so that no wake-up between
//! the two is lost. Words in shared mappings have a key that is the same in every process that maps them.

use crate::errno::{Errno, Result};
use crate::process::lock;
use crate::task::{Deadline, Task};
use crate::wait::{Blocking, Waker};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// What a futex word is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Key {
    /// Address space and address.
    Private(u64, u64),
    /// A word of a shared object: its identity (host device and inode, or our own number) and offset.
    Shared(u64, u64, u64),
}

struct Waiter {
    waker: Arc<Waker>,
    key: Mutex<Key>,
    bitset: u32,
    /// For priority inheritance futexes: whom the lock is handed to.
    tid: i32,
    woken: AtomicBool,
}

impl Waiter {
    fn wake(&self) {
        self.woken.store(true, Ordering::Release);
        self.waker.wake();
    }
}

const BUCKETS: usize = 64;

/// All waiters of a job.
pub(crate) struct FutexTable {
    buckets: [Mutex<VecDeque<Arc<Waiter>>>; BUCKETS],
}

impl Default for FutexTable {
    fn default() -> Self {
        FutexTable { buckets: std::array::from_fn(|_| Mutex::default()) }
    }
}

fn bucket(k: &Key) -> usize {
    let h = match *k {
        Key::Private(a, b) => a.wrapping_mul(31) ^ (b >> 2),
        Key::Shared(a, b, c) => a ^ b.wrapping_mul(31) ^ (c >> 2),
    };
    (h.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize % BUCKETS
}

/// The word must be aligned and in the address space.
fn key(t: &Task, addr: u64, private: bool) -> Result<Key> {
    if !addr.is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    if addr >= t.mm().size() {
        return Err(Errno::EFAULT);
    }
    if !private && let Some((a, b, c)) = t.mm().shared_word(addr) {
        return Ok(Key::Shared(a, b, c));
    }
    Ok(Key::Private(t.mm().id, addr))
}

fn unqueue(t: &Task, w: &Arc<Waiter>) {
    // A requeue may move it between buckets meanwhile.
    loop {
        let k = *lock(&w.key);
        let mut q = lock(&t.kernel().futexes.buckets[bucket(&k)]);
        if *lock(&w.key) == k {
            q.retain(|x| !Arc::ptr_eq(x, w));
            return;
        }
    }
}

/// Sleep until woken, interrupted or at the deadline; the waiter is in its queue.
fn sleep(t: &Task, w: &Arc<Waiter>, deadline: Option<Deadline>) -> Result<u64> {
    let r = loop {
        if w.woken.load(Ordering::Acquire) {
            return Ok(0);
        }
        if t.interrupted() {
            break Err(Errno::EINTR);
        }
        let host = deadline.and_then(|d| d.host);
        if !t.sleep(host) {
            if let Some(d) = deadline {
                t.kernel().clock.reached(d.at);
            }
            break Err(Errno::ETIMEDOUT);
        }
    };
    unqueue(t, w);
    // Woken at the last moment counts as woken.
    if w.woken.load(Ordering::Acquire) { Ok(0) } else { r }
}

/// FUTEX_WAIT, FUTEX_WAIT_BITSET.
pub(crate) fn wait(
    t: &Task,
    addr: u64,
    private: bool,
    value: u32,
    bitset: u32,
    deadline: Option<Deadline>,
) -> Result<u64> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    let k = key(t, addr, private)?;
    let w = {
        let mut q = lock(&t.kernel().futexes.buckets[bucket(&k)]);
        if t.mem().read::<u32>(addr)? != value {
            return Err(Errno::EAGAIN);
        }
        let w = Arc::new(Waiter {
            waker: t.waker().clone(),
            key: Mutex::new(k),
            bitset,
            tid: t.tid(),
            woken: AtomicBool::new(false),
        });
        q.push_back(w.clone());
        w
    };
    sleep(t, &w, deadline)
}

/// Wake up to `n` waiters of a key, in the order they came.
fn wake_key(t: &Task, k: Key, n: u32, bitset: u32) -> u64 {
    let mut q = lock(&t.kernel().futexes.buckets[bucket(&k)]);
    let mut woken = 0;
    q.retain(|w| {
        let hit = woken < u64::from(n) && w.bitset & bitset != 0 && *lock(&w.key) == k;
        if hit {
            w.wake();
            woken += 1;
        }
        !hit
    });
    woken
}

/// FUTEX_WAKE, FUTEX_WAKE_BITSET.
pub(crate) fn wake(t: &Task, addr: u64, private: bool, n: u32, bitset: u32) -> Result<u64> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    Ok(wake_key(t, key(t, addr, private)?, n, bitset))
}

/// FUTEX_REQUEUE, FUTEX_CMP_REQUEUE: wake some, move others to a second futex. Gives how many were woken and moved.
pub(crate) fn requeue(
    t: &Task,
    addr: u64,
    to: u64,
    private: bool,
    wake: u32,
    moved: u32,
    compare: Option<u32>,
) -> Result<u64> {
    if wake as i32 <= -1 || moved as i32 <= -1 {
        return Err(Errno::EINVAL);
    }
    let (k1, k2) = (key(t, addr, private)?, key(t, to, private)?);
    let (b1, b2) = (bucket(&k1), bucket(&k2));
    let table = &t.kernel().futexes.buckets;
    // Both buckets, in the order of their numbers.
    let first = lock(&table[b1.min(b2)]);
    let second = (b1 != b2).then(|| lock(&table[b1.max(b2)]));
    let (mut q1, mut q2) = match second {
        None => (first, None),
        Some(s) if b1 < b2 => (first, Some(s)),
        Some(s) => (s, Some(first)),
    };
    if let Some(v) = compare
        && t.mem().read::<u32>(addr)? != v
    {
        return Err(Errno::EAGAIN);
    }
    let (mut woken, mut n) = (0, 0);
    let mut keep = VecDeque::new();
    let mut gone = Vec::new();
    for w in q1.drain(..) {
        if *lock(&w.key) != k1 {
            keep.push_back(w);
        } else if woken < wake {
            woken += 1;
            w.wake();
        } else if n < moved {
            n += 1;
            *lock(&w.key) = k2;
            gone.push(w);
        } else {
            keep.push_back(w);
        }
    }
    *q1 = keep;
    match &mut q2 {
        Some(q) => q.extend(gone),
        None => q1.extend(gone),
    }
    Ok(u64::from(woken) + u64::from(n))
}

/// FUTEX_WAKE_OP.
pub(crate) fn wake_op(t: &Task, addr: u64, addr2: u64, private: bool, n1: u32, n2: u32, op: u32) -> Result<u64> {
    let (k1, k2) = (key(t, addr, private)?, key(t, addr2, private)?);
    let sign12 = |v: u32| ((v << 20) as i32 >> 20) as u32;
    let mut arg = sign12(op >> 12 & 0xfff);
    let cmp_arg = sign12(op & 0xfff);
    if op >> 28 & 8 != 0 {
        arg = 1u32.checked_shl(arg & 31).unwrap_or(0);
    }
    let mem = t.mem();
    let old = loop {
        let old: u32 = mem.read(addr2)?;
        let new = match op >> 28 & 7 {
            0 => arg,
            1 => old.wrapping_add(arg),
            2 => old | arg,
            3 => old & !arg,
            4 => old ^ arg,
            _ => return Err(Errno::ENOSYS),
        };
        if mem.cas(addr2, 4, u64::from(old), u64::from(new))? == u64::from(old) {
            break old;
        }
    };
    let (a, b) = (old as i32, cmp_arg as i32);
    let hit = match op >> 24 & 15 {
        0 => a == b,
        1 => a != b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        5 => a >= b,
        _ => return Err(Errno::ENOSYS),
    };
    let mut woken = wake_key(t, k1, n1, u32::MAX);
    if hit {
        woken += wake_key(t, k2, n2, u32::MAX);
    }
    Ok(woken)
}

const WAITERS: u32 = 0x8000_0000;
const OWNER_DIED: u32 = 0x4000_0000;
const TID_MASK: u32 = 0x3fff_ffff;

/// FUTEX_LOCK_PI, FUTEX_TRYLOCK_PI. All threads have the same priority, so the lock is handed on in the order of the
/// waiters and there is no priority to inherit.
pub(crate) fn lock_pi(t: &Task, addr: u64, private: bool, try_only: bool, deadline: Option<Deadline>) -> Result<u64> {
    let k = key(t, addr, private)?;
    let me = t.tid() as u32;
    let mem = t.mem();
    let w = {
        let mut q = lock(&t.kernel().futexes.buckets[bucket(&k)]);
        loop {
            let old: u32 = mem.read(addr)?;
            let owner = old & TID_MASK;
            if owner == me {
                return Err(Errno::EDEADLK);
            }
            let new = if owner == 0 {
                me | (old & (WAITERS | OWNER_DIED))
            } else if try_only {
                return Err(Errno::EAGAIN);
            } else if t.kernel().thread(owner as i32).is_none() {
                return Err(Errno::ESRCH);
            } else {
                old | WAITERS
            };
            if mem.cas(addr, 4, u64::from(old), u64::from(new))? != u64::from(old) {
                continue;
            }
            if owner == 0 {
                return Ok(0);
            }
            break;
        }
        let w = Arc::new(Waiter {
            waker: t.waker().clone(),
            key: Mutex::new(k),
            bitset: u32::MAX,
            tid: t.tid(),
            woken: AtomicBool::new(false),
        });
        q.push_back(w.clone());
        w
    };
    sleep(t, &w, deadline)
}

/// FUTEX_UNLOCK_PI.
pub(crate) fn unlock_pi(t: &Task, addr: u64, private: bool) -> Result<u64> {
    let k = key(t, addr, private)?;
    if t.mem().read::<u32>(addr)? & TID_MASK != t.tid() as u32 {
        return Err(Errno::EPERM);
    }
    hand_on(t, k, addr, 0)
}

/// Give a PI lock to its first waiter, or free it.
fn hand_on(t: &Task, k: Key, addr: u64, died: u32) -> Result<u64> {
    let mut q = lock(&t.kernel().futexes.buckets[bucket(&k)]);
    let mut waiters = q.iter().enumerate().filter(|(_, w)| *lock(&w.key) == k).map(|(i, w)| (i, w.tid));
    let next = waiters.next();
    let more = waiters.next().is_some();
    let word = next.map_or(0, |(_, tid)| tid as u32) | if more { WAITERS } else { 0 } | died;
    t.mem().swap(addr, 4, u64::from(word))?;
    if let Some((i, _)) = next
        && let Some(w) = q.remove(i)
    {
        w.wake();
    }
    Ok(0)
}

/// What a thread's end means for the robust futexes it holds.
pub(crate) fn exit_robust(t: &Task) {
    let head = t.robust_list;
    let mem = t.mem();
    let word = t.mm().word();
    // The offset is a signed number.
    let signed = |v: u64| if word == 4 { v as u32 as i32 as u64 } else { v };
    let end = |v: u64| if word == 4 { v & 0xffff_ffff } else { v };
    let (Ok(mut entry), Ok(offset), Ok(pending)) = (
        mem.load(head, word),
        mem.load(head.wrapping_add(word), word).map(signed),
        mem.load(head.wrapping_add(2 * word), word),
    ) else {
        return;
    };
    let mut left = 2048; // ROBUST_LIST_LIMIT
    while entry & !1 != head && left > 0 {
        let Ok(next) = mem.load(entry & !1, word) else {
            break;
        };
        if entry & !1 != pending & !1 {
            died(t, end((entry & !1).wrapping_add(offset)), entry & 1 != 0, false);
        }
        entry = next;
        left -= 1;
    }
    if pending & !1 != 0 {
        died(t, end((pending & !1).wrapping_add(offset)), pending & 1 != 0, true);
    }
}

fn died(t: &Task, addr: u64, pi: bool, pending: bool) {
    let Ok(k) = key(t, addr, false) else { return };
    let mem = t.mem();
    loop {
        let Ok(old) = mem.read::<u32>(addr) else {
            return;
        };
        if old & TID_MASK != t.tid() as u32 {
            // Unlocked already, but perhaps nobody was woken yet.
            if pending && !pi && old & TID_MASK == 0 {
                wake_both(t, addr, k);
            }
            return;
        }
        if pi {
            let _ = hand_on(t, k, addr, OWNER_DIED);
            return;
        }
        let new = (old & WAITERS) | OWNER_DIED;
        match mem.cas(addr, 4, u64::from(old), u64::from(new)) {
            Ok(v) if v == u64::from(old) => {
                if old & WAITERS != 0 {
                    wake_both(t, addr, k);
                }
                return;
            }
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Robust mutexes may be waited for with or without FUTEX_PRIVATE_FLAG.
fn wake_both(t: &Task, addr: u64, k: Key) {
    if wake_key(t, k, 1, u32::MAX) == 0 {
        wake_key(t, Key::Private(t.mm().id, addr), 1, u32::MAX);
    }
}
