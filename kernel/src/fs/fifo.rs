//! The pipes of named FIFOs, by inode; they connect processes of the job, never the host.

use super::node::lock;
use crate::io::pipe::Fifo;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// All FIFOs that have been opened.
#[derive(Default)]
pub struct Fifos(Mutex<HashMap<(u64, u64), Arc<Fifo>>>);

impl Fifos {
    /// The pipe of an inode.
    pub fn get(&self, key: (u64, u64)) -> Arc<Fifo> {
        lock(&self.0).entry(key).or_default().clone()
    }
    /// The inode is gone: whoever has it open keeps it.
    pub fn forget(&self, key: (u64, u64)) {
        lock(&self.0).remove(&key);
    }
}
