//! Sending and receiving.
//!
//! Whoever sends puts a message into the receiver's inbox, and waits while that has no room: a stream and a sequence of packets has
//! room for as many bytes as the sender's buffer has, a datagram socket of AF_UNIX for so many messages. UDP never waits: what
//! finds no room is lost.

use super::options::timed_out;
use super::packet::Packet;
use super::{Addr, Cred, Kind, RCV, SND, Socket};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::lock;
use crate::wait::Blocking;
use std::sync::{Arc, Weak};

/// How many datagrams wait at most.
pub(super) const DATAGRAMS: usize = 10;
/// Messages of a stream are joined up to this size.
const JOIN: usize = 16 * 1024;

/// What was sent and not read yet.
pub(super) struct Message {
    pub(super) data: Vec<u8>,
    /// What of it was read (streams).
    pub(super) at: usize,
    pub(super) from: Addr,
    pub(super) rights: Vec<Arc<Description>>,
    pub(super) cred: Cred,
    pub(super) packet: Packet,
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
    /// Datagrams of IP: what their headers say.
    pub packet: Packet,
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
    /// What the headers of a datagram of IP said.
    pub packet: Packet,
}

impl Socket {
    /// Send. EPIPE is returned without a signal.
    pub fn send(self: &Arc<Self>, who: &dyn Blocking, mut m: Send<'_>) -> Result<usize> {
        let (peer, local, sndbuf) = self.receiver(m.to.take())?;
        let Some(peer) = peer else { return self.sent_to_nobody(m.data.len()) };
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
            let mut attempt = || self.put(&peer, left, &local, &mut m.rights, (m.cred, m.packet), sndbuf);
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
    /// Whom a message goes to, if that is still there; the address that the receiver sees, and the size of the own buffer.
    fn receiver(self: &Arc<Self>, to: Option<Arc<Socket>>) -> Result<(Option<Arc<Socket>>, Addr, usize)> {
        let (peer, local, sndbuf) = {
            let mut s = lock(&self.state);
            if let Some(e) = s.error.take() {
                return Err(e);
            }
            if s.shut & SND != 0 {
                return Err(Errno::EPIPE);
            }
            let inet = self.family != libc::AF_UNIX;
            let peer = match to {
                Some(t) => Some(t),
                None if s.connected => s.peer.upgrade(),
                None if self.kind == Kind::Datagram && inet => return Err(Errno::EDESTADDRREQ),
                None if self.kind == Kind::Stream && inet => return Err(Errno::EPIPE),
                None => return Err(Errno::ENOTCONN),
            };
            (peer, s.local.clone(), s.sndbuf)
        };
        let peer = if self.is_udp() && peer.is_none() { self.registry.reached(self, &self.remote()?) } else { peer };
        let local = peer.as_ref().map_or(Addr::default(), |p| local.seen_by(p.family));
        let peer = peer.filter(|p| self.kind != Kind::Datagram || !lock(&p.state).closed);
        Ok((peer, local, sndbuf))
    }
    fn is_udp(&self) -> bool {
        self.kind == Kind::Datagram && self.family != libc::AF_UNIX
    }
    /// What comes of a message of `len` bytes that nobody is there for.
    fn sent_to_nobody(&self, len: usize) -> Result<usize> {
        if self.is_udp() {
            // The answer that nobody is there comes later, and only to who is connected.
            let mut s = lock(&self.state);
            if s.connected {
                s.error = Some(Errno::ECONNREFUSED);
                s.peer = Weak::new();
                drop(s);
                self.wake();
            }
            return Ok(len);
        }
        if self.kind == Kind::Datagram {
            // Its peer is gone: it is told once and has none from now on.
            let mut s = lock(&self.state);
            s.connected = false;
            s.peer = Weak::new();
        }
        self.sent_to_closed(len)
    }
    /// A message of `len` bytes to a peer that has closed. TCP learns of that from the answer to what it sent: the first time is still a
    /// success.
    fn sent_to_closed(&self, len: usize) -> Result<usize> {
        let tcp = self.kind == Kind::Stream && self.family != libc::AF_UNIX;
        let first = tcp && !std::mem::replace(&mut lock(&self.state).reset, true);
        if first {
            self.wake();
            return Ok(len);
        }
        Err(if self.kind == Kind::Datagram { Errno::ECONNREFUSED } else { Errno::EPIPE })
    }
    /// One message into the peer's inbox; `None` if there is no room.
    fn put(
        &self,
        peer: &Arc<Socket>,
        data: &[u8],
        local: &Addr,
        rights: &mut Vec<Arc<Description>>,
        (cred, packet): (Cred, Packet),
        sndbuf: usize,
    ) -> Option<Result<usize>> {
        if lock(&self.state).shut & SND != 0 {
            return Some(Err(Errno::EPIPE));
        }
        let mut s = lock(&peer.state);
        if s.closed {
            drop(s);
            return Some(self.sent_to_closed(data.len()));
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
            packet,
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
            *got = Received {
                len: n,
                full: m.data.len(),
                from: m.from.clone(),
                rights: m.rights.clone(),
                cred: m.cred,
                packet: m.packet,
            };
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
}
