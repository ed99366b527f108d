//! A folder (or a single file) of the host as a file system.
//!
//! Every access starts at a handle: the mount's root, or a node found below it. A node is an O_PATH handle of exactly one host
//! inode. Lookups are single names with O_NOFOLLOW, or one openat2 with RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS and
//! RESOLVE_NO_MAGICLINKS for a run of names; the host never follows a link or a `..` for us, so whatever the guest (or the
//! host) renames meanwhile, a lookup ends below the root or fails.
//!
//! An inode is opened through the host's /proc/self/fd by the number of its handle, so the type that was checked is
//! the type of what is opened. Devices, sockets and FIFOs of the host are never opened. Set-id bits never reach the host: they
//! are kept here for the life of the job.
//! Inode numbers are hashed with a key; device numbers are the mount's.

use super::node::*;
use super::searched::{self, Moment, Searched};
use crate::errno::{Errno, Result};
use crate::file::{DirEntry, File, Stat};
use crate::wait::Blocking;
use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags};
use std::any::Any;
use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// Options of a host mount.
#[derive(Clone)]
pub struct HostOptions {
    /// Device number the guest sees.
    pub dev: u64,
    /// Key of the inode number hash.
    pub key: u64,
    /// Open files for reading only, and refuse changes.
    pub read_only: bool,
    /// All directories below may be searched by everyone (so a run of names need not be checked one by one).
    pub public: bool,
    /// Owner the guest sees.
    pub owner: (u32, u32),
}

/// The host's /proc/self/fd, opened once, as it is not to be reached by its path any more when a job is confined.
fn handles() -> Result<&'static OwnedFd> {
    static HANDLES: OnceLock<OwnedFd> = OnceLock::new();
    match HANDLES.get() {
        Some(fd) => Ok(fd),
        None => {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = fs::open("/proc/self/fd", flags, Mode::empty())?;
            Ok(HANDLES.get_or_init(|| fd))
        }
    }
}

/// A host folder.
pub struct HostFs {
    opt: HostOptions,
    world: Arc<dyn World>,
    openat2: AtomicBool,
    /// The host checks no permissions for us (we run as its root): look at each directory.
    strict: bool,
    /// Directories that were looked at, below the root.
    searched: Searched,
    /// FIFOs that the job made here, by inode number: these work between its processes.
    fifos: Mutex<HashSet<u64>>,
    /// Set-id bits that the job gave its files, by inode number.
    set_id: Mutex<HashMap<u64, u32>>,
    /// Whether there are any.
    has_set_id: AtomicBool,
    /// Disk space charged, by inode number.
    charged: Mutex<HashMap<u64, u64>>,
}

