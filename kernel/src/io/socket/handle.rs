//! Sockets as open files.

use super::message::DATAGRAMS;
use super::packet::Packet;
use super::{Kind, RCV, SND, Send, Socket, interface};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::io::{anon_stat, lock};
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use std::any::Any;
use std::sync::Arc;

/// What a description of a socket refers to: closing it closes the socket.
pub struct Handle(pub Arc<Socket>);

impl File for Handle {
    fn read(&self, who: &dyn Blocking, _pos: u64, buf: &mut [u8], nonblock: bool) -> Result<usize> {
        self.0.receive(who, buf, nonblock, false, false).map(|r| r.len)
    }
    fn write(&self, who: &dyn Blocking, _pos: u64, buf: &[u8], nonblock: bool) -> Result<usize> {
        self.0
            .send(who, Send { data: buf, nonblock, cred: self.0.cred, packet: Packet::of(&self.0), ..Send::default() })
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

impl Socket {
    /// As an open file description; `flags`: O_NONBLOCK.
    pub fn describe(self: &Arc<Self>, flags: u32) -> Arc<Description> {
        let keep = flags & libc::O_NONBLOCK as u32 | libc::O_RDWR as u32;
        Description::new(Arc::new(Handle(self.clone())), keep, format!("socket:[{}]", self.ino))
    }
    pub(super) fn poll(&self) -> Ready {
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

/// The socket of a description; ENOTSOCK.
pub fn of(d: &Description) -> Result<&Arc<Socket>> {
    d.file.as_any().downcast_ref::<Handle>().map(|h| &h.0).ok_or(Errno::ENOTSOCK)
}
