//! System V semaphores: sets, operations on several at once, undo at exit.

use super::{Perm, R, Table, W, now};
use crate::errno::{Errno, Result};
use crate::io::lock;
use crate::sys::time::read_timespec;
use crate::task::Task;
use crate::wait::WaitQueue;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Mutex;

const VALUE_MAX: i32 = 32_767;
const PER_SET: u64 = 32_000;
const OPS_MAX: u64 = 500;
const UNDO: i16 = 0x1000;

#[derive(Clone, Copy, Default)]
struct Semaphore {
    value: i32,
    pid: i32,
    /// Threads that wait for it to grow, and to be 0.
    waits: (u16, u16),
}

struct Set {
    perm: Perm,
    all: Vec<Semaphore>,
    otime: i64,
    ctime: i64,
}

#[derive(Default)]
struct State {
    sets: Table<Set>,
    /// What a process's operations with SEM_UNDO add up to: by process, set and number.
    undo: HashMap<i32, HashMap<(i32, u16), i32>>,
}

/// All semaphores of a job.
#[derive(Default)]
pub struct Sets {
    state: Mutex<State>,
    queue: WaitQueue,
}

impl Sets {
    /// Text of /proc/sysvipc/sem.
    pub fn listing(&self) -> Vec<u8> {
        let mut s =
            String::from("       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n");
        for (id, o) in &lock(&self.state).sets.objects {
            let p = &o.perm;
            let _ = writeln!(
                s,
                "{:10} {id:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
                p.key,
                p.mode,
                o.all.len(),
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                o.otime,
                o.ctime
            );
        }
        s.into_bytes()
    }
    /// A process ends: undo what it asked to undo.
    pub(crate) fn end(&self, pid: i32) {
        let mut s = lock(&self.state);
        let Some(undo) = s.undo.remove(&pid) else { return };
        for ((id, n), by) in undo {
            if let Ok(set) = s.sets.get(id)
                && let Some(sem) = set.all.get_mut(usize::from(n))
            {
                sem.value = (sem.value + by).clamp(0, VALUE_MAX);
                sem.pid = pid;
            }
        }
        drop(s);
        self.queue.wake_all();
    }
}

#[derive(Clone, Copy)]
struct Op {
    num: u16,
    by: i16,
    flags: i16,
}

