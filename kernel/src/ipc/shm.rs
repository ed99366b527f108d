//! System V shared memory: segments are host memory files, attached as shared mappings.

use super::{Perm, R, Table, W, now};
use crate::errno::{Errno, Result};
use crate::io::lock;
use crate::kernel::Kernel;
use crate::mm::{self, MapRequest};
use crate::task::Task;
use std::fmt::Write;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

/// SHM_RDONLY, SHM_RND, SHM_REMAP, SHM_EXEC
const RDONLY: u64 = 0o10000;
const RND: u64 = 0o20000;
const REMAP: u64 = 0o40000;
const EXEC: u64 = 0o100000;
const DEST: u32 = 0o1000;
const LOCKED: u32 = 0o2000;

/// What mappings of a segment hold on to; the last one of a removed segment frees it.
pub struct Segment {
    id: OnceLock<i32>,
    key: i32,
    /// The memory.
    pub file: OwnedFd,
    kernel: Weak<Kernel>,
    size: u64,
}

impl Segment {
    /// Its number, shown as the inode in /proc/pid/maps.
    pub fn id(&self) -> i32 {
        self.id.get().copied().unwrap_or(0)
    }
    /// Its name in /proc/pid/maps.
    pub fn name(&self) -> Vec<u8> {
        format!("/SYSV{:08x} (deleted)", self.key).into_bytes()
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        if let Some(k) = self.kernel.upgrade() {
            k.limits.release_memory(self.size.next_multiple_of(4096));
        }
    }
}

struct Entry {
    perm: Perm,
    /// Until it is removed.
    keep: Option<Arc<Segment>>,
    segment: Weak<Segment>,
    size: u64,
    atime: i64,
    dtime: i64,
    ctime: i64,
    cpid: i32,
    lpid: i32,
    locked: bool,
}

impl Entry {
    fn attached(&self) -> usize {
        self.segment.strong_count() - usize::from(self.keep.is_some())
    }
}

/// All segments of a job.
#[derive(Default)]
pub struct Segments(Mutex<Table<Entry>>);

impl Segments {
    /// The table, without removed segments that nobody has attached any more.
    fn table(&self) -> MutexGuard<'_, Table<Entry>> {
        let mut t = lock(&self.0);
        let gone: Vec<i32> =
            t.objects.iter().filter(|(_, e)| e.segment.strong_count() == 0).map(|(id, _)| *id).collect();
        for id in gone {
            t.remove(id);
        }
        t
    }
    /// Attached or detached by a process at a time.
    fn touched(&self, id: i32, pid: i32, attach: bool, at: i64) {
        if let Ok(e) = self.table().get(id) {
            e.lpid = pid;
            *(if attach { &mut e.atime } else { &mut e.dtime }) = at;
        }
    }
}

impl Segments {
    /// Text of /proc/sysvipc/shm.
    pub fn listing(&self) -> Vec<u8> {
        let mut s = String::from(
            "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime      ctime                   rss                  swap\n",
        );
        for (id, e) in &self.table().objects {
            let p = &e.perm;
            let mode = p.mode | if e.keep.is_none() { DEST } else { 0 } | if e.locked { LOCKED } else { 0 };
            let _ = writeln!(
                s,
                "{:10} {id:10}  {mode:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}",
                p.key,
                e.size,
                e.cpid,
                e.lpid,
                e.attached(),
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                e.atime,
                e.dtime,
                e.ctime,
                0,
                0
            );
        }
        s.into_bytes()
    }
}

