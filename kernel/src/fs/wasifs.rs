//! A preopened folder of WASI as a file system: the counterpart of `hostfs.rs` where the kernel runs in a WebAssembly module.
//!
//! A node is a path below the preopened folder. All that is given to the host are such paths, made of single names that the
//! walk has checked, with links not followed; WASI itself lets none of them leave the folder. WASI knows no permissions, owners
//! or set-id bits: files show 0644, folders 0755, and what the job sets is kept for its life.
//!
//! # Safety
//! The calls of WASI get addresses and lengths of whole slices, and descriptors that this module owns.
#![allow(unsafe_code)]

use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::{DirEntry, File, Stat};
use crate::wait::Blocking;
use std::any::Any;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Options of a host mount.
#[derive(Clone)]
pub struct HostOptions {
    /// Device number the guest sees.
    pub dev: u64,
    /// Key of the inode number hash.
    pub key: u64,
    /// Open files for reading only, and refuse changes.
    pub read_only: bool,
    /// Unused here.
    pub public: bool,
    /// Owner the guest sees.
    pub owner: (u32, u32),
}

/// Errors as Linux numbers them.
pub(crate) fn errno(e: wasi::Errno) -> Errno {
    Errno(libc::from_wasi(e.raw()))
}

/// A descriptor of WASI's, closed when dropped.
struct Fd(wasi::Fd);
impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: it is ours.
        let _ = unsafe { wasi::fd_close(self.0) };
    }
}

/// The preopened folders: name and descriptor.
pub fn preopened() -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for fd in 3.. {
        // SAFETY: no memory but the result's.
        let Ok(p) = (unsafe { wasi::fd_prestat_get(fd) }) else {
            return found;
        };
        // SAFETY: the only variant there is.
        let n = unsafe { p.u.dir.pr_name_len };
        let mut name = vec![0u8; n];
        // SAFETY: the whole of `name`.
        if unsafe { wasi::fd_prestat_dir_name(fd, name.as_mut_ptr(), n) }.is_ok() {
            let end = name.iter().position(|b| *b == 0).unwrap_or(n);
            found.push((String::from_utf8_lossy(&name[..end]).into_owned(), fd));
        }
    }
    found
}

/// A preopened folder.
pub struct HostFs {
    opt: HostOptions,
    world: Arc<dyn World>,
    fd: wasi::Fd,
    /// What descriptors opened below it may be given.
    rights: wasi::Rights,
    /// Permission bits that the job has set, by inode number.
    modes: Mutex<HashMap<u64, u32>>,
}

impl HostFs {
    /// The root node of a preopened folder, by its name.
    pub fn mount(path: &std::path::Path, opt: HostOptions, world: Arc<dyn World>) -> Result<Arc<dyn Node>> {
        let name = path.to_str().ok_or(Errno::ENOENT)?;
        let (_, fd) = preopened().into_iter().find(|p| p.0 == name).ok_or(Errno::ENOENT)?;
        // SAFETY: no memory but the result's.
        let rights = unsafe { wasi::fd_fdstat_get(fd) }.map_err(errno)?.fs_rights_inheriting;
        let fs = Arc::new(HostFs { opt, world, fd, rights, modes: Mutex::default() });
        Ok(Arc::new(HostNode { fs, path: ".".into() }))
    }
    fn stat(&self, s: &wasi::Filestat) -> Stat {
        let time = |ns: u64| ((ns / 1_000_000_000) as i64, (ns % 1_000_000_000) as u32);
        let (kind, perm) = match s.filetype {
            wasi::FILETYPE_DIRECTORY => (libc::S_IFDIR, 0o755),
            wasi::FILETYPE_SYMBOLIC_LINK => (libc::S_IFLNK, 0o777),
            wasi::FILETYPE_CHARACTER_DEVICE => (libc::S_IFCHR, 0o644),
            wasi::FILETYPE_BLOCK_DEVICE => (libc::S_IFBLK, 0o644),
            wasi::FILETYPE_SOCKET_STREAM | wasi::FILETYPE_SOCKET_DGRAM => (libc::S_IFSOCK, 0o644),
            _ => (libc::S_IFREG, 0o644),
        };
        let ino = self.ino(s);
        Stat {
            dev: self.opt.dev,
            ino,
            mode: kind | lock(&self.modes).get(&ino).copied().unwrap_or(perm),
            nlink: s.nlink.clamp(1, u64::from(u32::MAX)) as u32,
            uid: self.opt.owner.0,
            gid: self.opt.owner.1,
            rdev: 0,
            size: s.size,
            blksize: 4096,
            blocks: s.size.div_ceil(512),
            atime: time(s.atim),
            mtime: time(s.mtim),
            ctime: time(s.ctim),
            btime: (0, 0),
        }
    }
    /// 52 bits of a keyed hash, as for host folders elsewhere.
    fn ino(&self, s: &wasi::Filestat) -> u64 {
        let mut x = self.opt.key ^ s.dev.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ s.ino;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ x >> 31) >> 12).max(16)
    }
    fn writable(&self) -> Result<()> {
        if self.opt.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }
    fn open(&self, path: &str, how: wasi::Oflags, wanted: wasi::Rights) -> Result<Fd> {
        // SAFETY: a whole string; the result is ours.
        unsafe { wasi::path_open(self.fd, 0, path, how, wanted & self.rights, self.rights, 0) }.map(Fd).map_err(errno)
    }
}

