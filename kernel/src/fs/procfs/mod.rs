//! /proc and /sys: what the virtual kernel knows about itself and its processes. Nothing in it comes from the host's /proc.
//!
//! Directories are constant tables of items, beside those that list processes, threads and descriptors. A file's text
//! is made when it is read from the start.

mod memory;
mod process;
mod sys;
mod system;

use super::node::*;
use super::{FsContext, Opened};
use crate::errno::{Errno, Result};
use crate::file::{Description, DirEntry, File, Stat};
use crate::kernel::Kernel;
use crate::process::Process;
use crate::wait::Blocking;
use std::any::Any;
use std::sync::{Arc, Mutex, Weak};

/// What the text of a file or the target of a link is made from.
pub(super) struct Ctx {
    kernel: Arc<Kernel>,
    /// Process the file is about; for files about the system, the one that asks.
    pid: i32,
    /// Thread the file is about.
    tid: i32,
    /// CPU model shown.
    model: u32,
    /// Which of the many directories of a kind ([`Item::Many`]) the file is in.
    index: i32,
}

impl Ctx {
    fn process(&self) -> Result<Arc<Process>> {
        self.kernel.known(self.pid).ok_or(Errno::ESRCH)
    }
}

type Text = fn(&Ctx) -> Result<Vec<u8>>;
type Put = fn(&Ctx, &[u8]) -> Result<()>;
type Target = fn(&Ctx) -> Result<Link>;

