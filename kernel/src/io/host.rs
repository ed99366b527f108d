//! The few calls to the host that rustix does not have in a safe form: reads and writes straight between a host
//! file and guest memory, terminal ioctls, and non-blocking transfers on a socket that standard input or output is.
//!
//! # Safety
//! [`pread_guest`] and [`pwrite_guest`] pass host addresses of guest memory to the host kernel, in
//! `[base, base + limit)` only; the kernel gives EFAULT for pages that are not accessible, and no Rust reference to
//! that memory exists. The ioctls are from a list for which the buffer's size is checked; all other buffers are whole
//! Rust slices.
#![allow(unsafe_code)]

use crate::errno::{Errno, Result};
use evm_memory::Mem;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The most that one read or write moves (as in Linux).
pub const MAX_RW: u64 = 0x7fff_f000;

fn result(r: isize) -> Result<usize> {
    if r < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(r as usize) }
}

fn range(mem: &Mem, addr: u64, len: u64) -> Result<*mut libc::c_void> {
    if len > MAX_RW || len > mem.limit() || addr > mem.limit() - len {
        return Err(Errno::EFAULT);
    }
    Ok((mem.base() + addr) as *mut libc::c_void)
}

/// Read at a position of a host file into guest memory. A page that the runtime write-protected gives EFAULT or
/// a short count, as one that the guest may not write does.
pub fn pread_guest(fd: BorrowedFd<'_>, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
    let p = range(mem, addr, len)?;
    // SAFETY: the range is guest memory, see the module's paragraph.
    result(unsafe { libc::pread(fd.as_raw_fd(), p, len as usize, pos as i64) })
}

/// Write guest memory at a position of a host file.
pub fn pwrite_guest(fd: BorrowedFd<'_>, mem: &Mem, addr: u64, len: u64, pos: u64) -> Result<usize> {
    let p = range(mem, addr, len)?;
    // SAFETY: as above.
    result(unsafe { libc::pwrite(fd.as_raw_fd(), p, len as usize, pos as i64) })
}

/// Receive from a host socket without waiting.
pub fn recv(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: the whole of `buf`.
    result(unsafe { libc::recv(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) })
}

/// Send to a host socket without waiting and without SIGPIPE.
pub fn send(fd: BorrowedFd<'_>, buf: &[u8]) -> Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the whole of `buf`.
    result(unsafe { libc::send(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len(), flags) })
}

/// Size of the argument of a terminal ioctl that may be passed on, and whether it is written (by the kernel).
pub fn tty_arg(cmd: u32) -> Option<(usize, bool)> {
    use linux_raw_sys::ioctl as c;
    Some(match cmd {
        c::TCGETS => (36, true),
        c::TCSETS | c::TCSETSW | c::TCSETSF => (36, false),
        c::TCGETS2 => (44, true),
        c::TCSETS2 | c::TCSETSW2 | c::TCSETSF2 => (44, false),
        c::TCGETA => (18, true),
        c::TCSETA | c::TCSETAW | c::TCSETAF => (18, false),
        c::TIOCGWINSZ => (8, true),
        c::TIOCSWINSZ => (8, false),
        c::FIONREAD | c::TIOCOUTQ => (4, true),
        _ => return None,
    })
}

/// A terminal ioctl of [`tty_arg`]; `arg` must have its size.
pub fn tty_ioctl(fd: BorrowedFd<'_>, cmd: u32, arg: &mut [u8]) -> Result<()> {
    if tty_arg(cmd).is_none_or(|(n, _)| n > arg.len()) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: these commands read or write at most the checked size at the pointer.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(cmd), arg.as_mut_ptr()) } as isize).map(drop)
}

/// A terminal ioctl whose argument is a number: TCSBRK, TCSBRKP, TCXONC, TCFLSH.
pub fn tty_control(fd: BorrowedFd<'_>, cmd: u32, arg: u64) -> Result<()> {
    use linux_raw_sys::ioctl as c;
    if !matches!(cmd, c::TCSBRK | c::TCSBRKP | c::TCXONC | c::TCFLSH) {
        return Err(Errno::ENOTTY);
    }
    // SAFETY: these commands take no pointer.
    result(unsafe { libc::ioctl(fd.as_raw_fd(), libc::c_ulong::from(cmd), arg) } as isize).map(drop)
}
