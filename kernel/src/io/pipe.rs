//! Pipes and named FIFOs.
//!
//! A [`Pipe`] is the buffer; a [`PipeEnd`] is what a description refers to, one for each open(2), so that
//! releasing it counts the end out. Writes of at most [`PIPE_BUF`] bytes are atomic.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use std::any::Any;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

/// Largest atomic write.
pub const PIPE_BUF: usize = 4096;
/// Capacity of a new pipe.
pub const DEFAULT_CAPACITY: usize = 65536;
/// Largest capacity (`fs.pipe-max-size`).
pub const MAX_CAPACITY: usize = 1 << 20;

#[derive(Default)]
struct State {
    buf: VecDeque<u8>,
    capacity: usize,
    readers: usize,
    writers: usize,
    /// How often each side was opened; tells an open(2) that waits that the other side came, even if it went again.
    reader_opens: u64,
    writer_opens: u64,
}

/// The buffer between the ends.
pub struct Pipe {
    state: Mutex<State>,
    /// Woken when there is more to read or the last writer went.
    data: WaitQueue,
    /// Woken when there is more room or the last reader went.
    room: WaitQueue,
    /// Woken at both, for ends that are open for both.
    both: WaitQueue,
    ino: u64,
    /// User and group that made it.
    owner: (u32, u32),
}

