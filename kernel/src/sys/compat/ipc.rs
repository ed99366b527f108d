//! System V's and POSIX's queues, semaphores and shared memory.

use super::layout::{
    Area, Layout, MQ_ATTR, MSQID, SEMID, SHM_INFO, SHMID, SHMINFO, SIGEVENT, TIMESPEC, TIMESPEC64, end32,
};
use super::native;
use crate::errno::{Errno, Result};
use crate::task::Task;

type Args = [u64; 6];

/// The flag for structures of the newer kind, which are the only ones here.
const IPC_64: u64 = 0x100;
const IPC_SET: u64 = 1;
const IPC_STAT: u64 = 2;
const IPC_INFO: u64 = 3;
/// SHM_STAT, SHM_INFO, SHM_STAT_ANY.
const SHM: [u64; 3] = [13, 14, 15];
/// MSG_STAT, MSG_STAT_ANY.
const MSG: [u64; 2] = [11, 13];
/// SEM_STAT, SEM_STAT_ANY.
const SEM: [u64; 2] = [18, 20];
const SETVAL: u64 = 16;

/// A control call whose argument `n` is a structure in or out, by the command.
fn control(t: &mut Task, nr: i64, mut a: Args, n: usize, cmd: u64, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a[n];
    a[n] = if cmd == IPC_SET { area.widen(guest, l)? } else { area.room(l.wide)? };
    let r = native(t, nr, &a)?;
    if cmd != IPC_SET {
        if guest == 0 {
            return Err(Errno::EFAULT);
        }
        area.narrow(a[n], guest, l)?;
    }
    Ok(r)
}

pub(super) fn shmctl(t: &mut Task, a: Args) -> Result<u64> {
    let cmd = a[1] & !IPC_64;
    let a = [a[0], cmd, a[2], 0, 0, 0];
    match cmd {
        IPC_SET | IPC_STAT => control(t, libc::SYS_shmctl, a, 2, cmd, &SHMID),
        IPC_INFO => control(t, libc::SYS_shmctl, a, 2, cmd, &SHMINFO),
        c if c == SHM[1] => control(t, libc::SYS_shmctl, a, 2, cmd, &SHM_INFO),
        c if SHM.contains(&c) => control(t, libc::SYS_shmctl, a, 2, cmd, &SHMID),
        _ => native(t, libc::SYS_shmctl, &a),
    }
}
pub(super) fn msgctl(t: &mut Task, a: Args) -> Result<u64> {
    let cmd = a[1] & !IPC_64;
    let a = [a[0], cmd, a[2], 0, 0, 0];
    match cmd {
        IPC_SET | IPC_STAT => control(t, libc::SYS_msgctl, a, 2, cmd, &MSQID),
        c if MSG.contains(&c) => control(t, libc::SYS_msgctl, a, 2, cmd, &MSQID),
        _ => native(t, libc::SYS_msgctl, &a),
    }
}
pub(super) fn semctl(t: &mut Task, a: Args) -> Result<u64> {
    let cmd = a[2] & !IPC_64;
    let a = [a[0], a[1], cmd, if cmd == SETVAL { a[3] as u32 as i32 as u64 } else { a[3] }, 0, 0];
    match cmd {
        IPC_SET | IPC_STAT => control(t, libc::SYS_semctl, a, 3, cmd, &SEMID),
        c if SEM.contains(&c) => control(t, libc::SYS_semctl, a, 3, cmd, &SEMID),
        _ => native(t, libc::SYS_semctl, &a),
    }
}

