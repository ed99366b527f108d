//! The file systems of the virtual Linux.
//!
//! [`walk`] resolves paths in the job's name space of mounts, [`ops`] has the operations with Linux's checks,
//! [`node`] the trait behind which the file systems are: host folders ([`hostfs`]), memory and overlays ([`memfs`]),
//! /proc ([`procfs`]), devices ([`devfs`]). [`setup`] builds the world of a job; [`locks`] are the advisory locks.
//!
//! Invariants:
//! 1. No guest path is ever given to the host: the host sees single names (or runs of plain names, with the
//!    kernel's own guarantee to stay below) relative to handles it gave out before.
//! 2. No lock is held during an operation on the host, but those of the one file it is about.

pub mod archive;
pub mod devfs;
pub mod executed;
pub(crate) mod fifo;
#[cfg_attr(target_family = "wasm", path = "wasifs.rs")]
pub mod hostfs;
pub mod locks;
pub mod memfs;
pub mod node;
pub mod notify;
pub mod ops;
pub mod procfs;
mod procmaps;
#[cfg(not(target_family = "wasm"))]
mod searched;
pub mod setup;
#[cfg(test)]
mod tests;
pub mod walk;
#[cfg_attr(target_family = "wasm", path = "window_none.rs")]
mod window;
pub mod xattr;

pub use node::{Caller, Make, SetTime, World};
pub use ops::Opened;
pub use setup::{DirMount, Setup, Sysroot, Tree};
pub use walk::{Entry, Mount, Namespace, Place, Scope};

use crate::errno::{Errno, Result};
use crate::file::{Description, File};
use crate::kernel::Kernel;
use crate::task::Task;
use node::{read, write};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, RwLock, Weak};

/// Working directory and umask of a process, in the job's name space.
pub struct FsContext {
    ns: Arc<Namespace>,
    cwd: RwLock<Place>,
    umask: AtomicU32,
}

impl FsContext {
    /// At the root of a name space.
    pub fn new(ns: Arc<Namespace>) -> FsContext {
        FsContext { cwd: RwLock::new(ns.root()), ns, umask: AtomicU32::new(0o022) }
    }
    /// A copy for a forked process.
    pub fn fork(&self) -> FsContext {
        FsContext { ns: self.ns.clone(), cwd: RwLock::new(self.cwd()), umask: AtomicU32::new(self.umask()) }
    }
    /// The name space.
    pub fn ns(&self) -> &Arc<Namespace> {
        &self.ns
    }
    /// Working directory.
    pub fn cwd(&self) -> Place {
        read(&self.cwd).clone()
    }
    /// Change the working directory; permission was checked.
    pub fn set_cwd(&self, to: Place) {
        *write(&self.cwd) = to.hold();
    }
    /// Bits that new files do not get.
    pub fn umask(&self) -> u32 {
        self.umask.load(Ordering::Relaxed)
    }
    /// Set the umask; gives the old one.
    pub fn set_umask(&self, mask: u32) -> u32 {
        self.umask.swap(mask & 0o777, Ordering::Relaxed)
    }
    /// Change to a directory by path, for the embedder.
    pub fn chdir(&self, who: &Caller, path: &[u8]) -> Result<()> {
        let e = self.ns.resolve(who, &self.cwd(), path, true)?;
        if !node::is_dir(e.stat.mode) {
            return Err(Errno::ENOTDIR);
        }
        who.check(&e.stat, node::X)?;
        self.set_cwd(e.place);
        Ok(())
    }
}

impl Default for FsContext {
    /// An empty read-only world (for tests of what needs no files).
    fn default() -> FsContext {
        let world: Arc<dyn World> = Arc::new(KernelWorld(Weak::new()));
        let root = memfs::MemFs::root(world.clone(), 1, 0o755, (0, 0));
        FsContext::new(Arc::new(Namespace::new(world, root, true, "tmpfs")))
    }
}

impl Caller {
    /// The file system identity of a task.
    pub fn of(task: &Task) -> Caller {
        let c = task.process.credentials();
        Caller { pid: task.pid(), tid: task.tid(), uid: c.fsuid, gid: c.fsgid, groups: c.groups }
    }
    /// Its real identity, for access(2).
    pub fn real(task: &Task) -> Caller {
        let c = task.process.credentials();
        Caller { pid: task.pid(), tid: task.tid(), uid: c.uid, gid: c.gid, groups: c.groups }
    }
}

/// The directory that a relative path starts at. EBADF, ENOTDIR.
pub fn base(task: &Task, dirfd: i32, path: &[u8]) -> Result<Place> {
    if path.first() == Some(&b'/') {
        return Ok(task.fs().ns.root());
    }
    if dirfd == libc::AT_FDCWD {
        return Ok(task.fs().cwd());
    }
    let d = task.fds().get(dirfd)?;
    Opened::of(&d).map(|o| o.place.clone()).ok_or(Errno::ENOTDIR)
}

/// The file of an *at call: by path, or the descriptor's own with AT_EMPTY_PATH and no path.
pub fn at(task: &Task, who: &Caller, dirfd: i32, path: &[u8], flags: u32) -> Result<Entry> {
    if path.is_empty() && flags & libc::AT_EMPTY_PATH as u32 != 0 {
        if dirfd == libc::AT_FDCWD {
            let place = task.fs().cwd();
            return Ok(Entry { stat: place.node.stat()?, place });
        }
        return by_fd(&*task.fds().get(dirfd)?);
    }
    let start = base(task, dirfd, path)?;
    task.fs().ns.resolve(who, &start, path, flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0)
}

