//! System calls on identity, limits and the system as a whole; and those that an ordinary user may not use.

use super::Syscall;
use super::process::write_rusage;
use crate::errno::{Errno, Result};
use crate::process::{Process, Rlimit, Usage, lock};
use crate::task::Task;
use evm_memory::Mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

fn eperm(_: &mut Task, _: [u64; 6]) -> Result<u64> {
    Err(Errno::EPERM)
}
fn enosys(_: &mut Task, _: [u64; 6]) -> Result<u64> {
    Err(Errno::ENOSYS)
}

/// The system calls of this module.
#[rustfmt::skip]
pub static TABLE: &[Syscall] = &[
    Syscall { nr: 63, name: "uname", args: "p", f: uname },
    Syscall { nr: 97, name: "getrlimit", args: "dp", f: getrlimit },
    Syscall { nr: 98, name: "getrusage", args: "dp", f: getrusage },
    Syscall { nr: 99, name: "sysinfo", args: "p", f: sysinfo },
    Syscall { nr: 100, name: "times", args: "p", f: times },
    Syscall { nr: 102, name: "getuid", args: "", f: |t, _| Ok(u64::from(t.process.credentials().uid)) },
    Syscall { nr: 103, name: "syslog", args: "dpd", f: eperm },
    Syscall { nr: 104, name: "getgid", args: "", f: |t, _| Ok(u64::from(t.process.credentials().gid)) },
    Syscall { nr: 105, name: "setuid", args: "U", f: |t, a| set_ids(t, Who::User, [Some(a[0]), Some(a[0]), Some(a[0])], true) },
    Syscall { nr: 106, name: "setgid", args: "U", f: |t, a| set_ids(t, Who::Group, [Some(a[0]), Some(a[0]), Some(a[0])], true) },
    Syscall { nr: 107, name: "geteuid", args: "", f: |t, _| Ok(u64::from(t.process.credentials().euid)) },
    Syscall { nr: 108, name: "getegid", args: "", f: |t, _| Ok(u64::from(t.process.credentials().egid)) },
    Syscall { nr: 113, name: "setreuid", args: "dd", f: |t, a| set_re(t, Who::User, a) },
    Syscall { nr: 114, name: "setregid", args: "dd", f: |t, a| set_re(t, Who::Group, a) },
    Syscall { nr: 115, name: "getgroups", args: "dp", f: getgroups },
    Syscall { nr: 116, name: "setgroups", args: "dp", f: eperm },
    Syscall { nr: 117, name: "setresuid", args: "ddd", f: |t, a| set_ids(t, Who::User, [id(a[0]), id(a[1]), id(a[2])], false) },
    Syscall { nr: 118, name: "getresuid", args: "ppp", f: |t, a| { let c = t.process.credentials(); get_res(t, a, [c.uid, c.euid, c.suid]) } },
    Syscall { nr: 119, name: "setresgid", args: "ddd", f: |t, a| set_ids(t, Who::Group, [id(a[0]), id(a[1]), id(a[2])], false) },
    Syscall { nr: 120, name: "getresgid", args: "ppp", f: |t, a| { let c = t.process.credentials(); get_res(t, a, [c.gid, c.egid, c.sgid]) } },
    Syscall { nr: 122, name: "setfsuid", args: "d", f: |t, a| set_fs_id(t, Who::User, a[0] as u32) },
    Syscall { nr: 123, name: "setfsgid", args: "d", f: |t, a| set_fs_id(t, Who::Group, a[0] as u32) },
    Syscall { nr: 125, name: "capget", args: "pp", f: capget },
    Syscall { nr: 126, name: "capset", args: "pp", f: capset },
    Syscall { nr: 160, name: "setrlimit", args: "dp", f: setrlimit },
    Syscall { nr: 302, name: "prlimit64", args: "ddpp", f: prlimit },
    Syscall { nr: 318, name: "getrandom", args: "bux", f: getrandom },
    // What an ordinary user may not do.
    Syscall { nr: 101, name: "ptrace", args: "ddpp", f: eperm },
    Syscall { nr: 134, name: "uselib", args: "s", f: enosys },
    Syscall { nr: 153, name: "vhangup", args: "", f: eperm },
    Syscall { nr: 154, name: "modify_ldt", args: "dpu", f: enosys },
    Syscall { nr: 163, name: "acct", args: "s", f: eperm },
    Syscall { nr: 167, name: "swapon", args: "sx", f: eperm },
    Syscall { nr: 168, name: "swapoff", args: "s", f: eperm },
    Syscall { nr: 169, name: "reboot", args: "xxxp", f: eperm },
    Syscall { nr: 170, name: "sethostname", args: "su", f: eperm },
    Syscall { nr: 171, name: "setdomainname", args: "su", f: eperm },
    Syscall { nr: 172, name: "iopl", args: "d", f: eperm },
    Syscall { nr: 173, name: "ioperm", args: "XXd", f: eperm },
    Syscall { nr: 175, name: "init_module", args: "pus", f: eperm },
    Syscall { nr: 176, name: "delete_module", args: "sx", f: eperm },
    Syscall { nr: 179, name: "quotactl", args: "xsdp", f: eperm },
    Syscall { nr: 212, name: "lookup_dcookie", args: "Xpu", f: eperm },
    Syscall { nr: 246, name: "kexec_load", args: "XXpX", f: eperm },
    Syscall { nr: 248, name: "add_key", args: "sspud", f: enosys },
    Syscall { nr: 249, name: "request_key", args: "sssd", f: enosys },
    Syscall { nr: 250, name: "keyctl", args: "dXXXX", f: enosys },
    Syscall { nr: 298, name: "perf_event_open", args: "pdddX", f: |_, _| Err(Errno::EACCES) },
    Syscall { nr: 300, name: "fanotify_init", args: "xx", f: eperm },
    Syscall { nr: 308, name: "setns", args: "fx", f: eperm },
    Syscall { nr: 312, name: "kcmp", args: "dddXX", f: super::kcmp::kcmp },
    Syscall { nr: 313, name: "finit_module", args: "fsx", f: eperm },
    Syscall { nr: 317, name: "seccomp", args: "xxp", f: |_, _| Err(Errno::EINVAL) },
    Syscall { nr: 320, name: "kexec_file_load", args: "ffusX", f: eperm },
    Syscall { nr: 321, name: "bpf", args: "dpu", f: eperm },
    Syscall { nr: 323, name: "userfaultfd", args: "x", f: eperm },
    Syscall { nr: 334, name: "rseq", args: "puxx", f: enosys },
    Syscall { nr: 425, name: "io_uring_setup", args: "up", f: enosys },
    Syscall { nr: 426, name: "io_uring_enter", args: "fuuxpu", f: enosys },
    Syscall { nr: 427, name: "io_uring_register", args: "fupu", f: enosys },
];

