//! Advisory locks: record locks of processes (F_SETLK), of open file descriptions (F_OFD_SETLK), and flock(2).
//!
//! The host's locks are not involved: they are seen by the job only.
//! Invariant: the ranges of one owner on one file do not overlap.

use super::node::lock;
use crate::errno::{Errno, Result};
use crate::wait::{Blocking, WaitQueue};
use std::collections::HashMap;
use std::sync::Mutex;

/// Who holds a lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Owner {
    /// A process (F_SETLK).
    Process(i32),
    /// An open file description, by its address (F_OFD_SETLK, flock).
    Description(usize),
}

/// A file: device and inode number.
pub type Key = (u64, u64);

/// A record lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Holder.
    pub owner: Owner,
    /// Exclusive.
    pub write: bool,
    /// First byte.
    pub start: u64,
    /// Last byte; `u64::MAX` for "to the end".
    pub end: u64,
}

#[derive(Default)]
struct PerFile {
    records: Vec<Record>,
    flocks: Vec<(Owner, bool)>,
}

#[derive(Default)]
struct Table {
    files: HashMap<Key, PerFile>,
    /// Who waits for whom (processes), to see deadlocks.
    waits: HashMap<Owner, Owner>,
}

/// All locks of a job.
#[derive(Default)]
pub struct Locks {
    table: Mutex<Table>,
    queue: WaitQueue,
}

impl Locks {
    /// The first lock that is in the way (F_GETLK).
    pub fn test(&self, key: Key, want: &Record) -> Option<Record> {
        lock(&self.table).files.get(&key).and_then(|f| conflict(&f.records, want))
    }
    /// Take a record lock (F_SETLK, F_SETLKW): EAGAIN if another is in the way and `wait` is not set; EDEADLK if
    /// waiting would never end.
    pub fn set(&self, who: &dyn Blocking, key: Key, want: Record, wait: bool) -> Result<()> {
        let mut once = true;
        let r = self.queue.wait(who, None, || {
            let mut t = lock(&self.table);
            t.waits.remove(&want.owner);
            let f = t.files.entry(key).or_default();
            let Some(other) = conflict(&f.records, &want) else {
                cut(&mut f.records, want.owner, want.start, want.end);
                f.records.push(want);
                return Some(Ok(()));
            };
            if !wait {
                return Some(Err(Errno::EAGAIN));
            }
            let mut at = other.owner;
            for _ in 0..=t.waits.len() {
                if at == want.owner {
                    return Some(Err(Errno::EDEADLK));
                }
                match t.waits.get(&at) {
                    Some(next) => at = *next,
                    None => break,
                }
            }
            if matches!(want.owner, Owner::Process(_)) {
                t.waits.insert(want.owner, other.owner);
            }
            once = false;
            None
        });
        if !once {
            lock(&self.table).waits.remove(&want.owner);
        }
        // A downgrade or a replaced range may let others in.
        self.queue.wake_all();
        r?
    }
    /// Give a range up (F_UNLCK).
    pub fn unlock(&self, key: Key, owner: Owner, start: u64, end: u64) {
        let mut t = lock(&self.table);
        if let Some(f) = t.files.get_mut(&key) {
            cut(&mut f.records, owner, start, end);
            t.forget(key);
            drop(t);
            self.queue.wake_all();
        }
    }
    /// flock(2): exclusive, shared or (`None`) unlock. EAGAIN if it would wait and `wait` is not set.
    pub fn flock(&self, who: &dyn Blocking, key: Key, owner: Owner, exclusive: Option<bool>, wait: bool) -> Result<()> {
        let Some(exclusive) = exclusive else {
            self.drop_flock(key, owner);
            return Ok(());
        };
        let mut freed = false;
        let r = self.queue.wait(who, None, || {
            let mut t = lock(&self.table);
            let f = t.files.entry(key).or_default();
            // Conversion is not atomic: the old lock goes first.
            let n = f.flocks.len();
            f.flocks.retain(|(o, e)| *o != owner || *e == exclusive);
            freed |= f.flocks.len() != n;
            if f.flocks.iter().any(|(o, e)| *o != owner && (*e || exclusive)) {
                return if wait { None } else { Some(Err(Errno::EAGAIN)) };
            }
            if !f.flocks.contains(&(owner, exclusive)) {
                f.flocks.push((owner, exclusive));
            }
            Some(Ok(()))
        });
        if freed {
            self.queue.wake_all();
        }
        r?
    }
    fn drop_flock(&self, key: Key, owner: Owner) {
        let mut t = lock(&self.table);
        if let Some(f) = t.files.get_mut(&key) {
            f.flocks.retain(|(o, _)| *o != owner);
            t.forget(key);
            drop(t);
            self.queue.wake_all();
        }
    }
    /// Whether there is no lock at all.
    pub fn is_empty(&self) -> bool {
        lock(&self.table).files.is_empty()
    }
    /// A description is gone: its locks go.
    pub fn release(&self, key: Key, owner: Owner) {
        self.unlock(key, owner, 0, u64::MAX);
        self.drop_flock(key, owner);
    }
    /// A process is gone: its record locks go.
    pub fn release_process(&self, pid: i32) {
        let owner = Owner::Process(pid);
        let mut t = lock(&self.table);
        if t.files.is_empty() {
            return;
        }
        for f in t.files.values_mut() {
            f.records.retain(|r| r.owner != owner);
        }
        t.files.retain(|_, f| !f.records.is_empty() || !f.flocks.is_empty());
        drop(t);
        self.queue.wake_all();
    }
    /// All locks, for /proc/locks: file and record (flock locks as whole-file records).
    pub fn all(&self) -> Vec<(Key, Record, bool)> {
        let t = lock(&self.table);
        let mut out = Vec::new();
        for (k, f) in &t.files {
            out.extend(f.records.iter().map(|r| (*k, *r, false)));
            out.extend(
                f.flocks.iter().map(|(o, w)| (*k, Record { owner: *o, write: *w, start: 0, end: u64::MAX }, true)),
            );
        }
        out
    }
}

