//! Signals: actions, siginfo, the calls of the time before real-time signals.

use super::layout::{ALTSTACK, Area, Layout, OLD_SIGACTION, SIGACTION, TIMESPEC, TIMESPEC64, end32};
use super::native;
use crate::errno::{Errno, Result};
use crate::signal::SigFields;
use crate::signal::SigInfo;
use crate::task::Task;

type Args = [u64; 6];

fn action(t: &mut Task, a: Args, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let (new, old) = (area.widen(a[1], l)?, area.out(a[2], l)?);
    let r = native(t, libc::SYS_rt_sigaction, &[a[0], new, old, 8])?;
    area.narrow(old, a[2], l)?;
    Ok(r)
}
pub(super) fn rt_sigaction(t: &mut Task, a: Args) -> Result<u64> {
    if a[3] == 8 { action(t, a, &SIGACTION) } else { Err(Errno::EINVAL) }
}
pub(super) fn sigaction(t: &mut Task, a: Args) -> Result<u64> {
    action(t, a, &OLD_SIGACTION)
}
/// signal: the handler runs once, and does not block its signal.
pub(super) fn signal(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let flags = (libc::SA_RESETHAND | libc::SA_NODEFER) as u64;
    let words = [a[1], flags, 0, 0];
    let new = area.put(&words.map(u64::to_le_bytes).concat())?;
    let old = area.room(SIGACTION.wide)?;
    native(t, libc::SYS_rt_sigaction, &[a[0], new, old, 8])?;
    Ok(area.mem.read(old)?)
}

pub(super) fn sigaltstack(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let (new, old) = (area.widen(a[0], &ALTSTACK)?, area.out(a[1], &ALTSTACK)?);
    let r = native(t, libc::SYS_sigaltstack, &[new, old])?;
    area.narrow(old, a[1], &ALTSTACK)?;
    Ok(r)
}

/// The mask of the first 32 signals.
pub(super) fn sigprocmask(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let before = t.thread.mask();
    if a[1] != 0 {
        let v = u64::from(area.mem.read::<u32>(a[1])?);
        // SIG_SETMASK leaves the others as they are.
        let v = if a[0] as i32 == libc::SIG_SETMASK { v | before & !0xffff_ffff } else { v };
        let set = area.put(&v.to_le_bytes())?;
        native(t, libc::SYS_rt_sigprocmask, &[a[0], set, 0, 8])?;
    }
    if a[2] != 0 {
        area.mem.write(a[2], before as u32)?;
    }
    Ok(0)
}
pub(super) fn sigpending(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_rt_sigpending, &[a[0], 4])
}
pub(super) fn sigsuspend(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let set = area.put(&a[2].to_le_bytes())?;
    native(t, libc::SYS_rt_sigsuspend, &[set, 8])
}
pub(super) fn sgetmask(t: &mut Task, _a: Args) -> Result<u64> {
    Ok(t.thread.mask() & 0xffff_ffff)
}
pub(super) fn ssetmask(t: &mut Task, a: Args) -> Result<u64> {
    let before = t.thread.mask();
    t.set_mask(a[0]);
    Ok(before & 0xffff_ffff)
}

pub(super) fn sigreturn(t: &mut Task, _a: Args) -> Result<u64> {
    t.keep_rax = true;
    t.sigreturn32(false);
    Ok(t.cpu.gpr[0])
}
pub(super) fn rt_sigreturn(t: &mut Task, _a: Args) -> Result<u64> {
    t.keep_rax = true;
    t.sigreturn32(true);
    Ok(t.cpu.gpr[0])
}

