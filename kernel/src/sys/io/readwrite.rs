//! Reading, writing and positions.
//!
//! Files whose pages the host holds are read straight into guest memory; everything else goes through a buffer of the
//! thread's. A stream is asked once a call, with all of the caller's buffers together, so that writes of at most
//! PIPE_BUF bytes and messages stay whole.

use super::{readable, signal_epipe, writable};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::host::{MAX_RW, pread_guest, pwrite_guest};
use crate::io::stdio::HostStream;
use crate::io::{lock, tty};
use crate::task::Task;
use std::cell::RefCell;
use std::sync::Arc;

/// Largest piece of a transfer with a file that has positions.
const CHUNK: usize = 64 * 1024;
/// Largest transfer with a stream (messages of sockets are smaller).
const STREAM: usize = 256 * 1024;
const IOV_MAX: u64 = 1024;
const PAGE: u64 = 4096;

/// A guest buffer: address and length.
pub(super) type Part = (u64, u64);

thread_local! {
    static BOUNCE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Run `f` with a buffer of `len` bytes.
pub(super) fn with_buffer<T>(len: usize, f: impl FnOnce(&mut [u8]) -> T) -> T {
    let mut v = BOUNCE.take();
    if v.len() < len {
        v.resize(len, 0);
    }
    let r = f(&mut v[..len]);
    BOUNCE.replace(v);
    r
}

/// The buffers of an iovec array, cut to what one call moves. EINVAL for a bad count or length.
pub(super) fn iovec(task: &Task, addr: u64, count: u64) -> Result<Vec<Part>> {
    if count > IOV_MAX {
        return Err(Errno::EINVAL);
    }
    let mut raw = vec![0u8; count as usize * 16];
    task.mem().copy_out(addr, &mut raw)?;
    let mut left = MAX_RW;
    let mut v = Vec::with_capacity(count as usize);
    for e in raw.chunks_exact(16) {
        let (a, n) = e.split_at(8);
        let word = |b: &[u8]| b.first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let (a, n) = (word(a), word(n));
        if n > i64::MAX as u64 {
            return Err(Errno::EINVAL);
        }
        let n = n.min(left);
        left -= n;
        if n > 0 {
            v.push((a, n));
        }
    }
    Ok(v)
}

/// Copy bytes to the buffers; all of `data` must fit.
pub(super) fn scatter(task: &Task, parts: &[Part], mut data: &[u8]) -> Result<()> {
    for (a, n) in parts {
        let (now, later) = data.split_at((*n).min(data.len() as u64) as usize);
        task.mem().copy_in(*a, now)?;
        data = later;
    }
    Ok(())
}

/// Copy `buf.len()` bytes from the buffers.
pub(super) fn gather(task: &Task, parts: &[Part], buf: &mut [u8]) -> Result<()> {
    let mut at = 0;
    for (a, n) in parts {
        let n = (*n).min((buf.len() - at) as u64) as usize;
        task.mem().copy_out(*a, &mut buf[at..at + n])?;
        at += n;
    }
    Ok(())
}

pub(super) fn total(parts: &[Part]) -> u64 {
    parts.iter().map(|p| p.1).sum()
}

fn read_part(task: &Task, d: &Description, pos: u64, (addr, len): Part) -> Result<u64> {
    let mem = task.mem();
    let direct = d.file.direct_fd().filter(|_| !d.file.as_any().is::<HostStream>());
    match d.file.read_guest(&mem, addr, len, pos)? as u64 {
        0 => {}
        n => return Ok(n),
    }
    let mut done = 0;
    while done < len {
        let (at, left) = (addr.checked_add(done).ok_or(Errno::EFAULT)?, len - done);
        if let Some(fd) = direct {
            match pread_guest(fd, &mem, at, left, pos + done) {
                Ok(0) => break,
                Ok(n) => {
                    done += n as u64;
                    if !(addr + done).is_multiple_of(PAGE) {
                        break; // end of file, or the last byte
                    }
                    continue;
                }
                Err(Errno::EINTR) => continue,
                Err(Errno::EFAULT) => {} // perhaps a page with translated code: a checked copy unprotects it
                Err(e) => return if done > 0 { Ok(done) } else { Err(e) },
            }
        }
        let piece = if direct.is_some() { PAGE - at % PAGE } else { CHUNK as u64 };
        let r = with_buffer(left.min(piece) as usize, |b| {
            let n = d.file.read(task, pos + done, b, d.nonblock())?;
            task.mem().copy_in(at, &b[..n])?;
            Ok(n as u64)
        });
        match r {
            Ok(n) => {
                done += n;
                if n < left.min(piece) {
                    break;
                }
            }
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Read into the buffers, at a position if the file has positions.
pub(super) fn read_parts(task: &Task, d: &Description, pos: u64, parts: &[Part], nonblock: bool) -> Result<u64> {
    if d.file.seekable() {
        let mut done = 0;
        for p in parts {
            match read_part(task, d, pos + done, *p) {
                Ok(n) => {
                    done += n;
                    if n < p.1 {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        return Ok(done);
    }
    if let Some(c) = tty::control(&*d.file) {
        c.check_read(task)?;
    }
    if let Some((a, _)) = parts.first() {
        task.mem().read::<u8>(*a)?; // before something is taken out of the stream
    }
    with_buffer(total(parts).min(STREAM as u64) as usize, |b| {
        let n = d.file.read(task, 0, b, nonblock)?;
        scatter(task, parts, &b[..n])?;
        Ok(n as u64)
    })
}

/// Cut a write at RLIMIT_FSIZE; SIGXFSZ and EFBIG beyond it.
fn file_size_limit(task: &Task, pos: u64, len: u64) -> Result<u64> {
    let limit = task.process.rlimit(libc::RLIMIT_FSIZE as usize).cur.min(i64::MAX as u64);
    if len > 0 && pos >= limit {
        task.raise(libc::SIGXFSZ);
        return Err(Errno::EFBIG);
    }
    Ok(len.min(limit - pos))
}

/// Write the buffers, at a position if the file has positions (`u64::MAX` = append).
pub(super) fn write_parts(task: &Task, d: &Description, pos: u64, parts: &[Part], nonblock: bool) -> Result<u64> {
    if !d.file.seekable() {
        // A stream gets small writes and messages in one piece, and long ones in several.
        let len = total(parts);
        if len > STREAM as u64 {
            return write_long(task, d, parts, nonblock);
        }
        return with_buffer(len as usize, |b| {
            gather(task, parts, b)?;
            d.file.write(task, 0, b, nonblock).map(|n| n as u64)
        });
    }
    let mut done = 0;
    for (addr, len) in parts {
        let mut left = if pos == u64::MAX { *len } else { file_size_limit(task, pos + done, *len)? };
        let cut = left < *len;
        let mut at = *addr;
        if pos != u64::MAX && left > 0 {
            match write_direct(task, d, pos + done, (at, left)) {
                Ok(n) => {
                    done += n;
                    at += n;
                    left -= n.min(left);
                }
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
        while left > 0 {
            let r = with_buffer(left.min(CHUNK as u64) as usize, |b| {
                task.mem().copy_out(at, b)?;
                let n = d.file.write(task, if pos == u64::MAX { pos } else { pos + done }, b, nonblock)?;
                Ok((n as u64, n < b.len()))
            });
            match r {
                Ok((n, short)) => {
                    done += n;
                    at += n;
                    left -= n.min(left);
                    if short {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return Err(e),
            }
        }
        if cut {
            break;
        }
    }
    Ok(done)
}

/// What the host takes of a buffer straight from guest memory; 0 if the file is none of the host's or the memory is bad,
/// which the copying write then finds out.
fn write_direct(task: &Task, d: &Description, pos: u64, (addr, len): Part) -> Result<u64> {
    let Some(fd) = d.file.direct(Some(pos.saturating_add(len)))? else {
        return Ok(d.file.write_guest(&task.mem(), addr, len, pos)? as u64);
    };
    loop {
        match pwrite_guest(fd, &task.mem(), addr, len, pos) {
            Ok(n) => return Ok(n as u64),
            Err(Errno::EFAULT) => return Ok(0),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

fn write_long(task: &Task, d: &Description, parts: &[Part], nonblock: bool) -> Result<u64> {
    let mut done = 0;
    for (addr, len) in parts {
        let (mut at, mut left) = (*addr, *len);
        while left > 0 {
            let r = with_buffer(left.min(STREAM as u64) as usize, |b| {
                task.mem().copy_out(at, b)?;
                let n = d.file.write(task, 0, b, nonblock)?;
                Ok((n as u64, n < b.len()))
            });
            match r {
                Ok((n, short)) => {
                    done += n;
                    at += n;
                    left -= n.min(left);
                    if short {
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

/// Read at the description's position and advance it.
fn read_here(task: &Task, d: &Description, parts: &[Part], nonblock: bool) -> Result<u64> {
    readable(d)?;
    if !d.file.seekable() {
        return read_parts(task, d, 0, parts, nonblock);
    }
    let mut pos = lock(&d.pos);
    let n = read_parts(task, d, *pos, parts, nonblock)?;
    *pos += n;
    Ok(n)
}

/// Write at the description's position (or the end, with O_APPEND) and advance it.
fn write_here(task: &Task, d: &Description, parts: &[Part], append: bool, nonblock: bool) -> Result<u64> {
    writable(d)?;
    if !d.file.seekable() {
        return signal_epipe(task, write_parts(task, d, 0, parts, nonblock));
    }
    let mut pos = lock(&d.pos);
    if append {
        let n = write_parts(task, d, u64::MAX, parts, nonblock)?;
        *pos = d.file.stat()?.size;
        return Ok(n);
    }
    let n = write_parts(task, d, *pos, parts, nonblock)?;
    *pos += n;
    Ok(n)
}

fn appends(d: &Description) -> bool {
    d.flags() & libc::O_APPEND as u32 != 0
}

fn positioned(task: &Task, fd: u64, pos: u64) -> Result<Arc<Description>> {
    let d = task.fds().get_io(fd as i32)?;
    if !d.file.seekable() {
        return Err(Errno::ESPIPE);
    }
    if pos > i64::MAX as u64 {
        return Err(Errno::EINVAL);
    }
    Ok(d)
}

fn read_there(task: &Task, d: &Description, pos: u64, parts: &[Part]) -> Result<u64> {
    readable(d)?;
    if pos.checked_add(total(parts)).is_none_or(|e| e > i64::MAX as u64) {
        return Err(Errno::EINVAL);
    }
    read_parts(task, d, pos, parts, d.nonblock())
}

fn write_there(task: &Task, d: &Description, pos: u64, parts: &[Part], append: bool) -> Result<u64> {
    writable(d)?;
    if pos.checked_add(total(parts)).is_none_or(|e| e > i64::MAX as u64) {
        return Err(Errno::EFBIG);
    }
    write_parts(task, d, if append { u64::MAX } else { pos }, parts, d.nonblock())
}

fn cut(len: u64) -> Result<u64> {
    if len > i64::MAX as u64 { Err(Errno::EFAULT) } else { Ok(len.min(MAX_RW)) }
}

pub(super) fn read(task: &mut Task, [fd, buf, len, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    read_here(task, &d, &[(buf, cut(len)?)], d.nonblock())
}

pub(super) fn write(task: &mut Task, [fd, buf, len, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    write_here(task, &d, &[(buf, cut(len)?)], appends(&d), d.nonblock())
}

pub(super) fn pread64(task: &mut Task, [fd, buf, len, pos, ..]: [u64; 6]) -> Result<u64> {
    let d = positioned(task, fd, pos)?;
    read_there(task, &d, pos, &[(buf, cut(len)?)])
}

pub(super) fn pwrite64(task: &mut Task, [fd, buf, len, pos, ..]: [u64; 6]) -> Result<u64> {
    let d = positioned(task, fd, pos)?;
    write_there(task, &d, pos, &[(buf, cut(len)?)], appends(&d))
}

pub(super) fn readv(task: &mut Task, [fd, iov, n, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    readable(&d)?;
    let parts = iovec(task, iov, n)?;
    read_here(task, &d, &parts, d.nonblock())
}

pub(super) fn writev(task: &mut Task, [fd, iov, n, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    writable(&d)?;
    let parts = iovec(task, iov, n)?;
    write_here(task, &d, &parts, appends(&d), d.nonblock())
}

pub(super) fn preadv(task: &mut Task, [fd, iov, n, pos, ..]: [u64; 6]) -> Result<u64> {
    let d = positioned(task, fd, pos)?;
    let parts = iovec(task, iov, n)?;
    read_there(task, &d, pos, &parts)
}

pub(super) fn pwritev(task: &mut Task, [fd, iov, n, pos, ..]: [u64; 6]) -> Result<u64> {
    let d = positioned(task, fd, pos)?;
    let parts = iovec(task, iov, n)?;
    write_there(task, &d, pos, &parts, appends(&d))
}

const RWF_HIPRI: u64 = 1;
const RWF_DSYNC: u64 = 2;
const RWF_SYNC: u64 = 4;
const RWF_NOWAIT: u64 = 8;
const RWF_APPEND: u64 = 16;
const RWF_NOAPPEND: u64 = 32;

pub(super) fn preadv2(task: &mut Task, [fd, iov, n, pos, _, flags]: [u64; 6]) -> Result<u64> {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    if pos != u64::MAX {
        return preadv(task, [fd, iov, n, pos, 0, 0]);
    }
    let d = task.fds().get_io(fd as i32)?;
    readable(&d)?;
    let parts = iovec(task, iov, n)?;
    read_here(task, &d, &parts, d.nonblock() || flags & RWF_NOWAIT != 0)
}

pub(super) fn pwritev2(task: &mut Task, [fd, iov, n, pos, _, flags]: [u64; 6]) -> Result<u64> {
    if flags & !(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND) != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let d = if pos == u64::MAX { task.fds().get_io(fd as i32)? } else { positioned(task, fd, pos)? };
    writable(&d)?;
    let parts = iovec(task, iov, n)?;
    let append = (appends(&d) || flags & RWF_APPEND != 0) && flags & RWF_NOAPPEND == 0;
    let done = if pos == u64::MAX {
        write_here(task, &d, &parts, append, d.nonblock() || flags & RWF_NOWAIT != 0)?
    } else {
        write_there(task, &d, pos, &parts, append)?
    };
    if flags & (RWF_DSYNC | RWF_SYNC) != 0 && done > 0 && d.file.seekable() {
        d.file.sync(flags & RWF_SYNC == 0)?;
    }
    Ok(done)
}

pub(super) fn lseek(task: &mut Task, [fd, off, whence, ..]: [u64; 6]) -> Result<u64> {
    let d = task.fds().get_io(fd as i32)?;
    if !d.file.seekable() {
        // Files without a type (eventfd and the like) stay at 0.
        let typeless = d.file.stat()?.mode & libc::S_IFMT == 0;
        return if typeless { Ok(0) } else { Err(Errno::ESPIPE) };
    }
    // The devices of memory have no positions either, and say so in this way.
    let st = d.file.stat()?;
    if st.mode & libc::S_IFMT == libc::S_IFCHR && st.rdev >> 8 == 1 {
        return Ok(0);
    }
    let mut pos = lock(&d.pos);
    let off = off as i64;
    let new = match whence as i32 {
        libc::SEEK_SET => Some(off),
        libc::SEEK_CUR => (*pos as i64).checked_add(off),
        libc::SEEK_END => (st.size as i64).checked_add(off),
        w @ (libc::SEEK_DATA | libc::SEEK_HOLE) => Some(data_or_hole(&d, off, w)?),
        _ => return Err(Errno::EINVAL),
    };
    match new {
        None => Err(Errno::EOVERFLOW),
        Some(n) if n < 0 => Err(Errno::EINVAL),
        Some(n) => {
            *pos = n as u64;
            Ok(n as u64)
        }
    }
}

/// Next data or hole from `off` on. Without a host file to ask, everything is data.
fn data_or_hole(d: &Description, off: i64, whence: i32) -> Result<i64> {
    use rustix::fs::SeekFrom;
    let size = d.file.stat()?.size as i64;
    if off < 0 || off >= size {
        return Err(Errno::ENXIO);
    }
    let data = whence == libc::SEEK_DATA;
    match d.file.direct_fd().filter(|_| !d.file.as_any().is::<HostStream>()) {
        Some(fd) => {
            let from = if data { SeekFrom::Data(off as u64) } else { SeekFrom::Hole(off as u64) };
            Ok(rustix::fs::seek(fd, from)? as i64)
        }
        None => Ok(if data { off } else { size }),
    }
}
