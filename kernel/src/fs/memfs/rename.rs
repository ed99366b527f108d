//! Renaming: an entry takes the place of another, or two change places.
//!
//! The file system's rename lock is held all the time, so that no directory gets another parent and no entry goes away meanwhile.
//! The checks come first; then both names change at once, with both directories locked; parents, counts of links and times follow.

use super::MemNode;
use super::directory::{Child, DirBody};
use crate::errno::{Errno, Result};
use crate::fs::node::lock;
use std::sync::{Arc, MutexGuard};

/// What is renamed to what.
struct Rename<'a> {
    from: &'a MemNode,
    name: &'a [u8],
    to: &'a MemNode,
    to_name: &'a [u8],
    src: Arc<MemNode>,
    /// What has the new name.
    dst: Option<Arc<MemNode>>,
    /// The two change places.
    exchange: bool,
}

impl MemNode {
    /// [`Node::rename`](crate::fs::node::Node::rename).
    pub(super) fn rename_entry(&self, name: &[u8], to: &MemNode, to_name: &[u8], flags: u32) -> Result<()> {
        let _rename = lock(&self.fs.rename);
        loop {
            let src = self.entry(name)?.ok_or(Errno::ENOENT)?;
            let dst = to.entry(to_name)?;
            match &dst {
                Some(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EEXIST),
                None if flags & libc::RENAME_EXCHANGE != 0 => return Err(Errno::ENOENT),
                Some(d) if Arc::ptr_eq(d, &src) => return Ok(()),
                _ => {}
            }
            let r = Rename { from: self, name, to, to_name, src, dst, exchange: flags & libc::RENAME_EXCHANGE != 0 };
            r.check()?;
            if r.change_names()? {
                r.count();
                return Ok(());
            }
        }
    }
    fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }
    /// Whether it is the directory `n` or somewhere below it.
    fn is_below(&self, n: &Arc<MemNode>) -> bool {
        let mut at = self.this.upgrade();
        while let Some(a) = at {
            if Arc::ptr_eq(&a, n) {
                return true;
            }
            at = a.dir().ok().and_then(|d| lock(d).parent.upgrade());
        }
        false
    }
    fn reparent(&self, parent: &MemNode) {
        if let Ok(d) = self.dir() {
            lock(d).parent = parent.this.clone();
        }
    }
}

impl Rename<'_> {
    /// Whether both ends go together. A directory that is replaced is dead from here on.
    fn check(&self) -> Result<()> {
        // No directory into itself (or, exchanged, into what is below it).
        if self.src.is_dir() && self.to.is_below(&self.src) {
            return Err(Errno::EINVAL);
        }
        let Some(d) = &self.dst else { return Ok(()) };
        if d.is_dir() && self.from.is_below(d) {
            return Err(if self.exchange { Errno::EINVAL } else { Errno::ENOTEMPTY });
        }
        if self.exchange {
            return Ok(());
        }
        match (self.src.is_dir(), d.is_dir()) {
            (true, false) => return Err(Errno::ENOTDIR),
            (false, true) => return Err(Errno::EISDIR),
            (true, true) => {
                d.die_empty()?;
            }
            (false, false) => {}
        }
        Ok(())
    }
    /// Change the entries of both directories. False: something was made under the new name since it was looked up (making takes no
    /// lock of the whole file system), and nothing has changed.
    fn change_names(&self) -> Result<bool> {
        let (mut a, mut b) = lock_two(self.from, self.to)?;
        let target = b.as_deref_mut().unwrap_or(&mut *a);
        if target.dead {
            return Err(Errno::ENOENT);
        }
        if target.node(self.to_name).map(Arc::as_ptr) != self.dst.as_ref().map(Arc::as_ptr) {
            return Ok(false);
        }
        target.take(self.to_name);
        target.insert(self.to_name, Child::Node(self.src.clone()));
        let source = &mut *a;
        if !std::ptr::eq(self.from, self.to) || self.name != self.to_name {
            source.take(self.name);
        }
        if self.exchange
            && let Some(d) = &self.dst
        {
            source.insert(self.name, Child::Node(d.clone()));
        }
        Ok(true)
    }
    /// Parents, counts of links and times, after the names.
    fn count(&self) {
        let (from, to) = (self.from, self.to);
        self.src.reparent(to);
        // Directories that `from` has less, and `to` more.
        let mut moved = i32::from(self.src.is_dir());
        if let Some(d) = &self.dst {
            if self.exchange {
                d.reparent(from);
                d.relink(0);
                moved -= i32::from(d.is_dir());
            } else {
                d.relink(if d.is_dir() { -2 } else { -1 });
                if d.is_dir() {
                    lock(&d.meta).nlink = 0;
                    lock(&to.meta).nlink -= 1;
                }
            }
        }
        self.src.relink(0);
        from.touch();
        to.touch();
        from.relink(-moved);
        to.relink(moved);
    }
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
