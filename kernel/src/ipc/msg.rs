//! System V message queues.

use super::{Perm, R, Table, W, now};
use crate::errno::{Errno, Result};
use crate::io::lock;
use crate::task::Task;
use crate::wait::WaitQueue;
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Mutex;

/// Largest message, and bytes in a new queue.
const MESSAGE_MAX: usize = 8192;
const QUEUE_MAX: u64 = 16_384;
const NOERROR: i32 = 0o10000;
const EXCEPT: i32 = 0o20000;
const COPY: i32 = 0o40000;

struct Message {
    kind: i64,
    data: Vec<u8>,
}

struct Queue {
    perm: Perm,
    messages: VecDeque<Message>,
    bytes: u64,
    max: u64,
    times: [i64; 3],
    pids: [i32; 2],
}

/// All queues of a job.
#[derive(Default)]
pub struct Queues {
    table: Mutex<Table<Queue>>,
    queue: WaitQueue,
}

impl Queues {
    /// Text of /proc/sysvipc/msg.
    pub fn listing(&self) -> Vec<u8> {
        let mut s = String::from(
            "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      stime      rtime      ctime\n",
        );
        for (id, q) in &lock(&self.table).objects {
            let (p, t) = (&q.perm, q.times);
            let _ = writeln!(
                s,
                "{:10} {id:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
                p.key,
                p.mode,
                q.bytes,
                q.messages.len(),
                q.pids[0],
                q.pids[1],
                p.uid,
                p.gid,
                p.cuid,
                p.cgid,
                t[0],
                t[1],
                t[2]
            );
        }
        s.into_bytes()
    }
}

/// msgget(2).
pub(crate) fn get(task: &mut Task, [key, flags, ..]: [u64; 6]) -> Result<u64> {
    let kernel = task.kernel().clone();
    let when = now(task);
    let mut t = lock(&kernel.io.ipc.msg.table);
    let id = t.open(
        task,
        key as i32,
        flags as i32,
        |_| Ok(()),
        |q| &q.perm,
        |perm| {
            Ok(Queue { perm, messages: VecDeque::new(), bytes: 0, max: QUEUE_MAX, times: [0, 0, when], pids: [0; 2] })
        },
    )?;
    Ok(id as u64)
}

/// The result of an attempt on a queue that may have been removed meanwhile.
fn removed(e: Errno, first: bool) -> Errno {
    if e == Errno::EINVAL && !first { Errno::EIDRM } else { e }
}

/// msgsnd(2).
pub(crate) fn send(task: &mut Task, [id, ptr, size, flags, ..]: [u64; 6]) -> Result<u64> {
    let (id, flags) = (id as i32, flags as i32);
    if size > MESSAGE_MAX as u64 || id < 0 {
        return Err(Errno::EINVAL);
    }
    let kind: i64 = task.mem().read(ptr)?;
    if kind < 1 {
        return Err(Errno::EINVAL);
    }
    let mut data = vec![0u8; size as usize];
    task.mem().copy_out(ptr.wrapping_add(8), &mut data)?;
    let kernel = task.kernel().clone();
    let (pid, when, cred) = (task.pid(), now(task), task.process.credentials());
    let all = &kernel.io.ipc.msg;
    let mut first = true;
    let mut message = Some(Message { kind, data });
    all.queue.wait(task, None, || {
        let mut t = lock(&all.table);
        let q = match t.get(id) {
            Ok(q) => q,
            Err(e) => return Some(Err(removed(e, first))),
        };
        if let Err(e) = q.perm.check(&cred, W) {
            return Some(Err(e));
        }
        if q.bytes + size > q.max || q.messages.len() as u64 + 1 > q.max {
            first = false;
            return if flags & libc::IPC_NOWAIT != 0 { Some(Err(Errno::EAGAIN)) } else { None };
        }
        q.bytes += size;
        q.messages.extend(message.take());
        q.times[0] = when;
        q.pids[0] = pid;
        Some(Ok(()))
    })??;
    all.queue.wake_all();
    Ok(0)
}

/// Which message msgrcv(2) takes.
fn choose(q: &Queue, kind: i64, flags: i32) -> Option<usize> {
    if flags & COPY != 0 {
        return usize::try_from(kind).ok().filter(|n| *n < q.messages.len());
    }
    match kind {
        0 => (!q.messages.is_empty()).then_some(0),
        k if k > 0 && flags & EXCEPT != 0 => q.messages.iter().position(|m| m.kind != k),
        k if k > 0 => q.messages.iter().position(|m| m.kind == k),
        k => {
            let lowest = q.messages.iter().map(|m| m.kind).filter(|m| *m <= k.saturating_neg()).min()?;
            q.messages.iter().position(|m| m.kind == lowest)
        }
    }
}