impl HostFs {
    /// The root node for a host path, which is used as it is (by the embedder, with links).
    pub fn mount(path: &std::path::Path, opt: HostOptions, world: Arc<dyn World>) -> Result<Arc<dyn Node>> {
        let root = fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        handles()?;
        world.mounted(path, opt.read_only);
        let strict = !opt.public && rustix::process::geteuid().is_root();
        let fs = Arc::new(HostFs {
            opt,
            world,
            openat2: AtomicBool::new(true),
            strict,
            searched: Searched::default(),
            fifos: Mutex::default(),
            set_id: Mutex::default(),
            has_set_id: AtomicBool::new(false),
            charged: Mutex::default(),
        });
        let kind = kind_of(fs.stat_fd(root.as_fd())?.mode);
        Ok(Arc::new(HostNode { fs, fd: root, kind, top: true }))
    }
    fn node(self: &Arc<Self>, fd: OwnedFd) -> Result<Found> {
        let stat = self.stat_fd(fd.as_fd())?;
        Ok(Found { node: Arc::new(HostNode { fs: self.clone(), fd, kind: kind_of(stat.mode), top: false }), stat })
    }
    fn stat_fd(&self, fd: BorrowedFd<'_>) -> Result<Stat> {
        let s = fs::statx(fd, c"", AtFlags::EMPTY_PATH, fs::StatxFlags::BASIC_STATS | fs::StatxFlags::BTIME)?;
        let time = |t: fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
        let ino = self.ino(u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor), s.stx_ino);
        Ok(Stat {
            dev: self.opt.dev,
            ino,
            mode: u32::from(s.stx_mode) | self.set_id(ino),
            nlink: s.stx_nlink,
            uid: self.opt.owner.0,
            gid: self.opt.owner.1,
            rdev: 0,
            size: s.stx_size,
            blksize: 4096,
            blocks: s.stx_blocks,
            atime: time(s.stx_atime),
            mtime: time(s.stx_mtime),
            ctime: time(s.stx_ctime),
            btime: if s.stx_mask & fs::StatxFlags::BTIME.bits() != 0 { time(s.stx_btime) } else { (0, 0) },
        })
    }
    /// Inode number of the guest for one of the host: 52 bits of a keyed hash.
    fn ino(&self, dev: u64, ino: u64) -> u64 {
        let mut x = self.opt.key ^ dev.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for w in [ino, self.opt.key.rotate_left(32)] {
            x ^= w;
            x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            x ^= x >> 31;
        }
        (x >> 12).max(16)
    }
    /// An open file; one to write to is accounted for if there is a limit.
    fn file(self: &Arc<Self>, fd: OwnedFd, kind: u32, writes: bool) -> Result<HostFile> {
        let mut file =
            HostFile { fs: self.clone(), fd, kind, end: AtomicU64::new(u64::MAX), ino: 0, cursor: Mutex::new(0) };
        if writes && self.world.disk().0 != u64::MAX {
            let s = file.stat()?;
            file.ino = s.ino;
            file.end = AtomicU64::new(s.size);
        }
        Ok(file)
    }
    /// Open what a handle refers to.
    fn reopen(&self, fd: &OwnedFd, flags: OFlags) -> Result<OwnedFd> {
        let n = fd.as_raw_fd().to_string();
        Ok(fs::openat(handles()?, n, flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?)
    }
    /// Set-id bits of a file.
    fn set_id(&self, ino: u64) -> u32 {
        if self.has_set_id.load(Ordering::Relaxed) { lock(&self.set_id).get(&ino).copied().unwrap_or(0) } else { 0 }
    }
    /// Keep the set-id bits of a mode.
    fn keep_set_id(&self, ino: u64, mode: u32) {
        let bits = mode & 0o6000;
        if bits != 0 || self.has_set_id.load(Ordering::Relaxed) {
            let mut map = lock(&self.set_id);
            if bits == 0 {
                map.remove(&ino);
            } else {
                map.insert(ino, bits);
            }
            self.has_set_id.store(!map.is_empty(), Ordering::Relaxed);
        }
    }
    fn writable(&self) -> Result<()> {
        if self.opt.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }
    /// Account for a file that grows from `old` to `new`.
    fn grow(&self, ino: u64, old: u64, new: u64) -> Result<()> {
        let n = new.saturating_sub(old);
        if n != 0 && self.world.disk().0 != u64::MAX {
            if !self.world.charge_disk(n) {
                return Err(Errno::ENOSPC);
            }
            *lock(&self.charged).entry(ino).or_default() += n;
        }
        Ok(())
    }
    /// Account for a file that shrank to `len`, or went.
    fn shrink(&self, ino: u64, old: u64, len: u64) {
        let mut map = lock(&self.charged);
        if let Some(c) = map.get_mut(&ino) {
            let n = old.saturating_sub(len).min(*c);
            *c -= n;
            if *c == 0 {
                map.remove(&ino);
            }
            drop(map);
            self.world.release_disk(n);
        }
    }
}

/// A host file system object below a mount's root.
pub struct HostNode {
    fs: Arc<HostFs>,
    fd: OwnedFd,
    kind: u32,
    /// It is the mount's root.
    top: bool,
}

/// Names that come here are single components; make sure of it.
fn single(name: &[u8]) -> Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    Ok(name)
}

/// Permission bits for the host: no set-user-id, set-group-id.
fn host_mode(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o1777)
}

