//! A file system in memory, with an optional read-only layer below (so it serves as tmpfs, as the frame of the root, as
//! /dev, and as an overlay).
//!
//! A directory may have a *lower* directory: an entry that it does not have itself is looked up there and
//! remembered as a node of this file system, whose content stays below until it is written. Names removed from a lower
//! directory are kept as white-outs. So an overlay has the semantics of one file system, renames and hard links included.
//!
//! Small files are bytes; a file that grows or is mapped moves to a host memfd, for good.
//! All content (by length), names and nodes are charged to the job's disk limit.
//!
//! Lock order: the rename lock, then directories (two of them by address), then a node's meta data or content.

use super::node::*;
use super::window::Windowed;
use crate::errno::{Errno, Result};
use crate::file::{DirEntry, File, Stat};
use crate::wait::Blocking;
use rustix::fs as hfs;
use std::any::Any;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, Weak};

/// Files above this size live in a host memfd.
const INLINE_MAX: u64 = 64 << 10;
/// What a node costs besides its content.
const NODE_COST: u64 = 512;

/// The file system.
pub struct MemFs {
    dev: u64,
    world: Arc<dyn World>,
    next_ino: AtomicU64,
    rename: Mutex<()>,
    /// f_type for statfs.
    magic: u64,
}

struct Meta {
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    atime: (i64, u32),
    mtime: (i64, u32),
    ctime: (i64, u32),
    btime: (i64, u32),
}

enum Child {
    Node(Arc<MemNode>),
    /// In the lower directory, not looked up yet: inode number there and DT_*.
    Lower(u8),
}

struct Slot {
    seq: u64,
    child: Child,
}

#[derive(Default)]
struct DirBody {
    names: HashMap<Vec<u8>, Slot>,
    order: BTreeMap<u64, Vec<u8>>,
    next: u64,
    parent: Weak<MemNode>,
    /// Removed: takes no new entries.
    dead: bool,
    lower: Option<Arc<dyn Node>>,
    /// Names of the lower directory that are gone.
    white: HashSet<Vec<u8>>,
    /// All names of the lower directory are in `names` or `white`.
    listed: bool,
}

/// First position of an entry that is not `.` or `..`.
const FIRST: u64 = 2;

impl DirBody {
    fn insert(&mut self, name: &[u8], child: Child) {
        self.next = self.next.max(FIRST) + 1;
        let seq = self.next;
        if let Some(old) = self.names.insert(name.to_vec(), Slot { seq, child }) {
            self.order.remove(&old.seq);
        }
        self.order.insert(seq, name.to_vec());
    }
    fn take(&mut self, name: &[u8]) -> Option<Child> {
        let s = self.names.remove(name)?;
        self.order.remove(&s.seq);
        if self.lower.is_some() {
            self.white.insert(name.to_vec());
        }
        Some(s.child)
    }
}

enum Data {
    Bytes(Vec<u8>),
    /// In the memfd; the length.
    Fd(u64),
    /// In the layer below; the length.
    Lower(Arc<dyn Node>, u64),
}

impl Data {
    fn len(&self) -> u64 {
        match self {
            Data::Bytes(v) => v.len() as u64,
            Data::Fd(n) | Data::Lower(_, n) => *n,
        }
    }
    /// What is charged for it.
    fn cost(&self) -> u64 {
        if let Data::Lower(..) = self { 0 } else { self.len() }
    }
}

struct FileBody {
    data: RwLock<Data>,
    fd: OnceLock<OwnedFd>,
    window: Windowed,
    seals: AtomicU32,
}

enum Body {
    Dir(Mutex<DirBody>),
    File(FileBody),
    Symlink(Vec<u8>),
    Device(u64),
    Other,
}

/// A file in memory.
pub struct MemNode {
    fs: Arc<MemFs>,
    this: Weak<MemNode>,
    ino: u64,
    kind: u32,
    meta: Mutex<Meta>,
    body: Body,
}

impl Drop for MemNode {
    fn drop(&mut self) {
        let content = match &self.body {
            Body::File(f) => read(&f.data).cost(),
            Body::Symlink(t) => t.len() as u64,
            _ => 0,
        };
        self.fs.world.release_tmpfs(content + NODE_COST);
    }
}

