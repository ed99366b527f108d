//! Sending and receiving messages, with descriptors and credentials beside the bytes.

use super::readwrite::{Part, gather, iovec, scatter, total, with_buffer};
use super::signal_epipe;
use super::socket::{autobind, cred, find, get_addr, named, put_addr};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::socket::packet::Packet;
use crate::io::socket::{self, Addr, Cred, Kind, Received, Send, Socket};
use crate::task::Task;
use std::sync::Arc;
use std::time::Instant;

/// Largest transfer of one call.
const MAX: u64 = 1 << 20;
/// Most descriptors in one message.
const SCM_MAX_FD: usize = 253;
const KNOWN: i32 = libc::MSG_DONTWAIT
    | libc::MSG_NOSIGNAL
    | libc::MSG_MORE
    | libc::MSG_EOR
    | libc::MSG_CONFIRM
    | libc::MSG_DONTROUTE
    | libc::MSG_PEEK
    | libc::MSG_TRUNC
    | libc::MSG_WAITALL
    | libc::MSG_CMSG_CLOEXEC
    | libc::MSG_WAITFORONE
    | libc::MSG_FASTOPEN;

/// `struct msghdr` in guest memory.
struct Header {
    at: u64,
    name: u64,
    name_len: u32,
    parts: Vec<Part>,
    control: u64,
    control_len: u64,
}

impl Header {
    fn read(task: &Task, at: u64) -> Result<Header> {
        let mut b = [0u8; 56];
        task.mem().copy_out(at, &mut b)?;
        let word = |i: usize| b[i..].first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
        if word(24) > 1024 {
            return Err(Errno::EMSGSIZE);
        }
        Ok(Header {
            at,
            name: word(0),
            name_len: word(8) as u32,
            parts: iovec(task, word(16), word(24))?,
            control: word(32),
            control_len: word(40),
        })
    }
}

/// The control messages of a send; those of IP change `packet`.
fn controls(task: &Task, h: &Header, own: Cred, packet: &mut Packet) -> Result<(Vec<Arc<Description>>, Cred)> {
    let (mut rights, mut sender) = (Vec::new(), own);
    if h.control == 0 || h.control_len == 0 {
        return Ok((rights, sender));
    }
    if h.control_len > 1 << 16 {
        return Err(Errno::ENOBUFS);
    }
    let mut all = vec![0u8; h.control_len as usize];
    task.mem().copy_out(h.control, &mut all)?;
    let mut rest = &all[..];
    while rest.len() >= 16 {
        let word = |i: usize| rest[i..].first_chunk().map_or(0, |w| i32::from_le_bytes(*w));
        let len = rest.first_chunk().map_or(0, |w| u64::from_le_bytes(*w));
        let Some(data) = usize::try_from(len).ok().filter(|n| *n >= 16).and_then(|n| rest.get(16..n)) else {
            return Err(Errno::EINVAL);
        };
        match (word(8), word(12)) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                for fd in data.chunks_exact(4) {
                    rights.push(task.fds().get(i32::from_le_bytes([fd[0], fd[1], fd[2], fd[3]]))?);
                }
                if rights.len() > SCM_MAX_FD {
                    return Err(Errno::EINVAL);
                }
            }
            (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) => {
                let n = |i: usize| data.get(i..i + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                let (Some(pid), Some(uid), Some(gid)) = (n(0), n(4), n(8)) else {
                    return Err(Errno::EINVAL);
                };
                sender = Cred { pid: pid as i32, uid, gid };
                let c = task.process.credentials();
                let mine = [c.uid, c.euid, c.suid].contains(&uid)
                    && [c.gid, c.egid, c.sgid].contains(&gid)
                    && sender.pid == own.pid;
                if !mine && c.euid != 0 {
                    return Err(Errno::EPERM);
                }
            }
            (libc::SOL_SOCKET, _) => return Err(Errno::EINVAL),
            (level, kind) => packet.control(level, kind, data)?,
        }
        rest = rest.get((len as usize).next_multiple_of(8)..).unwrap_or_default();
    }
    Ok((rights, sender))
}