/// A file below a preopened folder.
pub struct HostNode {
    fs: Arc<HostFs>,
    path: String,
}

const READ: wasi::Rights = wasi::RIGHTS_FD_READ
    | wasi::RIGHTS_FD_SEEK
    | wasi::RIGHTS_FD_TELL
    | wasi::RIGHTS_FD_FILESTAT_GET
    | wasi::RIGHTS_FD_ADVISE
    | wasi::RIGHTS_POLL_FD_READWRITE;
const WRITE: wasi::Rights = wasi::RIGHTS_FD_WRITE
    | wasi::RIGHTS_FD_SEEK
    | wasi::RIGHTS_FD_TELL
    | wasi::RIGHTS_FD_FILESTAT_GET
    | wasi::RIGHTS_FD_FILESTAT_SET_SIZE
    | wasi::RIGHTS_FD_DATASYNC
    | wasi::RIGHTS_FD_SYNC
    | wasi::RIGHTS_FD_ALLOCATE
    | wasi::RIGHTS_POLL_FD_READWRITE;
const LIST: wasi::Rights = wasi::RIGHTS_FD_READDIR | wasi::RIGHTS_FD_FILESTAT_GET;

impl HostNode {
    fn other<'a>(&self, o: &'a dyn Node) -> Result<&'a HostNode> {
        o.as_any().downcast_ref::<HostNode>().filter(|n| Arc::ptr_eq(&n.fs, &self.fs)).ok_or(Errno::EXDEV)
    }
    /// The path of an entry. WASI's paths are text.
    fn child(&self, name: &[u8]) -> Result<String> {
        if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
            return Err(Errno::EINVAL);
        }
        let name = std::str::from_utf8(name).map_err(|_| Errno::EILSEQ)?;
        Ok(if self.path == "." { name.into() } else { format!("{}/{name}", self.path) })
    }
    fn found(&self, path: String) -> Result<Found> {
        let node = HostNode { fs: self.fs.clone(), path };
        Ok(Found { stat: node.stat()?, node: Arc::new(node) })
    }
    /// Whether the guest's FIFO table serves it: there are none.
    pub(super) fn fifo_allowed(&self) -> bool {
        false
    }
}