impl MemFs {
    /// A new file system; gives its root directory.
    pub fn root(world: Arc<dyn World>, dev: u64, mode: u32, owner: (u32, u32)) -> Arc<MemNode> {
        MemFs::with_lower(world, dev, mode, owner, None)
    }
    /// A new file system over a directory that is never changed.
    pub fn with_lower(
        world: Arc<dyn World>,
        dev: u64,
        mode: u32,
        owner: (u32, u32),
        lower: Option<Arc<dyn Node>>,
    ) -> Arc<MemNode> {
        let magic = if lower.is_some() { 0x794c_7630 } else { 0x0102_1994 };
        let fs = Arc::new(MemFs { dev, world, next_ino: AtomicU64::new(1), rename: Mutex::default(), magic });
        // The root is not charged for, nor ever refused.
        let _ = fs.world.charge_tmpfs(NODE_COST);
        let below = lower.as_ref().and_then(|l| l.stat().ok());
        let dir = DirBody { lower, ..DirBody::default() };
        let root = fs.new_node(libc::S_IFDIR | (mode & 0o7777), owner, Body::Dir(Mutex::new(dir)), 2);
        if let Some(s) = below {
            let mut m = lock(&root.meta);
            m.nlink = s.nlink;
            (m.atime, m.mtime, m.ctime, m.btime) = (s.atime, s.mtime, s.ctime, s.btime);
        }
        root
    }
    fn new_node(self: &Arc<Self>, mode: u32, owner: (u32, u32), body: Body, nlink: u32) -> Arc<MemNode> {
        let now = self.world.now();
        Arc::new_cyclic(|this| MemNode {
            fs: self.clone(),
            this: this.clone(),
            ino: self.next_ino.fetch_add(1, Ordering::Relaxed),
            kind: kind_of(mode),
            meta: Mutex::new(Meta {
                mode,
                nlink,
                uid: owner.0,
                gid: owner.1,
                atime: now,
                mtime: now,
                ctime: now,
                btime: now,
            }),
            body,
        })
    }
    fn charge(&self, n: u64) -> Result<()> {
        if n == 0 || self.world.charge_tmpfs(n) { Ok(()) } else { Err(Errno::ENOSPC) }
    }
    /// A file without a name (memfd_create, O_TMPFILE).
    pub fn anonymous(self: &Arc<Self>, mode: u32, owner: (u32, u32), seals: u32) -> Result<Arc<MemNode>> {
        self.charge(NODE_COST)?;
        let body = FileBody {
            data: RwLock::new(Data::Bytes(Vec::new())),
            fd: OnceLock::new(),
            window: Windowed::default(),
            seals: AtomicU32::new(seals),
        };
        Ok(self.new_node(libc::S_IFREG | (mode & 0o7777), owner, Body::File(body), 0))
    }
}

