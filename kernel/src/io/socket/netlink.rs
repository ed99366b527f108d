//! rtnetlink(7): the questions that programs ask about interfaces (RTM_GETLINK) and addresses (RTM_GETADDR), answered for
//! the one interface there is. A question's answer is in the socket's own inbox when the send returns.

use super::{Addr, Message, Socket};
use crate::errno::{Errno, Result};
use crate::io::lock;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
/// UP, LOOPBACK, RUNNING, LOWER_UP
const FLAGS: u32 = 0x1_0049;

/// A `struct sockaddr_nl` of a port.
pub fn address(port: u32) -> Addr {
    let mut v = (libc::AF_NETLINK as u16).to_le_bytes().to_vec();
    v.extend_from_slice(&[0; 2]);
    v.extend_from_slice(&port.to_le_bytes());
    v.extend_from_slice(&[0; 4]);
    Addr(v)
}

fn attribute(to: &mut Vec<u8>, kind: u16, data: &[u8]) {
    to.extend_from_slice(&(data.len() as u16 + 4).to_le_bytes());
    to.extend_from_slice(&kind.to_le_bytes());
    to.extend_from_slice(data);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn message(to: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, port: u32, body: &[u8]) {
    to.extend_from_slice(&(body.len() as u32 + 16).to_le_bytes());
    to.extend_from_slice(&kind.to_le_bytes());
    to.extend_from_slice(&flags.to_le_bytes());
    to.extend_from_slice(&seq.to_le_bytes());
    to.extend_from_slice(&port.to_le_bytes());
    to.extend_from_slice(body);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// `struct ifinfomsg` of lo with its attributes.
fn link() -> Vec<u8> {
    let mut b = vec![0u8, 0];
    b.extend_from_slice(&772u16.to_le_bytes()); // ARPHRD_LOOPBACK
    for w in [1, FLAGS, 0] {
        b.extend_from_slice(&w.to_le_bytes());
    }
    attribute(&mut b, 3, b"lo\0"); // IFLA_IFNAME
    attribute(&mut b, 13, &1000u32.to_le_bytes()); // IFLA_TXQLEN
    attribute(&mut b, 16, &[0]); // IFLA_OPERSTATE: unknown
    attribute(&mut b, 4, &65_536u32.to_le_bytes()); // IFLA_MTU
    attribute(&mut b, 1, &[0; 6]); // IFLA_ADDRESS
    attribute(&mut b, 2, &[0; 6]); // IFLA_BROADCAST
    b
}

/// `struct ifaddrmsg` of an address of lo with its attributes.
fn ip(family: u8, prefix: u8, scope: u8, addr: &[u8]) -> Vec<u8> {
    let mut b = vec![family, prefix, 0x80, scope]; // IFA_F_PERMANENT
    b.extend_from_slice(&1u32.to_le_bytes());
    attribute(&mut b, 1, addr); // IFA_ADDRESS
    if family == libc::AF_INET as u8 {
        attribute(&mut b, 2, addr); // IFA_LOCAL
        attribute(&mut b, 3, b"lo\0"); // IFA_LABEL
    }
    attribute(&mut b, 8, &0x80u32.to_le_bytes()); // IFA_FLAGS
    b
}

impl Socket {
    /// bind(2): port 0 is the kernel's choice, the process id.
    pub fn bind_netlink(&self, a: &Addr, pid: i32) -> Result<()> {
        let Some(port) = a.0.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])) else {
            return Err(Errno::EINVAL);
        };
        let mut s = lock(&self.state);
        let now = s.local.0.get(4..8).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        if now.is_some_and(|n| n != port && port != 0) {
            return Err(Errno::EINVAL);
        }
        s.local = address(if port == 0 { pid as u32 } else { port });
        Ok(())
    }
    /// Send questions.
    pub fn ask_netlink(&self, mut b: &[u8], pid: i32) -> Result<()> {
        {
            let mut s = lock(&self.state);
            if s.local.0.is_empty() {
                s.local = address(pid as u32);
            }
        }
        while b.len() >= 16 {
            let word = |i: usize| u32::from_le_bytes([b[i], b[i + 1], b[i + 2], b[i + 3]]);
            let (len, kind, flags, seq) = (word(0) as usize, word(4) as u16, (word(4) >> 16) as u16, word(8));
            if len < 16 || len > b.len() {
                return Err(Errno::EINVAL);
            }
            let family = b.get(16).copied().unwrap_or(0);
            self.answer(&b[..len], kind, flags, seq, family, pid as u32);
            b = b.get(len.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(())
    }
    fn answer(&self, question: &[u8], kind: u16, flags: u16, seq: u32, family: u8, port: u32) {
        let mut out = Vec::new();
        let dump = flags & NLM_F_DUMP == NLM_F_DUMP;
        let multi = if dump { NLM_F_MULTI } else { 0 };
        let known = match kind {
            RTM_GETLINK => {
                message(&mut out, RTM_NEWLINK, multi, seq, port, &link());
                true
            }
            RTM_GETADDR if dump => {
                let (four, six) = (libc::AF_INET as u8, libc::AF_INET6 as u8);
                if family == 0 || family == four {
                    message(&mut out, RTM_NEWADDR, multi, seq, port, &ip(four, 8, 254, &[127, 0, 0, 1]));
                }
                if family == 0 || family == six {
                    let mut one = [0u8; 16];
                    one[15] = 1;
                    message(&mut out, RTM_NEWADDR, multi, seq, port, &ip(six, 128, 254, &one));
                }
                true
            }
            _ => false,
        };
        if !known {
            let mut body = (-libc::EOPNOTSUPP).to_le_bytes().to_vec();
            body.extend_from_slice(&question[..16]);
            message(&mut out, NLMSG_ERROR, 0, seq, port, &body);
        }
        let mut send = vec![out];
        if known && dump {
            let mut done = Vec::new();
            message(&mut done, NLMSG_DONE, NLM_F_MULTI, seq, port, &0i32.to_le_bytes());
            send.push(done);
        }
        {
            let mut s = lock(&self.state);
            for data in send.into_iter().filter(|d| !d.is_empty()) {
                s.bytes += data.len();
                s.inbox.push_back(Message {
                    data,
                    at: 0,
                    from: address(0),
                    rights: Vec::new(),
                    cred: super::Cred::default(),
                    packet: Default::default(),
                });
            }
        }
        self.queue.wake_all();
    }
}
