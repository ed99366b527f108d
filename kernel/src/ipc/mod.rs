//! Interprocess communication of System V (shared memory, semaphores, messages) and message queues of POSIX, inside the job.
//!
//! Idea: each kind has a table of objects by number; a key leads to a number. A number is made of a slot and a
//! count of how often the slot was used, as Linux makes them, so an old number does not name a new object.
//!
//! Invariants: one lock a kind, never held while a thread sleeps or while guest memory is touched; waiters sleep on the kind's queue
//! and look again at each wake.

pub mod mqueue;
pub mod msg;
pub mod sem;
pub mod shm;

use crate::errno::{Errno, Result};
use crate::process::Credentials;
use crate::task::Task;
use std::collections::{BTreeMap, HashMap};

/// What a job has of them.
#[derive(Default)]
pub struct JobIpc {
    /// Shared memory.
    pub shm: shm::Segments,
    /// Semaphores.
    pub sem: sem::Sets,
    /// Messages of System V.
    pub msg: msg::Queues,
    /// Message queues of POSIX.
    pub mqueue: mqueue::Names,
}

/// IPC_PRIVATE
const PRIVATE: i32 = 0;
/// Most objects of a kind.
const MOST: usize = 32_000;
/// Slots in a number.
const SLOTS: i32 = 32_768;
const R: u32 = 4;
const W: u32 = 2;

/// `struct ipc64_perm`.
#[derive(Clone, Debug)]
pub(crate) struct Perm {
    pub key: i32,
    pub uid: u32,
    pub gid: u32,
    pub cuid: u32,
    pub cgid: u32,
    pub mode: u32,
    pub seq: u16,
}

impl Perm {
    fn new(key: i32, mode: u32, c: &Credentials) -> Perm {
        Perm { key, uid: c.euid, gid: c.egid, cuid: c.euid, cgid: c.egid, mode: mode & 0o777, seq: 0 }
    }
    /// EACCES unless the mode grants all of `want` (bits of one digit).
    fn check(&self, c: &Credentials, want: u32) -> Result<()> {
        let in_group = |g: u32| c.egid == g || c.groups.contains(&g);
        let bits = if c.euid == self.uid || c.euid == self.cuid {
            self.mode >> 6
        } else if in_group(self.gid) || in_group(self.cgid) {
            self.mode >> 3
        } else {
            self.mode
        };
        if c.euid == 0 || bits & want == want { Ok(()) } else { Err(Errno::EACCES) }
    }
    /// EPERM unless the caller owns it (IPC_SET, IPC_RMID).
    fn owner(&self, c: &Credentials) -> Result<()> {
        if c.euid == 0 || c.euid == self.uid || c.euid == self.cuid { Ok(()) } else { Err(Errno::EPERM) }
    }
    /// The 48 bytes.
    fn bytes(&self, extra_mode: u32) -> [u8; 48] {
        let mut b = [0u8; 48];
        let words = [self.key as u32, self.uid, self.gid, self.cuid, self.cgid, self.mode | extra_mode];
        for (i, w) in words.iter().enumerate() {
            b[4 * i..4 * i + 4].copy_from_slice(&w.to_le_bytes());
        }
        b[24..26].copy_from_slice(&self.seq.to_le_bytes());
        b
    }
    /// IPC_SET: owner and mode from the bytes.
    fn set(&mut self, b: &[u8]) {
        let word = |i: usize| b.get(i..i + 4).map_or(0, |w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
        self.uid = word(4);
        self.gid = word(8);
        self.mode = word(20) & 0o777;
    }
}

/// Objects of a kind.
pub(crate) struct Table<T> {
    objects: BTreeMap<i32, T>,
    keys: HashMap<i32, i32>,
    seq: u16,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { objects: BTreeMap::new(), keys: HashMap::new(), seq: 0 }
    }
}

impl<T> Table<T> {
    fn get(&mut self, id: i32) -> Result<&mut T> {
        self.objects.get_mut(&id).ok_or(Errno::EINVAL)
    }
    /// The *get call: the object of a key, or a new one. `check`: whether the one that is there will do.
    fn open(
        &mut self,
        task: &Task,
        key: i32,
        flags: i32,
        check: impl FnOnce(&T) -> Result<()>,
        perm: impl FnOnce(&T) -> &Perm,
        make: impl FnOnce(Perm) -> Result<T>,
    ) -> Result<i32> {
        let cred = task.process.credentials();
        if key != PRIVATE
            && let Some(&id) = self.keys.get(&key)
        {
            if flags & libc::IPC_CREAT != 0 && flags & libc::IPC_EXCL != 0 {
                return Err(Errno::EEXIST);
            }
            let o = self.get(id)?;
            let want = flags as u32 & 0o777;
            perm(o).check(&cred, (want | want >> 3 | want >> 6) & 7)?;
            check(o)?;
            return Ok(id);
        }
        if key != PRIVATE && flags & libc::IPC_CREAT == 0 {
            return Err(Errno::ENOENT);
        }
        if self.objects.len() >= MOST {
            return Err(Errno::ENOSPC);
        }
        let used: std::collections::HashSet<i32> = self.objects.keys().map(|id| id % SLOTS).collect();
        let slot = (0..SLOTS).find(|s| !used.contains(s)).ok_or(Errno::ENOSPC)?;
        let mut p = Perm::new(key, flags as u32, &cred);
        p.seq = self.seq;
        let id = i32::from(self.seq) * SLOTS + slot;
        let o = make(p)?;
        self.objects.insert(id, o);
        if key != PRIVATE {
            self.keys.insert(key, id);
        }
        Ok(id)
    }
    /// The name goes: nobody finds it by key any more.
    fn forget_key(&mut self, id: i32) {
        self.keys.retain(|_, v| *v != id);
    }
    fn remove(&mut self, id: i32) -> Option<T> {
        self.forget_key(id);
        let o = self.objects.remove(&id);
        if o.is_some() {
            self.seq = (self.seq + 1) % 32_767;
        }
        o
    }
    /// The object in the n-th slot in use and its number (the *_STAT commands).
    fn by_index(&mut self, index: i32) -> Result<(i32, &mut T)> {
        self.objects.iter_mut().find(|(id, _)| *id % SLOTS == index).map(|(id, o)| (*id, o)).ok_or(Errno::EINVAL)
    }
    /// Highest slot in use.
    fn highest(&self) -> i32 {
        self.objects.keys().map(|id| id % SLOTS).max().unwrap_or(0)
    }
}

/// Seconds of the wall clock.
fn now(task: &Task) -> i64 {
    task.kernel().clock.realtime().as_secs() as i64
}
