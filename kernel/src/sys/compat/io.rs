//! Vectors, positions, waiting for descriptors.

use super::layout::{Area, IOVEC, Layout, SIGSET_AND_SIZE, TIMESPEC, TIMESPEC64, TIMEVAL};
use super::{join, native};
use crate::errno::{Errno, Result};
use crate::task::Task;

type Args = [u64; 6];

/// UIO_MAXIOV.
const MAX_IOV: u64 = 1024;

/// An array of `struct iovec`, widened.
pub(super) fn vector(area: &mut Area, at: u64, n: u64) -> Result<u64> {
    if n > MAX_IOV { Err(Errno::EINVAL) } else { area.widen_all(at, n, &IOVEC) }
}

fn vectored(t: &mut Task, nr: i64, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    a[1] = vector(&mut area, a[1], a[2])?;
    native(t, nr, &a)
}
pub(super) fn readv(t: &mut Task, a: Args) -> Result<u64> {
    vectored(t, libc::SYS_readv, a)
}
pub(super) fn writev(t: &mut Task, a: Args) -> Result<u64> {
    vectored(t, libc::SYS_writev, a)
}
pub(super) fn vmsplice(t: &mut Task, a: Args) -> Result<u64> {
    vectored(t, libc::SYS_vmsplice, a)
}
/// The position of preadv and kin is in two arguments on 64-bit machines too, the lower of which counts.
fn positioned(t: &mut Task, nr: i64, a: Args) -> Result<u64> {
    vectored(t, nr, [a[0], a[1], a[2], join(a[3], a[4]), 0, a[5]])
}
pub(super) fn preadv(t: &mut Task, a: Args) -> Result<u64> {
    positioned(t, libc::SYS_preadv, a)
}
pub(super) fn pwritev(t: &mut Task, a: Args) -> Result<u64> {
    positioned(t, libc::SYS_pwritev, a)
}
pub(super) fn preadv2(t: &mut Task, a: Args) -> Result<u64> {
    positioned(t, libc::SYS_preadv2, a)
}
pub(super) fn pwritev2(t: &mut Task, a: Args) -> Result<u64> {
    positioned(t, libc::SYS_pwritev2, a)
}
pub(super) fn pread64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_pread64, &[a[0], a[1], a[2], join(a[3], a[4])])
}
pub(super) fn pwrite64(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_pwrite64, &[a[0], a[1], a[2], join(a[3], a[4])])
}
fn remote(t: &mut Task, nr: i64, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    a[1] = vector(&mut area, a[1], a[2])?;
    a[3] = vector(&mut area, a[3], a[4])?;
    native(t, nr, &a)
}
pub(super) fn process_vm_readv(t: &mut Task, a: Args) -> Result<u64> {
    remote(t, libc::SYS_process_vm_readv, a)
}
pub(super) fn process_vm_writev(t: &mut Task, a: Args) -> Result<u64> {
    remote(t, libc::SYS_process_vm_writev, a)
}

/// sendfile with a 32-bit position.
pub(super) fn sendfile(t: &mut Task, a: Args) -> Result<u64> {
    if a[2] == 0 {
        return native(t, libc::SYS_sendfile, &a[..4]);
    }
    let mut area = Area::new(t)?;
    let at = u64::from(t.mem().read::<u32>(a[2])?);
    let position = area.put(&at.to_le_bytes())?;
    let r = native(t, libc::SYS_sendfile, &[a[0], a[1], position, a[3]])?;
    t.mem().write(a[2], area.mem.read::<u64>(position)? as u32)?;
    Ok(r)
}

// ---- waiting ----

/// A call with a timeout at argument `n`, which it may update.
fn timed(t: &mut Task, nr: i64, mut a: Args, n: usize, l: &Layout, updates: bool) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a[n];
    a[n] = area.widen(guest, l)?;
    let r = native(t, nr, &a);
    if updates {
        // The time that is left; that it cannot be stored is no error.
        let _ = area.narrow(a[n], guest, l);
    }
    r
}
pub(super) fn ppoll(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_ppoll, a, 2, &TIMESPEC, true)
}
pub(super) fn ppoll64(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_ppoll, a, 2, &TIMESPEC64, true)
}
pub(super) fn epoll_pwait2(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_epoll_pwait2, a, 3, &TIMESPEC64, false)
}

/// select and pselect6: sets of whole 32-bit words, the timeout in the layout `l`, and what is behind it as it is.
fn select_with(t: &mut Task, nr: i64, a: Args, l: &Layout, tail: u64, mut area: Area) -> Result<u64> {
    let n = a[0] as i32;
    if n < 0 {
        return Err(Errno::EINVAL);
    }
    // More descriptors than there can be are not looked at.
    let n = (n as u64).min(1 << 16);
    let (words, wide) = (n.div_ceil(32) * 4, n.div_ceil(64) * 8);
    let mut sets = [0; 3];
    for (to, guest) in sets.iter_mut().zip(&a[1..4]) {
        if *guest != 0 {
            *to = area.room(wide)?;
            let mut b = vec![0; words as usize];
            area.mem.copy_out(*guest, &mut b)?;
            area.mem.copy_in(*to, &b)?;
        }
    }
    let time = area.widen(a[4], l)?;
    let r = native(t, nr, &[n, sets[0], sets[1], sets[2], time, tail]);
    let _ = area.narrow(time, a[4], l);
    let r = r?;
    for (from, guest) in sets.iter().zip(&a[1..4]) {
        if *guest != 0 {
            let mut b = vec![0; words as usize];
            area.mem.copy_out(*from, &mut b)?;
            area.mem.copy_in(*guest, &b)?;
        }
    }
    Ok(r)
}
pub(super) fn select(t: &mut Task, a: Args) -> Result<u64> {
    let area = Area::new(t)?;
    select_with(t, libc::SYS_select, a, &TIMEVAL, 0, area)
}
/// The five arguments are in memory.
pub(super) fn old_select(t: &mut Task, a: Args) -> Result<u64> {
    let mut w = [0u64; 6];
    for (i, v) in w.iter_mut().take(5).enumerate() {
        *v = u64::from(t.mem().read::<u32>(a[0].wrapping_add(4 * i as u64))?);
    }
    select(t, w)
}
fn pselect(t: &mut Task, a: Args, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let tail = area.widen(a[5], &SIGSET_AND_SIZE)?;
    select_with(t, libc::SYS_pselect6, a, l, tail, area)
}
pub(super) fn pselect6(t: &mut Task, a: Args) -> Result<u64> {
    pselect(t, a, &TIMESPEC)
}
pub(super) fn pselect6_time64(t: &mut Task, a: Args) -> Result<u64> {
    pselect(t, a, &TIMESPEC64)
}
