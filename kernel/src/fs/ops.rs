//! Operations on paths, with Linux's checks in Linux's order. Each takes the caller and the directory that relative paths
//! start at; system calls are thin wrappers of these.

use super::memfs::{MemFile, MemNode};
use super::node::*;
use super::notify;
use super::walk::{Entry, Namespace, Parent, Place, Scope};
use crate::errno::{Errno, Result};
use crate::file::{Description, DirEntry, File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use std::any::Any;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// O_LARGEFILE as the kernel has it on x86-64 (the C library's is 0).
const LARGEFILE: u32 = 0o100000;
/// __O_TMPFILE without O_DIRECTORY.
const TMPFILE: u32 = 0o20000000;

/// An open file that was found by path; what [`Description::file`] is for those.
pub struct Opened {
    /// Where it was found.
    pub place: Place,
    file: Arc<dyn File>,
    ns: Arc<Namespace>,
    /// IN_CLOSE_*, or 0 for a descriptor that nobody is told about (O_PATH).
    close_event: u32,
    /// The file, if it is counted as open for writing.
    written: Option<super::locks::Key>,
}

impl Opened {
    /// The opened file of a description, unless it is a pipe, socket, terminal or the like.
    pub fn of(d: &Description) -> Option<&Opened> {
        d.file.as_any().downcast_ref()
    }
    /// As [`of`](Self::of), for a file.
    pub fn of_file(f: &dyn File) -> Option<&Opened> {
        f.as_any().downcast_ref()
    }
    /// The file system's own file.
    pub fn inner(&self) -> &Arc<dyn File> {
        &self.file
    }
    /// The file system's node.
    pub(super) fn node(&self) -> &Arc<dyn super::node::Node> {
        &self.place.node
    }
    /// The node in memory, for memfd seals and allocation.
    pub fn memory(&self) -> Option<&MemNode> {
        self.place.node.as_any().downcast_ref()
    }
    /// Identity of the file for locks.
    pub fn key(&self) -> Result<super::locks::Key> {
        let s = self.place.node.stat()?;
        Ok((s.dev, s.ino))
    }
    /// That a program runs from the file: as long as the result is kept.
    pub fn execute(&self) -> Result<Arc<super::executed::Executing>> {
        Ok(super::executed::Executing::new(&self.ns, self.key()?))
    }
    /// Identity of the description for locks.
    pub fn owner(&self) -> super::locks::Owner {
        super::locks::Owner::Description(self as *const Opened as usize)
    }
}

impl File for Opened {
    fn read(&self, who: &dyn Blocking, pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        let n = self.file.read(who, pos, buf, nonblock)?;
        if n > 0 {
            self.ns.happened(&self.place, notify::IN_ACCESS);
        }
        Ok(n)
    }
    fn write(&self, who: &dyn Blocking, pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        let n = self.file.write(who, pos, buf, nonblock)?;
        if n > 0 {
            self.ns.happened(&self.place, notify::IN_MODIFY);
        }
        Ok(n)
    }
    fn seekable(&self) -> bool {
        self.file.seekable()
    }
    fn stat(&self) -> Result<Stat> {
        self.file.stat()
    }
    fn truncate(&self, len: u64) -> Result<()> {
        self.file.truncate(len)?;
        self.ns.happened(&self.place, notify::IN_MODIFY);
        Ok(())
    }
    fn sync(&self, data: bool) -> Result<()> {
        self.file.sync(data)
    }
    fn poll(&self) -> Ready {
        self.file.poll()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        self.file.queue()
    }
    fn ioctl(&self, who: &dyn Blocking, mem: evm_memory::Mem, cmd: u32, arg: u64) -> Result<u64> {
        self.file.ioctl(who, mem, cmd, arg)
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        let found = self.file.entries(pos)?;
        if !found.is_empty() {
            self.ns.happened(&self.place, notify::IN_ACCESS);
        }
        Ok(found)
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.host_fd()
    }
    fn copied(&self) -> bool {
        self.file.copied()
    }
    fn direct(&self, write_end: Option<u64>) -> Result<Option<BorrowedFd<'_>>> {
        // Who watches is told by read and write.
        if self.ns.watches.any() { Ok(None) } else { self.file.direct(write_end) }
    }
    fn read_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        if self.ns.watches.any() { Ok(0) } else { self.file.read_guest(mem, addr, len, pos) }
    }
    fn write_guest(&self, mem: &evm_memory::Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
        if self.ns.watches.any() { Ok(0) } else { self.file.write_guest(mem, addr, len, pos) }
    }
    fn direct_fd(&self) -> Option<BorrowedFd<'_>> {
        if self.ns.watches.any() { None } else { self.file.direct_fd() }
    }
    fn set_flags(&self, flags: u32) {
        self.file.set_flags(flags);
    }
    fn release(&self) {
        if !self.ns.locks.is_empty()
            && let Ok(k) = self.key()
        {
            self.ns.locks.release(k, self.owner());
        }
        self.file.release();
        if let Some(k) = self.written {
            let mut all = lock(&self.ns.writers);
            match all.get_mut(&k) {
                Some(n) if *n > 1 => *n -= 1,
                _ => drop(all.remove(&k)),
            }
        }
        if self.close_event != 0 {
            self.ns.happened(&self.place, self.close_event);
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// What an O_PATH descriptor refers to.
struct PathOnly(Arc<dyn Node>);

impl File for PathOnly {
    fn read(&self, _: &dyn Blocking, _: u64, _: &mut [u8], _: bool) -> Result<usize> {
        Err(Errno::EBADF)
    }
    fn write(&self, _: &dyn Blocking, _: u64, _: &[u8], _: bool) -> Result<usize> {
        Err(Errno::EBADF)
    }
    fn stat(&self) -> Result<Stat> {
        self.0.stat()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn has(flags: u32, bit: i32) -> bool {
    flags & bit as u32 != 0
}

/// The mode without the set-id bits of a program, if it has any: they do not survive a change of contents or owner.
fn stripped(s: &Stat) -> Option<u32> {
    strip(s.mode).filter(|_| kind_of(s.mode) == libc::S_IFREG).map(|m| m & 0o7777)
}

/// A mode without its set-id bits, if it has any that a change takes away.
pub(super) fn strip(mode: u32) -> Option<u32> {
    let bits = libc::S_ISUID | if mode & libc::S_IXGRP != 0 { libc::S_ISGID } else { 0 };
    (mode & bits != 0).then_some(mode & !bits)
}

impl Namespace {
    pub(super) fn writable(&self, p: &Place) -> Result<()> {
        if p.mount.read_only { Err(Errno::EROFS) } else { Ok(()) }
    }
    /// The parent directory must let entries be made or removed.
    fn change_dir(&self, who: &Caller, dir: &Entry) -> Result<()> {
        self.writable(&dir.place)?;
        who.check(&dir.stat, W | X)
    }
    /// As [`change_dir`](Self::change_dir), for removing `victim`: with the sticky bit only for owners.
    fn may_remove(&self, who: &Caller, dir: &Entry, victim: &Stat) -> Result<()> {
        self.change_dir(who, dir)?;
        if dir.stat.mode & libc::S_ISVTX != 0 && !who.owns(&dir.stat) && !who.owns(victim) {
            return Err(Errno::EPERM);
        }
        Ok(())
    }
    /// open(2). `mode` has the umask applied.
    pub fn open(
        self: &Arc<Self>,
        who: &Caller,
        wait: &dyn Blocking,
        at: &Place,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<Arc<Description>> {
        if has(flags, libc::O_PATH) {
            let keep = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY) as u32;
            let e = self.resolve(who, at, path, !has(flags, libc::O_NOFOLLOW))?;
            if has(flags, libc::O_DIRECTORY) && !is_dir(e.stat.mode) {
                return Err(Errno::ENOTDIR);
            }
            return Ok(self.description(e.place.hold(), None, flags & keep));
        }
        if flags & TMPFILE != 0 {
            return self.open_tmpfile(who, at, path, flags, mode);
        }
        if !has(flags, libc::O_CREAT) {
            let e = self.resolve(who, at, path, !has(flags, libc::O_NOFOLLOW))?;
            return self.open_entry(who, wait, e, flags, false);
        }
        if has(flags, libc::O_DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        let mut at = at.clone();
        let mut path = path.to_vec();
        for _ in 0..=40 {
            let p = self.resolve_parent(who, &at, &path)?;
            if p.special() {
                // A directory.
                return Err(if has(flags, libc::O_EXCL) { Errno::EEXIST } else { Errno::EISDIR });
            }
            if p.slash {
                return Err(Errno::EISDIR);
            }
            let found = match self.child(who, &p.dir.place, &p.name) {
                Err(Errno::ENOENT) => match self.create(who, &p, Make::File, mode) {
                    // Another made it meanwhile.
                    Err(Errno::EEXIST) if !has(flags, libc::O_EXCL) => continue,
                    Err(e) => return Err(e),
                    Ok(e) => return self.open_entry(who, wait, e, flags, true),
                },
                r => r?,
            };
            if has(flags, libc::O_EXCL) {
                return Err(Errno::EEXIST);
            }
            if kind_of(found.stat.mode) == libc::S_IFLNK {
                if has(flags, libc::O_NOFOLLOW) {
                    return Err(Errno::ELOOP);
                }
                match found.place.node.readlink(who)? {
                    Link::Jump(to, _) => {
                        let stat = to.node.stat()?;
                        return self.open_entry(who, wait, Entry { place: to, stat }, flags, false);
                    }
                    Link::Path(t) if t.is_empty() => return Err(Errno::ENOENT),
                    Link::Path(t) => {
                        path = t;
                        at = p.dir.place;
                        continue;
                    }
                }
            }
            // World-writable sticky directories: not another's file (protected_regular).
            return self.open_entry(who, wait, found, flags, false);
        }
        Err(Errno::ELOOP)
    }
    /// openat2(2) with RESOLVE_* flags.
    #[allow(clippy::too_many_arguments)]
    pub fn open_scoped(
        self: &Arc<Self>,
        who: &Caller,
        wait: &dyn Blocking,
        path: &[u8],
        flags: u32,
        mode: u32,
        scope: &Scope,
    ) -> Result<Arc<Description>> {
        let mut at = scope.base.clone();
        let mut path = path.to_vec();
        for _ in 0..=40 {
            let p = self.resolve_parent_scoped(who, &at, &path, scope)?;
            if p.special() {
                let e = self.resolve_scoped(who, &at, &path, scope)?;
                return self.open(who, wait, &e.place, b".", flags, mode);
            }
            let link = match self.child(who, &p.dir.place, &p.name) {
                Ok(e) if scope.flags & Scope::NO_XDEV != 0 && !Arc::ptr_eq(&e.place.mount, &p.dir.place.mount) => {
                    return Err(Errno::EXDEV);
                }
                Ok(e) if kind_of(e.stat.mode) == libc::S_IFLNK && (!has(flags, libc::O_NOFOLLOW) || p.slash) => {
                    Some(e.place.node.readlink(who)?)
                }
                _ => None,
            };
            let name = [&p.name[..], if p.slash { b"/" } else { b"" }].concat();
            match link {
                None => return self.open(who, wait, &p.dir.place, &name, flags | libc::O_NOFOLLOW as u32, mode),
                Some(_) if scope.flags & Scope::NO_SYMLINKS != 0 => return Err(Errno::ELOOP),
                Some(Link::Jump(..)) if scope.flags & Scope::NO_MAGICLINKS != 0 => return Err(Errno::ELOOP),
                Some(Link::Jump(..)) if scope.flags & (Scope::BENEATH | Scope::IN_ROOT) != 0 => {
                    return Err(Errno::EXDEV);
                }
                Some(Link::Jump(..)) => return self.open(who, wait, &p.dir.place, &name, flags, mode),
                Some(Link::Path(mut t)) => {
                    if p.slash {
                        t.push(b'/');
                    }
                    path = t;
                    at = p.dir.place;
                }
            }
        }
        Err(Errno::ELOOP)
    }
    /// Open what was found (or just created).
    pub fn open_entry(
        self: &Arc<Self>,
        who: &Caller,
        wait: &dyn Blocking,
        e: Entry,
        flags: u32,
        created: bool,
    ) -> Result<Arc<Description>> {
        let kind = kind_of(e.stat.mode);
        let acc = flags as i32 & libc::O_ACCMODE;
        let trunc = has(flags, libc::O_TRUNC) && !created;
        let writes = acc != libc::O_RDONLY || trunc;
        if kind == libc::S_IFLNK {
            return Err(if has(flags, libc::O_DIRECTORY) { Errno::ENOTDIR } else { Errno::ELOOP });
        }
        if has(flags, libc::O_DIRECTORY) && kind != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        if kind == libc::S_IFDIR && (writes || has(flags, libc::O_CREAT)) {
            return Err(Errno::EISDIR);
        }
        let keep = flags & !((libc::O_CREAT | libc::O_EXCL | libc::O_NOCTTY | libc::O_TRUNC | libc::O_CLOEXEC) as u32)
            | LARGEFILE;
        if e.place.node.as_any().is::<super::procfs::AnyFile>() {
            // A pipe or the like that the process has open already.
            return Ok(Description::new(e.place.node.open(who, flags)?, keep, e.place.path()));
        }
        if !created {
            if writes && matches!(kind, libc::S_IFREG | libc::S_IFDIR) {
                self.writable(&e.place)?;
            }
            let want = match acc {
                libc::O_RDONLY => R,
                libc::O_WRONLY => W,
                _ => R | W,
            };
            who.check(&e.stat, want | if trunc { W } else { 0 })?;
            if writes && kind == libc::S_IFREG {
                self.executed.may_write((e.stat.dev, e.stat.ino))?;
            }
        }
        if has(flags, libc::O_NOATIME) && !who.owns(&e.stat) {
            return Err(Errno::EPERM);
        }
        if kind == libc::S_IFIFO {
            let node = e.place.node.clone();
            if node.as_any().downcast_ref::<super::hostfs::HostNode>().is_some_and(|n| !n.fifo_allowed()) {
                return Err(Errno::EACCES);
            }
            let fifo = self.fifos.get((e.stat.dev, e.stat.ino));
            let file = fifo.open(wait, flags, Arc::new(move || node.stat()))?;
            return Ok(Description::new(file, keep, e.place.absolute()));
        }
        if trunc && kind == libc::S_IFREG {
            // Before it is opened: also a descriptor to read only truncates.
            let strip = stripped(&e.stat);
            e.place.node.set(&Change { size: Some(0), mode: strip, ..Change::default() })?;
            self.happened(&e.place, notify::IN_MODIFY);
        }
        let file = e.place.node.open(who, flags)?;
        if kind == libc::S_IFCHR && file.stat().is_ok_and(|s| (s.dev, s.ino) != (e.stat.dev, e.stat.ino)) {
            // Another file stands behind the device: the terminal.
            return Ok(Description::new(file, keep, e.place.absolute()));
        }
        let place = if kind == libc::S_IFDIR { e.place.hold() } else { e.place };
        Ok(self.description(place, Some(file), keep))
    }
    fn open_tmpfile(
        self: &Arc<Self>,
        who: &Caller,
        at: &Place,
        path: &[u8],
        flags: u32,
        mode: u32,
    ) -> Result<Arc<Description>> {
        if flags as i32 & libc::O_ACCMODE == libc::O_RDONLY || !has(flags, libc::O_DIRECTORY) {
            return Err(Errno::EINVAL);
        }
        let dir = self.resolve(who, at, path, true)?;
        if !is_dir(dir.stat.mode) {
            return Err(Errno::ENOTDIR);
        }
        self.change_dir(who, &dir)?;
        let keep = flags & !((libc::O_CREAT | libc::O_EXCL | libc::O_TRUNC | libc::O_CLOEXEC) as u32) | LARGEFILE;
        let (node, file): (Arc<dyn Node>, Arc<dyn File>) = match dir.place.node.as_any().downcast_ref::<MemNode>() {
            Some(d) => {
                let node = d.fs().anonymous(mode, (who.uid, who.gid), libc::F_SEAL_SEAL as u32)?;
                (node.clone(), Arc::new(MemFile::new(node)))
            }
            None => dir.place.node.unnamed(flags, mode)?,
        };
        let place = dir.place.child(format!("#{}", node.stat()?.ino).as_bytes(), node);
        Ok(self.description(place, Some(file), keep))
    }
    /// memfd_create(2).
    pub fn memfd(self: &Arc<Self>, who: &Caller, name: &[u8], seals: u32, exec: bool) -> Result<Arc<Description>> {
        let node = self.memory.fs().anonymous(if exec { 0o777 } else { 0o666 }, (who.uid, who.gid), seals)?;
        let place = self.root().child(&[b"memfd:", name].concat(), node.clone());
        Ok(self.description(place, Some(Arc::new(MemFile::new(node))), libc::O_RDWR as u32 | LARGEFILE))
    }
    fn description(self: &Arc<Self>, place: Place, file: Option<Arc<dyn File>>, flags: u32) -> Arc<Description> {
        let path = place.absolute();
        let close_event = match (&file, flags as i32 & libc::O_ACCMODE) {
            (None, _) => 0,
            (_, libc::O_RDONLY) => notify::IN_CLOSE_NOWRITE,
            _ => notify::IN_CLOSE_WRITE,
        };
        if close_event != 0 {
            self.happened(&place, notify::IN_OPEN);
        }
        // Those that only read need not be asked what they are.
        let written = match (close_event == notify::IN_CLOSE_WRITE).then(|| place.node.stat()) {
            Some(Ok(s)) if kind_of(s.mode) == libc::S_IFREG => Some((s.dev, s.ino)),
            _ => None,
        };
        if let Some(k) = written {
            *lock(&self.writers).entry(k).or_default() += 1;
        }
        let file = file.unwrap_or_else(|| Arc::new(PathOnly(place.node.clone())));
        Description::new(Arc::new(Opened { place, file, ns: self.clone(), close_event, written }), flags, path)
    }
    /// Make an entry in a directory that was checked to have none of the name.
    fn create(&self, who: &Caller, p: &Parent, what: Make<'_>, mode: u32) -> Result<Entry> {
        if p.dir.place.mount.fstype == "proc" {
            // A name that is not there cannot be made either.
            return Err(Errno::ENOENT);
        }
        self.change_dir(who, &p.dir)?;
        let f = p.dir.place.node.make(who, &p.name, what, mode)?;
        self.watches.in_dir(&p.dir.stat, notify::IN_CREATE, &p.name, is_dir(f.stat.mode), 0);
        Ok(Entry { place: p.dir.place.child(&p.name, f.node), stat: f.stat })
    }
    /// mkdir, mknod, symlink and the name of a socket.
    pub fn make(&self, who: &Caller, at: &Place, path: &[u8], what: Make<'_>, mode: u32) -> Result<Entry> {
        if matches!(what, Make::Symlink(b"")) {
            return Err(Errno::ENOENT);
        }
        let p = self.resolve_parent(who, at, path)?;
        if p.special() {
            return Err(Errno::EEXIST);
        }
        match self.child(who, &p.dir.place, &p.name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if p.slash && !matches!(what, Make::Dir) {
            return Err(Errno::ENOENT);
        }
        // Only the kernel itself makes devices: those of pseudo terminals.
        if matches!(what, Make::Device(_)) && who.pid != 0 {
            return Err(Errno::EPERM);
        }
        self.create(who, &p, what, mode)
    }
    /// unlink, or rmdir if `dir`.
    pub fn remove(&self, who: &Caller, at: &Place, path: &[u8], dir: bool) -> Result<()> {
        let p = self.resolve_parent(who, at, path)?;
        if p.special() {
            return Err(match (&p.name[..], dir) {
                (_, false) => Errno::EISDIR,
                (b".", true) => Errno::EINVAL,
                (b"..", true) => Errno::ENOTEMPTY,
                _ => Errno::EBUSY,
            });
        }
        let v = self.child(who, &p.dir.place, &p.name)?;
        let v_dir = is_dir(v.stat.mode);
        if p.slash && !v_dir && !dir {
            return Err(Errno::ENOTDIR);
        }
        self.may_remove(who, &p.dir, &v.stat)?;
        match (dir, v_dir) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            _ => {}
        }
        if p.dir.place.mount.is_busy(&p.dir.place.child_path(&p.name)) {
            return Err(Errno::EBUSY);
        }
        p.dir.place.node.remove(&p.name, dir)?;
        self.watches.removed(&p.dir.stat, &p.name, &v.stat);
        if kind_of(v.stat.mode) == libc::S_IFIFO && v.stat.nlink <= 1 {
            self.fifos.forget((v.stat.dev, v.stat.ino));
        }
        Ok(())
    }
    /// renameat2(2).
    pub fn rename(
        &self,
        who: &Caller,
        at: &Place,
        path: &[u8],
        to_at: &Place,
        to_path: &[u8],
        flags: u32,
    ) -> Result<()> {
        let exchange = flags & libc::RENAME_EXCHANGE != 0;
        let noreplace = flags & libc::RENAME_NOREPLACE != 0;
        if flags & !(libc::RENAME_EXCHANGE | libc::RENAME_NOREPLACE) != 0 || (exchange && noreplace) {
            return Err(Errno::EINVAL);
        }
        let p = self.resolve_parent(who, at, path)?;
        let q = self.resolve_parent(who, to_at, to_path)?;
        if !Arc::ptr_eq(&p.dir.place.mount, &q.dir.place.mount) {
            return Err(Errno::EXDEV);
        }
        if p.special() {
            return Err(Errno::EBUSY);
        }
        if q.special() {
            return Err(if noreplace { Errno::EEXIST } else { Errno::EBUSY });
        }
        self.writable(&p.dir.place)?;
        let src = self.child(who, &p.dir.place, &p.name)?;
        let dst = match self.child(who, &q.dir.place, &q.name) {
            Ok(e) => Some(e),
            Err(Errno::ENOENT) => None,
            Err(e) => return Err(e),
        };
        match &dst {
            Some(_) if noreplace => return Err(Errno::EEXIST),
            None if exchange => return Err(Errno::ENOENT),
            _ => {}
        }
        let src_dir = is_dir(src.stat.mode);
        if exchange {
            if q.slash && !dst.as_ref().is_some_and(|d| is_dir(d.stat.mode)) {
                return Err(Errno::ENOTDIR);
            }
        } else if q.slash && !src_dir {
            return Err(Errno::ENOTDIR);
        }
        if p.slash && !src_dir {
            return Err(Errno::ENOTDIR);
        }
        let (from, to) = (p.dir.place.child_path(&p.name), q.dir.place.child_path(&q.name));
        // Into itself; and, not exchanged, over a directory it is in.
        let under = |a: &[u8], b: &[u8]| a.strip_prefix(b).is_some_and(|r| r.first() == Some(&b'/'));
        if src_dir && under(&to, &from) {
            return Err(Errno::EINVAL);
        }
        if under(&from, &to) {
            return Err(if exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if let Some(d) = &dst
            && (d.stat.dev, d.stat.ino) == (src.stat.dev, src.stat.ino)
        {
            return Ok(());
        }
        self.may_remove(who, &p.dir, &src.stat)?;
        match &dst {
            Some(d) => {
                self.may_remove(who, &q.dir, &d.stat)?;
                let d_dir = is_dir(d.stat.mode);
                if !exchange && src_dir != d_dir {
                    return Err(if src_dir { Errno::ENOTDIR } else { Errno::EISDIR });
                }
            }
            None => self.change_dir(who, &q.dir)?,
        }
        // A directory that gets another parent changes its `..`.
        let moved = !p.dir.place.same(&q.dir.place);
        if moved {
            if src_dir {
                who.check(&src.stat, W)?;
            }
            if exchange && let Some(d) = dst.as_ref().filter(|d| is_dir(d.stat.mode)) {
                who.check(&d.stat, W)?;
            }
        }
        let mount = &p.dir.place.mount;
        if mount.is_busy(&from) || mount.is_busy(&to) {
            return Err(Errno::EBUSY);
        }
        p.dir.place.node.rename(&p.name, &*q.dir.place.node, &q.name, flags)?;
        mount.renamed(&from, &to, exchange);
        let (old, new) = ((&p.dir.stat, &p.name[..]), (&q.dir.stat, &q.name[..]));
        self.watches.moved(old, new, &src.stat, dst.as_ref().filter(|_| !exchange).map(|d| &d.stat));
        if exchange && let Some(d) = &dst {
            self.watches.moved(new, old, &d.stat, None);
        }
        Ok(())
    }
    /// link(2): another name for a file that was resolved.
    pub fn link(&self, who: &Caller, target: &Entry, at: &Place, path: &[u8]) -> Result<()> {
        let p = self.resolve_parent(who, at, path)?;
        if p.special() {
            return Err(Errno::EEXIST);
        }
        match self.child(who, &p.dir.place, &p.name) {
            Ok(_) => return Err(Errno::EEXIST),
            Err(Errno::ENOENT) => {}
            Err(e) => return Err(e),
        }
        if p.slash {
            return Err(Errno::ENOENT);
        }
        if !Arc::ptr_eq(&target.place.mount, &p.dir.place.mount) {
            return Err(Errno::EXDEV);
        }
        self.writable(&p.dir.place)?;
        // protected_hardlinks: only to own files, or to ordinary ones that one may read and write.
        let s = &target.stat;
        let plain = kind_of(s.mode) == libc::S_IFREG
            && s.mode & libc::S_ISUID == 0
            && s.mode & (libc::S_ISGID | libc::S_IXGRP) != libc::S_ISGID | libc::S_IXGRP;
        if !(who.owns(s) || plain && who.check(s, R | W).is_ok()) {
            return Err(Errno::EPERM);
        }
        self.change_dir(who, &p.dir)?;
        if is_dir(s.mode) {
            return Err(Errno::EPERM);
        }
        p.dir.place.node.link(&p.name, &*target.place.node)?;
        self.watches.to_file(s, notify::IN_ATTRIB);
        self.watches.in_dir(&p.dir.stat, notify::IN_CREATE, &p.name, false, 0);
        Ok(())
    }
    /// Set attributes, and tell who watches.
    fn set(&self, e: &Entry, c: &Change) -> Result<()> {
        e.place.node.set(c)?;
        self.happened(&e.place, if c.size.is_some() { notify::IN_MODIFY } else { notify::IN_ATTRIB });
        Ok(())
    }
    /// chmod(2) of what was resolved.
    pub fn chmod(&self, who: &Caller, e: &Entry, mode: u32) -> Result<()> {
        self.writable(&e.place)?;
        if kind_of(e.stat.mode) == libc::S_IFLNK {
            return Err(Errno::EOPNOTSUPP);
        }
        if !who.owns(&e.stat) {
            return Err(Errno::EPERM);
        }
        let mut mode = mode & 0o7777;
        if !who.is_root() && !who.in_group(e.stat.gid) {
            mode &= !libc::S_ISGID;
        }
        self.set(e, &Change { mode: Some(mode), ..Change::default() })
    }
    /// chown(2) of what was resolved; `u32::MAX` leaves an id as it is.
    pub fn chown(&self, who: &Caller, e: &Entry, uid: u32, gid: u32) -> Result<()> {
        self.writable(&e.place)?;
        let new = |v: u32| (v != u32::MAX).then_some(v);
        let (uid, gid) = (new(uid), new(gid));
        if !who.is_root() {
            let own = who.uid == e.stat.uid;
            if uid.is_some_and(|u| !own || u != e.stat.uid)
                || gid.is_some_and(|g| !own || !(g == e.stat.gid || who.in_group(g)))
            {
                return Err(Errno::EPERM);
            }
        }
        self.set(e, &Change { uid, gid, mode: stripped(&e.stat), ..Change::default() })
    }
    /// utimensat(2) of what was resolved; both `Now` needs only write permission.
    pub fn set_times(&self, who: &Caller, e: &Entry, atime: Option<SetTime>, mtime: Option<SetTime>) -> Result<()> {
        if atime.is_none() && mtime.is_none() {
            return Ok(());
        }
        self.writable(&e.place)?;
        if !who.owns(&e.stat) {
            match (atime, mtime) {
                (Some(SetTime::Now), Some(SetTime::Now)) => who.check(&e.stat, W)?,
                _ => return Err(Errno::EPERM),
            }
        }
        self.set(e, &Change { atime, mtime, ..Change::default() })
    }
    /// truncate(2) of what was resolved.
    pub fn truncate(&self, who: &Caller, e: &Entry, len: u64) -> Result<()> {
        match kind_of(e.stat.mode) {
            libc::S_IFREG => {}
            libc::S_IFDIR => return Err(Errno::EISDIR),
            _ => return Err(Errno::EINVAL),
        }
        self.writable(&e.place)?;
        who.check(&e.stat, W)?;
        self.executed.may_write((e.stat.dev, e.stat.ino))?;
        self.set(e, &Change { size: Some(len), mode: stripped(&e.stat), ..Change::default() })
    }
    /// access(2) of what was resolved.
    pub fn access(&self, who: &Caller, e: &Entry, want: u32) -> Result<()> {
        if want & W != 0 && matches!(kind_of(e.stat.mode), libc::S_IFREG | libc::S_IFDIR | libc::S_IFLNK) {
            self.writable(&e.place)?;
        }
        let open_already = e.place.node.as_any().is::<super::procfs::AnyFile>() && want & X == 0;
        if want == 0 || open_already { Ok(()) } else { who.check(&e.stat, want) }
    }
    /// readlink(2) of what was resolved.
    pub fn readlink(&self, who: &Caller, e: &Entry) -> Result<Vec<u8>> {
        if kind_of(e.stat.mode) != libc::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        Ok(match e.place.node.readlink(who)? {
            Link::Path(t) | Link::Jump(_, t) => t,
        })
    }
}
