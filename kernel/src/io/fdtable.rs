//! The descriptor table of a process: number → open file description and close-on-exec.
//!
//! Invariants:
//! 1. The lock is held only to look at or change slots, never while a file operation runs. Descriptions
//!    that leave the table are given to the caller, so they are dropped (and released) outside of it.
//! 2. No number at or above the limit is handed out; lowering the limit keeps what is open.
//! 3. `lowest` is at most the lowest free number.

use crate::errno::{Errno, Result};
use crate::file::Description;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A slot in use.
#[derive(Clone)]
pub struct FdEntry {
    /// What it refers to.
    pub desc: Arc<Description>,
    /// FD_CLOEXEC.
    pub cloexec: bool,
}

#[derive(Clone, Default)]
struct Slots {
    slots: Vec<Option<FdEntry>>,
    lowest: usize,
}

impl Slots {
    /// The lowest free number from `min` on.
    fn free(&self, min: usize, limit: usize) -> Result<usize> {
        let mut n = min.max(self.lowest);
        while n < self.slots.len() && self.slots[n].is_some() {
            n += 1;
        }
        if n < limit { Ok(n) } else { Err(Errno::EMFILE) }
    }
    /// Put the entry at the lowest free number from `min` on.
    fn alloc(&mut self, min: usize, limit: usize, entry: FdEntry) -> Result<i32> {
        let n = self.free(min, limit)?;
        if n >= self.slots.len() {
            self.slots.resize(n + 1, None);
        }
        self.slots[n] = Some(entry);
        if min <= self.lowest {
            self.lowest = n + 1;
        }
        Ok(n as i32)
    }
    fn take(&mut self, n: usize) -> Option<FdEntry> {
        let e = self.slots.get_mut(n)?.take();
        if e.is_some() {
            self.lowest = self.lowest.min(n);
        }
        e
    }
}

/// The descriptor table; shared by the tasks that were cloned with CLONE_FILES.
pub struct FdTable {
    slots: RwLock<Slots>,
    limit: AtomicU32,
}

impl FdTable {
    /// Largest limit there can be (`fs.nr_open`).
    pub const MAX: u32 = 1 << 20;