/// siginfo_t as i386 lays it out.
pub(crate) fn info32(i: &SigInfo) -> [u8; 128] {
    let mut b = [0u8; 128];
    let mut put = |at: usize, v: u32| b[at..at + 4].copy_from_slice(&v.to_le_bytes());
    put(0, i.signo as u32);
    put(4, i.errno as u32);
    put(8, i.code as u32);
    match i.fields {
        SigFields::None => {}
        SigFields::Kill { pid, uid } => {
            put(12, pid as u32);
            put(16, uid);
        }
        SigFields::Queue { pid, uid, value } => {
            put(12, pid as u32);
            put(16, uid);
            put(20, value as u32);
        }
        SigFields::Child { pid, uid, status, utime, stime } => {
            put(12, pid as u32);
            put(16, uid);
            put(20, status as u32);
            put(24, utime as u32);
            put(28, stime as u32);
        }
        SigFields::Fault { addr } => put(12, addr as u32),
        SigFields::Timer { id, overrun, value } => {
            put(12, id as u32);
            put(16, overrun as u32);
            put(20, value as u32);
        }
        SigFields::Poll { band, fd } => {
            put(12, band as u32);
            put(16, fd as u32);
        }
        SigFields::Raw(w) => {
            put(12, w[0] as u32);
            put(16, (w[0] >> 32) as u32);
            put(20, w[1] as u32);
        }
    }
    b
}

/// A program's siginfo in the 64-bit layout: three words behind the code, as all kinds that it may give have.
fn widen_info(area: &mut Area, at: u64) -> Result<u64> {
    let to = area.room(128)?;
    for (from, wide) in [(0, 0), (4, 4), (8, 8), (12, 16), (16, 20), (20, 24)] {
        let v: u32 = area.mem.read(end32(at + from))?;
        area.mem.write(to + wide, v)?;
    }
    Ok(to)
}

/// What waitid says about a child, at `from` in scratch memory, goes to the guest.
pub(super) fn put_info(area: &Area, from: u64, to: u64) -> Result<()> {
    let mut b = [0u8; 128];
    area.mem.copy_out(from, &mut b)?;
    let signo = area.mem.read(from)?;
    let mut info = SigInfo::from_bytes(signo, &b);
    if signo == libc::SIGCHLD && info.code > 0 {
        let SigFields::Raw(w) = info.fields else { return Err(Errno::EINVAL) };
        info.fields = SigFields::Child {
            pid: w[0] as i32,
            uid: (w[0] >> 32) as u32,
            status: w[1] as i32,
            utime: w[2] as i64,
            stime: w[3] as i64,
        };
    }
    Ok(area.mem.copy_in(to, &info32(&info)[..24])?)
}

fn queue(t: &mut Task, nr: i64, mut a: Args, n: usize) -> Result<u64> {
    let mut area = Area::new(t)?;
    if a[n] != 0 {
        a[n] = widen_info(&mut area, a[n])?;
    }
    native(t, nr, &a)
}
pub(super) fn rt_sigqueueinfo(t: &mut Task, a: Args) -> Result<u64> {
    queue(t, libc::SYS_rt_sigqueueinfo, a, 2)
}
pub(super) fn rt_tgsigqueueinfo(t: &mut Task, a: Args) -> Result<u64> {
    queue(t, libc::SYS_rt_tgsigqueueinfo, a, 3)
}
pub(super) fn pidfd_send_signal(t: &mut Task, a: Args) -> Result<u64> {
    queue(t, libc::SYS_pidfd_send_signal, a, 2)
}

fn timedwait(t: &mut Task, a: Args, l: &Layout) -> Result<u64> {
    let mut area = Area::new(t)?;
    let time = area.widen(a[2], l)?;
    let found = t.wait_signal(a[0], time, a[3])?;
    if a[1] != 0 {
        area.mem.copy_in(a[1], &info32(&found))?;
    }
    Ok(found.signo as u64)
}
pub(super) fn rt_sigtimedwait(t: &mut Task, a: Args) -> Result<u64> {
    timedwait(t, a, &TIMESPEC)
}
pub(super) fn rt_sigtimedwait64(t: &mut Task, a: Args) -> Result<u64> {
    timedwait(t, a, &TIMESPEC64)
}
