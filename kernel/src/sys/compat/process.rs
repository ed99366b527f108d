//! Processes: clone's order of arguments, waiting, limits, 16-bit identities, thread-local storage.

use super::layout::{Area, RLIMIT, RUSAGE, end32};
use super::native;
use super::signal::put_info;
use crate::errno::{Errno, Result};
use crate::task::Task;
use evm_cpu::segment::{self, TLS};

type Args = [u64; 6];

pub(super) fn clone(t: &mut Task, a: Args) -> Result<u64> {
    let [flags, stack, parent, tls, child, _] = a;
    native(t, libc::SYS_clone, &[flags, stack, parent, child, tls])
}

pub(super) fn waitpid(t: &mut Task, a: Args) -> Result<u64> {
    native(t, libc::SYS_wait4, &[a[0], a[1], a[2], 0])
}
pub(super) fn wait4(t: &mut Task, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a[3];
    a[3] = area.out(guest, &RUSAGE)?;
    let r = native(t, libc::SYS_wait4, &a)?;
    if r != 0 {
        area.narrow(a[3], guest, &RUSAGE)?;
    }
    Ok(r)
}
pub(super) fn waitid(t: &mut Task, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let (info, usage) = (a[2], a[4]);
    a[2] = area.room(128)?;
    a[4] = area.out(usage, &RUSAGE)?;
    let r = native(t, libc::SYS_waitid, &a)?;
    let found = area.mem.read::<i32>(a[2])? != 0;
    if found {
        area.narrow(a[4], usage, &RUSAGE)?;
    }
    if info != 0 {
        put_info(&area, a[2], info)?;
    }
    Ok(r)
}
pub(super) fn getrusage(t: &mut Task, mut a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let guest = a[1];
    a[1] = area.room(RUSAGE.wide)?;
    let r = native(t, libc::SYS_getrusage, &a)?;
    if guest == 0 {
        return Err(Errno::EFAULT);
    }
    area.narrow(a[1], guest, &RUSAGE)?;
    Ok(r)
}

fn limit(t: &mut Task, a: Args, most: u32) -> Result<u64> {
    let mut area = Area::new(t)?;
    let to = area.room(RLIMIT.wide)?;
    let r = native(t, libc::SYS_getrlimit, &[a[0], to])?;
    let mut b = [0; 8];
    let own = area.room(RLIMIT.narrow)?;
    area.narrow(to, own, &RLIMIT)?;
    area.mem.copy_out(own, &mut b)?;
    for w in b.chunks_exact_mut(4) {
        let v = u32::from_le_bytes([w[0], w[1], w[2], w[3]]).min(most);
        w.copy_from_slice(&v.to_le_bytes());
    }
    area.mem.copy_in(a[1], &b)?;
    Ok(r)
}
pub(super) fn ugetrlimit(t: &mut Task, a: Args) -> Result<u64> {
    limit(t, a, u32::MAX)
}
pub(super) fn old_getrlimit(t: &mut Task, a: Args) -> Result<u64> {
    limit(t, a, i32::MAX as u32)
}
pub(super) fn setrlimit(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let new = area.widen(a[1], &RLIMIT)?;
    native(t, libc::SYS_setrlimit, &[a[0], new])
}

pub(super) fn nice(t: &mut Task, a: Args) -> Result<u64> {
    let by = (a[0] as i32).clamp(-40, 40);
    let value = (t.process.nice() + by).clamp(-20, 19);
    native(t, libc::SYS_setpriority, &[0, 0, value as u64])
}

pub(super) fn sysinfo(t: &mut Task, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let from = area.room(112)?;
    native(t, libc::SYS_sysinfo, &[from])?;
    let word = |at: u64| area.mem.read::<u64>(from + at);
    let (mut unit, mut shift) = (area.mem.read::<u32>(from + 104)?, 0);
    // As Linux: in pages, when bytes do not fit.
    if word(32)? >> 32 != 0 || word(72)? >> 32 != 0 {
        while unit < 4096 {
            (unit, shift) = (unit << 1, shift + 1);
        }
    }
    let mut b = [0u8; 64];
    let mut put = |at: usize, v: u64| b[at..at + 4].copy_from_slice(&(v as u32).to_le_bytes());
    for i in 0..4 {
        put(4 * i, word(8 * i as u64)?); // up time, loads
    }
    for i in 0..6 {
        put(16 + 4 * i, word(32 + 8 * i as u64)? >> shift);
    }
    put(40, u64::from(area.mem.read::<u16>(from + 80)?));
    put(44, word(88)? >> shift);
    put(48, word(96)? >> shift);
    put(52, u64::from(unit));
    area.mem.copy_in(a[0], &b)?;
    Ok(0)
}

