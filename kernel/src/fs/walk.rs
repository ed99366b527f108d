//! The name space: mounts, places in it, and path resolution.
//!
//! Idea: a place is a mount, a node of its file system and the path inside the mount by which it was reached. Everything that
//! leads from one place to another is done here in guest terms: `..` takes the last name off the path (so it stops at
//! the mount's root and goes on at the mount point, and stays at the name space's root), and a link is a text that starts
//! again at the root or at the directory of the link. File systems are asked for single names only, or for runs of names
//! without `.`, `..`, links and mount points in them.
//!
//! Invariants:
//! 1. A mount point cannot be renamed or removed, so its path in the parent mount stays right.
//! 2. Directories that outlive a system call (working and open directories) are registered with their mount, and a
//!    rename of a directory corrects the paths of those below it.

use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::Stat;
use std::sync::{Arc, Mutex, RwLock, Weak};

/// Links followed in one resolution before ELOOP.
const MAX_LINKS: u32 = 40;

/// A file system at a place of the name space.
pub struct Mount {
    /// Number in /proc/self/mountinfo.
    pub id: u32,
    /// The mount this is on and the path of the mount point in it; `None` for the root.
    pub parent: Option<(Arc<Mount>, Vec<u8>)>,
    /// Root node (a file for a single-file mount).
    pub root: Arc<dyn Node>,
    /// Nothing may be changed through this mount.
    pub read_only: bool,
    /// Type as /proc/mounts shows it.
    pub fstype: &'static str,
    children: RwLock<Vec<(Vec<u8>, Arc<Mount>)>>,
    held: Mutex<Vec<Weak<HeldPath>>>,
}

impl Mount {
    fn new(
        id: u32,
        parent: Option<(Arc<Mount>, Vec<u8>)>,
        root: Arc<dyn Node>,
        read_only: bool,
        fstype: &'static str,
    ) -> Mount {
        Mount { id, parent, root, read_only, fstype, children: RwLock::default(), held: Mutex::default() }
    }
    fn child(&self, path: &[u8]) -> Option<Arc<Mount>> {
        read(&self.children).iter().find(|(p, _)| p == path).map(|(_, m)| m.clone())
    }
    /// Whether something is mounted at or below a path of this mount.
    pub fn is_busy(&self, path: &[u8]) -> bool {
        read(&self.children).iter().any(|(p, _)| is_below(p, path))
    }
    /// Absolute guest path of a path in this mount.
    pub fn absolute(&self, path: &[u8]) -> Vec<u8> {
        let mut out = match &self.parent {
            Some((m, at)) => m.absolute(at),
            None => b"/".to_vec(),
        };
        if !path.is_empty() {
            if out.last() != Some(&b'/') {
                out.push(b'/');
            }
            out.extend_from_slice(path);
        }
        out
    }
    /// Correct the paths of held directories after `from` was renamed to `to` (and the other way round if `exchange`).
    pub(super) fn renamed(&self, from: &[u8], to: &[u8], exchange: bool) {
        for h in lock(&self.held).iter().filter_map(Weak::upgrade) {
            let mut p = write(&h.path);
            let new = if is_below(&p, from) {
                [to, &p[from.len()..]].concat()
            } else if exchange && is_below(&p, to) {
                [from, &p[to.len()..]].concat()
            } else {
                continue;
            };
            *p = new;
        }
    }
    fn hold(&self, path: &[u8]) -> Arc<HeldPath> {
        let h = Arc::new(HeldPath { path: RwLock::new(path.to_vec()) });
        let mut held = lock(&self.held);
        if held.len() == held.capacity() {
            held.retain(|w| w.strong_count() > 0);
        }
        held.push(Arc::downgrade(&h));
        h
    }
}

/// Whether `path` is `dir` or below it (paths inside a mount).
fn is_below(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|r| r.is_empty() || r[0] == b'/')
}

struct HeldPath {
    path: RwLock<Vec<u8>>,
}

/// A place of the name space.
#[derive(Clone)]
pub struct Place {
    /// Mount.
    pub mount: Arc<Mount>,
    /// File.
    pub node: Arc<dyn Node>,
    /// Path in the mount by which it was reached; empty for the mount's root.
    path: Vec<u8>,
    held: Option<Arc<HeldPath>>,
}