/// One message.
fn send(
    task: &Task,
    d: &Description,
    parts: &[Part],
    to: Option<Addr>,
    control: Option<&Header>,
    flags: i32,
) -> Result<u64> {
    let s = socket::of(d)?;
    if flags & libc::MSG_OOB != 0 || flags & !KNOWN & !libc::MSG_OOB != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if s.family == libc::AF_NETLINK {
        let mut b = vec![0u8; total(parts).min(4096) as usize];
        gather(task, parts, &mut b)?;
        return s.ask_netlink(&b, task.pid()).map(|()| total(parts));
    }
    let len = total(parts);
    let most = if s.family == libc::AF_UNIX { s.buffers().0.saturating_sub(32) as u64 } else { 65_507 };
    if len > most && s.kind != Kind::Stream {
        return Err(Errno::EMSGSIZE);
    }
    let to = match to {
        // A connection of packets or of TCP ignores the address.
        Some(_) if s.kind == Kind::SeqPacket || s.kind == Kind::Stream && s.family != libc::AF_UNIX => None,
        Some(_) if s.kind != Kind::Datagram => {
            return Err(if s.remote().is_ok() { Errno::EISCONN } else { Errno::EOPNOTSUPP });
        }
        Some(a) => match find(task, s, &a)? {
            Some(t) => Some(t),
            None => return Ok(total(parts)), // a packet to nobody
        },
        None => None,
    };
    if s.kind == Kind::Datagram && s.family != libc::AF_UNIX {
        autobind(task, s)?;
    }
    let own = cred(task);
    let mut packet = Packet::of(s);
    let (rights, sender) = match control {
        Some(h) => controls(task, h, own, &mut packet)?,
        None => (Vec::new(), own),
    };
    let nonblock = d.nonblock() || flags & libc::MSG_DONTWAIT != 0;
    let r = transfer(task, s, parts, Send { to, rights, cred: sender, packet, nonblock, data: &[] });
    if flags & libc::MSG_NOSIGNAL != 0 { r } else { signal_epipe(task, r) }
}