impl Pipe {
    fn new(owner: (u32, u32)) -> Arc<Pipe> {
        Arc::new(Pipe {
            state: Mutex::new(State { capacity: DEFAULT_CAPACITY, ..State::default() }),
            data: WaitQueue::default(),
            room: WaitQueue::default(),
            both: WaitQueue::default(),
            ino: new_ino(),
            owner,
        })
    }
    fn wake_readers(&self) {
        self.data.wake_all();
        self.both.wake_all();
    }
    fn wake_writers(&self) {
        self.room.wake_all();
        self.both.wake_all();
    }
    /// Bytes in the buffer.
    pub fn len(&self) -> usize {
        lock(&self.state).buf.len()
    }
    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Size of the buffer (F_GETPIPE_SZ).
    pub fn capacity(&self) -> usize {
        lock(&self.state).capacity
    }
    /// F_SETPIPE_SZ: rounds up to a power of two of pages; EBUSY if the contents do not fit, EPERM above the maximum.
    pub fn set_capacity(&self, size: usize) -> Result<usize> {
        if size > 1 << 31 {
            return Err(Errno::EINVAL);
        }
        let size = size.max(PIPE_BUF).next_power_of_two();
        if size > MAX_CAPACITY {
            return Err(Errno::EPERM);
        }
        {
            let mut s = lock(&self.state);
            if s.buf.len() > size {
                return Err(Errno::EBUSY);
            }
            s.capacity = size;
        }
        self.wake_writers();
        Ok(size)
    }
    /// Take bytes out without waiting: `None` if there are none but there are writers.
    fn try_read(&self, buf: &mut [u8]) -> Option<usize> {
        let (n, was_full) = {
            let mut s = lock(&self.state);
            if s.buf.is_empty() {
                return (s.writers == 0).then_some(0);
            }
            let full = s.capacity.saturating_sub(s.buf.len()) < PIPE_BUF;
            let n = copy_front(&s.buf, buf);
            s.buf.drain(..n);
            (n, full)
        };
        // Room in a pipe that had room is no news (edge-triggered epoll sees the difference).
        if was_full {
            self.wake_writers();
        }
        Some(n)
    }
    /// Put bytes in without waiting: `None` if there is no room.
    fn try_write(&self, buf: &[u8]) -> Option<Result<usize>> {
        let n = {
            let mut s = lock(&self.state);
            if s.readers == 0 {
                return Some(Err(Errno::EPIPE));
            }
            let room = s.capacity.saturating_sub(s.buf.len());
            if room == 0 || buf.len() <= PIPE_BUF && room < buf.len() {
                return None;
            }
            let n = room.min(buf.len());
            s.buf.extend(&buf[..n]);
            n
        };
        self.wake_readers();
        Some(Ok(n))
    }
    /// Read, waiting for the first byte.
    pub fn read(&self, who: &dyn Blocking, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        if nonblock {
            return self.try_read(buf).ok_or(Errno::EAGAIN);
        }
        self.data.wait(who, None, || self.try_read(buf))
    }
    /// Write all, waiting for room; what was written before an interruption counts.
    pub fn write(&self, who: &dyn Blocking, buf: &[u8], nonblock: bool) -> Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            // Only a write that is small as a whole is atomic; the rest of a large one takes what room there is.
            let left = &buf[done..];
            let r = match self.try_write(left) {
                Some(r) => r,
                None if nonblock => Err(Errno::EAGAIN),
                None => self.room.wait(who, None, || self.try_write(left)).and_then(|r| r),
            };
            match r {
                Ok(n) => done += n,
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    /// Copy up to `max` bytes without taking them (tee, MSG_PEEK): waits for the first.
    pub fn peek(&self, who: &dyn Blocking, max: usize, nonblock: bool) -> Result<Vec<u8>> {
        let look = || {
            let s = lock(&self.state);
            if s.buf.is_empty() && s.writers > 0 {
                return None;
            }
            let mut v = vec![0; max.min(s.buf.len())];
            copy_front(&s.buf, &mut v);
            Some(v)
        };
        if nonblock { look().ok_or(Errno::EAGAIN) } else { self.data.wait(who, None, look) }
    }
    /// Put bytes back at the front that were read but could not be passed on (splice).
    pub fn unread(&self, bytes: &[u8]) {
        {
            let mut s = lock(&self.state);
            for b in bytes.iter().rev() {
                s.buf.push_front(*b);
            }
        }
        self.wake_readers();
    }
    /// Wait until a write of one byte would not block; gives the room, EPIPE without readers.
    pub fn wait_room(&self, who: &dyn Blocking, nonblock: bool) -> Result<usize> {
        let look = || {
            let s = lock(&self.state);
            if s.readers == 0 {
                return Some(Err(Errno::EPIPE));
            }
            let room = s.capacity.saturating_sub(s.buf.len());
            (room > 0).then_some(Ok(room))
        };
        if nonblock { look().unwrap_or(Err(Errno::EAGAIN)) } else { self.room.wait(who, None, look)? }
    }
}

fn copy_front(from: &VecDeque<u8>, to: &mut [u8]) -> usize {
    let (a, b) = from.as_slices();
    let n = a.len().min(to.len());
    to[..n].copy_from_slice(&a[..n]);
    let m = b.len().min(to.len() - n);
    to[n..n + m].copy_from_slice(&b[..m]);
    n + m
}

/// Gives the metadata of a FIFO's inode.
pub type StatFn = Arc<dyn Fn() -> Result<Stat> + Send + Sync>;

/// One open end (or, for a FIFO opened O_RDWR, both).
pub struct PipeEnd {
    pipe: Arc<Pipe>,
    read: bool,
    write: bool,
    /// For a reader that came before any writer: no HUP until one was there.
    opened_at: u64,
    stat: Option<StatFn>,
}

/// Who had a pipe open at the moment of an open, and how many opens there had been until then.
struct Others {
    readers: usize,
    writers: usize,
    reader_opens: u64,
    writer_opens: u64,
}

impl PipeEnd {
    fn new(pipe: &Arc<Pipe>, read: bool, write: bool, stat: Option<StatFn>) -> PipeEnd {
        Self::join(pipe, &mut lock(&pipe.state), read, write, stat).0
    }
    fn join(pipe: &Arc<Pipe>, s: &mut State, read: bool, write: bool, stat: Option<StatFn>) -> (PipeEnd, Others) {
        let others = Others {
            readers: s.readers,
            writers: s.writers,
            reader_opens: s.reader_opens,
            writer_opens: s.writer_opens,
        };
        if read {
            s.readers += 1;
            s.reader_opens += 1;
        }
        if write {
            s.writers += 1;
            s.writer_opens += 1;
        }
        let opened_at = if s.writers == 0 { s.writer_opens } else { u64::MAX };
        (PipeEnd { pipe: pipe.clone(), read, write, opened_at, stat }, others)
    }
    /// The buffer.
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }
    /// Open for reading.
    pub fn readable(&self) -> bool {
        self.read
    }
    /// Open for writing.
    pub fn writable(&self) -> bool {
        self.write
    }
    /// Another open of the same pipe (through /proc/self/fd).
    pub fn reopen(&self, flags: u32) -> Result<Arc<dyn File>> {
        let (read, write) = access(flags)?;
        Ok(Arc::new(PipeEnd::new(&self.pipe, read, write, self.stat.clone())))
    }
}

fn access(flags: u32) -> Result<(bool, bool)> {
    match flags as i32 & libc::O_ACCMODE {
        libc::O_RDONLY => Ok((true, false)),
        libc::O_WRONLY => Ok((false, true)),
        libc::O_RDWR => Ok((true, true)),
        _ => Err(Errno::EINVAL),
    }
}