impl Table {
    fn forget(&mut self, key: Key) {
        if self.files.get(&key).is_some_and(|f| f.records.is_empty() && f.flocks.is_empty()) {
            self.files.remove(&key);
        }
    }
}

fn conflict(records: &[Record], want: &Record) -> Option<Record> {
    records
        .iter()
        .filter(|r| r.owner != want.owner && (r.write || want.write) && r.start <= want.end && want.start <= r.end)
        .min_by_key(|r| r.start)
        .copied()
}

/// Take a range out of the owner's records.
fn cut(records: &mut Vec<Record>, owner: Owner, start: u64, end: u64) {
    let mut keep = Vec::with_capacity(records.len() + 1);
    for r in records.drain(..) {
        if r.owner != owner || r.end < start || end < r.start {
            keep.push(r);
            continue;
        }
        if r.start < start {
            keep.push(Record { end: start - 1, ..r });
        }
        if r.end > end {
            keep.push(Record { start: end + 1, ..r });
        }
    }
    *records = keep;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Me(Arc<crate::wait::Waker>);
    impl Blocking for Me {
        fn waker(&self) -> &Arc<crate::wait::Waker> {
            &self.0
        }
        fn interrupted(&self) -> bool {
            true
        }
    }

    #[test]
    fn records() {
        let l = Locks::default();
        let me = Me(Arc::default());
        let p = |n, write, start, end| Record { owner: Owner::Process(n), write, start, end };
        let k = (1, 1);
        assert_eq!(l.set(&me, k, p(1, true, 10, 19), false), Ok(()));
        assert_eq!(l.set(&me, k, p(2, false, 15, 15), false), Err(Errno::EAGAIN));
        assert_eq!(l.set(&me, k, p(2, true, 20, u64::MAX), false), Ok(()));
        assert_eq!(l.set(&me, k, p(2, true, 0, 10), true), Err(Errno::EINTR));
        l.unlock(k, Owner::Process(1), 12, 15);
        assert_eq!(l.test(k, &p(2, false, 0, 100)), Some(p(1, true, 10, 11)));
        assert_eq!(l.set(&me, k, p(2, true, 12, 15), false), Ok(()));
        assert_eq!(l.test(k, &p(3, false, 13, 13)), Some(p(2, true, 12, 15)));
        l.release(k, Owner::Process(2));
        assert_eq!(l.test(k, &p(3, true, 18, 18)), Some(p(1, true, 16, 19)));
        assert_eq!(l.set(&me, k, p(1, false, 0, u64::MAX), false), Ok(()));
        assert_eq!(l.set(&me, k, p(3, false, 0, 5), false), Ok(()));
        l.release(k, Owner::Process(1));
        l.release(k, Owner::Process(3));
        assert!(l.all().is_empty());
        let (a, b) = (Owner::Description(1), Owner::Description(2));
        assert_eq!(l.flock(&me, k, a, Some(false), false), Ok(()));
        assert_eq!(l.flock(&me, k, b, Some(false), false), Ok(()));
        assert_eq!(l.flock(&me, k, b, Some(true), false), Err(Errno::EAGAIN));
        assert_eq!(l.flock(&me, k, a, None, false), Ok(()));
        assert_eq!(l.flock(&me, k, b, Some(true), false), Ok(()));
    }
}