fn uname(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let c = &t.kernel().config;
    let mut b = [0u8; 65 * 6];
    const PER_LINUX32: u32 = 8;
    let machine = match t.process.personality.load(Ordering::Relaxed) & 0xff {
        PER_LINUX32 => "i686",
        _ => "x86_64",
    };
    let fields = ["Linux", &c.hostname, &c.release, &c.version, machine, "(none)"];
    for (i, f) in fields.iter().enumerate() {
        let n = f.len().min(64);
        b[65 * i..65 * i + n].copy_from_slice(&f.as_bytes()[..n]);
    }
    t.mem().copy_in(a[0], &b)?;
    Ok(0)
}

fn sysinfo(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let k = t.kernel();
    let total = k.shown_memory();
    let free = total.saturating_sub(k.limits.memory.used());
    let mut b = [0u8; 112];
    let mut w = |at: usize, v: u64| b[at..at + 8].copy_from_slice(&v.to_le_bytes());
    w(0, k.clock.monotonic().as_secs());
    w(32, total);
    w(40, free);
    w(80, k.processes().len() as u64 & 0xffff);
    w(104, 1); // mem_unit
    t.mem().copy_in(a[0], &b)?;
    Ok(0)
}

fn current_usage(t: &Task, who: i32) -> Result<Usage> {
    let (mut own, children) = t.process.usage();
    own.utime = super::time::cpu_or_virtual(t, own.utime);
    own.maxrss = own.maxrss.max(t.process.peak_pages());
    match who {
        libc::RUSAGE_SELF => Ok(own),
        libc::RUSAGE_CHILDREN => Ok(children),
        libc::RUSAGE_THREAD => Ok(Usage { utime: super::time::cpu_or_virtual(t, t.thread.cpu_time()), ..own }),
        _ => Err(Errno::EINVAL),
    }
}

