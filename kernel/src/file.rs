//! Open file descriptions: what a descriptor refers to, whatever kind of file it is.

use crate::errno::{Errno, Result};
use crate::wait::{Blocking, WaitQueue};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

bitflags::bitflags! {
    /// Readiness, with the values of poll(2).
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct Ready: u32 {
        #[allow(missing_docs)] const IN = 1;
        #[allow(missing_docs)] const PRI = 2;
        #[allow(missing_docs)] const OUT = 4;
        #[allow(missing_docs)] const ERR = 8;
        #[allow(missing_docs)] const HUP = 16;
        #[allow(missing_docs)] const NVAL = 32;
        #[allow(missing_docs)] const RDNORM = 0x40;
        #[allow(missing_docs)] const WRNORM = 0x100;
        #[allow(missing_docs)] const WRBAND = 0x200;
        #[allow(missing_docs)] const RDHUP = 0x2000;
    }
}

impl Ready {
    /// With RDNORM beside IN and WRNORM beside OUT, as most files have it.
    pub fn with_norm(mut self) -> Ready {
        self.set(Ready::RDNORM, self.contains(Ready::IN));
        self.set(Ready::WRNORM, self.contains(Ready::OUT));
        self
    }
}

/// stat(2) of a file, in the widest form (statx).
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    /// File type and permission bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u32,
    /// In units of 512 bytes.
    pub blocks: u64,
    /// Seconds and nanoseconds.
    pub atime: (i64, u32),
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub btime: (i64, u32),
}

/// One directory entry.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct DirEntry {
    pub ino: u64,
    /// DT_* of getdents64(2).
    pub kind: u8,
    pub name: Vec<u8>,
}

/// Operations on an open file. The defaults are the errors Linux gives for a file that cannot do it.
/// Positions are absolute; the description keeps the current one. `nonblock` comes from O_NONBLOCK.
#[allow(unused_variables)]
pub trait File: Send + Sync {
    /// Read at a position (ignored by streams). 0 is end of file.
    fn read(&self, who: &dyn Blocking, pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Write at a position (ignored by streams; `u64::MAX` = append).
    fn write(&self, who: &dyn Blocking, pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        Err(Errno::EINVAL)
    }
    /// Whether it has positions (lseek, pread); streams give ESPIPE.
    fn seekable(&self) -> bool {
        false
    }
    /// Current metadata.
    fn stat(&self) -> Result<Stat>;
    /// Set the length.
    fn truncate(&self, len: u64) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// fsync, or fdatasync if `data`.
    fn sync(&self, data: bool) -> Result<()> {
        Err(Errno::EINVAL)
    }
    /// What is ready now.
    fn poll(&self) -> Ready {
        (Ready::IN | Ready::OUT).with_norm()
    }
    /// Queue that is woken when readiness changes; `None` if it never does.
    fn queue(&self) -> Option<&WaitQueue> {
        None
    }
    /// ioctl(2). Memory arguments are read and written through `mem`.
    fn ioctl(&self, who: &dyn Blocking, mem: evm_memory::Mem, cmd: u32, arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }
    /// Directory entries from position `pos` (0 = start) on; each with the position after it.
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        Err(Errno::ENOTDIR)
    }
    /// The host file that holds its pages, for mmap and for reads without a copy.
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    /// Without a host file: whether mmap gives a copy of the bytes that it has then. Reading them must lock no address space.
    fn copied(&self) -> bool {
        false
    }
    /// The host file to read from (or, if `write_end`, write to, up to that position) at positions directly, without
    /// [`read`](Self::read) and [`write`](Self::write); growth up to `write_end` is accounted for. `None` is always right.
    fn direct(&self, write_end: Option<u64>) -> Result<Option<BorrowedFd<'_>>> {
        Ok(None)
    }
    /// Read from a position to guest memory at `addr`, without a buffer in between; 0 if that cannot be done so.
    fn read_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        Ok(0)
    }
    /// Write to a position what guest memory has at `addr`, without a buffer in between; 0 if that cannot be done so.
    fn write_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        Ok(0)
    }
    /// The host file to read from without a copy, if the content is there now ([`host_fd`](Self::host_fd) may have to move it first).
    fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        self.host_fd()
    }
    /// Change O_NONBLOCK, O_APPEND notification (F_SETFL); most files need nothing.
    fn set_flags(&self, flags: u32) {}
    /// Called when the last descriptor for the description is closed.
    fn release(&self) {}
    /// For downcasts to sockets, epoll and directories.
    fn as_any(&self) -> &dyn std::any::Any;
}

/// An open file description (open(2)): shared by dup'ed and inherited descriptors.
pub struct Description {
    /// The file.
    pub file: Arc<dyn File>,
    /// Current position.
    pub pos: Mutex<u64>,
    /// Access mode and status flags (O_RDWR, O_APPEND, O_NONBLOCK, O_DIRECTORY, O_PATH …).
    pub flags: AtomicU32,
    /// Guest path it was opened by, for /proc/self/fd and traces.
    pub path: Vec<u8>,
    /// A folder with positions of 64 bits, of which a 32-bit program has been given the upper halves.
    pub halved: AtomicBool,
}

impl Description {
    /// A new description at position 0.
    pub fn new(file: Arc<dyn File>, flags: u32, path: impl Into<Vec<u8>>) -> Arc<Description> {
        let (pos, flags) = (Mutex::new(0), AtomicU32::new(flags));
        Arc::new(Description { file, pos, flags, path: path.into(), halved: AtomicBool::new(false) })
    }
    /// Status flags.
    pub fn flags(&self) -> u32 {
        self.flags.load(Ordering::Relaxed)
    }
    /// O_NONBLOCK.
    pub fn nonblock(&self) -> bool {
        self.flags() & libc::O_NONBLOCK as u32 != 0
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        self.file.release();
    }
}
