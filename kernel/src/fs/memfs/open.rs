//! Open files and directories.

use super::MemNode;
use crate::errno::Result;
use crate::file::{DirEntry, File, Stat};
use crate::fs::node::{Node, write};
use crate::wait::Blocking;
use evm_memory::Mem;
use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// An open file or directory of a [`MemFs`](super::MemFs).
pub struct MemFile {
    /// The file.
    pub node: Arc<MemNode>,
    /// Content in the layer below at the time it was opened.
    pub(super) lower: Option<Arc<dyn File>>,
}

impl MemFile {
    /// Opened for reading and writing.
    pub fn new(node: Arc<MemNode>) -> MemFile {
        MemFile { node, lower: None }
    }
}

impl File for MemFile {
    fn read(&self, who: &dyn Blocking, pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        match &self.lower {
            Some(f) => f.read(who, pos, buf, nonblock),
            None => self.node.read_at(pos, buf),
        }
    }
    fn write(&self, _: &dyn Blocking, pos: u64, buf: &[u8], _: bool) -> Result<usize> {
        self.node.write_at(pos, buf)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        self.node.stat()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.node.set_len(len)
    }
    fn sync(&self, _: bool) -> Result<()> {
        Ok(())
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        self.node.entries_from(pos)
    }
    fn copied(&self) -> bool {
        true
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        if let Some(f) = &self.lower {
            return f.host_fd();
        }
        let f = self.node.file().ok()?;
        if f.host_fd().is_none() {
            f.to_fd(&mut write(&f.data)).ok()?;
        }
        f.host_fd()
    }
    fn read_guest(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        if self.lower.is_some() || self.node.file().is_err() {
            Ok(0)
        } else {
            self.node.read_guest(mem, addr, len, pos)
        }
    }
    fn write_guest(&self, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        self.node.write_guest(mem, addr, len, pos)
    }
    fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.lower {
            Some(f) => f.direct_fd(),
            None => self.node.file().ok()?.host_fd(),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
