//! Names of sockets in a job.

use super::{Key, Socket};
use crate::errno::{Errno, Result};
use crate::io::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

/// Which socket has which name.
#[derive(Default)]
pub struct Registry {
    /// More than one have a port if all of them said that it may be shared; the last one has what comes.
    names: Mutex<HashMap<Key, Vec<Weak<Socket>>>>,
    /// Last number handed out for a name that the kernel chooses.
    last: Mutex<u32>,
}

impl Registry {
    /// The socket with a name.
    pub fn get(&self, key: &Key) -> Option<Arc<Socket>> {
        lock(&self.names).get(key)?.iter().rev().find_map(Weak::upgrade)
    }
    /// The socket that `from` reaches at a port of the loopback: for an address of IPv4, in whichever form, one of IPv4 or
    /// a dual one, for an address of IPv6 one of IPv6.
    pub fn reached(&self, from: &Socket, to: &super::Addr) -> Option<Arc<Socket>> {
        let (protocol, port) = (from.protocol, to.port());
        let six = self.get(&Key::Port { protocol, six: true, port });
        if to.v4().is_none() {
            return six.filter(|s| s.local().v4().is_none());
        }
        self.get(&Key::Port { protocol, six: false, port }).or_else(|| six.filter(|s| !s.options().v6_only))
    }
    pub(super) fn insert(&self, key: Key, socket: &Arc<Socket>) -> Result<()> {
        let mut names = lock(&self.names);
        let all = names.entry(key.clone()).or_default();
        all.retain(|w| w.strong_count() > 0);
        // A file of a socket was just made: who has its number still is a socket whose file is gone.
        let free = matches!(key, Key::Inode(..)) || all.iter().filter_map(Weak::upgrade).all(|s| s.shares(socket));
        if !free {
            return Err(Errno::EADDRINUSE);
        }
        all.push(Arc::downgrade(socket));
        Ok(())
    }
    pub(super) fn remove(&self, key: &Key, socket: &Arc<Socket>) {
        self.remove_closed(key, socket);
    }
    pub(super) fn remove_closed(&self, key: &Key, socket: &Socket) {
        let mut names = lock(&self.names);
        if let Some(all) = names.get_mut(key) {
            all.retain(|w| !std::ptr::eq(w.as_ptr(), socket));
            if all.is_empty() {
                names.remove(key);
            }
        }
    }
    /// A number in `first..=last` whose name is free.
    pub fn free_number(&self, first: u32, last: u32, key: impl Fn(u32) -> Key) -> Result<u32> {
        let span = last - first + 1;
        let mut n = lock(&self.last);
        let names = lock(&self.names);
        for _ in 0..span {
            *n = n.wrapping_add(1);
            let v = first + *n % span;
            if names.get(&key(v)).is_none_or(|all| all.iter().all(|w| w.strong_count() == 0)) {
                return Ok(v);
            }
        }
        Err(Errno::EADDRINUSE)
    }
}
