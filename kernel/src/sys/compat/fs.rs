//! Files: status, names in directories, positions of 64 bits, locks, control.

use super::layout::{Area, FLOCK, FLOCK64, Layout, STAT, STAT64, STATFS, STATFS64, end32};
use super::{join, native};
use crate::errno::{Errno, Result};
use crate::task::Task;
use std::sync::atomic::Ordering;

type Args = [u64; 6];

/// A call whose argument `n` is where a structure goes.
fn gives(t: &mut Task, nr: i64, mut a: Args, n: usize, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let to = a[n];
    a[n] = area.room(l.wide)?;
    let r = native(t, nr, &a)?;
    if to == 0 {
        return Err(Errno::EFAULT);
    }
    area.narrow(a[n], to, l)?;
    Ok(r)
}

/// An inode number of 32 bits: libraries give EOVERFLOW for others to programs that know none.
fn short_ino(ino: u64) -> u64 {
    match ino {
        n if n >> 32 == 0 => n,
        n => ((n ^ n >> 32) & 0xffff_ffff).max(1),
    }
}

/// The same with a file's status, whose inode number is made short.
fn status(t: &mut Task, nr: i64, mut a: Args, n: usize, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let to = a[n];
    a[n] = area.room(l.wide)?;
    let r = native(t, nr, &a)?;
    if to == 0 {
        return Err(Errno::EFAULT);
    }
    let ino = short_ino(area.mem.read(a[n] + 8)?);
    area.mem.write(a[n] + 8, ino)?;
    area.narrow(a[n], to, l)?;
    Ok(r)
}
pub(super) fn statx(t: &mut Task, a: Args) -> Result<u64> {
    const INO: u64 = 32;
    let r = native(t, libc::SYS_statx, &a)?;
    let at = end32(a[4] + INO);
    let ino = short_ino(t.mem().read(at)?);
    t.mem().write(at, ino)?;
    Ok(r)
}
/// A folder's position as 32-bit programs see it. Those that need 64 bits are hashes (ext4's), whose upper halves Linux
/// gives to 32-bit programs.
fn short_pos(t: &Task, fd: u64, pos: u64) -> Result<u64> {
    if i32::try_from(pos).is_ok() {
        return Ok(pos);
    }
    t.fds().get(fd as i32)?.halved.store(true, Ordering::Relaxed);
    Ok(pos >> 32)
}
/// The position that `short_pos` made `pos` of.
fn long_pos(t: &Task, fd: u64, pos: u64, whence: u64) -> u64 {
    let halved = whence == 0 && t.fds().get(fd as i32).is_ok_and(|d| d.halved.load(Ordering::Relaxed));
    if halved { pos << 32 } else { pos }
}

pub(super) fn getdents64(t: &mut Task, a: Args) -> Result<u64> {
    let n = native(t, libc::SYS_getdents64, &a)?;
    let mut at = 0;
    while at < n {
        let (ino, off, len) = (end32(a[1] + at), end32(a[1] + at + 8), end32(a[1] + at + 16));
        let short = short_ino(t.mem().read(ino)?);
        t.mem().write(ino, short)?;
        let pos = short_pos(t, a[0], t.mem().read(off)?)?;
        t.mem().write(off, pos)?;
        at += u64::from(t.mem().read::<u16>(len)?).max(1);
    }
    Ok(n)
}

pub(super) fn stat(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_stat, a, 1, &STAT)
}
pub(super) fn lstat(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_lstat, a, 1, &STAT)
}
pub(super) fn fstat(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_fstat, a, 1, &STAT)
}
pub(super) fn stat64(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_stat, a, 1, &STAT64)
}
pub(super) fn lstat64(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_lstat, a, 1, &STAT64)
}
pub(super) fn fstat64(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_fstat, a, 1, &STAT64)
}
pub(super) fn fstatat64(t: &mut Task, a: Args) -> Result<u64> {
    status(t, libc::SYS_newfstatat, a, 2, &STAT64)
}
pub(super) fn statfs(t: &mut Task, a: Args) -> Result<u64> {
    gives(t, libc::SYS_statfs, a, 1, &STATFS)
}
pub(super) fn fstatfs(t: &mut Task, a: Args) -> Result<u64> {
    gives(t, libc::SYS_fstatfs, a, 1, &STATFS)
}
fn with_size(t: &mut Task, nr: i64, a: Args) -> Result<u64> {
    // 88 with a compiler that aligns the structure to eight bytes.
    if a[1] != STATFS64.narrow && a[1] != 88 {
        return Err(Errno::EINVAL);
    }
    gives(t, nr, [a[0], a[2], 0, 0, 0, 0], 1, &STATFS64)
}
pub(super) fn statfs64(t: &mut Task, a: Args) -> Result<u64> {
    with_size(t, libc::SYS_statfs, a)
}
pub(super) fn fstatfs64(t: &mut Task, a: Args) -> Result<u64> {
    with_size(t, libc::SYS_fstatfs, a)
}

