//! Directories: their entries, and what makes, links, removes and lists them.
//!
//! An entry has a number, given out in the order of making, which is its position for getdents(2). So a listing that goes on
//! after changes neither repeats nor leaves out what was there all the time.
//!
//! A directory is *dead* once it is removed: nothing is made in it from then on.

use super::content::{Data, FileBody};
use super::{Body, MemNode, NODE_COST};
use crate::errno::{Errno, Result};
use crate::file::DirEntry;
use crate::fs::node::{Caller, Found, Make, Node, dirent_kind, lock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, Weak};

/// First position of an entry that is not `.` or `..`.
const FIRST: u64 = 2;

pub(super) enum Child {
    Node(Arc<MemNode>),
    /// In the lower directory, not looked up yet: DT_*.
    Lower(u8),
}

pub(super) struct Slot {
    seq: u64,
    pub(super) child: Child,
}

#[derive(Default)]
pub(super) struct DirBody {
    pub(super) names: HashMap<Vec<u8>, Slot>,
    order: BTreeMap<u64, Vec<u8>>,
    next: u64,
    pub(super) parent: Weak<MemNode>,
    /// Removed: takes no new entries.
    pub(super) dead: bool,
    pub(super) lower: Option<Arc<dyn Node>>,
    /// Names of the lower directory that are gone.
    pub(super) white: HashSet<Vec<u8>>,
    /// All names of the lower directory are in `names` or `white`.
    pub(super) listed: bool,
}

impl DirBody {
    /// A directory in `parent` with what `lower` has.
    pub(super) fn new(parent: Weak<MemNode>, lower: Option<Arc<dyn Node>>) -> DirBody {
        DirBody { parent, lower, ..DirBody::default() }
    }
    pub(super) fn insert(&mut self, name: &[u8], child: Child) {
        self.next = self.next.max(FIRST) + 1;
        let seq = self.next;
        if let Some(old) = self.names.insert(name.to_vec(), Slot { seq, child }) {
            self.order.remove(&old.seq);
        }
        self.order.insert(seq, name.to_vec());
    }
    pub(super) fn take(&mut self, name: &[u8]) -> Option<Child> {
        let s = self.names.remove(name)?;
        self.order.remove(&s.seq);
        if self.lower.is_some() {
            self.white.insert(name.to_vec());
        }
        Some(s.child)
    }
    /// The node of an entry, if it has one yet.
    pub(super) fn node(&self, name: &[u8]) -> Option<&Arc<MemNode>> {
        match self.names.get(name) {
            Some(Slot { child: Child::Node(n), .. }) => Some(n),
            _ => None,
        }
    }
}

impl MemNode {
    /// A directory that is about to go away: nothing can be made in it any more. ENOTEMPTY if something is there.
    pub(super) fn die_empty(&self) -> Result<()> {
        self.list_lower()?;
        let mut d = lock(self.dir()?);
        if !d.names.is_empty() {
            return Err(Errno::ENOTEMPTY);
        }
        d.dead = true;
        Ok(())
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
    /// The parts of a new node that depend on what it is: its type, its body and its count of links.
    fn parts(&self, what: Make<'_>) -> (u32, Body, u32) {
        match what {
            Make::File => (libc::S_IFREG, Body::File(FileBody::unsealable(Data::Bytes(Vec::new()))), 1),
            Make::Dir => (libc::S_IFDIR, Body::Dir(Mutex::new(DirBody::new(self.this.clone(), None))), 2),
            Make::Symlink(t) => (libc::S_IFLNK, Body::Symlink(t.to_vec()), 1),
            Make::Fifo => (libc::S_IFIFO, Body::Other, 1),
            Make::Socket => (libc::S_IFSOCK, Body::Other, 1),
            Make::Device(d) => (libc::S_IFCHR, Body::Device(d), 1),
        }
    }
    /// [`Node::make`].
    pub(super) fn make_entry(&self, who: &Caller, name: &[u8], what: Make<'_>, mode: u32) -> Result<Found> {
        let (kind, body, nlink) = self.parts(what);
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
    /// [`Node::link`].
    pub(super) fn link_entry(&self, name: &[u8], t: &MemNode) -> Result<()> {
        if t.kind == libc::S_IFDIR {
            return Err(Errno::EPERM);
        }
        let t = t.this()?;
        let n = self.add(name, || if lock(&t.meta).nlink == 0 { Err(Errno::ENOENT) } else { Ok(t.clone()) })?;
        n.relink(1);
        Ok(())
    }
    /// [`Node::remove`].
    pub(super) fn remove_entry(&self, name: &[u8], dir: bool) -> Result<()> {
        let _rename = lock(&self.fs.rename);
        let n = self.entry(name)?.ok_or(Errno::ENOENT)?;
        match (dir, n.kind == libc::S_IFDIR) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => n.die_empty()?,
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
    /// [`File::entries`](crate::file::File::entries).
    pub(super) fn entries_from(&self, pos: u64) -> Result<Vec<(DirEntry, u64)>> {
        let dir = self.dir()?;
        self.list_lower()?;
        let d = lock(dir);
        let mut out = Vec::new();
        if d.dead {
            return Ok(out);
        }
        let dot = |name: &[u8], ino| DirEntry { ino, kind: libc::DT_DIR, name: name.to_vec() };
        if pos < 1 {
            out.push((dot(b".", self.ino), 1));
        }
        if pos < FIRST {
            out.push((dot(b"..", d.parent.upgrade().map_or(self.ino, |p| p.ino)), FIRST));
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
}