/// semget(2).
pub(crate) fn get(task: &mut Task, [key, n, flags, ..]: [u64; 6]) -> Result<u64> {
    let n = n as i32;
    if n < 0 || n as u64 > PER_SET {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel().clone();
    let mut s = lock(&kernel.io.ipc.sem.state);
    let when = now(task);
    let enough = |o: &Set| if n as usize > o.all.len() { Err(Errno::EINVAL) } else { Ok(()) };
    let id = s.sets.open(
        task,
        key as i32,
        flags as i32,
        enough,
        |o| &o.perm,
        |perm| {
            if n == 0 {
                return Err(Errno::EINVAL);
            }
            Ok(Set { perm, all: vec![Semaphore::default(); n as usize], otime: 0, ctime: when })
        },
    )?;
    Ok(id as u64)
}

/// Do all operations, or tell which one waits and whether for 0.
fn attempt(s: &mut State, id: i32, ops: &[Op], pid: i32, when: i64) -> Result<Option<(u16, bool)>> {
    let State { sets, undo } = s;
    let set = sets.get(id)?;
    let mut values: Vec<i32> = set.all.iter().map(|s| s.value).collect();
    for o in ops {
        let v = &mut values[usize::from(o.num)];
        let by = i32::from(o.by);
        let waits = if by == 0 { *v != 0 } else { *v + by < 0 };
        if waits {
            return if o.flags & libc::IPC_NOWAIT as i16 != 0 {
                Err(Errno::EAGAIN)
            } else {
                Ok(Some((o.num, by == 0)))
            };
        }
        if *v + by > VALUE_MAX {
            return Err(Errno::ERANGE);
        }
        *v += by;
    }
    for o in ops {
        let n = usize::from(o.num);
        set.all[n].value = values[n];
        set.all[n].pid = pid;
        if o.flags & UNDO != 0 && o.by != 0 {
            *undo.entry(pid).or_default().entry((id, o.num)).or_default() -= i32::from(o.by);
        }
    }
    set.otime = when;
    Ok(None)
}

/// semop(2) and semtimedop(2).
pub(crate) fn operate(task: &mut Task, [id, ops, n, timeout, ..]: [u64; 6]) -> Result<u64> {
    let id = id as i32;
    if n > OPS_MAX {
        return Err(Errno::E2BIG);
    }
    let mem = task.mem();
    let mut list = Vec::with_capacity(n as usize);
    for i in 0..n {
        let at = ops.wrapping_add(6 * i);
        let op = Op { num: mem.read(at)?, by: mem.read(at.wrapping_add(2))?, flags: mem.read(at.wrapping_add(4))? };
        list.push(op);
    }
    let deadline = match timeout {
        0 => None,
        p => Some(task.deadline(read_timespec(mem, p)?)),
    };
    if n == 0 || id < 0 {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel().clone();
    let sems = &kernel.io.ipc.sem;
    {
        let mut s = lock(&sems.state);
        let set = s.sets.get(id)?;
        if list.iter().any(|o| usize::from(o.num) >= set.all.len()) {
            return Err(Errno::EFBIG);
        }
        let changes = list.iter().any(|o| o.by != 0);
        set.perm.check(&task.process.credentials(), if changes { W } else { R })?;
    }
    let (pid, when) = (task.pid(), now(task));
    // The semaphore this thread is counted at as waiting.
    let mut counted: Option<(u16, bool)> = None;
    let mut first = true;
    let count = |s: &mut State, at: Option<(u16, bool)>, up: bool| {
        if let Some((n, zero)) = at
            && let Ok(set) = s.sets.get(id)
            && let Some(sem) = set.all.get_mut(usize::from(n))
        {
            let c = if zero { &mut sem.waits.1 } else { &mut sem.waits.0 };
            *c = if up { c.saturating_add(1) } else { c.saturating_sub(1) };
        }
    };
    let r = sems.queue.wait(task, deadline.and_then(|d| d.host), || {
        let mut s = lock(&sems.state);
        count(&mut s, counted.take(), false);
        match attempt(&mut s, id, &list, pid, when) {
            Ok(None) => Some(Ok(())),
            Ok(Some(at)) => {
                count(&mut s, Some(at), true);
                counted = Some(at);
                first = false;
                None
            }
            // It was removed while we waited.
            Err(Errno::EINVAL) if !first => Some(Err(Errno::EIDRM)),
            Err(e) => Some(Err(e)),
        }
    });
    if counted.is_some() {
        count(&mut lock(&sems.state), counted, false);
    }
    match r {
        Ok(Ok(())) => {
            sems.queue.wake_all();
            Ok(0)
        }
        Ok(Err(e)) => Err(e),
        Err(Errno::ETIMEDOUT) => {
            if let Some(d) = deadline {
                kernel.clock.reached(d.at);
            }
            Err(Errno::EAGAIN)
        }
        Err(e) => Err(e),
    }
}

fn bytes(s: &Set) -> [u8; 104] {
    let mut b = [0u8; 104];
    b[..48].copy_from_slice(&s.perm.bytes(0));
    b[48..56].copy_from_slice(&s.otime.to_le_bytes());
    b[64..72].copy_from_slice(&s.ctime.to_le_bytes());
    b[80..88].copy_from_slice(&(s.all.len() as u64).to_le_bytes());
    b
}

/// semctl(2).
pub(crate) fn control(task: &mut Task, [id, num, cmd, arg, ..]: [u64; 6]) -> Result<u64> {
    const GETPID: i32 = 11;
    const GETVAL: i32 = 12;
    const GETALL: i32 = 13;
    const GETNCNT: i32 = 14;
    const GETZCNT: i32 = 15;
    const SETVAL: i32 = 16;
    const SETALL: i32 = 17;
    const STAT: i32 = 18;
    const INFO: i32 = 19;
    const STAT_ANY: i32 = 20;
    let (id, num, cmd) = (id as i32, num as i32, cmd as i32);
    let mem = task.mem();
    let cred = task.process.credentials();
    let kernel = task.kernel().clone();
    let sems = &kernel.io.ipc.sem;
    match cmd {
        libc::IPC_INFO | INFO => {
            let (sets, total, highest) = {
                let s = lock(&sems.state);
                (
                    s.sets.objects.len() as i32,
                    s.sets.objects.values().map(|o| o.all.len() as i32).sum(),
                    s.sets.highest(),
                )
            };
            let (usz, aem) = if cmd == INFO { (sets, total) } else { (20, VALUE_MAX) };
            let info = [
                1_024_000_000,
                32_000,
                1_024_000_000,
                1_024_000_000,
                PER_SET as i32,
                OPS_MAX as i32,
                500,
                usz,
                VALUE_MAX,
                aem,
            ];
            for (i, w) in info.iter().enumerate() {
                mem.write(arg.wrapping_add(4 * i as u64), *w)?;
            }
            Ok(highest as u64)
        }
        libc::IPC_STAT | STAT | STAT_ANY => {
            let (n, b) = {
                let mut s = lock(&sems.state);
                let (n, o) = if cmd == libc::IPC_STAT { (0, s.sets.get(id)?) } else { s.sets.by_index(id)? };
                if cmd != STAT_ANY {
                    o.perm.check(&cred, R)?;
                }
                (n, bytes(o))
            };
            mem.copy_in(arg, &b)?;
            Ok(n as u64)
        }
        libc::IPC_SET => {
            let mut b = [0u8; 48];
            mem.copy_out(arg, &mut b)?;
            let mut s = lock(&sems.state);
            let o = s.sets.get(id)?;
            o.perm.owner(&cred)?;
            o.perm.set(&b);
            o.ctime = now(task);
            Ok(0)
        }
        libc::IPC_RMID => {
            {
                let mut s = lock(&sems.state);
                s.sets.get(id)?.perm.owner(&cred)?;
                s.sets.remove(id);
                for u in s.undo.values_mut() {
                    u.retain(|(set, _), _| *set != id);
                }
            }
            sems.queue.wake_all();
            Ok(0)
        }
        GETALL => {
            let values: Vec<u8> = {
                let mut s = lock(&sems.state);
                let o = s.sets.get(id)?;
                o.perm.check(&cred, R)?;
                o.all.iter().flat_map(|s| (s.value as u16).to_le_bytes()).collect()
            };
            mem.copy_in(arg, &values)?;
            Ok(0)
        }
        SETALL => {
            let n = lock(&sems.state).sets.get(id)?.all.len();
            let mut raw = vec![0u8; 2 * n];
            mem.copy_out(arg, &mut raw)?;
            let values: Vec<i32> = raw.chunks_exact(2).map(|c| i32::from(u16::from_le_bytes([c[0], c[1]]))).collect();
            if values.iter().any(|v| *v > VALUE_MAX) {
                return Err(Errno::ERANGE);
            }
            {
                let mut s = lock(&sems.state);
                let o = s.sets.get(id)?;
                o.perm.check(&cred, W)?;
                for (sem, v) in o.all.iter_mut().zip(values) {
                    sem.value = v;
                    sem.pid = task.pid();
                }
                o.ctime = now(task);
                for u in s.undo.values_mut() {
                    u.retain(|(set, _), _| *set != id);
                }
            }
            sems.queue.wake_all();
            Ok(0)
        }
        GETVAL | GETPID | GETNCNT | GETZCNT | SETVAL => {
            let mut s = lock(&sems.state);
            let o = s.sets.get(id)?;
            let sem = usize::try_from(num).ok().and_then(|n| o.all.get_mut(n)).ok_or(Errno::EINVAL)?;
            if cmd != SETVAL {
                let v = match cmd {
                    GETVAL => sem.value,
                    GETPID => sem.pid,
                    GETNCNT => i32::from(sem.waits.0),
                    _ => i32::from(sem.waits.1),
                };
                o.perm.check(&cred, R)?;
                return Ok(v as u64);
            }
            let v = arg as i32;
            if !(0..=VALUE_MAX).contains(&v) {
                return Err(Errno::ERANGE);
            }
            o.perm.check(&cred, W)?;
            sem.value = v;
            sem.pid = task.pid();
            o.ctime = now(task);
            for u in s.undo.values_mut() {
                u.remove(&(id, num as u16));
            }
            drop(s);
            sems.queue.wake_all();
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}
