//! memfd_create(2): a file in memory without a name, on a memfd of the host so that it can be mapped shared.
//!
//! Its size is charged to the job's memory; seals are the host's.

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{File, Stat};
use crate::kernel::Kernel;
use crate::wait::Blocking;
use rustix::fs::{MemfdFlags, SealFlags};
use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// The file.
pub struct MemFd {
    fd: OwnedFd,
    kernel: Arc<Kernel>,
    /// Bytes charged: its largest size so far.
    charged: Mutex<u64>,
    ino: u64,
}

impl MemFd {
    /// An empty file; `seals`: sealing is allowed.
    pub fn new(kernel: &Arc<Kernel>, seals: bool) -> Result<MemFd> {
        let flags = if seals {
            MemfdFlags::ALLOW_SEALING
        } else {
            MemfdFlags::empty()
        };
        let fd = rustix::fs::memfd_create("evm", flags | MemfdFlags::CLOEXEC)?;
        Ok(MemFd {
            fd,
            kernel: kernel.clone(),
            charged: Mutex::new(0),
            ino: new_ino(),
        })
    }
    fn charge(&self, size: u64) -> Result<()> {
        let mut c = lock(&self.charged);
        if size > *c {
            self.kernel.limits.charge_memory(size - *c)?;
            *c = size;
        }
        Ok(())
    }
    fn size(&self) -> Result<u64> {
        Ok(rustix::fs::fstat(&self.fd)?.st_size as u64)
    }
    /// F_ADD_SEALS.
    pub fn add_seals(&self, seals: u32) -> Result<()> {
        Ok(rustix::fs::fcntl_add_seals(
            &self.fd,
            SealFlags::from_bits(seals).ok_or(Errno::EINVAL)?,
        )?)
    }
    /// F_GET_SEALS.
    pub fn seals(&self) -> Result<u32> {
        Ok(rustix::fs::fcntl_get_seals(&self.fd)?.bits())
    }
}

impl File for MemFd {
    fn read(
        &self,
        _who: &dyn Blocking,
        pos: u64,
        buf: &mut [u8],
        _nonblock: bool,
    ) -> Result<usize> {
        Ok(rustix::io::pread(&self.fd, buf, pos)?)
    }
    fn write(&self, _who: &dyn Blocking, pos: u64, buf: &[u8], _nonblock: bool) -> Result<usize> {
        let pos = if pos == u64::MAX { self.size()? } else { pos };
        self.charge(pos.checked_add(buf.len() as u64).ok_or(Errno::EFBIG)?)?;
        Ok(rustix::io::pwrite(&self.fd, buf, pos)?)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        let st = rustix::fs::fstat(&self.fd)?;
        let mut s = anon_stat(libc::S_IFREG | 0o777, self.ino);
        s.nlink = 0;
        s.size = st.st_size as u64;
        s.blocks = st.st_blocks as u64;
        Ok(s)
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.charge(len)?;
        rustix::fs::ftruncate(&self.fd, len)?;
        let mut c = lock(&self.charged);
        if len < *c {
            self.kernel.limits.release_memory(*c - len);
            *c = len;
        }
        Ok(())
    }
    fn sync(&self, _data: bool) -> Result<()> {
        Ok(())
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Drop for MemFd {
    fn drop(&mut self) {
        self.kernel.limits.release_memory(*lock(&self.charged));
    }
}
