//! Who watches which files (inotify), and telling them.
//!
//! Only what the job itself does is seen; changes that others make to host folders are not. As long as nothing is watched
//! an operation pays one load.

use super::node::{Node, is_dir, lock};
use super::walk::{Namespace, Place};
use crate::errno::{Errno, Result};
use crate::file::Stat;
use crate::io::inotify::{Event, Inotify};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

pub use libc::{
    IN_ACCESS, IN_ATTRIB, IN_CLOSE_NOWRITE, IN_CLOSE_WRITE, IN_CREATE, IN_DELETE, IN_DELETE_SELF, IN_MODIFY,
    IN_MOVE_SELF, IN_MOVED_FROM, IN_MOVED_TO, IN_OPEN,
};
const EVENTS: u32 = libc::IN_ALL_EVENTS;

type Key = (u64, u64);

struct Watch {
    inotify: Weak<Inotify>,
    wd: i32,
    mask: u32,
    /// Keeps the file, so that its number stays its own.
    _node: Arc<dyn Node>,
}

/// All watches of a job.
#[derive(Default)]
pub struct Watches {
    by_file: Mutex<HashMap<Key, Vec<Watch>>>,
    /// Files watched.
    count: AtomicUsize,
    cookie: AtomicU32,
}

fn key(s: &Stat) -> Key {
    (s.dev, s.ino)
}

