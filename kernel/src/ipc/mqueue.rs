//! Message queues of POSIX: descriptors of a queue that has a name in the job.

use super::{Perm, R, W};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::io::{anon_stat, lock, new_ino};
use crate::process::Process;
use crate::signal::{SigFields, SigInfo};
use crate::sys::time::read_timespec;
use crate::task::{Deadline, Task};
use crate::wait::{Blocking, WaitQueue};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

/// Limits of an ordinary user (/proc/sys/fs/mqueue).
const MESSAGES: i64 = 10;
const SIZE: i64 = 8192;
const PRIORITIES: u64 = 32_768;
/// Bytes of a mq_notify(3) cookie.
const COOKIE: usize = 32;

#[derive(Clone)]
enum Notice {
    None,
    Signal(i32, u64),
    /// A message of this text to a socket (SIGEV_THREAD of the C library).
    Thread(Arc<Description>, [u8; COOKIE]),
}

struct State {
    /// By priority, oldest first.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: i64,
    bytes: u64,
    notice: Option<(Weak<Process>, Notice)>,
    receivers: usize,
}

/// A queue.
pub struct MessageQueue {
    perm: Mutex<Perm>,
    max: i64,
    size: i64,
    state: Mutex<State>,
    readers: WaitQueue,
    writers: WaitQueue,
    ready: WaitQueue,
    ino: u64,
}

/// Names of queues.
#[derive(Default)]
pub struct Names(Mutex<BTreeMap<Vec<u8>, Arc<MessageQueue>>>);

struct Handle(Arc<MessageQueue>);

impl File for Handle {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        let (size, notify, signo, pid) = {
            let s = lock(&self.0.state);
            let (n, g, p) = match &s.notice {
                None => (0, 0, 0),
                Some((p, n)) => {
                    let (kind, sig) = match n {
                        Notice::Signal(s, _) => (libc::SIGEV_SIGNAL, *s),
                        Notice::None => (libc::SIGEV_NONE, 0),
                        Notice::Thread(..) => (libc::SIGEV_THREAD, 0),
                    };
                    (kind, sig, p.upgrade().map_or(0, |p| p.pid))
                }
            };
            (s.bytes, n, g, p)
        };
        let text = format!("QSIZE:{size:<10} NOTIFY:{notify:<5} SIGNO:{signo:<5} NOTIFY_PID:{pid:<6}\n");
        let rest = text.as_bytes().get(pos as usize..).unwrap_or_default();
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        let p = lock(&self.0.perm);
        Ok(Stat { uid: p.uid, gid: p.gid, size: 80, ..anon_stat(libc::S_IFREG | p.mode, self.0.ino) })
    }
    fn poll(&self) -> Ready {
        let s = lock(&self.0.state);
        let mut r = Ready::empty();
        r.set(Ready::IN, s.count > 0);
        r.set(Ready::OUT, s.count < self.0.max);
        r.with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.ready)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn of(d: &Description) -> Result<&Arc<MessageQueue>> {
    d.file.as_any().downcast_ref::<Handle>().map(|h| &h.0).ok_or(Errno::EBADF)
}

/// A name argument: one component, without the slash that the C library takes off.
fn name(task: &Task, addr: u64) -> Result<Vec<u8>> {
    let n = task.mem().read_cstr(addr, 4095)?.ok_or(Errno::ENAMETOOLONG)?;
    if n.is_empty() {
        return Err(Errno::ENOENT);
    }
    if n.contains(&b'/') {
        return Err(Errno::EACCES);
    }
    if n.len() > 255 {
        return Err(Errno::ENAMETOOLONG);
    }
    Ok(n)
}

