//! What a file system is made of: nodes behind one trait, the caller as permission checks see it, and the few things
//! file systems need from the rest of the kernel.
//!
//! Rule: a node's operations take single names (never paths); links, `..`, mounts and permissions are the business of
//! [`super::walk`] and [`super::ops`], so no file system can be led out of itself.

use crate::errno::{Errno, Result};
use crate::file::{File, Stat};
use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub(crate) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}
pub(crate) fn read<T>(m: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    m.read().unwrap_or_else(PoisonError::into_inner)
}
pub(crate) fn write<T>(m: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    m.write().unwrap_or_else(PoisonError::into_inner)
}

/// Longest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// Longest path with its NUL.
pub const PATH_MAX: usize = 4096;

/// Permission bit: read.
pub const R: u32 = 4;
/// Permission bit: write.
pub const W: u32 = 2;
/// Permission bit: execute or search.
pub const X: u32 = 1;

/// File type part of a mode.
pub fn kind_of(mode: u32) -> u32 {
    mode & libc::S_IFMT
}
/// Whether a mode is a directory's.
pub fn is_dir(mode: u32) -> bool {
    kind_of(mode) == libc::S_IFDIR
}
/// DT_* of a mode.
pub fn dirent_kind(mode: u32) -> u8 {
    (kind_of(mode) >> 12) as u8
}

/// Who asks: thread and file system identity.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct Caller {
    pub pid: i32,
    pub tid: i32,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl Caller {
    /// Whether it has all capabilities.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
    /// Whether it is in a group.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
    /// Whether it owns the file (or may act as if).
    pub fn owns(&self, st: &Stat) -> bool {
        self.is_root() || self.uid == st.uid
    }
    /// EACCES unless the mode bits grant all of `want` ([`R`], [`W`], [`X`]).
    pub fn check(&self, st: &Stat, want: u32) -> Result<()> {
        let bits = if self.uid == st.uid {
            st.mode >> 6
        } else if self.in_group(st.gid) {
            st.mode >> 3
        } else {
            st.mode
        };
        let root = self.is_root() && (want & X == 0 || is_dir(st.mode) || st.mode & 0o111 != 0);
        if bits & want == want || root { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// A node with its metadata at the time it was found.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Found {
    pub node: Arc<dyn Node>,
    pub stat: Stat,
}

/// Where a symbolic link leads.
pub enum Link {
    /// A path, to be resolved in the guest's name space.
    Path(Vec<u8>),
    /// A place, as the links of /proc/self/fd have; with the text that readlink gives.
    Jump(super::Place, Vec<u8>),
}

/// What to make.
#[derive(Clone, Copy, Debug)]
pub enum Make<'a> {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link to this path.
    Symlink(&'a [u8]),
    /// A FIFO.
    Fifo,
    /// A socket's name.
    Socket,
    /// A character device (only the kernel itself makes some).
    Device(u64),
}

/// A time to set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The present.
    Now,
    /// Seconds and nanoseconds.
    At(i64, u32),
}

/// Attributes to set; permission was checked.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Change {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SetTime>,
    pub mtime: Option<SetTime>,
}

/// statfs(2) of a file system.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct StatFs {
    pub kind: u64,
    pub blocks: u64,
    pub free: u64,
    pub files: u64,
}