impl Node for HostNode {
    fn stat(&self) -> Result<Stat> {
        // SAFETY: a whole string.
        let s = unsafe { wasi::path_filestat_get(self.fs.fd, 0, &self.path) }.map_err(errno)?;
        Ok(self.fs.stat(&s))
    }
    fn lookup(&self, _: &Caller, name: &[u8]) -> Result<Found> {
        self.found(self.child(name)?)
    }
    fn readlink(&self, _: &Caller) -> Result<Link> {
        let mut buf = vec![0u8; PATH_MAX];
        // SAFETY: the whole of `buf`.
        let n = unsafe { wasi::path_readlink(self.fs.fd, &self.path, buf.as_mut_ptr(), buf.len()) }.map_err(errno)?;
        buf.truncate(n);
        Ok(Link::Path(buf))
    }
    fn open(&self, _: &Caller, flags: u32) -> Result<Arc<dyn File>> {
        let access = flags as i32 & libc::O_ACCMODE;
        let kind = kind_of(self.stat()?.mode);
        let fd = match kind {
            libc::S_IFDIR => self.fs.open(&self.path, wasi::OFLAGS_DIRECTORY, LIST)?,
            libc::S_IFREG => {
                if access != libc::O_RDONLY {
                    self.fs.writable()?;
                }
                let rights = match access {
                    libc::O_RDONLY => READ,
                    libc::O_WRONLY => WRITE,
                    _ => READ | WRITE,
                };
                self.fs.open(&self.path, 0, rights)?
            }
            libc::S_IFLNK => return Err(Errno::ELOOP),
            libc::S_IFSOCK => return Err(Errno::ENXIO),
            _ => return Err(Errno::EACCES),
        };
        Ok(Arc::new(HostFile { fs: self.fs.clone(), fd, kind }))
    }
    fn make(&self, _: &Caller, name: &[u8], what: Make<'_>, mode: u32) -> Result<Found> {
        self.fs.writable()?;
        let path = self.child(name)?;
        match what {
            Make::File => drop(self.fs.open(&path, wasi::OFLAGS_CREAT | wasi::OFLAGS_EXCL, WRITE)?),
            // SAFETY: whole strings, here and below.
            Make::Dir => unsafe { wasi::path_create_directory(self.fs.fd, &path) }.map_err(errno)?,
            Make::Symlink(to) => {
                let to = std::str::from_utf8(to).map_err(|_| Errno::EILSEQ)?;
                // SAFETY: as above.
                unsafe { wasi::path_symlink(to, self.fs.fd, &path) }.map_err(errno)?;
            }
            Make::Fifo | Make::Socket | Make::Device(_) => return Err(Errno::EPERM),
        }
        let mut found = self.found(path)?;
        if !matches!(what, Make::Symlink(_)) {
            lock(&self.fs.modes).insert(found.stat.ino, mode & 0o7777);
            found.stat.mode = kind_of(found.stat.mode) | mode & 0o7777;
        }
        Ok(found)
    }
    fn link(&self, name: &[u8], target: &dyn Node) -> Result<()> {
        self.fs.writable()?;
        let (t, path) = (self.other(target)?, self.child(name)?);
        // SAFETY: whole strings.
        unsafe { wasi::path_link(self.fs.fd, 0, &t.path, self.fs.fd, &path) }.map_err(errno)
    }
    fn remove(&self, name: &[u8], dir: bool) -> Result<()> {
        self.fs.writable()?;
        let path = self.child(name)?;
        // SAFETY: whole strings.
        let r = unsafe {
            if dir { wasi::path_remove_directory(self.fs.fd, &path) } else { wasi::path_unlink_file(self.fs.fd, &path) }
        };
        r.map_err(errno)
    }
    fn rename(&self, name: &[u8], to: &dyn Node, to_name: &[u8], flags: u32) -> Result<()> {
        self.fs.writable()?;
        let to = self.other(to)?;
        let (from, to) = (self.child(name)?, to.child(to_name)?);
        match flags {
            0 => {}
            libc::RENAME_NOREPLACE => match self.found(to.clone()) {
                Ok(_) => return Err(Errno::EEXIST),
                Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            },
            _ => return Err(Errno::EINVAL),
        }
        // SAFETY: whole strings.
        unsafe { wasi::path_rename(self.fs.fd, &from, self.fs.fd, &to) }.map_err(errno)
    }
    fn set(&self, c: &Change) -> Result<()> {
        self.fs.writable()?;
        if c.uid.is_some_and(|u| u != self.fs.opt.owner.0) || c.gid.is_some_and(|g| g != self.fs.opt.owner.1) {
            return Err(Errno::EPERM);
        }
        if let Some(len) = c.size {
            self.open(&Caller::default(), libc::O_WRONLY as u32)?.truncate(len)?;
        }
        if let Some(m) = c.mode {
            // Which looks at the modes, too.
            let ino = self.stat()?.ino;
            lock(&self.fs.modes).insert(ino, m & 0o7777);
        }
        let time = |t: Option<SetTime>, now, at| match t {
            None => (0, 0),
            Some(SetTime::Now) => (0, now),
            Some(SetTime::At(s, n)) => ((s.max(0) as u64).saturating_mul(1_000_000_000) + u64::from(n), at),
        };
        let (atime, a) = time(c.atime, wasi::FSTFLAGS_ATIM_NOW, wasi::FSTFLAGS_ATIM);
        let (mtime, m) = time(c.mtime, wasi::FSTFLAGS_MTIM_NOW, wasi::FSTFLAGS_MTIM);
        if a | m != 0 {
            // SAFETY: a whole string.
            unsafe { wasi::path_filestat_set_times(self.fs.fd, 0, &self.path, atime, mtime, a | m) }.map_err(errno)?;
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

/// An open file or folder.
struct HostFile {
    fs: Arc<HostFs>,
    fd: Fd,
    kind: u32,
}

impl HostFile {
    /// Entries of the folder behind a position of WASI's: name, inode number, kind and the position behind each.
    fn list(&self, cookie: u64) -> Result<Vec<(DirEntry, u64)>> {
        const HEAD: usize = size_of::<wasi::Dirent>();
        let mut buf = vec![0u8; 32 << 10];
        // SAFETY: the whole of `buf`.
        let n = unsafe { wasi::fd_readdir(self.fd.0, buf.as_mut_ptr(), buf.len(), cookie) }.map_err(errno)?;
        let (mut at, mut out) = (0, Vec::new());
        while at + HEAD <= n {
            // SAFETY: a whole entry's head is in the buffer; every bit pattern is valid.
            let d = unsafe { buf.as_ptr().add(at).cast::<wasi::Dirent>().read_unaligned() };
            let end = at + HEAD + d.d_namlen as usize;
            if end > n {
                break; // the rest does not fit: asked for next
            }
            let kind = match d.d_type {
                wasi::FILETYPE_DIRECTORY => libc::DT_DIR,
                wasi::FILETYPE_REGULAR_FILE => libc::DT_REG,
                wasi::FILETYPE_SYMBOLIC_LINK => libc::DT_LNK,
                wasi::FILETYPE_CHARACTER_DEVICE => libc::DT_CHR,
                _ => libc::DT_UNKNOWN,
            };
            let name = buf[at + HEAD..end].to_vec();
            // Node's WASI has no inode numbers; programs take 0 for an entry that was removed.
            let of_name = || {
                name.iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3))
            };
            let ino = if d.d_ino == 0 { (of_name() >> 12).max(16) } else { d.d_ino };
            out.push((DirEntry { ino, kind, name }, d.d_next));
            at = end;
        }
        Ok(out)
    }
}

impl File for HostFile {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        if self.kind == libc::S_IFDIR {
            return Err(Errno::EISDIR);
        }
        let iov = [wasi::Iovec { buf: buf.as_mut_ptr(), buf_len: buf.len() }];
        // SAFETY: the whole of `buf`.
        unsafe { wasi::fd_pread(self.fd.0, &iov, pos) }.map_err(errno)
    }
    fn write(&self, _: &dyn Blocking, pos: u64, buf: &[u8], _: bool) -> Result<usize> {
        // Nobody else in this job writes between the two calls.
        let pos = if pos == u64::MAX { self.stat()?.size } else { pos };
        let iov = [wasi::Ciovec { buf: buf.as_ptr(), buf_len: buf.len() }];
        // SAFETY: the whole of `buf`.
        unsafe { wasi::fd_pwrite(self.fd.0, &iov, pos) }.map_err(errno)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn copied(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        // SAFETY: no memory but the result's.
        let s = unsafe { wasi::fd_filestat_get(self.fd.0) }.map_err(errno)?;
        Ok(self.fs.stat(&s))
    }
    fn truncate(&self, len: u64) -> Result<()> {
        // SAFETY: no memory.
        unsafe { wasi::fd_filestat_set_size(self.fd.0, len) }.map_err(errno)
    }
    fn sync(&self, data: bool) -> Result<()> {
        // SAFETY: no memory.
        unsafe { if data { wasi::fd_datasync(self.fd.0) } else { wasi::fd_sync(self.fd.0) } }.map_err(errno)
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        if self.kind != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        // Hosts differ in whether they list `.` and `..`: these two are ours, at 0 and 1; then come WASI's positions, from 2 on.
        let ino = self.stat()?.ino;
        let dot = |name: &[u8]| DirEntry { ino, kind: libc::DT_DIR, name: name.to_vec() };
        let mut out = Vec::new();
        if pos == 0 {
            out.push((dot(b"."), 1));
        }
        if pos <= 1 {
            out.push((dot(b".."), 2));
        }
        let mut cookie = pos.saturating_sub(2);
        loop {
            let got = self.list(cookie)?;
            let Some((_, next)) = got.last() else {
                return Ok(out);
            };
            cookie = *next;
            out.extend(got.into_iter().filter(|(e, _)| e.name != b"." && e.name != b"..").map(|(e, n)| (e, n + 2)));
            if out.len() > 2 {
                return Ok(out);
            }
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
