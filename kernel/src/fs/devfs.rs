//! Character devices of /dev. Their nodes are in a [`super::memfs::MemFs`]; what they do is here, by device number.

use super::memfs::MemNode;
use super::node::*;
use crate::errno::{Errno, Result};
use crate::file::{File, Stat};
use crate::wait::Blocking;
use std::any::Any;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

/// Device number as stat(2) shows it.
pub const fn makedev(major: u64, minor: u64) -> u64 {
    (minor & 0xff) | (major & 0xfff) << 8 | (minor & !0xff) << 12 | (major & !0xfff) << 32
}

/// Name, device number and mode of the devices there are.
pub const DEVICES: &[(&[u8], u64)] = &[
    (b"null", makedev(1, 3)),
    (b"zero", makedev(1, 5)),
    (b"full", makedev(1, 7)),
    (b"random", makedev(1, 8)),
    (b"urandom", makedev(1, 9)),
    (b"tty", makedev(5, 0)),
    (b"ptmx", makedev(5, 2)),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Null,
    Zero,
    Full,
    Random,
}

struct Device {
    kind: Kind,
    node: Arc<MemNode>,
    world: Arc<dyn World>,
    zero: OnceLock<OwnedFd>,
}

/// Open a device; ENXIO if there is none with the number.
pub(super) fn open(
    rdev: u64,
    world: &Arc<dyn World>,
    node: Arc<MemNode>,
    pid: i32,
) -> Result<Arc<dyn File>> {
    let kind = match (rdev >> 8 & 0xfff, rdev & 0xff) {
        (1, 3) => Kind::Null,
        (1, 5) => Kind::Zero,
        (1, 7) => Kind::Full,
        (1, 8 | 9) => Kind::Random,
        (5, 0) => return world.terminal(pid),
        (5, 2) => return world.pty_master(pid),
        (136, n) => return world.pty_slave(n as u32),
        _ => return Err(Errno::ENXIO),
    };
    Ok(Arc::new(Device {
        kind,
        node,
        world: world.clone(),
        zero: OnceLock::new(),
    }))
}

impl File for Device {
    fn read(&self, _: &dyn Blocking, _: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        match self.kind {
            Kind::Null => return Ok(0),
            Kind::Zero | Kind::Full => buf.fill(0),
            Kind::Random => self.world.random(buf),
        }
        Ok(buf.len())
    }
    fn write(&self, _: &dyn Blocking, _: u64, buf: &[u8], _: bool) -> Result<usize> {
        if self.kind == Kind::Full {
            Err(Errno::ENOSPC)
        } else {
            Ok(buf.len())
        }
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        self.node.stat()
    }
    fn host_fd(&self) -> Option<BorrowedFd<'_>> {
        // Mapping /dev/zero gives zeros; the host's device does just that.
        if self.kind != Kind::Zero {
            return None;
        }
        if self.zero.get().is_none() {
            use rustix::fs::{Mode, OFlags};
            let _ = self.zero.set(
                rustix::fs::open("/dev/zero", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .ok()?,
            );
        }
        self.zero.get().map(AsFd::as_fd)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
