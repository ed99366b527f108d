//! From a name to a connection and its end: bind, listen, connect, accept, shutdown, close.
//!
//! The client makes both ends of a connection and puts the server's into the backlog of the socket that listens, where accept(2) finds it.
//! Ends refer to each other weakly; who closes tells the other.

use super::options::timed_out;
use super::{Addr, Backlog, Cred, Key, Kind, RCV, SND, Socket, State};
use crate::errno::{Errno, Result};
use crate::io::lock;
use crate::wait::Blocking;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

impl State {
    fn disconnect(&mut self) {
        self.peer = Weak::new();
        self.connected = false;
        self.remote = Addr::default();
    }
}

impl Socket {
    /// Give it an address: EINVAL if it has one, EADDRINUSE.
    pub fn bind(self: &Arc<Self>, key: Key, local: Addr) -> Result<()> {
        if lock(&self.state).key.is_some() {
            return Err(Errno::EINVAL);
        }
        self.registry.insert(key.clone(), self)?;
        let mut s = lock(&self.state);
        if s.key.is_some() {
            drop(s);
            self.registry.remove(&key, self);
            return Err(Errno::EINVAL);
        }
        s.key = Some(key);
        s.local = local;
        Ok(())
    }
    /// Whether both may be bound to one port: SO_REUSEPORT, or SO_REUSEADDR of UDP.
    pub(super) fn shares(&self, other: &Socket) -> bool {
        let (a, b) = (self.options(), other.options());
        self.family != libc::AF_UNIX
            && (a.reuse_port && b.reuse_port || self.kind == Kind::Datagram && a.reuse_addr && b.reuse_addr)
    }
    /// Whether it is bound.
    pub fn is_bound(&self) -> bool {
        lock(&self.state).key.is_some()
    }
    /// listen(2).
    pub fn listen(&self, backlog: i32, cred: Cred) -> Result<()> {
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        {
            let mut s = lock(&self.state);
            if s.connected || s.key.is_none() {
                return Err(Errno::EINVAL);
            }
            let max = usize::try_from(backlog).unwrap_or(4096).min(4096);
            match &mut s.listening {
                Some(b) => b.max = max,
                None => s.listening = Some(Backlog { max, pending: VecDeque::new() }),
            }
            s.peer_cred = cred;
        }
        self.queue.wake_all();
        Ok(())
    }
    /// connect(2) of a stream or seqpacket socket to a listening one: waits while its backlog is full.
    /// `at` is the address it was found by.
    pub fn connect(
        self: &Arc<Self>,
        who: &dyn Blocking,
        to: &Arc<Socket>,
        at: &Addr,
        cred: Cred,
        nonblock: bool,
    ) -> Result<()> {
        {
            let mut s = lock(&self.state);
            if std::mem::take(&mut s.connecting) {
                return Ok(());
            }
            if s.connected {
                return Err(Errno::EISCONN);
            }
            if s.listening.is_some() {
                return Err(Errno::EINVAL);
            }
        }
        if to.kind != self.kind {
            return Err(Errno::EPROTOTYPE);
        }
        let (server, their_local, their_cred) = self.server_end(to, at, cred);
        let attempt = || {
            let mut s = lock(&to.state);
            let refused = s.closed || s.shut & RCV != 0;
            match &mut s.listening {
                _ if refused => Some(Err(Errno::ECONNREFUSED)),
                None => Some(Err(Errno::ECONNREFUSED)),
                Some(b) if b.pending.len() > b.max && self.family == libc::AF_UNIX => None,
                Some(b) => {
                    b.pending.push_back(server.clone());
                    Some(Ok(()))
                }
            }
        };
        // Connected before it can be accepted, so that the server never sees half of it.
        {
            let mut s = lock(&self.state);
            s.peer = Arc::downgrade(&server);
            s.connected = true;
            s.remote = their_local.seen_by(self.family);
            s.peer_cred = their_cred;
        }
        let r = match attempt() {
            Some(r) => r,
            None if nonblock => Err(Errno::EAGAIN),
            None => to.room.wait(who, self.send_deadline(), attempt).map_err(timed_out).and_then(|r| r),
        };
        match r {
            Ok(()) => {
                to.queue.wake_all();
                self.queue.wake_all();
                if nonblock && self.family != libc::AF_UNIX {
                    // As TCP, which answers later even on the loopback.
                    lock(&self.state).connecting = true;
                    return Err(Errno::EINPROGRESS);
                }
                Ok(())
            }
            Err(e) => {
                lock(&self.state).disconnect();
                Err(e)
            }
        }
    }
    /// The server's end of a connection to the listening socket `to`, with that socket's address and credentials as this end sees them.
    fn server_end(self: &Arc<Self>, to: &Arc<Socket>, at: &Addr, cred: Cred) -> (Arc<Socket>, Addr, Cred) {
        let server = Socket::new(&self.registry, to.family, self.kind, to.cred);
        let local = self.local();
        let (their_local, their_cred, options) = {
            let s = lock(&to.state);
            let local = if self.family == libc::AF_UNIX { s.local.clone() } else { at.reached() };
            (local, s.peer_cred, s.options)
        };
        let mut s = lock(&server.state);
        s.local = their_local.seen_by(to.family);
        s.remote = local.seen_by(to.family);
        s.peer = Arc::downgrade(self);
        s.connected = true;
        s.peer_cred = cred;
        s.options.pass_cred = options.pass_cred;
        s.options.no_delay = options.no_delay;
        drop(s);
        (server, their_local, their_cred)
    }
    /// connect(2) found nobody: the error, at once or (without waiting) as the pending one.
    pub fn refuse(&self, e: Errno, nonblock: bool) -> Errno {
        let mut s = lock(&self.state);
        if s.connected {
            return Errno::EISCONN;
        }
        if let Some(old) = s.error.take() {
            return old;
        }
        if !nonblock || self.family == libc::AF_UNIX {
            return e;
        }
        s.error = Some(e);
        drop(s);
        self.wake();
        Errno::EINPROGRESS
    }
    /// connect(2) of a datagram socket: sets or (`None`) clears the default receiver.
    /// Of UDP, nobody need be there.
    pub fn connect_datagram(self: &Arc<Self>, to: Option<(Option<&Arc<Socket>>, Addr)>) -> Result<()> {
        if let Some(t) = to.as_ref().and_then(|(t, _)| *t).filter(|t| t.family == libc::AF_UNIX && !t.accepts(self)) {
            return Err(if t.kind == self.kind { Errno::EPERM } else { Errno::EPROTOTYPE });
        }
        {
            let mut s = lock(&self.state);
            match to {
                Some((t, addr)) => {
                    s.peer = t.map_or(Weak::new(), Arc::downgrade);
                    s.connected = true;
                    s.remote = addr.reached();
                    s.peer_cred = t.map_or(s.peer_cred, |t| t.cred);
                }
                None => s.disconnect(),
            }
        }
        self.queue.wake_all();
        Ok(())
    }
    /// Whether a datagram socket takes messages of `from`: it is not connected to another.
    pub(super) fn accepts(&self, from: &Arc<Socket>) -> bool {
        let s = lock(&self.state);
        self.kind == from.kind && (!s.connected || s.peer.ptr_eq(&Arc::downgrade(from)))
    }
    /// accept(2).
    pub fn accept(&self, who: &dyn Blocking, nonblock: bool) -> Result<Arc<Socket>> {
        let attempt = || {
            let mut s = lock(&self.state);
            let shut = s.shut & RCV != 0;
            match &mut s.listening {
                None => Some(Err(Errno::EINVAL)),
                Some(b) => match b.pending.pop_front() {
                    Some(c) => Some(Ok(c)),
                    None => shut.then_some(Err(Errno::EINVAL)),
                },
            }
        };
        if self.kind == Kind::Datagram {
            return Err(Errno::EOPNOTSUPP);
        }
        let r = match attempt() {
            Some(r) => r,
            None if nonblock => Err(Errno::EAGAIN),
            None => self.queue.wait(who, self.receive_deadline(), attempt).map_err(timed_out).and_then(|r| r),
        };
        if r.is_ok() {
            self.room.wake_all();
        }
        r
    }
    /// shutdown(2): `how` 0 reading, 1 writing, 2 both.
    pub fn shutdown(&self, how: i32) -> Result<()> {
        let bits = match how {
            libc::SHUT_RD => RCV,
            libc::SHUT_WR => SND,
            libc::SHUT_RDWR => RCV | SND,
            _ => return Err(Errno::EINVAL),
        };
        let peer = {
            let mut s = lock(&self.state);
            if !s.connected && s.listening.is_none() && self.family != libc::AF_UNIX {
                return Err(Errno::ENOTCONN);
            }
            s.shut |= bits;
            s.peer.upgrade()
        };
        if self.kind != Kind::Datagram
            && let Some(p) = peer
        {
            let mirrored = if bits & RCV != 0 && self.family == libc::AF_UNIX { SND } else { 0 }
                | if bits & SND != 0 { RCV } else { 0 };
            lock(&p.state).shut |= mirrored;
            p.wake();
        }
        self.wake();
        Ok(())
    }
    /// The last descriptor was closed.
    pub(super) fn close(&self) {
        let (peer, inbox, pending, key, reset) = {
            let mut s = lock(&self.state);
            s.closed = true;
            s.shut = RCV | SND;
            let inbox = std::mem::take(&mut s.inbox);
            // Something unread, or SO_LINGER with no time.
            let reset =
                s.bytes > 0 || self.family != libc::AF_UNIX && s.options.linger.0 != 0 && s.options.linger.1 == 0;
            s.bytes = 0;
            (s.peer.upgrade(), inbox, s.listening.take(), s.key.take(), reset)
        };
        if let Some(k) = key {
            self.registry.remove_closed(&k, self);
        }
        if self.kind != Kind::Datagram
            && let Some(p) = peer
        {
            let mut s = lock(&p.state);
            s.shut |= if self.family == libc::AF_UNIX { RCV | SND } else { RCV };
            if reset {
                s.error = Some(Errno::ECONNRESET);
                if self.family != libc::AF_UNIX {
                    // There is no connection any more; what has arrived can still be read.
                    s.shut = RCV | SND;
                    s.connected = false;
                }
            }
            drop(s);
            p.wake();
        }
        drop(inbox);
        for c in pending.into_iter().flat_map(|b| b.pending) {
            // As a connection that was accepted and closed with something unread.
            let client = lock(&c.state).peer.upgrade();
            c.close();
            if let Some(p) = client {
                lock(&p.state).error = Some(Errno::ECONNRESET);
                p.wake();
            }
        }
        self.wake();
    }
}