/// mq_open(2).
pub(crate) fn open(task: &mut Task, [addr, flags, mode, attr, ..]: [u64; 6]) -> Result<u64> {
    let flags = flags as i32;
    let name = name(task, addr)?;
    let wanted = if attr != 0 && flags & libc::O_CREAT != 0 {
        let m = task.mem();
        Some((m.read::<i64>(attr.wrapping_add(8))?, m.read::<i64>(attr.wrapping_add(16))?))
    } else {
        None
    };
    let cred = task.process.credentials();
    let kernel = task.kernel().clone();
    let queue = {
        let mut names = lock(&kernel.io.ipc.mqueue.0);
        match names.get(&name) {
            Some(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => return Err(Errno::EEXIST),
            Some(q) => {
                let want = match flags & libc::O_ACCMODE {
                    libc::O_RDONLY => R,
                    libc::O_WRONLY => W,
                    libc::O_RDWR => R | W,
                    _ => return Err(Errno::EINVAL),
                };
                lock(&q.perm).check(&cred, want)?;
                q.clone()
            }
            None if flags & libc::O_CREAT == 0 => return Err(Errno::ENOENT),
            None => {
                let (max, size) = wanted.unwrap_or((MESSAGES, SIZE));
                if max <= 0 || size <= 0 || cred.euid != 0 && (max > MESSAGES || size > SIZE) {
                    return Err(Errno::EINVAL);
                }
                if max > 65_536 || size > 16 << 20 {
                    return Err(Errno::EINVAL);
                }
                if names.len() >= 256 {
                    return Err(Errno::ENOSPC);
                }
                let perm = Perm::new(0, mode as u32 & !task.fs().umask(), &cred);
                let state = State { messages: BTreeMap::new(), count: 0, bytes: 0, notice: None, receivers: 0 };
                let q = Arc::new(MessageQueue {
                    perm: Mutex::new(perm),
                    max,
                    size,
                    state: Mutex::new(state),
                    readers: WaitQueue::default(),
                    writers: WaitQueue::default(),
                    ready: WaitQueue::default(),
                    ino: new_ino(),
                });
                names.insert(name.clone(), q.clone());
                q
            }
        }
    };
    let keep = flags & (libc::O_ACCMODE | libc::O_NONBLOCK);
    let d = Description::new(Arc::new(Handle(queue)), keep as u32, [&b"/"[..], &name].concat());
    Ok(task.fds().insert(d, flags & libc::O_CLOEXEC != 0)? as u64)
}

/// mq_unlink(2).
pub(crate) fn unlink(task: &mut Task, [addr, ..]: [u64; 6]) -> Result<u64> {
    let name = name(task, addr)?;
    let kernel = task.kernel().clone();
    let mut names = lock(&kernel.io.ipc.mqueue.0);
    let q = names.get(&name).ok_or(Errno::ENOENT)?;
    // The directory of queues is sticky.
    lock(&q.perm).owner(&task.process.credentials())?;
    let gone = names.remove(&name);
    drop(names);
    drop(gone);
    Ok(0)
}

/// The end of a wait until a time of the wall clock.
fn until(task: &Task, at: u64) -> Result<Option<Deadline>> {
    if at == 0 {
        return Ok(None);
    }
    let t = read_timespec(task.mem(), at)?;
    let clock = &task.kernel().clock;
    let left = t.saturating_sub(clock.realtime());
    Ok(Some(task.deadline_at(clock.peek().saturating_add(left))))
}

fn timed_out(task: &Task, d: Option<Deadline>, e: Errno) -> Errno {
    if e == Errno::ETIMEDOUT
        && let Some(d) = d
    {
        task.kernel().clock.reached(d.at);
    }
    e
}

/// mq_timedsend(2).
pub(crate) fn send(task: &mut Task, [fd, ptr, len, priority, timeout, _]: [u64; 6]) -> Result<u64> {
    if priority >= PRIORITIES {
        return Err(Errno::EINVAL);
    }
    let end = until(task, timeout)?;
    let d = task.fds().get_io(fd as i32)?;
    let q = of(&d)?;
    if d.flags() as i32 & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(Errno::EBADF);
    }
    if len > q.size as u64 {
        return Err(Errno::EMSGSIZE);
    }
    let mut data = vec![0u8; len as usize];
    task.mem().copy_out(ptr, &mut data)?;
    let mut data = Some(data);
    let mut notice = None;
    let mut attempt = || {
        let mut s = lock(&q.state);
        if s.count >= q.max {
            return None;
        }
        if s.count == 0 && s.receivers == 0 {
            notice = s.notice.take();
        }
        s.count += 1;
        s.bytes += len;
        s.messages.entry(priority as u32).or_default().extend(data.take());
        Some(())
    };
    if attempt().is_none() {
        if d.nonblock() {
            return Err(Errno::EAGAIN);
        }
        q.writers.wait(task, end.and_then(|d| d.host), attempt).map_err(|e| timed_out(task, end, e))?;
    }
    q.readers.wake_all();
    q.ready.wake_all();
    if let Some((p, n)) = notice {
        tell(task, &p, &n);
    }
    Ok(0)
}

/// A message came to an empty queue that nobody waits at.
fn tell(task: &Task, to: &Weak<Process>, n: &Notice) {
    match n {
        Notice::None => {}
        Notice::Signal(signo, value) => {
            if let Some(p) = to.upgrade() {
                let fields = SigFields::Queue { pid: task.pid(), uid: task.process.credentials().uid, value: *value };
                // A full queue of signals loses it.
                let _ = p.signal(SigInfo { signo: *signo, errno: 0, code: libc::SI_MESGQ, fields });
            }
        }
        Notice::Thread(d, cookie) => {
            let mut c = *cookie;
            c[COOKIE - 1] = 1; // NOTIFY_WOKENUP
            let _ = d.file.write(task, 0, &c, true);
        }
    }
}