fn getrusage(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let u = current_usage(t, a[0] as i32)?;
    write_rusage(t.mem(), a[1], &u)?;
    Ok(0)
}

fn times(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let ticks = |d: std::time::Duration| (d.as_millis() / 10) as u64;
    if a[0] != 0 {
        let own = current_usage(t, libc::RUSAGE_SELF)?;
        let children = current_usage(t, libc::RUSAGE_CHILDREN)?;
        for (i, d) in [own.utime, own.stime, children.utime, children.stime].into_iter().enumerate() {
            t.mem().write(a[0].wrapping_add(8 * i as u64), ticks(d))?;
        }
    }
    Ok(ticks(t.kernel().clock.monotonic()))
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    User,
    Group,
}

/// -1 leaves an id as it is.
fn id(v: u64) -> Option<u64> {
    (v as u32 != u32::MAX).then_some(v)
}

/// Set real, effective and saved ids to ones that the process has already. `only_effective`: setuid(2) of an ordinary user.
fn set_ids(t: &mut Task, who: Who, ids: [Option<u64>; 3], only_effective: bool) -> Result<u64> {
    let mut c = t.process.cred.write().unwrap_or_else(PoisonError::into_inner);
    let c = &mut *c;
    let root = c.euid == 0;
    let (r, e, s, f) = match who {
        Who::User => (&mut c.uid, &mut c.euid, &mut c.suid, &mut c.fsuid),
        Who::Group => (&mut c.gid, &mut c.egid, &mut c.sgid, &mut c.fsgid),
    };
    let have = [*r, *e, *s];
    for i in ids.into_iter().flatten() {
        let allowed = root || have.contains(&(i as u32));
        if i as u32 == u32::MAX {
            return Err(Errno::EINVAL);
        }
        if !allowed {
            return Err(Errno::EPERM);
        }
    }
    if only_effective && !root {
        *e = ids[1].map_or(*e, |v| v as u32);
    } else {
        *r = ids[0].map_or(*r, |v| v as u32);
        *e = ids[1].map_or(*e, |v| v as u32);
        *s = ids[2].map_or(*s, |v| v as u32);
    }
    *f = *e;
    Ok(0)
}

/// setreuid, setregid: the saved id follows the effective one when the real one is set or the effective one differs from it.
fn set_re(t: &mut Task, who: Who, a: [u64; 6]) -> Result<u64> {
    let c = t.process.credentials();
    let real = if who == Who::User { c.uid } else { c.gid };
    let effective = if who == Who::User { c.euid } else { c.egid };
    let (r, e) = (id(a[0]), id(a[1]));
    let new = e.map_or(effective, |v| v as u32);
    let saved = (r.is_some() || (e.is_some() && new != real)).then_some(u64::from(new));
    set_ids(t, who, [r, e, saved], false)
}

fn get_res(t: &Task, a: [u64; 6], ids: [u32; 3]) -> Result<u64> {
    for (p, v) in a.into_iter().zip(ids) {
        t.mem().write(p, v)?;
    }
    Ok(0)
}

/// Gives the old id, also when the new one is refused.
fn set_fs_id(t: &mut Task, who: Who, new: u32) -> Result<u64> {
    let mut c = t.process.cred.write().unwrap_or_else(PoisonError::into_inner);
    let c = &mut *c;
    let (have, f) = match who {
        Who::User => ([c.uid, c.euid, c.suid], &mut c.fsuid),
        Who::Group => ([c.gid, c.egid, c.sgid], &mut c.fsgid),
    };
    let old = *f;
    if have.contains(&new) || c.euid == 0 {
        *f = new;
    }
    Ok(u64::from(old))
}

fn getgroups(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let g = t.process.credentials().groups;
    let n = a[0] as i32;
    if n < 0 || (n != 0 && (n as usize) < g.len()) {
        return Err(Errno::EINVAL);
    }
    if n != 0 {
        for (i, v) in g.iter().enumerate() {
            t.mem().write(a[1].wrapping_add(4 * i as u64), *v)?;
        }
    }
    Ok(g.len() as u64)
}