impl Place {
    /// Root of a mount.
    pub fn root_of(mount: &Arc<Mount>) -> Place {
        Place { mount: mount.clone(), node: mount.root.clone(), path: Vec::new(), held: None }
    }
    /// Path in the mount, now.
    pub fn path(&self) -> Vec<u8> {
        match &self.held {
            Some(h) => read(&h.path).clone(),
            None => self.path.clone(),
        }
    }
    /// Absolute guest path, now.
    pub fn absolute(&self) -> Vec<u8> {
        self.mount.absolute(&self.path())
    }
    /// Absolute path as /proc shows it, marked if the file has no name any more.
    pub fn shown(&self) -> Vec<u8> {
        let mut p = self.absolute();
        if self.node.stat().is_ok_and(|s| s.nlink == 0) {
            p.extend_from_slice(b" (deleted)");
        }
        p
    }
    /// The same, kept up to date when directories above it are renamed (for directories that stay open).
    pub fn hold(mut self) -> Place {
        if self.held.is_none() {
            self.held = Some(self.mount.hold(&self.path));
        }
        self
    }
    /// Path of an entry of this directory.
    pub fn child_path(&self, name: &[u8]) -> Vec<u8> {
        let mut p = self.path();
        if !p.is_empty() {
            p.push(b'/');
        }
        p.extend_from_slice(name);
        p
    }
    /// The entry `name` of this directory, which is `node`.
    pub fn child(&self, name: &[u8], node: Arc<dyn Node>) -> Place {
        Place { mount: self.mount.clone(), node, path: self.child_path(name), held: None }
    }
    /// Whether both are the same file.
    pub fn same(&self, o: &Place) -> bool {
        Arc::ptr_eq(&self.mount, &o.mount)
            && match (self.node.stat(), o.node.stat()) {
                (Ok(a), Ok(b)) => (a.dev, a.ino) == (b.dev, b.ino),
                _ => false,
            }
    }
}

/// A place with its metadata.
#[derive(Clone)]
#[allow(missing_docs)]
pub struct Entry {
    pub place: Place,
    pub stat: Stat,
}

/// The directory and last name of a path.
pub struct Parent {
    /// Directory.
    pub dir: Entry,
    /// Last name; empty for the root itself.
    pub name: Vec<u8>,
    /// A slash follows the name.
    pub slash: bool,
}

impl Parent {
    /// Whether the name is not an ordinary one (root, `.`, `..`).
    pub fn special(&self) -> bool {
        matches!(&self.name[..], b"" | b"." | b"..")
    }
}

/// All mounts of a job.
pub struct Namespace {
    root: Arc<Mount>,
    mounts: RwLock<Vec<Arc<Mount>>>,
    /// Record locks and flock locks.
    pub locks: super::locks::Locks,
    /// Files that are open for writing: how often.
    pub(super) writers: Mutex<std::collections::HashMap<(u64, u64), usize>>,
    /// Files that are executed.
    pub(super) executed: super::executed::Executed,
    /// Who is told about changes.
    pub watches: super::notify::Watches,
    pub(super) fifos: super::fifo::Fifos,
    /// Where files without a name are.
    pub(super) memory: Arc<super::memfs::MemNode>,
}

impl Namespace {
    /// A name space with this root file system.
    pub fn new(world: Arc<dyn World>, root: Arc<dyn Node>, read_only: bool, fstype: &'static str) -> Namespace {
        let root = Arc::new(Mount::new(1, None, root, read_only, fstype));
        Namespace {
            mounts: RwLock::new(vec![root.clone()]),
            memory: super::memfs::MemFs::root(world, 2, 0o700, (0, 0)),
            root,
            locks: Default::default(),
            writers: Default::default(),
            executed: Default::default(),
            watches: Default::default(),
            fifos: Default::default(),
        }
    }
    /// The root directory.
    pub fn root(&self) -> Place {
        Place::root_of(&self.root)
    }
    /// Mount a file system at an existing place other than the root. What was mounted right there is replaced.
    pub fn mount(&self, at: &Place, root: Arc<dyn Node>, read_only: bool, fstype: &'static str) -> Place {
        let (on, path) = match &at.mount.parent {
            Some((m, p)) if at.path().is_empty() => (m.clone(), p.clone()),
            _ => (at.mount.clone(), at.path()),
        };
        let mut all = write(&self.mounts);
        let id = all.iter().map(|m| m.id).max().unwrap_or(0) + 1;
        let m = Arc::new(Mount::new(id, Some((on.clone(), path.clone())), root, read_only, fstype));
        let mut children = write(&on.children);
        all.retain(|m| !children.iter().any(|(p, c)| *p == path && Arc::ptr_eq(c, m)));
        all.push(m.clone());
        children.retain(|(p, _)| *p != path);
        children.push((path, m.clone()));
        Place::root_of(&m)
    }
    /// All mounts in the order they were made.
    pub fn mounts(&self) -> Vec<Arc<Mount>> {
        read(&self.mounts).clone()
    }

