//! What a regular file holds: bytes in memory, a host memfd, or still what is in the layer below.
//!
//! A file begins as bytes. One that grows above [`INLINE_MAX`] or is mapped moves to a memfd, for good: its descriptor is given
//! out. Content of the layer below is brought up ([`super::overlay`]) before it is changed.
//!
//! Content is charged by its length: what it will grow by is charged before it grows, and given back if it did not.

use super::MemNode;
use crate::errno::{Errno, Result};
use crate::fs::node::{Caller, Node, read, write};
use crate::fs::window::Windowed;
use crate::wait::Nobody;
use evm_memory::Mem;
use rustix::fs as hfs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

/// Files above this size live in a host memfd.
pub(super) const INLINE_MAX: u64 = 64 << 10;

pub(super) enum Data {
    Bytes(Vec<u8>),
    /// In the memfd; the length.
    Fd(u64),
    /// In the layer below; the length.
    Lower(Arc<dyn Node>, u64),
}

impl Data {
    pub(super) fn len(&self) -> u64 {
        match self {
            Data::Bytes(v) => v.len() as u64,
            Data::Fd(n) | Data::Lower(_, n) => *n,
        }
    }
    /// What is charged for it.
    pub(super) fn cost(&self) -> u64 {
        if let Data::Lower(..) = self { 0 } else { self.len() }
    }
}

/// A regular file's part of its node.
pub(super) struct FileBody {
    pub(super) data: RwLock<Data>,
    /// The memfd, once there is one.
    fd: OnceLock<OwnedFd>,
    window: Windowed,
    seals: AtomicU32,
}

impl FileBody {
    pub(super) fn new(data: Data, seals: u32) -> FileBody {
        FileBody {
            data: RwLock::new(data),
            fd: OnceLock::new(),
            window: Windowed::default(),
            seals: AtomicU32::new(seals),
        }
    }
    /// A file that takes no seals, as all but memfds are.
    pub(super) fn unsealable(data: Data) -> FileBody {
        FileBody::new(data, libc::F_SEAL_SEAL as u32)
    }
    /// The memfd, if the file is in one.
    pub(super) fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.get().map(AsFd::as_fd)
    }
    /// Move inline bytes to a memfd.
    pub(super) fn to_fd(&self, data: &mut Data) -> Result<()> {
        let Data::Bytes(v) = data else { return Ok(()) };
        let fd = hfs::memfd_create(c"file", hfs::MemfdFlags::CLOEXEC)?;
        hfs::ftruncate(&fd, v.len() as u64)?;
        write_all_at(&fd, v, 0)?;
        let len = v.len() as u64;
        if self.fd.set(fd).is_err() {
            return Err(Errno::EIO);
        }
        *data = Data::Fd(len);
        Ok(())
    }
    fn resize(&self, data: &mut Data, len: u64) -> Result<()> {
        if len > INLINE_MAX {
            self.to_fd(data)?;
        }
        match data {
            Data::Bytes(v) => v.resize(len as usize, 0),
            Data::Fd(n) => {
                hfs::ftruncate(self.fd.get().ok_or(Errno::EIO)?, len)?;
                *n = len;
            }
            Data::Lower(..) => return Err(Errno::EIO),
        }
        Ok(())
    }
    /// Write to content that is no longer below, and charged up to the end of what is written.
    fn put(&self, data: &mut Data, pos: u64, buf: &[u8]) -> Result<usize> {
        match data {
            Data::Bytes(v) => {
                let (a, b) = (pos as usize, pos as usize + buf.len());
                if b > v.len() {
                    v.resize(b, 0);
                }
                v[a..b].copy_from_slice(buf);
                Ok(buf.len())
            }
            Data::Fd(len) => {
                let n = rustix::io::pwrite(self.fd.get().ok_or(Errno::EIO)?, buf, pos)?;
                *len = (*len).max(pos + n as u64);
                Ok(n)
            }
            Data::Lower(..) => Err(Errno::EIO),
        }
    }
}

