//! Making and connecting sockets.
//!
//! AF_UNIX, AF_INET/AF_INET6 as on a machine that has only its loopback (other addresses are ENETUNREACH), and AF_NETLINK for
//! questions about interfaces and addresses. Every other family is EAFNOSUPPORT.

use super::control::insert_pair;
use crate::errno::{Errno, Result};
use crate::io::socket::{self, Addr, Cred, Key, Kind, Parsed, Socket};
use crate::task::Task;
use std::sync::Arc;

const FLAGS: i32 = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
/// Ports that the kernel chooses.
const EPHEMERAL: (u32, u32) = (32768, 60999);

/// The caller's credentials.
pub(super) fn cred(task: &Task) -> Cred {
    let c = task.process.credentials();
    Cred { pid: task.pid(), uid: c.euid, gid: c.egid }
}

/// Type and protocol of a new socket.
fn checked(domain: i32, kind: i32, protocol: i32) -> Result<Kind> {
    match domain {
        libc::AF_UNIX => {
            if protocol != 0 && protocol != libc::AF_UNIX {
                return Err(Errno::EPROTONOSUPPORT);
            }
            match kind & !FLAGS {
                libc::SOCK_RAW => Ok(Kind::Datagram),
                k => Kind::new(k).ok_or(Errno::ESOCKTNOSUPPORT),
            }
        }
        libc::AF_INET | libc::AF_INET6 => match (kind & !FLAGS, protocol) {
            (libc::SOCK_STREAM, 0 | libc::IPPROTO_TCP) => Ok(Kind::Stream),
            (libc::SOCK_DGRAM, 0 | libc::IPPROTO_UDP | libc::IPPROTO_UDPLITE) => Ok(Kind::Datagram),
            (libc::SOCK_STREAM | libc::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
            (libc::SOCK_RAW, _) => Err(Errno::EPERM),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        libc::AF_NETLINK => match (kind & !FLAGS, protocol) {
            (libc::SOCK_RAW | libc::SOCK_DGRAM, libc::NETLINK_ROUTE) => Ok(Kind::Datagram),
            (libc::SOCK_RAW | libc::SOCK_DGRAM, _) => Err(Errno::EPROTONOSUPPORT),
            _ => Err(Errno::ESOCKTNOSUPPORT),
        },
        _ => Err(Errno::EAFNOSUPPORT),
    }
}

fn insert(task: &Task, s: &Arc<Socket>, flags: i32) -> Result<u64> {
    let d = s.describe((flags & libc::SOCK_NONBLOCK) as u32);
    task.fds().insert(d, flags & libc::SOCK_CLOEXEC != 0).map(|n| n as u64)
}

pub(super) fn socket(task: &mut Task, [domain, kind, protocol, ..]: [u64; 6]) -> Result<u64> {
    let (domain, kind) = (domain as i32, kind as i32);
    if kind & !(FLAGS | 0xf) != 0 {
        return Err(Errno::EINVAL);
    }
    let k = checked(domain, kind, protocol as i32)?;
    let s = Socket::with_protocol(&task.kernel().io.sockets, domain, k, protocol as i32, cred(task));
    insert(task, &s, kind)
}

pub(super) fn socketpair(task: &mut Task, [domain, kind, protocol, out, ..]: [u64; 6]) -> Result<u64> {
    let (domain, kind) = (domain as i32, kind as i32);
    if kind & !(FLAGS | 0xf) != 0 {
        return Err(Errno::EINVAL);
    }
    let k = checked(domain, kind, protocol as i32)?;
    if domain != libc::AF_UNIX {
        return Err(Errno::EOPNOTSUPP);
    }
    let (a, b) = Socket::pair(&task.kernel().io.sockets, k, cred(task));
    let nb = (kind & libc::SOCK_NONBLOCK) as u32;
    let cloexec = if kind & libc::SOCK_CLOEXEC != 0 { libc::O_CLOEXEC as u64 } else { 0 };
    insert_pair(task, out, a.describe(nb), b.describe(nb), cloexec)
}

/// Read an address argument.
pub(super) fn get_addr(task: &Task, addr: u64, len: u64) -> Result<Addr> {
    let len = len as i32;
    if !(0..=128).contains(&len) {
        return Err(Errno::EINVAL);
    }
    let mut v = vec![0; len as usize];
    task.mem().copy_out(addr, &mut v)?;
    Ok(Addr(v))
}

/// Write an address (cut to the length in the variable at `lenp`) and its full length. Nothing if `addr` is 0.
pub(super) fn put_addr(task: &Task, a: &Addr, family: i32, addr: u64, lenp: u64) -> Result<()> {
    if addr == 0 {
        return Ok(());
    }
    let room = task.mem().read::<i32>(lenp)?;
    let room = usize::try_from(room).map_err(|_| Errno::EINVAL)?;
    let full = named(a, family);
    task.mem().copy_in(addr, &full.0[..full.0.len().min(room)])?;
    Ok(task.mem().write(lenp, full.0.len() as u32)?)
}

/// As [`put_addr`], for calls whose only result is the address: it has to go somewhere, unless its length says that nothing is wanted.
fn put_name(task: &Task, a: &Addr, family: i32, addr: u64, lenp: u64) -> Result<u64> {
    if addr == 0 && task.mem().read::<i32>(lenp)? > 0 {
        return Err(Errno::EFAULT);
    }
    if addr == 0 {
        let full = named(a, family).0.len() as u32;
        task.mem().write(lenp, full)?;
        return Ok(0);
    }
    put_addr(task, a, family, addr, lenp).map(|()| 0)
}

/// An address for the guest: one that there is not shows as the family only.
pub(super) fn named(a: &Addr, family: i32) -> Addr {
    match (a.0.is_empty(), family) {
        (true, libc::AF_UNIX) => Addr::unix(b""),
        (true, libc::AF_NETLINK) => socket::netlink_addr(0),
        (true, f) => Addr::inet(f, true, 0),
        (false, libc::AF_UNIX) if a.0.get(2).is_some_and(|c| *c != 0) => Addr([&a.0[..], &[0]].concat()),
        _ => a.clone(),
    }
}

fn port_key(s: &Socket, port: u16) -> Key {
    Key::Port { protocol: s.protocol, six: s.family == libc::AF_INET6, port }
}

/// Give a socket a name of the kernel's choice if it has none.
pub(super) fn autobind(task: &Task, s: &Arc<Socket>) -> Result<()> {
    if s.is_bound() {
        return Ok(());
    }
    let reg = &task.kernel().io.sockets;
    if s.family == libc::AF_UNIX {
        let name = |n: u32| format!("{n:05x}").into_bytes();
        let n = reg.free_number(0, 0xf_ffff, |n| Key::Abstract(name(n)))?;
        return s.bind(Key::Abstract(name(n)), Addr::unix(&[&[0], &name(n)[..]].concat()));
    }
    let port = reg.free_number(EPHEMERAL.0, EPHEMERAL.1, |n| port_key(s, n as u16))? as u16;
    s.bind(port_key(s, port), Addr::inet(s.family, false, port))
}

pub(super) fn bind(task: &mut Task, [fd, addr, len, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let a = get_addr(task, addr, len)?;
    if s.family == libc::AF_NETLINK {
        return s.bind_netlink(&a, task.pid()).map(|()| 0);
    }
    match a.parse(s.family)? {
        Parsed::Unspec => return Err(Errno::EINVAL),
        Parsed::Unnamed if s.is_bound() => return Err(Errno::EINVAL),
        Parsed::Unnamed => autobind(task, s)?,
        Parsed::Abstract(name) => s.bind(Key::Abstract(name), a)?,
        Parsed::Path(path) => {
            if s.is_bound() {
                return Err(Errno::EINVAL);
            }
            let key = super::names::make_socket(task, &path)?;
            s.bind(key, Addr::unix(&path))?;
        }
        Parsed::Inet { local: false, .. } => return Err(Errno::EADDRNOTAVAIL),
        Parsed::Inet { port: 0, .. } => {
            let reg = &task.kernel().io.sockets;
            let port = reg.free_number(EPHEMERAL.0, EPHEMERAL.1, |n| port_key(s, n as u16))? as u16;
            s.bind(port_key(s, port), with_port(&a, port))?;
        }
        Parsed::Inet { port, .. } if port < 1024 && task.process.credentials().euid != 0 => {
            return Err(Errno::EACCES);
        }
        Parsed::Inet { port, .. } => s.bind(port_key(s, port), a)?,
    }
    Ok(0)
}

fn with_port(a: &Addr, port: u16) -> Addr {
    let mut v = a.0.clone();
    if let Some(p) = v.get_mut(2..4) {
        p.copy_from_slice(&port.to_be_bytes());
    }
    Addr(v)
}

pub(super) fn listen(task: &mut Task, [fd, backlog, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    if s.family != libc::AF_UNIX && s.kind == Kind::Stream {
        autobind(task, s)?;
    }
    s.listen(backlog as i32, cred(task)).map(|()| 0)
}

/// The socket that an address names, as `s` reaches it. `None`: nobody is there (and the family has no error for that).
pub(super) fn find(task: &Task, s: &Socket, a: &Addr) -> Result<Option<Arc<Socket>>> {
    let reg = &task.kernel().io.sockets;
    match a.parse(s.family)? {
        Parsed::Unspec | Parsed::Unnamed => Err(Errno::EINVAL),
        Parsed::Abstract(name) => reg.get(&Key::Abstract(name)).map(Some).ok_or(Errno::ECONNREFUSED),
        Parsed::Path(path) => {
            let key = super::names::find_socket(task, &path)?;
            reg.get(&key).map(Some).ok_or(Errno::ECONNREFUSED)
        }
        Parsed::Inet { local: false, .. } => Err(Errno::ENETUNREACH),
        Parsed::Inet { .. } => Ok(reg.reached(s, a)),
    }
}

pub(super) fn connect(task: &mut Task, [fd, addr, len, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let a = get_addr(task, addr, len)?;
    if s.kind == Kind::Datagram {
        if a.parse(s.family)? == Parsed::Unspec {
            return s.connect_datagram(None).map(|()| 0);
        }
        let to = find(task, s, &a)?;
        if s.family != libc::AF_UNIX {
            autobind(task, s)?;
        }
        return s.connect_datagram(Some((to.as_ref(), a))).map(|()| 0);
    }
    if a.parse(s.family)? == Parsed::Unspec {
        return Err(Errno::EINVAL);
    }
    let to = find(task, s, &a)?;
    if s.family != libc::AF_UNIX {
        autobind(task, s)?;
    }
    let Some(to) = to else {
        return Err(s.refuse(Errno::ECONNREFUSED, d.nonblock()));
    };
    match s.connect(task, &to, &a, cred(task), d.nonblock()) {
        // A port that is bound, and where nobody listens.
        Err(Errno::ECONNREFUSED) => Err(s.refuse(Errno::ECONNREFUSED, d.nonblock())),
        r => r.map(|()| 0),
    }
}

pub(super) fn accept(task: &mut Task, [fd, addr, lenp, ..]: [u64; 6]) -> Result<u64> {
    accept4(task, [fd, addr, lenp, 0, 0, 0])
}

pub(super) fn accept4(task: &mut Task, [fd, addr, lenp, flags, ..]: [u64; 6]) -> Result<u64> {
    let flags = flags as i32;
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let c = s.accept(task, d.nonblock())?;
    let fd = insert(task, &c, flags)?;
    let from = c.remote().unwrap_or_default();
    if let Err(e) = put_addr(task, &from, c.family, addr, lenp) {
        let _ = task.fds().close(fd as i32);
        return Err(e);
    }
    Ok(fd)
}

pub(super) fn shutdown(task: &mut Task, [fd, how, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    socket::of(&d)?.shutdown(how as i32).map(|()| 0)
}

pub(super) fn getsockname(task: &mut Task, [fd, addr, lenp, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    put_name(task, &s.local(), s.family, addr, lenp)
}

pub(super) fn getpeername(task: &mut Task, [fd, addr, lenp, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    put_name(task, &s.remote()?, s.family, addr, lenp)
}
