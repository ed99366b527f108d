//! Options of sockets, and the sizes of their buffers.

use super::Socket;
use crate::errno::Errno;
use crate::io::lock;
use std::time::{Duration, Instant};

/// Default size of send and receive buffers, and (doubled) the largest.
pub const BUFFER: usize = 212_992;

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

impl Socket {
    /// Options.
    pub fn options(&self) -> Options {
        lock(&self.state).options
    }
    /// Change options.
    pub fn set_options(&self, f: impl FnOnce(&mut Options)) {
        f(&mut lock(&self.state).options);
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
    /// When a wait to receive ends (SO_RCVTIMEO).
    pub(super) fn receive_deadline(&self) -> Option<Instant> {
        self.options().receive_timeout.and_then(|t| Instant::now().checked_add(t))
    }
    /// When a wait to send ends (SO_SNDTIMEO).
    pub(super) fn send_deadline(&self) -> Option<Instant> {
        self.options().send_timeout.and_then(|t| Instant::now().checked_add(t))
    }
}

/// The error of a wait that may have had an end (SO_RCVTIMEO, SO_SNDTIMEO).
pub(super) fn timed_out(e: Errno) -> Errno {
    if e == Errno::ETIMEDOUT { Errno::EAGAIN } else { e }
}
