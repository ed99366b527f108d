//! Extended attributes of files in memory, charged as content is.

use super::MemNode;
use crate::errno::{Errno, Result};
use crate::fs::node::lock;
use std::collections::BTreeMap;
use std::sync::Mutex;

/// The attributes of a node.
#[derive(Default)]
pub(super) struct Xattrs(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

fn cost(name: &[u8], value: &[u8]) -> u64 {
    (name.len() + value.len() + 64) as u64
}

impl Xattrs {
    /// What is charged for them.
    pub(super) fn cost(&self) -> u64 {
        lock(&self.0).iter().map(|(n, v)| cost(n, v)).sum()
    }
}

impl MemNode {
    pub(super) fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        lock(&self.xattrs.0).get(name).cloned().ok_or(Errno::ENODATA)
    }
    pub(super) fn list_xattrs(&self) -> Vec<u8> {
        let all = lock(&self.xattrs.0);
        all.keys().flat_map(|n| n.iter().copied().chain([0])).collect()
    }
    pub(super) fn change_xattr(&self, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<()> {
        let mut all = lock(&self.xattrs.0);
        let old = all.get(name).map(|v| cost(name, v));
        match (old, value) {
            (Some(_), Some(_)) if flags & libc::XATTR_CREATE != 0 => return Err(Errno::EEXIST),
            (None, Some(_)) if flags & libc::XATTR_REPLACE != 0 => return Err(Errno::ENODATA),
            (None, None) => return Err(Errno::ENODATA),
            _ => {}
        }
        if let Some(v) = value {
            self.fs.charge(cost(name, v))?;
            all.insert(name.to_vec(), v.to_vec());
        } else {
            all.remove(name);
        }
        drop(all);
        self.fs.world.release_tmpfs(old.unwrap_or(0));
        lock(&self.meta).ctime = self.fs.world.now();
        Ok(())
    }
}