impl HostNode {
    /// A path to the file, for calls that take no descriptor without access (they open nothing, so confinement lets them).
    fn by_handle(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
    fn other<'a>(&self, o: &'a dyn Node) -> Result<&'a HostNode> {
        o.as_any().downcast_ref::<HostNode>().filter(|n| Arc::ptr_eq(&n.fs, &self.fs)).ok_or(Errno::EXDEV)
    }
    fn dir(&self) -> Result<()> {
        if self.kind == libc::S_IFDIR { Ok(()) } else { Err(Errno::ENOTDIR) }
    }
    /// A handle of what a run of names leads to, without links. `None`: the host does not say.
    fn run(&self, names: &[&[u8]]) -> Option<Result<OwnedFd>> {
        if !self.fs.openat2.load(Ordering::Relaxed) {
            return None;
        }
        let mut path = Vec::with_capacity(64);
        for (i, n) in names.iter().enumerate() {
            if let Err(e) = single(n) {
                return Some(Err(e));
            }
            if i != 0 {
                path.push(b'/');
            }
            path.extend_from_slice(n);
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match fs::openat2(&self.fd, &path[..], flags, Mode::empty(), resolve) {
            Ok(fd) => Some(Ok(fd)),
            // EAGAIN: a rename raced. EXDEV: the kernel could not tell that the path stays below.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::XDEV) => None,
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => {
                // Missing, or a seccomp filter forbids it.
                self.fs.openat2.store(false, Ordering::Relaxed);
                None
            }
            Err(e) => Some(Err(e.into())),
        }
    }
    /// Whether `who` may search each directory of a run from the root, which it may search. ELOOP: there is a link among them.
    /// `None`: that cannot be said at once.
    fn search(&self, who: &Caller, names: &[&[u8]]) -> Option<Result<()>> {
        // Elsewhere the path is no name for what is found: the directory may be renamed.
        if !self.top || !self.fs.openat2.load(Ordering::Relaxed) {
            return None;
        }
        let now = Moment::now();
        let mut path = Vec::with_capacity(64);
        // The directory at the path so far, if it was opened.
        let mut dir: Option<OwnedFd> = None;
        for (i, name) in names.iter().enumerate() {
            if i != 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            match self.fs.searched.check(who, &path, now) {
                Some(Ok(())) => {
                    dir = None;
                    continue;
                }
                Some(e) => return Some(e),
                None => {}
            }
            let opened = match dir.take() {
                None => self.run(&names[..=i])?,
                Some(d) => single(name).and_then(|name| {
                    Ok(fs::openat(d, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?)
                }),
            };
            let seen = opened.and_then(|fd| {
                self.fs.searched.saw(who, &path, &self.fs.stat_fd(fd.as_fd())?, now)?;
                Ok(fd)
            });
            match seen {
                Ok(fd) => dir = Some(fd),
                Err(e) => return Some(Err(e)),
            }
        }
        Some(Ok(()))
    }
    /// Size and inode number if `name` is a regular file whose last name this is, for the account.
    fn last_name(&self, name: &[u8]) -> Option<(u64, u64)> {
        if lock(&self.fs.charged).is_empty() {
            return None;
        }
        let fd = fs::openat(&self.fd, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let s = self.fs.stat_fd(fd.as_fd()).ok()?;
        (s.nlink == 1 && kind_of(s.mode) == libc::S_IFREG).then_some((s.ino, s.size))
    }
    /// Whether this is a FIFO that the job made itself.
    fn own_fifo(&self) -> bool {
        self.kind == libc::S_IFIFO && self.stat().is_ok_and(|s| lock(&self.fs.fifos).contains(&s.ino))
    }
}

impl Node for HostNode {
    fn stat(&self) -> Result<Stat> {
        self.fs.stat_fd(self.fd.as_fd())
    }
    fn lookup(&self, _: &Caller, name: &[u8]) -> Result<Found> {
        self.dir()?;
        let fd = fs::openat(&self.fd, single(name)?, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        self.fs.node(fd)
    }
    fn lookup_run(&self, who: &Caller, names: &[&[u8]]) -> Option<Result<Found>> {
        if self.fs.strict {
            match self.search(who, names.split_last()?.1) {
                Some(Ok(())) => {}
                Some(Err(e)) => return Some(Err(e)),
                None => return None,
            }
        }
        Some(self.run(names)?.and_then(|fd| self.fs.node(fd)))
    }
    fn readlink(&self, _: &Caller) -> Result<Link> {
        if self.kind != libc::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        Ok(Link::Path(fs::readlinkat(&self.fd, c"", Vec::with_capacity(256))?.into_bytes()))
    }
    fn open(&self, _: &Caller, flags: u32) -> Result<Arc<dyn File>> {
        let mode = flags as i32 & libc::O_ACCMODE;
        let fd = match self.kind {
            // Not by the name `.`: that would need permission to search the directory.
            libc::S_IFDIR => self.fs.reopen(&self.fd, OFlags::RDONLY | OFlags::DIRECTORY)?,
            libc::S_IFREG => {
                let mut f = match mode {
                    libc::O_RDONLY => OFlags::RDONLY,
                    libc::O_WRONLY => OFlags::WRONLY,
                    _ => OFlags::RDWR,
                };
                if mode != libc::O_RDONLY {
                    self.fs.writable()?;
                    f |= OFlags::from_bits_retain(flags & (libc::O_SYNC | libc::O_DSYNC) as u32);
                }
                self.fs.reopen(&self.fd, f)?
            }
            libc::S_IFLNK => return Err(Errno::ELOOP),
            libc::S_IFSOCK => return Err(Errno::ENXIO),
            _ => return Err(Errno::EACCES),
        };
        Ok(Arc::new(self.fs.file(fd, self.kind, mode != libc::O_RDONLY)?))
    }
    fn make(&self, who: &Caller, name: &[u8], what: Make<'_>, mode: u32) -> Result<Found> {
        self.dir()?;
        self.fs.writable()?;
        let name = single(name)?;
        let m = host_mode(mode);
        match what {
            Make::File => {
                // Created without permissions to begin with, then given exactly `mode` (whatever our own umask is).
                let f = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = fs::openat(&self.fd, name, f, Mode::RUSR | Mode::WUSR)?;
                fs::fchmod(&fd, m)?;
            }
            Make::Dir => {
                fs::mkdirat(&self.fd, name, Mode::RWXU)?;
            }
            Make::Symlink(to) => fs::symlinkat(to, &self.fd, name)?,
            Make::Fifo => fs::mknodat(&self.fd, name, fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?,
            Make::Socket => fs::mknodat(&self.fd, name, fs::FileType::Socket, Mode::RUSR | Mode::WUSR, 0)?,
            Make::Device(_) => return Err(Errno::EPERM),
        }
        let mut found = self.lookup(who, name)?;
        // An inode number may be that of a removed file. Below a set-group-id directory, directories are so, too.
        let inherited = if matches!(what, Make::Dir) { self.stat()?.mode & libc::S_ISGID } else { 0 };
        let mode = if matches!(what, Make::Symlink(_)) { 0 } else { mode | inherited };
        self.fs.keep_set_id(found.stat.ino, mode);
        found.stat.mode = found.stat.mode & !0o6000 | mode & 0o6000;
        if matches!(what, Make::Fifo) && kind_of(found.stat.mode) == libc::S_IFIFO {
            lock(&self.fs.fifos).insert(found.stat.ino);
        }
        if matches!(what, Make::Dir | Make::Fifo | Make::Socket) && found.stat.mode & 0o7777 != m.as_raw_mode() {
            found.node.set(&Change { mode: Some(mode), ..Change::default() })?;
            found.stat = found.node.stat()?;
        }
        Ok(found)
    }
    fn unnamed(&self, flags: u32, mode: u32) -> Result<(Arc<dyn Node>, Arc<dyn File>)> {
        self.dir()?;
        self.fs.writable()?;
        let access = flags & (libc::O_ACCMODE | libc::O_EXCL | libc::O_SYNC | libc::O_DSYNC) as u32;
        let f = OFlags::from_bits_retain(access) | OFlags::TMPFILE | OFlags::CLOEXEC;
        let fd = fs::openat(&self.fd, c".", f, Mode::RUSR | Mode::WUSR)?;
        fs::fchmod(&fd, host_mode(mode))?;
        // The node is a handle without access, as all are.
        let n = fd.as_raw_fd().to_string();
        let handle = fs::openat(handles()?, n, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let found = self.fs.node(handle)?;
        self.fs.keep_set_id(found.stat.ino, mode);
        Ok((found.node, Arc::new(self.fs.file(fd, libc::S_IFREG, true)?)))
    }
    fn link(&self, name: &[u8], target: &dyn Node) -> Result<()> {
        self.dir()?;
        self.fs.writable()?;
        let t = self.other(target)?;
        if t.kind == libc::S_IFDIR {
            return Err(Errno::EPERM);
        }
        let n = t.fd.as_raw_fd().to_string();
        Ok(fs::linkat(handles()?, n, &self.fd, single(name)?, AtFlags::SYMLINK_FOLLOW)?)
    }
    fn remove(&self, name: &[u8], dir: bool) -> Result<()> {
        self.dir()?;
        self.fs.writable()?;
        let name = single(name)?;
        let gone = if dir { None } else { self.last_name(name) };
        fs::unlinkat(&self.fd, name, if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        if dir {
            searched::changed();
        }
        if let Some((ino, size)) = gone {
            self.fs.shrink(ino, size, 0);
        }
        Ok(())
    }
    fn rename(&self, name: &[u8], to: &dyn Node, to_name: &[u8], flags: u32) -> Result<()> {
        self.dir()?;
        self.fs.writable()?;
        let to = self.other(to)?;
        to.dir()?;
        let flags = fs::RenameFlags::from_bits(flags).ok_or(Errno::EINVAL)?;
        let gone = if flags.is_empty() { to.last_name(to_name) } else { None };
        fs::renameat_with(&self.fd, single(name)?, &to.fd, single(to_name)?, flags)?;
        searched::changed();
        if let Some((ino, size)) = gone {
            self.fs.shrink(ino, size, 0);
        }
        Ok(())
    }
    fn xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let mut value = vec![0; super::xattr::SIZE_MAX];
        let n = fs::getxattr(self.by_handle(), name, &mut value[..])?;
        value.truncate(n);
        Ok(value)
    }
    fn xattrs(&self) -> Result<Vec<u8>> {
        let mut all = vec![0; super::xattr::SIZE_MAX];
        let n = match fs::listxattr(self.by_handle(), &mut all[..]) {
            Err(rustix::io::Errno::OPNOTSUPP) => 0,
            r => r?,
        };
        // The others are the host's.
        let names = all[..n].split_inclusive(|b| *b == 0).filter(|n| n.starts_with(b"user."));
        Ok(names.collect::<Vec<_>>().concat())
    }
    fn set_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        self.fs.writable()?;
        match value {
            Some(v) => fs::setxattr(self.by_handle(), name, v, fs::XattrFlags::from_bits_retain(flags as u32))?,
            None => fs::removexattr(self.by_handle(), name)?,
        }
        Ok(())
    }
    fn set(&self, c: &Change) -> Result<()> {
        self.fs.writable()?;
        if c.uid.is_some_and(|u| u != self.fs.opt.owner.0) || c.gid.is_some_and(|g| g != self.fs.opt.owner.1) {
            return Err(Errno::EPERM);
        }
        if let Some(len) = c.size {
            let f = self.open(&Caller::default(), libc::O_WRONLY as u32)?;
            f.truncate(len)?;
        }
        if let Some(m) = c.mode {
            if self.kind == libc::S_IFLNK {
                return Err(Errno::EOPNOTSUPP);
            }
            fs::chmodat(handles()?, self.fd.as_raw_fd().to_string(), host_mode(m), AtFlags::empty())?;
            searched::changed();
            self.fs.keep_set_id(self.stat()?.ino, m);
        }
        if c.atime.is_some() || c.mtime.is_some() {
            let t = |t: Option<SetTime>| match t {
                None => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
                // The host's own time of files is behind its clock: what is written next must not look older.
                Some(SetTime::Now) if self.fs.world.host_time() => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
                Some(SetTime::Now) => {
                    let (s, n) = self.fs.world.now();
                    fs::Timespec { tv_sec: s, tv_nsec: n.into() }
                }
                Some(SetTime::At(s, n)) => fs::Timespec { tv_sec: s, tv_nsec: n.into() },
            };
            let times = fs::Timestamps { last_access: t(c.atime), last_modification: t(c.mtime) };
            match fs::utimensat(&self.fd, c"", &times, AtFlags::EMPTY_PATH) {
                // Before Linux 5.8.
                Err(rustix::io::Errno::INVAL) if self.kind != libc::S_IFLNK => {
                    fs::utimensat(handles()?, self.fd.as_raw_fd().to_string(), &times, AtFlags::empty())?
                }
                r => r?,
            }
        }
        Ok(())
    }
    fn statfs(&self) -> StatFs {
        let (blocks, free) = shown_blocks(self.fs.world.disk());
        StatFs { kind: 0xef53, blocks, free, files: 1 << 20 }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl HostNode {
    /// Whether the guest's FIFO table serves it (FIFOs of others stay closed).
    pub(super) fn fifo_allowed(&self) -> bool {
        self.own_fifo()
    }
}

/// An open host file or directory.
struct HostFile {
    fs: Arc<HostFs>,
    fd: OwnedFd,
    kind: u32,
    /// Size charged up to, `u64::MAX` if nothing is accounted.
    end: AtomicU64,
    ino: u64,
    /// Position of the host's directory stream.
    cursor: Mutex<u64>,
}

impl HostFile {
    /// What is written to loses its set-id bits.
    fn written(&self) -> Result<()> {
        if self.fs.has_set_id.load(Ordering::Relaxed) {
            let s = self.stat()?;
            if let Some(m) = super::ops::strip(s.mode) {
                self.fs.keep_set_id(s.ino, m);
            }
        }
        Ok(())
    }
    fn account(&self, end: u64) -> Result<()> {
        let old = self.end.load(Ordering::Relaxed);
        if end > old {
            self.fs.grow(self.ino, old, end)?;
            self.end.fetch_max(end, Ordering::Relaxed);
        }
        Ok(())
    }
    /// As much of a write as the limit has room for: a full disk takes a part, then nothing.
    fn granted<'a>(&self, pos: u64, buf: &'a [u8]) -> Result<&'a [u8]> {
        match self.account(pos.saturating_add(buf.len() as u64)) {
            Ok(()) => Ok(buf),
            Err(Errno::ENOSPC) => {
                let (max, used) = self.fs.world.disk();
                let end = self.end.load(Ordering::Relaxed).saturating_add(max.saturating_sub(used));
                let n = end.saturating_sub(pos).min(buf.len() as u64);
                if n == 0 {
                    return Err(Errno::ENOSPC);
                }
                self.account(pos + n)?;
                Ok(&buf[..n as usize])
            }
            Err(e) => Err(e),
        }
    }
}

impl File for HostFile {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        if self.kind == libc::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        Ok(rustix::io::pread(&self.fd, buf, pos)?)
    }
    fn write(&self, _: &dyn Blocking, pos: u64, mut buf: &[u8], _: bool) -> Result<usize> {
        let accounted = self.end.load(Ordering::Relaxed) != u64::MAX;
        self.written()?;
        if pos == u64::MAX {
            if accounted {
                buf = self.granted(self.stat()?.size, buf)?;
            }
            let iov = [std::io::IoSlice::new(buf)];
            // An offset of -1 leaves the position to RWF_APPEND.
            return Ok(rustix::io::pwritev2(&self.fd, &iov, u64::MAX, rustix::io::ReadWriteFlags::APPEND)?);
        }
        if accounted {
            buf = self.granted(pos, buf)?;
        }
        Ok(rustix::io::pwrite(&self.fd, buf, pos)?)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        self.fs.stat_fd(self.fd.as_fd())
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.written()?;
        if self.end.load(Ordering::Relaxed) != u64::MAX {
            let old = self.stat()?.size;
            if len > old {
                self.account(len)?;
            } else {
                fs::ftruncate(&self.fd, len)?;
                self.fs.shrink(self.ino, old, len);
                self.end.store(len, Ordering::Relaxed);
                return Ok(());
            }
        }
        Ok(fs::ftruncate(&self.fd, len)?)
    }
    fn sync(&self, data: bool) -> Result<()> {
        let _: () = if data { fs::fdatasync(&self.fd)? } else { fs::fsync(&self.fd)? };
        Ok(())
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        if self.kind != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let mut cursor = lock(&self.cursor);
        if *cursor != pos {
            fs::seek(&self.fd, fs::SeekFrom::Start(pos))?;
        }
        let dev = {
            let s = fs::fstat(&self.fd)?;
            u64::from(rustix::fs::major(s.st_dev)) << 32 | u64::from(rustix::fs::minor(s.st_dev))
        };
        let mut buf = vec![MaybeUninit::uninit(); 32768];
        let mut raw = fs::RawDir::new(&self.fd, &mut buf);
        let mut out = Vec::new();
        while let Some(e) = raw.next() {
            let e = e?;
            let next = e.next_entry_cookie();
            let kind = match e.file_type() {
                fs::FileType::RegularFile => libc::DT_REG,
                fs::FileType::Directory => libc::DT_DIR,
                fs::FileType::Symlink => libc::DT_LNK,
                fs::FileType::Fifo => libc::DT_FIFO,
                fs::FileType::Socket => libc::DT_SOCK,
                fs::FileType::CharacterDevice => libc::DT_CHR,
                fs::FileType::BlockDevice => libc::DT_BLK,
                fs::FileType::Unknown => libc::DT_UNKNOWN,
            };
            let name = e.file_name().to_bytes().to_vec();
            out.push((DirEntry { ino: self.fs.ino(dev, e.ino()), kind, name }, next));
            *cursor = next;
            if raw.is_buffer_empty() {
                break;
            }
        }
        // The host's position is behind the buffer, which is what was given out.
        Ok(out)
    }
    fn direct(&self, write_end: Option<u64>) -> Result<Option<BorrowedFd<'_>>> {
        if self.kind != libc::S_IFREG {
            return Ok(None);
        }
        if let Some(end) = write_end {
            self.written()?;
            if self.end.load(Ordering::Relaxed) != u64::MAX {
                self.account(end)?;
            }
        }
        Ok(Some(self.fd.as_fd()))
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        (self.kind == libc::S_IFREG).then(|| self.fd.as_fd())
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