    /// Resolve a path that must exist. `follow`: also a link in the last place.
    pub fn resolve(&self, who: &Caller, start: &Place, path: &[u8], follow: bool) -> Result<Entry> {
        let mut w = Walk::new(self, who, start, path)?;
        w.run(false, follow)?;
        Ok(Entry { place: w.at, stat: w.stat })
    }
    /// Resolve all but the last name.
    pub fn resolve_parent(&self, who: &Caller, start: &Place, path: &[u8]) -> Result<Parent> {
        let mut w = Walk::new(self, who, start, path)?;
        let (name, slash) = w.run(true, false)?;
        Ok(Parent { dir: Entry { place: w.at, stat: w.stat }, name, slash })
    }
    /// As [`resolve`](Self::resolve), following a last link, within bounds.
    pub fn resolve_scoped(&self, who: &Caller, start: &Place, path: &[u8], scope: &Scope) -> Result<Entry> {
        let mut w = Walk::scoped(self, who, start, path, scope)?;
        w.run(false, true)?;
        Ok(Entry { place: w.at, stat: w.stat })
    }
    /// As [`resolve_parent`](Self::resolve_parent), within bounds.
    pub fn resolve_parent_scoped(&self, who: &Caller, start: &Place, path: &[u8], scope: &Scope) -> Result<Parent> {
        let mut w = Walk::scoped(self, who, start, path, scope)?;
        let (name, slash) = w.run(true, false)?;
        Ok(Parent { dir: Entry { place: w.at, stat: w.stat }, name, slash })
    }
    /// The entry of a directory, with what is mounted there.
    pub fn child(&self, who: &Caller, dir: &Place, name: &[u8]) -> Result<Entry> {
        check_name(name)?;
        let found = dir.node.lookup(who, name)?;
        let place = dir.child(name, found.node);
        if let Some(m) = place.mount.child(&place.path) {
            let place = Place::root_of(&m);
            return Ok(Entry { stat: place.node.stat()?, place });
        }
        Ok(Entry { place, stat: found.stat })
    }
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    if name.is_empty() || name.contains(&0) || name.contains(&b'/') {
        return Err(Errno::ENOENT);
    }
    Ok(())
}

/// Bounds of a resolution (RESOLVE_* of openat2).
#[derive(Clone)]
pub struct Scope {
    /// RESOLVE_*.
    pub flags: u64,
    /// The directory that is the root (RESOLVE_IN_ROOT) or must not be left (RESOLVE_BENEATH).
    pub base: Place,
}

impl Scope {
    pub(super) const NO_XDEV: u64 = 1;
    pub(super) const NO_MAGICLINKS: u64 = 2;
    pub(super) const NO_SYMLINKS: u64 = 4;
    pub(super) const BENEATH: u64 = 8;
    pub(super) const IN_ROOT: u64 = 16;
    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }
    fn bounded(&self) -> bool {
        self.has(Scope::BENEATH | Scope::IN_ROOT)
    }
}

/// One resolution.
struct Walk<'a> {
    ns: &'a Namespace,
    who: &'a Caller,
    at: Place,
    stat: Stat,
    /// What is left of the path.
    rest: Vec<u8>,
    pos: usize,
    links: u32,
    scope: Option<&'a Scope>,
}