/// uname with fields of `size` bytes, without the domain name.
fn short_name(t: &mut Task, to: u64, size: usize) -> Result<u64> {
    let mut area = Area::new(t)?;
    let from = area.room(65 * 6)?;
    native(t, libc::SYS_uname, &[from])?;
    let mut b = vec![0u8; 65 * 5];
    area.mem.copy_out(from, &mut b)?;
    let mut out = Vec::new();
    for f in b.chunks_exact(65) {
        out.extend_from_slice(&f[..size - 1]);
        out.push(0);
    }
    area.mem.copy_in(to, &out)?;
    Ok(0)
}
pub(super) fn olduname(t: &mut Task, a: Args) -> Result<u64> {
    short_name(t, a[0], 65)
}
pub(super) fn oldolduname(t: &mut Task, a: Args) -> Result<u64> {
    short_name(t, a[0], 9)
}

pub(super) fn sched_getaffinity(t: &mut Task, a: Args) -> Result<u64> {
    if !a[1].is_multiple_of(4) {
        return Err(Errno::EINVAL);
    }
    let mut area = Area::new(t)?;
    let len = a[1].min(1024);
    let to = area.room(len.next_multiple_of(8))?;
    let n = native(t, libc::SYS_sched_getaffinity, &[a[0], len.next_multiple_of(8), to])?.min(len);
    let mut b = vec![0; n as usize];
    area.mem.copy_out(to, &mut b)?;
    area.mem.copy_in(a[2], &b)?;
    Ok(n)
}

pub(super) fn arch_prctl(t: &mut Task, a: Args) -> Result<u64> {
    // The bases of segments are for 64-bit programs.
    if matches!(a[0], 0x1001..=0x1004) { Err(Errno::EINVAL) } else { native(t, libc::SYS_arch_prctl, &a) }
}

// ---- identities of 16 bits ----

/// What stands for an identity that does not fit.
const OVERFLOW_ID: u16 = 65534;

fn low(id: u64) -> u64 {
    u64::from(u16::try_from(id as u32).unwrap_or(OVERFLOW_ID))
}
/// -1 stays -1.
fn high(id: u64) -> u64 {
    match id as u16 {
        u16::MAX => u64::from(u32::MAX),
        v => u64::from(v),
    }
}

macro_rules! short_ids {
    ([$($get:ident $get_nr:ident;)*] [$($set:ident $set_nr:ident $n:literal $from:literal;)*]) => {
        $( pub(super) fn $get(t: &mut Task, a: Args) -> Result<u64> {
            native(t, libc::$get_nr, &a).map(low)
        } )*
        $( pub(super) fn $set(t: &mut Task, mut a: Args) -> Result<u64> {
            for v in &mut a[$from..$from + $n] {
                *v = high(*v);
            }
            native(t, libc::$set_nr, &a)
        } )*
    };
}
short_ids! {
    [getuid16 SYS_getuid; geteuid16 SYS_geteuid; getgid16 SYS_getgid; getegid16 SYS_getegid;]
    [setuid16 SYS_setuid 1 0; setgid16 SYS_setgid 1 0; setreuid16 SYS_setreuid 2 0; setregid16 SYS_setregid 2 0;
    setresuid16 SYS_setresuid 3 0; setresgid16 SYS_setresgid 3 0; setfsuid16 SYS_setfsuid 1 0;
    setfsgid16 SYS_setfsgid 1 0; chown16 SYS_chown 2 1; lchown16 SYS_lchown 2 1; fchown16 SYS_fchown 2 1;]
}

fn three(t: &mut Task, nr: i64, a: Args) -> Result<u64> {
    let mut area = Area::new(t)?;
    let to = area.room(16)?;
    native(t, nr, &[to, to + 4, to + 8])?;
    for (i, guest) in a[..3].iter().enumerate() {
        let v = area.mem.read::<u32>(to + 4 * i as u64)?;
        area.mem.write(*guest, low(u64::from(v)) as u16)?;
    }
    Ok(0)
}
pub(super) fn getresuid16(t: &mut Task, a: Args) -> Result<u64> {
    three(t, libc::SYS_getresuid, a)
}
pub(super) fn getresgid16(t: &mut Task, a: Args) -> Result<u64> {
    three(t, libc::SYS_getresgid, a)
}
pub(super) fn getgroups16(t: &mut Task, a: Args) -> Result<u64> {
    let n = a[0] as i32;
    if n <= 0 {
        return native(t, libc::SYS_getgroups, &a);
    }
    let mut area = Area::new(t)?;
    let n = (n as u64).min(4096);
    let list = area.room(4 * n)?;
    let got = native(t, libc::SYS_getgroups, &[n, list])?;
    for i in 0..got {
        let v = area.mem.read::<u32>(list + 4 * i)?;
        area.mem.write(end32(a[1] + 2 * i), low(u64::from(v)) as u16)?;
    }
    Ok(got)
}