    /// Length of the table as Linux makes it: 64, or a power of two from 128 on that has room for the largest number
    /// used so far.
    pub fn table_len(&self) -> usize {
        let n = self.slots.read().unwrap_or_else(std::sync::PoisonError::into_inner).slots.len();
        if n <= 64 { 64 } else { n.next_power_of_two().max(128) }
    }
    /// An empty table for numbers below `limit` (RLIMIT_NOFILE).
    pub fn new(limit: u32) -> FdTable {
        FdTable { slots: RwLock::default(), limit: AtomicU32::new(limit.min(Self::MAX)) }
    }
    /// Change the limit (setrlimit).
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit.min(Self::MAX), Ordering::Relaxed);
    }
    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }
    fn max(&self) -> usize {
        self.limit() as usize
    }
    fn lock_read(&self) -> RwLockReadGuard<'_, Slots> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }
    fn lock_write(&self) -> RwLockWriteGuard<'_, Slots> {
        self.slots.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The description of a descriptor, or EBADF.
    pub fn get(&self, fd: i32) -> Result<Arc<Description>> {
        match usize::try_from(fd).ok().and_then(|n| self.lock_read().slots.get(n)?.as_ref().map(|e| e.desc.clone())) {
            Some(d) => Ok(d),
            None => Err(Errno::EBADF),
        }
    }
    /// As [`get`](Self::get), but EBADF for a descriptor opened with O_PATH, as most system calls want it.
    pub fn get_io(&self, fd: i32) -> Result<Arc<Description>> {
        let d = self.get(fd)?;
        if d.flags() & libc::O_PATH as u32 != 0 { Err(Errno::EBADF) } else { Ok(d) }
    }
    /// Description and flag of a descriptor.
    pub fn entry(&self, fd: i32) -> Result<FdEntry> {
        let n = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.lock_read().slots.get(n).cloned().flatten().ok_or(Errno::EBADF)
    }
    /// Set or clear FD_CLOEXEC.
    pub fn set_cloexec(&self, fd: i32, on: bool) -> Result<()> {
        let n = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut t = self.lock_write();
        t.slots.get_mut(n).and_then(Option::as_mut).ok_or(Errno::EBADF)?.cloexec = on;
        Ok(())
    }
    /// EMFILE if there is no number left: for calls that must not make a file for which there is none.
    pub fn check_room(&self) -> Result<()> {
        self.lock_read().free(0, self.max()).map(drop)
    }
    /// Give the description the lowest free number; EMFILE at the limit.
    pub fn insert(&self, desc: Arc<Description>, cloexec: bool) -> Result<i32> {
        self.insert_from(0, desc, cloexec)
    }
    /// The lowest free number that is at least `min` (F_DUPFD): EINVAL if `min` is beyond the limit.
    pub fn insert_from(&self, min: i32, desc: Arc<Description>, cloexec: bool) -> Result<i32> {
        let max = self.max();
        let min = usize::try_from(min).map_err(|_| Errno::EINVAL)?;
        if min > 0 && min >= max {
            return Err(Errno::EINVAL);
        }
        self.lock_write().alloc(min, max, FdEntry { desc, cloexec })
    }
    /// Two numbers or none (pipe, socketpair).
    pub fn insert_pair(&self, a: Arc<Description>, b: Arc<Description>, cloexec: bool) -> Result<(i32, i32)> {
        let max = self.max();
        let mut t = self.lock_write();
        let x = t.alloc(0, max, FdEntry { desc: a, cloexec })?;
        match t.alloc(0, max, FdEntry { desc: b, cloexec }) {
            Ok(y) => Ok((x, y)),
            Err(e) => {
                let gone = t.take(x as usize);
                drop(t);
                drop(gone);
                Err(e)
            }
        }
    }
    /// Put a description at a number; gives what was there (dup2, host set-up). EBADF beyond the limit.
    pub fn replace(&self, fd: i32, desc: Arc<Description>, cloexec: bool) -> Result<Option<Arc<Description>>> {
        let max = self.max();
        let n = usize::try_from(fd).ok().filter(|n| *n < max).ok_or(Errno::EBADF)?;
        let mut t = self.lock_write();
        if n >= t.slots.len() {
            t.slots.resize(n + 1, None);
        }
        Ok(t.slots[n].replace(FdEntry { desc, cloexec }).map(|e| e.desc))
    }
    /// dup(2).
    pub fn dup(&self, fd: i32) -> Result<i32> {
        let d = self.get(fd)?;
        self.insert(d, false)
    }
    /// dup2(2): also gives what the new number referred to before.
    pub fn dup2(&self, old: i32, new: i32) -> Result<(i32, Option<Arc<Description>>)> {
        let d = self.get(old)?;
        if old == new {
            return Ok((new, None));
        }
        Ok((new, self.replace(new, d, false)?))
    }
    /// dup3(2).
    pub fn dup3(&self, old: i32, new: i32, flags: i32) -> Result<(i32, Option<Arc<Description>>)> {
        if flags & !libc::O_CLOEXEC != 0 || old == new {
            return Err(Errno::EINVAL);
        }
        let d = self.get(old)?;
        Ok((new, self.replace(new, d, flags & libc::O_CLOEXEC != 0)?))
    }
    /// Take a descriptor out.
    pub fn close(&self, fd: i32) -> Result<Arc<Description>> {
        let n = usize::try_from(fd).map_err(|_| Errno::EBADF)?;
        self.lock_write().take(n).map(|e| e.desc).ok_or(Errno::EBADF)
    }
    fn take_if(&self, first: u32, last: u32, cond: impl Fn(&FdEntry) -> bool) -> Vec<Arc<Description>> {
        let mut t = self.lock_write();
        let end = t.slots.len().min((last as usize).saturating_add(1));
        let mut gone = Vec::new();
        for n in first as usize..end {
            if t.slots[n].as_ref().is_some_and(&cond)
                && let Some(e) = t.take(n)
            {
                gone.push(e.desc);
            }
        }
        gone
    }
    /// close_range(2) without flags: takes the numbers `first..=last` out.
    pub fn close_range(&self, first: u32, last: u32) -> Vec<Arc<Description>> {
        self.take_if(first, last, |_| true)
    }
    /// close_range(2) with CLOSE_RANGE_CLOEXEC.
    pub fn cloexec_range(&self, first: u32, last: u32) {
        let mut t = self.lock_write();
        let end = t.slots.len().min((last as usize).saturating_add(1));
        for e in t.slots.get_mut(first as usize..end).into_iter().flatten().flatten() {
            e.cloexec = true;
        }
    }
    /// execve: takes the close-on-exec descriptors out.
    pub fn close_on_exec(&self) -> Vec<Arc<Description>> {
        self.take_if(0, u32::MAX, |e| e.cloexec)
    }
    /// exit: takes all out.
    pub fn clear(&self) -> Vec<Arc<Description>> {
        self.take_if(0, u32::MAX, |_| true)
    }
    /// A copy that shares the descriptions (fork, unshare).
    pub fn fork(&self) -> FdTable {
        FdTable { slots: RwLock::new(self.lock_read().clone()), limit: AtomicU32::new(self.limit()) }
    }
    /// What is open, in order (/proc/self/fd).
    pub fn list(&self) -> Vec<(i32, FdEntry)> {
        let t = self.lock_read();
        t.slots.iter().enumerate().filter_map(|(n, e)| Some((n as i32, e.clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::{File, Stat};

    struct Null;
    impl File for Null {
        fn stat(&self) -> Result<Stat> {
            Ok(Stat::default())
        }
        fn as_any(&self) -> &dyn std::any::Any {
            self
        }
    }
    fn null() -> Arc<Description> {
        Description::new(Arc::new(Null), 0, "null")
    }

    #[test]
    fn numbers() {
        let t = FdTable::new(8);
        for n in 0..4 {
            assert_eq!(t.insert(null(), false), Ok(n));
        }
        t.close(1).unwrap();
        assert_eq!(t.close(1).err(), Some(Errno::EBADF));
        assert_eq!(t.insert_from(6, null(), true), Ok(6));
        assert_eq!(t.insert_from(0, null(), false), Ok(1));
        assert_eq!(t.insert_from(8, null(), false), Err(Errno::EINVAL));
        assert_eq!(t.dup(0), Ok(4));
        assert_eq!(t.dup2(0, 7).map(|x| x.1.is_some()), Ok(false));
        assert_eq!(t.dup2(0, 6).map(|x| x.1.is_some()), Ok(true));
        assert!(!t.entry(6).unwrap().cloexec);
        assert_eq!(t.dup2(0, 8).map(|x| x.0), Err(Errno::EBADF));
        assert_eq!(t.dup2(5, 5).map(|x| x.0), Err(Errno::EBADF));
        assert_eq!(t.dup3(0, 0, 0).map(|x| x.0), Err(Errno::EINVAL));
        assert_eq!(t.insert_pair(null(), null(), false), Err(Errno::EMFILE));
        assert_eq!(t.insert(null(), true), Ok(5));
        assert_eq!(t.insert(null(), false), Err(Errno::EMFILE));
        assert_eq!(t.check_room(), Err(Errno::EMFILE));
        let child = t.fork();
        assert_eq!(child.close_on_exec().len(), 1);
        assert_eq!(child.list().len(), 7);
        assert_eq!(t.list().len(), 8);
        t.cloexec_range(6, u32::MAX);
        assert_eq!(t.close_on_exec().len(), 3);
        assert_eq!(t.close_range(2, 3).len(), 2);
        assert_eq!(t.insert(null(), false), Ok(2));
        assert_eq!(t.get(-1).err(), Some(Errno::EBADF));
        assert_eq!(t.clear().len(), 4);
    }
}
