//! Sockets inside a job: AF_UNIX, and AF_INET/AF_INET6 over a loopback that only the job's own processes are on.
//!
//! No socket of the host is ever opened. A socket has an inbox; sending puts a message into the receiver's. Stream sockets
//! cut and join messages as they like, the others keep them.
//!
//! Here is a socket's state; [`connect`] is how it gets a name and a peer and loses them, [`message`] what goes between, [`options`] what is
//! set on it, [`handle`] the open file, [`netlink`] the one socket that the kernel answers.
//!
//! Locking: one socket's state is locked at a time, never two; queues are woken, and descriptions in flight dropped, with none.

mod addr;
mod connect;
mod handle;
mod interface;
mod message;
mod netlink;
mod options;
pub mod packet;
mod registry;
#[cfg(test)]
mod tests;

pub use addr::{Addr, Key, Parsed};
pub use handle::{Handle, of};
pub use message::{Received, Send};
pub use netlink::address as netlink_addr;
pub use options::{BUFFER, Options};
pub use registry::Registry;

use super::{lock, new_ino};
use crate::errno::{Errno, Result};
use crate::wait::WaitQueue;
use message::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

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

/// A socket.
pub struct Socket {
    /// AF_UNIX, AF_INET or AF_INET6.
    pub family: i32,
    /// Type.
    pub kind: Kind,
    /// Protocol: 0 of AF_UNIX. UDP-Lite is UDP with other ports, as no checksum is ever wrong here.
    pub protocol: i32,
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

impl Socket {
    /// A socket that is neither bound nor connected.
    pub fn new(registry: &Arc<Registry>, family: i32, kind: Kind, cred: Cred) -> Arc<Socket> {
        Socket::with_protocol(registry, family, kind, 0, cred)
    }
    /// As [`new`](Self::new), of a protocol; 0 is the usual one.
    pub fn with_protocol(registry: &Arc<Registry>, family: i32, kind: Kind, protocol: i32, cred: Cred) -> Arc<Socket> {
        let protocol = match (family, kind, protocol) {
            (libc::AF_INET | libc::AF_INET6, Kind::Stream, 0) => libc::IPPROTO_TCP,
            (libc::AF_INET | libc::AF_INET6, _, 0) => libc::IPPROTO_UDP,
            (libc::AF_UNIX, ..) => 0,
            (_, _, p) => p,
        };
        Arc::new(Socket {
            family,
            kind,
            protocol,
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
    fn wake(&self) {
        self.queue.wake_all();
        self.room.wake_all();
    }
}
