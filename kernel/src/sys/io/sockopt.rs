//! Socket options.

use crate::errno::{Errno, Result};
use crate::io::socket::{self, Kind, Options, Socket};
use crate::task::Task;
use std::time::Duration;

/// What a bool option is kept in.
fn flag(o: &mut Options, level: i32, name: i32) -> Option<&mut bool> {
    Some(match (level, name) {
        (libc::SOL_SOCKET, libc::SO_REUSEADDR) => &mut o.reuse_addr,
        (libc::SOL_SOCKET, libc::SO_REUSEPORT) => &mut o.reuse_port,
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE) => &mut o.keep_alive,
        (libc::SOL_SOCKET, libc::SO_BROADCAST) => &mut o.broadcast,
        (libc::SOL_SOCKET, libc::SO_PASSCRED) => &mut o.pass_cred,
        (libc::IPPROTO_TCP, libc::TCP_NODELAY) => &mut o.no_delay,
        (libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) => &mut o.v6_only,
        _ => return None,
    })
}

/// The first value of options that a loopback inside one process knows no use for; they are kept.
fn first_value(level: i32, name: i32) -> i32 {
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_RCVLOWAT) => 1,
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE) => 7200,
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL) => 75,
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT) => 9,
        (libc::IPPROTO_TCP, libc::TCP_SYNCNT) => 6,
        (libc::IPPROTO_TCP, libc::TCP_LINGER2) => 60,
        (libc::IPPROTO_TCP, libc::TCP_QUICKACK) | (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) => 1,
        (libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT) => -1,
        (libc::IPPROTO_IP, libc::IP_TTL) | (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) => 64,
        (libc::IPPROTO_IP, libc::IP_MULTICAST_TTL | libc::IP_MULTICAST_LOOP) => 1,
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS | libc::IPV6_MULTICAST_LOOP | libc::IPV6_MTU_DISCOVER) => 1,
        _ => 0,
    }
}

/// Options whose effect a loopback inside one process does not have.
fn without_effect(level: i32, name: i32) -> bool {
    match level {
        libc::SOL_SOCKET => matches!(
            name,
            libc::SO_PRIORITY
                | libc::SO_BUSY_POLL
                | libc::SO_RXQ_OVFL
                | libc::SO_OOBINLINE
                | libc::SO_RCVLOWAT
                | libc::SO_DONTROUTE
                | libc::SO_TIMESTAMP
        ),
        libc::IPPROTO_TCP => matches!(
            name,
            libc::TCP_CORK
                | libc::TCP_KEEPIDLE
                | libc::TCP_KEEPINTVL
                | libc::TCP_KEEPCNT
                | libc::TCP_QUICKACK
                | libc::TCP_DEFER_ACCEPT
                | libc::TCP_USER_TIMEOUT
                | libc::TCP_FASTOPEN
                | libc::TCP_SYNCNT
                | libc::TCP_LINGER2
                | libc::TCP_NOTSENT_LOWAT
        ),
        libc::IPPROTO_IP => {
            matches!(
                name,
                libc::IP_TOS
                    | libc::IP_TTL
                    | libc::IP_MTU_DISCOVER
                    | libc::IP_RECVERR
                    | libc::IP_PKTINFO
                    | libc::IP_RECVTTL
                    | libc::IP_RECVTOS
                    | libc::IP_FREEBIND
                    | libc::IP_BIND_ADDRESS_NO_PORT
                    | libc::IP_MULTICAST_TTL
                    | libc::IP_MULTICAST_LOOP
            )
        }
        libc::IPPROTO_IPV6 => {
            matches!(
                name,
                libc::IPV6_TCLASS
                    | libc::IPV6_UNICAST_HOPS
                    | libc::IPV6_RECVPKTINFO
                    | libc::IPV6_RECVHOPLIMIT
                    | libc::IPV6_RECVTCLASS
                    | libc::IPV6_RECVERR
                    | libc::IPV6_MTU_DISCOVER
                    | libc::IPV6_MULTICAST_HOPS
                    | libc::IPV6_MULTICAST_LOOP
            )
        }
        libc::IPPROTO_UDPLITE => matches!(name, UDPLITE_SEND_CSCOV | UDPLITE_RECV_CSCOV),
        _ => false,
    }
}

const MULTICAST_INTERFACE: [(i32, i32); 2] =
    [(libc::IPPROTO_IP, libc::IP_MULTICAST_IF), (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF)];

/// How much of a packet of UDP-Lite the checksum covers.
const UDPLITE_SEND_CSCOV: i32 = 10;
const UDPLITE_RECV_CSCOV: i32 = 11;

