//! A program given as bytes by the embedder: a read-only file in host memory.

use crate::errno::Result;
use crate::file::{Description, File, Stat};
use crate::wait::Blocking;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

struct BytesFile {
    fd: OwnedFd,
    len: u64,
}

/// A description of a regular, executable file with these contents.
pub(crate) fn description(bytes: &[u8], path: &[u8]) -> Result<Arc<Description>> {
    let fd = rustix::fs::memfd_create("evm-program", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut done = 0;
    while done < bytes.len() {
        done += rustix::io::pwrite(&fd, &bytes[done..], done as u64)?;
    }
    let f = BytesFile { fd, len: bytes.len() as u64 };
    Ok(Description::new(Arc::new(f), libc::O_RDONLY as u32, path))
}

impl File for BytesFile {
    fn read(&self, _who: &dyn Blocking, pos: u64, buf: &mut [u8], _nonblock: bool) -> Result<usize> {
        Ok(rustix::io::pread(&self.fd, buf, pos)?)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        Ok(Stat { mode: libc::S_IFREG | 0o555, nlink: 1, size: self.len, blksize: 4096, ..Stat::default() })
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.fd.as_fd())
    }
    fn as_any(&self) -> &dyn std::any::Any {
        self
    }
}
