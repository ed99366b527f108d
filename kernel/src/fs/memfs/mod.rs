//! A file system in memory, with an optional read-only layer below (so it serves as tmpfs, as the frame of the root, as
//! /dev, and as an overlay).
//!
//! A directory may have a *lower* directory: an entry that it does not have itself is looked up there and
//! remembered as a node of this file system, whose content stays below until it is written. Names removed from a lower
//! directory are kept as white-outs. So an overlay has the semantics of one file system, renames and hard links included.
//!
//! Here are the file system and its nodes with their meta data; [`directory`] has entries of directories, [`rename`] moves them,
//! [`content`] is what files hold, [`xattr`] their attributes, [`overlay`] asks the layer below, [`open`] has open files.
//!
//! All content (by length), names and nodes are charged to the job's disk limit.
//!
//! Lock order: the rename lock, then directories (two of them by address), then a node's meta data or content.

mod content;
mod directory;
mod open;
mod overlay;
mod rename;
mod xattr;

pub use open::MemFile;

use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::{File, Stat};
use content::{Data, FileBody};
use directory::DirBody;
use std::any::Any;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

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
    xattrs: xattr::Xattrs,
}

impl Drop for MemNode {
    fn drop(&mut self) {
        let content = match &self.body {
            Body::File(f) => read(&f.data).cost(),
            Body::Symlink(t) => t.len() as u64,
            _ => 0,
        };
        self.fs.world.release_tmpfs(content + self.xattrs.cost() + NODE_COST);
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
        let dir = DirBody::new(Weak::new(), lower);
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
            xattrs: xattr::Xattrs::default(),
        })
    }
    fn charge(&self, n: u64) -> Result<()> {
        if n == 0 || self.world.charge_tmpfs(n) { Ok(()) } else { Err(Errno::ENOSPC) }
    }
    /// A file without a name (memfd_create, O_TMPFILE).
    pub fn anonymous(self: &Arc<Self>, mode: u32, owner: (u32, u32), seals: u32) -> Result<Arc<MemNode>> {
        self.charge(NODE_COST)?;
        let body = Body::File(FileBody::new(Data::Bytes(Vec::new()), seals));
        Ok(self.new_node(libc::S_IFREG | (mode & 0o7777), owner, body, 0))
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
    /// Length, and how many blocks of 512 bytes that takes if it is not what the length says.
    fn extent(&self) -> (u64, Option<u64>) {
        match &self.body {
            Body::File(f) => {
                let data = read(&f.data);
                // Holes take no blocks.
                let fd = if let Data::Fd(_) = &*data { f.host_fd() } else { None };
                let blocks = fd.and_then(|fd| rustix::fs::fstat(fd).ok()).map(|s| s.st_blocks as u64);
                (data.len(), blocks)
            }
            Body::Symlink(t) => (t.len() as u64, None),
            Body::Dir(d) => {
                let (lower, names) = {
                    let d = lock(d);
                    (d.lower.clone(), d.names.len() as u64)
                };
                // An overlay's directories look as those below.
                match lower.and_then(|l| l.stat().ok()) {
                    Some(s) => (s.size, Some(s.blocks)),
                    None => (20 * (2 + names), None),
                }
            }
            Body::Device(_) | Body::Other => (0, None),
        }
    }
    fn stat_now(&self) -> Stat {
        let (size, blocks) = self.extent();
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
        self.make_entry(who, name, what, mode)
    }
    fn link(&self, name: &[u8], target: &dyn Node) -> Result<()> {
        self.link_entry(name, self.other(target)?)
    }
    fn remove(&self, name: &[u8], dir: bool) -> Result<()> {
        self.remove_entry(name, dir)
    }
    fn rename(&self, name: &[u8], to: &dyn Node, to_name: &[u8], flags: u32) -> Result<()> {
        self.rename_entry(name, self.other(to)?, to_name, flags)
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
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.get_xattr(name)
    }
    fn xattrs(&self) -> Result<Vec<u8>> {
        Ok(self.list_xattrs())
    }
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        self.change_xattr(name, value, flags)
    }
    fn statfs(&self) -> StatFs {
        let (blocks, free) = shown_blocks(self.fs.world.tmpfs());
        StatFs { kind: self.fs.magic, blocks, free, files: 1 << 20 }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
