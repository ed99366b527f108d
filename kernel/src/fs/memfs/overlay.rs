//! The layer below: what a directory does not have itself is looked up in its lower directory, and becomes a node.
//!
//! Such a node has its meta data from below; a file's content stays below until it is written, a directory has the one below as its own
//! lower directory. Nothing below is ever changed.
//!
//! The layer below is asked without a lock held: what was found is dropped if another was faster or the name is gone.

use super::content::{Data, FileBody, INLINE_MAX};
use super::directory::{Child, DirBody, Slot};
use super::{Body, MemNode, NODE_COST};
use crate::errno::{Errno, Result};
use crate::fs::node::{Caller, Found, Link, Node, kind_of, lock, read, write};
use crate::wait::Nobody;
use std::sync::{Arc, Mutex};

impl MemNode {
    /// A node for something in the layer below.
    fn shadow(&self, lower: Found) -> Result<Arc<MemNode>> {
        let s = lower.stat;
        let body = match kind_of(s.mode) {
            libc::S_IFDIR => Body::Dir(Mutex::new(DirBody::new(self.this.clone(), Some(lower.node)))),
            libc::S_IFREG => Body::File(FileBody::unsealable(Data::Lower(lower.node, s.size))),
            libc::S_IFLNK => match lower.node.readlink(&Caller::default())? {
                Link::Path(t) => Body::Symlink(t),
                Link::Jump(..) => return Err(Errno::EACCES),
            },
            _ => Body::Other,
        };
        let content = if let Body::Symlink(t) = &body { t.len() as u64 } else { 0 };
        // What the layer below brings counts as well.
        if !self.fs.world.charge_tmpfs(content + NODE_COST) {
            return Err(Errno::ENOMEM);
        }
        let n = self.fs.new_node(s.mode, (s.uid, s.gid), body, s.nlink);
        let mut m = lock(&n.meta);
        m.atime = s.atime;
        m.mtime = s.mtime;
        m.ctime = s.ctime;
        m.btime = s.btime;
        drop(m);
        Ok(n)
    }
    /// The entry of a directory, if there is one.
    pub(super) fn entry(&self, name: &[u8]) -> Result<Option<Arc<MemNode>>> {
        let dir = self.dir()?;
        let lower = {
            let d = lock(dir);
            match d.names.get(name) {
                Some(Slot { child: Child::Node(n), .. }) => return Ok(Some(n.clone())),
                Some(_) => d.lower.clone(),
                None if d.white.contains(name) || d.listed => None,
                None => d.lower.clone(),
            }
        };
        let Some(lower) = lower else { return Ok(None) };
        let found = match lower.lookup(&Caller::default(), name) {
            Ok(f) => f,
            Err(Errno::ENOENT) => return Ok(None),
            Err(e) => return Err(e),
        };
        let node = self.shadow(found)?;
        let mut d = lock(dir);
        if let Some(s) = d.names.get_mut(name) {
            if let Child::Node(n) = &s.child {
                return Ok(Some(n.clone()));
            }
            s.child = Child::Node(node.clone());
        } else if d.white.contains(name) {
            return Ok(None);
        } else {
            d.insert(name, Child::Node(node.clone()));
        }
        Ok(Some(node))
    }
    /// Take the names of the lower directory in.
    pub(super) fn list_lower(&self) -> Result<()> {
        let dir = self.dir()?;
        let lower = {
            let d = lock(dir);
            match &d.lower {
                Some(l) if !d.listed => l.clone(),
                _ => return Ok(()),
            }
        };
        let f = lower.open(&Caller::default(), (libc::O_RDONLY | libc::O_DIRECTORY) as u32)?;
        let mut all = Vec::new();
        let mut pos = 0;
        loop {
            let batch = f.entries(pos)?;
            let Some(last) = batch.last() else { break };
            pos = last.1;
            all.extend(batch.into_iter().map(|(e, _)| e).filter(|e| e.name != b"." && e.name != b".."));
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut d = lock(dir);
        if !d.listed {
            for e in all {
                if !d.names.contains_key(&e.name) && !d.white.contains(&e.name) {
                    d.insert(&e.name, Child::Lower(e.kind));
                }
            }
            d.listed = true;
        }
        Ok(())
    }
    /// Bring the content up from the layer below.
    pub(super) fn copy_up(&self) -> Result<()> {
        let f = self.file()?;
        let (lower, len) = match &*read(&f.data) {
            Data::Lower(n, len) => (n.clone(), *len),
            _ => return Ok(()),
        };
        self.fs.charge(len)?;
        let r = read_all(&*lower, len);
        let mut data = write(&f.data);
        if !matches!(*data, Data::Lower(..)) {
            self.fs.world.release_tmpfs(len);
            return Ok(());
        }
        let bytes = r.inspect_err(|_| self.fs.world.release_tmpfs(len))?;
        let got = bytes.len() as u64;
        *data = Data::Bytes(bytes);
        if got < len {
            self.fs.world.release_tmpfs(len - got);
        }
        if got > INLINE_MAX {
            f.to_fd(&mut data)?;
        }
        Ok(())
    }
}

fn read_all(n: &dyn Node, len: u64) -> Result<Vec<u8>> {
    let f = n.open(&Caller::default(), libc::O_RDONLY as u32)?;
    let mut out = Vec::new();
    let mut buf = vec![0; 1 << 20];
    while (out.len() as u64) < len {
        let n = f.read(&Nobody::new(), out.len() as u64, &mut buf, true)?;
        if n == 0 {
            break;
        }
        out.extend_from_slice(&buf[..n]);
    }
    out.truncate(len as usize);
    Ok(out)
}
