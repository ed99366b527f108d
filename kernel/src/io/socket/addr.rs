//! Socket addresses.

use crate::errno::{Errno, Result};

/// The first bytes of an IPv4-mapped address.
const MAPPED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff];

/// A `struct sockaddr` as bytes; empty = none.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Addr(pub Vec<u8>);

/// What an address names inside the job.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Key {
    /// Abstract name of AF_UNIX.
    Abstract(Vec<u8>),
    /// Socket inode: device and number.
    Inode(u64, u64),
    /// Port of the loopback.
    Port {
        /// Of which protocol of IP.
        protocol: i32,
        /// Of AF_INET6.
        six: bool,
        /// Number.
        port: u16,
    },
}

/// A parsed address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Parsed {
    /// AF_UNSPEC
    Unspec,
    /// AF_UNIX without a name (asks bind for one).
    Unnamed,
    /// AF_UNIX with an abstract name.
    Abstract(Vec<u8>),
    /// AF_UNIX with a path.
    Path(Vec<u8>),
    /// AF_INET or AF_INET6 with a port.
    Inet {
        /// The loopback or the unspecified address.
        local: bool,
        /// Port.
        port: u16,
    },
}

impl Addr {
    /// An AF_UNIX address with this `sun_path`.
    pub fn unix(path: &[u8]) -> Addr {
        let mut v = (libc::AF_UNIX as u16).to_le_bytes().to_vec();
        v.extend_from_slice(path);
        Addr(v)
    }
    /// The loopback (or, for `any`, the unspecified) address with a port.
    pub fn inet(family: i32, any: bool, port: u16) -> Addr {
        let mut v = (family as u16).to_le_bytes().to_vec();
        v.extend_from_slice(&port.to_be_bytes());
        if family == libc::AF_INET {
            v.extend_from_slice(if any { &[0; 4] } else { &[127, 0, 0, 1] });
            v.extend_from_slice(&[0; 8]);
        } else {
            v.extend_from_slice(&[0; 4]);
            v.extend_from_slice(&[0; 15]);
            v.push(u8::from(!any));
            v.extend_from_slice(&[0; 4]);
        }
        Addr(v)
    }
    /// Port of an AF_INET or AF_INET6 address.
    pub fn port(&self) -> u16 {
        self.0.get(2..4).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]))
    }
    /// AF_*.
    pub fn family(&self) -> i32 {
        self.0.first_chunk().map_or(libc::AF_UNSPEC, |b| i32::from(u16::from_le_bytes(*b)))
    }
    /// The IPv4 address, also of an IPv4-mapped one.
    pub fn v4(&self) -> Option<[u8; 4]> {
        match self.family() {
            libc::AF_INET => self.0.get(4..8)?.try_into().ok(),
            libc::AF_INET6 if self.0.get(8..20)? == MAPPED => self.0.get(20..24)?.try_into().ok(),
            _ => None,
        }
    }
    fn set_ip(&mut self, at: usize, ip: &[u8]) {
        if let Some(b) = self.0.get_mut(at..at + ip.len()) {
            b.copy_from_slice(ip);
        }
    }
    /// Where a connection to it ends: the unspecified address is the loopback.
    pub fn reached(&self) -> Addr {
        let any = match self.family() {
            libc::AF_INET => self.0.get(4..8) == Some(&[0; 4]),
            libc::AF_INET6 => self.0.get(8..24) == Some(&[0; 16]),
            _ => false,
        };
        if any { Addr::inet(self.family(), false, self.port()) } else { self.clone() }
    }
    /// As a socket of another family sees it: IPv4 addresses are mapped ones for IPv6.
    pub fn seen_by(&self, family: i32) -> Addr {
        let own = self.family();
        if family == libc::AF_UNIX || own == libc::AF_UNSPEC {
            return self.clone();
        }
        if own == family {
            return self.reached();
        }
        let mut a = Addr::inet(family, false, self.port());
        if let Some(ip) = self.v4() {
            let ip = if ip == [0; 4] { [127, 0, 0, 1] } else { ip };
            if family == libc::AF_INET6 {
                a.set_ip(8, &[&MAPPED[..], &ip].concat());
            } else {
                a.set_ip(4, &ip);
            }
        }
        a
    }
    /// What it says; `family` is that of the socket. EINVAL, EAFNOSUPPORT.
    pub fn parse(&self, family: i32) -> Result<Parsed> {
        let b = &self.0;
        let f = b.first_chunk().map(|b| i32::from(u16::from_le_bytes(*b))).ok_or(Errno::EINVAL)?;
        if f == libc::AF_UNSPEC && family != libc::AF_UNIX {
            return Ok(Parsed::Unspec);
        }
        if family == libc::AF_UNIX {
            if f == libc::AF_UNSPEC {
                return Ok(Parsed::Unspec);
            }
            if f != family || b.len() > 110 {
                return Err(Errno::EINVAL);
            }
            return Ok(match b[2..].split_first() {
                None => Parsed::Unnamed,
                Some((0, name)) => Parsed::Abstract(name.to_vec()),
                Some(_) => Parsed::Path(b[2..].split(|c| *c == 0).next().unwrap_or_default().to_vec()),
            });
        }
        if f != family {
            return Err(Errno::EAFNOSUPPORT);
        }
        let (at, len) = if family == libc::AF_INET { (4, 4) } else { (8, 16) };
        let ip = b.get(at..at + len).ok_or(Errno::EINVAL)?;
        let port = u16::from_be_bytes([b[2], b[3]]);
        let v4 = |ip: &[u8]| ip[0] == 127 || ip == [0; 4];
        let local = if len == 4 {
            v4(ip)
        } else {
            let (head, last) = ip.split_at(12);
            match (head, last) {
                ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], l) => l[..3] == [0; 3] && l[3] <= 1,
                ([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff], l) => v4(l),
                _ => false,
            }
        };
        Ok(Parsed::Inet { local, port })
    }
}