// ---- thread-local storage ----

/// struct user_desc: entry, base, limit, flags.
type UserDesc = [u32; 4];

fn read_desc(t: &Task, at: u64) -> Result<UserDesc> {
    let mut d = [0; 4];
    for (i, w) in d.iter_mut().enumerate() {
        *w = t.mem().read(end32(at + 4 * i as u64))?;
    }
    Ok(d)
}

/// The descriptor that a `user_desc` describes; `None` if no thread may have it. An empty one gives 0.
fn encode(d: &UserDesc) -> Option<u64> {
    let [_, base, limit, flags] = d.map(u64::from);
    let bit = |n: u32| flags >> n & 1;
    let contents = flags >> 1 & 3;
    // The two ways to say "none": read_exec_only and seg_not_present, or nothing at all.
    if base == 0 && limit == 0 && (flags & 0x7f == 0x28 || flags & 0x7f == 0) {
        return Some(0);
    }
    if bit(0) == 0 || contents > 1 || bit(5) != 0 {
        return None;
    }
    let kind = 1 | (bit(3) ^ 1) << 1 | contents << 2;
    Some(
        limit & 0xffff
            | (base & 0xff_ffff) << 16
            | kind << 40
            | 0xf << 44 // present, privilege 3, not a system segment
            | (limit >> 16 & 15) << 48
            | bit(6) << 52
            | bit(0) << 54
            | bit(4) << 55
            | (base >> 24) << 56,
    )
}

/// The `user_desc` of a descriptor.
fn decode(entry: u32, d: u64) -> UserDesc {
    let bit = |n: u32| (d >> n & 1) as u32;
    let limit = (d & 0xffff | d >> 32 & 0xf_0000) as u32;
    let flags =
        bit(54) | ((d >> 42 & 3) as u32) << 1 | (bit(41) ^ 1) << 3 | bit(55) << 4 | (bit(47) ^ 1) << 5 | bit(52) << 6;
    [entry, segment::base(d) as u32, limit, flags]
}

impl Task {
    /// Set a descriptor; segment registers that hold its selector see the change.
    fn set_descriptor(&mut self, n: usize, d: u64) {
        let c = &mut self.cpu;
        c.tls[n] = d;
        for (seg, at) in [(4, 0), (5, 1)] {
            if usize::from(c.segs[seg] >> 3) == TLS.start + n {
                let base = segment::load(c, seg, c.segs[seg]);
                if base.is_none() {
                    c.segs[seg] = 0;
                }
                *[&mut c.fs_base, &mut c.gs_base][at] = base.unwrap_or(0);
            }
        }
    }
    /// CLONE_SETTLS.
    pub(crate) fn set_tls(&mut self, tls: u64) -> Result<()> {
        if self.mm().bits == 64 {
            self.cpu.fs_base = tls;
            return Ok(());
        }
        let d = read_desc(self, tls)?;
        let (n, d) = (index(d[0]).ok_or(Errno::EINVAL)?, encode(&d).ok_or(Errno::EINVAL)?);
        self.set_descriptor(n, d);
        Ok(())
    }
}

fn index(entry: u32) -> Option<usize> {
    TLS.contains(&(entry as usize)).then(|| entry as usize - TLS.start)
}

pub(super) fn set_thread_area(t: &mut Task, a: Args) -> Result<u64> {
    let d = read_desc(t, a[0])?;
    let new = encode(&d).ok_or(Errno::EINVAL)?;
    let n = match d[0] {
        u32::MAX => {
            let n = t.cpu.tls.iter().position(|d| *d == 0).ok_or(Errno::ESRCH)?;
            t.mem().write(a[0], (TLS.start + n) as u32)?;
            n
        }
        e => index(e).ok_or(Errno::EINVAL)?,
    };
    t.set_descriptor(n, new);
    Ok(0)
}

pub(super) fn get_thread_area(t: &mut Task, a: Args) -> Result<u64> {
    let entry: u32 = t.mem().read(a[0])?;
    let n = index(entry).ok_or(Errno::EINVAL)?;
    for (i, w) in decode(entry, t.cpu.tls[n]).into_iter().enumerate() {
        t.mem().write(end32(a[0] + 4 * i as u64), w)?;
    }
    Ok(0)
}

#[cfg(test)]
pub(super) fn descriptor_round_trip(d: UserDesc) -> Option<UserDesc> {
    encode(&d).map(|v| decode(d[0], v))
}
