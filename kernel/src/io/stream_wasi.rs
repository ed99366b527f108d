//! Standard streams of WASI: the counterpart of `stream.rs` where the kernel runs in a WebAssembly module.
//!
//! A read waits in the host. What looks like a terminal is one for the guest too: WASI cannot change its modes, so
//! those that the guest sets are only remembered.
//!
//! # Safety
//! The calls of WASI get addresses and lengths of whole slices.
#![allow(unsafe_code)]

use super::stdio::Charge;
use super::termios::Termios;
use super::tty::Control;
use super::{anon_stat, lock, new_ino};
use crate::errno::{Errno, Result};
use crate::file::{Description, File, Ready, Stat};
use crate::fs::hostfs::errno;
use crate::wait::{Blocking, WaitQueue};
use evm_memory::Mem;
use linux_raw_sys::ioctl as c;
use std::any::Any;
use std::sync::{Arc, Mutex};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Regular,
    Tty,
    Pipe,
}

/// The terminal of a job.
#[derive(Debug)]
pub struct Terminal {
    control: Arc<Control>,
    /// struct termios.
    modes: Mutex<[u8; 36]>,
}

impl Terminal {
    fn new() -> Terminal {
        Terminal { control: Arc::default(), modes: Mutex::new(Termios::default().bytes()) }
    }
    /// Session and foreground group.
    pub fn control(&self) -> &Arc<Control> {
        &self.control
    }
    /// Nothing was changed.
    pub fn restore(&self) {}
    fn ioctl(&self, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            c::TCGETS => mem.copy_in(arg, &*lock(&self.modes))?,
            c::TCSETS | c::TCSETSW | c::TCSETSF => mem.copy_out(arg, &mut *lock(&self.modes))?,
            c::TIOCGWINSZ => mem.copy_in(arg, &[24, 0, 80, 0, 0, 0, 0, 0])?,
            c::FIONREAD | c::TIOCOUTQ | c::TIOCGETD => mem.write(arg, 0u32)?,
            c::TIOCSWINSZ | c::TCSBRK | c::TCSBRKP | c::TCXONC | c::TCFLSH => {}
            _ => return Err(Errno::ENOTTY),
        }
        Ok(0)
    }
}

/// A standard stream.
pub struct HostStream {
    fd: wasi::Fd,
    kind: Kind,
    charge: Option<Charge>,
    terminal: Option<Arc<Terminal>>,
    ino: u64,
}

impl HostStream {
    /// Descriptor 0, 1 or 2; one of the terminal that another stream of the job has already shares its state.
    pub fn new(fd: u32, charge: Option<Charge>, terminal: Option<&Arc<Terminal>>) -> Result<HostStream> {
        // SAFETY: no memory but the result's.
        let stat = unsafe { wasi::fd_fdstat_get(fd) }.map_err(errno)?;
        let seeks = stat.fs_rights_base & (wasi::RIGHTS_FD_SEEK | wasi::RIGHTS_FD_TELL) != 0;
        let kind = match stat.fs_filetype {
            wasi::FILETYPE_REGULAR_FILE => Kind::Regular,
            // What may seek is a device, but no terminal: as isatty of WASI's C library has it.
            wasi::FILETYPE_CHARACTER_DEVICE if !seeks => Kind::Tty,
            _ => Kind::Pipe,
        };
        let terminal = (kind == Kind::Tty).then(|| terminal.cloned().unwrap_or_else(|| Arc::new(Terminal::new())));
        Ok(HostStream { fd, kind, charge, terminal, ino: new_ino() })
    }
    /// As an open file description.
    pub fn describe(self) -> Arc<Description> {
        let flags = match self.kind {
            Kind::Tty => libc::O_RDWR,
            _ if self.fd == 0 => libc::O_RDONLY,
            _ => libc::O_WRONLY,
        };
        let name = match self.kind {
            Kind::Tty => "/dev/tty".to_string(),
            _ => format!("pipe:[{}]", self.ino),
        };
        Description::new(Arc::new(self), flags as u32, name)
    }
    /// The terminal, if it is one.
    pub fn terminal(&self) -> Option<&Arc<Terminal>> {
        self.terminal.as_ref()
    }
    pub(crate) fn control(&self) -> Option<&Arc<Control>> {
        self.terminal.as_ref().map(|t| &t.control)
    }
}

impl File for HostStream {
    fn read(&self, _: &dyn Blocking, _: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        let iov = [wasi::Iovec { buf: buf.as_mut_ptr(), buf_len: buf.len() }];
        // SAFETY: the whole of `buf`.
        unsafe { wasi::fd_read(self.fd, &iov) }.map_err(errno)
    }
    fn write(&self, _: &dyn Blocking, _: u64, buf: &[u8], _: bool) -> Result<usize> {
        if let Some(c) = &self.charge
            && !c(buf.len() as u64)
        {
            return Err(Errno::ENOSPC);
        }
        let mut done = 0;
        while done < buf.len() {
            let iov = [wasi::Ciovec { buf: buf[done..].as_ptr(), buf_len: buf.len() - done }];
            // SAFETY: the rest of `buf`.
            match unsafe { wasi::fd_write(self.fd, &iov) }.map_err(errno) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(Errno::EAGAIN) => std::thread::sleep(std::time::Duration::from_millis(1)),
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
    fn stat(&self) -> Result<Stat> {
        let mut s = anon_stat(libc::S_IFIFO | 0o666, self.ino);
        if self.kind == Kind::Tty {
            s.mode = libc::S_IFCHR | 0o620;
            s.rdev = libc::makedev(136, 0);
        }
        Ok(s)
    }
    fn poll(&self) -> Ready {
        (Ready::IN | Ready::OUT).with_norm()
    }
    fn queue(&self) -> Option<&WaitQueue> {
        None
    }
    fn ioctl(&self, _: &dyn Blocking, mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
        match &self.terminal {
            Some(t) => t.ioctl(mem, cmd, arg),
            None => Err(Errno::ENOTTY),
        }
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// Standard input, output and error of the module; the terminal, if one of them is one. `charge` is for output.
pub fn host_stdio(charge: Option<Charge>) -> Result<([Arc<Description>; 3], Option<Arc<Terminal>>)> {
    let mut terminal: Option<Arc<Terminal>> = None;
    let mut open = |fd: u32, charge: Option<Charge>| {
        let s = HostStream::new(fd, charge, terminal.as_ref())?;
        if terminal.is_none() {
            terminal = s.terminal.clone();
        }
        Ok::<_, Errno>(s.describe())
    };
    let all = [open(0, None)?, open(1, charge.clone())?, open(2, charge)?];
    Ok((all, terminal))
}