impl Watches {
    /// Whether anything is watched.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }
    /// inotify_add_watch(2): the number of the new or changed watch.
    pub fn add(&self, to: &Arc<Inotify>, node: &Arc<dyn Node>, s: &Stat, mask: u32) -> Result<i32> {
        let mut all = lock(&self.by_file);
        for list in all.values_mut() {
            list.retain(|w| w.inotify.strong_count() > 0);
        }
        all.retain(|_, l| !l.is_empty());
        let list = all.entry(key(s)).or_default();
        let keep = mask & (EVENTS | libc::IN_ONESHOT | libc::IN_EXCL_UNLINK);
        let wd = match list.iter_mut().find(|w| std::ptr::eq(w.inotify.as_ptr(), Arc::as_ptr(to))) {
            Some(_) if mask & libc::IN_MASK_CREATE != 0 => return Err(Errno::EEXIST),
            Some(w) => {
                w.mask = if mask & libc::IN_MASK_ADD != 0 { w.mask | keep } else { keep };
                w.wd
            }
            None => {
                let mut last = lock(&to.last);
                *last += 1;
                let wd = *last;
                list.push(Watch { inotify: Arc::downgrade(to), wd, mask: keep, _node: node.clone() });
                wd
            }
        };
        self.count.store(all.len(), Ordering::Relaxed);
        Ok(wd)
    }
    /// inotify_rm_watch(2).
    pub fn remove(&self, from: &Arc<Inotify>, wd: i32) -> Result<()> {
        let mut gone = false;
        let mut all = lock(&self.by_file);
        for list in all.values_mut() {
            list.retain(|w| {
                let hit = w.wd == wd && std::ptr::eq(w.inotify.as_ptr(), Arc::as_ptr(from));
                gone |= hit;
                !hit
            });
        }
        all.retain(|_, l| !l.is_empty());
        self.count.store(all.len(), Ordering::Relaxed);
        drop(all);
        if !gone {
            return Err(Errno::EINVAL);
        }
        from.push(Event { wd, mask: libc::IN_IGNORED, cookie: 0, name: Vec::new() });
        Ok(())
    }
    /// Tell who watches a file. `last`: nothing will happen to it any more.
    fn tell(&self, file: Key, mask: u32, cookie: u32, name: &[u8], last: bool) {
        let mut events = Vec::new();
        let mut all = lock(&self.by_file);
        let Some(list) = all.get_mut(&file) else { return };
        list.retain(|w| {
            let Some(i) = w.inotify.upgrade() else { return false };
            let wanted = w.mask & mask & EVENTS != 0;
            if wanted {
                let e = Event { wd: w.wd, mask, cookie, name: name.to_vec() };
                events.push((i.clone(), e));
            }
            let end = last || wanted && w.mask & libc::IN_ONESHOT != 0;
            if end {
                events.push((i, Event { wd: w.wd, mask: libc::IN_IGNORED, cookie: 0, name: Vec::new() }));
            }
            !end
        });
        if list.is_empty() {
            all.remove(&file);
            self.count.store(all.len(), Ordering::Relaxed);
        }
        drop(all);
        for (i, e) in events {
            i.push(e);
        }
    }
    /// Something happened in a directory to the entry `name`.
    pub fn in_dir(&self, dir: &Stat, mask: u32, name: &[u8], child_is_dir: bool, cookie: u32) {
        if self.any() {
            let flag = if child_is_dir { libc::IN_ISDIR } else { 0 };
            self.tell(key(dir), mask | flag, cookie, name, false);
        }
    }
    /// Something happened to a file, as seen by those who watch it itself.
    pub fn to_file(&self, s: &Stat, mask: u32) {
        if self.any() {
            let flag = if is_dir(s.mode) && mask & (IN_DELETE_SELF | IN_MOVE_SELF) == 0 { libc::IN_ISDIR } else { 0 };
            self.tell(key(s), mask | flag, 0, b"", false);
        }
    }
    /// An entry was removed.
    pub fn removed(&self, dir: &Stat, name: &[u8], s: &Stat) {
        if !self.any() {
            return;
        }
        let dir_gone = is_dir(s.mode);
        if !dir_gone {
            self.to_file(s, IN_ATTRIB);
        }
        self.in_dir(dir, IN_DELETE, name, dir_gone, 0);
        if dir_gone || s.nlink <= 1 {
            self.tell(key(s), IN_DELETE_SELF, 0, b"", true);
        }
    }
    /// A file was renamed, over `over` if there was one.
    pub fn moved(&self, from: (&Stat, &[u8]), to: (&Stat, &[u8]), s: &Stat, over: Option<&Stat>) {
        if !self.any() {
            return;
        }
        let cookie = self.cookie.fetch_add(1, Ordering::Relaxed) + 1;
        self.in_dir(from.0, IN_MOVED_FROM, from.1, is_dir(s.mode), cookie);
        self.in_dir(to.0, IN_MOVED_TO, to.1, is_dir(s.mode), cookie);
        if let Some(o) = over {
            if !is_dir(o.mode) {
                self.to_file(o, IN_ATTRIB);
            }
            if is_dir(o.mode) || o.nlink <= 1 {
                self.tell(key(o), IN_DELETE_SELF, 0, b"", true);
            }
        }
        self.to_file(s, IN_MOVE_SELF);
    }
}

impl Namespace {
    /// Something happened to a file that was found at a place: those who watch it or its directory are told.
    pub fn happened(&self, place: &Place, mask: u32) {
        if !self.watches.any() {
            return;
        }
        let Ok(s) = place.node.stat() else { return };
        let path = place.path();
        if let Some((dir, name)) = split(&path)
            && let Ok(d) = self.node_in(place, dir).and_then(|n| n.stat())
        {
            self.watches.in_dir(&d, mask, name, is_dir(s.mode), 0);
        }
        self.watches.to_file(&s, mask);
    }
    /// The directory at a path of a place's mount.
    fn node_in(&self, place: &Place, dir: &[u8]) -> Result<Arc<dyn Node>> {
        let mut node = place.mount.root.clone();
        for n in dir.split(|c| *c == b'/').filter(|n| !n.is_empty()) {
            node = node.lookup(&super::Caller::default(), n)?.node;
        }
        Ok(node)
    }
}

/// Directory and name of a path inside a mount; `None` for the mount's root.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|c| *c == b'/') {
        Some(n) => (&path[..n], &path[n + 1..]),
        None => (b"", path),
    })
}