/// A message: its type is a `long`.
pub(super) fn msgsnd(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let len = a[2];
    if len > area.left() - 64 {
        return Err(Errno::EINVAL);
    }
    let kind: i32 = area.mem.read(a[1])?;
    let mut b = vec![0; len as usize];
    area.mem.copy_out(end32(a[1] + 4), &mut b)?;
    let wide = [&i64::from(kind).to_le_bytes()[..], &b].concat();
    let at = area.put(&wide)?;
    native(t, libc::SYS_msgsnd, &[a[0], at, len, a[3]])
}
pub(super) fn msgrcv(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    // No message is longer than what fits.
    let len = a[2].min(area.left() - 64);
    let at = area.room(len + 8)?;
    let n = native(t, libc::SYS_msgrcv, &[a[0], at, len, a[3] as u32 as i32 as u64, a[4]])?;
    let kind: i64 = area.mem.read(at)?;
    let mut b = vec![0; n as usize];
    area.mem.copy_out(at + 8, &mut b)?;
    area.mem.write(a[1], kind as i32)?;
    area.mem.copy_in(end32(a[1] + 4), &b)?;
    Ok(n)
}

fn timed(t: &mut Task, nr: i64, mut a: Args, n: usize, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    a[n] = area.widen(a[n], l)?;
    native(t, nr, &a)
}
pub(super) fn semtimedop64(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_semtimedop, a, 3, &TIMESPEC64)
}
pub(super) fn mq_timedsend(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_timedsend, a, 4, &TIMESPEC)
}
pub(super) fn mq_timedsend64(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_timedsend, a, 4, &TIMESPEC64)
}
pub(super) fn mq_timedreceive(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_timedreceive, a, 4, &TIMESPEC)
}
pub(super) fn mq_timedreceive64(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_timedreceive, a, 4, &TIMESPEC64)
}
pub(super) fn mq_open(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_open, a, 3, &MQ_ATTR)
}
pub(super) fn mq_notify(t: &mut Task, a: Args) -> Result<u64> {
    timed(t, libc::SYS_mq_notify, a, 1, &SIGEVENT)
}
pub(super) fn mq_getsetattr(t: &mut Task, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let old = a[2];
    a[1] = area.widen(a[1], &MQ_ATTR)?;
    a[2] = area.out(old, &MQ_ATTR)?;
    let r = native(t, libc::SYS_mq_getsetattr, &a)?;
    area.narrow(a[2], old, &MQ_ATTR)?;
    Ok(r)
}

/// ipc: one call for all of System V's.
pub(super) fn ipc(t: &mut Task, a: Args) -> Result<u64> {
    let [call, first, second, third, ptr, fifth] = a;
    let old = call >> 16 == 0;
    match call & 0xffff {
        1 => native(t, libc::SYS_semop, &[first, ptr, second]),
        2 => native(t, libc::SYS_semget, &[first, second, third]),
        3 => {
            // The union is behind the pointer.
            let value = u64::from(t.mem().read::<u32>(ptr)?);
            semctl(t, [first, second, third, value, 0, 0])
        }
        4 => timed(t, libc::SYS_semtimedop, [first, ptr, second, fifth, 0, 0], 3, &TIMESPEC),
        11 => msgsnd(t, [first, ptr, second, third, 0, 0]),
        12 if old => {
            let mem = t.mem();
            let (at, kind): (u32, u32) = (mem.read(ptr)?, mem.read(end32(ptr + 4))?);
            msgrcv(t, [first, at.into(), second, kind.into(), third, 0])
        }
        12 => msgrcv(t, [first, ptr, second, fifth, third, 0]),
        13 => native(t, libc::SYS_msgget, &[first, second]),
        14 => msgctl(t, [first, second, ptr, 0, 0, 0]),
        21 if !old => Err(Errno::EINVAL),
        21 => {
            let at = native(t, libc::SYS_shmat, &[first, ptr, second])?;
            t.mem().write(third, at as u32)?;
            Ok(0)
        }
        22 => native(t, libc::SYS_shmdt, &[ptr]),
        23 => native(t, libc::SYS_shmget, &[first, second, third]),
        24 => shmctl(t, [first, second, ptr, 0, 0, 0]),
        _ => Err(Errno::ENOSYS),
    }
}