/// Send in pieces of at most [`MAX`]; only a stream needs more than one.
fn transfer(task: &Task, s: &Arc<Socket>, parts: &[Part], mut m: Send<'_>) -> Result<u64> {
    if total(parts) <= MAX {
        return with_buffer(total(parts) as usize, |b| {
            gather(task, parts, b)?;
            s.send(task, Send { data: b, ..m }).map(|n| n as u64)
        });
    }
    let mut done = 0;
    for (addr, len) in parts {
        let mut at = 0;
        while at < *len {
            let n = (*len - at).min(MAX);
            let r = with_buffer(n as usize, |b| {
                task.mem().copy_out(addr + at, b)?;
                let rights = std::mem::take(&mut m.rights);
                s.send(task, Send { to: None, rights, cred: m.cred, packet: m.packet, nonblock: m.nonblock, data: b })
            });
            match r {
                Ok(k) => {
                    at += k as u64;
                    done += k as u64;
                    if (k as u64) < n {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
    }
    Ok(done)
}

pub(super) fn sendto(task: &mut Task, [fd, buf, len, flags, addr, addr_len]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?;
    let to = if addr == 0 { None } else { Some(get_addr(task, addr, addr_len)?) };
    send(task, &d, &[(buf, len.min(0x7fff_f000))], to, None, flags as i32)
}

fn send_header(task: &Task, d: &Description, at: u64, flags: i32) -> Result<u64> {
    let h = Header::read(task, at)?;
    let to = if h.name == 0 || h.name_len == 0 { None } else { Some(get_addr(task, h.name, u64::from(h.name_len))?) };
    send(task, d, &h.parts, to, Some(&h), flags)
}

pub(super) fn sendmsg(task: &mut Task, [fd, msg, flags, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?;
    send_header(task, &d, msg, flags as i32)
}

pub(super) fn sendmmsg(task: &mut Task, [fd, msgs, n, flags, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?;
    let n = (n as u32).min(1024);
    for i in 0..n {
        let at = msgs.wrapping_add(u64::from(i) * 64);
        match send_header(task, &d, at, flags as i32) {
            Ok(k) => task.mem().write(at.wrapping_add(56), k as u32)?,
            Err(_) if i > 0 => return Ok(u64::from(i)),
            Err(e) => return Err(e),
        }
    }
    Ok(u64::from(n))
}

fn receive(task: &Task, d: &Description, parts: &[Part], flags: i32) -> Result<Received> {
    let s = socket::of(d)?;
    if flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) != 0 {
        return Err(if flags & libc::MSG_OOB != 0 { Errno::EINVAL } else { Errno::EAGAIN });
    }
    if let Some((a, _)) = parts.first() {
        task.mem().read::<u8>(*a)?; // before something is taken out
    }
    let nonblock = d.nonblock() || flags & libc::MSG_DONTWAIT != 0;
    let (peek, all) = (flags & libc::MSG_PEEK != 0, flags & libc::MSG_WAITALL != 0);
    with_buffer(total(parts).min(MAX) as usize, |b| {
        let r = s.receive(task, b, nonblock, peek, all)?;
        scatter(task, parts, &b[..r.len])?;
        Ok(r)
    })
}

/// What the call returns: with MSG_TRUNC the length of the whole message.
fn length(s: &Socket, r: &Received, flags: i32) -> u64 {
    if flags & libc::MSG_TRUNC != 0 && s.kind != Kind::Stream { r.full as u64 } else { r.len as u64 }
}

pub(super) fn recvfrom(task: &mut Task, [fd, buf, len, flags, addr, lenp]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let r = receive(task, &d, &[(buf, len.min(0x7fff_f000))], flags as i32)?;
    put_sender(task, s, &r, addr, lenp)?;
    Ok(length(s, &r, flags as i32))
}

/// Whether the address that a message is from is shown: not that of a sender without a name, nor that of a TCP connection.
fn shows_sender(s: &Socket, r: &Received) -> bool {
    (s.kind == Kind::Datagram || s.family == libc::AF_UNIX) && !r.from.0.is_empty()
}

fn put_sender(task: &Task, s: &Socket, r: &Received, addr: u64, lenp: u64) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    if !shows_sender(s, r) {
        return Ok(task.mem().write(lenp, 0u32)?);
    }
    put_addr(task, &r.from, s.family, addr, lenp)
}

fn recv_header(task: &Task, d: &Description, at: u64, flags: i32) -> Result<u64> {
    let s = socket::of(d)?;
    let h = Header::read(task, at)?;
    let mut r = receive(task, d, &h.parts, flags)?;
    let mem = task.mem();
    let mut out = flags & libc::MSG_CMSG_CLOEXEC;
    if r.full > r.len {
        out |= libc::MSG_TRUNC;
    }
    if h.name != 0 {
        let a = if shows_sender(s, &r) { named(&r.from, s.family) } else { Addr::default() };
        mem.copy_in(h.name, &a.0[..a.0.len().min(h.name_len as usize)])?;
        mem.write(h.at + 8, a.0.len() as u32)?;
    }
    let mut c =
        ControlOut { task, at: h.control, left: if h.control == 0 { 0 } else { h.control_len }, used: 0, cut: false };
    if s.options().pass_cred {
        let b = [r.cred.pid.to_le_bytes(), r.cred.uid.to_le_bytes(), r.cred.gid.to_le_bytes()].concat();
        c.put(libc::SOL_SOCKET, libc::SCM_CREDENTIALS, &b)?;
    }
    if s.kind == Kind::Datagram {
        c.put_packet(s, &r)?;
    }
    let rights = std::mem::take(&mut r.rights);
    c.put_rights(rights, flags & libc::MSG_CMSG_CLOEXEC != 0)?;
    if c.cut {
        out |= libc::MSG_CTRUNC;
    }
    mem.write(h.at + 40, c.used)?;
    mem.write(h.at + 48, out)?;
    Ok(length(s, &r, flags))
}

/// Writes control messages.
struct ControlOut<'a> {
    task: &'a Task,
    at: u64,
    left: u64,
    used: u64,
    cut: bool,
}

impl ControlOut<'_> {
    fn put(&mut self, level: i32, kind: i32, data: &[u8]) -> Result<()> {
        if self.left < 16 {
            self.cut = true;
            return Ok(());
        }
        let full = 16 + data.len() as u64;
        self.cut |= full > self.left;
        let len = full.min(self.left);
        let mem = self.task.mem();
        mem.write(self.at, len)?;
        mem.write(self.at + 8, level)?;
        mem.write(self.at + 12, kind)?;
        mem.copy_in(self.at + 16, &data[..(len - 16) as usize])?;
        let step = len.next_multiple_of(8).min(self.left);
        self.at += step;
        self.left -= step;
        self.used += step;
        Ok(())
    }
    /// Install as many descriptors as there is room for; the rest is closed.
    fn put_rights(&mut self, rights: Vec<Arc<Description>>, cloexec: bool) -> Result<()> {
        if rights.is_empty() {
            return Ok(());
        }
        let room = (self.left.saturating_sub(16) / 4) as usize;
        let mut fds = Vec::new();
        for d in rights {
            if fds.len() == room * 4 {
                self.cut = true;
                break;
            }
            match self.task.fds().insert(d, cloexec) {
                Ok(n) => fds.extend_from_slice(&n.to_le_bytes()),
                Err(_) => {
                    self.cut = true;
                    break;
                }
            }
        }
        if fds.is_empty() { Ok(()) } else { self.put(libc::SOL_SOCKET, libc::SCM_RIGHTS, &fds) }
    }
    /// What the receiver of a datagram asked to be told of it: it came from `lo`, and the hops and class that it was sent with.
    fn put_packet(&mut self, s: &Socket, r: &Received) -> Result<()> {
        let asked = |level, name| s.kept(level, name).is_some_and(|v| v != 0);
        let lo = 1u32.to_le_bytes();
        let hops = i32::from(r.packet.hops).to_le_bytes();
        let six = r.from.family() == libc::AF_INET6 && r.from.v4().is_none();
        let to = match (s.local().reached(), r.from.v4()) {
            // Bound to all addresses of both families.
            (to, Some(_)) if to.v4().is_none() => [127, 0, 0, 1],
            (to, _) => to.v4().unwrap_or_default(),
        };
        if s.family == libc::AF_INET6 {
            let ip = match s.local().reached().0.get(8..24) {
                Some(ip) if six => ip.to_vec(),
                _ => [&[0; 10][..], &[0xff; 2], &to].concat(),
            };
            if asked(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) {
                self.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &[&ip[..], &lo].concat())?;
            }
            if six && asked(libc::IPPROTO_IPV6, libc::IPV6_RECVHOPLIMIT) {
                self.put(libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT, &hops)?;
            }
            if six && asked(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS) {
                self.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &i32::from(r.packet.class).to_le_bytes())?;
            }
        }
        if s.family == libc::AF_UNIX || six {
            return Ok(());
        }
        if asked(libc::IPPROTO_IP, libc::IP_PKTINFO) {
            self.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &[lo, to, to].concat())?;
        }
        if asked(libc::IPPROTO_IP, libc::IP_RECVTTL) {
            self.put(libc::IPPROTO_IP, libc::IP_TTL, &hops)?;
        }
        if asked(libc::IPPROTO_IP, libc::IP_RECVTOS) {
            self.put(libc::IPPROTO_IP, libc::IP_TOS, &[r.packet.class])?;
        }
        Ok(())
    }
}

pub(super) fn recvmsg(task: &mut Task, [fd, msg, flags, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?;
    recv_header(task, &d, msg, flags as i32)
}

pub(super) fn recvmmsg(task: &mut Task, [fd, msgs, n, flags, timeout, _]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?;
    let until = super::waiting::time(task, timeout, 1)?.and_then(|t| Instant::now().checked_add(t));
    let n = (n as u32).min(1024);
    let mut flags = flags as i32;
    for i in 0..n {
        let at = msgs.wrapping_add(u64::from(i) * 64);
        match recv_header(task, &d, at, flags & !libc::MSG_WAITFORONE) {
            Ok(k) => task.mem().write(at.wrapping_add(56), k as u32)?,
            Err(_) if i > 0 => return Ok(u64::from(i)),
            Err(e) => return Err(e),
        }
        if flags & libc::MSG_WAITFORONE != 0 {
            flags |= libc::MSG_DONTWAIT;
        }
        // As in Linux, the time is looked at after each message only.
        if until.is_some_and(|t| t <= Instant::now()) {
            return Ok(u64::from(i + 1));
        }
    }
    Ok(u64::from(n))
}
