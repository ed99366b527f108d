//! Names of sockets in a job.

use super::{Key, Socket};
use crate::errno::{Errno, Result};
use crate::io::lock;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

/// Which socket has which name.
#[derive(Default)]
pub struct Registry {
    names: Mutex<HashMap<Key, Weak<Socket>>>,
    /// Last number handed out for a name that the kernel chooses.
    last: Mutex<u32>,
}

impl Registry {
    /// The socket with a name.
    pub fn get(&self, key: &Key) -> Option<Arc<Socket>> {
        lock(&self.names).get(key).and_then(Weak::upgrade)
    }
    /// The socket that `from` reaches at a port of the loopback: for an address of IPv4, in whichever form, one of IPv4 or
    /// a dual one, for an address of IPv6 one of IPv6.
    pub fn reached(&self, from: &Socket, to: &super::Addr) -> Option<Arc<Socket>> {
        let (stream, port) = (from.kind == super::Kind::Stream, to.port());
        let six = self.get(&Key::Port { stream, six: true, port });
        if to.v4().is_none() {
            return six.filter(|s| s.local().v4().is_none());
        }
        self.get(&Key::Port { stream, six: false, port }).or_else(|| six.filter(|s| !s.options().v6_only))
    }
    pub(super) fn insert(&self, key: Key, socket: &Arc<Socket>) -> Result<()> {
        let mut names = lock(&self.names);
        // A file of a socket was just made: who has its number still is a socket whose file is gone.
        if !matches!(key, Key::Inode(..)) && names.get(&key).is_some_and(|w| w.strong_count() > 0) {
            return Err(Errno::EADDRINUSE);
        }
        names.insert(key, Arc::downgrade(socket));
        Ok(())
    }
    pub(super) fn remove(&self, key: &Key, socket: &Arc<Socket>) {
        self.remove_closed(key, socket);
    }
    pub(super) fn remove_closed(&self, key: &Key, socket: &Socket) {
        let mut names = lock(&self.names);
        if names.get(key).is_some_and(|w| std::ptr::eq(w.as_ptr(), socket)) {
            names.remove(key);
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
            if names.get(&key(v)).is_none_or(|w| w.strong_count() == 0) {
                return Ok(v);
            }
        }
        Err(Errno::EADDRINUSE)
    }
}