impl MemNode {
    /// Its file system.
    pub fn fs(&self) -> &Arc<MemFs> {
        &self.fs
    }
    fn this(&self) -> Result<Arc<MemNode>> {
        self.this.upgrade().ok_or(Errno::ENOENT)
    }
    fn dir(&self) -> Result<&Mutex<DirBody>> {
        match &self.body {
            Body::Dir(d) => Ok(d),
            _ => Err(Errno::ENOTDIR),
        }
    }
    fn file(&self) -> Result<&FileBody> {
        match &self.body {
            Body::File(f) => Ok(f),
            Body::Dir(_) => Err(Errno::EISDIR),
            _ => Err(Errno::EINVAL),
        }
    }
    fn touch(&self) {
        let now = self.fs.world.now();
        let mut m = lock(&self.meta);
        m.mtime = now;
        m.ctime = now;
        if self.kind == libc::S_IFREG {
            // A program that was written to has no set-id bits.
            m.mode = super::ops::strip(m.mode).unwrap_or(m.mode);
        }
    }
    fn relink(&self, by: i32) {
        let now = self.fs.world.now();
        let mut m = lock(&self.meta);
        m.nlink = m.nlink.saturating_add_signed(by);
        m.ctime = now;
    }
    fn other<'a>(&self, o: &'a dyn Node) -> Result<&'a MemNode> {
        o.as_any().downcast_ref::<MemNode>().filter(|n| Arc::ptr_eq(&n.fs, &self.fs)).ok_or(Errno::EXDEV)
    }
    fn found(self: Arc<Self>) -> Found {
        Found { stat: self.stat_now(), node: self }
    }
    fn stat_now(&self) -> Stat {
        let mut blocks = None;
        let size = match &self.body {
            Body::File(f) => {
                let data = read(&f.data);
                if let (Data::Fd(_), Some(fd)) = (&*data, f.fd.get()) {
                    // Holes take no blocks.
                    blocks = hfs::fstat(fd).ok().map(|s| s.st_blocks as u64);
                }
                data.len()
            }
            Body::Symlink(t) => t.len() as u64,
            Body::Dir(d) => {
                let (lower, names) = {
                    let d = lock(d);
                    (d.lower.clone(), d.names.len() as u64)
                };
                // An overlay's directories look as those below.
                match lower.and_then(|l| l.stat().ok()) {
                    Some(s) => {
                        blocks = Some(s.blocks);
                        s.size
                    }
                    None => 20 * (2 + names),
                }
            }
            _ => 0,
        };
        let m = lock(&self.meta);
        Stat {
            dev: self.fs.dev,
            ino: self.ino,
            mode: m.mode,
            nlink: m.nlink,
            uid: m.uid,
            gid: m.gid,
            rdev: if let Body::Device(d) = self.body { d } else { 0 },
            size,
            blksize: 4096,
            blocks: blocks.unwrap_or(if self.kind == libc::S_IFREG { size.div_ceil(4096) * 8 } else { 0 }),
            atime: m.atime,
            mtime: m.mtime,
            ctime: m.ctime,
            btime: m.btime,
        }
    }
    /// A node for something in the layer below.
    fn shadow(&self, lower: Found) -> Result<Arc<MemNode>> {
        let s = lower.stat;
        let body = match kind_of(s.mode) {
            libc::S_IFDIR => Body::Dir(Mutex::new(DirBody {
                lower: Some(lower.node),
                parent: self.this.clone(),
                ..DirBody::default()
            })),
            libc::S_IFREG => Body::File(FileBody {
                data: RwLock::new(Data::Lower(lower.node, s.size)),
                fd: OnceLock::new(),
                window: Windowed::default(),
                seals: AtomicU32::new(libc::F_SEAL_SEAL as u32),
            }),
            libc::S_IFLNK => match lower.node.readlink(&Caller::default())? {
                Link::Path(t) => Body::Symlink(t),
                Link::Jump(..) => return Err(Errno::EACCES),
            },
            _ => Body::Other,
        };
        let content = if let Body::Symlink(t) = &body { t.len() as u64 } else { 0 };
        // What the layer below brings is small and bounded by it: charged, but not refused.
        if !self.fs.world.charge_tmpfs(content + NODE_COST) {
            return Err(Errno::ENOMEM);
        }
        let n = self.fs.new_node(s.mode, (s.uid, s.gid), body, s.nlink);
        let mut m = lock(&n.meta);
        m.atime = s.atime;
        m.mtime = s.mtime;
        m.ctime = s.ctime;
        m.btime = s.btime;
        drop(m);
        Ok(n)
    }
    /// The entry of a directory, if there is one. The host is asked without the lock.
    fn entry(&self, name: &[u8]) -> Result<Option<Arc<MemNode>>> {
        let dir = self.dir()?;
        let lower = {
            let d = lock(dir);
            match d.names.get(name) {
                Some(Slot { child: Child::Node(n), .. }) => return Ok(Some(n.clone())),
                Some(_) => d.lower.clone(),
                None if d.white.contains(name) || d.listed => None,
                None => d.lower.clone(),
            }
        };
        let Some(lower) = lower else { return Ok(None) };
        let found = match lower.lookup(&Caller::default(), name) {
            Ok(f) => f,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let node = self.shadow(found)?;
        let mut d = lock(dir);
        if let Some(s) = d.names.get_mut(name) {
            if let Child::Node(n) = &s.child {
                return Ok(Some(n.clone()));
            }
            s.child = Child::Node(node.clone());
        } else if d.white.contains(name) {
            return Ok(None);
        } else {
            d.insert(name, Child::Node(node.clone()));
        }
        Ok(Some(node))
    }
    /// Take the names of the lower directory in.
    fn list_lower(&self) -> Result<()> {
        let dir = self.dir()?;
        let lower = {
            let d = lock(dir);
            match &d.lower {
                Some(l) if !d.listed => l.clone(),
                _ => return Ok(()),
            }
        };
        let f = lower.open(&Caller::default(), (libc::O_RDONLY | libc::O_DIRECTORY) as u32)?;
        let mut all = Vec::new();
        let mut pos = 0;
        loop {
            let batch = f.entries(pos)?;
            let Some(last) = batch.last() else { break };
            pos = last.1;
            all.extend(batch.into_iter().map(|(e, _)| e).filter(|e| e.name != b"." && e.name != b".."));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut d = lock(dir);
        if !d.listed {
            for e in all {
                if !d.names.contains_key(&e.name) && !d.white.contains(&e.name) {
                    d.insert(&e.name, Child::Lower(e.kind));
                }
            }
            d.listed = true;
        }
        Ok(())
    }
    fn is_empty(&self) -> Result<bool> {
        self.list_lower()?;
        Ok(lock(self.dir()?).names.is_empty())
    }
    /// Add an entry, made by `make` once it is sure that there is none.
    fn add(&self, name: &[u8], make: impl FnOnce() -> Result<Arc<MemNode>>) -> Result<Arc<MemNode>> {
        if self.entry(name)?.is_some() {
            return Err(Errno::EEXIST);
        }
        let mut d = lock(self.dir()?);
        if d.dead {
            return Err(Errno::ENOENT);
        }
        if d.names.contains_key(name) {
            return Err(Errno::EEXIST);
        }
        let n = make()?;
        d.insert(name, Child::Node(n.clone()));
        drop(d);
        self.touch();
        if n.kind == libc::S_IFDIR {
            lock(&self.meta).nlink += 1;
        }
        Ok(n)
    }
    /// Bring the content up from the layer below.
    fn copy_up(&self) -> Result<()> {
        let f = self.file()?;
        let (lower, len) = match &*read(&f.data) {
            Data::Lower(n, len) => (n.clone(), *len),
            _ => return Ok(()),
        };
        self.fs.charge(len)?;
        let r = read_all(&*lower, len);
        let mut data = write(&f.data);
        if !matches!(*data, Data::Lower(..)) {
            self.fs.world.release_tmpfs(len);
            return Ok(());
        }
        let bytes = r.inspect_err(|_| self.fs.world.release_tmpfs(len))?;
        let got = bytes.len() as u64;
        *data = Data::Bytes(bytes);
        if got < len {
            self.fs.world.release_tmpfs(len - got);
        }
        if got > INLINE_MAX {
            self.to_fd(f, &mut data)?;
        }
        Ok(())
    }
    /// Move inline bytes to a memfd.
    fn to_fd(&self, f: &FileBody, data: &mut Data) -> Result<()> {
        let Data::Bytes(v) = data else { return Ok(()) };
        let fd = hfs::memfd_create(c"file", hfs::MemfdFlags::CLOEXEC)?;
        hfs::ftruncate(&fd, v.len() as u64)?;
        write_all_at(&fd, v, 0)?;
        let len = v.len() as u64;
        if f.fd.set(fd).is_err() {
            return Err(Errno::EIO);
        }
        *data = Data::Fd(len);
        Ok(())
    }
    fn set_len(&self, len: u64) -> Result<()> {
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
        let r = self.resize(f, &mut data, len);
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
    fn resize(&self, f: &FileBody, data: &mut Data, len: u64) -> Result<()> {
        if len > INLINE_MAX {
            self.to_fd(f, data)?;
        }
        match data {
            Data::Bytes(v) => v.resize(len as usize, 0),
            Data::Fd(n) => {
                hfs::ftruncate(f.fd.get().ok_or(Errno::EIO)?, len)?;
                *n = len;
            }
            Data::Lower(..) => return Err(Errno::EIO),
        }
        Ok(())
    }
    fn read_at(&self, pos: u64, buf: &mut [u8]) -> Result<usize> {
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
    /// Write to `len` bytes that a large file has at `pos`, which needs no exclusive lock; 0 if it has not. `write` has the file and its size.
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
    fn write_at(&self, pos: u64, buf: &[u8]) -> Result<usize> {
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
                && let Err(e) = self.to_fd(f, &mut data)
            {
                self.fs.world.release_tmpfs(end - old);
                return Err(e);
            }
        }
        let r = match &mut *data {
            Data::Bytes(v) => {
                let (a, b) = (pos as usize, end as usize);
                if b > v.len() {
                    v.resize(b, 0);
                }
                v[a..b].copy_from_slice(buf);
                Ok(buf.len())
            }
            Data::Fd(len) => match rustix::io::pwrite(f.fd.get().ok_or(Errno::EIO)?, buf, pos) {
                Ok(n) => {
                    *len = (*len).max(pos + n as u64);
                    Ok(n)
                }
                Err(e) => Err(e.into()),
            },
            Data::Lower(..) => Err(Errno::EIO),
        };
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

/// Who reads and writes files that never block, where there is no thread of the guest.
pub struct Nobody(Arc<crate::wait::Waker>);
impl Nobody {
    /// One.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Nobody {
        Nobody(Arc::default())
    }
}
impl Blocking for Nobody {
    fn waker(&self) -> &Arc<crate::wait::Waker> {
        &self.0
    }
    fn interrupted(&self) -> bool {
        true
    }
}

fn read_all(n: &dyn Node, len: u64) -> Result<Vec<u8>> {
    let f = n.open(&Caller::default(), libc::O_RDONLY as u32)?;
    let mut out = Vec::new();
    let mut buf = vec![0; 1 << 20];
    while (out.len() as u64) < len {
        let n = f.read(&Nobody::new(), out.len() as u64, &mut buf, true)?;
        if n == 0 {
            break;
        }
        out.extend_from_slice(&buf[..n]);
    }
    out.truncate(len as usize);
    Ok(out)
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

/// Both directories locked, in the order of their addresses; the second is `None` if they are the same.
fn lock_two<'a>(a: &'a MemNode, b: &'a MemNode) -> Result<(MutexGuard<'a, DirBody>, Option<MutexGuard<'a, DirBody>>)> {
    let (da, db) = (a.dir()?, b.dir()?);
    if std::ptr::eq(a, b) {
        Ok((lock(da), None))
    } else if (a as *const MemNode) < (b as *const MemNode) {
        let ga = lock(da);
        Ok((ga, Some(lock(db))))
    } else {
        let gb = lock(db);
        Ok((lock(da), Some(gb)))
    }
}

fn node_of(d: &DirBody, name: &[u8]) -> Option<Arc<MemNode>> {
    match d.names.get(name) {
        Some(Slot { child: Child::Node(n), .. }) => Some(n.clone()),
        _ => None,
    }
}

impl Node for MemNode {
    fn stat(&self) -> Result<Stat> {
        Ok(self.stat_now())
    }
    fn lookup(&self, _: &Caller, name: &[u8]) -> Result<Found> {
        self.entry(name)?.map(MemNode::found).ok_or(Errno::ENOENT)
    }
    fn readlink(&self, _: &Caller) -> Result<Link> {
        match &self.body {
            Body::Symlink(t) => Ok(Link::Path(t.clone())),
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(&self, who: &Caller, flags: u32) -> Result<Arc<dyn File>> {
        let node = self.this()?;
        let lower = match &self.body {
            Body::Dir(_) => None,
            Body::File(f) => {
                if flags as i32 & libc::O_ACCMODE != libc::O_RDONLY {
                    self.copy_up()?;
                }
                match &*read(&f.data) {
                    Data::Lower(n, _) => Some(n.clone()),
                    _ => None,
                }
            }
            Body::Symlink(_) => return Err(Errno::ELOOP),
            Body::Device(d) => return super::devfs::open(*d, &self.fs.world, node, who.pid),
            Body::Other => return Err(Errno::ENXIO),
        };
        let lower = lower.map(|n| n.open(&Caller::default(), libc::O_RDONLY as u32)).transpose()?;
        Ok(Arc::new(MemFile { node, lower }))
    }
    fn make(&self, who: &Caller, name: &[u8], what: Make<'_>, mode: u32) -> Result<Found> {
        let (kind, body, nlink) = match what {
            Make::File => {
                let f = FileBody {
                    data: RwLock::new(Data::Bytes(Vec::new())),
                    fd: OnceLock::new(),
                    window: Windowed::default(),
                    seals: AtomicU32::new(libc::F_SEAL_SEAL as u32),
                };
                (libc::S_IFREG, Body::File(f), 1)
            }
            Make::Dir => {
                (libc::S_IFDIR, Body::Dir(Mutex::new(DirBody { parent: self.this.clone(), ..DirBody::default() })), 2)
            }
            Make::Symlink(t) => (libc::S_IFLNK, Body::Symlink(t.to_vec()), 1),
            Make::Fifo => (libc::S_IFIFO, Body::Other, 1),
            Make::Socket => (libc::S_IFSOCK, Body::Other, 1),
            Make::Device(d) => (libc::S_IFCHR, Body::Device(d), 1),
        };
        let mode = kind | if kind == libc::S_IFLNK { 0o777 } else { mode & 0o7777 };
        let (dir_mode, dir_gid) = {
            let m = lock(&self.meta);
            (m.mode, m.gid)
        };
        // A set-group-id directory hands its group down.
        let (gid, mode) = match dir_mode & libc::S_ISGID {
            0 => (who.gid, mode),
            _ => (dir_gid, if kind == libc::S_IFDIR { mode | libc::S_ISGID } else { mode }),
        };
        let content = if let Body::Symlink(t) = &body { t.len() as u64 } else { 0 };
        let fs = &self.fs;
        let n = self.add(name, || {
            fs.charge(NODE_COST + content)?;
            Ok(fs.new_node(mode, (who.uid, gid), body, nlink))
        })?;
        Ok(n.found())
    }
    fn link(&self, name: &[u8], target: &dyn Node) -> Result<()> {
        let t = self.other(target)?;
        if t.kind == libc::S_IFDIR {
            return Err(Errno::EPERM);
        }
        let t = t.this()?;
        let n = self.add(name, || if lock(&t.meta).nlink == 0 { Err(Errno::ENOENT) } else { Ok(t.clone()) })?;
        n.relink(1);
        Ok(())
    }
    fn remove(&self, name: &[u8], dir: bool) -> Result<()> {
        let _rename = lock(&self.fs.rename);
        let n = self.entry(name)?.ok_or(Errno::ENOENT)?;
        match (dir, n.kind == libc::S_IFDIR) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => {
                n.is_empty()?;
                let mut nd = lock(n.dir()?);
                if !nd.names.is_empty() {
                    return Err(Errno::ENOTEMPTY);
                }
                nd.dead = true;
            }
            _ => {}
        }
        lock(self.dir()?).take(name);
        self.touch();
        if dir {
            n.relink(-2);
            lock(&n.meta).nlink = 0;
            lock(&self.meta).nlink -= 1;
        } else {
            n.relink(-1);
        }
        Ok(())
    }
    fn rename(&self, name: &[u8], to: &dyn Node, to_name: &[u8], flags: u32) -> Result<()> {
        let to = self.other(to)?;
        let _rename = lock(&self.fs.rename);
        let src = self.entry(name)?.ok_or(Errno::ENOENT)?;
        let dst = to.entry(to_name)?;
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        match &dst {
            Some(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
            None if exchange => return Err(Errno::ENOENT),
            Some(d) if Arc::ptr_eq(d, &src) => return Ok(()),
            _ => {}
        }
        // No directory into itself (or, exchanged, into what is below it).
        let below = |dir: &MemNode, n: &Arc<MemNode>| {
            let mut at = dir.this.upgrade();
            while let Some(a) = at {
                if Arc::ptr_eq(&a, n) {
                    return true;
                }
                at = a.dir().ok().and_then(|d| lock(d).parent.upgrade());
            }
            false
        };
        if src.kind == libc::S_IFDIR && below(to, &src) {
            return Err(Errno::EINVAL);
        }
        let src_dir = src.kind == libc::S_IFDIR;
        let dst_dir = dst.as_ref().is_some_and(|d| d.kind == libc::S_IFDIR);
        if let Some(d) = &dst {
            if dst_dir && below(self, d) {
                return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
            }
            if !exchange {
                match (src_dir, dst_dir) {
                    (true, false) => return Err(Errno::ENOTDIR),
                    (false, true) => return Err(Errno::EISDIR),
                    (true, true) => {
                        if !d.is_empty()? {
                            return Err(Errno::ENOTEMPTY);
                        }
                        lock(d.dir()?).dead = true;
                    }
                    _ => {}
                }
            }
        }
        {
            let (mut a, mut b) = lock_two(self, to)?;
            let target = b.as_deref_mut().unwrap_or(&mut *a);
            if target.dead {
                return Err(Errno::ENOENT);
            }
            if node_of(target, to_name).map(|n| Arc::as_ptr(&n)) != dst.as_ref().map(Arc::as_ptr) {
                // A file was made under the new name meanwhile; the caller sees the order "made, then renamed over".
                if flags & libc::RENAME_NOREPLACE != 0 {
                    return Err(Errno::EEXIST);
                }
            }
            target.take(to_name);
            target.insert(to_name, Child::Node(src.clone()));
            let source = &mut *a;
            if !std::ptr::eq(self, to) || name != to_name {
                source.take(name);
            }
            if exchange && let Some(d) = &dst {
                source.insert(name, Child::Node(d.clone()));
            }
        }
        let reparent = |n: &Arc<MemNode>, p: &MemNode| {
            if let Ok(d) = n.dir() {
                lock(d).parent = p.this.clone();
            }
        };
        reparent(&src, to);
        let mut moved = i32::from(src_dir);
        if exchange {
            if let Some(d) = &dst {
                reparent(d, self);
                d.relink(0);
                moved -= i32::from(dst_dir);
            }
        } else if let Some(d) = &dst {
            d.relink(if dst_dir { -2 } else { -1 });
            if dst_dir {
                lock(&d.meta).nlink = 0;
                lock(&to.meta).nlink -= 1;
            }
        }
        src.relink(0);
        self.touch();
        to.touch();
        self.relink(-moved);
        to.relink(moved);
        Ok(())
    }
    fn set(&self, c: &Change) -> Result<()> {
        if let Some(len) = c.size {
            self.set_len(len)?;
        }
        if c.mode.is_some() && self.kind == libc::S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        let now = self.fs.world.now();
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(s, n) => (s, n),
        };
        let mut m = lock(&self.meta);
        if let Some(mode) = c.mode {
            m.mode = kind_of(m.mode) | (mode & 0o7777);
        }
        if let Some(u) = c.uid {
            m.uid = u;
        }
        if let Some(g) = c.gid {
            m.gid = g;
        }
        if let Some(t) = c.atime {
            m.atime = time(t);
        }
        if let Some(t) = c.mtime {
            m.mtime = time(t);
        }
        m.ctime = now;
        Ok(())
    }
    fn statfs(&self) -> StatFs {
        let (blocks, free) = shown_blocks(self.fs.world.tmpfs());
        StatFs { kind: self.fs.magic, blocks, free, files: 1 << 20 }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// An open file or directory of a [`MemFs`].
pub struct MemFile {
    /// The file.
    pub node: Arc<MemNode>,
    /// Content in the layer below at the time it was opened.
    lower: Option<Arc<dyn File>>,
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
        let dir = self.node.dir().map_err(|_| Errno::ENOTDIR)?;
        self.node.list_lower()?;
        let d = lock(dir);
        let mut out = Vec::new();
        if d.dead {
            return Ok(out);
        }
        let dot = |name: &[u8], ino| DirEntry { ino, kind: libc::DT_DIR, name: name.to_vec() };
        if pos < 1 {
            out.push((dot(b".", self.node.ino), 1));
        }
        if pos < FIRST {
            out.push((dot(b"..", d.parent.upgrade().map_or(self.node.ino, |p| p.ino)), FIRST));
        }
        for (seq, name) in d.order.range(pos.max(FIRST) + 1..).take(1024) {
            let (ino, kind) = match d.names.get(name).map(|s| &s.child) {
                Some(Child::Node(n)) => (n.ino, dirent_kind(n.kind)),
                // Not looked up yet: any number that is not 0 and not a node's own.
                Some(Child::Lower(k)) => (1 << 40 | seq, *k),
                None => continue,
            };
            out.push((DirEntry { ino, kind, name: name.clone() }, *seq));
        }
        Ok(out)
    }
    fn copied(&self) -> bool {
        true
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        if let Some(f) = &self.lower {
            return f.host_fd();
        }
        let f = self.node.file().ok()?;
        if f.fd.get().is_none() {
            let mut data = write(&f.data);
            self.node.to_fd(f, &mut data).ok()?;
        }
        f.fd.get().map(AsFd::as_fd)
    }
    fn read_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        let (None, Ok(f)) = (&self.lower, self.node.file()) else { return Ok(0) };
        let data = read(&f.data);
        let (Data::Fd(size), Some(fd)) = (&*data, f.fd.get()) else { return Ok(0) };
        let n = len.min(size.saturating_sub(pos));
        let done = f.window.get(fd, *size).is_some_and(|w| w.read(mem, addr, n, pos));
        Ok(if done { n as usize } else { 0 })
    }
    fn write_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        self.node.overwrite(pos, len, |f, fd, size| {
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
    fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        match &self.lower {
            Some(f) => f.direct_fd(),
            None => self.node.file().ok()?.fd.get().map(AsFd::as_fd),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
