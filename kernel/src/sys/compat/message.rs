//! Messages with control data, socket options of time, and the calls that stand for several (socketcall, ipc).

use super::io::vector;
use super::layout::{Area, Layout, MSGHDR, TIMESPEC, TIMESPEC64, TIMEVAL, end32};
use super::{native, table};
use crate::errno::{Errno, Result};
use crate::task::Task;

type Args = [u64; 6];

/// Size of struct cmsghdr in both layouts.
const HEAD: usize = 12;
const WIDE_HEAD: usize = 16;
/// Most control data of a message (it has to fit scratch memory with a full vector).
const MAX_CONTROL: u64 = 20 << 10;

fn u32_at(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|s| s.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// Control messages in the 64-bit layout; EINVAL for a length that cannot be.
fn widen_control(b: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(b.len() * 2);
    let mut rest = b;
    while rest.len() >= HEAD {
        let len = u32_at(rest, 0) as usize;
        let data = rest.get(HEAD..len).ok_or(Errno::EINVAL)?;
        out.extend_from_slice(&((WIDE_HEAD + data.len()) as u64).to_le_bytes());
        out.extend_from_slice(&rest[4..HEAD]);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(8), 0);
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(out)
}

/// Control messages in the 32-bit layout, as many as fit `room`; whether all did.
fn narrow_control(b: &[u8], room: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    let mut rest = b;
    while rest.len() >= WIDE_HEAD {
        let len = (u32_at(rest, 0) as usize).clamp(WIDE_HEAD, rest.len());
        let data = &rest[WIDE_HEAD..len];
        let times = u32_at(rest, 8) == libc::SOL_SOCKET as u32
            && [libc::SCM_TIMESTAMP as u32, libc::SCM_TIMESTAMPNS as u32].contains(&u32_at(rest, 12))
            && data.len() == 16;
        let data = if times { [&data[..4], &data[8..12]].concat() } else { data.to_vec() };
        let start = out.len().next_multiple_of(4);
        if start + HEAD + data.len() > room {
            return (out, false);
        }
        out.resize(start, 0);
        out.extend_from_slice(&((HEAD + data.len()) as u32).to_le_bytes());
        out.extend_from_slice(&rest[8..WIDE_HEAD]);
        out.extend_from_slice(&data);
        rest = rest.get(len.next_multiple_of(8)..).unwrap_or_default();
    }
    (out, true)
}

/// Offsets in the 64-bit header.
const IOV: u64 = 16;
const CONTROL: u64 = 32;
const CONTROL_LEN: u64 = 40;
const FLAGS: u64 = 48;

/// The header at `at` in the 64-bit layout, with its vector; the control data is left out.
fn header(area: &mut Area, at: u64) -> Result<(u64, u64, u64)> {
    let h = area.widen(at, &MSGHDR)?;
    if h == 0 {
        return Err(Errno::EFAULT);
    }
    let (iov, n): (u64, u64) = (area.mem.read(h + IOV)?, area.mem.read(h + IOV + 8)?);
    let v = vector(area, iov, n).map_err(|e| if e == Errno::EINVAL { Errno::EMSGSIZE } else { e })?;
    area.mem.write(h + IOV, v)?;
    let (control, len) = (area.mem.read(h + CONTROL)?, area.mem.read(h + CONTROL_LEN)?);
    area.mem.write(h + CONTROL, 0u64)?;
    area.mem.write(h + CONTROL_LEN, 0u64)?;
    Ok((h, control, len))
}

pub(super) fn sendmsg(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let (h, control, len) = header(&mut area, a[1])?;
    if control != 0 && len != 0 {
        if len > MAX_CONTROL {
            return Err(Errno::ENOBUFS);
        }
        let mut b = vec![0; len as usize];
        area.mem.copy_out(control, &mut b)?;
        let wide = widen_control(&b)?;
        let at = area.put(&wide)?;
        area.mem.write(h + CONTROL, at)?;
        area.mem.write(h + CONTROL_LEN, wide.len() as u64)?;
    }
    native(t, libc::SYS_sendmsg, &[a[0], h, a[2]])
}

pub(super) fn recvmsg(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let (h, control, len) = header(&mut area, a[1])?;
    let room = len.min(MAX_CONTROL);
    let wide = if control == 0 || room < HEAD as u64 { 0 } else { area.room(room + (WIDE_HEAD - HEAD) as u64)? };
    if wide != 0 {
        area.mem.write(h + CONTROL, wide)?;
        area.mem.write(h + CONTROL_LEN, room + (WIDE_HEAD - HEAD) as u64)?;
    }
    let r = native(t, libc::SYS_recvmsg, &[a[0], h, a[2]])?;
    let used: u64 = area.mem.read(h + CONTROL_LEN)?;
    let mut flags: u32 = area.mem.read(h + FLAGS)?;
    let mut filled = 0;
    if wide != 0 {
        let mut b = vec![0; used as usize];
        area.mem.copy_out(wide, &mut b)?;
        let (narrow, all) = narrow_control(&b, room as usize);
        area.mem.copy_in(control, &narrow)?;
        filled = narrow.len() as u32;
        if !all {
            flags |= libc::MSG_CTRUNC as u32;
        }
    }
    let name_len: u32 = area.mem.read(h + 8)?;
    area.mem.write(end32(a[1] + 4), name_len)?;
    area.mem.write(end32(a[1] + 20), filled)?;
    area.mem.write(end32(a[1] + 24), flags)?;
    Ok(r)
}

/// Size of struct mmsghdr.
const MMSG: u64 = 32;

pub(super) fn sendmmsg(t: &mut Task, a: Args) -> Result<u64> {
    let mut done = 0;
    while done < a[2].min(1024) {
        let at = end32(a[1] + done * MMSG);
        match sendmsg(t, [a[0], at, a[3], 0, 0, 0]) {
            Ok(n) => t.mem().write(end32(at + 28), n as u32)?,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        done += 1;
    }
    Ok(done)
}

/// Messages until there are enough, the time is over, or after the first with MSG_WAITFORONE there is none.
fn recvmmsg_with(t: &mut Task, a: Args, l: &Layout) -> Result<u64> {
    let deadline = match a[4] {
        0 => None,
        at => {
            let mut area = Area::new(t)?;
            let wide = area.widen(at, l)?;
            Some(t.deadline(super::super::time::read_timespec(t.mem(), wide)?))
        }
    };
    let (mut done, mut flags) = (0, a[3] & !(libc::MSG_WAITFORONE as u64));
    while done < a[2].min(1024) {
        let at = end32(a[1] + done * MMSG);
        match recvmsg(t, [a[0], at, flags, 0, 0, 0]) {
            Ok(n) => t.mem().write(end32(at + 28), n as u32)?,
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
        done += 1;
        if a[3] & libc::MSG_WAITFORONE as u64 != 0 {
            flags |= libc::MSG_DONTWAIT as u64;
        }
        if deadline.is_some_and(|d| t.kernel().clock.peek() >= d.at) {
            break;
        }
    }
    Ok(done)
}
pub(super) fn recvmmsg(t: &mut Task, a: Args) -> Result<u64> {
    recvmmsg_with(t, a, &TIMESPEC)
}
pub(super) fn recvmmsg64(t: &mut Task, a: Args) -> Result<u64> {
    recvmmsg_with(t, a, &TIMESPEC64)
}

/// Whether an option is a time in 32-bit numbers.
fn is_time(a: &Args) -> bool {
    a[1] as i32 == libc::SOL_SOCKET && [libc::SO_RCVTIMEO, libc::SO_SNDTIMEO].contains(&(a[2] as i32))
}

pub(super) fn setsockopt(t: &mut Task, mut a: Args) -> Result<u64> {
    if !is_time(&a) {
        return native(t, libc::SYS_setsockopt, &a[..5]);
    }
    if a[4] < TIMEVAL.narrow {
        return Err(Errno::EINVAL);
    }
    let mut area = Area::new(t)?;
    a[3] = area.widen(a[3], &TIMEVAL)?;
    a[4] = TIMEVAL.wide;
    native(t, libc::SYS_setsockopt, &a[..5])
}

pub(super) fn getsockopt(t: &mut Task, a: Args) -> Result<u64> {
    if !is_time(&a) {
        return native(t, libc::SYS_getsockopt, &a[..5]);
    }
    let mut area = Area::new(t)?;
    let (value, len) = (area.room(TIMEVAL.wide)?, area.put(&(TIMEVAL.wide as u32).to_le_bytes())?);
    let r = native(t, libc::SYS_getsockopt, &[a[0], a[1], a[2], value, len])?;
    let room: u32 = area.mem.read(a[4])?;
    let own = area.room(TIMEVAL.narrow)?;
    area.narrow(value, own, &TIMEVAL)?;
    let mut b = [0; 8];
    area.mem.copy_out(own, &mut b)?;
    let n = (room as usize).min(b.len());
    area.mem.copy_in(a[3], &b[..n])?;
    area.mem.write(a[4], n as u32)?;
    Ok(r)
}

/// The i386 numbers of what socketcall stands for, and how many arguments they have.
const SOCKET_CALLS: [(u32, usize); 20] = [
    (359, 3), // socket
    (361, 3), // bind
    (362, 3), // connect
    (363, 2), // listen
    (0, 3),   // accept
    (367, 3), // getsockname
    (368, 3), // getpeername
    (360, 4), // socketpair
    (0, 4),   // send
    (0, 4),   // recv
    (369, 6), // sendto
    (371, 6), // recvfrom
    (373, 2), // shutdown
    (366, 5), // setsockopt
    (365, 5), // getsockopt
    (370, 3), // sendmsg
    (372, 3), // recvmsg
    (364, 4), // accept4
    (337, 5), // recvmmsg
    (345, 4), // sendmmsg
];

pub(super) fn socketcall(t: &mut Task, a: Args) -> Result<u64> {
    let Some((nr, n)) = (a[0] as usize).checked_sub(1).and_then(|i| SOCKET_CALLS.get(i)) else {
        return Err(Errno::EINVAL);
    };
    let mut w = [0u32; 6];
    for (i, v) in w.iter_mut().take(*n).enumerate() {
        *v = t.mem().read(end32(a[1] + 4 * i as u64))?;
    }
    match a[0] {
        5 => native(t, libc::SYS_accept, &w.map(u64::from)),
        9 => native(t, libc::SYS_sendto, &w.map(u64::from)),
        10 => native(t, libc::SYS_recvfrom, &w.map(u64::from)),
        _ => table::call(t, *nr, w),
    }
}

#[cfg(test)]
pub(super) fn control_round_trip(b: &[u8], room: usize) -> (Vec<u8>, bool) {
    widen_control(b).map_or((Vec::new(), false), |w| narrow_control(&w, room))
}