impl MemNode {
    /// truncate(2).
    pub(super) fn set_len(&self, len: u64) -> Result<()> {
        let f = self.file()?;
        if len > i64::MAX as u64 {
            return Err(Errno::EFBIG);
        }
        let seals = f.seals.load(Ordering::Relaxed) as i32;
        let lower_len = read(&f.data).len();
        if (len < lower_len && seals & libc::F_SEAL_SHRINK != 0) || (len > lower_len && seals & libc::F_SEAL_GROW != 0)
        {
            return Err(Errno::EPERM);
        }
        if len == 0 {
            let mut data = write(&f.data);
            let old = data.cost();
            match &mut *data {
                Data::Fd(n) => {
                    if let Some(fd) = f.fd.get() {
                        hfs::ftruncate(fd, 0)?;
                    }
                    *n = 0;
                }
                d => *d = Data::Bytes(Vec::new()),
            }
            drop(data);
            self.fs.world.release_tmpfs(old);
            self.touch();
            return Ok(());
        }
        self.copy_up()?;
        let mut data = write(&f.data);
        let old = data.len();
        if len > old {
            self.fs.charge(len - old)?;
        }
        let r = f.resize(&mut data, len);
        let now = data.len();
        drop(data);
        let charged = old.max(len);
        if now < charged {
            self.fs.world.release_tmpfs(charged - now);
        }
        r?;
        self.touch();
        Ok(())
    }
    pub(super) fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<usize> {
        let f = self.file()?;
        let data = read(&f.data);
        match &*data {
            Data::Bytes(v) => {
                let from = usize::try_from(pos).unwrap_or(usize::MAX).min(v.len());
                let n = buf.len().min(v.len() - from);
                buf[..n].copy_from_slice(&v[from..from + n]);
                Ok(n)
            }
            Data::Fd(_) => {
                drop(data);
                Ok(rustix::io::pread(f.fd.get().ok_or(Errno::EIO)?, buf, pos)?)
            }
            Data::Lower(n, _) => {
                let n = n.clone();
                drop(data);
                n.open(&Caller::default(), libc::O_RDONLY as u32)?.read(&Nobody::new(), pos, buf, true)
            }
        }
    }
    /// Write; `u64::MAX` is the end of the file.
    /// Write to `len` bytes that a large file has at `pos`, which needs no exclusive lock; 0 if it has not. `write` has the file, its memfd and
    /// its size.
    fn overwrite(
        &self,
        pos: u64,
        len: u64,
        write: impl FnOnce(&FileBody, &OwnedFd, u64) -> Result<usize>,
    ) -> Result<usize> {
        let f = self.file()?;
        let data = read(&f.data);
        let Data::Fd(size) = *data else { return Ok(0) };
        let sealed = f.seals.load(Ordering::Relaxed) as i32 & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0;
        if sealed || pos.checked_add(len).is_none_or(|end| end > size) {
            return Ok(0);
        }
        let n = write(f, f.fd.get().ok_or(Errno::EIO)?, size)?;
        drop(data);
        if n > 0 {
            self.touch();
        }
        Ok(n)
    }
    /// [`File::read_guest`](crate::file::File::read_guest), of a file without content in the layer below.
    pub(super) fn read_guest(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        let f = self.file()?;
        let data = read(&f.data);
        let (Data::Fd(size), Some(fd)) = (&*data, f.fd.get()) else { return Ok(0) };
        let n = len.min(size.saturating_sub(pos));
        let done = f.window.get(fd, *size).is_some_and(|w| w.read(mem, addr, n, pos));
        Ok(if done { n as usize } else { 0 })
    }
    /// [`File::write_guest`](crate::file::File::write_guest).
    pub(super) fn write_guest(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        self.overwrite(pos, len, |f, fd, size| {
            if f.window.get(fd, size).is_some_and(|w| w.write(mem, addr, len, pos)) {
                return Ok(len as usize);
            }
            match crate::io::host::pwrite_guest(fd.as_fd(), mem, addr, len, pos) {
                // A page of it is not there, or has translations: who copies finds out.
                Err(Errno::EFAULT | Errno::EINTR) => Ok(0),
                r => r,
            }
        })
    }
    pub(super) fn write_at(&self, pos: u64, buf: &[u8]) -> Result<usize> {
        let f = self.file()?;
        let seals = f.seals.load(Ordering::Relaxed) as i32;
        if seals & (libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE) != 0 {
            return Err(Errno::EPERM);
        }
        if buf.is_empty() {
            return Ok(0);
        }
        self.copy_up()?;
        let done = self.overwrite(pos, buf.len() as u64, |_, fd, _| Ok(rustix::io::pwrite(fd, buf, pos)?))?;
        if done > 0 {
            return Ok(done);
        }
        let mut data = write(&f.data);
        let old = data.len();
        let pos = if pos == u64::MAX { old } else { pos };
        let end = pos.checked_add(buf.len() as u64).filter(|e| *e <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
        if end > old {
            if seals & libc::F_SEAL_GROW != 0 {
                return Err(Errno::EPERM);
            }
            self.fs.charge(end - old)?;
            if end > INLINE_MAX
                && let Err(e) = f.to_fd(&mut data)
            {
                self.fs.world.release_tmpfs(end - old);
                return Err(e);
            }
        }
        let r = f.put(&mut data, pos, buf);
        let now = data.len();
        drop(data);
        self.fs.world.release_tmpfs(end.max(old).saturating_sub(now));
        self.touch();
        r
    }
    /// Seals of a memfd; EINVAL for other files.
    pub fn seals(&self) -> Result<u32> {
        Ok(self.file()?.seals.load(Ordering::Relaxed))
    }
    /// Whether a seal is in the way of a shared mapping: of one to write to, or of writing through one that is there.
    pub fn write_sealed(&self, write: bool) -> bool {
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_FUTURE_WRITE;
        write && self.seals().is_ok_and(|s| s & seals as u32 != 0)
    }
    /// Add seals (F_ADD_SEALS).
    pub fn add_seals(&self, add: u32) -> Result<()> {
        let f = self.file()?;
        let known = libc::F_SEAL_SEAL
            | libc::F_SEAL_SHRINK
            | libc::F_SEAL_GROW
            | libc::F_SEAL_WRITE
            | libc::F_SEAL_FUTURE_WRITE;
        if add & !(known as u32) != 0 {
            return Err(Errno::EINVAL);
        }
        if f.seals.load(Ordering::Relaxed) & libc::F_SEAL_SEAL as u32 != 0 {
            return Err(Errno::EPERM);
        }
        f.seals.fetch_or(add, Ordering::Relaxed);
        Ok(())
    }
    /// fallocate(2): make sure that the range is there; `punch` zeroes it instead.
    pub(crate) fn allocate(&self, off: u64, len: u64, keep_size: bool, zero: bool, punch: bool) -> Result<()> {
        let f = self.file()?;
        let end = off.checked_add(len).filter(|e| *e <= i64::MAX as u64).ok_or(Errno::EFBIG)?;
        self.copy_up()?;
        let size = read(&f.data).len();
        if zero || punch {
            let zeros = vec![0u8; 65536];
            let stop = end.min(size);
            let mut at = off;
            while at < stop {
                let n = (stop - at).min(zeros.len() as u64);
                at += self.write_at(at, &zeros[..n as usize])? as u64;
            }
        }
        if end > size && !keep_size && !punch {
            self.set_len(end)?;
        }
        Ok(())
    }
}

fn write_all_at(fd: &OwnedFd, mut buf: &[u8], mut pos: u64) -> Result<()> {
    while !buf.is_empty() {
        let n = rustix::io::pwrite(fd, buf, pos)?;
        if n == 0 {
            return Err(Errno::EIO);
        }
        buf = &buf[n..];
        pos += n as u64;
    }
    Ok(())
}