impl<'a> Walk<'a> {
    /// As [`new`](Self::new), within bounds.
    fn scoped(ns: &'a Namespace, who: &'a Caller, start: &Place, path: &[u8], scope: &'a Scope) -> Result<Walk<'a>> {
        let mut w = Walk::new(ns, who, start, path)?;
        w.scope = Some(scope);
        if path[0] == b'/' {
            w.at = w.top()?;
            w.stat = w.at.node.stat()?;
        }
        Ok(w)
    }
    /// Where an absolute path starts.
    fn top(&self) -> Result<Place> {
        match self.scope {
            Some(s) if s.has(Scope::BENEATH) => Err(Errno::EXDEV),
            Some(s) if s.has(Scope::NO_XDEV) && !s.bounded() && !Arc::ptr_eq(&self.at.mount, &self.ns.root) => {
                Err(Errno::EXDEV)
            }
            Some(s) if s.has(Scope::IN_ROOT) => Ok(Place { path: s.base.path(), held: None, ..s.base.clone() }),
            _ => Ok(self.ns.root()),
        }
    }
    /// EXDEV if a bounded walk went on to another mount.
    fn stay(&self, mount: &Arc<Mount>) -> Result<()> {
        match self.scope {
            Some(s) if s.has(Scope::NO_XDEV) && !Arc::ptr_eq(&self.at.mount, mount) => Err(Errno::EXDEV),
            _ => Ok(()),
        }
    }
    fn new(ns: &'a Namespace, who: &'a Caller, start: &Place, path: &[u8]) -> Result<Walk<'a>> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut at = if path[0] == b'/' { ns.root() } else { start.clone() };
        at.path = at.path();
        at.held = None;
        Ok(Walk { ns, who, stat: at.node.stat()?, at, rest: path.to_vec(), pos: 0, links: 0, scope: None })
    }
    /// The next name with its end: (start, end); empty at the end of the path.
    fn peek(&self, from: usize) -> (usize, usize) {
        let s = from + self.rest[from..].iter().take_while(|c| **c == b'/').count();
        let e = s + self.rest[s..].iter().take_while(|c| **c != b'/').count();
        (s, e)
    }
    fn is_last(&self, end: usize) -> bool {
        self.rest[end..].iter().all(|c| *c == b'/')
    }
    /// Go on to the end (or to the parent of the last name). Gives the last name and whether a slash follows it.
    fn run(&mut self, parent: bool, follow: bool) -> Result<(Vec<u8>, bool)> {
        loop {
            let (s, e) = self.peek(self.pos);
            if s == e {
                // Only slashes are left: the place must be a directory if there were any.
                if self.pos < self.rest.len() && !is_dir(self.stat.mode) {
                    return Err(Errno::ENOTDIR);
                }
                return Ok((Vec::new(), false));
            }
            if !is_dir(self.stat.mode) {
                return Err(Errno::ENOTDIR);
            }
            self.who.check(&self.stat, X)?;
            let last = self.is_last(e);
            if last && parent {
                if e - s > NAME_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                return Ok((self.rest[s..e].to_vec(), e < self.rest.len()));
            }
            match &self.rest[s..e] {
                b"." => {
                    self.pos = e;
                    continue;
                }
                b".." => {
                    self.pos = e;
                    self.up()?;
                    continue;
                }
                _ => {}
            }
            if self.fast(s, parent)? {
                // Where a run ends in a link it is treated as the last name of the run.
            } else {
                let name = self.rest[s..e].to_vec();
                let entry = self.ns.child(self.who, &self.at, &name)?;
                self.stay(&entry.place.mount)?;
                let dir = std::mem::replace(&mut self.at, entry.place);
                self.stat = entry.stat;
                self.pos = e;
                if kind_of(self.stat.mode) == libc::S_IFLNK && (!last || follow || e < self.rest.len()) {
                    self.follow(dir)?;
                }
                continue;
            }
            if kind_of(self.stat.mode) == libc::S_IFLNK {
                let end = self.is_last(self.pos) && self.pos >= self.rest.len();
                if !end || follow {
                    let mut dir = self.at.clone();
                    pop(&mut dir.path);
                    dir.node = self.node_at(&dir)?;
                    self.follow(dir)?;
                }
            }
        }
    }
    /// Try a run of at least two names at once.
    fn fast(&mut self, start: usize, parent: bool) -> Result<bool> {
        if self.scope.is_some() {
            return Ok(false);
        }
        let mut names = Vec::with_capacity(8);
        let mut end = start;
        let mut path = self.at.path.clone();
        let mut at = start;
        let mounts = read(&self.at.mount.children);
        loop {
            let (s, e) = self.peek(at);
            if s == e || matches!(&self.rest[s..e], b"." | b"..") || (parent && self.is_last(e)) {
                break;
            }
            let name = &self.rest[s..e];
            check_name(name)?;
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            if mounts.iter().any(|(p, _)| *p == path) {
                pop(&mut path);
                break;
            }
            names.push(name);
            (at, end) = (e, e);
        }
        drop(mounts);
        if names.len() < 2 {
            return Ok(false);
        }
        match self.at.node.lookup_run(self.who, &names) {
            // A link on the way: one by one.
            None | Some(Err(Errno::ELOOP)) => Ok(false),
            Some(Err(e)) => Err(e),
            Some(Ok(f)) => {
                self.at.node = f.node;
                self.at.path = path;
                self.stat = f.stat;
                self.pos = end;
                Ok(true)
            }
        }
    }
    /// Follow the link that `at` is, found in `dir`.
    fn follow(&mut self, dir: Place) -> Result<()> {
        self.links += 1;
        if self.links > MAX_LINKS || self.scope.is_some_and(|s| s.has(Scope::NO_SYMLINKS)) {
            return Err(Errno::ELOOP);
        }
        match self.at.node.readlink(self.who)? {
            Link::Jump(..) if self.scope.is_some_and(|s| s.has(Scope::NO_MAGICLINKS)) => return Err(Errno::ELOOP),
            Link::Jump(..) if self.scope.is_some_and(Scope::bounded) => return Err(Errno::EXDEV),
            Link::Jump(to, _) => {
                self.stay(&to.mount)?;
                self.stat = to.node.stat()?;
                self.at = to;
                self.at.path = self.at.path();
                self.at.held = None;
            }
            Link::Path(text) => {
                if text.is_empty() {
                    return Err(Errno::ENOENT);
                }
                self.at = if text[0] == b'/' { self.top()? } else { dir };
                self.stat = self.at.node.stat()?;
                let mut rest = text;
                if rest.len() >= PATH_MAX {
                    return Err(Errno::ENAMETOOLONG);
                }
                rest.extend_from_slice(&self.rest[self.pos..]);
                self.rest = rest;
                self.pos = 0;
            }
        }
        Ok(())
    }
    /// `..`
    fn up(&mut self) -> Result<()> {
        if let Some(s) = self.scope
            && s.bounded()
            && Arc::ptr_eq(&s.base.mount, &self.at.mount)
            && s.base.path() == self.at.path
        {
            return if s.has(Scope::BENEATH) { Err(Errno::EXDEV) } else { Ok(()) };
        }
        while self.at.path.is_empty() {
            match &self.at.mount.parent {
                None => {
                    self.at = self.ns.root();
                    self.stat = self.at.node.stat()?;
                    return Ok(());
                }
                Some((m, p)) => {
                    let (mount, path) = (m.clone(), p.clone());
                    self.stay(&mount)?;
                    self.at = Place { node: mount.root.clone(), mount, path, held: None };
                }
            }
        }
        pop(&mut self.at.path);
        self.at.node = self.node_at(&self.at)?;
        self.stat = self.at.node.stat()?;
        Ok(())
    }
    /// The node at the path of a place in its mount.
    fn node_at(&self, p: &Place) -> Result<Arc<dyn Node>> {
        if p.path.is_empty() {
            return Ok(p.mount.root.clone());
        }
        let names: Vec<&[u8]> = p.path.split(|c| *c == b'/').collect();
        // It was come by before: nobody is asked whether he may.
        if let Some(r) = p.mount.root.lookup_run(&Caller::default(), &names) {
            return r.map(|f| f.node).map_err(|e| if e == Errno::ELOOP { Errno::ENOENT } else { e });
        }
        let mut node = p.mount.root.clone();
        for n in names {
            node = node.lookup(self.who, n)?.node;
        }
        Ok(node)
    }
}

fn pop(path: &mut Vec<u8>) {
    let n = path.iter().rposition(|c| *c == b'/').unwrap_or(0);
    path.truncate(n);
}