/// Number of 32-bit words of each set, from the version in the header.
fn cap_words(t: &Task, header: u64) -> Result<u64> {
    let mem: Mem = t.mem();
    match mem.read::<u32>(header)? {
        0x1998_0330 => Ok(1),
        0x2007_1026 | 0x2008_0522 => Ok(2),
        _ => {
            mem.write(header, 0x2008_0522u32)?;
            Err(Errno::EINVAL)
        }
    }
}

fn capget(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let words = match cap_words(t, a[0]) {
        Err(Errno::EINVAL) if a[1] == 0 => return Ok(0),
        w => w?,
    };
    let pid: i32 = t.mem().read(a[0].wrapping_add(4))?;
    if pid < 0 {
        return Err(Errno::EINVAL);
    }
    if pid != 0 {
        t.kernel().thread(pid).ok_or(Errno::ESRCH)?;
    }
    if a[1] != 0 {
        t.mem().fill(a[1], words * 12, 0)?; // no capabilities
    }
    Ok(0)
}

fn capset(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let words = cap_words(t, a[0])?;
    for i in 0..words * 3 {
        if t.mem().read::<u32>(a[1].wrapping_add(4 * i))? != 0 {
            return Err(Errno::EPERM);
        }
    }
    Ok(0)
}

fn getrlimit(t: &mut Task, [which, at, ..]: [u64; 6]) -> Result<u64> {
    let p = t.process.clone();
    if at == 0 && which < 16 { Err(Errno::EFAULT) } else { rlimit(t, &p, which, 0, at) }
}

fn setrlimit(t: &mut Task, [which, at, ..]: [u64; 6]) -> Result<u64> {
    let p = t.process.clone();
    if at == 0 { Err(Errno::EFAULT) } else { rlimit(t, &p, which, at, 0) }
}

fn prlimit(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    let p = match a[0] as i32 {
        0 => t.process.clone(),
        pid => t.kernel().known(pid).ok_or(Errno::ESRCH)?,
    };
    rlimit(t, &p, a[1], a[2], a[3])
}

fn rlimit(t: &mut Task, p: &Arc<Process>, which: u64, new: u64, old: u64) -> Result<u64> {
    let which = usize::try_from(which as u32).ok().filter(|w| *w < 16).ok_or(Errno::EINVAL)?;
    let mem = t.mem();
    let new = match new {
        0 => None,
        at => Some(Rlimit { cur: mem.read(at)?, max: mem.read(at.wrapping_add(8))? }),
    };
    let before = p.rlimit(which);
    if let Some(n) = new {
        if n.cur > n.max {
            return Err(Errno::EINVAL);
        }
        if n.max > before.max {
            return Err(Errno::EPERM);
        }
        lock(&p.rlimits)[which] = n;
        if which == libc::RLIMIT_NOFILE as usize {
            p.fds().set_limit(n.cur.min(u64::from(u32::MAX)) as u32);
        }
        if which == libc::RLIMIT_CPU as usize {
            crate::timers::watch_cpu(p);
        }
    }
    if old != 0 {
        mem.write(old, before.cur)?;
        mem.write(old.wrapping_add(8), before.max)?;
    }
    Ok(0)
}

fn getrandom(t: &mut Task, a: [u64; 6]) -> Result<u64> {
    const ALLOWED: u64 = (libc::GRND_NONBLOCK | libc::GRND_RANDOM | libc::GRND_INSECURE) as u64;
    const BOTH: u64 = (libc::GRND_RANDOM | libc::GRND_INSECURE) as u64;
    if a[2] & !ALLOWED != 0 || a[2] & BOTH == BOTH {
        return Err(Errno::EINVAL);
    }
    let len = a[1].min(i32::MAX as u64);
    let mut done = 0;
    let mut buf = [0u8; 4096];
    while done < len {
        let n = (len - done).min(buf.len() as u64) as usize;
        t.kernel().random(&mut buf[..n]);
        if let Err(e) = t.mem().copy_in(a[0].wrapping_add(done), &buf[..n]) {
            return if done > 0 { Ok(done) } else { Err(e.into()) };
        }
        done += n as u64;
    }
    Ok(done)
}