/// A file of a file system (an inode). Names given to it are single components other than `.` and `..`, not empty, at most
/// [`NAME_MAX`] long and without NUL or slash; `who` is for /proc and for ownership of new files.
#[allow(unused_variables)]
pub trait Node: Send + Sync {
    /// Metadata.
    fn stat(&self) -> Result<Stat>;
    /// The entry of a directory.
    fn lookup(&self, who: &Caller, name: &[u8]) -> Result<Found> {
        Err(Errno::ENOTDIR)
    }
    /// Several lookups at once, with the check that `who` may search the directories between, if the file system can do that faster.
    /// `None`: do it one by one. ELOOP: there is a link between.
    fn lookup_run(&self, who: &Caller, names: &[&[u8]]) -> Option<Result<Found>> {
        None
    }
    /// Target of a symbolic link.
    fn readlink(&self, who: &Caller) -> Result<Link> {
        Err(Errno::EINVAL)
    }
    /// Open; `flags` are those of open(2), creation, truncation and permission are done already.
    fn open(&self, who: &Caller, flags: u32) -> Result<Arc<dyn File>>;
    /// Make an entry; EEXIST if there is one. `mode`: permission bits, the umask applied.
    fn make(&self, who: &Caller, name: &[u8], what: Make<'_>, mode: u32) -> Result<Found> {
        Err(Errno::EPERM)
    }
    /// Make and open a regular file without a name in this directory (O_TMPFILE).
    fn unnamed(&self, flags: u32, mode: u32) -> Result<(Arc<dyn Node>, Arc<dyn File>)> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Make another name for a node of the same file system.
    fn link(&self, name: &[u8], target: &dyn Node) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Remove an entry: a directory if `dir`, else anything else.
    fn remove(&self, name: &[u8], dir: bool) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Rename; `flags` are RENAME_NOREPLACE and RENAME_EXCHANGE.
    fn rename(&self, name: &[u8], to: &dyn Node, to_name: &[u8], flags: u32) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// Set attributes.
    fn set(&self, change: &Change) -> Result<()> {
        Err(Errno::EPERM)
    }
    /// The value of an extended attribute; ENODATA if there is none.
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        Err(Errno::ENODATA)
    }
    /// The names of the extended attributes, each with a NUL behind it.
    fn xattrs(&self) -> Result<Vec<u8>> {
        Ok(Vec::new())
    }
    /// Set or (without a value) remove an extended attribute; permission was checked.
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    /// About the file system.
    fn statfs(&self) -> StatFs {
        StatFs::default()
    }
    /// For operations with two nodes.
    fn as_any(&self) -> &dyn Any;
}

/// What file systems need from the rest of the kernel.
#[allow(unused_variables)]
pub trait World: Send + Sync {
    /// Take disk space; false if the limit would be exceeded.
    fn charge_disk(&self, bytes: u64) -> bool;
    /// Give disk space back.
    fn release_disk(&self, bytes: u64);
    /// Limit and use of disk space (`u64::MAX` = no limit).
    fn disk(&self) -> (u64, u64);
    /// Take space of a file system in memory, which is disk space to the guest and memory of the host; false if one of the
    /// limits would be exceeded.
    fn charge_tmpfs(&self, bytes: u64) -> bool;
    /// Give space of a file system in memory back.
    fn release_tmpfs(&self, bytes: u64);
    /// Limit and use of file systems in memory (`u64::MAX` = no limit).
    fn tmpfs(&self) -> (u64, u64);
    /// A host path has become a file system of the guest.
    fn mounted(&self, path: &std::path::Path, read_only: bool) {}
    /// Whether wall-clock time is the host's.
    fn host_time(&self) -> bool {
        true
    }
    /// Wall-clock time: seconds and nanoseconds.
    fn now(&self) -> (i64, u32);
    /// Random bytes for /dev/urandom.
    fn random(&self, buf: &mut [u8]);
    /// The controlling terminal of a process, ENXIO if it has none.
    fn terminal(&self, pid: i32) -> Result<Arc<dyn File>>;
    /// A new pseudo terminal, opened by a process: its master.
    fn pty_master(&self, pid: i32) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
    /// The slave of a pseudo terminal.
    fn pty_slave(&self, index: u32) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}

/// Total and free blocks as statfs shows them: of the job's limit and its use, not of the host's disk.
pub(crate) fn shown_blocks((max, used): (u64, u64)) -> (u64, u64) {
    const UNLIMITED: u64 = 256 << 30;
    let total = max.min(UNLIMITED.saturating_add(used));
    (total / 4096, total.saturating_sub(used) / 4096)
}
