//! Files that processes execute: as long as one does, the file is not written to (ETXTBSY).

use super::locks::Key;
use super::node::lock;
use super::walk::Namespace;
use crate::errno::{Errno, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// How many programs run from which files.
#[derive(Default)]
pub(super) struct Executed(Mutex<HashMap<Key, usize>>);

/// A program that runs from a file, to be kept as long as it does.
pub struct Executing {
    ns: Arc<Namespace>,
    key: Key,
}

impl Executing {
    pub(super) fn new(ns: &Arc<Namespace>, key: Key) -> Arc<Executing> {
        *lock(&ns.executed.0).entry(key).or_default() += 1;
        Arc::new(Executing { ns: ns.clone(), key })
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        let mut all = lock(&self.ns.executed.0);
        match all.get_mut(&self.key) {
            Some(n) if *n > 1 => *n -= 1,
            _ => drop(all.remove(&self.key)),
        }
    }
}

impl Executed {
    /// ETXTBSY if a program runs from the file.
    pub(super) fn may_write(&self, key: Key) -> Result<()> {
        if lock(&self.0).contains_key(&key) { Err(Errno::ETXTBSY) } else { Ok(()) }
    }
}