impl File for PipeEnd {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        if !self.read {
            return Err(Errno::EBADF);
        }
        self.pipe.read(who, buf, nonblock)
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        if !self.write {
            return Err(Errno::EBADF);
        }
        self.pipe.write(who, buf, nonblock)
    }
    fn stat(&self) -> Result<Stat> {
        match &self.stat {
            Some(f) => f(),
            None => {
                let (uid, gid) = self.pipe.owner;
                Ok(Stat { uid, gid, ..anon_stat(libc::S_IFIFO | 0o600, self.pipe.ino) })
            }
        }
    }
    fn poll(&self) -> Ready {
        let s = lock(&self.pipe.state);
        let mut r = Ready::empty();
        if self.read {
            if !s.buf.is_empty() {
                r |= Ready::IN;
            }
            if s.writers == 0 && self.opened_at != s.writer_opens {
                r |= Ready::HUP;
            }
        }
        if self.write {
            if s.capacity.saturating_sub(s.buf.len()) >= PIPE_BUF {
                r |= Ready::OUT;
            }
            if s.readers == 0 {
                r |= Ready::ERR;
            }
        }
        r.with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(match (self.read, self.write) {
            (true, false) => &self.pipe.data,
            (false, true) => &self.pipe.room,
            _ => &self.pipe.both,
        })
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            linux_raw_sys::ioctl::FIONREAD => {
                mem.write(arg, self.pipe.len() as u32)?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
    fn release(&self) {
        {
            let mut s = lock(&self.pipe.state);
            s.readers -= usize::from(self.read);
            s.writers -= usize::from(self.write);
            if s.readers == 0 && s.writers == 0 {
                s.buf = VecDeque::new();
            }
        }
        self.pipe.wake_readers();
        self.pipe.wake_writers();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// A new pipe of a user and group: read end and write end, with O_NONBLOCK from `flags`.
pub fn pipe(flags: u32, owner: (u32, u32)) -> (Arc<Description>, Arc<Description>) {
    let p = Pipe::new(owner);
    let name = format!("pipe:[{}]", p.ino);
    let keep = flags & libc::O_NONBLOCK as u32;
    let r = PipeEnd::new(&p, true, false, None);
    let w = PipeEnd::new(&p, false, true, None);
    // The reader was there first, but is no late-comer to a FIFO.
    let r = PipeEnd { opened_at: u64::MAX, ..r };
    (
        Description::new(Arc::new(r), libc::O_RDONLY as u32 | keep, name.as_bytes()),
        Description::new(Arc::new(w), libc::O_WRONLY as u32 | keep, name.as_bytes()),
    )
}

/// The pipe of a named FIFO; a file system keeps one for each such inode.
pub struct Fifo {
    pipe: Arc<Pipe>,
}

impl Default for Fifo {
    fn default() -> Fifo {
        Fifo { pipe: Pipe::new((0, 0)) }
    }
}

impl Fifo {
    /// open(2): a reader waits for a writer and a writer for a reader; with O_NONBLOCK a reader does not wait and a
    /// writer without a reader gives ENXIO. `stat` gives the inode's metadata.
    pub fn open(&self, who: &dyn Blocking, flags: u32, stat: StatFn) -> Result<Arc<dyn File>> {
        let (read, write) = access(flags)?;
        let nonblock = flags & libc::O_NONBLOCK as u32 != 0;
        let p = &self.pipe;
        // One look decides whether to wait: the other side may have come and gone again before the next one.
        let (end, others) = {
            let mut s = lock(&p.state);
            if write && !read && nonblock && s.readers == 0 {
                return Err(Errno::ENXIO);
            }
            PipeEnd::join(p, &mut s, read, write, Some(stat))
        };
        p.wake_readers();
        p.wake_writers();
        let wait = match (read, write) {
            (true, false) if !nonblock && others.writers == 0 => {
                p.data.wait(who, None, || (lock(&p.state).writer_opens != others.writer_opens).then_some(()))
            }
            (false, true) if others.readers == 0 => {
                p.room.wait(who, None, || (lock(&p.state).reader_opens != others.reader_opens).then_some(()))
            }
            _ => Ok(()),
        };
        if let Err(e) = wait {
            end.release();
            return Err(e);
        }
        Ok(Arc::new(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::poll::tests::Me;

    #[test]
    fn rules() {
        let me = Me::default();
        let (r, w) = pipe(0, (0, 0));
        let mut b = [0u8; 8192];
        assert_eq!(r.file.read(&me, 0, &mut b, true), Err(Errno::EAGAIN));
        assert_eq!(r.file.write(&me, 0, &b, true), Err(Errno::EBADF));
        assert_eq!(w.file.poll(), (Ready::OUT).with_norm());
        assert_eq!(w.file.write(&me, 0, &vec![1; 65536 - 4095], true), Ok(65536 - 4095));
        assert_eq!(w.file.poll(), Ready::empty());
        assert_eq!(w.file.write(&me, 0, &[2; 4096], true), Err(Errno::EAGAIN));
        assert_eq!(w.file.write(&me, 0, &[2; 4097], true), Ok(4095));
        assert_eq!(r.file.poll(), (Ready::IN).with_norm());
        assert_eq!(r.file.read(&me, 0, &mut b, false), Ok(8192));
        assert_eq!(w.file.poll(), (Ready::OUT).with_norm());
        drop(w);
        assert_eq!(r.file.poll(), (Ready::IN | Ready::HUP).with_norm());
        let mut left = 65536 - 8192;
        while left > 0 {
            left -= r.file.read(&me, 0, &mut b, false).unwrap();
        }
        assert_eq!(r.file.read(&me, 0, &mut b, false), Ok(0));
        let (r, w) = pipe(0, (0, 0));
        drop(r);
        assert_eq!(w.file.write(&me, 0, &[1], false), Err(Errno::EPIPE));
        assert_eq!(w.file.poll(), (Ready::OUT | Ready::ERR).with_norm());
    }

    #[test]
    fn threads_pass_everything() {
        let (r, w) = pipe(0, (0, 0));
        let t = std::thread::spawn(move || {
            let me = Me::default();
            for i in 0..2000u32 {
                let b = vec![i as u8; (i as usize * 37) % 9000 + 1];
                assert_eq!(w.file.write(&me, 0, &b, false), Ok(b.len()));
            }
        });
        let me = Me::default();
        let (mut total, mut b) = (0, [0u8; 5000]);
        loop {
            match r.file.read(&me, 0, &mut b, false).unwrap() {
                0 => break,
                n => total += n,
            }
        }
        t.join().unwrap();
        assert_eq!(total, (0..2000).map(|i| (i * 37) % 9000 + 1).sum::<usize>());
    }

    #[test]
    fn fifo_open() {
        let f = Arc::new(Fifo::default());
        let me = Me::default();
        let stat: StatFn = Arc::new(|| Ok(Stat::default()));
        let (wr, rd) = (libc::O_WRONLY as u32, libc::O_RDONLY as u32);
        let nb = libc::O_NONBLOCK as u32;
        assert_eq!(f.open(&me, wr | nb, stat.clone()).err(), Some(Errno::ENXIO));
        let early = f.open(&me, rd | nb, stat.clone()).unwrap();
        assert_eq!(early.poll(), Ready::empty());
        assert_eq!(early.read(&me, 0, &mut [0], true), Ok(0));
        early.release();
        let g = f.clone();
        let s2 = stat.clone();
        let t = std::thread::spawn(move || {
            let me = Me::default();
            let w = g.open(&me, wr, s2).unwrap();
            w.write(&me, 0, b"x", false).unwrap();
            w.release();
        });
        let r = f.open(&me, rd, stat).unwrap();
        let mut b = [0; 4];
        assert_eq!(r.read(&me, 0, &mut b, false), Ok(1));
        assert_eq!(r.read(&me, 0, &mut b, false), Ok(0));
        t.join().unwrap();
        assert_eq!(r.poll(), Ready::HUP);
    }

    /// A writer that waited for the reader, and is gone before the reader looks again, was there.
    #[test]
    fn fifo_open_meets_a_short_writer() {
        const ROUNDS: usize = 5000;
        let f = Arc::new(Fifo::default());
        let stat: StatFn = Arc::new(|| Ok(Stat::default()));
        let round = Arc::new(std::sync::Barrier::new(2));
        let (g, s2, r2) = (f.clone(), stat.clone(), round.clone());
        let t = std::thread::spawn(move || {
            for _ in 0..ROUNDS {
                g.open(&Me::default(), libc::O_WRONLY as u32, s2.clone()).unwrap().release();
                r2.wait();
            }
        });
        for _ in 0..ROUNDS {
            f.open(&Me::default(), libc::O_RDONLY as u32, stat.clone()).unwrap().release();
            round.wait();
        }
        t.join().unwrap();
    }
}
