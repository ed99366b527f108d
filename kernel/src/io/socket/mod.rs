//! Sockets inside a job: AF_UNIX, and AF_INET/AF_INET6 over a loopback that only the job's own processes are on.
//!
//! No socket of the host is ever opened. A socket has an inbox; sending puts a message into the receiver's. Stream sockets
//! cut and join messages as they like, the others keep them.
//!
//! Locking: one socket's state is locked at a time, never two; queues are woken, and descriptions in flight dropped, with none.

mod addr;
mod interface;
mod netlink;
mod registry;
#[cfg(test)]
mod tests;

pub use netlink::address as netlink_addr;

pub use addr::{Addr, Key, Parsed};
pub use registry::Registry;

use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Default size of send and receive buffers, and (doubled) the largest.
pub const BUFFER: usize = 212_992;
/// How many datagrams wait at most.
const DATAGRAMS: usize = 10;
/// Messages of a stream are joined up to this size.
const JOIN: usize = 16 * 1024;
/// Bits of `shut`.
const RCV: u8 = 1;
const SND: u8 = 2;

/// SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Stream,
    Datagram,
    SeqPacket,
}

impl Kind {
    /// From the type argument of socket(2) without its flags.
    pub fn new(n: i32) -> Option<Kind> {
        match n {
            libc::SOCK_STREAM => Some(Kind::Stream),
            libc::SOCK_DGRAM => Some(Kind::Datagram),
            libc::SOCK_SEQPACKET => Some(Kind::SeqPacket),
            _ => None,
        }
    }
    /// SO_TYPE.
    pub fn number(self) -> i32 {
        match self {
            Kind::Stream => libc::SOCK_STREAM,
            Kind::Datagram => libc::SOCK_DGRAM,
            Kind::SeqPacket => libc::SOCK_SEQPACKET,
        }
    }
}

/// `struct ucred`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Cred {
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
}

struct Message {
    data: Vec<u8>,
    /// What of it was read (streams).
    at: usize,
    from: Addr,
    rights: Vec<Arc<Description>>,
    cred: Cred,
}

struct Backlog {
    max: usize,
    pending: VecDeque<Arc<Socket>>,
}

struct State {
    local: Addr,
    remote: Addr,
    /// Where it is registered.
    key: Option<Key>,
    peer: Weak<Socket>,
    connected: bool,
    peer_cred: Cred,
    listening: Option<Backlog>,
    inbox: VecDeque<Message>,
    bytes: usize,
    shut: u8,
    error: Option<Errno>,
    sndbuf: usize,
    rcvbuf: usize,
    options: Options,
    kept: BTreeMap<(i32, i32), i32>,
    /// A connection that connect(2) without waiting reported as in progress and has not confirmed yet.
    connecting: bool,
    closed: bool,
    /// Something was sent to a peer that had closed; it answered with a reset.
    reset: bool,
}

/// What setsockopt(2) sets and only getsockopt(2) reads, or the system calls.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Options {
    pub receive_timeout: Option<Duration>,
    pub send_timeout: Option<Duration>,
    pub pass_cred: bool,
    pub reuse_addr: bool,
    pub reuse_port: bool,
    pub keep_alive: bool,
    pub broadcast: bool,
    pub linger: (u32, u32),
    pub no_delay: bool,
    pub v6_only: bool,
}

/// A socket.
pub struct Socket {
    /// AF_UNIX, AF_INET or AF_INET6.
    pub family: i32,
    /// Type.
    pub kind: Kind,
    registry: Arc<Registry>,
    state: Mutex<State>,
    /// Woken at every change of readiness.
    queue: WaitQueue,
    /// Woken when the inbox has more room, for datagram senders.
    room: WaitQueue,
    /// Who made it.
    pub cred: Cred,
    ino: u64,
}

/// How to send.
#[derive(Default)]
pub struct Send<'a> {
    /// Datagrams: to whom; `None` = the connected peer.
    pub to: Option<Arc<Socket>>,
    /// SCM_RIGHTS.
    pub rights: Vec<Arc<Description>>,
    /// Sender shown.
    pub cred: Cred,
    /// MSG_DONTWAIT or O_NONBLOCK.
    pub nonblock: bool,
    /// The bytes.
    pub data: &'a [u8],
}