/// The file of a descriptor, if it is one of a file system; EINVAL otherwise.
pub fn by_fd(d: &Description) -> Result<Entry> {
    let o = Opened::of(d).ok_or(Errno::EINVAL)?;
    Ok(Entry { place: o.place.clone(), stat: d.file.stat()? })
}

/// Open a program for execve: checks that it is a regular file with execute permission. `flags`: AT_EMPTY_PATH,
/// AT_SYMLINK_NOFOLLOW. The description's `path` is its absolute guest path.
pub fn open_exec(task: &Task, dirfd: i32, path: &[u8], flags: u32) -> Result<Arc<Description>> {
    let who = Caller::of(task);
    let e = at(task, &who, dirfd, path, flags)?;
    if node::kind_of(e.stat.mode) == libc::S_IFLNK {
        return Err(Errno::ELOOP);
    }
    if node::kind_of(e.stat.mode) != libc::S_IFREG {
        return Err(Errno::EACCES);
    }
    who.check(&e.stat, node::X)?;
    if node::lock(&task.fs().ns().writers).contains_key(&(e.stat.dev, e.stat.ino)) {
        return Err(Errno::ETXTBSY);
    }
    // Reading the program needs no read permission.
    let root = Caller { uid: 0, gid: 0, ..who };
    task.fs().ns.open_entry(&root, task, e, libc::O_RDONLY as u32, false)
}

/// To be called when a process closes a descriptor: its record locks on the file go, whichever descriptor took them.
pub fn closed(task: &Task, d: &Description) {
    crate::ipc::mqueue::closed(task, d);
    let locks = &task.fs().ns.locks;
    if !locks.is_empty()
        && let Ok(k) = lock_key(d)
    {
        locks.unlock(k, locks::Owner::Process(task.pid()), 0, u64::MAX);
    }
}

/// Identity of a file for locks, of one without a file system too.
pub fn lock_key(d: &Description) -> Result<locks::Key> {
    match Opened::of(d) {
        Some(o) => o.key(),
        None => d.file.stat().map(|s| (s.dev, s.ino)),
    }
}

/// Identity of a description for locks.
pub fn lock_owner(d: &Description) -> locks::Owner {
    match Opened::of(d) {
        Some(o) => o.owner(),
        None => locks::Owner::Description(Arc::as_ptr(&d.file).cast::<()>() as usize),
    }
}

/// The kernel as the file systems see it. The kernel owns the processes, which own the name space: so this does not own it.
pub struct KernelWorld(pub Weak<Kernel>);

impl World for KernelWorld {
    fn charge_disk(&self, bytes: u64) -> bool {
        self.0.upgrade().is_none_or(|k| k.limits.charge_disk(bytes).is_ok())
    }
    fn release_disk(&self, bytes: u64) {
        if let Some(k) = self.0.upgrade() {
            k.limits.release_disk(bytes);
        }
    }
    fn disk(&self) -> (u64, u64) {
        self.0.upgrade().map_or((u64::MAX, 0), |k| (k.limits.disk.max(), k.limits.disk.used()))
    }
    fn charge_tmpfs(&self, bytes: u64) -> bool {
        self.0.upgrade().is_none_or(|k| k.limits.charge_tmpfs(bytes).is_ok())
    }
    fn release_tmpfs(&self, bytes: u64) {
        if let Some(k) = self.0.upgrade() {
            k.limits.release_tmpfs(bytes);
        }
    }
    fn tmpfs(&self) -> (u64, u64) {
        self.0.upgrade().map_or((u64::MAX, 0), |k| k.limits.tmpfs())
    }
    fn mounted(&self, path: &std::path::Path, read_only: bool) {
        if let Some(k) = self.0.upgrade() {
            crate::process::lock(&k.host_mounts).push((path.into(), read_only));
        }
    }
    fn host_time(&self) -> bool {
        self.0.upgrade().is_none_or(|k| !k.clock.is_virtual())
    }
    fn now(&self) -> (i64, u32) {
        self.0.upgrade().map_or((0, 0), |k| {
            let t = k.clock.file_time();
            (t.as_secs() as i64, t.subsec_nanos())
        })
    }
    fn random(&self, buf: &mut [u8]) {
        if let Some(k) = self.0.upgrade() {
            k.random(buf);
        }
    }
    fn terminal(&self, pid: i32) -> Result<Arc<dyn File>> {
        let k = self.0.upgrade().ok_or(Errno::ENXIO)?;
        let p = k.process(pid).ok_or(Errno::ENXIO)?;
        crate::io::tty::of_session(&k, &p).ok_or(Errno::ENXIO)
    }
    fn pty_master(&self, pid: i32) -> Result<Arc<dyn File>> {
        let k = self.0.upgrade().ok_or(Errno::ENXIO)?;
        let p = k.process(pid).ok_or(Errno::ENXIO)?;
        let c = p.credentials();
        let master = k.io.ptys.create(&k, (c.fsuid, c.fsgid))?;
        let (ns, kernel) = (p.fs().ns().clone(), Caller::default());
        let pty = master.pty();
        let path = pty.path().into_bytes();
        let e = ns.make(&kernel, &ns.root(), &path, Make::Device(devfs::makedev(136, u64::from(pty.index))), 0o620)?;
        ns.chown(&kernel, &e, c.fsuid, c.fsgid)?;
        let ns = Arc::downgrade(&ns);
        let gone = move || {
            if let Some(ns) = ns.upgrade() {
                let _ = ns.remove(&kernel, &ns.root(), &path, false);
            }
        };
        master.named((e.stat.dev, e.stat.ino), Box::new(gone));
        Ok(master)
    }
    fn pty_slave(&self, index: u32) -> Result<Arc<dyn File>> {
        let k = self.0.upgrade().ok_or(Errno::ENXIO)?;
        Ok(k.io.ptys.open(index)?)
    }
}