/// shmget(2).
pub(crate) fn get(task: &mut Task, [key, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let (key, flags) = (key as i32, flags as i32);
    if flags & libc::SHM_HUGETLB != 0 {
        return Err(Errno::ENOMEM);
    }
    let kernel = task.kernel().clone();
    let mut t = kernel.io.ipc.shm.table();
    let fits = |e: &Entry| if size > e.size { Err(Errno::EINVAL) } else { Ok(()) };
    let when = now(task);
    let pid = task.pid();
    let id = t.open(
        task,
        key,
        flags,
        fits,
        |e| &e.perm,
        |perm| {
            if size == 0 || size > 1 << 46 {
                return Err(Errno::EINVAL);
            }
            kernel.limits.charge_memory(size.next_multiple_of(4096))?;
            let release = || kernel.limits.release_memory(size.next_multiple_of(4096));
            let file = mm::segment_file(size.next_multiple_of(4096)).inspect_err(|_| release())?;
            let key = perm.key;
            let segment = Arc::new(Segment { id: OnceLock::new(), key, file, kernel: Arc::downgrade(&kernel), size });
            Ok(Entry {
                perm,
                segment: Arc::downgrade(&segment),
                keep: Some(segment),
                size,
                atime: 0,
                dtime: 0,
                ctime: when,
                cpid: pid,
                lpid: 0,
                locked: false,
            })
        },
    )?;
    if let Some(s) = t.get(id)?.segment.upgrade() {
        // Not set anew if it was there.
        let _ = s.id.set(id);
    }
    Ok(id as u64)
}

/// shmat(2).
pub(crate) fn attach(task: &mut Task, [id, addr, flags, ..]: [u64; 6]) -> Result<u64> {
    let id = id as i32;
    let kernel = task.kernel().clone();
    let (segment, size) = {
        let mut t = kernel.io.ipc.shm.table();
        let e = t.get(id)?;
        let want = if flags & RDONLY != 0 { R } else { R | W } | u32::from(flags & EXEC != 0);
        e.perm.check(&task.process.credentials(), want)?;
        (e.segment.upgrade().ok_or(Errno::EIDRM)?, e.size)
    };
    let mut at = addr;
    if addr != 0 && !addr.is_multiple_of(4096) {
        if flags & RND == 0 {
            return Err(Errno::EINVAL);
        }
        at &= !4095;
    }
    if at == 0 && flags & REMAP != 0 {
        return Err(Errno::EINVAL);
    }
    let mut map = libc::MAP_SHARED;
    if addr != 0 {
        map |= if flags & REMAP != 0 { libc::MAP_FIXED } else { libc::MAP_FIXED_NOREPLACE };
    }
    let prot = mm::R | if flags & RDONLY == 0 { mm::W } else { 0 } | if flags & EXEC != 0 { mm::X } else { 0 };
    let limit = task.process.rlimit(libc::RLIMIT_AS as usize).cur;
    let r = MapRequest { addr: at, len: size, prot, flags: map as u32, file: None, limit, who: task };
    let at = task.mm().map_segment(r, &segment).map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    drop(segment);
    kernel.io.ipc.shm.touched(id, task.pid(), true, now(task));
    Ok(at)
}

/// shmdt(2).
pub(crate) fn detach(task: &mut Task, [addr, ..]: [u64; 6]) -> Result<u64> {
    if !addr.is_multiple_of(4096) {
        return Err(Errno::EINVAL);
    }
    let id = task.mm().unmap_segment(addr)?;
    task.kernel().io.ipc.shm.touched(id, task.pid(), false, now(task));
    Ok(0)
}

fn bytes(e: &Entry) -> [u8; 112] {
    let mut b = [0u8; 112];
    let extra = if e.keep.is_none() { DEST } else { 0 } | if e.locked { LOCKED } else { 0 };
    b[..48].copy_from_slice(&e.perm.bytes(extra));
    let attached = e.attached() as u64;
    for (i, w) in [e.size, e.atime as u64, e.dtime as u64, e.ctime as u64].iter().enumerate() {
        b[48 + 8 * i..56 + 8 * i].copy_from_slice(&w.to_le_bytes());
    }
    b[80..84].copy_from_slice(&e.cpid.to_le_bytes());
    b[84..88].copy_from_slice(&e.lpid.to_le_bytes());
    b[88..96].copy_from_slice(&attached.to_le_bytes());
    b
}

/// shmctl(2).
pub(crate) fn control(task: &mut Task, [id, cmd, buf, ..]: [u64; 6]) -> Result<u64> {
    const STAT: i32 = 13;
    const INFO: i32 = 14;
    const STAT_ANY: i32 = 15;
    let (id, cmd) = (id as i32, cmd as i32);
    let mem = task.mem();
    let cred = task.process.credentials();
    let all = task.kernel().io.ipc.clone();
    match cmd {
        libc::IPC_STAT | STAT | STAT_ANY => {
            let (n, b) = {
                let mut t = all.shm.table();
                let (n, e) = if cmd == libc::IPC_STAT { (0, t.get(id)?) } else { t.by_index(id)? };
                if cmd != STAT_ANY {
                    e.perm.check(&cred, R)?;
                }
                (n, bytes(e))
            };
            mem.copy_in(buf, &b)?;
            Ok(n as u64)
        }
        libc::IPC_SET => {
            let mut b = [0u8; 48];
            mem.copy_out(buf, &mut b)?;
            let mut t = all.shm.table();
            let e = t.get(id)?;
            e.perm.owner(&cred)?;
            e.perm.set(&b);
            e.ctime = now(task);
            Ok(0)
        }
        libc::IPC_RMID => {
            let gone = {
                let mut t = all.shm.table();
                let e = t.get(id)?;
                e.perm.owner(&cred)?;
                e.perm.key = 0;
                let gone = e.keep.take();
                t.forget_key(id);
                gone
            };
            drop(gone);
            drop(all.shm.table());
            Ok(0)
        }
        libc::SHM_LOCK | libc::SHM_UNLOCK => {
            let mut t = all.shm.table();
            let e = t.get(id)?;
            e.perm.owner(&cred)?;
            e.locked = cmd == libc::SHM_LOCK;
            Ok(0)
        }
        libc::IPC_INFO => {
            let max = u64::MAX - (1 << 24);
            for (i, w) in [max, 1, 4096, 4096, max, 0, 0, 0, 0].iter().enumerate() {
                mem.write(buf.wrapping_add(8 * i as u64), *w)?;
            }
            Ok(all.shm.table().highest() as u64)
        }
        INFO => {
            let (n, pages, highest) = {
                let t = all.shm.table();
                (t.objects.len(), t.objects.values().map(|e| e.size.div_ceil(4096)).sum::<u64>(), t.highest())
            };
            for (i, w) in [n as u64, pages, pages, 0, 0, 0].iter().enumerate() {
                mem.write(buf.wrapping_add(8 * i as u64), *w)?;
            }
            Ok(highest as u64)
        }
        _ => Err(Errno::EINVAL),
    }
}
