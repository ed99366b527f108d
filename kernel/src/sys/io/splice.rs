//! Moving bytes between descriptors: sendfile, splice, tee, vmsplice.

use super::readwrite::{gather, iovec, read_parts, total};
use super::{readable, signal_epipe, writable};
use crate::errno::{Errno, Result};
use crate::file::Description;
use crate::io::lock;
use crate::io::pipe::PipeEnd;
use crate::task::Task;
use std::sync::Arc;

const CHUNK: u64 = 64 * 1024;
const FLAG_NONBLOCK: u64 = libc::SPLICE_F_NONBLOCK as u64;
const FLAGS: u64 = 0xf;

/// A position to read or write at: the guest's variable, or the description's own.
struct At<'a> {
    d: &'a Description,
    var: u64,
    pos: u64,
}

impl<'a> At<'a> {
    fn new(task: &Task, d: &'a Description, var: u64) -> Result<At<'a>> {
        let pos = match var {
            0 => *lock(&d.pos),
            v => task.mem().read::<u64>(v)?,
        };
        if !d.file.seekable() {
            return if var != 0 { Err(Errno::ESPIPE) } else { Ok(At { d, var, pos: 0 }) };
        }
        if pos > i64::MAX as u64 { Err(Errno::EINVAL) } else { Ok(At { d, var, pos }) }
    }
    fn done(self, task: &Task) -> Result<()> {
        match self.var {
            0 if self.d.file.seekable() => *lock(&self.d.pos) = self.pos,
            0 => {}
            v => task.mem().write(v, self.pos)?,
        }
        Ok(())
    }
    fn write_pos(&self) -> u64 {
        if self.d.flags() & libc::O_APPEND as u32 != 0 { u64::MAX } else { self.pos }
    }
}

/// Copy up to `len` bytes. Bytes that cannot be written are not taken from a file with positions; from a
/// stream they are gone, so streams other than pipes are read last.
fn copy(task: &Task, from: &mut At<'_>, to: &mut At<'_>, len: u64, nonblock: bool) -> Result<u64> {
    let mut buf = vec![0u8; len.min(CHUNK) as usize];
    let mut done = 0;
    while done < len {
        let n = (len - done).min(CHUNK) as usize;
        let got = match from.d.file.read(
            task,
            from.pos,
            &mut buf[..n],
            nonblock || from.d.nonblock() || done > 0 && !from.d.file.seekable(),
        ) {
            Ok(0) => break,
            Ok(n) => n,
            Err(_) if done > 0 => break,
            Err(e) => return Err(e),
        };
        let mut put = 0;
        let mut error = None;
        while put < got {
            match to.d.file.write(task, to.write_pos(), &buf[put..got], nonblock || to.d.nonblock()) {
                Ok(0) => break,
                Ok(n) => {
                    put += n;
                    to.pos += n as u64;
                }
                Err(e) => {
                    error = Some(e);
                    break;
                }
            }
        }
        from.pos += put as u64;
        done += put as u64;
        if put < got {
            if let Some(p) = from.d.file.as_any().downcast_ref::<PipeEnd>() {
                p.pipe().unread(&buf[put..got]);
            }
            match error {
                Some(e) if done == 0 => return Err(e),
                _ => break,
            }
        }
        if !from.d.file.seekable() {
            break; // what a stream had
        }
    }
    Ok(done)
}

pub(super) fn sendfile(task: &mut Task, [out, from, offset, count, ..]: [u64; 6]) -> Result<u64> {
    if offset != 0 {
        task.mem().read::<u64>(offset)?;
    }
    let (i, o) = (task.fds().get_io(from as i32)?, task.fds().get_io(out as i32)?);
    readable(&i)?;
    writable(&o)?;
    if o.flags() & libc::O_APPEND as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    if !i.file.seekable() && i.file.as_any().downcast_ref::<PipeEnd>().is_none() {
        return Err(Errno::EINVAL);
    }
    if i.file.stat()?.mode & libc::S_IFMT == libc::S_IFDIR {
        return Err(Errno::EINVAL);
    }
    let mut from = At::new(task, &i, offset)?;
    let mut to = At::new(task, &o, 0)?;
    let n = signal_epipe(task, copy(task, &mut from, &mut to, count.min(0x7fff_f000), false))?;
    from.done(task)?;
    to.done(task)?;
    Ok(n)
}

fn pipe_of(d: &Description) -> Option<&PipeEnd> {
    d.file.as_any().downcast_ref()
}

pub(super) fn splice(task: &mut Task, [fi, pi, fo, po, len, flags]: [u64; 6]) -> Result<u64> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let (i, o) = (task.fds().get_io(fi as i32)?, task.fds().get_io(fo as i32)?);
    readable(&i)?;
    writable(&o)?;
    let (ip, op) = (pipe_of(&i), pipe_of(&o));
    if ip.is_some() && pi != 0 || op.is_some() && po != 0 {
        return Err(Errno::ESPIPE);
    }
    match (ip, op) {
        (None, None) => return Err(Errno::EINVAL),
        (Some(a), Some(b)) if Arc::ptr_eq(a.pipe(), b.pipe()) => return Err(Errno::EINVAL),
        _ => {}
    }
    if op.is_none() && o.flags() & libc::O_APPEND as u32 != 0 {
        return Err(Errno::EINVAL);
    }
    let mut from = At::new(task, &i, pi)?;
    let mut to = At::new(task, &o, po)?;
    let nonblock = flags & FLAG_NONBLOCK != 0;
    // Into a pipe: no more than fits, so that nothing is read that has no place.
    let len = match op {
        Some(p) => {
            let room = signal_epipe(task, p.pipe().wait_room(task, nonblock || o.nonblock()))?;
            len.min(room as u64)
        }
        None => len,
    };
    let n = signal_epipe(task, copy(task, &mut from, &mut to, len.min(CHUNK * 16), nonblock))?;
    from.done(task)?;
    to.done(task)?;
    Ok(n)
}

