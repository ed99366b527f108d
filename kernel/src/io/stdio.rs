//! Standard input and output of a job: streams of the host's ([`HostStream`]), or in memory ([`Input`], [`Capture`]).

pub use super::stream::{HostStream, Terminal, host_stdio};
use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use linux_raw_sys::ioctl as c;
use std::any::Any;
use std::sync::{Arc, Mutex};

/// Accounts for bytes of output; false if the limit is exceeded (nothing is written then).
pub type Charge = Arc<dyn Fn(u64) -> bool + Send + Sync>;

/// Standard input from bytes, then end of file.
pub struct Input {
    bytes: Vec<u8>,
    at: Mutex<usize>,
    ino: u64,
}

impl Input {
    /// These bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Input {
        Input { bytes: bytes.into(), at: Mutex::new(0), ino: new_ino() }
    }
    /// As an open file description for descriptor 0.
    pub fn describe(self) -> Arc<Description> {
        let name = format!("pipe:[{}]", self.ino);
        Description::new(Arc::new(self), libc::O_RDONLY as u32, name)
    }
}

impl File for Input {
    fn read(&self, _who: &dyn Blocking, _pos: u64, buf: &mut [u8], _nonblock: bool) -> Result<usize> {
        let mut at = lock(&self.at);
        let left = &self.bytes[*at..];
        let n = left.len().min(buf.len());
        buf[..n].copy_from_slice(&left[..n]);
        *at += n;
        Ok(n)
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(libc::S_IFIFO | 0o666, self.ino))
    }
    fn poll(&self) -> Ready {
        if *lock(&self.at) < self.bytes.len() { Ready::IN } else { Ready::IN | Ready::HUP }
    }
    fn queue(&self) -> Option<&WaitQueue> {
        static NEVER: std::sync::OnceLock<WaitQueue> = std::sync::OnceLock::new();
        Some(NEVER.get_or_init(WaitQueue::default))
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != c::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        mem.write(arg, (self.bytes.len() - *lock(&self.at)) as u32)?;
        Ok(0)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Standard output or error into memory.
pub struct Capture {
    bytes: Arc<Mutex<Vec<u8>>>,
    charge: Option<Charge>,
    ino: u64,
}

impl Capture {
    /// Appends to `bytes`.
    pub fn new(bytes: Arc<Mutex<Vec<u8>>>, charge: Option<Charge>) -> Capture {
        Capture { bytes, charge, ino: new_ino() }
    }
    /// As an open file description for descriptor 1 or 2.
    pub fn describe(self) -> Arc<Description> {
        let name = format!("pipe:[{}]", self.ino);
        Description::new(Arc::new(self), libc::O_WRONLY as u32, name)
    }
}

impl File for Capture {
    fn write(&self, _who: &dyn Blocking, _pos: u64, buf: &[u8], _nonblock: bool) -> Result<usize> {
        if let Some(c) = &self.charge
            && !c(buf.len() as u64)
        {
            return Err(Errno::ENOSPC);
        }
        lock(&self.bytes).extend_from_slice(buf);
        Ok(buf.len())
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(libc::S_IFIFO | 0o666, self.ino))
    }
    fn poll(&self) -> Ready {
        Ready::OUT.with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        static NEVER: std::sync::OnceLock<WaitQueue> = std::sync::OnceLock::new();
        Some(NEVER.get_or_init(WaitQueue::default))
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::poll::tests::Me;
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    #[test]
    fn host_pipe() {
        let (mut hr, hw) = std::io::pipe().unwrap();
        let out = HostStream::new(hw.as_fd(), None).unwrap().describe().unwrap();
        drop(hw);
        let t = std::thread::spawn(move || {
            let mut v = Vec::new();
            std::thread::sleep(Duration::from_millis(5));
            hr.read_to_end(&mut v).unwrap();
            v
        });
        let me = Me::default();
        assert_eq!(out.file.write(&me, 0, &[7; 200_000], false), Ok(200_000));
        drop(out);
        assert_eq!(t.join().unwrap().len(), 200_000);

        let (hr, mut hw) = std::io::pipe().unwrap();
        let input = HostStream::new(hr.as_fd(), None).unwrap().describe().unwrap();
        assert_eq!(input.file.read(&me, 0, &mut [0; 8], true), Err(Errno::EAGAIN));
        let t = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            hw.write_all(b"hello").unwrap();
            hw
        });
        let mut b = [0; 8];
        assert_eq!(input.file.read(&me, 0, &mut b, false), Ok(5));
        let hw = t.join().unwrap();
        let (stop, waker) = (me.stop.clone(), me.waker.clone());
        let t = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            stop.store(true, Ordering::Relaxed);
            waker.wake();
        });
        assert_eq!(input.file.read(&me, 0, &mut b, false), Err(Errno::EINTR));
        t.join().unwrap();
        drop(hw);
        assert_eq!(input.file.read(&Me::default(), 0, &mut b, false), Ok(0));
    }

    #[test]
    fn host_file_keeps_offset() {
        let f = rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&f, b"abc").unwrap();
        let d = HostStream::new(f.as_fd(), None).unwrap().describe().unwrap();
        assert_eq!(*d.pos.lock().unwrap(), 3);
        let me = Me::default();
        assert_eq!(d.file.write(&me, 3, b"def", false), Ok(3));
        assert_eq!(rustix::fs::tell(&f), Ok(6));
        let mut b = [0; 8];
        assert_eq!(d.file.read(&me, 1, &mut b, false), Ok(5));
        assert_eq!(&b[..5], b"bcdef");
    }
}