/// mq_timedreceive(2).
pub(crate) fn receive(task: &mut Task, [fd, ptr, len, priority, timeout, _]: [u64; 6]) -> Result<u64> {
    let end = until(task, timeout)?;
    let d = task.fds().get_io(fd as i32)?;
    let q = of(&d)?;
    if d.flags() as i32 & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(Errno::EBADF);
    }
    if len < q.size as u64 {
        return Err(Errno::EMSGSIZE);
    }
    let attempt = || {
        let mut s = lock(&q.state);
        let mut top = s.messages.last_entry()?;
        let p = *top.key();
        let m = top.get_mut().pop_front();
        if top.get().is_empty() {
            top.remove();
        }
        let m = m?;
        s.count -= 1;
        s.bytes -= m.len() as u64;
        Some((p, m))
    };
    let (p, m) = match attempt() {
        Some(x) => x,
        None if d.nonblock() => return Err(Errno::EAGAIN),
        None => {
            lock(&q.state).receivers += 1;
            let r = q.readers.wait(task, end.and_then(|d| d.host), attempt);
            lock(&q.state).receivers -= 1;
            r.map_err(|e| timed_out(task, end, e))?
        }
    };
    q.writers.wake_all();
    q.ready.wake_all();
    task.mem().copy_in(ptr, &m)?;
    if priority != 0 {
        task.mem().write(priority, p)?;
    }
    Ok(m.len() as u64)
}

/// mq_notify(2).
pub(crate) fn notify(task: &mut Task, [fd, event, ..]: [u64; 6]) -> Result<u64> {
    let notice = if event == 0 {
        None
    } else {
        let mem = task.mem();
        // All of a struct sigevent is read.
        mem.copy_out(event, &mut [0; 64])?;
        let (value, signo, kind) = (mem.read::<u64>(event)?, mem.read::<i32>(event + 8)?, mem.read::<i32>(event + 12)?);
        Some(match kind {
            libc::SIGEV_NONE => Notice::None,
            libc::SIGEV_SIGNAL if (0..=64).contains(&signo) => Notice::Signal(signo, value),
            libc::SIGEV_THREAD => {
                let mut cookie = [0u8; COOKIE];
                mem.copy_out(value, &mut cookie)?;
                Notice::Thread(task.fds().get_io(signo)?, cookie)
            }
            _ => return Err(Errno::EINVAL),
        })
    };
    let d = task.fds().get_io(fd as i32)?;
    let q = of(&d)?;
    // Who asked before, if it still runs: the table of processes is not locked inside the queue.
    let known = lock(&q.state).notice.as_ref().map(|n| n.0.clone());
    let alive = known.as_ref().and_then(Weak::upgrade).filter(|p| task.kernel().process(p.pid).is_some());
    let mut s = lock(&q.state);
    let same = matches!((&known, &s.notice), (Some(k), Some((p, _))) if k.ptr_eq(p));
    let owner = if same { alive } else { s.notice.as_ref().and_then(|n| n.0.upgrade()) };
    let gone = match notice {
        None if owner.as_ref().is_some_and(|p| p.pid == task.pid()) => s.notice.take(),
        None => None,
        Some(_) if owner.is_some() => return Err(Errno::EBUSY),
        Some(n) => s.notice.replace((Arc::downgrade(&task.process), n)),
    };
    drop(s);
    drop(gone);
    Ok(0)
}

/// A process closed a descriptor: it is no longer told of messages in the queue, even if others have it.
pub(crate) fn closed(task: &Task, d: &Description) {
    let Ok(q) = of(d) else { return };
    let mut s = lock(&q.state);
    let own = s.notice.as_ref().is_some_and(|(p, _)| p.ptr_eq(&Arc::downgrade(&task.process)));
    let gone = if own { s.notice.take() } else { None };
    drop(s);
    drop(gone);
}

/// mq_getsetattr(2).
pub(crate) fn attributes(task: &mut Task, [fd, new, old, ..]: [u64; 6]) -> Result<u64> {
    const NONBLOCK: i64 = libc::O_NONBLOCK as i64;
    let flags = if new == 0 { None } else { Some(task.mem().read::<i64>(new)?) };
    if flags.is_some_and(|f| f & !NONBLOCK != 0) {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    let q = of(&d)?;
    let was = [i64::from(d.flags()) & NONBLOCK, q.max, q.size, lock(&q.state).count];
    if let Some(f) = flags {
        let keep = d.flags() & !(NONBLOCK as u32);
        d.flags.store(keep | f as u32, std::sync::atomic::Ordering::Relaxed);
    }
    if old != 0 {
        for (i, v) in was.iter().enumerate() {
            task.mem().write(old.wrapping_add(8 * i as u64), *v)?;
        }
    }
    Ok(0)
}