fn level_exists(s: &Socket, level: i32) -> bool {
    match level {
        libc::SOL_SOCKET => true,
        libc::IPPROTO_TCP => s.family != libc::AF_UNIX && s.kind == Kind::Stream,
        libc::IPPROTO_IP => s.family != libc::AF_UNIX,
        libc::IPPROTO_IPV6 => s.family == libc::AF_INET6,
        libc::IPPROTO_UDPLITE => [libc::IPPROTO_UDP, libc::IPPROTO_UDPLITE].contains(&s.protocol),
        _ => false,
    }
}

/// Options of multicast. `lo` is all there is, and no group can be joined on it.
fn multicast(task: &Task, s: &Socket, option: (i32, i32), (val, len): (u64, i32)) -> Option<Result<u64>> {
    const LO: i32 = 1;
    const MCAST_JOIN_GROUP: i32 = 42;
    const MCAST_LEAVE_GROUP: i32 = 45;
    const MCAST_JOIN_SOURCE_GROUP: i32 = 46;
    const MCAST_LEAVE_SOURCE_GROUP: i32 = 47;
    let mem = task.mem();
    let interface = |keep: i32, there: bool, none: Errno| {
        if !there {
            return Err(none);
        }
        s.keep(option.0, option.1, keep);
        Ok(0)
    };
    let group = |least: i32, e: Errno| {
        if len < least {
            Err(Errno::EINVAL)
        } else {
            mem.read::<u32>(val)?;
            Err(e)
        }
    };
    Some(match option {
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) if len < 4 => Err(Errno::EINVAL),
        // The address is behind that of a group, if there is one.
        (libc::IPPROTO_IP, libc::IP_MULTICAST_IF) => mem
            .read::<u32>(if len < 8 { val } else { val.wrapping_add(4) })
            .map_err(Errno::from)
            .and_then(|ip| interface(ip as i32, ip == 0 || ip as u8 == 127, Errno::EADDRNOTAVAIL)),
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) if len < 4 => Err(Errno::EINVAL),
        (libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_IF) => mem
            .read::<i32>(val)
            .map_err(Errno::from)
            .and_then(|index| interface(index, index == 0 || index == LO, Errno::ENODEV)),
        (libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP) => group(8, Errno::ENODEV),
        (libc::IPPROTO_IP, libc::IP_ADD_SOURCE_MEMBERSHIP) => group(12, Errno::ENODEV),
        (libc::IPPROTO_IP, libc::IP_DROP_MEMBERSHIP) => group(8, Errno::EADDRNOTAVAIL),
        (libc::IPPROTO_IP, libc::IP_DROP_SOURCE_MEMBERSHIP) => group(12, Errno::EADDRNOTAVAIL),
        (libc::IPPROTO_IPV6, libc::IPV6_ADD_MEMBERSHIP) => group(20, Errno::ENODEV),
        (libc::IPPROTO_IPV6, libc::IPV6_DROP_MEMBERSHIP) => group(20, Errno::EADDRNOTAVAIL),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_JOIN_GROUP) => group(136, Errno::ENODEV),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_JOIN_SOURCE_GROUP) => group(264, Errno::ENODEV),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_LEAVE_GROUP) => group(136, Errno::EADDRNOTAVAIL),
        (libc::IPPROTO_IP | libc::IPPROTO_IPV6, MCAST_LEAVE_SOURCE_GROUP) => group(264, Errno::EADDRNOTAVAIL),
        _ => return None,
    })
}

const TIMEOUTS: [i32; 4] = [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO, 66, 67];