/// An entry of a constant directory.
pub(super) enum Item {
    /// Name, mode, text.
    File(&'static str, u32, Text),
    /// As [`Item::File`], with what writing does.
    Set(&'static str, u32, Text, Put),
    /// Start of the names, how many, entries of each: numbered directories beside the others.
    Many(&'static str, fn(&Ctx) -> i32, &'static [Item]),
    /// The memory of the process.
    Mem,
    /// Name, mode, target.
    Link(&'static str, u32, Target),
    /// Name, entries.
    Dir(&'static str, &'static [Item]),
    /// The threads of the process.
    Tasks,
    /// Its descriptors.
    Fds,
    /// About its descriptors.
    FdInfos,
}

impl Item {
    fn name(&self) -> &'static str {
        match self {
            Item::File(n, ..) | Item::Set(n, ..) | Item::Link(n, ..) | Item::Dir(n, _) | Item::Many(n, ..) => n,
            Item::Mem => "mem",
            Item::Tasks => "task",
            Item::Fds => "fd",
            Item::FdInfos => "fdinfo",
        }
    }
    fn kind(&self) -> u32 {
        match self {
            Item::File(..) | Item::Set(..) | Item::Mem => libc::S_IFREG,
            Item::Link(..) => libc::S_IFLNK,
            _ => libc::S_IFDIR,
        }
    }
}

/// The file system.
pub struct ProcFs {
    kernel: Weak<Kernel>,
    dev: u64,
    model: u32,
}

impl ProcFs {
    /// Root of /proc. `model`: the CPU model that /proc/cpuinfo shows.
    pub fn root(kernel: Weak<Kernel>, dev: u64, model: u32) -> Arc<dyn Node> {
        let fs = Arc::new(ProcFs { kernel, dev, model });
        Arc::new(ProcNode { fs, pid: 0, tid: 0, what: What::Root, path: Vec::new() })
    }
    /// Root of /sys.
    pub fn sys_root(kernel: Weak<Kernel>, dev: u64) -> Arc<dyn Node> {
        let fs = Arc::new(ProcFs { kernel, dev, model: 0 });
        Arc::new(ProcNode { fs, pid: 0, tid: 0, what: What::Item(&sys::ROOT), path: Vec::new() })
    }
}

#[derive(Clone, Copy)]
enum What {
    Root,
    Item(&'static Item),
    /// A process's directory.
    Process,
    /// A thread's directory below `task`.
    Thread,
    /// Link of a descriptor.
    Fd(i32),
    /// Text about a descriptor.
    FdInfo(i32),
}

/// A file of /proc.
struct ProcNode {
    fs: Arc<ProcFs>,
    pid: i32,
    tid: i32,
    what: What,
    /// Path in /proc: makes the inode number.
    path: Vec<u8>,
}

fn number(name: &[u8]) -> Option<i32> {
    if name.is_empty() || name.len() > 10 || (name[0] == b'0' && name.len() > 1) || !name.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    std::str::from_utf8(name).ok()?.parse().ok()
}

fn ino(path: &[u8]) -> u64 {
    let h = path.iter().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
    (h >> 24) | 1 << 32
}

impl ProcNode {
    fn kernel(&self) -> Result<Arc<Kernel>> {
        self.fs.kernel.upgrade().ok_or(Errno::ESRCH)
    }
    fn ctx(&self, who: &Caller) -> Result<Ctx> {
        let (pid, tid) = if self.pid == 0 { (who.pid, who.tid) } else { (self.pid, self.tid) };
        Ok(Ctx { kernel: self.kernel()?, pid, tid, model: self.fs.model, index: self.tid })
    }
    fn child(&self, name: &[u8], pid: i32, tid: i32, what: What) -> ProcNode {
        let path = if self.path.is_empty() { name.to_vec() } else { [&self.path, &b"/"[..], name].concat() };
        ProcNode { fs: self.fs.clone(), pid, tid, what, path }
    }
    fn kind(&self) -> u32 {
        match self.what {
            What::Root | What::Process | What::Thread => libc::S_IFDIR,
            What::Item(i) => i.kind(),
            What::Fd(_) => libc::S_IFLNK,
            What::FdInfo(_) => libc::S_IFREG,
        }
    }
    fn items(&self) -> &'static [Item] {
        match self.what {
            What::Root => system::ROOT,
            What::Process => process::PROCESS,
            What::Thread => process::THREAD,
            What::Item(Item::Dir(_, items) | Item::Many(_, _, items)) => items,
            _ => &[],
        }
    }
    fn description(&self, fd: i32) -> Result<Arc<Description>> {
        let p = self.kernel()?.known(self.pid).ok_or(Errno::ENOENT)?;
        p.fds().get(fd).map_err(|_| Errno::ENOENT)
    }
    fn find(&self, name: &[u8]) -> Result<ProcNode> {
        if self.kind() != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        for i in self.items() {
            if let Item::Many(start, count, _) = i {
                let n = name.strip_prefix(start.as_bytes()).and_then(number);
                if let Some(n) = n.filter(|n| self.ctx(&Caller::default()).is_ok_and(|c| *n < count(&c))) {
                    return Ok(self.child(name, 0, n, What::Item(i)));
                }
            } else if i.name().as_bytes() == name {
                return Ok(self.child(name, self.pid, self.tid, What::Item(i)));
            }
        }
        let n = number(name).ok_or(Errno::ENOENT)?;
        let k = self.kernel()?;
        match self.what {
            What::Root => {
                // Threads are not listed, but found.
                let t = k.thread(n);
                let pid = match k.known(n) {
                    Some(p) => p.pid,
                    None => t.and_then(|t| t.process()).ok_or(Errno::ENOENT)?.pid,
                };
                Ok(self.child(name, pid, n, What::Process))
            }
            What::Item(Item::Tasks) => {
                let p = k.known(self.pid).ok_or(Errno::ENOENT)?;
                if !p.threads().iter().any(|t| t.tid() == n) {
                    return Err(Errno::ENOENT);
                }
                Ok(self.child(name, self.pid, n, What::Thread))
            }
            What::Item(Item::Fds) => {
                self.description(n)?;
                Ok(self.child(name, self.pid, self.tid, What::Fd(n)))
            }
            What::Item(Item::FdInfos) => {
                self.description(n)?;
                Ok(self.child(name, self.pid, self.tid, What::FdInfo(n)))
            }
            _ => Err(Errno::ENOENT),
        }
    }
    fn list(&self) -> Result<Vec<DirEntry>> {
        let entry = |name: Vec<u8>, kind: u32| {
            let path = if self.path.is_empty() { name.clone() } else { [&self.path[..], b"/", &name].concat() };
            DirEntry { ino: ino(&path), kind: dirent_kind(kind), name }
        };
        let mut out = vec![entry(b".".to_vec(), libc::S_IFDIR), entry(b"..".to_vec(), libc::S_IFDIR)];
        for i in self.items() {
            match i {
                Item::Many(start, count, _) => {
                    let n = count(&self.ctx(&Caller::default())?);
                    out.extend((0..n).map(|n| entry(format!("{start}{n}").into(), libc::S_IFDIR)));
                }
                i => out.push(entry(i.name().into(), i.kind())),
            }
        }
        let k = self.kernel()?;
        let numbers: (Vec<i32>, u32) = match self.what {
            What::Root => (k.known_pids(), libc::S_IFDIR),
            What::Item(Item::Tasks) => {
                let p = k.known(self.pid).ok_or(Errno::ENOENT)?;
                (p.threads().iter().map(|t| t.tid()).collect(), libc::S_IFDIR)
            }
            What::Item(i @ (Item::Fds | Item::FdInfos)) => {
                let p = k.known(self.pid).ok_or(Errno::ENOENT)?;
                let kind = if matches!(i, Item::Fds) { libc::S_IFLNK } else { libc::S_IFREG };
                (p.fds().list().iter().map(|(n, _)| *n).collect(), kind)
            }
            _ => (Vec::new(), 0),
        };
        out.extend(numbers.0.iter().map(|n| entry(n.to_string().into(), numbers.1)));
        Ok(out)
    }
}

impl Node for ProcNode {
    fn stat(&self) -> Result<Stat> {
        let k = self.kernel()?;
        let (uid, gid) = match self.pid {
            0 => (0, 0),
            pid => k.known(pid).map(|p| p.credentials()).map_or((0, 0), |c| (c.euid, c.egid)),
        };
        let perm = match self.what {
            What::Item(Item::File(_, m, _) | Item::Set(_, m, ..) | Item::Link(_, m, _)) => *m,
            What::Item(Item::Mem) => 0o600,
            What::Item(Item::Fds | Item::FdInfos) => 0o500,
            What::Fd(n) => {
                let acc = self.description(n)?.flags() as i32 & libc::O_ACCMODE;
                let r = if acc == libc::O_WRONLY { 0 } else { 0o500 };
                r | if acc == libc::O_RDONLY { 0o100 } else { 0o300 }
            }
            What::FdInfo(_) => 0o400,
            _ => 0o555,
        };
        let t = k.clock.realtime();
        let now = (t.as_secs() as i64, t.subsec_nanos());
        Ok(Stat {
            dev: self.fs.dev,
            ino: if self.path.is_empty() { 1 } else { ino(&self.path) },
            mode: self.kind() | perm,
            nlink: if self.kind() == libc::S_IFDIR { 2 } else { 1 },
            uid,
            gid,
            blksize: 1024,
            atime: now,
            mtime: now,
            ctime: now,
            ..Stat::default()
        })
    }
    fn lookup(&self, _: &Caller, name: &[u8]) -> Result<Found> {
        let n = self.find(name)?;
        Ok(Found { stat: n.stat()?, node: Arc::new(n) })
    }
    fn readlink(&self, who: &Caller) -> Result<Link> {
        match self.what {
            What::Item(Item::Link(_, _, f)) => f(&self.ctx(who)?),
            What::Fd(n) => {
                self.may_inspect(who)?;
                let d = self.description(n)?;
                Ok(match Opened::of(&d) {
                    Some(o) => Link::Jump(o.place.clone(), o.place.shown()),
                    None => {
                        let ns = self.context()?.ns().clone();
                        let node = Arc::new(AnyFile(d.clone()));
                        Link::Jump(ns.root().child(&d.path, node), d.path.clone())
                    }
                })
            }
            _ => Err(Errno::EINVAL),
        }
    }
    fn open(&self, who: &Caller, _: u32) -> Result<Arc<dyn File>> {
        let gen_: Gen = match self.what {
            What::Item(Item::File(_, m, f)) => {
                if m & 0o044 == 0 {
                    self.may_inspect(who)?;
                }
                Gen::Text(*f)
            }
            What::Item(Item::Set(_, _, f, put)) => Gen::Set(*f, *put),
            What::Item(Item::Mem) => {
                self.may_inspect(who)?;
                let mm = self.kernel()?.known(self.pid).and_then(|p| p.mm());
                return Ok(Arc::new(memory::Memory { mm, node: self.copy() }));
            }
            What::FdInfo(n) => Gen::FdInfo(n),
            _ if self.kind() == libc::S_IFDIR => {
                if matches!(self.what, What::Item(Item::Fds | Item::FdInfos)) {
                    self.may_inspect(who)?;
                }
                Gen::Dir
            }
            _ => return Err(Errno::ELOOP),
        };
        Ok(Arc::new(ProcFile { ctx: self.ctx(who)?, node: self.copy(), text: gen_, data: Mutex::default() }))
    }
    fn set(&self, c: &Change) -> Result<()> {
        // Opening with O_TRUNC what can be written.
        let only_size = c.size.is_some() && c.mode.is_none() && c.uid.is_none() && c.atime.is_none();
        if only_size && matches!(self.what, What::Item(Item::Set(..))) { Ok(()) } else { Err(Errno::EPERM) }
    }
    fn statfs(&self) -> StatFs {
        StatFs { kind: 0x9fa0, ..StatFs::default() }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl ProcNode {
    fn copy(&self) -> ProcNode {
        ProcNode { fs: self.fs.clone(), path: self.path.clone(), ..*self }
    }
    fn context(&self) -> Result<Arc<FsContext>> {
        Ok(self.kernel()?.known(self.pid).ok_or(Errno::ENOENT)?.fs())
    }
    /// Memory, environment and descriptors of a process are its user's.
    fn may_inspect(&self, who: &Caller) -> Result<()> {
        let k = self.kernel()?;
        let p = k.known(self.pid).ok_or(Errno::ENOENT)?;
        if who.is_root() || p.credentials().uid == who.uid { Ok(()) } else { Err(Errno::EACCES) }
    }
}

/// The process whose directory of /proc a description is.
pub(crate) fn process_of(d: &Description) -> Option<Arc<Process>> {
    let node = Opened::of(d)?.node().as_any().downcast_ref::<ProcNode>()?;
    matches!(node.what, What::Process).then(|| node.kernel().ok()?.process(node.pid)).flatten()
}

/// A pipe, socket or terminal seen through /proc/pid/fd.
pub(super) struct AnyFile(Arc<Description>);

impl Node for AnyFile {
    fn stat(&self) -> Result<Stat> {
        self.0.file.stat()
    }
    fn open(&self, _: &Caller, flags: u32) -> Result<Arc<dyn File>> {
        if let Some(p) = self.0.file.as_any().downcast_ref::<crate::io::pipe::PipeEnd>() {
            return p.reopen(flags);
        }
        match kind_of(self.0.file.stat()?.mode) {
            libc::S_IFSOCK => Err(Errno::ENXIO),
            // Terminals, files of the embedder.
            _ => Ok(self.0.file.clone()),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

enum Gen {
    Text(Text),
    Set(Text, Put),
    FdInfo(i32),
    Dir,
}

struct ProcFile {
    ctx: Ctx,
    node: ProcNode,
    text: Gen,
    data: Mutex<Vec<u8>>,
}

impl File for ProcFile {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        let mut data = lock(&self.data);
        if pos == 0 {
            *data = match self.text {
                Gen::Text(f) | Gen::Set(f, _) => f(&self.ctx)?,
                Gen::FdInfo(n) => {
                    let d = self.node.description(n)?;
                    let mount = Opened::of(&d).map_or(0, |o| o.place.mount.id);
                    let ino = d.file.stat().map_or(0, |s| s.ino);
                    let pos = *lock(&d.pos);
                    format!("pos:\t{pos}\nflags:\t0{:o}\nmnt_id:\t{mount}\nino:\t{ino}\n", d.flags()).into_bytes()
                }
                Gen::Dir => return Err(Errno::EISDIR),
            };
        }
        let from = usize::try_from(pos).unwrap_or(usize::MAX).min(data.len());
        let n = buf.len().min(data.len() - from);
        buf[..n].copy_from_slice(&data[from..from + n]);
        Ok(n)
    }
    fn write(&self, _: &dyn Blocking, _: u64, buf: &[u8], _: bool) -> Result<usize> {
        match self.text {
            Gen::Set(_, put) => put(&self.ctx, buf).map(|()| buf.len()),
            _ => Err(Errno::EINVAL),
        }
    }
    fn seekable(&self) -> bool {
        true
    }
    fn truncate(&self, _: u64) -> Result<()> {
        if matches!(self.text, Gen::Set(..)) { Ok(()) } else { Err(Errno::EINVAL) }
    }
    fn stat(&self) -> Result<Stat> {
        self.node.stat()
    }
    fn entries(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        if !matches!(self.text, Gen::Dir) {
            return Err(Errno::ENOTDIR);
        }
        // Numbered names are at 65536 + number, so that what comes and goes does not move the others.
        let mut out: Vec<(DirEntry, u64)> = self
            .node
            .list()?
            .into_iter()
            .enumerate()
            .map(|(i, e)| {
                let at = number(&e.name).map_or(i as u64, |n| 65536 + n as u64);
                (e, at + 1)
            })
            .filter(|(_, next)| *next > pos)
            .collect();
        out.sort_by_key(|(_, next)| *next);
        Ok(out)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