/// What was received besides the bytes.
#[derive(Default)]
pub struct Received {
    /// Bytes put into the buffer.
    pub len: usize,
    /// Length of the whole message (datagrams).
    pub full: usize,
    /// Sender.
    pub from: Addr,
    /// SCM_RIGHTS.
    pub rights: Vec<Arc<Description>>,
    /// Sender's credentials.
    pub cred: Cred,
}

impl Socket {
    /// A socket that is neither bound nor connected.
    pub fn new(registry: &Arc<Registry>, family: i32, kind: Kind, cred: Cred) -> Arc<Socket> {
        Arc::new(Socket {
            family,
            kind,
            registry: registry.clone(),
            state: Mutex::new(State {
                local: Addr::default(),
                remote: Addr::default(),
                key: None,
                peer: Weak::new(),
                connected: false,
                peer_cred: Cred { pid: 0, uid: u32::MAX, gid: u32::MAX },
                listening: None,
                inbox: VecDeque::new(),
                bytes: 0,
                shut: 0,
                error: None,
                sndbuf: BUFFER,
                rcvbuf: BUFFER,
                options: Options::default(),
                kept: BTreeMap::new(),
                connecting: false,
                closed: false,
                reset: false,
            }),
            queue: WaitQueue::default(),
            room: WaitQueue::default(),
            cred,
            ino: new_ino(),
        })
    }
    /// Two sockets connected to each other.
    pub fn pair(registry: &Arc<Registry>, kind: Kind, cred: Cred) -> (Arc<Socket>, Arc<Socket>) {
        let (a, b) =
            (Socket::new(registry, libc::AF_UNIX, kind, cred), Socket::new(registry, libc::AF_UNIX, kind, cred));
        for (x, y) in [(&a, &b), (&b, &a)] {
            let mut s = lock(&x.state);
            s.peer = Arc::downgrade(y);
            s.connected = true;
            s.peer_cred = cred;
        }
        (a, b)
    }
    /// As an open file description; `flags`: O_NONBLOCK.
    pub fn describe(self: &Arc<Self>, flags: u32) -> Arc<Description> {
        let keep = flags & libc::O_NONBLOCK as u32 | libc::O_RDWR as u32;
        Description::new(Arc::new(Handle(self.clone())), keep, format!("socket:[{}]", self.ino))
    }
    /// Address it is bound to.
    pub fn local(&self) -> Addr {
        lock(&self.state).local.clone()
    }
    /// Address of the peer; ENOTCONN.
    pub fn remote(&self) -> Result<Addr> {
        let (peer, remote) = {
            let s = lock(&self.state);
            if !s.connected {
                return Err(Errno::ENOTCONN);
            }
            (s.peer.upgrade(), s.remote.clone())
        };
        // A datagram peer may have been bound since.
        Ok(match peer {
            Some(p) if self.family == libc::AF_UNIX => p.local(),
            _ => remote,
        })
    }
    /// Credentials of the peer (SO_PEERCRED).
    pub fn peer_cred(&self) -> Cred {
        lock(&self.state).peer_cred
    }
    /// SO_ERROR: the pending error, which is cleared.
    pub fn take_error(&self) -> Option<Errno> {
        lock(&self.state).error.take()
    }
    /// SO_ACCEPTCONN.
    pub fn is_listening(&self) -> bool {
        lock(&self.state).listening.is_some()
    }
    /// TCP_ESTABLISHED and its relatives, as TCP_INFO shows them.
    pub fn tcp_state(&self) -> u8 {
        let s = lock(&self.state);
        match (s.listening.is_some(), s.connected, s.shut) {
            (true, ..) => 10,
            (_, false, _) => 7,
            (_, _, 0) => 1,
            (_, _, RCV) => 8,
            (_, _, SND) => 5,
            _ => 7,
        }
    }
    /// Options.
    pub fn options(&self) -> Options {
        lock(&self.state).options
    }
    /// Whether SO_RCVTIMEO or SO_SNDTIMEO is set.
    pub fn has_timeout(&self) -> bool {
        let o = self.options();
        o.receive_timeout.or(o.send_timeout).is_some()
    }
    /// Values of options that are only kept (TCP_KEEPIDLE and the like).
    pub fn kept(&self, level: i32, name: i32) -> Option<i32> {
        lock(&self.state).kept.get(&(level, name)).copied()
    }
    /// Keep the value of an option.
    pub fn keep(&self, level: i32, name: i32, value: i32) {
        lock(&self.state).kept.insert((level, name), value);
    }
    /// Change options.
    pub fn set_options(&self, f: impl FnOnce(&mut Options)) {
        f(&mut lock(&self.state).options);
    }
    /// SO_SNDBUF and SO_RCVBUF.
    pub fn buffers(&self) -> (usize, usize) {
        let s = lock(&self.state);
        (s.sndbuf, s.rcvbuf)
    }
    /// Set SO_SNDBUF or SO_RCVBUF: twice the value, within Linux's bounds.
    pub fn set_buffer(&self, send: bool, n: usize) {
        let n = n.min(BUFFER) * 2;
        let mut s = lock(&self.state);
        if send { s.sndbuf = n.max(4608) } else { s.rcvbuf = n.max(2304) }
    }
    /// Bytes that can be read (FIONREAD): of a datagram socket the first message.
    pub fn readable_bytes(&self) -> usize {
        let s = lock(&self.state);
        if self.kind != Kind::Datagram { s.bytes } else { s.inbox.front().map_or(0, |m| m.data.len()) }
    }
    /// Bytes that the peer has not read yet (SIOCOUTQ).
    pub fn unread_by_peer(&self) -> usize {
        let peer = lock(&self.state).peer.upgrade();
        peer.map_or(0, |p| lock(&p.state).bytes)
    }

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
        let server = Socket::new(&self.registry, to.family, self.kind, to.cred);
        let local = self.local();
        let (their_local, their_cred, options) = {
            let s = lock(&to.state);
            let local = if self.family == libc::AF_UNIX { s.local.clone() } else { at.reached() };
            (local, s.peer_cred, s.options)
        };
        {
            let mut s = lock(&server.state);
            s.local = their_local.seen_by(to.family);
            s.remote = local.seen_by(to.family);
            s.peer = Arc::downgrade(self);
            s.connected = true;
            s.peer_cred = cred;
            s.options.pass_cred = options.pass_cred;
            s.options.no_delay = options.no_delay;
        }
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
                let mut s = lock(&self.state);
                s.peer = Weak::new();
                s.connected = false;
                s.remote = Addr::default();
                Err(e)
            }
        }
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
                None => {
                    s.peer = Weak::new();
                    s.connected = false;
                    s.remote = Addr::default();
                }
            }
        }
        self.queue.wake_all();
        Ok(())
    }
    /// Whether a datagram socket takes messages of `from`: it is not connected to another.
    fn accepts(&self, from: &Arc<Socket>) -> bool {
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
    fn wake(&self) {
        self.queue.wake_all();
        self.room.wake_all();
    }
    fn receive_deadline(&self) -> Option<Instant> {
        self.options().receive_timeout.and_then(|t| Instant::now().checked_add(t))
    }
    fn send_deadline(&self) -> Option<Instant> {
        self.options().send_timeout.and_then(|t| Instant::now().checked_add(t))
    }

    /// Send. EPIPE is returned without a signal.
    pub fn send(self: &Arc<Self>, who: &dyn Blocking, mut m: Send<'_>) -> Result<usize> {
        let (peer, local, sndbuf) = {
            let mut s = lock(&self.state);
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            if s.shut & SND != 0 {
                return Err(Errno::EPIPE);
            }
            let peer = match m.to.take() {
                Some(t) => Some(t),
                None if !s.connected && self.kind == Kind::Datagram && self.family != libc::AF_UNIX => {
                    return Err(Errno::EDESTADDRREQ);
                }
                None if !s.connected && self.kind == Kind::Stream && self.family != libc::AF_UNIX => {
                    return Err(Errno::EPIPE);
                }
                None if !s.connected => return Err(Errno::ENOTCONN),
                None => s.peer.upgrade(),
            };
            (peer, s.local.clone(), s.sndbuf)
        };
        let udp = self.kind == Kind::Datagram && self.family != libc::AF_UNIX;
        let peer = if udp && peer.is_none() { self.registry.reached(self, &self.remote()?) } else { peer };
        let local = peer.as_ref().map_or(Addr::default(), |p| local.seen_by(p.family));
        let gone = if self.kind == Kind::Datagram { Errno::ECONNREFUSED } else { Errno::EPIPE };
        let peer = peer.filter(|p| self.kind != Kind::Datagram || !lock(&p.state).closed);
        let Some(peer) = peer else {
            if self.kind == Kind::Datagram && self.family == libc::AF_UNIX {
                // Its peer is gone: it is told once and has none from now on.
                let mut s = lock(&self.state);
                s.connected = false;
                s.peer = Weak::new();
            }
            if !udp {
                return self.sent_to_closed(m.data.len()).unwrap_or(Err(gone));
            }
            // The answer that nobody is there comes later, and only to who is connected.
            let mut s = lock(&self.state);
            if s.connected {
                s.error = Some(Errno::ECONNREFUSED);
                s.peer = Weak::new();
                drop(s);
                self.wake();
            }
            return Ok(m.data.len());
        };
        if self.kind == Kind::Datagram && self.family == libc::AF_UNIX && !peer.accepts(self) {
            return Err(if peer.kind == self.kind { Errno::EPERM } else { Errno::EPROTOTYPE });
        }
        let max = if self.family == libc::AF_UNIX { sndbuf.saturating_sub(32) } else { 65_507 };
        if self.kind != Kind::Stream && m.data.len() > max {
            return Err(Errno::EMSGSIZE);
        }
        // Streams wait on their own queue, which a reading peer wakes; datagram senders may be many.
        let queue = if self.kind == Kind::Datagram { &peer.room } else { &self.queue };
        let deadline = self.send_deadline();
        let mut done = 0;
        loop {
            let left = &m.data[done..];
            let mut attempt = || self.put(&peer, left, &local, &mut m.rights, m.cred, sndbuf);
            let r = match attempt() {
                Some(r) => r,
                None if m.nonblock => Err(Errno::EAGAIN),
                None => queue.wait(who, deadline, attempt).map_err(timed_out).and_then(|r| r),
            };
            match r {
                Ok(n) => {
                    done += n;
                    peer.queue.wake_all();
                    if self.kind != Kind::Stream || done == m.data.len() {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
    }
    /// TCP learns that its peer has closed from the answer to what it sent: the first time that is still a success.
    fn sent_to_closed(&self, len: usize) -> Option<Result<usize>> {
        let tcp = self.kind == Kind::Stream && self.family != libc::AF_UNIX;
        let first = tcp && !std::mem::replace(&mut lock(&self.state).reset, true);
        if first {
            self.wake();
        }
        first.then_some(Ok(len))
    }
    /// One message into the peer's inbox; `None` if there is no room.
    fn put(
        &self,
        peer: &Arc<Socket>,
        data: &[u8],
        local: &Addr,
        rights: &mut Vec<Arc<Description>>,
        cred: Cred,
        sndbuf: usize,
    ) -> Option<Result<usize>> {
        if lock(&self.state).shut & SND != 0 {
            return Some(Err(Errno::EPIPE));
        }
        let mut s = lock(&peer.state);
        if s.closed {
            drop(s);
            let error = if self.kind == Kind::Datagram { Errno::ECONNREFUSED } else { Errno::EPIPE };
            return Some(self.sent_to_closed(data.len()).unwrap_or(Err(error)));
        }
        if s.shut & RCV != 0 {
            return Some(match (self.kind, self.family) {
                (Kind::Datagram, libc::AF_UNIX) | (Kind::SeqPacket | Kind::Stream, _) => Err(Errno::EPIPE),
                (Kind::Datagram, _) => Ok(data.len()),
            });
        }
        let n = match self.kind {
            Kind::Stream => data.len().min(sndbuf.saturating_sub(s.bytes)),
            _ => data.len(),
        };
        match self.kind {
            Kind::Stream if n == 0 && !data.is_empty() => return None,
            Kind::Stream if data.is_empty() => return Some(Ok(0)),
            Kind::SeqPacket if s.bytes > 0 && s.bytes + n > sndbuf => return None,
            Kind::Datagram if self.family == libc::AF_UNIX && s.inbox.len() > DATAGRAMS => {
                return None;
            }
            // A full buffer loses packets.
            Kind::Datagram if self.family != libc::AF_UNIX && s.bytes + n > s.rcvbuf => {
                return Some(Ok(n));
            }
            _ => {}
        }
        s.bytes += n;
        if self.kind == Kind::Stream
            && rights.is_empty()
            && let Some(last) = s.inbox.back_mut()
            && last.cred == cred
            && last.data.len() + n <= JOIN
            && (last.rights.is_empty() || last.at > 0)
        {
            last.data.extend_from_slice(&data[..n]);
            return Some(Ok(n));
        }
        s.inbox.push_back(Message {
            data: data[..n].to_vec(),
            at: 0,
            from: local.clone(),
            rights: std::mem::take(rights),
            cred,
        });
        Some(Ok(n))
    }
    /// Receive into `buf`. `peek`: leave it there; `all`: wait until the buffer is full (streams).
    pub fn receive(
        &self,
        who: &dyn Blocking,
        buf: &mut [u8],
        nonblock: bool,
        peek: bool,
        all: bool,
    ) -> Result<Received> {
        let deadline = self.receive_deadline();
        let mut got = Received::default();
        loop {
            let attempt = || self.get(buf, peek, &mut got);
            let r = {
                let mut attempt = attempt;
                match attempt() {
                    Some(r) => r,
                    None if nonblock => Err(Errno::EAGAIN),
                    None => self.queue.wait(who, deadline, attempt).map_err(timed_out).and_then(|r| r),
                }
            };
            match r {
                Ok(more) => {
                    if !peek {
                        self.room.wake_all();
                        let peer = lock(&self.state).peer.upgrade();
                        if let Some(p) = peer {
                            p.queue.wake_all();
                        }
                    }
                    if !(more && all && self.kind == Kind::Stream && !peek && got.len < buf.len()) {
                        return Ok(got);
                    }
                }
                Err(_) if got.len > 0 => return Ok(got),
                Err(e) => return Err(e),
            }
        }
    }
    /// Take what is there; `Ok(false)` if no more will come. `None` if there is nothing yet.
    fn get(&self, buf: &mut [u8], peek: bool, got: &mut Received) -> Option<Result<bool>> {
        let mut s = lock(&self.state);
        if s.inbox.is_empty() {
            return match s.error.take() {
                Some(e) => Some(Err(e)),
                None if s.shut & RCV != 0 => Some(Ok(false)),
                None if self.kind == Kind::Stream && !s.connected => {
                    Some(Err(if self.family == libc::AF_UNIX { Errno::EINVAL } else { Errno::ENOTCONN }))
                }
                None if self.kind == Kind::SeqPacket && !s.connected => Some(Err(Errno::ENOTCONN)),
                None => None,
            };
        }
        if self.kind != Kind::Stream {
            let m = if peek { None } else { s.inbox.pop_front() };
            let m = match &m {
                Some(m) => {
                    s.bytes -= m.data.len();
                    m
                }
                None => s.inbox.front()?,
            };
            let n = m.data.len().min(buf.len());
            buf[..n].copy_from_slice(&m.data[..n]);
            *got =
                Received { len: n, full: m.data.len(), from: m.from.clone(), rights: m.rights.clone(), cred: m.cred };
            return Some(Ok(true));
        }
        let pass_cred = s.options.pass_cred;
        let mut i = 0;
        while got.len < buf.len() {
            let Some(m) = s.inbox.get_mut(i) else { break };
            if got.len > 0 && pass_cred && m.cred != got.cred {
                break; // do not join what different senders sent
            }
            let n = (m.data.len() - m.at).min(buf.len() - got.len);
            buf[got.len..got.len + n].copy_from_slice(&m.data[m.at..m.at + n]);
            got.len += n;
            got.cred = m.cred;
            got.from = m.from.clone();
            let rights = if peek { m.rights.clone() } else { std::mem::take(&mut m.rights) };
            let stop = !rights.is_empty();
            got.rights.extend(rights);
            if peek {
                i += 1;
            } else {
                m.at += n;
                let empty = m.at == m.data.len();
                s.bytes -= n;
                if empty {
                    s.inbox.pop_front();
                }
            }
            if stop {
                break;
            }
        }
        got.full = got.len;
        Some(Ok(true))
    }
    /// The last descriptor was closed.
    fn close(&self) {
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
    fn poll(&self) -> Ready {
        let s = lock(&self.state);
        let mut r = Ready::empty();
        let pending = s.listening.as_ref().is_some_and(|b| !b.pending.is_empty());
        r.set(Ready::IN, !s.inbox.is_empty() || s.shut & RCV != 0 || pending);
        r.set(Ready::RDHUP, s.shut & RCV != 0);
        r.set(Ready::ERR, s.error.is_some());
        let connection = self.kind != Kind::Datagram;
        r.set(Ready::HUP, s.shut == RCV | SND || connection && !s.connected && s.listening.is_none());
        let (peer, sndbuf, listening, connected) = (s.peer.upgrade(), s.sndbuf, s.listening.is_some(), s.connected);
        drop(s);
        let there = peer.map(|p| {
            let s = lock(&p.state);
            (s.bytes, s.inbox.len())
        });
        let room = match there {
            Some((b, _)) if connected && connection => b * 4 <= sndbuf,
            Some((_, n)) if connected && self.family == libc::AF_UNIX => n <= DATAGRAMS,
            _ => true,
        };
        r.set(Ready::OUT, room && !listening);
        r.set(Ready::WRBAND, room && !listening && self.family == libc::AF_UNIX);
        r.with_norm()
    }
}

/// The error of a wait that may have had an end (SO_RCVTIMEO, SO_SNDTIMEO).
fn timed_out(e: Errno) -> Errno {
    if e == Errno::ETIMEDOUT { Errno::EAGAIN } else { e }
}

/// What a description of a socket refers to: closing it closes the socket.
pub struct Handle(pub Arc<Socket>);

impl File for Handle {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        self.0.receive(who, buf, nonblock, false, false).map(|r| r.len)
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        self.0.send(who, Send { data: buf, nonblock, cred: self.0.cred, ..Send::default() })
    }
    fn stat(&self) -> Result<Stat> {
        Ok(anon_stat(libc::S_IFSOCK | 0o777, self.0.ino))
    }
    fn poll(&self) -> Ready {
        self.0.poll()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        Some(&self.0.queue)
    }
    fn ioctl(&self, _who: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        let n = match cmd {
            linux_raw_sys::ioctl::FIONREAD if self.0.is_listening() => return Err(Errno::EINVAL),
            linux_raw_sys::ioctl::FIONREAD => self.0.readable_bytes(),
            linux_raw_sys::ioctl::TIOCOUTQ => self.0.unread_by_peer(),
            c if interface::KNOWN.contains(&c) => return interface::ioctl(mem, c, arg),
            _ => return Err(Errno::ENOTTY),
        };
        mem.write(arg, n as u32)?;
        Ok(0)
    }
    fn release(&self) {
        self.0.close();
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The socket of a description; ENOTSOCK.
pub fn of(d: &Description) -> Result<&Arc<Socket>> {
    d.file.as_any().downcast_ref::<Handle>().map(|h| &h.0).ok_or(Errno::ENOTSOCK)
}