/// getdents: entries of the 64-bit call, which are never shorter.
pub(super) fn getdents(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let len = a[2].min(area.left());
    let from = area.room(len)?;
    let n = native(t, libc::SYS_getdents64, &[a[0], from, len])? as usize;
    let mut b = vec![0; n];
    area.mem.copy_out(from, &mut b)?;
    let mut out = Vec::with_capacity(n);
    let mut rest = &b[..];
    while rest.len() > 19 {
        let size = usize::from(u16::from_le_bytes([rest[16], rest[17]])).clamp(19, rest.len());
        let (entry, more) = rest.split_at(size);
        let name = entry[19..].split(|c| *c == 0).next().unwrap_or_default();
        let start = out.len();
        let ino = u64::from_le_bytes(std::array::from_fn(|i| entry[i]));
        out.extend_from_slice(&(short_ino(ino) as u32).to_le_bytes());
        let pos = short_pos(t, a[0], u64::from_le_bytes(std::array::from_fn(|i| entry[8 + i])))?;
        out.extend_from_slice(&(pos as u32).to_le_bytes());
        let short = (10 + name.len() + 2).next_multiple_of(4);
        out.extend_from_slice(&(short as u16).to_le_bytes());
        out.extend_from_slice(name);
        out.resize(start + short, 0);
        out[start + short - 1] = entry[18]; // the type is the last byte
        rest = more;
    }
    area.mem.copy_in(a[1], &out)?;
    Ok(out.len() as u64)
}

pub(super) fn lseek(t: &mut Task, a: Args) -> Result<u64> {
    // As on 64-bit kernels a position that does not fit is cut off.
    let pos = long_pos(t, a[0], a[1] as u32 as i32 as u64, a[2]);
    let r = native(t, libc::SYS_lseek, &[a[0], pos, a[2]])?;
    Ok(if pos == a[1] as u32 as i32 as u64 { r } else { r >> 32 })
}
pub(super) fn llseek(t: &mut Task, a: Args) -> Result<u64> {
    let pos = long_pos(t, a[0], join(a[2], a[1]), a[4]);
    let r = native(t, libc::SYS_lseek, &[a[0], pos, a[4]])?;
    let r = if pos == join(a[2], a[1]) { r } else { r >> 32 };
    t.mem().write(a[3], r)?;
    Ok(0)
}
pub(super) fn truncate(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_truncate, &[a[0], a[1] as u32 as i32 as u64])
}
pub(super) fn ftruncate(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_ftruncate, &[a[0], a[1] as u32 as i32 as u64])
}
pub(super) fn truncate64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_truncate, &[a[0], join(a[1], a[2])])
}
pub(super) fn ftruncate64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_ftruncate, &[a[0], join(a[1], a[2])])
}
pub(super) fn fallocate(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_fallocate, &[a[0], a[1], join(a[2], a[3]), join(a[4], a[5])])
}
pub(super) fn fadvise64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_fadvise64, &[a[0], join(a[1], a[2]), a[3], a[4]])
}
pub(super) fn fadvise64_64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_fadvise64, &[a[0], join(a[1], a[2]), join(a[3], a[4]), a[5]])
}
pub(super) fn sync_file_range(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_sync_file_range, &[a[0], join(a[1], a[2]), join(a[3], a[4]), a[5]])
}
pub(super) fn readahead(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_readahead, &[a[0], join(a[1], a[2]), a[3]])
}

/// fcntl and fcntl64: the record lock of the former has 32-bit positions.
fn control(t: &mut Task, a: Args, plain: &Layout) -> Result<u64> {
    let cmd = a[1] as i32;
    let (cmd, l) = match cmd {
        libc::F_GETLK | libc::F_SETLK | libc::F_SETLKW => (cmd, plain),
        // F_GETLK64, F_SETLK64, F_SETLKW64
        12..=14 => (cmd - 12 + libc::F_GETLK, &FLOCK64),
        libc::F_OFD_GETLK | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => (cmd, &FLOCK64),
        _ => return native(t, libc::SYS_fcntl, &a[..3]),
    };
    let mut area = Area::new(t)?;
    let lock = area.widen(a[2], l)?;
    let r = native(t, libc::SYS_fcntl, &[a[0], cmd as u64, lock])?;
    if matches!(cmd, libc::F_GETLK | libc::F_OFD_GETLK) {
        area.narrow(lock, a[2], l)?;
    }
    Ok(r)
}
pub(super) fn fcntl(t: &mut Task, a: Args) -> Result<u64> {
    control(t, a, &FLOCK)
}
pub(super) fn fcntl64(t: &mut Task, a: Args) -> Result<u64> {
    control(t, a, &FLOCK)
}

/// Requests whose numbers hold the size of a `long`.
const IOCTLS: [(u64, u64); 3] = [
    (0x8004_6601, 0x8008_6601), // FS_IOC_GETFLAGS
    (0x4004_6602, 0x4008_6602), // FS_IOC_SETFLAGS
    (0x8004_7601, 0x8008_7601), // FS_IOC_GETVERSION
];

pub(super) fn ioctl(t: &mut Task, a: Args) -> Result<u64> {
    let request = IOCTLS.iter().find(|r| r.0 == a[1]).map_or(a[1], |r| r.1);
    native(t, libc::SYS_ioctl, &[a[0], request, a[2]])
}

pub(super) fn mmap(t: &mut Task, a: Args) -> Result<u64> {
    let mut w = [0u64; 6];
    for (i, v) in w.iter_mut().enumerate() {
        *v = u64::from(t.mem().read::<u32>(a[0].wrapping_add(4 * i as u64))?);
    }
    w[4] = w[4] as u32 as i32 as u64;
    native(t, libc::SYS_mmap, &w)
}
pub(super) fn mmap2(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_mmap, &[a[0], a[1], a[2], a[3], a[4], a[5] << 12])
}