pub(super) fn tee(task: &mut Task, [fi, fo, len, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let (i, o) = (task.fds().get_io(fi as i32)?, task.fds().get_io(fo as i32)?);
    readable(&i)?;
    writable(&o)?;
    let (Some(a), Some(b)) = (pipe_of(&i), pipe_of(&o)) else {
        return Err(Errno::EINVAL);
    };
    if Arc::ptr_eq(a.pipe(), b.pipe()) {
        return Err(Errno::EINVAL);
    }
    if len == 0 {
        return Ok(0);
    }
    let nonblock = flags & FLAG_NONBLOCK != 0;
    let bytes = a.pipe().peek(task, len.min(CHUNK * 16) as usize, nonblock || i.nonblock())?;
    if bytes.is_empty() {
        return Ok(0);
    }
    let room = signal_epipe(task, b.pipe().wait_room(task, nonblock || o.nonblock()))?;
    let n = bytes.len().min(room);
    signal_epipe(task, b.pipe().write(task, &bytes[..n], nonblock || o.nonblock())).map(|n| n as u64)
}

pub(super) fn vmsplice(task: &mut Task, [fd, iov, n, flags, ..]: [u64; 6]) -> Result<u64> {
    if flags & !FLAGS != 0 {
        return Err(Errno::EINVAL);
    }
    let d = task.fds().get_io(fd as i32)?;
    let Some(p) = pipe_of(&d) else {
        return Err(Errno::EBADF);
    };
    let nonblock = flags & FLAG_NONBLOCK != 0 || d.nonblock();
    let parts = iovec(task, iov, n)?;
    let len = total(&parts);
    if len == 0 {
        return Ok(0);
    }
    if !p.writable() {
        return read_parts(task, &d, 0, &parts, nonblock);
    }
    let mut done = 0u64;
    let mut buf = vec![0u8; CHUNK as usize];
    for (addr, n) in parts {
        let mut at = 0;
        while at < n {
            let k = (n - at).min(CHUNK);
            gather(task, &[(addr + at, k)], &mut buf[..k as usize])?;
            match p.pipe().write(task, &buf[..k as usize], nonblock) {
                Ok(w) => {
                    at += w as u64;
                    done += w as u64;
                    if (w as u64) < k {
                        return Ok(done);
                    }
                }
                Err(_) if done > 0 => return Ok(done),
                Err(e) => return signal_epipe(task, Err(e)),
            }
        }
    }
    Ok(done)
}