/// msgrcv(2).
pub(crate) fn receive(task: &mut Task, [id, ptr, size, kind, flags, _]: [u64; 6]) -> Result<u64> {
    let (id, kind, flags) = (id as i32, kind as i64, flags as i32);
    if (size as i64) < 0 || id < 0 || flags & COPY != 0 && (flags & EXCEPT != 0 || flags & libc::IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let kernel = task.kernel().clone();
    let (pid, when, cred) = (task.pid(), now(task), task.process.credentials());
    let all = &kernel.io.ipc.msg;
    let mut first = true;
    let m = all.queue.wait(task, None, || {
        let mut t = lock(&all.table);
        let q = match t.get(id) {
            Ok(q) => q,
            Err(e) => return Some(Err(removed(e, first))),
        };
        if let Err(e) = q.perm.check(&cred, R) {
            return Some(Err(e));
        }
        let Some(i) = choose(q, kind, flags) else {
            first = false;
            return if flags & libc::IPC_NOWAIT != 0 { Some(Err(Errno::ENOMSG)) } else { None };
        };
        if q.messages[i].data.len() as u64 > size && flags & NOERROR == 0 {
            return Some(Err(Errno::E2BIG));
        }
        if flags & COPY != 0 {
            let m = &q.messages[i];
            return Some(Ok(Message { kind: m.kind, data: m.data.clone() }));
        }
        let m = q.messages.remove(i)?;
        q.bytes -= m.data.len() as u64;
        q.times[1] = when;
        q.pids[1] = pid;
        Some(Ok(m))
    })??;
    all.queue.wake_all();
    let n = m.data.len().min(size as usize);
    task.mem().write(ptr, m.kind)?;
    task.mem().copy_in(ptr.wrapping_add(8), &m.data[..n])?;
    Ok(n as u64)
}

fn bytes(q: &Queue) -> [u8; 120] {
    let mut b = [0u8; 120];
    b[..48].copy_from_slice(&q.perm.bytes(0));
    let words = [q.times[0] as u64, q.times[1] as u64, q.times[2] as u64, q.bytes, q.messages.len() as u64, q.max];
    for (i, w) in words.iter().enumerate() {
        b[48 + 8 * i..56 + 8 * i].copy_from_slice(&w.to_le_bytes());
    }
    b[96..100].copy_from_slice(&q.pids[0].to_le_bytes());
    b[100..104].copy_from_slice(&q.pids[1].to_le_bytes());
    b
}

/// msgctl(2).
pub(crate) fn control(task: &mut Task, [id, cmd, buf, ..]: [u64; 6]) -> Result<u64> {
    const STAT: i32 = 11;
    const INFO: i32 = 12;
    const STAT_ANY: i32 = 13;
    let (id, cmd) = (id as i32, cmd as i32);
    let mem = task.mem();
    let cred = task.process.credentials();
    let kernel = task.kernel().clone();
    let all = &kernel.io.ipc.msg;
    match cmd {
        libc::IPC_STAT | STAT | STAT_ANY => {
            let (n, b) = {
                let mut t = lock(&all.table);
                let (n, q) = if cmd == libc::IPC_STAT { (0, t.get(id)?) } else { t.by_index(id)? };
                if cmd != STAT_ANY {
                    q.perm.check(&cred, R)?;
                }
                (n, bytes(q))
            };
            mem.copy_in(buf, &b)?;
            Ok(n as u64)
        }
        libc::IPC_SET => {
            let mut b = [0u8; 120];
            mem.copy_out(buf, &mut b)?;
            let max = b[88..].first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
            {
                let mut t = lock(&all.table);
                let q = t.get(id)?;
                q.perm.owner(&cred)?;
                if max > QUEUE_MAX && cred.euid != 0 {
                    return Err(Errno::EPERM);
                }
                q.perm.set(&b);
                q.max = max;
                q.times[2] = now(task);
            }
            all.queue.wake_all();
            Ok(0)
        }
        libc::IPC_RMID => {
            {
                let mut t = lock(&all.table);
                t.get(id)?.perm.owner(&cred)?;
                t.remove(id);
            }
            all.queue.wake_all();
            Ok(0)
        }
        libc::IPC_INFO | INFO => {
            let (queues, messages, total, highest) = {
                let t = lock(&all.table);
                let n = t.objects.values().map(|q| q.messages.len() as i32).sum();
                (t.objects.len() as i32, n, t.objects.values().map(|q| q.bytes as i32).sum(), t.highest())
            };
            let now = cmd == INFO;
            let pick = |a: i32, b: i32| if now { a } else { b };
            let info = [
                pick(queues, 512_000),
                pick(messages, 16_384),
                MESSAGE_MAX as i32,
                QUEUE_MAX as i32,
                32_000,
                16,
                pick(total, 16_384),
            ];
            for (i, w) in info.iter().enumerate() {
                mem.write(buf.wrapping_add(4 * i as u64), *w)?;
            }
            mem.write(buf.wrapping_add(28), 0xffffu16)?;
            Ok(highest as u64)
        }
        _ => Err(Errno::EINVAL),
    }
}