pub(super) fn setsockopt(task: &mut Task, [fd, level, name, val, len, _]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let (level, name, len) = (level as i32, name as i32, len as i32);
    if len < 0 {
        return Err(Errno::EINVAL);
    }
    if !level_exists(s, level) {
        return Err(if s.family == libc::AF_UNIX { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
    }
    let mem = task.mem();
    if level == libc::SOL_SOCKET && TIMEOUTS.contains(&name) {
        if len < 16 {
            return Err(Errno::EINVAL);
        }
        let (sec, usec) = (mem.read::<i64>(val)?, mem.read::<i64>(val.wrapping_add(8))?);
        if !(0..1_000_000).contains(&usec) {
            return Err(Errno::EDOM);
        }
        let t = match u64::try_from(sec) {
            Ok(s) => Duration::from_secs(s) + Duration::from_micros(usec as u64),
            Err(_) => Duration::ZERO,
        };
        let t = (!t.is_zero()).then_some(t);
        s.set_options(
            |o| {
                if name == libc::SO_RCVTIMEO || name == 66 { o.receive_timeout = t } else { o.send_timeout = t }
            },
        );
        return Ok(0);
    }
    if level == libc::SOL_SOCKET && name == libc::SO_LINGER {
        if len < 8 {
            return Err(Errno::EINVAL);
        }
        let (on, seconds) = (mem.read::<u32>(val)?, mem.read::<u32>(val.wrapping_add(4))?);
        // Without being on, the time stays as it was.
        s.set_options(|o| o.linger = if on != 0 { (1, seconds) } else { (0, o.linger.1) });
        return Ok(0);
    }
    if let Some(r) = multicast(task, s, (level, name), (val, len)) {
        return r;
    }
    // One byte is enough for the options of IP.
    let n = match len {
        4.. => mem.read::<i32>(val)?,
        1.. if level == libc::IPPROTO_IP => i32::from(mem.read::<u8>(val)?),
        _ if without_effect(level, name) => 0,
        _ => return Err(Errno::EINVAL),
    };
    let mut known = false;
    s.set_options(|o| {
        if let Some(f) = flag(o, level, name) {
            *f = n != 0;
            known = true;
        }
    });
    if known {
        return Ok(0);
    }
    match (level, name) {
        (libc::SOL_SOCKET, libc::SO_SNDBUF | libc::SO_RCVBUF) => {
            s.set_buffer(name == libc::SO_SNDBUF, usize::try_from(n).unwrap_or(0));
            Ok(0)
        }
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE | libc::SO_RCVBUFFORCE | libc::SO_MARK | libc::SO_BINDTODEVICE) => {
            Err(Errno::EPERM)
        }
        (level, name) if without_effect(level, name) => {
            s.keep(level, name, n);
            Ok(0)
        }
        _ => Err(Errno::ENOPROTOOPT),
    }
}

pub(super) fn getsockopt(task: &mut Task, [fd, level, name, val, lenp, _]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    let s = socket::of(&d)?;
    let (level, name) = (level as i32, name as i32);
    let mem = task.mem();
    let room = usize::try_from(mem.read::<i32>(lenp)?).map_err(|_| Errno::EINVAL)?;
    if !level_exists(s, level) {
        return Err(if s.family == libc::AF_UNIX { Errno::EOPNOTSUPP } else { Errno::ENOPROTOOPT });
    }
    let mut o = s.options();
    let int = |n: i32| n.to_le_bytes().to_vec();
    let timeval = |t: Option<Duration>| {
        let t = t.unwrap_or_default();
        [t.as_secs().to_le_bytes(), u64::from(t.subsec_micros()).to_le_bytes()].concat()
    };
    let bytes = if let Some(f) = flag(&mut o, level, name) {
        int(i32::from(*f))
    } else if level == libc::SOL_SOCKET {
        match name {
            libc::SO_TYPE => int(s.kind.number()),
            libc::SO_DOMAIN => int(s.family),
            libc::SO_PROTOCOL => int(s.protocol),
            libc::SO_ERROR => int(s.take_error().map_or(0, |e| e.0)),
            libc::SO_SNDBUF => int(s.buffers().0 as i32),
            libc::SO_RCVBUF => int(s.buffers().1 as i32),
            libc::SO_ACCEPTCONN => int(i32::from(s.is_listening())),
            libc::SO_SNDLOWAT => int(1),
            libc::SO_MARK => int(0),
            n if without_effect(level, n) => int(s.kept(level, n).unwrap_or(first_value(level, n))),
            libc::SO_LINGER => [o.linger.0.to_le_bytes(), o.linger.1.to_le_bytes()].concat(),
            libc::SO_RCVTIMEO | 66 => timeval(o.receive_timeout),
            libc::SO_SNDTIMEO | 67 => timeval(o.send_timeout),
            libc::SO_PEERCRED => {
                let c = s.peer_cred();
                [c.pid.to_le_bytes(), c.uid.to_le_bytes(), c.gid.to_le_bytes()].concat()
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
    } else if without_effect(level, name) || MULTICAST_INTERFACE.contains(&(level, name)) {
        int(s.kept(level, name).unwrap_or(first_value(level, name)))
    } else if (level, name) == (libc::IPPROTO_TCP, libc::TCP_INFO) {
        // Only the state: nothing of the rest is measured here.
        let mut info = vec![0u8; 104];
        info[0] = s.tcp_state();
        info
    } else if (level, name) == (libc::IPPROTO_TCP, libc::TCP_MAXSEG) {
        int(if s.remote().is_ok() { 65_483 } else { 536 })
    } else {
        return Err(Errno::ENOPROTOOPT);
    };
    let n = bytes.len().min(room);
    mem.copy_in(val, &bytes[..n])?;
    mem.write(lenp, n as u32)?;
    Ok(0)
}
