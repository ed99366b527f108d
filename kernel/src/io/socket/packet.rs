//! What the headers of a packet say besides addresses: through how many hops it may go, and its class (type of service).
//! No router ever counts hops down here, so the receiver sees what the sender chose.

use super::{Kind, Socket};
use crate::errno::{Errno, Result};

/// Hops and class of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Time to live of IPv4, hop limit of IPv6.
    pub hops: u8,
    /// Type of service of IPv4, traffic class of IPv6.
    pub class: u8,
}

const HOPS: u8 = 64;

impl Default for Packet {
    fn default() -> Packet {
        Packet { hops: HOPS, class: 0 }
    }
}

impl Packet {
    /// As the options of a socket want it; -1 and what was never set is the system's value.
    pub fn of(s: &Socket) -> Packet {
        let (hops, class) = match s.family {
            _ if s.kind != Kind::Datagram => return Packet::default(),
            libc::AF_INET => ((libc::IPPROTO_IP, libc::IP_TTL), (libc::IPPROTO_IP, libc::IP_TOS)),
            libc::AF_INET6 => ((libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS), (libc::IPPROTO_IPV6, libc::IPV6_TCLASS)),
            _ => return Packet::default(),
        };
        let kept = |(level, name)| s.kept(level, name).and_then(|v| u8::try_from(v).ok());
        Packet { hops: kept(hops).filter(|h| *h != 0).unwrap_or(HOPS), class: kept(class).unwrap_or(0) }
    }
    /// A control message of a send: EINVAL if it is one of these and not right.
    pub fn control(&mut self, level: i32, kind: i32, data: &[u8]) -> Result<()> {
        let word = || data.try_into().map(i32::from_le_bytes).map_err(|_| Errno::EINVAL);
        let byte = |v: i32| u8::try_from(v).map_err(|_| Errno::EINVAL);
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_TTL) => {
                self.hops = byte(word()?)?;
                if self.hops == 0 {
                    return Err(Errno::EINVAL);
                }
            }
            (libc::IPPROTO_IP, libc::IP_TOS) => {
                self.class = if let [b] = data { *b } else { byte(word()?)? };
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => match word()? {
                -1 => {} // the socket's
                v => self.hops = byte(v)?,
            },
            (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => match word()? {
                -1 => {}
                v => self.class = byte(v)?,
            },
            _ => {}
        }
        Ok(())
    }
}
